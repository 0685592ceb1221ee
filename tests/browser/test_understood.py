"""What a run says of itself in words: a caption for every lane, the race, a verdict at the end, folded discards."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from nemodiff.trace.events import MODES, Trace
from tests.helpers.browser import PATIENCE, ROOT, seek, token
from tests.helpers.traces import json_lanes, long_trace, three_lanes
from ui import wire
from ui.render.positions import kept_counts

NAMES = ("AR", "Diffusion", "Self-speculation")

expect.set_options(timeout=PATIENCE)


def show(page: Page, trace: dict) -> None:
    """Open a trace as the server sends it: with what it says of the answers."""
    page.evaluate("text => window.stage.ingest(text)", wire.replay(Trace.from_json(json.dumps(trace))))
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")


def captions(page: Page) -> list[str]:
    return [page.locator(f'[data-lane="{mode}"] .caption').text_content() or "" for mode in MODES]


def test_each_lane_says_what_the_forward_in_view_did(alone: Page) -> None:
    show(alone, three_lanes())
    seek(alone, 0)
    assert captions(alone) == ["The prefill read the prompt and gave the first token."] * 3
    seek(alone, 1)
    assert captions(alone) == [
        "Forward 1 gave 1 token, “·two”. Always 1 token per forward.",
        "Forward 1 committed 2 of 4 masked positions at 0.90 or above.",
        "Forward 1 drafted 4 tokens at once; the next one verifies them.",
    ]
    seek(alone, 2)
    assert captions(alone)[1] == "Forward 2 committed 1 of 2 masked positions: the surest, none reached 0.90."
    seek(alone, 4)
    assert captions(alone) == [
        "5 tokens: 1 from each of 4 forwards, and the prefill's.",
        "5 tokens from 3 forwards in 1 block: 1.67 per forward.",
        "5 tokens from 2 forwards, 2.50 per forward: 3 of 4 drafts accepted in 1 cycle.",
    ]


def test_a_cycle_says_what_its_forwards_gave(alone: Page) -> None:
    trace = Trace.from_json((ROOT / "assets" / "traces" / "json-person.json").read_bytes())
    alone.evaluate("text => window.stage.ingest(text)", wire.replay(trace))
    lane = trace["self-speculation"]
    for k, event in enumerate(lane.events[:-1]):
        if event.phase != "verify":
            continue
        seek(alone, event.forward)
        states = [position.state for position in event.positions]
        drafted = len(lane.events[k - 1].positions)
        gained = sum(state in ("accepted", "corrected", "bonus") for state in states)
        said = f"{drafted} drafts, {states.count('accepted')} accepted, 1 of AR's own: {gained} tokens from 2 forwards."
        expect(alone.locator('[data-lane="self-speculation"] .caption')).to_have_text(said)


def test_the_band_tells_the_race_and_then_who_wrote_what_how_fast(alone: Page) -> None:
    trace = Trace.from_json((ROOT / "assets" / "traces" / "json-person.json").read_bytes())
    alone.evaluate("text => window.stage.ingest(text)", wire.replay(trace))
    band = alone.locator(".summary")
    seek(alone, 0)
    expect(band).to_contain_text("One model answers the same prompt in three ways.")
    seek(alone, 2)
    kept = {
        lane.mode: kept_counts(lane)[max(k for k, e in enumerate(lane.events) if e.forward <= 2)]
        for lane in trace.lanes
    }
    parts = " · ".join(f"{name} {kept[mode]}" for mode, name in zip(MODES, NAMES, strict=True))
    expect(band).to_have_text(f"After 2 forwards, tokens: {parts}.")
    ar, spec = trace["ar"], trace["self-speculation"]
    seek(alone, ar.forwards)
    fewer, less = ar.forwards / spec.forwards, ar.seconds / spec.seconds
    first = band.locator("p").first
    said = f"Self-speculation wrote the same text as AR with {fewer:.1f}× fewer forwards, in {less:.1f}× less time."
    expect(first).to_have_text(said)
    expect(first).to_have_attribute("data-tone", "yes")
    expect(band.locator("p").nth(1)).to_have_attribute("data-of", "diffusion")
    alone.locator('[data-clock="seconds"]').click()
    alone.locator('[data-do="end"]').click()
    expect(first).to_have_text(said)


@pytest.mark.parametrize(
    ("diffusion", "ar", "says", "tone"),
    [
        ([1, 2, 4, 4, 5], [1, 2, 3, 4, 5], "Diffusion's answer does not hold: its JSON does not parse.", "no"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], "Diffusion wrote the same text as AR with 1.3× fewer forwards", "yes"),
    ],
)
def test_a_fast_wrong_lane_is_no_winner(alone: Page, diffusion: list, ar: list, says: str, tone: str) -> None:
    show(alone, json_lanes(diffusion, ar))
    seek(alone, 4)
    verdict = alone.locator('.summary [data-of="diffusion"]')
    expect(verdict).to_contain_text(says)
    expect(verdict).to_have_attribute("data-tone", tone)
    mark = alone.locator('[data-lane="diffusion"] .mark')
    expect(mark).to_have_attribute("data-holds", tone)
    expect(mark).to_have_text({"no": "✗ JSON broken", "yes": "✓ JSON parses"}[tone])
    if tone == "no":
        assert "×" not in (verdict.text_content() or "")
    expect(alone.locator('[data-lane="ar"] .mark')).to_have_text("✓ JSON parses")


def test_another_text_is_told_of_before_its_speed(alone: Page) -> None:
    trace = three_lanes({"1": "One", "2": " two", "3": " three", "4": " four", "5": "."})
    lane = trace["lanes"][2]
    lane["tokens"] = [1, 2, 4, 4, 5]
    lane["events"][3]["positions"][0]["token"] = 4
    show(alone, trace)
    seek(alone, 4)
    verdict = alone.locator('.summary [data-of="diffusion"]')
    expect(verdict).to_have_text("Diffusion's text differs from AR's from token 2 on. It had 1.67 tokens per forward.")
    assert verdict.get_attribute("data-tone") is None


def test_where_ar_is_wrong_itself_nobody_gains_by_writing_the_same(alone: Page) -> None:
    show(alone, json_lanes([1, 2, 4, 4, 5], [1, 2, 4, 4, 5]))
    seek(alone, 4)
    band = alone.locator(".summary")
    expect(band).to_contain_text("AR's own answer does not hold: its JSON does not parse.")
    expect(band.locator('[data-tone="yes"]')).to_have_count(0)
    expect(band.locator("p").first).to_contain_text("it does not hold, as AR's does not")


def test_captions_and_the_band_have_one_height_however_much_they_say(alone: Page) -> None:
    show(alone, long_trace())
    tops = "Array.from(document.querySelectorAll('.lane:not([hidden]) .text'), n => n.getBoundingClientRect().top)"
    places = set()
    for cursor in (0, 1, 2, 3, 57, 398, 399):
        seek(alone, cursor)
        places.add(tuple(alone.evaluate(tops)))
    assert len(places) == 1


def test_what_is_discarded_behind_the_end_is_folded_and_opens(alone: Page) -> None:
    trace = three_lanes({"1": "One", "2": " two", "3": " three", "4": "<|im_end|>", "5": "."}) | {"special": [4]}
    lane = trace["lanes"][2]
    tail = [{"index": i, "token": 4, "state": "discarded", "confidence": 0.6} for i in range(4, 10)]
    guesses = [one | {"state": "masked"} for one in tail]
    lane["events"][1]["positions"] += guesses[1:]
    lane["events"][2]["positions"] = [{"index": 2, "token": 3, "state": "committed", "confidence": 0.5}, *tail]
    del lane["events"][3]
    lane |= {"tokens": [1, 2, 3, 4], "finish": "eos"}
    show(alone, trace)
    text = alone.locator('[data-lane="diffusion"] .text')
    fold = text.get_by_role("button", name="6 discarded")
    seek(alone, 1)
    expect(fold).to_have_count(0)
    expect(token(alone, "diffusion", 6)).to_be_visible()  # still a guess
    before = token(alone, "diffusion", 1).bounding_box()
    seek(alone, 4)
    expect(fold).to_have_attribute("aria-expanded", "false")
    expect(token(alone, "diffusion", 6)).to_be_hidden()
    assert token(alone, "diffusion", 1).bounding_box() == before
    fold.focus()
    alone.keyboard.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(token(alone, "diffusion", 6)).to_be_visible()
    expect(fold).to_be_focused()
    fold.click()
    expect(token(alone, "diffusion", 6)).to_be_hidden()
