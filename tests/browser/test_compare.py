"""The Compare tab with the real engine: a sweep that is measured, drawn, kept, stopped."""

from __future__ import annotations

import csv
import re
import threading
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

from nemodiff.evaluate.sweep import HEADS
from tests.helpers.browser import PATIENCE, ask
from tests.helpers.checkpoints import open_engine, write_chat
from tests.helpers.served import WAIT, serving_apart

expect.set_options(timeout=PATIENCE)


def open_tab(page: Page) -> None:
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#sweep-start")).to_be_visible()


def status(page: Page) -> Locator:
    return page.locator("#sweep-status .sweep")


def rows(page: Page) -> Locator:
    return page.locator("#sweep-table tbody tr")


def test_a_sweep_is_measured_drawn_and_kept(page: Page) -> None:
    open_tab(page)
    expect(page.locator("#sweep-charts")).to_contain_text("press Sweep")
    ask(page, "Days as JSON", "4", "0.9", 6)
    expect(page.locator("#sweep-plan")).to_contain_text("3 runs of at most 6 tokens · up to about")
    page.locator("#sweep-start").click()
    expect(status(page)).to_have_attribute("data-state", "done")
    expect(status(page)).to_have_attribute("data-done", "3")
    expect(status(page).get_by_role("progressbar")).to_have_attribute("aria-valuenow", "3")
    expect(rows(page)).to_have_count(3)
    device = page.locator("#top .chip").inner_text()
    charts = page.locator("#sweep-charts .js-plotly-plot")
    expect(charts).to_have_count(2)
    expect(charts.nth(1)).to_contain_text(device.split(" · ")[1])
    names = "plot => plot.data.map(trace => [trace.name, trace.x.length])"
    for chart in charts.all():
        assert chart.evaluate(names) == [["AR", 1], ["diffusion, block 4", 1], ["self-spec., linear, block 4", 1]]
    verified = page.locator('#sweep-table [data-mode="self-speculation"] td')
    expect(verified.nth(HEADS.index("identical") - 1)).to_have_text("100%")
    measured = page.locator("#sweep-table").inner_text()

    page.get_by_role("tab", name="Watch").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    expect(page.locator("#stage")).to_be_visible()
    open_tab(page)
    expect(rows(page)).to_have_count(3)
    page.reload()
    open_tab(page)
    expect(rows(page)).to_have_count(3)
    assert page.locator("#sweep-table").inner_text() == measured
    expect(charts.nth(1)).to_contain_text(device.split(" · ")[1])


def test_a_run_comes_between_a_sweeps_runs_and_stop_ends_the_sweep(page: Page) -> None:
    open_tab(page)
    ask(page, "Lighthouse", "4, 8", "0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99", 400)  # 17 runs
    page.locator("#sweep-start").click()
    expect(rows(page)).not_to_have_count(0)
    done = int(status(page).get_attribute("data-done"))

    page.get_by_role("tab", name="Watch").click()
    page.locator("#max-new-tokens input").fill("4")
    page.locator("#generate").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "done")

    open_tab(page)
    assert status(page).get_attribute("data-state") == "going"  # the run did not wait for its end
    page.locator("#sweep-stop").click()
    expect(status(page)).to_have_attribute("data-state", "done")
    expect(status(page)).to_contain_text("Stopped after")
    assert done <= int(status(page).get_attribute("data-done")) < 17
    expect(rows(page)).not_to_have_count(0)


def test_the_plan_is_the_fields_own_though_they_changed_while_the_pace_was_measured(
    browser: Browser, tmp_path: Path
) -> None:
    engine, go_on = open_engine(write_chat(tmp_path / "tiny-chat")), threading.Event()
    generate = engine.generate
    engine.generate = lambda request: generate(request) if go_on.wait(WAIT) else None
    with serving_apart(engine, recordings=tmp_path) as (address, _):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        expect(page.locator("#checkpoint")).to_have_attribute("data-state", "running")
        open_tab(page)
        expect(page.locator("#sweep-plan")).to_contain_text("runs of at most 48 tokens")
        page.locator("#sweep-tokens input").fill("7")
        expect(page.locator("#sweep-plan")).to_contain_text("runs of at most 7 tokens")
        go_on.set()
        expect(page.locator("#sweep-plan")).to_contain_text("runs of at most 7 tokens · up to about")
        page.close()


def test_a_stopped_sweep_goes_on_where_it_was(page: Page) -> None:
    open_tab(page)
    ask(page, "Lighthouse", "4, 8", "0.5, 0.9, 0.99", 100)
    expect(page.locator("#sweep-plan")).to_contain_text("9 runs of at most 100 tokens · up to about")
    page.locator("#sweep-start").click()
    expect(rows(page).nth(1)).to_be_visible()  # AR and a first setting
    expect(status(page)).to_contain_text(re.compile(r"of 9 runs · about .* left"))
    page.locator("#sweep-stop").click()
    expect(status(page)).to_contain_text("Stopped after")
    expect(page.locator("#sweep-plan .more")).to_contain_text("measured already: the sweep goes on with the others")
    left = int(page.locator("#sweep-plan p").first.inner_text().split()[0])
    assert left < 9
    done = rows(page).count() - 1  # AR's row is not among them
    assert left == 9 - done
    page.locator("#sweep-start").click()
    expect(status(page)).to_contain_text(f"{left} runs in")
    expect(rows(page)).to_have_count(9)
    expect(page.locator("#sweep-plan")).to_contain_text("9 runs of at most 100 tokens")  # all of it, anew


def test_own_prompts_are_measured_with_trees_and_repeats_and_advised_upon(page: Page, tmp_path: Path) -> None:
    open_tab(page)
    ask(page, "", "4", "0.9", 8, drafts=["linear", "tree"])
    expect(page.locator("#sweep-plan")).to_contain_text("No prompt is chosen")
    page.get_by_text("Own prompts", exact=True).click()
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "2 + 2", "expected": "<b>4</b>"}\nSay hi\n{"prompt": 3}\n', encoding="utf-8")
    page.locator('#sweep-mine input[type="file"]').set_input_files(file)
    expect(page.locator("#sweep-own textarea")).to_have_value(re.compile("Say hi"))
    expect(page.locator("#sweep-plan .wrong")).to_have_text('Line 3 was left out: it has no text under "prompt".')
    page.locator("#sweep-repeats input").fill("2")
    expect(page.locator("#sweep-plan")).to_contain_text("16 runs of at most 8 tokens")
    page.locator("#sweep-start").click()
    expect(status(page)).to_have_attribute("data-state", "done")
    expect(rows(page)).to_have_count(4)
    words = page.locator("#sweep-table tbody td:nth-child(2)").all_inner_texts()
    assert words == ["", "block 4, threshold 0.9", "linear, block 4", "tree"]
    trees = page.locator("#sweep-table tbody tr").filter(has_text="tree").locator("td")
    shown = dict(zip(HEADS[1:], trees.all_inner_texts(), strict=True))
    assert (shown["identical"], shown["as expected"]) == ("100%", "0%") and "–" in shown["spread"]
    advice = page.locator("#sweep-advice .advice")
    expect(advice).to_contain_text("No setting, AR included (0%), gave all expected answers over 2 prompts.")

    page.locator("#sweep-own textarea").fill("Say hi")
    page.locator("#sweep-start").click()
    expect(status(page)).to_contain_text("8 runs in")
    expect(advice).to_contain_text("For answers like these: ")
    expect(page.locator("#sweep-table details")).to_have_count(1)  # what was measured over other prompts
    expect(page.locator("#sweep-table summary")).to_contain_text("2 prompts")

    lines = saved(page, "#sweep-csv", tmp_path).read_text(encoding="utf-8").splitlines()
    table = list(csv.DictReader(lines))
    assert len(table) == 8 and [one["draft"] for one in table[:4]] == ["", "", "linear", "tree"]
    assert all(float(one["speed_up"]) > 0 for one in table)
    file = saved(page, "#sweep-page", tmp_path)
    alone = page.context.browser.new_context(offline=True).new_page()
    trouble: list[str] = []
    alone.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    alone.on("request", lambda request: trouble.append(request.url) if request.url != file.as_uri() else None)
    alone.goto(file.as_uri())
    expect(alone.locator("section")).to_have_count(2)
    expect(alone.locator("section").first.locator("circle")).to_have_count(8)  # two charts
    expect(alone.locator(".advice").first).to_have_text(advice.inner_text())
    assert alone.locator("script").count() == 0 and trouble == []
    alone.context.close()

    page.locator("#sweep-forget").click()
    expect(rows(page)).to_have_count(0)
    expect(page.locator("#sweep-away")).to_be_hidden()


def saved(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as pending:
        page.locator(button).click()
    path = folder / pending.value.suggested_filename
    pending.value.save_as(path)
    return path


def test_a_file_that_is_no_text_is_one_sentence(page: Page, tmp_path: Path) -> None:
    open_tab(page)
    page.get_by_text("Own prompts", exact=True).click()
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xff\xfe\x00")
    page.locator('#sweep-mine input[type="file"]').set_input_files(file)
    expect(status(page)).to_contain_text("The file is no text in UTF-8")


def test_a_plan_that_cannot_be_run_is_a_sentence(page: Page) -> None:
    open_tab(page)
    ask(page, "Sleep", "4", "often", 6)
    expect(page.locator("#sweep-plan")).to_contain_text("thresholds must be numbers")
    page.locator("#sweep-start").click()
    expect(status(page)).to_have_attribute("data-state", "error")
    expect(status(page).get_by_role("status")).to_contain_text("thresholds must be numbers")


def test_a_phone_shows_the_tab_without_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
