"""A link restores prompt and settings, says what it left out, and is made from what the fields say."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect


def test_a_link_restores_the_fields_and_is_made_from_them(page: Page, app: str) -> None:
    page.goto(f"{app}/?prompt=Count+%3Cb%3Eup&modes=ar,diffusion&block=4&temperature=0.5&raw=1")
    expect(page.locator("#prompt textarea")).to_have_value("Count <b>up")
    expect(page.locator("#block-length input")).to_have_value("4")
    expect(page.locator("#temperature input")).to_have_value("0.5")
    expect(page.locator("#modes input:checked")).to_have_count(2)
    expect(page.locator("#max-new-tokens input")).to_have_value("128")
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")  # nothing runs by itself

    page.locator("#max-new-tokens input").fill("9")
    page.locator("#link").click()
    expect(page.locator("#link")).not_to_have_text("Copy link")
    asked = parse_qs(urlsplit(page.url).query)
    assert asked == {
        "prompt": ["Count <b>up"],
        "modes": ["ar,diffusion"],
        "block": ["4"],
        "temperature": ["0.5"],
        "tokens": ["9"],
        "raw": ["1"],
    }


def test_what_a_link_says_wrong_is_left_out_in_one_sentence(page: Page, app: str) -> None:
    page.goto(f"{app}/?block=9999&threshold=x&seed=7")
    expect(page.locator("#stage .message")).to_contain_text("block, threshold were left out")
    expect(page.locator("#block-length input")).to_have_value("8")
