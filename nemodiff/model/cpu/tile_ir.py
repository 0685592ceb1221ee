"""Words of LLVM's language that all tiles use. Addresses are int64, offsets are in bytes."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, VOID = ir.FloatType(), ir.VoidType()


def loop(
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
    index = builder.phi(I64)
    carried = [builder.phi(value.type) for value in sums]
    index.add_incoming(ir.Constant(I64, 0), before)
    for phi, value in zip(carried, sums, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), inside, after)
    builder.position_at_end(inside)
    made = body(index, carried)
    index.add_incoming(builder.add(index, ir.Constant(I64, step)), builder.block)
    for phi, value in zip(carried, made, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return carried


def offset(builder: ir.IRBuilder, base: ir.Value, index: ir.Value | int, stride: ir.Value | int) -> ir.Value:
    index, stride = (ir.Constant(I64, part) if isinstance(part, int) else part for part in (index, stride))
    return builder.add(base, builder.mul(index, stride))


def load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int = 4) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def call(builder: ir.IRBuilder, name: str, kind: ir.Type, *arguments: ir.Value) -> ir.Value:
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [one.type for one in arguments]), name)
    return builder.call(function, arguments)


def prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for a line of memory that will be read, into the second level of the cache."""
    pointer = builder.inttoptr(address, I8.as_pointer())
    call(builder, "llvm.prefetch.p0", VOID, pointer, *(ir.Constant(I32, value) for value in (0, 2, 1)))


def store_scaled(
    builder: ir.IRBuilder, total: ir.Value, scales: tuple[ir.Value, ir.Value], keep: ir.Value, address: ir.Value
) -> None:
    """Store int32 sums as floats times both scales, in this order; plus what is at the address, where `keep`."""
    kind = scales[0].type
    value = builder.fmul(builder.fmul(builder.sitofp(total, kind), scales[0]), scales[1])
    old = builder.select(keep, load(builder, address, kind, 4), ir.Constant(kind, [0.0] * kind.count))
    store(builder, builder.fadd(old, value), address)
