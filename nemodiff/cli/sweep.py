"""`python -m nemodiff sweep`: settings of decoding over prompts, against AR."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from nemodiff.cli import options
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError
from nemodiff.evaluate.advice import advice
from nemodiff.evaluate.prompt_file import MAX_CHARACTERS, Asked, read_prompts
from nemodiff.evaluate.sweep import COUNTED, HEADS, Point, cells, measure
from nemodiff.evaluate.variants import Axes
from nemodiff.examples import EXAMPLES
from nemodiff.markdown import head, row


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("sweep", help="settings of decoding over prompts, against AR")
    parser.add_argument("--block-lengths", default="4,8,16")
    parser.add_argument("--thresholds", default="0.7,0.8,0.9,0.95,0.97,0.99")
    parser.add_argument("--samplers", default="confidence", help="of diffusion, with commas between them")
    parser.add_argument("--orders", default="", help="of diffusion: best, leftmost; by default the checkpoint's")
    parser.add_argument("--drafts", default="linear", help="of self-speculation: linear, quadratic, tree")
    parser.add_argument("--rows", default="auto", help="of trees' forwards: numbers, or auto")
    parser.add_argument("--temperatures", default="0")
    parser.add_argument("--repeats", type=int, default=1, help="of every run; tells how much its seconds vary")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a prompt per line, or JSON with its expected answer"
    )
    parser.add_argument("--max-new-tokens", type=int, default=96)
    options.add_model(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    if not 1 <= args.repeats <= 100:
        raise RequestError(f"--repeats must be from 1 to 100, not {args.repeats}.")
    axes = Axes(
        block_lengths=tuple(_numbers(args.block_lengths, int, "--block-lengths")),
        thresholds=tuple(_numbers(args.thresholds, float, "--thresholds")),
        samplers=_names(args.samplers),
        orders=_names(args.orders) or (None,),
        drafts=_names(args.drafts),
        rows=tuple(None if word == "auto" else _numbers(word, int, "--rows")[0] for word in _names(args.rows)),
        temperatures=tuple(_numbers(args.temperatures, float, "--temperatures")),
    )
    prompts = _prompts(args.prompts) if args.prompts else [Asked(example.prompt) for example in EXAMPLES]
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype)
    if not args.json:
        print(f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {len(prompts)} prompts\n")
        print(f"{COUNTED}\n")
        print(head(HEADS))
    points: dict[object, Point] = {}
    with tqdm(unit="run", leave=False, disable=None) as bar:
        for step in measure(engine, prompts, axes.variants(), args.max_new_tokens, repeats=args.repeats):
            bar.total = step.total
            bar.update(step.done - bar.n)
            if step.point is not None and step.point.repeats == args.repeats:
                points[step.point.variant] = step.point
                with tqdm.external_write_mode():
                    print(json.dumps(step.point.to_json()) if args.json else _line(step.point), flush=True)
    if not args.json and (said := advice(list(points.values()))):
        print(f"\n{said}")
    return 0


def _prompts(file: Path) -> list[Asked]:
    try:
        with file.open("rb") as opened:
            text = opened.read(4 * MAX_CHARACTERS + 1).decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"The prompts in {file} cannot be read: {error.strerror or 'check the file'}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"The prompts in {file} are no text in UTF-8: save the file as such.") from error
    found, wrong = read_prompts(text)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    if not found:
        raise RequestError(f"There is no prompt in {file}: write one per line.")
    return found


def _numbers(text: str, kind: type, name: str) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"{name} takes numbers separated by commas, not {text!r}.") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _line(point: Point) -> str:
    return row((point.mode, *cells(point)))
