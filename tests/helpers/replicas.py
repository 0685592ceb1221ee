"""Replicas for tests: one in this process over real HTTP, or several that Ray Serve keeps."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from nemodiff.engine.interface import EngineInterface
from ui.backends.serve.decoder import Decoder

ROOT = Path(__file__).parents[2]
PATIENCE = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def decoder_of(engine: EngineInterface) -> Decoder:
    """A replica of a loaded engine."""
    decoder = Decoder.__new__(Decoder)
    decoder._begin(engine, places=1)
    return decoder


@contextlib.contextmanager
def one_replica(engine: EngineInterface) -> Iterator[str]:
    """The address of a replica in this process, without Ray."""
    decoder = decoder_of(engine)

    async def answer(request: Request) -> Response:
        return await decoder(request)

    async def there(_: Request) -> Response:
        return PlainTextResponse("success")

    routes = [Route("/-/healthz", there), Route("/{path:path}", answer, methods=["GET", "POST"])]
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(f"127.0.0.1:{port}", thread.is_alive)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


def wait_for(address: str, alive=lambda: True) -> None:
    """Wait until somebody listens."""
    host, port = address.split(":")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), 5).close()
            return
        except OSError:
            assert alive() and time.monotonic() < deadline, f"nobody listens at {address}"
            threading.Event().wait(0.05)


class Replicas:
    """`python -m ui.backends.serve` as a process."""

    def __init__(self, checkpoint: str, log: Path, *arguments: str) -> None:
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        self.log = log
        command = [
            sys.executable,
            "-m",
            "ui.backends.serve",
            "--checkpoint",
            checkpoint,
            "--port",
            str(port),
            *arguments,
        ]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while f"answers at {self.address}" not in (text := log.read_text(encoding="utf-8", errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"ui.backends.serve did not start:\n{text[-3000:]}")
            threading.Event().wait(0.1)

    def pids(self) -> list[int]:
        """The processes that hold a model."""
        parents, names = {}, {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text(encoding="utf-8", errors="replace")
        found = []
        for pid, name in names.items():
            up = pid
            while up > 1 and up != self._process.pid:
                up = parents.get(up, 0)
            if up == self._process.pid and re.match(r"ray::ServeReplica:", name):
                found.append(pid)
        return sorted(found)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
