"""nemodiff: one set of weights, three ways to decode. `load` a checkpoint, `stream` or `generate` a Request.

What is named here is imported when it is first used: a trace can be recorded, read and shown where there is no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Behind each of their operations torch's threads (GNU OpenMP's) would spin on, on the cores that the CPU kernels need
# for the next forward. It is read when torch is first imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "0")

if TYPE_CHECKING:
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

_MODULES = {
    "nemodiff.engine.loading": ("load", "obstacles"),
    "nemodiff.engine.local": ("Engine",),
    "nemodiff.errors": ("CheckpointError", "NemodiffError", "RequestError", "TraceError"),
    "nemodiff.request": ("Request",),
    "nemodiff.trace.events": ("Event", "Position", "Trace"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'nemodiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
