"""The settings' words, explained where they are shown, and on a narrow screen the button that unfolds the settings."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from nemodiff.settings import offered

FILES = Path(__file__).parent
STYLE = FILES / "words.css"
#: The modes, by the values of their boxes.
MODES = {
    "ar": "Autoregressive: one token per forward, from left to right. The other lanes are held against it.",
    "diffusion": "Block diffusion: guesses a whole block of masked positions and commits those that it is sure of.",
    "self-speculation": "Self-speculation: drafts like diffusion, then AR verifies. The text is AR's, token for token.",
}


def component() -> gr.HTML:
    return gr.HTML(
        html_template=(FILES / "words.html").read_text(encoding="utf-8"),
        js_on_load=(FILES / "words.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        words=MODES | {setting.name.replace("_", "-"): setting.explained for setting in offered("page")},
        elem_id="words-host",
    )
