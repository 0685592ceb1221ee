"""The learning curve of a run, from its log, as a small self-contained SVG for the checkpoint's card."""

from __future__ import annotations

import json
from pathlib import Path

from nemodiff.training.objective import BUCKET_NAMES

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 300, 52, 24, 92, 40
_COLOURS = ("#00735c", "#1d6fb8", "#5c6570", "#b45f06", "#c8501e")
_SMOOTH = 15


def curve(log: Path) -> str:
    """SVG of the draft hit rate by distance over minutes of training (moving mean of 15 steps)."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    minutes = [line["seconds"] / 60 for line in lines]
    end = max(minutes[-1], 1e-9)

    def x(minute: float) -> float:
        return _LEFT + minute / end * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="14" fill="#191d23">Draft hit rate by distance from the clean token</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#e1e5ea"/>'
            f'<text x="{_LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end" fill="#5c6570">{share:.0%}</text>'
        )
    for tick in range(6):
        minute = end * tick / 5
        parts.append(
            f'<text x="{x(minute):.1f}" y="{_HEIGHT - 18}" text-anchor="middle" fill="#5c6570">{minute:.0f}</text>'
        )
    parts.append(f'<text x="{(_WIDTH - _RIGHT + _LEFT) / 2}" y="{_HEIGHT - 3}" fill="#5c6570">minutes</text>')
    for name, colour in zip(BUCKET_NAMES, _COLOURS, strict=True):
        values = [line["hit_rate"][name] for line in lines]
        means = [sum(values[max(0, i - _SMOOTH + 1) : i + 1]) / min(i + 1, _SMOOTH) for i in range(len(values))]
        points = " ".join(f"{x(minute):.1f},{y(mean):.1f}" for minute, mean in zip(minutes, means, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 6}" y="{y(means[-1]) + 4:.1f}" fill="{colour}">{name}: {means[-1]:.2f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
