"""`python -m nemodiff show FILE…`: recorded runs in the browser, with no model."""

from __future__ import annotations

import argparse
import html
import os
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nemodiff import command
from nemodiff.errors import NemodiffError, RequestError, TraceError
from nemodiff.trace import replay
from nemodiff.trace.events import Trace
from nemodiff.trace.opening import read_trace

#: Runs that are shown beside each other.
MOST = 6
_HOSTS = ("127.0.0.1", "localhost")
_REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>nemodiff</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 40em; padding: 0 16px; }}</style>
<p>{sentence}</p><p>Mend the file, then load this page again.</p></html>"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("show", help="play recorded runs in the browser, with no model")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a trace, a sampling trajectory or an engine's log"
    )
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--out", type=Path, help="write one HTML file, which needs no network, and end")
    out.add_argument("--embed", action="store_true", help="print an <iframe> to paste into a page, and end")
    parser.add_argument("--port", type=command.whole(0, 65_535), help="of 127.0.0.1 (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", default=None, help="print the address and open nothing")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    if args.out or args.embed:
        command.refuse_unused(args, "--out" if args.out else "--embed", ("port", "no_browser"), "nothing is served")
    if len(args.files) > MOST:
        raise RequestError(f"Up to {MOST} runs are shown side by side, not {len(args.files)}: leave some out.")
    runs = _read(args.files)
    if args.embed:
        if len(runs) > 1:
            raise RequestError("--embed takes one file: write several with --out and embed that page.")
        print(runs[0][1].show())
        return 0
    if args.out is None:
        return _serve(args.files, args.port or 0, browser=not args.no_browser)
    command.check_file(args.out, "replay")
    try:
        args.out.write_text(_page(runs), encoding="utf-8")
    except OSError as error:
        raise command.unwritable(args.out, "replay", error) from error
    print(f"{args.out}: {args.out.stat().st_size / 1000:,.0f} kB; open it in a browser.", file=sys.stderr)
    return 0


def _read(files: list[Path]) -> list[tuple[str, Trace]]:
    """(name, trace) of every file. Raises TraceError, which names the file that cannot be shown."""
    runs = []
    for path in files:
        command.check_there(path, "file")
        try:
            runs.append((path.name, read_trace(path)))
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from error
    return runs


def _page(runs: list[tuple[str, Trace]]) -> str:
    return replay.replay_html(runs[0][1]) if len(runs) == 1 else replay.side_by_side(runs)


class _Handler(BaseHTTPRequestHandler):
    """One page, made of the files anew each time: a log that grows is followed by loading it again."""

    files: list[Path] = []

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in _HOSTS:  # a name that was made to point here (DNS rebinding)
            self._answer(403, "This page answers to 127.0.0.1 and localhost alone.")
        elif self.path.partition("?")[0] != "/":
            self._answer(404, "There is nothing here; the runs are at /.")
        else:
            try:
                self._answer(200, _page(_read(self.files)))
            except NemodiffError as error:
                self._answer(200, _REFUSED.format(sentence=html.escape(str(error))))

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: who looks at a page on this machine needs no log."""


def _serve(files: list[Path], port: int, browser: bool) -> int:
    handler = type("_Files", (_Handler,), {"files": files})
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise RequestError(f"Port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another.") from error
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    print(f"{address} shows {', '.join(map(str, files))}; Ctrl-C ends it.", flush=True)
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if browser and screen:
        webbrowser.open(address)
    with server:
        server.serve_forever()
    return 0
