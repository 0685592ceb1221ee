"""What a training run leaves on the disk while it goes on: its state, and a log of its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write state.pt beside the old one and then in its place, so that a stopped run never leaves half a file."""
    torch.save(state, folder / "state.new")
    os.replace(folder / "state.new", folder / "state.pt")


def log_figures(folder: Path, figures: dict[str, Any], report: Callable[[str], None]) -> None:
    """Add a line of JSON to log.jsonl, and tell it."""
    line = json.dumps(figures)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    report(line)
