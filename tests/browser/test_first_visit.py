"""What a first visitor meets: recordings to play, a tour, words that explain themselves, links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from nemodiff.settings import offered
from tests.helpers.browser import PATIENCE, SCHEMES, findings, running

expect.set_options(timeout=PATIENCE)


def cards(page: Page):
    return page.locator("#shelf .card")


def test_a_card_tells_its_traces_figures_and_plays_it(page: Page) -> None:
    expect(cards(page)).to_have_count(2)
    made, wrong = cards(page).nth(0), cards(page).nth(1)
    expect(made).to_contain_text("made for a test")
    expect(made.locator(".bars")).to_have_attribute("aria-label", "forwards: AR 4, self-speculation 2")
    expect(made.locator(".says")).to_have_text("2.0×")
    expect(made.locator(".more")).to_have_text("self-speculation: 2.0× fewer forwards than AR, the same text")
    expect(made).to_have_attribute("aria-current", "true")  # what stands on the stage at first
    expect(wrong.locator(".more")).to_have_text("diffusion: its JSON does not parse")
    expect(wrong.locator(".says")).to_have_attribute("data-tone", "no")
    wrong.click()
    expect(page.locator("#stage .prompt")).to_have_text("Write a JSON object.")
    expect(page.locator("#stage .badge")).to_have_text("Recorded run · Test CPU · 2026-01-03")
    expect(page.locator('[data-lane="diffusion"] .mark')).to_have_text("✗ JSON broken")
    expect(wrong).to_have_attribute("aria-current", "true")
    expect(made).not_to_have_attribute("aria-current", "true")


def test_a_recording_takes_the_place_of_a_run_that_goes_on(page: Page) -> None:
    page.locator("#prompt textarea").fill("Explain why the sky is blue.")
    page.locator("#max-new-tokens input").fill("400")
    page.locator("#generate").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "live")
    expect(cards(page).locator("nth=0")).not_to_have_attribute("aria-current", "true")
    cards(page).nth(0).click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    expect(page.locator("#stage")).to_have_attribute("data-total", "4")
    expect(page.locator("#stage .prompt")).to_have_text("made for a test")
    page.locator("#stop").click()


def test_a_live_run_is_marked_and_summed_up(page: Page) -> None:
    page.locator("#prompt textarea").fill("Say hello.")
    page.locator("#max-new-tokens input").fill("6")
    page.locator("#generate").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    expect(page.locator('.summary [data-of="self-speculation"]')).to_contain_text("wrote the same text as AR")
    expect(page.locator('[data-lane="self-speculation"] .caption')).to_contain_text("6 tokens from")


def test_names_of_settings_explain_themselves(page: Page) -> None:
    word = page.locator("#word")
    explained = {setting.name: setting.explained for setting in offered("page")}
    page.locator("#threshold [data-testid='block-info']").hover()
    expect(word).to_have_text(explained["threshold"])
    page.locator("#prompt textarea").hover()
    expect(word).to_be_hidden()
    page.locator("#block-length input").focus()
    expect(word).to_have_text(explained["block_length"])
    expect(page.locator("#block-length input")).to_have_attribute("aria-describedby", "word")
    page.keyboard.press("Escape")
    expect(word).to_be_hidden()
    page.locator("#modes label").nth(1).hover()
    expect(word).to_contain_text("Block diffusion: guesses a whole block")


def test_links_lead_to_the_paper_the_api_and_the_licence(page: Page) -> None:
    links = page.locator("#links a")
    expect(links).to_have_text(["Paper: arXiv 2607.05722", "API", "Licence: Apache-2.0"])
    expect(links.first).to_have_attribute("href", "https://arxiv.org/abs/2607.05722")
    address = page.get_by_role("link", name="API").evaluate("node => node.href")
    described = page.request.get(address).json()["named_endpoints"]
    assert "/generate" in described


@pytest.fixture(scope="module")
def touring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that begins its tour, as pages do, with no model and the project's own recordings."""
    folder = tmp_path_factory.mktemp("touring")
    settings = {"NEMODIFF_TOUR": "1", "NEMODIFF_CHECKPOINT": str(folder), "NEMODIFF_SOURCE": "https://example.org/code"}
    with running(folder / "app.log", settings) as address:
        yield address


def visit(browser: Browser, address: str, width: int = 1400, **options) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 844}, reduced_motion="reduce", **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    return page


STEPS = ("One model, three lanes", "What the colours say", "Two clocks", "Now you")


@pytest.mark.parametrize("width", [1400, 390])
def test_a_first_visit_is_shown_around_and_a_second_is_not(browser: Browser, touring: str, width: int) -> None:
    page = visit(browser, touring, width, has_touch=width < 500)
    tour = page.locator("#tour")
    for number, title in enumerate(STEPS, 1):
        expect(tour).to_have_attribute("data-step", str(number))
        expect(tour.locator("h2")).to_have_text(title)
        box = tour.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 844
        told = page.locator("[data-toured]").bounding_box()
        assert told and told["y"] < box["y"], f"step {number} lies below what it tells of"
        tour.get_by_role("button", name="Next" if number < len(STEPS) else "Done").click()
    expect(tour).to_be_hidden()
    expect(page.locator("[data-toured]")).to_have_count(0)
    page.reload()
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    expect(page.locator("#tour")).to_be_hidden()
    page.get_by_role("button", name="Take the tour").click()
    expect(tour).to_be_visible()
    tour.get_by_role("button", name="Next").click()
    page.keyboard.press("Escape")
    expect(tour).to_be_hidden()
    expect(page.get_by_role("button", name="Take the tour")).to_be_focused()
    page.context.close()


def test_the_tour_is_skipped_with_escape_and_leaves_the_page_usable(browser: Browser, touring: str) -> None:
    page = visit(browser, touring)
    expect(page.locator("#tour")).to_be_focused()
    page.locator("#prompt textarea").fill("What is a forward?")  # nothing lies over the page
    expect(page.locator("#tour")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#tour")).to_be_hidden()
    expect(page.locator("#prompt textarea")).to_be_focused()
    expect(page.locator("#links a").first).to_have_attribute("href", "https://example.org/code")
    page.context.close()


@SCHEMES
def test_axe_finds_nothing_in_the_tour_the_shelf_and_the_words(browser: Browser, touring: str, scheme: str) -> None:
    page = visit(browser, f"{touring}/?__theme={scheme}")
    expect(page.locator("#tour")).to_be_visible()
    assert findings(page) == []
    page.keyboard.press("Escape")
    page.locator("#block-length input").focus()
    expect(page.locator("#word")).to_be_visible()
    assert findings(page) == []
    page.context.close()


def test_the_projects_own_recordings_lie_on_the_shelf(browser: Browser, touring: str) -> None:
    from tools.record import MOST, recordings
    from ui.settings import ASSETS

    page = visit(browser, touring)
    page.keyboard.press("Escape")
    files = {path.stem: path.stat().st_size for path in Path(ASSETS / "traces").glob("*.json")}
    assert set(files) == {recording.name for recording in recordings()} and sum(files.values()) < MOST
    expect(cards(page)).to_have_count(len(files))
    for number in range(len(files)):
        cards(page).nth(number).click()
        expect(cards(page).nth(number)).to_have_attribute("aria-current", "true")
        expect(page.locator("#stage .badge")).to_contain_text("Recorded run · ")
        expect(page.locator("#stage .where")).to_contain_text("smollm2-135m-tri")
        expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    expect(page.locator('.summary [data-of="diffusion"]')).to_contain_text("Diffusion's answer does not hold")
    page.context.close()
