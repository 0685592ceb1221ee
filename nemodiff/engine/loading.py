"""From a name to an Engine: files, device, dtype and whether it all fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from nemodiff.checkpoints.catalogue import CATALOGUE, DEFAULT, Files, folder_of, is_folder, resolve
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.engine.devices import loaded_dtype, pick_device, pick_dtype, pick_graphs, torch_runner
from nemodiff.engine.interface import Defaults, EngineInterface
from nemodiff.engine.local import Engine
from nemodiff.engine.sight import Sight
from nemodiff.errors import CheckpointError
from nemodiff.json_fields import Fields
from nemodiff.model.adapter import merge_adapter
from nemodiff.model.config import ModelConfig, VisionConfig
from nemodiff.model.cpu import CpuDraftHead, CpuModel, quantise
from nemodiff.model.draft_head import DraftHead, load_head
from nemodiff.model.memory import shortage
from nemodiff.model.runner import Runner
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import LORA, check_files, load_draft_lora, load_model, read_config, read_json
from nemodiff.request import DRAFTS, ORDERS
from nemodiff.samplers.trained import TrainedSampler, load_sampler

Network = TypeVar("Network", TrainedSampler, DraftHead)


def load(
    name: str = DEFAULT,
    *,
    device: str | None = None,
    dtype: str | None = None,
    report: Callable[[str], None] = lambda line: None,
    replacing: EngineInterface | None = None,
    graphs: str | bool = "auto",
    lazy_sight: bool = True,
) -> Engine:
    """Load a checkpoint: a catalogue name, a folder or a hub id ("owner/name", "owner/name@revision").

    device: "cpu" or "cuda" (default: cuda if there is one). dtype: "float32", "bfloat16" or "int8" (default: what the
    device is fastest at). report: called with lines of progress. replacing: an engine to close in its favour; it
    stays open when loading fails, unless both do not fit in memory and the new one's files turn out bad only while
    they are read. graphs: "auto" (on a GPU block-shaped forwards become CUDA graphs, with flash-attn where it loads, if
    they do what eager torch does here; else a line says what failed), "on" (what fails is an error) or "off".
    lazy_sight: a second model for pictures is loaded with the first one and not at once, which a process whose copies
    decode wants. Raises CheckpointError.
    """
    target = pick_device(device, report)
    kind, graphs = pick_dtype(dtype, target), pick_graphs(graphs, target)
    loaded = loaded_dtype(kind)
    files = resolve(name, report)
    config, defaults = _configure(files)
    needed = check_files(files.weights, config) * loaded.itemsize
    tokenizer = Tokenizer(files.weights)
    config = _with_an_end(config, tokenizer, files.name, report)
    if shortage(needed, target, config=config):
        if reason := shortage(needed, target, _given_back(replacing, target), config):
            raise CheckpointError(f"{files.name} does not fit: {reason}.")
        if replacing:  # it fits once this one is gone
            replacing.close()

    def open_runner(config: ModelConfig, text: Runner | None = None) -> Runner:
        """The model of these files. text: the one whose embeddings it shares, for a model with a packed tower."""
        model = _model(files, config, target, loaded, text)
        return quantise(model) if kind is torch.int8 else torch_runner(model, graphs, report)

    runner = open_runner(config)
    if replacing:
        replacing.close()
    sampler = _network(files, "sampler", load_sampler, runner)
    head = _network(files, "draft_head", load_head, runner)
    draft_head = CpuDraftHead(head, runner.kernels) if head and isinstance(runner, CpuModel) else head
    if sampler:
        defaults = dataclasses.replace(defaults, trained_threshold=sampler.threshold)
    sight = _sight(files, config, lambda seeing: open_runner(seeing, runner)) if files.vision else None
    if sight and not lazy_sight:
        sight.open()
    return Engine(files.name, runner, tokenizer, defaults, sampler, sight, draft_head)


def _model(
    files: Files, config: ModelConfig, target: torch.device, loaded: torch.dtype, text: Runner | None
) -> Transformer:
    model = load_model(files.weights, target, loaded, config, files.vision if text else None)
    if files.adapter:
        merge_adapter(model, files.adapter)
        if (files.adapter / LORA).is_dir():
            load_draft_lora(model, files.adapter / LORA)
    if text and files.vision:
        merge_adapter(model, files.vision)  # what lets the model read the tower's features
        model.embed = text.embed
        if config.tie_word_embeddings:
            model.head = text.embed
    return model


def _sight(files: Files, config: ModelConfig, open_runner: Callable[[ModelConfig], Runner]) -> Sight:
    """A packed tower and a second model that reads it, loaded when the first picture comes."""
    if files.vision is None:
        raise ValueError("these files have no tower")
    settings, file = read_json(files.vision / "adapter_config.json"), f"{files.name}/adapter_config.json"
    vision = VisionConfig.from_json(settings, config.vocab_size, file)
    return Sight(vision, lambda: open_runner(dataclasses.replace(config, vision=vision)))


def _network(files: Files, name: str, read: Callable[[Path], Network], model: Runner) -> Network | None:
    """A small network in the folder `name` beside the adapter, or beside the weights, attached to the model's
    embeddings; None where there is none."""
    folder = (files.adapter or files.weights) / name
    if not (folder / f"{name}_config.json").is_file():
        return None
    network = read(folder)
    network.attach(model.embed.weight)
    return network


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
                config = read_config(folder)
                reasons[name] = shortage(check_files(folder, config) * kind.itemsize, target, freed, config)
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
        chosen = {}
        for name, names in (("order", ORDERS), ("draft", DRAFTS)):
            chosen[name] = adapter.get(name) or getattr(defaults, name)
            if chosen[name] not in names:
                raise adapter.off(name, f"it must be {' or '.join(names)}")
        defaults = Defaults(threshold=adapter.number("threshold", 0.9, 0, 1), **chosen)
    return config, dataclasses.replace(defaults, block_length=max(2, min(config.block_size, 64)))
