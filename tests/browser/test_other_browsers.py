"""The page in a real Firefox and a real WebKit, each where it is on this machine (`make browsers` installs both)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright

from nemodiff.trace.events import Trace
from tests.helpers.browser import find_firefox, launch
from tests.helpers.other_browsers import Firefox, Visitor, find_webkit, webkit

STATE = "document.querySelector('#stage')?.dataset.state"
CURSOR = "document.querySelector('#stage').dataset.cursor"
TOTAL = "document.querySelector('#stage').dataset.total"


@pytest.fixture(scope="module", params=["firefox", "webkit"])
def engine(
    request: pytest.FixtureRequest, playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visitor]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "firefox":
        if not find_firefox():
            pytest.skip("There is no Firefox on this machine: make browsers installs it.")
        with launch(playwright, "firefox") as browser:
            firefox = Firefox(browser, folder)
            yield firefox
            firefox.close()
    else:
        pytest.importorskip("selenium", reason="selenium comes with requirements-dev.txt")
        found = find_webkit()
        if not found:
            pytest.skip("WebKitWebDriver, MiniBrowser or Xvfb is not on this machine: make browsers installs them.")
        with webkit(found, folder) as visitor:
            yield visitor


@pytest.fixture
def visitor(engine: Visitor, app: str) -> Iterator[Visitor]:
    """The page with its recording loaded. Fails on a script error, or on one that the page tells the console."""
    engine.open(app)
    engine.until(f"{STATE} === 'replay'")
    yield engine
    assert engine.failures() == []


def generate(visitor: Visitor, tokens: int) -> None:
    visitor.fill("#max-new-tokens input", str(tokens))
    visitor.until(f"window.nemodiff.fields.tokens === {tokens}")
    visitor.click("#generate")


def test_three_lanes_run_to_their_end_and_leave_as_files(visitor: Visitor) -> None:
    generate(visitor, 14)
    visitor.until(f"{STATE} === 'done' && {CURSOR} === {TOTAL}")
    assert visitor.see("document.querySelector('#stage').dataset.gaps") == "0"
    verdict = "document.querySelector('[data-lane=\"self-speculation\"] .verdict').textContent"
    assert "lossless: identical to AR, 14 of 14" in visitor.see(verdict)
    visitor.click("[data-do=away]")
    trace = Trace.from_json(visitor.download("[data-do=save]").read_bytes())
    assert [lane.mode for lane in trace.lanes] == ["ar", "diffusion", "self-speculation"]
    assert len(trace.lane("ar").tokens) == 14
    visitor.click("[data-do=away]")
    assert visitor.download("[data-make=html]").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_stop_ends_a_long_run(visitor: Visitor) -> None:
    generate(visitor, 400)
    visitor.until(f"{STATE} === 'live' && document.querySelector('[data-lane=ar] .t[data-index]') !== null")
    visitor.click("#stop")
    visitor.until(f"{STATE} === 'done' && document.querySelector('[data-lane=ar] .finish').textContent === 'stopped'")
    assert int(visitor.see(TOTAL)) < 400


def test_the_keyboard_steps_through_a_replay(visitor: Visitor) -> None:
    visitor.see("document.querySelector('#stage').focus()")
    for key, cursor in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 4)):
        visitor.press(key)
        visitor.until(f"{CURSOR} === '{cursor}'")


def test_a_card_of_the_shelf_opens(visitor: Visitor) -> None:
    visitor.click("#shelf .card:nth-of-type(2)")
    visitor.until("document.querySelector('#stage .prompt').textContent === 'Write a JSON object.'")
    assert visitor.see("document.querySelector('[data-lane=diffusion] .mark').textContent") == "✗ JSON broken"


def test_light_and_dark(visitor: Visitor, app: str) -> None:
    papers = []
    for scheme in ("light", "dark"):
        visitor.open(f"{app}/?__theme={scheme}")
        visitor.until(f"{STATE} === 'replay'")
        papers.append(visitor.see("getComputedStyle(document.querySelector('#stage')).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


def test_a_phone_does_not_scroll_sideways(visitor: Visitor, app: str) -> None:
    visitor.open(app, narrow=True)
    visitor.until(f"{STATE} === 'replay'")
    assert visitor.see("innerWidth") == 390
    assert visitor.see("document.documentElement.scrollWidth") <= 390
    parts = "#stage, #generate, #modes label, [data-lane=ar], [data-lane=ar] .figure span, .segment, .race .tab"
    beyond = visitor.see(
        f"Array.from(document.querySelectorAll('{parts}'))"
        ".filter((node) => node.getBoundingClientRect().right > innerWidth + 1)"
        ".map((node) => node.id || node.className)"
    )
    assert beyond == []
