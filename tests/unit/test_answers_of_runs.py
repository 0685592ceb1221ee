"""An answer that was to be JSON and is none says so in the exports; the number of final tokens never falls."""

from __future__ import annotations

import json

import pytest

from nemodiff.trace.answers import fault
from nemodiff.trace.events import Event, Position, Trace
from tests.helpers.traces import record, trace_of
from ui.render.frames import Frames
from ui.render.positions import kept_counts

WORDS = {"1": '{"a"', "2": ":", "3": " 1", "4": "}", "5": "<eos>", "6": "```python\n{1}\n```", "7": "Sure"}


def judged(
    tokens: list[int], prompt: str = "Write JSON", finish: str = "eos", ar: tuple[int, ...] | None = None
) -> str:
    data = trace_of(WORDS, tokens, special=[5]) | {"request": {"prompt": prompt, "modes": ["ar"]}}
    data["lanes"][1]["finish"] = finish
    data["lanes"][0] |= {"tokens": list(ar or tokens), "finish": "eos"}
    trace = Trace.from_json(json.dumps(data))
    return fault(trace, trace.lanes[1])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"tokens": [1, 2, 3, 4, 5]}, ""),
        ({"tokens": [1, 2, 4, 5]}, "its JSON does not parse"),
        ({"tokens": [1, 2, 4, 5], "finish": "length"}, ""),
        ({"tokens": [1, 2, 4, 5], "prompt": "A set?"}, ""),
        ({"tokens": [1, 2, 4, 5], "prompt": "A set?", "ar": (1, 2, 3, 4)}, "its JSON does not parse"),
        ({"tokens": [7, 5], "ar": (1, 2, 3, 4)}, "it is no JSON, as AR's is"),
        ({"tokens": [6, 5], "prompt": "Python that loads JSON"}, ""),
        ({"tokens": [7, 5], "prompt": "What is JSON?"}, ""),
    ],
)
def test_only_what_was_to_be_json_is_judged(asked: dict, says: str) -> None:
    assert judged(**asked) == says


def test_the_pictures_last_frame_says_it() -> None:
    data = trace_of(WORDS, [1, 2, 4, 5], special=[5]) | {"request": {"prompt": "Write JSON", "modes": ["ar"]}}
    data["lanes"] = [data["lanes"][0] | {"finish": "eos"}]
    made = Frames(Trace.from_json(json.dumps(data)))
    written: list[str] = []
    pen = made._board.pen
    own = pen.write
    pen.write = lambda place, text, *more: (written.append(text), own(place, text, *more))[1]
    said = []
    for _ in made.draw():
        said.append("its JSON does not parse" in " ".join(written))
        written.clear()
    assert said == [False, False, False, True]


def test_what_is_thrown_away_later_never_stood_for_good() -> None:
    def at(index: int, state: str = "committed") -> Position:
        return Position(index, 6, state, 0.9)

    events = [
        Event("diffusion", 0, "prefill", 1.0, 0, 1, [at(0, "seed")]),
        Event("diffusion", 1, "denoise", 2.0, 0, 6, [at(1), at(4), at(5)]),
        Event("diffusion", 2, "denoise", 3.0, 0, 6, [at(2), at(3, "masked")]),
        Event("diffusion", 3, "denoise", 4.0, 0, 6, [at(3), at(4, "discarded"), at(5, "discarded")]),
    ]
    assert kept_counts(record(events).lanes[0]) == [1, 2, 3, 4]
