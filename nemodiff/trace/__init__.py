"""What happened in a run: events and their trace, recording them (also from other engines), reading untrusted ones,
and the replay. Nothing here needs more than msgspec."""

from nemodiff.trace.events import MODES, SCHEMA, Event, Lane, Position, Trace
from nemodiff.trace.opening import read_trace
from nemodiff.trace.recorder import Recorder
from nemodiff.trace.token_texts import token_texts

__all__ = ["MODES", "SCHEMA", "Event", "Lane", "Position", "Recorder", "Trace", "read_trace", "token_texts"]
