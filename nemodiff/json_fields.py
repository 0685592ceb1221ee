"""Fields of a checkpoint's JSON files: each is checked for type and range, and named in one sentence when it is off."""

from __future__ import annotations

from typing import Any

from nemodiff.errors import CheckpointError, shown

#: Whole numbers that no checkpoint reaches; beyond them sizes overflow.
MOST = 2**24


class Fields:
    """A JSON object of `file`. A field that is null counts as left out; what may not be raises CheckpointError."""

    def __init__(self, data: dict[str, Any], file: str) -> None:
        self.data, self.file = data, file

    def get(self, key: str) -> Any:
        return self.data.get(key)

    def off(self, key: str, what: str) -> CheckpointError:
        """The error of a field whose value is not `what` says."""
        return CheckpointError(f"{self.file} sets {key} to {shown(self.get(key))}; {what}.")

    def missing(self, key: str) -> CheckpointError:
        return CheckpointError(f"{self.file} has no {key!r}; the checkpoint is incomplete.")

    def count(self, key: str, default: int | None = None, most: int = MOST) -> int:
        """A whole number from 1 to `most`."""
        value = self._given(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.off(key, "it must be a whole number above 0") if key in self.data else self.missing(key)
        if value > most:
            raise self.off(key, f"this engine takes up to {most}")
        return value

    def number(self, key: str, default: float | None = None, low: float = 0.0, high: float = 1.0) -> float:
        """A number from `low` to `high`."""
        value = self._given(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.off(key, f"it must be a number from {low:g} to {high:g}")
        return float(value)

    def above(self, low: float, key: str, default: float | None = None, high: float = 1.0) -> float:
        """A number above `low`, up to `high`."""
        value = self._given(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise self.off(key, f"it must be a number above {low:g}, up to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._given(key, default)
        if not isinstance(value, bool):
            raise self.off(key, "it must be true or false")
        return value

    def part(self, key: str) -> Fields:
        """An object inside; an empty one where it is left out."""
        value = self._given(key, {})
        if not isinstance(value, dict):
            raise self.off(key, "it must be an object of settings")
        return Fields(value, self.file)

    def ids(self, key: str, vocabulary: int) -> list[int]:
        """The token ids of `key` (one, a list, or none where it is left out), each within the vocabulary."""
        value = self._given(key, [])
        ids = value if isinstance(value, list) else [value]
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
                raise CheckpointError(
                    f"{self.file} sets {key} to {shown(token)}, which is not in its vocabulary of {vocabulary}."
                )
        return ids

    def _given(self, key: str, default: Any) -> Any:
        value = default if self.data.get(key) is None else self.data[key]
        if value is None:
            raise self.missing(key)
        return value
