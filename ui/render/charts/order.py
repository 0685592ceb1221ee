"""Commit order: a heat map, block × position in block, of the denoising step that committed each position."""

from __future__ import annotations

import math
from collections import defaultdict

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from nemodiff.trace.events import Event, Lane, Position, Trace
from ui.render.charts.figure import MONO, empty, figure_of
from ui.render.positions import escaped, name

# Cividis without its darkest part, from early to late: even in luminance, safe for every kind of colour vision.
STEPS = [[0, "#f5d948"], [0.25, "#c3af6e"], [0.5, "#918e78"], [0.75, "#5f6f79"], [1, "#2f4f80"]]
SEED = "#aab3bd"

# A trace may be anybody's file: what is drawn is bounded.
MAX_ROWS = 400
MAX_COLUMNS = 256
MAX_LABELLED = 8  # columns; in narrower cells no token can be read
MAX_STEPS = 64


def commit_order(trace: Trace, mode: str = "diffusion") -> go.Figure:
    """Heat map, block × position in block: the denoising step of its block at which each position was committed.

    A position's colour and its hover say the step; a seed (it comes with the block, no step chose it) bears a ◇.
    """
    lane = trace.lane(mode)
    cells = _commits(lane) if lane else {}
    blocks = sorted({start for start, _ in cells})
    if not lane or not any(step for step, *_ in cells.values()):
        return empty("Commit order", "No block was denoised in this run, so there is no commit order to draw.")
    shown = blocks[:MAX_ROWS]
    rows = {start: y for y, start in enumerate(shown)}
    width = max(column for start, column in cells if start in rows) + 1
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
            labels[y][column] = ("" if step else "◇ ") + escaped(name(trace, position.token, 6 if step else 4))
    colours = [SEED, *(_step_colour(step, most) for step in range(1, most + 1))]
    bands = [[(i + end) / len(colours), colour] for i, colour in enumerate(colours) for end in (0, 1)]
    figure = figure_of("Commit order", "the step of its block that committed each position")
    figure.add_heatmap(
        z=steps,
        text=labels,
        texttemplate="%{text}" if width <= MAX_LABELLED else None,
        textfont={"family": MONO, "size": 10.5},
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
