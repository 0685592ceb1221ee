"""The threads that share a forward. Helpers wait in compiled code for a byte through a pipe: they take no lock of
Python's, cost nothing while they wait, and are woken within microseconds."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nemodiff.model.cpu.build import Kernels


#: Threads that helpers are made for at most; more do not make a small forward faster.
MOST_THREADS = 64


class Team:
    """The caller and its helpers. One forward at a time: a second caller waits."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._lock = threading.Lock()
        self._pipes: list[tuple[int, int]] = []
        #: What the last forward took in the kernels.
        self.last_ms = 0.0
        # The address of the plan to work on, then a place per helper for its byte.
        self._mailbox = (ctypes.c_int64 * (MOST_THREADS + 1))()

    def run(self, plan: int, counters: int, counter_bytes: int, threads: int) -> None:
        """Run one forward. plan, counters: addresses; the counters are set to zero first. The caller works, too."""
        with self._lock:
            self._grow(threads - 1)
            ctypes.memset(counters, 0, counter_bytes)
            self._mailbox[0] = plan
            for _, pipe in self._pipes[: threads - 1]:
                os.write(pipe, b"\1")
            begin = time.perf_counter()
            self._kernels.work(plan, 0)
            self.last_ms = 1000 * (time.perf_counter() - begin)

    def _grow(self, helpers: int) -> None:
        while len(self._pipes) < helpers:
            reading, writing = os.pipe()
            worker = len(self._pipes) + 1
            self._pipes.append((reading, writing))
            arguments = (reading, ctypes.addressof(self._mailbox), worker)
            threading.Thread(
                target=self._kernels.serve, args=arguments, name=f"nemodiff-cpu-{worker}", daemon=True
            ).start()

    def forget(self) -> None:
        """Called in a forked child, which has none of the threads: start anew."""
        for pipe in self._pipes:
            for end in pipe:
                os.close(end)
        self.__init__(self._kernels)


_teams: dict[int, Team] = {}
_making = threading.Lock()


def team_of(kernels: Kernels) -> Team:
    """The one team of this process for these kernels."""
    with _making:
        if id(kernels) not in _teams:
            _teams[id(kernels)] = Team(kernels)
        return _teams[id(kernels)]


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    for team in _teams.values():
        team.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """Threads of a forward: torch's number, which NEMODIFF_THREADS sets and which else is the physical cores', but no
    more than the processors that this process may use: threads that meet must all be running."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), allowed, MOST_THREADS, _quota()))


@cache
def _quota() -> int:
    """Processors that the control group of a container grants, rounded up; many where there is no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no control groups, or "max"
        return MOST_THREADS
