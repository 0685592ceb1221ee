"""Samplers compared: how well a score tells right guesses from wrong ones, and what each gains at equal agreement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import agreement
from nemodiff.request import Request
from nemodiff.trace.events import Lane

#: Settings swept a sampler, from strict to bold.
THRESHOLDS = (0.995, 0.99, 0.98, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
ENTROPY_BOUNDS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8)


def auc(score: Tensor, right: Tensor) -> float:
    """Area under the ROC curve of scores [n] against bool [n]: the chance that a right guess outranks a wrong one,
    ties counting half. Raises ValueError when all are right or all are wrong."""
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives:
        raise ValueError("A ROC curve needs right and wrong guesses.")
    _, inverse, counts = torch.unique(score, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[right].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def recall_at(score: Tensor, right: Tensor, precision: float) -> float:
    """Largest share of the right guesses that some threshold on the score commits at `precision` or more."""
    order = score.argsort(descending=True)
    hits = right[order].double().cumsum(0)
    taken = torch.arange(1, len(right) + 1, dtype=torch.double)
    # A threshold takes all guesses of equal score or none.
    whole = torch.cat((score[order][1:] != score[order][:-1], torch.tensor([True])))
    fit = (hits / taken >= precision) & whole
    return float(hits[fit].max() / right.sum()) if fit.any() else 0.0


def calibration(probability: Tensor, right: Tensor, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share right, count) of every bin that holds a guess."""
    place = (probability * bins).long().clamp_max(bins - 1)
    return [
        (float(probability[place == i].mean()), float(right[place == i].double().mean()), int((place == i).sum()))
        for i in range(bins)
        if (place == i).any()
    ]


def calibration_error(probability: Tensor, right: Tensor, bins: int = 10) -> float:
    """Expected calibration error: mean distance of a bin's probability from its share right, weighted by count."""
    return sum(abs(p - share) * count for p, share, count in calibration(probability, right, bins)) / len(right)


@dataclass(frozen=True, slots=True)
class Point:
    """One sampler at one setting, over all prompts: tokens over forwards, model seconds per token, mean agreement with
    serial denoising (one position per forward) and the share of prompts that agree wholly."""

    sampler: str
    setting: float
    tpf: float
    seconds: float
    agreement: float
    identical: float


def pareto(
    engine: Engine, prompts: Sequence[str], samplers: Sequence[str], block_length: int, max_new_tokens: int = 96
) -> Iterator[Point]:
    """Serial denoising of every prompt first (yielded as sampler "serial"), then every sampler at its settings, all in
    the released order."""
    common: dict[str, Any] = {
        "order": "best",
        "modes": ("diffusion",),
        "block_length": block_length,
        "max_new_tokens": max_new_tokens,
        "alternatives": 0,
    }

    def run(**setting: Any) -> list[Lane]:
        return [engine.generate(Request(prompt=prompt, **common, **setting)).lanes[0] for prompt in prompts]

    serial = run(sampler="fixed", steps=block_length - 1)
    yield _point("serial", 1.0, serial, serial)
    for sampler in samplers:
        name, values = ("entropy_bound", ENTROPY_BOUNDS) if sampler == "entropy" else ("threshold", THRESHOLDS)
        for value in values:
            yield _point(sampler, value, run(sampler=sampler, **{name: value}), serial)


def _point(sampler: str, setting: float, lanes: list[Lane], serial: list[Lane]) -> Point:
    shares = [agreement(lane, reference) for lane, reference in zip(lanes, serial, strict=True)]
    tokens = sum(len(lane.tokens) for lane in lanes)
    return Point(
        sampler,
        setting,
        tpf=tokens / max(1, sum(lane.forwards for lane in lanes)),
        seconds=sum(lane.seconds for lane in lanes) / max(1, tokens),
        agreement=fmean(shares),
        identical=fmean(share == 1.0 for share in shares),
    )


def tpf_at(points: Sequence[Point], sampler: str, level: float) -> float | None:
    """Best TPF of a sampler at an agreement of `level` or more, between its settings by linear interpolation of the
    frontier; None where it never agrees that much."""
    mine = sorted(((p.agreement, p.tpf) for p in points if p.sampler == sampler), reverse=True)
    reached = [tpf for agrees, tpf in mine if agrees >= level]
    if not reached:
        return None
    best = max(reached)
    for (high, fast), (low, faster) in [(a, b) for a in mine for b in mine if a[0] >= level > b[0] and b[1] > a[1]]:
        best = max(best, fast + (faster - fast) * (high - level) / (high - low))
    return best
