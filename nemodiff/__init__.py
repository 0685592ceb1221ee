"""nemodiff: one set of weights, three ways to decode. `load` a checkpoint, `stream` or `generate` a Request."""

from nemodiff.engine.loading import load, obstacles
from nemodiff.engine.local import Engine
from nemodiff.errors import CheckpointError, NemodiffError, RequestError, TraceError
from nemodiff.request import Request
from nemodiff.trace.events import Event, Position, Trace

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
