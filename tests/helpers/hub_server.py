"""A Hugging Face hub on this machine: the few answers that huggingface_hub needs to fetch one repository."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository "owner/tiny" with the files of `folder`.

    refusal: (status, headers) answered to everything. revoked: the same, to files asked for from a byte on, as when
    access is lost half-way. cut: bytes of a large file after which the network is gone. hold: what weights wait for
    half-way. ranges: the Range headers that came.
    """

    folder: Path
    refusal: tuple[int, dict[str, str]] | None = None
    revoked: tuple[int, dict[str, str]] | None = None
    cut: int | None = None
    hold: threading.Event | None = None
    ranges: list[str] = field(default_factory=list)
    gone: bool = False
    url: str = ""


@contextmanager
def serve(folder: Path):
    """Yield a Hub that listens on a free port until the block ends."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 (http.server's name)
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        if self.hub.gone:
            self.close_connection = True
        elif self.hub.refusal:
            status, headers = self.hub.refusal
            self._answer(status, b"", headers)
        elif re.fullmatch(rf"/api/models/owner/tiny(/revision/(main|v1|{COMMIT}))?", path):
            self._json({"id": "owner/tiny", "sha": COMMIT, "siblings": [], "private": False, "tags": []})
        elif path.startswith("/api/models/owner/tiny/revision/"):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/models/owner/tiny/tree/"):
            files = (file for file in sorted(self.hub.folder.rglob("*")) if file.is_file())
            self._json(
                [
                    {
                        "type": "file",
                        "path": str(file.relative_to(self.hub.folder)),
                        "size": file.stat().st_size,
                        "oid": _etag(file),
                    }
                    for file in files
                ]
            )
        elif match := re.fullmatch(rf"/owner/tiny/resolve/{COMMIT}/(.+)", path):
            self._file(self.hub.folder / match[1])
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, file: Path) -> None:
        data, headers = file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT}
        if self.hub.revoked and self.headers.get("Range"):
            self._answer(self.hub.revoked[0], b"", self.hub.revoked[1])
        elif asked := self.headers.get("Range"):
            begin = int(re.fullmatch(r"bytes=(\d+)-.*", asked)[1])
            if self.command == "GET":
                self.hub.ranges.append(asked)
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self._answer(206, data[begin:], headers)
        else:
            self._answer(200, data, headers)

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut
        if cut is not None and len(body) > cut:
            self.wfile.write(body[:cut])
            self.close_connection = self.hub.gone = True
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        if self.hub.hold and half > 20_000:
            self.hub.hold.wait(60)
        self.wfile.write(body[half:])


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
