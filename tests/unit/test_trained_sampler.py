"""The trained sampler: features to the letter, trajectories that are serial denoising, training, calibration, files."""

import dataclasses
import math
import shutil

import pytest
import torch

import nemodiff
from nemodiff.engine.local import Defaults, Engine
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.request import Request
from nemodiff.samplers.trained import (
    block_features,
    load_sampler,
    principal_components,
    save_sampler,
)
from nemodiff.training import sampler as training
from nemodiff.training.trajectories import States, trajectories
from tests.helpers.checkpoints import random_sampler
from tests.helpers.engines import WithText


class Tiny(WithText):
    """The tiny engine with texts as prompts, for all that collects trajectories."""

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def encode(self, request):
        return [1 + ord(character) % 90 for character in request.prompt]


@pytest.fixture
def engine(llama_engine):
    return Tiny(llama_engine)


@pytest.fixture
def fresh(engine):
    return random_sampler(engine.model.embed.weight)


def test_features_are_what_they_say():
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.1, 0.2, 0.6]])
    table = torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0], [4.0, -4.0]])
    features = block_features(probabilities, torch.tensor([True, False]), table)
    assert features.shape == (2, 3 * 2 + 6)
    assert features[0, :6].tolist() == [1, -1, 2, -2, 3, -3]
    assert features[1, :4].tolist() == [4, -4, 3, -3]
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.15, 0.05))
    assert features[0, 6:].tolist() == pytest.approx([0.5, 0.2, 0.95, entropy, 1 / 3, 0.5], abs=1e-6)
    assert features[1, 10:].tolist() == pytest.approx([2 / 3, 0.5])


def test_compressed_embeddings_are_uncorrelated_and_of_unit_variance():
    table = torch.randn(400, 12, generator=torch.Generator().manual_seed(0)) @ torch.randn(12, 12)
    mean, directions = principal_components(table, 4)
    compressed = (table - mean) @ directions
    torch.testing.assert_close(compressed.t() @ compressed / 400, torch.eye(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("order", ["best", "leftmost"])
@pytest.mark.parametrize("block_length", [3, 6])
def test_trajectories_are_serial_denoising(engine, fresh, block_length, order):
    """Their targets are what the engine's sampler `fixed` makes with one position per forward."""
    request = Request(
        prompt="hello", modes=("diffusion",), max_new_tokens=18, block_length=block_length, sampler="fixed",
        steps=block_length - 1, ignore_eos=True, order=order,
    )  # fmt: skip
    expected = engine.generate(request).lanes[0]
    seen = list(trajectories(engine, "hello", block_length, fresh.table, max_new_tokens=18, order=order))
    committed = [e for e in expected.events if e.phase == "denoise"]
    for i, states in enumerate(seen):
        forwards = committed[i * (block_length - 1) : (i + 1) * (block_length - 1)]
        serial = slice(0, block_length - 1)
        assert [int(n) for n in states.masked[serial].sum(1)] == list(range(block_length - 1, 0, -1))
        for masked, confidence, event in zip(states.masked[serial], states.confidence[serial], forwards, strict=True):
            noted = {p.index % block_length - 1: p.confidence for p in event.positions}
            assert masked.nonzero()[:, 0].tolist() == sorted(noted)
            if order == "leftmost":  # what is known is what lies left of the masks
                assert masked.tolist() == sorted(masked.tolist())
            for place, value in noted.items():
                assert confidence[place].item() == pytest.approx(value, abs=2e-3)
        # The last serial forward commits its only guess, so that it is right by definition.
        assert states.right[block_length - 2][states.masked[block_length - 2]].all()
    assert seen


def separable(count: int, positions: int = 5, features: int = 21) -> States:
    """States in which one feature tells whether a guess is right, but for one in ten."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, positions, features, generator=generator)
    masked = torch.rand(count, positions, generator=generator) < 0.7
    flipped = torch.rand(count, positions, generator=generator) < 0.1
    right = (x[..., 15] > 0) ^ flipped
    return States(x.half(), masked, right, masked.clone(), torch.rand(count, positions, generator=generator).half())


def test_training_finds_what_tells_right_from_wrong_and_calibration_holds(fresh):
    losses = training.train_sampler(fresh, separable(2000), steps=200, batch=128, rate=5e-3)
    assert losses[-1] < 0.45 < losses[0]
    held_out = separable(1500)
    with torch.no_grad():
        fresh.head.weight.mul_(3.0)  # far too sure of itself
    training.calibrate(fresh, held_out)
    logits, _, right = training.scores(fresh, held_out)
    p = torch.sigmoid(logits)
    sure = p > 0.7
    assert p[sure].mean().item() == pytest.approx(right[sure].float().mean().item(), abs=0.04)
    assert p.mean().item() == pytest.approx(right.float().mean().item(), abs=0.02)


def test_a_sampler_survives_its_file(fresh, tmp_path):
    training.train_sampler(fresh, separable(200), steps=5)
    save_sampler(fresh, tmp_path, {"trained": {"steps": 5}})
    other = load_sampler(tmp_path)
    x, masked = torch.randn(2, 5, 21), torch.tensor([[True, False, True, True, False]] * 2)
    torch.testing.assert_close(other(x, masked), fresh(x, masked), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("damage", ["missing", "config", "weights"])
def test_damaged_files_are_one_sentence(fresh, tmp_path, damage):
    save_sampler(fresh, tmp_path, {})
    if damage == "missing":
        (tmp_path / "sampler.safetensors").unlink()
    elif damage == "config":
        (tmp_path / "sampler_config.json").write_text('{"layers": -1}')
    else:
        (tmp_path / "sampler.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_sampler(tmp_path)


def test_another_models_sampler_is_refused(fresh):
    with pytest.raises(CheckpointError, match="another model"):
        fresh.attach(torch.zeros(7, 32))


def test_padding_does_not_change_a_score(fresh):
    x, masked = torch.randn(1, 4, 21), torch.tensor([[True, True, False, True]])
    padded = torch.cat((x, torch.randn(1, 3, 21)), 1)
    flags = torch.cat((masked, torch.zeros(1, 3, dtype=torch.bool)), 1)
    padding = torch.tensor([[False] * 4 + [True] * 3])
    torch.testing.assert_close(fresh(padded, flags, padding)[:, :4], fresh(x, masked), atol=1e-5, rtol=1e-5)


def test_the_engine_commits_what_the_network_is_sure_of(engine, fresh):
    """Every forward commits the masked positions whose recomputed score reaches the threshold, and the surest one."""
    request = Request(
        prompt="hello", modes=("diffusion",), max_new_tokens=24, block_length=6, sampler="trained", ignore_eos=True
    )
    with pytest.raises(RequestError, match="no trained sampler"):
        Engine("bare", engine.model, engine.tokenizer, Defaults()).encode(request_of_ids(request))
    training.train_sampler(fresh, separable(300), steps=20)
    own = Engine("own", engine.model, engine.tokenizer, Defaults(trained_threshold=0.0), fresh)
    first = next(e for e in own.generate(request_of_ids(request)).lanes[0].events if e.phase == "denoise")
    bold = sorted(p.score for p in first.positions)[2]  # three of five then reach it at once
    own = Engine("own", engine.model, engine.tokenizer, Defaults(trained_threshold=bold), fresh)
    lane = own.generate(request_of_ids(request)).lanes[0]
    several = 0
    for event in lane.events:
        if event.phase != "denoise":
            continue
        scores = {p.index: p.score for p in event.positions}
        assert all(0 <= score <= 1 for score in scores.values())
        committed = {p.index for p in event.positions if p.state == "committed"}
        above = {index for index, score in scores.items() if score >= bold - 1e-6}
        masked = [p for p in event.positions if p.index in scores]
        assert committed == above | {max(masked, key=lambda p: p.confidence).index}
        several += len(committed) > 1
    assert several  # it is no serial denoising
    strict, serial = (
        own.generate(dataclasses.replace(request_of_ids(request), **setting)).lanes[0]
        for setting in ({"threshold": 1.0}, {"sampler": "fixed", "steps": 5})
    )
    assert strict.tokens == serial.tokens and strict.forwards == serial.forwards  # but at the strictest it is
    # The first forward's scores, by hand: the network over the model's own probabilities.
    first = next(e for e in lane.events if e.phase == "denoise")
    block = [lane.tokens[0], *[engine.model.config.mask_token_id] * 5]
    cache = engine.model.new_cache(64)
    prompt = torch.tensor(own.encode(request_of_ids(request)))
    engine.model(prompt, cache, causal=True)
    cache.keep(len(prompt))
    logits = engine.model(torch.tensor(block), cache, causal=False)
    shifted = engine.model.config.shift_logits
    probabilities = (logits[:-1] if shifted else logits[1:]).float().softmax(-1)
    probabilities[:, engine.model.config.mask_token_id] = 0
    expected = fresh.score(probabilities, [True] * 5)
    assert [p.score for p in first.positions] == pytest.approx(expected.tolist(), abs=1e-4)


def request_of_ids(request):
    return dataclasses.replace(request, prompt_ids=tuple(1 + ord(character) % 90 for character in request.prompt))


def test_a_checkpoint_brings_its_sampler(llama_folder, fresh, tmp_path):
    folder = tmp_path / "with-sampler"
    shutil.copytree(llama_folder, folder)
    assert nemodiff.load(str(folder), device="cpu", dtype="float32").sampler is None
    save_sampler(fresh, folder / "sampler", {"threshold": 0.7})
    engine = nemodiff.load(str(folder), device="cpu", dtype="float32")
    assert engine.sampler.config == fresh.config
    request = Request(prompt_ids=(3, 4, 5), sampler="trained")
    assert engine.fill(request).threshold == 0.7
    assert engine.fill(dataclasses.replace(request, sampler="confidence")).threshold == 0.9
