"""Small self-contained SVGs for a checkpoint's card: the learning curves of a run, and how well scores rank."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemodiff.errors import RequestError
from nemodiff.evaluate.ranking_metrics import auc, calibration, calibration_error
from nemodiff.training.objective import BUCKET_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches of a picture's width and of a panel's height.
_WIDTH, _HEIGHT = 7.5, 2.8
_COLOURS = ("#00735c", "#1d6fb8", "#5c6570", "#b45f06", "#c8501e")
_TEXT, _FAINT, _GRID = "#191d23", "#5c6570", "#e1e5ea"
#: The least distance between two names at the curves' ends, as a share of a panel's height.
_APART = 0.09
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SMOOTH = 15


@dataclass(frozen=True, slots=True)
class _Line:
    """One curve: its name, points (x, value), whether each point was a measurement of its own, and the figure beside
    its name (None: the last value)."""

    name: str
    points: list[tuple[float, float]]
    dots: bool = False
    figure: str | None = None


@dataclass(frozen=True, slots=True)
class _Panel:
    """One plot over 0 to `end` of its axis, its values from 0 to the last of `ticks`."""

    title: str
    lines: list[_Line]
    ticks: tuple[float, ...] = _SHARES
    axis: str = "minutes"
    end: float = 1.0


def curve(log: Path) -> str:
    """SVG of the draft hit rate by distance over minutes of training (moving mean of 15 steps) and, where it was
    measured, of the acceptance length on held-out prompts. Raises RequestError without matplotlib."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    minutes = [row["seconds"] / 60 for row in rows]
    hits = [_Line(name, _smooth(minutes, [row["hit_rate"][name] for row in rows])) for name in BUCKET_NAMES]
    panels = [_Panel("Draft hit rate by distance from the clean token", hits, end=minutes[-1])]
    measured = [(minute, row["acceptance"]) for minute, row in zip(minutes, rows, strict=True) if "acceptance" in row]
    if measured:
        lines = [_Line(name, [(minute, one[name]) for minute, one in measured], True) for name in measured[0][1]]
        title = "Acceptance length at block 8 on held-out prompts: new tokens per draft-verify cycle"
        panels.append(_Panel(title, lines, (0, 2, 4, 6, 8), end=minutes[-1]))
    return _svg(panels)


def ranking_curve(scores: dict[str, Tensor], right: Tensor) -> str:
    """SVG of the ROC curve and the calibration of probabilities [n] that guesses are right, against bool [n]. Raises
    RequestError without matplotlib."""
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
    found = _Panel("Right guesses found", roc, axis="wrong guesses let through")
    return _svg([found, _Panel("Share of guesses that are right", calibrated, axis="what the score says")])


def _smooth(minutes: list[float], values: list[float]) -> list[tuple[float, float]]:
    means = [sum(values[max(0, i - _SMOOTH + 1) : i + 1]) / min(i + 1, _SMOOTH) for i in range(len(values))]
    return list(zip(minutes, means, strict=True))


def _svg(panels: list[_Panel]) -> str:
    """The panels, one below the other; the same figures make the same bytes."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RequestError("Drawing curves needs matplotlib: pip install -r requirements-dev.txt.") from error
    svg = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "nemodiff", "font.size": 9}):
        figure = Figure((_WIDTH, _HEIGHT * len(panels)))
        figure.subplots_adjust(left=0.07, right=0.78, top=1 - 0.1 / len(panels), bottom=0.17 / len(panels), hspace=0.38)
        for place, panel in enumerate(panels):
            _draw(figure.add_subplot(len(panels), 1, place + 1), panel)
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _draw(axes: Axes, panel: _Panel) -> None:
    axes.set_title(panel.title, loc="left", size="medium", color=_TEXT)
    axes.set(xlim=(0, max(panel.end, 1e-9)), ylim=(0, panel.ticks[-1]), yticks=panel.ticks, axisbelow=True)
    axes.set_xlabel(panel.axis, color=_FAINT)
    if panel.ticks[-1] == 1:
        axes.yaxis.set_major_formatter("{x:.0%}")
    if panel.axis != "minutes":
        axes.xaxis.set_major_formatter("{x:.0%}")
    axes.tick_params(length=0, pad=6, labelcolor=_FAINT)
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=_GRID)
    for line, colour, height in zip(panel.lines, _COLOURS, _heights(panel), strict=False):
        xs, ys = zip(*line.points, strict=True)
        name, marker = f"{panel.title}:{line.name}".replace(" ", "_"), "o" if line.dots else ""
        axes.plot(xs, ys, color=colour, marker=marker, markersize=4, clip_on=False, gid=name)
        told = f"{line.name}: {line.figure or f'{ys[-1]:.2f}'}"
        axes.text(1.01, height, told, color=colour, va="center", transform=axes.transAxes)


def _heights(panel: _Panel) -> list[float]:
    """Where the names of the lines stand, as shares of the panel's height: at their last values, kept apart."""
    wanted = [line.points[-1][1] / panel.ticks[-1] for line in panel.lines]
    order = sorted(range(len(wanted)), key=lambda i: -wanted[i])
    for above, below in zip(order, order[1:], strict=False):
        wanted[below] = min(wanted[below], wanted[above] - _APART)
    floor = 0.0
    for place in reversed(order):
        wanted[place] = max(wanted[place], floor)
        floor = wanted[place] + _APART
    return wanted
