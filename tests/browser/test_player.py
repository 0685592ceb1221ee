"""The player alone, without Gradio or a server: what a self-contained replay would be."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from nemodiff.trace import player
from tests.helpers.traces import LENGTH, live, long_trace


def ingest(page: Page, data: dict) -> None:
    page.evaluate("text => window.stage.ingest(text)", json.dumps(data))


def test_a_state_after_a_jump_is_the_state_played_to(alone: Page) -> None:
    same = alone.evaluate(
        """trace => {
          const look = (state) => JSON.stringify(state.cells.map((c) => [c.token, c.state, c.k]));
          const jumping = Log.fromTrace(trace, "replay").lanes.get("diffusion");
          const playing = Log.fromTrace(trace, "replay").lanes.get("diffusion");
          const played = playing.events.map((_, k) => look(playing.at(k)));
          let seed = 7;
          for (let i = 0; i < 300; i++) {
            seed = (seed * 1103515245 + 12345) % 2147483648;
            const k = seed % played.length;
            if (look(jumping.at(k)) !== played[k]) return k;
          }
          return "same";
        }""",
        long_trace(),
    )
    assert same == "same"


def test_text_keeps_its_place_from_the_first_forward_to_the_last(alone: Page) -> None:
    ingest(alone, {"kind": "replay", "run": "r", "trace": long_trace()})
    expect(alone.locator("#stage")).to_have_attribute("data-total", str(LENGTH - 1))
    places = """() => Array.from(document.querySelectorAll('[data-lane="diffusion"] .t[data-index]')).slice(0, 16)
        .map((n) => [n.offsetLeft, n.offsetTop])"""
    final = alone.evaluate(places)
    for cursor, count in ((2, 8), (5, 16), (7, 16)):
        alone.evaluate("cursor => { window.stage.transport.seek(cursor) }", cursor)
        expect(alone.locator("#stage")).to_have_attribute("data-cursor", str(cursor))
        # After a jump, what is out of view follows a moment later.
        expect(alone.locator('[data-lane="diffusion"] .t[data-index]')).to_have_count(count)
        assert alone.evaluate(places) == final[:count]


def test_a_jump_draws_what_is_in_view_at_once_and_then_the_rest(alone: Page) -> None:
    ingest(alone, {"kind": "replay", "run": "r", "trace": long_trace()})
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", str(LENGTH - 1))
    look = """(cursor) => new Promise((done) => {
      window.stage.transport.seek(cursor);
      const lane = document.querySelector('[data-lane="ar"] .text');
      requestAnimationFrame(() => setTimeout(() => {
        const box = lane.getBoundingClientRect();
        const inView = (node) => {
          const { top, bottom } = node.getBoundingClientRect();
          return bottom > box.top && top < box.bottom;
        };
        const wrong = (node, i) => ("index" in node.dataset) !== i <= cursor;
        done(Array.from(lane.querySelectorAll(".t")).filter((node, i) => inView(node) && wrong(node, i)).length);
      }));
    })"""
    for cursor in (30, 390, 200, 5, 210):
        assert alone.evaluate(look, cursor) == 0
        expect(alone.locator('[data-lane="ar"] .t[data-index]')).to_have_count(cursor + 1)


def test_repeated_batches_count_once_and_a_lost_one_is_a_gap(alone: Page) -> None:
    ingest(alone, live("r", [1, 2]))
    ingest(alone, live("r", [1, 2]))
    expect(alone.locator('[data-lane="ar"] .t[data-index]')).to_have_count(2)
    expect(alone.locator("#stage")).to_have_attribute("data-gaps", "0")
    ingest(alone, live("r", [4], head=False))
    expect(alone.locator("#stage")).to_have_attribute("data-gaps", "1")


def test_what_was_lost_is_asked_for_again_at_the_end(alone: Page) -> None:
    whole = live("r", [1, 2, 3], full=True, end={"finish": {"ar": "length"}, "events": 3})
    alone.set_content(player.template())
    alone.evaluate(
        "whole => { window.stage = mount(document.getElementById('stage'), { resync: async () => whole }) }",
        json.dumps(whole),
    )
    ingest(alone, live("r", [1]))
    ingest(alone, live("r", [3], head=False))
    ingest(alone, {"run": "r", "ev": [], "end": {"finish": {"ar": "length"}, "events": 3}})
    expect(alone.locator("#stage")).to_have_attribute("data-state", "done")
    expect(alone.locator("#stage")).to_have_attribute("data-gaps", "0")
    expect(alone.locator('[data-lane="ar"] .t[data-index]')).to_have_count(3)
