"""`python -m nemodiff train sampler`: trajectories, training, calibration, a file, and how well it ranks."""

import json
import random
import time
from pathlib import Path

import torch

from nemodiff.engine.loading import load
from nemodiff.evaluate.ranking_metrics import auc, calibration_error, recall_at
from nemodiff.samplers.trained import save_sampler
from nemodiff.tasks.open_prompts.prompts import HELD_OUT_PROMPTS, open_prompts
from nemodiff.tasks.structured.families import TRAINED_FAMILIES, instance
from nemodiff.training.curve import ranking_curve
from nemodiff.training.sampler import calibrate, collect, new_sampler, scores, train_sampler
from nemodiff.training.stacked import kept
from nemodiff.training.trajectories import States

#: Of the prompts that trajectories are collected from, the share that is open.
OPEN_SHARE = 0.3
#: Precisions at which the report says what share of right guesses is found.
PRECISIONS = (0.9, 0.95, 0.98, 0.99)


def prompts_of(count: int, seed: int = 0, *, held_out: bool = False, open_share: float = OPEN_SHARE) -> list[str]:
    """Structured and open prompts in random order: trained ones, or held-out ones."""
    rng = random.Random(f"sampler/{seed}/{held_out}")
    chats = list(HELD_OUT_PROMPTS) if held_out else [prompt for _, prompt in open_prompts(seed)[: 4 * count]]
    chosen = []
    for i in range(count):
        if rng.random() < open_share:
            chosen.append(rng.choice(chats))
        else:
            chosen.append(instance(rng.choice(TRAINED_FAMILIES), f"sampler-{seed}-{i}", held_out=held_out)[0])
    return chosen


def run(
    checkpoint: str,
    out: Path,
    *,
    size: str,
    minutes: float,
    steps: int,
    block_length: int | None = None,
    states_file: Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> str:
    """Collect trajectories for `minutes` (a fifth of them held out), train, calibrate, save; returns what it reports.

    states_file: where trajectories are kept; those of an earlier run are used in place of new ones.
    """
    engine = load(checkpoint, device=device, dtype=dtype, report=print)
    length = block_length or engine.defaults.block_length
    sampler = new_sampler(engine, size, seed)

    def collected() -> list[States]:
        began = time.monotonic()
        parts = [
            collect(engine, prompts, length, sampler.compressed, seconds=seconds, report=print)
            for prompts, seconds in (
                (prompts_of(100_000, seed), 48 * minutes),
                (prompts_of(10_000, seed, held_out=True), 12 * minutes),
            )
        ]
        print(f"{sum(map(len, parts)):,} forwards in {(time.monotonic() - began) / 60:.1f} minutes")
        return parts

    parts = kept(states_file, States, collected)
    trained, held_out = parts
    # The choice of weights and calibration look at some held-out forwards, the report at others.
    half = len(held_out) // 2
    tuning, report = held_out[:half], held_out[half:]
    losses = train_sampler(sampler, trained, tuning=tuning, steps=steps, seed=seed)
    calibrate(sampler, tuning)
    logits, confidence, right = scores(sampler, report)
    probability = torch.sigmoid(logits)
    figures = {
        "forwards": len(trained),
        "positions": int(trained.counted.sum()),
        "held_out_positions": len(right),
        "steps": steps,
        "loss": round(sum(losses[-50:]) / len(losses[-50:]), 4),
        "auc": round(auc(probability, right), 4),
        "auc_confidence": round(auc(confidence, right), 4),
        "calibration_error": round(calibration_error(probability, right), 4),
        "calibration_error_confidence": round(calibration_error(confidence, right), 4),
        "recall": {f"{p:g}": round(recall_at(probability, right, p), 4) for p in PRECISIONS},
        "recall_confidence": {f"{p:g}": round(recall_at(confidence, right, p), 4) for p in PRECISIONS},
    }
    path = save_sampler(sampler, out, {"checkpoint": engine.checkpoint, "block_length": length, "trained": figures})
    drawn = ranking_curve({"trained": probability, "confidence": confidence}, right)
    (out / "ranking.svg").write_text(drawn, encoding="utf-8")
    return f"{json.dumps(figures, indent=2)}\n{path} ({path.stat().st_size / 1e6:.2f} MB)"
