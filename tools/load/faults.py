"""What is broken on purpose: a replica, the disk, the network, and requests that make no sense."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.helpers.package_index import broken_index
from tests.helpers.replicas import Replicas
from tests.helpers.served import LEAKS, Visitor, patched, values
from tools.load.app import WAIT, App, end_of
from tools.load.nonsense import nonsense


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
                        ends.append(end_of([json.loads(shown)]))
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
        yield "the next run", end_of(Visitor(app.address, "next").generate())
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
    return end_of(Visitor(app.address).generate()).strip("“”")


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
        yield "a run after them", end_of(visitor.generate())


FAULTS = {"replica": killed_replica, "disk": full_disk, "network": no_network, "malformed": malformed}
