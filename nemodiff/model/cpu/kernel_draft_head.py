"""The draft head of one group of masks, on the thread that calls it (see `draft_head`). Nothing here has to be exact to
the bit: it proposes drafts."""

from __future__ import annotations

import math

import numpy as np
from numba import from_dtype

from nemodiff.model.cpu.kernel_rows import exponential, silu
from nemodiff.model.cpu.kernel_threads import HIDDEN, NONE, ONE, compiled
from nemodiff.model.cpu.plan import HeadPlan
from nemodiff.model.cpu.vector import (
    load,
    load_bfloat16,
    load_float,
    load_int64,
    splat,
    store,
    store_float,
    store_int64,
    structure_at,
    sum_lanes,
)

head_at = structure_at(from_dtype(np.dtype(HeadPlan)))
#: What is no guess has this at least; what a log share is divided by to become a figure.
_REST, _SURPRISE = np.float32(1e-6), np.float32(4)


@compiled
def share(logarithm):
    return np.float32(math.exp(logarithm))


@compiled
def floats_product(x, rows, inputs, weights, outputs, target):
    """target [rows, outputs] = x [rows, inputs] times weights [outputs / 16, inputs, 16], all float32; four rows at
    once, so that weights are read once for them."""
    for block in range(0, outputs, 16):
        part = weights + 4 * block * inputs
        for row in range(0, rows, 4):
            x0, x1 = x + 4 * inputs * row, x + 4 * inputs * min(row + 1, rows - 1)
            x2, x3 = x + 4 * inputs * min(row + 2, rows - 1), x + 4 * inputs * min(row + 3, rows - 1)
            sum0, sum1, sum2, sum3 = splat(NONE), splat(NONE), splat(NONE), splat(NONE)
            for i in range(0, 4 * inputs, 4):
                weight = load(part + 16 * i)
                sum0 = sum0 + splat(load_float(x0 + i)) * weight
                sum1 = sum1 + splat(load_float(x1 + i)) * weight
                sum2 = sum2 + splat(load_float(x2 + i)) * weight
                sum3 = sum3 + splat(load_float(x3 + i)) * weight
            out = target + 4 * block
            store(out + 4 * outputs * row, sum0)
            store(out + 4 * outputs * min(row + 1, rows - 1), sum1)
            store(out + 4 * outputs * min(row + 2, rows - 1), sum2)
            store(out + 4 * outputs * min(row + 3, rows - 1), sum3)


@compiled
def average(head, row):
    """What was said of a place: the embeddings of its guesses, by their shares, into a row of `said`."""
    width = 4 * head.components
    target, first = head.said + width * row, head.candidates * row
    for i in range(0, width, 64):
        store(target + i, splat(NONE))
    for one in range(first, first + head.candidates):
        part = splat(share(load_float(head.log_shares + 4 * one)))
        source = head.table + width // 2 * load_int64(head.tokens + 8 * one)
        for i in range(0, width, 64):
            store(target + i, load(target + i) + part * load_bfloat16(source + i // 2))


@compiled
def copy_embedding(head, target, token):
    width = 4 * head.components
    source = head.table + width // 2 * token
    for i in range(0, width, 64):
        store(target + i, load_bfloat16(source + i // 2))


@compiled
def copy_said(head, target, row):
    """A row of `said`; zeros for one behind the last."""
    width = 4 * head.components
    for i in range(0, width, 64):
        store(target + i, load(head.said + width * row + i) if row <= head.places else splat(NONE))


@compiled
def look_around(head, place):
    """What the head sees of a place and those around it, in the order of `DraftHead.around`."""
    width = 4 * head.components
    target = head.around_rows + 5 * width * place
    copy_said(head, target, place + 1)
    copy_said(head, target + width, place)
    if place < 2:
        copy_embedding(head, target + 2 * width, head.newest if place else head.older)
    else:
        copy_said(head, target + 2 * width, place - 1)
    copy_said(head, target + 3 * width, place + 2)
    copy_embedding(head, target + 4 * width, head.newest)


@compiled
def surprise_of_newest(head):
    """A quarter of the log share that the newest token had."""
    found = head.floor
    for i in range(head.candidates):
        if load_int64(head.tokens + 8 * i) == head.newest:
            found = max(found, load_float(head.log_shares + 4 * i))
    return found / _SURPRISE


@compiled
def parent_of(head, place, index):
    """(token that may stand before a place, how much it surprises there)."""
    if place == 0:
        return head.newest, surprise_of_newest(head)
    one = head.candidates * (place - 1) + index
    return load_int64(head.own_tokens + 8 * one), max(load_float(head.own_plain + 4 * one), head.floor) / _SURPRISE


@compiled
def add_figures(head, place):
    """Add what is the same for all tokens before a place to its row: the distance, and how sure the places were."""
    own, before = head.log_shares + 4 * head.candidates * (place + 1), head.log_shares + 4 * head.candidates * place
    entropy = NONE
    for i in range(0, 4 * head.candidates, 4):
        one = load_float(own + i)
        entropy -= share(one) * max(one, head.floor)
    sure, sure_before = max(load_float(own), head.floor), max(load_float(before), head.floor)
    newest = surprise_of_newest(head)
    row, width = head.place_rows + 4 * head.width * place, 4 * head.width
    distance = head.distance + width * min(place, head.distances - 1)
    for i in range(0, width, 64):
        figures = splat(entropy) * load(head.figures + width + i)
        figures = figures + splat(sure) * load(head.figures + 2 * width + i)
        figures = figures + splat(sure_before) * load(head.figures + 3 * width + i)
        figures = figures + splat(newest) * load(head.figures + 4 * width + i)
        store(row + i, load(row + i) + load(distance + i) + figures)


@compiled
def hide(head, place, parents):
    """The hidden layer for every token that may stand before a place, into `hidden`."""
    width = 4 * head.width
    row = head.place_rows + width * place
    for index in range(parents):
        token, surprise = parent_of(head, place, index)
        before = head.before + width // 2 * token
        for i in range(0, width, 64):
            value = load(row + i) + load_bfloat16(before + i // 2) + splat(surprise) * load(head.figures + i)
            store(head.hidden + width * index + i, silu(value))


@compiled
def weigh_candidates(head, place, index, rest):
    """What a place's guesses have behind a token before it, not yet shares of one, into `weighed`; the sum of all.
    rest: what all that is no guess has."""
    rank, own, mine = 4 * head.rank, head.candidates * place, head.pairs + 4 * head.rank * index
    pair = head.pair + rank // 2 * parent_of(head, place, index)[0]
    for i in range(0, rank, 64):
        store(mine + i, load(mine + i) + load_bfloat16(pair + i // 2))
    for i in range(0, 4 * head.row, 4):
        store_float(head.weighed + i, HIDDEN)
    for guess in range(head.candidates):
        other = head.candidate + rank // 2 * load_int64(head.own_tokens + 8 * (own + guess))
        total = splat(NONE)
        for i in range(0, rank, 64):
            total = total + load(mine + i) * load_bfloat16(other + i // 2)
        weight = min(max(sum_lanes(total) * head.scale, -head.most), head.most)
        weight = min(max(weight * head.colder, -head.most), head.most)
        store_float(head.weighed + 4 * guess, load_float(head.own_shares + 4 * (own + guess)) + weight)
    sums = splat(NONE)
    for i in range(0, 4 * head.row, 64):
        part = exponential(load(head.weighed + i))
        store(head.weighed + i, part)
        sums = sums + part
    return sum_lanes(sums) + rest


@compiled
def take_best(head, place, index, total):
    """The best of `weighed` as shares of `total`, one after the other."""
    own, target = head.candidates * place, (place * head.parents + index) * head.count
    for found in range(head.count):
        best = 0
        for guess in range(1, head.candidates):
            if load_float(head.weighed + 4 * guess) > load_float(head.weighed + 4 * best):
                best = guess
        store_int64(head.best_tokens + 8 * (target + found), load_int64(head.own_tokens + 8 * (own + best)))
        store_float(head.best_shares + 4 * (target + found), load_float(head.weighed + 4 * best) / total)
        store_float(head.weighed + 4 * best, -ONE)


@compiled
def weigh(address):
    """The likeliest drafts of a group's places behind every token that may stand before them."""
    head = head_at(address)
    for row in range(head.places + 1):
        average(head, row)
    for place in range(head.places):
        look_around(head, place)
    floats_product(head.around_rows, head.places, 5 * head.components, head.around, head.width, head.place_rows)
    for place in range(head.places):
        parents = head.parents if place else 1
        rest, own = ONE, head.candidates * place
        for one in range(own, own + head.candidates):
            rest -= share(load_float(head.own_shares + 4 * one))
        add_figures(head, place)
        hide(head, place, parents)
        floats_product(head.hidden, parents, head.width, head.out, head.rank, head.pairs)
        for index in range(parents):
            take_best(head, place, index, weigh_candidates(head, place, index, max(rest, _REST)))
