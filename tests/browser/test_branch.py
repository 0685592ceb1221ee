"""A branch: from a token of a real run to a run that goes on with another one, and back."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from tests.helpers.browser import PATIENCE

expect.set_options(timeout=PATIENCE)


def test_a_run_branches_from_a_pinned_token_and_comes_back(page: Page) -> None:
    page.locator("#max-new-tokens input").fill("6")
    page.locator("#generate").click()
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("data-state", "done")
    first = json.loads(stage.evaluate("stage => stage.trace()"))
    expect(stage.locator(".given")).to_be_hidden()

    stage.locator('[data-lane="ar"] .t').nth(2).click()
    button = stage.get_by_role("button", name="Branch here with").first
    expect(button).to_be_enabled()
    button.click()
    expect(stage.locator(".given")).to_be_visible()
    expect(stage).to_have_attribute("data-state", "done")
    second = json.loads(stage.evaluate("stage => stage.trace()"))
    given = second["request"]["answer_ids"]
    before = first["lanes"][0]["tokens"][:2]
    assert given[:2] == before and len(given) == 3 and given[2] != first["lanes"][0]["tokens"][2]
    assert second["request"] | {"answer_ids": [], "time_limit": 0} == first["request"] | {"time_limit": 0}
    assert [lane["tokens"] for lane in second["lanes"]][0] == [lane["tokens"] for lane in second["lanes"]][2]
    shown = stage.locator(".given .t").inner_text()
    assert shown.strip() and "#" not in shown

    stage.get_by_role("button", name="Back to the earlier run").click()
    expect(stage.locator(".given")).to_be_hidden()
    assert json.loads(stage.evaluate("stage => stage.trace()")) == first


def test_a_recording_of_another_checkpoint_does_not_branch(page: Page) -> None:
    stage = page.locator("#stage")
    asked = "JSON.stringify({checkpoint: 'x', request: {modes: ['ar']}, answer_ids: [1]})"
    stage.evaluate(f"stage => stage.trigger('branch', {asked})")
    expect(stage.locator(".message")).to_contain_text("another checkpoint")
