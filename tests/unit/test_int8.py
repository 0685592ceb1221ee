"""int8 linears: exact against integer arithmetic, close to the floats they came from, refused where they cannot run."""

import pytest
import torch
import torch.nn.functional as F
from nemodiff.model.int8 import PEAK, Int8Matrix, fold_norm, int8_obstacle, quantise_rows
from nemodiff.model.quantise import quantise

import nemodiff
from nemodiff.__main__ import main
from nemodiff.engine import Defaults, Engine
from nemodiff.errors import CheckpointError
from nemodiff.model import int8
from nemodiff.model.weights import load_model
from nemodiff.request import Request
from nemodiff.tokenizer import Tokenizer
from tests.helpers.checkpoints import MASK, VOCABULARY, load_as, needs_int8

CPU = torch.device("cpu")


@pytest.fixture
def forget():
    """int8_obstacle remembers its answer: once more after what a test pretends."""
    int8_obstacle.cache_clear()
    yield
    int8_obstacle.cache_clear()


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rows_are_rounded_to_steps_of_their_largest_magnitude():
    steps, scale = quantise_rows(torch.tensor([[127.0, -63.6, 0.4], [0.0, 0.0, 0.0], [0.5, -1.0, 0.25]]))
    assert steps.tolist() == [[127, -64, 0], [0, 0, 0], [64, -127, 32]]
    torch.testing.assert_close(scale, torch.tensor([1.0, 0.0, 1 / 127]))


@needs_int8
@pytest.mark.parametrize("shape", [(48, 32), (33, 17), (1100, 1000)], ids=str)
def test_products_are_the_integers_they_should_be(shape):
    """Every row count, in the small kernel and the prepacked one, against int64."""
    matrix = Int8Matrix(draws(*shape))
    weight, scale = quantise_rows(draws(*shape))
    rows = torch.randint(-PEAK, PEAK + 1, (64, shape[1]), generator=torch.Generator().manual_seed(1)).float()
    rows[:, 0], rows[3], rows[4] = PEAK, PEAK, -PEAK  # so that a row's step is 1; and the largest sums
    expected = (rows.long() @ weight.T.long()).float() * scale
    for count in (1, 2, 3, 8, 12, 13, 16, 17, 33, 64):
        steps = (rows[:count] + matrix.rounding(count)).view(torch.int32).to(torch.uint8)
        assert torch.equal(matrix.product(steps), expected[:count])
        torch.testing.assert_close(matrix.added(torch.zeros(count, shape[0]), rows[:count]), expected[:count])


@needs_int8
def test_a_product_is_close_to_the_floats():
    weight, x, rows, norm = draws(96, 64), draws(5, 96, seed=1), draws(5, 64, seed=2), draws(64, seed=3)
    rows[2], rows[3] = 0, rows[3] * 1e-3
    matrix = Int8Matrix(weight)
    exact = rows @ weight.T
    error = matrix.added(x, rows) - x - exact
    assert float(error.norm() / exact.norm()) < 0.012
    assert torch.equal(matrix.added(x, rows)[2], x[2])  # nothing comes of a row of zeros
    exact = F.rms_norm(rows, (64,), norm, 1e-5) @ weight.T
    made = matrix.normed(rows, fold_norm(norm), 1e-5)
    assert all(float((a - b).norm()) <= 0.02 * float(b.norm()) for a, b in zip(made, exact, strict=True))


@needs_int8
def test_the_model_says_nearly_the_same(llama_folder):
    floats, quantised = load_model(llama_folder, "cpu", torch.float32), load_as(llama_folder, torch.int8)
    ids = torch.randint(0, VOCABULARY, (100,), generator=torch.Generator().manual_seed(0))
    prompts = [model(ids, model.new_cache(120), causal=True) for model in (floats, quantised)]
    assert float((prompts[0] - prompts[1]).norm() / prompts[0].norm()) < 0.1
    cache = quantised.new_cache(120)
    quantised(ids[:60], cache, causal=True)
    cache.keep(60)
    block = quantised(ids[60:], cache, causal=True)
    assert float((block - prompts[1][60:]).norm() / block.norm()) < 0.05  # buffers of a block against the general way
    assert quantised.dtype_name == "int8" and quantised.nbytes < floats.nbytes


@needs_int8
def test_channels_that_stand_out_do_not_cost_the_others(llama_folder):
    """With a channel a hundred times the others, unsmoothed steps would round those to nothing."""
    floats, quantised = load_model(llama_folder, "cpu", torch.float32), load_model(llama_folder, "cpu", torch.float32)
    for model in (floats, quantised):
        for layer in model.layers:
            layer.input_norm[5] *= 100
            layer.qkv.weight[:, 5] /= 100
    quantise(quantised)
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
        ids = tuple(
            torch.randint(0, VOCABULARY, (5 + 40 * seed,), generator=torch.Generator().manual_seed(seed)).tolist()
        )
        for length in (2, 7, 16):
            ar, speculation = engine.generate(
                Request(
                    prompt_ids=ids,
                    modes=("ar", "self-speculation"),
                    max_new_tokens=30,
                    block_length=length,
                    draft=draft,
                    temperature=0.8 * (seed % 2),
                )
            ).lanes
            assert speculation.tokens == ar.tokens


@needs_int8
def test_the_draft_adapter_acts_on_drafts(nvidia_folder):
    model = load_as(nvidia_folder, torch.int8)
    ids, cache = torch.full((8,), MASK), model.new_cache(64)
    assert not torch.equal(model(ids, cache, causal=False, adapter=True), model(ids, cache, causal=False))


@needs_int8
def test_it_is_the_default_where_it_runs(llama_folder, capsys):
    assert nemodiff.load(str(llama_folder), device="cpu").dtype == "int8"
    assert main(["generate", "--checkpoint", str(llama_folder), "--prompt-ids", "1,2,3", "--dtype", "int8"]) == 0
    assert "· int8" in capsys.readouterr().out


def test_a_cpu_without_vnni_is_told_so(llama_folder, monkeypatch, forget):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(CheckpointError, match="Int8 needs a CPU with AVX-512 VNNI, which this one lacks: choose"):
        nemodiff.load(str(llama_folder), device="cpu", dtype="int8")
    assert nemodiff.load(str(llama_folder), device="cpu").dtype != "int8"


@pytest.mark.parametrize("what", ["wrong", "missing"])
def test_products_that_are_not_exact_are_refused(monkeypatch, forget, what):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)

    def product(self, steps):
        if what == "missing":
            raise AttributeError("qlinear_prepack")
        return torch.zeros(steps.shape[0], self.out_features)

    monkeypatch.setattr(Int8Matrix, "product", product)
    assert {"wrong": "not exact", "missing": "no int8 linears"}[what] in int8_obstacle(CPU)


def test_a_gpu_has_no_int8():
    assert "CPU only, not on cuda" in int8_obstacle(torch.device("cuda"))
    assert int8.PEAK == 127
