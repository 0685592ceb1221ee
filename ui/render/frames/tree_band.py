"""The band under the lanes that shows the tree of the forward in view: levels from left to right, the path lit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from nemodiff.trace.events import Lane, Trace
from ui.render.charts.figure import plural
from ui.render.frames.lettering import Pen, fitting
from ui.render.frames.look import GHOST, INK, LANES, LINE, LIT, NO, OK, OWN, PAPER, SHEET, SOFT, Look, look_of
from ui.render.positions import Cells, short
from ui.render.text_layout import visual, width
from ui.render.trees import Spot, is_tree, spots, tree_of

#: Lines of a tree that are drawn, columns of a cell, levels.
MAX_LINES, NARROWEST, WIDEST = 8, 7, 13
#: Pixels: the title and what lies around it, the words before the lines, between two cells.
HEAD, WORDS, GAP = 34, 46, 12
_LOOKS = {
    "seed": Look(INK, SHEET),
    "accepted": Look(INK, LIT, OK),
    "corrected": Look(OWN, None, OWN),
    "bonus": Look(OWN, None, OWN),
    "rejected": Look(NO, None, struck=True),
    "none": Look(GHOST),
    "drafted": Look(GHOST, None, GHOST),
}


class TreeBand:
    """The trees of one lane. Its size is that of the largest one which is drawn, so that nothing jumps."""

    def __init__(self, pen: Pen, trace: Trace, lane: Lane, box: tuple[int, int], drawn: Sequence[int]) -> None:
        """box: left and right, in pixels. drawn: the events that pictures show."""
        self.pen, self.trace, self.lane = pen, trace, lane
        self.left, self.right = box
        trees = [spots(tree_of(lane.events[k])) for k in sorted(set(drawn)) if k >= 0 and is_tree(lane.events[k])]
        deepest = max((spot.column for tree in trees for spot in tree), default=0) + 1
        self.lines = min(MAX_LINES, max((spot.line for tree in trees for spot in tree), default=0) + 1)
        letter, room = pen.type.width, self.right - self.left - WORDS
        self.letters = max(NARROWEST, min(WIDEST, (room // deepest - GAP) // letter))
        self.step = self.letters * letter + GAP
        self.levels = max(1, min(deepest, (room + GAP) // self.step))
        self.line_height = pen.type.height + 6
        self.height = HEAD + self.lines * self.line_height + 8
        self.top = 0
        gained = [event.phase == "verify" for event in lane.events]
        self.cycles = list(accumulate(map(int, gained)))
        lengths = iter(lane.acceptance_lengths)
        self.gains = list(accumulate(next(lengths) if one else 0 for one in gained))

    def draw(self, cells: Cells) -> None:
        k = cells.event
        pen, top = self.pen, self.top
        pen.draw.rectangle((0, top + 1, pen.image.width, top + self.height - 1), PAPER)
        event = self.lane.events[k] if k >= 0 else None
        font, colour = pen.type.head, LANES[self.lane.mode][1]
        if event is None or not is_tree(event):
            pen.write((self.left, top + 10), "Tree of drafts", font, colour, self.right - self.left)
            return
        tree = tree_of(event)
        title = f"Tree of drafts: {tree.accepted} of {len(tree.nodes) - 1} accepted" + (", 1 own" if tree.own else "")
        about = f"{plural(tree.rows, 'row')} · {self.gains[k] / self.cycles[k]:.2f} tokens per cycle"
        beside = self.right - pen.type.small.getlength(about)
        pen.write((self.left, top + 10), title, font, colour, beside - self.left - 12)
        pen.write((beside, top + 11), about, pen.type.small, SOFT, self.right - beside + 1)
        drawn = spots(tree)
        newest = cells.at[event.start][0].token if event.start in cells.at else None
        below = sum(spot.line >= self.lines for spot in drawn)
        pen.write((self.left, top + HEAD + 3), "kept", pen.type.small, SOFT, WORDS)
        if any(spot.line for spot in drawn):
            words = "tried" if not below else f"+{below} ↓"
            line = 1 if not below else self.lines - 1
            if line < self.lines:
                pen.write((self.left, top + HEAD + line * self.line_height + 3), words, pen.type.small, SOFT, WORDS)
        shown = [spot for spot in drawn if spot.line < self.lines and spot.column < self.levels]
        for spot in sorted(shown, key=lambda spot: spot.kind == "accepted"):
            self._edge(spot)
        for spot in shown:
            self._spot(spot, newest if spot.kind == "seed" else spot.token)

    def _place(self, line: int, column: int) -> tuple[int, int]:
        return self.left + WORDS + column * self.step, self.top + HEAD + line * self.line_height

    def _edge(self, spot: Spot) -> None:
        """From what a token hangs on: straight from its left, or down from the line above and then to the right."""
        if not spot.column:
            return
        (x, y), colour = self._place(spot.line, spot.column), OK if spot.kind == "accepted" else LINE
        middle, wide = y + self.pen.type.height // 2, 2 if spot.kind == "accepted" else 1
        start = x - GAP + 1 if not spot.up else x - GAP // 2
        self.pen.draw.line((start, middle, x - 1, middle), colour, wide)
        if spot.up:
            self.pen.draw.line((start, middle - spot.up * self.line_height, start, middle), colour, wide)

    def _spot(self, spot: Spot, token: int | None) -> None:
        x, y = self._place(spot.line, spot.column)
        text = fitting(short(self.trace, token) if token is not None else "", self.letters)
        wide = self.letters * self.pen.type.width
        padded = " " * ((self.letters - width(text)) // 2) + visual(text)
        self.pen.cell(
            (x, y, x + wide, y + self.pen.type.height), padded, _LOOKS.get(spot.kind) or look_of(spot.kind, None)
        )
        if spot.group:  # masks stand behind it
            colour, base = (OK if spot.group == "survives" else GHOST), y + self.pen.type.height + 1
            for dot in range(x + 2, x + wide - 3, 6):
                self.pen.draw.rectangle((dot, base, dot + 2, base + 1), colour)


def events_at(lane: Lane, stops: Sequence[float], clock: str) -> list[int]:
    """The last event of a lane at each place on a clock; -1 before the first."""
    ends = [event.clock_ms if clock == "seconds" else event.forward for event in lane.events]
    return [bisect_right(ends, stop + 1e-6) - 1 for stop in stops]
