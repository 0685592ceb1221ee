"""A long prompt is read in pieces: the same text, and Stop and the time limit hold between them, on every way in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nemodiff.decode import LaneRun, Prefill, Seen, prefill
from nemodiff.engine import interface
from nemodiff.engine.local import Engine
from nemodiff.errors import RequestError
from nemodiff.model.transformer import Transformer
from nemodiff.request import Request
from nemodiff.trace.events import MODES, Event
from tests.helpers.engines import sent, streamed
from ui.backends import zero
from ui.backends.serve.decoder import Decoder
from ui.live import oracle, stage
from ui.live.desk import Desk
from ui.live.limits import within
from ui.live.messages import Refused
from ui.live.models import Checkpoints
from ui.live.run import LATE, Run, Runs
from ui.page import build
from ui.settings import Settings

WAIT = 60
LONG = tuple(5 + i % 90 for i in range(200))


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts run in pieces of up to 64 tokens: LONG in four."""
    monkeypatch.setitem(prefill.PIECE, "cpu", 64)


class Forwards:
    """The rows of every forward of a model; `hold` and `fail` at the numbers given (from 1)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.at: dict[int, Any] = {}
        plain = Transformer.forward

        def forward(model: Transformer, inputs: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            self.rows.append(len(inputs))
            if action := self.at.get(len(self.rows)):
                action()
            return plain(model, inputs, *args, **options)

        monkeypatch.setattr(Transformer, "forward", forward)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch, llama_engine: Engine) -> Forwards:
    llama_engine.generate(asked(prompt_ids=(5, 6), max_new_tokens=2))  # so that every shape is warm
    return Forwards(monkeypatch)


def asked(**values: Any) -> Request:
    return Request(**{"prompt_ids": LONG, "max_new_tokens": 12, "ignore_eos": True, "block_length": 8} | values)


def test_pieces_are_equal_and_keep_what_they_read(llama_engine: Engine, forwards: Forwards, pieces: None) -> None:
    model = llama_engine.model
    one = Prefill(model, list(LONG[:64]), 256)
    assert forwards.rows == [64]
    many = Prefill(model, list(LONG), 512)
    assert forwards.rows[1:] == [50, 50, 50, 50] and (one.cache.length, many.cache.length) == (64, 200)
    paused = Prefill(model, list(LONG), 512, paused=True)
    for done, _ in enumerate(paused.pieces, 1):
        assert paused.cache.length == 50 * done
    assert torch.equal(paused.logits, many.logits)


def test_a_prompt_of_one_piece_is_read_as_ever_and_a_long_one_nearly_so(llama_engine: Engine, pieces: None) -> None:
    """Against one forward over the whole prompt: the same bits where it fits a piece, rounding where it does not."""
    model = llama_engine.model
    for prompt in (LONG[:9], LONG[:64], LONG):
        cache = model.new_cache(len(prompt))
        whole = model(torch.tensor(prompt), cache, causal=True, rows=slice(-1, None))
        pieced = Prefill(model, list(prompt), len(prompt))
        if len(prompt) <= 64:
            assert torch.equal(pieced.logits, whole)
            assert torch.equal(pieced.cache.keys, cache.keys) and torch.equal(pieced.cache.values, cache.values)
        else:
            assert torch.allclose(pieced.logits, whole, atol=1e-4)


def test_every_lane_goes_on_from_the_same_prefill(llama_engine: Engine, forwards: Forwards, pieces: None) -> None:
    trace = llama_engine.generate(asked(max_new_tokens=40))
    assert trace.lane("ar").tokens == trace.lane("self-speculation").tokens and len(trace.lane("ar").tokens) == 40
    assert forwards.rows.count(50) == 4


def test_pictures_are_read_in_pieces_as_in_one(llama_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings in the place of some ids, across the border of two pieces."""
    model = llama_engine.model
    places = list(range(40, 120))
    seen = Seen(torch.randn(len(places), model.config.hidden_size), places, 1.0)
    whole = Prefill(model, list(LONG), 512, seen)
    monkeypatch.setitem(prefill.PIECE, "cpu", 64)
    pieced = Prefill(model, list(LONG), 512, seen)
    assert torch.allclose(pieced.logits, whole.logits, atol=1e-4)
    assert not torch.allclose(Prefill(model, list(LONG), 512).logits, whole.logits, atol=1e-2)


def test_a_stream_gives_events_alone_and_its_steps_where_it_can_be_stopped(llama_engine: Engine, pieces: None) -> None:
    events = list(llama_engine.stream(asked(modes=("ar",), max_new_tokens=3)))
    assert [type(event) for event in events] == [Event] * 3
    steps = list(interface.steps(llama_engine.stream(asked(modes=("ar",), max_new_tokens=3))))
    assert steps[:3] == [None] * 3 and [event.phase for event in steps[3:]] == ["prefill", "decode", "decode"]
    assert list(interface.steps(iter([1, None]))) == [1, None]


def test_closing_a_stream_between_pieces_frees_the_model(
    llama_engine: Engine, forwards: Forwards, pieces: None
) -> None:
    steps = interface.steps(llama_engine.stream(asked()))
    assert next(steps) is None
    steps.close()
    assert forwards.rows == [50]
    assert llama_engine.generate(asked(prompt_ids=(5, 6), max_new_tokens=2)).lane("ar").tokens


def test_stop_ends_a_run_in_the_middle_of_its_prompt(llama_engine: Engine, forwards: Forwards, pieces: None) -> None:
    inside, go_on = threading.Event(), threading.Event()
    forwards.at[2] = lambda: (inside.set(), go_on.wait(WAIT))
    runs, freed = Runs(), threading.Event()
    run = Run(llama_engine, asked(), lambda run: freed.set())
    runs.add(run, "visitor")
    run.start()
    assert inside.wait(WAIT)
    run.stop()
    go_on.set()
    assert freed.wait(WAIT)
    assert forwards.rows == [50, 50]
    said = json.loads(stage.resync(runs, run.id))
    assert said["error"] == "The run was stopped before its first token."


def clocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look is a second later."""
    seconds = count()
    monkeypatch.setattr(
        "nemodiff.engine.local.time", SimpleNamespace(monotonic=lambda: next(seconds), perf_counter=lambda: 0.0)
    )


def test_the_time_limit_holds_while_a_prompt_is_read(
    llama_engine: Engine, forwards: Forwards, pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked(monkeypatch)
    trace = llama_engine.generate(asked(time_limit=1.5))
    assert forwards.rows == [50, 50]
    assert [(one.tokens, one.finish) for one in trace.lanes] == [([], "time")] * 3


def test_a_run_whose_time_went_into_its_prompt_says_so(
    llama_engine: Engine, pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked(monkeypatch)
    sent = [json.loads(text) for text in streamed(llama_engine, asked(time_limit=1.5), Runs(), "visitor")]
    assert sent[-1]["error"] == LATE.format(1.5)
    assert LATE.format(1.5) == "The prompt took longer to read than the 1.5 s that a run may take here: shorten it."


def test_a_search_for_the_ceiling_stops_in_the_middle_of_its_prompt(
    llama_engine: Engine, forwards: Forwards, pieces: None
) -> None:
    with closing(llama_engine.ceiling(asked())) as steps:
        assert next(steps).forwards == 0
    assert forwards.rows == [50]
    text = json.dumps({"id": 1, "checkpoint": llama_engine.checkpoint, "request": asked().to_json(), "answer_ids": []})
    search = oracle.stream(Checkpoints(llama_engine, Settings()), text, 1e-9)
    assert "longer than this page's limit" in json.loads(next(search))["light"]["error"]
    assert forwards.rows == [50, 50]


def test_a_replica_says_something_between_pieces_and_stops_there(
    llama_engine: Engine, forwards: Forwards, pieces: None
) -> None:
    replica = object.__new__(Decoder)
    replica._begin(llama_engine, 1)
    lines = replica._run(json.dumps(asked(modes=("ar",)).to_json()).encode())
    assert next(lines) is None
    lines.close()
    assert forwards.rows == [50]
    with closing(replica._run(json.dumps(asked(modes=("ar",), max_new_tokens=2).to_json()).encode())) as lines:
        assert [line and line["phase"] for line in lines] == [None, None, None, "prefill", "decode"]


def test_a_lent_gpu_is_given_back_between_pieces(llama_engine: Engine, forwards: Forwards, pieces: None) -> None:
    lent = zero.LentEngine(llama_engine, lambda **_: lambda work: work)
    events = lent.stream(asked(modes=("ar",)))
    assert next(events) is None
    events.close()
    assert forwards.rows == [50]


# How much: one check for every way in.

FEW = Settings(max_prompt_tokens=100, max_new_tokens=16, visitor_rate=0)
SAYS = "This page reads up to 100 tokens before it writes, and these are 200: shorten the prompt."


def branch_of(engine: Engine, answer: tuple[int, ...] = (), **values: Any) -> str:
    request = asked(**values).to_json()
    return json.dumps({"id": 1, "checkpoint": engine.checkpoint, "request": request, "answer_ids": list(answer)})


@pytest.fixture
def ask(llama_engine: Engine) -> Any:
    page = build.build(llama_engine, FEW, desk=Desk(FEW))
    functions = {one.api_name: one.fn for one in page.fns.values()}

    def call(name: str, *values: Any) -> dict[str, Any]:
        visitor = SimpleNamespace(session_hash="s", client=None, headers={})
        *_, last = functions[name](*sent(name, values), visitor)
        return json.loads(last)

    return call


def test_a_branch_is_as_long_as_a_page_allows(ask: Any, llama_engine: Engine, forwards: Forwards) -> None:
    assert ask("branch", branch_of(llama_engine))["error"] == SAYS
    assert ask("branch", branch_of(llama_engine, LONG[:150], prompt_ids=LONG[:50]))["error"] == SAYS
    assert forwards.rows == []
    assert ask("branch", branch_of(llama_engine, LONG[:50], prompt_ids=LONG[:50]))["end"]


def test_a_search_for_the_ceiling_is_as_long_as_a_page_allows(
    ask: Any, llama_engine: Engine, forwards: Forwards
) -> None:
    said = ask("speed_of_light", branch_of(llama_engine))["light"]
    assert (said["id"], said["error"]) == (1, SAYS)
    said = ask("speed_of_light", branch_of(llama_engine, prompt_ids=(5,), max_new_tokens=17))["light"]
    assert said["error"].startswith("This page makes up to 16 new tokens per run")
    assert forwards.rows == []
    assert ask("speed_of_light", branch_of(llama_engine, prompt_ids=(5,)))["light"]["ceiling"]


def test_text_and_programs_are_counted_in_tokens_too(chat_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import open_engine

    engine = open_engine(chat_folder)  # a character per token
    for values in ({"prompt": "x" * 200}, {"prompt": "x", "prompt_ids": LONG}):
        with pytest.raises(RequestError) as refused:
            within(Request(**values, max_new_tokens=4), FEW, engine)
        assert str(refused.value) == SAYS
        visitor = SimpleNamespace(session_hash="s", client=None, headers={})
        run = Desk(FEW).run(Request(**values, max_new_tokens=4), visitor, lambda: engine, keeps=False)
        assert list(run) == [Refused(SAYS)]
    within(Request(prompt="x" * 100, max_new_tokens=4), FEW, engine)
    with pytest.raises(RequestError, match="exceed the model's context"):
        within(Request(prompt="x" * 99, max_new_tokens=4000), FEW.model_copy(update={"max_new_tokens": 4096}), engine)


def swept() -> list[Any]:
    """The fields of Compare: one prompt, one setting per mode."""
    return [["JSON person"], "4", "0.9", 8, "", ["linear"], 1, ["confidence"], [], "auto", "0", True]


def test_a_sweep_is_as_long_as_a_page_allows(llama_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(request: Request) -> list[int]:
        return list(LONG) if set(request.modes) <= set(MODES) else []

    monkeypatch.setattr(llama_engine, "encode", encode)
    page = build.build(llama_engine, FEW, desk=Desk(FEW))
    compare = next(one.fn for one in page.fns.values() if getattr(one.fn, "__name__", "") == "compare")
    visitor = SimpleNamespace(session_hash="s", client=None, headers={})
    [status, *_] = next(compare(*swept(), None, visitor))
    assert SAYS in status


def test_a_lane_without_a_long_prompt_comes_at_once(llama_engine: Engine) -> None:
    lanes: Iterator[LaneRun | None] = llama_engine.lane(asked(prompt_ids=(5, 6)), "diffusion")
    assert isinstance(next(lanes), LaneRun)
    lanes.close()
