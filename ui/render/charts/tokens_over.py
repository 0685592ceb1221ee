"""Final tokens over model forwards and over measured seconds: a step line per lane."""

from __future__ import annotations

import math
from collections.abc import Callable

import plotly.graph_objects as go

from nemodiff.trace.events import Event, Lane, Trace
from nemodiff.trace.oracle import Ceiling
from ui.render.charts.figure import (
    COLOURS,
    DASHES,
    LANES,
    MAX_POINTS,
    SYMBOLS,
    at,
    empty,
    figure_of,
    lane_figures,
    plural,
)
from ui.render.positions import escaped, kept_counts


def tokens_over_forwards(trace: Trace) -> go.Figure:
    """Final tokens over model forwards, a step line per lane."""
    figure = _tokens_over(trace, "Tokens over forwards", "forwards after the prefill", lambda event: event.forward)
    lane = trace.lane("diffusion")
    if lane and lane.events and lane.ceiling:
        _add_ceiling(figure, lane.ceiling)
    return figure


def _add_ceiling(figure: go.Figure, ceiling: Ceiling) -> None:
    """The oracle's own step line, in the diffusion lane's colour, thin and dotted."""
    counts = ceiling.kept_counts()
    shown = _thinned(len(counts))
    last = [k == shown[-1] for k in shown]
    figure.add_scatter(
        x=shown,
        y=[counts[k] for k in shown],
        mode="lines+markers",
        name=f"<b>Speed of light</b><br>{plural(counts[-1], 'token')} in {plural(ceiling.forwards, 'forward')}",
        line={"shape": "hv", "color": COLOURS["diffusion"], "width": 1.5, "dash": "dot"},
        marker={"symbol": "diamond-open", "color": COLOURS["diffusion"], "size": [9 if end else 0 for end in last]},
        hovertemplate="Speed of light: %{y} tokens in %{x} forwards<extra></extra>",
    )
    height = figure.layout.height + 36
    figure.update_layout(height=height, margin={"t": figure.layout.margin.t + 37})


def tokens_over_seconds(trace: Trace) -> go.Figure:
    """The same over seconds of model time, prefill included, with the hardware they were measured on."""
    if trace.lanes and not any(lane.seconds for lane in trace.lanes):
        return empty("Tokens over seconds", "This run carries no measured times.")
    machine = ", ".join(part for part in (trace.device, trace.dtype) if part)
    axis = "seconds of model time" + (f"<br>{escaped(machine[:60])}" if machine else "")
    return _tokens_over(trace, "Tokens over seconds", axis, lambda event: round(event.clock_ms / 1000, 4))


def _tokens_over(trace: Trace, title: str, axis: str, place: Callable[[Event], float]) -> go.Figure:
    lanes = [lane for lane in trace.lanes if lane.events]
    if not lanes:
        return empty(title, "No forward was run, so there is nothing to draw yet.")
    figure = figure_of(title, "final tokens, one point per forward")
    for lane in lanes:
        counts = kept_counts(lane)
        shown = _thinned(len(lane.events))
        colour = COLOURS[lane.mode]
        figure.add_scatter(
            x=[place(lane.events[k]) for k in shown],
            y=[counts[k] for k in shown],
            mode="lines+markers",
            name=f"<b>{LANES[lane.mode]}</b><br>{lane_figures(lane)}",  # beside each other they do not fit on a phone
            line={"shape": "hv", "color": colour, "width": 2.5, "dash": DASHES[lane.mode]},
            marker={
                "symbol": SYMBOLS[lane.mode],
                "color": colour,
                "size": [9 if k == shown[-1] else 0 for k in shown],
                "line": {"width": 0},
            },
            customdata=[[lane.mode, k] for k in shown],
            hovertext=[_count_hover(lane, k, counts[k]) for k in shown],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    figure.update_xaxes(title_text=axis, rangemode="tozero")
    figure.update_yaxes(title_text="tokens", rangemode="tozero")
    figure.update_layout(
        showlegend=True, height=340 + 36 * len(lanes), legend={"orientation": "v", "y": 1, "yref": "paper"}
    )
    figure.update_layout(legend_font_size=11)  # its figures fit a phone
    figure.update_layout(margin={"t": 62 + 37 * len(lanes)})
    return figure


def _thinned(count: int) -> list[int]:
    stride = max(1, math.ceil(count / MAX_POINTS))
    return sorted({*range(0, count, stride), count - 1})


def _count_hover(lane: Lane, k: int, count: int) -> str:
    event = lane.events[k]
    lines = [f"<b>{LANES[lane.mode]}</b>: {plural(count, 'token')}"]
    lines.append(f"{at(event)} · {event.phase}")
    return "<br>".join(lines)
