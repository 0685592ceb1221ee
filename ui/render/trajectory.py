"""A lane in the trajectory format of diffusers' sampling animation; `nemodiff.trace.adapters.trajectory` describes the
format and reads it."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from nemodiff.errors import TraceError
from nemodiff.trace.adapters.trajectory import MAX_IDS, MAX_LENGTH, PENDING, is_id
from nemodiff.trace.events import KEPT, Trace
from nemodiff.trace.reading import image_sizes
from ui.render.charts.figure import lane_figures
from ui.render.positions import Cells

LABELS = {"ar": "autoregressive", "diffusion": "block diffusion", "self-speculation": "self-speculation"}


def trajectory(trace: Trace, mode: str, mask_token_id: int | None = None) -> dict[str, Any]:
    """One lane as a trajectory, a frame per event: drafts and guesses count as masked until they are final.

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
    } | _images(trace)


def _images(trace: Trace) -> dict[str, Any]:
    """The prompt's pictures, where it had any."""
    parts = (image_sizes(trace.request), trace.image_grids, trace.image_previews)
    names = ("size", "grid", "preview")
    rows = [dict(zip(names, map(_plain, row), strict=True)) for row in zip_longest(*parts)]
    return {"images": rows} if rows else {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= MAX_LENGTH else None


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
        and (mask is None or is_id(mask))
        and _whole(data.get("gen_length")) is not None
    )
    return data if sound else None
