"""Plotly figures from a Trace. Every point's customdata is [mode, index of the event in its lane], so that a click
can move the player there. Colours read on light and dark; every colour is repeated by a shape, a place or a number."""

from ui.charts.acceptance import acceptance_lengths
from ui.charts.confidence import confidence_agreement
from ui.charts.order import commit_order
from ui.charts.tokens_over import tokens_over_forwards, tokens_over_seconds

__all__ = [
    "acceptance_lengths",
    "commit_order",
    "confidence_agreement",
    "tokens_over_forwards",
    "tokens_over_seconds",
]
