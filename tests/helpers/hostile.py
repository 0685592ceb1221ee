"""Traces that are valid and unlike any run, so that what is done with them costs as much as it can; and how steps are
counted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from nemodiff.trace.events import MODES, PHASES, STATES
from nemodiff.trace.reading import MAX_BLOCK, MAX_INDEX, MAX_TEXT

ROOT = Path(__file__).parents[2]
OURS = (str(ROOT / "nemodiff"), str(ROOT / "ui"))


@dataclass(frozen=True)
class Part:
    """Some events alike. at: same (every event at the first places), next (each goes on), far (at the last places
    that there may be), apart (places far from each other). states: of the positions, in turn; they also turn from
    event to event."""

    phase: str
    events: int
    positions: int
    at: str = "same"
    states: tuple[str, ...] = ("committed",)
    length: int = 1
    tops: int = 0
    groups: int = 0


def parts(most: int = 240) -> st.SearchStrategy[Part]:
    """Parts of up to `most` events, and so many positions."""

    def part(events: int, whole: bool, **more: Any) -> Part:
        return Part(events=events, positions=most // events if whole else min(2, most // events), **more)

    return st.builds(
        part,
        events=st.sampled_from([1, 2, 30, most // 4, most]),
        whole=st.booleans(),
        phase=st.sampled_from(PHASES),
        at=st.sampled_from(["same", "next", "far", "apart"]),
        states=st.lists(st.sampled_from(STATES), min_size=1, max_size=3).map(tuple),
        length=st.sampled_from([0, 1, 8, MAX_BLOCK]),
        tops=st.sampled_from([0, 0, 5]),
        groups=st.sampled_from([0, 0, 3]),
    )


def trace(mode: str, *parts: Part, text: int = 3, answer: int = 0, modes: tuple[str, ...] = MODES) -> dict[str, Any]:
    """A trace of one lane, after an AR lane where it is another mode's. text: characters of a token. answer: tokens."""
    events: list[dict[str, Any]] = []
    place = 0
    for part in parts:
        for k in range(part.events):
            count = part.positions
            first = {"same": 0, "next": place, "far": MAX_INDEX - count, "apart": 0}[part.at]
            step = max(1, MAX_INDEX // max(1, count)) if part.at == "apart" else 1
            positions = [
                {
                    "index": min(MAX_INDEX, first + i * step),
                    "token": 1 + i % 2,
                    "state": part.states[(i + k) % len(part.states)],
                }
                | {"confidence": 0.5}
                | ({"top": [[1, 0.1]] * part.tops} if part.tops else {})
                for i in range(count)
            ]
            place = min(MAX_INDEX - count, place + count)
            event = {"forward": len(events), "phase": part.phase, "clock_ms": len(events), "start": first}
            event |= {"length": part.length, "positions": positions}
            if part.groups:
                event |= {"rows": MAX_BLOCK, "groups": [[[1, 0.5]] * part.groups] * part.groups}
            events.append(event)
    lane = {"mode": mode, "events": events, "tokens": [1] * answer, "finish": "length"}
    reference = {"mode": "ar", "events": [], "tokens": [1] * answer, "finish": "length"}
    return {
        "schema": "nemodiff.trace/1",
        "checkpoint": "made-for-a-test",
        "request": {"prompt": "made for a test", "modes": list(modes), "block_length": 8},
        "tokens": {"1": "a\n" * (min(text, MAX_TEXT) // 2) or "a", "2": "b" * min(text, MAX_TEXT)},
        "lanes": [lane] if mode == "ar" else [reference, lane],
    }


def worst(n: int = 500) -> dict[str, tuple[Any, ...]]:
    """What once took the square of its size, n, or did not end: a mode and parts each."""
    return {
        "drafts that clear nothing": ("self-speculation", Part("prefill", 1, n), Part("draft", n, 0)),
        "drafts before what stays": (
            "self-speculation",
            Part("draft", 1, n, states=("drafted",)),
            Part("draft", n, 1, at="far", states=("drafted",)),
        ),
        "the first place lost and found": (
            "diffusion",
            Part("prefill", 1, n),
            Part("denoise", n, 1, states=("masked", "committed")),
        ),
        "one place far away": ("ar", Part("prefill", 1, 1, at="far"), Part("decode", n, 1)),
        "blocks as long as they may be": ("diffusion", Part("denoise", n, 1, length=MAX_BLOCK)),
        "a cycle of everything": ("self-speculation", Part("verify", 1, n, states=("accepted", "rejected"))),
        "cycles of every length": (
            "self-speculation",
            *(Part("verify", 1, count, states=("accepted",)) for count in range(1, 50)),
        ),
        "blocks side by side": ("diffusion", *(Part("denoise", 1, 2, at="next") for _ in range(n))),
        "all of it guesses": ("diffusion", Part("denoise", 40, 60, states=("masked", "discarded", "drafted"))),
    }


SHAPES = tuple(worst(1))


def steps(function: Callable[[], Any]) -> tuple[Any, int]:
    """What a function returns, and how many instructions of ours it took."""
    count = 0

    def local(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return local

    def entered(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return local

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        result = function()
    finally:
        sys.settrace(before)
    return result, count
