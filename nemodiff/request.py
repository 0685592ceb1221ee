"""What is asked of the engine: a Request, checked once when it is made."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from nemodiff.errors import RequestError, SettingError, shown
from nemodiff.pictures import Picture
from nemodiff.trace.events import MODES

SAMPLERS = ("confidence", "entropy", "fixed", "trained")
ORDERS = ("best", "leftmost")
DRAFTS = ("linear", "quadratic", "tree")
ACCEPTANCES = ("match", "independent", "sampling")
MAX_BLOCK_LENGTH = 64
#: A quadratic forward has B(B + 1) rows.
MAX_QUADRATIC_LENGTH = 16
#: Rows that a tree's forwards may be fixed to.
MAX_TREE_ROWS = 64
MAX_NEW_TOKENS = 4096
MAX_PROMPT_CHARACTERS = 100_000
MAX_IMAGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt and how to decode it. Settings left None take the checkpoint's defaults.

    prompt: the user's text, put through the chat template unless `raw`. Control tokens that are written out in it stay
    text, unless `raw`; the mask's stays text always. prompt_ids: token ids instead of text, taken as they are.
    images: pictures of the user's message, before its text, for checkpoints that see; with `prompt_ids` their
    placeholders stand in the ids already.
    answer_ids: tokens that the answer begins with (a branch of another run): decoding goes on after them, and
    positions count from the first new token.
    modes: any of ar, diffusion, self-speculation. block_length: B, 2 to 64. threshold: the confidence at which a
    masked position is committed. order: best (what is surest first, wherever it lies) or leftmost (the longest run
    from the left end of the masked part that the sampler takes, always its first). steps: denoising forwards a block
    (sampler "fixed"). entropy_bound: nats a forward may commit in all (sampler "entropy"). draft: linear (a draft and a
    verify forward a cycle), quadratic (one forward does both; block_length up to 16) or tree (one forward, over a tree
    of drafts). rows: of a tree's forwards at most, 2 to 64; None where their cost on this machine decides. acceptance,
    at a temperature: see `nemodiff.decode.acceptance`.
    ar_weight: lambda of the verifier lambda * p_AR + (1 - lambda) * p_diffusion (draft "quadratic"); 1 gives AR's text,
    anything else another one. temperature: 0 is greedy. time_limit: seconds of wall time for the run.
    max_thinking_tokens: answer tokens after which </think>, unless it came, is forced as the next one.
    alternatives: how many of the most probable tokens each Position records.
    Raises RequestError when a value is out of range.
    """

    prompt: str = ""
    prompt_ids: tuple[int, ...] | None = None
    images: tuple[Picture, ...] = ()
    answer_ids: tuple[int, ...] = ()
    modes: tuple[str, ...] = MODES
    max_new_tokens: int = 128
    block_length: int | None = None
    threshold: float | None = None
    sampler: str = "confidence"
    order: str | None = None
    steps: int | None = None
    entropy_bound: float = 0.3
    draft: str = "linear"
    rows: int | None = None
    acceptance: str = "match"
    ar_weight: float = 1.0
    adapter: bool = True
    temperature: float = 0.0
    seed: int = 0
    ignore_eos: bool = False
    raw: bool = False
    max_thinking_tokens: int | None = None
    alternatives: int = 5
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if self.prompt_ids is None:
            _text(self.prompt)
        else:
            object.__setattr__(self, "prompt_ids", _ids("prompt_ids", self.prompt_ids))
            if not self.prompt_ids:
                raise RequestError("The prompt has no token ids: give at least one.")
        object.__setattr__(self, "answer_ids", _ids("answer_ids", self.answer_ids))
        for name in ("images", "modes"):
            _list(name, getattr(self, name))
        if not all(isinstance(image, Picture) for image in self.images):
            raise RequestError("A saved run holds the sizes of its pictures only: give the pictures themselves again.")
        if len(self.images) > MAX_IMAGES:
            raise RequestError(f"A prompt takes up to {MAX_IMAGES} pictures, not {len(self.images)}: leave some out.")
        for mode in self.modes:
            _choice("mode", mode, MODES)
        if not self.modes or len(set(self.modes)) != len(self.modes):
            raise RequestError(f"Choose at least one mode, each once: {', '.join(MODES)}.")
        for name in ("adapter", "ignore_eos", "raw"):
            _choice(name, getattr(self, name), (True, False))
        _choice("sampler", self.sampler, SAMPLERS)
        if self.order is not None:
            _choice("order", self.order, ORDERS)
        _choice("draft", self.draft, DRAFTS)
        _choice("acceptance", self.acceptance, ACCEPTANCES)
        _number("ar_weight", self.ar_weight, 0, 1)
        if self.draft == "tree" and self.acceptance == "sampling" and self.temperature > 0:
            raise RequestError("Speculative sampling does not run over a tree of drafts: choose acceptance match.")
        if self.rows is not None:
            _integer("rows", self.rows, 2, MAX_TREE_ROWS)
            if self.draft != "tree":
                raise RequestError("rows needs draft tree: choose it or leave rows out.")
        if self.ar_weight != 1 and self.draft != "quadratic":
            raise RequestError("ar_weight below 1 needs draft quadratic: choose it or leave ar_weight at 1.")
        _integer("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        if self.block_length is not None:
            _integer("block_length", self.block_length, 2, MAX_BLOCK_LENGTH)
            if self.draft == "quadratic" and self.block_length > MAX_QUADRATIC_LENGTH:
                wanted = f"may be up to {MAX_QUADRATIC_LENGTH} with quadratic drafts, not {self.block_length}."
                raise SettingError("block_length", wanted)
        if self.steps is not None:
            _integer("steps", self.steps, 1, MAX_BLOCK_LENGTH)
        if self.threshold is not None:
            _number("threshold", self.threshold, 0, 1)
        _number("entropy_bound", self.entropy_bound, 0, 100)
        _number("temperature", self.temperature, 0, 10)
        _integer("seed", self.seed, 0, 2**63 - 1)
        if self.max_thinking_tokens is not None:
            _integer("max_thinking_tokens", self.max_thinking_tokens, 0, MAX_NEW_TOKENS)
        _integer("alternatives", self.alternatives, 0, 20)
        if self.time_limit is not None:
            _number("time_limit", self.time_limit, 0, 86_400)

    @classmethod
    def from_json(cls, data: Any) -> Request:
        """The way back from `to_json`, checked. Raises RequestError."""
        if not isinstance(data, dict):
            raise RequestError("The request must be a JSON object.")
        lists = {name: tuple(data[name]) for name in _LISTS if isinstance(data.get(name), list)}
        try:
            return cls(**data | lists)
        except TypeError as error:  # an unknown field
            raise RequestError("The request has fields that cannot be read.") from error

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, as a Trace carries them; of pictures their [width, height] alone."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["images"] = [[image.width, image.height] for image in self.images]
        data["modes"] = list(self.modes)
        data["answer_ids"] = list(self.answer_ids)
        data["prompt_ids"] = None if self.prompt_ids is None else list(self.prompt_ids)
        return data


_LISTS = ("modes", "prompt_ids", "answer_ids", "images")


def _text(prompt: Any) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError("The prompt is empty: write something for the model to answer.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise RequestError(
            f"The prompt has {len(prompt):,} characters; shorten it to {MAX_PROMPT_CHARACTERS:,} or fewer."
        )
    whole_characters(prompt)


def whole_characters(prompt: str) -> None:
    """Raises RequestError for a prompt with half of a UTF-16 pair, or a byte that was no UTF-8 on a command line."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"The prompt's character {error.start + 1:,} ({ascii(prompt[error.start])}) is no whole character: "
            "take it out or write it anew, in UTF-8."
        ) from error


def _ids(name: str, values: Any) -> tuple[int, ...]:
    """Token ids as plain integers, whichever integers they were (numpy's, say)."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise RequestError(f"{name} must be a list of token ids, not {shown(values)}.")
    ids = []
    for value in values:
        try:
            ids.append(operator.index(value))
        except TypeError:
            ids.append(-1)
        if isinstance(value, bool) or not 0 <= ids[-1] < 2**31:
            raise RequestError(f"{name} must hold whole numbers from 0 to {2**31 - 1}, not {shown(value)}.")
    return tuple(ids)


def _list(name: str, values: Any) -> None:
    if not isinstance(values, tuple | list):
        raise RequestError(f"{name} must be a tuple or a list, not {shown(values)}.")


def _choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    try:
        known = value in allowed
    except (TypeError, ValueError, RuntimeError):  # a type that compares in its own way, such as an array
        known = False
    if not known:
        raise RequestError(f"Unknown {name} {shown(value)}: choose {' or '.join(map(str, allowed))}.")


def _integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingError(name, f"must be a whole number from {low} to {high}, not {shown(value)}.")


def _number(name: str, value: Any, low: float, high: float) -> None:
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not finite:
        raise SettingError(name, f"must be a number from {low} to {high}, not {shown(value)}.")
    if not low <= value <= high:
        raise SettingError(name, f"must be from {low} to {high}, not {shown(value)}.")
