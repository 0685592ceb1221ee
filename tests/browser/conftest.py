"""A real browser on a real app with the real engine. Nothing here sleeps: the page says in data-* what it does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from nemodiff.trace import player
from tests.helpers.browser import PATIENCE, launch, running
from tests.helpers.checkpoints import write_chat
from tests.helpers.traces import json_lanes, trace_of

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright comes with requirements-dev.txt")


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running app on a tiny random checkpoint, whose bundled recordings are two small made ones."""
    folder = tmp_path_factory.mktemp("recordings")
    words = {"1": "One", "2": " two", "3": "\n", "4": "  three", "5": "."}
    trace = trace_of(words, [1, 2, 3, 4, 5], recorded="2026-01-02", device="Test CPU")
    (folder / "made.json").write_text(json.dumps(trace), encoding="utf-8")
    wrong = json_lanes([1, 2, 4, 4, 5], [1, 2, 3, 4, 5]) | {"recorded": "2026-01-03"}
    (folder / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
    checkpoint = write_chat(folder.parent / "tiny-chat", endless=True)
    settings = {"NEMODIFF_RECORDINGS": str(folder), "NEMODIFF_CHOOSE": "0", "NEMODIFF_CHECKPOINT": str(checkpoint)}
    with running(folder.parent / "app.log", settings) as address:
        yield address


# Not for the whole session: while Playwright lives, an event loop runs in this thread, and other tests need their own.
@pytest.fixture(scope="package")
def playwright() -> Iterator[playwright_api.Playwright]:
    with playwright_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: playwright_api.Playwright) -> Iterator[playwright_api.Browser]:
    """Chromium, or what NEMODIFF_TEST_BROWSER names: firefox."""
    with launch(playwright, os.environ.get("NEMODIFF_TEST_BROWSER", "chromium")) as browser:
        yield browser


@pytest.fixture
def page(browser: playwright_api.Browser, app: str) -> Iterator[playwright_api.Page]:
    """The page with its recording loaded, motion reduced so that it stands at its end. Fails on a script error."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app)
    playwright_api.expect(page.locator("#stage")).to_have_attribute("data-state", "replay", timeout=PATIENCE)
    yield page
    context.close()
    assert not errors, errors


@pytest.fixture
def alone(browser: playwright_api.Browser) -> Iterator[playwright_api.Page]:
    """The player without Gradio or a server, as in a replay file, motion reduced; it is window.stage, and what it would
    branch lies in window.branches. Fails on a script error."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce", offline=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_content(player.template())
    page.add_style_tag(content=player.STYLE.read_text(encoding="utf-8"))
    page.add_script_tag(content=player.script())
    page.evaluate(
        "window.branches = [];"
        "window.stage = mount(document.getElementById('stage'), { branch: (at) => window.branches.push(at) })"
    )
    yield page
    context.close()
    assert not errors, errors
