"""app.py as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_app_ends_with_the_sentence_and_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={"PATH": "", "NEMODIFF_LOG": "xml", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stderr.strip() == "NEMODIFF_LOG must be text or json, not 'xml'."
