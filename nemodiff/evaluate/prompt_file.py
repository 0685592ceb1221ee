"""Prompts of one's own to measure with: a text of lines, each a prompt or a JSON object with its expected answer."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from nemodiff.errors import RequestError
from nemodiff.request import whole_characters

#: Characters of the text and of one prompt or answer; prompts; sentences about bad lines.
MAX_CHARACTERS, MAX_PROMPT, MAX_PROMPTS, MAX_SENTENCES = 200_000, 4000, 64, 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt to measure with. expected: the answer that it should get, where there is one."""

    prompt: str
    expected: str | None = None

    @property
    def label(self) -> str:
        """Its beginning, as one line."""
        line = " ".join(self.prompt.split())
        return line if len(line) <= 40 else line[:39] + "…"


def read_prompts(text: object) -> tuple[list[Asked], list[str]]:
    """The prompts of a text that nobody trusts, and a sentence for each line that holds none.

    A line that begins with { is JSON: {"prompt": …, "expected": …}, the latter may be left out; any other line is a
    prompt as it stands. Empty lines are skipped. Raises RequestError when the text as a whole cannot be read.
    """
    if not isinstance(text, str):
        raise RequestError("The prompts must be text: one prompt per line.")
    if len(text) > MAX_CHARACTERS:
        raise RequestError(f"The prompts have more than {MAX_CHARACTERS:,} characters together: leave some out.")
    found: list[Asked] = []
    wrong: list[str] = []
    for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        if not (line := line.strip()):
            continue
        try:
            found.append(_asked(line))
        except RequestError as error:
            wrong.append(f"Line {number} was left out: {error}")
    if len(found) > MAX_PROMPTS:
        raise RequestError(f"There are {len(found):,} prompts, at most {MAX_PROMPTS} can be measured: leave some out.")
    if len(wrong) > MAX_SENTENCES:
        wrong[MAX_SENTENCES - 1 :] = [f"{len(wrong) - MAX_SENTENCES + 1} more lines were left out, too."]
    return found, wrong


def _asked(line: str) -> Asked:
    asked = Asked(line)
    if line.startswith("{"):
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            raise RequestError("it begins as JSON and is none that can be read.") from None
        if not isinstance(data, dict) or not isinstance(data.get("prompt"), str):
            raise RequestError('it has no text under "prompt".')
        expected = data.get("expected")
        if expected is not None and not isinstance(expected, str):
            raise RequestError('what is under "expected" is no text.')
        asked = Asked(data["prompt"], expected)
    for part in (asked.prompt, asked.expected or ""):
        if len(part) > MAX_PROMPT:
            raise RequestError(f"it has more than {MAX_PROMPT:,} characters.")
        whole_characters(part)
    if not asked.prompt.strip():
        raise RequestError("its prompt is empty.")
    return asked


def is_expected(answer: str, expected: str) -> bool:
    """Whether an answer is the expected one: the same words in the same order, whatever space stands between them. What
    was thought before an answer does not count."""
    return _words(answer.rpartition("</think>")[2]) == _words(expected)


def _words(text: str) -> Sequence[str]:
    return unicodedata.normalize("NFC", text).split()
