"""The check on loading: what it lets through, and what it does about anything that goes wrong; devices that cannot."""

from __future__ import annotations

import pytest
import torch

import nemodiff
from nemodiff.bench.shape import SHAPES
from nemodiff.engine import devices
from nemodiff.errors import CheckpointError
from nemodiff.model.cuda import check
from nemodiff.model.cuda.check import Disagreement, checked_runner, compare
from nemodiff.model.cuda.fixed_attention import MaskedAttention
from nemodiff.model.cuda.fixed_forward import FixedForward
from nemodiff.model.cuda.graph_runner import GraphRunner
from nemodiff.model.memory import shortage
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def model(nvidia_folder, request):
    return load_model(nvidia_folder, "cpu", request.param)


@pytest.fixture(scope="module")
def floats(nvidia_folder):
    return load_model(nvidia_folder, "cpu", torch.float32)


def test_what_is_right_passes(model, monkeypatch):
    runner, failures = checked_runner(model)
    assert runner is not None and not failures
    assert "check" not in runner._caches


def altered(monkeypatch, change):
    """MaskedAttention whose mixed rows `change` has altered."""
    normal = MaskedAttention.at

    def at(self, length, places, visible):
        attend = normal(self, length, places, visible)
        return lambda *args: change(attend(*args), args[3], len(places))

    monkeypatch.setattr(MaskedAttention, "at", at)


MISTAKES = {
    "one token": lambda x, layer, rows: x * 1.3 if rows == 1 else x,
    "a block to denoise": lambda x, layer, rows: x.flip(0) if rows == 32 else x,
    "no number": lambda x, layer, rows: x * float("nan") if layer else x,
    "a quadratic draft": lambda x, layer, rows: x * 0.5 if rows == 16 else x,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_any_kind_of_forward_is_found(model, monkeypatch, name):
    altered(monkeypatch, MISTAKES[name])
    runner, failures = checked_runner(model)
    assert runner is None
    (line,) = failures
    assert line.startswith("CUDA graphs failed the check on loading: the logits of ") and line.endswith("at most.")
    if name != "no number":
        assert name in line


def test_a_mask_that_is_off_by_one_is_found(model, monkeypatch):
    normal = MaskedAttention.at
    monkeypatch.setattr(
        MaskedAttention, "at", lambda self, length, places, visible: normal(self, length - 1, places, visible)
    )
    assert checked_runner(model)[0] is None


def test_keys_that_land_in_another_place_are_found(model, monkeypatch):
    normal = MaskedAttention.at
    monkeypatch.setattr(
        MaskedAttention, "at", lambda self, length, places, visible: normal(self, length, places + 1, visible)
    )
    assert checked_runner(model)[0] is None


def test_greedy_tokens_are_those_that_were_read_off(floats, monkeypatch):
    normal = FixedForward._best

    def swapped(self, logits, plain):
        read = normal(self, logits, plain)
        read[:, 0] = (read[:, 0] + 1) % 199
        return read

    monkeypatch.setattr(FixedForward, "_best", swapped)
    runner, (line,) = checked_runner(floats)
    assert runner is None and "the greedy tokens of one token are not eager torch's" in line


def test_rounding_is_no_mistake(floats, monkeypatch):
    altered(monkeypatch, lambda x, layer, rows: x * (1 + 1e-6))
    assert checked_runner(floats)[0] is not None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"), "stream is capturing."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "there is not enough memory on the"),
        (ValueError(), "failed the check on loading: ValueError."),
    ],
)
def test_whatever_is_raised_becomes_a_line(floats, error, said):
    def make(model, flash):
        raise error

    runner, (line,) = checked_runner(floats, make)
    assert runner is None and said in line and "\n" not in line


def test_flash_attention_that_fails_leaves_torchs_own(floats, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    monkeypatch.setattr(check, "flash_attention", lambda device, dtype: (broken, None))
    runner, (line,) = checked_runner(floats)
    assert runner is not None and runner.attention == "SDPA, fixed shapes"
    assert line == (
        "flash-attn in CUDA graphs failed the check on loading: FlashAttention only supports Ampere GPUs or newer."
    )
    monkeypatch.setattr(check, "flash_attention", lambda device, dtype: (None, "flash-attn does not load (x)"))
    assert checked_runner(floats)[1] == ["flash-attn does not load (x)."]


def test_a_model_whose_own_numbers_are_none_is_not_trusted(nvidia_folder):
    model = load_model(nvidia_folder, "cpu", torch.float32)
    model.norm.data.fill_(float("nan"))
    with pytest.raises(Disagreement, match="eager torch gave values that are no numbers"):
        compare(GraphRunner(model))


def on_a_gpu(monkeypatch):
    """What loading does on a GPU, on a CPU: the runner is asked for and made, nothing is captured."""
    monkeypatch.setattr(devices, "pick_graphs", lambda choice, device: {True: "on", False: "off"}.get(choice, choice))

    def torch_runner(model, graphs, report):
        if graphs == "off":
            return model
        return devices.settled(checked_runner(model), model, graphs, report)

    monkeypatch.setattr("nemodiff.engine.loading.torch_runner", torch_runner)
    monkeypatch.setattr("nemodiff.engine.loading.pick_graphs", devices.pick_graphs)


def test_auto_goes_on_in_eager_torch_and_says_so(nvidia_folder, monkeypatch):
    on_a_gpu(monkeypatch)
    lines: list[str] = []
    how = {"device": "cpu", "dtype": "float32", "report": lines.append}
    assert nemodiff.load(str(nvidia_folder), **how).attention == "SDPA, fixed shapes" and not lines
    altered(monkeypatch, MISTAKES["one token"])
    engine = nemodiff.load(str(nvidia_folder), **how)
    assert engine.attention == "fixed-shape products"
    (line,) = lines
    assert line.startswith("CUDA graphs failed the check") and line.endswith("The model runs in eager torch.")
    with pytest.raises(CheckpointError, match=r"CUDA graphs failed .* Load it with graphs auto or off\."):
        nemodiff.load(str(nvidia_folder), graphs="on", **how)
    assert nemodiff.load(str(nvidia_folder), graphs="off", **how).attention == "fixed-shape products"


def test_graphs_by_all_their_names(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for choice, meant in (("auto", "auto"), ("on", "on"), ("OFF", "off"), ("1", "on"), ("0", "off"), (True, "on")):
        assert devices.pick_graphs(choice, cuda) == meant
    assert devices.pick_graphs("auto", cpu) == "auto" and devices.pick_graphs(False, cpu) == "off"
    with pytest.raises(CheckpointError, match="CUDA graphs need a GPU, and the model runs on a CPU"):
        devices.pick_graphs("on", cpu)
    with pytest.raises(CheckpointError, match="Unknown graphs 'perhaps': choose auto, on or off"):
        devices.pick_graphs("perhaps", cuda)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert devices.pick_graphs("auto", cuda) == devices.pick_graphs("on", cuda) == "off"


@pytest.fixture
def pretended(monkeypatch):
    """A torch that was built for CUDA."""
    devices.gpu_left_out.cache_clear()
    devices.cuda_obstacle.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield monkeypatch
    devices.gpu_left_out.cache_clear()
    devices.cuda_obstacle.cache_clear()


def raises(error):
    def call(*_, **__):
        raise error

    return call


def test_a_driver_that_is_too_old_is_said(pretended):
    text = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver ..."
    pretended.setattr(torch.cuda, "init", raises(RuntimeError(text)))
    lines: list[str] = []
    assert devices.pick_device(None, lines.append) == torch.device("cpu")
    assert lines == [
        "The model runs on the CPU: the NVIDIA driver is too old for this torch, which was built for CUDA 13.0: "
        "update it."
    ]
    with pytest.raises(CheckpointError, match=r"no cuda device on this machine \(the NVIDIA driver is too old"):
        devices.pick_device("cuda")


def test_a_machine_without_a_gpu_is_told_nothing(pretended):
    pretended.setattr(torch.cuda, "init", raises(RuntimeError("Found no NVIDIA driver on your system. Please ...")))
    lines: list[str] = []
    assert devices.pick_device(None, lines.append) == torch.device("cpu") and not lines


def test_a_card_that_this_torch_has_no_kernels_for(pretended):
    pretended.setattr(torch.cuda, "is_available", lambda: True)
    pretended.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla K80")
    message = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be"
    pretended.setattr(torch, "ones", raises(RuntimeError(message)))
    lines: list[str] = []
    assert devices.pick_device(None, lines.append) == torch.device("cpu")
    assert lines == [
        "The model runs on the CPU: this torch has no kernels for Tesla K80: install one that was built for it."
    ]
    with pytest.raises(CheckpointError, match="The GPU cannot be used: this torch has no kernels for Tesla K80"):
        devices.pick_device("cuda")


def test_a_card_without_bfloat16(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    assert devices.pick_dtype(None, cuda) == torch.float32
    with pytest.raises(CheckpointError, match="Tesla T4 does not compute in bfloat16: choose float32"):
        devices.pick_dtype("bfloat16", cuda)


@pytest.mark.parametrize(
    ("shape", "card", "fits"), [("3B", 24, True), ("8B", 16, False), ("8B", 48, True), ("14B", 24, False)]
)
def test_what_a_card_takes_is_worked_out(monkeypatch, shape, card, fits):
    config = SHAPES[shape].config()
    weights = 2 * sum(parameter.numel() for parameter in Transformer(config, "meta").parameters())
    monkeypatch.setattr("nemodiff.model.memory.free_memory", lambda device: int(card * 0.95e9))
    reason = shortage(weights, torch.device("cuda"), config=config)
    assert (reason is None) is fits
    if shape == "8B" and not fits:
        assert reason == (
            "it needs about 20.0 GB of memory on cuda (17.0 GB of weights, the rest for three lanes of 4,096 tokens "
            "and buffers), and 15.2 GB are free"
        )
    assert (shortage(weights, torch.device("cuda")) is None) is fits  # the catalogue knows no config
