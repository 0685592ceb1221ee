"""When a page asks the server for what it missed: the page's own part by itself, on a clock that the test turns."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from nemodiff.trace import player

ASKING = """() => {
  [window.asked, window.tried] = [[], 0];
  const ask = async (name) => void window.asked.push(name);
  const tryAll = () => void (window.tried += 1);
  const connection = { streams: new Set(), sending: 0, cut() {}, spare() {}, tryAll, ask };
  window.asking = new Asking(window.stage, document.getElementById("stage"), connection, "server", () => {});
  window.asking.sent(window.asking.begin(), "");
}"""
BACK = {
    "the page": "window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",  # from the cache
    "the network": "window.dispatchEvent(new Event('online'))",
    "the tab": "document.dispatchEvent(new Event('visibilitychange'))",
}


@pytest.fixture
def waiting(alone: Page) -> Page:
    """A page that has heard from the server just now."""
    alone.clock.install(time=0)
    alone.clock.pause_at(1000)
    for name in ("connection.js", "asking.js"):
        alone.add_script_tag(content=(player.FOLDER / name).read_text(encoding="utf-8"))
    alone.evaluate(ASKING)
    alone.evaluate("window.asking.hear()")
    return alone


def asked(page: Page, seconds: int) -> int:
    """How often it has asked by so many seconds later."""
    page.clock.run_for(1000 * seconds)
    return page.evaluate("window.asked.length")


def test_a_server_that_says_nothing_for_some_seconds_is_asked(waiting: Page) -> None:
    assert asked(waiting, 6) == 0
    assert asked(waiting, 2) >= 1


@pytest.mark.parametrize("back", BACK)
def test_what_was_away_and_is_back_asks_soon(waiting: Page, back: str) -> None:
    waiting.evaluate(BACK[back])
    assert asked(waiting, 4) >= 1
    # Its connections may be dead, but not those of a tab that was hidden for a moment.
    assert waiting.evaluate("window.tried") == (back != "the tab")


def test_a_page_that_is_shown_for_the_first_time_waits_as_ever(waiting: Page) -> None:
    waiting.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: false }))")
    assert asked(waiting, 4) == 0
