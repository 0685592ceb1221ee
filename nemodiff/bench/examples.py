"""`python -m nemodiff bench`: the example prompts in all modes, in one run on one machine, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nemodiff.bench import beyond, cpu, perplexity, quality, samplers, shape, vision
from nemodiff.bench.shape import BLOCK, CONTEXT, SHAPES
from nemodiff.bench.timing import exactness
from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.command import check_file, flag, refuse_unused, whole
from nemodiff.engine.loading import DTYPES, load, pick_dtype
from nemodiff.engine.local import Engine
from nemodiff.errors import RequestError
from nemodiff.evaluate.agreement import Totals, agreement
from nemodiff.examples import EXAMPLES, Example
from nemodiff.request import DRAFTS, Request
from nemodiff.trace.events import Trace


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


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "bench", help="decode the ten example prompts in all modes and print a table", argument_default=None
    )
    kinds = parser.add_argument_group("instead of the example prompts, one of").add_argument
    kinds("--shape", choices=SHAPES, help="what forwards of a released shape cost here, with random weights")
    kinds("--quality", action="store_true", help="held-out tasks and prompts, right or wrong, in all modes")
    kinds("--vision", action="store_true", help="questions about held-out drawings, right or wrong, in all modes")
    kinds("--samplers", action="store_true", help="every sampler against serial denoising on held-out prompts")
    kinds("--beyond", action="store_true", help="quadratic drafts, samplers and speed of light, all tables")
    kinds("--cpu", action="store_true", help="forwards, AR and self-speculation on this CPU in every dtype")
    kinds("--perplexity", action="store_true", help="perplexity on this CPU in every dtype, against float32")
    add = parser.add_argument_group("settings, each of some of the benches").add_argument
    add("--checkpoint", help="a name of `checkpoints`, a folder or a hub id")
    add("--max-new-tokens", type=int, help="default: 128")
    add("--block-length", type=int)
    add("--threshold", type=float)
    add("--draft", choices=DRAFTS, help="how self-speculation drafts")
    add("--dtype", help="float32, bfloat16 or int8")
    add("--device", help="cpu or cuda")
    add("--graphs", action="store_true", default=None, help="forwards of fixed shapes, as CUDA graphs on a GPU")
    add("--texts", action="store_true", default=None, help="print every answer too")
    add("--context", type=int, help=f"for --shape: tokens before those that it times ({CONTEXT})")
    add("--peer", choices=cpu.PEERS, help="for --cpu: AR of this engine too, where installed")
    add("--scenes", type=whole(1, 10_000), help="for --vision: drawings of each kind (24)")
    add("--workers", type=whole(1, 64), help="for --quality: processes of one thread each (2)")
    add("--per-family", type=whole(1, 100), help="for --quality: instances a trained family (1)")
    add("--prompts", type=int, help="for --quality: open prompts (60); for --beyond: held-out ones (16)")
    add("--results", type=Path, help="for --quality and --vision: also write every result to this JSONL file")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
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
    print(shape.run(args.shape, args.device, args.dtype, *settings))


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
    requests = {
        example: Request(
            prompt=example.prompt,
            max_new_tokens=args.max_new_tokens,
            block_length=args.block_length,
            threshold=args.threshold,
            draft=args.draft,
            alternatives=0,
        )
        for example in EXAMPLES
    }
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype, graphs=args.graphs)
    traces: dict[Example, Trace] = {}
    for example, request in requests.items():
        print(f"{example.label} …", file=sys.stderr, flush=True)
        traces[example] = engine.generate(request)
    print(table(engine, traces))
    if args.texts:
        for example, trace in traces.items():
            for lane in trace.lanes:
                print(f"\n## {example.label}, {lane.mode}\n{lane.text}")


_WHERE = {"device": None, "dtype": None}
_LENGTHS = {"max_new_tokens": 128, "block_length": None}
_OF = {"checkpoint": DEFAULT, **_WHERE}
KINDS = (
    Kind(None, _examples, {**_OF, **_LENGTHS, "threshold": None, "draft": DRAFTS[0], "graphs": False, "texts": False}),
    Kind("shape", _shape, {**_WHERE, **_LENGTHS, "block_length": BLOCK, "context": CONTEXT, "graphs": False}),
    Kind("quality", _quality, {**_OF, "workers": 2, "per_family": 1, "prompts": 60, "results": None}),
    Kind("vision", _vision, {**_OF, "scenes": 24, "results": None}),
    Kind("samplers", _samplers, {**_OF, "block_length": None}),
    Kind("beyond", _beyond, {**_OF, **_LENGTHS, "prompts": 16}),
    Kind("cpu", _cpu, {**_OF, **_LENGTHS, "peer": None}),
    Kind("perplexity", _perplexity, _OF),
)


def table(engine: Engine, traces: dict[Example, Trace]) -> str:
    """A markdown table: a row a prompt, then rows of several prompts together, whose figures are ratios of totals; only
    agreement is a mean. Speed-ups are ratios of model seconds a token, against AR's."""
    request = next(iter(traces.values())).request
    settings = (
        f"{request['draft']} drafts, block {request['block_length']}, threshold {request['threshold']}, greedy, "
        f"at most {request['max_new_tokens']} new tokens"
    )
    head = (
        f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {exactness(engine)} · {settings}\n\n"
        "| prompt | AR tokens | AR tokens/s | diffusion TPF | tokens/s | × AR | agrees with AR | acceptance length | "
        "self-spec. TPF | tokens/s | × AR | identical to AR |\n"
        f"| --- |{' --- |' * 11}"
    )
    lines = [head, *(_line(example.label, [trace]) for example, trace in traces.items())]
    for name, kind in (("structured", True), ("open-ended", False), ("all", None)):
        chosen = [trace for example, trace in traces.items() if kind is None or example.structured is kind]
        lines.append(_line(f"**{name}, together**", chosen))
    return "\n".join(lines)


def _line(label: str, traces: list[Trace]) -> str:
    ar, diffusion, speculation = (
        Totals.of(trace[mode] for trace in traces) for mode in ("ar", "diffusion", "self-speculation")
    )
    agrees = fmean(agreement(trace["diffusion"], trace["ar"]) for trace in traces)
    same = fmean(trace["self-speculation"].tokens == trace["ar"].tokens for trace in traces)
    cells = [
        label,
        f"{ar.tokens}",
        f"{ar.rate:.1f}",
        f"{diffusion.tpf:.2f}",
        f"{diffusion.rate:.1f}",
        f"{diffusion.speed_up(ar) or 0:.2f}×",
        f"{agrees:.0%}",
        f"{speculation.acceptance:.2f}",
        f"{speculation.tpf:.2f}",
        f"{speculation.rate:.1f}",
        f"{speculation.speed_up(ar) or 0:.2f}×",
        f"{same:.0%}",
    ]
    return "| " + " | ".join(cells) + " |"
