"""Results of a sweep: its points, and how they are kept in a browser."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from nemodiff.engine.interface import EngineInterface
from nemodiff.evaluate.sweep import Point
from nemodiff.examples import EXAMPLES
from nemodiff.trace.events import MODES

MAX_POINTS = 400
#: No figure of a sweep is larger.
MOST = 1e9
#: Characters of what a browser kept: several times what so many points take.
MAX_KEPT = 1_000_000


@dataclass(slots=True)
class Results:
    """Points that may be drawn together: one checkpoint on one machine, over the same prompts, with the same length."""

    checkpoint: str = ""
    device: str = ""
    dtype: str = ""
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 0
    points: list[Point] = field(default_factory=list)

    @classmethod
    def of(cls, engine: EngineInterface, labels: tuple[str, ...], max_new_tokens: int) -> Results:
        return cls(engine.checkpoint, engine.device, engine.dtype, labels, max_new_tokens)

    def resume(self, earlier: Results | None) -> Results:
        """These results with the points of an earlier sweep under the same conditions."""
        if earlier is not None and self._conditions == earlier._conditions:
            self.points = [*earlier.points, *self.points]
        return self

    @property
    def _conditions(self) -> tuple:
        return self.checkpoint, self.device, self.dtype, self.labels, self.max_new_tokens

    def add(self, point: Point) -> None:
        """Take a point, in place of an older one of the same setting."""
        setting = (point.mode, point.block_length, point.threshold)
        self.points = [one for one in self.points if (one.mode, one.block_length, one.threshold) != setting]
        self.points.append(point)

    def of_mode(self, mode: str) -> list[Point]:
        """A mode's points by block length, then threshold."""
        points = [point for point in self.points if point.mode == mode]
        return sorted(points, key=lambda point: (point.block_length or 0, point.threshold or 0))

    def to_json(self) -> str:
        data = {name: getattr(self, name) for name in ("checkpoint", "device", "dtype", "labels", "max_new_tokens")}
        return json.dumps(data | {"points": [point.to_json() for point in self.points]}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: Any) -> Results | None:
        """Results as a browser kept them, which is untrusted; None when they are not usable."""
        if not isinstance(text, str) or len(text) > MAX_KEPT:
            return None
        try:
            data = json.loads(text)
            checkpoint, device, dtype = (str(data[name])[:200] for name in ("checkpoint", "device", "dtype"))
            labels = tuple(one.label for one in EXAMPLES if one.label in data["labels"])
            points = [_point(one) for one in data["points"][:MAX_POINTS]]
            most = int(data["max_new_tokens"])
            return cls(checkpoint, device, dtype, labels, most, points) if points else None
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
            return None


def _point(data: dict[str, Any]) -> Point:
    if data["mode"] not in MODES:
        raise ValueError("no such mode")
    figures: dict[str, Any] = {name: float(data[name]) for name in ("seconds", "ar_seconds", "agreement", "identical")}
    figures |= {name: int(data[name]) for name in ("prompts", "tokens", "forwards", "nfe")}
    if not all(0 <= value <= MOST for value in figures.values()):
        raise ValueError("out of range")
    block, threshold = data["block_length"], data["threshold"]
    return Point(
        mode=data["mode"],
        block_length=None if block is None else int(block),
        threshold=None if threshold is None else float(threshold),
        **figures,
    )
