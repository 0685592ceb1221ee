"""From a name to an Engine: files, device, dtype and whether it all fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch

from nemodiff.checkpoints.catalogue import CATALOGUE, DEFAULT, Files, folder_of, is_folder, resolve
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.engine.interface import Defaults, EngineInterface
from nemodiff.engine.local import Engine
from nemodiff.engine.sight import Sight
from nemodiff.errors import CheckpointError
from nemodiff.json_fields import Fields
from nemodiff.model.adapter import merge_adapter
from nemodiff.model.config import ModelConfig, VisionConfig
from nemodiff.model.cpu import int8_obstacle, quantise
from nemodiff.model.cuda.graphs import StaticForwards
from nemodiff.model.memory import shortage
from nemodiff.model.runner import Runner
from nemodiff.model.weights import LORA, check_files, load_draft_lora, load_model, read_config, read_json
from nemodiff.request import ORDERS
from nemodiff.samplers.trained import TrainedSampler, load_sampler

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def load(
    name: str = DEFAULT,
    *,
    device: str | None = None,
    dtype: str | None = None,
    report: Callable[[str], None] = lambda line: None,
    replacing: EngineInterface | None = None,
    graphs: bool = False,
    lazy_sight: bool = True,
) -> Engine:
    """Load a checkpoint: a catalogue name, a folder or a hub id ("owner/name", "owner/name@revision").

    device: "cpu" or "cuda" (default: cuda if there is one). dtype: "float32", "bfloat16" or "int8" (default: what the
    device is fastest at). report: called with lines of progress. replacing: an engine to close in its favour; it
    stays open when loading fails, unless both do not fit in memory and the new one's files turn out bad only while
    they are read. graphs: block-shaped forwards of fixed shapes, captured as CUDA graphs on a GPU and with flash-attn
    where that imports; not run on a GPU by this project. lazy_sight: a second model for pictures is loaded with the
    first one and not at once, which a process whose copies decode wants. Raises CheckpointError.
    """
    target = pick_device(device)
    kind = pick_dtype(dtype, target, graphs)
    loaded = loaded_dtype(kind)
    files = resolve(name, report)
    config, defaults = _configure(files)
    needed = check_files(files.weights, config) * loaded.itemsize
    tokenizer = Tokenizer(files.weights)
    config = _with_an_end(config, tokenizer, files.name, report)
    if shortage(needed, target):
        if reason := shortage(needed, target, _given_back(replacing, target)):
            raise CheckpointError(f"{files.name} does not fit: {reason}.")
        if replacing:  # it fits once this one is gone
            replacing.close()
    runner = _runner(files, config, target, kind, graphs)
    if replacing:
        replacing.close()
    sampler = _trained_sampler(files, runner)
    if sampler:
        defaults = dataclasses.replace(defaults, trained_threshold=sampler.threshold)
    sight = _sight(files, config, target, kind, graphs, runner) if files.vision else None
    if sight and not lazy_sight:
        sight.open()
    return Engine(files.name, runner, tokenizer, defaults, sampler, sight)


def _runner(
    files: Files, config: ModelConfig, target: torch.device, kind: torch.dtype, graphs: bool, text: Runner | None = None
) -> Runner:
    """The model of some files. text: the one whose table of embeddings it shares, for a model with a packed tower."""
    model = load_model(files.weights, target, loaded_dtype(kind), config, files.vision if text else None)
    if files.adapter:
        merge_adapter(model, files.adapter)
        if (files.adapter / LORA).is_dir():
            load_draft_lora(model, files.adapter / LORA)
    if text and files.vision:
        merge_adapter(model, files.vision)  # what lets the model read the tower's features
        model.embed = text.embed
        if config.tie_word_embeddings:
            model.head = text.embed
    if graphs:
        model.static = StaticForwards(model)
    return quantise(model) if kind is torch.int8 else model


def _sight(
    files: Files, config: ModelConfig, target: torch.device, kind: torch.dtype, graphs: bool, text: Runner
) -> Sight:
    """A packed tower and a second model that reads it, loaded when the first picture comes."""
    if files.vision is None:
        raise ValueError("these files have no tower")
    settings, file = read_json(files.vision / "adapter_config.json"), f"{files.name}/adapter_config.json"
    vision = VisionConfig.from_json(settings, config.vocab_size, file)

    def open_model() -> Runner:
        return _runner(files, dataclasses.replace(config, vision=vision), target, kind, graphs, text)

    return Sight(vision, open_model)


def _trained_sampler(files: Files, model: Runner) -> TrainedSampler | None:
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
    replacing: EngineInterface | None = None,
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
        folder, reasons[name] = folder_of(name), None
        if is_folder(name) and (folder / "config.json").is_file():
            try:
                reasons[name] = shortage(check_files(folder, read_config(folder)) * kind.itemsize, target, freed)
            except CheckpointError as error:
                reasons[name] = str(error)
    return reasons


def _given_back(engine: EngineInterface | None, device: torch.device) -> int:
    """Bytes that closing `engine` frees on `device`."""
    if not isinstance(engine, Engine) or not engine.weight_bytes:
        return 0
    return engine.weight_bytes if engine.model.device.type == device.type else 0


def _with_an_end(config: ModelConfig, tokenizer: Tokenizer, name: str, report: Callable[[str], None]) -> ModelConfig:
    """The config with what ends an answer: where its files name none, the tokenizer's own end."""
    if config.eos_token_ids:
        return config
    if tokenizer.eos_id is not None and tokenizer.eos_id < config.vocab_size:
        return dataclasses.replace(config, eos_token_ids=(tokenizer.eos_id,))
    report(f"{name} names no token that ends an answer: answers end at their length limit.")
    return config


def _configure(files: Files) -> tuple[ModelConfig, Defaults]:
    config, defaults = read_config(files.weights), Defaults()
    if files.adapter:
        adapter = Fields(read_json(files.adapter / "adapter_config.json"), f"{files.name}/adapter_config.json")
        for key in ("mask_token_id", "shift_logits", "block_size"):
            if adapter.get(key) is None:
                raise adapter.missing(key)
        if type(adapter.get("mask_token_id")) is not int:
            raise adapter.off("mask_token_id", "it must be one token's id")
        config = dataclasses.replace(
            config,
            mask_token_id=adapter.ids("mask_token_id", config.vocab_size)[0],
            shift_logits=adapter.flag("shift_logits"),
            block_size=adapter.count("block_size"),
        )
        order = adapter.get("order") or "best"
        if order not in ORDERS:
            raise adapter.off("order", f"it must be {' or '.join(ORDERS)}")
        defaults = Defaults(threshold=adapter.number("threshold", 0.9, 0, 1), order=order)
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

    By default int8 on a CPU, where it halves the bytes that a forward reads; else bfloat16 in hardware.
    graphs: as for `load`; static shapes run in floats only.
    """
    if name is None:
        if device.type == "cpu" and not graphs and int8_obstacle(device) is None:
            return torch.int8
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise CheckpointError(f"Unknown dtype {name!r}: choose {' or '.join(DTYPES)}.")
    if name == "int8" and graphs:
        raise CheckpointError("Static shapes do not run in int8: choose float32 or bfloat16, or leave graphs out.")
    if name == "int8" and (reason := int8_obstacle(device)):
        raise CheckpointError(f"{reason[0].upper()}{reason[1:]}: choose float32 or bfloat16.")
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
