"""Sentences about settings: the page's words and limits there, options' names on the command line; exact seeds."""

from __future__ import annotations

import json
import pickle

import pytest

from nemodiff.cli import main as cli
from nemodiff.errors import RequestError, SettingError
from nemodiff.pictures import TooManyPixels
from nemodiff.request import Request
from nemodiff.trace.events import Trace
from nemodiff.trace.replay import replay_html
from nemodiff.trace.values import MAX_WHOLE
from tests.helpers.traces import trace_of
from ui import wire
from ui.live import branch
from ui.page import permalink
from ui.values import NAMES, check_length, exact_whole, new_tokens, worded


@pytest.mark.parametrize(
    ("asked", "on_the_page"),
    [
        ({"block_length": 99}, "block must be a whole number from 2 to 64, not 99."),
        ({"block_length": 32, "draft": "quadratic"}, "block may be up to 16 with quadratic drafts, not 32."),
        ({"threshold": 2}, "threshold must be from 0 to 1, not 2."),
        ({"entropy_bound": -1}, "entropy bound must be from 0 to 100, not -1."),
        ({"steps": 0}, "steps per block must be a whole number from 1 to 64, not 0."),
        ({"temperature": "hot"}, "temperature must be a number from 0 to 10, not 'hot'."),
        ({"draft": "quadratic", "ar_weight": 2}, "AR's weight in the verifier must be from 0 to 1, not 2."),
    ],
)
def test_a_setting_is_named_as_who_asked_calls_it(asked: dict, on_the_page: str) -> None:
    with pytest.raises(SettingError) as error:
        Request(prompt="x", **asked)
    setting = error.value.setting
    assert str(worded(error.value)) == on_the_page
    assert str(error.value) == on_the_page.replace(NAMES[setting], setting, 1)  # a program's name for it
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # from a replica, or a fork


def test_the_command_line_names_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "--prompt", "x", "--block-length", "99"]) == 2
    assert capsys.readouterr().err == "nemodiff: --block-length must be a whole number from 2 to 64, not 99.\n"


def test_the_pages_limits_are_those_that_it_names() -> None:
    assert new_tokens(512.0, 512) == 512
    for value, says in (
        (513, "makes up to 512 new tokens"),
        (5000, "makes up to 512 new tokens"),
        (0, "from 1 to 512, not 0"),
        (None, "new tokens is empty"),
    ):
        with pytest.raises(RequestError, match=says):
            new_tokens(value, 512)
    check_length("x" * 12_000, 12_000)
    with pytest.raises(RequestError, match="takes prompts of up to 12,000 characters"):
        check_length("x" * 100_001, 12_000)
    assert str(pickle.loads(pickle.dumps(TooManyPixels(1, 2, "3")))).startswith("The picture is 1 × 2 pixels")


def test_a_link_is_explained_in_the_pages_words() -> None:
    assert set(permalink.LABELS) | permalink.MORE <= set(permalink.FIELDS)
    assert permalink.LABELS["go_on"] == NAMES["ignore_eos"] and permalink.LABELS["tokens"] == NAMES["max_new_tokens"]


BIG = 2**53 + 1


def test_a_seed_that_a_browser_would_round_is_refused_on_the_page() -> None:
    assert exact_whole("seed", float(MAX_WHOLE)) == MAX_WHOLE
    for value in (float(BIG), BIG, -1):
        with pytest.raises(RequestError, match="a browser holds no larger one exactly"):
            exact_whole("seed", value)


def test_a_traces_large_seed_comes_back_from_the_browser_as_it_went() -> None:
    data = trace_of({"1": "a", "2": "b"}, [1, 2])
    data["request"]["seed"] = BIG
    trace = Trace.from_json(json.dumps(data))
    sent = json.loads(wire.replay(trace), parse_int=lambda text: int(float(text)))["trace"]  # JavaScript's numbers
    assert sent["request"]["seed"] == str(BIG) and f'"seed":"{BIG}"' in replay_html(trace)
    assert Trace.from_json(json.dumps(sent)).request["seed"] == BIG
    request = Request(prompt="x", seed=7).to_json() | {"seed": str(BIG)}
    asked = {"run": "", "checkpoint": "made", "request": request, "answer_ids": [1]}
    assert branch.request_of(json.dumps(asked), "made", 9.0).seed == BIG
    assert trace.to_dict()["request"]["seed"] == BIG  # a file that was not in a browser keeps the number
