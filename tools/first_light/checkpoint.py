"""Parts d and e: the default checkpoint's modes on the device, and its training there."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from nemodiff.bench.examples import EXAMPLES
from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.evaluate.agreement import speed_up
from nemodiff.request import Request
from nemodiff.training.distill import distill
from nemodiff.training.joint import Settings, Trainer, export, train
from nemodiff.training.progress import read_state
from tests.helpers.checkpoints import write_chat
from tools.first_light.base import base
from tools.first_light.report import Findings
from tools.first_light.where import Where

#: Bytes of a file that can be brought back.
PIECE = 15 * 2**20
#: Stream tokens of a step that are tried, until memory ends.
BUDGETS = (16_384, 32_768, 65_536, 131_072, 262_144)
#: Seconds that are left for exporting and for what comes after.
RESERVE = 60.0


def modes(found: Findings, where: Where) -> None:
    """Part d: three modes on the examples, in graphs and in eager torch; a temperature and a tree besides."""
    name = write_chat(where.scratch / "chat") if where.rehearsal else DEFAULT
    examples = EXAMPLES[:1] if where.rehearsal else EXAMPLES
    dtype = "float32" if where.rehearsal else None
    for graphs in (True, False):
        engine = where.open(name, dtype, graphs, found.notes.append)
        wanted = ("ar",) if engine.bounds.mask_token_id is None else ("ar", "diffusion", "self-speculation")
        for example in examples:
            plain = Request(prompt=example.prompt, modes=wanted, max_new_tokens=16 if where.rehearsal else 128)
            for draft in ("linear", "tree") if len(wanted) > 1 else ("linear",):
                trace = engine.generate(replace(plain, draft=draft))
                reference = trace.lane("ar")
                for lane in trace.lanes:
                    rate = lane.figures()["tokens_per_second"]
                    found.rows.append(
                        {
                            "runs": engine.attention,
                            "example": example.label,
                            "draft": draft,
                            "mode": lane.mode,
                            "tokens": len(lane.tokens),
                            "forwards": lane.forwards,
                            "tokens/s": float(rate or 0.0),
                            "× AR": 1.0 if lane is reference or reference is None else speed_up(lane, reference),
                            "AR's text": reference is None or lane.tokens == reference.tokens,
                            "exact": trace.exact,
                        }
                    )
        engine.close()
        where.free()


def training(found: Findings, where: Where) -> None:
    """Part e: chat of the base's own is made on the device, the update is trained on it in the time that is left, and
    exported in pieces that can be brought back."""
    folder = base(where.scratch, tiny=where.rehearsal)
    chat, run = where.scratch / "chat.jsonl", where.scratch / "joint"
    small = where.rehearsal
    begin = time.monotonic()
    kept = distill(
        folder,
        chat,
        limit=4 if small else 3500,
        slots=4 if small else 512,
        max_new_tokens=8 if small else 128,
        neutral=2 if small else 256,
        device=where.device,
    )
    found.notes.append(f"{kept} answers of the base's own in {time.monotonic() - begin:.0f} s.")
    settings = Settings(
        base=str(folder),
        out=str(run),
        chat=str(chat),
        minutes=0.02 if small else 0.1,
        budget=512 if small else BUDGETS[0],
        rank=4 if small else 64,
        workers=1,
        device=where.device,
        watch_minutes=0,
    )
    settings.budget = settings.budget if small else _largest_budget(settings, found)
    left = where.deadline - time.monotonic() - RESERVE
    if not small:
        if left < 45:
            found.notes.append(f"There was no time left to train in ({left:.0f} s).")
            return
        settings.minutes = left / 60
    train(settings)
    where.free()
    adapter = export(run / "state.pt", where.scratch / "adapter")
    state = read_state(run / "state.pt")
    found.rows.append(
        {
            "budget": settings.budget,
            "steps": state["step"],
            "stream tokens": state["tokens"],
            "minutes": state["seconds"] / 60,
            "tokens/s": state["tokens"] / max(state["seconds"], 1e-9),
            "adapter, MB": adapter.stat().st_size / 1e6,
        }
    )
    for file in (adapter, adapter.parent / "adapter_config.json", run / "log.jsonl"):
        if file.is_file():
            _bring_back(file, where.out)
    found.notes.append("The adapter is in pieces: `cat adapter.safetensors.* > adapter.safetensors` puts it together.")


def _largest_budget(settings: Settings, found: Findings) -> int:
    """The most stream tokens of a step that fit the memory: each is tried with one step."""
    best = settings.budget // 2
    for budget in BUDGETS:
        try:
            settings.budget = budget
            trainer = Trainer(settings)
            how = {"copies": settings.copies, "dtype": trainer.dtype, "teach": trainer.teach}
            batch = trainer.data.batch(0, 0, trainer.restricted, budget=budget, **how)
            trainer.train_step(batch, 0.0, 0.0)
            best = budget
        except torch.OutOfMemoryError:
            break
        finally:
            trainer = batch = None  # type: ignore[assignment]
            torch.cuda.empty_cache()
    found.notes.append(f"A step of {best:,} stream tokens fits the memory.")
    return best


def _bring_back(file: Path, out: Path) -> None:
    content = file.read_bytes()
    if len(content) <= PIECE and file.suffix != ".safetensors":
        (out / file.name).write_bytes(content)
        return
    for number, start in enumerate(range(0, len(content), PIECE)):
        (out / f"{file.name}.{number:02}").write_bytes(content[start : start + PIECE])
