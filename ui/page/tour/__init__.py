"""The tour: four steps for whoever opens the page for the first time, and again on demand."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

FILES = Path(__file__).parent
STYLE = FILES / "tour.css"


def component(start: bool) -> gr.HTML:
    """start: whether a browser's first visit begins it."""
    return gr.HTML(
        html_template=(FILES / "tour.html").read_text(encoding="utf-8"),
        js_on_load=(FILES / "tour.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        begins=start,
        elem_id="tour-host",
    )
