"""The inner tiles, written as LLVM IR for one instruction set: the integer product and both halves of attention.

A tile keeps its sums in vector registers, so how many rows it takes depends on how many of these there are and how
wide they are. Whatever the tile, a row's result has the same bits: the product's sums are integers, which are exact,
and attention adds in one order per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_FLOAT, _VOID = ir.FloatType(), ir.VoidType()
#: Lanes of attention's vectors: keys of a block, and dimensions of a value that are added at once.
_LANES = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """How the kernels are built for an instruction set.

    lanes: int32 sums in a register. vectors: registers of outputs that a product takes at once; lanes * vectors
    outputs are a panel of the packed weights. rows: the most rows of a product. queries: the most of attention.
    needs: the processor's features without which it cannot run. without: features that are not used.
    tuning: LLVM's words for what is fast. ahead: how many bytes before they are needed weights are asked for: the
    processor's own look-ahead stops at every 4 KB.
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

    @property
    def panel(self) -> int:
        return self.lanes * self.vectors


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
    function = ir.Function(module, ir.FunctionType(_I64, [_I64, *kind.args]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    count, *arguments = function.args
    done = function.append_basic_block("done")
    switch = builder.switch(count, done)
    for index, chosen in enumerate(functions):
        with builder.goto_block(case := function.append_basic_block()):
            builder.call(chosen, arguments)
            builder.branch(done)
        switch.add_case(ir.Constant(_I64, index + 1), case)
    builder.position_at_end(done)
    builder.ret(ir.Constant(_I64, 0))


def _function(module: ir.Module, name: str, parameters: int) -> tuple[ir.Function, ir.IRBuilder]:
    function = ir.Function(module, ir.FunctionType(_VOID, [_I64] * parameters), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, ir.IRBuilder(function.append_basic_block())


def _loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    step: int,
    sums: list[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """for index in range(0, count, step): sums = body(index, sums). Returns the sums after it; count may be 0."""
    function, before = builder.function, builder.block
    head, inside, after = (function.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_I64)
    carried = [builder.phi(value.type) for value in sums]
    index.add_incoming(ir.Constant(_I64, 0), before)
    for phi, value in zip(carried, sums, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), inside, after)
    builder.position_at_end(inside)
    made = body(index, carried)
    index.add_incoming(builder.add(index, ir.Constant(_I64, step)), builder.block)
    for phi, value in zip(carried, made, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return carried


def _offset(builder: ir.IRBuilder, base: ir.Value, index: ir.Value | int, stride: ir.Value | int) -> ir.Value:
    index, stride = (ir.Constant(_I64, part) if isinstance(part, int) else part for part in (index, stride))
    return builder.add(base, builder.mul(index, stride))


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int = 4) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _call(builder: ir.IRBuilder, name: str, kind: ir.Type, *arguments: ir.Value) -> ir.Value:
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [one.type for one in arguments]), name)
    return builder.call(function, arguments)


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for a line of memory that will be read, into the second level of the cache."""
    pointer = builder.inttoptr(address, _I8.as_pointer())
    _call(builder, "llvm.prefetch.p0", _VOID, pointer, *(ir.Constant(_I32, value) for value in (0, 2, 1)))


def _dot(builder: ir.IRBuilder, tile: Tile, total: ir.Value, weights: ir.Value, steps: ir.Value) -> ir.Value:
    """total [lanes] int32 plus the products of neighbouring int16 of weights and steps [2 lanes]."""
    kind = total.type
    if tile.needs:
        # Where there is VNNI, LLVM makes one instruction of the product and the sum; unless told that this is fast it
        # takes it apart again, for the sake of a shorter chain that tiles of many sums do not have.
        name = "llvm.x86.avx512.pmaddw.d.512" if tile.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        return builder.add(total, _call(builder, name, kind, weights, steps))
    wide = ir.VectorType(_I32, 2 * tile.lanes)
    products = builder.mul(builder.sext(weights, wide), builder.sext(steps, wide))
    even, odd = (
        builder.shuffle_vector(
            products, products, ir.Constant(ir.VectorType(_I32, tile.lanes), list(range(start, 2 * tile.lanes, 2)))
        )
        for start in (0, 1)
    )
    return builder.add(total, builder.add(even, odd))


def _product(module: ir.Module, tile: Tile, rows: int) -> ir.Function:
    """One panel of outputs of `rows` rows: out (+)= float(weights · steps) · scales · step_scales.

    (steps int16 [rows, …], bytes a row of them, step_scales [rows], weights, inputs, scales [panel], out [rows, …],
    bytes a row of it, whether to add).
    """
    function, builder = _function(module, f"product_{rows}", 9)
    steps, steps_row, step_scales, weights, inputs, scales, out, out_row, add = function.args
    lanes, vectors = tile.lanes, tile.vectors
    sums, narrow, wide = ir.VectorType(_I32, lanes), ir.VectorType(_I8, 2 * lanes), ir.VectorType(_I16, 2 * lanes)
    # Few rows have too few sums to hide how long an addition takes: several pairs of inputs are then summed apart.
    apart = next(count for count in (1, 2, 4) if rows * vectors * count >= 8 or count == 4)
    starts = [_offset(builder, steps, row, steps_row) for row in range(rows)]

    def body(pair: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        made, totals = [], iter(totals)
        for part in range(apart):
            here = builder.add(pair, ir.Constant(_I64, part))
            panel = _offset(builder, weights, here, 2 * tile.panel)
            _prefetch(builder, builder.add(panel, ir.Constant(_I64, tile.ahead)))
            columns = [
                builder.sext(_load(builder, _offset(builder, panel, vector, 2 * lanes), narrow, 1), wide)
                for vector in range(vectors)
            ]
            for start in starts:
                two = _load(builder, _offset(builder, start, here, 4), _I32, 2)
                both = builder.bitcast(_splat(builder, two, lanes), wide)
                made += [_dot(builder, tile, next(totals), column, both) for column in columns]
        return made

    pairs = builder.lshr(inputs, ir.Constant(_I64, 1))
    zero = [ir.Constant(sums, [0] * lanes)] * (apart * rows * vectors)
    totals = _loop(builder, pairs, apart, zero, body)
    each = rows * vectors
    while len(totals) > each:
        half = len(totals) // 2
        totals = [builder.add(a, b) for a, b in zip(totals[:half], totals[half:], strict=True)]
    kind = ir.VectorType(_FLOAT, lanes)
    columns = [_load(builder, _offset(builder, scales, vector, 4 * lanes), kind, 4) for vector in range(vectors)]
    keep = builder.icmp_signed("!=", add, ir.Constant(_I64, 0))
    for row in range(rows):
        row_scale = _splat(builder, _load(builder, _offset(builder, step_scales, row, 4), _FLOAT, 4), lanes)
        for vector in range(vectors):
            address = _offset(builder, _offset(builder, out, row, out_row), vector, 4 * lanes)
            value = builder.sitofp(totals[row * vectors + vector], kind)
            value = builder.fmul(builder.fmul(value, columns[vector]), row_scale)
            old = builder.select(keep, _load(builder, address, kind, 4), ir.Constant(kind, [0.0] * lanes))
            _store(builder, builder.fadd(old, value), address)
    builder.ret_void()
    return function


def _multiply_add(builder: ir.IRBuilder, fused: bool, a: ir.Value, b: ir.Value, total: ir.Value) -> ir.Value:
    if fused:
        return _call(builder, f"llvm.fma.v{_LANES}f32", total.type, a, b, total)
    return builder.fadd(total, builder.fmul(a, b))


def _scores(module: ir.Module, tile: Tile, queries: int, fused: bool) -> ir.Function:
    """Products of `queries` queries with blocks of 16 keys, dimension by dimension.

    (queries [queries, dimensions], bytes a query, keys [blocks, dimensions, 16], dimensions, blocks,
    out [queries, …], bytes a row of it).
    """
    function, builder = _function(module, f"scores_{queries}", 7)
    first, query_bytes, keys, dimensions, blocks, out, out_row = function.args
    kind = ir.VectorType(_FLOAT, _LANES)
    block_bytes = builder.mul(dimensions, ir.Constant(_I64, 4 * _LANES))
    starts = [_offset(builder, first, query, query_bytes) for query in range(queries)]
    # Few queries have too few sums to hide how long an addition takes: several blocks go together, then the rest.
    most = max(1, tile.queries // queries)

    def go(together: int, block: ir.Value) -> None:
        bases = [
            _offset(builder, keys, builder.add(block, ir.Constant(_I64, one)), block_bytes) for one in range(together)
        ]

        def body(dimension: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            made, totals = [], iter(totals)
            columns = [_load(builder, _offset(builder, base, dimension, 4 * _LANES), kind, 4) for base in bases]
            for start in starts:
                one = _splat(builder, _load(builder, _offset(builder, start, dimension, 4), _FLOAT, 4), _LANES)
                made += [_multiply_add(builder, fused, one, column, next(totals)) for column in columns]
            return made

        zero = [ir.Constant(kind, [0.0] * _LANES)] * (queries * together)
        totals = iter(_loop(builder, dimensions, 1, zero, body))
        for query in range(queries):
            for one in range(together):
                place = builder.add(block, ir.Constant(_I64, one))
                address = _offset(builder, _offset(builder, out, query, out_row), place, 4 * _LANES)
                _store(builder, next(totals), address)

    whole = builder.mul(builder.sdiv(blocks, ir.Constant(_I64, most)), ir.Constant(_I64, most))

    def together(block: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        go(most, block)
        return totals

    def alone(block: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        go(1, builder.add(whole, block))
        return totals

    _loop(builder, whole, most, [], together)
    if most > 1:
        _loop(builder, builder.sub(blocks, whole), 1, [], alone)
    builder.ret_void()
    return function


def _mix(module: ir.Module, queries: int, fused: bool) -> ir.Function:
    """Values added up by their weights, key by key in the order of a list.

    (weights [queries, …], bytes a row of them, values [positions, dimensions], dimensions, list int32 [keys], keys,
    out [queries, dimensions]).
    """
    function, builder = _function(module, f"mix_{queries}", 7)
    weights, weights_row, values, dimensions, order, keys, out = function.args
    kind = ir.VectorType(_FLOAT, _LANES)
    value_bytes = builder.mul(dimensions, ir.Constant(_I64, 4))
    starts = [_offset(builder, weights, query, weights_row) for query in range(queries)]

    def part(dimension: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        base = _offset(builder, values, dimension, 4)

        def body(key: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            place = builder.sext(_load(builder, _offset(builder, order, key, 4), _I32, 4), _I64)
            row = _offset(builder, base, place, value_bytes)
            both = [_load(builder, _offset(builder, row, half, 4 * _LANES), kind, 4) for half in range(2)]
            made, totals = [], iter(totals)
            for start in starts:
                one = _splat(builder, _load(builder, _offset(builder, start, key, 4), _FLOAT, 4), _LANES)
                made += [_multiply_add(builder, fused, one, value, next(totals)) for value in both]
            return made

        sums = iter(_loop(builder, keys, 1, [ir.Constant(kind, [0.0] * _LANES)] * (2 * queries), body))
        for query in range(queries):
            line = _offset(builder, _offset(builder, out, query, value_bytes), dimension, 4)
            for half in range(2):
                _store(builder, next(sums), _offset(builder, line, half, 4 * _LANES))
        return totals

    _loop(builder, dimensions, 2 * _LANES, [], part)
    builder.ret_void()
    return function
