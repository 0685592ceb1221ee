"""Queries, keys and values, and attention over the keys that a row sees."""

from __future__ import annotations

import numpy as np
from numba import types

from nemodiff.model.cpu.kernel_products import product
from nemodiff.model.cpu.kernel_rows import exponential
from nemodiff.model.cpu.kernel_threads import HIDDEN, NONE, ONE, compiled, meet, take
from nemodiff.model.cpu.plan import CAUSAL, LISTED, ROW_CHUNK
from nemodiff.model.cpu.vector import (
    load,
    load_float,
    load_int32,
    load_int64,
    max_lanes,
    maximum,
    splat,
    store,
    store_float,
    store_int32,
    sum_lanes,
)

#: The inner tiles, which `tiles` defines for an instruction set; how many queries comes first.
scores_tile = types.ExternalFunction("nemodiff_scores", types.int64(*[types.int64] * 8))
mix_tile = types.ExternalFunction("nemodiff_mix", types.int64(*[types.int64] * 8))


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
                rotate(plan, source, position, ONE)
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
        store_float(scores + 4 * key, HIDDEN)
    peaks = splat(HIDDEN)
    for i in range(0, 4 * end, 64):
        peaks = maximum(peaks, load(scores + i))
    peak = splat(max_lanes(peaks))
    total = splat(NONE)
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
