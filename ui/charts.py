"""Plotly figures from a Trace. Every point's customdata is [mode, index of the event in its lane], so that a click
can move the player there. Colours read on light and dark; every colour is repeated by a shape, a place or a number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from nemodiff.trace import Event, Lane, Position, Trace, first_difference
from ui.cells import escaped, kept_counts, name
from ui.figure import COLOURS, DASHES, LANES, MONO, OWN, SYMBOLS, TEXT, empty, figure_of, lane_figures, plural

# Cividis without its darkest part, from early to late: even in luminance, safe for every kind of colour vision.
STEPS = [[0, "#f5d948"], [0.25, "#c3af6e"], [0.5, "#918e78"], [0.75, "#5f6f79"], [1, "#2f4f80"]]
SEED = "#aab3bd"

# A trace may be anybody's file: what is drawn is bounded.
MAX_POINTS = 4000
MAX_ROWS = 400
MAX_COLUMNS = 256
MAX_LABELLED = 16
MAX_STEPS = 64

BINS = 10


def commit_order(trace: Trace, mode: str = "diffusion") -> go.Figure:
    """Heat map, block × position in block: the denoising step of its block at which each position was committed.

    A position's colour and its hover say the step; a seed (it comes with the block, no step chose it) bears a ◇.
    """
    lane = trace.lane(mode)
    cells = _commits(lane) if lane else {}
    blocks = sorted({start for start, _ in cells})
    if not any(step for step, *_ in cells.values()):
        return empty("Commit order", "No block was denoised in this run, so there is no commit order to draw.")
    shown = blocks[:MAX_ROWS]
    width = max(column for start, column in cells if start in set(shown)) + 1
    rows = {start: y for y, start in enumerate(shown)}
    most = min(MAX_STEPS, max(step for (start, _), (step, *_) in cells.items() if start in rows))
    steps: list[list[int | None]] = [[None] * width for _ in shown]
    labels = [[""] * width for _ in shown]
    hovers = [[""] * width for _ in shown]
    points: list[list[list]] = [[[mode, None] for _ in range(width)] for _ in shown]
    for (start, column), (step, k, position) in cells.items():
        if start not in rows:
            continue
        y = rows[start]
        steps[y][column] = min(step, most)
        points[y][column] = [mode, k]
        hovers[y][column] = _commit_hover(trace, lane.events[k], position, step)
        if width <= MAX_LABELLED:
            labels[y][column] = ("" if step else "◇ ") + escaped(name(trace, position.token, 7 if step else 5))
    colours = [SEED, *(_step_colour(step, most) for step in range(1, most + 1))]
    bands = [[(i + end) / len(colours), colour] for i, colour in enumerate(colours) for end in (0, 1)]
    figure = figure_of("Commit order", "the step of its block that committed each position")
    figure.add_heatmap(
        z=steps,
        text=labels,
        texttemplate="%{text}" if width <= MAX_LABELLED else None,
        textfont={"family": MONO},
        customdata=points,
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        colorscale=bands,
        zmin=-0.5,
        zmax=most + 0.5,
        showscale=False,
        xgap=2,
        ygap=2,
    )
    _step_legend(figure, most)
    every = max(1, math.ceil(len(shown) / 16))
    ticks = [y for y in range(len(shown)) if y % every == 0]
    figure.update_xaxes(
        title_text="position in block",
        dtick=1 if width <= MAX_LABELLED else 8,
        range=[-0.5, width - 0.5],
        showgrid=False,
    )
    figure.update_yaxes(
        title_text="block",
        tickvals=ticks,
        ticktext=[str(y + 1) for y in ticks],
        range=[len(shown) - 0.5, -0.5],
        showgrid=False,
    )
    figure.update_layout(height=min(900, 170 + len(shown) * (26 if len(shown) <= 24 else 12)))
    return figure


def _commits(lane: Lane) -> dict[tuple[int, int], tuple[int, int, Position]]:
    """(block start, position in block) → (denoising step of its block, 0 for a seed; event; position) as committed."""
    steps: dict[int, int] = defaultdict(int)
    commits: dict[tuple[int, int], tuple[int, int, Position]] = {}
    for k, event in enumerate(lane.events):
        if event.phase not in ("prefill", "refresh", "denoise"):
            continue
        if event.phase == "denoise":
            steps[event.start] += 1
        for position in event.positions:
            place = (event.start, position.index - event.start)
            if not 0 <= place[1] < MAX_COLUMNS:
                continue
            if position.state in ("committed", "seed"):
                commits[place] = (steps[event.start], k, position)
            elif position.state in ("masked", "discarded"):
                commits.pop(place, None)
    return commits


def _commit_hover(trace: Trace, event: Event, position: Position, step: int) -> str:
    how = f"committed at step {step}" if step else "seed: it comes with the block"
    figures = [how, f"forward {event.forward}", f"{event.clock_ms / 1000:.2f} s"]
    if position.confidence is not None:
        figures.insert(1, f"confidence {position.confidence:.2f}")
    return _hover(trace, position, figures)


def _hover(trace: Trace, position: Position, lines: list[str]) -> str:
    token = f'<b style="font-family:monospace">{escaped(name(trace, position.token))}</b>'
    return "<br>".join([f"{token}  token {position.index}", *lines])


def _step_legend(figure: go.Figure, most: int) -> None:
    shown = range(1, most + 1) if most <= 6 else sorted({round(1 + i * (most - 1) / 4) for i in range(5)})
    entries = [*((str(step), _step_colour(step, most)) for step in shown), ("◇ seed", SEED)]
    for label, colour in entries:
        marker = {"symbol": "square", "size": 12, "color": colour}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=label, hoverinfo="skip")
    figure.update_layout(
        showlegend=True,
        legend={
            "itemclick": False,
            "itemdoubleclick": False,
            "title": {"text": "step", "side": "left", "font": {"size": 11.5}},
        },
    )


def _step_colour(step: int, most: int) -> str:
    return sample_colorscale(STEPS, [(step - 1) / max(most - 1, 1)])[0]


def acceptance_lengths(trace: Trace, mode: str = "self-speculation") -> go.Figure:
    """New tokens of every draft-verify cycle as bars, accepted drafts below the verifier's own token; beside them how
    often each length came; the mean as a line through both, and 2, where a cycle's two forwards only equal AR."""
    lane = trace.lane(mode)
    cycles = [(k, event) for k, event in enumerate(lane.events) if event.phase == "verify"] if lane else []
    if not cycles:
        return empty("Acceptance lengths", "No draft was verified in this run, so there are no acceptance lengths.")
    accepted = [sum(p.state == "accepted" for p in event.positions) for _, event in cycles]
    own = [sum(p.state in ("corrected", "bonus") for p in event.positions) for _, event in cycles]
    lengths = [a + b for a, b in zip(accepted, own, strict=True)]
    mean = sum(lengths) / len(lengths)
    shown = slice(0, MAX_POINTS)
    hovers = [_cycle_hover(trace, n + 1, event) for n, (_, event) in enumerate(cycles[shown])]
    targets = [[mode, k] for k, _ in cycles[shown]]
    numbers = list(range(1, len(hovers) + 1))
    figure = figure_of(
        "Acceptance lengths",
        f"{plural(len(lengths), 'cycle')} of two forwards: {lane_figures(lane)}",
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
    values = sorted(set(lengths))
    counts = [lengths.count(length) for length in values]
    figure.add_bar(
        x=counts,
        y=values,
        orientation="h",
        marker={"color": TEXT, "opacity": 0.7, "line": {"width": 0}},
        text=counts,
        textposition="outside",
        textfont={"color": TEXT},
        cliponaxis=False,
        customdata=[[mode, cycles[lengths.index(length)][0]] for length in values],
        hovertext=[f"{count} of {len(lengths)} cycles gave {n}" for n, count in zip(values, counts, strict=True)],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        row=1,
        col=2,
    )
    for label, height, dash in ((f"mean {mean:.2f}", mean, "dash"), ("AR's pace, 2", 2, "dot")):
        line = {"color": TEXT, "width": 1.5, "dash": dash}
        figure.add_hline(y=height, line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=label, hoverinfo="skip", row=1, col=1)
    figure.update_layout(barmode="stack", bargap=0.25, height=350, showlegend=True, legend={"traceorder": "normal"})
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
    for position in event.positions:
        if position.state == "rejected":
            lines.append("✗ " + escaped(name(trace, position.token, 24)))
    lines += [f"★ {escaped(name(trace, p.token, 24))} ({p.state})" for p in own]
    return "<br>".join([*lines, f"forward {event.forward} · {event.clock_ms / 1000:.2f} s"])


def tokens_over_forwards(trace: Trace) -> go.Figure:
    """Tokens that stand for good over model forwards, a step line a lane."""
    return _tokens_over(trace, "Tokens over forwards", "forwards", lambda event: event.forward)


def tokens_over_seconds(trace: Trace) -> go.Figure:
    """The same over seconds of model time, prefill included, with the hardware they were measured on."""
    if trace.lanes and not any(lane.seconds for lane in trace.lanes):
        return empty("Tokens over seconds", "This run carries no measured times.")
    machine = ", ".join(part for part in (trace.device, trace.dtype) if part)
    axis = "seconds of model time" + (f" · {escaped(machine[:60])}" if machine else "")
    return _tokens_over(trace, "Tokens over seconds", axis, lambda event: round(event.clock_ms / 1000, 4))


def _tokens_over(trace: Trace, title: str, axis: str, place: Callable[[Event], float]) -> go.Figure:
    lanes = [lane for lane in trace.lanes if lane.events]
    if not lanes:
        return empty(title, "No forward was run, so there is nothing to draw yet.")
    figure = figure_of(title, "tokens that stand for good, a point a forward")
    for lane in lanes:
        counts = kept_counts(lane)
        shown = _thinned(len(lane.events))
        colour = COLOURS[lane.mode]
        figure.add_scatter(
            x=[place(lane.events[k]) for k in shown],
            y=[counts[k] for k in shown],
            mode="lines+markers",
            name=f"<b>{LANES[lane.mode]}</b>  {lane_figures(lane)}",
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
        showlegend=True, height=340 + 18 * len(lanes), legend={"orientation": "v", "y": 1, "yref": "paper"}
    )
    figure.update_layout(margin={"t": 62 + 19 * len(lanes)})
    return figure


def _thinned(count: int) -> list[int]:
    stride = max(1, math.ceil(count / MAX_POINTS))
    return sorted({*range(0, count, stride), count - 1})


def _count_hover(lane: Lane, k: int, count: int) -> str:
    event = lane.events[k]
    lines = [f"<b>{LANES[lane.mode]}</b>: {plural(count, 'token')}"]
    lines.append(f"{plural(event.forward, 'forward')} · {event.clock_ms / 1000:.2f} s · {event.phase}")
    return "<br>".join(lines)


def confidence_agreement(trace: Trace) -> go.Figure:
    """How often a token of a given confidence is AR's: diffusion's commits against the AR lane, up to the block in
    which the two texts part; self-speculation's drafts against their verifier, up to the first mismatch of a cycle.

    After a difference the contexts differ, and comparing place by place would only measure chance.
    """
    title = "Confidence against agreement with AR"
    if not trace.lane("ar") or not trace.lane("ar").tokens:
        return empty(title, "Decode with the AR lane too, and this shows how often each confidence was right.")
    series = {
        "diffusion": ("diffusion commits", _judged_commits(trace)),
        "self-speculation": ("self-speculation drafts", _judged_drafts(trace)),
    }
    series = {mode: (label, judged) for mode, (label, judged) in series.items() if judged}
    if not series:
        return empty(title, "No committed or drafted token can be compared with AR in this run.")
    rows = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.05)
    figure = figure_of(title, "share that is AR's, with 95 % interval; below, how many", rows)
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
    lane, reference = trace.lane("diffusion"), trace.lane("ar").tokens
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
    return judged


def _interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, widened to hold the share itself against rounding."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
