"""An int8 engine: close to the floats it came from, AR's text in every mode, the default; what happens without it."""

import pytest
import torch

import nemodiff
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.cli.main import main
from nemodiff.engine.local import Defaults, Engine
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.model import cpu
from nemodiff.model.cpu import int8_obstacle
from nemodiff.model.cpu.plan import KernelsUnavailable
from nemodiff.model.weights import load_model
from nemodiff.request import Request
from tests.helpers.checkpoints import MASK, VOCABULARY, load_as
from tests.helpers.kernels import CPU, needs_int8


@pytest.fixture
def forget():
    """int8_obstacle remembers its answer: once more after what a test pretends."""
    int8_obstacle.cache_clear()
    yield
    int8_obstacle.cache_clear()


@pytest.fixture
def unavailable(monkeypatch, forget):
    """The kernels do not run here, for a reason."""

    def refuse(tile=None):
        raise KernelsUnavailable("the moon is full")

    monkeypatch.setattr(cpu, "compiled_kernels", refuse)


def drawn(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


@needs_int8
def test_the_model_says_nearly_the_same(llama_folder):
    floats, quantised = load_model(llama_folder, "cpu", torch.float32), load_as(llama_folder, torch.int8)
    ids = torch.tensor(drawn(100, 0))
    prompts = [model(ids, model.new_cache(120), causal=True) for model in (floats, quantised)]
    assert float((prompts[0] - prompts[1]).norm() / prompts[0].norm()) < 0.1
    assert quantised.dtype_name == "int8" and quantised.nbytes > 0


@needs_int8
def test_channels_that_stand_out_do_not_cost_the_others(llama_folder):
    """With a channel of the input a hundred times the others, steps of 8 bits would round those to nothing."""
    floats, small = load_model(llama_folder, "cpu", torch.float32), load_model(llama_folder, "cpu", torch.float32)
    for model in (floats, small):
        for layer in model.layers:
            layer.input_norm[5] *= 100
            layer.qkv.weight[:, 5] /= 100
    quantised = cpu.quantise(small)
    ids = torch.arange(50)
    expected, made = (model(ids, model.new_cache(64), causal=True) for model in (floats, quantised))
    assert float((expected - made).norm() / expected.norm()) < 0.1


@needs_int8
@pytest.mark.parametrize("draft", ["linear", "quadratic"])
@pytest.mark.parametrize("kind", ["llama", "nvidia"])
def test_self_speculation_is_ars_text(request, kind, draft):
    folder = request.getfixturevalue(f"{kind}_folder")
    engine = Engine(kind, load_as(folder, torch.int8), Tokenizer(folder), Defaults())
    assert engine.dtype == "int8"
    for seed in range(4):
        for length in (2, 7, 16):
            ar, speculation = engine.generate(
                Request(
                    prompt_ids=drawn(5 + 40 * seed, seed),
                    modes=("ar", "self-speculation"),
                    max_new_tokens=30,
                    block_length=length,
                    draft=draft,
                    temperature=0.8 * (seed % 2),
                )
            ).lanes
            assert speculation.tokens == ar.tokens


@needs_int8
@pytest.mark.parametrize("mode", ["ar", "diffusion", "self-speculation"])
def test_what_the_kernels_read_off_the_logits_is_what_torch_reads(llama_folder, mode):
    """The same run with and without their reading: tokens, alternatives, and confidence up to rounding."""
    model = load_as(llama_folder, torch.int8)
    engine = Engine("llama", model, Tokenizer(llama_folder), Defaults())
    request = Request(prompt_ids=drawn(30, 1), modes=(mode,), max_new_tokens=24, block_length=6, ignore_eos=True)
    read, run = engine.generate(request).lanes[0], model.forward

    def unread(*values, **more):
        output = run(*values, **more)
        return type(output)(output.logits)

    model.forward = unread
    made = engine.generate(request).lanes[0]
    assert made.tokens == read.tokens
    for one, other in zip(read.events, made.events, strict=True):
        for a, b in zip(one.positions, other.positions, strict=True):
            assert (a.index, a.token, a.state) == (b.index, b.token, b.state)
            assert [token for token, _ in a.top] == [token for token, _ in b.top]
            assert [p for _, p in a.top] == pytest.approx([p for _, p in b.top], rel=1e-4)


@needs_int8
def test_thinking_ends_where_its_budget_does(nvidia_folder):
    """The forced token is no guess: its confidence is the model's, as torch computes it."""
    model = load_as(nvidia_folder, torch.int8)
    engine = Engine("nvidia", model, Tokenizer(nvidia_folder), Defaults())
    engine.tokenizer.find = lambda name: {"</think>": 77}.get(name)
    request = Request(prompt_ids=drawn(20, 2), modes=("ar",), max_new_tokens=12, max_thinking_tokens=5, ignore_eos=True)
    lane = engine.generate(request).lanes[0]
    assert lane.tokens[5] == 77 or 77 in lane.tokens[:5]
    position = lane.events[lane.tokens.index(77)].positions[0]
    ids = torch.tensor([*request.prompt_ids, *lane.tokens[: lane.tokens.index(77)]])
    probabilities = model(ids, model.new_cache(64), causal=True, rows=slice(-1, None)).softmax(-1)
    assert position.confidence == pytest.approx(float(probabilities[0, 77]), rel=1e-4)


@needs_int8
@pytest.mark.parametrize("where", ["o", "down", "head", "qkv"])
def test_logits_that_are_no_numbers_end_in_a_sentence(llama_folder, where):
    """Weights so large that float32 overflows: never a token out of garbage."""
    floats = load_model(llama_folder, "cpu", torch.bfloat16)
    layer = floats.layers[1]
    {"head": floats.norm, "qkv": layer.input_norm, "o": layer.o.weight, "down": layer.down.weight}[where].data.fill_(
        3e38
    )
    engine = Engine("llama", cpu.quantise(floats), Tokenizer(llama_folder), Defaults())
    for mode in ("ar", "diffusion"):
        with pytest.raises(RequestError, match="gave no numbers for token 1 of the answer"):
            engine.generate(Request(prompt_ids=drawn(9, 0), modes=(mode,), max_new_tokens=4))


@needs_int8
def test_the_draft_adapter_acts_on_drafts(nvidia_folder):
    model = load_as(nvidia_folder, torch.int8)
    ids, cache = torch.full((8,), MASK), model.new_cache(64)
    assert not torch.equal(model(ids, cache, causal=False, adapter=True), model(ids, cache, causal=False))


@needs_int8
def test_it_is_the_default_on_a_cpu(llama_folder, capsys):
    engine = nemodiff.load(str(llama_folder), device="cpu")
    assert engine.dtype == "int8" and engine.attention.startswith("kernels of our own")
    assert main(["generate", "--checkpoint", str(llama_folder), "--prompt-ids", "1,2,3", "--dtype", "int8"]) == 0
    assert "· int8" in capsys.readouterr().out


def test_where_the_kernels_do_not_run_torch_does_with_one_line(llama_folder, unavailable, capsys):
    engine = nemodiff.load(str(llama_folder), device="cpu")
    assert engine.dtype in ("float32", "bfloat16")
    nemodiff.load(str(llama_folder), device="cpu")
    assert capsys.readouterr().err.count("The CPU kernels are not used: the moon is full.") == 1
    with pytest.raises(CheckpointError, match="cannot be used here: the moon is full: choose float32 or bfloat16"):
        nemodiff.load(str(llama_folder), device="cpu", dtype="int8")


def test_a_gpu_has_no_int8():
    assert "CPU only, not on cuda" in int8_obstacle(torch.device("cuda"))
    assert int8_obstacle(CPU) is None or "kernels" in int8_obstacle(CPU)
