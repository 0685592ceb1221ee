"""Forwards of fixed shapes against eager torch: the same logits and tokens, no waiting for the host; flash-attn's call.

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
from PIL import Image
from torch.fx.experimental.proxy_tensor import make_fx

import nemodiff
from nemodiff.decode import lane
from nemodiff.model.cuda import capture, graph_runner
from nemodiff.model.cuda.fixed_attention import FlashAttention, MaskedAttention, flash_attention
from nemodiff.model.cuda.fixed_forward import FixedForward, Kind
from nemodiff.model.cuda.graph_runner import BUDGETS, GraphRunner, budget
from nemodiff.model.cuda.row_shapes import RowShapes
from nemodiff.model.layout import groups, tree
from nemodiff.model.weights import load_model
from nemodiff.pictures import Picture
from nemodiff.trace.events import MODES
from tests.helpers.checkpoints import random_sampler, with_graphs
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.vlm import write_vlm

BLOCK = 16


@pytest.fixture(scope="module")
def model(nvidia_folder):
    return load_model(nvidia_folder, "cpu", torch.float32)


@pytest.fixture(scope="module")
def runner(model):
    return GraphRunner(model)


def prefilled(runner, length):
    """A normal cache that keeps `length` positions, and the lane's own one with the same."""
    cache = runner.new_cache(length + 300)
    tokens = torch.randint(0, 199, (length,), generator=torch.Generator().manual_seed(length))
    runner.forward(tokens, cache)
    cache.keep(length)
    return cache, runner.lane_cache(cache, "ar")


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 47, 255, 256, 300, 1100])
@pytest.mark.parametrize("rows", [1, 5, BLOCK, 64])
@pytest.mark.parametrize("how", [{"causal": True}, {"causal": False}, {"causal": False, "adapter": True}])
def test_logits_and_cache_are_those_of_eager_torch(runner, length, rows, how):
    normal, lane = prefilled(runner, length)
    tokens = torch.arange(rows) * 7 % 199
    expected, found = runner.model(tokens, normal, **how).clone(), runner.forward(tokens, lane, few=3, **how)
    close(found.logits, expected)
    probabilities = expected.softmax(-1)
    for ours, theirs in zip(lane.flat(1, length + rows), normal.flat(1, length + rows), strict=True):
        close(ours, theirs)
    if not how["causal"]:
        expected[:, runner.config.mask] = -torch.inf
    assert torch.equal(found.best.tokens[:, 0], expected.argmax(-1))
    close(found.best.logits[:, :3], expected.topk(3).values)
    close(found.best.probabilities[:, 0], probabilities.gather(1, expected.argmax(-1, keepdim=True))[:, 0])


LAYOUTS = [
    groups(0, 8, again=False),
    groups(3, 4, again=False),
    groups(4, 3, again=True),
    groups(7, 8, again=False),
    groups(15, 16, again=False),
    tree((-1,)),
    tree((-1, 0, 0, 1, 2), (3, 4), 5),
    tree((-1, *range(40)), (0, 40), 8),
]


@pytest.mark.parametrize("length", [1, 300])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout.rows))
@pytest.mark.parametrize("adapter", [False, True])
def test_layouts_fill_a_budget_and_say_what_eager_torch_says(runner, length, layout, adapter):
    normal, lane = prefilled(runner, length)
    for other in (layout, groups(1, 2, again=False), layout):  # the same buffers serve layouts of every kind
        rows = torch.arange(other.rows) * 7 % 199
        expected = runner.model(rows, normal, layout=other, adapter=adapter).clone()
        found = runner.forward(rows, lane, layout=other, adapter=adapter, few=4)
        close(found.logits, expected)
        expected[other.plain :, runner.config.mask] = -torch.inf
        assert torch.equal(found.best.tokens[:, 0], expected.argmax(-1))
    assert {kind.rows for kind in lane._forwards if kind.sees == "layout"} <= {*BUDGETS, 16 * 17, 72}
    if layout.parents:  # a path is kept, and what comes next sees it
        path = next(iter(layout.paths))
        for cache in (normal, lane):
            cache.keep(path)
        close(runner(rows[:1], lane), runner.model(rows[:1], normal))


def test_budgets():
    assert [budget(rows) for rows in (1, 8, 9, 17, 33, 49, 64, 65, 272)] == [8, 8, 16, 24, 48, 64, 64, 72, 272]


def test_the_best_of_equals_is_the_first(runner):
    _, lane = prefilled(runner, 5)
    forward = FixedForward(runner.model, lane, Kind(2, "all"), MaskedAttention(runner.config, lane, 2))
    logits = torch.zeros(2, 199)
    logits[0, [150, 60, 100]] = 3.0
    logits[1, 100] = 5.0
    read = forward._best(logits, torch.tensor([[False], [True]]))
    assert read[:, 0].tolist() == [60, 100]  # a row that verifies may propose the mask, another may not
    assert read[:, 20].tolist() == [3.0, 5.0]
    close(read[:, -1].float(), logits.logsumexp(-1))  # the mask stays in the sum


def test_written_is_not_kept(runner):
    _, lane = prefilled(runner, 20)
    first = runner(torch.tensor([3, 4, 5]), lane).clone()
    assert lane.length == 20
    runner(torch.tensor([9] * BLOCK), lane, causal=False)  # a draft writes over it and keeps nothing
    assert torch.equal(runner(torch.tensor([3, 4, 5]), lane), first)
    lane.keep(2)
    assert torch.equal(runner(torch.tensor([5]), lane)[0], first[2])


def test_a_forward_that_does_not_fit_is_refused(runner):
    _, lane = prefilled(runner, 20)
    lane.length = lane.capacity - 3
    with pytest.raises(ValueError, match="do not fit"):
        runner(torch.tensor([3, 4, 5, 6]), lane)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("draft", ["linear", "quadratic", "tree"])
def test_every_mode_gives_the_same_tokens(nvidia_folder, dtype, draft):
    normal = nemodiff.load(str(nvidia_folder), device="cpu", dtype=dtype)
    fixed = with_graphs(normal)
    assert fixed.attention == "SDPA, fixed shapes" and normal.attention != fixed.attention
    for length in (4, 250):
        request = nemodiff.Request(
            prompt_ids=tuple(i * 5 % 99 for i in range(length)),
            max_new_tokens=30,
            block_length=8,
            threshold=0.3,
            draft=draft,
            rows=16 if draft == "tree" else None,  # else what forwards cost decides
            ignore_eos=True,
        )
        traces = [engine.generate(request) for engine in (fixed, normal)]
        assert traces[0].exact is (draft != "tree") and traces[1].exact
        ours, theirs = ({lane.mode: lane for lane in trace.lanes} for trace in traces)
        if traces[0].exact:
            assert ours["ar"].tokens == ours["self-speculation"].tokens
        if dtype == "float32":
            for mode in MODES:
                assert (ours[mode].tokens, ours[mode].nfe) == (theirs[mode].tokens, theirs[mode].nfe)
                for one, other in zip(ours[mode].events, theirs[mode].events, strict=True):
                    for a, b in zip(one.positions, other.positions, strict=True):
                        assert (a.token, a.state, [t for t, _ in a.top]) == (b.token, b.state, [t for t, _ in b.top])
                        assert a.confidence == pytest.approx(b.confidence, abs=1e-4)


@pytest.mark.parametrize(
    ("draft", "acceptance"),
    [(draft, "match") for draft in ("linear", "quadratic", "tree")]
    + [(draft, kind) for draft in ("linear", "quadratic") for kind in ("independent", "sampling")],
)
def test_noise_chooses_the_same_tokens(nvidia_folder, draft, acceptance):
    normal = nemodiff.load(str(nvidia_folder), device="cpu", dtype="float32")
    request = nemodiff.Request(
        prompt_ids=(5, 6, 7),
        max_new_tokens=24,
        block_length=4,
        temperature=0.8,
        seed=3,
        draft=draft,
        rows=16 if draft == "tree" else None,
        acceptance=acceptance,
        ignore_eos=True,
    )
    ours, theirs = (engine.generate(request) for engine in (with_graphs(normal), normal))
    assert [lane.tokens for lane in ours.lanes] == [lane.tokens for lane in theirs.lanes]


def test_a_thinking_budget_and_what_samplers_measure(tmp_path):
    folder = write_nvidia(random_ministral(), tmp_path / "thinks", tokenizer=True)
    normal = nemodiff.load(str(folder), device="cpu", dtype="float32")
    normal.sampler = random_sampler(normal.model.embed.weight)
    fixed = with_graphs(normal)
    measured = ({"sampler": "entropy"}, {"sampler": "trained", "threshold": 0.5}, {"sampler": "fixed"})
    for more in ({"max_thinking_tokens": 3}, {"alternatives": 0}, *measured):
        request = nemodiff.Request(prompt_ids=(5, 6, 7), max_new_tokens=20, ignore_eos=True, **more)
        ours, theirs = fixed.generate(request), normal.generate(request)
        assert [lane.tokens for lane in ours.lanes] == [lane.tokens for lane in theirs.lanes], more


@pytest.mark.parametrize("more", [{"temperature": 0.8}, {"sampler": "entropy"}, {"alternatives": 3, "seed": 1}])
def test_alternatives_that_come_in_the_same_copy_are_the_same(nvidia_folder, monkeypatch, more):
    engine = with_graphs(nemodiff.load(str(nvidia_folder), device="cpu", dtype="float32"))
    request = nemodiff.Request(prompt_ids=(5, 6, 7), max_new_tokens=16, block_length=4, ignore_eos=True, **more)
    apart = engine.generate(request)
    monkeypatch.setattr(lane, "TOGETHER", {"cpu"})  # as from a GPU
    together = engine.generate(request)
    for one, other in zip(apart.lanes, together.lanes, strict=True):
        assert [event.positions for event in one.events] == [event.positions for event in other.events]


def test_pictures_in_the_prompt(tmp_path):
    normal = nemodiff.load(str(write_vlm(tmp_path / "vlm", tokenizer=True)), device="cpu", dtype="float32")
    noise = torch.randint(0, 256, (40, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Picture.of(Image.fromarray(noise.numpy()))
    tokens = []
    for draft in ("linear", "quadratic"):
        request = nemodiff.Request(
            prompt="w5 w6", images=(picture,), max_new_tokens=12, block_length=4, draft=draft, ignore_eos=True
        )
        traces = [engine.generate(request) for engine in (with_graphs(normal), normal)]
        tokens += [[lane.tokens for lane in trace.lanes] for trace in traces]
    assert tokens[0] == tokens[1] and tokens[2] == tokens[3]


def test_other_forwards_take_a_lane_cache_like_any(runner):
    """Embeddings, the last row alone, more rows than a block."""
    normal, lane = prefilled(runner, 30)
    tokens = torch.arange(70)
    for inputs, how in (
        (runner.embeddings(tokens[:5]), {"causal": True}),
        (tokens[:5], {"rows": slice(-1, None)}),
        (tokens, {"causal": False}),
    ):
        close(runner(inputs, lane, **how), runner.model(inputs, normal, **how))


def test_buffers_stay_until_they_are_too_small(runner):
    small, large = runner.new_cache(100), runner.new_cache(1500)
    first = runner.lane_cache(small, "diffusion")
    assert first.capacity == graph_runner.CAPACITY
    assert runner.lane_cache(small, "diffusion") is first
    assert runner.lane_cache(small, "ar") is not first
    gone = weakref.ref(first)
    assert runner.lane_cache(large, "diffusion").capacity == 2048
    del first
    assert gone() is None  # not only once the collector comes by: a GPU's memory is wanted now


def test_a_block_and_its_rows_alone_agree_to_the_last_bit_or_it_is_said(model, runner, monkeypatch):
    assert runner.exact
    normal = MaskedAttention.at

    def rounds_by_rows(self, length, places, visible):
        attend = normal(self, length, places, visible)
        return lambda *args: attend(*args) * (1 + 1e-6 * (len(places) > 1))

    monkeypatch.setattr(MaskedAttention, "at", rounds_by_rows)
    assert not GraphRunner(model).exact


def test_rows_that_part_in_graphs_are_tried_with_one_row_count(nvidia_folder, monkeypatch):
    model = load_model(nvidia_folder, "cpu", torch.float32)
    before, normal = model.rows, RowShapes.linear

    def parting(self, x, weight):  # as where a recorded library call rounds otherwise than the one that was tried
        rounded = normal(self, x, weight)
        return rounded if len(self.counts) == 1 else rounded * (1 + 1e-6 * (len(x) == self.padded(1)))

    monkeypatch.setattr(RowShapes, "linear", parting)
    assert GraphRunner(model).exact
    assert before.counts != model.rows.counts == (16,)


KINDS = [Kind(1, "causal"), Kind(BLOCK, "all", True), Kind(BLOCK, "layout", True)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_depends_on_the_host(runner, kind):
    """Traced with tensors that have no values: a branch on one, or a copy of one to the host, would raise."""
    _, lane = prefilled(runner, 33)
    layout = tree((-1, 0, 0, 1), (2,), BLOCK - 4) if kind.sees == "layout" else None
    forward, _ = lane.forward(kind)
    forward.inputs.fill(torch.arange(kind.rows), 33, layout)
    graph = make_fx(partial(forward.compute), tracing_mode="fake", _allow_non_fake_inputs=True)(*forward.inputs.all)
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert any("scaled_dot_product" in name for name in called)
    host = ("_local_scalar_dense", "nonzero", "lift_fresh_copy", "aten.item", "aten.equal", "is_nonzero")
    assert not [name for name in called if any(word in name for word in host)]
    # One recorded graph serves every length and layout: replaying it is what CUDA does with the captured one.
    for length in (33, 70):
        normal, lane_now = prefilled(runner, length)
        assert lane_now is lane
        tokens = torch.arange(kind.rows) * 3 % 199
        layout = layout and tree((-1, 0, 1, 2, 0), (4, 0), 3)
        if layout:
            tokens = tokens[: layout.rows]
        forward.inputs.fill(tokens, length, layout)
        found, _ = graph(*forward.inputs.all)
        how = {"causal": kind.sees == "causal", "adapter": kind.adapter, "layout": layout}
        close(found[: len(tokens)], runner.model(tokens, normal, **how))


def test_a_forward_that_reads_the_length_on_the_host_would_be_noticed(runner):
    _, lane = prefilled(runner, 33)
    with pytest.raises(Exception, match="(?i)data.dependent|item"):
        make_fx(lambda n: lane.keys[0, 0, :, : int(n)] * 2, tracing_mode="fake", _allow_non_fake_inputs=True)(
            torch.tensor([33])
        )


def test_a_graph_is_captured_after_warming_up_and_replayed(runner, monkeypatch):
    """The steps around a capture, with CUDA's part made: replaying runs the recorded forward on the same buffers."""
    _, lane = prefilled(runner, 33)
    steps, signature = [], inspect.signature(torch.cuda.graph)

    class Recording:
        def replay(self):
            steps.append("replay")
            forward()

    @contextmanager
    def recorded(graph, **how):
        signature.bind(graph, **how)
        steps.append("capture")
        yield

    stream = SimpleNamespace(wait_stream=lambda other: steps.append("wait"))
    for name, fake in (
        ("Stream", lambda device: stream),
        ("current_stream", lambda device: stream),
        ("stream", lambda other: nullcontext()),
        ("CUDAGraph", Recording),
        ("graph", recorded),
    ):
        monkeypatch.setattr(torch.cuda, name, fake)  # raises where torch has no such name
    forward = FixedForward(runner.model, lane, Kind(3, "causal"), MaskedAttention(runner.config, lane, 3))

    def watched():
        steps.append("forward")
        forward()

    graph = capture.Graph(watched, torch.device("cpu"), None)
    assert steps == ["wait", *["forward"] * 3, "wait", "capture", "forward"]
    for tokens in ([3, 4, 5], [6, 7, 8]):
        forward.inputs.fill(torch.tensor(tokens), 33, None)
        graph()
        close(forward.output(slice(None), 0).logits, runner(torch.tensor(tokens), lane))
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
    runner = GraphRunner(model, documented_flash_attention)
    assert runner.attention == "flash-attn, fixed shapes"
    normal, lane = prefilled(runner, 300)
    tokens = torch.arange(rows)
    close(runner(tokens, lane, causal=causal), model(tokens, normal, causal=causal))
    attention = lane.forward(Kind(rows, "causal" if causal else "all"))[0]._attention
    assert isinstance(attention, FlashAttention)
    layout = groups(1, 2, again=False)  # which flash-attn has no mask for
    close(
        runner(torch.arange(layout.rows), lane, layout=layout), model(torch.arange(layout.rows), normal, layout=layout)
    )


def test_flash_attention_is_for_half_precision_on_a_gpu_where_it_imports(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_with_kvcache=documented_flash_attention))
    assert flash_attention(cuda, torch.bfloat16) == (documented_flash_attention, None)
    assert flash_attention(cuda, torch.float32) == flash_attention(cpu, torch.bfloat16) == (None, None)
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # as when it is not installed
    assert flash_attention(cuda, torch.bfloat16) == (None, None)


def test_a_flash_attention_built_for_another_torch_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    function, reason = flash_attention(torch.device("cuda"), torch.bfloat16)
    assert function is None
    assert reason == (
        "flash-attn does not load, it was built for another torch (undefined symbol: _ZN3c10): install it again"
    )


def test_closing_frees_the_buffers(nvidia_folder):
    engine = with_graphs(nemodiff.load(str(nvidia_folder), device="cpu", dtype="float32"))
    engine.generate(nemodiff.Request(prompt_ids=(5, 6), max_new_tokens=3))
    weight = weakref.ref(engine.model.model.layers[0].qkv.weight)
    engine.close()
    assert weight() is None


def test_masks_are_made_for_the_capacity_alone(runner):
    """Every tensor of a forward has the same shape at every length."""
    lane = runner.lane_cache(runner.new_cache(700), "masks")
    attention = MaskedAttention(runner.config, lane, 3)
    seen = []
    original = F.scaled_dot_product_attention

    def watched(q, k, v, attn_mask):
        seen.append((tuple(q.shape), tuple(k.shape), tuple(attn_mask.shape)))
        return original(q, k, v, attn_mask=attn_mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watched)
        for length in (10, 900):
            places = length + torch.arange(3)
            attend = attention.at(torch.tensor([length]), places, torch.ones(3, 3).bool().tril())
            attend(torch.zeros(3, 4, 16), torch.zeros(3, 2, 16), torch.zeros(3, 2, 16), 0)
    assert seen[0] == seen[1] == ((1, 2, 16, 16), (1, 2, 1024, 16), (1, 1, 16, 1024))
