"""The table of settings: its documentation, and what follows from it."""

from __future__ import annotations

from pathlib import Path

from nemodiff import settings

ROOT = Path(__file__).parents[2]


def test_the_documentation_has_the_table_of_the_code() -> None:
    assert settings.table() in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
