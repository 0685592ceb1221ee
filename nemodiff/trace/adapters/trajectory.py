"""diffusers' sampling trajectory, read into a Trace. The format:

{method, label, subtitle, model_id, prompt, gen_length, block_length, mask_token_id, frames: [{step, ids}], vocab}: a
frame is the whole answer after a step, with the mask id (or -1) where nothing is known yet; vocab maps id → text.
`ui.render.trajectory` writes it, and with it `images`, one per picture of the prompt: {size: [width, height], grid:
[rows, columns], preview}, null where there is none of it; preview is a small JPEG as a data: URL. Others may skip it.
"""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Any

from nemodiff.errors import TraceError
from nemodiff.trace import reading, values
from nemodiff.trace.events import Event, Position, Trace
from nemodiff.trace.limits import MAX_BYTES, MAX_IMAGES
from nemodiff.trace.recorder import Recorder

MAX_FRAMES = 4096
MAX_LENGTH = 8192
MAX_IDS = 2_000_000
#: In a frame: a position that the block window has not reached.
PENDING = -1
#: What a mask reads as in a trace; the format itself gives it no text.
MASK_TEXT = "░"


def from_trajectory(data: dict[str, Any] | str | bytes) -> Trace:
    """An untrusted trajectory (a file's text or its parsed JSON) as a Trace: one diffusion lane, a forward per frame.

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
    _show(head, data.get("images"))
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


def _show(head: Trace, images: Any) -> None:
    """What a trajectory says of the prompt's pictures, into a trace. Raises TraceError when it is none of that."""
    if images is None:
        return
    if not isinstance(images, list) or not 0 < len(images) <= MAX_IMAGES:
        raise _fail("images")
    if not all(isinstance(image, dict) for image in images):
        raise _fail("images")
    parts: dict[str, list[Any]] = {}
    for name in ("size", "grid", "preview"):
        there = [image.get(name) for image in images]
        # Only the first ones have it, as in a trace, where the n-th belongs to the n-th picture.
        parts[name] = list(takewhile(lambda part: part is not None, there))
        if any(part is not None for part in there[len(parts[name]) :]):
            raise _fail(f"images' {name}")
    checked = {"image_grids": parts["grid"], "image_previews": parts["preview"]}
    head.image_grids, head.image_previews = reading.grids(checked), reading.previews(checked)
    head.request["images"] = parts["size"]
    if len(reading.image_sizes(head.request)) != len(parts["size"]):
        raise _fail("images' size")


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


def is_id(value: Any) -> bool:
    """Whether a value can be a token's id."""
    return type(value) is int and 0 <= value < 2**31


def _integer(value: Any, where: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _fail(where)
    return value


def _optional_id(data: dict[str, Any], key: str) -> int | None:
    value = data.get(key)
    if value is not None and not is_id(value):
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
