"""Where the files lie that are no Python: beside the package in a checkout, inside it where it was installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """A folder by its place in the repository, such as assets/checkpoints: pyproject.toml puts it at the same place in
    nemodiff/installed of a wheel."""
    installed = _PACKAGE / "installed" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
