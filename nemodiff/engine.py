"""Engine: one loaded model. stream(request) → Events, generate(request) → Trace."""

from __future__ import annotations

import dataclasses
import gc
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from nemodiff import samplers
from nemodiff.checkpoints import CATALOGUE, DEFAULT, Files, resolve
from nemodiff.decode import DECODERS, LaneRun, Prefill, Settings, quadratic_layouts, race
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model.config import ModelConfig
from nemodiff.model.int8 import int8_obstacle
from nemodiff.model.layout import Layout
from nemodiff.model.memory import enough_memory, shortage
from nemodiff.model.quantise import quantise
from nemodiff.model.static import StaticForwards
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import check_files, load_model, merge_adapter, read_config, read_json
from nemodiff.recorder import Recorder
from nemodiff.request import MAX_QUADRATIC_LENGTH, Request
from nemodiff.samplers.trained import TrainedSampler, load_sampler
from nemodiff.tokenizer import Tokenizer
from nemodiff.trace import Event, Trace

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a Request's None means for this checkpoint."""

    block_length: int = 8
    threshold: float = 0.9
    #: The threshold of the trained sampler, on its own scale.
    trained_threshold: float = 0.9


class Engine:
    """One model and its tokenizer. One run at a time: a second `stream` waits until the first is closed."""

    def __init__(
        self,
        checkpoint: str,
        model: Transformer,
        tokenizer: Tokenizer,
        defaults: Defaults,
        sampler: TrainedSampler | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self._model: Transformer | None = model
        self.tokenizer = tokenizer
        self.defaults = defaults
        #: The trained sampler that came with the checkpoint, if one did.
        self.sampler = sampler
        self.dtype = model.dtype_name
        self.device = describe_device(model.device)
        #: Which attention runs in block-shaped forwards; prompts always run torch's SDPA.
        self.attention = _attention(model)
        self._lock = threading.Lock()
        self._warm: set[int] = set()

    @property
    def model(self) -> Transformer:
        """The loaded model. Raises RequestError when the engine was closed."""
        if self._model is None:
            raise RequestError(f"{self.checkpoint} is no longer loaded: load it again.")
        return self._model

    @property
    def weight_bytes(self) -> int:
        """Memory that closing this engine gives back, in bytes."""
        if self._model is None:
            return 0
        return self._model.nbytes

    def close(self) -> None:
        """Free the model's memory, once a run that goes on has ended; further requests are refused."""
        with self._lock:
            self._model = None
        gc.collect()  # layers and their tables may still hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def context_length(self) -> int:
        """Most tokens, prompt and answer together, that the model was made for."""
        return self.model.config.context_length

    def encode(self, request: Request) -> list[int]:
        """The prompt's token ids. Raises RequestError when it does not fit the model."""
        config = self.model.config
        tokens = (
            list(request.prompt_ids)
            if request.prompt_ids is not None
            else self.tokenizer.encode(request.prompt, request.raw)
        )
        tokens += request.answer_ids
        if not tokens:
            raise RequestError("The prompt is empty: write something for the model to answer.")
        if bad := [token for token in tokens if not 0 <= token < config.vocab_size]:
            raise RequestError(f"Token id {bad[0]} is not in the vocabulary (0 to {config.vocab_size - 1}).")
        if len(tokens) + request.max_new_tokens > self.context_length:
            raise RequestError(
                f"The prompt's {len(tokens):,} tokens and {request.max_new_tokens:,} new ones exceed the "
                f"model's context of {self.context_length:,}: shorten the prompt or ask for fewer."
            )
        if config.mask_token_id is None and set(request.modes) != {"ar"}:
            raise RequestError(f"{self.checkpoint} has no mask token, so it decodes in mode ar only.")
        if request.sampler == "trained" and self.sampler is None:
            raise RequestError(f"{self.checkpoint} has no trained sampler: choose confidence, entropy or fixed.")
        if request.draft == "quadratic" and self.model.static:
            raise RequestError("draft quadratic does not run on static shapes: load the checkpoint without graphs.")
        return tokens

    def threshold(self, sampler: str) -> float:
        """The threshold that a request without one gets."""
        return self.defaults.trained_threshold if sampler == "trained" else self.defaults.threshold

    def fill(self, request: Request) -> Request:
        """The request with this checkpoint's defaults in place of None."""
        block_length = request.block_length or self.defaults.block_length
        if request.draft == "quadratic":
            block_length = min(block_length, MAX_QUADRATIC_LENGTH)
        return dataclasses.replace(
            request,
            block_length=block_length,
            threshold=self.threshold(request.sampler) if request.threshold is None else request.threshold,
            steps=min(request.steps or max(1, block_length // 2), block_length - 1),
        )

    def recorder(self, request: Request) -> Recorder:
        """A Recorder for this request: its trace has everything but events."""
        filled = self.fill(request)
        head = Trace(
            checkpoint=self.checkpoint,
            tokenizer=self.tokenizer.name,
            device=self.device,
            dtype=self.dtype,
            exact=self.model.exact and (self.model.static is None or self.model.static.exact),
            versions={
                "python": platform.python_version(),
                "torch": version("torch"),
                "transformers": version("transformers"),
            },
            request=filled.to_json(),
            special=self.tokenizer.special_ids,
        )
        return Recorder(head, filled.modes, self.tokenizer.decode, self.tokenizer.token_text)

    def stream(self, request: Request) -> Iterator[Event]:
        """Decode in all asked modes at once; one Event a forward, of the lane that is furthest behind.

        Raises RequestError here, before the first event. Closing the generator stops the model within one forward;
        past `time_limit` it ends early, with lanes unfinished.
        """
        prompt = self.encode(request)
        return self._run(prompt, self._settings(self.fill(request)), request)

    @contextmanager
    def lane(self, request: Request, mode: str) -> Iterator[LaneRun]:
        """A lane of `mode` after its prefill, for analyses that decode by themselves; other runs wait meanwhile.

        Raises RequestError as `stream` does.
        """
        prompt, settings = self.encode(request), self._settings(self.fill(request))
        with self._prefilled(prompt, settings) as prefill:
            yield LaneRun(mode, self.model, prefill, settings)

    @contextmanager
    def _prefilled(self, prompt: list[int], settings: Settings) -> Iterator[Prefill]:
        what = f"decode {len(prompt):,} + {settings.max_new_tokens:,} tokens"
        with self._lock, enough_memory(what, RequestError):
            self._warm_up(settings)
            capacity = len(prompt) + settings.max_new_tokens + settings.most_rows
            yield Prefill(self.model, prompt, capacity, static=settings.draft == "linear")

    def _run(self, prompt: list[int], settings: Settings, request: Request) -> Iterator[Event]:
        with self._prefilled(prompt, settings) as prefill:
            deadline = None if request.time_limit is None else time.monotonic() + request.time_limit
            lanes = {mode: DECODERS[mode](LaneRun(mode, self.model, prefill, settings)) for mode in request.modes}
            events = race(lanes)
            try:
                for event in events:
                    yield event
                    if deadline is not None and time.monotonic() > deadline:
                        return
            finally:
                events.close()

    def generate(self, request: Request, on_event: Callable[[Event], None] | None = None) -> Trace:
        """Run a request to its end, or its time limit, and return the whole trace.

        on_event: called after every forward; what it raises ends the run at once.
        """
        recorder = self.recorder(request)
        with closing(self.stream(request)) as events:
            for event in events:
                recorder.add(event)
                if on_event:
                    on_event(event)
        trace = recorder.finish("time")
        if self.model.device.type == "cuda":
            for lane in trace.lanes:
                lane.peak_memory = torch.cuda.max_memory_allocated(self.model.device)
        return trace

    def _settings(self, request: Request) -> Settings:
        sampler = {
            "confidence": lambda: samplers.confidence(request.threshold),
            "fixed": lambda: samplers.fixed(request.steps),
            "entropy": lambda: samplers.entropy(request.entropy_bound),
            "trained": lambda: samplers.trained(self.sampler, request.threshold),
        }[request.sampler]()
        return Settings(
            max_new_tokens=request.max_new_tokens,
            block_length=request.block_length,
            sampler=sampler,
            temperature=request.temperature,
            seed=request.seed,
            eos=frozenset() if request.ignore_eos else frozenset(self.model.config.eos_token_ids),
            adapter=request.adapter,
            alternatives=request.alternatives,
            thinking=self._thinking(request),
            draft=request.draft,
            acceptance=request.acceptance,
            ar_weight=request.ar_weight,
        )

    def _thinking(self, request: Request) -> tuple[int, int] | None:
        if request.max_thinking_tokens is None:
            return None
        end = self.tokenizer.find("</think>")
        if end is None:
            raise RequestError(f"{self.checkpoint} has no </think> token: leave max_thinking_tokens out.")
        if end in request.answer_ids:
            return None
        return max(0, request.max_thinking_tokens - len(request.answer_ids)), end

    def _warm_up(self, settings: Settings) -> None:
        """Run each shape once before it is timed: the first call of a shape also builds its kernel."""
        layouts: dict[int, Layout | None] = dict.fromkeys((1, settings.block_length))
        if settings.draft == "quadratic":
            made = quadratic_layouts(self.model, settings.block_length, settings.ar_weight).values()
            layouts |= {layout.rows: layout for layout in made}
        shapes = layouts.keys() - self._warm
        if shapes:
            cache = self.model.new_cache(settings.most_rows)
            for rows in sorted(shapes):
                tokens = torch.zeros(rows, dtype=torch.long, device=self.model.device)
                self.model(tokens, cache, causal=True, layout=layouts[rows])
            self._warm |= shapes


def load(
    name: str = DEFAULT,
    *,
    device: str | None = None,
    dtype: str | None = None,
    report: Callable[[str], None] = lambda line: None,
    replacing: Engine | None = None,
    graphs: bool = False,
) -> Engine:
    """Load a checkpoint: a catalogue name, a folder or a hub id ("owner/name", "owner/name@revision").

    device: "cpu" or "cuda" (default: cuda if there is one). dtype: "float32", "bfloat16" or "int8" (default: what the
    device is fastest at). report: called with lines of progress. replacing: an engine to close in its favour; it
    stays open when loading fails, unless both do not fit in memory and the new one's files turn out bad only while
    they are read. graphs: block-shaped forwards of fixed shapes, captured as CUDA graphs on a GPU and with flash-attn
    where that imports; not run on a GPU by this project. Raises CheckpointError.
    """
    target = pick_device(device)
    kind = pick_dtype(dtype, target, graphs)
    loaded = loaded_dtype(kind)
    files = resolve(name, report)
    config, defaults = _configure(files)
    needed = check_files(files.weights, config) * loaded.itemsize
    tokenizer = Tokenizer(files.weights)
    if shortage(needed, target):
        if reason := shortage(needed, target, _given_back(replacing, target)):
            raise CheckpointError(f"{files.name} does not fit: {reason}.")
        replacing.close()
    model = load_model(files.weights, target, loaded, config)
    if files.adapter:
        merge_adapter(model, files.adapter)
    if kind is torch.int8:
        quantise(model)
    if replacing:
        replacing.close()
    if graphs:
        model.static = StaticForwards(model)
    sampler = _trained_sampler(files, model)
    if sampler:
        defaults = dataclasses.replace(defaults, trained_threshold=sampler.threshold)
    return Engine(files.name, model, tokenizer, defaults, sampler)


def _trained_sampler(files: Files, model: Transformer) -> TrainedSampler | None:
    """The sampler in the folder `sampler` beside the adapter, or beside the weights; None where there is none."""
    folder = (files.adapter or files.weights) / "sampler"
    if not (folder / "sampler_config.json").is_file():
        return None
    sampler = load_sampler(folder)
    sampler.attach(model.embed.weight)
    return sampler


def obstacles(
    device: str | None = None,
    dtype: str | None = None,
    replacing: Engine | None = None,
    more: Iterable[str] = (),
) -> dict[str, str | None]:
    """Why each checkpoint of the catalogue does not fit the free memory now, None where it does.

    more: further ones. Of a folder the reason may also be what is wrong with its files; the size of a hub repository
    is not known before it is fetched. replacing: an engine that would be closed first. device, dtype: as for `load`.
    """
    target = pick_device(device)
    kind, freed = loaded_dtype(pick_dtype(dtype, target)), _given_back(replacing, target)
    reasons = {entry.name: shortage(entry.parameters * kind.itemsize, target, freed) for entry in CATALOGUE}
    for name in more:
        folder, reasons[name] = Path(name).expanduser(), None
        if (folder / "config.json").is_file():
            try:
                reasons[name] = shortage(check_files(folder, read_config(folder)) * kind.itemsize, target, freed)
            except CheckpointError as error:
                reasons[name] = str(error)
    return reasons


def _given_back(engine: Engine | None, device: torch.device) -> int:
    """Bytes that closing `engine` frees on `device`."""
    return engine.weight_bytes if engine and engine.weight_bytes and engine.model.device.type == device.type else 0


def _configure(files: Files) -> tuple[ModelConfig, Defaults]:
    config, defaults = read_config(files.weights), Defaults()
    if files.adapter:
        adapter = read_json(files.adapter / "adapter_config.json")
        wanted = ("mask_token_id", "shift_logits", "block_size")
        if missing := [key for key in wanted if key not in adapter]:
            raise CheckpointError(
                f"{files.name}/adapter_config.json has no {missing[0]}; the checkpoint is incomplete."
            )
        config = dataclasses.replace(config, **{key: adapter[key] for key in wanted})
        defaults = Defaults(threshold=adapter.get("threshold", 0.9))
    return config, dataclasses.replace(defaults, block_length=max(2, min(config.block_size, 64)))


def pick_device(name: str | None) -> torch.device:
    """The device to run on. Raises CheckpointError when a GPU is asked for and there is none."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"Unknown device {name!r}: choose cpu or cuda.") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise CheckpointError(f"There is no {name} device on this machine: choose cpu.")
    return device


def pick_dtype(name: str | None, device: torch.device, graphs: bool = False) -> torch.dtype:
    """The dtype to run in. Raises CheckpointError when there is no such one, or the device cannot run it.

    By default int8 on CPUs that can, where it halves the bytes that a forward reads; else bfloat16 in hardware.
    graphs: as for `load`; static shapes run in floats only.
    """
    if name is None:
        if int8_obstacle(device) is None and not graphs:
            return torch.int8
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise CheckpointError(f"Unknown dtype {name!r}: choose {' or '.join(DTYPES)}.")
    if name == "int8" and graphs:
        raise CheckpointError("Static shapes do not run in int8: choose float32 or bfloat16, or leave graphs out.")
    if name == "int8" and (reason := int8_obstacle(device)):
        raise CheckpointError(f"{reason[0].upper()}{reason[1:]}: choose float32 or bfloat16.")
    if name == "int8" and graphs:
        raise CheckpointError("Static shapes do not run in int8: choose float32 or bfloat16, or leave graphs out.")
    return DTYPES[name]


def loaded_dtype(kind: torch.dtype) -> torch.dtype:
    """What weights are read in: int8 ones are made of bfloat16 ones."""
    return torch.bfloat16 if kind is torch.int8 else kind


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware here; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def _attention(model: Transformer) -> str:
    if model.static:
        return f"{model.static.attention}, static shapes" + (", CUDA graphs" if model.device.type == "cuda" else "")
    if model.exact:
        return "fixed-shape products" if model.attention is None else "SDPA, shapes that round alike"
    return "SDPA"


def describe_device(device: torch.device) -> str:
    """A name a reader can compare by: the GPU's, or the CPU's with torch's thread count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()} · {threads} thread{'s' if threads != 1 else ''}"


def _cpu_name() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip() + " CPU"
    return f"{platform.processor() or platform.machine()} CPU"
