"""nemodiff: one set of weights, three ways to decode. `load` a checkpoint, `stream` or `generate` a Request."""

from nemodiff.engine import Engine
from nemodiff.errors import CheckpointError, NemodiffError, RequestError, TraceError
from nemodiff.loading import load, obstacles
from nemodiff.request import Request
from nemodiff.trace import Event, Position, Trace

__all__ = [
    "CheckpointError",
    "Engine",
    "Event",
    "NemodiffError",
    "Position",
    "Request",
    "RequestError",
    "Trace",
    "TraceError",
    "load",
    "obstacles",
]
