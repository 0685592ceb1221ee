"""A run survives: the page behind a proxy that cuts its connections, and a model that goes on when the test says so."""

from __future__ import annotations

import json
import math
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import PATIENCE, ask, download, metric, running, wait_for_metric
from tests.helpers.checkpoints import open_engine
from tests.helpers.cutting_proxy import CuttingProxy, cutting_proxy
from tests.helpers.replicas import free_port
from tests.helpers.served import serving_apart
from tests.helpers.traces import trace_of

expect.set_options(timeout=PATIENCE)

TOKENS = 40
LINK = f"/?modes=ar,diffusion&tokens={TOKENS}&go_on=1&prompt=Hello+there"


class Pace:
    """An engine that makes `first` events of each run, and the others once it is let go."""

    def __init__(self, engine: Any, first: int = 6) -> None:
        self.engine, self.first, self.free = engine, first, threading.Event()
        self.still = False  # as in the middle of a forward, which nothing ends
        self.plain = engine.stream
        engine.stream = self.stream

    def stream(self, request: Any) -> Iterator[Any]:
        events = self.plain(request)
        try:
            for k, event in enumerate(events):
                while k >= self.first and not self.free.wait(0.05):
                    if not self.still:
                        yield None
                yield event
        finally:
            events.close()


@pytest.fixture(scope="module")
def engine(chat_folder: Path) -> Any:
    return open_engine(chat_folder)


@pytest.fixture(scope="module")
def served(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "made.json").write_text(json.dumps(trace_of({"1": "One", "2": " two"}, [1, 2])), encoding="utf-8")
    with serving_apart(engine, recordings=folder, visitor_rate=0, max_new_tokens=400) as (address, _):
        yield address


@pytest.fixture
def pace(engine: Any) -> Iterator[Pace]:
    pace = Pace(engine)
    yield pace
    pace.free.set()
    engine.stream = pace.plain


@pytest.fixture
def proxy(served: str) -> Iterator[CuttingProxy]:
    with cutting_proxy(int(served.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def page(browser: Browser, proxy: CuttingProxy) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(proxy.address + LINK)
    expect(stage(page)).to_have_attribute("data-state", "replay")
    expect(page.locator("#prompt textarea")).to_have_value("Hello there")
    page.evaluate("window.same = true")
    yield page
    context.close()
    assert not errors, errors


def stage(page: Page) -> Any:
    return page.locator("#stage")


def begin(page: Page) -> None:
    page.locator("#generate").click()
    expect(stage(page)).to_have_attribute("data-state", "live")
    expect(stage(page)).not_to_have_attribute("data-total", "0")


def whole(page: Page) -> None:
    """The run is there to its end, each token of it."""
    expect(page.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    lanes = {
        lane["mode"]: lane for lane in json.loads(page.evaluate("document.querySelector('#stage').trace()"))["lanes"]
    }
    assert [len(lanes[mode]["tokens"]) for mode in ("ar", "diffusion")] == [TOKENS, TOKENS]
    assert {lane["finish"] for lane in lanes.values()} == {"length"}
    assert len(lanes["ar"]["events"]) == TOKENS


@pytest.mark.parametrize("how", ["reset", "close", "stall"])
def test_the_rest_of_a_run_comes_after_the_connection_broke(
    page: Page, proxy: CuttingProxy, pace: Pace, how: str
) -> None:
    begin(page)
    getattr(proxy, how)(also_new=True)
    expect(stage(page)).to_have_attribute("data-state", "lost")
    expect(page.locator("#stage .message")).to_contain_text("The connection to the server is lost")
    proxy.heal()
    expect(stage(page)).to_have_attribute("data-state", "live")
    pace.free.set()
    whole(page)
    expect(page.locator("#stage .message")).to_be_hidden()
    assert page.evaluate("window.same")  # without a reload
    page.locator("#max-new-tokens input").fill("41")
    page.locator("#generate").click()
    expect(stage(page)).to_have_attribute("data-total", "40")
    expect(stage(page)).to_have_attribute("data-state", "done")


def test_a_stream_that_was_held_back_and_goes_on_is_live_again(page: Page, proxy: CuttingProxy, pace: Pace) -> None:
    begin(page)
    proxy.stall()
    expect(stage(page)).to_have_attribute("data-state", "lost")
    proxy.resume()
    expect(stage(page)).to_have_attribute("data-state", "live")
    pace.free.set()
    whole(page)
    assert page.evaluate("window.same")


def test_prompt_settings_and_run_are_there_after_a_reload_and_the_rest_comes(page: Page, pace: Pace) -> None:
    page.locator("#prompt textarea").fill("Another prompt, with “quotes”\nand a line")
    page.locator("#block-length input").fill("4")
    page.locator("#diffusion input, #modes input").last.focus()
    begin(page)
    before = int(stage(page).get_attribute("data-total") or 0)
    page.reload()
    expect(stage(page)).to_have_attribute("data-state", "live")
    expect(page.locator("#prompt textarea")).to_have_value("Another prompt, with “quotes”\nand a line")
    expect(page.locator("#block-length input")).to_have_value("4")
    assert before > 0
    page.wait_for_function("(least) => Number(document.getElementById('stage').dataset.total) >= least", arg=before)
    assert page.evaluate("window.same") is None
    pace.free.set()
    whole(page)

    page.reload()  # and once more when it has ended
    whole(page)
    expect(page.locator("#stage .prompt")).to_have_text("Another prompt, with “quotes”\nand a line")
    expect(page.locator("#stage .message")).to_be_hidden()
    page.goto(page.url.replace("Hello+there", "Something+else"))  # another link is another page
    expect(stage(page)).to_have_attribute("data-state", "replay")
    expect(page.locator("#prompt textarea")).to_have_value("Something else")
    expect(page.locator("#block-length input")).to_have_value("8")


def test_a_reloaded_page_can_stop_the_run_that_it_began(page: Page, pace: Pace) -> None:
    begin(page)
    page.reload()
    expect(stage(page)).to_have_attribute("data-state", "live")
    page.locator("#stop").click()
    expect(stage(page)).to_have_attribute("data-state", "done")
    expect(page.locator('[data-lane="ar"] .finish')).to_have_text("stopped")


def test_a_run_of_which_no_token_came_is_found_after_a_reload(page: Page, proxy: CuttingProxy, pace: Pace) -> None:
    pace.first = 0
    page.locator("#generate").click()
    expect(page.locator("#stage .message")).to_have_text(re.compile("Waiting for the model…|turn has come"))
    wait_for_metric(proxy.address, "nemodiff_running", 1)
    page.reload()
    expect(page.locator("#stage .message")).to_have_text("Looking for the run that was asked for…")
    pace.free.set()
    whole(page)


def test_what_the_browser_keeps_has_a_bound_and_the_server_is_asked_for_the_rest(page: Page, pace: Pace) -> None:
    pace.free.set()
    page.locator("#generate").click()
    whole(page)
    page.evaluate("window.nemodiff.fields.prompt = '\\u00e4'.repeat(2_100_000)")
    page.reload()
    whole(page)
    assert page.evaluate("sessionStorage.getItem('nemodiff').length") < 2_200_000
    # And where the browser has no room at all, the page is as it was when it was opened.
    page.evaluate("sessionStorage.clear(); sessionStorage.setItem('full', '\\u00e4'.repeat(5_242_000))")
    page.reload()
    expect(stage(page)).to_have_attribute("data-state", "replay")


def test_a_page_from_the_browsers_cache_asks_for_what_it_missed(page: Page, proxy: CuttingProxy, pace: Pace) -> None:
    begin(page)
    unanswered: list[str] = []
    page.on("requestfailed", lambda one: unanswered.append(one.url) if "/resync" in one.url else None)
    # As the browser does it: what was open is dead, and nothing says so.
    proxy.stall(also_new=False)
    page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("#stage .message")).to_have_text("The connection broke: the rest of the run is being fetched.")
    assert len(unanswered) <= 1  # and not one for every connection that was kept
    pace.free.set()
    whole(page)


@pytest.mark.parametrize("kind", ["online", "visibilitychange"])
def test_when_the_network_or_the_page_is_back_the_server_is_asked(
    page: Page, proxy: CuttingProxy, pace: Pace, kind: str
) -> None:
    begin(page)
    proxy.stall(also_new=True)
    expect(page.locator("#stage .message")).to_contain_text("is lost")
    proxy.heal()
    page.evaluate(f"(window.{'document' if kind == 'visibilitychange' else 'self'}).dispatchEvent(new Event('{kind}'))")
    pace.free.set()
    whole(page)


def test_a_run_that_the_server_has_no_more_is_said_to_be_lost_and_what_came_can_be_saved(
    page: Page, proxy: CuttingProxy, pace: Pace, served: str, tmp_path: Path
) -> None:
    begin(page)
    proxy.stall(also_new=False)
    unknown = httpx.post(f"{proxy.address}/resync", json={"run": "unknown", "after": 0}).json()
    page.route("**/resync", lambda route: route.fulfill(json=unknown))
    expect(page.locator("#stage .message")).to_contain_text("The rest of this run was lost")
    expect(stage(page)).to_have_attribute("data-state", "error")
    lanes = json.loads(download(page, "Trace", tmp_path).read_text(encoding="utf-8"))["lanes"]
    assert sum(len(lane["events"]) for lane in lanes) == pace.first
    page.unroute("**/resync")
    pace.free.set()
    page.locator("#generate").click()
    whole(page)


def ask_too(browser: Browser, proxy: CuttingProxy, name: str, ahead: int) -> Page:
    """Another visitor's page, which waits while so many runs come first."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(proxy.address + LINK.replace("Hello", name))
    expect(page.locator("#prompt textarea")).to_have_value(f"{name} there")
    page.locator("#generate").click()
    expect(stage(page)).to_have_attribute("data-waiting", str(ahead))
    return page


@pytest.fixture
def other(browser: Browser, page: Page, proxy: CuttingProxy, pace: Pace) -> Iterator[Page]:
    """Another visitor's page, which waits while the first one's run goes on."""
    begin(page)
    other = ask_too(browser, proxy, "Second", 1)
    yield other
    other.close()


@pytest.mark.parametrize("how", ["reset", "reload"])
def test_who_waits_and_loses_the_connection_keeps_the_place(
    page: Page, other: Page, proxy: CuttingProxy, pace: Pace, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("ui.live.run.HURRY", math.inf)  # both pages ask, a busy machine's late
    if how == "reset":
        proxy.reset()
    else:
        other.reload()
    with other.expect_response("**/resync") as asked:
        pass
    assert asked.value.json()["ahead"] == 1
    expect(other.locator("#stage .message")).to_contain_text("1 run comes first")
    pace.free.set()
    whole(page)
    whole(other)


def test_a_tab_that_was_closed_while_it_waited_leaves_the_line(
    browser: Browser, page: Page, other: Page, proxy: CuttingProxy, pace: Pace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.live.run.GRACE", 0.5)
    third = ask_too(browser, proxy, "Third", 2)
    other.close()
    expect(stage(third)).to_have_attribute("data-waiting", "1")
    wait_for_metric(proxy.address, "nemodiff_waiting", 1)
    expect(stage(page)).to_have_attribute("data-state", "live")
    pace.free.set()
    whole(third)
    third.close()


def test_a_hidden_tab_says_in_its_title_that_the_run_has_ended(page: Page, pace: Pace) -> None:
    show = """hidden => {
        Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    begin(page)
    title = page.title()
    page.evaluate(show, True)
    pace.free.set()
    expect(page).to_have_title(f"Run ended · {title}")
    whole(page)
    page.evaluate(show, False)
    expect(page).to_have_title(title)


def test_stop_and_generate_at_once_while_another_one_runs(
    page: Page, other: Page, proxy: CuttingProxy, pace: Pace
) -> None:
    press = "(id) => document.querySelector(id).click()"
    for button in ("#stop", "#generate", *["#stop"] * 5, "#generate", "#generate", "#stop", "#generate"):
        other.evaluate(press, button)
    expect(stage(other)).to_have_attribute("data-waiting", "1")
    wait_for_metric(proxy.address, "nemodiff_waiting", 1)
    pace.free.set()
    whole(page)
    whole(other)
    wait_for_metric(proxy.address, "nemodiff_running", 0)
    assert metric(proxy.address, "nemodiff_waiting") == 0


@pytest.mark.parametrize("first", [0, 6])
def test_stop_says_at_once_that_it_comes_after_the_forward_that_goes_on(page: Page, pace: Pace, first: int) -> None:
    """Whether a long prompt is read or tokens come: what is on the stage says it until the model has ended."""
    pace.first, pace.still = first, True
    message = page.locator("#stage .message")
    page.locator("#generate").click()
    if first:
        expect(stage(page)).to_have_attribute("data-state", "live")
    else:
        expect(message).to_have_text("This run's turn has come: waiting for its first token…")
    page.locator("#stop").click()
    expect(message).to_have_text("Stopping after this forward…")
    pace.free.set()
    expect(stage(page)).to_have_attribute("data-state", "done")
    expect(page.locator('[data-lane="ar"] .finish')).to_have_text("stopped")
    expect(message).to_be_hidden()


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_presses_leaves_the_stage_waiting(page: Page, proxy: CuttingProxy, pace: Pace, seed: int) -> None:
    """Presses as fast as the page takes them; then what was pressed last holds."""
    pace.first, choose = 2, random.Random(seed)
    presses = choose.choices(("#generate", "#stop", "enter"), (3, 3, 1), k=24)
    for press in presses:
        if press == "enter":
            page.locator("#prompt textarea").press("Enter")
        else:
            page.evaluate("(id) => document.querySelector(id).click()", press)
        if choose.random() < 0.3:
            page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 120))")
        assert metric(proxy.address, "nemodiff_waiting") <= 1
    pace.free.set()
    if presses[-1] == "#stop":
        expect(page.locator("#stage:not([data-waiting])")).not_to_have_attribute("data-state", "live")
    page.locator("#generate").click()
    whole(page)
    wait_for_metric(proxy.address, "nemodiff_running", 0)
    expect(page.locator("#stage .message")).to_be_hidden()


def test_stop_on_watch_leaves_the_same_pages_sweep_alone(page: Page, pace: Pace) -> None:
    pace.free.set()
    page.get_by_role("tab", name="Compare").click()
    ask(page, "Lighthouse", "4", "0.5, 0.9", 8)
    page.locator("#sweep-start").click()
    page.evaluate("document.querySelector('#stop').click()")
    expect(page.locator("#sweep-status .sweep")).to_have_attribute("data-state", "done")
    expect(page.locator("#sweep-status")).to_contain_text("runs in")


def test_a_sweep_whose_connection_broke_says_so(page: Page, proxy: CuttingProxy, pace: Pace) -> None:
    pace.free.set()
    page.get_by_role("tab", name="Compare").click()
    ask(page, "Lighthouse", "4", "0.5, 0.9", 8)
    expect(page.locator("#sweep-plan")).to_contain_text("up to about")  # the short run that measures this has ended
    pace.free.clear()
    pace.first = 1
    page.locator("#sweep-start").click()
    expect(page.locator("#sweep-status .sweep")).to_have_attribute("data-state", "going")
    expect(page.locator("#sweep-status")).to_contain_text("of 4 runs")
    proxy.stall()
    expect(page.locator("#sweep-status .sweep")).to_have_attribute("data-state", "error")
    expect(page.locator("#sweep-status")).to_contain_text("the connection was lost")
    assert page.evaluate("window.same")


def test_a_server_that_was_restarted_leaves_what_came_and_a_sentence(
    browser: Browser, chat_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "made.json").write_text(json.dumps(trace_of({"1": "One", "2": " two"}, [1, 2])), encoding="utf-8")
    port = free_port()
    settings = {"NEMODIFF_RECORDINGS": str(tmp_path), "NEMODIFF_CHECKPOINT": str(chat_folder), "NEMODIFF_THREADS": "1"}
    settings |= {"NEMODIFF_DEVICE": "cpu", "NEMODIFF_DTYPE": "float32", "NEMODIFF_MAX_NEW_TOKENS": "1900"}
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    link = f"http://127.0.0.1:{port}/?block=2&tokens=1900&go_on=1&prompt=Hello+there"
    with running(tmp_path / "first.log", settings, port, kill=True):
        page.goto(link)
        expect(page.locator("#prompt textarea")).to_have_value("Hello there")
        page.locator("#temperature input").fill("0.5")
        begin(page)
    expect(stage(page)).to_have_attribute("data-state", "lost")
    with running(tmp_path / "second.log", settings, port):
        expect(page.locator("#stage .message")).to_contain_text("The rest of this run was lost")
        expect(page.locator("#prompt textarea")).to_have_value("Hello there")
        expect(page.locator("#temperature input")).to_have_value("0.5")
        lanes = json.loads(download(page, "Trace", tmp_path / "saved").read_text(encoding="utf-8"))["lanes"]
        assert 0 < sum(len(lane["tokens"]) for lane in lanes) < 3 * 1900
        page.locator("#max-new-tokens input").fill("3")
        page.locator("#generate").click()
        expect(page.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    page.close()
