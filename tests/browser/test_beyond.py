"""Quadratic drafts, acceptance and the speed of light: their choices, what the stage draws of them, links and files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from nemodiff.trace.events import Trace
from tests.helpers.browser import PATIENCE, download
from tests.helpers.traces import DRAFTED, quadratic, trace_of, tree

expect.set_options(timeout=PATIENCE)

SPECULATION = '[data-lane="self-speculation"]'
DIFFUSION = '[data-lane="diffusion"]'


def seek(page: Page, cursor: int) -> None:
    page.evaluate("cursor => { window.stage.transport.seek(cursor) }", cursor)
    expect(page.locator("#stage")).to_have_attribute("data-cursor", str(cursor))


def test_a_tree_shows_its_candidates_and_the_path_that_was_accepted(alone: Page) -> None:
    trace = tree()
    assert Trace.from_json(json.dumps(trace)).lane("self-speculation").acceptance_lengths == [1, 3]
    alone.evaluate("text => window.stage.ingest(text)", json.dumps({"kind": "replay", "run": "t", "trace": trace}))
    expect(alone.locator("#stage .where")).to_contain_text("tree drafts")
    strip = alone.locator(f"{SPECULATION} .strip")
    seek(alone, 2)
    expect(strip.locator("h3")).to_contain_text("cycle 2: 2 of 5 kept")
    expect(strip.locator("h3")).to_contain_text("10 rows")
    expect(strip.locator('.tree [data-kind="accepted"]')).to_have_count(2)
    cells = strip.locator(".tree [data-group]")
    expect(cells).to_have_count(2)
    expect(cells.first).to_have_attribute("title", re.compile("masks behind it draft"))
    seek(alone, 1)
    expect(strip.locator("h3")).to_contain_text("0 of 0 kept")


def test_a_quadratic_cycle_shows_its_groups_and_the_one_that_survives(alone: Page) -> None:
    trace = quadratic()
    assert Trace.from_json(json.dumps(trace)).lane("self-speculation").acceptance_lengths == [1, 2, 1]
    alone.evaluate("text => window.stage.ingest(text)", json.dumps({"kind": "replay", "run": "r", "trace": trace}))
    expect(alone.locator("#stage .where")).to_contain_text("quadratic drafts")
    strip = alone.locator(f"{SPECULATION} .strip")
    seek(alone, 2)
    expect(strip.locator("h3")).to_contain_text("cycle 2: 1 of 2 kept, ★ corrected")
    expect(strip.locator("h3")).to_contain_text("9 rows")
    groups = strip.locator(".group")
    expect(groups).to_have_count(3)
    expect(strip.locator('.group[data-kind="survives"]')).to_have_count(1)
    expect(groups.nth(1)).to_have_attribute("data-kind", "survives")
    assert groups.nth(1).locator("span").all_inner_texts()[0] == "."
    assert "".join(strip.locator(".v").all_inner_texts()) == "✓★·"
    drafts = alone.locator(f'{SPECULATION} .text .t[data-state="drafted"]')
    expect(drafts).to_have_count(2)

    seek(alone, 1)
    expect(groups).to_have_count(1)
    expect(groups).to_have_attribute("data-kind", "survives")
    seek(alone, 3)  # the last forward: nothing goes on
    expect(strip.locator('.group[data-kind="survives"]')).to_have_count(0)
    rows = alone.locator(f"{SPECULATION} .history button")
    expect(rows).to_have_count(3)
    kinds = [cell.get_attribute("data-kind") for cell in rows.nth(1).locator(".cells span").all()]
    assert kinds == ["accepted", "rejected", "corrected"]

    seek(alone, 2)
    alone.locator("#stage .attention summary").click()
    matrix = alone.locator('#stage .matrix[data-of="self-speculation"]')
    expect(matrix).to_have_attribute("data-kept", "2")
    expect(matrix.locator("figcaption")).to_contain_text("3 tokens to verify")
    expect(matrix.locator("figcaption")).to_contain_text("a group of 2 rows behind each")
    assert alone.locator("#stage img").count() == 0
    assert alone.evaluate("window.hacked") is None


def test_without_a_server_there_is_no_search_and_a_ceiling_of_a_file_shows(alone: Page) -> None:
    trace = trace_of(DRAFTED, [1, 2, 3, 4, 5])
    seed = {"index": 0, "token": 1, "state": "seed"}
    kept = [{"index": i, "token": i + 1, "state": "committed"} for i in range(1, 5)]
    base = {"start": 0, "length": 5}
    events = [base | {"forward": 0, "phase": "prefill", "clock_ms": 1.0, "positions": [seed]}]
    events += [
        base | {"forward": i, "phase": "denoise", "clock_ms": 1.0 + i, "positions": [one]}
        for i, one in enumerate(kept, start=1)
    ]
    lane = {"mode": "diffusion", "events": events, "tokens": [1, 2, 3, 4, 5], "finish": "length"}
    trace["lanes"].append(lane)
    trace["request"]["modes"].append("diffusion")
    show = "text => window.stage.ingest(text)"
    alone.evaluate(show, json.dumps({"kind": "replay", "run": "r", "trace": trace}))
    how = alone.locator(f"{DIFFUSION} .how")
    expect(how.get_by_role("button", name="Speed of light")).to_be_hidden()
    block = {"start": 0, "tokens": [1, 2, 3, 4, 5], "commits": [[1, 2], [3, 4]], "serial": 4, "simulated": 3}
    lane["ceiling"] = {"blocks": [block | {"budget": 40, "exhausted": False, "refreshed": False}]}
    alone.evaluate(show, json.dumps({"kind": "replay", "run": "s", "trace": trace}))
    expect(how).to_contain_text("Speed of light: 5 tokens in 2 forwards (2.50 each)")
    expect(how.locator("span.light")).to_have_attribute("title", re.compile("is this lane's"))
    expect(alone.locator('[data-track="diffusion"] b.light')).to_be_visible()


def choose(page: Page, field: str, option: str) -> None:
    page.locator(f"#{field} input").click()
    page.get_by_role("option", name=option).click()


def test_quadratic_drafts_and_the_ceiling_of_a_live_run(page: Page, tmp_path: Path) -> None:
    choose(page, "draft", "quadratic")
    page.get_by_text("More", exact=True).click()
    expect(page.locator("#ar-weight")).to_be_visible()
    choose(page, "acceptance", "speculative sampling")
    page.locator("#block-length input").fill("4")
    page.locator("#max-new-tokens input").fill("12")
    page.locator("#link").click()
    expect(page.locator("#link")).not_to_have_text("Copy link")
    asked = parse_qs(urlsplit(page.url).query)
    assert (asked["draft"], asked["acceptance"], asked["block"]) == (["quadratic"], ["sampling"], ["4"])

    page.locator("#generate").click()
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("data-state", "done")
    expect(page.locator(f"{SPECULATION} .verdict")).to_contain_text("lossless: identical to AR")
    expect(page.locator(f"{SPECULATION} .group")).to_have_count(4)

    page.locator(f"{DIFFUSION} .how").get_by_role("button", name="Speed of light").click()
    expect(stage).to_have_attribute("data-light", "done")
    expect(page.locator(f"{DIFFUSION} .how")).to_contain_text("Speed of light:")
    page.get_by_text("Charts of this run").click()
    legend = page.locator("#charts .legendtext")
    expect(legend.filter(has_text="Speed of light")).to_have_count(1)
    path = download(page, "Trace", tmp_path)
    trace = Trace.from_json(path.read_bytes())
    assert trace.lane("self-speculation").events[2].rows == 20  # 4 tokens, each with a group of 4 masks
    lane = trace.lane("diffusion")
    assert 0 < lane.ceiling.forwards <= lane.ceiling.serial
    assert len(lane.ceiling.tokens) == 12 or lane.ceiling.tokens[-1] in trace.special
    page.locator("input[type=file]:not(.chooser)").set_input_files(path)
    expect(stage).to_have_attribute("data-state", "replay")
    expect(page.locator(f"{DIFFUSION} .how")).to_contain_text("Speed of light:")


def test_a_quadratic_block_longer_than_16_gives_one_sentence(page: Page) -> None:
    choose(page, "draft", "quadratic")
    page.locator("#block-length input").fill("17")
    page.locator("#generate").click()
    expect(page.locator("#stage .message")).to_have_text("block may be up to 16 with quadratic drafts, not 17.")


def test_the_trained_sampler_scores_and_commits(page: Page, tmp_path: Path) -> None:
    usual = page.locator("#threshold input").input_value()
    choose(page, "sampler", "trained")
    expect(page.locator("#threshold input")).to_have_value("0.6")  # what the checkpoint's sampler brings
    choose(page, "sampler", "confidence")
    expect(page.locator("#threshold input")).to_have_value(usual)
    choose(page, "sampler", "trained")
    expect(page.locator("#threshold")).to_be_visible()
    page.locator("#max-new-tokens input").fill("12")
    page.locator("#generate").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "done")
    trace = Trace.from_json(download(page, "Trace", tmp_path).read_bytes())
    assert trace.request["sampler"] == "trained"
    denoised = [event for event in trace.lane("diffusion").events if event.phase == "denoise"]
    assert denoised
    for event in denoised:
        scores = {p.index: p.score for p in event.positions if p.score is not None}
        committed = {p.index for p in event.positions if p.state == "committed"}
        above = {index for index, score in scores.items() if score >= trace.request["threshold"]}
        sure = {p.index: p.confidence for p in event.positions if p.index in scores}
        assert committed <= above | {max(sure, key=sure.get)}
