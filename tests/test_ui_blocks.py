"""The page's pieces that need no browser."""

from __future__ import annotations

import re

import gradio as gr
import pytest

from nemodiff.errors import RequestError
from ui import blocks, player
from ui.settings import Settings


def test_a_page_is_built_without_a_model(tmp_path) -> None:
    page = blocks.build(None, Settings(recordings=tmp_path), problem="No model.")
    assert isinstance(page, gr.Blocks)


def test_the_stage_template_runs_nothing_and_the_code_writes_no_html() -> None:
    template = player.template()
    assert "${" not in template and "{{" not in template and "<script" not in template
    code = player.script("gradio.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)


def test_every_script_is_in_the_bundle() -> None:
    assert {path.name for path in player.FOLDER.glob("*.js")} == {*player.SCRIPTS, "gradio.js"}


@pytest.mark.parametrize("value", [1.5, float("inf"), float("nan")])
def test_whole_refuses_fractions(value: float) -> None:
    with pytest.raises(RequestError, match="block length must be a whole number"):
        blocks.whole("block length", value)


def test_whole_and_given() -> None:
    assert blocks.whole("seed", 3.0) == 3
    assert blocks.whole("seed", None) is None
    with pytest.raises(RequestError, match="seed is empty"):
        blocks.given("seed", None)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID", "NEMODIFF_TIME_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    assert (Settings.from_environment().host, Settings.from_environment().port) == ("127.0.0.1", 7860)
    monkeypatch.setenv("SPACE_ID", "someone/space")
    monkeypatch.setenv("NEMODIFF_TIME_LIMIT", "many")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    settings = Settings.from_environment()
    assert (settings.host, settings.port, settings.time_limit) == ("0.0.0.0", 7999, 120.0)
