"""A vector of 16 float32 for numba, and what kernels need beside it: raw addresses, atomics, a pause while spinning.

numba has no vectors of its own and leaves it to LLVM's optimiser which loops become vector code, in an order of sums
that may differ from loop to loop. With a type of 16 lanes every sum has one written order, on every instruction set:
where a machine has narrower registers LLVM splits the lanes, and the bits of the result stay the same.

Only imported to compile: a machine that has the compiled kernels in its cache never loads numba.
"""

from __future__ import annotations

import operator
import platform
from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_FLOAT = ir.FloatType()
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_VECTOR, _INTEGERS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_I32, LANES)


class Floats(types.Type):
    """The numba type of 16 float32."""

    def __init__(self) -> None:
        super().__init__(name="f32x16")


floats = Floats()


@register_model(Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _VECTOR)


def _at(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(address, kind.as_pointer())


def _call(builder: ir.IRBuilder, name: str, kind: ir.Type, *arguments: ir.Value) -> ir.Value:
    function = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _splat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _fold(builder: ir.IRBuilder, value: ir.Value, join: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
    """One scalar of all lanes: halves joined with halves, in an order that never varies."""
    width = LANES
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(_I32, width), list(range(start, start + width)))
            )
            for start in (0, width)
        ]
        value = join(*halves)
    return builder.extract_element(value, ir.Constant(_I32, 0))


@intrinsic
def load(typing, address):
    """16 floats at an address, which need not be aligned."""

    def generate(context, builder, signature, arguments):
        return builder.load(_at(builder, arguments[0], _VECTOR), align=4)

    return floats(types.intp), generate


@intrinsic
def store(typing, address, value):
    """Store 16 floats at an address."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[1], _at(builder, arguments[0], _VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, floats), generate


@intrinsic
def splat(typing, value):
    """16 times the same float32."""

    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return floats(types.float32), generate


def _unary(build: Callable[[ir.IRBuilder, ir.Value], ir.Value]):
    @intrinsic
    def function(typing, value):
        return floats(floats), lambda context, builder, signature, arguments: build(builder, arguments[0])

    return function


def _binary(build: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]):
    @intrinsic
    def function(typing, first, second):
        return floats(floats, floats), lambda context, builder, signature, arguments: build(builder, *arguments)

    return function


_add = _binary(lambda builder, a, b: builder.fadd(a, b))
_subtract = _binary(lambda builder, a, b: builder.fsub(a, b))
_multiply = _binary(lambda builder, a, b: builder.fmul(a, b))
_divide = _binary(lambda builder, a, b: builder.fdiv(a, b))


def _larger(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _power_of_two(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    whole = builder.add(builder.fptosi(value, _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
    return builder.bitcast(builder.shl(whole, ir.Constant(_INTEGERS, [23] * LANES)), _VECTOR)


maximum = _binary(_larger)
absolute = _unary(lambda builder, value: _call(builder, "llvm.fabs.v16f32", _VECTOR, value))
nearest = _unary(lambda builder, value: _call(builder, "llvm.roundeven.v16f32", _VECTOR, value))
#: 2 to the power of whole numbers from -126 to 127, exact.
power_of_two = _unary(_power_of_two)


@intrinsic
def where_less(typing, value, limit, otherwise):
    """Lane by lane: 0 where value < limit, else otherwise."""

    def generate(context, builder, signature, arguments):
        less = builder.fcmp_ordered("<", arguments[0], arguments[1])
        return builder.select(less, ir.Constant(_VECTOR, [0.0] * LANES), arguments[2])

    return floats(floats, floats, floats), generate


@intrinsic
def sum_lanes(typing, value):
    """The sum of the lanes, in one fixed order."""
    return types.float32(floats), lambda context, builder, signature, arguments: _fold(
        builder, arguments[0], builder.fadd
    )


@intrinsic
def max_lanes(typing, value):
    """The largest of the lanes."""
    return types.float32(floats), lambda context, builder, signature, arguments: _fold(
        builder, arguments[0], lambda a, b: _larger(builder, a, b)
    )


def _whole_writer(element: ir.Type):
    @intrinsic
    def function(typing, address, value):
        def generate(context, builder, signature, arguments):
            narrow = ir.VectorType(element, LANES)
            whole = builder.trunc(builder.fptosi(arguments[1], _INTEGERS), narrow)
            builder.store(whole, _at(builder, arguments[0], narrow), align=element.width // 8)
            return context.get_dummy_value()

        return types.void(types.intp, floats), generate

    return function


#: Store whole numbers, 16 lanes, as integers.
store_int16, store_int8 = _whole_writer(_I16), _whole_writer(_I8)


@intrinsic
def load_bfloat16(typing, address):
    """16 bfloat16 at an address, as floats."""

    def generate(context, builder, signature, arguments):
        narrow = builder.load(_at(builder, arguments[0], ir.VectorType(_I16, LANES)), align=2)
        wide = builder.shl(builder.zext(narrow, _INTEGERS), ir.Constant(_INTEGERS, [16] * LANES))
        return builder.bitcast(wide, _VECTOR)

    return floats(types.intp), generate


def _reader(element: ir.Type, kind: types.Type):
    @intrinsic
    def function(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.load(_at(builder, arguments[0], element))

        return kind(types.intp), generate

    return function


def _writer(element: ir.Type, kind: types.Type):
    @intrinsic
    def function(typing, address, value):
        def generate(context, builder, signature, arguments):
            builder.store(arguments[1], _at(builder, arguments[0], element))
            return context.get_dummy_value()

        return types.void(types.intp, kind), generate

    return function


load_float, store_float = _reader(_FLOAT, types.float32), _writer(_FLOAT, types.float32)
load_int32, store_int32 = _reader(_I32, types.int32), _writer(_I32, types.int32)
load_int64, store_int64 = _reader(_I64, types.int64), _writer(_I64, types.int64)


def structure_at(kind: types.Record):
    """An intrinsic: address → the structure there, whose fields are then read by name."""

    @intrinsic
    def function(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.intp), generate

    return function


@intrinsic
def fetch_add(typing, address, value):
    """Add to an int64 that threads share; returns what it was. Nothing moves across it."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _at(builder, arguments[0], _I64), arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), generate


@intrinsic
def load_shared(typing, address):
    """An int64 that threads share; what its writer wrote before is seen after."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_at(builder, arguments[0], _I64), "acquire", 8)

    return types.int64(types.intp), generate


@intrinsic
def read_clock(typing):
    """A count of the processor's ticks; only differences mean anything."""

    def generate(context, builder, signature, arguments):
        return _call(builder, "llvm.readcyclecounter", _I64)

    return types.int64(), generate


@intrinsic
def pause(typing):
    """Tell the processor that this thread spins."""

    def generate(context, builder, signature, arguments):
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        elif machine in ("aarch64", "arm64"):
            _call(builder, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(_I32, 1))
        return context.get_dummy_value()

    return types.void(), generate


def _operator(symbol: Callable, implementation) -> None:
    @overload(symbol)
    def resolve(a, b):
        if isinstance(a, Floats) and isinstance(b, Floats):
            return lambda a, b: implementation(a, b)
        return None


for _symbol, _implementation in (
    (operator.add, _add),
    (operator.sub, _subtract),
    (operator.mul, _multiply),
    (operator.truediv, _divide),
):
    _operator(_symbol, _implementation)
