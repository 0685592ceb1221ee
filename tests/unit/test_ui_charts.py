"""Charts show exactly what a small known trace holds, every point leads back to its event, hostile text stays text."""

import json

import pytest

from nemodiff.trace.events import Event, Position, Trace
from nemodiff.trace.oracle import Block, Ceiling
from tests.helpers.traces import ar, diffusion, record, speculation
from ui.render import charts
from ui.render.charts import confidence as confidence
from ui.render.charts.order import MAX_COLUMNS, MAX_ROWS
from ui.render.positions import Cells, escaped, kept_counts, name, texts

FIGURES = (
    charts.commit_order,
    charts.acceptance_lengths,
    charts.drafts_accepted,
    charts.tokens_over_forwards,
    charts.tokens_over_seconds,
    charts.confidence_agreement,
)


@pytest.fixture
def trace() -> Trace:
    return record(ar() + diffusion() + speculation())


def test_commit_order_is_the_step_of_the_block(trace):
    heat = charts.commit_order(trace).data[0]
    assert [list(row) for row in heat.z] == [[0, 2, 1], [0, 1, None]]
    assert heat.customdata[0][1] == ["diffusion", 2]
    assert heat.customdata[1][0] == ["diffusion", 3]
    assert "step 2<br>confidence 0.45<br>forward 2<br>0.03 s" in heat.hovertext[0][1]
    assert heat.hovertext[0][0].endswith("seed: it comes with the block<br>confidence 0.95<br>forward 0<br>0.01 s")
    assert heat.text[0][0].startswith("◇ ")


def test_acceptance_lengths_of_every_cycle_and_how_often(trace):
    figure = charts.acceptance_lengths(trace)
    accepted, own, often = figure.data[:3]
    assert (list(accepted.y), list(own.y)) == ([1, 2], [1, 1])
    assert list(accepted.customdata) == [["self-speculation", 2], ["self-speculation", 4]]
    assert (list(often.y), list(often.x)) == ([2, 3], [1, 1])
    assert "mean 2.50" in [entry.name for entry in figure.data]
    assert trace.lane("self-speculation").acceptance_lengths == [2, 3]
    assert "1 of 2 drafts accepted" in accepted.hovertext[0]


def test_tokens_over_both_clocks(trace):
    over_forwards, over_seconds = charts.tokens_over_forwards(trace), charts.tokens_over_seconds(trace)
    lanes = [dict(zip(("x", "y"), (list(one.x), list(one.y)), strict=True)) for one in over_forwards.data]
    assert lanes[0] == {"x": [0, 1, 2, 3, 4], "y": [1, 2, 3, 4, 5]}
    assert lanes[1] == {"x": [0, 1, 2, 3, 4], "y": [1, 2, 3, 4, 5]}
    assert lanes[2] == {"x": [0, 1, 2, 3, 4], "y": [1, 1, 3, 3, 6]}
    assert list(over_seconds.data[2].x) == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert "6 tokens in prefill + 4 forwards (NFE 5), 0.05 s" in over_forwards.data[2].name
    assert list(over_seconds.data[1].customdata)[-1] == ["diffusion", 4]
    assert "Test &lt;b&gt;CPU&lt;/b&gt;" in over_seconds.layout.xaxis.title.text


def quadratic() -> list[Event]:
    """Two forwards that verify and draft: a bonus, then one draft accepted and one rejected."""
    mode = "self-speculation"

    def at(index, token, state, confidence=0.9):
        return Position(index, token, state, confidence)

    first = [at(1, 2, "bonus"), at(2, 3, "drafted", 0.7), at(3, 6, "drafted", 0.6)]
    second = [at(2, 3, "accepted"), at(3, 6, "rejected"), at(3, 4, "corrected")]
    return [
        Event(mode, 0, "prefill", 10.0, 0, 1, [at(0, 1, "seed")]),
        Event(mode, 1, "verify", 20.0, 0, 3, first, rows=3, groups=[[(3, 0.7), (6, 0.6)]]),
        Event(mode, 2, "verify", 30.0, 1, 3, second, rows=9),
    ]


def test_a_quadratic_cycle_is_one_forward_and_its_drafts_are_judged_in_the_next():
    trace = record(quadratic())
    figure = charts.acceptance_lengths(trace)
    assert list(figure.data[0].y) == [0, 1]
    assert list(figure.data[1].y) == [1, 1]
    assert "AR in 1 forward: 1" in [one.name for one in figure.data]
    assert "2 cycles of 1 forward:" in figure.layout.title.subtitle.text
    assert confidence._judged_drafts(trace) == [(0.7, True, 2), (0.6, False, 2)]


def test_the_ceiling_is_a_line_beside_the_lane():
    trace = record(diffusion())
    assert len(charts.tokens_over_forwards(trace).data) == 1
    block = Block(0, (1, 2, 3), ((1, 2),), 2, 1, 24, False, True)
    trace.lanes[0].ceiling = Ceiling([block, Block(3, (6, 5), ((4,),), 1, 0, 24, False, False)])
    line = charts.tokens_over_forwards(trace).data[1]
    assert (list(line.x), list(line.y)) == ([0, 1, 2, 3], [1, 3, 4, 5])
    assert "5 tokens in 3 forwards" in line.name


def test_confidence_is_judged_where_the_contexts_are_the_same(trace):
    assert confidence._judged_commits(trace) == [(0.95, True, 1), (0.45, True, 2), (0.95, True, 4)]
    assert confidence._judged_drafts(trace) == [(0.91, True, 2), (0.3, False, 2), (0.99, True, 4), (0.98, True, 4)]
    figure = charts.confidence_agreement(trace)
    diffusion, counts = figure.data[1:3]
    assert (list(diffusion.x), list(diffusion.y)) == ([0.45, 0.95], [1, 1])
    assert list(counts.y) == [1, 2]
    assert figure.data[3].name == "self-speculation drafts: 3 of 4"


def test_blocks_after_the_first_difference_are_not_judged():
    events = diffusion()
    events[1].positions[1] = Position(2, 6, "committed", 0.95)  # AR has 3 there
    judged = confidence._judged_commits(record(ar() + events))
    assert judged == [(0.95, False, 1), (0.45, True, 2)]


@pytest.mark.parametrize("share, count", [(0.0, 3), (1.0, 3), (0.5, 10)])
def test_an_interval_holds_its_share(share, count):
    low, high = confidence._interval(share, count)
    assert 0 <= low <= share <= high <= 1
    assert high - low < 1


@pytest.mark.parametrize("chart", FIGURES)
def test_what_is_not_there_is_said_in_a_sentence(chart):
    figure = chart(record([]))
    assert not figure.data
    assert figure.layout.annotations[0].text.endswith(".")


@pytest.mark.parametrize("chart", FIGURES)
def test_hostile_text_reaches_plotly_escaped(trace, chart):
    text = json.dumps(json.loads(chart(trace).to_json()), ensure_ascii=False)
    assert not any(hostile in text for hostile in ("<img", "${", "</script", "\u2028", "$x$", "<b>CPU"))


@pytest.mark.parametrize("chart", FIGURES)
def test_every_point_leads_to_an_event_of_its_lane(trace, chart):
    def targets(value):
        if value and isinstance(value[0], str):
            yield value
        else:
            for one in value or ():
                yield from targets(one)

    for part in chart(trace).data:
        for mode, k in targets(part.customdata or ()):
            assert k is None or 0 <= k < len(trace.lane(mode).events)


def test_a_strangers_trace_draws_a_bounded_picture():
    far = [Event("diffusion", 0, "prefill", 1.0, 0, 1, [Position(0, 1, "seed")])]
    far += [
        Event(
            "diffusion", i, "denoise", 1.0, i * 1000, 2**31, [Position(i * 1000 + j, 6, "committed") for j in (1, 999)]
        )
        for i in range(1, 2000)
    ]
    heat = charts.commit_order(record(far)).data[0]
    assert len(heat.z) == MAX_ROWS
    assert len(heat.z[0]) <= MAX_COLUMNS


def test_token_names_show_what_cannot_be_seen(trace):
    assert name(trace, 5) == "·a⏎"
    assert name(trace, 4) == "⟨U+2028⟩"
    assert name(trace, 1, 5) == "<img…"
    assert name(trace, 1000) == "⟨1000⟩"
    assert escaped("<b>&$") == "&lt;b&gt;&amp;&#36;"


def test_pieces_of_a_character_join_where_it_is_complete():
    trace = record([])
    trace.vocabulary, trace.byte_pieces = {1: "a"}, {2: "e29c", 3: "93", 4: "ff"}
    assert texts(trace, [1, 2, 3, 1]) == ["a", "", "✓", "a"]
    assert texts(trace, [2, 1, 4]) == ["\ufffd", "a", "\ufffd"]


def test_cells_follow_drafts_that_are_dropped(trace):
    cells = Cells(trace.lane("self-speculation"))
    assert cells.advance(1) == {0, 1, 2}
    assert [(i, cell.state) for i, (cell, _) in sorted(cells.at.items())] == [
        (0, "seed"),
        (1, "drafted"),
        (2, "drafted"),
    ]
    assert cells.kept == 1
    assert cells.advance(2) == {1, 2}
    assert (cells.at[2][0].token, cells.kept) == (3, 3)
    assert kept_counts(trace.lane("diffusion")) == [1, 2, 3, 4, 5]
