"""Stop strings: an answer ends with the token that completes one of them, and its text ends before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nemodiff.trace.events import Stop


@dataclass(frozen=True, slots=True)
class Stops:
    """strings: what ends an answer. written: a token's bytes in an answer's text, b"" for a control token. before: the
    bytes that the answer begins with (a branch), in which a string may begin."""

    strings: tuple[str, ...]
    written: Callable[[int], bytes]
    before: bytes = b""


class StopFinder:
    """Looks for stop strings in one answer, token by token.

    It compares bytes: UTF-8 shows where a character begins, so that bytes that match are characters that match, also
    where tokens hold parts of a character.
    """

    def __init__(self, stops: Stops) -> None:
        self._stops = stops
        self._strings = [string.encode() for string in stops.strings]
        self._reach = max(map(len, self._strings)) - 1  # bytes before a token in which a string may begin
        self._pieces: list[bytes] = []

    def find(self, token: int, index: int) -> Stop | None:
        """The string that `token` at answer position `index` completes, if it does; of several the one that begins
        first. What was said of this place and later ones before is forgotten: a block is looked at again and again."""
        pieces = self._pieces
        del pieces[index:]
        pieces.append(self._stops.written(token))
        first, before = index, b""
        while first and len(before) < self._reach:
            first -= 1
            before = pieces[first] + before
        missing = 0 if first else max(0, self._reach - len(before))
        given = self._stops.before[-missing:] if missing else b""
        text, ours = given + before + pieces[index], len(given)
        done = ours + len(before)  # bytes that were there without this token
        ends = [
            (text.find(string, max(0, done + 1 - len(string))), len(string), k)
            for k, string in enumerate(self._strings)
        ]
        found = min((one for one in ends if one[0] >= 0), default=None)
        if found is None:
            return None
        start, length, which = found
        end = _characters(pieces[index][: start + length - done])
        if start < ours:
            return Stop(0, 0, end, self._stops.strings[which])
        place, offset = first, start - ours
        while offset >= len(pieces[place]):
            offset -= len(pieces[place])
            place += 1
        return Stop(place, _characters(pieces[place][:offset]), end, self._stops.strings[which])


def _characters(piece: bytes) -> int:
    """How many characters end within a piece of UTF-8 behind whose end one begins."""
    return sum(byte & 0xC0 != 0x80 for byte in piece[1:]) + bool(piece)
