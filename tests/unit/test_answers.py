"""Whether an answer holds is read off its text and what was asked; nothing is run, nothing is guessed."""

from __future__ import annotations

import json

import pytest

from nemodiff.tasks.structured.families import FAMILIES, instance
from nemodiff.trace.answers import MAX_CHARACTERS, marks, marks_of, parsed_json
from nemodiff.trace.events import Trace
from tests.helpers.traces import trace_of

NUMBERS = ", ".join(map(str, range(1, 31)))


@pytest.mark.parametrize(
    ("prompt", "answer", "words"),
    [
        ("Write JSON", '{"a": [1]}', ["JSON parses"]),
        ("Write JSON", '{"a": [1}', ["JSON broken"]),
        ("A set?", "{1", []),
        ("A set?", "```json\n{1\n```", ["JSON broken"]),
        ("What is JSON?", "A format.", []),
        ("Write a Python function", "def f():\n    return 1", ["Python compiles"]),
        ("Write a Python function", "def f(:\n    return 1", ["Python broken"]),
        ("Write a Python function", "Sure, here it is.", []),
        ("Show it", "Here:\n```python\nx = (\n```", ["Python broken"]),
        ("Show it", "Here:\n```py\nimport os\nos.abort()\n```", ["Python compiles"]),
        ("Show it", "```rust\nfn main() {}\n```", []),
        ("Give me three tips for sleeping", "1. A\n2. B\n3. C", ["3 of 3 items"]),
        ("Give me three tips for sleeping", "- A\n- B", ["2 of 3 items"]),
        ("Give me three tips for sleeping", "Sleep more.", []),
        ("Count from 1 to 30, separated by commas.", NUMBERS, ["30 of 30 numbers"]),
        ("Count from 1 to 30, separated by commas.", NUMBERS[:-4], ["29 of 30 numbers"]),
        ("Count from 1 to 30, separated by commas.", f"{NUMBERS}, 31", ["31 numbers, 30 asked"]),
        ("Count from 5 to 3", "5 4 3", ["3 of 3 numbers"]),
        ("Write a two-sentence story", "It was late. “Who is there?” he asked.", ["2 of 2 sentences"]),
        ("Write a two-sentence story", "It was late.", ["1 of 2 sentences"]),
        ("Say it in five words", "one two three four five", ["5 of 5 words"]),
        ("Say it in at most 5 words", "one two three", ["3 of at most 5 words"]),
        ("Say it in five words", "one two", ["2 of 5 words"]),
        ("Explain why the sky is blue.", "Light scatters.", []),
    ],
)
def test_what_was_asked_and_what_the_text_shows(prompt: str, answer: str, words: list[str]) -> None:
    found = marks(prompt, answer)
    assert [mark.words for mark in found] == words
    assert [mark.holds for mark in found] == [not mark.fault for mark in found]
    wrong = {"JSON broken", "Python broken", "2 of 3 items", "29 of 30 numbers", "31 numbers, 30 asked"}
    assert [mark.holds for mark in found] == [
        word not in wrong | {"1 of 2 sentences", "2 of 5 words"} for word in words
    ]


def test_a_lane_is_held_against_ar() -> None:
    assert [one.fault for one in marks("List it", "Sure", ar="[1]")] == ["it is no JSON, as AR's is"]
    assert [one.words for one in marks("A set?", "{1", others=["{}"])] == ["JSON broken"]
    assert marks("A set?", "{1", ar="{2") == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_own_answer_is_right_and_another_is_not(name: str) -> None:
    for seed in range(12):
        prompt, answer = instance(name, seed)
        assert all(mark.holds for mark in marks(prompt, answer, expected=answer)), prompt
    wrong = marks(prompt, answer[: len(answer) // 2], expected=answer)
    assert any(mark.kind == "right" and not mark.holds for mark in wrong)
    assert not wrong[0].holds  # what is wrong comes first


def test_json_is_right_in_whatever_white_space() -> None:
    assert marks("x", '{"a":1,\n "b": 2}', expected='{"b": 2, "a": 1}')[0].holds
    assert not marks("x", '{"a": 2}', expected='{"a": 1}')[0].holds


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000,
        "```python\n" + "(" * 15_000 + "\n```",
        "```python\n" + "-" * 15_000 + "1\n```",
        "```python\nx = \0\n```",
        "```" * 6_000,
        "[" + "9" * 15_000 + "]",
    ],
)
def test_hostile_answers_are_judged_or_left_alone(text: str) -> None:
    marks("Python that loads JSON in five words and three tips", text)
    assert marks("Write JSON", text + " " * 9 + "x" * MAX_CHARACTERS) == []


def test_what_a_file_repeats_without_end_is_not_looked_at() -> None:
    words = {"1": "{" * 900, "2": "a", "3": "}"}
    for tokens, judged in (([1] * 30, False), ([2] * 9000, False), ([1, 2, 3], True)):
        data = trace_of(words, tokens) | {"request": {"prompt": "Write JSON", "modes": ["ar"]}}
        data["lanes"] = [data["lanes"][0] | {"finish": "eos"}]
        found = marks_of(Trace.from_json(json.dumps(data)))
        assert [mark.words for mark in found["ar"]] == (["JSON broken"] if judged else [])


def test_json_with_what_javascript_allows_is_broken() -> None:
    assert parsed_json('{"a": NaN}') == "broken" and parsed_json("<think>{</think> [1]") == "whole"
    assert parsed_json('```json\n{"a": 1}\n```') == "whole" and parsed_json("Here:\n```\n[1,]\n```") == "broken"
    assert parsed_json("```python\n{1: 2}\n```") == "" and parsed_json("No {x}") == ""
