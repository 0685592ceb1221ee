"""The Compare tab with the real engine: a sweep that is measured, drawn, kept, stopped."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.helpers.browser import PATIENCE, ask

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
    expect(page.locator("#sweep-plan")).to_have_text("3 runs of at most 6 tokens")
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
        assert chart.evaluate(names) == [["AR", 1], ["diffusion, block 4", 1], ["self-spec., block 4", 1]]
    verified = page.locator('#sweep-table [data-mode="self-speculation"] td')
    expect(verified.nth(9)).to_have_text("100%")
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
