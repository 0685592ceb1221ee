"""Copying out of a lane: its text and nothing else; selecting is no click."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from nemodiff.trace import player

#: Words, half a character each of é, a control character, a line of code, EOS.
TEXTS = {
    "1": "One",
    "2": " two",
    "5": "\u200bé!",
    "6": "\n",
    "7": "  end",
    "8": "<|im_end|>",
    "9": " wrong",
    "10": " cut",
}
PIECES = {"3": "c3", "4": "a9"}
TEXT = "One twoé\u200bé!\n  end"


def trace() -> dict:
    """Self-speculation that has rejected a draft, with half a character, EOS and a draft that was cut behind it."""
    answer = [1, 2, 3, 4, 5, 6, 7, 8]

    def at(index: int, token: int, state: str, **more) -> dict:
        return {"index": index, "token": token, "state": state, "confidence": 0.9} | more

    kept = [at(i, token, "accepted") for i, token in enumerate(answer)][1:6]
    last = [
        *kept,
        at(6, 9, "rejected", verifier=7),
        at(6, 7, "corrected"),
        at(7, 8, "accepted"),
        at(8, 10, "discarded"),
    ]
    block = {"start": 0, "length": 9}
    events = [
        {"forward": 0, "phase": "prefill", "clock_ms": 10.0, "positions": [at(0, 1, "seed")]} | block,
        {"forward": 1, "phase": "draft", "clock_ms": 20.0, "positions": [at(i, 9, "drafted") for i in range(1, 9)]}
        | block,
        {"forward": 2, "phase": "verify", "clock_ms": 30.0, "positions": last, "finish": "eos"} | block,
    ]
    return {
        "schema": "nemodiff.trace/1",
        "checkpoint": "made",
        "request": {"prompt": "made", "modes": ["self-speculation"], "block_length": 9},
        "tokens": TEXTS,
        "byte_pieces": PIECES,
        "special": [8],
        "lanes": [{"mode": "self-speculation", "events": events, "tokens": answer, "finish": "eos"}],
    }


@pytest.fixture
def opened(alone: Page) -> Iterator[Page]:
    alone.evaluate("text => window.stage.ingest(text)", json.dumps({"kind": "replay", "run": "r", "trace": trace()}))
    expect(alone.locator("#stage")).to_have_attribute("data-cursor", "2")
    yield alone


COPY = """() => {
  const data = new DataTransfer();
  const event = new ClipboardEvent("copy", { clipboardData: data, bubbles: true, cancelable: true });
  const at = document.getSelection().anchorNode;
  (at.nodeType === 1 ? at : at.parentNode).dispatchEvent(event);
  return [data.getData("text/plain"), event.defaultPrevented];
}"""


def select(page: Page, start: tuple[int, int], stop: tuple[int, int]) -> None:
    """From an offset in a token's text to one in another's."""
    page.evaluate(
        """([start, stop]) => {
            const text = ([index, offset]) => [
              document.querySelector(`.t[data-index="${index}"]:not([data-state="rejected"])`).firstChild, offset];
            document.getSelection().setBaseAndExtent(...text(start), ...text(stop));
        }""",
        [start, stop],
    )


def test_a_selected_lane_is_copied_as_its_text(opened: Page) -> None:
    opened.evaluate("document.getSelection().selectAllChildren(document.querySelector('.lane:not([hidden]) .text'))")
    assert opened.evaluate(COPY) == [TEXT, True]
    select(opened, (0, 2), (1, 3))
    assert opened.evaluate(COPY) == ["e tw", True]
    select(opened, (1, 4), (6, 0))  # nothing of the first or the last: touching a token takes none of it
    assert opened.evaluate(COPY) == ["é\u200bé!\n", True]
    opened.evaluate("window.stage.transport.seek(1)")  # drafts stand for nothing yet
    expect(opened.locator("#stage")).to_have_attribute("data-cursor", "1")
    opened.evaluate("document.getSelection().selectAllChildren(document.querySelector('.lane:not([hidden]) .text'))")
    assert opened.evaluate(COPY) == ["One", True]


def test_a_selection_of_the_page_takes_no_drafts_control_tokens_or_buttons(opened: Page) -> None:
    taken = opened.evaluate(
        """() => {
            const lane = document.querySelector(".lane:not([hidden])");
            document.getSelection().setBaseAndExtent(lane.querySelector("h2"), 0, lane.querySelector(".strip"), 0);
            return String(document.getSelection());
        }"""
    )
    assert "Self-speculation" in taken and "One two" in taken and "end" in taken
    for text in ("wrong", "cut", "<|im_end|>", "solo"):
        assert text not in taken
    opened.evaluate("document.querySelector('.announce').textContent = 'Run finished'")  # which nobody sees
    opened.evaluate("document.getSelection().selectAllChildren(document.body)")
    taken = opened.evaluate("String(document.getSelection())")
    unseen = ("Open trace", "solo", "Speed of light", "Run finished")
    assert "How to read this" in taken and not any(text in taken for text in unseen)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_button_copies_a_lanes_text(opened: Page, allowed: bool) -> None:
    opened.evaluate(
        """allowed => {
            window.copied = [];
            const writeText = async (text) => allowed ? window.copied.push(text) : Promise.reject(new Error("no"));
            Object.defineProperty(navigator, "clipboard", { value: { writeText }, configurable: true });
            document.execCommand = () => window.copied.push(document.activeElement.value);
        }""",
        allowed,
    )
    opened.evaluate("window.stage.transport.seek(0)")  # wherever the viewer is
    button = opened.get_by_role("button", name="Copy the text: Self-speculation")
    button.click()
    expect(button).to_have_attribute("data-copied", "yes")
    expect(button).to_be_focused()
    assert opened.evaluate("window.copied") == [TEXT]
    expect(opened.locator("textarea")).to_have_count(0)


def test_a_drag_or_a_double_click_in_a_lane_selects_and_pins_nothing_anew(opened: Page) -> None:
    end = opened.locator('.t[data-index="6"]:not([data-state="rejected"])')
    box = end.bounding_box()
    y = box["y"] + 5  # above the rejected draft that hangs below it
    opened.mouse.move(box["x"] + box["width"] - 2, y)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] / 2, y, steps=3)
    opened.mouse.up()
    assert opened.evaluate("String(getSelection())")
    expect(opened.locator("#stage")).not_to_have_attribute("data-pinned", "self-speculation/6")
    end.click(position={"x": 30, "y": 5})  # which lets the selection go
    expect(opened.locator("#stage")).to_have_attribute("data-pinned", "self-speculation/6")
    opened.keyboard.press("Escape")
    end.dblclick(position={"x": 30, "y": 5})
    expect(opened.locator("#stage")).to_have_attribute("data-pinned", "self-speculation/6")
    assert opened.evaluate("String(getSelection())").strip() == "end"


def test_a_control_character_at_the_end_and_half_a_character_are_no_text(browser: Browser, alone: Page) -> None:
    assert alone.evaluate(
        """() => {
            const table = new TokenTable();
            table.add({ 1: "\\ufeffa", 2: "b" }, { 3: "e2", 4: "82", 5: "ac" }, [9]);
            return [table.exact([1, 3, 4, 5, 9, -1, 2]), table.exact([2, 3, 4])];
        }"""
    ) == [["\ufeffa", "", "", "€", "", "", "b"], ["b", "", ""]]


def test_the_players_script_is_loaded_with_its_copying() -> None:
    assert "class Copying" in player.script()
