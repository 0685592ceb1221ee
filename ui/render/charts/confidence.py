"""Confidence against agreement with AR: how often a token of a given confidence is AR's."""

from __future__ import annotations

import math
from collections import defaultdict

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nemodiff.trace.events import Trace, first_difference
from ui.render.charts.figure import COLOURS, SYMBOLS, TEXT, empty, figure_of

BINS = 10


def confidence_agreement(trace: Trace) -> go.Figure:
    """How often a token of a given confidence is AR's: diffusion's commits against the AR lane, up to the block in
    which the two texts part; self-speculation's drafts against their verifier, up to the first mismatch of a cycle.

    After a difference the contexts differ, and comparing place by place would only measure chance.
    """
    title = "Confidence against agreement with AR"
    reference = trace.lane("ar")
    if not reference or not reference.tokens:
        return empty(title, "Decode with the AR lane too, and this shows how often each confidence was right.")
    series = {
        "diffusion": ("diffusion commits", _judged_commits(trace)),
        "self-speculation": ("self-speculation drafts", _judged_drafts(trace)),
    }
    series = {mode: (label, judged) for mode, (label, judged) in series.items() if judged}
    if not series:
        return empty(title, "No committed or drafted token can be compared with AR in this run.")
    rows = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.05)
    figure = figure_of(title, "share that is AR's, 95 % interval; below, how many", rows)
    diagonal = {"color": TEXT, "width": 1, "dash": "dot"}
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line=diagonal, hoverinfo="skip", showlegend=False, row=1, col=1
    )
    for mode, (label, judged) in series.items():
        _add_reliability(figure, mode, label, judged)
    both = len(series) > 1
    figure.update_xaxes(range=[-0.03, 1.03], dtick=0.2, showgrid=False)
    figure.update_xaxes(title_text="confidence", row=2, col=1)
    figure.update_yaxes(title_text="share AR's", range=[-0.04, 1.06], tickvals=[0, 0.5, 1], row=1, col=1)
    figure.update_yaxes(title_text="tokens", rangemode="tozero", nticks=3, row=2, col=1)
    figure.update_layout(height=420, barmode="group" if both else "overlay", bargap=0.2, showlegend=True)
    return figure


def _add_reliability(figure: go.Figure, mode: str, label: str, judged: list[tuple[float, bool, int]]) -> None:
    bins: dict[int, list[tuple[float, bool, int]]] = defaultdict(list)
    for one in judged:
        bins[min(BINS - 1, int(one[0] * BINS))].append(one)
    places = sorted(bins)
    shares = [sum(right for _, right, _ in bins[b]) / len(bins[b]) for b in places]
    means = [sum(confidence for confidence, *_ in bins[b]) / len(bins[b]) for b in places]
    counts = [len(bins[b]) for b in places]
    ranges = [_interval(share, n) for share, n in zip(shares, counts, strict=True)]
    # A click goes to the bin's first token that is not AR's: that is the one worth seeing.
    targets = [[mode, next((k for _, right, k in bins[b] if not right), bins[b][0][2])] for b in places]
    hovers = [
        f"<b>{label}</b><br>confidence {b / BINS:.1f} to {(b + 1) / BINS:.1f}<br>{round(share * n)} of {n} are AR's"
        for b, share, n in zip(places, shares, counts, strict=True)
    ]
    common = {
        "customdata": targets,
        "hovertext": hovers,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    right = sum(right for _, right, _ in judged)
    figure.add_scatter(
        x=means,
        y=shares,
        mode="markers",
        name=f"{label}: {right} of {len(judged)}",
        marker={"color": COLOURS[mode], "symbol": SYMBOLS[mode], "size": 9},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - share for (_, high), share in zip(ranges, shares, strict=True)],
            "arrayminus": [share - low for (low, _), share in zip(ranges, shares, strict=True)],
            "thickness": 1,
            "width": 3,
            "color": COLOURS[mode],
        },
        row=1,
        col=1,
        **common,
    )
    figure.add_bar(
        x=[(b + 0.5) / BINS for b in places],
        y=counts,
        marker={"color": COLOURS[mode], "opacity": 0.75, "line": {"width": 0}},
        text=counts,
        textposition="outside",
        textfont={"color": TEXT, "size": 10},
        cliponaxis=False,
        showlegend=False,
        row=2,
        col=1,
        **common,
    )


def _judged_commits(trace: Trace) -> list[tuple[float, bool, int]]:
    """(confidence at commit, is it AR's, event) of diffusion's commits whose block began with AR's very text."""
    lane, reference = trace.lane("diffusion"), trace["ar"].tokens
    if not lane:
        return []
    parted = first_difference(lane.tokens, reference)
    judged = []
    for k, event in enumerate(lane.events):
        if event.phase != "denoise" or (parted is not None and event.start > parted):
            continue
        for position in event.positions:
            if position.state == "committed" and position.confidence is not None and position.index < len(reference):
                judged.append((position.confidence, position.token == reference[position.index], k))
    return judged


def _judged_drafts(trace: Trace) -> list[tuple[float, bool, int]]:
    """(confidence as drafted, did the verifier agree, event) of every draft that was judged."""
    lane = trace.lane("self-speculation")
    judged, drafted = [], {}
    for k, event in enumerate(lane.events if lane else []):
        if event.phase == "draft":
            drafted = {position.index: position.confidence for position in event.positions}
        elif event.phase == "verify":
            for position in event.positions:
                confidence = drafted.get(position.index)
                if position.state in ("accepted", "rejected") and confidence is not None:
                    judged.append((confidence, position.state == "accepted", k))
            # A quadratic forward drafts for the next one.
            drafted = {one.index: one.confidence for one in event.positions if one.state == "drafted"}
    return judged


def _interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, widened to hold the share itself against rounding."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
