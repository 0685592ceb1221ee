"""Rows: norms, and floats as steps of 14 bits; the exponential that softmax, SiLU and the head share."""

from __future__ import annotations

import math

import numpy as np

from nemodiff.model.cpu.kernel_threads import NONE, ONE, compiled, meet, take
from nemodiff.model.cpu.plan import ACTIVATION_PEAK
from nemodiff.model.cpu.vector import (
    absolute,
    load,
    max_lanes,
    maximum,
    nearest,
    power_of_two,
    splat,
    store_float,
    store_int8,
    store_int16,
    sum_lanes,
    where_less,
)

_PEAK = np.float32(ACTIVATION_PEAK)


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
    value = value * rest * rest + rest + splat(ONE)
    return where_less(x, splat(np.float32(-87)), value * power_of_two(whole))


@compiled
def silu(x):
    """x / (1 + e^-x) of 16 floats."""
    bounded = maximum(x, splat(np.float32(-87)))
    return x / (splat(ONE) + exponential(splat(NONE) - bounded))


@compiled
def write_steps(x, norm, width, peak, steps, planes):
    """x (times norm, if there is one) as steps, the largest magnitude being `peak`.

    As int16; where the tile takes planes as int8 [width] and then [width], the second counting 128.
    """
    inverse = splat(_PEAK / peak if peak > 0 else NONE)
    for i in range(0, 4 * width, 64):
        value = load(x + i)
        if norm != 0:
            value = value * load(norm + i)
        whole = nearest(value * inverse)
        if planes != 0:
            high = nearest(whole * splat(np.float32(1 / 128)))
            store_int8(steps + i // 4, whole - high * splat(np.float32(128)))
            store_int8(steps + width + i // 4, high)
        else:
            store_int16(steps + i // 2, whole)


@compiled
def quantise_row(x, width, steps, scale, planes):
    """A row of `width` floats as steps and, at `scale`, the size of a step: none where one of them is no number."""
    peaks, odd = splat(NONE), splat(NONE)
    for i in range(0, 4 * width, 64):
        value = load(x + i)
        peaks = maximum(peaks, absolute(value))
        odd = odd + value * splat(NONE)
    peak = max_lanes(peaks)
    write_steps(x, 0, width, peak, steps, planes)
    store_float(scale, peak / _PEAK + sum_lanes(odd))


@compiled
def quantise_normed_row(plan, x, norm, steps, scale):
    """As `quantise_row`, of the normed row; the norm's division is uniform over a row and goes into its scale."""
    squares, peaks = splat(NONE), splat(NONE)
    for i in range(0, 4 * plan.hidden, 64):
        value = load(x + i)
        squares = squares + value * value
        peaks = maximum(peaks, absolute(value * load(norm + i)))
    peak = max_lanes(peaks)
    write_steps(x, norm, plan.hidden, peak, steps, plan.planes)
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
        scale = plan.step_scales + 4 * row
        quantise_row(x + 4 * width * row, width, plan.steps + 2 * width * row, scale, plan.planes)
        row = take(plan, step)
    return meet(plan, step)
