"""What the player tells beyond the text: history, pinned tokens, lanes alone, attention."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from nemodiff.trace import player
from tests.helpers.browser import PATIENCE, ingest, seek, token
from tests.helpers.traces import three_lanes

expect.set_options(timeout=PATIENCE)

WORDS = {"1": "One", "2": " two", "3": " three", "4": " four", "5": "."}
HOSTILE = {"1": "<img src=x onerror=window.hacked=1>", "2": "${window.hacked=2}", "3": "</script><script>1</script>"}


def test_a_row_of_the_history_moves_the_cursor(alone: Page) -> None:
    ingest(alone, three_lanes())
    cycles = alone.locator('[data-lane="self-speculation"] .history button')
    expect(cycles).to_have_count(1)
    kinds = [cell.get_attribute("data-kind") for cell in cycles.locator(".cells span").all()]
    assert kinds == ["accepted", "accepted", "accepted", "rejected", "corrected"]
    expect(cycles.locator("b")).to_have_text("+4")
    expect(cycles).to_have_attribute("title", "cycle 1: 3 of 4 kept, ★ corrected")
    seek(alone, 0)
    expect(cycles).not_to_have_attribute("aria-current", "step")
    cycles.click()
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "2")
    expect(cycles).to_have_attribute("aria-current", "step")
    seek(alone, 1)
    expect(cycles).to_have_attribute("aria-current", "step")


def test_the_history_is_walked_with_the_arrow_keys(alone: Page) -> None:
    ingest(alone, three_lanes())
    rows = alone.locator('[data-lane="diffusion"] .history button')
    expect(rows).to_have_count(3)
    rows.nth(2).focus()
    alone.keyboard.press("ArrowUp")
    expect(rows.nth(1)).to_be_focused()
    alone.keyboard.press("Enter")
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "2")
    expect(rows.nth(1)).to_have_attribute("aria-current", "step")


def test_a_pinned_token_tells_its_history_and_what_ar_put_there(alone: Page) -> None:
    ingest(alone, three_lanes())
    token(alone, "diffusion", 2).click()
    expect(alone.locator("#stage")).to_have_attribute("data-pinned", "diffusion/2")
    pin = alone.locator("#stage .pin")
    expect(pin.locator("h3")).to_have_text("·three")
    steps = pin.locator(".pin-rows button")
    expect(steps).to_have_count(3)
    expect(steps.nth(0)).to_contain_text("waits: confidence < 0.90")
    expect(steps.nth(0)).to_contain_text("0.300")
    expect(steps.nth(2)).to_contain_text("committed: the most confident of its forward")
    expect(pin.locator('dd[data-of="ar"]')).to_contain_text("·three")
    expect(pin.locator('dd[data-of="ar"]')).to_contain_text("= the same")
    steps.nth(1).click()
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "2")
    expect(steps.nth(1)).to_have_attribute("aria-current", "step")
    token(alone, "diffusion", 3).click()
    expect(pin.locator(".pin-rows button").last).to_contain_text("committed: confidence ≥ 0.90")
    alone.keyboard.press("Escape")
    expect(pin).to_be_hidden()
    expect(alone.locator("#stage")).not_to_have_attribute("data-pinned", "diffusion/3")


def test_a_rejected_draft_and_its_verdict_are_pinned_from_the_keyboard(alone: Page) -> None:
    ingest(alone, three_lanes())
    token(alone, "self-speculation", 4).focus()
    alone.keyboard.press("Enter")
    steps = alone.locator("#stage .pin-rows button")
    expect(steps).to_have_count(3)
    expect(steps.nth(0)).to_contain_text("drafted")
    expect(steps.nth(1)).to_contain_text("rejected: the AR pass says .")
    expect(steps.nth(2)).to_contain_text("in place of the draft")
    alone.locator("#stage .pin-head button").click()
    expect(alone.locator("#stage .pin")).to_be_hidden()


def test_a_branch_begins_with_the_answer_before_the_token(alone: Page) -> None:
    ingest(alone, three_lanes())
    token(alone, "ar", 2).click()
    buttons = alone.locator("#stage .pin-top button")
    expect(buttons).to_have_count(1)
    buttons.click()
    assert alone.evaluate("window.branches") == [{"mode": "ar", "index": 2, "token": 1, "prefix": [1, 2]}]


def test_without_a_hook_there_is_no_branch(alone: Page) -> None:
    alone.set_content(player.template())
    alone.evaluate("window.stage = mount(document.getElementById('stage'))")
    ingest(alone, three_lanes())
    token(alone, "ar", 2).click()
    expect(alone.locator("#stage .pin-top .bars > div")).to_have_count(2)
    expect(alone.locator("#stage .pin-top button")).to_have_count(0)


def test_hostile_tokens_stay_text_in_history_pin_and_attention(alone: Page) -> None:
    ingest(alone, three_lanes(WORDS | HOSTILE))
    alone.locator("#stage .attention summary").click()
    token(alone, "diffusion", 2).click()
    expect(alone.locator("#stage .pin h3")).to_have_text(HOSTILE["3"])
    token(alone, "ar", 0).click()
    expect(alone.locator("#stage .pin h3")).to_have_text(HOSTILE["1"])
    expect(alone.locator('[data-lane="ar"] .history .h-token span').first).to_have_text(HOSTILE["1"])
    assert alone.locator("#stage img, #stage script").count() == 0
    assert alone.evaluate("window.hacked") is None


def test_keys_and_buttons_show_one_lane_alone(alone: Page) -> None:
    ingest(alone, three_lanes())
    stage = alone.locator("#stage")
    lanes = alone.locator("#stage .lane:visible")
    expect(lanes).to_have_count(3)
    stage.focus()
    alone.keyboard.press("2")
    expect(stage).to_have_attribute("data-solo", "diffusion")
    expect(lanes).to_have_count(1)
    expect(lanes).to_have_attribute("data-lane", "diffusion")
    alone.keyboard.press("3")
    expect(lanes).to_have_attribute("data-lane", "self-speculation")
    expect(lanes.locator(".solo")).to_have_attribute("aria-pressed", "true")
    alone.keyboard.press("3")
    expect(lanes).to_have_count(3)
    alone.set_viewport_size({"width": 390, "height": 844})
    expect(lanes.nth(0).locator(".solo")).to_be_hidden()  # one lane is in view there as it is
    assert alone.evaluate("document.documentElement.scrollWidth") <= 390


def test_attention_follows_the_forward(alone: Page) -> None:
    ingest(alone, three_lanes())
    alone.locator("#stage .attention summary").click()
    for cursor, mode, phase, kept, words in (
        (0, "ar", "prefill", None, "each prompt token sees itself and those before it"),
        (1, "ar", "decode", "1", "one row sees the cache and itself"),
        (1, "diffusion", "denoise", "0", "both ways"),
        (1, "self-speculation", "draft", "0", "nothing is kept"),
        (2, "self-speculation", "verify", "4", "4 are kept: the newest token and 3 accepted drafts"),
    ):
        seek(alone, cursor)
        matrix = alone.locator(f'#stage .matrix[data-of="{mode}"]')
        expect(matrix).to_have_attribute("data-phase", phase)
        if kept is not None:
            expect(matrix).to_have_attribute("data-kept", kept)
        expect(matrix.locator("figcaption")).to_contain_text(words)
        expect(matrix.locator("svg")).to_have_count(1)
