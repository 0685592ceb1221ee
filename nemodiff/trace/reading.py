"""Reading an untrusted trace: every value is checked for type and range, unknown keys are dropped, and nothing is made
of a file before it is known to hold no more than a run can: what is done with it costs what it weighs."""

from __future__ import annotations

import re
from typing import Any

from nemodiff.errors import TraceError
from nemodiff.settings import SETTINGS, Choice, Number, Whole
from nemodiff.trace.events import (
    FINISHES,
    MAX_GRID,
    MAX_IMAGES,
    MAX_NOTE,
    MAX_PREVIEW,
    MODES,
    PHASES,
    STATES,
    Event,
    Lane,
    Position,
    Trace,
)
from nemodiff.trace.oracle import Ceiling
from nemodiff.trace.values import SCHEMA, broken, integer, is_hex, number, one_of, seed_of, table, take

#: Of all lanes of a trace: forwards, positions that they left, tokens of an answer.
MAX_EVENTS, MAX_POSITIONS, MAX_TOKENS = 65_536, 500_000, 65_536
#: Of an event: its last place in the answer, its block, alternatives of a position, groups and tokens of a group.
MAX_INDEX, MAX_BLOCK, MAX_TOP = 65_535, 8192, 64
#: Tokens that a run may have begun with.
MAX_IDS = 1_000_000
#: Characters of one token: many places of an answer may show the same one.
MAX_TEXT = 1024
_PREVIEW = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")


def event(data: Any) -> Event:
    """An event with its mode. Raises TraceError when it is none."""
    return _event(data, one_of(data, "mode", MODES, "event"), "event")


def too_much(count: int, most: int, what: str) -> None:
    """Raises TraceError when there is more of something than a run can have."""
    if count > most:
        raise TraceError(f"The trace holds more than {most:,} {what}; load a shorter run.")


def short_texts(texts: dict[int, str]) -> dict[int, str]:
    """A table of tokens' texts. Raises TraceError when one of them is no token's."""
    if any(len(text) > MAX_TEXT for text in texts.values()):
        raise TraceError(f"The trace holds a token of more than {MAX_TEXT:,} characters, which no tokenizer has.")
    return texts


def trace(data: Any) -> Trace:
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise broken("schema")
    _bounded(take(data, "lanes", list, "trace"))
    lanes = [_lane(lane, f"lanes[{i}]") for i, lane in enumerate(data["lanes"])]
    if not lanes or len({lane.mode for lane in lanes}) != len(lanes):
        raise broken("lanes")
    special = take(data, "special", list, "trace", [])
    pieces = table(data, "byte_pieces", "trace")
    if not all(type(token) is int for token in special) or not all(is_hex(piece) for piece in pieces.values()):
        raise broken("special or byte_pieces")
    return Trace(
        checkpoint=take(data, "checkpoint", str, "trace"),
        tokenizer=take(data, "tokenizer", str, "trace", ""),
        device=take(data, "device", str, "trace", ""),
        dtype=take(data, "dtype", str, "trace", ""),
        exact=None if data.get("exact") is None else take(data, "exact", bool, "trace"),
        versions=_versions(data),
        request=request(data),
        recorded=take(data, "recorded", (str, type(None)), "trace", None),
        lanes=lanes,
        vocabulary=short_texts(table(data, "tokens", "trace")),
        byte_pieces=pieces,
        special=special,
        image_ms=number(data, "image_ms", "trace", 0, 1e9, None),
        image_grids=grids(data),
        image_previews=previews(data),
    )


def _bounded(lanes: list[Any]) -> None:
    """Raises TraceError when there is more in the lanes than a run can leave; what is no lane is found later."""
    if len(lanes) > len(MODES):
        raise broken("lanes")
    inside = [lane for lane in lanes if isinstance(lane, dict)]
    events = [lane["events"] for lane in inside if isinstance(lane.get("events"), list)]
    too_much(sum(map(len, events)), MAX_EVENTS, "forwards")
    parts = (one.get("positions") for lane in events for one in lane if isinstance(one, dict))
    too_much(sum(len(part) for part in parts if isinstance(part, list)), MAX_POSITIONS, "positions")
    for lane in inside:
        too_much(len(lane["tokens"]) if isinstance(lane.get("tokens"), list) else 0, MAX_TOKENS, "tokens")


def _versions(data: dict[str, Any]) -> dict[str, str]:
    versions = take(data, "versions", dict, "trace", {})
    if not all(isinstance(version, str | int | float | type(None)) for version in versions.values()):
        raise broken("versions")
    return {name: str(version) for name, version in versions.items()}


#: What the page, the charts and the files read of a request, by its kind.
_TEXTS = ("prompt", *(setting.name for setting in SETTINGS if isinstance(setting.kind, Choice)))
_NUMBERS = tuple(setting.name for setting in SETTINGS if isinstance(setting.kind, Whole | Number))
_IDS = ("prompt_ids", "answer_ids")


def request(data: dict[str, Any]) -> dict[str, Any]:
    """The request of a trace: what is known of it has its type, and lists are no longer than an answer."""
    request = take(data, "request", dict, "trace")
    if "seed" in request:
        request = request | {"seed": seed_of(request["seed"])}
    for name in _TEXTS:
        take(request, name, (str, type(None)), "request", None)
    for name in _NUMBERS:
        number(request, name, "request", -(2**63), 2**63, None)
    for name in _IDS:
        ids = take(request, name, (list, type(None)), "request", None) or []
        too_much(len(ids), MAX_IDS, "tokens that the run began with")
        if not all(type(token) is int and 0 <= token < 2**31 for token in ids):
            raise broken(f"request.{name}")
    modes = take(request, "modes", list, "request", [])
    if len(modes) > len(MODES) or not all(isinstance(mode, str) for mode in modes):
        raise broken("request.modes")
    return request


def grids(data: dict[str, Any]) -> list[tuple[int, int]]:
    """Rows and columns of the prompt's pictures. Raises TraceError when they are none."""
    found = take(data, "image_grids", list, "trace", [])
    if len(found) > MAX_IMAGES or not all(
        isinstance(grid, list) and len(grid) == 2 and all(type(side) is int and 0 < side <= MAX_GRID for side in grid)
        for grid in found
    ):
        raise broken("image_grids")
    return [(rows, columns) for rows, columns in found]


def image_sizes(request: dict[str, Any]) -> list[tuple[int, int]]:
    """(width, height) in pixels of the prompt's pictures, as far as a request says so."""
    images = request.get("images")
    return [
        (size[0], size[1])
        for size in (images[:MAX_IMAGES] if isinstance(images, list) else [])
        if isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**31 for side in size)
    ]


def previews(data: dict[str, Any]) -> list[str]:
    """Small JPEGs of them, as data URLs. Raises TraceError when they are none."""
    found = take(data, "image_previews", list, "trace", [])
    if len(found) > MAX_IMAGES or not all(
        isinstance(preview, str) and len(preview) <= MAX_PREVIEW and _PREVIEW.fullmatch(preview) for preview in found
    ):
        raise broken("image_previews")
    return found


def _is_alternative(pair: Any) -> bool:
    if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and type(pair[1]) in (int, float)):
        return False
    return 0 <= pair[0] < 2**31 and 0 <= pair[1] <= 1


def _lane(data: Any, where: str) -> Lane:
    mode = one_of(data, "mode", MODES, where)
    events = [_event(event, mode, f"{where}.events[{i}]") for i, event in enumerate(take(data, "events", list, where))]
    tokens = take(data, "tokens", list, where)
    if not all(isinstance(token, int) and not isinstance(token, bool) and 0 <= token < 2**31 for token in tokens):
        raise broken(f"{where}.tokens")
    if any(b.clock_ms < a.clock_ms for a, b in zip(events, events[1:], strict=False)):
        raise broken(f"{where}.events' clock")
    return Lane(
        mode=mode,
        events=events,
        tokens=tokens,
        text=take(data, "text", str, where, ""),
        finish=one_of(data, "finish", FINISHES, where, None),
        peak_memory=integer(data, "peak_memory", where, None, high=2**50),
        ceiling=_ceiling(data, where),
        note=_note(data, where),
    )


def _note(data: Any, where: str) -> str:
    note = take(data, "note", str, where, "")
    if len(note) > MAX_NOTE:
        raise broken(f"{where}.note")
    return note


def _ceiling(data: Any, where: str) -> Ceiling | None:
    if data.get("ceiling") is None:
        return None
    try:
        return Ceiling.from_json(data["ceiling"])
    except ValueError as error:
        raise broken(f"{where}.ceiling") from error


def _event(data: Any, mode: str, where: str) -> Event:
    positions = take(data, "positions", list, where)
    groups = take(data, "groups", list, where, [])
    if len(groups) > MAX_TOP or not all(
        isinstance(group, list) and len(group) <= MAX_TOP and all(map(_is_alternative, group)) for group in groups
    ):
        raise broken(f"{where}.groups")
    tree, parents, behind = _tree(data, where)
    return Event(
        mode=mode,
        forward=integer(data, "forward", where),
        phase=one_of(data, "phase", PHASES, where),
        clock_ms=float(number(data, "clock_ms", where, 0, 1e9)),
        start=integer(data, "start", where, high=MAX_INDEX + MAX_BLOCK),
        length=integer(data, "length", where, high=MAX_BLOCK),
        positions=[_position(position, f"{where}.positions[{i}]") for i, position in enumerate(positions)],
        finish=one_of(data, "finish", FINISHES, where, None),
        rows=integer(data, "rows", where, None, high=MAX_BLOCK),
        groups=[[(token, float(p)) for token, p in group] for group in groups],
        again=take(data, "again", bool, where, False),
        tree=tree,
        parents=parents,
        behind=behind,
        expected=number(data, "expected", where, 0, MAX_TOP + 1, None),
        image_ms=number(data, "image_ms", where, 0, 1e9, None),
    )


def _tree(data: Any, where: str) -> tuple[list[tuple[int, float]], list[int], list[int]]:
    """Candidates, their parents and the rows with a group: every parent is an earlier row, every row is there."""
    tree = take(data, "tree", list, where, [])
    parents, behind = take(data, "parents", list, where, []), take(data, "behind", list, where, [])
    if len(tree) > MAX_TOP or not all(map(_is_alternative, tree)):
        raise broken(f"{where}.tree")
    if len(parents) != len(tree) or not all(type(row) is int and 0 <= row <= i for i, row in enumerate(parents)):
        raise broken(f"{where}.parents")
    if len(behind) > MAX_TOP or not all(type(row) is int and 0 <= row <= len(tree) for row in behind):
        raise broken(f"{where}.behind")
    if len(set(behind)) != len(behind):
        raise broken(f"{where}.behind")
    return [(token, float(p)) for token, p in tree], parents, behind


def _position(data: Any, where: str) -> Position:
    top = take(data, "top", list, where, [])
    if len(top) > MAX_TOP or not all(_is_alternative(pair) for pair in top):
        raise broken(f"{where}.top")
    return Position(
        index=integer(data, "index", where, high=MAX_INDEX),
        token=integer(data, "token", where),
        state=one_of(data, "state", STATES, where),
        confidence=number(data, "confidence", where, 0, 1, None),
        score=number(data, "score", where, -1e9, 1e9, None),
        verifier=integer(data, "verifier", where, None),
        top=[(token, float(p)) for token, p in top],
    )
