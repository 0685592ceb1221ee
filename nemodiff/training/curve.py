"""Small self-contained SVGs for a checkpoint's card: the learning curves of a run, and how well scores rank."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemodiff.evaluate.ranking_metrics import auc, calibration, calibration_error
from nemodiff.training.objective import BUCKET_NAMES

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 270, 52, 24, 118, 40
_COLOURS = ("#00735c", "#1d6fb8", "#5c6570", "#b45f06", "#c8501e")
_SMOOTH = 15


@dataclass(frozen=True, slots=True)
class _Line:
    """One curve: its name, points (x, value), whether each point was a measurement of its own, and the figure beside
    its name (None: the last value, at whose height both then stand)."""

    name: str
    points: list[tuple[float, float]]
    dots: bool = False
    figure: str | None = None


def curve(log: Path) -> str:
    """SVG of the draft hit rate by distance over minutes of training (moving mean of 15 steps) and, where it was
    measured, of the acceptance length on held-out prompts."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    minutes = [row["seconds"] / 60 for row in rows]
    hits = [_Line(name, _smooth(minutes, [row["hit_rate"][name] for row in rows])) for name in BUCKET_NAMES]
    panels = [
        _panel("Draft hit rate by distance from the clean token", hits, minutes[-1], [0, 0.25, 0.5, 0.75, 1], "{:.0%}")
    ]
    measured = [(minute, row["acceptance"]) for minute, row in zip(minutes, rows, strict=True) if "acceptance" in row]
    if measured:
        lines = [_Line(name, [(minute, one[name]) for minute, one in measured], True) for name in measured[0][1]]
        title = "Acceptance length at block 8 on held-out prompts: new tokens a draft-verify cycle"
        panels.append(_panel(title, lines, minutes[-1], [0, 2, 4, 6, 8], "{:g}"))
    return _svg(panels)


def ranking_curve(scores: dict[str, Tensor], right: Tensor) -> str:
    """SVG of the ROC curve and the calibration of probabilities [n] that guesses are right, against bool [n]."""
    wrong, roc, calibrated = int((~right).sum()), [], []
    for name, score in scores.items():
        ranked = right[score.argsort(descending=True)]
        places = torch.linspace(0, len(right) - 1, min(len(right), 200)).long()
        hits, misses = (kind.cumsum(0)[places].double() for kind in (ranked, ~ranked))
        points = [(0.0, 0.0), *zip((misses / wrong).tolist(), (hits / right.sum()).tolist(), strict=True)]
        roc.append(_Line(name, points, figure=f"AUC {auc(score, right):.3f}"))
        bins = [(probability, share) for probability, share, _ in calibration(score, right)]
        calibrated.append(_Line(name, bins, True, f"error {calibration_error(score, right):.3f}"))
    calibrated.append(_Line("exact", [(0.0, 0.0), (1.0, 1.0)], figure="error 0"))
    shares = [0, 0.25, 0.5, 0.75, 1]
    found = _panel("Right guesses found", roc, 1.0, shares, "{:.0%}", "wrong guesses let through", "{:.0%}")
    title = "Share of guesses that are right"
    return _svg([found, _panel(title, calibrated, 1.0, shares, "{:.0%}", "what the score says", "{:.0%}")])


def _svg(panels: list[str]) -> str:
    height = _HEIGHT * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *(f'<g transform="translate(0 {_HEIGHT * i})">\n{panel}\n</g>' for i, panel in enumerate(panels)),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _smooth(minutes: list[float], values: list[float]) -> list[tuple[float, float]]:
    means = [sum(values[max(0, i - _SMOOTH + 1) : i + 1]) / min(i + 1, _SMOOTH) for i in range(len(values))]
    return list(zip(minutes, means, strict=True))


def _panel(
    title: str,
    lines: list[_Line],
    end: float,
    ticks: list[float],
    form: str,
    axis: str = "minutes",
    axis_form: str = "{:.0f}",
) -> str:
    """One plot over 0 to `end` of its axis, its values from the first to the last of `ticks`."""
    end = max(end, 1e-9)

    def x(minute: float) -> float:
        return _LEFT + minute / end * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="14" fill="#191d23">{title}</text>']
    for tick in ticks:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e1e5ea"/>'
            f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#5c6570">{form.format(tick)}</text>'
        )
    middle = (_WIDTH - _RIGHT + _LEFT) / 2
    for tick in range(6):
        minute = end * tick / 5
        told = axis_form.format(minute)
        parts.append(f'<text x="{x(minute):.1f}" y="{_HEIGHT - 22}" text-anchor="middle" fill="#5c6570">{told}</text>')
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 7}" text-anchor="middle" fill="#5c6570">{axis}</text>')
    for place, (line, colour) in enumerate(zip(lines, _COLOURS, strict=False)):
        points = " ".join(f"{x(minute):.1f},{y(value):.1f}" for minute, value in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if line.dots:
            parts += [
                f'<circle cx="{x(minute):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>'
                for minute, value in line.points
            ]
        last = line.points[-1][1]
        at, lead = _WIDTH - _RIGHT + 6, f'fill="{colour}">{line.name}'
        if line.figure is None:
            parts.append(f'<text x="{at}" y="{y(last) + 4:.1f}" {lead}: {last:.2f}</text>')
        else:
            top = _TOP + 12 + 40 * place
            parts.append(f'<text x="{at}" y="{top}" {lead}<tspan x="{at}" dy="15">{line.figure}</tspan></text>')
    return "\n".join(parts)
