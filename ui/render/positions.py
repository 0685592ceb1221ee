"""A trace's tokens and lanes for drawing: visible texts, and what is at every position after an event."""

from __future__ import annotations

import codecs
import heapq
import html
import re
from collections import Counter
from itertools import accumulate

from nemodiff.trace.events import KEPT, Event, Lane, Position, Trace

_WHITE_SPACE = {" ": "·", "\t": "⇥", "\n": "⏎", "\r": "␍"}
# Control characters and direction overrides would act on the picture instead of being seen.
_UNSEEN = re.compile("[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_TRANSIENT = ("drafted", "discarded")


def seen(text: str) -> str:
    """Text with control characters and direction overrides written out; spaces, tabs and newlines stay."""
    return _UNSEEN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def name(trace: Trace, token: int, length: int = 40) -> str:
    """A token by itself, as one line: white space visible, at most `length` characters."""
    if (piece := trace.byte_pieces.get(token)) is not None:
        return f"⟨{piece.upper()[:length]}⟩"
    text = trace.vocabulary.get(token)
    if text is None:
        return f"⟨{token}⟩"
    if not text:
        return "∅"
    text = text[: length + 1]
    if text.isspace():
        return seen("".join(_WHITE_SPACE.get(c, c) for c in text))
    inner = text.strip(" ")
    before, after = text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :]
    text = "·" * len(before) + re.sub("[\t\n\r]", lambda c: _WHITE_SPACE[c[0]], inner) + "·" * len(after)
    text = seen(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def short(trace: Trace, token: int) -> str:
    """The same where room is scarce: without the spaces around it."""
    text = name(trace, token)
    return text.strip("·") or text


def escaped(text: str) -> str:
    """Text for Plotly, which reads tags, a few entities (not &quot;) and, beside MathJax, dollar signs."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def texts(trace: Trace, tokens: list[int]) -> list[str]:
    """The visible texts of neighbouring ids: a character made of several pieces stands where it becomes complete."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    result = []
    for i, token in enumerate(tokens):
        if (piece := trace.byte_pieces.get(token)) is None:
            result.append(seen(trace.vocabulary.get(token, f"⟨{token}⟩")))
            continue
        last = i + 1 == len(tokens) or tokens[i + 1] not in trace.byte_pieces
        result.append(seen(decoder.decode(bytes.fromhex(piece), final=last)))
        if last:
            decoder.reset()
    return result


def _replaces_drafts(event: Event) -> bool:
    """Whether drafts that an event leaves over are gone: it drafted others, alone or beside verifying, or the
    answer is over. Else the next forward goes on with them."""
    if event.phase == "draft" or event.rows is None:
        return event.phase == "draft"
    return event.finish is not None or any(position.state == "drafted" for position in event.positions)


def lane_texts(trace: Trace, lane: Lane, tokens: list[int]) -> list[str]:
    """`texts` of a lane's whole answer (and what was discarded behind it): nothing behind a stop string that ended it,
    and of the token that it begins in only what comes before it."""
    shown, stop, last = texts(trace, tokens), lane.stop, len(lane.tokens) - 1
    if stop is None:
        return shown
    cuts = {last: stop.end} | ({stop.place: stop.characters} if stop.characters else {})
    for i, characters in cuts.items():
        if 0 <= i < len(shown):
            text = trace.vocabulary.get(tokens[i])
            shown[i] = shown[i][:characters] if text is None else seen(text[:characters])
    return shown


class Cells:
    """What is at every position of a lane's answer, event by event.

    at: position → (Position, index of the event that put it there). kept: how many hold a token for good.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.event = -1
        self.at: dict[int, tuple[Position, int]] = {}
        self.kept = 0
        # Indices that hold something transient, the last first; some of them no longer do. A draft looks at no others.
        self._transient: list[int] = []

    def advance(self, event: int) -> set[int]:
        """Go on to an event (the lane's last at most); returns the positions that changed."""
        changed: set[int] = set()
        while self.event < min(event, len(self.lane.events) - 1):
            self.event += 1
            changed |= self._apply(self.lane.events[self.event])
        return changed

    def _apply(self, event: Event) -> set[int]:
        changed: set[int] = set()
        if self.at and _replaces_drafts(event):
            first = event.positions[0].index if event.positions else event.start
            while self._transient and -self._transient[0] >= first:
                index = -heapq.heappop(self._transient)
                if index in self.at and self.at[index][0].state in _TRANSIENT:
                    del self.at[index]
                    changed.add(index)
        for position in event.positions:
            if position.state == "rejected":
                continue
            before = self.at.get(position.index)
            self.kept += (position.state in KEPT) - (before is not None and before[0].state in KEPT)
            self.at[position.index] = (position, self.event)
            changed.add(position.index)
            if position.state in _TRANSIENT:
                heapq.heappush(self._transient, -position.index)
        return changed


def kept_counts(lane: Lane) -> list[int]:
    """Final tokens after every event of a lane: those that no later event throws away, as what diffusion
    committed behind an EOS is. So the counts never fall."""
    since: dict[int, int] = {}
    for k, event in enumerate(lane.events):
        for position in event.positions:
            if position.state in KEPT:
                since.setdefault(position.index, k)
            elif position.state != "rejected":
                since.pop(position.index, None)
    gains = Counter(since.values())
    return list(accumulate(gains[k] for k in range(len(lane.events))))
