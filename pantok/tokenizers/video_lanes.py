"""Products of four vectors with sixteen codes at a time, kept in registers: what the search of codes consists of.

What is unusual: numba vectorises a loop over codes, but writes the sums to memory at every coefficient; a general
product of matrices copies what it multiplies, which for a few dozen rows costs as much as multiplying. Here the sums
stay where they are until they are done. Coefficients are whole numbers of sixteen bits, and two of them are multiplied
and added at once (a *pair*, in an int32: the first in its low half). x86 has one instruction for that, which does
twice the work of one for floats; elsewhere LLVM makes the best of the same sums, written out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 16
"""Codes that are compared at once."""
_INTS = ir.VectorType(ir.IntType(32), LANES)
_INSTRUCTIONS = (
    ("avx512bw", 1, "llvm.x86.avx512.pmaddw.d.512"),
    ("avx2", 2, "llvm.x86.avx2.pmadd.wd"),
    ("sse2", 4, "llvm.x86.sse2.pmadd.wd"),
)


def _fitting() -> tuple[int, str]:
    """What numba compiles for: this processor, unless its settings say another, which is not to get the instruction."""
    there = binding.get_host_cpu_features()
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None or not config.ENABLE_AVX:
        there = {}
    return next(((parts, name) for feature, parts, name in _INSTRUCTIONS if there.get(feature)), (4, ""))


_HOW = _fitting()
"""Into how many vectors sixteen lanes are cut, and what multiplies and adds the pairs of one; none if written out."""
KEPT = 12
"""Scores that `least_keys` keeps."""
_ROWS = 4  # vectors at a time: their sums fit the registers


def paired(rows: np.ndarray) -> np.ndarray:
    """int32 (..., (D + 1) // 2): whole numbers (..., D) below 2^15, two in one; behind an odd count a nought."""
    assert not rows.size or np.abs(rows).max() < 1 << 15
    wide = np.zeros((*rows.shape[:-1], rows.shape[-1] + rows.shape[-1] % 2), np.int16)
    wide[..., : rows.shape[-1]] = rows
    return wide.view(np.int32)


@intrinsic
def best_lanes(typingctx: Any, x: Any, rows: Any, table: Any, at: Any, pairs: Any, out: Any) -> Any:
    """Of each of four vectors the least score among sixteen codes: out int32 (4,) = score << 4 | lane, the first wins.

    x int32 (n, P) pairs, rows int64 (4,): the vectors. table int32 (..., 16): from its line `at` on what a score begins
    with, then `pairs` lines of pairs to multiply with the first of the vector's. All contiguous; bounds are not
    checked. Scores are below 2^27.
    """

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        i64 = ir.IntType(64)
        vectors, numbers, lines, _, _, place = _arrays(context, builder, signature, given)
        stride = cgutils.unpack_tuple(builder, vectors.shape)[1]
        chosen = [builder.load(builder.gep(numbers.data, [i64(k)])) for k in range(_ROWS)]
        here = [builder.gep(vectors.data, [builder.mul(row, stride)]) for row in chosen]
        kind = ir.FunctionType(_INTS.element, [_INTS])
        least = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.smin.v{LANES}i32")
        first = builder.gep(lines.data, [_times(builder, given[3])])
        begin = [_pieces(builder, builder.load(_wide(builder, first), align=4))] * _ROWS
        after = builder.gep(first, [i64(LANES)])
        for k, score in enumerate(_scores(builder, here, begin, after, given[4])):
            keys = builder.or_(
                builder.shl(score, ir.Constant(_INTS, [4] * LANES)), ir.Constant(_INTS, list(range(LANES)))
            )
            builder.store(builder.call(least, [keys]), builder.gep(place.data, [i64(k)]))
        return context.get_dummy_value()

    return types.void(x, rows, table, types.intp, types.intp, out), build


@intrinsic
def least_keys(typingctx: Any, codes: Any, lanes: Any, bits: Any, drop: Any, out: Any) -> Any:
    """Of each of sixteen vectors the least scores among many codes, in order: out int32 (p, 16), p = KEPT.

    codes int32 (C, P + 1), C a multiple of 4: what a score begins with, and pairs; lanes int32 (P, 16): the pairs of
    sixteen vectors side by side. A key is score >> drop << bits | code, its whole score below 2^(31 + drop - bits). All
    contiguous.
    """

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        i64 = ir.IntType(64)
        many, vectors, _, _, place = _arrays(context, builder, signature, given)
        count, width = cgutils.unpack_tuple(builder, many.shape)
        pairs = builder.sub(width, i64(1))
        up, down = (_splat(builder, builder.trunc(given[k], _INTS.element)) for k in (2, 3))
        kept = [cgutils.alloca_once_value(builder, ir.Constant(_INTS, [2**31 - 1] * LANES)) for _ in range(KEPT)]
        with cgutils.for_range(builder, builder.udiv(count, i64(_ROWS)), intp=i64) as loop:
            first = builder.mul(loop.index, i64(_ROWS))
            rows = [builder.gep(many.data, [builder.mul(builder.add(first, i64(k)), width)]) for k in range(_ROWS)]
            begin = [_pieces(builder, _splat(builder, builder.load(row))) for row in rows]
            after = [builder.gep(row, [i64(1)]) for row in rows]
            for k, score in enumerate(_scores(builder, after, begin, vectors.data, pairs)):
                number = _splat(builder, builder.trunc(builder.add(first, i64(k)), _INTS.element))
                key = builder.or_(builder.shl(builder.ashr(score, down), up), number)
                for better in kept:  # each keeps the less of the two and hands the other on
                    mine = builder.load(better)
                    less = builder.icmp_signed("<", mine, key)
                    builder.store(builder.select(less, mine, key), better)
                    key = builder.select(less, key, mine)
        for k, better in enumerate(kept):
            builder.store(builder.load(better), _wide(builder, builder.gep(place.data, [i64(k * LANES)])), align=4)
        return context.get_dummy_value()

    return types.void(codes, lanes, types.intp, types.intp, out), build


def _scores(builder: Any, rows: list[Any], begin: list[list[Any]], table: Any, pairs: Any) -> list[Any]:
    """What each of four rows begins with plus its pairs times the lines of a table, lane by lane."""
    totals = [[cgutils.alloca_once_value(builder, piece) for piece in pieces] for pieces in begin]
    with cgutils.for_range(builder, pairs, intp=ir.IntType(64)) as loop:
        line = builder.gep(table, [_times(builder, loop.index)])
        codes = _pieces(builder, builder.load(_wide(builder, line), align=4))
        for row, sums in zip(rows, totals, strict=True):
            coefficients = _pieces(builder, _splat(builder, builder.load(builder.gep(row, [loop.index]))))
            for total, mine, code in zip(sums, coefficients, codes, strict=True):
                builder.store(builder.add(builder.load(total), _product(builder, mine, code)), total)
    return [_whole(builder, [builder.load(total) for total in sums]) for sums in totals]


def _product(builder: Any, a: Any, b: Any) -> Any:
    """Of vectors of pairs the products of the first ones plus those of the second ones."""
    if _HOW[1]:
        halves = ir.VectorType(ir.IntType(16), 2 * a.type.count)
        multiply = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [halves, halves]), _HOW[1])
        return builder.call(multiply, [builder.bitcast(v, halves) for v in (a, b)])
    half = ir.Constant(a.type, [16] * a.type.count)
    second = [builder.ashr(v, half) for v in (a, b)]
    first = [builder.ashr(builder.shl(v, half), half) for v in (a, b)]
    return builder.add(builder.mul(*first), builder.mul(*second))


def _pieces(builder: Any, lanes: Any) -> list[Any]:
    """Sixteen lanes as vectors of the width that this processor multiplies pairs in."""
    if _HOW[0] == 1:
        return [lanes]
    size, nothing = LANES // _HOW[0], ir.Constant(_INTS, ir.Undefined)
    kind = ir.VectorType(ir.IntType(32), size)
    masks = [ir.Constant(kind, list(range(k * size, (k + 1) * size))) for k in range(_HOW[0])]
    return [builder.shuffle_vector(lanes, nothing, mask) for mask in masks]


def _whole(builder: Any, pieces: list[Any]) -> Any:
    """The reverse of `_pieces`."""
    while len(pieces) > 1:
        count = 2 * pieces[0].type.count
        mask = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count)))
        pieces = [builder.shuffle_vector(a, b, mask) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def _splat(builder: Any, value: Any) -> Any:
    """A vector of which every lane is `value`."""
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * LANES))


def _times(builder: Any, line: Any) -> Any:
    return builder.mul(line, ir.IntType(64)(LANES))


def _wide(builder: Any, pointer: Any) -> Any:
    return builder.bitcast(pointer, _INTS.as_pointer())


def _arrays(context: Any, builder: Any, signature: Any, given: Any) -> list[Any]:
    return [
        cgutils.create_struct_proxy(kind)(context, builder, value) if isinstance(kind, types.Array) else None
        for kind, value in zip(signature.args, given, strict=True)
    ]
