"""Logs: one JSON object per line for machines, or text for a person; never a prompt, answer or visitor's address."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
#: What a record may carry besides its message: figures and names that we choose.
FIELDS = ("run", "modes", "tokens", "forwards", "seconds", "waited", "finish", "reason", "checkpoint", "signal")


class JsonLines(logging.Formatter):
    """time, level, logger, message; FIELDS where given; of an error its type and where it came from, not its text,
    which may hold what a visitor sent."""

    def format(self, record: logging.LogRecord) -> str:
        data: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if record.name.startswith(("nemodiff", "ui")) else str(record.msg),
        }
        data |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0]:
            kind, _, trace = record.exc_info
            frames = traceback.extract_tb(trace)
            data |= {"error": kind.__name__, "at": [_place(frame) for frame in frames][-12:]}
        return json.dumps(data, ensure_ascii=False, default=str)


class Text(logging.Formatter):
    """One readable line, FIELDS behind it."""

    def format(self, record: logging.LogRecord) -> str:
        more = " ".join(f"{name}={getattr(record, name)}" for name in FIELDS if hasattr(record, name))
        return " ".join(filter(None, (super().format(record), more)))


def set_up(kind: str) -> None:
    """Send what the app and its libraries log to stderr, as "json" or "text". As "json", Gradio's printed tracebacks
    too: their last line says what was sent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if kind == "json" else Text("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("ui", "nemodiff"):
        logging.getLogger(name).setLevel(logging.INFO)
    if kind == "json":
        traceback.print_exc = _logged


def _logged(*_: Any, **__: Any) -> None:
    logger.error("unexpected error", exc_info=True)


def _place(frame: traceback.FrameSummary) -> str:
    path = Path(frame.filename)
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return f"{name}:{frame.lineno} {frame.name}"
