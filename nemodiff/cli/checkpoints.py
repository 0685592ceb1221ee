"""`python -m nemodiff checkpoints`: what can be loaded, and whether it fits the free memory here."""

from __future__ import annotations

import argparse

from nemodiff.checkpoints.catalogue import CATALOGUE
from nemodiff.engine.loading import obstacles


def add_parser(commands: argparse._SubParsersAction) -> None:
    commands.add_parser("checkpoints", help="list checkpoints and whether they fit here").set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    why_not = obstacles()
    for entry in CATALOGUE:
        print(f"{entry.name}\n    {entry.title}: {entry.size}, {entry.licence}. {entry.note}")
        reason = why_not[entry.name]
        print(f"    Does not fit here: {reason}." if reason else "    Fits here.")
    return 0
