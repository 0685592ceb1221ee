"""A trace's lanes as pictures, drawn with Pillow. Laid out from the final frame, so text never reflows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PIL import Image

from nemodiff.errors import TraceError
from nemodiff.trace.events import Lane, Trace
from ui.render.frames.board import Board

MAX_FRAMES = 120
#: Milliseconds: a forward, the shortest frame that browsers keep, the held last frame.
FORWARD_MS, SHORTEST_MS, HOLD_MS = 140, 40, 3000


class Frames:
    """A run as pictures: `durations` in milliseconds, `width` and `height` in pixels, and the pictures themselves."""

    def __init__(
        self,
        trace: Trace,
        *,
        clock: str = "forwards",
        columns: int = 38,
        rows: int = 22,
        size: int = 13,
        max_frames: int = MAX_FRAMES,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """clock: forwards (every lane advances one a frame) or seconds (measured model time; slowed down only where a
        frame would be too short to show, and the time is printed). columns, rows: characters of a lane's text; a
        longer answer scrolls. size: font size in pixels. A longer run is thinned to max_frames. go_on: asked before
        every picture; what it raises ends the drawing. Raises TraceError when there is nothing to draw.
        """
        if clock not in ("forwards", "seconds"):
            raise ValueError(f"clock must be forwards or seconds, not {clock!r}")
        lanes = [lane for lane in trace.lanes if lane.events]
        if not lanes:
            raise TraceError("The run has no forwards, so there is nothing to draw.")
        if clock == "seconds" and not any(lane.seconds for lane in lanes):
            clock = "forwards"
        stops, pause = _stops(lanes, clock, max(2, max_frames))
        self._board = Board(trace, lanes, clock, stops, columns, rows, size)
        self.durations = [pause] * (len(stops) - 1) + [HOLD_MS]
        self.width, self.height = self._board.image.size
        self._go_on = go_on

    def draw(self) -> Iterator[Image.Image]:
        """RGB pictures in their order. It is one picture drawn over: read each before the next."""
        for image in self._board.draw():
            self._go_on()
            yield image

    def coloured(self) -> list[Image.Image]:
        """What has other colours than the page's, once the first picture was drawn: the prompt's pictures, emoji."""
        return self._board.coloured()


def _stops(lanes: list[Lane], clock: str, most: int) -> tuple[list[float], int]:
    """Places on the clock to draw, its start and end included, and the milliseconds between two of them."""
    if clock == "forwards":
        total = max(lane.forwards for lane in lanes)
        count = min(total + 1, most)
        stops = [float(round(i * total / max(count - 1, 1))) for i in range(count)]
        return stops, FORWARD_MS
    end = max(lane.seconds for lane in lanes) * 1000
    count = int(max(2, min(most, end // SHORTEST_MS + 1)))
    pause = end / (count - 1)
    return [i * pause for i in range(count)], max(SHORTEST_MS, round(pause / 10) * 10)
