"""Any JSON value in any field of a checkpoint's files is one sentence, or a model that answers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from nemodiff.checkpoints.catalogue import Files
from nemodiff.engine import loading
from nemodiff.errors import CheckpointError, NemodiffError, RequestError
from nemodiff.json_fields import Fields
from nemodiff.model.weights import read_config, read_json, weight_files
from nemodiff.request import Request
from nemodiff.samplers.trained import SamplerConfig, TrainedSampler, load_sampler, save_sampler
from tests.helpers.checkpoints import random_llama, write_llama
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.vlm import write_vlm

#: What fields are set to besides whatever hypothesis thinks of.
ODD = [
    *(None, True, False, 0, -0.0, 1, -1, 2, 3, 10**6, 2**31, 2**63, 10**400, 1e-320, 1e38, 1e300, -1.5, 0.5, "", "x"),
    *(float("nan"), float("inf"), float("-inf"), "1", "1e6", "silu", "\ud800", "x" * 300, "../..", [], {}, [[]]),
    *([1, 2], [0.5], ["x"], {"a": {}}, {"rope_theta": 1}, {"rope_type": "yarn"}, [None], {"": None}),
    *("{{", "{% for", {"default": "x"}, {"other": "x"}, [{"name": "default", "template": 5}], {"5": {"content": 5}}),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
VALUES = st.sampled_from(ODD) | st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def paths(data, inside: tuple[str, ...] = ()):
    """Where values stand in a JSON object."""
    for key, value in data.items():
        yield (*inside, key)
        if isinstance(value, dict):
            yield from paths(value, (*inside, key))


def with_value(data: dict, path: tuple[str, ...], value) -> dict:
    first, *rest = path
    return {**data, first: with_value(data[first], tuple(rest), value) if rest else value}


def answers(folder: Path) -> None:
    """Load a folder and let it answer; what is refused is refused in one sentence."""
    try:
        engine = loading.load(str(folder), device="cpu", dtype="float32")
        engine.generate(Request(prompt="w5 w6", max_new_tokens=5, alternatives=2))
    except CheckpointError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 600
        str(error).encode()
    except RequestError as error:
        assert "no numbers" not in str(error)
        assert "\n" not in str(error)


#: More names than the files of this test have: what a field that is left out would be set to.
NAMES = {
    "config.json": ("rope_scaling", "rope_parameters", "mask_token_id", "shift_logits", "dlm_type", "head_dim"),
    "generation_config.json": ("eos_token_id", "max_length", "temperature"),
    "tokenizer_config.json": (
        *("chat_template", "eos_token", "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"),
        *("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces", "backend"),
        *("split_special_tokens", "add_prefix_space", "model_input_names", "chat_templates", "tokenizer_class"),
        *("bos_token", "unk_token", "pad_token", "add_bos_token", "add_eos_token", "auto_map", "from_slow"),
    ),
    "linear_spec_lora/adapter_config.json": (
        *("r", "lora_alpha", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "init_lora_weights"),
        *("target_modules", "modules_to_save", "peft_type", "bias"),
    ),
    "model.safetensors.index.json": ("weight_map", "metadata"),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> dict[str, Path]:
    """A released folder in shards with LoRA, a Llama, and one that sees, each with a tokenizer."""
    home = tmp_path_factory.mktemp("odd")
    nvidia = write_nvidia(random_ministral(), home / "nvidia", lora=True, shards=2, tokenizer=True)
    sees = write_vlm(home / "sees", tokenizer=True)
    llama = write_llama(random_llama(), home / "llama")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(nvidia / name, llama / name)
    for folder in (nvidia, sees, llama):
        (folder / "generation_config.json").write_text('{"eos_token_id": [2, 11]}')
    return {"nvidia": nvidia, "sees": sees, "llama": llama}


CASES = [
    *(("nvidia", file) for file in NAMES),
    *(("llama", "config.json"), ("llama", "tokenizer_config.json"), ("sees", "config.json")),
]


@pytest.mark.parametrize(("shape", "file"), CASES, ids=["-".join(case).replace("/", "-") for case in CASES])
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_of_any_field_is_a_sentence_or_a_model_that_answers(shapes, shape, file, data):
    path = shapes[shape] / file
    before = path.read_text()
    known = json.loads(before)
    try:
        where = data.draw(st.sampled_from([*paths(known), *((name,) for name in NAMES[file])]))
        path.write_text(json.dumps(with_value(known, where, data.draw(VALUES))))
        answers(shapes[shape])
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rope_parameters": [1]}, r"rope_parameters to \[1\]; it must be an object"),
        ({"rope_scaling": "yarn"}, "rope_scaling to 'yarn'; it must be an object"),
        ({"rope_theta": 1}, "rope_theta to 1; it must be a number above 1"),
        ({"rope_theta": "10000"}, "rope_theta to '10000'; it must be a number"),
        ({"rope_scaling": {"rope_type": "yarn", "beta_fast": "32"}}, "beta_fast to '32'; it must be a number"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": float("nan")}}, "factor to nan; it must be a number"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"asks for \['yarn'\] rotary embeddings"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "more than one kind of rotary"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps to '1e-5'; it must be a number"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps to 1000"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings to 'no'; it must be true or false"),
        ({"head_dim": 15}, "a head 15 dimensions"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers to 1000000000; this engine takes up to 1024"),
        ({"model_type": ["llama"]}, r"describes a \['llama'\] model"),
    ],
)
def test_odd_values_are_named_with_what_they_may_be(tmp_path, changes, says):
    folder = write_llama(random_llama(), tmp_path / "m", **changes)
    with pytest.raises(CheckpointError, match=says):
        read_config(folder)


def test_json_that_is_nested_deep_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text('{"a":' + "[" * 100_000)
    with pytest.raises(CheckpointError, match="no valid JSON"):
        read_json(tmp_path / "config.json")
    (tmp_path / "sampler_config.json").write_text('{"a":' + "[" * 100_000)
    with pytest.raises(CheckpointError, match="trained sampler cannot be read"):
        load_sampler(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "ä" * 200, "a\0b", "\ud800", "", 5, None, ["model.safetensors"]])
def test_shards_with_impossible_names(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="is no file's name"):
        weight_files(tmp_path)


def test_an_index_that_names_a_tensor_no_shard_holds(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "m", shards=2)
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    for name in ("encoder.layers.7.extra", "encoder.layers.8.extra"):
        data["weight_map"][name] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"names 'encoder.layers.7.extra' and 1 more, which no weight file holds"):
        loading.load(str(folder), dtype="float32")


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        ("MLX", {"quantization": {"group_size": 64, "bits": 4}}, ()),
        ("MLX without its settings", {}, ("model.layers.0.mlp.up_proj.scales", "model.layers.0.mlp.up_proj.biases")),
        ("GPTQ", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, ()),
        ("GPTQ of old", {}, ("model.layers.0.mlp.up_proj.qweight", "model.layers.0.mlp.up_proj.g_idx")),
        ("AWQ", {}, ("model.layers.0.mlp.up_proj.qweight", "model.layers.0.mlp.up_proj.qzeros")),
        (
            "bitsandbytes",
            {},
            ("model.layers.0.mlp.up_proj.weight.absmax", "model.layers.0.mlp.up_proj.weight.quant_map"),
        ),
        ("bitsandbytes, 8 bits", {}, ("model.layers.0.mlp.up_proj.SCB",)),
        ("fp8", {}, ("model.layers.0.mlp.up_proj.weight_scale_inv",)),
        ("compressed-tensors", {}, ("model.layers.0.mlp.up_proj.weight_packed",)),
        ("a text", {"quantization_config": "int4"}, ()),
    ],
)
def test_quantised_folders_are_called_quantised(tmp_path, kind, config, names):
    folder = write_llama(random_llama(), tmp_path / "m", **config)
    save_file(
        {name: torch.zeros(2, dtype=torch.int32) for name in names} | {"x": torch.zeros(1)}, folder / "z.safetensors"
    )
    if names:
        (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is quantised"):
        loading.load(str(folder), dtype="float32")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"use_dora": True}, "use_dora to True; this engine drafts with plain LoRA"),
        ({"alpha_pattern": {"o_proj": 3}}, "alpha_pattern"),
        ({"rank_pattern": {"o_proj": 3}}, "rank_pattern"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias to 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"peft_type": "LOHA"}, "peft_type to 'LOHA'"),
        ({"lora_alpha": float("nan")}, "lora_alpha to nan; it must be a number"),
        ({"lora_alpha": "512"}, "lora_alpha to '512'"),
        ({"use_rslora": "yes"}, "use_rslora to 'yes'; it must be true or false"),
        ({"r": 0}, "r to 0"),
    ],
)
def test_a_drafter_that_asks_for_more_than_lora(tmp_path, changes, says):
    folder = write_nvidia(random_ministral(), tmp_path / "m", lora=True)
    file = folder / "linear_spec_lora" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=says):
        loading.load(str(folder), dtype="float32")


def test_rank_stabilised_lora_and_settings_that_change_nothing(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "m", lora=True)
    plain = loading.load(str(folder), dtype="float32").model.layers[0].draft_lora
    file = folder / "linear_spec_lora" / "adapter_config.json"
    nothing = {"use_dora": False, "alpha_pattern": {}, "layers_to_transform": None, "init_lora_weights": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | nothing | {"use_rslora": True}))
    stable = loading.load(str(folder), dtype="float32").model.layers[0].draft_lora
    torch.testing.assert_close(stable[1], plain[1] * 128**0.5)


ADAPTER = {"mask_token_id": 100, "shift_logits": True, "block_size": 8, "threshold": 0.9, "scale": 1.0}


@pytest.fixture
def adapted(tmp_path, llama_folder, monkeypatch) -> Path:
    """A folder with an adapter for the tiny Llama, which any name then means."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    tensors = {"mask_embedding": torch.zeros(32)}
    widths = {"qkv": (32, 128), "o": (64, 32), "gate_up": (32, 96), "down": (48, 32)}
    for layer in range(3):
        for part, (inputs, outputs) in widths.items():
            for factor, shape in (("A", (2, inputs)), ("B", (outputs, 2))):
                tensors[f"layers.{layer}.{part}.lora_{factor}"] = torch.ones(shape, dtype=torch.int8)
                tensors[f"layers.{layer}.{part}.lora_{factor}.scale"] = torch.full(shape[:1], 0.001)
    save_file(tensors, folder / "adapter.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    monkeypatch.setattr(loading, "resolve", lambda name, report: Files("adapter", llama_folder, folder))
    return folder


def test_any_value_of_an_adapters_settings(adapted):
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from([*ADAPTER]), VALUES)
    def check(name, value):
        (adapted / "adapter_config.json").write_text(json.dumps(ADAPTER | {name: value}))
        try:
            engine = loading.load("adapter", device="cpu", dtype="float32")
            engine.generate(Request(prompt_ids=(5, 6), max_new_tokens=4))
        except NemodiffError as error:
            assert "no numbers" not in str(error)

    check()


def test_any_value_of_a_samplers_settings(tmp_path):
    save_sampler(TrainedSampler(SamplerConfig(1, 16, 2, 50, 8, components=5)), tmp_path, {"threshold": 0.7})
    whole = json.loads((tmp_path / "sampler_config.json").read_text())

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from([*whole]), VALUES)
    def check(name, value):
        (tmp_path / "sampler_config.json").write_text(json.dumps(whole | {name: value}))
        try:
            network = load_sampler(tmp_path)
            network.attach(torch.ones(50, 8))
        except CheckpointError:
            return
        assert 0 <= network.threshold <= 1
        assert network.score(torch.full((3, 50), 0.02), [True, False, True]).isfinite().all()

    check()


@pytest.mark.parametrize("value", [True, "5", 2.0, [5], None])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(CheckpointError, match="it must be a whole number above 0|has no 'n'"):
        Fields({"n": value}, "config.json").count("n")
