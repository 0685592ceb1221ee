"""The shelf: recorded runs to play at once, each a card whose figures are read from its trace."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr

from nemodiff.errors import NemodiffError
from nemodiff.trace.answers import marks_of
from nemodiff.trace.events import Trace, first_difference
from nemodiff.trace.opening import read_trace
from ui.wire import failure, replay

logger = logging.getLogger(__name__)

FILES = Path(__file__).parent
STYLE = FILES / "shelf.css"
#: Recordings that a page shows at most.
MOST = 12
#: What the recordings are called that come with the page, in their order. Any other is called by its prompt.
TITLES = {
    "json-person": "JSON object",
    "open": "Open question",
    "code": "Python code",
    "picture": "Picture",
    "tree": "Tree of drafts",
    "temperature": "Temperature",
    "diffusion-wrong": "Diffusion fails",
}


class Shelf:
    """The recordings of a folder, read when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _traces(self) -> dict[str, Trace]:
        found, order = {}, list(TITLES)
        paths = sorted(self._folder.glob("*.json"), key=lambda path: path.stem)
        paths.sort(key=lambda path: order.index(path.stem) if path.stem in order else len(order))
        for path in paths[:MOST]:
            try:
                found[path.stem] = read_trace(path)
            except NemodiffError as error:
                logger.warning("%s: %s", path.name, error)
        return found

    def first(self) -> str | None:
        """The run that stands on the stage at first, as the stage takes it; None where there is none."""
        return next((replay(trace, "recorded") for trace in self._traces.values()), None)

    def played(self, name: str) -> str:
        """A recording as the stage takes it, or a sentence. name: from the page, so untrusted."""
        trace = self._traces.get(name) if isinstance(name, str) else None
        return replay(trace) if trace else failure("There is no recording of that name here: reload the page.")

    def cards(self) -> list[dict[str, Any]]:
        return [card(name, trace) for name, trace in self._traces.items()]

    def component(self) -> gr.HTML:
        def played(name: str) -> str:  # Gradio marks its server functions, which a method does not let it
            return self.played(name)

        return gr.HTML(
            html_template=(FILES / "shelf.html").read_text(encoding="utf-8"),
            js_on_load=(FILES / "shelf.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            server_functions=[played],
            cards=self.cards(),
            visible=bool(self._traces),
            elem_id="shelf-host",
        )


def card(name: str, trace: Trace) -> dict[str, Any]:
    """What a card says of a recording: every figure is the trace's own."""
    marks, ar = marks_of(trace), trace.lane("ar")
    lanes = []
    for lane in trace.lanes:
        first = first_difference(lane.tokens, ar.tokens) if ar and lane is not ar else None
        fault = next((mark.fault for mark in marks[lane.mode] if mark.fault), "")
        lanes.append({"mode": lane.mode, "forwards": lane.forwards, "fault": fault, "differs": first is not None})
    where = (trace.checkpoint, trace.device, trace.dtype, trace.recorded)
    prompt = " ".join(str(trace.request.get("prompt") or "").split())
    return {
        "name": name,
        "title": TITLES.get(name) or prompt[:40] or name,
        "prompt": prompt[:200],
        "lanes": lanes,
        "says": _says(lanes),
        "recorded": " · ".join(part for part in where if part),
    }


def _says(lanes: list[dict[str, Any]]) -> dict[str, str]:
    """How it ended, in a word and in a line. tone: yes, no, or "" where there is nothing to compare."""
    by_mode = {lane["mode"]: lane for lane in lanes}
    ar, spec, diffusion = (by_mode.get(mode) for mode in ("ar", "self-speculation", "diffusion"))
    if diffusion and diffusion["fault"] and not (ar and ar["fault"]):
        return {"tone": "no", "short": "", "text": f"diffusion: {diffusion['fault']}"}
    if not ar or not spec or not ar["forwards"] or not spec["forwards"]:
        return {"tone": "", "short": "", "text": ""}
    times = f"{ar['forwards'] / spec['forwards']:.1f}×"
    fewer = f"self-speculation: {times} fewer forwards than AR"
    if spec["differs"]:
        return {"tone": "", "short": "", "text": f"{fewer}, another text"}
    return {"tone": "yes", "short": times, "text": f"{fewer}, the same text"}
