"""Many visitors at once: what they were shown, and how long they waited."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from nemodiff.examples import EXAMPLES
from nemodiff.trace.events import MODES
from tests.helpers.served import Visitor, patched, values
from tools.load.app import WAIT, App, end_of

#: New tokens of a run, in each of three lanes.
TOKENS = 16
#: Every so many visitors one closes its tab in the middle of a run.
LEAVER = 5


@dataclass
class Tally:
    """What all visitors saw. Seconds since asking: first is the first message, event the first event of the run."""

    first: list[float] = field(default_factory=list)
    event: list[float] = field(default_factory=list)
    whole: int = 0
    left: int = 0
    lost: int = 0
    events: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.wrong[sentence] = self.wrong.get(sentence, 0) + 1


async def one_run(client: httpx.AsyncClient, function: int, session: str, tally: Tally, leaves: bool) -> None:
    """Ask once and check what comes."""
    prompt = random.choice(EXAMPLES).prompt
    data = values(prompt=prompt, modes=list(MODES), tokens=TOKENS, ignore_eos=False)
    asked, begun, last, shown, missing = time.monotonic(), False, 0, None, 0
    body = {"fn_index": function, "session_hash": session, "data": data}
    joined = await client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        tally.note(f"HTTP {joined.status_code}: {joined.text[:80]}")
        return
    async with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            message = json.loads(line[6:])
            kind = message["msg"]
            if kind == "process_completed" and not message["success"]:
                tally.note(f"failed: {str(message['output'])[:80]}")
            if kind in ("process_generating", "process_completed") and message["success"]:
                given = (message["output"].get("data") or [shown])[0]
                shown = patched(shown, given) if isinstance(given, list) else given
                if kind == "process_generating":
                    sent = json.loads(shown)
                    if not begun:
                        tally.first.append(time.monotonic() - asked)
                        begun = True
                    if "error" in sent:
                        tally.note(sent["error"])
                    for event in sent.get("ev", ()):
                        if not last:
                            tally.event.append(time.monotonic() - asked)
                        missing += event["q"] - last - 1
                        last = event["q"]
                    if leaves and last > 3:
                        tally.left += 1
                        return
                    if "end" in sent:
                        missing += sent["end"]["events"] - last
                        tally.whole += 1
            if kind in ("process_completed", "unexpected_error", "close_stream"):
                break
    tally.events += last
    tally.lost += missing


async def visit(app: App, function: int, number: int, until: float, tally: Tally) -> None:
    timeout = httpx.Timeout(WAIT)
    async with httpx.AsyncClient(base_url=app.address, timeout=timeout) as client:
        runs = 0
        while time.monotonic() < until:
            runs += 1
            try:
                await one_run(client, function, f"v{number}-{runs}", tally, number % LEAVER == 0)
            except httpx.HTTPError as error:
                tally.note(type(error).__name__)


async def watch(app: App, tally: Tally, began: float, ended: asyncio.Event) -> None:
    while not ended.is_set():
        tally.memory.append((time.monotonic() - began, app.memory))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended.wait(), 1.0)


async def crowd(app: App, visitors: int, seconds: float) -> Tally:
    function = Visitor(app.address).functions["watch"]["id"]
    tally, began, ended = Tally(), time.monotonic(), asyncio.Event()
    watching = asyncio.create_task(watch(app, tally, began, ended))
    await asyncio.gather(*(visit(app, function, k, began + seconds, tally) for k in range(visitors)))
    ended.set()
    await watching
    return tally


def load(folder: Path, visitors: int, minutes: float) -> Iterator[tuple[str, str]]:
    settings = {"NEMODIFF_QUEUE": str(visitors + 14), "NEMODIFF_VISITOR_RATE": "0"}
    with App(folder, **settings) as app:
        yield "load: start until ready", f"{app.until('ready')[1]:.0f} s"
        visitor = Visitor(app.address, "warm")
        for example in EXAMPLES:  # each length of a prompt has kernels of its own
            visitor.generate(prompt=example.prompt, modes=list(MODES), tokens=TOKENS, ignore_eos=False)
        began = time.monotonic()
        tally = asyncio.run(crowd(app, visitors, minutes * 60))
        took = time.monotonic() - began
        time.sleep(3.0)  # tabs that were closed last
        numbers = app.numbers()
        yield "runs asked for in " + f"{took:.0f} s", f"{tally.whole} whole, {tally.left} left by a closed tab"
        yield "events taken, lost", f"{tally.events:,}, **{tally.lost}**"
        yield (
            "anything else that visitors were told",
            "; ".join(f"{k}× {v}" for v, k in tally.wrong.items()) or "nothing",
        )
        yield "running and waiting afterwards", f"{numbers['nemodiff_running']:.0f}, {numbers['nemodiff_waiting']:.0f}"
        yield "asking to first message, p50 / p95", _pair(tally.first)
        yield "asking to first event, p50 / p95", _pair(tally.event)
        mean = numbers["nemodiff_run_seconds_sum"] / max(1, numbers["nemodiff_run_seconds_count"])
        yield (
            "a run has the model for, mean",
            f"{mean:.2f} s ({visitors} at once: {visitors * mean:.0f} s)",
        )
        yield "memory after the first minute, at the end", _memory(tally.memory, 60.0 if minutes > 1 else minutes * 20)
        last = Visitor(app.address, "last").generate()
        yield "a run after all of them", end_of(last)


def _pair(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "too few"
    cuts = statistics.quantiles(seconds, n=20)
    return f"{statistics.median(seconds):.2f} s / {cuts[18]:.2f} s"


def _memory(samples: list[tuple[float, float]], warm: float) -> str:
    after = [(t, m) for t, m in samples if t >= warm]
    if len(after) < 10:
        return "too short to say"
    begin = statistics.fmean(m for _, m in after[: len(after) // 5])
    end = statistics.fmean(m for _, m in after[-len(after) // 5 :])
    slope = statistics.linear_regression(*zip(*after, strict=True)).slope * 60
    return f"{begin:.0f} MiB, {end:.0f} MiB ({slope:+.1f} MiB a minute)"
