"""Tables of trees and orders: what stood, what was said, the means; all to the letter where it is no time."""

import pytest

from nemodiff.bench import orders as bench_orders
from nemodiff.bench import trees as bench_trees
from nemodiff.bench.orders import OrderRun
from nemodiff.bench.trees import TreeRun, calibration
from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.evaluate.drafts import outcomes
from nemodiff.examples import Example
from nemodiff.trace.events import Event, Lane, Position, Trace
from ui.render.charts import drafts_accepted

STRUCTURED, OPEN = Example("Ids", "1 2 3", True), Example("Words", "sun", False)


def verified(*positions):
    """A forward over the candidates 7 (0.6) and 8 (0.3), and 5 (0.5) behind both."""
    event = Event("self-speculation", 1, "verify", 1.0, 0, 3, list(positions))
    event.tree, event.parents = [(7, 0.6), (8, 0.3), (5, 0.5), (5, 0.5)], [0, 0, 1, 2]
    return event


@pytest.fixture
def ids_for_text(monkeypatch):
    """Tiny checkpoints have no tokenizer: texts become ids by their bytes."""
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, text, raw, *_, **__: [byte % 190 for byte in text.encode()][:40]
    )


def test_an_outcome_is_of_candidates_whose_parent_stands():
    none = verified(Position(1, 7, "rejected", 0.6, verifier=9), Position(1, 9, "corrected"))
    assert outcomes(none) == [(1, 1, 0.6, False), (1, 2, 0.3, False)]
    one = verified(Position(1, 8, "accepted"), Position(2, 9, "corrected"))
    assert outcomes(one) == [(1, 1, 0.6, False), (1, 2, 0.3, True), (2, 1, 0.5, False)]
    both = verified(Position(1, 7, "accepted"), Position(2, 5, "accepted"), Position(3, 4, "bonus"))
    assert outcomes(both) == [(1, 1, 0.6, True), (1, 2, 0.3, False), (2, 1, 0.5, True)]
    lane = Lane("self-speculation", [none, one, both])
    run = TreeRun(STRUCTURED, "tree, 8", 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, True, lane)
    lines = calibration([run]).splitlines()
    assert "| 1 | 0.60 / 0.33 (3) | 0.30 / 0.33 (3) |  |" in lines
    assert "| 2 | 0.50 / 0.50 (2) |  |  |" in lines


def test_the_chart_counts_what_was_accepted_where():
    tree = verified(Position(1, 8, "accepted"), Position(2, 9, "corrected"))
    tree.rows = 9
    chain = Event("self-speculation", 2, "verify", 1.0, 2, 3)
    chain.positions = [Position(3, 4, "accepted", 0.9), Position(4, 6, "rejected", 0.5), Position(4, 5, "corrected")]
    figure = drafts_accepted(
        Trace("tiny", "", "Test CPU", "float32", True, {}, {}, lanes=[Lane("self-speculation", [tree, chain])])
    )
    likeliest, second, rows = figure.data
    assert (list(likeliest.x), list(likeliest.y)) == (["1", "2"], [0.5, 0.0])
    assert (list(second.x), list(second.y)) == (["1"], [1.0])
    assert (list(rows.x), list(rows.y)) == ([3, 9], [2.0, 2.0])


def test_a_report_is_of_means():
    lane = Lane("self-speculation")
    found = [
        TreeRun(example, "tree, auto", tpf, 8 * tpf, 0.5, tpf / 2, tpf, tpf, same, lane)
        for example, tpf, same in ((STRUCTURED, 4.0, True), (STRUCTURED, 2.0, False), (OPEN, 1.0, True))
    ]
    text = bench_trees.report(found, 24)
    assert "| structured | tree, auto | 3.00 | 24.0 | 50% | 1.50× (1.00×) | 3.00 | 3.00 | 50% |" in text
    assert "| open-ended | tree, auto | 1.00 | 8.0 | 50% | 0.50× (0.50×) | 1.00 | 1.00 | 100% |" in text
    orders = [OrderRun(OPEN, "confidence", "leftmost", 0.9, 8, tpf, 0.5, 0.25, 0.0, 1.5) for tpf in (1.0, 2.0)]
    text = bench_orders.report(orders, 24)
    assert "| open-ended | 8 | confidence | leftmost | 0.9 | 1.50 | 0.50× | 25% | 0.0% | 1.50 |" in text


def test_trees_and_orders_of_an_engine(llama_engine, ids_for_text):
    trees = bench_trees.measure(llama_engine, (STRUCTURED,), 12, rows=(8, None))
    assert [run.way for run in trees] == [
        "linear, block 8",
        "quadratic, block 4",
        "quadratic, block 8",
        "tree, 8",
        "tree, auto",
    ]
    assert all(run.identical and run.speed_up > 0 for run in trees)
    assert [run.expected is None for run in trees] == [True] * 3 + [False] * 2
    orders = bench_orders.measure(llama_engine, (OPEN,), (4,), 12)
    ar, *others = orders
    assert (ar.sampler, ar.agreement, ar.tpf) == ("ar", 1.0, pytest.approx(12 / 11))
    assert {run.order for run in others} == {"best", "leftmost"} and all(run.surprise > 0 for run in orders)
