"""`python -m nemodiff speed-of-light`: the fewest forwards that could write serial denoising's text."""

from __future__ import annotations

import argparse
import json
from typing import Any

from nemodiff.cli import options
from nemodiff.command import refuse_unused
from nemodiff.decode.speed_of_light import BUDGET
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError
from nemodiff.evaluate.speed_of_light import heading, line, row
from nemodiff.examples import EXAMPLES
from nemodiff.request import Request


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("speed-of-light", help="the fewest forwards that could write serial denoising's text")
    parser.add_argument("--block-lengths", default="4,8,16,32")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, help=f"how many of the example prompts (default: {len(EXAMPLES)})")
    parser.add_argument("--prompt", help="this text instead of the example prompts")
    parser.add_argument("--budget", type=int, help=f"simulated forwards per block (default: {BUDGET} per position)")
    options.add_model(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per block length")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    try:
        lengths = [int(part) for part in args.block_lengths.split(",")]
    except ValueError:
        raise RequestError(
            f"--block-lengths takes whole numbers separated by commas, not {args.block_lengths!r}."
        ) from None
    if args.prompt is not None:
        refuse_unused(args, "--prompt", ("prompts",), "they are other prompts")
    count = len(EXAMPLES) if args.prompts is None else args.prompts
    if not 1 <= count <= len(EXAMPLES):
        raise RequestError(f"--prompts must be from 1 to {len(EXAMPLES)}, not {count}.")
    spread = [EXAMPLES[i * len(EXAMPLES) // count].prompt for i in range(count)]
    prompts = spread if args.prompt is None else [args.prompt]
    settings: dict[str, Any] = {"modes": ("diffusion",), "order": "best", "max_new_tokens": args.max_new_tokens}
    settings["alternatives"] = 0
    plan = {length: [Request(prompt=one, block_length=length, **settings) for one in prompts] for length in lengths}
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype)
    if not args.json:
        threshold = engine.fill(plan[lengths[0]][0]).threshold
        print(heading(engine, len(prompts), args.max_new_tokens, threshold))
    for length, requests in plan.items():
        figures = row(engine, length, requests, args.budget)
        print(json.dumps(figures) if args.json else line(figures), flush=True)
    return 0
