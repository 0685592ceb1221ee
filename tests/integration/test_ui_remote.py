"""ui.backends: a RemoteEngine over a replica in this process, and over two that Ray Serve keeps."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from nemodiff.errors import CheckpointError, RequestError
from nemodiff.pictures import Picture
from nemodiff.request import Request
from tests.helpers.browser import running
from tests.helpers.checkpoints import open_engine
from tests.helpers.engines import streamed
from tests.helpers.replicas import decoder_of, free_port, one_replica
from ui.backends import remote
from ui.backends.remote import AWAY, LOST, connect
from ui.backends.serve.__main__ import main
from ui.live import oracle
from ui.live.models import Checkpoints
from ui.live.run import Runs
from ui.settings import Settings

PROMPT = (5, 6, 7, 8)
WAIT = 60


def asked(tokens: int = 24, **settings) -> Request:
    return Request(prompt_ids=PROMPT, max_new_tokens=tokens, ignore_eos=True, **settings)


@pytest.fixture(scope="module")
def local(chat_folder):
    return open_engine(chat_folder)


@pytest.fixture(scope="module")
def near(local) -> Iterator[remote.RemoteEngine]:
    """A RemoteEngine over one replica without Ray."""
    with one_replica(local) as address:
        yield connect(address)


def without_clock(trace) -> dict:
    data = trace.to_dict()
    for lane in data["lanes"]:
        lane.pop("seconds")
        for event in lane["events"]:
            event.pop("clock_ms")
    return data


def test_a_remote_trace_is_the_local_one(near, local):
    request = Request(prompt="Hello, you", max_new_tokens=40, seed=3, temperature=0.7)
    assert without_clock(near.generate(request)) == without_clock(local.generate(request))
    assert (near.defaults.threshold_of("confidence"), near.context_length) == (
        local.defaults.threshold_of("confidence"),
        local.context_length,
    )


def test_a_run_where_another_loop_runs(near, local):
    async def generate():
        return near.generate(asked(6))

    assert asyncio.run(generate()).lanes[0].tokens == local.generate(asked(6)).lanes[0].tokens


def test_the_page_streams_a_remote_run(near, local):
    messages = [json.loads(text) for text in streamed(near, asked(60), Runs(), "visitor")]
    events = [event["q"] for message in messages for event in message.get("ev", [])]
    assert events == list(range(1, len(events) + 1))
    whole = local.generate(asked(60))
    assert messages[-2]["lanes"]["ar"]["tokens"] == whole.lane("ar").tokens
    assert set(messages[-1]["end"]["finish"].values()) == {"length"}


def test_a_closed_stream_stops_the_replica_within_one_forward(near, local, monkeypatch):
    forwards, closed = itertools.count(), threading.Event()
    done: list[int] = []
    run = type(local)._run

    def noted(self, *args):
        try:
            for event in run(self, *args):
                done.append(next(forwards))
                yield event
        finally:
            closed.set()

    monkeypatch.setattr(type(local), "_run", noted)
    events = near.stream(asked(1500, modes=("ar",)))
    taken = sum(1 for event in itertools.islice(events, 30) if event is not None)
    at_close = len(done)
    events.close()
    assert closed.wait(WAIT)
    assert taken <= at_close <= len(done) < 1500
    assert near.generate(asked(2)).lanes[0].finish == "length"


def test_hanging_up_ends_with_the_forward_that_goes_on(local, monkeypatch):
    """The replica's own side, forward by forward: closed in the middle of the third, there is no fourth."""
    begun, release, closed, made = threading.Event(), threading.Event(), threading.Event(), []

    def made_stream(_):
        try:
            for event in run:
                made.append(event)
                if len(made) == 3:
                    begun.set()
                    assert release.wait(WAIT)
                yield event
        finally:
            closed.set()

    decoder = decoder_of(local)
    run = local.stream(asked(50))
    monkeypatch.setattr(local, "stream", made_stream)

    async def hang_up() -> None:
        lines = decoder._lines(decoder._run(json.dumps(asked(50).to_json()).encode()))
        await anext(lines)
        await anext(lines)
        third = asyncio.ensure_future(anext(lines))
        await asyncio.to_thread(begun.wait, WAIT)
        third.cancel()
        await asyncio.wait({third})
        await lines.aclose()

    asyncio.run(hang_up())
    release.set()
    assert closed.wait(WAIT)
    assert len(made) == 3
    run.close()


def test_a_replicas_refusal_is_the_same_sentence(near):
    with pytest.raises(RequestError, match="no </think> token"):
        near.generate(asked(max_thinking_tokens=3))


def test_pictures_are_refused_without_a_word_about_the_checkpoint(near):
    picture = Picture.of(Image.new("RGB", (8, 8)))
    with pytest.raises(RequestError, match="Pictures do not travel to replicas"):
        near.stream(Request(prompt="w20", images=(picture,)))


def test_the_ceiling_is_searched_on_the_replica(near, local):
    settings = asked(8, modes=("diffusion",)).to_json()
    text = json.dumps({"id": 7, "checkpoint": near.checkpoint, "request": settings, "answer_ids": []})
    *_, there = oracle.stream(Checkpoints(near, Settings()), text, 60.0)
    *_, here = oracle.stream(Checkpoints(local, Settings()), text, 60.0)
    assert json.loads(there)["light"]["ceiling"]["blocks"] and there == here
    *_, refused = oracle.stream(Checkpoints(near, Settings()), "{", 60.0)
    assert "error" in json.loads(refused)["light"]


NONSENSE = [b"", b"{", b"[]", b"[" * 100_000, b'{"prompt_ids": [1.5]}', b'{"modes": {}}', b'{"x": 1}']


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"[" * 100_000, b'{"prompt_ids": [1.5]}', b'{"modes": {}}', b'{"x": 1}']
)
def test_a_replica_answers_nonsense_with_a_sentence(near, body):
    [line] = httpx.post(f"{near.url}/run", content=body).text.splitlines()
    assert json.loads(line)["error"].endswith(".")
    assert httpx.get(f"{near.url}/run").status_code == 404
    assert httpx.post(f"{near.url}/run", content=b" " * (4 * 2**20 + 1)).status_code == 413


class Broken(http.server.BaseHTTPRequestHandler):
    """Answers with what the server says and hangs up."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.says)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "says", "sentence"),
    [
        (503, b"no replica", AWAY),
        (500, b"", AWAY),
        (200, b"", LOST),
        (200, b'{"mode":"ar","forward":0', LOST),
        (200, b'{"mode":"magic"}\n{"end":{}}\n', LOST),
        (200, b"[1]\n", LOST),
        (200, b'{"error":"One sentence."}\n', "One sentence."),
    ],
)
def test_whatever_a_replica_does_is_one_sentence(local, status, says, sentence):
    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        server.status, server.says = status, says
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        engine = remote.RemoteEngine(f"http://127.0.0.1:{server.server_port}", remote.describe(local, 1))
        with pytest.raises(RequestError) as caught:
            engine.generate(asked())
        server.shutdown()
    assert str(caught.value) == sentence


class Quiet(http.server.BaseHTTPRequestHandler):
    """Sends an empty line and then nothing, until the other side hangs up."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"\n")
        self.rfile.read()
        self.server.hung_up.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def quiet(local) -> Iterator[remote.RemoteEngine]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        server.hung_up = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield remote.RemoteEngine(f"http://127.0.0.1:{server.server_port}", remote.describe(local, 1))
        assert server.hung_up.wait(WAIT)
        server.shutdown()


def test_a_silent_replica_counts_as_lost(quiet, monkeypatch):
    monkeypatch.setattr(remote, "SILENCE", 0.5)
    with pytest.raises(RequestError, match=LOST):
        quiet.generate(asked())


def test_a_stream_is_closed_at_once_where_another_loop_runs(quiet):
    events = quiet.stream(asked())
    assert [next(events) for _ in range(5)] == [None] * 5
    begun = time.monotonic()

    async def close() -> None:
        events.close()

    asyncio.run(close())
    assert time.monotonic() - begun < 5


def test_nobody_there(local):
    url = f"http://127.0.0.1:{free_port()}"
    engine = remote.RemoteEngine(url, remote.describe(local, 1))
    with pytest.raises(RequestError, match="No replica of the model can be reached"):
        engine.generate(asked())
    assert not engine.reachable
    with pytest.raises(CheckpointError, match="No engine answers at"):
        connect(url, patience=0)


def test_the_page_is_a_light_front(local, tmp_path):
    """app.py with NEMODIFF_SERVE_URL loads no model, runs by the replica, and its health tells when that is gone."""
    settings = {"NEMODIFF_CHECKPOINT": "none such", "NEMODIFF_RECORDINGS": str(tmp_path)}
    with contextlib.ExitStack() as replica:
        settings["NEMODIFF_SERVE_URL"] = replica.enter_context(one_replica(local))
        with running(tmp_path / "app.log", settings) as page:
            assert httpx.get(f"{page}/health").json() == {"status": "ready", "checkpoint": "tiny-chat"}
            client = Client(page, verbose=False)
            answer = client.predict("Hello", mode="ar", max_new_tokens=9, api_name="/generate")
            assert (
                answer["figures"]["lanes"]["ar"]["tokens"]
                == local.generate(Request(prompt="Hello", modes=("ar",), max_new_tokens=9)).lanes[0].tokens
            )
            replica.close()
            with pytest.raises(AppError) as caught:
                client.predict("Hello", max_new_tokens=9, api_name="/generate")
            assert str(caught.value) == AWAY
            while (health := httpx.get(f"{page}/health")).status_code == 200:  # what it knows may be some seconds old
                threading.Event().wait(0.2)
            assert health.json()["status"] == "unreachable"


def test_two_replicas_answer_at_once_and_a_third_run_waits(replicas):
    engine = connect(replicas.address)
    assert engine.places == 2 and engine.reachable
    one, two = (engine.stream(asked(1500, modes=("ar",))) for _ in range(2))
    assert next(event for event in one if event) and next(event for event in two if event)
    third = engine.stream(asked(2))
    assert next(third) is None  # nothing comes while both are busy
    one.close()
    assert [event.finish for event in third if event][-1] == "length"
    two.close()


def test_a_killed_replica_ends_its_run_with_a_sentence_and_is_replaced(replicas):
    engine = connect(replicas.address)
    before = replicas.pids()
    assert len(before) == 2
    ends: dict[int, str] = {}
    begun = threading.Barrier(3)

    def run(number: int) -> None:
        events = engine.stream(asked(1500, modes=("ar",)))
        next(event for event in events if event)
        begun.wait(WAIT)
        try:
            for _ in events:
                pass
            ends[number] = "whole"
        except RequestError as error:
            ends[number] = str(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    begun.wait(WAIT)
    replicas.kill(before[0])
    for thread in threads:
        thread.join(WAIT)
    assert sorted(ends.values()) == sorted([LOST, "whole"])
    assert engine.generate(asked(2)).lanes[0].finish == "length"  # the other replica, or the new one
    deadline = threading.Event()
    while len(now := replicas.pids()) < 2 or before[0] in now:
        assert not deadline.wait(0.2)
    assert before[1] in now


def test_without_ray_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(["--replicas", "2"]) == 2
    assert capsys.readouterr().err == "Ray is not installed: pip install -r requirements-serve.txt\n"
