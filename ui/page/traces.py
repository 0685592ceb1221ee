"""Traces from files: what a visitor opens, and the recordings that come with the page."""

from __future__ import annotations

import logging
from pathlib import Path

from nemodiff.errors import NemodiffError, TraceError
from nemodiff.trace.events import MAX_BYTES, SCHEMA, Trace
from ui.render.trajectory import from_trajectory
from ui.wire import replay

logger = logging.getLogger(__name__)


def read_trace(path: str | Path, limit: int = MAX_BYTES) -> Trace:
    """A run from an untrusted file: a trace, or diffusers' sampling trajectory. Raises TraceError."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise TraceError("The file could not be read; load it again.") from error
    if len(data) > limit:
        raise TraceError(f"The trace is larger than {limit // 2**20} MB; load a shorter run.")
    if b'"frames"' in data and SCHEMA.encode() not in data:
        return from_trajectory(data)
    return Trace.from_json(data)


def recording(folder: Path) -> str | None:
    """The first recorded run in a folder, ready for the stage; None when there is none that can be read."""
    for path in sorted(folder.glob("*.json")):
        try:
            return replay(read_trace(path), "recorded")
        except NemodiffError as error:
            logger.warning("%s: %s", path.name, error)
    return None
