"""The picture of a run, drawn over from frame to frame: only cells that look different are painted again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from nemodiff.trace.events import Lane, Trace
from ui.render.frames.lane_view import LaneView
from ui.render.frames.lettering import Lettering, Pen
from ui.render.frames.look import INK, LANES, LEGEND, LINE, PAPER, SHEET, SOFT
from ui.render.frames.picture_band import PictureBand
from ui.render.frames.tree_band import TreeBand, events_at
from ui.render.positions import seen
from ui.render.text_layout import clusters, is_emoji
from ui.render.trees import is_tree


class Board:
    """Head, the prompt's pictures, a lane per column, the tree of drafts, a legend; from the top down."""

    margin, head, foot = 18, 62, 34

    def __init__(
        self,
        trace: Trace,
        lanes: list[Lane],
        clock: str,
        stops: Sequence[float],
        columns: int,
        rows: int,
        size: int,
    ) -> None:
        self.trace, self.clock, self.stops = trace, clock, stops
        self.type = Lettering(size)
        self.lane_width = columns * self.type.width + 2 * self.margin
        wide = self.lane_width * len(lanes)
        self.pen = Pen(Image.new("RGB", (wide, 1), PAPER), self.type)
        self.events = [events_at(lane, stops, clock) for lane in lanes]
        self.views = [
            LaneView(self.pen, trace, lane, i * self.lane_width, self.lane_width, self.margin, columns)
            for i, lane in enumerate(lanes)
        ]
        pictured = bool(trace.image_grids or trace.image_previews)
        self.pictures = PictureBand(trace) if pictured else None
        drafted = next((i for i, lane in enumerate(lanes) if any(map(is_tree, lane.events))), None)
        edges = self.margin, wide - self.margin
        self.tree = None if drafted is None else TreeBand(self.pen, trace, lanes[drafted], edges, self.events[drafted])
        self.drafted = drafted or 0

        self.lanes_top = self.head + (self.pictures.height if self.pictures else 0)
        shown = min(rows, max(view.rows for view in self.views))
        self.text_top = self.lanes_top + 52
        figures_top = self.text_top + shown * self.type.height + 12
        self.lanes_bottom = figures_top + 48
        if self.tree:
            self.tree.top = self.lanes_bottom
        for view in self.views:
            view.shown, view.text_top, view.figures_top = shown, self.text_top, figures_top
            view.narrow = any(one.crowded for one in self.views)
        self.image = Image.new(
            "RGB", (wide, self.lanes_bottom + (self.tree.height if self.tree else 0) + self.foot), PAPER
        )
        self.pen.over(self.image)
        self.total = max(lane.forwards if clock == "forwards" else lane.seconds for lane in lanes)

    def coloured(self) -> list[Image.Image]:
        """What has colours of its own: emoji and, once they were drawn, the prompt's pictures."""
        written = {piece.text for view in self.views for slot in view.slots.values() for piece in slot.pieces}
        found = {one for text in written if not text.isascii() for one in clusters(text) if is_emoji(one)}
        emoji = filter(None, map(self.type.in_colour, sorted(found)))
        return [*(self.pictures.framed if self.pictures else ()), *emoji]

    def draw(self) -> Iterator[Image.Image]:
        self._fixed()
        for k, stop in enumerate(self.stops):
            self._progress(stop)
            for view, events in zip(self.views, self.events, strict=True):
                view.draw(events[k])
            if self.tree:
                self.tree.draw(self.views[self.drafted].cells)
            yield self.image

    def _fixed(self) -> None:
        width, height = self.image.size
        room = width - 2 * self.margin
        pen = self.pen
        prompt = " ".join(seen(str(self.trace.request.get("prompt") or "")).split())
        where = (self.trace.checkpoint, self.trace.device, self.trace.dtype)
        pen.write((self.margin, 12), prompt or "nemodiff", self.type.head, INK, room)
        pen.write((self.margin, 34), seen(" · ".join(filter(None, where))), self.type.small, SOFT, room - 150)
        pen.draw.line((0, self.head, width, self.head), LINE)
        if self.pictures:
            self.pictures.draw(pen, self.margin, self.head, width - self.margin)
        for view in self.views:
            if view.x:
                pen.draw.line((view.x, self.lanes_top, view.x, self.lanes_bottom), LINE)
            title, colour = LANES[view.lane.mode]
            x, y = view.x + self.margin, self.lanes_top + 16
            pen.draw.ellipse((x, y + 2, x + 9, y + 11), colour)
            pen.write((x + 16, y - 1), title, self.type.head, INK, self.lane_width - 2 * self.margin - 16)
        if self.tree:
            pen.draw.line((0, self.lanes_bottom, width, self.lanes_bottom), LINE)
        pen.draw.line((0, height - self.foot, width, height - self.foot), LINE)
        self._legend(self.margin, height - self.foot + 8, width - self.margin)

    def _legend(self, x: float, y: float, right: float) -> None:
        states = {view.lane.mode for view in self.views}
        for word, meaning, look in LEGEND:
            if word in ("kept", "own") and "self-speculation" not in states or word == "guess" and states == {"ar"}:
                continue
            wide = len(word) * self.type.width
            end = x + wide + 6 + self.type.small.getlength(meaning)
            if end > right:
                return
            self.pen.cell((x, y, x + wide, y + self.type.height - 2), word, look)
            self.pen.write((x + wide + 6, y), meaning, self.type.small, SOFT, right - x)
            x = end + 22

    def _progress(self, stop: float) -> None:
        width, draw = self.image.width, self.pen.draw
        if self.clock == "forwards":
            label, done = f"forward {stop:.0f} of {self.total}", stop / max(self.total, 1)
        else:
            label, done = f"{stop / 1000:.2f} of {self.total:.2f} s", stop / 1000 / self.total
        draw.rectangle((width - self.margin - 150, 30, width, 52), PAPER)
        place = width - self.margin - self.type.small.getlength(label)
        draw.text((place, 34), label, SOFT, self.type.small)
        draw.rectangle((0, self.head - 4, width, self.head - 1), SHEET)
        draw.rectangle((0, self.head - 4, max(1, round(width * min(1, done))), self.head - 1), INK)
