"""A phone: an answer in view after Generate, all lanes' race at the top, lanes that are swiped, targets for fingers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from nemodiff.trace.events import Trace
from tests.helpers.browser import PATIENCE, SCHEMES, findings
from tests.helpers.traces import long_trace
from ui import wire

expect.set_options(timeout=PATIENCE)
MODES = ("ar", "diffusion", "self-speculation")


@pytest.fixture
def scheme() -> str:
    return "light"


@pytest.fixture
def phone(browser: Browser, app: str, scheme: str) -> Iterator[Page]:
    size = {"width": 390, "height": 844}
    mobile = browser.browser_type.name == "chromium"  # Playwright has it for no other
    context = browser.new_context(viewport=size, reduced_motion="reduce", has_touch=True, is_mobile=mobile)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{app}/?__theme={scheme}")
    expect(page.locator("#stage")).to_have_attribute("data-state", "replay")
    yield page
    context.close()
    assert not errors, errors


def generate(page: Page, tokens: int = 24) -> None:
    page.locator("#words .unfold").tap()
    page.locator("#max-new-tokens input").fill(str(tokens))
    page.locator("#words .unfold").tap()
    page.locator("#generate").tap()
    expect(page.locator("#stage")).to_have_attribute("data-state", "done")


def in_view(page: Page, selector: str) -> float:
    """Pixels of an element's height that are in the window and not behind the bar."""
    return page.locator(selector).evaluate(
        """(node) => {
          const box = node.getBoundingClientRect();
          const bar = document.querySelector("#stage .bar").getBoundingClientRect();
          const top = Math.max(box.top, bar.top <= 0 ? bar.bottom : 0);
          const middle = (box.left + box.right) / 2;
          return middle > 0 && middle < innerWidth ? Math.min(box.bottom, innerHeight) - top : 0;
        }"""
    )


def test_after_generate_an_answer_and_the_race_are_in_view(phone: Page) -> None:
    generate(phone)
    assert in_view(phone, '[data-lane="ar"] .text') > 100
    race = phone.locator(".race").bounding_box()
    assert race and 0 <= race["y"] < 300
    counts = phone.locator(".race .count").all_text_contents()
    assert counts == ["24 tokens ✓"] * 3
    assert phone.locator("#stage").evaluate("node => node.offsetHeight") < 1700  # three lanes stacked had 3,100


def test_lanes_are_swiped_or_chosen_and_clock_and_race_stay(phone: Page) -> None:
    generate(phone)
    lanes, tabs = phone.locator(".lanes"), phone.locator(".race .tab")
    expect(tabs.nth(0)).to_have_attribute("aria-current", "true")
    cursor = phone.locator("#stage").get_attribute("data-cursor")
    lanes.evaluate("node => node.scrollTo({ left: node.clientWidth, behavior: 'instant' })")  # as a swipe does
    expect(tabs.nth(1)).to_have_attribute("aria-current", "true")
    assert in_view(phone, '[data-lane="diffusion"] .caption') > 20 and in_view(phone, '[data-lane="ar"] .caption') <= 0
    tabs.nth(2).tap()
    expect(tabs.nth(2)).to_have_attribute("aria-current", "true")
    assert phone.locator("#stage").get_attribute("data-cursor") == cursor
    phone.get_by_role("button", name="Step back").tap()
    expect(phone.locator("#stage")).not_to_have_attribute("data-cursor", cursor or "")
    expect(tabs.nth(2)).to_have_attribute("aria-current", "true")
    # Far down in a lane the bar is still there.
    phone.locator('[data-lane="self-speculation"] .history').scroll_into_view_if_needed()
    phone.evaluate("window.scrollBy(0, 200)")
    top = phone.locator("#stage .bar").evaluate("node => node.getBoundingClientRect().top")
    assert 0 <= top < 2


def test_a_run_is_stopped_from_the_bar(phone: Page) -> None:
    halt = phone.locator("#stage .halt")
    expect(halt).to_be_hidden()
    phone.locator("#words .unfold").tap()
    phone.locator("#max-new-tokens input").fill("400")
    phone.locator("#generate").tap()
    expect(halt).to_be_visible()
    expect(phone.locator("#stage")).to_have_attribute("data-state", "live")  # a run that has not begun leaves no trace
    halt.tap()
    expect(phone.locator("#stage")).to_have_attribute("data-state", "done")
    expect(phone.locator('[data-lane="ar"] .finish')).to_have_text("stopped")
    expect(phone.locator(".summary")).to_contain_text("The run was stopped early: AR ")
    expect(halt).to_be_hidden()


def test_settings_are_folded_and_open_with_a_press(phone: Page) -> None:
    options, unfold = phone.locator("#options"), phone.locator("#words .unfold")
    expect(options).to_be_hidden()
    expect(unfold).to_have_attribute("aria-expanded", "false")
    unfold.tap()
    expect(options).to_be_visible()
    expect(unfold).to_have_attribute("aria-expanded", "true")
    phone.locator("#threshold [data-testid='block-info']").tap()
    expect(phone.locator("#word")).to_contain_text("Diffusion commits a guess")
    unfold.tap()
    expect(options).to_be_hidden()
    phone.goto(f"{phone.url.split('?')[0]}?block=4")
    expect(phone.locator("#options")).to_be_visible()  # what a link sets is not hidden


SMALL = """() => {
  const all = document.querySelectorAll("button, select, input, summary, a, [role=tab], #modes label");
  const small = [];
  for (const node of all) {
    const box = node.getBoundingClientRect();
    const unseen = !box.width || !box.height || getComputedStyle(node).visibility === "hidden";
    if (unseen || node.closest("[hidden]")) continue;
    // In a line of text, or pressed by its label or the row around it.
    if (node.matches(".folded, .keep input, #modes input, [type=file], .scrub")) continue;
    const label = node.matches("input[type=checkbox]") ? node.closest("label")?.getBoundingClientRect() : null;
    const height = Math.max(box.height, label?.height ?? 0);
    const name = `${node.tagName} ${node.id || node.className} ${node.textContent.slice(0, 20)}`;
    if (height < 39.5) small.push(`${name}: ${height}`);
  }
  return small;
}"""


def test_targets_have_the_size_of_a_finger(phone: Page) -> None:
    generate(phone, 6)
    phone.locator("#words .unfold").tap()
    phone.locator("#more button").first.tap()
    phone.locator("#stage .howto summary").tap()
    phone.locator('[data-lane="ar"] .t[data-index="1"]').tap()
    expect(phone.locator("#stage .pin")).to_be_visible()
    small = phone.evaluate(SMALL)
    assert not small, "\n".join(small)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


@SCHEMES
def test_axe_finds_nothing_on_a_phone(phone: Page, scheme: str) -> None:
    generate(phone, 6)
    phone.locator("#words .unfold").tap()
    assert findings(phone) == []


def test_the_race_goes_by_the_cursor(alone: Page) -> None:
    alone.set_viewport_size({"width": 390, "height": 844})
    text = wire.replay(Trace.from_json(json.dumps(long_trace())))
    alone.evaluate("text => window.stage.ingest(text)", text)
    alone.evaluate("window.stage.transport.seek(49)")
    tabs = alone.locator(".race .tab:visible")
    expect(tabs).to_have_count(2)
    expect(tabs.locator(".count")).to_have_text(["50 tokens", "98 tokens"])
    widths = alone.locator(".race .tab u i").evaluate_all("all => all.map((node) => node.style.width)")
    assert widths[:2] == ["12.5%", "24.5%"]
