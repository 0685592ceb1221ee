"""The command line: generate, show, checkpoints, bench, sweep, speed-of-light, train."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from nemodiff import command

COMMANDS = ("generate", "show", "checkpoints", "bench", "sweep", "speed-of-light", "train")


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 with one sentence on stderr for input that cannot be used."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="nemodiff", description="One model, three ways to decode.")
    commands = parser.add_subparsers(dest="command", required=True)
    # A command's module is imported only where it is asked for: to show a run nothing of the engine is needed.
    for name in argv[:1] if argv[:1] and argv[0] in COMMANDS else COMMANDS:
        import_module(f"nemodiff.cli.{name.replace('-', '_')}").add_parser(commands)
    return command.run(parser.parse_args(argv))
