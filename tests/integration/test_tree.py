"""Self-speculation over a tree: its layout, its rows' bits against one-row forwards, its plan, its text, its trace."""

import itertools
import json
import math
from weakref import WeakKeyDictionary

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.decode.tree_plan import Planner, grow
from nemodiff.errors import RequestError, TraceError
from nemodiff.model import row_costs as costs_of
from nemodiff.model.cache import CHUNK
from nemodiff.model.layout import tree
from nemodiff.model.row_costs import COUNTS, RowCosts, look_again, row_costs
from nemodiff.request import Request
from nemodiff.trace.events import Trace
from tests.helpers.checkpoints import DTYPES, MASK, load_as, open_engine, random_llama, write_llama
from tests.helpers.reference import prompt_ids, speculation_beside_ar

KINDS = ("aligned", "shifted", "nvidia")


@pytest.fixture(scope="module")
def engines(tmp_path_factory, nvidia_engine):
    """Both conventions of logits, and the released layout with its draft LoRA."""
    root = tmp_path_factory.mktemp("tree")
    made = {
        kind: open_engine(write_llama(random_llama(seed=3), root / kind, shift_logits=kind == "shifted"))
        for kind in ("aligned", "shifted")
    }
    return made | {"nvidia": nvidia_engine}


def prefilled(model, ids, room=300):
    cache = model.new_cache(len(ids) + room)
    model(ids, cache, causal=True)
    cache.keep(len(ids))
    return cache


def test_a_layout_is_a_tree_with_groups():
    layout = tree((-1, 0, 0, 1), (0, 3), 2)
    assert layout.positions.tolist() == [0, 1, 1, 2, 1, 2, 3, 4]
    assert layout.visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 1, 0, 0, 1, 1],
        [1, 1, 0, 1, 0, 0, 1, 1],
    ]
    assert (layout.plain, layout.paths) == (4, [[0, 2], [0, 1, 3]])
    for parents in ((), (0,), (-1, 1), (-1, -1)):
        with pytest.raises(ValueError, match="a row before it"):
            tree(parents)


parents_of_trees = st.integers(1, 14).flatmap(lambda size: st.tuples(*(st.integers(0, row) for row in range(size))))


@settings(max_examples=20, deadline=None)
@given(
    parents=parents_of_trees,
    prompt=st.one_of(st.integers(1, 40), st.integers(CHUNK - 8, CHUNK + 2)),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_rows_have_the_bits_of_one_row_forwards(llama_folder, parents, prompt, dtype, data):
    """Every row of a random tree with groups, and what follows after its path was kept, against a loop."""
    model = load_as(llama_folder, dtype)
    tokens = prompt_ids(prompt, len(parents) + 1)
    ids = torch.tensor(prompt_ids(prompt + 1, prompt))
    behind = data.draw(st.lists(st.integers(0, len(parents)), max_size=2, unique=True))
    layout = tree((-1, *parents), tuple(behind), 3)
    end = data.draw(st.integers(0, len(parents)))
    path = next(line[: line.index(end) + 1] for line in layout.paths if end in line)
    cache = prefilled(model, ids)
    rows = torch.tensor([*tokens, *[MASK] * 3 * len(behind)])
    together = model(rows, cache, causal=True, layout=layout)
    cache.keep(path)
    after = model(torch.tensor([5]), cache, causal=True)
    alone: dict[int, torch.Tensor] = {}
    for line in layout.paths:
        cache = prefilled(model, ids)
        for row in line:
            alone[row] = model(torch.tensor([tokens[row]]), cache, causal=True)
            cache.keep(1)
    assert all(torch.equal(together[row], alone[row][0]) for row in range(layout.plain))
    cache = prefilled(model, ids)
    for row in path:
        model(torch.tensor([tokens[row]]), cache, causal=True)
        cache.keep(1)
    assert torch.equal(after, model(torch.tensor([5]), cache, causal=True))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_what_small_forwards_draft(engines, kind):
    """A group behind a token is the bidirectional forward after that token's path; the LoRA is on for masks alone."""
    model = engines[kind].model
    ids, tokens, parents = torch.tensor(prompt_ids(1, 60)), prompt_ids(2, 4), (-1, 0, 0, 2)
    layout = tree(parents, (1, 3), 3)
    rows, adapter = torch.tensor([*tokens, *[MASK] * 6]), kind == "nvidia"
    together = model(rows, prefilled(model, ids), causal=True, adapter=adapter, layout=layout)
    for start, path in ((4, [0, 1]), (7, [0, 2, 3])):
        cache = prefilled(model, ids)
        model(torch.tensor([tokens[row] for row in path]), cache, causal=True)
        cache.keep(len(path))
        group = model(torch.tensor([MASK] * 3), cache, causal=False, adapter=adapter)
        torch.testing.assert_close(together[start : start + 3], group, rtol=1e-4, atol=1e-4)
    without = model(rows, prefilled(model, ids), causal=True, layout=layout)
    assert torch.equal(without[:4], together[:4])
    assert torch.allclose(without[4:], together[4:], rtol=1e-3, atol=1e-3) is not adapter


drafts_of = st.lists(
    st.lists(st.integers(1, 30), min_size=1, max_size=3).map(
        lambda parts: [(token, part / (sum(parts) + 1)) for token, part in enumerate(sorted(parts, reverse=True))]
    ),
    max_size=4,
)


@given(drafts_of, st.integers(0, 12))
def test_the_tree_is_the_likeliest_of_its_size(drafts, most):
    nodes = grow(drafts, most)
    every = [
        math.prod(drafts[place][rank][1] for place, rank in enumerate(ranks))
        for depth in range(1, len(drafts) + 1)
        for ranks in itertools.product(*(range(len(drafts[place])) for place in range(depth)))
    ]
    found = [node.probability for node in nodes]
    assert found == pytest.approx(sorted(every, reverse=True)[:most])
    for row, node in enumerate(nodes, 1):
        before = nodes[node.parent - 1] if node.parent else None
        assert node.parent < row and node.depth == (before.depth if before else 0) + 1
        assert node.probability == pytest.approx((before.probability if before else 1) * node.share)
    assert len({(node.parent, node.token) for node in nodes}) == len(nodes)


FLAT, STEEP = RowCosts((1, 64), (10, 10.5)), RowCosts((1, 64), (10, 640))


def test_costs_lie_on_lines():
    costs = RowCosts((1, 2, 4), (10, 12, 20))
    assert [costs.of(rows) for rows in (1, 2, 3, 4)] == [10, 12, 16, 20]
    assert costs.of(6) == pytest.approx(20 + 2 * 10 / 3)


def test_a_plan_keeps_to_its_rows_and_to_what_is_left():
    sure = [[(7, 0.9), (8, 0.05)]] * 8
    for rows in range(2, 65):
        planner = Planner(FLAT, rows, spare=0)
        assert planner.plan([], 40).rows <= rows
        plan = planner.plan(sure, 40)
        assert 1 < plan.rows <= rows
        assert plan.expected == pytest.approx(1 + sum(node.probability for node in plan.nodes))
    last = Planner(FLAT, None, spare=0).plan(sure, 2)
    assert {node.depth for node in last.nodes} == {1} and not last.behind  # one draft, the verifier's own, the end
    assert Planner(FLAT, None, spare=0).plan(sure, 1).rows == 1


def test_rows_are_used_where_they_are_cheap():
    sure, vague = [[(7, 0.97)]] * 8, [[(7, 0.02), (8, 0.01)]] * 8
    cheap, dear = Planner(FLAT, None, spare=0), Planner(STEEP, None, spare=0)
    assert cheap.plan(vague, 40).rows > 10
    assert dear.plan(vague, 40).rows < 4
    assert dear.plan([], 40).rows == 1  # ten rows' price for each row: that is AR
    assert len(cheap.plan(sure, 40).nodes) == 8
    for _ in range(40):  # a run in which no draft ever stands
        plan = cheap.plan(vague, 40)
        cheap.learn(plan, 8, 0)
    assert cheap.plan(vague, 40).rows < 64


@settings(deadline=None)
@given(drafts_of, st.lists(st.floats(0, 30), min_size=1, max_size=63), st.integers(1, 40))
def test_candidates_that_cannot_pay_are_left_out_at_no_loss(drafts, steps, left):
    """steps: what the second row costs beyond the first, and so on."""
    ms = [10.0, *(10 + total for total in itertools.accumulate(steps))]
    costs, every = (RowCosts(range(1, len(ms) + 1), ms) for _ in range(2))
    assert costs.least == pytest.approx(min(*steps, sum(steps) / len(steps)))
    every.least = 0.0  # then all are grown

    def gain(costs: RowCosts) -> float:
        planner = Planner(costs, None, spare=0)
        worth = planner._tokens / planner._ms
        plan = planner.plan(drafts, left)
        value = dict(planner._values(worth, left)).get(plan.masks, 0.0)
        return plan.expected + plan.ready * value - worth * costs.of(plan.rows)

    assert gain(costs) >= gain(every) - 1e-9


def test_groups_stand_where_verification_is_likeliest_to_end():
    drafts = [[(1, 0.6), (2, 0.25)], [(3, 0.5)]]
    plan = Planner(FLAT, 64, spare=1).plan(drafts, 40)
    assert [(node.token, node.parent) for node in plan.nodes] == [(1, 0), (3, 1), (2, 0), (3, 3)]
    # Every end has a group: the newest token 0.15, "1" and what follows it 0.3 each, "2" and what follows 0.125 each.
    assert plan.behind == [0, 1, 2, 3, 4] and plan.ready == pytest.approx(1) and plan.masks == 9
    plan = Planner(FLAT, 8, spare=1).plan(drafts, 40)
    assert plan.behind and set(plan.behind) <= {0, 1, 2}


def test_costs_are_measured_once_and_never_fall(engines):
    costs = row_costs(engines["aligned"].model)
    assert row_costs(engines["aligned"].model) is costs
    found = [costs.of(rows) for rows in range(1, COUNTS[-1] + 9)]
    assert found == sorted(found) and found[0] > 0


def test_costs_of_a_busy_machine_are_measured_anew_when_it_is_faster(engines, monkeypatch):
    """A slower machine changes nothing: it may be busy with something else for a while."""
    model, speed, asked = engines["aligned"].model, 3.0, []

    def measure(model, counts, rounds):
        asked.append(len(counts))
        return [speed * (10 + count) for count in counts]

    monkeypatch.setattr(costs_of, "_known", WeakKeyDictionary())
    monkeypatch.setattr(costs_of, "_measure", measure)
    busy = row_costs(model)
    look_again(model)  # too soon
    assert asked == [len(COUNTS)]
    monkeypatch.setattr(costs_of, "_AGAIN", 0.0)
    look_again(model)
    speed = 4.0
    look_again(model)
    assert row_costs(model) is busy and asked == [len(COUNTS), 2, 2]
    speed = 1.0
    look_again(model)
    assert row_costs(model).of(1) == 11 and row_costs(model).of(64) == 74


def run(engine, **more):
    return engine.generate(Request(draft="tree", **more))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.one_of(st.none(), st.integers(2, 64)),
    count=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    acceptance=st.sampled_from(["match", "independent"]),
    adapter=st.booleans(),
)
@pytest.mark.parametrize("kind", KINDS)
def test_its_text_is_ars(engines, kind, seed, rows, count, temperature, acceptance, adapter):
    speculation = speculation_beside_ar(
        engines[kind],
        kind,
        seed,
        draft="tree",
        max_new_tokens=count,
        rows=rows,
        temperature=temperature,
        acceptance=acceptance,
        adapter=adapter,
    )
    assert speculation.nfe == 1 + speculation.forwards
    for event in speculation.events[1:]:
        assert event.phase == "verify" and event.rows <= (rows or 64)


def depths(event):
    """The distance of every candidate from the newest token."""
    found = [0]
    for parent in event.parents:
        found.append(found[parent] + 1)
    return found[1:]


def test_every_candidate_and_its_end_are_in_the_trace(engines):
    trace = run(
        engines["shifted"],
        prompt_ids=prompt_ids(5, 9),
        modes=("self-speculation",),
        max_new_tokens=30,
        rows=24,
        alternatives=20,
    )
    lane = trace.lanes[0]
    assert any(event.tree for event in lane.events)
    known: dict[int, list[int]] = {}
    for event, following in itertools.pairwise(lane.events[1:]):
        assert len(event.parents) == len(event.tree) and len(event.behind) == len(event.groups)
        assert all(parent <= row for row, parent in enumerate(event.parents))
        drafted = [position for position in event.positions if position.state == "drafted"]
        new = [position for position in event.positions if position.state in ("accepted", "corrected", "bonus")]
        assert following.start == event.start + len(new)
        # What the surviving group drafted is what the next tree begins with. Where no group survived, it is what the
        # drafts of before named for a place further on, believed by half at most.
        if drafted and following.tree:
            assert following.tree[0][0] == drafted[0].token and drafted[0].index == following.start + 1
            known = {position.index: [token for token, _ in position.top] for position in drafted}
        for place, (token, share) in zip(depths(following), following.tree, strict=True):
            if not drafted:
                assert share <= 0.5
                assert token in known[following.start + place]
    back = Trace.from_json(trace.to_json())
    assert back.to_dict() == trace.to_dict()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"parents": [0]}, "parents"),
        ({"parents": [0, 2]}, "parents"),
        ({"parents": [1, 0]}, "parents"),
        ({"parents": [0, -1]}, "parents"),
        ({"parents": [0, True]}, "parents"),
        ({"parents": "00"}, "parents"),
        ({"tree": [[1, 0.5], [2, 1.5]]}, "tree"),
        ({"tree": [[1, 0.5]] * 65, "parents": [0] * 65}, "tree"),
        ({"behind": [3]}, "behind"),
        ({"behind": [1, 1]}, "behind"),
        ({"behind": [[1]]}, "behind"),
        ({"expected": -1}, "expected"),
    ],
)
def test_a_trace_with_another_tree_is_refused(change, says):
    event = {"forward": 1, "phase": "verify", "clock_ms": 1, "start": 0, "length": 3, "positions": []}
    event |= {"tree": [[1, 0.5], [2, 0.25]], "parents": [0, 1], "behind": [2], "groups": [[]], "expected": 1.6}
    trace = {
        "schema": "nemodiff.trace/1",
        "checkpoint": "made",
        "request": {},
        "lanes": [{"mode": "self-speculation", "events": [event], "tokens": []}],
    }
    assert Trace.from_json(json.dumps(trace)).lanes[0].events[0].parents == [0, 1]
    event |= change
    with pytest.raises(TraceError, match=says):
        Trace.from_json(json.dumps(trace))


def test_what_a_tree_cannot_do_is_said():
    with pytest.raises(RequestError, match="rows needs draft tree"):
        Request(prompt="x", rows=8)
    for rows in (1, 65, 2.5, True):
        with pytest.raises(RequestError, match="rows"):
            Request(prompt="x", draft="tree", rows=rows)


def test_the_end_of_thinking_is_forced_in_a_tree(engines, monkeypatch):
    engine = engines["shifted"]
    monkeypatch.setattr(engine.tokenizer, "find", lambda text: 7 if text == "</think>" else None)
    for budget in (0, 3, 5):
        ar, speculation = run(
            engine,
            prompt_ids=prompt_ids(2, 9),
            modes=("ar", "self-speculation"),
            max_new_tokens=16,
            max_thinking_tokens=budget,
            ignore_eos=True,
            rows=16,
        ).lanes
        assert speculation.tokens == ar.tokens and 7 in ar.tokens[: budget + 1]
