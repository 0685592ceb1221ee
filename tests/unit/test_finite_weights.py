"""Weights that are no numbers are refused by name while they are read, in every file and every dtype."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemodiff.checkpoints.catalogue import Files
from nemodiff.engine import loading
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model.cpu import quantise
from nemodiff.model.weights import check_finite
from nemodiff.request import Request
from nemodiff.samplers.trained import SamplerConfig, TrainedSampler, load_sampler, save_sampler
from tests.helpers.checkpoints import DTYPES, random_llama, write_llama
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.vlm import write_vlm
from ui.live.models import Checkpoints
from ui.settings import Settings

ODD = [float("nan"), float("inf"), float("-inf")]


def spoil(file: Path, name: str, value: float, kind: torch.dtype | None = None) -> None:
    tensors = load_file(file)
    tensors[name] = tensors[name].to(kind or tensors[name].dtype)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file)


def refuse(folder, name, dtype="float32"):
    with pytest.raises(CheckpointError, match=rf"{name} holds values that are no finite numbers") as error:
        loading.load(str(folder), device="cpu", dtype=dtype)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [str(kind).removeprefix("torch.") for kind in DTYPES])
@pytest.mark.parametrize("value", ODD)
def test_weights(tmp_path, dtype, value):
    for name in ("model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight", "model.norm.weight"):
        folder = write_llama(random_llama(), tmp_path / name)
        spoil(folder / "model.safetensors", name, value)
        refuse(folder, name, dtype)


def test_weights_that_are_too_large_for_the_dtype(tmp_path):
    folder = write_llama(random_llama(), tmp_path / "m")
    spoil(folder / "model.safetensors", "model.norm.weight", 1e300, torch.float64)
    refuse(folder, "model.norm.weight")


def test_large_sums_are_no_reason(tmp_path):
    check_finite(torch.full((100,), 3e38), "x", "m")
    with pytest.raises(CheckpointError, match="m is damaged: x holds"):
        check_finite(torch.tensor([3e38, 3e38, float("nan")]), "x", "m")


def test_the_draft_lora(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "m", lora=True)
    name = "base_model.model.encoder.layers.1.self_attn.o_proj.lora_B.weight"
    spoil(folder / "linear_spec_lora" / "adapter_model.safetensors", name, float("nan"))
    refuse(folder, name)


def test_tower_and_projector(tmp_path):
    folder = write_vlm(tmp_path / "m")
    spoil(folder / "model.safetensors", "encoder.multi_modal_projector.linear_1.weight", float("inf"))
    refuse(folder, "encoder.multi_modal_projector.linear_1.weight")


def test_an_adapter(tmp_path, llama_folder, monkeypatch):
    folder = tmp_path / "adapter"
    folder.mkdir()
    tensors = {"mask_embedding": torch.zeros(32)}
    for layer in range(3):
        for part, (inputs, outputs) in {"qkv": (32, 128), "o": (64, 32), "gate_up": (32, 96), "down": (48, 32)}.items():
            for factor, shape in (("A", (2, inputs)), ("B", (outputs, 2))):
                tensors[f"layers.{layer}.{part}.lora_{factor}"] = torch.ones(shape, dtype=torch.int8)
                tensors[f"layers.{layer}.{part}.lora_{factor}.scale"] = torch.full(shape[:1], 0.001)
    settings = {"mask_token_id": 100, "shift_logits": True, "block_size": 8}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(loading, "resolve", lambda name, report: Files("adapter", llama_folder, folder))
    save_file(tensors, folder / "adapter.safetensors")
    assert loading.load("adapter", device="cpu", dtype="float32").generate(Request(prompt_ids=(5,), max_new_tokens=3))
    for name, told in (("layers.2.o.lora_A.scale", "layers.2.o.lora_A"), ("mask_embedding", "mask_embedding")):
        save_file(tensors, folder / "adapter.safetensors")
        spoil(folder / "adapter.safetensors", name, float("nan"))
        refuse("adapter", f"{told}.*")
    save_file(tensors | {"mask_embedding": torch.zeros(7)}, folder / "adapter.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its base model"):
        loading.load("adapter", device="cpu", dtype="float32")


def test_a_trained_sampler(tmp_path):
    save_sampler(TrainedSampler(SamplerConfig(1, 16, 2, 50, 8, components=5)), tmp_path, {})
    assert load_sampler(tmp_path).threshold == 0.9
    spoil(tmp_path / "sampler.safetensors", "norm.bias", float("nan"))
    with pytest.raises(CheckpointError, match="norm.bias holds values that are no finite numbers"):
        load_sampler(tmp_path)


def test_the_page_goes_on_and_takes_the_next_checkpoint(tmp_path, llama_folder):
    bad = write_llama(random_llama(), tmp_path / "bad")
    spoil(bad / "model.safetensors", "model.norm.weight", float("nan"))
    good = write_llama(random_llama(seed=1), tmp_path / "good")
    settings = Settings(
        checkpoint=str(llama_folder), checkpoints=(str(bad), str(good)), device="cpu", dtype="float32", choose=True
    )
    page = Checkpoints(loading.load(str(llama_folder), device="cpu", dtype="float32"), settings)

    def change(name):
        return [json.loads(text) for text in (*page.fetch(name, "visitor"), *page.swap("visitor"))][-1]

    request = Request(prompt_ids=(5, 6), max_new_tokens=3)
    refused = change(str(bad))
    assert "model.norm.weight holds values that are no finite numbers" in refused["error"]
    assert refused["running"]["checkpoint"] == "tiny-llama"
    assert page.engine.generate(request).lanes[0].tokens
    assert change(str(good))["running"]["checkpoint"] == "good"
    assert page.engine.generate(request).lanes[0].tokens


@pytest.mark.parametrize("mode", ["ar", "diffusion", "self-speculation"])
def test_finite_weights_whose_products_overflow_end_in_a_sentence(tmp_path, mode):
    folder = write_llama(random_llama(), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    for layer in range(3):
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"].fill_(1e38)
    save_file(tensors, folder / "model.safetensors")
    engine = loading.load(str(folder), device="cpu", dtype="float32")
    with pytest.raises(RequestError, match="gave no numbers for token 1 of the answer"):
        engine.generate(Request(prompt_ids=(5, 6), modes=(mode,), max_new_tokens=5))


@pytest.mark.skipif(torch.int8 not in DTYPES, reason="the CPU kernels do not run here")
def test_quantising_keeps_weights_finite(tmp_path):
    model = loading.load(str(write_llama(random_llama(), tmp_path / "m")), device="cpu", dtype="bfloat16").model
    quantised = quantise(model)
    assert quantised(torch.arange(9), quantised.new_cache(9), causal=True).isfinite().all()
