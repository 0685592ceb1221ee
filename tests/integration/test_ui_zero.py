"""ui.backends.zero by ZeroGPU's contract: the `spaces` package with its emulated CUDA, in `zero_rig.py`'s process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spaces

from nemodiff.request import Request
from nemodiff.trace.events import MODES
from tests.helpers.checkpoints import open_engine
from tests.helpers.official import random_ministral, write_nvidia
from ui.backends import zero
from ui.wire import UNEXPECTED

ROOT = Path(__file__).parents[2]
REQUEST = Request(prompt="w1 w2", max_new_tokens=12, ignore_eos=True, time_limit=60.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nvidia(random_ministral(0), tmp_path_factory.mktemp("zero") / "tiny", tokenizer=True, block_size=8)


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.helpers.zero_rig", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_a_run_on_a_lent_gpu_is_the_run_of_its_own_host(found: dict[str, Any], folder: Path) -> None:
    assert found["device"] == "cuda:0"
    trace = open_engine(folder).generate(REQUEST)
    assert {mode: found["lanes"][mode]["tokens"] for mode in MODES} == {lane.mode: lane.tokens for lane in trace.lanes}
    assert found["end"]["end"]["finish"] == dict.fromkeys(MODES, "length")


def test_it_runs_in_another_process_each_time_and_the_gpu_is_given_back(found: dict[str, Any]) -> None:
    assert len({f"process {found['main']}", *found["processes"]}) == 3
    assert found["released"] == [False]
    assert found["stopped"] is False  # Stop ends the fork's generator, which is no failure


def test_the_seconds_asked_for_come_from_the_request(found: dict[str, Any]) -> None:
    assert found["asked"] == [zero.duration(REQUEST)] == [18]
    assert zero.duration(Request(prompt="x", modes=("ar",), max_new_tokens=100)) == 21
    assert zero.duration(Request(prompt="x", max_new_tokens=4000, time_limit=120.0)) == 120
    assert zero.duration(Request(prompt="x", max_new_tokens=512)) <= 120  # what everybody may ask for


def test_what_goes_wrong_in_the_fork_is_one_sentence(found: dict[str, Any]) -> None:
    assert found["failed"] == [UNEXPECTED]


def test_a_refusal_of_zerogpu_reaches_the_page_as_its_sentence(found: dict[str, Any]) -> None:
    sentence = "This asks for 18 s of a GPU and your free ZeroGPU quota has 0 s left: try again later."
    assert [message["error"] for message in found["refused"]] == [sentence]
    assert found["unlit"] == [{"id": 7, "error": sentence}]


def test_every_refusal_is_one_plain_sentence_that_says_what_to_do(found: dict[str, Any]) -> None:
    """What the `spaces` package's own client makes of each answer of its scheduler, as a visitor reads it."""
    assert found["sentences"] == {
        "too long": "ZeroGPU lends no GPU for as long as the 18 s that this asks for: lower the new tokens or choose "
        "fewer modes.",
        "too long, unknown": "ZeroGPU lends no GPU for as long as the 18 s that this asks for: lower the new tokens or "
        "choose fewer modes.",
        "over quota": "This asks for 18 s of a GPU and your free ZeroGPU quota has 5 s left: try again in 3 h 21 min.",
        "over quota, some left": "This asks for 18 s of a GPU and your Pro ZeroGPU quota has 16 s left: lower the new "
        "tokens to 5 or choose fewer modes, or try again in 3 h 21 min.",
        "over quota of the Space": "This Space has used up its share of ZeroGPU: log in to Hugging Face for a quota of "
        "your own, or try again later.",
        "out of runs": "You have used up your runs on ZeroGPU for now: try again later.",
        "over credits": "You have too many ZeroGPU credits allocated to running tasks. Try again once some of those "
        "tasks have completed.",
        "none in the queue": "ZeroGPU has no GPU free: try again in a minute.",
        "none in the queue, unknown": "ZeroGPU has no GPU free: try again in a minute.",
        "none": "ZeroGPU has no GPU free: try again in a minute.",
        "expired": "What ZeroGPU knows you by has expired: reload the page and try again.",
        "broken": zero.AWAY,
        "away": zero.AWAY,
    }


def test_a_ceiling_is_searched_on_a_lent_gpu_too(found: dict[str, Any]) -> None:
    assert found["ceiling"]["id"] == 7
    assert found["ceiling"]["ceiling"]["blocks"][0]["commits"]


def test_elsewhere_the_decorator_changes_nothing() -> None:
    def decode() -> None: ...

    assert spaces.GPU(duration=3)(decode) is decode
