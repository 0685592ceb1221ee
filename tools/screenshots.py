"""Pictures of the page, by hand: `python -m tools.screenshots [FOLDER]`. The default checkpoint really runs.

Writes light, dark, phone, midrun, charts, compare, replay and picture (asked about a drawing), each as PNG, into FOLDER
(default: assets/screenshots). About a minute on two free cores.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.helpers.browser import FLAGS, PATIENCE, ROOT, find_chromium, running, take_away
from ui.page.watch import CHARTS

expect.set_options(timeout=PATIENCE)

EXAMPLE, LONGER = "JSON person", "Blue sky"


def open_page(browser: Browser, address: str, scheme: str = "light", width: int = 1400, **options: Any) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 1000 if width > 500 else 844}, color_scheme=scheme, **options
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/?__theme={scheme}")
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    return page


def generate(page: Page, example: str = EXAMPLE) -> None:
    page.locator("#examples").get_by_text(example, exact=True).click()
    page.locator("#generate").click()
    expect(page.locator("#stage[data-waiting]")).to_have_count(0)
    expect(page.locator("#stage .badge")).to_be_hidden()  # which a recording has


def finish(page: Page) -> None:
    expect(page.locator("#stage:not([data-waiting])")).to_have_attribute("data-state", "done")
    page.mouse.move(2, 2)


def sweep(page: Page) -> None:
    """Until its charts are drawn, and their marks stand."""
    page.get_by_role("tab", name="Compare").click()
    page.locator("#sweep-start").click()
    expect(page.locator('.sweep[data-state="done"]')).to_be_visible(timeout=4 * PATIENCE)
    expect(page.locator("#sweep-table tbody tr")).not_to_have_count(0)
    expect(page.locator("#sweep-charts .scatterlayer .trace")).not_to_have_count(0)


def save(page: Page | Locator, file: Path, **options: Any) -> None:
    data = page.screenshot(animations="disabled", **options)
    with Image.open(io.BytesIO(data)) as image:  # 256 colours are enough, and a third of the size
        image.convert("RGB").quantize(dither=Image.Dither.NONE).save(file, optimize=True)
    print(file, flush=True)


def ask_about_a_drawing(browser: Browser, address: str, file: Path) -> None:
    page = open_page(browser, address, reduced_motion="reduce")
    page.goto(f"{address}/?__theme=light&picture=shapes&prompt=Describe the picture.")
    expect(page.locator("#picture")).to_have_attribute("data-state", "chosen")
    page.locator("#generate").click()
    expect(page.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    page.mouse.move(2, 2)
    save(page, file, full_page=True)
    page.context.close()


def take(browser: Browser, address: str, folder: Path) -> None:
    page = open_page(browser, address, reduced_motion="reduce")
    generate(page, LONGER)
    page.wait_for_function("Number(document.querySelector('#stage').dataset.cursor) >= 12")
    save(page, folder / "midrun.png", full_page=True)
    finish(page)
    generate(page)
    finish(page)
    save(page, folder / "light.png", full_page=True)
    with tempfile.TemporaryDirectory() as away:
        with page.expect_download() as download:
            take_away(page, "Replay")
        file = Path(away) / "replay.html"
        download.value.save_as(file)
        away_from_here = {"offline": True, "reduced_motion": "reduce"}
        replay = browser.new_context(viewport={"width": 1400, "height": 900}, **away_from_here).new_page()
        replay.goto(file.as_uri())
        expect(replay.locator("#stage")).to_have_attribute("data-state", "replay")
        set_to = "(node) => { node.value = node.max / 2; node.dispatchEvent(new Event('input')) }"
        replay.locator(".scrub").evaluate(set_to)
        save(replay, folder / "replay.png", full_page=True)
        replay.context.close()
    page.get_by_text("Charts of this run").click()
    expect(page.locator("#charts .js-plotly-plot")).to_have_count(len(CHARTS))
    expect(page.locator("#charts .js-plotly-plot .main-svg").last).to_be_visible()
    save(page.locator("#charts"), folder / "charts.png", style=".modebar { display: none }")  # the mouse lies on one
    sweep(page)
    save(page, folder / "compare.png", full_page=True)
    page.context.close()
    for name, scheme, width in (("dark", "dark", 1400), ("phone", "light", 390)):
        page = open_page(browser, address, scheme, width, reduced_motion="reduce")
        generate(page)
        finish(page)
        save(page, folder / f"{name}.png", full_page=True)
        page.context.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "assets" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as logs, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        with running(Path(logs) / "app.log", {}) as address:
            take(browser, address, folder)
            ask_about_a_drawing(browser, address, folder / "picture.png")
        browser.close()


if __name__ == "__main__":
    main()
