"""Events of a run, as they come, into a Trace."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable

from nemodiff.trace.events import KEPT, Event, Lane, Trace

#: Bytes of the longest character in UTF-8.
_LONGEST = 4


class Recorder:
    """Collects Events into a Trace, while a run goes on or after it.

    head: a Trace without lanes. decode: ids → text of a finished answer. token_text: id → str, or bytes for a piece
    of a character; looked up once an id.
    """

    def __init__(
        self,
        head: Trace,
        modes: Iterable[str],
        decode: Callable[[list[int]], str],
        token_text: Callable[[int], str | bytes],
    ) -> None:
        self.trace = head
        self._decode = decode
        self._token_text = token_text
        self._answers: dict[str, dict[int, int]] = {}
        self._special = frozenset(head.special)
        for token in head.request.get("answer_ids", ()):
            self._learn(token, {"tokens": {}, "byte_pieces": {}})
        for mode in modes:
            head.lanes.append(Lane(mode))
            self._answers[mode] = {}

    def add(self, event: Event) -> dict[str, dict[str, str]]:
        """Append an event; returns the token-table entries that it used for the first time, in their JSON form."""
        lane = self.trace[event.mode]
        lane.events.append(event)
        if event.image_ms is not None:
            self.trace.image_ms = event.image_ms
        answer = self._answers[event.mode]
        fresh: dict[str, dict[str, str]] = {"tokens": {}, "byte_pieces": {}}
        for position in event.positions:
            if position.state in KEPT:
                answer[position.index] = position.token
            elif position.state in ("discarded", "masked"):  # a forced </think> may be taken back
                answer.pop(position.index, None)
            self._learn(position.token, fresh)
            if position.verifier is not None:
                self._learn(position.verifier, fresh)
            for token, _ in position.top:
                self._learn(token, fresh)
        for group in (*event.groups, event.tree):
            for token, _ in group:
                self._learn(token, fresh)
        if event.finish:
            self._close(lane, event.finish)
        return fresh

    def text(self, mode: str) -> str:
        """A lane's answer so far, up to its first hole. May be asked from another thread than the one that adds."""
        answer = self._answers[mode].copy()
        return self._readable([answer[i] for i in range(_prefix(answer))])

    def finish(self, reason: str) -> Trace:
        """Close lanes that did not end by themselves (`reason` stopped or time) and return the trace."""
        for lane in self.trace.lanes:
            if lane.finish is None:
                self._close(lane, reason)
        return self.trace

    def _close(self, lane: Lane, reason: str) -> None:
        answer = self._answers[lane.mode]
        # A lane stopped in mid-block may have holes: its text ends at the first one.
        lane.tokens = [answer[i] for i in range(_prefix(answer))]
        lane.text = self._readable(lane.tokens)
        lane.finish = reason

    def _readable(self, tokens: list[int]) -> str:
        """The text of tokens, without the half of a character that may stand at its end: the rest comes with a later
        token, or the answer ended at its limit before it."""
        text, tail = self._decode(tokens), b""
        for token in reversed(tokens):
            if token in self._special:
                continue
            piece = self._token_text(token)
            tail = (piece.encode() if isinstance(piece, str) else piece) + tail
            if len(tail) >= _LONGEST:
                break
        return text.removesuffix("\ufffd") if _ends_in_half(tail) else text

    def _learn(self, token: int, fresh: dict[str, dict[str, str]]) -> None:
        if token in self.trace.vocabulary or token in self.trace.byte_pieces:
            return
        text = self._token_text(token)
        if isinstance(text, bytes):
            self.trace.byte_pieces[token] = fresh["byte_pieces"][str(token)] = text.hex()
        else:
            self.trace.vocabulary[token] = fresh["tokens"][str(token)] = text


def _ends_in_half(tail: bytes) -> bool:
    """Whether bytes end in the beginning of a character of UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(tail)
    return bool(decoder.getstate()[0])


def _prefix(answer: dict[int, int]) -> int:
    length = 0
    while length in answer:
        length += 1
    return length
