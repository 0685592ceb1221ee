"""Static forwards against the normal ones: the same logits and tokens, no waiting for the host; flash-attn's call.

What a CPU cannot show is left: capturing a CUDA graph, replaying it, and flash-attn itself.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

import nemodiff
from nemodiff.model.cuda import graphs
from nemodiff.model.cuda.graphs import FlashAttention, StaticForward, StaticForwards, flash_attention
from nemodiff.model.weights import load_model
from nemodiff.trace.events import MODES

BLOCK = 16


@pytest.fixture(scope="module")
def model(nvidia_folder):
    model = load_model(nvidia_folder, "cpu", torch.float32)
    model.static = StaticForwards(model)
    return model


def prefilled(model, length):
    """A normal cache that keeps `length` positions, and the lane's static one with the same."""
    cache = model.new_cache(length + 64)
    tokens = torch.randint(0, 199, (length,), generator=torch.Generator().manual_seed(length))
    model(tokens, cache, causal=True, last=True)
    cache.keep(length)
    return cache, model.static.lane_cache("ar", cache)


@pytest.mark.parametrize("length", [1, 47, 255, 256, 300, 1100])
@pytest.mark.parametrize("rows", [1, 5, BLOCK, 64])
@pytest.mark.parametrize("how", [{"causal": True}, {"causal": False}, {"causal": False, "adapter": True}])
def test_logits_and_cache_are_those_of_the_normal_forward(model, length, rows, how):
    normal, lane = prefilled(model, length)
    tokens = torch.arange(rows) * 7 % 199
    expected, found = model(tokens, normal, **how), model(tokens, lane, **how)
    assert lane.static and not normal.static
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    for ours, theirs in zip(lane.flat(1, length + rows), normal.flat(1, length + rows), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_written_is_not_kept(model):
    _, lane = prefilled(model, 20)
    first = model(torch.tensor([3, 4, 5]), lane, causal=True).clone()
    assert lane.length == 20
    model(torch.tensor([9] * BLOCK), lane, causal=False)  # a draft writes over it and keeps nothing
    assert torch.equal(model(torch.tensor([3, 4, 5]), lane, causal=True), first)
    lane.keep(2)
    assert torch.equal(model(torch.tensor([5]), lane, causal=True)[0], first[2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_mode_gives_the_same_tokens(nvidia_folder, dtype):
    normal = nemodiff.load(str(nvidia_folder), device="cpu", dtype=dtype)
    fixed = nemodiff.load(str(nvidia_folder), device="cpu", dtype=dtype, graphs=True)
    assert fixed.attention == "SDPA, static shapes" and normal.attention != fixed.attention
    for length in (4, 40, 250):
        request = nemodiff.Request(
            prompt_ids=tuple(i * 5 % 99 for i in range(length)),
            max_new_tokens=30,
            block_length=8,
            threshold=0.3,
            ignore_eos=True,
        )
        traces = [engine.generate(request) for engine in (fixed, normal)]
        assert traces[0].exact
        ours, theirs = ({lane.mode: lane for lane in trace.lanes} for trace in traces)
        assert ours["ar"].tokens == ours["self-speculation"].tokens
        if dtype == "float32":
            for mode in MODES:
                assert (ours[mode].tokens, ours[mode].nfe) == (theirs[mode].tokens, theirs[mode].nfe)


def test_other_forwards_take_a_static_cache_like_any(model):
    """Embeddings, the last row alone, more rows than a block."""
    normal, lane = prefilled(model, 30)
    tokens = torch.arange(70)
    for inputs, how in (
        (model.embeddings(tokens[:5]), {"causal": True}),
        (tokens[:5], {"causal": True, "last": True}),
        (tokens, {"causal": False}),
    ):
        expected = model(inputs, normal, **how)
        torch.testing.assert_close(model(inputs, lane, **how), expected, rtol=1e-4, atol=1e-4)


def test_buffers_stay_until_they_are_too_small(model):
    small, large = model.new_cache(100), model.new_cache(1500)
    first = model.static.lane_cache("diffusion", small)
    assert first.capacity == graphs.CAPACITY
    assert model.static.lane_cache("diffusion", small) is first
    assert model.static.lane_cache("ar", small) is not first
    assert model.static.lane_cache("diffusion", large).capacity == 2048


def test_a_block_and_its_rows_alone_agree_to_the_last_bit_or_it_is_said(model, monkeypatch):
    assert model.static.exact
    normal = graphs.MaskedAttention.at

    def rounds_by_rows(self, length, positions):
        attend = normal(self, length, positions)
        return lambda *args: attend(*args) * (1 + 1e-6 * (len(positions) > 1))

    monkeypatch.setattr(graphs.MaskedAttention, "at", rounds_by_rows)
    assert not StaticForwards(model).exact


@pytest.mark.parametrize("rows", [1, BLOCK])
@pytest.mark.parametrize("how", [{"causal": True}, {"causal": False, "adapter": True}])
def test_nothing_depends_on_the_host(model, rows, how):
    """Traced with tensors that have no values: a branch on one, or a copy of one to the host, would raise."""
    _, lane = prefilled(model, 33)
    forward = lane.forward(rows, **how)
    tokens = torch.arange(rows)
    plain = partial(StaticForward.__call__.__wrapped__, forward)  # tracing does without inference mode
    graph = make_fx(plain, tracing_mode="fake", _allow_non_fake_inputs=True)(tokens, lane.at(33))
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert any("scaled_dot_product" in name for name in called)
    host = ("_local_scalar_dense", "nonzero", "lift_fresh_copy", "aten.item", "aten.equal", "is_nonzero")
    assert not [name for name in called if any(word in name for word in host)]
    # One recorded graph serves every length: replaying it is what CUDA does with the captured one.
    for length in (33, 70):
        normal, lane_now = prefilled(model, length)
        assert lane_now is lane
        found = graph(tokens, lane.at(length))
        torch.testing.assert_close(found, model(tokens, normal, **how), rtol=1e-4, atol=1e-4)


def test_a_forward_that_reads_the_length_on_the_host_would_be_noticed(model):
    _, lane = prefilled(model, 33)
    with pytest.raises(Exception, match="(?i)data.dependent|item"):
        make_fx(lambda n: lane.keys[0, 0, :, : int(n)] * 2, tracing_mode="fake", _allow_non_fake_inputs=True)(
            lane.at(33)
        )


def test_a_graph_takes_its_inputs_in_place_and_is_replayed(model, monkeypatch):
    """The steps around a capture, with CUDA's part made: replaying runs the recorded forward on the same tensors."""
    _, lane = prefilled(model, 33)
    forward, steps, signature = lane.forward(3, causal=True), [], inspect.signature(torch.cuda.graph)

    class Recording:
        def replay(self):
            steps.append("replay")
            with torch.inference_mode():
                self.into.copy_(forward(*self.inputs))

    @contextmanager
    def capture(graph, **how):
        signature.bind(graph, **how)
        steps.append("capture")
        yield

    class Watched:
        def __call__(self, tokens, length):
            steps.append("forward")
            return forward(tokens, length)

    stream = SimpleNamespace(wait_stream=lambda other: steps.append("wait"))
    for name, fake in (
        ("Stream", lambda device: stream),
        ("current_stream", lambda device: stream),
        ("stream", lambda other: nullcontext()),
        ("CUDAGraph", Recording),
        ("graph", capture),
    ):
        monkeypatch.setattr(torch.cuda, name, fake)  # raises where torch has no such name
    graph = graphs.Graph(Watched(), 3, lane.at(0), None)
    assert steps == ["wait", *["forward"] * 3, "wait", "capture", "forward"]
    graph._graph.inputs, graph._graph.into = (graph._tokens, graph._length), graph._logits
    for tokens in ([3, 4, 5], [6, 7, 8]):
        found = graph(torch.tensor(tokens), 33)
        assert torch.equal(found, forward(torch.tensor(tokens), lane.at(33)))
    assert steps[-2:] == ["replay", "replay"]


def documented_flash_attention(q, k_cache, v_cache, *, k, v, cache_seqlens, causal, num_splits):
    """What flash_attn_with_kvcache documents, slowly: checks the layout, writes k and v in place, then attends."""
    (batch, rows, heads, dim), kv_heads = q.shape, k_cache.shape[2]
    assert batch == 1 and k.shape == v.shape == (1, rows, kv_heads, dim) and v_cache.shape == k_cache.shape
    assert k_cache.stride(-1) == v_cache.stride(-1) == 1
    assert cache_seqlens.dtype == torch.int32 and cache_seqlens.shape == (1,)
    assert num_splits > 0  # never flash-attn's own choice, which follows the rows
    start = int(cache_seqlens)
    k_cache[:, start : start + rows], v_cache[:, start : start + rows] = k, v
    keys, values = (cache[0, : start + rows].repeat_interleave(heads // kv_heads, 1) for cache in (k_cache, v_cache))
    scores = torch.einsum("qhd,khd->hqk", q[0], keys) * dim**-0.5
    if causal:
        scores.masked_fill_(torch.ones(rows, start + rows).tril(start) == 0, -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)[None]


@pytest.mark.parametrize("rows", [1, BLOCK])
@pytest.mark.parametrize("causal", [True, False])
def test_flash_attention_is_called_as_documented(model, rows, causal):
    normal, lane = prefilled(model, 300)
    attention = FlashAttention(lane, causal, documented_flash_attention)
    forward = StaticForward(model, lane, rows, False, attention)
    tokens = torch.arange(rows)
    expected = model(tokens, normal, causal=causal)
    torch.testing.assert_close(forward(tokens, lane.at(300)), expected, rtol=1e-4, atol=1e-4)


def test_flash_attention_is_for_half_precision_on_a_gpu_where_it_imports(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_with_kvcache=documented_flash_attention))
    assert flash_attention(cuda, torch.bfloat16) is documented_flash_attention
    assert flash_attention(cuda, torch.float32) is None
    assert flash_attention(cpu, torch.bfloat16) is None
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # as when it is not installed
    assert flash_attention(cuda, torch.bfloat16) is None


def test_closing_frees_the_static_buffers(nvidia_folder):
    engine = nemodiff.load(str(nvidia_folder), device="cpu", dtype="float32", graphs=True)
    engine.generate(nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=3))
    weight = weakref.ref(engine.model.layers[0].qkv.weight)
    engine.close()
    assert weight() is None


def test_masks_are_made_for_the_capacity_alone(model):
    """Every tensor of a forward has the same shape at every length."""
    lane = model.static.lane_cache("masks", model.new_cache(1000))
    attention = graphs.MaskedAttention(lane, 3, causal=True)
    seen = []
    original = F.scaled_dot_product_attention

    def watched(q, k, v, attn_mask):
        seen.append((tuple(q.shape), tuple(k.shape), tuple(attn_mask.shape)))
        return original(q, k, v, attn_mask=attn_mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watched)
        for length in (10, 900):
            attend = attention.at(lane.at(length), length + torch.arange(3))
            attend(torch.zeros(3, 4, 16), torch.zeros(3, 2, 16), torch.zeros(3, 2, 16), 0)
    assert seen[0] == seen[1] == ((1, 2, 16, 16), (1, 2, 1024, 16), (1, 1, 16, 1024))
