"""What happened in a run: events and their trace, reading untrusted ones, recording."""

from nemodiff.trace.events import MODES, SCHEMA, Event, Lane, Position, Trace
from nemodiff.trace.recorder import Recorder

__all__ = ["MODES", "SCHEMA", "Event", "Lane", "Position", "Recorder", "Trace"]
