"""The engine: limits, stopping, one run at a time, the race."""

import contextlib
import itertools
import threading

import pytest
import torch

import nemodiff
from nemodiff.decode.race import race
from nemodiff.engine.devices import pick_device
from nemodiff.errors import CheckpointError, RequestError
from nemodiff.request import Request
from nemodiff.trace.events import MODES, Event
from tests.helpers.checkpoints import open_engine, random_llama, write_llama
from tests.helpers.locks import WatchedLock

PROMPT = (5, 6, 7, 8)


def test_all_modes_race_on_the_clock(any_engine):
    stream = any_engine.stream(Request(prompt_ids=PROMPT, max_new_tokens=24, ignore_eos=True))
    events = [event for event in stream if event is not None]
    clocks = dict.fromkeys(MODES, 0.0)
    finished = set()
    for event in events:
        behind = min(clock for mode, clock in clocks.items() if mode not in finished)
        assert clocks[event.mode] == behind  # the lane that moved was the one furthest behind
        clocks[event.mode] = event.clock_ms
        if event.finish:
            finished.add(event.mode)
    assert finished == set(MODES)


def test_lanes_share_one_prefill(any_engine):
    trace = any_engine.generate(Request(prompt_ids=PROMPT, max_new_tokens=8))
    first = [lane.events[0] for lane in trace.lanes]
    assert {event.phase for event in first} == {"prefill"}
    assert len({event.positions[0].token for event in first}) == 1


def test_closing_the_stream_stops_the_model_within_one_forward(llama_engine, monkeypatch):
    forwards = itertools.count()
    done = []
    original = type(llama_engine.model).forward

    def counted(self, *args, **kwargs):
        done.append(next(forwards))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(llama_engine.model), "forward", counted)
    request = Request(prompt_ids=PROMPT, max_new_tokens=500, ignore_eos=True)
    recorder, stream = llama_engine.recorder(request), llama_engine.stream(request)
    for event in itertools.islice(stream, 20):
        recorder.add(event)
    before = len(done)
    stream.close()
    assert len(done) == before
    trace = recorder.finish("stopped")
    assert {lane.finish for lane in trace.lanes} == {"stopped"}
    assert all(lane.tokens for lane in trace.lanes)
    assert llama_engine.generate(Request(prompt_ids=PROMPT, max_new_tokens=2)).lanes[0].finish  # the lock is free again


def test_a_time_limit_ends_unfinished_lanes(any_engine):
    request = Request(prompt_ids=PROMPT, max_new_tokens=400, ignore_eos=True, time_limit=0)
    trace = any_engine.generate(request)
    assert {lane.finish for lane in trace.lanes} == {"time"}


def test_runs_wait_for_each_other(llama_engine, monkeypatch):
    lock = WatchedLock()
    monkeypatch.setattr(llama_engine, "_lock", lock)
    first = llama_engine.stream(Request(prompt_ids=PROMPT, max_new_tokens=50, ignore_eos=True))
    next(first)
    finished = threading.Event()

    def second():
        llama_engine.generate(Request(prompt_ids=PROMPT, max_new_tokens=2))
        finished.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert lock.wanted.wait(30)
    assert not finished.is_set()
    first.close()
    thread.join(30)
    assert finished.is_set()


def test_a_thread_that_would_wait_for_its_own_stream_is_told_so(llama_engine):
    request = Request(prompt_ids=PROMPT, max_new_tokens=9, ignore_eos=True, modes=("ar",))
    first = llama_engine.stream(request)
    next(first)
    with pytest.raises(RequestError, match="goes on in this thread: end or close it before you start another one"):
        next(llama_engine.stream(request))
    with pytest.raises(RequestError, match="goes on in this thread"):
        next(llama_engine.lane(request, "ar"))
    with pytest.raises(RequestError, match="goes on in this thread: end or close it before you close the engine"):
        llama_engine.close()
    assert len(list(first)) == 8  # it is none the worse for it
    other = llama_engine.stream(request)
    next(other)
    taken = threading.Thread(target=lambda: next(other))  # another thread reads it on, so this one may wait
    taken.start()
    taken.join(30)
    waiting = threading.Timer(0, other.close)
    waiting.start()
    assert llama_engine.generate(request).lanes[0].tokens
    with contextlib.closing(llama_engine.lane(request, "ar")) as lane:
        next(lane)
        with pytest.raises(RequestError, match="goes on in this thread"):
            llama_engine.generate(request)
    assert llama_engine.generate(request).lanes[0].tokens


def test_request_is_checked_before_the_first_event(any_engine):
    with pytest.raises(RequestError, match="context"):
        any_engine.stream(Request(prompt_ids=PROMPT, max_new_tokens=2045))
    with pytest.raises(RequestError, match="vocabulary"):
        any_engine.stream(Request(prompt_ids=(5, 199)))
    with pytest.raises(RequestError, match="trained sampler"):
        any_engine.stream(Request(prompt="text", sampler="trained"))
    trace = any_engine.generate(Request(prompt_ids=PROMPT, max_new_tokens=2044, time_limit=0))
    assert trace.lanes[0].tokens


def test_text_needs_a_tokenizer(llama_engine):
    with pytest.raises(RequestError, match="no tokenizer"):
        llama_engine.stream(Request(prompt="text"))


def test_a_branch_goes_on_after_given_tokens(any_engine):
    settings = {"prompt_ids": PROMPT, "modes": ("ar",), "ignore_eos": True}
    whole = any_engine.generate(Request(max_new_tokens=12, **settings)).lanes[0]
    branch = any_engine.generate(Request(max_new_tokens=7, answer_ids=tuple(whole.tokens[:5]), **settings))
    assert branch.lanes[0].tokens == whole.tokens[5:]
    assert branch.request["answer_ids"] == whole.tokens[:5]
    assert set(whole.tokens[:5]) <= set(branch.vocabulary)


def test_a_checkpoint_without_a_mask_decodes_in_ar_only(tmp_path):
    engine = open_engine(write_llama(random_llama(), tmp_path / "plain", mask_token_id=None))
    with pytest.raises(RequestError, match="mode ar only"):
        engine.stream(Request(prompt_ids=PROMPT))
    assert engine.generate(Request(prompt_ids=PROMPT, modes=("ar",), max_new_tokens=3)).lanes[0].tokens


def test_race_closes_its_lanes():
    closed = []

    def lane(mode):
        try:
            for i in itertools.count(1):
                yield Event(mode, i, "decode", i * (1.0 if mode == "a" else 2.5), 0, 1)
        finally:
            closed.append(mode)

    events = race({"a": lane("a"), "b": lane("b")})
    assert [event.mode for event in itertools.islice(events, 7)] == ["a", "b", "a", "a", "b", "a", "a"]
    events.close()
    assert sorted(closed) == ["a", "b"]


def test_unknown_device_and_dtype_are_refused():
    with pytest.raises(CheckpointError, match="dtype"):
        nemodiff.load(dtype="float8")
    with pytest.raises(CheckpointError, match="device"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(CheckpointError, match="no cuda"):
            pick_device("cuda")
