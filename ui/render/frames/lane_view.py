"""One lane in a picture: its text on a grid of columns × rows, laid out from its final frame, and its figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass

from nemodiff.trace.answers import fault
from nemodiff.trace.events import Lane, Position, Trace
from ui.render.charts.figure import lane_forwards, plural
from ui.render.frames.lettering import Pen
from ui.render.frames.look import INK, LANES, PAPER, SOFT, Look, look_of
from ui.render.positions import Cells, kept_counts, lane_texts, name
from ui.render.text_layout import Piece, cut, layout, tails, visual, width

MAX_TOKENS = 4096
#: Characters that are drawn, of a token and of a lane.
MAX_TEXT, MAX_CHARACTERS = 256, 100_000

#: What a place looks like: its state, its token, parts of its last character that other tokens have brought, its age.
Key = tuple[str, int, int, int | None]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a final token is drawn. tail: what later ones add to its last character, (position, text) each."""

    token: int
    pieces: tuple[Piece, ...]
    tail: tuple[tuple[int, str], ...] = ()


class LaneView:
    """A lane at x, in pixels, `wide` of them. top, shown: where its text begins, and rows of it that are seen. narrow:
    its forwards and seconds stand in small letters, in all lanes alike."""

    def __init__(self, pen: Pen, trace: Trace, lane: Lane, x: int, wide: int, margin: int, columns: int) -> None:
        self.pen, self.trace, self.lane, self.x, self.wide, self.margin = pen, trace, lane, x, wide, margin
        self.cells, self.counts, self.nfe = Cells(lane), kept_counts(lane), lane.nfe_counts()
        self.fault = fault(trace, lane)
        self.slots, self.rows = slots_of(trace, lane, columns)
        self.heads = {place: index for index, slot in self.slots.items() for place, _ in slot.tail}
        self.filled: set[int] = set()  # slots in which something stands: a trace may hold many more places
        self.lively: set[int] = set()  # those that may look different in the next picture
        self.text_top = self.figures_top = 0
        self.shown = self.rows
        self.narrow = False
        self.top = 0  # the first row that is seen
        self.drawn: dict[int, Key | None] = {}

    def draw(self, event: int) -> None:
        """The lane after an event; -1: before the first."""
        for index in self.cells.advance(event):
            if (head := self.heads.get(index)) is not None and head in self.filled:
                self.lively.add(head)
            if index in self.slots:
                (self.filled.add if index in self.cells.at else self.filled.discard)(index)
                self.lively.add(index)
        if self.lively and self._scroll():
            self.lively |= self.filled
        for index in sorted(self.lively):
            key = self._key(index)
            if index not in self.drawn or self.drawn[index] != key:
                self.drawn[index] = key
                self._paint(index, key)
            if key is None or key[-1] is None:
                self.lively.discard(index)
        self._figures()

    def _scroll(self) -> bool:
        """Keep the newest token in view; a jump is half the window, so that eyes can follow. Whether there was one."""
        active = [index for index in self.lively & self.filled if self.cells.at[index][1] == self.cells.event]
        last = max((self.slots[index].pieces[-1].row for index in active), default=0)
        if last < self.top + self.shown:
            return False
        self.top = min(self.rows - self.shown, last - self.shown // 2)
        bottom = self.text_top + self.shown * self.pen.type.height
        self.pen.draw.rectangle((self.x + 1, self.text_top, self.x + self.wide - 1, bottom), PAPER)
        self.drawn.clear()
        return True

    def _key(self, index: int) -> Key | None:
        if index not in self.cells.at:
            return None
        position, k = self.cells.at[index]
        distance = self.cells.event - k
        age = 0 if distance == 0 else 1 if distance <= 2 else 2 if distance <= 5 else None
        return position.state, position.token, self._joined(self.slots[index]), age

    def _joined(self, slot: Slot) -> int:
        """How many of the tokens that add to this one's last character stand."""
        for count, (place, _) in enumerate(slot.tail):
            if place not in self.cells.at or self.cells.at[place][0].token != self.slots[place].token:
                return count
        return len(slot.tail)

    def _paint(self, index: int, key: Key | None) -> None:
        look = look_of(key[0], key[-1]) if key else Look(PAPER)
        final = self.slots[index]
        if final.pieces[-1].row < self.top or final.pieces[0].row >= self.top + self.shown:
            return
        position = self.cells.at[index][0] if key else None
        own = _guess(self.trace, position, final) if position else None
        missing = "".join(text for _, text in final.tail[key[2] :]) if key else ""
        for piece in final.pieces:
            wide = width(piece.text)
            known = piece.text.removesuffix(missing) if piece is final.pieces[-1] else piece.text
            shown = "" if position is None else known if own is None else cut(own, wide) or "…"[: min(wide, len(own))]
            if own is not None:
                own = own[len(shown) :]
            if not wide or not self.top <= piece.row < self.top + self.shown:
                continue
            left = self.x + self.margin + piece.column * self.pen.type.width
            top = self.text_top + (piece.row - self.top) * self.pen.type.height
            box = (left, top, left + wide * self.pen.type.width, top + self.pen.type.height)
            shown = visual(shown) if own is not None else shown
            if shown == "⏎" and look.fill is None:
                shown = ""
            self.pen.cell(box, shown, look)

    def _passes(self, forwards: int, ms: float) -> str:
        seconds = f" · {ms / 1000:.2f} s" if self.lane.seconds else ""
        return lane_forwards(forwards, self.nfe[:1] != [None]) + seconds

    @property
    def crowded(self) -> bool:
        """Whether its figures, as they are in the end, do not fit beside each other in large letters."""
        said = plural(self.counts[-1], "token") + self._passes(self.lane.forwards, 1000 * self.lane.seconds)
        return bool(self.pen.type.head.getlength(said) + 12 > self.wide - 2 * self.margin)

    def _figures(self) -> None:
        pen, event = self.pen, self.lane.events[self.cells.event] if self.cells.event >= 0 else None
        left, top = self.x + self.margin, self.figures_top
        room = self.wide - 2 * self.margin
        pen.draw.rectangle((self.x + 1, top, self.x + self.wide - 1, top + 44), PAPER)
        forwards, ms = (event.forward, event.clock_ms) if event else (0, 0.0)
        kept = self.counts[self.cells.event] if event else 0
        pen.write((left, top), plural(kept, "token"), pen.type.head, LANES[self.lane.mode][1], room)
        beside, font = self._passes(forwards, ms), self.pen.type.small if self.narrow else self.pen.type.head
        pen.write((left + room - font.getlength(beside), top), beside, font, INK, room)
        parts = [f"{kept / forwards:.2f} tokens / forward"] if forwards else []
        counted = self.nfe[self.cells.event] if event else None
        parts += [f"NFE {counted}"] if counted is not None else []
        parts += [f"{kept / ms * 1000:.1f} tokens / s"] if ms else []
        parts += [self.fault] if self.fault and event is self.lane.events[-1] else []
        pen.write((left, top + 22), " · ".join(parts), pen.type.small, SOFT, room)


def _guess(trace: Trace, position: Position, slot: Slot) -> str | None:
    """What stands over the final text while another token is there, cut to its room; None when it is the final one."""
    if position.token == slot.token:
        return None
    text = name(trace, position.token)
    bare = text.strip("·")
    # The final text's leading space stays free, so that words keep apart.
    return " " * slot.pieces[0].text.startswith(" ") + bare if bare else text


def slots_of(trace: Trace, lane: Lane, columns: int, without: Container[str] = ()) -> tuple[dict[int, Slot], int]:
    """A slot for every position of the final frame, wrapped at `columns`, and the number of rows. without: states of
    which none is wanted."""
    cells = Cells(lane)
    cells.advance(len(lane.events) - 1)
    places = sorted(index for index, (position, _) in cells.at.items() if position.state not in without)[:MAX_TOKENS]
    tokens = [cells.at[index][0].token for index in places]
    shown, left = [], MAX_CHARACTERS
    for text in lane_texts(trace, lane, tokens):
        shown.append(text[:MAX_TEXT])
        left -= len(shown[-1])
        if left < 0:
            shown.pop()
            break
    pieces, rows = layout(shown, columns)
    added: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for place, (head, text) in tails(shown).items():
        added[places[head]].append((places[place], text))
    return {
        index: Slot(token, own, tuple(added[index])) for index, token, own in zip(places, tokens, pieces, strict=False)
    }, rows
