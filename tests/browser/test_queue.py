"""Two visitors and one model: who waits sees how long, Stop and a closed tab let the next one in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import PATIENCE, metric

expect.set_options(timeout=PATIENCE)

#: A run that goes on for longer than a test.
LONG = "?go_on=1&tokens=500&prompt=Count+from+1+to+900%2C+separated+by+commas."
SHORT = "?tokens=6&prompt=Say+hello."


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


def test_what_a_stopped_or_earlier_ticket_sends_is_left_alone(alone: Page) -> None:
    message, send = alone.locator("#stage .message"), "data => window.stage.ingest(JSON.stringify(data))"

    def wait(ticket: str, ahead: int) -> dict:
        return {"wait": f"Waiting for the model: {ahead} runs come first.", "ahead": ahead, "ticket": ticket}

    alone.evaluate("window.stage.expect('first', 'Waiting for the model…')")
    alone.evaluate(send, wait("first", 2))
    expect(message).to_have_text("Waiting for the model: 2 runs come first.")
    alone.evaluate("window.stage.unwait()")
    alone.evaluate(send, wait("first", 3))
    alone.evaluate(send, {"error": "Of the one that was stopped.", "ticket": "first"})
    expect(message).to_be_hidden()
    alone.evaluate("window.stage.expect('second', 'Waiting for the model…')")
    alone.evaluate(send, {"error": "Of the one that was stopped.", "ticket": "first"})
    expect(message).to_have_text("Waiting for the model…")
    alone.evaluate(send, wait("second", 4))
    expect(message).to_have_text("Waiting for the model: 4 runs come first.")


def test_what_is_being_stopped_says_so_whatever_is_still_said_of_its_wait(alone: Page) -> None:
    message = alone.locator("#stage .message")
    said = json.dumps({"wait": "This run's turn has come: waiting for its first token…", "ticket": "first"})
    alone.evaluate("window.stage.expect('first', 'Waiting for the model…')")
    alone.evaluate("text => window.stage.ingest(text)", said)
    expect(message).to_have_text("This run's turn has come: waiting for its first token…")
    alone.evaluate("window.stage.stopping()")
    alone.evaluate("text => window.stage.ingest(text)", said)
    expect(message).to_have_text("Stopping after this forward…")
    alone.evaluate("window.stage.expect('second', 'Waiting for the model…')")  # Generate, at once
    expect(message).to_have_text("Waiting for the model…")
