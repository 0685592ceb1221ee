"""What happened in a run, forward by forward: Event, Position, Lane, Trace.

A trace is plain data. It is made live by the engine or read from a file; the page, the charts and every figure are
drawn from it alone. The JSON form (`nemodiff.trace/1`) is what `Trace.to_json` writes and `Trace.from_json` accepts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from nemodiff.errors import TraceError
from nemodiff.setting_kinds import MAX_STRING
from nemodiff.trace import limits
from nemodiff.trace.oracle import Ceiling
from nemodiff.trace.values import SCHEMA

if TYPE_CHECKING:
    from nemodiff.trace.replay import Embedded

MODES = ("ar", "diffusion", "self-speculation")
PHASES = ("prefill", "decode", "denoise", "refresh", "draft", "verify")
STATES = ("masked", "committed", "drafted", "accepted", "rejected", "corrected", "bonus", "seed", "discarded")
FINISHES = ("eos", "stop", "length", "stopped", "time")
#: States in which a position holds a token of the answer, for good.
KEPT = frozenset({"committed", "accepted", "corrected", "bonus", "seed"})

if TYPE_CHECKING:  # what makes an Event takes these from variables
    _Phase: TypeAlias = str
    _State: TypeAlias = str
    _Finish: TypeAlias = str
else:
    _Phase, _State, _Finish = Literal[PHASES], Literal[STATES], Literal[FINISHES]


# Half a million of these stand in a long trace: without gc=False Python would look through all of them again and again.
class Position(msgspec.Struct, gc=False):
    """One position of the answer as one forward left it.

    index: place in the answer, from 0. token: id. confidence: the model's probability of `token` in [0, 1].
    score: what the sampler made of it, when it is not the confidence. verifier: the AR pass's token where it
    differs from a rejected draft. top: the most probable (token id, probability) pairs, best first.
    """

    index: Annotated[int, Meta(ge=0, le=limits.MAX_INDEX)]
    token: limits.Id
    state: _State
    confidence: limits.Chance | None = None
    score: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None
    verifier: limits.Id | None = None
    top: limits.Alternatives = []

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"index": self.index, "token": self.token, "state": self.state}
        if self.confidence is not None:
            data["confidence"] = round(self.confidence, 4)
        if self.score is not None:
            data["score"] = round(self.score, 4)
        if self.verifier is not None:
            data["verifier"] = self.verifier
        if self.top:
            data["top"] = [[token, round(p, 4)] for token, p in self.top]
        return data


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Where a stop string ended an answer: it begins behind `characters` characters of the token at answer position
    `place` and ends behind `end` characters of the answer's last token. A character of several tokens counts to the
    one that completes it."""

    place: Annotated[int, Meta(ge=0, le=limits.MAX_INDEX)]
    characters: limits.Characters
    end: limits.Characters
    string: Annotated[str, Meta(min_length=1, max_length=MAX_STRING)]

    def to_json(self) -> dict[str, Any]:
        return {"place": self.place, "characters": self.characters, "end": self.end, "string": self.string}


class Event(msgspec.Struct, gc=False):
    """One model forward. `forward` counts from 1 after the prefill, which is 0. `clock_ms` is the lane's model time
    at its end. `start` and `length` are its block, in positions of the answer. `finish` is set on a lane's last event.

    Of quadratic self-speculation, whose forward verifies and drafts at once: rows of the forward, and what the group
    behind each verified token drafts, (token id, confidence) each. The group behind the last accepted token
    survives; its drafts are also positions of the event. again: a group began with its token once more.

    Of a tree of drafts (see `nemodiff.decode.tree`): `tree` are its candidates, (token id, probability at its distance)
    each, and `parents` the row each hangs on: 0 is the newest token, candidate i is row i + 1. `behind` are the rows
    that the groups stand behind. expected: new tokens that the forward was expected to give.

    image_ms: of a prefill with pictures, what encoding them took in this run; no part of any lane's clock.
    stop: where a stop string begins and ends, of an event whose `finish` is stop.
    """

    mode: str
    forward: limits.Id
    phase: _Phase
    clock_ms: limits.Milliseconds
    start: Annotated[int, Meta(ge=0, le=limits.MAX_INDEX + limits.MAX_BLOCK)]
    length: Annotated[int, Meta(ge=0, le=limits.MAX_BLOCK)]
    positions: list[Position] = []
    finish: _Finish | None = None
    rows: Annotated[int, Meta(ge=0, le=limits.MAX_BLOCK)] | None = None
    groups: Annotated[list[limits.Alternatives], Meta(max_length=limits.MAX_TOP)] = []
    again: bool = False
    tree: limits.Alternatives = []
    parents: list[int] = []
    behind: Annotated[list[int], Meta(max_length=limits.MAX_TOP)] = []
    expected: Annotated[float, Meta(ge=0, le=limits.MAX_TOP + 1)] | None = None
    image_ms: limits.Milliseconds | None = None
    stop: Stop | None = None

    @classmethod
    def from_json(cls, data: Any) -> Event:
        """An event as `to_json` writes it, its `mode` beside. Raises TraceError when it is none."""
        from nemodiff.trace import reading  # which makes what is defined here

        return reading.event(data)

    def to_json(self) -> dict[str, Any]:
        data = {
            "forward": self.forward,
            "phase": self.phase,
            "clock_ms": round(self.clock_ms, 3),
            "start": self.start,
            "length": self.length,
            "positions": [position.to_json() for position in self.positions],
        }
        if self.finish:
            data["finish"] = self.finish
        if self.rows is not None:
            data["rows"] = self.rows
        if self.groups:
            data["groups"] = [[[token, round(p, 4)] for token, p in group] for group in self.groups]
        if self.again:
            data["again"] = True
        if self.tree:
            data["tree"] = [[token, round(p, 4)] for token, p in self.tree]
            data["parents"] = self.parents
        if self.behind:
            data["behind"] = self.behind
        if self.expected is not None:
            data["expected"] = round(self.expected, 4)
        if self.image_ms is not None:
            data["image_ms"] = round(self.image_ms, 3)
        if self.stop is not None:
            data["stop"] = self.stop.to_json()
        return data


@dataclass(slots=True)
class Lane:
    """All that one mode did. `tokens` are the answer's ids (EOS included, and what a stop string was written with),
    `text` its text, which ends before a stop string, `seconds` model time, prefill included.

    peak_memory: most bytes that a GPU had allocated at once during the run, weights and the other lanes included.
    note: how another engine decodes in this lane, a sentence that the stage shows in place of its own.
    ceiling: of a diffusion lane, where it was asked for (`nemodiff.evaluate.speed_of_light`).
    """

    mode: str
    events: list[Event] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    peak_memory: int | None = None
    ceiling: Ceiling | None = None
    note: str = ""

    @property
    def stop(self) -> Stop | None:
        """Where a stop string ended the answer, if one did."""
        return self.events[-1].stop if self.events else None

    @property
    def seconds(self) -> float:
        return self.events[-1].clock_ms / 1000 if self.events else 0.0

    @property
    def prefill_seconds(self) -> float:
        return self.events[0].clock_ms / 1000 if self.events else 0.0

    @property
    def forwards(self) -> int:
        """Model forwards after the prefill."""
        return self.events[-1].forward if self.events else 0

    @property
    def tpf(self) -> float | None:
        """Tokens per forward; None before the first forward."""
        return len(self.tokens) / self.forwards if self.forwards else None

    @property
    def nfe(self) -> int:
        """What the released code counts: AR its tokens, diffusion denoising forwards plus one refresh per block,
        self-speculation 1 + 2 per cycle (quadratic: 1 + 1 per cycle). In diffusion that includes forwards which change
        nothing and this engine leaves out: the last block's refresh, and both forwards of a block whose seed is an
        EOS."""
        phases = [event.phase for event in self.events]
        if self.mode == "ar":
            return len(self.tokens)
        if self.mode == "diffusion":
            last = self.events[-1] if self.events else None
            seed_ended = last is not None and last.phase in ("prefill", "refresh") and last.finish == "eos"
            blocks = len({event.start for event in self.events if event.phase == "denoise"})
            # A block of two whose second token is a forced </think> comes with its seed.
            blocks += sum(event.phase in ("prefill", "refresh") and len(event.positions) > 1 for event in self.events)
            return phases.count("denoise") + blocks + 2 * seed_ended
        return 1 + phases.count("draft") + phases.count("verify")

    def nfe_counts(self) -> list[int | None]:
        """The same after every event. None for a lane of another engine, or without a prefill: how it was made is not
        known."""
        if self.note or not self.events or self.events[0].phase != "prefill":
            return [None] * len(self.events)
        counts: list[int | None] = []
        count, blocks = int(self.mode == "self-speculation"), set[int]()
        for event in self.events:
            if self.mode == "ar":
                count += sum(position.state in KEPT for position in event.positions)
            elif event.phase == "denoise":
                count += 1 + (event.start not in blocks)
                blocks.add(event.start)
            elif event.phase in ("draft", "verify"):
                count += 1
            elif event.finish == "eos":  # a block whose seed is an EOS
                count += 2 * (self.mode == "diffusion")
            counts.append(count)
        return counts

    @property
    def acceptance_lengths(self) -> list[int]:
        """New tokens of every draft-verify cycle, 1 to k + 1 (fewer drafts count when EOS or the limit cut a cycle)."""
        return [
            sum(position.state in ("accepted", "corrected", "bonus") for position in event.positions)
            for event in self.events
            if event.phase == "verify"
        ]

    def figures(self) -> dict[str, Any]:
        """The lane's figures as the command line and the page print them (design: "Words for figures")."""
        seconds = self.seconds
        return {
            "tokens": self.tokens,
            "text": self.text,
            "forwards": self.forwards,
            "nfe": self.nfe,
            "tpf": round(self.tpf, 4) if self.tpf is not None else None,
            "acceptance_lengths": self.acceptance_lengths,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(len(self.tokens) / seconds, 2) if seconds else None,
            "finish": self.finish,
        }

    def to_json(self, event: Callable[[Event], Any] = Event.to_json) -> dict[str, Any]:
        """The lane as plain JSON values. event: what stands for an event."""
        data: dict[str, Any] = {
            "mode": self.mode,
            "events": list(map(event, self.events)),
            "tokens": self.tokens,
            "text": self.text,
            "finish": self.finish,
            "seconds": round(self.seconds, 6),
        }
        if self.peak_memory is not None:
            data["peak_memory"] = self.peak_memory
        if self.ceiling is not None:
            data["ceiling"] = self.ceiling.to_json()
        if self.note:
            data["note"] = self.note
        return data


@dataclass(slots=True)
class Trace:
    """A whole run: where it ran, what was asked, the text of every token id in it, and one lane per mode.

    `vocabulary` maps an id to its text. A token whose bytes are no complete UTF-8 stands in `byte_pieces` instead
    (id → hex), so that pieces join exactly. `special` lists ids of control tokens such as EOS and the mask.

    Of pictures in the prompt: image_grids are the (rows, columns) of each one's tokens, image_ms is what encoding them
    took (0 where all were known), image_previews small JPEGs as data: URLs, kept only where the user agrees.

    exact: whether rows come out the same whatever travels with them; None where nobody checked.
    """

    checkpoint: str
    tokenizer: str
    device: str
    dtype: str
    exact: bool | None
    versions: dict[str, str]
    request: dict[str, Any]
    lanes: list[Lane] = field(default_factory=list)
    vocabulary: dict[int, str] = field(default_factory=dict)
    byte_pieces: dict[int, str] = field(default_factory=dict)
    special: list[int] = field(default_factory=list)
    recorded: str | None = None
    image_ms: float | None = None
    image_grids: list[tuple[int, int]] = field(default_factory=list)
    image_previews: list[str] = field(default_factory=list)

    def lane(self, mode: str) -> Lane | None:
        return next((lane for lane in self.lanes if lane.mode == mode), None)

    def __getitem__(self, mode: str) -> Lane:
        """The lane of a mode that ran. Raises KeyError where it did not."""
        lane = self.lane(mode)
        if lane is None:
            raise KeyError(mode)
        return lane

    def figures(self) -> dict[str, Any]:
        """Every lane's figures and what they were measured on: what `generate --json` prints."""
        lanes = {lane.mode: lane.figures() for lane in self.lanes}
        return {"checkpoint": self.checkpoint, "device": self.device, "dtype": self.dtype, "lanes": lanes}

    def head(self) -> dict[str, Any]:
        """Everything but the lanes and the token table: what a page needs before the first event."""
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "checkpoint": self.checkpoint,
            "tokenizer": self.tokenizer,
            "device": self.device,
            "dtype": self.dtype,
            "exact": self.exact,
            "versions": self.versions,
            "request": self.request,
            "recorded": self.recorded,
        }
        if self.image_grids:
            data["image_ms"] = None if self.image_ms is None else round(self.image_ms, 3)
            data["image_grids"] = [list(grid) for grid in self.image_grids]
        if self.image_previews:
            data["image_previews"] = self.image_previews
        return data

    def to_dict(self, event: Callable[[Event], Any] = Event.to_json) -> dict[str, Any]:
        """The trace as plain JSON values. event: what stands for an event."""
        return self.head() | {
            "tokens": {str(token): text for token, text in sorted(self.vocabulary.items())},
            "byte_pieces": {str(token): piece for token, piece in sorted(self.byte_pieces.items())},
            "special": sorted(self.special),
            "lanes": [lane.to_json(event) for lane in self.lanes],
        }

    def to_json(self) -> str:
        try:
            return msgspec.json.encode(self.to_dict(_packed)).decode()
        except UnicodeEncodeError:  # half a character, which no reader takes
            return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"))

    def save(self, path: str | Path) -> None:
        """Write the trace as a JSON file, which `from_json`, the page and `python -m nemodiff show` read."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def show(self, height: int = 900) -> Embedded:
        """The replay, for a notebook's cell; `str` of it is an <iframe> to paste into a page. height: in pixels."""
        from nemodiff.trace import replay  # which draws what is defined here

        return replay.embedded(self, height)

    def _repr_html_(self) -> str:
        return self.show().html

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """Read an untrusted trace. Raises TraceError when it is too large, no JSON or not of this schema."""
        from nemodiff.trace import reading  # which makes what is defined here

        if len(text) > limits.MAX_BYTES:
            raise TraceError(f"The trace is larger than {limits.MAX_BYTES // 2**20} MB; load a shorter run.")
        return reading.trace(text)


def _packed(event: Event) -> msgspec.Raw:
    """An event's JSON. Written one by one, so that the values of half a million positions are never there at once."""
    return msgspec.Raw(msgspec.json.encode(event.to_json()))


def first_difference(tokens: list[int], other: list[int]) -> int | None:
    """Index of the first token in which two answers differ, None when they are identical."""
    for index, (a, b) in enumerate(zip(tokens, other, strict=False)):
        if a != b:
            return index
    return None if len(tokens) == len(other) else min(len(tokens), len(other))
