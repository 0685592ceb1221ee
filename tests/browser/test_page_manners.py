"""The page around the stage: what cannot be pressed looks so, sentences in its own words, files by whatever name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import PATIENCE, fill_field
from tests.helpers.traces import trace_of
from ui.page.watch import CHARTS

expect.set_options(timeout=PATIENCE)

WORDS = {"1": "One", "2": " two", "3": " three"}


def test_generate_rests_while_a_run_of_this_page_goes_on(page: Page) -> None:
    button = page.locator("#generate")
    expect(button).to_be_enabled()
    page.locator("#stage").evaluate("stage => { stage.dataset.state = 'live' }")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_attribute("title", "A run goes on: wait for its end, or press Stop")
    button.click(force=True)
    page.locator("#prompt textarea").press("Enter")
    expect(page.locator("#stage")).not_to_have_attribute("data-waiting", "")
    page.locator("#stage").evaluate("stage => { stage.dataset.state = 'done'; stage.dataset.waiting = '' }")
    expect(button).to_have_attribute("aria-disabled", "true")
    page.locator("#stage").evaluate("stage => { delete stage.dataset.waiting }")
    expect(button).not_to_have_attribute("aria-disabled", "true")
    page.locator("#max-new-tokens input").fill("4")
    button.click()
    expect(page.locator('#stage[data-state="done"]:not([data-waiting])')).to_be_visible()
    expect(page.locator('[data-lane="ar"] [data-figure="tokens"] b')).to_have_text("4")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max-new-tokens": "5000"}, "This page makes up to 512 new tokens per run: ask for no more than that."),
        ({"max-new-tokens": "0"}, "new tokens must be a whole number from 1 to 512, not 0."),
        ({"max-new-tokens": ""}, "new tokens is empty: give a number."),
        ({"block-length": "65"}, "block must be a whole number from 2 to 64, not 65."),
        ({"threshold": "7"}, "threshold must be from 0 to 1, not 7."),
        ({"temperature": "11"}, "temperature must be from 0 to 10, not 11."),
        (
            {"seed": "9007199254740993"},
            "seed must be a whole number from 0 to 9007199254740991: a browser holds no larger one exactly.",
        ),
    ],
)
def test_a_sentence_names_the_field_and_its_limit_as_the_page_does(page: Page, fields: dict, says: str) -> None:
    page.get_by_role("button", name="More").click()
    for name, value in fields.items():
        fill_field(page, name, value)
    page.locator("#generate").click()
    expect(page.locator("#stage .message")).to_have_text(says)


@pytest.mark.parametrize(
    "query", ["seed=7", "raw=1", "go_on=1", "acceptance=sampling", "draft=quadratic&ar_weight=0.5"]
)
def test_a_link_that_sets_an_advanced_field_shows_it(page: Page, app: str, query: str) -> None:
    page.goto(f"{app}/?prompt=Hi&{query}")
    expect(page.locator("#prompt textarea")).to_have_value("Hi")
    expect(page.locator("#seed")).to_be_visible()
    page.goto(f"{app}/?prompt=Ho&block=4")
    expect(page.locator("#prompt textarea")).to_have_value("Ho")
    expect(page.locator("#seed")).to_be_hidden()
    page.goto(f"{app}/?prompt=Hu&go_on=7&tokens=x")
    expect(page.locator("#stage .message")).to_have_text(
        "The link's values for new tokens, go on after EOS were left out: they are not usable here."
    )


def dropped(page: Page, name: str, text: str, on: str = "#stage .lanes") -> bool:
    """Whether the page left a file that was dropped on it to the browser, which would open it instead of the page."""
    return page.locator(on).evaluate(
        """(node, [name, text]) => {
            const data = new DataTransfer();
            data.items.add(new File([text], name));
            const one = { dataTransfer: data, bubbles: true, cancelable: true };
            const over = new DragEvent("dragover", one);
            node.dispatchEvent(over);
            if (!node.closest("#stage")) return !over.defaultPrevented; // refused while it is dragged, it never drops
            return node.dispatchEvent(new DragEvent("drop", one));
        }""",
        [name, text],
    )


@pytest.mark.parametrize("name", ["run.json", "run.json.txt", "run", "läuft (1).JSON"])
def test_a_trace_of_any_name_opens_where_it_is_chosen_or_dropped(page: Page, tmp_path: Path, name: str) -> None:
    for number, way in enumerate(("choose", "drop")):
        text = json.dumps(trace_of(WORDS, [1, 2, 3], checkpoint=f"made-{number}"))
        if way == "drop":
            assert not dropped(page, name, text)
        else:
            (tmp_path / name).write_text(text, encoding="utf-8")
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Open trace").click()
            chooser.value.set_files(tmp_path / name)
        expect(page.locator("#stage .where")).to_contain_text(f"made-{number}")


def test_a_dropped_file_that_is_no_trace_gets_a_sentence_and_one_beside_the_stage_leaves_the_page(page: Page) -> None:
    assert not dropped(page, "notes.txt", "hello")
    expect(page.locator("#stage .message")).to_have_text("The file is not a trace: it holds no valid JSON.")
    assert not dropped(page, "a.json", "{}", "#examples")
    page.evaluate(
        """() => {
            const input = document.querySelector("#open-trace").previousElementSibling;
            const chosen = new DataTransfer();
            chosen.items.add(new File([new Uint8Array(33 * 2 ** 20)], "large.json"));
            input.files = chosen.files;
            input.dispatchEvent(new Event("change", { bubbles: true }));
        }"""
    )
    expect(page.locator("#stage .message")).to_have_text("The trace is larger than 32 MB; load a shorter run.")


def test_select_all_takes_no_text_of_buttons_that_nobody_sees(page: Page) -> None:
    taken = page.evaluate(
        "() => { document.getSelection().selectAllChildren(document.body); return String(getSelection()) }"
    )
    assert "How to read this" in taken
    for text in ("Redraw the charts", "Branch\n", "Open a trace", "Generate", "Cancel"):
        assert text not in taken
    names = page.get_by_role("button").evaluate_all("all => all.map((button) => button.textContent)")
    assert not {"Redraw the charts", "Branch", "Open a trace"} & {name.strip() for name in names}


def test_a_phone_shows_charts_whole_and_nothing_lies_over_them(browser: Browser, app: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, reduced_motion="reduce", has_touch=True)
    page = context.new_page()
    page.goto(app, timeout=PATIENCE)
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay", timeout=PATIENCE)
    page.get_by_text("Charts of this run").click()
    plots = page.locator("#charts .js-plotly-plot")
    expect(plots).to_have_count(len(CHARTS), timeout=PATIENCE)
    expect(plots.last.locator(".main-svg").first).to_be_visible(timeout=PATIENCE)
    for plot in plots.all():
        expect(plot.locator(".modebar")).to_be_hidden()
        cut = plot.evaluate(
            """plot => {
                const frame = plot.closest(".chart").getBoundingClientRect();
                const inside = ({ left, right }) => left >= frame.left - 1 && right <= frame.right + 1;
                return Array.from(plot.querySelectorAll(".main-svg, .main-svg text"))
                  .filter((node) => node.getBoundingClientRect().width && !inside(node.getBoundingClientRect()))
                  .map((node) => node.textContent.slice(0, 60));
            }"""
        )
        assert cut == []
    context.close()
