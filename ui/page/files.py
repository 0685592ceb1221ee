"""Files made from the trace that a page holds: a replay (HTML, an iframe), a GIF, videos, posters, a trajectory."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemodiff.errors import TraceError
from nemodiff.trace.events import Trace
from nemodiff.trace.replay import replay_html
from ui.render.gif import gif
from ui.render.poster import poster_png, poster_svg
from ui.render.trajectory import trajectory
from ui.render.video import MEDIA, endings, video

#: Raises TraceError when what is being made has taken too long.
GoOn = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Format:
    """What a viewer can take away: the file's ending, its media type, and how it is made of a trace. What draws many
    pictures asks now and then whether it may go on."""

    ending: str
    media: str
    make: Callable[[Trace, GoOn], bytes]


def _written(write: Callable[..., object], ending: str) -> Callable[[Trace, GoOn], bytes]:
    """What writes a file, as a function that returns its bytes."""

    def make(trace: Trace, go_on: GoOn) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"run.{ending}"
            write(trace, path, go_on=go_on)
            return path.read_bytes()

    return make


def _trajectory(trace: Trace, go_on: GoOn) -> bytes:
    mode = "diffusion" if trace.lane("diffusion") else trace.lanes[0].mode
    return json.dumps(trajectory(trace, mode), ensure_ascii=False).encode()


FORMATS = {
    "html": Format("replay.html", "text/html", lambda trace, go_on: replay_html(trace).encode()),
    "embed": Format("embed.html", "text/html", lambda trace, go_on: str(trace.show()).encode()),
    "gif": Format("gif", "image/gif", _written(gif, "gif")),
    **{ending: Format(ending, MEDIA[ending], _written(video, ending)) for ending in endings()},
    "poster": Format("poster.png", "image/png", lambda trace, go_on: poster_png(trace)),
    "drawing": Format("poster.svg", "image/svg+xml", lambda trace, go_on: poster_svg(trace)),
    "trajectory": Format("trajectory.json", "application/json", _trajectory),
}


#: What is made of visitors' traces at once, reading them included: a video keeps a core busy.
_making = threading.BoundedSemaphore(2)
#: Seconds that one may take.
MOST = 60.0


@contextmanager
def making() -> Iterator[GoOn]:
    """One of the places for what is made of a visitor's trace. Raises TraceError at once when none is free: who waited
    would keep one of the threads that answer everybody."""
    if not _making.acquire(blocking=False):
        raise TraceError("Others' files are being made: try again in a minute.")
    end = time.monotonic() + MOST

    def go_on() -> None:
        if time.monotonic() > end:
            raise TraceError(f"To draw this run took longer than {MOST:.0f} s, so it was ended: try a shorter run.")

    try:
        yield go_on
    finally:
        _making.release()


def make(kind: Any, text: Any, admit: Callable[[], object] = lambda: None) -> tuple[Format, bytes]:
    """A file of the kind, made of the text of a trace, both untrusted. Raises NemodiffError.

    admit: counts the file for its visitor; raises a NemodiffError when there were too many.
    """
    if not isinstance(kind, str) or kind not in FORMATS or not isinstance(text, str):
        raise TraceError(f"There is no such file format: choose {', '.join(FORMATS)}.")
    admit()
    form = FORMATS[kind]
    with making() as go_on:
        return form, form.make(Trace.from_json(text), go_on)
