"""What every engine offers: the one in this process, replicas elsewhere, one that a GPU is lent to."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from nemodiff.checkpoints.catalogue import DEFAULT
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.errors import RequestError
from nemodiff.request import COLDEST, MAX_QUADRATIC_LENGTH, Request
from nemodiff.trace.events import Event, Trace
from nemodiff.trace.oracle import Progress
from nemodiff.trace.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a Request's None means for this checkpoint."""

    block_length: int = 8
    threshold: float = 0.9
    #: The threshold of the trained sampler, on its own scale.
    trained_threshold: float = 0.9
    #: In which order diffusion commits.
    order: str = "best"
    #: How self-speculation drafts on the page and in the benches. A program's request that says nothing drafts
    #: linearly, as released: its acceptance lengths are the paper's.
    draft: str = "linear"
    #: Whether a draft head came with it.
    draft_head: bool = False

    def threshold_of(self, sampler: str) -> float:
        """The threshold that a request without one gets."""
        return self.trained_threshold if sampler == "trained" else self.threshold

    def block_length_of(self, request: Request) -> int:
        """The block length that a request has, or gets where it has none."""
        length = request.block_length or self.block_length
        return min(length, MAX_QUADRATIC_LENGTH) if request.draft == "quadratic" else length

    def fill(self, request: Request) -> Request:
        """The request with these defaults in place of None."""
        block_length = self.block_length_of(request)
        # The head weighs drafts that are under AR's own noise, or under none.
        weighed = request.acceptance == "match" or request.temperature < COLDEST
        return dataclasses.replace(
            request,
            block_length=block_length,
            threshold=self.threshold_of(request.sampler) if request.threshold is None else request.threshold,
            order=request.order or self.order,
            draft_head=request.draft_head and self.draft_head and weighed,
            steps=min(request.steps or max(1, block_length // 2), block_length - 1),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request must keep to. trained: a trained sampler came with it. exact_trees: `exact` holds for drafts in a
    tree, too."""

    vocab_size: int
    context_length: int
    mask_token_id: int | None
    trained: bool
    exact_trees: bool = True


class Events(Generator[Event, None, None]):
    """A run's Events, one per forward. Closing it stops the model within one.

    steps: the same, with None wherever the run may be stopped before anything has happened: between the pieces of a
    long prompt.
    """

    def __init__(self, steps: Generator[Event | None, None, None]) -> None:
        self.steps = steps

    def send(self, value: None) -> Event:
        while (event := next(self.steps)) is None:
            pass
        return event

    def throw(self, *error: Any) -> Event:
        return self.steps.throw(*error) or next(self)

    def close(self) -> None:
        self.steps.close()


def steps(events: Generator[Event | None, None, None]) -> Generator[Event | None, None, None]:
    """What `stream` of any engine gave, with None where it can be stopped besides."""
    return events.steps if isinstance(events, Events) else events


class EngineInterface(ABC):
    """A checkpoint that answers requests, here or elsewhere.

    versions: as a Trace carries them; attention: which one runs in block-shaped forwards.
    """

    checkpoint: str
    device: str
    dtype: str
    attention: str
    versions: dict[str, str]
    tokenizer: Tokenizer
    defaults: Defaults

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether a token's logits are the same alone and in a block."""

    @property
    @abstractmethod
    def bounds(self) -> Bounds:
        """Raises RequestError when there is no model any more."""

    @abstractmethod
    def stream(self, request: Request) -> Generator[Event | None, None, None]:
        """One Event per forward; closing the generator stops the model within one. Raises RequestError here.

        An engine elsewhere yields None where nothing has come for a moment, so that a stop is noticed meanwhile; one
        that is here does so by way of `steps`.
        """

    @abstractmethod
    def ceiling(self, request: Request, budget: int | None = None) -> Generator[Progress | None, None, None]:
        """Speed of light (`nemodiff.decode.speed_of_light`) for the request's diffusion lane: progress after every
        forward and with every block; None where it can be stopped besides. Closing it stops the model within one
        forward. A thinking budget and a time limit of the request are left out.

        budget: simulated forwards per block. Raises RequestError here.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the engine holds; further requests may be refused."""

    @property
    def weight_bytes(self) -> int:
        """Memory of this machine that `close` gives back, in bytes."""
        return 0

    @property
    def places(self) -> int:
        """Runs that are decoded at once."""
        return 1

    @property
    def reachable(self) -> bool:
        """Whether a request would find the model now."""
        return True

    @abstractmethod
    def settle(self) -> None:
        """Find anew what is exact on this machine, in a process that began as a copy of another machine's."""

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together, that the model was made for."""
        return self.bounds.context_length

    def encode(self, request: Request) -> list[int]:
        """The prompt's token ids. Raises RequestError when it does not fit the model."""
        bounds = self.bounds
        tokens = self._prompt(request)
        if bounds.mask_token_id in request.answer_ids:
            raise RequestError(
                f"Token id {bounds.mask_token_id} is the mask, which stands for what is not written yet: an answer "
                "cannot begin with it."
            )
        tokens += request.answer_ids
        if not tokens:
            raise RequestError("The prompt is empty: write something for the model to answer.")
        if bad := [token for token in tokens if not 0 <= token < bounds.vocab_size]:
            raise RequestError(f"Token id {bad[0]} is not in the vocabulary (0 to {bounds.vocab_size - 1}).")
        if len(tokens) + request.max_new_tokens > bounds.context_length:
            raise RequestError(
                f"The prompt's {len(tokens):,} tokens and {request.max_new_tokens:,} new ones exceed the "
                f"model's context of {bounds.context_length:,}: shorten the prompt or ask for fewer."
            )
        if request.stop and not self.tokenizer.available:
            raise RequestError(
                f"{self.checkpoint} has no tokenizer, so its answers are no text: leave the stop strings out."
            )
        if bounds.mask_token_id is None and set(request.modes) != {"ar"}:
            raise RequestError(f"{self.checkpoint} has no mask token, so it decodes in mode ar only.")
        if request.sampler == "trained" and not bounds.trained:
            raise RequestError(f"{self.checkpoint} has no trained sampler: choose confidence, entropy or fixed.")
        return tokens

    def _prompt(self, request: Request) -> list[int]:
        """Ids of the prompt, without those that an answer begins with."""
        if request.images:
            raise RequestError(
                f"{self.checkpoint} sees no pictures: leave them out, or choose a checkpoint that does ({DEFAULT})."
            )
        if request.prompt_ids is not None:
            return list(request.prompt_ids)
        return self._encoded(request)

    def _encoded(self, request: Request, images: Sequence[int] = ()) -> list[int]:
        """Ids of a prompt that is text, with what comes before it. images: a token id per picture."""
        mask = self.bounds.mask_token_id
        return self.tokenizer.encode(request.prompt, request.raw, images, mask, request.system, request.history)

    @property
    def sees(self) -> bool:
        """Whether prompts may bring pictures."""
        return False

    def grids(self, request: Request) -> list[tuple[int, int]]:
        """(rows, columns) of the tokens that each picture of a request becomes."""
        return []

    def fill(self, request: Request) -> Request:
        """The request with this checkpoint's defaults in place of None."""
        return self.defaults.fill(request)

    def exact_for(self, request: Request) -> bool:
        """Whether self-speculation's text is AR's in a run of this request, as far as rounding goes."""
        trees = request.draft == "tree" and "self-speculation" in request.modes
        return self.exact and (self.bounds.exact_trees or not trees)

    def recorder(self, request: Request) -> Recorder:
        """A Recorder for this request: its trace has everything but events."""
        filled = self.fill(request)
        head = Trace(
            checkpoint=self.checkpoint,
            tokenizer=self.tokenizer.name,
            device=self.device,
            dtype=self.dtype,
            exact=self.exact_for(filled),
            versions=self.versions,
            request=filled.to_json(),
            special=self.tokenizer.special_ids,
            image_grids=self.grids(filled),
        )
        return Recorder(head, filled.modes, self.tokenizer.decode, self.tokenizer.token_text)

    def generate(self, request: Request, on_event: Callable[[Event], Any] | None = None) -> Trace:
        """Run a request to its end, or its time limit, and return the whole trace.

        on_event: called after every forward; what it raises ends the run at once.
        """
        recorder = self.recorder(request)
        with closing(self.stream(request)) as events:
            for event in events:
                if event is None:  # of an engine elsewhere: nothing has come for a while
                    continue
                recorder.add(event)
                if on_event:
                    on_event(event)
        return recorder.finish("time")
