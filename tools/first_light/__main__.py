"""The command: see the package."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nemodiff.engine.devices import cuda_obstacle, describe_device, gpu_left_out
from tools.first_light import base, checkpoint, correctness, speed
from tools.first_light.report import Findings, Report
from tools.first_light.where import Where

#: Letter → (title, what runs).
PARTS: dict[str, tuple[str, Callable[[Findings, Where], None]]] = {
    "a": ("Tokens and NFE against the CPU", correctness.tokens),
    "b": ("The check on loading, and exactness", correctness.exactness),
    "c": ("Forwards in the released shapes", speed.speed),
    "d": ("The default checkpoint's modes", checkpoint.modes),
    "e": ("Training the default checkpoint", checkpoint.training),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 0 when none failed, 1 when one did, 2 where there is no GPU to run on."""
    parser = argparse.ArgumentParser(prog="python -m tools.first_light", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; by default all, in this order")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at toy size")
    parser.add_argument("--out", type=Path, help="folder for the results (default: $OUT, else runs/first_light)")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts; training gets what is left")
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="lay the base weights into it, in parts to carry")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the parts that were carried in it, then run")
    args = parser.parse_args(arguments)
    if args.pack:
        for part in base.pack(args.pack):
            print(f"{part} ({part.stat().st_size / 2**20:.0f} MiB)")
        return 0
    if args.keep:
        print(base.keep(args.keep), flush=True)
        if args.parts == ["none"]:
            return 0
    if unknown := [name for name in args.parts if name not in PARTS]:
        print(f"There is no part {unknown[0]!r}: choose of {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    if not args.rehearse and (reason := _no_gpu()):
        print(f"There is no GPU to run on ({reason}): --rehearse does it on a CPU, at toy size.", file=sys.stderr)
        return 2
    device = "cpu" if args.rehearse else "cuda"
    out = args.out or Path(os.environ.get("OUT") or "runs/first_light")
    head = {
        "device": describe_device(torch.device(device)),
        "rehearsal": args.rehearse,
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "python": platform.python_version(),
    }
    report = Report(out, head)
    with tempfile.TemporaryDirectory() as scratch:
        where = Where(device, Path(scratch), out, time.monotonic() + 60 * args.minutes)
        for name in args.parts or PARTS:
            title, run = PARTS[name]
            print(f"{name}: {title} …", flush=True)
            found = report.part(name, title, lambda found, run=run: run(found, where))  # type: ignore[misc]
            print(found.markdown(), flush=True)
            where.free()
    failed = [name for name, found in report.findings.items() if found.failed]
    print(f"{out / 'first_light.md'}: " + (f"failed: {', '.join(failed)}" if failed else "every part ran to its end"))
    return 1 if failed else 0


def _no_gpu() -> str | None:
    if not torch.cuda.is_available():
        return gpu_left_out() or "torch sees none"
    return cuda_obstacle()


if __name__ == "__main__":
    raise SystemExit(main())
