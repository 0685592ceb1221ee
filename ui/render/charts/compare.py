"""A sweep's points against agreement with AR: tokens a forward, and measured seconds a token."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from nemodiff.evaluate.sweep import Point
from nemodiff.evaluate.sweep_results import Results
from ui.render.charts.figure import COLOURS, LANES, SYMBOLS, TEXT, empty, figure_of, plural
from ui.render.positions import escaped

#: A mark a block length, the same in both modes; a mode has its colour.
MARKS = ("triangle-up", "diamond", "square", "pentagon", "star", "cross", "x", "hourglass")


def tokens_a_forward(results: Results) -> go.Figure:
    """TPF against agreement: what a setting saves in forwards."""
    return _figure(results, "Tokens a forward", "higher is better", "", lambda point: point.tpf)


def seconds_a_token(results: Results) -> go.Figure:
    """Model seconds a token against agreement: what remains of it on the machine that it was measured on."""
    machine = " · ".join(part for part in (results.device, results.dtype) if part)
    return _figure(results, "Model seconds a token", "lower is better", machine[:70], lambda point: point.seconds)


def _figure(results: Results, title: str, better: str, where: str, height: Callable[[Point], float]) -> go.Figure:
    if not results.points:
        return empty(title, "Nothing is measured yet: press Sweep.")
    prompts = plural(max(point.prompts for point in results.points), "prompt")
    about = [*([escaped(where)] if where else []), better, f"a point a setting, {prompts} together"]
    figure = figure_of(title, " · ".join(about))
    lengths = sorted({point.block_length for point in results.points if point.block_length})

    def add(points: list[Point], name: str, symbol: str, **more: Any) -> None:
        colour = COLOURS[points[0].mode]
        figure.add_scatter(
            x=[point.agreement for point in points],
            y=[height(point) for point in points],
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 10},
            cliponaxis=False,
            hovertext=[_hover(point) for point in points],
            hovertemplate="%{hovertext}<extra></extra>",
            **{"mode": "markers"} | more,
        )

    for point in results.of_mode("ar"):
        figure.add_hline(y=height(point), line={"color": COLOURS["ar"], "width": 1, "dash": "dot"}, layer="below")
        add([point], "AR", SYMBOLS["ar"], legendrank=2000)
    for mode, name in (("diffusion", "diffusion"), ("self-speculation", "self-spec.")):
        for length, group in groupby(results.of_mode(mode), lambda point: point.block_length):
            points, rank = list(group), lengths.index(length)
            width = 1.2 + 2 * rank / max(1, len(lengths) - 1)
            curve = _curve(points, [height(point) for point in points], width) if mode == "diffusion" else {}
            add(points, f"{name}, block {length}", MARKS[rank % len(MARKS)], **curve)
    low = min(point.agreement for point in results.points)
    figure.update_xaxes(title_text="agreement with AR", tickformat=".0%", range=[max(-0.04, low - 0.08), 1.04])
    figure.update_yaxes(range=[0, max(height(point) for point in results.points) * 1.15])
    figure.update_layout(height=430, showlegend=True)
    return figure


def _curve(points: list[Point], heights: list[float], width: float) -> dict[str, Any]:
    """The line from threshold to threshold. Its ends are named, away from it; those between lie too close, and are in
    the hover."""
    last = len(points) - 1
    beside = {0: min(1, last), last: max(0, last - 1)}
    below = {k: heights[k] < heights[neighbour] for k, neighbour in beside.items()}
    return {
        "mode": "lines+markers+text",
        "line": {"color": COLOURS["diffusion"], "width": width},
        "text": [f"{point.threshold:g}" if k in (0, last) else "" for k, point in enumerate(points)],
        "textposition": ["bottom center" if below.get(k) else "top center" for k in range(len(points))],
        "textfont": {"size": 11, "color": TEXT},
    }


def _hover(point: Point) -> str:
    setting = [LANES[point.mode]]
    if point.block_length is not None:
        setting.append(f"block {point.block_length}")
    if point.threshold is not None:
        setting.append(f"threshold {point.threshold:g}")
    lines = [
        f"{plural(point.tokens, 'token')} in {plural(point.forwards, 'forward')} (NFE {point.nfe})",
        f"{point.tpf:.2f} tokens a forward",
        f"{point.seconds:#.4g} s a token, AR {point.ar_seconds:#.4g} in the same sweep: {point.speed_up:.2f}×",
        f"{point.agreement:.0%} of AR's tokens before the first other one",
        f"{point.identical:.0%} of {plural(point.prompts, 'answer')} identical to AR's",
    ]
    return "<br>".join([f"<b>{', '.join(setting)}</b>", *lines])
