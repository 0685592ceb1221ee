"""The learning curves of a run, from its log, as a small self-contained SVG for the checkpoint's card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nemodiff.training.objective import BUCKET_NAMES

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 270, 52, 24, 118, 40
_COLOURS = ("#00735c", "#1d6fb8", "#5c6570", "#b45f06", "#c8501e")
_SMOOTH = 15


@dataclass(frozen=True, slots=True)
class _Line:
    """One curve: its name, points (minute, value), and whether each point was a measurement of its own."""

    name: str
    points: list[tuple[float, float]]
    dots: bool = False


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


def _panel(title: str, lines: list[_Line], end: float, ticks: list[float], form: str) -> str:
    """One plot over minutes 0 to `end`, its values from the first to the last of `ticks`."""
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
    for tick in range(6):
        minute = end * tick / 5
        parts.append(
            f'<text x="{x(minute):.1f}" y="{_HEIGHT - 22}" text-anchor="middle" fill="#5c6570">{minute:.0f}</text>'
        )
    parts.append(f'<text x="{(_WIDTH - _RIGHT + _LEFT) / 2}" y="{_HEIGHT - 7}" fill="#5c6570">minutes</text>')
    for line, colour in zip(lines, _COLOURS, strict=False):
        points = " ".join(f"{x(minute):.1f},{y(value):.1f}" for minute, value in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if line.dots:
            parts += [
                f'<circle cx="{x(minute):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>'
                for minute, value in line.points
            ]
        last = line.points[-1][1]
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 6}" y="{y(last) + 4:.1f}" fill="{colour}">{line.name}: {last:.2f}</text>'
        )
    return "\n".join(parts)
