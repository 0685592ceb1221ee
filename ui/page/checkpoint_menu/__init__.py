"""The header's menu of checkpoints: constant markup, style and script."""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).parent
STYLE = FILES / "checkpoint.css"


def template() -> str:
    """The header's constant markup; no name or figure is ever put into it."""
    return (FILES / "checkpoint.html").read_text(encoding="utf-8")


def script() -> str:
    return (FILES / "checkpoint.js").read_text(encoding="utf-8")
