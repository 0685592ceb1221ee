"""The product on AMX, whose registers are small matrices: one instruction multiplies up to 16 rows of 64 int8 with 64
times 16 of them and adds to int32.

A quantised row has 14 bits, so it comes as two planes of int8, low and high, the second counting 128: two products,
each exact, whose sum is the one that the other tiles compute.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING

from llvmlite import ir

from nemodiff.model.cpu.tile_ir import (
    FLOAT,
    I8,
    I32,
    I64,
    VOID,
    call,
    load,
    loop,
    offset,
    prefetch,
    splat,
    store_scaled,
)

if TYPE_CHECKING:
    from nemodiff.model.cpu.tiles import Tile

#: Inputs of one step, and bytes of a register's line.
_STEP = 64
#: Registers: sums of the low and of the high plane for two vectors of outputs; both planes; two vectors of weights.
_LOW, _HIGH, _PLANES, _WEIGHTS = (0, 1), (2, 3), (4, 5), (6, 7)
#: Linux's x86-64 calls to ask for the registers, which are too large to be given to everybody.
_ARCH_PRCTL, _ASK, _TILE_DATA = 158, 0x1023, 18


@cache
def amx_allowed() -> bool:
    """Whether this process may use the registers. Asked of Linux once, for all threads; elsewhere they are not used."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK, _TILE_DATA) == 0


def define_amx_product(module: ir.Module, tile: Tile) -> None:
    """nemodiff_product(rows, …) as `tiles` defines it for others, for up to 16 rows at once; the high plane of a row of
    steps begins half a row after the low one."""
    function = ir.Function(module, ir.FunctionType(I64, [I64] * 10), "nemodiff_product")
    builder = ir.IRBuilder(function.append_basic_block())
    rows, steps, steps_row, step_scales, weights, inputs, scales, out, out_row, add = function.args
    lanes, line = tile.lanes, 4 * tile.lanes
    sums_kind = ir.ArrayType(I32, 4 * tile.rows * lanes)
    sums = builder.alloca(sums_kind)
    sums.align = 64
    sums = builder.ptrtoint(sums, I64)
    _configure(builder, rows)
    for register in (*_LOW, *_HIGH):
        call(builder, "llvm.x86.tilezero", VOID, ir.Constant(I8, register))
    high = builder.add(steps, builder.lshr(steps_row, ir.Constant(I64, 1)))
    weights_row = ir.Constant(I64, 4 * tile.panel)

    def body(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        panel = offset(builder, weights, index, tile.panel)
        for part in range(0, _STEP * tile.panel, _STEP):
            prefetch(builder, builder.add(panel, ir.Constant(I64, tile.ahead + part)))
        for register, plane in zip(_PLANES, (steps, high), strict=True):
            _move(builder, "llvm.x86.tileloadd64", register, builder.add(plane, index), steps_row)
        for part, register in enumerate(_WEIGHTS):
            _move(builder, "llvm.x86.tileloadd64", register, offset(builder, panel, part, line), weights_row)
        for plane, totals in zip(_PLANES, (_LOW, _HIGH), strict=True):
            for total, part in zip(totals, _WEIGHTS, strict=True):
                call(builder, "llvm.x86.tdpbssd", VOID, *(ir.Constant(I8, one) for one in (total, plane, part)))
        return []

    loop(builder, inputs, _STEP, [], body)
    for register in (*_LOW, *_HIGH):
        place = offset(builder, sums, register, tile.rows * line)
        _move(builder, "llvm.x86.tilestored64", register, place, ir.Constant(I64, line))
    call(builder, "llvm.x86.tilerelease", VOID)
    kind, whole = ir.VectorType(FLOAT, lanes), ir.VectorType(I32, lanes)
    columns = [load(builder, offset(builder, scales, vector, line), kind, 4) for vector in range(tile.vectors)]
    keep = builder.icmp_signed("!=", add, ir.Constant(I64, 0))

    def finish(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        row_scale = splat(builder, load(builder, offset(builder, step_scales, row, 4), FLOAT, 4), lanes)
        for vector in range(tile.vectors):
            places = (offset(builder, sums, plane[vector], tile.rows * line) for plane in (_LOW, _HIGH))
            low, above = (load(builder, offset(builder, place, row, line), whole, 64) for place in places)
            total = builder.add(low, builder.shl(above, ir.Constant(whole, [7] * lanes)))
            address = offset(builder, offset(builder, out, row, out_row), vector, line)
            store_scaled(builder, total, (columns[vector], row_scale), keep, address)
        return []

    loop(builder, rows, 1, [], finish)
    builder.ret(ir.Constant(I64, 0))


def _configure(builder: ir.IRBuilder, rows: ir.Value) -> None:
    """Set the registers' shapes: `rows` lines of 64 bytes, and 16 of them for weights."""
    content = [0] * 64
    content[0] = 1
    for register in range(8):
        content[16 + 2 * register] = _STEP
    for register in _WEIGHTS:
        content[48 + register] = _STEP // 4
    kind = ir.VectorType(I8, 64)
    config = builder.alloca(kind)
    config.align = 64
    shape = ir.Constant(kind, content)
    few = builder.trunc(rows, I8)
    for register in (*_LOW, *_HIGH, *_PLANES):
        shape = builder.insert_element(shape, few, ir.Constant(I32, 48 + register))
    builder.store(shape, config, align=64)
    call(builder, "llvm.x86.ldtilecfg", VOID, builder.bitcast(config, I8.as_pointer()))


def _move(builder: ir.IRBuilder, name: str, register: int, address: ir.Value, stride: ir.Value) -> None:
    pointer = builder.inttoptr(address, I8.as_pointer())
    call(builder, name, VOID, ir.Constant(I8, register), pointer, stride)
