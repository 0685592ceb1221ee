"""Reading an untrusted trace: every value is checked for type and range, unknown keys are dropped, and nothing is made
of a file before it is known to hold no more than a run can: what is done with it costs what it weighs."""

from __future__ import annotations

import json
import re
from types import GenericAlias
from typing import Annotated, Any

import msgspec
from msgspec import Raw

from nemodiff.conversation import MAX_MESSAGES, ROLES
from nemodiff.errors import TraceError
from nemodiff.setting_kinds import MAX_STRING, MAX_STRINGS, Choice, Number, Texts, Whole
from nemodiff.settings import SETTINGS
from nemodiff.trace.events import FINISHES, MODES, Event, Lane, Trace
from nemodiff.trace.limits import MAX_BLOCK, MAX_GRID, MAX_IMAGES, MAX_INDEX, MAX_NOTE, MAX_PREVIEW, MAX_TEXT, MAX_TOP
from nemodiff.trace.oracle import Ceiling
from nemodiff.trace.values import SCHEMA, broken, integer, is_hex, number, one_of, seed_of, table, take

__all__ = ["MAX_BLOCK", "MAX_INDEX", "MAX_TOP", "event", "request", "short_texts", "too_much", "trace"]

#: Of all lanes of a trace: forwards, positions that they left, tokens of an answer.
MAX_EVENTS, MAX_POSITIONS, MAX_TOKENS = 65_536, 500_000, 65_536
#: Tokens that a run may have begun with.
MAX_IDS = 1_000_000
_PREVIEW = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")


def event(data: Any) -> Event:
    """An event with its mode. Raises TraceError when it is none."""
    return _event(one_of(data, "mode", MODES, "event"), _typed(data, _LaneEvent, "event", msgspec.convert), "event")


def too_much(count: int, most: int, what: str) -> None:
    """Raises TraceError when there is more of something than a run can have."""
    if count > most:
        raise TraceError(f"The trace holds more than {most:,} {what}; load a shorter run.")


def short_texts(texts: dict[int, str]) -> dict[int, str]:
    """A table of tokens' texts. Raises TraceError when one of them is no token's."""
    if any(len(text) > MAX_TEXT for text in texts.values()):
        raise TraceError(f"The trace holds a token of more than {MAX_TEXT:,} characters, which no tokenizer has.")
    return texts


def trace(text: str | bytes) -> Trace:
    """The trace of a file's text. Raises TraceError."""
    try:
        return _trace(_utf8(text))
    except TraceError:
        raise
    except (ValueError, RecursionError) as error:
        raise TraceError("The file is not a trace: it holds no valid JSON.") from error


def _utf8(text: str | bytes) -> bytes:
    if isinstance(text, str):
        return text.encode()
    encoding = json.detect_encoding(text)
    return text if encoding == "utf-8" else text.decode(encoding).encode()


def _trace(text: bytes) -> Trace:
    parts = _parts(text, "schema")
    inside = parts.pop("lanes", None)
    data = {name: _plain(part, name) for name, part in parts.items()}
    if data.get("schema") != SCHEMA:
        raise broken("schema")
    if inside is None:
        raise broken("trace.lanes")
    lanes = [_lane(lane, f"lanes[{i}]") for i, lane in enumerate(_bounded(inside))]
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


def _parts(text: bytes | Raw, where: str) -> dict[str, Raw]:
    """An object's values, not looked into yet."""
    return _typed(text, dict[str, Raw], where)


def _plain(part: Raw, where: str) -> Any:
    return _typed(part, Any, where)


def _typed(data: Any, kind: Any, where: str, read: Any = None) -> Any:
    """`data` as a `kind`: JSON or, with msgspec.convert for `read`, plain values. Raises TraceError, which names the
    field that is off; ValueError where there is no JSON."""
    try:
        return (read or msgspec.json.decode)(data, type=kind)
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at `$")
        field, missing = _FIELD.match(path.rstrip("`")), _MISSING.search(words)
        raise broken(where + (field[0] if field else "") + (f".{missing[1]}" if missing else "")) from error


#: Of a place as msgspec names it, what a sentence names: the field of an event or a position, not what is inside.
_FIELD = re.compile(r"(\[\d+\](?=\.|$))?(\.positions\[\d+\](?=\.|$))?(\.\w+)?")
_MISSING = re.compile(r"missing required field `(\w+)`")


class _EventSize(msgspec.Struct):
    positions: list[Raw] = []


class _LaneSize(msgspec.Struct):
    events: list[_EventSize] = []
    tokens: list[Raw] = []


def _bounded(inside: Raw) -> list[Raw]:
    """The lanes. Raises TraceError when there is more in them than a run can leave; what is no lane is found later."""
    lanes = _typed(inside, list[Raw], "trace.lanes")
    if len(lanes) > len(MODES):
        raise broken("lanes")
    try:
        sizes = msgspec.json.decode(inside, type=list[_LaneSize])
    except msgspec.ValidationError:  # which stops the reading as early
        return lanes
    too_much(sum(len(lane.events) for lane in sizes), MAX_EVENTS, "forwards")
    too_much(sum(len(one.positions) for lane in sizes for one in lane.events), MAX_POSITIONS, "positions")
    for lane in sizes:
        too_much(len(lane.tokens), MAX_TOKENS, "tokens")
    return lanes


def _versions(data: dict[str, Any]) -> dict[str, str]:
    versions = take(data, "versions", dict, "trace", {})
    if not all(isinstance(version, str | int | float | type(None)) for version in versions.values()):
        raise broken("versions")
    return {name: str(version) for name, version in versions.items()}


#: What the page, the charts and the files read of a request, by its kind.
_TEXTS = ("prompt", "system", *(setting.name for setting in SETTINGS if isinstance(setting.kind, Choice)))
_NUMBERS = tuple(setting.name for setting in SETTINGS if isinstance(setting.kind, Whole | Number))
_LISTS = tuple(setting.name for setting in SETTINGS if isinstance(setting.kind, Texts))
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
    for name in _LISTS:
        texts = take(request, name, (list, type(None)), "request", None) or []
        if len(texts) > MAX_STRINGS or not all(isinstance(text, str) and len(text) <= MAX_STRING for text in texts):
            raise broken(f"request.{name}")
    messages = take(request, "history", (list, type(None)), "request", None) or []
    too_much(len(messages), MAX_MESSAGES, "messages of a conversation")
    if not all(map(_is_message, messages)):
        raise broken("request.history")
    for name in _IDS:
        ids = take(request, name, (list, type(None)), "request", None) or []
        too_much(len(ids), MAX_IDS, "tokens that the run began with")
        if not all(type(token) is int and 0 <= token < 2**31 for token in ids):
            raise broken(f"request.{name}")
    modes = take(request, "modes", list, "request", [])
    if len(modes) > len(MODES) or not all(isinstance(mode, str) for mode in modes):
        raise broken("request.modes")
    return request


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or set(message) - {"images"} != {"role", "content"}:
        return False
    images = message.get("images", 0)
    readable = type(images) is int and 0 <= images <= MAX_IMAGES
    return readable and message["role"] in ROLES and isinstance(message["content"], str)


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


def _without_mode() -> Any:
    """An Event as a lane has it: its mode stands with the lane, and its positions are not left out."""
    fields: list[Any] = []
    for one in msgspec.structs.fields(Event):
        if one.name in ("mode", "positions") or one.required:
            fields += [(one.name, one.type)] if one.name != "mode" else []
        elif one.default_factory is not msgspec.NODEFAULT:
            fields.append((one.name, one.type, msgspec.field(default_factory=one.default_factory)))
        else:
            fields.append((one.name, one.type, one.default))
    return msgspec.defstruct("LaneEvent", fields, gc=False)


_LaneEvent = _without_mode()
_LaneEvents = GenericAlias(list, (_LaneEvent,))
_Tokens = list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]


def _lane(inside: Raw, where: str) -> Lane:
    parts = _parts(inside, where)
    runs, ids = parts.pop("events", None), parts.pop("tokens", None)
    data = {name: _plain(part, f"{where}.{name}") for name, part in parts.items()}
    mode = one_of(data, "mode", MODES, where)
    if runs is None or ids is None:
        raise broken(f"{where}.{'events' if runs is None else 'tokens'}")
    read = _typed(runs, _LaneEvents, f"{where}.events")
    events = [_event(mode, one, f"{where}.events[{i}]") for i, one in enumerate(read)]
    if any(b.clock_ms < a.clock_ms for a, b in zip(events, events[1:], strict=False)):
        raise broken(f"{where}.events' clock")
    return Lane(
        mode=mode,
        events=events,
        tokens=_typed(ids, _Tokens, f"{where}.tokens"),
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


def _event(mode: str, read: Any, where: str) -> Event:
    """An Event of what was read of it. Of its tree every parent is an earlier row, every row with a group is there."""
    event = Event(mode, *msgspec.structs.astuple(read))
    if event.stop is not None and event.finish != "stop":
        raise broken(f"{where}.stop")
    parents, behind, rows = event.parents, event.behind, len(event.tree)
    if len(parents) != rows or not all(0 <= row <= i for i, row in enumerate(parents)):
        raise broken(f"{where}.parents")
    if not all(0 <= row <= rows for row in behind) or len(set(behind)) != len(behind):
        raise broken(f"{where}.behind")
    return event
