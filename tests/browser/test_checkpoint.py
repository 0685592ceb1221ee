"""The choice of a checkpoint: really switched in the page, a bad one refused, and no choice on a public page."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import PATIENCE, pick, running
from tests.helpers.hub_server import Hub, serve
from tests.helpers.official import random_ministral, write_nvidia


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("choice")
    first = write_nvidia(random_ministral(0), folder / "first-one", tokenizer=True, block_size=8)
    return first, write_nvidia(random_ministral(1), folder / "<b>second", tokenizer=True, block_size=16)


@pytest.fixture(scope="module")
def hub(folders: tuple[Path, Path]) -> Iterator[Hub]:
    with serve(folders[1]) as running_hub:
        yield running_hub


@pytest.fixture(scope="module")
def choice(folders: tuple[Path, Path], hub: Hub) -> Iterator[str]:
    first, second = folders
    settings = {"NEMODIFF_CHECKPOINT": str(first), "NEMODIFF_CHECKPOINTS": f"{second},owner/tiny"}
    settings |= {"NEMODIFF_DTYPE": "float32", "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(first.parent / "cache")}
    settings |= {"NEMODIFF_CHOOSE": "1", "NEMODIFF_RECORDINGS": str(first)}
    with running(first.parent / "app.log", settings) as address:
        yield address


@pytest.fixture
def chosen(browser: Browser, choice: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(choice)
    expect(page.locator("#checkpoint .name")).not_to_be_empty(timeout=PATIENCE)
    yield page
    context.close()
    assert not errors, errors


def run(page: Page) -> dict:
    page.locator("#max-new-tokens input").fill("5")
    page.locator("#generate").click()
    # An earlier run is done, too: this one has begun once it is no longer waited for.
    expect(page.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    return json.loads(page.locator("#stage").evaluate("stage => stage.trace()"))


def test_a_checkpoint_is_switched_in_the_page_and_a_bad_one_is_not(chosen: Page, folders: tuple[Path, Path]) -> None:
    page, (first, _) = chosen, folders
    root, name = page.locator("#checkpoint"), page.locator("#checkpoint .name")
    expect(name).to_have_text("first-one")
    before = run(page)
    assert before["checkpoint"] == "first-one"
    assert before["request"]["block_length"] == 8

    pick(page, "<b>second")
    expect(root.locator(".confirm")).to_contain_text("Takes the place of first-one")
    root.locator(".go").click()
    expect(name).to_have_text("<b>second")
    expect(root).to_have_attribute("data-state", "running")
    expect(page.locator("#block-length input")).to_have_value("16")
    after = run(page)
    assert (after["checkpoint"], after["request"]["block_length"]) == ("<b>second", 16)
    assert [lane["tokens"] for lane in after["lanes"]] != [lane["tokens"] for lane in before["lanes"]]
    assert after["lanes"][0]["tokens"] == after["lanes"][2]["tokens"]

    # The first one's files go bad once the list is drawn: one sentence, and what runs goes on running.
    pick(page, "first-one")
    weights = first / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    root.locator(".go").click()
    expect(root.locator(".error")).to_contain_text("first-one/model.safetensors cannot be read")
    expect(root.locator("li", has_text="first-one")).to_contain_text("Off:")
    expect(name).to_have_text("<b>second")
    page.keyboard.press("Escape")
    expect(root.locator(".sheet")).to_be_hidden()
    assert run(page)["lanes"] != []
    page.reload()
    expect(name).to_have_text("<b>second")
    expect(page.locator("#block-length input")).to_have_value("16")


def test_nvidias_checkpoints_show_their_licence_before_anything_is_fetched(chosen: Page) -> None:
    root = chosen.locator("#checkpoint")
    root.locator(".chip").click()
    row = root.locator("li", has=chosen.locator("b", has_text=re.compile("^Nemotron-Labs-Diffusion 3B$")))
    expect(row).to_be_visible()
    button = row.locator("button").first
    if button.is_disabled():  # too little memory here: then it says so
        expect(row).to_contain_text("GB of memory on cpu")
        return
    button.click()
    expect(row.locator(".confirm")).to_contain_text("Fetches 7.7 GB from the Hugging Face hub")
    link = row.locator("a")
    link.click(trial=True)  # nothing of the page below lies over it
    for offer in root.locator("li > button:enabled").all():
        offer.click(trial=True)
    expect(link).to_have_attribute("href", "https://huggingface.co/nvidia/Nemotron-Labs-Diffusion-3B")


def test_a_fetch_shows_its_progress_and_can_be_cancelled(chosen: Page, hub: Hub) -> None:
    root, name = chosen.locator("#checkpoint"), chosen.locator("#checkpoint .name")
    hub.hold = threading.Event()
    pick(chosen, "tiny")
    expect(root.locator(".confirm a")).to_have_attribute("href", "https://huggingface.co/owner/tiny")
    root.locator(".go").click()
    expect(root.locator(".step p")).to_have_text(re.compile(r"Fetching tiny: 0\.\d MB of 0\.\d MB"))
    expect(root.locator("progress")).to_be_visible()
    expect(chosen.locator("#checkpoint .where")).to_have_text(re.compile(r" · fetching \d+ %"))
    chosen.keyboard.press("Escape")
    meanwhile = run(chosen)  # what runs goes on
    root.locator(".chip").click()
    root.locator(".cancel").click()
    expect(root).to_have_attribute("data-state", "running")
    expect(root.locator(".step")).to_be_hidden()
    expect(name).to_have_text(meanwhile["checkpoint"])
    hub.hold.set()

    hub.hold = None
    if root.locator(".sheet").is_hidden():
        root.locator(".chip").click()
    root.locator("li > button", has_text="tiny").click()
    root.locator(".go").click()
    expect(name).to_have_text("owner/tiny")
    expect(root).to_have_attribute("data-state", "running")
    assert run(chosen)["checkpoint"] == "owner/tiny"


def test_a_page_without_the_choice_shows_what_runs(page: Page) -> None:
    page.locator("#checkpoint .chip").click()
    expect(page.locator("#checkpoint .facts")).to_contain_text("attention")
    expect(page.locator("#checkpoint .offers")).to_be_hidden()
    names = page.evaluate("gradio_config.dependencies.flatMap((one) => one.targets.map(([, name]) => name))")
    assert "branch" in names and "choose" not in names
