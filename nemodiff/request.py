"""What is asked of the engine: a Request, checked once when it is made."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from nemodiff.conversation import MAX_PICTURES, Message, conversation
from nemodiff.errors import RequestError, SettingError, shown
from nemodiff.pictures import Picture
from nemodiff.setting_kinds import Texts, one_of
from nemodiff.settings import (
    ACCEPTANCES,
    DRAFTS,
    MAX_BLOCK_LENGTH,
    MAX_NEW_TOKENS,
    MAX_QUADRATIC_LENGTH,
    MAX_TREE_ROWS,
    ORDERS,
    SAMPLERS,
    SETTINGS,
    Decoding,
)
from nemodiff.trace.events import MODES

__all__ = [
    "ACCEPTANCES",
    "COLDEST",
    "DRAFTS",
    "MAX_BLOCK_LENGTH",
    "MAX_IMAGES",
    "MAX_NEW_TOKENS",
    "MAX_PROMPT_CHARACTERS",
    "MAX_QUADRATIC_LENGTH",
    "MAX_TREE_ROWS",
    "ORDERS",
    "SAMPLERS",
    "Request",
    "whole_characters",
]

MAX_PROMPT_CHARACTERS = 100_000
MAX_IMAGES = MAX_PICTURES
#: The lowest temperature at which noise is drawn. Below it, steps of fp32 between logits / T are larger than the noise,
#: and further down the quotients overflow: what is left of the distribution is the most probable token.
COLDEST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Decoding):
    """A prompt and how to decode it: the settings of `Decoding` besides what is here. Settings left None take the
    checkpoint's defaults.

    prompt: the user's text, put through the chat template unless `raw`. Control tokens that are written out in it stay
    text, unless `raw`; the mask's stays text always. prompt_ids: token ids instead of text, taken as they are.
    system: a system prompt, the first message of the chat template. history: earlier turns, user and assistant by
    turns, between it and the prompt; both are put through the template, so neither goes with `raw` or `prompt_ids`.
    images: the pictures that the history brought, then those of the prompt, before its text, for checkpoints that see;
    with `prompt_ids` their
    placeholders stand in the ids already.
    answer_ids: tokens that the answer begins with (a branch of another run): decoding goes on after them, and
    positions count from the first new token.
    modes: any of ar, diffusion, self-speculation.
    Raises RequestError when a value is out of range.
    """

    prompt: str = ""
    prompt_ids: tuple[int, ...] | None = None
    system: str = ""
    history: tuple[Message, ...] = ()
    images: tuple[Picture, ...] = ()
    answer_ids: tuple[int, ...] = ()
    modes: tuple[str, ...] = MODES

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", conversation(self.history))
        if self.prompt_ids is None:
            self._check_text()
        else:
            object.__setattr__(self, "prompt_ids", _ids("prompt_ids", self.prompt_ids))
            if not self.prompt_ids:
                raise RequestError("The prompt has no token ids: give at least one.")
        self._check_template()
        object.__setattr__(self, "answer_ids", _ids("answer_ids", self.answer_ids))
        for name in ("images", "modes"):
            _list(name, getattr(self, name))
        if not all(isinstance(image, Picture) for image in self.images):
            raise RequestError("A saved run holds the sizes of its pictures only: give the pictures themselves again.")
        if len(self.images) > MAX_IMAGES:
            raise RequestError(f"A prompt takes up to {MAX_IMAGES} pictures, not {len(self.images)}: leave some out.")
        if (brought := sum(message.images for message in self.history)) > len(self.images):
            raise RequestError(
                f"The conversation brought pictures ({brought}) that are not given: give them again, or let it go."
            )
        for mode in self.modes:
            one_of("mode", mode, MODES)
        if not self.modes or len(set(self.modes)) != len(self.modes):
            raise RequestError(f"Choose at least one mode, each once: {', '.join(MODES)}.")
        for setting in SETTINGS:
            value = getattr(self, setting.name)
            if isinstance(setting.kind, Texts) and isinstance(value, list | str):
                object.__setattr__(self, setting.name, (value,) if isinstance(value, str) else tuple(value))
            setting.check(getattr(self, setting.name))
        self._check_drafts()

    @property
    def characters(self) -> int:
        """Of the prompt and of what comes before it."""
        return sum(map(len, self.texts))

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt's text behind what comes before it."""
        return (self.system, *(message.content for message in self.history), self.prompt)

    def _check_text(self) -> None:
        """Raises RequestError when the prompt, or what comes before it, is no text of a fitting length."""
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise RequestError("The prompt is empty: write something for the model to answer.")
        if not isinstance(self.system, str):
            raise RequestError(f"The system prompt must be a text, not {shown(self.system)}.")
        if not self.system.strip():
            object.__setattr__(self, "system", "")
        if self.characters > MAX_PROMPT_CHARACTERS:
            before = self.characters > len(self.prompt)
            what = "The prompt and what comes before it have" if before else "The prompt has"
            shorten = (
                "let the conversation go or shorten them"
                if self.history
                else "shorten them"
                if before
                else "shorten it"
            )
            raise RequestError(
                f"{what} {self.characters:,} characters; {shorten} to {MAX_PROMPT_CHARACTERS:,} or fewer."
            )
        for text in self.texts:
            whole_characters(text)

    def _check_template(self) -> None:
        """Raises RequestError where a system prompt or earlier turns are given without the chat template."""
        if not self.system and not self.history:
            return
        what = "earlier turns" if self.history else "a system prompt"
        if self.prompt_ids is not None:
            raise RequestError(f"Token ids are the whole prompt, so they take no {what}: leave one of the two out.")
        if self.raw:
            raise RequestError(
                f"A raw prompt takes no {what}, which stand in the chat template: turn raw off, or write all of it "
                "into the prompt."
            )

    def _check_drafts(self) -> None:
        """What one way of drafting cannot do. Raises RequestError."""
        if self.draft == "quadratic" and (self.block_length or 0) > MAX_QUADRATIC_LENGTH:
            wanted = f"may be up to {MAX_QUADRATIC_LENGTH} with quadratic drafts, not {self.block_length}."
            raise SettingError("block_length", wanted)
        for setting in SETTINGS:
            if setting.of and setting.of[0] == "draft" and not setting.used_by(self):
                if getattr(self, setting.name) == setting.default:
                    continue
                unset = "leave it out" if setting.default is None else f"leave it at {setting.default}"
                raise RequestError(f"{setting.name} needs draft {' or '.join(setting.of[1])}: choose it or {unset}.")

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
        data["history"] = [message.to_json() for message in self.history]
        for name, value in data.items():
            if isinstance(value, tuple):
                data[name] = list(value)
        return data


_LISTS = (
    *("modes", "prompt_ids", "history", "answer_ids", "images"),
    *(setting.name for setting in SETTINGS if isinstance(setting.kind, Texts)),
)


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
