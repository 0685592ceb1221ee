"""The line below the page: where the code, the paper, the API and the licence are."""

from __future__ import annotations

from html import escape

import gradio as gr

PAPER = "https://arxiv.org/abs/2607.05722"
LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"


def component(source: str) -> gr.HTML:
    """source: the address of this code; "" where it is not known."""
    links = [
        ("Code", source),
        ("Paper: arXiv 2607.05722", PAPER),
        ("API", "gradio_api/info"),
        ("Licence: Apache-2.0", LICENCE),
    ]
    items = "".join(
        f'<li><a href="{escape(address)}" target="_blank" rel="noopener noreferrer">{escape(name)}</a></li>'
        for name, address in links
        if address
    )
    return gr.HTML(
        html_template=f'<nav id="links" aria-label="About this page"><ul>{items}</ul></nav>',
        apply_default_css=False,
        elem_id="links-host",
    )
