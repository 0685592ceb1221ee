"""A sweep's points against agreement with AR: tokens per forward, and measured seconds per token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from nemodiff.evaluate.sweep import Point
from nemodiff.evaluate.sweep_results import Results, curve
from ui.render.charts.figure import COLOURS, LANES, SYMBOLS, TEXT, empty, figure_of, plural
from ui.render.positions import escaped

SHORT = {"ar": "AR", "diffusion": "diffusion", "self-speculation": "self-spec."}
STROKES = ("solid", "dash", "dot", "dashdot")
#: A mark per block length, the same in both modes; a mode has its colour.
MARKS = ("triangle-up", "diamond", "square", "pentagon", "star", "cross", "x", "hourglass")


def tokens_a_forward(results: Results) -> go.Figure:
    """TPF against agreement: what a setting saves in forwards."""
    return _figure(results, "Tokens per forward", "higher is better", "", lambda point: point.tpf)


def seconds_a_token(results: Results) -> go.Figure:
    """Model seconds per token against agreement: what remains of it on the machine that it was measured on. Bars reach
    from the fastest to the slowest repeat."""
    machine = " · ".join(part for part in (results.device, results.dtype) if part)[:70]
    return _figure(results, "Model seconds per token", "lower is better", machine, lambda point: point.seconds, _bars)


def series(point: Point) -> str:
    """What a curve is called: a point's setting without its threshold."""
    words = replace(point.variant, threshold=None).words
    return ", ".join(filter(None, (SHORT[point.mode], words)))


def _figure(
    results: Results,
    title: str,
    better: str,
    where: str,
    height: Callable[[Point], float],
    bars: Callable[[list[Point]], dict[str, Any]] = lambda points: {},
) -> go.Figure:
    if not results.points:
        return empty(title, "Nothing is measured yet: press Sweep.")
    prompts = plural(max(point.prompts for point in results.points), "prompt")
    about = [better, f"one point per setting, {prompts} together", *([escaped(where)] if where else [])]
    figure = figure_of(title, " · ".join(about))
    others = [point for point in results.points if point.mode != "ar"]
    shapes, kinds = sorted(set(map(_shape, others))), sorted(set(map(_kind, others)))

    def add(points: list[Point], symbol: str, **more: Any) -> None:
        colour = COLOURS[points[0].mode]
        figure.add_scatter(
            x=[point.agreement for point in points],
            y=[height(point) for point in points],
            name=series(points[0]),
            marker={"color": colour, "symbol": symbol, "size": 10},
            cliponaxis=False,
            hovertext=[_hover(point) for point in points],
            hovertemplate="%{hovertext}<extra></extra>",
            **{"mode": "markers"} | bars(points) | more,
        )

    for point in results.of_mode("ar"):
        figure.add_hline(y=height(point), line={"color": COLOURS["ar"], "width": 1, "dash": "dot"}, layer="below")
        add([point], SYMBOLS["ar"], legendrank=2000)
    for mode in ("diffusion", "self-speculation"):
        for _, group in groupby(results.of_mode(mode), curve):
            points = list(group)
            rank, kind = shapes.index(_shape(points[0])), kinds.index(_kind(points[0]))
            symbol = MARKS[rank % len(MARKS)] + ("-open" if kind % 2 else "")
            line = {"width": 1.2 + 2 * rank / max(1, len(shapes) - 1), "dash": STROKES[kind % len(STROKES)]}
            more = _curve(points, [height(one) for one in points], line) if mode == "diffusion" else {}
            add(points, symbol, **more)
    low = min(point.agreement for point in results.points)
    figure.update_xaxes(title_text="agreement with AR", tickformat=".0%", range=[max(-0.04, low - 0.08), 1.04])
    figure.update_yaxes(range=[0, max(height(point) for point in results.points) * 1.15])
    figure.update_layout(height=430, showlegend=True)
    return figure


def _shape(point: Point) -> tuple[int, int, str]:
    """What a mark stands for: a block length, in both modes; a tree's rows."""
    return point.block_length or 0, point.rows or 0, "tree" if point.draft == "tree" else ""


def _kind(point: Point) -> tuple[float, str, str, str]:
    """What a stroke, and whether a mark is filled, stand for."""
    draft = "quadratic" if point.draft == "quadratic" else ""
    sampler = "" if point.sampler in (None, "confidence") else point.sampler
    return point.temperature, draft, sampler, point.order or ""


def _bars(points: list[Point]) -> dict[str, Any]:
    if all(point.repeats < 2 for point in points):
        return {}
    above = [(point.slowest or point.seconds) - point.seconds for point in points]
    below = [point.seconds - (point.fastest or point.seconds) for point in points]
    return {"error_y": {"array": above, "arrayminus": below, "thickness": 1, "width": 4}}


def _curve(points: list[Point], heights: list[float], line: dict[str, Any]) -> dict[str, Any]:
    """The line from threshold to threshold. Its ends are named, away from it; those between lie too close, and are in
    the hover."""
    last = len(points) - 1
    beside = {0: min(1, last), last: max(0, last - 1)}
    below = {k: heights[k] < heights[neighbour] for k, neighbour in beside.items()}
    return {
        "mode": "lines+markers+text",
        "line": {"color": COLOURS["diffusion"]} | line,
        "text": [_threshold(point) if k in (0, last) else "" for k, point in enumerate(points)],
        "textposition": ["bottom center" if below.get(k) else "top center" for k in range(len(points))],
        "textfont": {"size": 11, "color": TEXT},
    }


def _threshold(point: Point) -> str:
    return "" if point.threshold is None else f"{point.threshold:g}"


def _hover(point: Point) -> str:
    setting = ", ".join(filter(None, (LANES[point.mode], point.variant.words)))
    lines = [
        f"{plural(point.tokens, 'token')} in {plural(point.forwards, 'forward')} (NFE {point.nfe})",
        f"{point.tpf:.2f} tokens per forward",
        f"{point.seconds:#.4g} s per token, AR {point.ar_seconds:#.4g} in the same sweep: {point.speed_up:.2f}×",
        f"{point.agreement:.0%} of AR's tokens before the first other one",
        f"{point.identical:.0%} of {plural(point.prompts * point.repeats, 'answer')} identical to AR's",
    ]
    if point.right is not None:
        lines.append(f"{point.right:.0%} of the expected answers")
    if point.repeats > 1 and point.fastest and point.slowest:
        lines.append(f"{point.fastest:#.4g} to {point.slowest:#.4g} s per token over {point.repeats} repeats")
    return "<br>".join([f"<b>{setting}</b>", *lines])
