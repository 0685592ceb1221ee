"""How the threads of a forward share its steps: units of work off a counter, and a meeting after each step."""

from __future__ import annotations

import os

import numpy as np
from numba import njit, types

from nemodiff.model.cpu.plan import COUNTER_BYTES
from nemodiff.model.cpu.vector import fetch_add, load_shared, pause, read_clock, store_int64

_POSIX = os.name == "posix"
give_way = types.ExternalFunction("sched_yield" if _POSIX else "SwitchToThread", types.int32())
_SPINS = 2000

compiled = njit(error_model="numpy", boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

#: What a key that is not seen scores, and the logit of a token that is none.
HIDDEN = np.float32(-np.inf)
ONE, NONE = np.float32(1), np.float32(0)


@compiled
def take(plan, step):
    """The next unit of a step that no thread has taken."""
    return fetch_add(plan.counters + step * COUNTER_BYTES, 1)


@compiled
def note_time(plan, step):
    """Where times are asked for: that a step has ended now."""
    if plan.times != 0:
        store_int64(plan.times + 8 * (step + 1), read_clock())


@compiled
def meet(plan, step):
    """Wait until all threads are here. Returns the next step."""
    arrived = plan.counters + step * COUNTER_BYTES + 8
    if fetch_add(arrived, 1) + 1 == plan.threads:
        note_time(plan, step)
    else:
        spins = 0
        while load_shared(arrived) < plan.threads:
            spins += 1
            if spins < _SPINS:
                pause()
            else:  # a thread was put aside by the system: let it have this processor
                give_way()
    return step + 1
