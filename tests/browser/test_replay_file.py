"""The replay file, opened from disk in a Chromium without network, plays to its end; hostile text stays text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from nemodiff.pictures import Picture
from nemodiff.trace.events import Trace
from nemodiff.trace.replay import replay_html
from tests.helpers.browser import PATIENCE, download
from tests.helpers.traces import trace_of, tree

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright comes with requirements-dev.txt")
expect = playwright_api.expect

HOSTILE = {
    "1": "<img src=x onerror=window.hacked=1>",
    "2": "${window.hacked=2}",
    "3": "</script><script>window.hacked=3</script>",
    "4": "<!-- \u2028 \u2029",
    "5": "end",
}


def open_replay(
    browser: playwright_api.Browser, folder: Path, data: dict | None = None, **context
) -> tuple[playwright_api.Page, list[str]]:
    """The page of a replay of the hostile trace, offline; the list gathers requests, errors and policy violations."""
    data = data or trace_of(HOSTILE, [1, 2, 3, 4, 5], recorded="2026-01-02", device="Test CPU")
    trace = Trace.from_json(json.dumps(data))
    path = folder / "replay.html"
    path.write_text(replay_html(trace), encoding="utf-8")
    page = browser.new_context(offline=True, **context).new_page()
    page.set_default_timeout(PATIENCE)
    trouble: list[str] = []
    page.on("request", lambda request: trouble.append(request.url) if request.url != path.as_uri() else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    return page, trouble


def test_a_replay_plays_to_its_end_from_disk(browser, tmp_path):
    page, trouble = open_replay(browser, tmp_path)
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("data-state", "replay", timeout=PATIENCE)
    expect(stage).to_have_attribute("data-total", "4", timeout=PATIENCE)
    expect(stage).to_have_attribute("data-cursor", "4", timeout=PATIENCE)
    expect(stage).to_have_attribute("data-playing", "no", timeout=PATIENCE)
    expect(page.locator('[data-lane="ar"] [data-figure="tokens"] b')).to_have_text("5", timeout=PATIENCE)
    expect(page.locator("#stage .badge")).to_contain_text("Test CPU", timeout=PATIENCE)
    assert HOSTILE["1"] in page.locator('[data-lane="ar"] .text').inner_text()
    assert page.evaluate("window.hacked === undefined")
    assert trouble == []


def test_a_replay_can_neither_fetch_nor_run_another_script(browser, tmp_path):
    page, _ = open_replay(browser, tmp_path, reduced_motion="reduce")
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "4", timeout=PATIENCE)
    refused = page.evaluate(
        """async () => {
          const seen = new Promise((resolve) => document.addEventListener("securitypolicyviolation",
            (event) => resolve(event.effectiveDirective), { once: true }));
          const script = document.createElement("script");
          script.textContent = "window.hacked = 4";
          document.body.append(script);
          return [await seen, window.hacked === undefined, await fetch("data:,x").then(() => false, () => true)];
        }"""
    )
    assert refused == ["script-src-elem", True, True]


def test_a_replay_can_be_saved_as_a_trace(browser, tmp_path):
    page, trouble = open_replay(browser, tmp_path, reduced_motion="reduce")
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "4", timeout=PATIENCE)
    trace = Trace.from_json(download(page, "Trace", tmp_path).read_bytes())
    assert trace.lane("ar").tokens == [1, 2, 3, 4, 5]
    assert trace.vocabulary == {int(token): text for token, text in HOSTILE.items()}
    assert trouble == []


def test_a_tree_and_the_prompts_picture_are_in_the_file(browser: playwright_api.Browser, tmp_path: Path) -> None:
    data = tree() | {"image_grids": [[2, 3]]}
    data["image_previews"] = [Picture.of(Image.new("RGB", (30, 20), "#d02040")).preview()]
    data["request"]["images"] = [[30, 20]]
    page, trouble = open_replay(browser, tmp_path, data, reduced_motion="reduce")
    strip = page.locator('[data-lane="self-speculation"] .strip')
    expect(strip.locator('.tree [data-kind="accepted"]')).to_have_count(2)
    expect(page.locator(".seen img")).to_be_visible()
    assert page.locator(".seen img").evaluate("image => image.naturalWidth") == 30
    assert not trouble, trouble
    page.context.close()
