# ruff: noqa: E402 - the environment comes before what reads it
"""ZeroGPU without its machine: the `spaces` package as it is, its CUDA emulation, forks, pickling and stop signals
included. Stand-ins are its scheduler, which is a service, and the GPU in the fork, where the emulation just goes on.

`python -m tests.helpers.zero_rig CHECKPOINT-FOLDER` prints one JSON object: what `test_ui_zero.py` looks at.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.datastructures import Headers

os.environ |= {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9"}

import torch

torch.set_num_threads(1)  # a fork does not get the other threads
# What a build of torch with CUDA has, and `spaces` looks at when it is imported.
torch.version.cuda = "12.8"
torch._C._cuda_init = lambda: None
torch.cuda._is_in_bad_fork = bool
torch.cuda.reset_peak_memory_stats = lambda device=None: None  # counts on a GPU

import spaces
from spaces.zero import client
from spaces.zero import torch as emulation
from spaces.zero.api import APIClient, ScheduleResponse
from spaces.zero.gradio import error

import nemodiff
from nemodiff.errors import RequestError
from nemodiff.request import Request
from tests.helpers.engines import streamed
from ui.backends import zero
from ui.live import oracle
from ui.live.models import Checkpoints
from ui.live.run import Runs
from ui.settings import Settings

asked: list[float] = []
released: list[bool] = []
quota = True


def _schedule(duration: Any = None, **_: Any) -> ScheduleResponse:
    if not quota:
        raise error("ZeroGPU quota exceeded", "You have exceeded your free ZeroGPU quota (18s requested vs. 0s left).")
    asked.append(duration.total_seconds())
    return ScheduleResponse(idle=False, nvidiaIndex=0, nvidiaUUID="none", allowToken="token")


_REAL_SCHEDULE = client.schedule
client.schedule = _schedule
client.utils.self_cgroup_device_path = lambda: "/"
_TOKEN = ".".join(("head", base64.urlsafe_b64encode(b'{"user": "someone"}').decode(), "signature"))
_OVER = {"left": 5, "wait": 12_060}
_FAILED = {"content": b"event: failed\n\n", "headers": {"content-type": "text/event-stream"}}
#: Name → (what the scheduler answers, is the visitor logged in); every refusal that the `spaces` package knows.
REFUSALS: dict[str, tuple[httpx.Response | Exception, bool]] = {
    "too long": (httpx.Response(429, json={"left": 0, "wait": -1}, headers={"X-Authenticated": "regular"}), True),
    "too long, unknown": (httpx.Response(429, json={"left": 0, "wait": -1}), False),
    "over quota": (httpx.Response(429, json=_OVER, headers={"X-Authenticated": "regular"}), True),
    "over quota, some left": (httpx.Response(429, json=_OVER | {"left": 16}, headers={"X-Authenticated": "pro"}), True),
    "over quota of the Space": (httpx.Response(429, json=_OVER), False),
    "out of runs": (httpx.Response(429, json={"left": 0, "wait": 0}), True),
    "over credits": (
        httpx.Response(429, json=_OVER, headers={"X-Approve-Result": "pending-overquota-exceeded"}),
        True,
    ),
    "none in the queue": (httpx.Response(200, **_FAILED), True),
    "none in the queue, unknown": (httpx.Response(200, **_FAILED), False),
    "none": (httpx.Response(503), True),
    "expired": (httpx.Response(401), True),
    "broken": (httpx.Response(500), True),
    "away": (httpx.ConnectError("no route to 10.0.0.1"), True),
}


def _refused(lent: zero.LentEngine, request: Request, name: str) -> str:
    """What a visitor reads when the scheduler, by the package's own client, refuses like this."""
    answer, known = REFUSALS[name]

    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    asker = SimpleNamespace(headers=Headers({"x-ip-token": _TOKEN} if known else {}))
    client.api_client = lambda: APIClient(httpx.Client(transport=httpx.MockTransport(handle), base_url="http://zero"))
    client.schedule = lambda **how: _REAL_SCHEDULE(**how | {"request": asker})
    return _said(lent, request)


client.release = lambda token, fail=False, allow_404=False: released.append(fail)
client.allow = lambda token: None
for name in ("unpatch", "init", "move"):
    setattr(emulation, name, lambda *_, **__: None)


def lend(**options: Any) -> Callable[[Callable], Callable]:
    """`spaces.GPU`; in the fork's thread the emulation goes on."""

    def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def inside(*values: Any) -> Iterator[Any]:
            emulation.enter_mode()
            yield from task(*values)

        return spaces.GPU(**options)(inside)

    return decorate


def _said(lent: zero.LentEngine, request: Request) -> str:
    """The sentence that a run ends with before its first event: a text is one wherever it comes from."""
    try:
        next(lent.stream(request))
    except RequestError as error:
        return str(error)
    return ""


def main(folder: str) -> dict[str, Any]:
    global quota
    engine = nemodiff.load(folder, dtype="float32")
    found: dict[str, Any] = {"device": str(engine.model.device), "main": os.getpid()}
    plain = engine.stream

    def telling(request: Request) -> Iterator[Any]:
        yield f"process {os.getpid()}"
        yield from plain(request)

    lent = zero.LentEngine(engine, lend)
    request = Request(prompt="w1 w2", max_new_tokens=12, ignore_eos=True, time_limit=60.0)

    runs = Runs()
    messages = [json.loads(text) for text in streamed(lent, request, runs, "visitor")]
    found |= {"lanes": messages[-2]["lanes"], "end": messages[-1], "asked": asked[:], "released": released[:]}

    engine.stream = telling
    found["processes"] = [_said(lent, request) for _ in range(2)]
    engine.stream = plain

    # Stop: the fork ends at its next event.
    events = lent.stream(request)
    next(events)
    events.close()
    found["stopped"] = released[-1]

    engine.stream = lambda request: (_ for _ in ()).throw(torch.OutOfMemoryError("at /secret"))
    found["failed"] = [_said(lent, request)]
    engine.stream = plain
    given = {"id": 7, "checkpoint": engine.checkpoint, "request": Request(prompt="w1", max_new_tokens=4).to_json()}
    page, text = Checkpoints(lent, Settings()), json.dumps(given | {"answer_ids": []})
    searched = list(oracle.stream(page, text, 60.0))
    found["ceiling"] = json.loads(searched[-1])["light"]

    quota = False
    found["refused"] = [json.loads(text) for text in streamed(lent, request, runs, "visitor")]
    found["unlit"] = [
        json.loads(text)["light"] for text in oracle.stream(page, json.dumps(given | {"answer_ids": []}), 60.0)
    ]
    found["sentences"] = {name: _refused(lent, request, name) for name in REFUSALS}
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
