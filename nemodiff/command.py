"""What all commands share: errors as sentences, values checked as they are read, outputs checked before the run."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nemodiff.errors import NemodiffError, RequestError, SettingError


def run(args: argparse.Namespace) -> int:
    """`args.func(args)`; 2 with one sentence on stderr for input that cannot be used, 130 after Ctrl-C."""
    try:
        return args.func(args)
    except SettingError as error:
        return _refuse(error.named(flag(error.setting)))
    except NemodiffError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # whoever reads our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # of a file that was named: one that went away, a disk that is full
        return _refuse(f"{error.filename or 'A file'} cannot be used: {error.strerror or type(error).__name__}.")
    except KeyboardInterrupt:
        return 130


def _refuse(sentence: str) -> int:
    print(f"nemodiff: {sentence}", file=sys.stderr)
    return 2


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from low to high."""
    return _number(int, f"a whole number from {low:,} to {high:,}", low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number from low to high."""
    return _number(float, f"a number from {low:g} to {high:g}", low, high)


def _number(kind: Callable[[str], Any], what: str, low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {what}, not {text[:40]!r}")
        return value

    return read


def refuse_unused(args: argparse.Namespace, command: str, options: Iterable[str], why: str) -> None:
    """Raises RequestError when one of `options` (names as in `args`, None where not given) was given for nothing."""
    if given := [flag(name) for name in options if getattr(args, name) is not None]:
        raise RequestError(f"{command} does not use {' or '.join(given)}: {why}.")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_file(path: Path | None, what: str) -> None:
    """Raises RequestError when a file cannot be written there: before a run, whose results would be lost."""
    if path is None:
        return
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe or a device: looking might disturb it
            if not os.access(path, os.W_OK):
                raise PermissionError(None, os.strerror(13))
            return
        known = path.exists()
        with path.open("ab"):
            pass
        if not known:
            path.unlink()
    except (OSError, ValueError) as error:
        raise unwritable(path, what, error) from error


def check_folder(path: Path, what: str) -> None:
    """Make a folder for outputs. Raises RequestError when it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_file(path / ".nemodiff", what)
    except (OSError, ValueError) as error:
        raise unwritable(path, what, error) from error


def check_there(path: Path | None, what: str) -> None:
    """Raises RequestError when a file or folder that was named is not there."""
    if path is not None and not is_there(path):
        raise RequestError(f"There is no {what} at {path}.")


def is_there(path: Path) -> bool:
    """Whether a path names something; one that nothing can have does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def unwritable(path: Path, what: str, error: Exception) -> RequestError:
    """The sentence for an output that cannot be written."""
    reason = getattr(error, "strerror", None) or "no file can have that name"
    return RequestError(f"The {what} could not be written to {path}: {reason}.")


class JsonLines:
    """A JSONL file that a run writes as it goes on. What cannot be written any more is told once and ends nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._file = path, path.open("w", encoding="utf-8") if path else None

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._try(lambda file: file.close())

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        self._try(lambda file: (file.write(text), file.flush()))

    def _try(self, act: Callable[[Any], object]) -> None:
        if self._file is None:
            return
        try:
            act(self._file)
        except OSError as error:
            self._file = None
            print(f"\n{self._path} ends here: {error.strerror}. The run goes on.", file=sys.stderr, flush=True)
