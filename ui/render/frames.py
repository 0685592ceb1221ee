"""A trace's lanes as pictures, drawn with Pillow. Laid out from the final frame, so text never reflows."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont, features

from nemodiff.errors import TraceError
from nemodiff.trace.events import Lane, Position, Trace
from ui.render.answers import fault
from ui.render.charts.figure import lane_forwards
from ui.render.positions import Cells, kept_counts, name, seen, texts
from ui.render.text_layout import Piece, clusters, cut, layout, visual, width

MAX_FRAMES = 120
MAX_TOKENS = 4096
#: Characters that are drawn, of a token and of a lane.
MAX_TEXT, MAX_CHARACTERS = 256, 100_000
#: Milliseconds: a forward, the shortest frame that browsers keep, the held last frame.
FORWARD_MS, SHORTEST_MS, HOLD_MS = 140, 40, 3000

PAPER, INK, SOFT, LINE, SHEET, GHOST = "#ffffff", "#191d23", "#5a636e", "#e1e5ea", "#f3f5f7", "#7b858f"
LANES = {
    "ar": ("Autoregressive", "#5c6570"),
    "diffusion": ("Block diffusion", "#b45f06"),
    "self-speculation": ("Self-speculation", "#00735c"),
}
OK, OWN = "#08795f", "#1a66ab"
# Behind a token: committed in this forward, one or two forwards ago, up to five. The stage's accent on paper.
AGES = ("#f6b73c", "#fbdfa7", "#fdf1d8")
LEGEND = (("new", "this forward"), ("guess", "still masked"), ("kept", "accepted draft"), ("own", "the verifier's"))


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a position's final token stands."""

    token: int
    pieces: tuple[Piece, ...]


class _Type:
    """A monospaced font and its grid. Without DejaVu Sans Mono, Pillow's own font on a grid of its widest letter."""

    def __init__(self, size: int) -> None:
        self.body = _font("DejaVuSansMono.ttf", size)
        # A shaping engine, where there is one, puts combining characters into place; else they are drawn over a letter.
        engine = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
        self.joins = engine == ImageFont.Layout.RAQM
        # Hebrew, for one, is in the second alone.
        self.fonts = [_font(file, size, engine) for file in ("DejaVuSansMono.ttf", "DejaVuSans.ttf")]
        self.blank = [bytes(font.getmask("\U0010ffff")) for font in self.fonts]
        self.chosen: dict[str, Any] = {}
        self.small = _font("DejaVuSans.ttf", size - 1)
        self.head = _font("DejaVuSans-Bold.ttf", size + 1)
        self.width = max(1, round(self.body.getlength("M")))
        self.height = round(size * 1.5)

    def font_of(self, cluster: str) -> Any:
        """The first font that has all of a cluster's characters."""
        if cluster not in self.chosen:
            fits = (
                font
                for font, blank in zip(self.fonts, self.blank, strict=True)
                if all(bytes(font.getmask(character)) != blank for character in cluster)
            )
            self.chosen[cluster] = next(fits, self.body)
        return self.chosen[cluster]


def _font(file: str, size: int, engine: ImageFont.Layout = ImageFont.Layout.BASIC) -> Any:
    try:
        return ImageFont.truetype(file, size, layout_engine=engine)
    except OSError:
        return ImageFont.load_default(size)


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
        self._board = _Board(trace, lanes, clock, columns, rows, size)
        self._stops, pause = _stops(lanes, clock, max(2, max_frames))
        self.durations = [pause] * (len(self._stops) - 1) + [HOLD_MS]
        self.width, self.height = self._board.image.size
        self._go_on = go_on

    def draw(self) -> Iterator[Image.Image]:
        """RGB pictures in their order. It is one picture drawn over: read each before the next."""
        for image in self._board.draw(self._stops):
            self._go_on()
            yield image


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


class _Board:
    """The picture, drawn over from frame to frame: only cells that look different are painted again."""

    def __init__(self, trace: Trace, lanes: list[Lane], clock: str, columns: int, rows: int, size: int) -> None:
        self.trace, self.clock = trace, clock
        self.type = _Type(size)
        self.margin, self.head, self.foot = 18, 62, 34
        self.lane_width = columns * self.type.width + 2 * self.margin
        views = [_View(self, trace, lane, i * self.lane_width, columns, rows) for i, lane in enumerate(lanes)]
        shown = min(rows, max(view.rows for view in views))
        self.text_top = self.head + 52
        self.figures_top = self.text_top + shown * self.type.height + 12
        self.image = Image.new("RGB", (self.lane_width * len(lanes), self.figures_top + 48 + self.foot), PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.views = views
        for view in views:
            view.shown = shown
        self.total = max(lane.forwards for lane in lanes) if clock == "forwards" else max(v.lane.seconds for v in views)

    def draw(self, stops: list[float]) -> Iterator[Image.Image]:
        self._fixed()
        for stop in stops:
            self._progress(stop)
            for view in self.views:
                view.draw(stop)
            yield self.image

    def _fixed(self) -> None:
        width, height = self.image.size
        request = self.trace.request
        prompt = " ".join(seen(str(request.get("prompt") or "")).split())
        where = (self.trace.checkpoint, self.trace.device, self.trace.dtype)
        self.write((self.margin, 12), prompt or "nemodiff", self.type.head, INK, width - 2 * self.margin)
        room = width - 2 * self.margin - 150
        self.write((self.margin, 34), seen(" · ".join(part for part in where if part)), self.type.small, SOFT, room)
        self.pen.line((0, self.head, width, self.head), LINE)
        for view in self.views:
            if view.x:
                self.pen.line((view.x, self.head, view.x, height - self.foot), LINE)
            title, colour = LANES[view.lane.mode]
            x, y = view.x + self.margin, self.head + 16
            self.pen.ellipse((x, y + 2, x + 9, y + 11), colour)
            self.write((x + 16, y - 1), title, self.type.head, INK, self.lane_width - 2 * self.margin - 16)
        self.pen.line((0, height - self.foot, width, height - self.foot), LINE)
        self._legend(self.margin, height - self.foot + 8, width - self.margin)

    def _legend(self, x: float, y: float, right: float) -> None:
        states = {view.lane.mode for view in self.views}
        for word, meaning in LEGEND:
            if word in ("kept", "own") and "self-speculation" not in states or word == "guess" and states == {"ar"}:
                continue
            wide = len(word) * self.type.width
            end = x + wide + 6 + self.type.small.getlength(meaning)
            if end > right:
                return
            box = (x, y, x + wide, y + self.type.height - 2)
            look = {
                "new": _Look(INK, AGES[0]),
                "guess": _Look(GHOST, None, GHOST, dotted=True),
                "kept": _Look(INK, None, OK),
                "own": _Look(OWN, None, OWN),
            }[word]
            self.cell(box, word, look)
            self.write((x + wide + 6, y), meaning, self.type.small, SOFT, right - x)
            x = end + 22

    def _progress(self, stop: float) -> None:
        width = self.image.width
        if self.clock == "forwards":
            label, done = f"forward {stop:.0f} of {self.total}", stop / max(self.total, 1)
        else:
            label, done = f"{stop / 1000:.2f} of {self.total:.2f} s", stop / 1000 / self.total
        self.pen.rectangle((width - self.margin - 150, 30, width, 52), PAPER)
        place = width - self.margin - self.type.small.getlength(label)
        self.pen.text((place, 34), label, SOFT, self.type.small)
        self.pen.rectangle((0, self.head - 4, width, self.head - 1), SHEET)
        self.pen.rectangle((0, self.head - 4, max(1, round(width * min(1, done))), self.head - 1), INK)

    def write(self, place: tuple[float, float], text: str, font: Any, colour: str, room: float) -> None:
        """One line, cut with an ellipsis where the room ends."""
        text = visual(unicodedata.normalize("NFC", text[:400]))
        if font.getlength(text) > room:
            while text and font.getlength(text + "…") > room:
                text = text[:-1]
            text += "…"
        self.pen.text(place, text, colour, font)

    def cell(self, box: tuple[float, float, float, float], text: str, look: _Look) -> None:
        left, top, right, bottom = (round(edge) for edge in box)
        self.pen.rectangle((left, top, right - 1, bottom - 1), look.fill or PAPER)
        column = 0
        for cluster in text if text.isascii() else clusters(text):
            if cluster != " ":
                self._character((left + column * self.type.width, top), cluster, look.ink)
            column += width(cluster)
        if look.line and (look.fill or text.strip()):
            base = bottom - 2
            if look.dotted:
                for x in range(left, right - 1, 4):
                    self.pen.rectangle((x, base, x + 1, base + 1), look.line)
            else:
                self.pen.rectangle((left, base, right - 1, base + 1), look.line)
        if look.struck:
            self.pen.line((left, (top + bottom) // 2, right - 1, (top + bottom) // 2), look.ink)

    def _character(self, place: tuple[float, float], cluster: str, ink: str) -> None:
        if cluster.isascii():
            self.pen.text(place, cluster, ink, self.type.body)
            return
        cluster = unicodedata.normalize("NFC", cluster)
        font, (x, y) = self.type.font_of(cluster), place
        room = width(cluster) * self.type.width
        for part in [cluster] if self.type.joins else cluster:
            self.pen.text((x + (room - font.getlength(part)) / 2, y), part, ink, font)


@dataclass(frozen=True, slots=True)
class _Look:
    ink: str
    fill: str | None = None
    line: str | None = None
    dotted: bool = False
    struck: bool = False


class _View:
    """One lane: its text on a grid of columns × rows, and its figures."""

    def __init__(self, board: _Board, trace: Trace, lane: Lane, x: int, columns: int, rows: int) -> None:
        self.board, self.trace, self.lane, self.x, self.columns = board, trace, lane, x, columns
        self.cells, self.counts, self.nfe = Cells(lane), kept_counts(lane), lane.nfe_counts()
        self.fault = fault(trace, lane)
        self.slots, self.rows = _layout(trace, lane, columns)
        self.filled: set[int] = set()  # slots in which something stands: a trace may hold many more places
        self.lively: set[int] = set()  # those that may look different in the next picture
        self.shown = rows
        self.top = 0
        self.drawn: dict[int, tuple] = {}

    def draw(self, stop: float) -> None:
        seconds = self.board.clock == "seconds"
        events = self.lane.events
        k = self.cells.event
        while k + 1 < len(events) and (events[k + 1].clock_ms if seconds else events[k + 1].forward) <= stop + 1e-6:
            k += 1
        for index in self.cells.advance(k) & self.slots.keys():
            (self.filled.add if index in self.cells.at else self.filled.discard)(index)
            self.lively.add(index)
        if self.lively and self._scroll():
            self.lively |= self.filled
        for index in sorted(self.lively):
            key = self._key(index)
            if self.drawn.get(index) != key:
                self.drawn[index] = key
                self._paint(index, key)
            if not key or key[-1] is None:
                self.lively.discard(index)
        self._figures()

    def _scroll(self) -> bool:
        """Keep the newest token in view; a jump is half the window, so that eyes can follow. Whether there was one."""
        active = [index for index in self.lively & self.filled if self.cells.at[index][1] == self.cells.event]
        last = max((self.slots[index].pieces[-1].row for index in active), default=0)
        if last < self.top + self.shown:
            return False
        self.top = min(self.rows - self.shown, last - self.shown // 2)
        left, top = self.x + 1, self.board.text_top
        bottom = top + self.shown * self.board.type.height
        self.board.pen.rectangle((left, top, self.x + self.board.lane_width - 1, bottom), PAPER)
        self.drawn.clear()
        return True

    def _key(self, index: int) -> tuple:
        if index not in self.cells.at:
            return ()
        position, k = self.cells.at[index]
        distance = self.cells.event - k
        age = 0 if distance == 0 else 1 if distance <= 2 else 2 if distance <= 5 else None
        return position.state, position.token, age

    def _paint(self, index: int, key: tuple) -> None:
        look = _look(*key) if key else _Look(PAPER)
        final = self.slots[index]
        if final.pieces[-1].row < self.top or final.pieces[0].row >= self.top + self.shown:
            return
        position = self.cells.at[index][0] if key else None
        own = _guess(self.trace, position, final) if position else None
        for piece in final.pieces:
            wide = width(piece.text)
            shown = "" if position is None else piece.text if own is None else cut(own, wide)
            if own is not None:
                own = own[len(shown) :]
            if not wide or not self.top <= piece.row < self.top + self.shown:
                continue
            left = self.x + self.board.margin + piece.column * self.board.type.width
            top = self.board.text_top + (piece.row - self.top) * self.board.type.height
            box = (left, top, left + wide * self.board.type.width, top + self.board.type.height)
            shown = visual(shown) if own is not None else shown
            if shown == "⏎" and look.fill is None:
                shown = ""
            self.board.cell(box, shown, look)

    def _figures(self) -> None:
        board, event = self.board, self.lane.events[self.cells.event] if self.cells.event >= 0 else None
        left, top = self.x + board.margin, board.figures_top
        room = board.lane_width - 2 * board.margin
        board.pen.rectangle((self.x + 1, top, self.x + board.lane_width - 1, top + 44), PAPER)
        forwards, ms = (event.forward, event.clock_ms) if event else (0, 0.0)
        kept = self.counts[self.cells.event] if event else 0
        board.write((left, top), _plural(kept, "token"), board.type.head, LANES[self.lane.mode][1], room)
        beside = lane_forwards(forwards, self.nfe[:1] != [None])
        beside += f" · {ms / 1000:.2f} s" if self.lane.seconds else ""
        place = left + room - board.type.head.getlength(beside)
        board.write((place, top), beside, board.type.head, INK, room)
        parts = [f"{kept / forwards:.2f} tokens / forward"] if forwards else []
        counted = self.nfe[self.cells.event] if event else None
        parts += [f"NFE {counted}"] if counted is not None else []
        parts += [f"{kept / ms * 1000:.1f} tokens / s"] if ms else []
        parts += [self.fault] if self.fault and event is self.lane.events[-1] else []
        board.write((left, top + 22), " · ".join(parts), board.type.small, SOFT, room)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _look(state: str, token: int, age: int | None) -> _Look:
    fill = None if age is None else AGES[age]
    if state == "masked":
        return _Look(GHOST, None, GHOST, dotted=True)
    if state == "drafted":
        return _Look(GHOST, None, GHOST)
    if state == "discarded":
        return _Look(GHOST, None, struck=True)
    if state == "accepted":
        return _Look(INK, fill, OK if age is not None else None)
    if state in ("corrected", "bonus"):
        return _Look(OWN, fill, OWN)
    return _Look(INK, fill)


def _guess(trace: Trace, position: Position, slot: _Slot) -> str | None:
    """What stands over the final text while another token is there, cut to its room; None when it is the final one."""
    if position.token == slot.token:
        return None
    text = name(trace, position.token)
    bare = text.strip("·")
    # The final text's leading space stays free, so that words keep apart.
    return " " * slot.pieces[0].text.startswith(" ") + bare if bare else text


def _layout(trace: Trace, lane: Lane, columns: int) -> tuple[dict[int, _Slot], int]:
    """A slot for every position of the final frame, wrapped at `columns`, and the number of rows."""
    cells = Cells(lane)
    cells.advance(len(lane.events) - 1)
    places = sorted(cells.at)[:MAX_TOKENS]
    tokens = [cells.at[index][0].token for index in places]
    shown, left = [], MAX_CHARACTERS
    for text in texts(trace, tokens):
        shown.append(text[:MAX_TEXT])
        left -= len(shown[-1])
        if left < 0:
            shown.pop()
            break
    pieces, rows = layout(shown, columns)
    return {index: _Slot(token, own) for index, token, own in zip(places, tokens, pieces, strict=False)}, rows
