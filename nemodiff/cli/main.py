"""The command line: generate, checkpoints, bench, sweep, speed-of-light, train."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from nemodiff import command
from nemodiff.bench import examples
from nemodiff.checkpoints.catalogue import CATALOGUE, DEFAULT
from nemodiff.cli import train as training
from nemodiff.engine.loading import load, obstacles
from nemodiff.errors import RequestError
from nemodiff.evaluate import speed_of_light, sweep
from nemodiff.evaluate.agreement import speed_up
from nemodiff.pictures import open_picture
from nemodiff.request import Request
from nemodiff.trace.events import MODES, Event, Lane, Trace, first_difference

ENTROPY_BOUND = 0.3
#: The options of one sampler's own.
USED = {
    "confidence": ("threshold",),
    "trained": ("threshold",),
    "fixed": ("steps",),
    "entropy": ("entropy_bound",),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 with one sentence on stderr for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="nemodiff", description="One model, three ways to decode.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_generate(commands)
    commands.add_parser("checkpoints", help="list checkpoints and whether they fit here").set_defaults(
        func=_checkpoints
    )
    examples.add_parser(commands)
    sweep.add_parser(commands)
    speed_of_light.add_parser(commands)
    training.add_parser(commands)
    return command.run(parser.parse_args(argv))


def _add_generate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("generate", help="answer a prompt in one or all modes")
    parser.add_argument("--prompt", help="the user's text")
    parser.add_argument("--prompt-ids", help="token ids instead of text, such as 1,2,3")
    parser.add_argument(
        "--image", action="append", default=[], help="a picture, for checkpoints that see; may be given several times"
    )
    parser.add_argument("--mode", choices=[*MODES, "all"], default="all")
    parser.add_argument("--checkpoint", default=DEFAULT, help="a name of `checkpoints`, a folder or a hub id")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--block-length", type=int, help="positions a block (default: the checkpoint's)")
    parser.add_argument(
        "--threshold", type=float, help="confidence at which the sampler commits (default: the checkpoint's)"
    )
    parser.add_argument("--sampler", default="confidence", help="confidence, entropy, fixed or trained")
    parser.add_argument(
        "--order", help="best (as released) or leftmost: where diffusion commits first (default: the checkpoint's)"
    )
    parser.add_argument("--steps", type=int, help="forwards a block, for --sampler fixed")
    parser.add_argument("--entropy-bound", type=float, help=f"nats a forward, for --sampler entropy ({ENTROPY_BOUND})")
    parser.add_argument(
        "--draft",
        default="linear",
        help="linear (draft, then verify), quadratic (both in one forward) or tree (both, over a tree of drafts)",
    )
    parser.add_argument(
        "--rows", help="rows of a forward of --draft tree at most, or auto: as their cost here decides (default: auto)"
    )
    parser.add_argument(
        "--acceptance", default="match", help="at a temperature: match, independent (match, as released) or sampling"
    )
    parser.add_argument(
        "--ar-weight", type=float, default=1.0, help="AR's share in the verifier of --draft quadratic (1: AR's text)"
    )
    parser.add_argument(
        "--adapter", action=argparse.BooleanOptionalAction, default=True, help="the draft LoRA, where there is one"
    )
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-thinking-tokens", type=int, help="force </think> after this many tokens without it")
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument(
        "--raw",
        action="store_true",
        default=None,
        help="skip the chat template; control tokens written out in it take effect",
    )
    parser.add_argument("--dtype", help="float32, bfloat16 or int8 (default: what is fastest here)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--graphs", action="store_true", help="forwards of fixed shapes, as CUDA graphs on a GPU")
    parser.add_argument("--trace", type=Path, help="also write the trace to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=_generate)


def _generate(args: argparse.Namespace) -> int:
    if args.prompt is None and args.prompt_ids is None:
        raise RequestError("There is no prompt: give --prompt TEXT or --prompt-ids 1,2,3.")
    if args.prompt_ids is not None:
        command.refuse_unused(args, "--prompt-ids", ("prompt", "raw"), "ids are the whole prompt")
    for sampler, options in USED.items():
        if args.sampler in USED and args.sampler != sampler:
            unused = [name for name in options if name not in USED[args.sampler]]
            command.refuse_unused(args, f"--sampler {args.sampler}", unused, "leave it out")
    command.check_file(args.trace, "trace")
    request = Request(
        prompt=args.prompt or "",
        prompt_ids=_ids(args.prompt_ids),
        images=tuple(open_picture(file) for file in args.image),
        modes=MODES if args.mode == "all" else (args.mode,),
        max_new_tokens=args.max_new_tokens,
        block_length=args.block_length,
        threshold=args.threshold,
        sampler=args.sampler,
        order=args.order,
        steps=args.steps,
        entropy_bound=ENTROPY_BOUND if args.entropy_bound is None else args.entropy_bound,
        draft=args.draft,
        rows=_rows(args.rows),
        acceptance=args.acceptance,
        ar_weight=args.ar_weight,
        adapter=args.adapter,
        temperature=args.temperature,
        seed=args.seed,
        max_thinking_tokens=args.max_thinking_tokens,
        ignore_eos=args.ignore_eos,
        raw=bool(args.raw),
    )
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype, report=_report, graphs=args.graphs)
    live = None if args.json else _Progress()
    trace = engine.generate(request, live)
    if live is None:
        print(json.dumps(trace.figures()))
    else:
        live.close()
        _print(trace)
    if args.trace:  # last, so that a full disk takes nothing else with it
        trace.recorded = datetime.date.today().isoformat()
        try:
            args.trace.write_text(trace.to_json(), encoding="utf-8")
        except OSError as error:
            raise command.unwritable(args.trace, "trace", error) from error
    return 0


def _ids(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--prompt-ids takes whole numbers separated by commas, not {text!r}.") from None


def _rows(text: str | None) -> int | None:
    if text in (None, "auto"):
        return None
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"--rows takes a whole number or auto, not {text!r}.") from None


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


#: What the figures of a lane count, said above them.
COUNTED = "A first token is the prefill's, which counts as no forward; NFE is what the released code counts."


class _Progress:
    """A single line on a terminal: forwards so far."""

    def __init__(self) -> None:
        self._forwards: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        self._forwards[event.mode] = event.forward
        if sys.stderr.isatty():
            counts = " · ".join(f"{mode} {count}" for mode, count in self._forwards.items())
            print(f"\r\033[Kforwards: {counts}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print(trace: Trace) -> None:
    print(f"{trace.checkpoint} · {trace.device} · {trace.dtype}\n{COUNTED}")
    reference = trace.lane("ar")
    for lane in trace.lanes:
        print(f"\n── {lane.mode}: {_summary(lane, reference)}\n{lane.text}")


def _summary(lane: Lane, reference: Lane | None) -> str:
    figures = lane.figures()
    parts = [
        f"{len(lane.tokens)} tokens",
        f"{lane.forwards} forwards",
        f"NFE {lane.nfe}",
        f"{lane.seconds:.2f} s",
        f"finish {lane.finish}",
    ]
    if lane.tpf:
        parts.insert(2, f"{lane.tpf:.2f} tokens/forward")
    if lengths := figures["acceptance_lengths"]:
        parts.append(f"acceptance length {sum(lengths) / len(lengths):.2f}")
    if reference is not None and lane is not reference:
        parts.append(f"{speed_up(lane, reference) or 0.0:.2f}× AR")
        place = first_difference(lane.tokens, reference.tokens)
        parts.append("identical to AR" if place is None else f"differs from AR at token {place}")
    return ", ".join(parts)


def _checkpoints(args: argparse.Namespace) -> int:
    why_not = obstacles()
    for entry in CATALOGUE:
        print(f"{entry.name}\n    {entry.title}: {entry.size}, {entry.licence}. {entry.note}")
        reason = why_not[entry.name]
        print(f"    Does not fit here: {reason}." if reason else "    Fits here.")
    return 0
