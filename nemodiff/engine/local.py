"""Engine: one loaded model. stream(request) → Events, generate(request) → Trace."""

from __future__ import annotations

import gc
import math
import platform
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from nemodiff import samplers
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.decode import DECODERS, LaneRun, Prefill, Seen, Settings, quadratic_layouts, race, shapes, synchronise
from nemodiff.decode.speed_of_light import BUDGET, speed_of_light
from nemodiff.decode.stops import Stops
from nemodiff.engine.devices import describe_device
from nemodiff.engine.interface import Bounds, Defaults, EngineInterface, Events
from nemodiff.engine.sight import Sight
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model.draft_head import WeighsDrafts
from nemodiff.model.layout import Layout
from nemodiff.model.memory import enough_memory, peak, reset_peak
from nemodiff.model.row_costs import look_again
from nemodiff.model.runner import Runner
from nemodiff.model.transformer import Transformer
from nemodiff.model.vision import grid
from nemodiff.model.weights import settle_rows
from nemodiff.request import Request
from nemodiff.samplers.trained import TrainedSampler
from nemodiff.trace.events import Event, Trace
from nemodiff.trace.oracle import Progress

#: How tokenizers spell the tokens of a picture whose ids the config leaves out.
_IMAGE_TOKENS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")


class _Ended(threading.local):
    """Of the run that ended last in this thread: the peak of its memory, where that is known."""

    peak: int | None = None


class Engine(EngineInterface):
    """One model and its tokenizer. One run at a time: a second `stream` waits until the first is closed."""

    def __init__(
        self,
        checkpoint: str,
        model: Runner,
        tokenizer: Tokenizer,
        defaults: Defaults,
        sampler: TrainedSampler | None = None,
        sight: Sight | None = None,
        draft_head: WeighsDrafts | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self._model: Runner | None = model
        self.tokenizer = tokenizer
        self.defaults = replace(defaults, draft_head=draft_head is not None)
        #: The trained sampler that came with the checkpoint, if one did.
        self.sampler = sampler
        #: The draft head that came with it.
        self.draft_head = draft_head
        self._sight = sight or Sight.of(model)
        self.dtype = model.dtype_name
        self.device = describe_device(model.device)
        #: Which attention runs in block-shaped forwards; prompts always run torch's SDPA.
        self.attention = model.attention
        self.versions = {
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "attention": self.attention,
        }
        self._lock = threading.Lock()
        self._ended = _Ended()
        self._thread: int | None = None  # that decodes now, or did last before it handed its stream to another one
        self._warm: set[tuple[bool, int]] = set()  # shapes that ran, with and without pictures

    @property
    def model(self) -> Runner:
        """The loaded model. Raises RequestError when the engine was closed."""
        if self._model is None:
            raise RequestError(f"{self.checkpoint} is no longer loaded: load it again.")
        return self._model

    @property
    def sees(self) -> bool:
        """Whether prompts may bring pictures."""
        return self._sight is not None

    @property
    def weight_bytes(self) -> int:
        """Memory that closing this engine gives back, in bytes."""
        if self._model is None:
            return 0
        seeing = self._sight.loaded if self._sight else None
        second = seeing.nbytes if seeing and seeing is not self._model else 0
        return self._model.nbytes + second

    def settle(self) -> None:
        for model in (self.model, self._sight.loaded if self._sight else None):
            if isinstance(model, Transformer):
                settle_rows(model)

    def close(self) -> None:
        """Free the model's memory, once a run that goes on has ended; further requests are refused."""
        self._check_turn("close the engine")
        with self._lock:
            self._model = self._sight = None
        gc.collect()  # layers and their tables may still hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check_turn(self, what: str) -> None:
        """Raises RequestError where this thread would wait for itself: for a stream of its own that has not ended."""
        if self._thread == threading.get_ident():
            raise RequestError(f"A stream of this engine goes on in this thread: end or close it before you {what}.")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    @property
    def bounds(self) -> Bounds:
        config = self.model.config
        return Bounds(
            config.vocab_size,
            config.context_length,
            config.mask_token_id,
            trained=self.sampler is not None,
            exact_trees=self.model.exact_trees,
        )

    @property
    def exact(self) -> bool:
        return self.model.exact

    def _prompt(self, request: Request) -> list[int]:
        if not (request.images and self.sees):
            return super()._prompt(request)
        tokens = self._encode_with_pictures(request) if request.prompt_ids is None else list(request.prompt_ids)
        holders, features = len(self._places(tokens)), sum(rows * columns for rows, columns in self.grids(request))
        if holders != features:
            raise RequestError(
                f"The prompt has {holders:,} image tokens for pictures of {features:,} features: give one token "
                "a feature."
            )
        return tokens

    def grids(self, request: Request) -> list[tuple[int, int]]:
        """(rows, columns) of the tokens that each picture of a request becomes; none where they are not seen."""
        if self._sight is None:
            return []
        return [grid(self._sight.config, picture.width, picture.height) for picture in request.images]

    def _encode_with_pictures(self, request: Request) -> list[int]:
        """The prompt's ids in which one placeholder per picture has grown to its rows, each with its break or end."""
        place, rest, end = self._image_ids()
        name = self.tokenizer.token_text(place)
        if any(str(name) in text for text in request.texts):
            raise RequestError(f"The prompt's text holds the image token {name!r} itself: take it out.")
        tokens = self._encoded(request, [place] * len(request.images))
        if tokens.count(place) != len(request.images):
            raise RequestError(
                f"{self.checkpoint}'s chat template leaves out the image token {name!r}: fetch it again."
            )
        grids = iter(self.grids(request))
        whole: list[int] = []
        for token in tokens:
            if token == place:
                rows, columns = next(grids)
                whole += ([place] * columns + [rest]) * rows
                whole[-1] = end
            else:
                whole.append(token)
        return whole

    def _places(self, tokens: list[int]) -> list[int]:
        place = self._image_ids(1)[0]
        return [index for index, token in enumerate(tokens) if token == place]

    def _image_ids(self, count: int = 3) -> list[int]:
        """The first `count` ids of placeholder, break and end, from the config or else the tokenizer."""
        if self._sight is None:
            return []
        vision = self._sight.config
        stated = (vision.image_token_id, vision.image_break_token_id, vision.image_end_token_id)[:count]
        ids: list[int] = []
        for token, name in zip(stated, _IMAGE_TOKENS, strict=False):
            known = self.tokenizer.find(name) if token is None else token
            if known is None:
                raise RequestError(
                    f"{self.checkpoint} names no {name} token, in its config or its tokenizer: fetch it again."
                )
            ids.append(known)
        return ids

    def _look(self, request: Request, prompt: list[int]) -> Generator[None, None, Seen | None]:
        """The features of a request's pictures, in the order of their tokens; 0 ms when all were kept from before.
        Yields between two pictures."""
        if not request.images or self._sight is None:
            return None
        _, pictures = self._sight.open()
        features: list[torch.Tensor] = []
        took = 0.0
        for picture in request.images:
            if features:
                yield
            known = pictures.knows(picture)
            synchronise(self.model.device)
            began = time.perf_counter()
            features.append(pictures.encode(picture))
            synchronise(self.model.device)
            took += 0.0 if known else (time.perf_counter() - began) * 1000
        # Of the ids only those of the prompt: an answer may repeat the token.
        places = self._places(prompt[: len(prompt) - len(request.answer_ids)])
        return Seen(torch.cat(features), places, took)

    def stream(self, request: Request) -> Events:
        """Decode in all asked modes at once; one Event per forward, of the lane that is furthest behind.

        Raises RequestError here, before the first event. Closing it stops the model within one forward, or one piece
        of a long prompt; past `time_limit` it ends early, with lanes unfinished.
        """
        prompt = self.encode(request)
        return Events(self._run(prompt, self._settings(self.fill(request)), request))

    def ceiling(self, request: Request, budget: int | None = None) -> Generator[Progress | None, None, None]:
        if budget is not None and budget < 1:
            raise RequestError(f"The budget must be 1 forward or more, not {budget}.")
        filled = replace(
            self.fill(request),
            modes=("diffusion",),
            draft="linear",
            acceptance="match",
            ar_weight=1.0,
            rows=None,
            alternatives=0,
            max_thinking_tokens=None,
            time_limit=None,
        )
        self.encode(filled)
        return self._ceiling(filled, budget or BUDGET * self.defaults.block_length_of(filled))

    def _ceiling(self, request: Request, budget: int) -> Generator[Progress | None, None, None]:
        with closing(self.lane(request, "diffusion")) as prefilling:
            for lane in prefilling:
                if lane is None:
                    yield Progress(0, request.max_new_tokens, 0)
                else:
                    yield from speed_of_light(lane, request.max_new_tokens, budget)

    def lane(self, request: Request, mode: str) -> Generator[LaneRun | None, None, None]:
        """A lane of `mode` after its prefill, for analyses that decode by themselves; before it, None after each piece
        of a long prompt. Other runs wait until it is closed.

        Raises RequestError as `stream` does, with the first value.
        """
        prompt, settings = self.encode(request), self._settings(self.fill(request))
        with self._taken(prompt, settings, request) as model:
            prefill = yield from self._prefill(model, prompt, settings, request)
            lane = LaneRun(mode, model, prefill, settings)
            model.prepare(lane.cache, shapes(mode, model, settings))
            yield lane

    @contextmanager
    def _taken(self, prompt: list[int], settings: Settings, request: Request) -> Iterator[Runner]:
        """The model for one run, warm."""
        what = f"decode {len(prompt):,} + {settings.max_new_tokens:,} tokens"
        self._check_turn("start another one")
        with self._lock, enough_memory(what, RequestError), self._turn():
            model = self._model_of(request)
            self._warm_up(model, settings)
            reset_peak(model.device)
            try:
                yield model
            finally:
                self._ended.peak = peak(model.device)

    def _model_of(self, request: Request) -> Runner:
        """The weights that a request runs in: text always the same ones, whatever was seen before."""
        if not request.images or self._sight is None:
            return self.model
        try:
            return self._sight.open()[0]
        except CheckpointError as error:
            raise RequestError(f"The picture cannot be looked at: {error}") from error

    def _prefill(
        self, model: Runner, prompt: list[int], settings: Settings, request: Request
    ) -> Generator[None, None, Prefill]:
        """The prompt's forward; yields wherever it can be stopped."""
        seen = yield from self._look(request, prompt)
        capacity = len(prompt) + settings.max_new_tokens + settings.most_rows
        prefill = Prefill(model, prompt, capacity, seen, paused=True)
        yield from prefill.pieces
        return prefill

    def _run(self, prompt: list[int], settings: Settings, request: Request) -> Generator[Event | None, None, None]:
        with self._taken(prompt, settings, request) as model:
            deadline = math.inf if request.time_limit is None else time.monotonic() + request.time_limit
            events = self._events(model, prompt, settings, request)
            try:
                for event in events:
                    yield event
                    self._thread = threading.get_ident()
                    if time.monotonic() > deadline:
                        return
            finally:
                events.close()

    def _events(
        self, model: Runner, prompt: list[int], settings: Settings, request: Request
    ) -> Generator[Event | None, None, None]:
        prefill = yield from self._prefill(model, prompt, settings, request)
        lanes = {mode: LaneRun(mode, model, prefill, settings) for mode in request.modes}
        for mode, lane in lanes.items():
            model.prepare(lane.cache, shapes(mode, model, settings))
        yield from race({mode: DECODERS[mode](lane) for mode, lane in lanes.items()})

    def generate(self, request: Request, on_event: Callable[[Event], Any] | None = None) -> Trace:
        trace = super().generate(request, on_event)
        for lane in trace.lanes:
            lane.peak_memory = self._ended.peak
        return trace

    def _settings(self, request: Request) -> Settings:
        return Settings(
            max_new_tokens=request.max_new_tokens,
            block_length=self.defaults.block_length_of(request),
            sampler=self._sampler(request),
            temperature=request.temperature,
            seed=request.seed,
            eos=frozenset() if request.ignore_eos else frozenset(self.model.config.eos_token_ids),
            adapter=request.adapter,
            alternatives=request.alternatives,
            thinking=self._thinking(request),
            draft=request.draft,
            acceptance=request.acceptance,
            ar_weight=request.ar_weight,
            rows=request.rows,
            stops=self._stops(request),
            draft_head=self.draft_head if request.draft_head else None,
        )

    def _stops(self, request: Request) -> Stops | None:
        if not request.stop:
            return None
        before = b"".join(map(self.tokenizer.written, request.answer_ids))
        return Stops(request.stop, self.tokenizer.written, before)

    def _sampler(self, request: Request) -> samplers.Sampler:
        threshold = self.defaults.threshold_of(request.sampler) if request.threshold is None else request.threshold
        order = request.order or self.defaults.order
        if request.sampler == "fixed":
            return samplers.fixed(request.steps or max(1, self.defaults.block_length_of(request) // 2), order)
        if request.sampler == "entropy":
            return samplers.entropy(request.entropy_bound, order)
        if request.sampler == "trained":
            if self.sampler is None:
                raise RequestError(f"{self.checkpoint} has no trained sampler: choose confidence, entropy or fixed.")
            return samplers.trained(self.sampler, threshold, order)
        return samplers.confidence(threshold, order)

    def _thinking(self, request: Request) -> tuple[int, int] | None:
        if request.max_thinking_tokens is None:
            return None
        end = self.tokenizer.find("</think>")
        if end is None:
            raise RequestError(f"{self.checkpoint} has no </think> token: leave max_thinking_tokens out.")
        if end in request.answer_ids:
            return None
        return max(0, request.max_thinking_tokens - len(request.answer_ids)), end

    def _warm_up(self, model: Runner, settings: Settings) -> None:
        """Run each shape once before it is timed: the first call of a shape also builds its kernel."""
        layouts: dict[int, Layout | None] = dict.fromkeys((1, settings.block_length))
        if settings.draft == "quadratic":
            made = quadratic_layouts(model, settings.block_length, settings.ar_weight).values()
            layouts |= {layout.rows: layout for layout in made}
        if settings.draft == "tree":
            look_again(model)
        seeing = model is not self._model
        cold = {rows for rows in layouts if (seeing, rows) not in self._warm}
        if cold:
            cache = model.new_cache(settings.most_rows)
            for rows in sorted(cold):
                tokens = torch.zeros(rows, dtype=torch.long, device=model.device)
                model.forward(tokens, cache, layout=layouts[rows])
            self._warm |= {(seeing, rows) for rows in cold}
