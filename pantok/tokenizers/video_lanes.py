"""Products of four vectors with sixteen codes at a time, kept in registers: what the search of codes consists of.

What is unusual: numba vectorises a loop over codes, but writes the sums to memory at every coefficient; a general
product of matrices copies what it multiplies, which for a few dozen rows costs as much as multiplying. Here the sums
stay where they are until they are done. The instructions are LLVM's own for vectors, which every processor has some
form of.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Codes that are compared at once."""
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
KEPT = 12
"""Scores that `least_keys` keeps."""
_ROWS = 4  # vectors at a time: their sums fit the registers
_FUSED = ("contract",)  # the product and the sum may be one instruction: both are exact anyway


@intrinsic
def best_lanes(typingctx: Any, x: Any, rows: Any, table: Any, at: Any, dims: Any, out: Any) -> Any:
    """Of each of four vectors the least score among sixteen codes: out int32 (4,) = score << 4 | lane, the first wins.

    x float32 (n, D), rows int64 (4,): the vectors. table float32 (..., 16): from its line `at` on what a score begins
    with, then `dims` lines to multiply with the first coefficients. All contiguous; bounds are not checked. Scores are
    whole numbers below 2^27.
    """

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        i64 = ir.IntType(64)
        vectors, numbers, lines, _, _, place = _arrays(context, builder, signature, given)
        stride = cgutils.unpack_tuple(builder, vectors.shape)[1]
        chosen = [builder.load(builder.gep(numbers.data, [i64(k)])) for k in range(_ROWS)]
        here = [builder.gep(vectors.data, [builder.mul(row, stride)]) for row in chosen]
        kind = ir.FunctionType(_INTS.element, [_INTS])
        least = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.smin.v{LANES}i32")
        for k, score in enumerate(
            _scores(builder, here, builder.gep(lines.data, [_times(builder, given[3])]), given[4])
        ):
            keys = builder.or_(
                builder.shl(score, ir.Constant(_INTS, [4] * LANES)), ir.Constant(_INTS, list(range(LANES)))
            )
            builder.store(builder.call(least, [keys]), builder.gep(place.data, [i64(k)]))
        return context.get_dummy_value()

    return types.void(x, rows, table, types.intp, types.intp, out), build


@intrinsic
def least_keys(typingctx: Any, codes: Any, lanes: Any, bits: Any, drop: Any, out: Any) -> Any:
    """Of each of sixteen vectors the least scores among many codes, in order: out int32 (p, 16), p = KEPT.

    codes float32 (C, D), C a multiple of 4; lanes float32 (D + 1, 16): sixteen vectors side by side, after a line of
    noughts. A key is score >> drop << bits | code, its whole score below 2^(31 + drop - bits). All contiguous.
    """

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        i64 = ir.IntType(64)
        many, vectors, _, _, place = _arrays(context, builder, signature, given)
        count, dims = cgutils.unpack_tuple(builder, many.shape)
        up, down = (_splat(builder, builder.trunc(given[k], _INTS.element)) for k in (2, 3))
        kept = [cgutils.alloca_once_value(builder, ir.Constant(_INTS, [2**31 - 1] * LANES)) for _ in range(KEPT)]
        with cgutils.for_range(builder, builder.udiv(count, i64(_ROWS)), intp=i64) as loop:
            first = builder.mul(loop.index, i64(_ROWS))
            rows = [builder.gep(many.data, [builder.mul(builder.add(first, i64(k)), dims)]) for k in range(_ROWS)]
            for k, score in enumerate(_scores(builder, rows, vectors.data, dims)):
                number = _splat(builder, builder.trunc(builder.add(first, i64(k)), _INTS.element))
                key = builder.or_(builder.shl(builder.ashr(score, down), up), number)
                for better in kept:  # each keeps the less of the two and hands the other on
                    mine = builder.load(better)
                    less = builder.icmp_signed("<", mine, key)
                    builder.store(builder.select(less, mine, key), better)
                    key = builder.select(less, key, mine)
        for k, better in enumerate(kept):
            builder.store(
                builder.load(better), _wide(builder, builder.gep(place.data, [i64(k * LANES)]), _INTS), align=4
            )
        return context.get_dummy_value()

    return types.void(codes, lanes, types.intp, types.intp, out), build


def _scores(builder: Any, rows: list[Any], table: Any, dims: Any) -> list[Any]:
    """The first line of sixteen of a table plus, of each of four rows, its coefficients times the lines after it."""
    totals = [cgutils.alloca_once_value(builder, builder.load(_wide(builder, table), align=4)) for _ in rows]
    with cgutils.for_range(builder, dims, intp=ir.IntType(64)) as loop:
        line = builder.gep(table, [_times(builder, builder.add(loop.index, ir.IntType(64)(1)))])
        codes = builder.load(_wide(builder, line), align=4)
        for row, total in zip(rows, totals, strict=True):
            coefficient = _splat(builder, builder.load(builder.gep(row, [loop.index])))
            product = builder.fmul(coefficient, codes, flags=_FUSED)
            builder.store(builder.fadd(builder.load(total), product, flags=_FUSED), total)
    return [builder.fptosi(builder.load(total), _INTS) for total in totals]


def _splat(builder: Any, value: Any) -> Any:
    """A vector of which every lane is `value`."""
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))


def _times(builder: Any, line: Any) -> Any:
    return builder.mul(line, ir.IntType(64)(LANES))


def _wide(builder: Any, pointer: Any, kind: Any = _FLOATS) -> Any:
    return builder.bitcast(pointer, kind.as_pointer())


def _arrays(context: Any, builder: Any, signature: Any, given: Any) -> list[Any]:
    return [
        cgutils.create_struct_proxy(kind)(context, builder, value) if isinstance(kind, types.Array) else None
        for kind, value in zip(signature.args, given, strict=True)
    ]
