"""What the stage says of a run: nothing that it does not know, no figure that falls, no wrong answer as a winner."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from nemodiff.trace.adapters.trajectory import from_trajectory
from nemodiff.trace.events import Trace
from tests.helpers.traces import trace_of
from ui import wire

WORDS = {"1": '{"a"', "2": ":", "3": " 1", "4": "}", "5": "<eos>", "6": " lost", "7": "\n", "8": "Sure"}
AR, DIFFUSION, SPECULATION = (f'[data-lane="{mode}"]' for mode in ("ar", "diffusion", "self-speculation"))


def open_trace(page: Page, trace: dict) -> None:
    page.evaluate("text => window.stage.ingest(text)", wire.replay(Trace.from_json(json.dumps(trace))))
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")


def at(index: int, token: int, state: str = "committed", **more) -> dict:
    return {"index": index, "token": token, "state": state, "confidence": 0.9} | more


def event(forward: int, *positions: dict, ms: float = 0, length: int = 8, **more) -> dict:
    phase = "denoise" if forward else "prefill"
    common = {"forward": forward, "phase": phase, "clock_ms": ms or 10.0 * (forward + 1), "start": 0, "length": length}
    return common | {"positions": list(positions)} | more


def two_lanes(
    diffusion: list[int], ar: tuple[int, ...] = (1, 2, 3, 4, 5), prompt: str = "Write a JSON object."
) -> dict:
    """AR a token per forward, diffusion all at once in a fifth of the time; both end with EOS."""
    trace = trace_of(WORDS, list(ar), special=[5])
    trace["request"] |= {"prompt": prompt, "modes": ["ar", "diffusion"]}
    trace["lanes"] = [trace["lanes"][0] | {"finish": "eos"}]
    events = [
        event(0, at(0, diffusion[0], "seed"), ms=5),
        event(1, *(at(i + 1, t) for i, t in enumerate(diffusion[1:]))),
    ]
    events[1] |= {"clock_ms": 10.0, "finish": "eos"}
    return trace | {
        "lanes": [*trace["lanes"], {"mode": "diffusion", "events": events, "tokens": diffusion, "finish": "eos"}]
    }


def test_a_fast_answer_whose_json_does_not_parse_says_so_beside_its_speed_up(alone: Page) -> None:
    open_trace(alone, two_lanes([1, 2, 4, 5]))
    verdict = alone.locator(f"{DIFFUSION} .verdict")
    rate = alone.locator(f'{DIFFUSION} [data-figure="rate"] span')
    expect(verdict).to_have_text("✗ 4.0×, but its JSON does not parse; ≠ AR from token 2")
    expect(verdict).to_have_attribute("data-same", "no")
    expect(rate).to_have_text("tokens / s")
    expect(alone.locator(f"{AR} .verdict")).not_to_contain_text("JSON")
    alone.evaluate("window.stage.transport.seek(0)")  # its end is not known yet, as far as the viewer is
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "0")
    expect(verdict).not_to_contain_text("parse")
    expect(rate).to_contain_text("×")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"diffusion": [1, 2, 3, 4, 5]}, "✓ identical to AR, 5 of 5 tokens"),
        ({"diffusion": [8, 5]}, "✗ 2.0×, but it is no JSON, as AR's is; ≠ AR from token 0"),
        ({"diffusion": [1, 2, 4, 5], "ar": (1, 2, 4, 5)}, "✗ 4.0×, but its JSON does not parse"),
        ({"diffusion": [8, 5], "ar": (8, 5), "prompt": "What is JSON?"}, "✓ identical to AR, 2 of 2 tokens"),
        ({"diffusion": [1, 2, 4, 5], "ar": (1, 2, 4, 5), "prompt": "A set?"}, "✓ identical to AR, 4 of 4 tokens"),
    ],
)
def test_only_what_was_to_be_json_is_judged(alone: Page, change: dict, says: str) -> None:
    open_trace(alone, two_lanes(**change))
    expect(alone.locator(f"{DIFFUSION} .verdict")).to_have_text(says)


def test_an_answer_that_was_cut_is_not_judged(alone: Page) -> None:
    cut = two_lanes([1, 2, 4])
    cut["lanes"][1]["finish"] = "length"
    open_trace(alone, cut)
    expect(alone.locator(f"{DIFFUSION} .verdict")).not_to_contain_text("JSON")


def test_tokens_that_stand_for_good_never_fall(alone: Page) -> None:
    """Two tokens are committed behind the place where EOS comes at last: they never stood."""
    trace = two_lanes([1, 2, 3, 4, 5])
    events = [
        event(0, at(0, 1, "seed")),
        event(1, at(1, 2), at(5, 6), at(6, 6)),
        event(2, at(2, 3), at(3, 4), at(7, 6)),
        event(3, at(4, 5), *(at(i, 6, "discarded") for i in (5, 6, 7)), finish="eos"),
    ]
    trace["lanes"][1]["events"] = events
    figure = alone.locator(f'{DIFFUSION} [data-figure="tokens"] b')
    open_trace(alone, trace)
    counts = []
    for cursor in range(4):
        alone.evaluate("cursor => window.stage.transport.seek(cursor)", cursor)
        expect(alone.locator("#stage")).to_have_attribute("data-cursor", str(cursor))
        counts.append(figure.text_content())
    assert counts == ["1", "2", "4", "5"]


def test_the_trained_sampler_is_named_with_its_own_score(alone: Page) -> None:
    trace = two_lanes([1, 2, 3, 4, 5])
    trace["request"] |= {"sampler": "trained", "threshold": 0.97}
    open_trace(alone, trace)
    expect(alone.locator("#stage .where")).to_contain_text("trained sampler · score ≥ 0.97")
    expect(alone.locator("#stage .where")).not_to_contain_text("confidence")
    expect(alone.locator(f"{DIFFUSION} .strip h3")).to_contain_text("trained sampler")


def test_an_opened_trajectory_claims_nothing_that_it_does_not_know(alone: Page) -> None:
    frames = [{"step": step, "ids": ids} for step, ids in enumerate([[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 3]])]
    data = {"model_id": "some/model", "prompt": "p", "gen_length": 3, "block_length": 3, "mask_token_id": 0}
    trace = from_trajectory(data | {"frames": frames, "vocab": {"1": "One", "2": " two", "3": "."}})
    for one in (trace, Trace.from_json(trace.to_json())):  # opened, and saved and opened again
        open_trace(alone, one.to_dict())
        expect(alone.locator("#stage .where")).to_have_text("some/model · block 3")
        expect(alone.locator(f"{DIFFUSION} .finish")).to_have_text("")
        expect(alone.locator(f'{DIFFUSION} [data-figure="time"] b')).to_have_text("–")
        expect(alone.locator(f'{DIFFUSION} [data-figure="rate"] b')).to_have_text("–")
        expect(alone.locator('#stage [data-clock="seconds"]')).to_be_disabled()
        expect(alone.locator("#stage")).not_to_contain_text("0.00")
        expect(alone.locator(f"{DIFFUSION} .strip h3")).not_to_contain_text("confidence")
        bars = alone.locator(f"{DIFFUSION} .column .bar2 i").evaluate_all("all => all.map((bar) => bar.style.height)")
        assert bars == ["0%", "0%", "0%"]


def test_a_trace_says_exact_or_fast_only_where_it_knows(alone: Page) -> None:
    for exact, words in ((True, "exact"), (False, "fast, inexact"), (None, "")):
        trace = trace_of(WORDS, [1, 2, 3, 4]) | ({} if exact is None else {"exact": exact})
        head = Trace.from_json(json.dumps(trace)).to_dict()
        for one in (trace, head):
            open_trace(alone, one)
            parts = ["made-for-a-test", words, "block 4"]
            expect(alone.locator("#stage .where")).to_have_text(" · ".join(filter(None, parts)))


def test_a_newline_token_can_be_pointed_at_and_pinned_and_moves_nothing(alone: Page) -> None:
    trace = trace_of(WORDS, [1, 7, 7, 3, 7, 4])
    open_trace(alone, trace)
    places = "lane => Array.from(lane.querySelectorAll('.t[data-index]'), (node) => [node.offsetLeft, node.offsetTop])"
    final = alone.locator(f"{AR} .text").evaluate(places)
    for index in (1, 2, 4):
        newline = alone.locator(f'{AR} .t[data-index="{index}"]')
        assert newline.bounding_box()["width"] >= 6
        newline.hover()
        expect(alone.locator("#stage .tip")).to_contain_text(f"token {index} · id 7")
        newline.click()
        expect(alone.locator("#stage")).to_have_attribute("data-pinned", f"ar/{index}")
    alone.evaluate("window.stage.transport.seek(3)")
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "3")
    assert alone.locator(f"{AR} .text").evaluate(places) == final[:4]
    assert [left for left, _ in final] == [final[0][0], final[1][0], final[0][0], final[0][0], final[4][0], final[0][0]]


def test_the_earlier_run_stands_where_it_was_left(alone: Page) -> None:
    open_trace(alone, trace_of(WORDS, [1, 2, 3, 4]))
    alone.evaluate("window.stage.transport.seek(2)")
    head = {"checkpoint": "made", "request": {"modes": ["ar"], "answer_ids": [1, 2]}}
    first = {"q": 1, "mode": "ar", **event(0, at(0, 3))}
    alone.evaluate(
        "text => window.stage.ingest(text)", json.dumps({"run": "b", "ev": [first], "head": head, "tokens": WORDS})
    )
    expect(alone.locator("#stage .given")).to_be_visible()
    alone.get_by_role("button", name="Back to the earlier run").click()
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "2")
    expect(alone.locator("#stage")).to_have_attribute("data-state", "replay")  # not a run that was made here


def test_a_run_of_spaces_draws_nothing_over_what_follows(alone: Page) -> None:
    trace = trace_of(WORDS | {"9": " " * 200, "10": "after"}, [1, 9, 10, 4])
    open_trace(alone, trace)
    lane = alone.locator(f"{AR} .text")
    after = alone.locator(f'{AR} .t[data-index="2"]').bounding_box()
    clip = {"x": after["x"], "y": after["y"], "width": after["width"], "height": after["height"]}
    with_dots = alone.screenshot(clip=clip)
    alone.add_style_tag(content='.nd .t[data-index="1"]::before { display: none }')
    assert alone.screenshot(clip=clip) == with_dots
    assert lane.evaluate("lane => lane.scrollWidth === lane.clientWidth")
