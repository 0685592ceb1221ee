"""What a training run leaves on the disk while it goes on: its state, and a log of its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nemodiff.errors import RequestError, shown


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write state.pt beside the old one and then in its place, so that a stopped run never leaves half a file."""
    torch.save(state, folder / "state.new")
    os.replace(folder / "state.new", folder / "state.pt")


def read_saved(path: Path, what: str, device: str = "cpu") -> Any:
    """What torch.save wrote to a file. Raises RequestError where that is something else, or half of it."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # of bytes that are none of torch's, its reader raises nearly any
        raise not_saved(path, what) from error


def read_state(path: Path, device: str = "cpu", **settings: Any) -> dict[str, Any]:
    """What `save_state` wrote. settings: those that the run must have had. Raises RequestError."""
    state = read_saved(path, "saved state", device)
    if not isinstance(state, dict) or not isinstance(made := state.get("settings"), dict):
        raise not_saved(path, "saved state")
    for name, value in settings.items():
        if made.get(name) != value:
            raise RequestError(
                f"{path} was made with {name} {shown(made.get(name))}, not {value}: go on with that, or name another "
                "run."
            )
    return state


def not_saved(path: Path, what: str) -> RequestError:
    """The error of a file that holds something else."""
    return RequestError(f"{path} is no {what}, or only half of one: name another file, or delete it.")


def log_figures(folder: Path, figures: dict[str, Any], report: Callable[[str], None]) -> None:
    """Add a line of JSON to log.jsonl, and tell it."""
    line = json.dumps(figures)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    report(line)
