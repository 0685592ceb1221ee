"""What a lane shows while it plays: strips, EOS and what falls after it, code as it stands, nothing that moves."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from nemodiff.trace.events import MODES, Trace
from tests.helpers.browser import PATIENCE, ROOT, ingest, seek, token
from tests.helpers.traces import LENGTH, live, long_trace, three_lanes, trace_of

expect.set_options(timeout=PATIENCE)


def test_the_strips_tell_the_forward_in_view(alone: Page) -> None:
    ingest(alone, three_lanes())
    seek(alone, 1)
    ar, diffusion, spec = (alone.locator(f'[data-lane="{mode}"] .strip') for mode in MODES)
    expect(ar).to_contain_text("next token, forward 1")
    expect(ar.locator(".chosen")).to_contain_text("0.50")
    columns = diffusion.locator(".column")
    kinds = [column.get_attribute("data-kind") for column in columns.all()]
    assert kinds == ["was", "now", "wait", "now", "wait"]
    expect(diffusion).to_contain_text("block 1: 2 of 4 committed")
    expect(diffusion).to_contain_text("threshold 0.90")
    # A bar that reaches over the line of the threshold is a commit, one that waits stays below it.
    line = diffusion.locator(".threshold").bounding_box()["y"]
    tops = [column.locator(".bar2 i").bounding_box()["y"] for column in columns.all()]
    assert tops[1] < line and all(tops[k] > line for k in (2, 4))
    expect(columns.nth(2)).to_have_attribute("title", ". · confidence 0.30 · masked")
    expect(spec).to_contain_text("cycle 1: 4 drafts")
    seek(alone, 2)
    expect(spec).to_contain_text("cycle 1: 3 of 4 kept, ★ corrected")
    cells = [cell.get_attribute("data-kind") for cell in spec.locator(".cell").all()]
    assert cells == [*["accepted", "accepted"] * 3, "rejected", "corrected"]  # draft above verifier, column by column
    assert "".join(spec.locator(".v").all_inner_texts()) == "✓✓✓★"


def test_tokens_a_forward_above_one_are_explained_and_the_released_codes_count_stands_beside(alone: Page) -> None:
    trace = Trace.from_json((ROOT / "assets" / "traces" / "json-person.json").read_bytes())
    sent = {"kind": "replay", "run": "r", "trace": trace.to_dict()}
    alone.evaluate("text => window.stage.ingest(text)", json.dumps(sent))
    expect(alone.locator("#stage")).to_have_attribute("data-total", "38")
    seek(alone, 0)
    ar = alone.locator('[data-lane="ar"]')
    expect(ar.locator(".verdict")).to_have_text("")  # nothing to explain before the first forward
    for mode in MODES:
        counts, last = trace[mode].nfe_counts(), len(trace[mode].events) - 1
        for k in {0, 1, 2, last // 2, last}:
            seek(alone, trace[mode].events[k].forward)
            k = max(i for i, event in enumerate(trace[mode].events) if event.forward == trace[mode].events[k].forward)
            figure = alone.locator(f'[data-lane="{mode}"] [data-figure="nfe"] b')
            expect(figure).to_have_text(str(counts[k]))
        assert counts[last] == trace[mode].nfe
    seek(alone, trace["ar"].forwards)
    tpf, tokens = trace["ar"].tpf, len(trace["ar"].tokens)
    assert tpf is not None and tpf > 1
    expect(ar.locator('[data-figure="tpf"] b')).to_have_text(f"{tpf:.2f}")
    expect(ar.locator('[data-figure="nfe"] b')).to_have_text(str(tokens))
    expect(ar.locator(".verdict")).to_have_text("The prefill's token counts, its forward does not.")


def test_a_lane_that_does_not_tell_of_its_prefill_shows_no_nfe(alone: Page) -> None:
    trace = three_lanes()
    del trace["lanes"][2]["events"][0]
    ingest(alone, trace)
    seek(alone, 3)
    expect(alone.locator('[data-lane="diffusion"] [data-figure="nfe"] b')).to_have_text("–")


def test_each_lane_says_that_its_tokens_stand_for_good(alone: Page) -> None:
    ingest(alone, three_lanes())
    for mode, words in zip(MODES, ("for good", "for good", "each kept token is AR's"), strict=True):
        expect(alone.locator(f'[data-lane="{mode}"] .how')).to_contain_text(words)


def test_eos_and_what_falls_after_it_are_drawn(alone: Page) -> None:
    trace = three_lanes({"1": "One", "2": " two", "3": " three", "4": "<|im_end|>", "5": "."})
    trace["special"] = [4]
    lane = trace["lanes"][2]
    last = {"index": 4, "token": 5, "state": "discarded", "confidence": 0.6}
    lane["events"][2]["positions"] = [{"index": 2, "token": 3, "state": "committed", "confidence": 0.5}, last]
    del lane["events"][3]
    lane |= {"tokens": [1, 2, 3, 4], "finish": "eos"}
    ingest(alone, trace)
    eos, after = token(alone, "diffusion", 3), token(alone, "diffusion", 4)
    expect(eos).to_have_text("<|im_end|>")
    expect(eos).to_have_attribute("data-special", "")
    expect(after).to_be_visible()
    expect(after).to_have_attribute("data-state", "discarded")
    assert "line-through" in after.evaluate("node => getComputedStyle(node).textDecoration")
    expect(alone.locator('[data-lane="diffusion"] .finish')).to_have_text("ended with EOS")
    after.hover()
    expect(alone.locator("#stage-tip")).to_contain_text("discarded: after EOS")


def test_code_keeps_its_lines_and_its_indentation(alone: Page) -> None:
    words = {"1": "def f():", "2": "\n", "3": "    ", "4": "return", "5": " 1"}
    alone.evaluate(
        "text => window.stage.ingest(text)", json.dumps({"kind": "replay", "trace": trace_of(words, [1, 2, 3, 4, 5])})
    )
    first, code, last = (token(alone, "ar", i).bounding_box() for i in (0, 3, 4))
    line = alone.locator('[data-lane="ar"] .text').evaluate("node => parseFloat(getComputedStyle(node).lineHeight)")
    assert abs(code["y"] - first["y"] - line) < 2 and code["y"] == last["y"]
    assert abs(code["x"] - first["x"] - 4 * first["width"] / len("def f():")) < 1


def test_nothing_moves_while_it_plays(alone: Page) -> None:
    alone.emulate_media(reduced_motion="no-preference")
    trace = long_trace() | {"special": [7, 8]}  # drawn in a frame: as final tokens, and as guesses in others' places
    alone.evaluate("text => window.stage.ingest(text)", json.dumps({"kind": "replay", "run": "r", "trace": trace}))
    stage = alone.locator("#stage")
    alone.locator(".speed").select_option("8")
    # In every frame: where each visible token stands in its lane, and how high the lanes are.
    moved = alone.evaluate(
        """() => new Promise((done) => {
          const places = new Map();
          const moved = [];
          const heights = new Set();
          let frames = 0;
          const look = () => {
            for (const node of document.querySelectorAll(".text .t[data-index]")) {
              const key = `${node.closest("[data-lane]").dataset.lane}/${node.dataset.index}`;
              const box = node.getBoundingClientRect();
              const text = node.closest(".text");
              const around = text.getBoundingClientRect();
              const place = [box.x - around.x, box.y - around.y + text.scrollTop, box.width];
              const before = places.get(key) || place;
              if (place.some((one, i) => Math.abs(one - before[i]) > 0.5)) moved.push(`${key}: ${before} → ${place}`);
              places.set(key, before);
            }
            heights.add(document.querySelector(".lanes").offsetHeight);
            frames += 1;
            if (document.querySelector("#stage").dataset.playing === "yes") requestAnimationFrame(look);
            else done({ moved, frames, tokens: places.size, heights: heights.size });
          };
          requestAnimationFrame(look);
        })"""
    )
    expect(stage).to_have_attribute("data-cursor", str(LENGTH - 1))
    assert moved["moved"] == []
    assert moved["heights"] == 1
    assert moved["tokens"] == 2 * LENGTH and moved["frames"] > 20


def test_space_and_speed(alone: Page) -> None:
    alone.emulate_media(reduced_motion="no-preference")
    alone.evaluate(
        "text => window.stage.ingest(text)", json.dumps({"kind": "replay", "run": "r", "trace": long_trace()})
    )
    stage = alone.locator("#stage")
    expect(stage).to_have_attribute("data-playing", "yes")
    stage.focus()
    alone.keyboard.press("Space")
    expect(stage).to_have_attribute("data-playing", "no")
    expect(alone.get_by_role("button", name="Play")).to_be_visible()
    alone.keyboard.press("Home")
    alone.keyboard.press("Space")
    expect(alone.get_by_role("button", name="Pause")).to_be_visible()
    alone.locator(".speed").select_option("8")
    expect(stage).to_have_attribute("data-cursor", str(LENGTH - 1))
    expect(stage).to_have_attribute("data-playing", "no")
    place = alone.locator(".scrub")
    expect(place).to_have_attribute("aria-valuetext", f"forward {LENGTH - 1} of {LENGTH - 1}")


def test_with_reduced_motion_a_run_stands_at_its_end_and_nothing_falls(alone: Page) -> None:
    ingest(alone, three_lanes())
    expect(alone.locator("#stage")).to_have_attribute("data-playing", "no")
    seek(alone, 2)
    rejected = alone.locator('.text .t[data-state="rejected"]')
    animation = "node => getComputedStyle(node).animationName"
    assert rejected.evaluate(animation) == "none"
    alone.locator('[data-clock="seconds"]').click()
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "50")
    expect(alone.locator("#stage")).to_have_attribute("data-playing", "no")
    alone.emulate_media(reduced_motion="no-preference")
    assert rejected.evaluate(animation) == "nd-fall"


def test_the_clock_is_switched_in_the_middle_of_a_run(alone: Page) -> None:
    alone.emulate_media(reduced_motion="no-preference")
    alone.evaluate("text => window.stage.ingest(text)", json.dumps({"kind": "replay", "trace": three_lanes()}))
    stage = alone.locator("#stage")
    expect(stage).to_have_attribute("data-cursor", "4")
    expect(alone.locator(".place")).to_have_text("forward 4 of 4")
    alone.locator('[data-clock="seconds"]').click()
    expect(stage).to_have_attribute("data-clock", "seconds")
    expect(alone.locator(".place")).to_have_text("0.05 of 0.05 s")  # it played the same run again, to its end
    expect(stage).to_have_attribute("data-playing", "no")
    expect(alone.locator("#stage .badge")).to_contain_text("Test CPU")


def test_a_live_run_is_looked_back_at_and_caught_up_with(alone: Page) -> None:
    stage = alone.locator("#stage")
    send = "data => window.stage.ingest(JSON.stringify(data))"
    alone.evaluate(send, live("r", [1, 2, 3, 4]))
    expect(stage).to_have_attribute("data-state", "live")
    expect(stage).to_have_attribute("data-cursor", "3")
    stage.focus()
    alone.keyboard.press("ArrowLeft")
    alone.keyboard.press("ArrowLeft")
    alone.evaluate(send, live("r", [5, 6], head=False))
    expect(stage).to_have_attribute("data-total", "5")
    expect(stage).to_have_attribute("data-cursor", "1")  # the viewer stays; the run goes on
    expect(alone.locator('[data-lane="ar"] .t[data-index]')).to_have_count(2)
    alone.keyboard.press("End")
    alone.evaluate(send, live("r", [7], head=False))
    expect(stage).to_have_attribute("data-cursor", "6")
    alone.evaluate(send, {"run": "r", "ev": [], "end": {"finish": {"ar": "length"}, "events": 7}})
    expect(stage).to_have_attribute("data-state", "done")
    expect(alone.locator("#stage .announce")).to_have_text(
        "Run finished: ar 7 tokens in 6 forwards after the prefill, 0.01 s."
    )
