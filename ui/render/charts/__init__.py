"""Plotly figures from a Trace. Every point's customdata is [mode, index of the event in its lane], so that a click
can move the player there. Colours read on light and dark; every colour is repeated by a shape, a place or a number."""

from ui.render.charts.acceptance import acceptance_lengths
from ui.render.charts.confidence import confidence_agreement
from ui.render.charts.drafts import drafts_accepted
from ui.render.charts.order import commit_order
from ui.render.charts.tokens_over import tokens_over_forwards, tokens_over_seconds

__all__ = [
    "acceptance_lengths",
    "commit_order",
    "confidence_agreement",
    "drafts_accepted",
    "tokens_over_forwards",
    "tokens_over_seconds",
]
