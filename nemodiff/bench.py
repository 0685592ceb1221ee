"""`python -m nemodiff bench`: the example prompts in all modes, in one run on one machine, as a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean

from nemodiff import (
    bench_beyond,
    bench_cpu,
    bench_perplexity,
    bench_quality,
    bench_samplers,
    bench_shape,
    bench_vision,
)
from nemodiff.analysis.agreement import Totals, agreement
from nemodiff.bench_parts import exactness
from nemodiff.bench_shape import BLOCK, CONTEXT, SHAPES
from nemodiff.checkpoints import DEFAULT, SEEING
from nemodiff.engine import Engine
from nemodiff.errors import RequestError
from nemodiff.examples import EXAMPLES, Example
from nemodiff.loading import DTYPES, load
from nemodiff.request import DRAFTS, Request
from nemodiff.trace import Trace


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="decode the ten example prompts in all modes and print a table")
    parser.add_argument(
        "--shape", choices=SHAPES, help="instead: what forwards of a released shape cost here, with random weights"
    )
    parser.add_argument(
        "--quality", action="store_true", help="instead: held-out tasks and prompts, right or wrong, in all modes"
    )
    parser.add_argument(
        "--vision", action="store_true", help="instead: questions about held-out drawings, right or wrong, in all modes"
    )
    parser.add_argument("--scenes", type=int, default=24, help="for --vision: drawings of each kind")
    parser.add_argument(
        "--samplers", action="store_true", help="instead: every sampler against serial denoising on held-out prompts"
    )
    parser.add_argument(
        "--beyond", action="store_true", help="instead: quadratic drafts, samplers and speed of light, all tables"
    )
    parser.add_argument(
        "--cpu", action="store_true", help="instead: forwards, AR and self-speculation on this CPU in every dtype"
    )
    parser.add_argument("--peer", choices=bench_cpu.PEERS, help="for --cpu: AR of this engine too, where installed")
    parser.add_argument(
        "--perplexity", action="store_true", help="instead: perplexity on this CPU in every dtype, against float32"
    )
    parser.add_argument("--workers", type=int, default=2, help="for --quality: processes of one thread each")
    parser.add_argument("--per-family", type=int, default=1, help="for --quality: instances a trained family")
    parser.add_argument(
        "--prompts", type=int, help="for --quality: open prompts (60); for --beyond: held-out ones (16)"
    )
    parser.add_argument(
        "--results", type=Path, help="for --quality and --vision: also write every result to this JSONL file"
    )
    parser.add_argument("--checkpoint", default=DEFAULT, help="a name of `checkpoints`, a folder or a hub id")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--block-length", type=int)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--draft", choices=DRAFTS, default=DRAFTS[0], help="how self-speculation drafts")
    parser.add_argument("--dtype")
    parser.add_argument("--device")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens before those that --shape times")
    parser.add_argument("--graphs", action="store_true", help="forwards of fixed shapes, as CUDA graphs on a GPU")
    parser.add_argument("--texts", action="store_true", help="print every answer too")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    if args.shape:
        block = args.block_length or BLOCK
        print(
            bench_shape.run(args.shape, args.device, args.dtype, block, args.max_new_tokens, args.context, args.graphs)
        )
        return 0
    if args.cpu or args.perplexity:
        if args.device not in (None, "cpu"):
            raise RequestError(f"--cpu and --perplexity measure this CPU: leave --device {args.device} out.")
        dtypes = tuple(DTYPES) if args.dtype is None else (args.dtype,)
        if args.perplexity:
            print(bench_perplexity.run(args.checkpoint, dtypes=dtypes))
            return 0
        print(
            bench_cpu.run(
                args.checkpoint,
                dtypes=dtypes,
                new_tokens=args.max_new_tokens,
                block_length=args.block_length,
                peer=args.peer,
            )
        )
        return 0
    if args.vision:
        checkpoint = SEEING if args.checkpoint == DEFAULT else args.checkpoint
        if args.scenes < 1:
            raise RequestError(f"--scenes must be at least 1, not {args.scenes}.")
        common = {"device": args.device, "dtype": args.dtype, "out": args.results}
        print(bench_vision.run(checkpoint, scenes=args.scenes, **common))
        return 0
    if args.samplers:
        print(bench_samplers.run(args.checkpoint, block_length=args.block_length, device=args.device, dtype=args.dtype))
        return 0
    if args.beyond:
        prompts = 16 if args.prompts is None else args.prompts
        if not 1 <= prompts <= 1000:
            raise RequestError(f"--prompts must be from 1 to 1,000, not {prompts}.")
        parts = bench_beyond.run(
            args.checkpoint,
            max_new_tokens=args.max_new_tokens,
            prompts=prompts,
            block_length=args.block_length,
            device=args.device,
            dtype=args.dtype,
        )
        for part in parts:
            print(part, end="\n\n", flush=True)
        return 0
    if args.quality:
        open_prompts = 60 if args.prompts is None else args.prompts
        for name, value, low, high in (
            ("--workers", args.workers, 1, 64),
            ("--per-family", args.per_family, 1, 100),
            ("--prompts", open_prompts, 1, 60),
        ):
            if not low <= value <= high:
                raise RequestError(f"{name} must be from {low} to {high}, not {value}.")
        print(
            bench_quality.run(
                args.checkpoint,
                device=args.device,
                dtype=args.dtype,
                workers=args.workers,
                per_family=args.per_family,
                prompts=open_prompts,
                out=args.results,
            )
        )
        return 0
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
    return 0


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
