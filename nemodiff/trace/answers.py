"""Whether an answer holds, whatever its speed: by what was asked and what the text shows. Nothing of it is ever run."""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nemodiff.trace.events import Lane, Trace

#: Characters of an answer that is looked at; a longer one has no marks.
MAX_CHARACTERS = 20_000
#: Tokens of one: twice what an engine writes at most.
MAX_TOKENS = 8192
_FENCED = re.compile(r"```(\w*)[^\n]*\n([\s\S]*?)```")
_CODE = re.compile(r"(def|class|import|from|async|@\w|for|while|if|with|print\(|\w+ = )")
_ITEM = re.compile(r"^[ \t]*(?:\d{1,4}[.)]|[-*•])[ \t]+\S", re.MULTILINE)
_SENTENCE = re.compile(r"[.!?][\"'”’)]*(?=\s+[^a-z\s]|\s*$)")
#: The name of a section, as of an INI file: no list of JSON.
_SECTION = re.compile(r"\[[^\[\]\n,\"]*\]\s*\n")
_NAMES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = rf"(\d{{1,4}}|{'|'.join(_NAMES)})"
_THINGS = "tips|items|ideas|reasons|steps|ways|examples|facts|things|points|names|titles|questions|rules|benefits"
_ASKED_ITEMS = re.compile(rf"(?<![\d.,])\b{_NUMBER} (?:(?!and |or )\w+ )?(?:{_THINGS})\b", re.IGNORECASE)
_ASKED_COUNT = re.compile(r"\bcount (?:from )?(\d{1,4}) to (\d{1,4})\b", re.IGNORECASE)
_IN_STEPS = re.compile(r"\b(by \d\w*|steps?|every|odd|even|primes?|backwards?)\b", re.IGNORECASE)
_ASKED_SENTENCES = re.compile(rf"\b{_NUMBER}[- ]sentences?\b", re.IGNORECASE)
_FOR_EACH = re.compile(r"\b(each|every|per)\b", re.IGNORECASE)
_ASKED_WORDS = re.compile(rf"\b(exactly|at most|up to|no more than|in|with|using|of) {_NUMBER} words?\b", re.IGNORECASE)
_AT_MOST = ("at most", "up to", "no more than")


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that an answer was to be.

    kind: json, python, list, sentences, words or right. words: a few, such as "JSON parses" or "2 of 3 items", for a
    mark beside the answer. fault: what is wrong, for a sentence; "" where it holds.
    """

    kind: str
    words: str
    fault: str = ""

    @property
    def holds(self) -> bool:
        return not self.fault


def marks(
    prompt: str, answer: str, *, expected: str | None = None, ar: str | None = None, others: Sequence[str] = ()
) -> list[Mark]:
    """The marks of an answer that ended by itself (a cut one cannot be judged), the most telling first.

    expected: the right answer, where it is known, as of `nemodiff.tasks`. ar: AR's answer to the same prompt. others:
    further answers to it. What nobody asked for and the text does not show has no mark.
    """
    text = spoken(answer)
    if len(text) > MAX_CHARACTERS:
        return []
    found = [] if expected is None else [_right(text, expected)]
    for one in (_json(prompt, text, ar, others), _python(prompt, text), _list(prompt, text), *_lengths(prompt, text)):
        if one:
            found.append(one)
    return sorted(found, key=lambda mark: mark.holds)


def marks_of(trace: Trace, expected: str | None = None) -> dict[str, list[Mark]]:
    """The marks of every lane's answer, by mode; none of an answer that did not end by itself."""
    prompt = str(trace.request.get("prompt") or "")
    texts = {lane.mode: exact_text(trace, lane.tokens) for lane in trace.lanes if lane.finish == "eos"}
    ended = {mode: text for mode, text in texts.items() if text is not None}
    found: dict[str, list[Mark]] = {lane.mode: [] for lane in trace.lanes}
    for mode, text in ended.items():
        others = {one: other for one, other in ended.items() if one != mode}
        found[mode] = marks(prompt, text, expected=expected, ar=others.get("ar"), others=list(others.values()))
    return found


def for_stage(trace: Trace) -> dict[str, list[dict[str, str]]]:
    """The same as the stage takes it: {"words", "fault"} each."""
    return {
        mode: [{"words": mark.words, "fault": mark.fault} for mark in found] for mode, found in marks_of(trace).items()
    }


def fault(trace: Trace, lane: Lane) -> str:
    """ "" or what is wrong with a lane's answer."""
    return next((mark.fault for mark in marks_of(trace)[lane.mode] if mark.fault), "")


def exact_text(trace: Trace, tokens: list[int]) -> str | None:
    """The text of an answer, without control tokens and characters of which pieces are missing at its end. None where
    it is longer than what is looked at: a trace from a file may repeat a long text as often as it likes."""
    if len(tokens) > MAX_TOKENS:
        return None
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    special = set(trace.special)
    parts: list[str] = []
    room = MAX_CHARACTERS
    for token in tokens:
        if token in special:
            continue
        piece = trace.byte_pieces.get(token)
        text = trace.vocabulary.get(token, "") if piece is None else ""
        room -= len(text)
        if room < 0:
            return None
        parts.append(decoder.decode(bytes.fromhex(piece) if piece is not None else text.encode(errors="replace")))
    return "".join(parts)


def spoken(answer: str) -> str:
    """An answer without what was thought before it and white space around it."""
    return answer.rpartition("</think>")[2].strip()


def parsed_json(answer: str) -> str:
    """whole, broken, or "" for a text that does not mean to be JSON."""
    text = spoken(answer)
    fenced = _FENCED.search(text)
    body = text
    if fenced:
        body = fenced[2].strip() if re.fullmatch(r"(json\w*)?", fenced[1], re.IGNORECASE) else ""
    if not body.startswith(("{", "[")) or _SECTION.match(body):
        return ""
    try:
        _loads(body)
    except (ValueError, RecursionError):
        return "broken"
    return "whole"


def _loads(text: str) -> object:
    # Numbers as floats: an integer of thousands of digits would be refused.
    return json.loads(text, parse_constant=_refuse, parse_int=float)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _right(text: str, expected: str) -> Mark:
    right = text == spoken(expected)
    if not right and parsed_json(text) == parsed_json(expected) == "whole" and "```" not in text + expected:
        right = _loads(text) == _loads(spoken(expected))
    return Mark("right", "right") if right else Mark("right", "wrong", "it is not the right answer")


def _json(prompt: str, text: str, ar: str | None, others: Sequence[str]) -> Mark | None:
    own = parsed_json(text)
    if own == "whole":
        return Mark("json", "JSON parses")
    beside = "" if ar is None else parsed_json(ar)
    if own == "broken":
        asked = re.search(r"\bjson\b", prompt, re.IGNORECASE) or re.search(r"```json", text, re.IGNORECASE)
        meant = asked or beside == "whole" or any(parsed_json(one) == "whole" for one in others)
        return Mark("json", "JSON broken", "its JSON does not parse") if meant else None
    return Mark("json", "no JSON", "it is no JSON, as AR's is") if beside == "whole" else None


def _python(prompt: str, text: str) -> Mark | None:
    fences = [body for language, body in _FENCED.findall(text) if language.lower() in ("python", "py")]
    if not fences:
        asked = re.search(r"\bpython\b", prompt, re.IGNORECASE) and "```" not in text
        if not asked or not _CODE.match(text):
            return None
    for body in fences or [text]:
        try:
            ast.parse(body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: of code nested too deep
            return Mark("python", "Python broken", "its Python does not compile")
    return Mark("python", "Python compiles")


def _list(prompt: str, text: str) -> Mark | None:
    if counted := _ASKED_COUNT.search(prompt):
        return None if _IN_STEPS.search(prompt) else _counted(int(counted[1]), int(counted[2]), text)
    asked, items = _ASKED_ITEMS.search(prompt), len(_ITEM.findall(text))
    return _count("list", "items", items, _number(asked[1])) if asked and items else None


def _counted(first: int, last: int, text: str) -> Mark | None:
    asked = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    said = [int(number) for number in re.findall(r"\d{1,9}", text)]
    if not said:
        return None
    right = next((i for i, (a, b) in enumerate(zip(said, asked, strict=False)) if a != b), min(len(said), len(asked)))
    if right == len(asked) and len(said) > right:
        return Mark("list", f"{len(said)} numbers, {right} asked", f"it counts on after {last}")
    words = f"{right} of {len(asked)} numbers"
    return Mark("list", words, "" if right == len(asked) else f"it has {words} in order")


def _lengths(prompt: str, text: str) -> list[Mark]:
    found = []
    if (asked := _ASKED_SENTENCES.search(prompt)) and not _FOR_EACH.search(prompt):
        found.append(_count("sentences", "sentences", len(_SENTENCE.findall(text)), _number(asked[1])))
    if asked := _ASKED_WORDS.search(prompt):
        most = asked[1].lower() in _AT_MOST
        found.append(_count("words", "words", len(text.split()), _number(asked[2]), most=most))
    return found


def _count(kind: str, things: str, there: int, asked: int, *, most: bool = False) -> Mark:
    holds = there <= asked if most else there == asked
    words = f"{there} of {'at most ' if most else ''}{asked} {things if asked != 1 else things[:-1]}"
    return Mark(kind, words, "" if holds else f"it has {there} {things}, {asked} were asked for")


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _NAMES.index(text.lower()) + 1
