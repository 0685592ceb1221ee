"""A trace's lanes as pictures, drawn with Pillow. Laid out from the final frame, so text never reflows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from nemodiff.errors import TraceError
from nemodiff.trace import Lane, Position, Trace
from ui.cells import Cells, name, seen, texts
from ui.figure import lane_forwards

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
    """Where a position's final token stands: (row, column, text) pieces."""

    token: int
    pieces: tuple[tuple[int, int, str], ...]


class _Type:
    """A monospaced font and its grid. Without DejaVu Sans Mono, Pillow's own font on a grid of its widest letter."""

    def __init__(self, size: int) -> None:
        self.body, self.bold = _font("DejaVuSansMono.ttf", size), _font("DejaVuSansMono-Bold.ttf", size)
        self.small = _font("DejaVuSans.ttf", size - 1)
        self.head = _font("DejaVuSans-Bold.ttf", size + 1)
        self.width = max(1, round(self.body.getlength("M")))
        self.height = round(size * 1.5)


def _font(file: str, size: int) -> Any:
    try:
        return ImageFont.truetype(file, size)
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
        text = text[:400]
        if font.getlength(text) > room:
            while text and font.getlength(text + "…") > room:
                text = text[:-1]
            text += "…"
        self.pen.text(place, text, colour, font)

    def cell(self, box: tuple[float, float, float, float], text: str, look: _Look) -> None:
        left, top, right, bottom = (round(edge) for edge in box)
        self.pen.rectangle((left, top, right - 1, bottom - 1), look.fill or PAPER)
        column = 0
        for character in text:
            if character != " ":
                self.pen.text((left + column * self.type.width, top), character, look.ink, self.type.body)
            column += _width(character)
        if look.line and (look.fill or text.strip()):
            base = bottom - 2
            if look.dotted:
                for x in range(left, right - 1, 4):
                    self.pen.rectangle((x, base, x + 1, base + 1), look.line)
            else:
                self.pen.rectangle((left, base, right - 1, base + 1), look.line)
        if look.struck:
            self.pen.line((left, (top + bottom) // 2, right - 1, (top + bottom) // 2), look.ink)


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
        self.cells, self.nfe = Cells(lane), lane.nfe_counts()
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
        last = max((self.slots[index].pieces[-1][0] for index in active), default=0)
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
        if final.pieces[-1][0] < self.top or final.pieces[0][0] >= self.top + self.shown:
            return
        position = self.cells.at[index][0] if key else None
        own = _guess(self.trace, position, final) if position else None
        for row, column, text in final.pieces:
            if not self.top <= row < self.top + self.shown:
                continue
            left = self.x + self.board.margin + column * self.board.type.width
            top = self.board.text_top + (row - self.top) * self.board.type.height
            wide = _width(text)
            box = (left, top, left + wide * self.board.type.width, top + self.board.type.height)
            shown = "" if position is None else text if own is None else own[:wide]
            if own is not None:
                own = own[wide:]
            if shown == "⏎" and look.fill is None:
                shown = ""
            self.board.cell(box, shown, look)

    def _figures(self) -> None:
        board, event = self.board, self.lane.events[self.cells.event] if self.cells.event >= 0 else None
        left, top = self.x + board.margin, board.figures_top
        room = board.lane_width - 2 * board.margin
        board.pen.rectangle((self.x + 1, top, self.x + board.lane_width - 1, top + 44), PAPER)
        forwards, ms = (event.forward, event.clock_ms) if event else (0, 0.0)
        kept = self.cells.kept
        board.write((left, top), _plural(kept, "token"), board.type.head, LANES[self.lane.mode][1], room)
        beside = f"{lane_forwards(forwards, self.nfe[:1] != [None])} · {ms / 1000:.2f} s"
        place = left + room - board.type.head.getlength(beside)
        board.write((place, top), beside, board.type.head, INK, room)
        parts = [f"{kept / forwards:.2f} tokens / forward"] if forwards else []
        counted = self.nfe[self.cells.event] if event else None
        parts += [f"NFE {counted}"] if counted is not None else []
        parts += [f"{kept / ms * 1000:.1f} tokens / s"] if ms else []
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
    return " " * slot.pieces[0][2].startswith(" ") + bare if bare else text


def _layout(trace: Trace, lane: Lane, columns: int) -> tuple[dict[int, _Slot], int]:
    """A slot for every position of the final frame, wrapped at `columns`, and the number of rows."""
    cells = Cells(lane)
    cells.advance(len(lane.events) - 1)
    places = sorted(cells.at)[:MAX_TOKENS]
    tokens = [cells.at[index][0].token for index in places]
    slots, row, column, left = {}, 0, 0, MAX_CHARACTERS
    for index, token, whole in zip(places, tokens, texts(trace, tokens), strict=True):
        pieces: list[tuple[int, int, str]] = []
        text = whole[:MAX_TEXT]
        left -= len(text)
        if left < 0:
            break
        # A newline has a place of its own, one column wide, in which a guess or a highlight can be seen.
        for part in re.findall("\n|[^\n]+", text.replace("\t", "    ")) or [" "]:
            if part == "\n":
                pieces.append((row, min(column, columns - 1), "⏎"))
                row, column = row + 1, 0
                continue
            if column and column + _width(part) > columns:
                row, column = row + 1, 0
            for line in _wrapped(part, columns):
                if column and column + _width(line) > columns:
                    row, column = row + 1, 0
                pieces.append((row, column, line))
                column += _width(line)
        slots[index] = _Slot(token, tuple(pieces))
    return slots, row + 1


def _wrapped(text: str, columns: int) -> Iterator[str]:
    """A text in lines of at most `columns`."""
    line, wide = "", 0
    for character in text:
        step = _width(character)
        if line and wide + step > columns:
            yield line
            line, wide = "", 0
        line, wide = line + character, wide + step
    yield line


def _width(text: str) -> int:
    """Columns that a text takes: wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
