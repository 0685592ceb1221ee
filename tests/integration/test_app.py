"""app.py as a process, and the page that tools/bench_page.py measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from nemodiff.request import Request
from tools import bench_page

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


def test_the_page_benchmark_opens_its_page_over_a_made_run() -> None:
    with bench_page.served() as address:
        assert httpx.get(address).status_code == 200
    events = bench_page.Recording().stream(Request(prompt="Any."))
    assert next(events).phase == "prefill"
