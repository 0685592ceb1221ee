"""The head: logits, and what is read off them in the same pass."""

from __future__ import annotations

import math

import numpy as np

from nemodiff.model.cpu.kernel_products import product
from nemodiff.model.cpu.kernel_rows import exponential
from nemodiff.model.cpu.kernel_threads import HIDDEN, NONE, compiled, meet, take
from nemodiff.model.cpu.plan import HEAD_CHUNK
from nemodiff.model.cpu.vector import (
    load,
    load_float,
    load_int64,
    max_lanes,
    maximum,
    splat,
    store_float,
    store_int64,
    sum_lanes,
)


@compiled
def read_head(plan, step):
    """Logits of the quantised rows, and of every chunk of them the largest and the sum of exponentials below it."""
    each, width = HEAD_CHUNK // plan.panel, plan.logits_row
    chunks = (plan.vocabulary + HEAD_CHUNK - 1) // HEAD_CHUNK
    panels = plan.head.outputs // plan.panel
    unit = take(plan, step)
    while unit < chunks:
        for panel in range(unit * each, min(unit * each + each, panels)):
            target = plan.logits + 4 * panel * plan.panel
            product(plan, plan.head, panel, 0, plan.head_rows, target, 4 * width, 0)
        begin, end = unit * HEAD_CHUNK, min(unit * HEAD_CHUNK + HEAD_CHUNK, width)
        for row in range(plan.head_rows):
            line = plan.logits + 4 * width * row
            for token in range(max(begin, plan.vocabulary), end):
                store_float(line + 4 * token, HIDDEN)
            peaks = splat(HIDDEN)
            for i in range(4 * begin, 4 * end, 64):
                peaks = maximum(peaks, load(line + i))
            peak = max_lanes(peaks)
            total, least = splat(NONE), splat(peak)
            for i in range(4 * begin, 4 * end, 64):
                total = total + exponential(load(line + i) - least)
            store_float(plan.chunk_peaks + 4 * (row * chunks + unit), peak)
            store_float(plan.chunk_sums + 4 * (row * chunks + unit), sum_lanes(total))
        unit = take(plan, step)
    return meet(plan, step)


@compiled
def next_best(plan, line, chunk, below, after, banned):
    """(token, logit) of the largest logit of a chunk that comes after (below, after) in the order of logits, then
    tokens; token -1 if there is none."""
    found, best = -1, HIDDEN
    for token in range(chunk * HEAD_CHUNK, min(chunk * HEAD_CHUNK + HEAD_CHUNK, plan.vocabulary)):
        value = load_float(line + 4 * token)
        if (value < below or (value == below and token > after)) and value > best and token != banned:
            found, best = token, value
    return found, best


@compiled
def choose(plan, step, scratch):
    """Of every row of logits the logarithm of the sum of exponentials, and the few best tokens with their logits."""
    chunks = (plan.vocabulary + HEAD_CHUNK - 1) // HEAD_CHUNK
    row = take(plan, step)
    while row < plan.head_rows:
        line, peaks = plan.logits + 4 * plan.logits_row * row, plan.chunk_peaks + 4 * chunks * row
        largest = HIDDEN
        for chunk in range(chunks):
            largest = max(largest, load_float(peaks + 4 * chunk))
        total = 0.0
        for chunk in range(chunks):
            part = load_float(plan.chunk_sums + 4 * (row * chunks + chunk))
            total += float(part) * math.exp(float(load_float(peaks + 4 * chunk) - largest))
        store_float(plan.log_sums + 4 * row, np.float32(float(largest) + math.log(total)))
        banned = plan.banned if plan.head_first + row >= plan.banned_first else -1
        # The best of every chunk, in the scratch; the few best are taken off one by one.
        for chunk in range(chunks):
            store_float(scratch + 4 * chunk, load_float(peaks + 4 * chunk))
        tokens = scratch + 4 * chunks + 4 * (chunks % 2)
        for chunk in range(chunks):
            store_int64(tokens + 8 * chunk, -2)
        for index in range(plan.few):
            best = -1
            while best < 0:  # a chunk's largest logit may be the banned token's: it is looked at before it counts
                chosen = 0
                for chunk in range(1, chunks):
                    if load_float(scratch + 4 * chunk) > load_float(scratch + 4 * chosen):
                        chosen = chunk
                best = load_int64(tokens + 8 * chosen)
                if best < 0:
                    token, value = next_best(plan, line, chosen, np.float32(np.inf), -1, banned)
                    store_int64(tokens + 8 * chosen, max(token, 0))
                    store_float(scratch + 4 * chosen, value)
                    if token < 0:
                        best = 0
            value = load_float(scratch + 4 * chosen)
            store_int64(plan.few_tokens + 8 * (row * plan.few + index), best)
            store_float(plan.few_logits + 4 * (row * plan.few + index), value)
            token, below = next_best(plan, line, chosen, value, best, banned)
            store_int64(tokens + 8 * chosen, max(token, 0))
            store_float(scratch + 4 * chosen, below)
        row = take(plan, step)
    return step
