"""The page that opens before its model is there: it says so, what is asked for waits, and a load that fails is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

import nemodiff
from nemodiff.errors import CheckpointError
from tests.helpers.browser import PATIENCE, fill_field
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.served import WAIT, serving_apart

expect.set_options(timeout=PATIENCE)


class Load:
    """A load that goes on when the test lets it."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self.go_on = threading.Event()
        self._end = end

    def __call__(self, report: Callable[[str], None]) -> Any:
        report("Compiling the kernels.")
        assert self.go_on.wait(WAIT)
        return self._end()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors


def test_a_run_that_is_asked_for_while_the_model_loads_waits_for_it(opened: Page, tmp_path: Path) -> None:
    folder = write_nvidia(random_ministral(0), tmp_path / "late-one", tokenizer=True, block_size=16)
    engine = nemodiff.load(str(folder), device="cpu", dtype="float32")
    load = Load(lambda: engine)
    with serving_apart(None, behind=load, recordings=tmp_path) as (address, _):
        health = httpx.get(f"{address}/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        opened.goto(address)
        header = opened.locator("#checkpoint")
        expect(header).to_have_attribute("data-state", "load")
        expect(header.locator(".chip")).to_contain_text("loading")
        fill_field(opened, "max-new-tokens", "5")
        opened.locator("#threshold input").fill("0.5")
        opened.locator("#generate").click()
        expect(opened.locator("#stage .message")).to_have_text("The model is being loaded. Compiling the kernels.")
        load.go_on.set()
        expect(opened.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
        expect(header).to_have_attribute("data-state", "running")
        expect(header.locator(".name")).to_have_text("late-one")
        # The checkpoint's own default takes the place of what was there before, what the visitor set stays.
        expect(opened.locator("#block-length input")).to_have_value("16")
        expect(opened.locator("#threshold input")).to_have_value("0.5")
        expect(opened.locator("#stage .where")).to_contain_text("block 16 ")
        assert httpx.get(f"{address}/health").status_code == 200
        opened.reload()
        expect(header.locator(".name")).to_have_text("late-one")
        expect(opened.locator("#block-length input")).to_have_value("16")


def test_a_first_load_that_fails_is_told_where_one_waits_and_where_one_looks(opened: Page, tmp_path: Path) -> None:
    sentence = "The base weights could not be fetched: check the network and start again."

    def fail() -> None:
        raise CheckpointError(sentence)

    load = Load(fail)
    with serving_apart(None, behind=load, recordings=tmp_path) as (address, _):
        opened.goto(address)
        expect(opened.locator("#checkpoint")).to_have_attribute("data-state", "load")
        opened.locator("#generate").click()
        expect(opened.locator("#stage .message")).to_contain_text("The model is being loaded.")
        load.go_on.set()
        expect(opened.locator("#stage .message")).to_have_text(sentence)
        expect(opened.locator("#checkpoint .error")).to_have_text(sentence)
        assert httpx.get(f"{address}/health").json()["status"] == "failed"


def test_a_press_before_the_links_values_have_come_runs_with_them(opened: Page, app: str) -> None:
    """As on a slow connection: what Generate would send is still the page's own prompt."""
    waiting: list[Route] = []
    slow = True
    opened.route("**/gradio_api/run/**", lambda route: waiting.append(route) if slow else route.continue_())
    opened.goto(f"{app}/?prompt=Hello there&tokens=5&modes=ar")
    expect(opened.locator("#stage")).to_have_attribute("data-state", "replay")
    opened.locator("#generate").click()
    expect(opened.locator("#stage .message")).to_contain_text("The page is still loading")
    opened.evaluate("document.querySelector('#generate').click()")  # again, which asks for no second run
    opened.locator("#stop").click()
    expect(opened.locator("#stage .message")).to_be_hidden()
    opened.locator("#prompt textarea").press("Enter")
    expect(opened.locator("#stage .message")).to_contain_text("The page is still loading")
    slow = False
    for route in waiting:
        route.continue_()
    expect(opened.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    expect(opened.locator("#stage .prompt")).to_have_text("Hello there")
    assert opened.locator(".lane:visible").count() == 1
