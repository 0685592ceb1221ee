"""`python -m nemodiff sweep`: thresholds and block lengths over the example prompts, against AR."""

from __future__ import annotations

import argparse
import json
import sys

from nemodiff.cli import options
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError
from nemodiff.evaluate.sweep import COUNTED, HEADS, Point, cells, sweep
from nemodiff.examples import EXAMPLES
from nemodiff.markdown import head, row


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("sweep", help="thresholds and block lengths over the example prompts, against AR")
    parser.add_argument("--block-lengths", default="4,8,16")
    parser.add_argument("--thresholds", default="0.7,0.8,0.9,0.95,0.97,0.99")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    options.add_model(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    block_lengths = _numbers(args.block_lengths, int, "--block-lengths")
    thresholds = _numbers(args.thresholds, float, "--thresholds")
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype)
    prompts = [example.prompt for example in EXAMPLES]
    if not args.json:
        print(f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {len(prompts)} prompts\n")
        print(f"{COUNTED}\n")
        print(head(HEADS))
    for step in sweep(engine, prompts, block_lengths, thresholds, args.max_new_tokens):
        if sys.stderr.isatty():
            print(f"\r{step.done} of {step.total} runs", end="\r", file=sys.stderr, flush=True)
        if step.point is not None:
            print(json.dumps(step.point.to_json()) if args.json else _line(step.point), flush=True)
    return 0


def _numbers(text: str, kind: type, name: str) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"{name} takes numbers separated by commas, not {text!r}.") from None


def _line(point: Point) -> str:
    return row((point.mode, *cells(point)))
