"""Charts below the stage, and the files that a viewer takes away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect


def test_charts_are_drawn_of_the_run_on_the_page_and_move_its_cursor(page: Page) -> None:
    page.get_by_text("Charts of this run").click()
    plots = page.locator("#charts .js-plotly-plot")
    expect(plots).to_have_count(5)
    expect(plots.first.locator(".main-svg").first).to_be_visible()
    before = page.locator("#stage").get_attribute("data-cursor")
    assert before != "1"
    plots.first.hover()
    plots.first.evaluate("plot => plot.emit('plotly_click', { points: [{ customdata: ['ar', 1] }] })")
    expect(page.locator("#stage")).to_have_attribute("data-cursor", "1")


def download(page: Page, kind: str, folder: Path) -> Path:
    with page.expect_download() as pending:
        page.locator(f'[data-make="{kind}"]').click()
    path = folder / pending.value.suggested_filename
    pending.value.save_as(path)
    return path


@pytest.mark.parametrize(
    ("kind", "ending"), [("html", "replay.html"), ("gif", "gif"), ("trajectory", "trajectory.json")]
)
def test_a_run_can_be_taken_away(page: Page, tmp_path: Path, kind: str, ending: str) -> None:
    path = download(page, kind, tmp_path)
    assert path.name.endswith(f".{ending}")
    if kind == "html":
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "default-src 'none'" in text.replace("&#x27;", "'")
    elif kind == "gif":
        with Image.open(path) as image:
            assert image.n_frames > 1
    else:
        assert json.loads(path.read_text(encoding="utf-8"))["frames"]


def test_a_trajectory_opens_as_a_replay(page: Page, tmp_path: Path) -> None:
    path = download(page, "trajectory", tmp_path)
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator("[data-lane=ar]")).to_be_hidden()
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    expect(page.locator("[data-lane=diffusion]")).to_be_visible()
