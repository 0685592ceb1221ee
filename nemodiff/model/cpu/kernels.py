"""A whole forward as one function that every thread of a team runs: numba's Python, compiled by `build`.

Threads take units of work off a counter, step by step, and meet between steps. Which thread computes a unit changes
nothing in it, and a row's own sums never depend on the rows beside it: its logits have the same bits in any company.
Memory is raw addresses (see `plan`), `load` and `store` take them in bytes.
"""

from __future__ import annotations

import math
import os

import numpy as np
from numba import from_dtype, njit, types

from nemodiff.model.cpu.plan import (
    ACTIVATION_PEAK,
    CAUSAL,
    COUNTER_BYTES,
    HEAD_CHUNK,
    LISTED,
    ROW_CHUNK,
    SEGMENT,
    LayerPlan,
    Plan,
)
from nemodiff.model.cpu.vector import (
    absolute,
    fetch_add,
    load,
    load_bfloat16,
    load_float,
    load_int32,
    load_int64,
    load_shared,
    max_lanes,
    maximum,
    nearest,
    pause,
    power_of_two,
    read_clock,
    splat,
    store,
    store_float,
    store_int16,
    store_int32,
    store_int64,
    structure_at,
    sum_lanes,
    where_less,
)

_address, _count = types.intp, types.int64
plan_at = structure_at(from_dtype(np.dtype(Plan)))
layer_at = structure_at(from_dtype(np.dtype(LayerPlan)))
LAYER_BYTES = np.dtype(LayerPlan).itemsize

#: The inner tiles, which `tiles` defines for an instruction set; how many rows or queries comes first.
product_tile = types.ExternalFunction("nemodiff_product", _count(*[_count] * 10))
scores_tile = types.ExternalFunction("nemodiff_scores", _count(*[_count] * 8))
mix_tile = types.ExternalFunction("nemodiff_mix", _count(*[_count] * 8))
_POSIX = os.name == "posix"
give_way = types.ExternalFunction("sched_yield" if _POSIX else "SwitchToThread", types.int32())
read_file = types.ExternalFunction("read" if _POSIX else "_read", types.int64(types.int32, _address, types.int64))

_SPINS = 2000
_HIDDEN = np.float32(-np.inf)
_PEAK = np.float32(ACTIVATION_PEAK)
_ONE, _NONE = np.float32(1), np.float32(0)

compiled = njit(error_model="numpy", boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


# Threads.


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


# Vectors.


@compiled
def exponential(x):
    """e to the power of 16 floats, to float32's precision; 0 below -87. Above 88 it is no longer right."""
    limited = maximum(splat(np.float32(-87)), x)  # in this order, which lets what is no number through
    whole = nearest(limited * splat(np.float32(1.44269504)))
    rest = limited - whole * splat(np.float32(0.693359375)) - whole * splat(np.float32(-2.12194440e-4))
    value = splat(np.float32(1.9875691500e-4))
    value = value * rest + splat(np.float32(1.3981999507e-3))
    value = value * rest + splat(np.float32(8.3334519073e-3))
    value = value * rest + splat(np.float32(4.1665795894e-2))
    value = value * rest + splat(np.float32(1.6666665459e-1))
    value = value * rest + splat(np.float32(5.0000001201e-1))
    value = value * rest * rest + rest + splat(_ONE)
    return where_less(x, splat(np.float32(-87)), value * power_of_two(whole))


@compiled
def silu(x):
    """x / (1 + e^-x) of 16 floats."""
    bounded = maximum(x, splat(np.float32(-87)))
    return x / (splat(_ONE) + exponential(splat(_NONE) - bounded))


# Rows: norms and quantising.


@compiled
def write_steps(x, norm, width, peak, steps):
    """x (times norm, if there is one) as int16 steps, the largest magnitude being `peak`."""
    inverse = splat(_PEAK / peak if peak > 0 else _NONE)
    for i in range(0, 4 * width, 64):
        value = load(x + i)
        if norm != 0:
            value = value * load(norm + i)
        store_int16(steps + i // 2, nearest(value * inverse))


@compiled
def quantise_row(x, width, steps, scale):
    """A row of `width` floats as steps and, at `scale`, the size of a step: none where one of them is no number."""
    peaks, odd = splat(_NONE), splat(_NONE)
    for i in range(0, 4 * width, 64):
        value = load(x + i)
        peaks = maximum(peaks, absolute(value))
        odd = odd + value * splat(_NONE)
    peak = max_lanes(peaks)
    write_steps(x, 0, width, peak, steps)
    store_float(scale, peak / _PEAK + sum_lanes(odd))


@compiled
def quantise_normed_row(plan, x, norm, steps, scale):
    """As `quantise_row`, of the normed row; the norm's division is uniform over a row and goes into its scale."""
    squares, peaks = splat(_NONE), splat(_NONE)
    for i in range(0, 4 * plan.hidden, 64):
        value = load(x + i)
        squares = squares + value * value
        peaks = maximum(peaks, absolute(value * load(norm + i)))
    peak = max_lanes(peaks)
    write_steps(x, norm, plan.hidden, peak, steps)
    length = np.float32(math.sqrt(sum_lanes(squares) / plan.width + plan.eps))
    store_float(scale, peak / _PEAK / length)


@compiled
def norm_rows(plan, step, norm, first, rows):
    """Quantise the normed rows of x from `first` on into the steps, the first at place 0."""
    row = take(plan, step)
    while row < rows:
        x = plan.x + 4 * plan.hidden * (first + row)
        quantise_normed_row(plan, x, norm, plan.steps + 2 * plan.hidden * row, plan.step_scales + 4 * row)
        row = take(plan, step)
    return meet(plan, step)


@compiled
def quantise_rows(plan, step, x, width):
    """Quantise the forward's rows of x [rows, width] into the steps."""
    row = take(plan, step)
    while row < plan.rows:
        quantise_row(x + 4 * width * row, width, plan.steps + 2 * width * row, plan.step_scales + 4 * row)
        row = take(plan, step)
    return meet(plan, step)


# Products.


@compiled
def product(plan, matrix, panel, first, rows, out, out_row, add):
    """One panel of a matrix times quantised rows, `rows` of them from `first` on. out: where the first row's go."""
    tiles = (rows + plan.tile_rows - 1) // plan.tile_rows
    inputs = matrix.inputs
    weights = matrix.weights + panel * plan.panel * inputs
    scales = matrix.scales + 4 * panel * plan.panel
    done = 0
    for tile in range(tiles):
        count = rows // tiles + (1 if tile < rows % tiles else 0)
        steps = plan.steps + 2 * inputs * (first + done)
        step_scales = plan.step_scales + 4 * (first + done)
        target = out + out_row * done
        for start in range(0, inputs, SEGMENT):
            part = min(SEGMENT, inputs - start)
            product_tile(
                count,
                steps + 2 * start,
                2 * inputs,
                step_scales,
                weights + start * plan.panel,
                part,
                scales,
                target,
                out_row,
                add | start,
            )
        done += count


@compiled
def add_product(plan, step, matrix, first, out, width):
    """out [rows, width] += the matrix times the quantised rows, from row `first` on."""
    panels, chunks = matrix.outputs // plan.panel, (plan.rows - first + ROW_CHUNK - 1) // ROW_CHUNK
    unit = take(plan, step)
    while unit < panels * chunks:
        row, panel = first + unit // panels * ROW_CHUNK, unit % panels
        target = out + 4 * (row * width + panel * plan.panel)
        product(plan, matrix, panel, row, min(ROW_CHUNK, plan.rows - row), target, 4 * width, 1)
        unit = take(plan, step)
    return meet(plan, step)


@compiled
def set_product(plan, step, matrix, out, width):
    """out [rows, width] = the matrix times the quantised rows."""
    panels, chunks = matrix.outputs // plan.panel, (plan.rows + ROW_CHUNK - 1) // ROW_CHUNK
    unit = take(plan, step)
    while unit < panels * chunks:
        row, panel = unit // panels * ROW_CHUNK, unit % panels
        target = out + 4 * (row * width + panel * plan.panel)
        product(plan, matrix, panel, row, min(ROW_CHUNK, plan.rows - row), target, 4 * width, 0)
        unit = take(plan, step)
    return meet(plan, step)


@compiled
def gate_and_up(plan, step, matrix, scratch):
    """inner [rows, inner] = silu(gate) * up of the quantised rows. Panels of the matrix alternate."""
    panels, chunks = matrix.outputs // (2 * plan.panel), (plan.rows + ROW_CHUNK - 1) // ROW_CHUNK
    wide = 4 * plan.panel
    unit = take(plan, step)
    while unit < panels * chunks:
        first, panel = unit // panels * ROW_CHUNK, unit % panels
        rows = min(ROW_CHUNK, plan.rows - first)
        product(plan, matrix, 2 * panel, first, rows, scratch, 2 * wide, 0)
        product(plan, matrix, 2 * panel + 1, first, rows, scratch + wide, 2 * wide, 0)
        for row in range(rows):
            gate, target = scratch + 2 * wide * row, plan.inner_rows + 4 * (first + row) * plan.inner + wide * panel
            for i in range(0, wide, 64):
                store(target + i, silu(load(gate + i)) * load(gate + wide + i))
        unit = take(plan, step)
    return meet(plan, step)


# Attention.


@compiled
def rotate(plan, source, position, factor):
    """Rotate a head [2, half] in place by its position, and multiply it with a factor."""
    half = 4 * plan.half
    cosines, sines = plan.cosines + half * position, plan.sines + half * position
    for i in range(0, half, 64):
        a, b, cosine, sine = load(source + i), load(source + half + i), load(cosines + i), load(sines + i)
        store(source + i, (a * cosine - b * sine) * splat(factor))
        store(source + half + i, (b * cosine + a * sine) * splat(factor))


@compiled
def project(plan, step, matrix, layer, scratch):
    """Queries, rotated, into their buffer [kv_heads, rows, group, head]; rotated keys and values into the cache."""
    size, group = 2 * plan.half, plan.heads // plan.kv_heads
    head_panels = size // plan.panel
    units, chunks = plan.heads + 2 * plan.kv_heads, (plan.rows + ROW_CHUNK - 1) // ROW_CHUNK
    unit = take(plan, step)
    while unit < units * chunks:
        first, head = unit // units * ROW_CHUNK, unit % units
        rows = min(ROW_CHUNK, plan.rows - first)
        for panel in range(head_panels):
            place = scratch + 4 * panel * plan.panel
            product(plan, matrix, head * head_panels + panel, first, rows, place, 4 * size, 0)
        for row in range(first, first + rows):
            source, position = scratch + 4 * size * (row - first), load_int64(plan.positions + 8 * row)
            place = plan.start + row
            if head < plan.heads:
                factor = plan.query_factor
                if plan.query_scales != 0:
                    factor = factor * load_float(plan.query_scales + 4 * position)
                rotate(plan, source, position, factor)
                kv_head, member = head // group, head % group
                target = plan.queries + 4 * size * ((kv_head * plan.rows + row) * group + member)
                for i in range(0, 4 * size, 64):
                    store(target + i, load(source + i))
            elif head < plan.heads + plan.kv_heads:
                rotate(plan, source, position, _ONE)
                kv_head = layer * plan.kv_heads + head - plan.heads
                block = plan.cache_keys + 4 * size * (kv_head * plan.capacity + place // 16 * 16)
                for i in range(size):
                    store_float(block + 64 * i + 4 * (place % 16), load_float(source + 4 * i))
            else:
                kv_head = layer * plan.kv_heads + head - plan.heads - plan.kv_heads
                target = plan.cache_values + 4 * size * (kv_head * plan.capacity + place)
                for i in range(0, 4 * size, 64):
                    store(target + i, load(source + i))
        unit = take(plan, step)
    return meet(plan, step)


@compiled
def visible(plan, row):
    """How many keys a row sees."""
    if plan.sees == CAUSAL:
        return plan.start + row + 1
    if plan.sees == LISTED:
        return plan.start + np.int64(load_int32(plan.seen_counts + 4 * row))
    return plan.start + plan.rows


@compiled
def weigh(scores, count, end):
    """Turn a row's scores of `count` keys into exp(score - largest), those up to `end` into 0. Returns their sum."""
    for key in range(count, end):
        store_float(scores + 4 * key, _HIDDEN)
    peaks = splat(_HIDDEN)
    for i in range(0, 4 * end, 64):
        peaks = maximum(peaks, load(scores + i))
    peak = splat(max_lanes(peaks))
    total = splat(_NONE)
    for i in range(0, 4 * end, 64):
        weight = exponential(load(scores + i) - peak)
        store(scores + i, weight)
        total = total + weight
    return sum_lanes(total)


@compiled
def list_keys(plan, row, order):
    """Write the places of the keys that a row sees, in their logical order."""
    for key in range(plan.start):
        store_int32(order + 4 * key, np.int32(key))
    listed = plan.seen + 4 * plan.rows * row
    for index in range(np.int64(load_int32(plan.seen_counts + 4 * row))):
        place = plan.start + np.int64(load_int32(listed + 4 * index))
        store_int32(order + 4 * (plan.start + index), np.int32(place))


@compiled
def attend(plan, step, layer, scratch):
    """mixed [rows, heads, head]: every query's values, weighted. Heads of a group share keys, so they go together."""
    size, group = 2 * plan.half, plan.heads // plan.kv_heads
    wide = 4 * plan.capacity
    scores, order = scratch, scratch + wide * plan.tile_queries
    out = order + wide
    listed = plan.sees == LISTED
    # With a list a tile is of one row, whose list it is; else of as many queries as fit.
    lot, lots = (group, plan.rows) if listed else (plan.rows * group, 1)
    tiles = (lot + plan.tile_queries - 1) // plan.tile_queries
    unit = take(plan, step)
    while unit < plan.kv_heads * lots * tiles:
        tile, kv_head = unit % tiles, unit // (lots * tiles)
        first = unit // tiles % lots * lot + tile * lot // tiles
        count = (tile + 1) * lot // tiles - tile * lot // tiles
        last = visible(plan, (first + count - 1) // group)
        reach = plan.start + plan.rows if listed else last
        base = plan.cache_keys + 4 * size * ((layer * plan.kv_heads + kv_head) * plan.capacity)
        query = plan.queries + 4 * size * (kv_head * plan.rows * group + first)
        scores_tile(count, query, 4 * size, base, size, (reach + 15) // 16, scores, wide)
        keys = plan.identity
        if listed:
            keys = order
            list_keys(plan, first // group, order)
        end = (last + 15) // 16 * 16
        for index in range(count):
            line, seen = scores + wide * index, visible(plan, (first + index) // group)
            if listed:
                for key in range(plan.start, seen):
                    place = np.int64(load_int32(order + 4 * key))
                    store_float(line + 4 * key, load_float(line + 4 * place))
            total = weigh(line, seen, end)
            store_float(out + 4 * size * plan.tile_queries + 4 * index, total)
        base = plan.cache_values + 4 * size * ((layer * plan.kv_heads + kv_head) * plan.capacity)
        mix_tile(count, scores, wide, base, size, keys, last, out)
        for index in range(count):
            row, member = (first + index) // group, (first + index) % group
            total = splat(load_float(out + 4 * size * plan.tile_queries + 4 * index))
            target = plan.mixed + 4 * (row * plan.attention + (kv_head * group + member) * size)
            for i in range(0, 4 * size, 64):
                store(target + i, load(out + 4 * size * index + i) / total)
        unit = take(plan, step)
    return meet(plan, step)


# The head.


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
                store_float(line + 4 * token, _HIDDEN)
            peaks = splat(_HIDDEN)
            for i in range(4 * begin, 4 * end, 64):
                peaks = maximum(peaks, load(line + i))
            peak = max_lanes(peaks)
            total, least = splat(_NONE), splat(peak)
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
    found, best = -1, _HIDDEN
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
        largest = _HIDDEN
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


# The forward.


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
