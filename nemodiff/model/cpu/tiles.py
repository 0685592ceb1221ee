"""The inner tiles, written as LLVM IR for one instruction set: the integer product and both halves of attention.

A tile keeps its sums in vector registers, so how many rows it takes depends on how many of these there are and how
wide they are. Whatever the tile, a row's result has the same bits: the product's sums are integers, which are exact,
and attention adds in one order per row.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from nemodiff.model.cpu.tile_amx import define_amx_product
from nemodiff.model.cpu.tile_ir import (
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    VOID,
    call,
    load,
    loop,
    offset,
    prefetch,
    splat,
    store,
    store_scaled,
)

#: Lanes of attention's vectors: keys of a block, and dimensions of a value that are added at once.
_LANES = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """How the kernels are built for an instruction set.

    lanes: int32 sums in a register. vectors: registers of outputs that a product takes at once; lanes * vectors
    outputs are a panel of the packed weights. rows: the most rows of a product. queries: the most of attention.
    needs: the processor's features without which it cannot run. without: features that are not used.
    tuning: LLVM's words for what is fast. ahead: how many bytes before they are needed weights are asked for: the
    processor's own look-ahead stops at every 4 KB. together: inputs whose weights lie side by side: 2 for products of
    int16; 4 for those of int8, of which a quantised row then has two planes.
    """

    name: str
    lanes: int
    vectors: int
    rows: int
    queries: int
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    tuning: tuple[str, ...] = ()
    ahead: int = 4096
    together: int = 2

    @property
    def panel(self) -> int:
        return self.lanes * self.vectors

    @property
    def planes(self) -> bool:
        """Whether a quantised row is two planes of int8."""
        return self.together == 4


_AMX = ("amx-tile", "amx-int8", "amx-bf16", "amx-fp16", "amx-complex", "amx-tf32", "amx-fp8", "amx-movrs", "amx-avx512")
_VNNI = ("avx512vnni", "avxvnni", "avxvnniint8", "avxvnniint16", "avx10.1", "avx10.2", "avx10.1-512", "avx10.2-512")
_AVX512 = tuple(
    f"avx512{part}"
    for part in ("f", "bw", "cd", "dq", "vl", "ifma", "vbmi", "vbmi2", "bitalg", "vpopcntdq", "bf16", "fp16")
) + ("avx512vp2intersect", "evex512")
_WIDE = ("avx512f", "avx512bw", "avx512vl", "fma")
TILES = {
    tile.name: tile
    for tile in (
        Tile("amx", 16, 2, 16, 8, (*_WIDE, "amx-tile", "amx-int8"), together=4),
        Tile("vnni", 16, 2, 12, 8, (*_WIDE, "avx512vnni"), without=_AMX, tuning=("fast-dpwssd",)),
        Tile("avx512", 16, 2, 12, 8, _WIDE, without=_AMX + _VNNI),
        Tile("avx2", 8, 2, 6, 3, ("avx2", "fma"), without=_AMX + _VNNI + _AVX512),
        Tile("generic", 4, 4, 4, 3, without=_AMX + _VNNI + _AVX512),
    )
}


def define_tiles(module: ir.Module, tile: Tile, fused: bool) -> None:
    """Define what `kernels` calls, nemodiff_product, nemodiff_scores and nemodiff_mix, for `tile`.

    fused: whether the machine multiplies and adds floats in one rounding step; where not, in two.
    """
    if tile.planes:
        define_amx_product(module, tile)
    else:
        products = [_product(module, tile, rows) for rows in range(1, tile.rows + 1)]
        _by_count(module, "nemodiff_product", products)
    scores = [_scores(module, tile, queries, fused) for queries in range(1, tile.queries + 1)]
    _by_count(module, "nemodiff_scores", scores)
    mixes = [_mix(module, queries, fused) for queries in range(1, tile.queries + 1)]
    _by_count(module, "nemodiff_mix", mixes)


def _by_count(module: ir.Module, name: str, functions: list[ir.Function]) -> None:
    """Define `name(count, …)`, which calls the function for that count."""
    kind = functions[0].function_type
    # It returns 0: numba knows no external functions that return nothing.
    function = ir.Function(module, ir.FunctionType(I64, [I64, *kind.args]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    count, *arguments = function.args
    done = function.append_basic_block("done")
    switch = builder.switch(count, done)
    for index, chosen in enumerate(functions):
        with builder.goto_block(case := function.append_basic_block()):
            builder.call(chosen, arguments)
            builder.branch(done)
        switch.add_case(ir.Constant(I64, index + 1), case)
    builder.position_at_end(done)
    builder.ret(ir.Constant(I64, 0))


def _function(module: ir.Module, name: str, parameters: int) -> tuple[ir.Function, ir.IRBuilder]:
    function = ir.Function(module, ir.FunctionType(VOID, [I64] * parameters), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block())


def _dot(builder: ir.IRBuilder, tile: Tile, total: ir.Value, weights: ir.Value, steps: ir.Value) -> ir.Value:
    """total [lanes] int32 plus the products of neighbouring int16 of weights and steps [2 lanes]."""
    kind = total.type
    if tile.needs:
        # Where there is VNNI, LLVM makes one instruction of the product and the sum; unless told that this is fast it
        # takes it apart again, for the sake of a shorter chain that tiles of many sums do not have.
        name = "llvm.x86.avx512.pmaddw.d.512" if tile.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        return builder.add(total, call(builder, name, kind, weights, steps))
    wide = ir.VectorType(I32, 2 * tile.lanes)
    products = builder.mul(builder.sext(weights, wide), builder.sext(steps, wide))
    even, odd = (
        builder.shuffle_vector(
            products, products, ir.Constant(ir.VectorType(I32, tile.lanes), list(range(start, 2 * tile.lanes, 2)))
        )
        for start in (0, 1)
    )
    return builder.add(total, builder.add(even, odd))


def _product(module: ir.Module, tile: Tile, rows: int) -> ir.Function:
    """One panel of outputs of `rows` rows: out (+)= float(weights · steps) · scales · step_scales.

    (steps int16 [rows, …], bytes per row of them, step_scales [rows], weights, inputs, scales [panel], out [rows, …],
    bytes per row of it, whether to add).
    """
    function, builder = _function(module, f"product_{rows}", 9)
    steps, steps_row, step_scales, weights, inputs, scales, out, out_row, add = function.args
    lanes, vectors = tile.lanes, tile.vectors
    sums, narrow, wide = ir.VectorType(I32, lanes), ir.VectorType(I8, 2 * lanes), ir.VectorType(I16, 2 * lanes)
    # Few rows have too few sums to hide how long an addition takes: several pairs of inputs are then summed apart.
    apart = next(count for count in (1, 2, 4) if rows * vectors * count >= 8 or count == 4)
    starts = [offset(builder, steps, row, steps_row) for row in range(rows)]

    def body(pair: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        made, totals = [], iter(totals)
        for part in range(apart):
            here = builder.add(pair, ir.Constant(I64, part))
            panel = offset(builder, weights, here, 2 * tile.panel)
            prefetch(builder, builder.add(panel, ir.Constant(I64, tile.ahead)))
            columns = [
                builder.sext(load(builder, offset(builder, panel, vector, 2 * lanes), narrow, 1), wide)
                for vector in range(vectors)
            ]
            for start in starts:
                two = load(builder, offset(builder, start, here, 4), I32, 2)
                both = builder.bitcast(splat(builder, two, lanes), wide)
                made += [_dot(builder, tile, next(totals), column, both) for column in columns]
        return made

    pairs = builder.lshr(inputs, ir.Constant(I64, 1))
    zero = [ir.Constant(sums, [0] * lanes)] * (apart * rows * vectors)
    totals = loop(builder, pairs, apart, zero, body)
    each = rows * vectors
    while len(totals) > each:
        half = len(totals) // 2
        totals = [builder.add(a, b) for a, b in zip(totals[:half], totals[half:], strict=True)]
    kind = ir.VectorType(FLOAT, lanes)
    columns = [load(builder, offset(builder, scales, vector, 4 * lanes), kind, 4) for vector in range(vectors)]
    keep = builder.icmp_signed("!=", add, ir.Constant(I64, 0))
    for row in range(rows):
        row_scale = splat(builder, load(builder, offset(builder, step_scales, row, 4), FLOAT, 4), lanes)
        for vector in range(vectors):
            address = offset(builder, offset(builder, out, row, out_row), vector, 4 * lanes)
            store_scaled(builder, totals[row * vectors + vector], (columns[vector], row_scale), keep, address)
    builder.ret_void()
    return function


def _multiply_add(builder: ir.IRBuilder, fused: bool, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    if fused:
        return call(builder, f"llvm.fma.v{_LANES}f32", total.type, a, b, total)
    return builder.fadd(total, builder.fmul(a, b))


def _scores(module: ir.Module, tile: Tile, queries: int, fused: bool) -> ir.Function:
    """Products of `queries` queries with blocks of 16 keys, dimension by dimension.

    (queries [queries, dimensions], bytes a query, keys [blocks, dimensions, 16], dimensions, blocks,
    out [queries, …], bytes per row of it).
    """
    function, builder = _function(module, f"scores_{queries}", 7)
    first, query_bytes, keys, dimensions, blocks, out, out_row = function.args
    kind = ir.VectorType(FLOAT, _LANES)
    block_bytes = builder.mul(dimensions, ir.Constant(I64, 4 * _LANES))
    starts = [offset(builder, first, query, query_bytes) for query in range(queries)]
    # Few queries have too few sums to hide how long an addition takes: several blocks go together, then the rest.
    most = max(1, tile.queries // queries)

    def go(together: int, block: ir.Value) -> None:
        bases = [
            offset(builder, keys, builder.add(block, ir.Constant(I64, one)), block_bytes) for one in range(together)
        ]

        def body(dimension: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            made, totals = [], iter(totals)
            columns = [load(builder, offset(builder, base, dimension, 4 * _LANES), kind, 4) for base in bases]
            for start in starts:
                one = splat(builder, load(builder, offset(builder, start, dimension, 4), FLOAT, 4), _LANES)
                made += [_multiply_add(builder, fused, one, column, next(totals)) for column in columns]
            return made

        zero = [ir.Constant(kind, [0.0] * _LANES)] * (queries * together)
        totals = iter(loop(builder, dimensions, 1, zero, body))
        for query in range(queries):
            for one in range(together):
                place = builder.add(block, ir.Constant(I64, one))
                address = offset(builder, offset(builder, out, query, out_row), place, 4 * _LANES)
                store(builder, next(totals), address)

    whole = builder.mul(builder.sdiv(blocks, ir.Constant(I64, most)), ir.Constant(I64, most))

    def together(block: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        go(most, block)
        return totals

    def alone(block: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        go(1, builder.add(whole, block))
        return totals

    loop(builder, whole, most, [], together)
    if most > 1:
        loop(builder, builder.sub(blocks, whole), 1, [], alone)
    builder.ret_void()
    return function


def _mix(module: ir.Module, queries: int, fused: bool) -> ir.Function:
    """Values added up by their weights, key by key in the order of a list.

    (weights [queries, …], bytes per row of them, values [positions, dimensions], dimensions, list int32 [keys], keys,
    out [queries, dimensions]).
    """
    function, builder = _function(module, f"mix_{queries}", 7)
    weights, weights_row, values, dimensions, order, keys, out = function.args
    kind = ir.VectorType(FLOAT, _LANES)
    value_bytes = builder.mul(dimensions, ir.Constant(I64, 4))
    starts = [offset(builder, weights, query, weights_row) for query in range(queries)]

    def part(dimension: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        base = offset(builder, values, dimension, 4)

        def body(key: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            place = builder.sext(load(builder, offset(builder, order, key, 4), I32, 4), I64)
            row = offset(builder, base, place, value_bytes)
            both = [load(builder, offset(builder, row, half, 4 * _LANES), kind, 4) for half in range(2)]
            made, totals = [], iter(totals)
            for start in starts:
                one = splat(builder, load(builder, offset(builder, start, key, 4), FLOAT, 4), _LANES)
                made += [_multiply_add(builder, fused, one, value, next(totals)) for value in both]
            return made

        sums = iter(loop(builder, keys, 1, [ir.Constant(kind, [0.0] * _LANES)] * (2 * queries), body))
        for query in range(queries):
            line = offset(builder, offset(builder, out, query, value_bytes), dimension, 4)
            for half in range(2):
                store(builder, next(sums), offset(builder, line, half, 4 * _LANES))
        return totals

    loop(builder, dimensions, 2 * _LANES, [], part)
    builder.ret_void()
    return function
