"""The CPU kernels: products against whole numbers, forwards against torch, and a row whose bits are its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.model.config import ModelConfig, RopeConfig
from nemodiff.model.cpu import CpuModel, compiled_kernels
from nemodiff.model.cpu.check import multiply
from nemodiff.model.cpu.pack import PackedMatrix, alternate, head_places, quantise_rows, spread
from nemodiff.model.cpu.plan import ACTIVATION_PEAK, SEGMENT
from nemodiff.model.layout import Layout, groups
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model
from tests.helpers.checkpoints import MASK, VOCABULARY, random_llama, write_llama
from tests.helpers.kernels import TILES_HERE, every_tile, kernel_model, needs_int8, prefilled
from tests.helpers.official import random_ministral, write_nvidia

pytestmark = needs_int8


def ids_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tied Llama whose logits are shifted, and the released layout: untied, yarn, query scaling, a draft LoRA."""
    root = tmp_path_factory.mktemp("kernels")
    return {
        "llama": write_llama(random_llama(seed=3), root / "llama", shift_logits=True),
        "nvidia": write_nvidia(random_ministral(), root / "nvidia", lora=True),
    }


@pytest.fixture(scope="module")
def models(folders):
    return {(kind, tile): kernel_model(folder, tile) for kind, folder in folders.items() for tile in TILES_HERE}


def whole_model(**shape) -> Transformer:
    """A random model whose weights are whole steps of int8, so that quantising them loses nothing."""
    config = {
        "vocab_size": 97,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 20,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "context_length": 512,
        "rope": RopeConfig(),
    }
    model = Transformer(ModelConfig(**config | shape))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            steps = torch.randint(-127, 128, parameter.shape, generator=generator)
            steps[:, 0] = steps[0] = 127
            parameter.data.copy_(steps / 2048)
    model.embed.weight.data.copy_(model.embed.weight.bfloat16())
    return model


def test_rows_are_rounded_to_steps_of_their_largest_magnitude():
    steps, scale = quantise_rows(torch.tensor([[127.0, -63.6, 0.4], [0.0, 0.0, 0.0], [0.5, -1.0, 0.25]]))
    assert steps.tolist() == [[127, -64, 0], [0, 0, 0], [64, -127, 32]]
    torch.testing.assert_close(scale, torch.tensor([1.0, 0.0, 1 / 127]))


def test_weights_are_packed_in_panels_of_pairs():
    weight = torch.arange(4 * 3).view(4, 3).float() - 6
    weight[:, 0] = 127
    packed = PackedMatrix(weight, 2)
    assert packed.weights.shape == (2, 32, 2, 2)
    assert packed.weights[1, 0].tolist() == [[127, 1], [127, 4]]  # outputs 2 and 3, inputs 0 and 1
    assert packed.weights[1, 1].tolist() == [[2, 0], [5, 0]] and not packed.weights[:, 2:].any()
    assert head_places(2, 4).tolist() == [0, 1, 16, 17, 32, 33, 48, 49]
    assert spread(torch.ones(1, 2), torch.tensor([2, 0]), 3, 1).tolist() == [[1, 0, 1]]
    rows = alternate(torch.zeros(4, 1), torch.ones(4, 1), 2)
    assert rows.flatten().tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


@every_tile
@pytest.mark.parametrize("inputs", [64, 576, SEGMENT])
def test_products_are_the_integers_they_should_be(tile, inputs):
    """Every row count against int64, with the largest sums that may come."""
    kernels = compiled_kernels(tile)
    generator = torch.Generator().manual_seed(inputs)
    weight = torch.randint(-127, 128, (kernels.tile.panel, inputs), generator=generator)
    weight[:, 0], weight[1], weight[2] = 127, 127, -127
    weight[2, 0] = 127
    steps = torch.randint(-ACTIVATION_PEAK, ACTIVATION_PEAK + 1, (kernels.tile.rows, inputs), generator=generator)
    steps[0], steps[1:2] = ACTIVATION_PEAK, -ACTIVATION_PEAK
    expected = (steps.long() @ weight.long().T).float()
    for rows in range(1, len(steps) + 1):
        assert torch.equal(multiply(kernels, weight.float(), steps[:rows].to(torch.int16)), expected[:rows])


@every_tile
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"head_dim": 128, "num_heads": 4, "num_kv_heads": 2},
        {"head_dim": 64, "num_heads": 12, "num_kv_heads": 1},
        {"num_heads": 3, "num_kv_heads": 3, "vocab_size": 1000, "tie_word_embeddings": True},
        {"intermediate_size": 2 * SEGMENT + 100},
        {"rope": RopeConfig(theta=1e6, factor=16.0, original_context=48, query_beta=0.1, attention_factor=1.2)},
    ],
    ids=["small", "wide heads", "one group", "no groups", "wide sums", "yarn"],
)
def test_forwards_are_what_torch_computes(tile, shape):
    """Any Llama or Ministral3 shape; only the 14 bits of the activations differ."""
    reference, model = whole_model(**shape), CpuModel(whole_model(**shape), compiled_kernels(tile))
    ids = torch.arange(150) * 7 % 97
    caches = reference.new_cache(200), model.new_cache(200)
    for part, causal in ((ids[:120], True), (ids[120:], False)):
        expected, made = (
            one(part, cache, causal=causal) for one, cache in zip((reference, model), caches, strict=True)
        )
        assert float((made - expected).norm() / expected.norm()) < 2e-3
        for cache in caches:
            cache.keep(len(part))


def test_every_tile_computes_the_same_bits(models):
    for kind in ("llama", "nvidia"):
        made = []
        for tile in TILES_HERE:
            model = models[kind, tile]
            cache = prefilled(model, ids_of(70))
            made.append(model.forward(ids_of(9, 1), cache, causal=False, adapter=True, few=5))
        for other in made[1:]:
            assert torch.equal(other.logits, made[0].logits)
            assert torch.equal(other.best.log_sums, made[0].best.log_sums)
            assert torch.equal(other.best.tokens, made[0].best.tokens)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["llama", "nvidia"]),
    tile=st.sampled_from(TILES_HERE or ["none"]),
    prompt=st.integers(1, 300),
    blocks=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=1, max_size=4),
    threads=st.integers(1, 3),
)
def test_a_row_has_the_same_bits_alone_and_in_any_block(models, kind, tile, prompt, blocks, threads):
    """Wherever it stands, behind any prefix, with any number of threads; the prompt in one piece or row by row."""
    model = models[kind, tile]
    blocks = [(rows, min(rows, kept)) for rows, kept in blocks]
    total = sum(kept for _, kept in blocks)
    ids = ids_of(prompt + total + 80, prompt)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        cache, alone = model.new_cache(len(ids)), []
        for token in ids[: prompt + total]:
            alone.append(model.forward(token[None], cache, causal=True, few=3))
            cache.keep(1)
        torch.set_num_threads(threads)
        cache, place = model.new_cache(len(ids)), prompt
        together = [model.forward(ids[:prompt], cache, causal=True, few=3)]
        cache.keep(prompt)
        for rows, kept in blocks:
            together.append(model.forward(ids[place : place + rows], cache, causal=True, few=3)[:kept])
            cache.keep(kept)
            place += kept
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat([one.logits for one in alone]), torch.cat([one.logits for one in together]))
    for name in ("tokens", "logits", "log_sums"):
        parts = [[getattr(one.best, name) for one in made] for made in (alone, together)]
        assert torch.equal(torch.cat(parts[0]), torch.cat(parts[1]))


def tree(parents: list[int]) -> Layout:
    """A layout of rows with a parent each, -1 for none: a row sees its ancestors and itself."""
    rows = len(parents)
    visible, depth = torch.eye(rows, dtype=torch.bool), []
    for row, parent in enumerate(parents):
        depth.append(0 if parent < 0 else depth[parent] + 1)
        if parent >= 0:
            visible[row] |= visible[parent]
    return Layout(torch.tensor(depth), visible, plain=rows, masks=0, again=False)


@settings(max_examples=20, deadline=None)
@given(
    tile=st.sampled_from(TILES_HERE or ["none"]),
    prompt=st.integers(1, 120),
    choices=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40),
    leaf=st.floats(0, 1, exclude_max=True),
)
def test_a_path_of_a_tree_has_the_bits_of_its_tokens_one_by_one(models, tile, prompt, choices, leaf):
    """And once it is kept, so have the tokens after it."""
    model = models["nvidia", tile]
    parents = [-1, *(int(choice * (row + 1)) for row, choice in enumerate(choices))]
    ids = ids_of(prompt + len(parents) + 1, prompt)
    cache = prefilled(model, ids[:prompt])
    tokens = ids[prompt:-1]
    logits = model(tokens, cache, causal=True, layout=tree(parents))
    path = [int(leaf * len(parents))]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    cache.keep(path)
    after = model(ids[-1:], cache, causal=True)
    cache, alone = prefilled(model, ids[:prompt]), []
    for token in [*tokens[path], ids[-1]]:
        alone.append(model(token[None], cache, causal=True))
        cache.keep(1)
    assert torch.equal(torch.cat((logits[path], after)), torch.cat(alone))


@every_tile
def test_rows_of_a_quadratic_layout_are_those_of_small_forwards(models, tile):
    """Verified rows to the bit and without the LoRA; groups to the bit as well, with it."""
    model = models["nvidia", tile]
    ids, layout = ids_of(64), groups(3, 4, again=False)
    rows = torch.cat((ids[60:], torch.full((layout.rows - 4,), MASK)))
    output = model.forward(rows, prefilled(model, ids[:60]), causal=True, adapter=True, layout=layout, few=2)
    cache = prefilled(model, ids[:60])
    for index, token in enumerate(ids[60:]):
        assert torch.equal(output.logits[index], model(token[None], cache, causal=True)[0])
        cache.keep(1)
        group = slice(4 + 4 * index, 8 + 4 * index)
        alone = model.forward(torch.full((4,), MASK), cache, causal=False, adapter=True, few=2)
        assert torch.equal(output.logits[group], alone.logits)
        assert torch.equal(output.best.tokens[group], alone.best.tokens)
    assert not torch.equal(alone.logits, model(torch.full((4,), MASK), cache, causal=False))


@every_tile
def test_the_best_tokens_are_read_off_the_logits(models, tile):
    model = models["llama", tile]
    ids = ids_of(40)
    for causal in (True, False):
        cache = prefilled(model, ids)
        output = model.forward(ids_of(12, 2), cache, causal=causal, few=20)
        logits = output.logits.clone()
        torch.testing.assert_close(output.best.log_sums, logits.logsumexp(-1))
        if not causal:
            logits[:, MASK] = -torch.inf  # never proposed, though it is in the sum
        values, tokens = logits.sort(dim=-1, descending=True, stable=True)
        assert torch.equal(output.best.tokens, tokens[:, :20])
        assert torch.equal(output.best.logits, values[:, :20])
        part = model.forward(ids_of(12, 2), cache, causal=causal, rows=slice(3, 7), few=2)
        assert torch.equal(part.logits, output.logits[3:7])
        assert torch.equal(part.best.tokens, output.best.tokens[3:7, :2])


def test_the_mask_is_passed_over_where_it_would_be_the_best(folders):
    """Also where it is the only one: then the next best is proposed."""
    floats = load_model(folders["llama"], "cpu", torch.bfloat16)
    floats.embed.weight.data[MASK] *= 50
    model = CpuModel(floats, compiled_kernels())
    cache = prefilled(model, ids_of(30))
    causal = model.forward(ids_of(30, 4), cache, causal=True, few=2)
    both = model.forward(ids_of(30, 4), cache, causal=False, few=2)
    assert (causal.best.tokens[:, 0] == MASK).any() and (both.logits.argmax(-1) == MASK).any()
    assert not (both.best.tokens == MASK).any()


def test_embeddings_are_taken_in_place_of_tokens(models):
    """As pictures give them; the mask has its own where a checkpoint brings one."""
    model = models["llama", TILES_HERE[0]]
    ids = ids_of(40)
    ids[3] = MASK
    for own in (None, torch.linspace(-1, 1, 32)):
        floats = load_model_of(model, own)
        given, tokens = (floats(inputs, floats.new_cache(64), causal=True) for inputs in (floats.embeddings(ids), ids))
        assert torch.equal(given, tokens)
    assert not torch.equal(tokens, model(ids, model.new_cache(64), causal=True))


def load_model_of(model: CpuModel, mask_embedding: torch.Tensor | None) -> CpuModel:
    """A tiny Llama of the same shape with this mask embedding."""
    floats = Transformer(model.config, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(5)
    for parameter in floats.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.3, generator=generator)
    floats.mask_embedding = mask_embedding
    return CpuModel(floats, compiled_kernels())


def test_a_forward_that_is_not_kept_leaves_nothing_behind(models):
    model = models["llama", TILES_HERE[0]]
    ids = ids_of(20)
    cache = prefilled(model, ids[:10])
    before = model(ids[10:12], cache, causal=True)
    model(torch.full((8,), MASK), cache, causal=False)
    assert torch.equal(model(ids[10:12], cache, causal=True), before)


def test_more_rows_than_the_cache_has_room_for_are_refused(models):
    model = models["llama", TILES_HERE[0]]
    cache = prefilled(model, ids_of(10), room=10)
    with pytest.raises(ValueError, match="60 rows after 10 do not fit a cache of 64"):
        model(ids_of(60), cache, causal=True)


def test_memory_holds_one_copy_of_a_weight(folders):
    floats = load_model(folders["nvidia"], "cpu", torch.bfloat16)
    model = CpuModel(floats, compiled_kernels())
    assert len(floats.layers) == 0 and floats.head is None
    assert 0 < model.lora_bytes < model.nbytes
