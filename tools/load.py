"""Load and faults, measured on loopback: python -m tools.load --visitors 50 --minutes 3. Prints a markdown table.

Starts the servers that it asks, on the CPU checkpoint. A visitor speaks the page's own protocol: it joins the queue,
takes the events of its run, checks that none is missing, and asks again; every fifth one closes its tab in the middle
of a run. `--faults` (default: all) names what is broken on purpose, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nemodiff.engine.devices import describe_device
from nemodiff.examples import EXAMPLES
from nemodiff.markdown import head, row
from nemodiff.trace.events import MODES
from tests.helpers.package_index import broken_index
from tests.helpers.replicas import Replicas, free_port
from tests.helpers.served import LEAKS, Visitor, patched, values

ROOT = Path(__file__).parents[1]
WAIT = 600.0
#: New tokens of a run, in each of three lanes.
TOKENS = 16
#: Every so many visitors one closes its tab in the middle of a run.
LEAVER = 5


class App:
    """app.py as a process of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"app-{self.port}.log"
        given = {"GRADIO_SERVER_PORT": str(self.port), "GRADIO_ANALYTICS_ENABLED": "False", "NEMODIFF_LOG": "json"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=ROOT,
                env=os.environ | given | settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def health(self) -> str:
        try:
            return httpx.get(f"{self.address}/health", timeout=20).json()["status"]
        except (httpx.HTTPError, ValueError):
            return "away"

    def until(self, *wanted: str, seconds: float = WAIT) -> tuple[str, float]:
        """Wait for one of these states; returns it, and the seconds that it took."""
        began = time.monotonic()
        while (now := self.health()) not in wanted:
            if self.process.poll() is not None or time.monotonic() - began > seconds:
                raise SystemExit(f"The app is {now}, not {wanted}:\n{self.told()[-3000:]}")
            time.sleep(0.2)
        return now, time.monotonic() - began

    def told(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def memory(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def numbers(self) -> dict[str, float]:
        lines = httpx.get(f"{self.address}/metrics", timeout=20).text.splitlines()
        return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines) if name[:1] != "#"}

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


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
        yield "a run after all of them", _end(last)


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


def _end(messages: list[dict[str, Any]]) -> str:
    errors = [message["error"] for message in messages if "error" in message]
    ends = [message["end"]["finish"] for message in messages if "end" in message]
    return f"“{errors[-1]}”" if errors else f"whole ({ends[-1]})" if ends else "no end"


def killed_replica(folder: Path) -> Iterator[tuple[str, str]]:
    """Two runs on two replicas of the default checkpoint; one replica is killed while both go on."""
    with (
        Replicas("smollm2-135m-tri", folder / "serve.log", "--replicas", "2", "--device", "cpu") as replicas,
        App(folder, NEMODIFF_SERVE_URL=replicas.address) as app,
    ):
        app.until("ready")
        ends: list[str] = []
        both = threading.Barrier(3)

        def visit(number: int) -> None:
            visitor = Visitor(app.address, f"k{number}")
            visitor.join("watch", values(prompt="Count from 1 to 90.", tokens=200, modes=["ar"]))
            shown, going = None, False
            with visitor.listen() as messages:
                for message in messages:
                    given = (message.get("output") or {}).get("data") or [shown]
                    shown = patched(shown, given[0]) if isinstance(given[0], list) else given[0]
                    if shown and not going and json.loads(shown).get("ev"):
                        going = True
                        both.wait(WAIT)
                    if shown and "end" in json.loads(shown):
                        ends.append(_end([json.loads(shown)]))
                        break

        threads = [threading.Thread(target=visit, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        both.wait(WAIT)
        before = replicas.pids()
        replicas.kill(before[0])
        at = time.monotonic()
        for thread in threads:
            thread.join(WAIT)
        yield "replica killed in mid-answer: the two runs", "; ".join(sorted(ends))
        yield "the next run", _end(Visitor(app.address, "next").generate())
        while len(now := replicas.pids()) < 2 or before[0] in now:
            time.sleep(0.2)
        yield "two replicas again after", f"{time.monotonic() - at:.0f} s"


def full_disk(folder: Path) -> Iterator[tuple[str, str]]:
    """A first start whose cache is a tmpfs too small: for the fetch, then for the conversion. Needs root to mount."""
    for size in ("20m", "300m"):
        cache = folder / f"cache-{size}"
        cache.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(cache)]).returncode:
            yield f"cache on a full disk ({size})", "not run: mounting a tmpfs needs root"
            continue
        try:
            with App(folder, NEMODIFF_CACHE=str(cache / "c"), TMPDIR=str(cache)) as app:
                state, took = app.until("ready", "failed", seconds=600)
                yield f"cache on a tmpfs of {size}, {took:.0f} s", f"{state}: “{_generate(app)}”"
                yield "the page, and what is left in the cache", f"{_page(app)}; {_left(cache)}"
        finally:
            subprocess.run(["umount", "-l", str(cache)], check=True)


def _generate(app: App) -> str:
    """What Generate comes to."""
    return _end(Visitor(app.address).generate()).strip("“”")


def _page(app: App) -> str:
    return f"HTTP {httpx.get(app.address, timeout=60).status_code}"


def _left(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return f"{len(files)} files of {sum(path.stat().st_size for path in files) / 2**20:.0f} MiB"


def no_network(folder: Path) -> Iterator[tuple[str, str]]:
    """A first start whose package index hangs up in the middle of the file; then one with the network back."""
    cache = folder / "cache-network"
    with broken_index() as index:
        pip = {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "5"}
        pip |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1"}
        with App(folder, NEMODIFF_CACHE=str(cache), **pip) as app:
            state, took = app.until("ready", "failed", seconds=600)
            yield f"network dropped on the first start, {took:.0f} s", f"{state}: “{_generate(app)}”"
            yield "the page, and what is left in the cache", f"{_page(app)}; {_left(cache)}"
    with App(folder, NEMODIFF_CACHE=str(cache)) as app:
        state, took = app.until("ready", "failed", seconds=900)
        yield f"started again with a network, {took:.0f} s", f"{state}; a run: {_generate(app)}"


def malformed(folder: Path, count: int = 1000) -> Iterator[tuple[str, str]]:
    """Requests that make no sense, to every route that takes a body and some that do not exist."""
    chance = random.Random(0)
    with App(folder, NEMODIFF_VISITOR_RATE="0") as app:
        app.until("ready")
        visitor = Visitor(app.address, "honest")
        functions = [one["id"] for one in visitor.functions.values()]
        before, statuses, leaks, silent = app.memory, {}, 0, 0
        with httpx.Client(base_url=app.address, timeout=60) as client:
            for k in range(count):
                method, path, content, kind = nonsense(chance, k, functions)
                try:
                    answer = client.request(method, path, content=content, headers={"content-type": kind})
                except httpx.HTTPError:
                    silent += 1
                    continue
                statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
                found = LEAKS.search(answer.text)  # some answers repeat what was sent
                leaks += bool(found) and found[0].encode() not in content + path.encode()
        told = ", ".join(f"{n}× {status}" for status, n in sorted(statuses.items()))
        yield f"{count:,} malformed requests, answered with", told + (f", {silent}× nothing" if silent else "")
        yield "answers with a traceback or a path; tracebacks in the log", f"{leaks}; {app.told().count('Traceback')}"
        end = time.monotonic() + 60
        while (numbers := app.numbers())["nemodiff_running"] + numbers["nemodiff_waiting"] and time.monotonic() < end:
            time.sleep(0.5)
        left = f"{numbers['nemodiff_running']:.0f}, {numbers['nemodiff_waiting']:.0f}"
        yield "running and waiting afterwards; memory", f"{left}; {before:.0f} → {app.memory:.0f} MiB"
        yield "a run after them", _end(visitor.generate())


def nonsense(chance: random.Random, number: int, functions: list[int]) -> tuple[str, str, bytes, str]:
    """A request that makes no sense: method, path, body, content type."""
    values = [
        None,
        -1,
        2**70,
        1e308,
        "",
        "x" * 5000,
        [],
        {},
        [[[]]],
        {"a": {"b": [None]}},
        "\0",
        "../../etc/passwd",
        True,
    ]
    pick = lambda: chance.choice(values)  # noqa: E731
    file = {
        "path": chance.choice(["/etc/passwd", "x", ""]),
        "meta": {"_type": "gradio.FileData"},
        "url": "http://[::1]/",
    }
    session = f"m{number}"
    bodies = [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 50_000,
        b'{"data": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        json.dumps({"data": [pick() for _ in range(chance.randrange(20))]}).encode(),
        json.dumps({"fn_index": pick(), "session_hash": pick(), "data": pick()}).encode(),
        json.dumps({"fn_index": chance.choice(functions), "session_hash": session, "data": [file] * 2}).encode(),
        json.dumps(
            {
                "fn_index": chance.choice(functions),
                "session_hash": session,
                "data": [pick() for _ in range(chance.randrange(18))],
            }
        ).encode(),
        json.dumps({"prompt": pick(), "mode": pick(), "seed": pick()}).encode(),
        chance.randbytes(chance.randrange(2000)),
    ]
    paths = [
        "/gradio_api/queue/join",
        "/gradio_api/queue/join",
        "/gradio_api/call/generate",
        "/gradio_api/call/v2/generate",
        "/gradio_api/call/v2/none",
        "/gradio_api/run/predict",
        "/gradio_api/upload",
        "/gradio_api/component_server",
        "/file",
        "/gradio_api/reset",
        "/gradio_api/cancel",
        "/gradio_api/mcp/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/queue/data?session_hash=" + session,
        "/%2e%2e/%2e%2e/etc/passwd",
        "/none",
        "/health",
    ]
    path = chance.choice(paths)
    method = chance.choice(["POST", "POST", "POST", "PUT", "GET", "DELETE"])
    if "queue/data" in path:
        method = "POST"  # a GET would wait for events, as it should
    kinds = [
        "application/json",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
    ]
    return method, path, chance.choice(bodies), chance.choice(kinds)


FAULTS = {"replica": killed_replica, "disk": full_disk, "network": no_network, "malformed": malformed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(".")[0])
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=3, help="0: faults only")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS))
    args = parser.parse_args()
    import torch

    print(
        f"\n{describe_device(torch.device('cpu'))} · {os.cpu_count()} cores · load before: {os.getloadavg()[0]:.1f}\n"
    )
    print(head(["what", "seen"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        parts = [load(folder, args.visitors, args.minutes)] if args.minutes else []
        for rows in [*parts, *(FAULTS[name](folder) for name in args.faults)]:
            for what, seen in rows:
                print(row([what, seen]), flush=True)


if __name__ == "__main__":
    main()
