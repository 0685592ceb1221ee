"""A run to take away: one HTML file that replays it, with no server and no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json

from nemodiff.trace.events import Trace
from ui import player
from ui.values import for_browser

_DATA_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; padding: 18px clamp(10px, 2vw, 24px) 32px; background: #f6f7f9; color: #191d23; }
html.dark body { background: #0d0f12; color: #e8ebef; }
main { max-width: 1360px; margin: 0 auto; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 14px; margin: 0 4px 12px; }
header, noscript { font: 14px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 19px; margin: 0; font-weight: 650; letter-spacing: -.01em; }
header p { margin: 0; opacity: .75; }
"""

_START = """
const scheme = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark", scheme.matches);
scheme.addEventListener("change", follow);
follow();
const stage = mount(document.getElementById("stage"));
try {
  stage.ingest({ kind: "recorded", trace: JSON.parse(document.getElementById("trace").textContent) });
} catch (error) {
  console.error(error);
  stage.fail("This replay is damaged: its trace could not be read.");
}
"""

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
<main>
<header><h1>nemodiff</h1><p>One model, three ways to decode: a recorded run.</p></header>
<noscript>This replay needs JavaScript. It loads nothing and sends nothing.</noscript>
{stage}
</main>
<script id="trace" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def data_block(value: object) -> str:
    """JSON that can stand in a <script type="application/json">, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "".join(_DATA_ESCAPES.get(c, c) for c in text) if any(c in text for c in _DATA_ESCAPES) else text


def replay_html(trace: Trace) -> str:
    """One self-contained HTML file that plays the trace from disk.

    Its policy lets exactly this script run and nothing be fetched, sent or framed.
    """
    script = "(() => {\n" + player.script() + _START + "})();\n"
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("the player's code would end its own script element")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    images = "img-src data:; " if trace.image_previews else ""
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; {images}"
        "base-uri 'none'; form-action 'none'"
    )
    prompt = str(trace.request.get("prompt") or trace.checkpoint)
    return _PAGE.format(
        policy=policy,
        title=html.escape(f"{' '.join(prompt.split())[:80]} · nemodiff"),
        style=player.STYLE.read_text(encoding="utf-8") + _STYLE,
        stage=player.template(),
        data=data_block(for_browser(trace.to_dict())),
        script=script,
    )
