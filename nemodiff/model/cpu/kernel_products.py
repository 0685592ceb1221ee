"""Products of packed weights with quantised rows."""

from __future__ import annotations

from numba import types

from nemodiff.model.cpu.kernel_rows import silu
from nemodiff.model.cpu.kernel_threads import compiled, meet, take
from nemodiff.model.cpu.plan import ROW_CHUNK, SEGMENT
from nemodiff.model.cpu.vector import load, store

#: An inner tile, which `tiles` defines for an instruction set; how many rows comes first.
product_tile = types.ExternalFunction("nemodiff_product", types.int64(*[types.int64] * 10))


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
                steps + (start if plan.planes != 0 else 2 * start),
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
