"""Results of sweeps: points that belong together, how a browser keeps them, and as CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemodiff.engine.interface import EngineInterface
from nemodiff.evaluate.prompt_file import Asked
from nemodiff.evaluate.sweep import Point
from nemodiff.evaluate.variants import Variant
from nemodiff.request import DRAFTS, ORDERS, SAMPLERS
from nemodiff.trace.events import MODES

#: Of what a browser keeps: sweeps under different conditions, points and prompts of one, characters of a prompt's name.
MAX_SWEEPS, MAX_POINTS, MAX_LABELS, MAX_LABEL = 6, 400, 100, 80
#: No figure of a sweep is larger.
MOST = 1e9
#: Characters of what a browser kept: several times what so many points take.
MAX_KEPT = 2_000_000


@dataclass(slots=True)
class Results:
    """Points that may be drawn together: one checkpoint on one machine, over the same prompts, with the same length.

    labels: names of the prompts; digest: of what they say, expected answers included.
    """

    checkpoint: str = ""
    device: str = ""
    dtype: str = ""
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 0
    points: list[Point] = field(default_factory=list)
    digest: str = ""

    @classmethod
    def of(
        cls, engine: EngineInterface, labels: tuple[str, ...], max_new_tokens: int, asked: Sequence[Asked] = ()
    ) -> Results:
        said = json.dumps([(one.prompt, one.expected) for one in asked]).encode()
        digest = hashlib.sha256(said).hexdigest()[:16] if asked else ""
        return cls(engine.checkpoint, engine.device, engine.dtype, labels, max_new_tokens, digest=digest)

    def resume(self, earlier: Results | None) -> Results:
        """These results with the points of an earlier sweep under the same conditions."""
        if earlier is not None and self.conditions == earlier.conditions:
            self.points = [*earlier.points, *self.points]
        return self

    @property
    def conditions(self) -> tuple:
        return self.checkpoint, self.device, self.dtype, self.labels, self.max_new_tokens, self.digest

    def add(self, point: Point) -> None:
        """Take a point, in place of an older one of the same setting."""
        self.points = [one for one in self.points if one.variant != point.variant]
        self.points.append(point)

    def measured(self, repeats: int) -> set[Variant]:
        """The settings that need not be run again: measured with so many repeats."""
        return {point.variant for point in self.points if point.repeats >= repeats}

    def of_mode(self, mode: str) -> list[Point]:
        """A mode's points: by their setting without threshold, then by threshold."""
        points = [point for point in self.points if point.mode == mode]
        return sorted(points, key=lambda point: (*curve(point), point.threshold or 0))

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        names = ("checkpoint", "device", "dtype", "labels", "max_new_tokens", "digest")
        return {name: getattr(self, name) for name in names} | {"points": [point.to_json() for point in self.points]}

    @classmethod
    def from_json(cls, text: Any) -> Results | None:
        """Results as a browser kept them, which is untrusted; None when they are not usable."""
        return cls.from_dict(_parsed(text))

    @classmethod
    def from_dict(cls, data: Any) -> Results | None:
        try:
            checkpoint, device, dtype = (str(data[name])[:200] for name in ("checkpoint", "device", "dtype"))
            labels = tuple(str(label)[:MAX_LABEL] for label in data["labels"][:MAX_LABELS])
            points = [_point(one) for one in data["points"][:MAX_POINTS]]
            most, digest = int(data["max_new_tokens"]), str(data.get("digest", ""))[:16]
            if not 0 < most <= MOST:
                return None
            return cls(checkpoint, device, dtype, labels, most, points, digest) if points else None
        except (TypeError, ValueError, KeyError, OverflowError, AttributeError):
            return None


@dataclass(slots=True)
class Kept:
    """All that a browser keeps of its sweeps, one a set of conditions, the newest first."""

    sweeps: list[Results] = field(default_factory=list)

    def begun(self, results: Results) -> Results:
        """Results that a sweep adds to: with the points that were measured under the same conditions, first of all."""
        same = next((one for one in self.sweeps if one.conditions == results.conditions), None)
        self.sweeps = [results.resume(same), *(one for one in self.sweeps if one is not same)][:MAX_SWEEPS]
        return results

    def to_json(self) -> str:
        return json.dumps({"sweeps": [one.to_dict() for one in self.sweeps if one.points]}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: Any) -> Kept:
        """What a browser kept, which is untrusted; of several sweeps or, as once, of a single one."""
        data = _parsed(text)
        sweeps = data.get("sweeps") if isinstance(data, dict) else None
        found = map(Results.from_dict, sweeps[:MAX_SWEEPS] if isinstance(sweeps, list) else [data])
        return cls([one for one in found if one is not None])


def _parsed(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > MAX_KEPT:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def curve(point: Point) -> tuple:
    """What points have in common whose thresholds alone differ; to be sorted by."""
    kinds = (DRAFTS.index(point.draft) if point.draft else -1, point.sampler or "", point.order or "")
    return (point.temperature, *kinds, point.block_length or 0, point.rows or 0)


#: Of a point, those that it may lack.
_FIGURES = ("threshold", "fastest", "slowest", "holds", "right")


def _point(data: dict[str, Any]) -> Point:
    if data["mode"] not in MODES:
        raise ValueError("no such mode")
    figures: dict[str, Any] = {name: float(data[name]) for name in ("seconds", "ar_seconds", "agreement", "identical")}
    figures |= {name: int(data[name]) for name in ("prompts", "tokens", "forwards", "nfe")}
    figures |= {"repeats": int(data.get("repeats", 1)), "temperature": float(data.get("temperature", 0))}
    shares = {name: _maybe(float, data.get(name)) for name in _FIGURES}
    rest: dict[str, Any] = shares | {name: _maybe(int, data.get(name)) for name in ("block_length", "rows")}
    if not all(0 <= value <= MOST for value in (*figures.values(), *rest.values()) if value is not None):
        raise ValueError("out of range")
    for name, known in (("sampler", SAMPLERS), ("order", ORDERS), ("draft", DRAFTS)):
        rest[name] = data.get(name)
        if rest[name] is not None and rest[name] not in known:
            raise ValueError(f"no such {name}")
    return Point(mode=data["mode"], **figures, **rest)


def _maybe(kind: type, value: Any) -> Any:
    return None if value is None else kind(value)


#: Columns of the CSV.
COLUMNS = (
    *("checkpoint", "device", "dtype", "prompts", "max_new_tokens", "mode", "block_length", "threshold", "sampler"),
    *("order", "draft", "rows", "temperature", "repeats", "tokens", "forwards", "tokens_per_forward", "nfe"),
    *("seconds_per_token", "fastest", "slowest", "ar_seconds_per_token", "speed_up"),
    *("agreement", "identical", "holds", "as_expected"),
)


def csv_text(sweeps: Iterable[Results]) -> str:
    """Every point, a line each: unrounded figures, shares from 0 to 1, seconds. Empty: not used, or not measured."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in sweeps:
        where = [_harmless(text) for text in (one.checkpoint, one.device, one.dtype)]
        for point in (point for mode in MODES for point in one.of_mode(mode)):
            setting = (point.mode, point.block_length, point.threshold, point.sampler, point.order, point.draft)
            figures = (point.tokens, point.forwards, point.tpf, point.nfe, point.seconds, point.fastest, point.slowest)
            shares = (point.ar_seconds, point.speed_up, point.agreement, point.identical, point.holds, point.right)
            counts = (point.rows, point.temperature, point.repeats)
            writer.writerow([*where, point.prompts, one.max_new_tokens, *setting, *counts, *figures, *shares])
    return file.getvalue()


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
