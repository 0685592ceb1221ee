"""The draft head: its weights by the definition, its drafts against a slow loop, AR's text with it, files, training."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import nemodiff
from nemodiff.decode.noise import Noise
from nemodiff.decode.tree_plan import grow
from nemodiff.errors import CheckpointError
from nemodiff.model.cpu import CpuDraftHead, compiled_kernels
from nemodiff.model.draft_head import (
    CANDIDATES,
    PARENTS,
    DraftHead,
    Drawn,
    Guessed,
    HeadConfig,
    load_head,
    save_head,
    weighed,
)
from nemodiff.request import COLDEST, Request
from nemodiff.training import draft_head as training
from tests.helpers.checkpoints import DTYPES, MASK, needs_int8, random_head, random_llama, with_head, write_llama
from tests.helpers.reference import Obvious, prompt_ids, speculation_beside_ar

KINDS = ("aligned", "shifted")
SPECULATION = ("self-speculation",)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("draft-head")
    return {kind: write_llama(random_llama(seed=3), root / kind, shift_logits=kind == "shifted") for kind in KINDS}


@pytest.fixture(scope="module")
def engines(folders):
    return {kind: with_head(folder) for kind, folder in folders.items()}


@dataclass
class Place:
    """What a row says of a place: its likeliest tokens with the logarithms of what they have, best first; of all tokens
    the same; and what is weighed, which at a temperature is what the noise makes of them."""

    guesses: dict[int, float]
    plain: torch.Tensor
    weighed: dict[int, float]


class Slow(Obvious):
    """Drafts with whole sequences, a place and a pair of tokens at a time. The engine keeps the head's layers as tables
    of fp16, so decisions that are closer than these round are left out."""

    CLOSE = 0.02

    def __init__(self, model, shifted: bool, temperature: float = 0.0, seed: int = 0) -> None:
        super().__init__(model)
        self.shifted, self.temperature, self.noise = shifted, temperature, Noise(seed)
        self.head = random_head(model.model.embed_tokens.weight.detach())

    def place(self, logits: torch.Tensor, mask: int | None, index: int | None = None) -> Place:
        """index: the answer position, of a place that is drafted."""

        def best(shares: torch.Tensor) -> dict[int, float]:
            values, tokens = shares.topk(CANDIDATES)
            return dict(zip(tokens.tolist(), values.tolist(), strict=True))

        shares = logits.float().log_softmax(-1)
        if mask is not None:
            shares[mask] = -math.inf
        if self.temperature and index is not None:
            drawn = shares / self.temperature + self.noise.gumbel("token", [index], shares[None])[0]
            return Place(best(shares), shares.log_softmax(-1), best(drawn.log_softmax(-1)))
        return Place(best(shares), shares, best(shares))

    def embedded(self, token: int) -> torch.Tensor:
        return (self.model.model.embed_tokens.weight[token] - self.head.mean) @ self.head.projection

    def said(self, place: Place) -> torch.Tensor:
        return sum(math.exp(share) * self.embedded(token) for token, share in place.guesses.items())

    @torch.no_grad()
    def behind(self, token: int, rows: list[Place], place: int, known: tuple[int, int]) -> dict[int, float]:
        """Probabilities of what is weighed of rows[place] where `token` stands before it. rows: the first is the
        verifier's. known: the token that the group stands behind, and the one after it."""
        head, own, before, newest = self.head, rows[place], rows[place - 1], known[1]
        if place > 1 and token not in itertools.islice(before.weighed, PARENTS):
            return {candidate: math.exp(share) for candidate, share in own.weighed.items()}
        two_before = self.embedded(known[place - 1]) if place < 3 else self.said(rows[place - 2])
        after = self.said(rows[place + 1]) if place + 1 < len(rows) else torch.zeros_like(two_before)
        around = [self.said(own), self.said(before), two_before, after, self.embedded(newest)]
        surprise_newest = max(rows[0].guesses.get(newest, -12.0), -12.0) / 4
        surprise = surprise_newest if place == 1 else max(float(before.plain[token]), -12.0) / 4
        entropy = -sum(math.exp(share) * max(share, -12.0) for share in own.guesses.values())
        sure = [max(one.guesses.values()) for one in (own, before)]
        figures = torch.tensor([surprise, entropy, *sure, surprise_newest])
        hidden = head.before(self.embedded(token)) + head.around(torch.cat(around)) + head.figures(figures)
        hidden = hidden + head.distance.weight[place - 1]
        pair = head.out(torch.nn.functional.silu(hidden)) + head.pair(self.embedded(token))
        grown = {}
        for candidate, share in own.weighed.items():
            weight = float(pair @ head.candidate(self.embedded(candidate))) / head.config.rank**0.5
            weight /= self.temperature or 1
            grown[candidate] = math.exp(share + max(-20.0, min(weight, 20.0)))
        total = sum(grown.values()) + 1 - sum(map(math.exp, own.weighed.values()))
        return {candidate: share / total for candidate, share in grown.items()}

    def chain(self, rows: list[Place], known: tuple[int, int]) -> list[tuple[int, float]]:
        """(token, probability) of every place, each behind the likeliest one before it."""
        found: list[tuple[int, float]] = []
        for place in range(1, len(rows)):
            shares = self.behind(found[-1][0] if found else known[1], rows, place, known)
            first, second, *_ = sorted(shares.values(), reverse=True)
            self.decided(first, second)
            best = max(shares, key=shares.__getitem__)
            found.append((best, shares[best]))
        return found

    def group(self, ids: list[int], newest: int, masks: int) -> list[tuple[int, float]]:
        """What a group of masks behind ids drafts after the verifier's own token."""
        logits = self.logits([*ids, *[MASK] * masks], len(ids))[len(ids) :]
        rows = [self.place(row, MASK) for row in logits[not self.shifted :]]
        return self.chain([self.place(self.logits(ids)[-1], None), *rows], (ids[-1], newest))

    def block(self, ids: list[int], length: int, index: int) -> list[int]:
        """What the draft pass over [newest token, MASK × (length - 1)] drafts, for answer positions from `index` on."""
        logits = self.logits([*ids, *[MASK] * (length - 1)], len(ids) - 1)[len(ids) - 1 :]
        rows = [self.place(row, MASK, index + at) for at, row in enumerate(logits[:-1] if self.shifted else logits[1:])]
        (newest, first), (_, second) = itertools.islice(rows[0].weighed.items(), 2)
        self.decided(math.exp(first), math.exp(second))
        return [newest, *(token for token, _ in self.chain(rows, (ids[-1], newest)))]


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(2, 7),
    count=st.integers(2, 14),
    temperature=st.sampled_from([0.0, 0.0, 0.3, 0.8, 1.5]),
)
@pytest.mark.parametrize("kind", KINDS)
def test_linear_drafts_are_those_of_a_slow_loop(engines, kind, seed, length, count, temperature):
    """At a temperature the noise of a position moves its drafts, as it moves AR's choice there."""
    asked = {"block_length": length, "max_new_tokens": count, "draft": "linear", "temperature": temperature}
    request = Request(prompt_ids=prompt_ids(seed), modes=SPECULATION, seed=seed, **asked)
    lane = engines[kind].generate(request).lanes[0]
    slow = Slow(random_llama(seed=3), kind == "shifted", temperature, seed)

    def drafts():
        ends = itertools.accumulate(lane.acceptance_lengths, initial=1)
        found = [(end, [*prompt_ids(seed), *lane.tokens[:end]]) for end in ends if end < len(lane.tokens)]
        return [slow.block(ids, length, end) for end, ids in found]

    expected = slow.told(drafts)
    drafted = [[p.token for p in event.positions] for event in lane.events if event.phase == "draft"]
    assert drafted == expected and len(drafted) == len(lane.acceptance_lengths)
    for event in lane.events:
        if event.phase == "draft" and not temperature:
            assert all(p.top[0] == (p.token, p.confidence) for p in event.positions)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(2, 5), rows=st.integers(6, 24), count=st.integers(3, 12))
@pytest.mark.parametrize("draft", ["quadratic", "tree"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_group_drafts_what_a_slow_loop_does(engines, kind, draft, seed, length, rows, count):
    asked = {"rows": rows} if draft == "tree" else {"block_length": length}
    request = Request(prompt_ids=prompt_ids(seed), modes=SPECULATION, draft=draft, max_new_tokens=count, **asked)
    lane = engines[kind].generate(request).lanes[0]
    slow = Slow(random_llama(seed=3), kind == "shifted")

    def groups():
        found, end, drafted = [], 1, []
        for event, gained in zip(lane.events[1:], lane.acceptance_lengths, strict=True):
            ids = [*prompt_ids(seed), *lane.tokens[:end]]
            if draft == "tree":
                paths, masks = [ids], 0
                for (token, _), parent in zip(event.tree, event.parents, strict=True):
                    paths.append([*paths[parent], token])
                if event.behind:
                    masks = (event.rows - 1 - len(event.tree)) // len(event.behind)
                found.append([slow.group(paths[row], slow.next(paths[row]), masks) for row in event.behind])
            else:
                verified = [[*ids, *drafted[:row]] for row in range(1 + len(drafted))]
                masks = length - (kind == "shifted")
                found.append([slow.group(path, slow.next(path), masks) for path in verified])
            drafted = [p.token for p in event.positions if p.state == "drafted"]
            end += gained
        return found

    for event, expected in zip(lane.events[1:], slow.told(groups), strict=True):
        assert [[token for token, _ in group] for group in event.groups] == [
            [t for t, _ in group] for group in expected
        ]
        shares = [share for group in event.groups for _, share in group]
        assert shares == pytest.approx([share for group in expected for _, share in group], rel=0.02)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), temperature=st.sampled_from([0.0, 0.0, 0.8]))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("draft", ["linear", "quadratic", "tree"])
def test_the_text_is_ars(folders, draft, dtype, seed, count, temperature):
    engine = headed(folders["shifted"], dtype)
    speculation_beside_ar(engine, "shifted", seed, draft=draft, max_new_tokens=count, temperature=temperature)


_OPEN: dict = {}


def headed(folder, dtype):
    """One engine for all examples."""
    if (folder, dtype) not in _OPEN:
        _OPEN[folder, dtype] = with_head(folder, dtype)
    return _OPEN[folder, dtype]


def drafted(engine, **asked) -> list:
    return [event.positions for event in engine.generate(Request(prompt_ids=prompt_ids(5), **asked)).lanes[0].events]


@pytest.mark.parametrize("draft", ["linear", "quadratic", "tree"])
def test_it_can_be_left_out_and_is_where_drafts_have_noise_of_their_own(folders, engines, draft):
    """Then drafts are those of an engine without one, and the trace says so."""
    rows = {"rows": 12} if draft == "tree" else {}
    plain = nemodiff.load(str(folders["shifted"]), dtype="float32", device="cpu")
    asked = {"modes": SPECULATION, "draft": draft, "max_new_tokens": 20, **rows}
    assert drafted(engines["shifted"], draft_head=False, **asked) == drafted(plain, **asked)
    assert drafted(engines["shifted"], **asked) != drafted(plain, **asked)
    warm = asked | {"temperature": 0.9}
    assert drafted(engines["shifted"], **warm) != drafted(plain, **warm)
    for acceptance in ("sampling", "independent"):
        other = warm | {"acceptance": acceptance}
        assert drafted(engines["shifted"], **other) == drafted(plain, **other)
    said = [
        engine.generate(Request(prompt_ids=prompt_ids(5), **options)).request["draft_head"]
        for engine, options in (
            (engines["shifted"], asked),
            (engines["shifted"], warm),
            (engines["shifted"], warm | {"acceptance": "sampling"}),
            (engines["shifted"], asked | {"temperature": COLDEST / 2, "acceptance": "sampling"}),
            (engines["shifted"], asked | {"draft_head": False}),
            (plain, asked),
        )
    ]
    assert said == [True, True, False, True, False, False]


def test_more_alternatives_change_no_draft(engines):
    """Of a linear draft they are those behind the place before it, the chosen one first."""
    runs = [
        engines["shifted"].generate(
            Request(prompt_ids=prompt_ids(2), modes=SPECULATION, draft=draft, alternatives=count, max_new_tokens=24)
        )
        for draft in ("linear", "tree")
        for count in (0, 5, 20)
    ]
    told = [[[(p.index, p.token, p.state) for p in e.positions] for e in run.lanes[0].events] for run in runs]
    assert told[0] == told[1] == told[2] and told[3] == told[4] == told[5]
    tops = [len(p.top) for event in runs[2].lanes[0].events for p in event.positions]
    assert set(tops) == {20}


@given(
    st.lists(st.dictionaries(st.integers(0, 5), st.integers(1, 30), min_size=1, max_size=3), min_size=1, max_size=3),
    st.integers(0, 12),
)
def test_a_tree_whose_drafts_hang_on_each_other_is_the_likeliest_of_its_size(places, most):
    """behind: the drafts of a place, whose order a token before them turns round."""

    def ranked(parts):
        return sorted(((token, part / (sum(parts.values()) + 1)) for token, part in parts.items()), key=lambda d: -d[1])

    def behind(depth, token):
        parts = places[depth - 1]
        return ranked({other: 31 - part if (token + other) % 2 else part for other, part in parts.items()})

    nodes = grow([ranked(parts) for parts in places], most, behind)
    every = []
    paths = [((), 1.0)]
    for depth in range(1, len(places) + 1):
        paths = [
            ((*path, token), probability * share)
            for path, probability in paths
            for token, share in (behind(depth, path[-1]) if path else ranked(places[0]))
        ]
        every += [probability for _, probability in paths]
    assert [node.probability for node in nodes] == pytest.approx(sorted(every, reverse=True)[:most])


def test_weights_leave_the_mass_of_other_tokens_as_it_is():
    own = Guessed(torch.tensor([[3, 4]]), torch.tensor([[0.5, 0.25]]).log())
    assert weighed(own, torch.zeros(1, 3, 2)).exp()[0, 2].tolist() == pytest.approx([0.5, 0.25])
    doubled = weighed(own, torch.tensor([[[0.0, math.log(2)]]])).exp()[0, 0]
    assert doubled.tolist() == pytest.approx([0.4, 0.4])  # 0.5 and 2 · 0.25, of 0.5 + 0.5 + 0.25 for the rest


def keep_as_kernels_do(head: DraftHead) -> None:
    """Round a head's tables to bfloat16, so that what is left between torch and the kernels is no rounding of these:
    the colder it is, and the larger the weights, the more that makes."""
    tables = head.tables
    tables["pair"] += head.out.bias
    rounded = {name: table.bfloat16().float() for name, table in tables.items()}
    rounded["pair"] -= head.out.bias
    head.table = rounded.pop("table")
    head._ready = rounded


@needs_int8
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(*[st.integers(1, 40)] * 3),
    places=st.integers(1, 12),
    candidates=st.integers(1, CANDIDATES),
    count=st.integers(1, 20),
    known=st.booleans(),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
)
def test_the_kernel_drafts_what_torch_does(seed, sizes, places, candidates, count, known, temperature):
    """known: whether the newest token was among the verifier's likeliest."""
    torch.manual_seed(seed)
    head, embedding = DraftHead(HeadConfig(90, 24, *sizes)), torch.randn(90, 24)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head.mean, head.projection = 0.1 * torch.randn(24), torch.randn(24, sizes[0]) / 5
    head.eval().attach(embedding)
    plain = (3 * torch.randn(1 + places, 90)).log_softmax(-1)
    shares, tokens = plain.topk(candidates)
    drawn = None
    if temperature:
        noisy = (plain[1:] / temperature - torch.rand(places, 90).log().neg().log()).log_softmax(-1).topk(candidates)
        drawn = Drawn(noisy.indices, plain[1:].gather(1, noisy.indices), noisy.values, temperature)
    newest = int(tokens[0, -1]) if known else min(set(range(90)).difference(tokens[0].tolist()))
    asked = Guessed(tokens, shares), 5, newest, count, drawn
    found = CpuDraftHead(head, compiled_kernels()).drafts(*asked)
    keep_as_kernels_do(head)
    expected = head.drafts(*asked)
    assert [part.shape for part in found] == [part.shape for part in expected]
    for place, parent in itertools.product(range(places), range(expected[0].shape[1])):
        if place == 0 < parent:  # the first place stands behind the newest token alone
            continue
        theirs, ours = ([part[place, parent].tolist() for part in parts] for parts in (expected, found))
        assert ours[1] == pytest.approx(theirs[1], abs=0.01)
        shares = dict(zip(*ours, strict=True))
        assert len(shares) == len(ours[0])
        for token, share in zip(*theirs, strict=True):
            assert shares.get(token, min(ours[1])) == pytest.approx(share, abs=0.01)


@needs_int8
def test_the_kernel_takes_no_more_guesses_than_it_has_room_for():
    guesses = Guessed(torch.zeros(2, CANDIDATES + 1, dtype=torch.long), torch.full((2, CANDIDATES + 1), -4.0))
    head = random_head(random_llama(seed=3).model.embed_tokens.weight.detach())
    with pytest.raises(ValueError, match="33 guesses of a place, where the kernel weighs 32"):
        CpuDraftHead(head, compiled_kernels()).drafts(guesses, 1, 2, 5)


def test_files_bring_back_the_same_head(folders, tmp_path):
    embedding = random_llama(seed=3).model.embed_tokens.weight.detach()
    save_head(random_head(embedding), tmp_path / "one", {})
    head = load_head(tmp_path / "one")
    head.attach(embedding)
    guesses = Guessed(torch.tensor([[[1, 2], [3, 4]]]), torch.tensor([[[0.6, 0.2], [0.5, 0.1]]]).log())
    parents = Guessed(torch.tensor([[[1]]]), torch.tensor([[[0.6]]]).log())
    asked = guesses, parents, torch.tensor([[7, 1]])
    torch.testing.assert_close(head(*asked), random_head(embedding)(*asked), rtol=0.02, atol=0.02)
    with pytest.raises(CheckpointError, match="trained for another model: fetch the checkpoint again"):
        load_head(tmp_path / "one").attach(embedding[:-1])
    with pytest.raises(ValueError, match="attach"):
        load_head(tmp_path / "one")(*asked)


@pytest.mark.parametrize("damage", ["cut", "no numbers", "sizes", "no json", "missing"])
def test_a_damaged_head_is_one_sentence(folders, tmp_path, damage):
    """Of a folder with a head beside its weights."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in folders["shifted"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    head, config = folder / "draft_head" / "draft_head.safetensors", folder / "draft_head" / "draft_head_config.json"
    save_head(random_head(random_llama(seed=3).model.embed_tokens.weight.detach()), head.parent, {})
    assert nemodiff.load(str(folder), dtype="float32", device="cpu").defaults.draft_head
    if damage == "cut":
        head.write_bytes(head.read_bytes()[:-9])
    elif damage == "no numbers":
        tensors = load_file(head)
        save_file(tensors | {"mean": tensors["mean"] * math.nan}, head)
    elif damage == "missing":
        head.unlink()
    else:
        text = json.dumps(json.loads(config.read_text()) | {"rank": 10**9})
        config.write_text(text if damage == "sizes" else text[:-5])
    with pytest.raises(CheckpointError, match="fetch the checkpoint again|this engine takes up to"):
        nemodiff.load(str(folder), dtype="float32", device="cpu")


def asked(seed: int, count: int) -> Request:
    return Request(prompt_ids=prompt_ids(seed), modes=SPECULATION, max_new_tokens=count)


@pytest.fixture
def states(engines) -> training.DraftStates:
    """Of the tiny model's own answers, without the random head."""
    return training.collect(engines["shifted"], [asked(seed, 24) for seed in range(6)])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_collected_is_what_quadratic_drafts_see(engines, kind):
    """Along AR's answer, the group behind every token, without a head."""
    engine = engines[kind]
    states = training.collect(engine, [asked(1, 20)])
    slow = Slow(random_llama(seed=3), kind == "shifted")
    request = Request(prompt_ids=prompt_ids(1), modes=("ar",), max_new_tokens=20)
    answer = engine.generate(request).lanes[0].tokens
    assert len(states) == len(answer) - 2
    padded = [*answer, *[-1] * 10]
    for index in (0, 3, len(states) - 1):
        ids = [*prompt_ids(1), *answer[: index + 1]]
        assert states.text[index].tolist() == padded[index : index + states.text.shape[1]]
        logits = slow.logits([*ids, *[MASK] * training.MASKS], len(ids))[len(ids) :]
        rows = [slow.place(row, MASK).guesses for row in logits[kind == "aligned" :]]
        pairs = zip(states.tokens[index].tolist(), states.log_shares[index].tolist(), strict=True)
        assert [dict(zip(*pair, strict=True)) for pair in pairs] == [pytest.approx(row, abs=0.02) for row in rows]
        predicted = states.predicted_tokens[index].tolist(), states.predicted_shares[index].tolist()
        expected = slow.place(slow.logits(ids)[-1], None).guesses
        assert dict(zip(*predicted, strict=True)) == pytest.approx(expected, abs=0.02)


def test_a_new_head_changes_nothing_and_learns(engines, states):
    embedding = engines["shifted"].model.embed.weight
    head = training.new_head(embedding, components=8, width=16, rank=8)
    before, found = training.log_shares_of(head, states)
    torch.testing.assert_close(before, training.log_shares_of(None, states)[0], rtol=1e-4, atol=1e-4)
    losses = training.train_head(head, [states, states], steps=300, batch=64)
    assert sum(losses[-50:]) < 0.95 * sum(losses[:50])
    after = training.log_shares_of(head, states)[0]
    first, last = (torch.nn.functional.nll_loss(shares.flatten(0, 1), found.flatten()) for shares in (before, after))
    assert last < first
    assert after.exp().sum(-1).flatten().tolist() == pytest.approx([1.0] * found.numel(), abs=0.01)


def test_hits_are_counted_behind_the_answers_own_tokens(states):
    shares, accepted = training.hits(None, states)
    log_shares, found = training.log_shares_of(None, states)
    right = log_shares[..., :-1].argmax(-1) == found
    chains = []
    for place, share in enumerate(shares):
        assert share == pytest.approx(float(right[:, place][states.text[:, place + 2] >= 0].float().mean()))
    for state in range(len(states)):
        if (states.text[state] < 0).any():
            assert not right[state][states.text[state, 2:] < 0].any()
            continue
        chains.append(len(list(itertools.takewhile(bool, right[state].tolist()))))
    assert accepted == pytest.approx(sum(chains) / len(chains))


def test_the_groups_that_decoding_uses_are_those_behind_the_ends_of_cycles():
    """Two answers, 7 7 7 7 7 7 7 and 8 8 8: all drafts of the first are 7, so each cycle takes three of its groups."""
    text = torch.tensor([[7, 7, 7, 7]] * 4 + [[7, 7, 7, -1], [8, 8, 8, -1]], dtype=torch.int32)
    guesses = torch.tensor([[[7, 1], [7, 1]]] * 5 + [[[9, 8], [9, 8]]], dtype=torch.int32)
    shares = torch.tensor([0.6, 0.3]).log().half()
    states = training.DraftStates(text, guesses[:, 0], shares.expand(6, 2), guesses, shares.expand(6, 2, 2))
    assert training.used(states).tolist() == [True, False, False, True, False, True]
