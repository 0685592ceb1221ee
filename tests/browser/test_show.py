"""Traces that other engines' adapters made play where `show` puts them: in the replay, side by side, in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from nemodiff.cli.main import main
from nemodiff.trace import Trace
from nemodiff.trace.adapters.log import from_log
from tests.helpers import other_engines
from tests.helpers.browser import PATIENCE, findings

expect.set_options(timeout=PATIENCE)
HOSTILE = "</script><img src=x onerror=window.hacked=1>${window.hacked=2}"


@pytest.fixture
def offline(browser: Browser) -> Iterator[Page]:
    """A page without a network, motion reduced so that runs stand at their end. Fails on a script error."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce", offline=True)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert not errors, errors


def text_of(part: Page | FrameLocator, mode: str) -> str:
    return part.locator(f'[data-lane="{mode}"] .text .t[data-index]').evaluate_all(
        "all => all.filter(n => !['rejected', 'discarded'].includes(n.dataset.state)).map(n => n.textContent).join('')"
    )


def test_a_loop_of_masks_plays_in_the_replay(offline: Page, tmp_path: Path) -> None:
    trace, _ = other_engines.masked_loop(texts=lambda token: HOSTILE if token % 7 == 0 else f" t{token}")
    trace.save(tmp_path / "loop.json")
    assert main(["show", str(tmp_path / "loop.json"), "--out", str(tmp_path / "loop.html")]) == 0
    offline.goto((tmp_path / "loop.html").as_uri())
    stage = offline.locator("#stage")
    expect(stage).to_have_attribute("data-cursor", "6")
    expect(offline.locator('[data-lane="diffusion"] .how')).to_contain_text("Fills masks, forward by forward")
    expect(offline.locator('[data-lane="ar"]')).to_be_hidden()
    assert text_of(offline, "diffusion") == trace["diffusion"].text
    offline.get_by_role("button", name="Step back").click()
    expect(stage).to_have_attribute("data-cursor", "5")
    assert offline.evaluate("window.hacked === undefined")


def test_two_engines_stand_side_by_side_and_play_together(offline: Page, tmp_path: Path) -> None:
    runs = {"assisted": other_engines.assisted()[0], "lookup": from_log(other_engines.logged()[0])}
    for name, trace in runs.items():
        trace.save(tmp_path / f"{name}.json")
    out = tmp_path / "both.html"
    assert main(["show", *(str(tmp_path / f"{name}.json") for name in runs), "--out", str(out)]) == 0
    offline.goto(out.as_uri())
    for i, trace in enumerate(runs.values()):
        frame = offline.frame_locator("iframe").nth(i)
        lane = trace["self-speculation"]
        expect(frame.locator("#stage")).to_have_attribute("data-cursor", str(lane.forwards))
        expect(frame.locator('[data-lane="self-speculation"] .how')).to_have_text(lane.note)
        expect(frame.locator('[data-figure="nfe"] b').last).to_have_text("–")
        assert text_of(frame, "self-speculation") == lane.text
    offline.get_by_role("button", name="To the start").click()
    for i in range(2):
        expect(offline.frame_locator("iframe").nth(i).locator("#stage")).to_have_attribute("data-cursor", "0")
    offline.get_by_role("button", name="Seconds").click()
    offline.get_by_role("button", name="To the end").click()
    for i, trace in enumerate(runs.values()):
        end = -(-int(trace["self-speculation"].events[-1].clock_ms * 1000) // 1000)
        stage = offline.frame_locator("iframe").nth(i).locator("#stage")
        expect(stage).to_have_attribute("data-clock", "seconds")
        expect(stage).to_have_attribute("data-cursor", re.compile(f"^({end - 1}|{end}|{end + 1})$"))  # a message away
    framed = "[...document.querySelectorAll('iframe')].map(({ style }) => style.height)"
    offline.wait_for_function(f"{framed}.every((height) => height.endsWith('px') && parseInt(height) > 300)")
    assert findings(offline) == []


def test_what_a_notebook_frames_reaches_nothing_around_it(offline: Page) -> None:
    trace, _ = other_engines.plain_decoding()
    trace.request["prompt"] = HOSTILE
    offline.set_content(f"<h1>A notebook</h1>{trace._repr_html_()}")
    frame = offline.frame_locator("iframe")
    expect(frame.locator("#stage")).to_have_attribute("data-cursor", str(trace["ar"].forwards))
    expect(frame.locator(".prompt")).to_have_text(HOSTILE)
    inside = offline.frames[1]
    assert inside.evaluate("window.origin") == "null"
    assert inside.evaluate(
        "(() => { try { return parent.document.title } catch (error) { return error.name } })()"
    ) == ("SecurityError")
    assert offline.evaluate("window.hacked === undefined")


def test_the_page_opens_a_log_and_another_engines_trace(page: Page, tmp_path: Path) -> None:
    text, _ = other_engines.logged()
    (tmp_path / "engine.jsonl").write_text(text, encoding="utf-8")
    trace, _ = other_engines.text_diffusion()
    trace.save(tmp_path / "canvas.json")
    opener = page.locator("input[type=file]:not(.chooser)")
    for name, mode, run in (
        ("engine.jsonl", "self-speculation", from_log(text)),
        ("canvas.json", "diffusion", Trace.from_json(trace.to_json())),
    ):
        opener.set_input_files(tmp_path / name)
        expect(page.locator(f'[data-lane="{mode}"] .how')).to_contain_text(run[mode].note)
        expect(page.locator("#stage")).to_have_attribute("data-cursor", str(run[mode].forwards))
