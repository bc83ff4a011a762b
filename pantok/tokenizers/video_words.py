"""Eight bytes of a picture at once, from any place: what compiled loops move pictures with.

What is unusual: numba has no way to read a word that does not begin at a multiple of eight, and byte by byte a line of
eight pixels takes eight reads, each with a test whether its index is negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def word_at(typingctx: Any, picture: Any, place: Any) -> Any:
    """uint64: the eight bytes of a contiguous uint8 array from the byte `place` on. Bounds are not checked."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, given), align=1)

    return types.uint64(picture, types.intp), build


@intrinsic
def put_word(typingctx: Any, picture: Any, place: Any, word: Any) -> Any:
    """Writes the uint64 `word` where `word_at` would read it."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        builder.store(given[2], _pointer(context, builder, signature, given), align=1)
        return context.get_dummy_value()

    return types.void(picture, types.intp, types.uint64), build


def _pointer(context: Any, builder: Any, signature: Any, given: Any) -> Any:
    array = cgutils.create_struct_proxy(signature.args[0])(context, builder, given[0])
    byte = builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [given[1]])
    return builder.bitcast(byte, ir.IntType(64).as_pointer())


_HALVES, _ONE = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(1)


@njit(inline="always")
def mean_of_words(a: Any, b: Any) -> Any:
    """Of each byte the mean, rounded up at the half: a + b is 2 (a | b) - (a ^ b)."""
    return (a | b) - (((a ^ b) >> _ONE) & _HALVES)
