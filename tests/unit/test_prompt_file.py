"""Prompts of one's own: lines, JSON with expected answers, and a sentence for each line that is neither."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemodiff.errors import RequestError
from nemodiff.evaluate.prompt_file import MAX_PROMPT, MAX_PROMPTS, Asked, is_expected, read_prompts


def test_lines_are_prompts_and_json_has_its_expected_answer() -> None:
    text = '\ufeffSay hi\r\n\n  {"prompt": "2 + 2", "expected": "4"}\n{"prompt": "a\\nb"}\n[1, 2]\n'
    found, wrong = read_prompts(text)
    assert found == [Asked("Say hi"), Asked("2 + 2", "4"), Asked("a\nb"), Asked("[1, 2]")] and wrong == []
    assert (Asked("a\nb").label, len(Asked("x " * 99).label)) == ("a b", 40)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"prompt": "a"', "it begins as JSON and is none that can be read."),
        ("{" * 100_000, "it begins as JSON"),
        ("{}", 'it has no text under "prompt".'),
        ('{"prompt": ["a"]}', 'it has no text under "prompt".'),
        ('{"prompt": "a", "expected": 4}', 'what is under "expected" is no text.'),
        ('{"prompt": "  "}', "its prompt is empty."),
        ("x" * (MAX_PROMPT + 1), "it has more than 4,000 characters."),
        ('{"prompt": "\\ud800"}', "half a character"),
    ],
)
def test_a_bad_line_is_left_out_with_one_sentence(line: str, says: str) -> None:
    found, wrong = read_prompts(f"good\n{line}\nalso good")
    assert [one.prompt for one in found] == ["good", "also good"]
    assert len(wrong) == 1 and wrong[0].startswith("Line 2 was left out: ") and "\n" not in wrong[0]
    assert says in wrong[0] or says == "half a character"


def test_many_bad_lines_are_told_in_few_sentences() -> None:
    _, wrong = read_prompts("{\n" * 100)
    assert len(wrong) == 5 and wrong[-1] == "96 more lines were left out, too."


def test_too_much_is_refused_before_it_is_read() -> None:
    for text, says in (("x" * 200_001, "200,000 characters"), ("a\n" * (MAX_PROMPTS + 1), "at most 64"), (3, "text")):
        with pytest.raises(RequestError, match=says):
            read_prompts(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found, wrong = read_prompts(text)
    except RequestError as error:
        assert str(error).endswith(".")
        return
    assert all(one.prompt.strip() for one in found) and all(one.endswith(".") for one in wrong)
    again, none = read_prompts("\n".join(json.dumps({"prompt": one.prompt, "expected": one.expected}) for one in found))
    assert again == found and not none


def test_an_answer_is_the_expected_one_whatever_space_stands_between_its_words() -> None:
    assert is_expected(" The answer\n is 4. ", "The answer is 4.")
    assert is_expected("<think>5?</think>4", "4") and is_expected("e\u0301", "é")
    assert not is_expected("The answer is 4", "The answer is 4.") and not is_expected("", "4")
