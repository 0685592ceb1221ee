"""A whole forward as one function that every thread of a team runs: numba's Python, compiled by `build`.

Threads take units of work off a counter, step by step, and meet between steps. Which thread computes a unit changes
nothing in it, and a row's own sums never depend on the rows beside it: its logits have the same bits in any company.
Memory is raw addresses (see `plan`), `load` and `store` take them in bytes.
"""

from __future__ import annotations

import os

import numpy as np
from numba import from_dtype, types

from nemodiff.model.cpu.kernel_attention import attend, project
from nemodiff.model.cpu.kernel_head import choose, read_head
from nemodiff.model.cpu.kernel_products import add_product, gate_and_up, set_product
from nemodiff.model.cpu.kernel_rows import norm_rows, quantise_rows
from nemodiff.model.cpu.kernel_threads import compiled, meet, note_time, take
from nemodiff.model.cpu.plan import COUNTER_BYTES, LayerPlan, Plan
from nemodiff.model.cpu.vector import fetch_add, load, load_bfloat16, load_int64, load_shared, store, structure_at

plan_at = structure_at(from_dtype(np.dtype(Plan)))
layer_at = structure_at(from_dtype(np.dtype(LayerPlan)))
LAYER_BYTES = np.dtype(LayerPlan).itemsize
_POSIX = os.name == "posix"
read_file = types.ExternalFunction("read" if _POSIX else "_read", types.int64(types.int32, types.intp, types.int64))


@compiled
def embed(plan, step):
    """x [rows, hidden] from the table, where tokens were given."""
    row = take(plan, step)
    while plan.tokens != 0 and row < plan.rows:
        token, target = load_int64(plan.tokens + 8 * row), plan.x + 4 * plan.hidden * row
        if token == plan.mask and plan.mask_embedding != 0:
            for i in range(0, 4 * plan.hidden, 64):
                store(target + i, load(plan.mask_embedding + i))
        else:
            source = plan.embeddings + 2 * plan.hidden * token
            for i in range(0, 4 * plan.hidden, 64):
                store(target + i, load_bfloat16(source + i // 2))
        row = take(plan, step)
    return meet(plan, step)


@compiled
def work(address, worker):
    """One thread's share of a forward."""
    plan = plan_at(address)
    scratch = plan.scratch + plan.scratch_bytes * worker
    if worker == 0:
        note_time(plan, -1)
    step = embed(plan, 0)
    for index in range(plan.layers):
        layer = layer_at(plan.layer_table + LAYER_BYTES * index)
        step = norm_rows(plan, step, layer.input_norm, 0, plan.rows)
        step = project(plan, step, layer.qkv, index, scratch)
        step = attend(plan, step, index, scratch)
        step = quantise_rows(plan, step, plan.mixed, plan.attention)
        step = add_product(plan, step, layer.o, 0, plan.x, plan.hidden)
        if plan.adapter != 0 and layer.lora_a.weights != 0 and plan.plain < plan.rows:
            step = set_product(plan, step, layer.lora_a, plan.low, plan.rank)
            step = quantise_rows(plan, step, plan.low, plan.rank)
            step = add_product(plan, step, layer.lora_b, plan.plain, plan.x, plan.hidden)
        step = norm_rows(plan, step, layer.post_norm, 0, plan.rows)
        step = gate_and_up(plan, step, layer.gate_up, scratch)
        step = quantise_rows(plan, step, plan.inner_rows, plan.inner)
        step = add_product(plan, step, layer.down, 0, plan.x, plan.hidden)
    step = norm_rows(plan, step, plan.norm, plan.head_first, plan.head_rows)
    step = read_head(plan, step)
    step = choose(plan, step, scratch)
    # The first thread waits for all; the others must not look at the plan again once they have said that they are done.
    if worker == 0:
        meet(plan, step)
        note_time(plan, step)
    else:
        fetch_add(plan.counters + step * COUNTER_BYTES + 8, 1)


@compiled
def serve(file, mailbox, worker):
    """A helper's life: for every byte 1 that comes through a pipe, work on the plan whose address lies in the mailbox.

    mailbox: int64: the address, then one a helper in which its byte is received.
    """
    place = mailbox + 8 * worker
    while read_file(np.int32(file), place, 1) == 1:
        if load_int64(place) & 255 != 1:
            return
        work(load_shared(mailbox), worker)
