"""A run from a file of any kind that is read here: a trace, diffusers' sampling trajectory, an engine's log."""

from __future__ import annotations

from pathlib import Path

from nemodiff.errors import TraceError
from nemodiff.trace.adapters import log, trajectory
from nemodiff.trace.events import Trace
from nemodiff.trace.limits import MAX_BYTES
from nemodiff.trace.values import SCHEMA


def read_trace(path: str | Path, limit: int = MAX_BYTES) -> Trace:
    """A run from an untrusted file. Raises TraceError with one sentence."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no file can have that name"
        raise TraceError(f"The file could not be read ({reason}); load it again.") from error
    if len(data) > limit:
        raise TraceError(f"The trace is larger than {limit // 2**20} MB; load a shorter run.")
    if log.is_log(data):
        return log.from_log(data)
    if b'"frames"' in data and SCHEMA.encode() not in data:
        return trajectory.from_trajectory(data)
    return Trace.from_json(data)
