"""The kinds of values that a setting takes: how each is checked, read from the text of a link or an option, written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nemodiff.errors import RequestError, SettingError, shown

#: Stop strings that a request may have, and characters of each.
MAX_STRINGS, MAX_STRING = 8, 100


class Kind(Protocol):
    """What values a setting takes, wherever they come from."""

    @property
    def type(self) -> Any:
        """The type of a value, as a program's signature says it."""

    @property
    def words(self) -> str:
        """Its values, as the table of the documentation says them."""

    def check(self, name: str, value: Any) -> None:
        """Raises RequestError when `value` is none of them."""

    def parse(self, text: str) -> Any:
        """A value from the text of a link or an option, in range or not. Raises ValueError when it is none at all."""

    def write(self, value: Any) -> str:
        """The text that `parse` reads."""

    def is_like(self, value: Any) -> bool:
        """Whether a field of the page may hold this, in range or not."""


class _Numeric:
    """What whole and other numbers share."""

    __slots__ = ()

    def write(self, value: Any) -> str:
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return str(int(value)) if whole else str(value)

    def is_like(self, value: Any) -> bool:
        return value is None or (type(value) in (int, float) and abs(value) <= 2**63)


@dataclass(frozen=True, slots=True)
class Whole(_Numeric):
    """Whole numbers from low to high."""

    low: int
    high: int

    type = int

    @property
    def words(self) -> str:
        return f"{self.low} to {self.high}"

    def check(self, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise SettingError(name, f"must be a whole number from {self.low} to {self.high}, not {shown(value)}.")

    def parse(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise ValueError("a whole number") from None


@dataclass(frozen=True, slots=True)
class Number(_Numeric):
    """Numbers from low to high. step: of the page's field."""

    low: float
    high: float
    step: float = 0.05

    type = float

    @property
    def words(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def check(self, name: str, value: Any) -> None:
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if isinstance(value, bool) or not finite:
            raise SettingError(name, f"must be a number from {self.low:g} to {self.high:g}, not {shown(value)}.")
        if not self.low <= value <= self.high:
            raise SettingError(name, f"must be from {self.low:g} to {self.high:g}, not {shown(value)}.")

    def parse(self, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ValueError("a number") from None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some names. labels: how the page's field spells them, where otherwise."""

    names: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @property
    def type(self) -> Any:
        return Literal[self.names]

    @property
    def words(self) -> str:
        return ", ".join(self.names)

    def check(self, name: str, value: Any) -> None:
        one_of(name, value, self.names)

    def parse(self, text: str) -> str:
        return text

    def write(self, value: Any) -> str:
        return str(value)

    def is_like(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.names


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    type = bool
    words = "yes or no"

    def check(self, name: str, value: Any) -> None:
        one_of(name, value, (True, False))

    def parse(self, text: str) -> bool:
        if text not in ("0", "1"):
            raise ValueError("0 or 1")
        return text == "1"

    def write(self, value: Any) -> str:
        return str(int(value))

    def is_like(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Texts:
    """Some short texts. Written down they are lines, in which \\n is a line break, \\t a tab and \\\\ a backslash."""

    type = list[str]
    words = f"up to {MAX_STRINGS} texts of 1 to {MAX_STRING} characters"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
            raise SettingError(name, f"must be a list of texts, not {shown(value)}.")
        if len(value) > MAX_STRINGS:
            raise SettingError(name, f"takes up to {MAX_STRINGS} texts, not {len(value)}: leave some out.")
        for text in value:
            if not 0 < len(text) <= MAX_STRING:
                raise SettingError(name, f"takes texts of 1 to {MAX_STRING} characters; one has {len(text):,}.")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise SettingError(name, f"holds half a character in {shown(text)}: write it anew.") from None

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(self.one(line) for line in text.split("\n") if line)

    @staticmethod
    def one(line: str) -> str:
        """A text as it is written on one line."""
        return re.sub(r"\\([nt\\])", lambda found: _ESCAPES[found[1]], line)

    def write(self, value: Any) -> str:
        if not isinstance(value, tuple):  # as a field holds it
            return str(value)
        return "\n".join(re.sub(r"[\n\t\\]", lambda found: f"\\{_WRITTEN[found[0]]}", text) for text in value)

    def is_like(self, value: Any) -> bool:
        return isinstance(value, str) and len(value) <= 2 * MAX_STRINGS * (MAX_STRING + 1)


_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
_WRITTEN = {character: name for name, character in _ESCAPES.items()}


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises RequestError when a value is none of `allowed`."""
    try:
        known = value in allowed
    except (TypeError, ValueError, RuntimeError):  # a type that compares in its own way, such as an array
        known = False
    if not known:
        raise RequestError(f"Unknown {name} {shown(value)}: choose {' or '.join(map(str, allowed))}.")
