"""A log of lines of JSON, one forward per line, as anybody can write it around an engine such as SGLang or vLLM.

The first line says what ran: {"log": "nemodiff.log/1", "model": …, "prompt": …, "device": …, "note": …, "settings": …}.
Every other one is a forward of the model whose text it is: {"tokens": […], "ms": …}. Where something was drafted for it
there is {"draft": […], "draft_ms": …} besides or, where only their numbers are known, {"drafted": n, "accepted": n}. A
token is an id, a text, or {"id": …, "text": …, "bytes": hex, "p": its probability}. "mode" names the lane where a log
has several; "finish" stands on a lane's last line. docs/trace-format.md has examples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nemodiff.errors import TraceError, shown
from nemodiff.trace import reading, values
from nemodiff.trace.adapters.cycle import MODE as CYCLES
from nemodiff.trace.adapters.cycle import add_cycle
from nemodiff.trace.events import FINISHES, Position, Trace
from nemodiff.trace.limits import MAX_BYTES, MAX_NOTE
from nemodiff.trace.recorder import Recorder

SCHEMA = "nemodiff.log/1"
MODES = ("ar", CYCLES)
_PROMPT = 100_000
#: From here on ids are given to texts that have none.
_OWN_IDS = 2**30
_CLOCK = 1e9


def is_log(data: str | bytes) -> bool:
    """Whether a file begins as a log does."""
    if isinstance(data, bytes):
        return SCHEMA.encode() in data[:4096].partition(b"\n")[0]
    return SCHEMA in data[:4096].partition("\n")[0]


def from_log(data: str | bytes) -> Trace:
    """An untrusted log as a Trace. Raises TraceError, which names the line that is not as described."""
    if len(data) > MAX_BYTES:
        raise TraceError(f"The log is larger than {MAX_BYTES // 2**20} MB; load a shorter one.")
    lines = _lines(data)
    number, head = next(lines, (1, None))
    if not isinstance(head, dict) or head.get("log") != SCHEMA:
        raise _off(number, "log", f"be {SCHEMA!r}")
    steps = _bounded(list(lines))
    return _Reading(head, steps).trace()


def _lines(data: str | bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of every line that is not empty."""
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as error:
        raise TraceError("The log is not in UTF-8; write it anew.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=values.refuse_constant)
            if "\\u" in line:
                json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be written again
        except (ValueError, RecursionError) as error:
            raise TraceError(f"Line {number} of the log holds no valid JSON.") from error
        yield number, value


def _off(line: int, key: str, must: str, value: Any = ...) -> TraceError:
    not_ = "" if value is ... else f", not {shown(value)}"
    return TraceError(f"Line {line} of the log: {key} must {must}{not_}.")


def _bounded(steps: list[tuple[int, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Raises TraceError for a line that is no forward, and when there is more in the log than a run can leave."""
    positions = 0
    for number, step in steps:
        if not isinstance(step, dict):
            raise _off(number, "it", "be an object", step)
        for key in ("tokens", "draft"):
            if not isinstance(step.get(key, []), list):
                raise _off(number, key, "be a list", step[key])
            positions += len(step.get(key, [])) * (2 if key == "draft" else 1)
    reading.too_much(2 * len(steps), reading.MAX_EVENTS, "forwards")
    reading.too_much(positions, reading.MAX_POSITIONS, "positions")
    return [(number, step) for number, step in steps]


class _Reading:
    """One log on its way into a Recorder. head, steps: its lines, of which only the outer types are known."""

    def __init__(self, head: dict[str, Any], steps: list[tuple[int, dict[str, Any]]]) -> None:
        self._texts: dict[int, str | bytes] = {}
        self._ids: dict[str, int] = {}  # of texts without an id
        self._steps = steps
        self._lengths: dict[str, int] = {}
        drafts = any({"draft", "drafted", "accepted"} & step.keys() for _, step in steps)
        self._usual = CYCLES if drafts else "ar"
        modes = [self._mode(number, step) for number, step in steps]
        settings = head.get("settings", {})
        if not isinstance(settings, dict):
            raise _off(1, "settings", "be an object", settings)
        request = reading.request({"request": {**settings, "modes": sorted(set(modes), key=MODES.index)}})
        self._recorder = Recorder.of_run(
            self._text(1, head, "model", 300),
            sorted(set(modes), key=MODES.index) or ["ar"],
            lambda token: self._texts.get(token, f"[{token}]"),
            prompt=self._text(1, head, "prompt", _PROMPT),
            special=self._special(head),
            device=self._text(1, head, "device", 300),
            dtype=self._text(1, head, "dtype", 100),
            settings=request,
        )
        trace = self._recorder.trace
        trace.recorded = self._text(1, head, "recorded", 100) or None
        note = self._text(1, head, "note", MAX_NOTE) or "As another engine logged it."
        for lane in trace.lanes:
            lane.note = note

    def trace(self) -> Trace:
        last: dict[str, int] = {}
        for place, (number, step) in enumerate(self._steps):
            last[self._mode(number, step)] = place
        finishes: dict[str, str | None] = {}
        for place, (number, step) in enumerate(self._steps):
            mode = self._mode(number, step)
            finish = step.get("finish")
            if finish is not None and (finish not in FINISHES or last[mode] != place):
                raise _off(number, "finish", f"be {', '.join(FINISHES)}, on the last line of its mode", finish)
            self._add(number, mode, step, finish)
            if self._recorder.trace[mode].seconds * 1000 > _CLOCK:
                raise _off(number, "ms", f"add up to less than {_CLOCK:,.0f} milliseconds")
            finishes[mode] = finish
        trace = self._recorder.finish("stopped")
        for lane in trace.lanes:
            lane.finish = finishes.get(lane.mode)  # a log that ends may do so for any reason
        return trace

    def _add(self, number: int, mode: str, step: dict[str, Any], finish: str | None) -> None:
        start = self._lengths.get(mode, 0)
        first = mode not in self._lengths
        tokens = self._positions(number, step, "tokens", start)
        draft = self._positions(number, step, "draft", start)
        ms = self._number(number, step, "ms")
        end = start + max(len(tokens), len(draft))
        if end > reading.MAX_INDEX:
            raise _off(number, "tokens", f"end within {reading.MAX_INDEX:,} places of the answer")
        self._lengths[mode] = start + len(tokens)
        if mode == "ar" or (first and not draft and "accepted" not in step):
            phase = "prefill" if first else "decode"
            state = "seed" if mode == CYCLES else "committed"
            for position in tokens:
                position.state = state
            self._recorder.forward(mode, phase, tokens, ms=ms, start=start, finish=finish)
            return
        accepted = self._count(number, step, "accepted", len(tokens))
        drafted = self._count(number, step, "drafted", reading.MAX_BLOCK)
        add_cycle(
            self._recorder,
            start,
            draft,
            tokens,
            draft_ms=self._number(number, step, "draft_ms"),
            ms=ms,
            accepted=accepted,
            drafted=drafted,
            finish=finish,
        )

    def _positions(self, number: int, step: dict[str, Any], key: str, start: int) -> list[Position]:
        return [
            Position(start + i, *self._token(number, f"{key}[{i}]", value)) for i, value in enumerate(step.get(key, []))
        ]

    def _token(self, number: int, where: str, value: Any) -> tuple[int, str, float | None]:
        """(id, a state to be replaced, probability) of a token as a line has it."""
        one = value if isinstance(value, dict) else {"id": value} if type(value) is int else {"text": value}
        token, text, raw, p = one.get("id"), one.get("text"), one.get("bytes"), one.get("p")
        if token is not None and (type(token) is not int or not 0 <= token < 2**31):
            raise _off(number, f"{where}.id", "be a whole number under 2³¹", token)
        if raw is not None and not (isinstance(raw, str) and values.is_hex(raw)):
            raise _off(number, f"{where}.bytes", "be an even number of hexadecimal digits, 128 at most", raw)
        if text is not None and not (isinstance(text, str) and len(text) <= reading.MAX_TEXT):
            raise _off(number, f"{where}.text", f"be a text of up to {reading.MAX_TEXT:,} characters")
        if p is not None and (type(p) not in (int, float) or not 0 <= p <= 1):
            raise _off(number, f"{where}.p", "be from 0 to 1", p)
        if token is None and text is None and raw is None:
            raise _off(number, where, "be an id, a text or an object with either", value)
        piece = _piece(text, raw)
        if token is None:
            token = self._ids.setdefault(raw or text or "", _OWN_IDS + len(self._ids))
        if piece is not None:
            self._texts.setdefault(token, piece)
        return token, "committed", None if p is None else float(p)

    def _mode(self, number: int, step: dict[str, Any]) -> str:
        mode = step.get("mode", self._usual)
        if mode not in MODES:
            raise _off(number, "mode", f"be {' or '.join(MODES)}", mode)
        return mode

    @staticmethod
    def _number(number: int, step: dict[str, Any], key: str) -> float:
        value = step.get(key, 0)
        if type(value) not in (int, float) or not 0 <= value <= _CLOCK:
            raise _off(number, key, "be milliseconds, 0 or more", value)
        return float(value)

    @staticmethod
    def _count(number: int, step: dict[str, Any], key: str, most: int) -> int | None:
        value = step.get(key)
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            raise _off(number, key, f"be a whole number from 0 to {most:,}", value)
        return value

    @staticmethod
    def _text(number: int, data: dict[str, Any], key: str, most: int) -> str:
        value = data.get(key, "")
        if not isinstance(value, str) or len(value) > most:
            raise _off(number, key, f"be a text of up to {most:,} characters")
        return value

    @staticmethod
    def _special(head: dict[str, Any]) -> list[int]:
        special = head.get("special", [])
        if not isinstance(special, list) or not all(type(one) is int and 0 <= one < 2**31 for one in special):
            raise _off(1, "special", "be a list of token ids")
        return special


def _piece(text: str | None, raw: str | None) -> str | bytes | None:
    """What a token writes: its text, or its bytes where they are no whole characters."""
    if raw is None:
        return text
    data = bytes.fromhex(raw)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
