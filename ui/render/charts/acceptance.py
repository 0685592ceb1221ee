"""Acceptance lengths: new tokens of every draft-verify cycle, and how often each length came."""

from __future__ import annotations

from collections import Counter

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nemodiff.trace.events import Event, Trace
from ui.render.charts.figure import COLOURS, MAX_POINTS, OWN, TEXT, at, empty, figure_of, lane_figures, plural
from ui.render.positions import escaped, name


def acceptance_lengths(trace: Trace, mode: str = "self-speculation") -> go.Figure:
    """New tokens of every draft-verify cycle as bars, accepted drafts below the verifier's own token; beside them how
    often each length came; the mean as a line through both, and the forwards of a cycle, where it only equals AR."""
    lane = trace.lane(mode)
    cycles = [(k, event) for k, event in enumerate(lane.events) if event.phase == "verify"] if lane else []
    if not lane or not cycles:
        return empty("Acceptance lengths", "No draft was verified in this run, so there are no acceptance lengths.")
    accepted = [sum(p.state == "accepted" for p in event.positions) for _, event in cycles]
    own = [sum(p.state in ("corrected", "bonus") for p in event.positions) for _, event in cycles]
    lengths = [a + b for a, b in zip(accepted, own, strict=True)]
    mean = sum(lengths) / len(lengths)
    # Of quadratic drafts every cycle is one forward, which has no draft of its own before it.
    forwards = 2 if any(event.phase == "draft" for event in lane.events) else 1
    shown = slice(0, MAX_POINTS)
    hovers = [_cycle_hover(trace, n + 1, event) for n, (_, event) in enumerate(cycles[shown])]
    targets = [[mode, k] for k, _ in cycles[shown]]
    numbers = list(range(1, len(hovers) + 1))
    figure = figure_of(
        "Acceptance lengths",
        f"{plural(len(lengths), 'cycle')} of {plural(forwards, 'forward')}:<br>{lane_figures(lane)}",
        make_subplots(1, 2, shared_yaxes=True, column_widths=[0.72, 0.28], horizontal_spacing=0.03),
    )
    parts = (("accepted drafts", accepted, COLOURS[mode], ""), ("the verifier's own", own, OWN, "/"))
    for label, values, colour, pattern in parts:
        figure.add_bar(
            x=numbers,
            y=values[shown],
            name=label,
            marker={"color": colour, "pattern": _pattern(pattern)},
            marker_line_width=0,
            customdata=targets,
            hovertext=hovers,
            hovertemplate="%{hovertext}<extra></extra>",
            row=1,
            col=1,
        )
    times = Counter(lengths)
    values = sorted(times)
    counts = [times[length] for length in values]
    first = {length: cycles[n][0] for n, length in reversed(list(enumerate(lengths)))}
    figure.add_bar(
        x=counts,
        y=values,
        orientation="h",
        marker={"color": TEXT, "opacity": 0.7, "line": {"width": 0}},
        text=counts,
        textposition="outside",
        textfont={"color": TEXT},
        cliponaxis=False,
        customdata=[[mode, first[length]] for length in values],
        hovertext=[f"{count} of {len(lengths)} cycles gave {n}" for n, count in zip(values, counts, strict=True)],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        row=1,
        col=2,
    )
    for label, height, dash in (
        (f"mean {mean:.2f}", mean, "dash"),
        (f"AR in {plural(forwards, 'forward')}: {forwards}", forwards, "dot"),
    ):
        line = {"color": TEXT, "width": 1.5, "dash": dash}
        figure.add_hline(y=height, line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=label, hoverinfo="skip", row=1, col=1)
    figure.update_layout(barmode="stack", bargap=0.25, height=366, showlegend=True, legend={"traceorder": "normal"})
    figure.update_layout(margin={"t": 82})  # two lines below the title: one does not fit on a phone
    figure.update_xaxes(title_text="cycle", showgrid=False, row=1, col=1)
    figure.update_xaxes(
        title_text="cycles", showgrid=False, showticklabels=False, range=[0, max(counts) * 1.25], row=1, col=2
    )
    figure.update_yaxes(range=[0, max(lengths) + 0.6], dtick=1 if max(lengths) <= 12 else None)
    figure.update_yaxes(title_text="new tokens", row=1, col=1)
    return figure


def _pattern(shape: str) -> dict[str, object]:
    return {"shape": shape, "size": 5, "solidity": 0.25, "fillmode": "overlay", "fgcolor": "#ffffff"} if shape else {}


def _cycle_hover(trace: Trace, number: int, event: Event) -> str:
    accepted = [p for p in event.positions if p.state == "accepted"]
    own = [p for p in event.positions if p.state in ("corrected", "bonus")]
    drafts = len(accepted) + sum(p.state in ("rejected", "discarded") for p in event.positions)
    lines = [f"<b>cycle {number}</b>: {len(accepted)} of {drafts} drafts accepted"]
    if accepted:
        lines.append("✓ " + escaped(" ".join(name(trace, p.token, 12) for p in accepted[:8])))
    rejected = [p for p in event.positions if p.state == "rejected"]
    lines += ["✗ " + escaped(name(trace, p.token, 24)) for p in rejected[:8]]
    lines += [f"★ {escaped(name(trace, p.token, 24))} ({p.state})" for p in own[:8]]
    return "<br>".join([*lines, at(event)])
