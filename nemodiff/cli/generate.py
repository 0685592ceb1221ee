"""`python -m nemodiff generate`: answer a prompt in one or all modes, as text, figures or a trace."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from tqdm import tqdm

from nemodiff import command
from nemodiff.cli import options
from nemodiff.conversation import Message, conversation
from nemodiff.engine.devices import GRAPHS
from nemodiff.engine.loading import load
from nemodiff.errors import RequestError
from nemodiff.evaluate.agreement import speed_up
from nemodiff.pictures import open_picture
from nemodiff.request import Request
from nemodiff.trace.events import MODES, Event, Lane, Trace, first_difference


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("generate", help="answer a prompt in one or all modes")
    parser.add_argument("--prompt", help="the user's text")
    parser.add_argument("--system", help="a system prompt, the chat template's first message")
    parser.add_argument(
        "--history",
        type=Path,
        help="a JSON file of earlier turns, which the prompt follows: "
        '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]',
    )
    parser.add_argument("--prompt-ids", help="token ids instead of text, such as 1,2,3")
    parser.add_argument(
        "--image", action="append", default=[], help="a picture, for checkpoints that see; may be given several times"
    )
    parser.add_argument("--mode", choices=[*MODES, "all"], default="all")
    options.add_settings(parser)
    options.add_model(parser)
    parser.add_argument(
        "--graphs",
        nargs="?",
        const="on",
        default="auto",
        choices=GRAPHS,
        help="CUDA graphs on a GPU: auto (where they pass the check on loading), on or off",
    )
    parser.add_argument("--trace", type=Path, help="also write the trace to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    request = _request(args)
    engine = load(args.checkpoint, device=args.device, dtype=args.dtype, report=options.report, graphs=args.graphs)
    forwards: dict[str, int] = {}
    with tqdm(bar_format="forwards: {desc}", leave=False, disable=args.json or None) as bar:

        def count(event: Event) -> None:
            forwards[event.mode] = event.forward
            bar.set_description_str(" · ".join(f"{mode} {done}" for mode, done in forwards.items()), refresh=False)
            bar.update()

        trace = engine.generate(request, count)
    if args.json:
        print(json.dumps(trace.figures()))
    else:
        _print(trace)
    if args.trace:  # last, so that a full disk takes nothing else with it
        trace.recorded = datetime.date.today().isoformat()
        try:
            args.trace.write_text(trace.to_json(), encoding="utf-8")
        except OSError as error:
            raise command.unwritable(args.trace, "trace", error) from error
    return 0


def _request(args: argparse.Namespace) -> Request:
    """What is asked for. Raises RequestError, before anything is loaded, for whatever cannot be used."""
    if args.prompt is None and args.prompt_ids is None:
        raise RequestError("There is no prompt: give --prompt TEXT or --prompt-ids 1,2,3.")
    if args.prompt_ids is not None:
        command.refuse_unused(args, "--prompt-ids", ("prompt", "raw", "system", "history"), "ids are the whole prompt")
    settings = options.settings(args)
    command.check_file(args.trace, "trace")
    return Request(
        prompt=args.prompt or "",
        prompt_ids=_ids(args.prompt_ids),
        system=args.system or "",
        history=_history(args.history),
        images=tuple(open_picture(file) for file in args.image),
        modes=MODES if args.mode == "all" else (args.mode,),
        **settings,
    )


def _history(path: Path | None) -> tuple[Message, ...]:
    """The earlier turns in a file. Raises RequestError."""
    if path is None:
        return ()
    try:
        return conversation(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RequestError(f"--history {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"--history {path} holds no JSON: give a list of messages.") from error


def _ids(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--prompt-ids takes whole numbers separated by commas, not {text!r}.") from None


#: What the figures of a lane count, said above them.
COUNTED = "A first token is the prefill's, which counts as no forward; NFE is what the released code counts."


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
