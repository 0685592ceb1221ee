"""Events of a run, as they come, into a Trace. Any engine may use this: it needs no torch."""

from __future__ import annotations

import codecs
import datetime
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nemodiff.trace.events import KEPT, MODES, Event, Lane, Position, Stop, Trace

#: Bytes of the longest character in UTF-8.
_LONGEST = 4


class Recorder:
    """Collects Events into a Trace, while a run goes on or after it: `add` takes whole Events, `forward` makes them.

    head: a Trace without lanes; `of_run` makes one. decode: ids → text of a finished answer. token_text: id → str, or
    bytes for a piece of a character; looked up once an id.
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
        self._stops: tuple[str, ...] = tuple(head.request.get("stop") or ())
        for token in head.request.get("answer_ids", ()):
            self._learn(token, {"tokens": {}, "byte_pieces": {}})
        for mode in modes:
            head.lanes.append(Lane(mode))
            self._answers[mode] = {}
        self._since = dict.fromkeys(self._answers, time.perf_counter())

    @classmethod
    def of_run(
        cls,
        checkpoint: str,
        modes: str | Iterable[str],
        token_text: Callable[[int], str | bytes],
        *,
        prompt: str = "",
        special: Iterable[int] = (),
        device: str = "",
        dtype: str = "",
        versions: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Recorder:
        """A Recorder for a run of any engine; the lanes' clocks start now.

        modes: "ar", "diffusion" or "self-speculation", or several. token_text: see Recorder. special: ids of control
        tokens (EOS, the mask): they are no part of the answer's text. settings: what the run was asked for besides, by
        the names of docs/settings.md, such as {"block_length": 32, "threshold": 0.9}. Raises ValueError for a mode that
        there is not.
        """
        names = [modes] if isinstance(modes, str) else list(modes)
        if not names or len(set(names)) != len(names) or not set(names) <= set(MODES):
            raise ValueError(f"modes are {', '.join(MODES)}, each at most once: not {names!r}")
        request = {**(settings or {}), "prompt": prompt, "modes": names}
        head = Trace(checkpoint, "", device, dtype, None, dict(versions or {}), request, special=sorted(set(special)))
        head.recorded = datetime.date.today().isoformat()
        hidden = frozenset(head.special)

        def decode(tokens: list[int]) -> str:
            parts = (token_text(token) for token in tokens if token not in hidden)
            raw = b"".join(part.encode(errors="replace") if isinstance(part, str) else part for part in parts)
            return raw.decode(errors="replace")

        return cls(head, names, decode, token_text)

    def forward(
        self,
        mode: str,
        phase: str,
        positions: Iterable[Position] = (),
        *,
        ms: float | None = None,
        start: int | None = None,
        length: int | None = None,
        forward: int | None = None,
        finish: str | None = None,
        rows: int | None = None,
    ) -> Event:
        """Write down one forward of a lane: its number and its clock follow from those before.

        phase: prefill, decode, denoise, refresh, draft or verify. ms: what the forward took; by default the time that
        has passed since the lane's last event. start, length: its block in the answer, by default from its first
        position to its last. forward: its number, by default one more than the last one's; a prefill that comes first
        has 0. finish: eos, stop, length, stopped or time, with a lane's last event.
        """
        lane = self.trace[mode]
        now = time.perf_counter()
        passed = (now - self._since[mode]) * 1000 if ms is None else ms
        self._since[mode] = now
        last = lane.events[-1] if lane.events else None
        places = list(positions)
        first = min((place.index for place in places), default=last.start if last else 0) if start is None else start
        end = max((place.index for place in places), default=first) + 1
        if forward is None:
            forward = last.forward + 1 if last else int(phase != "prefill")
        event = Event(
            mode,
            forward,
            phase,
            (last.clock_ms if last else 0.0) + max(0.0, passed),
            first,
            max(1, end - first) if length is None else length,
            places,
            finish,
            rows,
        )
        self.add(event)
        return event

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

    def next_forward(self, mode: str) -> int:
        """The number of a lane's next forward."""
        events = self.trace[mode].events
        return events[-1].forward + 1 if events else 1

    def close(self, mode: str, reason: str) -> None:
        """End a lane. reason: eos, stop, length, stopped or time."""
        self._close(self.trace[mode], reason)

    def text(self, mode: str) -> str:
        """A lane's answer so far, up to its first hole, without what may become a stop string. May be asked from
        another thread than the one that adds."""
        answer = self._answers[mode].copy()
        text = self._readable([answer[i] for i in range(_prefix(answer))])
        if (stop := self.trace[mode].stop) is not None:
            return _before(text, stop)
        return text[: len(text) - _held(text, self._stops)]

    def finish(self, reason: str = "stopped") -> Trace:
        """Close lanes that did not end by themselves and return the trace. reason: why these ended, see `forward`."""
        for lane in self.trace.lanes:
            if lane.finish is None:
                self._close(lane, reason)
        return self.trace

    def _close(self, lane: Lane, reason: str) -> None:
        answer = self._answers[lane.mode]
        # A lane stopped in mid-block may have holes: its text ends at the first one.
        lane.tokens = [answer[i] for i in range(_prefix(answer))]
        text = self._readable(lane.tokens)
        lane.text = _before(text, lane.stop) if lane.stop else text
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


def _before(text: str, stop: Stop) -> str:
    """The text of an answer that ended at a stop string, up to that string; none where it began before the answer."""
    at = text.find(stop.string) if stop.place or stop.characters else 0
    return text[: max(0, at)]


def _held(text: str, stops: Iterable[str]) -> int:
    """How many characters at a text's end may be the beginning of a stop string."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


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
