"""Runs to take away: an HTML file that replays one or several, with no server and no network, and what embeds it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemodiff.trace import answers, player
from nemodiff.trace.events import Trace
from nemodiff.trace.values import for_browser

_DATA_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main{marks}>
<header><h1>nemodiff</h1>{header}</header>
<noscript>This replay needs JavaScript. It loads nothing and sends nothing.</noscript>
{body}
</main>
{data}<script>{script}</script>
</body>
</html>
"""

_RECORDED = "<p>One model, three ways to decode: a recorded run.</p>"
_CONTROLS = """<p>{count} recorded runs, side by side.</p>
<div class="together" role="group" aria-label="All runs">
<button type="button" data-at="start">To the start</button>
<button type="button" data-at="play">Play all</button>
<button type="button" data-at="end">To the end</button>
<span role="group" aria-label="Clock">
<button type="button" data-clock="forwards" aria-pressed="true">Forwards</button>
<button type="button" data-clock="seconds" aria-pressed="false">Seconds</button>
</span>
</div>"""

_VIEWER = Path(__file__).parent / "viewer"
_SANDBOX = "allow-scripts allow-downloads"


def data_block(value: object) -> str:
    """JSON that can stand in a <script type="application/json">, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "".join(_DATA_ESCAPES.get(c, c) for c in text) if any(c in text for c in _DATA_ESCAPES) else text


def replay_html(trace: Trace) -> str:
    """One self-contained HTML file that plays the trace from disk.

    Its policy lets exactly this script run and nothing be fetched, sent or framed.
    """
    script = _player()
    images = "img-src data:; " if trace.image_previews else ""
    return _PAGE.format(
        policy=_policy(images, script),
        title=html.escape(f"{_title(trace)} · nemodiff"),
        style=player.STYLE.read_text(encoding="utf-8") + _file("replay.css"),
        marks=f' data-marks="{html.escape(json.dumps(answers.for_stage(trace)))}"',
        header=_RECORDED,
        body=player.template(),
        data=f'<script id="trace" type="application/json">{data_block(for_browser(trace.to_dict()))}</script>\n',
        script=script,
    )


def side_by_side(runs: Sequence[tuple[str, Trace]]) -> str:
    """One self-contained HTML file that plays several traces beside each other, by one clock. runs: (name, trace)."""
    images = "img-src data:; " if any(trace.image_previews for _, trace in runs) else ""
    figures = "\n".join(
        f"<figure><figcaption>{html.escape(name)}</figcaption>{_frame(trace, name)}</figure>" for name, trace in runs
    )
    script = _file("beside.js")
    # What is framed inherits this policy: the player's script stands in it, too.
    return _PAGE.format(
        policy=_policy(images, script, _player()),
        title=html.escape(f"{', '.join(name for name, _ in runs)[:120]} · nemodiff"),
        style=_file("replay.css") + _file("beside.css"),
        marks="",
        header=_CONTROLS.format(count=len(runs)),
        body=f'<div class="beside">\n{figures}\n</div>',
        data="",
        script=script,
    )


@dataclass(frozen=True, slots=True)
class Embedded:
    """A replay in a frame of its own: a notebook shows it, and `str` of it is the HTML to paste into a page.

    The frame is sandboxed without its page's origin: what runs in it reaches nothing of the page around it.
    """

    html: str

    def __str__(self) -> str:
        return self.html

    def _repr_html_(self) -> str:
        return self.html


def embedded(trace: Trace, height: int) -> Embedded:
    """The replay of a trace as an <iframe> that needs no other file. height: in pixels."""
    style = f"width: 100%; height: {int(height)}px; border: 0"
    return Embedded(_frame(trace, _title(trace), style))


def _frame(trace: Trace, name: str, style: str = "") -> str:
    inside = html.escape(replay_html(trace))
    styled = f' style="{style}"' if style else ""
    return f'<iframe title="{html.escape(name)}" sandbox="{_SANDBOX}"{styled} srcdoc="{inside}"></iframe>'


def _title(trace: Trace) -> str:
    prompt = str(trace.request.get("prompt") or trace.checkpoint)
    return " ".join(prompt.split())[:80]


def _player() -> str:
    script = "(() => {\n" + player.script() + _file("replay.js") + "})();\n"
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("the player's code would end its own script element")
    return script


def _policy(images: str, *scripts: str) -> str:
    """Exactly these scripts run; nothing is fetched or sent."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; {images}"
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (_VIEWER / name).read_text(encoding="utf-8")
