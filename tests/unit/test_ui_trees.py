"""A tree of drafts in the pictures of a run: what is where, what is lit, and that nothing is left over."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from nemodiff.engine.local import Engine
from nemodiff.request import Request
from nemodiff.trace.events import KEPT, Event, Position, Trace
from tests.helpers.traces import tree
from ui.render.frames import Frames
from ui.render.frames.look import LIT, NO
from ui.render.frames.tree_band import TreeBand, events_at
from ui.render.positions import Cells
from ui.render.trajectory import trajectory
from ui.render.trees import is_tree, spots, tree_of


@pytest.fixture
def trace() -> Trace:
    return Trace.from_json(json.dumps(tree()))


def test_the_path_is_the_first_line_and_what_was_tried_hangs_below(trace: Trace) -> None:
    read = tree_of(trace["self-speculation"].events[2])
    assert (read.path, read.accepted, read.own.token if read.own else None, read.rows) == ([0, 1, 2], 2, 5, 10)
    found = [(spot.token, spot.kind, spot.line, spot.column, spot.up, spot.group) for spot in spots(read)]
    assert found == [
        (None, "seed", 0, 0, 0, ""),
        (3, "accepted", 0, 1, 0, "drops"),
        (4, "accepted", 0, 2, 0, "drops"),
        (6, "rejected", 1, 3, 1, ""),  # below the verifier's own token
        (2, "none", 2, 2, 2, ""),
        (6, "none", 3, 1, 3, ""),
        (5, "corrected", 0, 3, 0, ""),
    ]
    first = spots(tree_of(trace["self-speculation"].events[1]))
    assert [(spot.token, spot.kind, spot.column, spot.group) for spot in first] == [
        (None, "seed", 0, "survives"),
        (2, "bonus", 1, ""),
        (3, "drafted", 2, ""),
        (4, "drafted", 3, ""),
    ]


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Verify events of any tree, whatever their positions say of it."""
    parents = [draw(st.integers(0, row)) for row in range(draw(st.integers(0, 20)))]
    nodes = [(draw(st.integers(0, 3)), 0.5) for _ in parents]
    behind = draw(st.lists(st.integers(0, len(nodes)), unique=True, max_size=5))
    states = st.sampled_from(["accepted", "rejected", "corrected", "bonus", "drafted", "discarded"])
    positions = [Position(i + 1, draw(st.integers(0, 3)), draw(states)) for i in range(draw(st.integers(0, 6)))]
    return Event(
        "self-speculation", 1, "verify", 1.0, 0, 1, positions, rows=9, tree=nodes, parents=parents, behind=behind
    )


@given(events())
def test_every_candidate_stands_in_a_place_of_its_own(event: Event) -> None:
    read = tree_of(event)
    found = spots(read)
    candidates = found[: 1 + len(event.tree)]
    assert len(found) == len(candidates) + (read.own is not None) + len(read.drafted)
    assert len({(spot.line, spot.column) for spot in candidates}) == len(candidates)
    assert sorted(read.path) == read.path and all(spot.up <= spot.line for spot in found)
    assert {spot.line for spot in found if spot.kind == "accepted"} <= {0}
    trace = Trace.from_json(json.dumps(tree()))
    trace["self-speculation"].events[1:] = [event]
    assert list(Frames(trace, max_frames=2).draw())


def shades(image: Image.Image, colour: str) -> int:
    rgb = ImageColor.getrgb(colour)
    return sum(count for count, one in image.getcolors(maxcolors=1 << 20) or [] if one == rgb)


def pictures(trace: Trace, **options: int) -> tuple[Frames, list[Image.Image]]:
    made = Frames(trace, **options)
    return made, [image.copy() for image in made.draw()]


def test_pictures_show_the_tree_of_the_forward_in_view_with_its_path_lit(trace: Trace) -> None:
    made, drawn = pictures(trace)
    band = made._board.tree
    assert isinstance(band, TreeBand) and band.lines == 4
    rooms = [image.crop((0, band.top, image.width, band.top + band.height)) for image in drawn]
    assert [bool(shades(room, LIT)) for room in rooms] == [False, False, True, True, True]
    assert [bool(shades(room, NO)) for room in rooms] == [False, False, True, True, True]  # what was refused
    assert rooms[0].tobytes() != rooms[1].tobytes()  # what was drafted for the next forward


def test_a_tree_larger_than_its_room_is_cut_and_says_so(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    event = trace["self-speculation"].events[2]
    wide = [(6, 0.01)] * 40
    event.tree, event.parents = event.tree + wide, event.parents + [0] * 40
    said: list[str] = []
    made, _ = pictures(trace, columns=14)
    pen = made._board.pen
    write = pen.write
    monkeypatch.setattr(pen, "write", lambda at, text, *more: (said.append(text), write(at, text, *more))[1])
    list(made.draw())
    assert made._board.tree and made._board.tree.lines == 8
    assert "+36 ↓" in said  # 4 lines and 40 more, of which 8 are drawn


def test_runs_without_trees_have_no_band(trace: Trace) -> None:
    del trace.lanes[1]
    assert Frames(trace)._board.tree is None


def test_an_event_is_in_view_from_its_end_to_the_next_ones(trace: Trace) -> None:
    lane = trace["self-speculation"]
    assert events_at(lane, [0, 1, 1.5, 2, 9], "forwards") == [0, 1, 1, 2, 2]
    assert events_at(lane, [0, 10, 19.9, 20, 99], "seconds") == [-1, 0, 0, 1, 2]


def ids(trace: Trace) -> Sequence[list[int]]:
    return [frame["ids"] for frame in trajectory(trace, "self-speculation")["frames"]]


def test_a_trajectory_of_trees_gets_a_token_when_its_path_is_kept(trace: Trace) -> None:
    data = trajectory(trace, "self-speculation")
    mask = data["mask_token_id"]
    assert ids(trace) == [[1, *[mask] * 4], [1, 2, *[mask] * 3], [1, 2, 3, 4, 5]]
    assert [frame["step"] for frame in data["frames"]] == [0, 1, 2]
    assert data["gen_length"] == 5  # candidates beside the path add no places


def test_a_real_run_over_trees_shows_the_drafts_that_it_goes_on_with_and_no_others(llama_engine: Engine) -> None:
    request = Request(prompt_ids=(5, 6, 7), modes=("ar", "self-speculation"), draft="tree", rows=12, max_new_tokens=24)
    trace = llama_engine.generate(request)
    lane = trace["self-speculation"]
    assert sum(is_tree(event) and bool(event.tree) for event in lane.events) > 2
    cells, before = Cells(lane), set[int]()
    for k, event in enumerate(lane.events):
        cells.advance(k)
        drafted = {index for index, (one, _) in cells.at.items() if one.state == "drafted"}
        fresh = {one.index for one in event.positions if one.state == "drafted"}
        kept = before - {one.index for one in event.positions}
        assert drafted == (fresh or (set() if event.finish else kept))
        before = drafted
    assert not before
    assert ids(trace)[-1] == lane.tokens == trace["ar"].tokens
    held = [sum(one.state in KEPT for one in event.positions) for event in lane.events]
    mask = trajectory(trace, "self-speculation")["mask_token_id"]
    assert [len(frame) - frame.count(mask) for frame in ids(trace)] == [sum(held[: k + 1]) for k in range(len(held))]
    assert len(pictures(trace)[1]) == 1 + trace["ar"].forwards
