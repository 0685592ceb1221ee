"""Files made from an untrusted trace."""

import base64
import json

import pytest

from tests.helpers.traces import trace_of
from ui import files
from ui.files import FORMATS, make

TRACE = json.dumps(trace_of({"1": "a", "2": "<b>"}, [1, 2, 1]))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_made(kind):
    made = json.loads(make(f"{kind}\n{TRACE}"))
    assert len(base64.b64decode(made["data"])) > 100
    assert made["ending"] == FORMATS[kind].ending


@pytest.mark.parametrize("asked", ["", "html", "html\n{}", f"exe\n{TRACE}", f"html\n{TRACE[:-9]}", None, 7])
def test_anything_else_is_one_sentence(asked):
    error = json.loads(make(asked))["error"]
    assert error.endswith(".")
    assert "\n" not in error


def test_two_are_made_at_once_and_a_third_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.01)
    with files.making(), files.making():
        assert json.loads(make(f"html\n{TRACE}"))["error"] == "Others' files are being made: try again in a minute."
    assert "data" in json.loads(make(f"html\n{TRACE}"))
