"""The page's pieces that need no browser."""

from __future__ import annotations

import re

import gradio as gr
import pytest

from nemodiff.errors import RequestError
from nemodiff.trace import player
from ui.live.models import Checkpoints
from ui.page import build, permalink
from ui.page.form import Form
from ui.settings import Settings
from ui.values import given, listed, whole


def test_a_page_is_built_without_a_model(tmp_path) -> None:
    page = build.build(None, Settings(recordings=tmp_path), problem="No model.")
    assert isinstance(page, gr.Blocks)


def test_the_first_values_bring_the_fields_of_what_they_choose(tmp_path) -> None:
    settings = Settings(recordings=tmp_path)
    form = Form(Checkpoints(None, settings), settings)
    with gr.Blocks():
        form.ask()
        form.options()

    def shown(**values: object) -> dict[str, object]:
        updates = form.updates(values)
        assert len(updates) == len(form.fields)
        return dict(zip(permalink.FIELDS, updates, strict=True))

    tree = shown(draft="tree", rows=24, sampler="entropy")
    assert (tree["rows"]["visible"], tree["rows"]["value"], tree["draft"]) == (True, 24, "tree")
    assert (tree["threshold"]["visible"], tree["entropy"]["visible"], tree["sampler"]["value"]) == (
        False,
        True,
        "entropy",
    )
    assert shown(draft="linear")["rows"] == gr.update(visible=False)
    untouched = shown()
    assert untouched["rows"] == untouched["draft"] == gr.skip() and "value" not in untouched["sampler"]


def test_the_stage_template_runs_nothing_and_the_code_writes_no_html() -> None:
    template = player.template()
    assert "${" not in template and "{{" not in template and "<script" not in template
    code = player.script("gradio.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)


def test_every_script_is_in_the_bundle() -> None:
    assert {path.name for path in player.FOLDER.glob("*.js")} == {*player.SCRIPTS, *player.PAGE}


@pytest.mark.parametrize("value", [1.5, float("inf"), float("nan")])
def test_whole_refuses_fractions(value: float) -> None:
    with pytest.raises(RequestError, match="block length must be a whole number"):
        whole("block length", value)


def test_whole_and_given() -> None:
    assert whole("seed", 3.0) == 3
    assert whole("seed", None) is None
    with pytest.raises(RequestError, match="seed is empty"):
        given("seed", None)


@pytest.mark.parametrize("value", ["5", [5], {"a": 1}, True])
def test_whole_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(RequestError, match="seed must be a whole number"):
        whole("seed", value)


@pytest.mark.parametrize("value", ["ar", 5, {"ar": 1}, [["ar"]]])
def test_listed_takes_lists_of_strings_alone(value: object) -> None:
    assert listed("modes", None) == []
    with pytest.raises(RequestError, match="modes must be a list"):
        listed("modes", value)


def test_no_two_scripts_of_the_page_declare_one_name() -> None:
    """They are one scope: a second declaration would leave the page without any script at all."""
    found = re.findall(r"^(?:const|let|class|function|async function) (\w+)", player.script(*player.PAGE), re.MULTILINE)
    assert [name for name in set(found) if found.count(name) > 1] == []
