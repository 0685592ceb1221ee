"""Dual-stream training on tiny random models: exact masks, falling loss, adapters that survive export and merging."""

import random

import pytest
import torch
from safetensors.torch import load_file

from nemodiff.model.adapter import merge_adapter, pack4, put_factors, take_factors, unpack4
from nemodiff.model.transformer import Transformer
from nemodiff.training import data as training_data
from nemodiff.training import dual_stream
from nemodiff.training.data import NEUTRAL_WEIGHT, PROMPT_WEIGHT, Sequence, hard_tokens, pack
from nemodiff.training.dual_stream import Backbone, final_norm, forward
from nemodiff.training.joint import rate
from nemodiff.training.lora import export_adapter, round_update
from nemodiff.training.noisy_copies import noisy_copy
from nemodiff.training.objective import base_distribution, joint_loss
from tests.helpers.training import END, MASK, VOCABULARY, merged_model, tiny_lora, tiny_model

RESTRICTED = torch.arange(VOCABULARY)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compiling takes longer than these tests."""
    monkeypatch.setattr(dual_stream, "_USE_COMPILED", False)


def sequences(seed: int = 3) -> list[Sequence]:
    rng = random.Random(seed)
    prefix = [1, 7, 8, 9]
    made = [
        Sequence(
            prefix + [rng.randint(20, 60) for _ in range(rng.randint(2, 6))],
            [rng.randint(20, 60) for _ in range(n)] + [END],
        )
        for n in (9, 14, 5)
    ]
    made[1].chat = True
    return made


def test_dual_stream_equals_block_by_block_decoding():
    """Clean rows equal a causal forward; every noisy block equals a bidirectional forward over the cached clean text
    before it."""
    model = tiny_model()
    lora = tiny_lora(model)
    reference = merged_model(model, lora)
    rng = random.Random(0)
    data = sequences()
    copies = [[noisy_copy(s.answer, s.ended, END, MASK, rng) for _ in range(2)] for s in data]
    batch = pack(data, copies, RESTRICTED, dtype=torch.float32)
    backbone = Backbone.of(model)
    logits = final_norm(backbone, forward(backbone, batch.stream, lora)) @ backbone.head.t()

    prefix = 4
    clean_at = prefix
    noisy_at = prefix + sum(len(s.prompt) + len(s.answer) - prefix for s in data)
    for sequence, noisy in zip(data, copies, strict=True):
        whole = sequence.prompt + sequence.answer
        cache = reference.new_cache(len(whole) + 32)
        expected = reference(torch.tensor(whole), cache, causal=True)
        torch.testing.assert_close(
            logits[clean_at : clean_at + len(whole) - prefix], expected[prefix:], atol=2e-4, rtol=1e-3
        )
        clean_at += len(whole) - prefix
        for copy in noisy:
            for start in sorted(set(copy.start)):
                rows = [i for i, s in enumerate(copy.start) if s == start]
                cache = reference.new_cache(len(whole) + 32)
                before = sequence.prompt + sequence.answer[:start]
                reference(torch.tensor(before), cache, causal=True)
                cache.keep(len(before))
                expected = reference(torch.tensor([copy.tokens[i] for i in rows]), cache, causal=False)
                torch.testing.assert_close(
                    logits[noisy_at + rows[0] : noisy_at + rows[-1] + 1], expected, atol=2e-4, rtol=1e-3
                )
            noisy_at += len(copy.tokens)
    assert noisy_at == len(batch.stream.tokens)


def test_base_stream_is_the_untouched_model():
    model = tiny_model()
    data = sequences()
    batch = pack(data, [[] for _ in data], RESTRICTED, dtype=torch.float32)
    backbone = Backbone.of(model)
    logits = final_norm(backbone, forward(backbone, batch.base_stream)) @ backbone.head.t()
    whole = data[1].prompt + data[1].answer
    expected = model(torch.tensor(whole), model.new_cache(64), causal=True)
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-3)
    assert batch.teacher[batch.teacher >= 0].tolist() == [4 + i for i in range(len(whole) - 5)]


def test_neutral_text_stands_alone():
    """Plain text without the chat template shares no prefix, sees none, has no noisy copies, and follows the base."""
    model = tiny_model()
    lora = tiny_lora(model)
    neutral = Sequence([30, 31], [32, 33, 34, 35], chat=True, ended=False, neutral=True)
    data = [neutral, *sequences()]
    copies = [[], *[[noisy_copy(s.answer, s.ended, END, MASK, random.Random(1))] for s in data[1:]]]
    batch = pack(data, copies, RESTRICTED, dtype=torch.float32)
    backbone = Backbone.of(model)
    at, whole = 4, torch.tensor(neutral.prompt + neutral.answer)  # after the prefix of the others
    assert batch.stream.tokens[:4].tolist() == sequences()[0].prompt[:4]
    for stream, update, reference in (
        (batch.stream, lora, merged_model(model, lora)),
        (batch.base_stream, None, model),
    ):
        logits = final_norm(backbone, forward(backbone, stream, update)) @ backbone.head.t()
        expected = reference(whole, reference.new_cache(64), causal=True)
        torch.testing.assert_close(logits[at : at + 6], expected, atol=2e-4, rtol=1e-3)
    assert batch.clean_rows[:5].tolist() == batch.teacher[:5].tolist() == [at + i for i in range(5)]
    assert batch.clean_weights[:5].tolist() == pytest.approx([PROMPT_WEIGHT, *[NEUTRAL_WEIGHT] * 4])
    only = pack([neutral], [[]], RESTRICTED, dtype=torch.float32)
    assert only.stream.tokens.tolist() == only.base_stream.tokens.tolist() == whole.tolist()


def plain_loss(model: Transformer, batch, a_b: dict, mask_embedding: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """The joint loss written without any of the hand-made backward passes."""
    backbone = Backbone.of(model)

    def norm(x, weight):
        return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, backbone.eps)

    def run(stream, use_lora):
        tokens = len(stream.tokens)
        mask = torch.full((tokens, tokens), float("-inf"))
        for span in stream.spans:
            columns = torch.cat([torch.arange(*keys) for keys in span.keys])
            mask[torch.arange(*span.queries)[:, None], columns[None]] = span.mask
        x = backbone.embedding[stream.tokens]
        if use_lora:
            x = torch.where(stream.masked[:, None], mask_embedding, x)
        angles = stream.positions[:, None, None].float() * backbone.inverse_frequencies
        cos, sin = angles.cos(), angles.sin()
        for i, layer in enumerate(backbone.layers):
            weights = {
                name: layer[name] + (a_b[i, name][1] @ a_b[i, name][0] if use_lora else 0)
                for name in ("qkv", "o", "gate_up", "down")
            }
            q, k, v = (norm(x, layer["input_norm"]) @ weights["qkv"].t()).view(tokens, 10, 8).split([6, 2, 2], 1)
            q, k = (
                torch.cat((u[..., :4] * cos - u[..., 4:] * sin, u[..., 4:] * cos + u[..., :4] * sin), -1)
                for u in (q, k)
            )
            k, v = k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)
            scores = torch.einsum("qhd,khd->hqk", q, k) / 8**0.5 + mask
            x = x + torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(tokens, -1) @ weights["o"].t()
            gate, up = (norm(x, layer["post_norm"]) @ weights["gate_up"].t()).chunk(2, -1)
            x = x + (torch.nn.functional.silu(gate) * up) @ weights["down"].t()
        return (norm(x, backbone.norm) @ backbone.head.t()).log_softmax(-1)

    log_p = run(batch.stream, True)
    clean, noisy = log_p[batch.clean_rows], log_p[batch.noisy_rows]
    base = run(batch.base_stream, False).exp().detach()
    total, weights = 0.0, 0.0
    for i, label in enumerate(batch.clean_labels.tolist()):
        target = base[batch.teacher[i]] if batch.teacher[i] >= 0 else torch.eye(VOCABULARY)[label]
        total, weights = total - batch.clean_weights[i] * (target * clean[i]).sum(), weights + batch.clean_weights[i]
    ar = total / weights
    total, weights = 0.0, 0.0
    for i, label in enumerate(batch.noisy_labels.tolist()):
        target = torch.eye(VOCABULARY)[label]
        if batch.noisy_clean[i] >= 0:
            target = 0.5 * target + 0.5 * clean[batch.noisy_clean[i]].exp().detach()
        total, weights = total - batch.noisy_weights[i] * (target * noisy[i]).sum(), weights + batch.noisy_weights[i]
    return ar + total / weights


def test_loss_and_gradients_equal_the_plain_ones():
    model = tiny_model()
    lora = tiny_lora(model)
    data, rng = sequences(), random.Random(5)
    copies = [[noisy_copy(s.answer, s.ended, END, MASK, rng) for _ in range(2)] for s in data]
    batch = pack(data, copies, RESTRICTED, dtype=torch.float32)
    backbone = Backbone.of(model)
    loss, figures = joint_loss(backbone, lora, batch, backbone.head)
    loss.backward()

    a_b = {key: tuple(f.detach().clone().requires_grad_() for f in pair) for key, pair in lora.factors.items()}
    mask_embedding = lora.mask_embedding.detach().clone().requires_grad_()
    expected = plain_loss(model, batch, a_b, mask_embedding)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    for key, pair in a_b.items():
        for ours, theirs in zip(lora.factors[key], pair, strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(lora.mask_embedding.grad, mask_embedding.grad, atol=1e-4, rtol=1e-3)
    # The views collect into the flat buffer that workers average.
    assert lora.grads.norm() > 0 and lora.factors[0, "qkv"][0].grad.data_ptr() == lora.grads.data_ptr()
    line = figures.as_dict()
    assert line["targets"] == int(((batch.noisy_weights > 0) & (batch.noisy_clean >= 0)).sum())
    assert abs(line["ar_loss"] + line["diffusion_loss"] - loss.item()) < 1e-3


def test_hard_tokens_are_those_the_base_hardly_expects(monkeypatch):
    """Against the base run over each chat alone; what is taught beforehand gives the same loss."""
    level = 1 / VOCABULARY
    monkeypatch.setattr(training_data, "HARD", level)
    model = tiny_model()
    data = sequences()
    data[1:1] = [Sequence([30, 31], [32, 33, 34], chat=True, ended=False, neutral=True)]
    backbone = Backbone.of(model)
    clean = pack(data, [[] for _ in data], RESTRICTED, dtype=torch.float32)
    taught = base_distribution(backbone, clean, backbone.head)
    hard = hard_tokens(data, clean, taught)
    assert list(hard) == [1, 2]
    for i in hard:
        whole = data[i].prompt + data[i].answer
        p = model(torch.tensor(whole), model.new_cache(64), causal=True).softmax(-1)
        first = len(data[i].prompt)
        assert hard[i] == [bool(p[at - 1, whole[at]] < level) for at in range(first, len(whole))]
    assert len({one for row in hard.values() for one in row}) == 2  # some are hard, some are not

    lora = tiny_lora(model)
    copies = [[] if s.neutral else [noisy_copy(s.answer, s.ended, END, MASK, random.Random(0))] for s in data]
    batch = pack(data, copies, RESTRICTED, dtype=torch.float32)
    expected, _ = joint_loss(backbone, lora, batch, backbone.head)
    batch.taught = taught
    assert joint_loss(backbone, lora, batch, backbone.head)[0] == expected


def test_loss_falls_within_a_few_steps():
    model = tiny_model()
    lora = tiny_lora(model, trained=False)
    backbone = Backbone.of(model)
    values = torch.nn.Parameter(lora.values)
    values.grad = lora.grads
    optimizer = torch.optim.AdamW([values, lora.mask_embedding], lr=1e-2)
    losses = []
    for step in range(35):
        rng = random.Random(step % 2)
        data = sequences()
        copies = [[noisy_copy(s.answer, s.ended, END, MASK, rng) for _ in range(2)] for s in data]
        lora.zero_grad()
        loss, _ = joint_loss(backbone, lora, pack(data, copies, RESTRICTED, dtype=torch.float32), backbone.head)
        loss.backward()
        optimizer.step()
        lora.merge()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_adapter_survives_export_and_merge(tmp_path):
    """What the engine's loader merges differs from the trained update by rounding alone."""
    model = tiny_model()
    lora = tiny_lora(model)
    export_adapter(lora, tmp_path, {"base": "tiny", "mask_token_id": MASK, "shift_logits": True, "block_size": 8})
    fresh = tiny_model()
    merge_adapter(fresh, tmp_path)
    exact = merged_model(model, lora)
    for ours, theirs in zip(fresh.layers, exact.layers, strict=True):
        for name in ("qkv", "o", "gate_up", "down"):
            difference = (getattr(ours, name).weight - getattr(theirs, name).weight).abs().max()
            assert difference < 0.01 * getattr(theirs, name).weight.abs().max()
    torch.testing.assert_close(fresh.mask_embedding, lora.mask_embedding.detach())
    factors = load_file(tmp_path / "adapter.safetensors")
    for (layer, name), (a, b) in lora.factors.items():
        ours = take_factors(factors, f"layers.{layer}.{name}")
        update = (b @ a).detach()
        assert 0 < (ours[1] @ ours[0] - update).norm() < 0.12 * update.norm()


def test_training_goes_on_from_an_exported_adapter(tmp_path):
    model = tiny_model()
    lora = tiny_lora(model)
    export_adapter(lora, tmp_path, {"base": "tiny", "mask_token_id": MASK, "shift_logits": True, "block_size": 8})
    other = tiny_lora(model, trained=False)
    other.load(tmp_path)
    for key, pair in lora.factors.items():
        a, b = other.factors[key]
        update = (pair[1] @ pair[0]).detach()
        assert (b @ a - update).norm() < 0.12 * update.norm()
        used = b.norm(dim=0) > 0  # what the file left out begins anew, with a B of zeros
        torch.testing.assert_close(a.norm(dim=1)[used], b.norm(dim=0)[used])  # both share a component's size
        assert a.norm(dim=1).min() > 0
        merged = lora.merged[key[0]][key[1]]
        assert (other.merged[key[0]][key[1]] - merged).abs().max() < 0.01 * merged.abs().max()
    torch.testing.assert_close(other.mask_embedding, lora.mask_embedding)


@pytest.mark.parametrize("error", [0.02, 0.07, 0.3])
def test_round_update_keeps_the_product_within_its_error(error):
    draws = torch.Generator().manual_seed(3)
    # Components of very different size, mixed over the factors as learning leaves them.
    turn = torch.linalg.qr(torch.randn(16, 16, generator=draws))[0]
    a = turn @ (0.7 ** torch.arange(16.0)[:, None] * torch.randn(16, 96, generator=draws))
    b = torch.randn(64, 16, generator=draws) @ turn.t()
    int_a, int_b, scale = round_update(a, b, error)
    assert int_a.dtype == int_b.dtype == torch.int8 and int_a.shape == a.shape and int_b.shape == b.shape
    product = int_b.float() @ (int_a.float() * scale[:, None])
    assert float((product - b @ a).norm() / (b @ a).norm()) == pytest.approx(error, rel=0.25)
    coarse, fine = int_a.unique().numel(), round_update(a, b, error / 2)[0].unique().numel()
    assert coarse < fine
    # The smallest components are not worth the error that larger ones are allowed.
    assert int((int_a == 0).all(1).sum()) == {0.02: 2, 0.07: 6, 0.3: 11}[error]


def test_four_bits_hold_what_they_are_given():
    steps = torch.randint(-7, 8, (5, 12), dtype=torch.int8)
    assert torch.equal(unpack4(pack4(steps)), steps.float()) and pack4(steps).shape == (5, 6)


def test_small_components_stand_in_four_bits_and_none_is_lost():
    draws = torch.Generator().manual_seed(6)
    a = torch.randint(-7, 8, (6, 8), generator=draws).to(torch.int8)
    b = torch.randint(-7, 8, (10, 6), generator=draws).to(torch.int8)
    a[1, 0], b[3, 4], b[:, 2], a[2] = 100, -8, 0, 0  # two components are wide, one is nothing
    scale = torch.rand(6, generator=draws)
    tensors = put_factors("w", a, b, scale)
    assert tensors["w.lora_A"].shape == (2, 8) and tensors["w.lora_B4"].shape == (3, 5)
    got_a, got_b = take_factors(tensors, "w")
    torch.testing.assert_close(got_b @ got_a, b.float() @ (a.float() * scale[:, None]))
    assert not tensors
    rows = torch.rand(10, generator=draws)  # as files were written before, with a scale of B's rows
    whole = {"w.lora_A": a, "w.lora_A.scale": scale, "w.lora_B": b, "w.lora_B.scale": rows}
    old_a, old_b = take_factors(whole, "w")
    torch.testing.assert_close(rows[:, None] * (got_b @ got_a), old_b @ old_a)


def test_round_update_of_nothing_is_nothing():
    int_a, int_b, scale = round_update(torch.randn(4, 8), torch.zeros(6, 4), 0.07)
    assert not int_b.any() and torch.isfinite(scale).all()


def test_rate_warms_up_holds_and_falls():
    assert rate(0, 0.0, 20) == pytest.approx(0.05)
    assert rate(50, 0.4, 20) == 1.0
    assert rate(500, 0.75, 20) == pytest.approx(0.515)
    assert rate(900, 1.2, 20) == pytest.approx(0.03)
