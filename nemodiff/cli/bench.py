"""`python -m nemodiff bench`: the tables of the benchmarks, each by its name and with the options that it uses."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nemodiff.bench import beyond, cpu, examples, perplexity, quality, samplers, shape, trees, vision
from nemodiff.bench.shape import BLOCK, CONTEXT, SHAPES
from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.cli.options import report
from nemodiff.command import check_file, flag, refuse_unused, whole
from nemodiff.engine.devices import DTYPES, GRAPHS, pick_dtype
from nemodiff.errors import RequestError
from nemodiff.request import DRAFTS


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the benches. option: what asks for it, None for the one without. uses: the other options that it reads,
    with their defaults."""

    option: str | None
    run: Callable[[argparse.Namespace], None]
    uses: Mapping[str, Any]

    @property
    def name(self) -> str:
        return "bench" if self.option is None else f"bench {flag(self.option)}"


#: What each bench measures, by its name.
HELP = {
    "shape": "what forwards of a released shape cost here, with random weights",
    "quality": "held-out tasks and prompts, right or wrong, in all modes",
    "vision": "questions about held-out drawings, right or wrong, in all modes",
    "samplers": "every sampler against serial denoising on held-out prompts",
    "drafts": "linear and quadratic drafts and trees of them, and whether a tree gets what it expects",
    "beyond": "quadratic drafts, samplers and speed of light, all tables",
    "cpu": "forwards, AR and self-speculation on this CPU in every dtype",
    "perplexity": "perplexity on this CPU in every dtype, against float32",
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """`bench NAME …` with the options of that bench; `bench --NAME …` is the same with the options of all."""
    parser = commands.add_parser(
        "bench", help="decode the ten example prompts in all modes and print a table", argument_default=None
    )
    flags = parser.add_argument_group("instead of the example prompts, one of")
    for name, words in HELP.items():
        how: dict[str, Any] = {"choices": SHAPES} if name == "shape" else {"action": "store_true"}
        flags.add_argument(flag(name), help=words, **how)
    _add_settings(parser.add_argument_group("settings, each of some of the benches").add_argument)
    parser.set_defaults(func=main)
    names = parser.add_subparsers(dest="name", metavar="NAME", title="the same, with their own options alone")
    for kind in KINDS:
        if kind.option:
            _add_kind(names, kind, kind.option)


def _add_kind(names: argparse._SubParsersAction, kind: Kind, name: str) -> None:
    own = names.add_parser(name, help=HELP[name])
    if name == "shape":
        own.add_argument("shape", choices=SHAPES)
    else:
        own.set_defaults(**{name: True})

    def add(option: str, **how: Any) -> None:
        if option.removeprefix("--").replace("-", "_") in kind.uses:
            own.add_argument(option, **how | {"default": argparse.SUPPRESS})  # what comes before the name holds

    _add_settings(add)


def _add_settings(add: Callable[..., object]) -> None:
    """Every option of the benches; add: takes what `add_argument` does."""
    add("--checkpoint", help="a name of `checkpoints`, a folder or a hub id")
    add("--max-new-tokens", type=int, help="default: 128")
    add("--block-length", type=int)
    add("--threshold", type=float)
    add("--draft", choices=DRAFTS, help="how self-speculation drafts")
    add("--dtype", help="float32, bfloat16 or int8")
    add("--device", help="cpu or cuda")
    add("--graphs", nargs="?", const="on", choices=GRAPHS, help="CUDA graphs on a GPU: auto (default), on or off")
    add("--texts", action="store_true", default=None, help="print every answer too")
    add("--context", type=int, help=f"for --shape: tokens before those that it times ({CONTEXT})")
    add("--peer", choices=cpu.PEERS, help="for --cpu: AR of this engine too, where installed")
    add("--scenes", type=whole(1, 10_000), help="for --vision: drawings of each kind (24)")
    add("--workers", type=whole(1, 64), help="for --quality: processes of one thread each (2)")
    add("--per-family", type=whole(1, 100), help="for --quality: instances a trained family (1)")
    add("--prompts", type=int, help="for --quality: open prompts (60); for --beyond: held-out ones (16)")
    add("--results", type=Path, help="for --quality and --vision: also write every result to this JSONL file")


def main(args: argparse.Namespace) -> int:
    """Run the bench that was asked for. Raises RequestError for options that it does not use."""
    asked = [kind for kind in KINDS if kind.option and getattr(args, kind.option)]
    if len(asked) > 1:
        raise RequestError(f"{' and '.join(kind.name for kind in asked)} are benches of their own: choose one.")
    kind = asked[0] if asked else KINDS[0]
    for name in (name for other in KINDS for name in other.uses if name not in kind.uses):
        others = " and ".join(other.name for other in KINDS if name in other.uses)
        refuse_unused(args, kind.name, [name], f"it is for {others}")
    for name, default in kind.uses.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    check_file(getattr(args, "results", None), "results")
    kind.run(args)
    return 0


def _shape(args: argparse.Namespace) -> None:
    settings = (args.block_length, args.max_new_tokens, args.context, args.graphs)
    print(shape.run(args.shape, args.device, args.dtype, *settings, say=report))


def _dtypes(args: argparse.Namespace) -> tuple[str, ...]:
    """Those to measure on this CPU: the one that was asked for, which must run here, or all."""
    if args.device not in (None, "cpu"):
        raise RequestError(f"--cpu and --perplexity measure this CPU: leave --device {args.device} out.")
    if args.dtype is None:
        return tuple(DTYPES)
    pick_dtype(args.dtype, torch.device("cpu"))
    return (args.dtype,)


def _cpu(args: argparse.Namespace) -> None:
    settings = {"new_tokens": args.max_new_tokens, "block_length": args.block_length, "peer": args.peer}
    print(cpu.run(args.checkpoint, dtypes=_dtypes(args), **settings))


def _perplexity(args: argparse.Namespace) -> None:
    print(perplexity.run(args.checkpoint, dtypes=_dtypes(args)))


def _vision(args: argparse.Namespace) -> None:
    where = {"device": args.device, "dtype": args.dtype, "out": args.results}
    print(vision.run(args.checkpoint, scenes=args.scenes, **where))


def _samplers(args: argparse.Namespace) -> None:
    print(samplers.run(args.checkpoint, block_length=args.block_length, device=args.device, dtype=args.dtype))


def _beyond(args: argparse.Namespace) -> None:
    if not 1 <= args.prompts <= 1000:
        raise RequestError(f"--prompts must be from 1 to 1,000, not {args.prompts}.")
    parts = beyond.run(
        args.checkpoint,
        max_new_tokens=args.max_new_tokens,
        prompts=args.prompts,
        block_length=args.block_length,
        device=args.device,
        dtype=args.dtype,
    )
    for part in parts:
        print(part, end="\n\n", flush=True)


def _drafts(args: argparse.Namespace) -> None:
    where = {"device": args.device, "dtype": args.dtype}
    for part in trees.run(args.checkpoint, max_new_tokens=args.max_new_tokens, **where):
        print(part, end="\n\n", flush=True)


def _quality(args: argparse.Namespace) -> None:
    if not 1 <= args.prompts <= 60:
        raise RequestError(f"--prompts must be from 1 to 60, not {args.prompts}.")
    print(
        quality.run(
            args.checkpoint,
            device=args.device,
            dtype=args.dtype,
            workers=args.workers,
            per_family=args.per_family,
            prompts=args.prompts,
            out=args.results,
        )
    )


def _examples(args: argparse.Namespace) -> None:
    settings = ("max_new_tokens", "block_length", "threshold", "draft")
    decoding = {name: getattr(args, name) for name in settings}
    where = {"device": args.device, "dtype": args.dtype, "graphs": args.graphs, "report": report}
    for part in examples.run(args.checkpoint, decoding, texts=args.texts, **where):
        print(part)


_WHERE = {"device": None, "dtype": None}
_LENGTHS = {"max_new_tokens": 128, "block_length": None}
_OF = {"checkpoint": DEFAULT, **_WHERE}
KINDS = (
    Kind(None, _examples, {**_OF, **_LENGTHS, "threshold": None, "draft": None, "graphs": "auto", "texts": False}),
    Kind("shape", _shape, {**_WHERE, **_LENGTHS, "block_length": BLOCK, "context": CONTEXT, "graphs": "auto"}),
    Kind("quality", _quality, {**_OF, "workers": 2, "per_family": 1, "prompts": 60, "results": None}),
    Kind("vision", _vision, {**_OF, "scenes": 24, "results": None}),
    Kind("samplers", _samplers, {**_OF, "block_length": None}),
    Kind("drafts", _drafts, {**_OF, "max_new_tokens": 128}),
    Kind("beyond", _beyond, {**_OF, **_LENGTHS, "prompts": 16}),
    Kind("cpu", _cpu, {**_OF, **_LENGTHS, "peer": None}),
    Kind("perplexity", _perplexity, _OF),
)
