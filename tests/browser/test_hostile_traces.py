"""The player opens any trace from a file in work that follows its size. V8 counts how often each block of the player's
code ran; copies of lists, which it does not count, are added up beside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import CDPSession, Page, expect

from nemodiff.trace.events import MODES
from nemodiff.trace.reading import MAX_BLOCK, MAX_TEXT
from tests.helpers import hostile
from tests.helpers.browser import PATIENCE
from tests.helpers.hostile import SHAPES, Part, worst

expect.set_options(timeout=PATIENCE)
#: Steps that opening may take whatever the trace (8192 tokens are shown), and a byte of it.
FIXED, A_BYTE = 600_000, 4
#: Cells that keyframes may copy, a byte.
COPIED = 1


class Counter:
    """Counts the steps of the player's script on a page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session: CDPSession = page.context.new_cdp_session(page)
        self._session.send("Profiler.enable")
        self._session.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": True})
        # Counted from here on: what ran before the page's script was known has no blocks of its own.
        self._runs = 0

    def taken(self) -> int:
        """Steps since the last look."""
        found: dict[str, Any] = self._session.send("Profiler.takePreciseCoverage")
        return sum(
            block["count"] for script in found["result"] for one in script["functions"] for block in one["ranges"]
        )

    def open(self, trace: dict[str, Any]) -> int:
        """Open a trace as the stage opens a visitor's file, at its end; the steps until it was drawn."""
        self._runs += 1
        text = json.dumps({"kind": "replay", "run": f"r{self._runs}", "trace": trace})
        self.taken()
        self._page.evaluate(
            """text => {
              window.stage.ingest(text);
              return new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            }""",
            text,
        )
        return self.taken()

    def copied(self) -> int:
        """Cells in the keyframes of all lanes."""
        return self._page.evaluate(
            """Array.from(window.stage.log.lanes.values())
              .flatMap((lane) => lane.keyframes.map((one) => one.cells.length))
              .reduce((a, b) => a + b, 0)"""
        )


@pytest.fixture
def counter(alone: Page) -> Iterator[Counter]:
    yield Counter(alone)


def check(counter: Counter, trace: dict[str, Any]) -> None:
    size = len(json.dumps(trace))
    taken = counter.open(trace)
    assert taken <= FIXED + A_BYTE * size, (taken, size)
    assert counter.copied() <= MAX_BLOCK * 16 + COPIED * size


def test_the_counter_counts(counter: Counter) -> None:
    trace = hostile.trace("ar", Part("decode", 200, 1, at="next"))
    small = counter.open(trace)
    large = counter.open(hostile.trace("ar", Part("decode", 2000, 1, at="next")))
    assert 5 * small < large


@pytest.mark.parametrize("shape", SHAPES)
def test_what_once_cost_a_square_opens_in_what_it_weighs(counter: Counter, shape: str) -> None:
    mode, *parts = worst(3000)[shape]
    check(counter, hostile.trace(mode, *parts, text=20, answer=50))


def test_a_trace_of_any_shape_opens_in_what_it_weighs(counter: Counter) -> None:
    @settings(deadline=None, max_examples=15, database=None, suppress_health_check=list(HealthCheck))
    @given(
        mode=st.sampled_from(MODES),
        parts=st.lists(hostile.parts(2000), min_size=1, max_size=3),
        text=st.sampled_from([1, 20, MAX_TEXT]),
        answer=st.sampled_from([0, 3, 2000]),
    )
    def opens(mode: str, parts: list[Part], text: int, answer: int) -> None:
        check(counter, hostile.trace(mode, *parts, text=text, answer=answer))

    opens()


def test_numbers_of_a_file_do_not_become_loops(alone: Page, counter: Counter) -> None:
    """Blocks, rows and groups as long as may be, with everything that can be opened open."""
    alone.locator(".attention summary").click()
    for mode, phase in (("diffusion", "denoise"), ("diffusion", "refresh"), ("self-speculation", "draft")):
        trace = hostile.trace(mode, Part(phase, 20, 1, length=MAX_BLOCK))
        trace["request"]["block_length"] = 2**60
        check(counter, trace)
    check(counter, hostile.trace("self-speculation", Part("verify", 20, 1, states=("accepted",), groups=60)))
    expect(alone.locator(".attention")).to_have_attribute("open", "")


def test_playing_through_a_trace_costs_what_it_weighs(counter: Counter, alone: Page) -> None:
    """Every event drawn once, forwards and from the end to the beginning."""
    trace = hostile.trace(
        "diffusion", Part("prefill", 1, 1000), Part("denoise", 300, 2, states=("masked", "committed"))
    )
    counter.open(trace)
    counter.taken()
    alone.evaluate(
        """() => {
          const lane = window.stage.log.lanes.get("diffusion");
          for (let k = 0; k < lane.events.length; k++) lane.at(k);
          for (let k = lane.events.length - 1; k >= 0; k -= 20) lane.at(k);
        }"""
    )
    assert counter.taken() <= FIXED


def test_going_back_finds_the_same_state(alone: Page) -> None:
    """Keyframes that lie apart as what is there demands: every state by jumps is the one that was played to."""
    trace = hostile.trace(
        "self-speculation",
        Part("prefill", 1, 300, states=("seed", "masked")),
        Part("draft", 90, 3, at="next", states=("drafted",)),
        Part("verify", 90, 3, states=("accepted", "rejected", "discarded")),
        Part("draft", 90, 2, at="far", states=("drafted",)),
    )
    different = alone.evaluate(
        """trace => {
          const look = (lane, k) => {
            const state = lane.at(k);
            const cells = [];
            state.cells.forEach((c, i) => cells.push([i, c.token, c.state, c.k]));
            return JSON.stringify([cells, state.rejected?.index]);
          };
          const played = Log.fromTrace(trace, "replay").lanes.get("self-speculation");
          const jumping = Log.fromTrace(trace, "replay").lanes.get("self-speculation");
          const known = played.events.map((_, k) => look(played, k));
          let prefix = true;
          for (const event of played.events) {
            const { cells } = played.at(event.k);
            let first = 0;
            while (first < cells.length && cells[first] && KEPT.has(cells[first].state)) first += 1;
            prefix = prefix && first === event.prefix;
          }
          const wrong = [];
          for (let k = 0, n = 0; n < 270; n++, k = (k * 31 + 97) % known.length) {
            if (look(jumping, k) !== known[k]) wrong.push(k);
          }
          return [wrong, prefix];
        }""",
        trace,
    )
    assert different == [[], True]
