"""The command line: generate, checkpoints, bench, sweep, speed-of-light, train."""

from __future__ import annotations

import argparse

from nemodiff import command
from nemodiff.cli import bench, checkpoints, generate, speed_of_light, sweep, train


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 with one sentence on stderr for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="nemodiff", description="One model, three ways to decode.")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (generate, checkpoints, bench, sweep, speed_of_light, train):
        module.add_parser(commands)
    return command.run(parser.parse_args(argv))
