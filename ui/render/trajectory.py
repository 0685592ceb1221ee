"""The trajectory format of diffusers' sampling animation, out of and into a Trace.

{method, label, subtitle, model_id, prompt, gen_length, block_length, mask_token_id, frames: [{step, ids}], vocab}: a
frame is the whole answer after a step, with the mask id (or -1) where nothing is known yet; vocab maps id → text.
"""

from __future__ import annotations

import json
from typing import Any

from nemodiff.errors import TraceError
from nemodiff.trace import reading, values
from nemodiff.trace.events import KEPT, MAX_BYTES, Event, Position, Trace
from nemodiff.trace.recorder import Recorder
from ui.render.charts.figure import lane_figures
from ui.render.positions import Cells

MAX_FRAMES = 4096
MAX_LENGTH = 8192
MAX_IDS = 2_000_000
#: In a frame: a position that the block window has not reached.
PENDING = -1
#: What a mask reads as in a trace; the format itself gives it no text.
MASK_TEXT = "░"

LABELS = {"ar": "autoregressive", "diffusion": "block diffusion", "self-speculation": "self-speculation"}


def trajectory(trace: Trace, mode: str, mask_token_id: int | None = None) -> dict[str, Any]:
    """One lane as a trajectory, a frame an event: drafts and guesses count as masked until they stand for good.

    mask_token_id: the mask's id; by default the trace's own, else an id that the trace does not use. Raises
    TraceError when the trace has no such lane, or nothing in it.
    """
    lane = trace.lane(mode)
    if lane is None or not lane.events:
        raise TraceError(f"The trace has no {mode} lane to export.")
    origin = _origin(trace)
    if origin:
        mask_token_id = origin["mask_token_id"]
    elif mask_token_id is None:
        mask_token_id = _mask_of(trace)
    unknown = PENDING if mask_token_id is None else mask_token_id
    length = origin["gen_length"] if origin else _length(trace, mode)
    if length > MAX_LENGTH or length * len(lane.events) > MAX_IDS:
        raise TraceError("The run is too long for a trajectory; export a shorter one.")
    steps = origin["steps"] if origin else [event.forward for event in lane.events]
    cells = Cells(lane)
    ids = [unknown] * length
    frames = []
    for k, step in zip(range(len(lane.events)), steps, strict=True):
        for index in cells.advance(k):
            if index < length:
                ids[index] = _id_of(cells, index, unknown, origin is not None)
        frames.append({"step": step, "ids": list(ids)})
    used = {token for frame in frames for token in frame["ids"]} - {PENDING}
    request = trace.request
    return {
        "method": origin["method"] if origin else f"nemodiff_{mode.replace('-', '_')}",
        "label": origin["label"] if origin else f"nemodiff · {LABELS[mode]}",
        "subtitle": origin["subtitle"] if origin else ", ".join(filter(None, (lane_figures(lane), trace.device))),
        "model_id": trace.checkpoint,
        "prompt": str(request.get("prompt") or ""),
        "gen_length": length,
        "block_length": _whole(request.get("block_length")) or max(1, max(event.length for event in lane.events)),
        "mask_token_id": mask_token_id,
        "frames": frames,
        "vocab": {str(token): "" if token == mask_token_id else _text(trace, token) for token in sorted(used)},
    }


def from_trajectory(data: dict[str, Any] | str | bytes) -> Trace:
    """An untrusted trajectory (a file's text or its parsed JSON) as a Trace: one diffusion lane, a forward a frame.

    A token counts as committed from the frame after which it no longer changes; before, it is a guess. The format
    carries no times and does not say why a whole answer ends, so the clock stays at 0 and there is no finish. Raises
    TraceError with one sentence.
    """
    data = _parse(data)
    mask = _optional_id(data, "mask_token_id")
    length = _integer(data.get("gen_length"), "gen_length", 1, MAX_LENGTH)
    block = _integer(data.get("block_length"), "block_length", 1, MAX_LENGTH)
    steps, frames = _frames(data.get("frames"), length)
    texts = _vocab(data.get("vocab"))
    origin = {
        "method": _string(data, "method", 100),
        "label": _string(data, "label", 200),
        "subtitle": _string(data, "subtitle", 400),
        "gen_length": length,
        "mask_token_id": mask,
        "steps": steps,
    }
    prompt = _string(data, "prompt", 100_000)
    request = {"prompt": prompt, "modes": ["diffusion"], "block_length": block, "trajectory": origin}
    head = Trace(_string(data, "model_id", 300), "", "", "", None, {}, request)
    if mask is not None:
        texts[mask] = texts.get(mask) or MASK_TEXT
        head.special = [mask]

    def decode(ids: list[int]) -> str:
        return "".join(texts.get(token, "") for token in ids if token != mask)

    recorder = Recorder(head, ["diffusion"], decode, lambda token: texts.get(token, f"[{token}]"))
    events = _events(frames, min(block, length), mask)
    reading.too_much(sum(len(event.positions) for event in events), reading.MAX_POSITIONS, "positions")
    for event in events:
        recorder.add(event)
    trace = recorder.finish("stopped")
    if PENDING not in frames[-1] and mask not in frames[-1]:
        trace.lanes[0].finish = None
    return trace


def _events(frames: list[list[int]], block: int, mask: int | None) -> list[Event]:
    """The frames as denoise events that hold what changed, and the masks of the block under way."""
    last, length = frames[-1], len(frames[-1])
    # settled[i]: the frame from which position i keeps its token, none when it ends without one.
    settled = [0 if token not in (PENDING, mask) else len(frames) for token in last]
    for f in range(1, len(frames)):
        for i, (before, after) in enumerate(zip(frames[f - 1], frames[f], strict=True)):
            if before != after and settled[i] < len(frames):
                settled[i] = f
    shown: list[int | None] = [None] * length
    events, first = [], 0
    for f, ids in enumerate(frames):
        while first < length - 1 and settled[first] < f:
            first += 1
        start = first // block * block
        positions = []
        for i, token in enumerate(ids):
            ahead = token == mask and shown[i] is None and not start <= i < start + block
            if token in (PENDING, shown[i]) or ahead:
                continue
            shown[i] = token
            positions.append(Position(i, token, "committed" if f >= settled[i] else "masked"))
        events.append(Event("diffusion", f + 1, "denoise", 0.0, start, block, positions))
    return events


def _id_of(cells: Cells, index: int, unknown: int, imported: bool) -> int:
    """What a frame holds at a position. An imported trace keeps the frames' own ids, guesses included."""
    if (cell := cells.at.get(index)) is None:
        return unknown
    return cell[0].token if imported or cell[0].state in KEPT else unknown


def _length(trace: Trace, mode: str) -> int:
    lane = trace[mode]
    cells = Cells(lane)
    cells.advance(len(lane.events) - 1)
    kept = [index for index, (position, _) in cells.at.items() if position.state in KEPT]
    return max([len(lane.tokens), *(index + 1 for index in kept), 1])


def _mask_of(trace: Trace) -> int:
    """The special token that reads like a mask, else an id that no token of the trace has."""
    for token in trace.special:
        if "mask" in trace.vocabulary.get(token, "").lower():
            return token
    return max([*trace.vocabulary, *trace.byte_pieces, *trace.special, -1]) + 1


def _text(trace: Trace, token: int) -> str:
    if token in trace.byte_pieces:
        return bytes.fromhex(trace.byte_pieces[token]).decode(errors="replace")
    return trace.vocabulary.get(token, f"[{token}]")


# Reading: a trajectory is anybody's file.


def _parse(data: dict[str, Any] | str | bytes) -> dict[str, Any]:
    if isinstance(data, str | bytes):
        if len(data) > MAX_BYTES:
            raise TraceError(f"The trajectory is larger than {MAX_BYTES // 2**20} MB; load a shorter one.")
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise TraceError("The file is not a trajectory: it holds no valid JSON.") from error
    if not isinstance(data, dict):
        raise _fail("it")
    return data


def _fail(where: str) -> TraceError:
    return TraceError(f"The file is not a sampling trajectory: {where} is missing or not as expected.")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _integer(value: Any, where: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _fail(where)
    return value


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= MAX_LENGTH else None


def _optional_id(data: dict[str, Any], key: str) -> int | None:
    value = data.get(key)
    if value is not None and not _is_id(value):
        raise _fail(key)
    return value


def _string(data: dict[str, Any], key: str, limit: int) -> str:
    value = data.get(key, "")
    if not isinstance(value, str) or len(value) > limit:
        raise _fail(key)
    return value


def _frames(value: Any, length: int) -> tuple[list[int], list[list[int]]]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_FRAMES or len(value) * length > MAX_IDS:
        raise _fail("frames")
    steps, frames = [], []
    for i, frame in enumerate(value):
        where = f"frames[{i}]"
        ids = frame.get("ids") if isinstance(frame, dict) else None
        if not isinstance(ids, list) or len(ids) != length:
            raise _fail(f"{where}.ids")
        if not all(type(token) is int and PENDING <= token < 2**31 for token in ids):
            raise _fail(f"{where}.ids")
        steps.append(_integer(frame.get("step"), f"{where}.step", 0, 2**31))
        frames.append(ids)
    return steps, frames


def _vocab(value: Any) -> dict[int, str]:
    if not isinstance(value, dict) or not all(
        values.is_id(id_) and isinstance(text, str) for id_, text in value.items()
    ):
        raise _fail("vocab")
    return reading.short_texts({int(id_): text for id_, text in value.items()})


def _origin(trace: Trace) -> dict[str, Any] | None:
    """What an imported trajectory said of itself; None for any other trace, or when it was tampered with."""
    data = trace.request.get("trajectory")
    lane = trace.lane("diffusion")
    if not isinstance(data, dict) or lane is None:
        return None
    steps, mask = data.get("steps"), data.get("mask_token_id")
    sound = (
        all(isinstance(data.get(key), str) for key in ("method", "label", "subtitle"))
        and isinstance(steps, list)
        and len(steps) == len(lane.events)
        and all(type(step) is int for step in steps)
        and (mask is None or _is_id(mask))
        and _whole(data.get("gen_length")) is not None
    )
    return data if sound else None
