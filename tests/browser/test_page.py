"""The page in a real browser: live, stop, scrub, hover, traces, hostile text, bad input, phone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from nemodiff.trace.events import Trace
from tests.helpers.browser import PATIENCE, download
from tests.helpers.traces import trace_of

expect.set_options(timeout=PATIENCE)


def stage(page: Page) -> Locator:
    return page.locator("#stage")


def fill(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#{name.replace('_', '-')} input").fill(value)


def ask(page: Page, prompt: str, tokens: int) -> None:
    page.locator("#prompt textarea").fill(prompt)
    fill(page, max_new_tokens=str(tokens))
    page.locator("#generate").click()


def load(page: Page, path: Path, data: object) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    page.locator("input[type=file]:not(.chooser)").set_input_files(path)


def scrub(page: Page, cursor: int) -> None:
    page.locator(".scrub").evaluate("(node, to) => { node.value = to; node.dispatchEvent(new Event('input')) }", cursor)
    expect(stage(page)).to_have_attribute("data-cursor", str(cursor))


def cells(page: Page, mode: str) -> Locator:
    return page.locator(f'[data-lane="{mode}"] .text .t[data-index]')


def test_a_recording_plays_first_and_says_so(page: Page) -> None:
    expect(page.locator("#stage .badge")).to_have_text("Recorded run · Test CPU · 2026-01-02")
    expect(page.locator('[data-lane="diffusion"]')).to_be_hidden()
    expect(page.locator('[data-lane="self-speculation"] .verdict')).to_have_text(
        "✓ lossless: identical to AR, 5 of 5 tokens"
    )


def test_three_lanes_live_then_done_then_saved_and_replayed(page: Page, tmp_path: Path) -> None:
    # A short run may be over before a look from outside finds it live.
    page.evaluate(
        """() => {
            const stage = document.querySelector("#stage");
            window.states = [];
            new MutationObserver(() => window.states.push(stage.dataset.state))
                .observe(stage, { attributeFilter: ["data-state"] });
        }"""
    )
    ask(page, "Count from 1 to 40, separated by commas.", 14)
    expect(stage(page)).to_have_attribute("data-state", "done")
    assert page.evaluate("window.states") == ["live", "done"]
    expect(stage(page)).to_have_attribute("data-gaps", "0")
    total = stage(page).get_attribute("data-total")
    assert int(total) >= 13
    expect(stage(page)).to_have_attribute("data-cursor", total)
    for mode in ("ar", "diffusion", "self-speculation"):
        expect(page.locator(f'[data-lane="{mode}"] [data-figure="tokens"] b')).not_to_have_text("0")
    expect(page.locator('[data-lane="self-speculation"] .verdict')).to_contain_text(
        "lossless: identical to AR, 14 of 14"
    )

    path = download(page, "Trace", tmp_path)
    trace = Trace.from_json(path.read_bytes())
    assert [lane.mode for lane in trace.lanes] == ["ar", "diffusion", "self-speculation"]
    assert trace.lane("ar").tokens == trace.lane("self-speculation").tokens
    assert len(trace.lane("ar").tokens) == 14
    assert len(trace.recorded) == len("2026-01-02")
    text = page.locator('[data-lane="ar"] .text').inner_text()

    page.locator("input[type=file]:not(.chooser)").set_input_files(path)
    expect(stage(page)).to_have_attribute("data-state", "replay")
    expect(stage(page)).to_have_attribute("data-cursor", total)
    assert page.locator('[data-lane="ar"] .text').inner_text() == text


#: The page itself presses Stop at the first forward that it shows: the model is small, and on a busy machine a press of
#: the test's own comes hundreds of forwards later.
PRESS_STOP = """() => {
    const stage = document.querySelector("#stage");
    new MutationObserver((_, observer) => {
        const shown = Number(stage.dataset.total) && document.querySelector('[data-lane="ar"] .text .t[data-index]');
        if (stage.dataset.state !== "live" || !shown) return;
        observer.disconnect();
        window.seen = Number(stage.dataset.total);
        document.querySelector("#stop").click();
    }).observe(stage, { subtree: true, childList: true, attributeFilter: ["data-state", "data-total"] });
}"""


def test_stop_ends_within_a_forward_and_keeps_what_was_made(page: Page) -> None:
    page.evaluate(PRESS_STOP)
    ask(page, "Explain why the sky is blue.", 400)
    page.wait_for_function("window.seen > 0")
    seen = page.evaluate("window.seen")
    expect(stage(page)).to_have_attribute("data-state", "done")
    assert int(stage(page).get_attribute("data-total")) < 300
    assert int(stage(page).get_attribute("data-total")) >= seen
    expect(page.locator('[data-lane="ar"] .finish')).to_have_text("stopped")
    expect(cells(page, "ar").first).to_be_visible()
    # The engine is free again: another run starts and ends.
    ask(page, "Say hello.", 4)
    expect(page.locator("#stage .prompt")).to_have_text("Say hello.")
    expect(stage(page)).to_have_attribute("data-state", "done")


def place_in_stage(page: Page, lane: str, index: int) -> list[float]:
    """Where a token stands, from the stage's corner: the settings above may still be laid out while the page loads."""
    return (
        cells(page, lane)
        .nth(index)
        .evaluate(
            """node => {
            const box = node.getBoundingClientRect();
            const stage = node.closest("#stage").getBoundingClientRect();
            return [box.x - stage.x, box.y - stage.y, box.width, box.height].map(Math.round);
        }"""
        )
    )


def test_scrubbing_back_shows_the_earlier_state_in_the_same_place(page: Page) -> None:
    expect(cells(page, "ar")).to_have_count(5)
    before = place_in_stage(page, "ar", 1)
    scrub(page, 1)
    expect(cells(page, "ar")).to_have_count(2)
    assert place_in_stage(page, "ar", 1) == before
    drafted = cells(page, "self-speculation").nth(1)
    expect(drafted).to_have_attribute("data-state", "drafted")
    page.locator('[data-do="end"]').click()
    expect(drafted).to_have_attribute("data-state", "accepted")


def test_keyboard_steps_and_jumps(page: Page) -> None:
    stage(page).focus()
    page.keyboard.press("Home")
    expect(stage(page)).to_have_attribute("data-cursor", "0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(stage(page)).to_have_attribute("data-cursor", "2")
    page.keyboard.press("ArrowLeft")
    expect(stage(page)).to_have_attribute("data-cursor", "1")
    page.keyboard.press("End")
    expect(stage(page)).to_have_attribute("data-cursor", "4")


def test_the_seconds_clock_sets_lanes_apart(page: Page) -> None:
    page.locator('[data-clock="seconds"]').click()
    expect(stage(page)).to_have_attribute("data-total", "50")
    scrub(page, 30)
    expect(page.locator('[data-lane="ar"] [data-figure="tokens"] b')).to_have_text("3")
    expect(page.locator('[data-lane="self-speculation"] [data-figure="tokens"] b')).to_have_text("5")
    expect(page.locator('[data-lane="self-speculation"] [data-figure="rate"] span')).to_have_text("tokens / s · 1.7×")


def test_play_runs_to_the_end_without_the_server(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    page.context.set_offline(True)
    page.locator('[data-do="start"]').click()
    page.locator('[data-do="play"]').click()
    expect(stage(page)).to_have_attribute("data-playing", "yes")
    expect(stage(page)).to_have_attribute("data-cursor", "4")
    expect(stage(page)).to_have_attribute("data-playing", "no")


def test_hover_tells_what_a_token_is(page: Page) -> None:
    scrub(page, 2)
    page.locator('[data-lane="self-speculation"] .t[data-state="rejected"]').hover()
    tip = page.locator("#stage-tip")
    expect(tip).to_contain_text("draft rejected by the AR pass")
    expect(tip).to_contain_text("verifier's token")
    cells(page, "ar").nth(1).hover()
    expect(tip).to_contain_text("two")
    expect(tip).to_contain_text("confidence0.500")
    expect(tip).to_contain_text("forward 1, decode")
    expect(tip.locator(".bars > div")).to_have_count(2)


def test_hostile_tokens_are_text(page: Page, tmp_path: Path) -> None:
    hostile = {
        "1": '<img src=x onerror="window.hacked=1">',
        "2": "${window.hacked=2}",
        "3": "</script><script>window.hacked=3</script>",
        "4": "{{constructor.constructor('window.hacked=4')()}}",
        "5": "\u202eevil",
    }
    trace = trace_of(hostile, [1, 2, 3, 4, 5], checkpoint="<b onclick=alert(1)>x</b>", device="${1+1}")
    trace["request"]["prompt"] = "<img src=x onerror='window.hacked=5'>"
    load(page, tmp_path / "hostile.json", trace)
    expect(page.locator("#stage .prompt")).to_have_text("<img src=x onerror='window.hacked=5'>")
    expect(cells(page, "ar").nth(0)).to_have_text(hostile["1"])
    expect(cells(page, "ar").nth(1)).to_have_text(hostile["2"])
    expect(cells(page, "ar").nth(2)).to_have_text(hostile["3"])
    expect(cells(page, "ar").nth(4)).to_have_text("⟨U+202E⟩evil")
    cells(page, "ar").nth(0).hover()
    expect(page.locator("#stage-tip")).to_contain_text("onerror")
    assert page.locator("#stage img, #stage script, #stage b[onclick]").count() == 0
    assert page.evaluate("window.hacked") is None


def test_pieces_of_a_character_join_and_special_tokens_show(page: Page, tmp_path: Path) -> None:
    trace = trace_of({"1": "Sun", "4": "<|im_end|>", "5": "x"}, [1, 2, 3, 4, 5], special=[4])
    trace["byte_pieces"] = {"2": "20e298", "3": "80"}
    load(page, tmp_path / "pieces.json", trace)
    expect(page.locator("#stage .where")).to_contain_text("made-for-a-test")
    expect(page.locator('[data-lane="ar"] .text')).to_have_text("Sun ☀<|im_end|>x")
    scrub(page, 1)
    expect(cells(page, "ar").nth(1)).to_contain_text("⟨20 E2 98⟩")
    scrub(page, 3)
    expect(cells(page, "ar").nth(3)).to_have_attribute("data-special", "")


@pytest.mark.parametrize(
    ("fields", "prompt", "sentence"),
    [
        ({}, "   ", "The prompt is empty"),
        ({"max_new_tokens": "0"}, "Hi", "new tokens must be a whole number from 1 to 512, not 0."),
        ({"block_length": "99999"}, "Hi", "block must be a whole number from 2 to 64, not 99999."),
        ({"threshold": "1.5"}, "Hi", "threshold must be from 0 to 1"),
        ({"temperature": ""}, "Hi", "temperature"),
    ],
)
def test_bad_input_gives_one_sentence_and_keeps_the_run(page: Page, fields: dict, prompt: str, sentence: str) -> None:
    page.locator("#prompt textarea").fill(prompt)
    fill(page, **fields)
    page.locator("#generate").click()
    expect(stage(page)).to_have_attribute("data-state", "error")
    expect(page.locator("#stage .message")).to_contain_text(sentence)
    expect(cells(page, "ar")).to_have_count(5)


def test_a_damaged_trace_gives_one_sentence_and_keeps_the_run(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path / "bad.json", '{"schema": "nemodiff.trace/1", "lanes": [')
    expect(stage(page)).to_have_attribute("data-state", "error")
    expect(page.locator("#stage .message")).to_contain_text("no valid JSON")
    expect(cells(page, "ar")).to_have_count(5)
    scrub(page, 1)
    expect(cells(page, "ar")).to_have_count(2)


def test_lanes_that_differ_are_marked_at_the_first_difference(page: Page, tmp_path: Path) -> None:
    trace = trace_of({"1": "a", "2": "b", "3": "c", "4": "d"}, [1, 2, 3])
    spec = trace["lanes"][1]
    spec["tokens"] = [1, 4, 3]
    for event in spec["events"]:
        for position in event["positions"]:
            if position["index"] == 1:
                position["token"] = 4
    load(page, tmp_path / "differs.json", trace)
    expect(page.locator('[data-lane="self-speculation"] .verdict')).to_contain_text("first differs from AR at token 1")
    expect(cells(page, "self-speculation").nth(1)).to_have_attribute("data-differs", "")


def test_a_phone_shows_everything_without_sideways_scrolling(browser: Browser, app: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, reduced_motion="reduce", has_touch=True)
    page = context.new_page()
    page.goto(app, timeout=PATIENCE)
    expect(stage(page)).to_have_attribute("data-state", "replay")
    first = '[data-lane="ar"]'  # the others are a swipe away
    parts = f"#stage, #generate, #modes label, #options .block, {first}, {first} .figure span, .segment, .race .tab"
    wide = page.evaluate(
        f"Array.from(document.querySelectorAll(`{parts}`))"
        ".filter(n => n.getBoundingClientRect().right > innerWidth + 1).map(n => n.id || n.className)"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_an_inexact_run_says_how_many_tokens_are_ars(page: Page, tmp_path: Path) -> None:
    texts = {str(i): f"w{i} " for i in range(1, 7)}
    data = trace_of(texts, [1, 2, 3, 4, 5], exact=False)
    verdict = page.locator('[data-lane="self-speculation"] .verdict')
    load(page, tmp_path / "same.json", data)
    expect(page.locator("#stage .where")).to_contain_text("fast, inexact")
    expect(verdict).to_have_text("✓ fast, inexact: identical to AR, 5 of 5 tokens")
    apart = trace_of(texts, [1, 2, 3, 4, 6], exact=False)
    data["lanes"][1] = apart["lanes"][1]
    load(page, tmp_path / "apart.json", data)
    expect(verdict).to_have_text("≠ fast, inexact: the first 4 of 5 tokens are AR's")
