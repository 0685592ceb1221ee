"""Charts below the stage, and the files that a viewer takes away."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from nemodiff.trace import player
from nemodiff.trace.events import Trace
from tests.helpers.browser import download, take_away
from tests.helpers.traces import trace_of
from ui.page.watch import CHARTS
from ui.render.frames import Frames


def test_charts_are_drawn_of_the_run_on_the_page_and_move_its_cursor(page: Page) -> None:
    page.get_by_text("Charts of this run").click()
    plots = page.locator("#charts .js-plotly-plot")
    expect(plots).to_have_count(len(CHARTS))
    expect(plots.first.locator(".main-svg").first).to_be_visible()
    before = page.locator("#stage").get_attribute("data-cursor")
    assert before != "1"
    plots.first.hover()
    plots.first.evaluate("plot => plot.emit('plotly_click', { points: [{ customdata: ['ar', 1] }] })")
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "1")


def test_a_run_can_be_taken_away_in_every_format(page: Page, tmp_path: Path) -> None:
    text = download(page, "Replay", tmp_path).read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    expect(page.locator("#stage .announce")).to_have_text("Replay was saved.")
    with Image.open(download(page, "GIF", tmp_path)) as image:
        assert image.n_frames > 1
    assert Trace.from_json(download(page, "Trace", tmp_path).read_bytes()).lane("ar").tokens == [1, 2, 3, 4, 5]


def test_a_run_over_trees_leaves_as_a_moving_picture_and_as_a_poster(page: Page, tmp_path: Path) -> None:
    page.locator("#draft input").click()
    page.get_by_role("option", name="tree").click()
    page.locator("#rows input").fill("8")  # on a busy machine one row may be all that pays
    page.locator("#max-new-tokens input").fill("12")
    page.locator("#generate").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    trace = Trace.from_json(download(page, "Trace", tmp_path).read_bytes())
    assert any(event.tree for event in trace["self-speculation"].events)

    with Image.open(download(page, "GIF", tmp_path)) as image:
        tall = Frames(trace)
        assert image.size == (tall.width, tall.height)
        image.seek(image.n_frames - 1)
        last = image.convert("RGB")
    trace.lanes = [lane for lane in trace.lanes if lane.mode != "self-speculation"]
    assert Frames(trace).height < last.height  # the band under the lanes
    with Image.open(download(page, "Poster PNG", tmp_path)) as image:
        assert image.size == (1920, 1080)
    poster = download(page, "Poster SVG", tmp_path)
    said = ET.fromstring(poster.read_bytes()).findtext("{http://www.w3.org/2000/svg}title")
    assert said and "Self-speculation: AR's text, " in said
    expect(page.locator("#stage .announce")).to_have_text("Poster SVG was saved.")

    page.goto(poster.as_uri())
    shown = page.locator("text").all_text_contents()
    assert any(text.startswith("Self-speculation: AR's text, ") for text in shown)
    edges = page.locator("text").evaluate_all("nodes => nodes.map(node => node.getBBox()).map(b => b.x + b.width)")
    assert max(edges) <= 1920


@pytest.mark.parametrize(("name", "ending", "codec"), [("WebM", "webm", "vp9"), ("MP4", "mp4", "h264")])
def test_a_video_is_downloaded_and_can_be_decoded(
    page: Page, tmp_path: Path, name: str, ending: str, codec: str
) -> None:
    av = pytest.importorskip("av", reason="PyAV writes the videos")
    path = download(page, name, tmp_path)
    assert path.name.endswith(f".{ending}")
    with av.open(str(path)) as video:
        assert video.streams.video[0].codec_context.name == codec
        frames = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
    # Tokens appear: the last picture is not the first one.
    assert len(frames) > 4 and (frames[0] != frames[-1]).any()
    expect(page.get_by_role("button", name="Take it away")).not_to_have_attribute("aria-disabled", "true")


def test_the_menu_is_used_from_the_keyboard(page: Page) -> None:
    toggle, menu = page.get_by_role("button", name="Take it away"), page.get_by_role("menu")
    expect(menu).to_be_hidden()
    before = page.locator("#stage").get_attribute("data-cursor")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    items = menu.get_by_role("menuitem")
    expect(items.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(items.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(items.last).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(items.first).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(toggle).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(items.last).to_be_focused()
    page.mouse.click(5, 5)
    expect(menu).to_be_hidden()
    expect(page.locator("#stage")).to_have_attribute("data-cursor", before)


def test_a_format_that_cannot_be_made_is_not_offered(browser: Browser) -> None:
    page = browser.new_context(offline=True).new_page()
    page.set_content(player.template())
    page.add_script_tag(content=player.script() + "mount(document.getElementById('stage'), { formats: ['gif'] });")
    assert page.locator('[role="menuitem"]:not([hidden]) b').all_text_contents() == [
        *("Trace", "Copy all", "Markdown", "Text", "GIF"),
    ]
    page.context.close()


#: A clipboard that this page may write to, or not: without a secure connection there is none.
CLIPBOARD = """(act) => Object.defineProperty(navigator, "clipboard", {
  value: { writeText: async (text) => new Function("text", act)(text) },
})"""
TOLD = "one two\n```\nthree |\n"


def taken(page: Page) -> dict:
    """A run whose answers hold a fence, with what they were measured on."""
    words = {"1": "one", "2": " two\n", "3": "```\n", "4": "three |\n"}
    trace = trace_of(words, [1, 2, 3, 4], device="Test | CPU", dtype="float32", recorded="2026-01-02")
    text = json.dumps({"kind": "replay", "run": "r", "trace": trace})
    page.evaluate("(text) => window.stage.ingest(text)", text)
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "3")
    return trace


def test_answers_are_taken_away_as_text_and_as_markdown_with_figures_and_hardware(alone: Page, tmp_path: Path) -> None:
    taken(alone)
    markdown = download(alone, "Markdown", tmp_path)
    assert markdown.name == "nemodiff-made-for-a-test.md"
    text = markdown.read_text(encoding="utf-8")
    assert f"## Autoregressive\n\n````text\n{TOLD}\n````\n" in text
    assert r"made-for-a-test · Test \| CPU · float32 · block 4 · 2026-01-02" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2] == "| Autoregressive | 4 | 3 | 1.33 | 4 | 0.04 s | 100.0 | – | reached the length limit |"
    assert rows[3].startswith("| Self-speculation | 4 | 2 | 2.00 | 3 | 0.03 s | 133.3 | 1.3× as fast, same text |")
    plain = download(alone, "Text", tmp_path).read_text(encoding="utf-8")
    assert f"Autoregressive: 4 tokens, 3 forwards after the prefill, 0.04 s of model time\n\n{TOLD}" in plain
    alone.evaluate(CLIPBOARD, "window.copied = text")
    take_away(alone, "Copy all")
    expect(alone.get_by_role("button", name="Copied")).to_be_visible()
    assert alone.evaluate("window.copied") == text
    expect(alone.get_by_role("button", name="Take it away")).to_be_visible()


def test_where_a_browser_lets_nothing_be_copied_it_is_said(alone: Page) -> None:
    taken(alone)
    alone.evaluate(CLIPBOARD, "throw new Error(text)")
    alone.evaluate("document.execCommand = () => false")
    take_away(alone, "Copy all")
    expect(alone.locator("#stage .message")).to_have_text(
        "The browser did not let the page copy: take the Markdown file instead."
    )


def test_the_legend_stands_in_one_line(page: Page) -> None:
    tops = page.locator("#stage .legend > span").evaluate_all("nodes => nodes.map(n => n.offsetTop)")
    assert len(tops) == 6 and len(set(tops)) == 1


def test_a_trajectory_opens_as_a_replay(page: Page, tmp_path: Path) -> None:
    path = download(page, "Trajectory", tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["frames"]
    page.locator("input[type=file]:not(.chooser)").set_input_files(path)
    expect(page.locator("[data-lane=ar]")).to_be_hidden()
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    expect(page.locator("[data-lane=diffusion]")).to_be_visible()
