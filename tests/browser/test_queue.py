"""Two visitors and one model: who waits sees how long, Stop and a closed tab let the next one in."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import PATIENCE

expect.set_options(timeout=PATIENCE)

#: A run that goes on for longer than a test.
LONG = "?go_on=1&tokens=500&prompt=Count+from+1+to+900%2C+separated+by+commas."
SHORT = "?tokens=6&prompt=Say+hello."


def metric(address: str, sample: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{sample} ")), 0.0)


@pytest.fixture
def visit(browser: Browser, app: str) -> Iterator[Callable[[str], Page]]:
    """Opens the page of another visitor, at a link, who has pressed Generate. Fails on a script error."""
    contexts, errors = [], []

    def open_page(link: str) -> Page:
        contexts.append(browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(app + "/" + link)
        expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
        prompt = "Count from 1 to 900, separated by commas." if link == LONG else "Say hello."
        expect(page.locator("#prompt textarea")).to_have_value(prompt)
        page.locator("#generate").click()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors, errors


def test_who_waits_sees_the_line_and_may_leave_it(visit: Callable[[str], Page], app: str) -> None:
    first = visit(LONG)
    expect(first.locator("#stage")).to_have_attribute("data-state", "live")
    second = visit(SHORT)
    message = second.locator("#stage .message")
    expect(message).to_have_text(re.compile(r"Waiting for the model: 1 run comes first(, about \d+ (s|min))?\."))
    expect(second.locator("#stage")).to_have_attribute("data-waiting", "1")
    expect(second.locator("#stage")).to_have_attribute("data-state", "replay")  # what was there stays
    expect(second.locator("#stop")).to_be_visible()
    third = visit(SHORT)
    expect(third.locator("#stage")).to_have_attribute("data-waiting", "2")
    assert metric(app, "nemodiff_waiting") == 2

    # Stop takes the second one out of the line, so the third one moves up.
    second.locator("#stop").click()
    expect(message).to_be_hidden()
    expect(second.locator("#stage")).not_to_have_attribute("data-waiting", re.compile(""))
    expect(third.locator("#stage")).to_have_attribute("data-waiting", "1")
    assert metric(app, "nemodiff_waiting") == 1
    expect(first.locator("#stage")).to_have_attribute("data-state", "live")

    # Stop of the first one lets the third one in; its own page keeps what was made.
    first.locator("#stop").click()
    expect(first.locator("#stage")).to_have_attribute("data-state", "done")
    expect(third.locator("#stage")).to_have_attribute("data-state", "done")
    expect(third.locator("#stage")).to_have_attribute("data-gaps", "0")
    expect(third.locator("#stage .prompt")).to_have_text("Say hello.")


def test_a_closed_tab_lets_the_next_one_in(visit: Callable[[str], Page], app: str) -> None:
    stopped = metric(app, 'nemodiff_runs_total{finish="stopped"}')
    first = visit(LONG)
    expect(first.locator("#stage")).to_have_attribute("data-state", "live")
    second = visit(SHORT)
    expect(second.locator("#stage")).to_have_attribute("data-waiting", "1")
    first.close()
    expect(second.locator("#stage")).to_have_attribute("data-state", "done")
    assert metric(app, 'nemodiff_runs_total{finish="stopped"}') == stopped + 1


def test_a_closed_tab_leaves_the_line(visit: Callable[[str], Page], app: str) -> None:
    first, second = visit(LONG), visit(SHORT)
    expect(second.locator("#stage")).to_have_attribute("data-waiting", "1")
    third = visit(SHORT)
    expect(third.locator("#stage")).to_have_attribute("data-waiting", "2")
    second.close()
    expect(third.locator("#stage")).to_have_attribute("data-waiting", "1")
    first.locator("#stop").click()
    expect(third.locator("#stage")).to_have_attribute("data-state", "done")


def test_a_message_of_waiting_that_comes_after_stop_is_old(alone: Page) -> None:
    message, send = alone.locator("#stage .message"), "data => window.stage.ingest(JSON.stringify(data))"
    alone.evaluate(send, {"wait": "Waiting for the model: 2 runs come first.", "ahead": 2, "n": 5})
    expect(message).to_have_text("Waiting for the model: 2 runs come first.")
    alone.evaluate(send, {"unwait": True, "n": 7})
    alone.evaluate(send, {"wait": "Waiting for the model: 1 run comes first.", "ahead": 1, "n": 6})
    expect(message).to_be_hidden()
    alone.evaluate(send, {"wait": "Waiting for the model: 3 runs come first.", "ahead": 3, "n": 8})
    expect(message).to_be_visible()
