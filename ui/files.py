"""Files made from the trace that a page holds: a replay in one HTML file, a GIF, videos, diffusers' trajectory."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nemodiff.errors import TraceError
from nemodiff.trace import Trace
from ui.export import replay_html
from ui.gif import gif
from ui.stream import explain, pack
from ui.trajectory import trajectory
from ui.video import MEDIA, endings, video


@dataclass(frozen=True, slots=True)
class Format:
    """What a viewer can take away: the file's ending, its media type, and how it is made."""

    ending: str
    media: str
    make: Callable[[Trace], bytes]


def _written(write: Callable[[Trace, Path], object], ending: str) -> Callable[[Trace], bytes]:
    """What writes a file, as a function that returns its bytes."""

    def make(trace: Trace) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"run.{ending}"
            write(trace, path)
            return path.read_bytes()

    return make


def _trajectory(trace: Trace) -> bytes:
    mode = "diffusion" if trace.lane("diffusion") else trace.lanes[0].mode
    return json.dumps(trajectory(trace, mode), ensure_ascii=False).encode()


FORMATS = {
    "html": Format("replay.html", "text/html", lambda trace: replay_html(trace).encode()),
    "gif": Format("gif", "image/gif", _written(gif, "gif")),
    **{ending: Format(ending, MEDIA[ending], _written(video, ending)) for ending in endings()},
    "trajectory": Format("trajectory.json", "application/json", _trajectory),
}


#: Files and charts made at once, and seconds that one waits for its turn: making a video keeps a core busy.
_making, _PATIENCE = threading.BoundedSemaphore(2), 20.0


@contextmanager
def making() -> Iterator[None]:
    """One of the places for what is made of a visitor's trace. Raises TraceError when none is free for long."""
    if not _making.acquire(timeout=_PATIENCE):
        raise TraceError("Others' files are being made: try again in a minute.")
    try:
        yield
    finally:
        _making.release()


def make(asked: str) -> str:
    """A file from "kind, newline, text of a trace", which is untrusted: {ending, media, data (base64)} or {error}."""
    try:
        kind, _, text = asked.partition("\n") if isinstance(asked, str) else ("", "", "")
        if kind not in FORMATS:
            raise TraceError(f"There is no such file format: choose {', '.join(FORMATS)}.")
        form, trace = FORMATS[kind], Trace.from_json(text)
        with making():
            data = form.make(trace)
        return pack({"ending": form.ending, "media": form.media, "data": base64.b64encode(data).decode()})
    except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
        return pack({"error": explain(error)})
