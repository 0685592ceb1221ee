"""A conversation on the page: a system prompt, asking on after an answer, letting go; stop strings on the stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import PATIENCE, SCHEMES, findings, running, token
from tests.helpers.chat import write_templated

expect.set_options(timeout=PATIENCE)

ASKED = {"prompt": "Hi", "modes": "ar,self-speculation", "tokens": 9, "go_on": 1, "system": "Be brief."}


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page on a tiny random checkpoint that has a chat template."""
    folder = tmp_path_factory.mktemp("chatting")
    (folder / "recordings").mkdir()
    checkpoint = write_templated(folder / "tiny-templated")
    settings = {"NEMODIFF_RECORDINGS": str(folder / "recordings"), "NEMODIFF_CHECKPOINT": str(checkpoint)}
    with running(folder / "app.log", settings) as address:
        yield address


@pytest.fixture
def page(browser: Browser, chatting: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors


def opened(page: Page, address: str, **asked: object) -> None:
    page.goto(f"{address}?{urlencode(ASKED | asked)}")
    expect(page.locator("#prompt textarea")).to_have_value("Hi")
    page.wait_for_function("() => window.nemodiff?.fields?.prompt === 'Hi'")


def run(page: Page) -> dict:
    """Press Generate and wait for the end; what the run's trace says was asked."""
    before = page.evaluate("() => document.querySelector('#stage').trace()")
    page.locator("#generate").click()
    page.wait_for_function("(before) => document.querySelector('#stage').trace() !== before", arg=before)
    expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    return json.loads(page.evaluate("() => document.querySelector('#stage').trace()"))


def ask_on(page: Page, mode: str) -> None:
    page.locator(f'[data-lane="{mode}"]').get_by_role("button", name="Ask on").click()


def test_the_next_prompt_follows_the_answer_of_the_lane_that_was_picked(page: Page, chatting: str) -> None:
    opened(page, chatting)
    expect(page.locator("#system textarea")).to_have_value("Be brief.")
    expect(page.locator("#talk")).to_be_hidden()
    first = run(page)
    assert (first["request"]["system"], first["request"]["history"]) == ("Be brief.", [])
    expect(page.locator("#stage .before summary")).to_have_text("The prompt follows a system prompt")
    ask_on(page, "self-speculation")
    expect(page.locator("#talk header b")).to_have_text("The prompt goes on after 1 turn")
    expect(page.locator("#talk li")).to_have_count(2)
    expect(page.locator("#prompt textarea")).to_be_focused()
    expect(page.locator("#prompt textarea")).to_have_value("")
    page.locator("#prompt textarea").fill("More")
    second = run(page)
    answer = next(lane["text"] for lane in first["lanes"] if lane["mode"] == "self-speculation")
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    assert (second["request"]["prompt"], second["request"]["history"]) == ("More", turn)
    assert second["request"]["system"] == "Be brief."
    expect(page.locator("#stage .before summary")).to_have_text("The prompt follows a system prompt and 1 turn")
    page.locator("#stage .before summary").click()
    assert page.locator("#stage .before dt").all_text_contents() == ["system", "you", "model"]
    ask_on(page, "ar")
    expect(page.locator("#talk li")).to_have_count(4)


def test_a_link_and_a_reload_keep_the_conversation_and_it_can_be_let_go(page: Page, chatting: str) -> None:
    turn = [{"role": "user", "content": "<b>Before</b>"}, {"role": "assistant", "content": "Answer"}]
    opened(page, chatting, history=json.dumps(turn))
    expect(page.locator("#talk q")).to_have_text(["<b>Before</b>", "Answer"])
    page.locator("#link").click()
    page.wait_for_function("() => location.search.includes('history=')")
    page.reload()
    expect(page.locator("#talk q")).to_have_text(["<b>Before</b>", "Answer"])
    page.get_by_role("button", name="Let it go").click()
    expect(page.locator("#talk")).to_be_hidden()
    assert run(page)["request"]["history"] == []


def test_a_trace_carries_a_conversation_on_and_a_raw_prompt_has_none(page: Page, chatting: str) -> None:
    opened(page, chatting, raw=1, system="")
    run(page)
    ask_on(page, "ar")
    expect(page.locator("#stage .message")).to_contain_text("taken as it is, without the chat template")
    expect(page.locator("#talk")).to_be_hidden()


def test_nothing_behind_a_stop_string_is_shown_or_copied(page: Page, chatting: str) -> None:
    opened(page, chatting, system="")
    whole = run(page)["lanes"][0]
    letters = [one for one in whole["text"] if one.isascii() and one.isprintable()]
    opened(page, chatting, system="", stop=letters[-1])
    expect(page.locator("#stop-strings textarea")).to_have_value(letters[-1])
    stopped = run(page)
    for lane in stopped["lanes"]:
        assert lane["finish"] == "stop" and lane["text"] == whole["text"].partition(letters[-1])[0]
        mode = page.locator(f'[data-lane="{lane["mode"]}"]')
        expect(mode.locator(".finish")).to_have_text(f"ended at “{letters[-1]}”")
        last = token(page, lane["mode"], len(lane["tokens"]) - 1)
        expect(last).to_have_attribute("data-special", "")
    assert json.loads(page.evaluate("() => document.querySelector('#stage').trace()"))["request"]["stop"] == [
        letters[-1]
    ]


@SCHEMES
def test_axe_finds_nothing_where_a_conversation_stands(page: Page, chatting: str, scheme: str) -> None:
    turn = [{"role": "user", "content": "Before"}, {"role": "assistant", "content": "Answer"}]
    opened(page, chatting, history=json.dumps(turn), __theme=scheme)
    run(page)
    page.locator("#stage .before summary").click()
    expect(page.locator("#stage .before dd").first).to_be_visible()
    assert findings(page) == []
