"""The transformer against transformers' own models, and its promise of fixed rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.model.cuda.row_shapes import BLOCK_ROWS, REFERENCE_ROWS, RowShapes, find_row_shapes
from nemodiff.model.weights import load_model
from tests.helpers.checkpoints import DTYPES, MASK, VOCABULARY, load_as, random_llama, write_llama
from tests.helpers.official import random_ministral, write_nvidia


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids[None]).logits[0]


@pytest.mark.parametrize("tied", [True, False])
def test_llama_logits_equal_transformers(tmp_path, tied):
    reference = random_llama(tied)
    model = load_model(write_llama(reference, tmp_path / "llama"), "cpu", torch.float32)
    ids = tokens(150)
    cache = model.new_cache(200)
    torch.testing.assert_close(model(ids, cache, causal=True), logits_of(reference, ids), rtol=1e-4, atol=1e-4)


def test_ministral3_logits_equal_transformers_past_the_original_context(tmp_path):
    reference = random_ministral()
    model = load_model(write_nvidia(reference, tmp_path / "nvidia"), "cpu", torch.float32)
    ids = tokens(300)  # the original context is 48: yarn and six steps of query scaling are in play
    cache = model.new_cache(400)
    expected = logits_of(reference, ids)
    torch.testing.assert_close(model(ids, cache, causal=True), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(expected[:100], logits_of(random_ministral(seed=1), ids[:100]))


@pytest.mark.parametrize("kind", ["llama", "ministral3"])
def test_pieces_through_the_cache_equal_one_forward(tmp_path, kind):
    if kind == "llama":
        reference, folder = random_llama(), write_llama(random_llama(), tmp_path / "m")
    else:
        reference, folder = random_ministral(), write_nvidia(random_ministral(), tmp_path / "m")
    model = load_model(folder, "cpu", torch.float32)
    ids = tokens(330)  # crosses a chunk of the cache
    cache, parts = model.new_cache(400), []
    for part in ids.split([70, 1, 1, 8, 130, 20, 31, 69]):
        parts.append(model(part, cache, causal=True))
        cache.keep(len(part))
    torch.testing.assert_close(torch.cat(parts), logits_of(reference, ids), rtol=1e-3, atol=1e-3)


def test_bidirectional_block_equals_transformers_with_an_open_mask(llama_folder):
    reference, model = random_llama(), load_model(llama_folder, "cpu", torch.float32)
    ids = tokens(40)
    cache = model.new_cache(64)
    model(ids[:30], cache, causal=True)
    cache.keep(30)
    block = model(ids[30:], cache, causal=False)
    mask = torch.ones(40, 40).tril().bool()
    mask[30:, 30:] = True
    with torch.no_grad():
        expected = reference(ids[None], attention_mask=mask[None, None]).logits[0, 30:]
    torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-4)


def test_a_forward_that_is_not_kept_leaves_nothing_behind(llama_model):
    ids = tokens(20)
    cache = llama_model.new_cache(64)
    llama_model(ids[:10], cache, causal=True)
    cache.keep(10)
    before = llama_model(ids[10:12], cache, causal=True)
    llama_model(torch.full((8,), MASK), cache, causal=False)
    assert torch.equal(llama_model(ids[10:12], cache, causal=True), before)


@settings(max_examples=15, deadline=None)
@given(
    prompt=st.integers(1, 90),
    blocks=st.lists(st.tuples(st.integers(1, BLOCK_ROWS), st.integers(1, BLOCK_ROWS)), min_size=1, max_size=8),
    dtype=st.sampled_from(DTYPES),
)
def test_a_row_has_the_same_bits_alone_and_in_any_block(llama_folder, prompt, blocks, dtype):
    model = load_as(llama_folder, dtype)
    blocks = [(rows, min(rows, kept)) for rows, kept in blocks]
    total = sum(kept for _, kept in blocks)
    ids = tokens(prompt + total + BLOCK_ROWS)

    def prefilled():
        cache = model.new_cache(len(ids))
        model(ids[:prompt], cache, causal=True)
        cache.keep(prompt)
        return cache

    cache, alone = prefilled(), []
    for token in ids[prompt : prompt + total]:
        alone.append(model(token[None], cache, causal=True))
        cache.keep(1)
    cache, together, place = prefilled(), [], prompt
    for rows, kept in blocks:
        together.append(model(ids[place : place + rows], cache, causal=True)[:kept])
        cache.keep(kept)
        place += kept
    assert torch.equal(torch.cat(alone), torch.cat(together))


def test_row_shapes_pad_to_counts_that_agree():
    shapes = RowShapes([4, 8])
    assert [shapes.padded(n) for n in (1, 4, 5, 9, 16, 17, 40)] == [4, 4, 8, 16, 16, 32, 48]
    x, weight = torch.randn(32, 24), torch.randn(10, 24)
    torch.testing.assert_close(shapes.linear(x, weight), x @ weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_found_row_counts_agree_on_real_values(dtype):
    shape = (576, 1536)
    found = find_row_shapes([shape], torch.device("cpu"), dtype)
    assert REFERENCE_ROWS in found.counts
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator).to(dtype)
    x = torch.randn(BLOCK_ROWS, shape[1], generator=generator).to(dtype)
    reference = torch.nn.functional.linear(x[:REFERENCE_ROWS], weight)
    for rows in found.counts:
        shared = min(rows, REFERENCE_ROWS)
        assert torch.equal(torch.nn.functional.linear(x[:rows], weight)[:shared], reference[:shared])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_rows_are_products_of_counts_that_agree(monkeypatch, dtype):
    shape = (576, 1536)
    shapes = find_row_shapes([shape], torch.device("cpu"), dtype)
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(shape, generator=generator).to(dtype)
    original, used = torch.nn.functional.linear, []

    def counted(x, weight):
        used.append(len(x))
        return original(x, weight)

    for rows in (65, 72, 100, 240, 272):
        padded = shapes.padded(rows)
        assert rows <= padded
        x = torch.randn(padded, shape[1], generator=generator).to(dtype)
        monkeypatch.setattr(torch.nn.functional, "linear", counted)
        found = shapes.linear(x, weight)
        monkeypatch.undo()
        alone = [original(x[row : row + 1].expand(REFERENCE_ROWS, -1), weight)[:1] for row in range(rows)]
        assert torch.equal(found[:rows], torch.cat(alone))
    assert set(used) <= set(shapes.counts)
