"""The command: see the package."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

from nemodiff.engine.devices import describe_device
from nemodiff.markdown import head, row
from tools.load.crowd import load
from tools.load.faults import FAULTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.load", description="Load and faults, measured on loopback.")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=3, help="0: faults only")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS))
    args = parser.parse_args()
    print(
        f"\n{describe_device(torch.device('cpu'))} · {os.cpu_count()} cores · load before: {os.getloadavg()[0]:.1f}\n"
    )
    print(head(["what", "seen"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        parts = [load(folder, args.visitors, args.minutes)] if args.minutes else []
        for rows in [*parts, *(FAULTS[name](folder) for name in args.faults)]:
            for what, seen in rows:
                print(row([what, seen]), flush=True)


if __name__ == "__main__":
    main()
