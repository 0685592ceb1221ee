"""What a trace from a file may hold: how much of everything, and the types of an event's fields that say so."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

#: Bytes of the file.
MAX_BYTES = 32 * 1024 * 1024
#: Of pictures in a trace from a file: how many, their tokens a side, and characters of a preview.
MAX_IMAGES, MAX_GRID, MAX_PREVIEW = 16, 1024, 20_000
#: Characters of a lane's note.
MAX_NOTE = 300
#: Characters of one token: many places of an answer may show the same one.
MAX_TEXT = 1024
#: Of an event: its last place in the answer, its block, alternatives of a position, groups and tokens of a group.
MAX_INDEX, MAX_BLOCK, MAX_TOP = 65_535, 8192, 64
# What the fields of a file may hold; nothing is checked where code makes an Event.
Id = Annotated[int, Meta(ge=0, le=2**31)]
Chance = Annotated[float, Meta(ge=0, le=1)]
Alternatives = Annotated[list[tuple[Annotated[int, Meta(ge=0, lt=2**31)], Chance]], Meta(max_length=MAX_TOP)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
Characters = Annotated[int, Meta(ge=0, le=MAX_TEXT)]
