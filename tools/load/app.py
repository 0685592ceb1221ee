"""App: the app as a process that is asked, watched and ended; and what a visitor's run came to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.helpers.replicas import free_port

ROOT = Path(__file__).parents[2]
WAIT = 600.0


class App:
    """app.py as a process of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"app-{self.port}.log"
        given = {"GRADIO_SERVER_PORT": str(self.port), "GRADIO_ANALYTICS_ENABLED": "False", "NEMODIFF_LOG": "json"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=ROOT,
                env=os.environ | given | settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def health(self) -> str:
        try:
            return httpx.get(f"{self.address}/health", timeout=20).json()["status"]
        except (httpx.HTTPError, ValueError):
            return "away"

    def until(self, *wanted: str, seconds: float = WAIT) -> tuple[str, float]:
        """Wait for one of these states; returns it, and the seconds that it took."""
        began = time.monotonic()
        while (now := self.health()) not in wanted:
            if self.process.poll() is not None or time.monotonic() - began > seconds:
                raise SystemExit(f"The app is {now}, not {wanted}:\n{self.told()[-3000:]}")
            time.sleep(0.2)
        return now, time.monotonic() - began

    def told(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def memory(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def numbers(self) -> dict[str, float]:
        lines = httpx.get(f"{self.address}/metrics", timeout=20).text.splitlines()
        return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines) if name[:1] != "#"}

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def end_of(messages: list[dict[str, Any]]) -> str:
    errors = [message["error"] for message in messages if "error" in message]
    ends = [message["end"]["finish"] for message in messages if "end" in message]
    return f"“{errors[-1]}”" if errors else f"whole ({ends[-1]})" if ends else "no end"
