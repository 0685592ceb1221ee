"""Where an answer's tokens stand on a grid of columns: wrapped in reading order, then each row in the order in which it
is seen. Right-to-left text runs as on the page, whose base direction is left to right; Arabic letters are joined. What
is read as one character (marks on a letter, a flag, joined emoji) stands together, whatever tokens it is made of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import regex
from arabic_reshaper import ArabicReshaper
from bidi import algorithm
from bidi.mirror import MIRRORED

#: Lam, as it begins or goes on, and the alefs that close it: to a reader each pair is one letter.
_LAM = {"\ufedf": 0, "\ufee0": 1}
_ALEF = {"\ufe82": "\ufef5\ufef6", "\ufe84": "\ufef7\ufef8", "\ufe88": "\ufef9\ufefa", "\ufe8e": "\ufefb\ufefc"}
_JOINERS = "\u200c\u200d"
#: What is an emoji by itself or as half of a flag; what makes one of what comes before it.
_PICTURE = regex.compile(r"\p{Emoji_Presentation}|\p{Regional_Indicator}")
_EMOJI = re.compile("[\ufe0f\u20e3\U0001f3fb-\U0001f3ff]")
#: Characters of a cluster that are looked at: people write shorter ones.
_LONGEST = 64
#: Bidi types that the library does not know, and what stands in for them: those of unassigned characters and isolates.
_UNKNOWN_TYPES = {"": "L"} | dict.fromkeys(("LRI", "RLI", "FSI", "PDI"), "ON")
#: A letter each stays, so that every token keeps its own.
_JOIN = ArabicReshaper({"support_ligatures": False, "delete_harakat": False, "shift_harakat_position": False})


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a token that stands together: its row, its first column, its text from left to right."""

    row: int
    column: int
    text: str


@dataclass(slots=True)
class _Run:
    """Text of a token (named by its place) on one row. No text: a place that is kept free."""

    token: int
    text: str
    row: int
    level: int = 0

    @property
    def width(self) -> int:
        return width(self.text) if self.text else 1


def clusters(text: str) -> list[str]:
    """A text in what readers take for its characters: the extended grapheme clusters of Unicode Annex 29."""
    return list(text) if text.isascii() else regex.findall(r"\X", text)


def width(text: str) -> int:
    """Columns that a text takes: wide characters, flags and emoji take two, combining ones none."""
    return len(text) if text.isascii() else sum(map(_columns, clusters(text)))


def is_emoji(cluster: str) -> bool:
    """Whether a character is drawn as a small picture: emoji, flags, keycaps."""
    return not cluster.isascii() and bool(_EMOJI.search(cluster) or _PICTURE.match(cluster))


def _columns(cluster: str) -> int:
    if unicodedata.east_asian_width(cluster[0]) in "WF" or is_emoji(cluster):
        return 2
    return sum(c not in _JOINERS and unicodedata.category(c) not in ("Mn", "Me") for c in cluster)


def tails(texts: Sequence[str]) -> dict[int, tuple[int, str]]:
    """Which texts begin within a character of an earlier one: place → that one's place and what it gets of the text."""
    found: dict[int, tuple[int, str]] = {}
    head, before = 0, ""
    for place, text in enumerate(texts):
        if before and (more := _more(before, text)):
            found[place] = head, text[:more]
            before, text = before + text[:more], text[more:]
        if text:
            head, before = place, text[-_LONGEST:]
    return found


def _more(before: str, text: str) -> int:
    """How many of a text's characters belong to the last character of the text before it."""
    if not text or text[0].isascii() or before[-1] == "\n":
        return 0
    last = clusters(before[-_LONGEST:])[-1]
    if len(last) >= _LONGEST:
        return 0
    return max(0, len(clusters(last + text[:_LONGEST])[0]) - len(last))


def cut(text: str, columns: int) -> str:
    """As much of a text's beginning as fits: nothing where its first character is wider."""
    if width(text) <= columns:
        return text
    line = next(_lines(text, columns))
    return line if width(line) <= columns else ""


def visual(text: str) -> str:
    """One line as it is seen from left to right."""
    return "".join(run.text for run in _ordered(_directed([_Run(0, text, 0)])))


def layout(texts: Iterable[str], columns: int) -> tuple[list[tuple[Piece, ...]], int]:
    """The pieces of every token's text, at least one each, and the number of rows.

    A token that does not fit at the end of a row goes to the next one with the word that it goes on, unless that is too
    long; a longer token is broken at `columns`. A newline has a place of its own, one column wide, beyond the last one
    where the row is full; so has a token without text, and so has the space before a word that begins a row.
    """
    pieces: list[list[Piece]] = []
    paragraph: list[_Run] = []
    row, column = 0, 0
    for token, text in enumerate(texts):
        pieces.append([])
        for part in re.findall("\n|[^\n]+", text.replace("\t", "    ")) or [""]:
            if part == "\n":
                _place(paragraph, pieces)
                paragraph = []
                pieces[token].append(Piece(row, column, "⏎"))
                row, column = row + 1, 0
                continue
            rest, more = _attached(paragraph, part)
            if more and paragraph[-1].row == row:
                column += more
            if part and not rest:
                continue
            if column and column + (width(rest) or 1) > columns:
                if _hangs(rest) and column <= columns:  # its space hangs at the end of the row, as on the page
                    paragraph.append(_Run(token, " ", row))
                    rest, column = rest[1:], 0
                else:
                    column = _carried(paragraph, row, columns - width(rest))
                row += 1
            for line in _lines(rest, columns):
                if column and column + width(line) > columns:
                    row, column = row + 1, 0
                run = _Run(token, line, row)
                column += run.width
                paragraph.append(run)
    _place(paragraph, pieces)
    last = Piece(0, 0, "")
    for parts in pieces:
        if not parts:
            parts.append(Piece(last.row, last.column, ""))
        last = parts[-1]
    return [tuple(parts) for parts in pieces], row + 1


def _carried(paragraph: list[_Run], row: int, room: int) -> int:
    """Move the unfinished word at the end of a row to the next one. The columns that it takes there: 0 where it stays,
    since it is wider than `room`, or alone on its row."""
    first, taken = len(paragraph), 0
    while first and (run := paragraph[first - 1]).row == row and not _closes_word(run):
        first, taken = first - 1, taken + run.width
        if _opens_word(run):
            break
    if first == len(paragraph) or not first or paragraph[first - 1].row != row:
        return 0
    head = paragraph[first]
    space = _hangs(head.text)
    if taken - space > room:
        return 0
    for run in paragraph[first:]:
        run.row += 1
    if space:
        head.text = head.text[1:]
        paragraph.insert(first, _Run(head.token, " ", row))
    return taken - space


def _hangs(text: str) -> bool:
    """Whether a text is a space and a word."""
    return len(text) > 1 and text[0] == " " and clusters(text)[0] == " "


def _opens_word(run: _Run) -> bool:
    """Whether a row may end before this run."""
    return run.text.startswith((" ", "<|")) or _is_wide(run.text[:1])


def _closes_word(run: _Run) -> bool:
    """Whether a row may end behind this run."""
    return not run.text or run.text.endswith((" ", "|>")) or _is_wide(run.text[-1:])


def _is_wide(character: str) -> bool:
    return not character.isascii() and unicodedata.east_asian_width(character) in "WF"


def _attached(paragraph: list[_Run], text: str) -> tuple[str, int]:
    """What is left of a token's text when what belongs to the character before it stands there, and the columns that
    this one grew by."""
    if not text or text[0].isascii():
        return text, 0
    before = next((run for run in reversed(paragraph) if run.text), None)
    if before is None or not (more := _more(before.text, text)):
        return text, 0
    columns = before.width
    before.text += text[:more]
    return text[more:], before.width - columns


def _lines(text: str, columns: int) -> Iterator[str]:
    """A text in lines of at most `columns`, at least one."""
    if text.isascii():
        yield from (text[at : at + columns] for at in range(0, len(text) or 1, columns))
        return
    line: list[str] = []
    taken = 0
    for cluster in clusters(text):
        wide = width(cluster)
        if line and taken + wide > columns:
            yield "".join(line)
            line, taken = [], 0
        line.append(cluster)
        taken += wide
    yield "".join(line)


def _place(paragraph: list[_Run], pieces: list[list[Piece]]) -> None:
    """Add a paragraph's rows to their tokens' pieces."""
    for row, line in groupby(_directed(paragraph), key=lambda run: run.row):
        column = 0
        for token, together in groupby(_ordered(list(line)), key=lambda run: run.token):
            runs = list(together)
            pieces[token].append(Piece(row, column, "".join(run.text or " " for run in runs)))
            column += sum(run.width for run in runs)


def _directed(paragraph: list[_Run]) -> list[_Run]:
    """A paragraph with its runs' levels (Unicode Annex 9): one with right-to-left text in a run a character, joined and
    mirrored where it runs to the left."""
    if all(run.text.isascii() for run in paragraph):
        return paragraph
    text = "".join(run.text for run in paragraph)
    if not any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return paragraph
    levels = _levels(text)
    joined = _JOIN.reshape(text)
    if len(joined) != len(text):
        joined = text
    at = 0
    result: list[_Run] = []
    for run in paragraph:
        if not run.text:
            result.append(_Run(run.token, "", run.row, result[-1].level if result else 0))
        for cluster in clusters(run.text):
            one = _Run(run.token, joined[at : at + len(cluster)], run.row, levels[at])
            at += len(cluster)
            if one.level % 2:
                one.text = MIRRORED.get(one.text[0], one.text[0]) + one.text[1:]
            if not _closes_lam(result, one):
                result.append(one)
    return result


def _closes_lam(runs: list[_Run], alef: _Run) -> bool:
    """Whether an alef became one letter with the lam before it, in the same token and row."""
    before = runs[-1] if runs else None
    if before is None or not before.text or (before.token, before.row) != (alef.token, alef.row):
        return False
    lam, pair = _LAM.get(before.text[0]), _ALEF.get(alef.text[0])
    if lam is None or pair is None:
        return False
    before.text = pair[lam] + before.text[1:] + alef.text[1:]
    return True


def _levels(text: str) -> list[int]:
    storage = algorithm.get_empty_storage()
    storage["base_level"], storage["base_dir"] = 0, "L"
    algorithm.get_embedding_levels(text, storage)
    for one in storage["chars"]:
        one["type"] = _UNKNOWN_TYPES.get(one["type"], one["type"])
    characters = list(storage["chars"])  # invisible ones are taken out on the way
    for step in ("explicit_embed_and_overrides", "resolve_weak_types", "resolve_neutral_types"):
        getattr(algorithm, step)(storage, False)
    algorithm.resolve_implicit_levels(storage, False)
    return [one["level"] or 0 for one in characters]


def _ordered(row: list[_Run]) -> list[_Run]:
    """A row as it is seen: rules L1 (spaces at its end are not turned round) and L2 of Unicode Annex 9."""
    if not any(one.level for one in row):
        return row
    for one in reversed(row):
        if one.text.strip():
            break
        one.level = 0
    levels = [one.level for one in row]
    for level in range(max(levels, default=0), 0, -1):
        start = 0
        for high, run in groupby(row, key=lambda one: one.level >= level):
            stop = start + len(list(run))
            if high:
                row[start:stop] = row[start:stop][::-1]
            start = stop
    return row
