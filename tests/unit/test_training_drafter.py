"""The drafter LoRA in training: drafts as decoding makes them, the verifier untouched, a file that loads."""

from __future__ import annotations

import json
import random

import pytest
import torch

from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_draft_lora
from nemodiff.training import dual_stream
from nemodiff.training.data import Batch, Sequence, pack
from nemodiff.training.drafter import Drafter, Drafts, clean_pass, draft_pass, drafter_loss, drafts_of, export_drafter
from nemodiff.training.dual_stream import Backbone, final_norm, forward
from nemodiff.training.noisy_copies import DRAFT_WAYS, noisy_copy
from tests.helpers.training import END, MASK, VOCABULARY, tiny_lora, tiny_model

RESTRICTED = torch.arange(VOCABULARY)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(dual_stream, "_USE_COMPILED", False)


@pytest.fixture
def model() -> Transformer:
    made = tiny_model()
    made.mask_embedding = tiny_lora(made).mask_embedding.detach()
    return made


def batch_of(seed: int = 0) -> tuple[list[Sequence], list, Batch]:
    rng = random.Random(seed)
    data = [
        Sequence([1, 7, 8, *[rng.randint(20, 60) for _ in range(4)]], [*[rng.randint(20, 60) for _ in range(n)], END])
        for n in (9, 14)
    ]
    copies = [[noisy_copy(s.answer, True, END, MASK, rng, block=5, ways=DRAFT_WAYS) for _ in range(2)] for s in data]
    return data, copies, pack(data, copies, RESTRICTED, dtype=torch.float32)


def random_drafter(backbone: Backbone) -> Drafter:
    drafter = Drafter(backbone, 3)
    generator = torch.Generator().manual_seed(4)
    for b in drafter.b:
        b.data.normal_(0, 0.2, generator=generator)
    return drafter


def test_a_new_drafter_changes_nothing(model):
    """Two passes give what one pass over the whole stream gives."""
    _, _, batch = batch_of()
    backbone = Backbone.of(model)
    whole = forward(backbone, batch.stream)
    count = int(batch.stream.masked.nonzero()[0])
    count = next(span.queries[0] for span in batch.stream.spans if span.queries[0] <= count < span.queries[1])
    clean = clean_pass(backbone, batch.stream, count)
    torch.testing.assert_close(clean.hidden, whole[:count])
    for drafter in (None, Drafter(backbone, 3)):
        torch.testing.assert_close(draft_pass(backbone, batch.stream, clean, drafter), whole[count:])


def test_drafts_are_those_of_decoding_and_the_verifier_is_untouched(model, tmp_path):
    """The exported update, loaded as a draft LoRA: blocks drafted with it on, tokens verified with it off."""
    data, copies, batch = batch_of()
    backbone = Backbone.of(model)
    drafter = random_drafter(backbone)
    for parameter in drafter.parameters():
        parameter.data = parameter.data.bfloat16().float()  # as in the file
    drafts = drafts_of(backbone, batch, backbone.head, drafter)
    export_drafter(drafter, model.config, tmp_path / "lora", {"steps": 0})
    load_draft_lora(model, tmp_path / "lora")
    at = 0
    for sequence, noisy in zip(data, copies, strict=True):
        for copy in noisy:
            for start in sorted(set(copy.start)):
                rows = [i for i, own in enumerate(copy.start) if own == start]
                before = torch.tensor(sequence.prompt + sequence.answer[:start])
                cache = model.new_cache(64)
                model(before, cache, causal=True)
                cache.keep(len(before))
                drafted = model(torch.tensor([copy.tokens[i] for i in rows]), cache, causal=False, adapter=True)
                whole = torch.tensor(sequence.prompt + sequence.answer)
                verified = model(whole, model.new_cache(64), causal=True)
                for i, row in zip(rows, drafted, strict=True):
                    if 0 <= copy.target[i] < len(sequence.answer):
                        torch.testing.assert_close(drafts.draft[at], row, atol=3e-4, rtol=1e-3)
                        expected = verified[len(sequence.prompt) + copy.target[i] - 1]
                        torch.testing.assert_close(drafts.verifier[at], expected, atol=3e-4, rtol=1e-3)
                        at += 1
    assert at == len(drafts.draft) > 20


def test_what_counts_ends_with_the_first_rejection():
    """Blocks 0 and 1; the draft of block 0 is wrong at its second target, that of block 1 at its last."""
    verifier = torch.eye(4)[[0, 1, 2, 3, 0, 1]]
    draft = torch.eye(4)[[0, 2, 2, 3, 0, 2]]
    drafts = Drafts(draft, verifier, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert drafts.counted.tolist() == [True, True, False, True, True, True]
    assert drafts.accepted() == (3, 2)


def test_the_loss_is_least_where_they_agree():
    blocks = torch.arange(6)
    verifier = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 4
    other = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)) * 4
    same, mixed, far = (
        drafter_loss(Drafts(draft, verifier, blocks)) for draft in (verifier, (verifier + other) / 2, other)
    )
    entropy = torch.nn.functional.cross_entropy(verifier, verifier.argmax(-1))
    torch.testing.assert_close(same, entropy)
    assert same < mixed < far


def test_a_drafter_learns_to_be_accepted(model):
    """Its loss falls, more drafts are accepted, and the weights that verify stay as they are."""
    backbone = Backbone.of(model)
    before = [layer["o"].clone() for layer in backbone.layers]
    drafter = Drafter(backbone, 8)
    optimizer = torch.optim.Adam(drafter.parameters(), 2e-2)
    _, _, batch = batch_of()
    found = []
    for _ in range(60):
        drafts = drafts_of(backbone, batch, backbone.head, drafter)
        loss = drafter_loss(drafts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((loss.item(), drafts.accepted()[0]))
    assert found[-1][0] < 0.9 * found[0][0] and found[-1][1] > found[0][1]
    assert all(torch.equal(layer["o"], old) for layer, old in zip(backbone.layers, before, strict=True))


def test_the_file_is_pefts(model, tmp_path):
    path = export_drafter(Drafter(Backbone.of(model), 3), model.config, tmp_path, {"steps": 5})
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["target_modules"]) == (3, 3, ["o_proj"])
    assert path.name == "adapter_model.safetensors" and path.stat().st_size < 20_000


def test_the_final_norm_is_shared(model):
    """What drafts are read off with is what the model reads its hidden states off with."""
    _, _, batch = batch_of()
    backbone = Backbone.of(model)
    drafts = drafts_of(backbone, batch, backbone.head, None)
    logits = final_norm(backbone, forward(backbone, batch.stream)) @ backbone.head.t()
    torch.testing.assert_close(drafts.draft, logits[batch.noisy_rows[batch.noisy_clean >= 0]])
