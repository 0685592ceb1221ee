"""axe-core finds nothing serious: on the page after a run with everything opened, in Compare, in a replay file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from nemodiff.trace.events import Trace
from nemodiff.trace.replay import replay_html
from tests.helpers.browser import PATIENCE, SCHEMES, ask, findings
from tests.helpers.traces import trace_of
from ui.page.watch import CHARTS

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="it comes with requirements-dev.txt").Axe

expect.set_options(timeout=PATIENCE)


@pytest.fixture
def themed(browser: Browser, app: str, scheme: str):
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{app}/?__theme={scheme}")
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    yield page
    context.close()


@SCHEMES
def test_the_page_after_a_run(themed: Page, scheme: str) -> None:
    themed.locator("#max-new-tokens input").fill("6")
    themed.locator("#generate").click()
    stage = themed.locator("#stage")
    expect(stage).to_have_attribute("data-state", "done")
    assert findings(themed) == []
    stage.locator(".attention summary").click()
    stage.locator(".howto summary").click()
    themed.locator("#more").get_by_role("button").first.click()
    themed.get_by_text("Charts of this run").click()
    expect(themed.locator("#charts .js-plotly-plot")).to_have_count(len(CHARTS))
    stage.locator('[data-lane="self-speculation"] .t[data-index="1"]').click()
    expect(stage.locator(".pin")).to_be_visible()
    assert findings(themed) == []
    themed.get_by_role("button", name="Take it away").click()
    assert findings(themed) == []


@SCHEMES
def test_the_compare_tab(themed: Page, scheme: str) -> None:
    themed.get_by_role("tab", name="Compare").click()
    ask(themed, "Days as JSON", "4", "0.9", 4)
    themed.locator("#sweep-start").click()
    expect(themed.locator('.sweep[data-state="done"]')).to_be_visible()
    expect(themed.locator("#sweep-table tbody tr")).to_have_count(3)
    assert findings(themed) == []
    themed.get_by_text("Own prompts", exact=True).click()
    themed.get_by_text("More to vary", exact=True).click()
    expect(themed.locator("#sweep-own textarea")).to_be_visible()
    expect(themed.locator("#sweep-rows input")).to_be_visible()
    assert findings(themed) == []


@SCHEMES
def test_a_replay_file(browser: Browser, tmp_path: Path, scheme: str) -> None:
    trace = Trace.from_json(json.dumps(trace_of({"1": "a", "2": "b", "3": "c"}, [1, 2, 3], recorded="2026-01-02")))
    path = tmp_path / "replay.html"
    path.write_text(replay_html(trace), encoding="utf-8")
    # axe is put in beside the file's own policy, which would refuse it.
    context = browser.new_context(offline=True, bypass_csp=True, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(path.as_uri())
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "2")
    assert findings(page) == []
    context.close()
