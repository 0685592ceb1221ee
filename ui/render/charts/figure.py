"""What all charts share: colours, axes, and the figure without anything to show."""

from __future__ import annotations

import plotly.graph_objects as go

from nemodiff.trace.events import Event, Lane

LANES = {"ar": "Autoregressive", "diffusion": "Block diffusion", "self-speculation": "Self-speculation"}
#: Mid-tones of the stage's lane colours: at least 3:1 on white and on the dark sheet.
COLOURS = {"ar": "#73808d", "diffusion": "#c9720f", "self-speculation": "#0f9a78"}
DASHES = {"ar": "dot", "diffusion": "solid", "self-speculation": "solid"}
SYMBOLS = {"ar": "circle", "diffusion": "diamond", "self-speculation": "square"}
#: A trace may be anybody's file: how many points a figure draws of it.
MAX_POINTS = 4000
OWN = "#3a86d1"
TEXT = "#737d87"
GRID = "rgba(128,138,148,.22)"
TOOLS = "rgba(128,138,148,.7)"
SANS = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif'
MONO = 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace'


def lane_figures(lane: Lane) -> str:
    """A lane's size and cost in a line: forwards and seconds beside each other. The prefill is named, since it gives
    the first token: AR has one token more than forwards."""
    passes = lane_forwards(lane.forwards, lane.events[0].phase == "prefill" if lane.events else False)
    counted = lane.nfe_counts()[-1] if lane.events else None
    nfe = "" if counted is None else f" (NFE {counted})"
    seconds = f", {lane.seconds:.2f} s" if lane.seconds else ""  # an opened trajectory has none
    return f"{plural(len(lane.tokens), 'token')} in {passes}{nfe}{seconds}"


def lane_forwards(count: int, prefilled: bool) -> str:
    """How many forwards a lane has run; those after the prefill count."""
    return ("prefill + " if prefilled else "") + plural(count, "forward")


def at(event: Event) -> str:
    """When an event ended: its forward and, where it was measured, its second."""
    seconds = f"{event.clock_ms / 1000:.2f} s" if event.clock_ms else ""
    return " · ".join(filter(None, (f"forward {event.forward}", seconds)))


def plural(count: int, noun: str) -> str:
    """1 token, 2 tokens."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def figure_of(title: str, subtitle: str, figure: go.Figure | None = None) -> go.Figure:
    """A figure in the stage's manner: transparent, quiet axes, its legend below; `figure` may bring subplots."""
    figure = figure or go.Figure()
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "tickcolor": GRID,
        "automargin": True,
        "fixedrange": True,
        "title": {"standoff": 8, "font": {"size": 12}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        template="none",
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {"text": subtitle, "font": {"size": 11.5, "color": TEXT}},
            "font": {"size": 14, "color": TEXT},
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"l": 8, "t": 12},
        },
        font={"family": SANS, "size": 12, "color": TEXT},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 16, "t": 66, "b": 8},
        showlegend=False,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 11.5},
        },
        # Else Plotly gives its toolbar a grey box, and two tools that select for nothing.
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": TOOLS, "activecolor": TEXT, "remove": ["select2d", "lasso2d"]},
        hoverlabel={"align": "left", "font": {"family": SANS, "size": 12}},
        hovermode="closest",
        dragmode=False,
        autosize=True,
    )
    return figure


def empty(title: str, sentence: str) -> go.Figure:
    """A calm figure that says in a sentence why nothing is drawn."""
    figure = figure_of(title, "")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    words, lines = sentence.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 44:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    figure.add_annotation(
        text="<br>".join(lines), showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 13}
    )
    figure.update_layout(height=200)
    return figure
