"""Drafts that were accepted, by distance and rank, and what a cycle's rows gained."""

from __future__ import annotations

from collections import Counter, defaultdict

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nemodiff.evaluate.drafts import behind_rejections, outcomes
from nemodiff.trace.events import Lane, Trace
from ui.render.charts.figure import COLOURS, TEXT, empty, figure_of, lane_figures, plural

TITLE = "Drafts accepted by distance"
#: Distances and ranks that have bars of their own; what lies beyond counts with the last.
DISTANCES, RANKS = 8, 3
_OPACITIES = (1.0, 0.6, 0.3)


def drafts_accepted(trace: Trace, mode: str = "self-speculation") -> go.Figure:
    """How often a draft was accepted once those before it were, by its distance from the newest token and, in a tree,
    by its rank among its parent's candidates; how often drafts behind a rejected one were right after all; beside it
    the rows of a forward and the tokens that they gained."""
    lane = trace.lane(mode)
    cycles = [event for event in lane.events if event.phase == "verify"] if lane else []
    counts: dict[tuple[int, int], Counter] = defaultdict(Counter)
    for event in cycles:
        for distance, rank, _, accepted in outcomes(event):
            counts[min(distance, DISTANCES), min(rank, RANKS)][accepted] += 1
    if not lane or not counts:
        return empty(TITLE, "No draft was verified in this run.")
    figure = figure_of(
        TITLE,
        f"{plural(len(cycles), 'cycle')}: {lane_figures(lane)}",
        make_subplots(1, 2, column_widths=[0.62, 0.38], horizontal_spacing=0.12),
    )
    for rank in range(1, RANKS + 1):
        found = {distance: count for (distance, other), count in sorted(counts.items()) if other == rank}
        if not found:
            continue
        label = {1: "the likeliest", 2: "the second"}.get(rank, "the third and on")
        figure.add_bar(
            x=[f"{distance}+" if distance == DISTANCES else str(distance) for distance in found],
            y=[count[True] / count.total() for count in found.values()],
            name=label,
            marker={"color": COLOURS[mode], "opacity": _OPACITIES[rank - 1]},
            marker_line_width=0,
            hovertext=[
                f"<b>distance {distance}</b>, {label}: {count[True]} of {count.total()} accepted"
                for distance, count in found.items()
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    _add_behind(figure, lane, mode)
    gained: dict[int, list[int]] = defaultdict(list)
    for event in cycles:
        tokens = sum(position.state in ("accepted", "corrected", "bonus") for position in event.positions)
        gained[event.rows or event.length].append(tokens)
    rows = sorted(gained)
    figure.add_scatter(
        x=rows,
        y=[sum(gained[count]) / len(gained[count]) for count in rows],
        mode="markers",
        marker={"color": COLOURS[mode], "size": 9, "symbol": "square"},
        hovertext=[
            f"<b>{plural(count, 'row')}</b>: {sum(gained[count]) / len(gained[count]):.2f} new tokens"
            f" ({plural(len(gained[count]), 'cycle')})"
            for count in rows
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        row=1,
        col=2,
    )
    figure.update_layout(barmode="group", bargap=0.25, height=366, showlegend=True, margin={"t": 66})
    figure.update_xaxes(title_text="places behind", showgrid=False, type="category", row=1, col=1)
    figure.update_yaxes(title_text="accepted, or right", range=[0, 1.02], tickformat=".0%", row=1, col=1)
    figure.update_xaxes(title_text="rows", rangemode="tozero", row=1, col=2)
    figure.update_yaxes(title_text="new tokens", rangemode="tozero", row=1, col=2)
    figure.update_yaxes(title={"font": {"color": TEXT}})
    return figure


def _add_behind(figure: go.Figure, lane: Lane, mode: str) -> None:
    counts: dict[int, Counter] = defaultdict(Counter)
    for distance, right in behind_rejections(lane):
        counts[min(distance, DISTANCES)][right] += 1
    if not counts:
        return
    figure.add_bar(
        x=[f"{distance}+" if distance == DISTANCES else str(distance) for distance in sorted(counts)],
        y=[counts[distance][True] / counts[distance].total() for distance in sorted(counts)],
        name="thrown away, right after all",
        marker={"color": "rgba(0,0,0,0)", "line": {"color": COLOURS[mode], "width": 1.5}},
        hovertext=[
            f"<b>distance {distance}</b>, behind a rejected draft: {counts[distance][True]} of"
            f" {counts[distance].total()} are at the same place of the answer"
            for distance in sorted(counts)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        row=1,
        col=1,
    )
