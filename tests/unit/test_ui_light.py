"""The ceiling as the stage gets it: progress, then the ceiling or one sentence."""

import json

from nemodiff.request import Request
from nemodiff.trace.oracle import Ceiling
from tests.helpers.reference import prompt_ids
from ui.live import oracle
from ui.live.models import Checkpoints
from ui.settings import Settings


def asked(engine, **more):
    request = Request(prompt_ids=prompt_ids(3), max_new_tokens=14, block_length=4).to_json()
    return json.dumps({"id": 7, "checkpoint": engine.checkpoint, "request": request, "answer_ids": []} | more)


def messages(engine, text, seconds=60.0, problem=""):
    checkpoints = Checkpoints(engine, Settings(), problem)
    return [json.loads(one)["light"] for one in oracle.stream(checkpoints, text, seconds)]


def test_progress_then_the_ceiling(llama_engine, monkeypatch):
    monkeypatch.setattr(oracle, "PAUSE", 0.0)
    *progress, last = messages(llama_engine, asked(llama_engine))
    assert all(one["id"] == 7 and one["tokens"] <= one["most"] == 14 for one in progress)
    assert progress[0]["forwards"] == 1
    ceiling = Ceiling.from_json(last["ceiling"])
    assert ceiling.forwards <= ceiling.serial


def test_a_closed_page_frees_the_model(llama_engine, monkeypatch):
    monkeypatch.setattr(oracle, "PAUSE", 0.0)
    stream = oracle.stream(Checkpoints(llama_engine, Settings()), asked(llama_engine), 60.0)
    next(stream)
    stream.close()
    assert llama_engine.generate(Request(prompt_ids=(5, 6), modes=("ar",), max_new_tokens=2)).lanes[0].tokens


def test_what_cannot_be_searched_is_one_sentence(llama_engine):
    for engine, text, seconds, says in (
        (None, asked(llama_engine), 60.0, "The model is away."),
        (llama_engine, "{", 60.0, "could not be read"),
        (llama_engine, asked(llama_engine, request={"modes": 5}), 60.0, "could not be read"),
        (llama_engine, asked(llama_engine, checkpoint="other"), 60.0, "another checkpoint"),
        (llama_engine, asked(llama_engine), 0.0, "page's limit of 0 s"),
    ):
        (one,) = messages(engine, text, seconds, "The model is away.")
        assert says in one["error"]
