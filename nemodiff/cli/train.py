"""`python -m nemodiff train …`: distil chat from the base, train jointly, export, train what goes beside it."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from nemodiff import command
from nemodiff.checkpoints.catalogue import DEFAULT, base_weights
from nemodiff.command import check_file, check_folder, check_there, is_there, number, refuse_unused, whole
from nemodiff.model.weights import LORA
from nemodiff.samplers.trained import SIZES

DEFAULT_CHAT = Path("runs/chat.jsonl")
DEFAULT_RUN = Path("runs/joint")
DEFAULT_ADAPTER = Path("assets/checkpoints/smollm2-135m-tri")


def _base(args: argparse.Namespace) -> Path:
    check_there(args.base, "base checkpoint")
    return args.base or base_weights(lambda line: print(line, flush=True))


def _distill(args: argparse.Namespace) -> int:
    from nemodiff.training.distill import distill

    check_folder(args.out.parent, "folder of --out")
    check_file(args.out, "answers")
    kept = distill(
        _base(args),
        args.out,
        limit=args.limit,
        slots=args.slots,
        max_new_tokens=args.max_new_tokens,
        neutral=args.neutral,
        device=args.device,
    )
    print(f"{kept} answers kept in {args.out}")
    return 0


def _joint(args: argparse.Namespace) -> int:
    from nemodiff.training.joint import Settings, train

    check_there(args.base, "base checkpoint")
    check_there(args.chat, "chat made by `distill`")
    check_there(args.start, "exported adapter")
    check_folder(args.out, "run")
    if args.device != "cpu":
        refuse_unused(args, f"--device {args.device}", ("workers",), "there is one process")
    chat = args.chat or DEFAULT_CHAT
    if not chat.exists():
        chat = None
        print(
            f"{DEFAULT_CHAT} is not there: training on structured tasks alone. "
            "Make it with `python -m nemodiff train distill`."
        )
    train(
        Settings(
            base=str(_base(args)),
            out=str(args.out),
            chat=str(chat) if chat else None,
            start=str(args.start) if args.start else None,
            minutes=args.minutes,
            rank=args.rank,
            budget=args.budget,
            copies=args.copies,
            learning_rate=args.learning_rate,
            workers=args.workers or 2,
            device=args.device,
            seed=args.seed,
            save_minutes=args.save_minutes,
            watch_minutes=args.watch_minutes,
        ),
        resume=args.resume,
    )
    return 0


def _export(args: argparse.Namespace) -> int:
    from nemodiff.training.curve import curve
    from nemodiff.training.joint import export

    check_there(args.run / "state.pt", "saved state")
    check_folder(args.out, "adapter")
    path = export(args.run / "state.pt", args.out, block_length=args.block_length, threshold=args.threshold)
    log = args.run / "log.jsonl"
    if log.exists():
        (args.out / "curve.svg").write_text(curve(log), encoding="utf-8")
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _drafter(args: argparse.Namespace) -> int:
    from nemodiff.training.drafter import Run, Settings

    check_there(args.chat, "chat made by `distill`")
    check_folder(args.out, "run")
    check_folder(args.to, "draft LoRA")
    chat = args.chat or DEFAULT_CHAT
    settings = Settings(
        checkpoint=args.checkpoint,
        out=str(args.out),
        chat=str(chat) if chat.exists() else None,
        minutes=args.minutes,
        rank=args.rank,
        budget=args.budget,
        learning_rate=args.learning_rate,
        device=args.device,
        seed=args.seed,
    )
    run = Run(settings, resume=args.resume)
    run.train()
    print(f"drafts accepted per block, of batches that were not trained on: {run.measure()}")
    path = run.export(args.to)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _sampler(args: argparse.Namespace) -> int:
    from nemodiff.training.sampler_run import run

    more = {"size": args.size, "block_length": args.block_length}
    return _collecting(args, run, "sampler", "trajectories", **more)


def _draft_head(args: argparse.Namespace) -> int:
    from nemodiff.training.draft_head import run

    check_there(args.start, "draft head")
    return _collecting(args, run, "draft head", "groups", start=args.start)


def _collecting(args: argparse.Namespace, run: Callable[..., str], made: str, collected: str, **more: Any) -> int:
    """A step that collects something of a checkpoint's runs, or takes it from --states, and trains a network on it."""
    check_folder(args.out, made)
    if args.states and is_there(args.states):
        refuse_unused(args, "--states FILE", ("minutes",), f"its {collected} are there already")
    else:
        check_file(args.states, collected)
    where = {"device": args.device, "dtype": args.dtype, "seed": args.seed}
    minutes = args.usual_minutes if args.minutes is None else args.minutes
    print(run(args.checkpoint, args.out, minutes=minutes, steps=args.steps, states_file=args.states, **where, **more))
    return 0


def _vision(args: argparse.Namespace) -> int:
    from nemodiff.training.vision import Settings, train

    if args.resume:
        refuse_unused(args, "--resume", ("start",), "the state in --out is gone on from")
        check_there(args.out / "state.pt", "saved state")
    check_there(args.start, "exported checkpoint")
    check_folder(args.out, "run")
    check_folder(args.to, "checkpoint")
    minutes = tuple(args.minutes)
    start = str(args.start) if args.start else None
    settings = Settings(args.checkpoint, str(args.out), minutes, start, args.seed, workers=args.workers)
    train(settings, args.to, resume=args.resume)
    return 0


Steps: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(subparsers: Steps) -> argparse.ArgumentParser:
    """Add `train` with its steps to the command line; each sets func(args) -> exit code."""
    parser = subparsers.add_parser("train", help="make the small tri-mode checkpoint")
    _add_steps(parser)
    return parser


def _add_steps(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True)
    _add_distill(steps)
    _add_joint(steps)
    _add_drafter(steps)
    _add_sampler(steps)
    _add_draft_head(steps)
    _add_vision(steps)
    _add_export(steps)


def _add_distill(steps: Steps) -> None:
    distill = steps.add_parser("distill", help="the base's answers to our open prompts and its plain text; resumable")
    distill.add_argument("--base", type=Path, help="folder of the base checkpoint (default: SmolLM2, fetched)")
    distill.add_argument("--out", type=Path, default=DEFAULT_CHAT)
    distill.add_argument("--limit", type=whole(1, 1_000_000), default=3500, help="how many prompts")
    distill.add_argument("--neutral", type=whole(0, 1_000_000), default=256, help="how many openings of plain text")
    distill.add_argument("--slots", type=whole(1, 4096), default=128, help="how many texts at once")
    distill.add_argument("--max-new-tokens", type=whole(1, 4096), default=128)
    distill.add_argument("--device", default="cpu")
    distill.set_defaults(func=_distill)


def _add_joint(steps: Steps) -> None:
    joint = steps.add_parser("joint", help="joint training of the low-rank update")
    joint.add_argument("--base", type=Path, help="folder of the base checkpoint (default: SmolLM2, fetched)")
    joint.add_argument(
        "--chat", type=Path, help=f"JSONL made by `distill` (default: {DEFAULT_CHAT}, where it is there)"
    )
    joint.add_argument("--out", type=Path, default=DEFAULT_RUN, help="folder for log.jsonl and state.pt")
    joint.add_argument(
        "--minutes",
        type=number(0.01, 100_000),
        default=75.0,
        help="training time in all; the learning rate falls towards its end",
    )
    joint.add_argument("--resume", action="store_true", help="go on from the state in --out")
    joint.add_argument("--start", type=Path, help="folder of an exported adapter to go on from (same rank)")
    joint.add_argument("--rank", type=whole(1, 576), default=64)
    joint.add_argument("--budget", type=whole(64, 1_000_000), default=2400, help="stream tokens per worker and step")
    joint.add_argument("--copies", type=whole(1, 64), default=2, help="noisy copies a clean sequence")
    joint.add_argument("--learning-rate", type=number(1e-9, 10), default=1e-3)
    joint.add_argument("--workers", type=whole(1, 256), help="processes of one thread each (CPU only; default: 2)")
    joint.add_argument("--device", default="cpu", help="cpu, or cuda (one process)")
    joint.add_argument("--seed", type=whole(0, 2**63 - 1), default=0)
    joint.add_argument("--save-minutes", type=number(0, 100_000), default=3.0)
    joint.add_argument(
        "--watch-minutes",
        type=number(0, 100_000),
        default=10.0,
        help="how often acceptance on held-out prompts is measured; 0: never",
    )
    joint.set_defaults(func=_joint)


def _add_drafter(steps: Steps) -> None:
    drafter = steps.add_parser("drafter", help="a low-rank update of o_proj that is on while drafting alone; resumable")
    drafter.add_argument("--checkpoint", default=DEFAULT, help="a name of `checkpoints`, a folder or a hub id")
    drafter.add_argument("--chat", type=Path, help="what `distill` wrote (default: runs/chat.jsonl if it is there)")
    drafter.add_argument("--out", type=Path, default=Path("runs/drafter"), help="folder for log.jsonl and state.pt")
    drafter.add_argument("--to", type=Path, default=DEFAULT_ADAPTER / LORA, help="folder to export to")
    drafter.add_argument("--minutes", type=number(0, 100_000), default=30.0, help="in all, resumed parts included")
    drafter.add_argument("--resume", action="store_true", help="go on from the state in --out")
    drafter.add_argument("--rank", type=whole(1, 1024), default=16)
    drafter.add_argument("--budget", type=whole(1, 1_000_000), default=2400, help="stream tokens per step")
    drafter.add_argument("--learning-rate", type=number(0, 1), default=1e-3)
    drafter.add_argument("--device", default="cpu")
    drafter.add_argument("--seed", type=whole(0, 2**63 - 1), default=0)
    drafter.set_defaults(func=_drafter)


def _add_sampler(steps: Steps) -> None:
    sampler = steps.add_parser("sampler", help="the trained sampler, on a checkpoint's own denoising trajectories")
    sampler.add_argument("--size", choices=SIZES, default="small")
    sampler.add_argument("--block-length", type=whole(2, 64))
    _add_collecting(sampler, "sampler", "trajectories", minutes=12, steps=600)
    sampler.set_defaults(func=_sampler)


def _add_draft_head(steps: Steps) -> None:
    head = steps.add_parser("draft-head", help="the draft head, on what masks guess along a checkpoint's own answers")
    _add_collecting(head, "draft_head", "groups of masks", minutes=15, steps=1500)
    head.add_argument("--start", type=Path, help="folder of a draft head to go on from")
    head.set_defaults(func=_draft_head)


def _add_collecting(parser: argparse.ArgumentParser, folder: str, collected: str, minutes: int, steps: int) -> None:
    """The options of a step that `_collecting` runs."""
    parser.add_argument("--checkpoint", default=DEFAULT, help="a name of `checkpoints`, a folder or a hub id")
    parser.add_argument("--out", type=Path, default=DEFAULT_ADAPTER / folder)
    parser.add_argument("--minutes", type=number(0.01, 100_000), help=f"of collecting {collected} (default: {minutes})")
    parser.set_defaults(usual_minutes=minutes)
    parser.add_argument("--steps", type=whole(1, 1_000_000), default=steps, help="of training")
    parser.add_argument("--states", type=Path, help=f"file to keep the {collected} in, or to take them from")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=0)


def _add_vision(steps: Steps) -> None:
    vision = steps.add_parser("vision", help="a small tower before the checkpoint, on drawings; resumable")
    vision.add_argument("--checkpoint", default=DEFAULT, help="the text checkpoint that learns to see")
    vision.add_argument("--out", type=Path, default=Path("runs/vision"), help="folder for log.jsonl and state.pt")
    vision.add_argument("--to", type=Path, default=DEFAULT_ADAPTER / "vision", help="folder to export to")
    vision.add_argument(
        "--minutes",
        type=number(0, 100_000),
        nargs=3,
        default=(10.0, 60.0, 15.0),
        metavar=("CODES", "SEEING", "ANSWERS"),
        help="of each of its three parts",
    )
    vision.add_argument("--resume", action="store_true", help="go on from the state in --out")
    vision.add_argument("--start", type=Path, help="folder of an exported checkpoint to go on from")
    vision.add_argument("--seed", type=whole(0, 2**63 - 1), default=0)
    vision.add_argument("--workers", type=whole(1, 64), default=1, help="processes that train together, a thread each")
    vision.set_defaults(func=_vision)


def _add_export(steps: Steps) -> None:
    export = steps.add_parser("export", help="a saved state → adapter.safetensors and adapter_config.json")
    export.add_argument("--run", type=Path, default=DEFAULT_RUN, help="folder of the run")
    export.add_argument("--out", type=Path, default=DEFAULT_ADAPTER)
    export.add_argument("--block-length", type=whole(2, 64), default=8, help="the checkpoint's default")
    export.add_argument("--threshold", type=number(0, 1), default=0.95, help="the checkpoint's default")
    export.set_defaults(func=_export)


def main(argv: list[str] | None = None) -> int:
    """The same steps without the rest of the command line: `python -m nemodiff.cli.train joint …`."""
    parser = argparse.ArgumentParser(prog="python -m nemodiff.cli.train", description=__doc__)
    _add_steps(parser)
    return command.run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
