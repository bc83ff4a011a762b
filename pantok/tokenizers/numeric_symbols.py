"""Residuals as symbols: one symbol for a small one, a few for a large one, raw bytes for what no grid holds.

    0 .. 2A           residual -A .. A
    2A + 1 .. 2A + 3  a hole: the sample is NaN, infinite or negative infinite, and its index is that of the one before
    2A + 4 + h        h = 0 .. 63: a larger residual, whose zigzag is 256 h and the byte that follows as a byte symbol
    2A + 66 + n       n = 2 .. 8: one still larger, n bytes follow (zigzag, low byte first)
    2A + 75           the sample itself follows as bytes of its dtype; then its residual, as for any other
    .. + 256          the byte symbols

What is unusual: a table in which several sensors with clocks of their own stand side by side is mostly holes, so a hole
is a symbol like a residual, of which pieces are made; and so is what a range finder says where nothing comes back.
Vocabularies of format 2 have no holes, and spell such samples in bytes; and of a larger residual all bytes follow, n
from 1 on.

Any sequence of symbols means something: bytes where a residual should stand are passed over, a run that ends early
goes on with residuals of 0, what is too many is not read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pantok.quantizers.bpe import PAD

HOLES = (np.nan, np.inf, -np.inf)


@dataclass(frozen=True)
class Alphabet:
    """reach: A, the largest residual that is one symbol. version: of `numeric.FORMATS`."""

    reach: int
    version: int = 3

    @property
    def holes(self) -> bool:
        """Whether there are symbols for HOLES."""
        return self.version >= 3

    @property
    def highs(self) -> int:
        """How many high bytes there are symbols for: a zigzag below 256 times that takes two."""
        return 64 if self.version >= 3 else 0

    @property
    def hole(self) -> int:
        """The symbol of the first of HOLES, where there are any."""
        return 2 * self.reach + 1

    @property
    def small(self) -> int:
        """Each of the symbols below this is a sample."""
        return self.hole + len(HOLES) * self.holes

    @property
    def still(self) -> tuple[int, ...]:
        """What may stand a whole tick long in any recording: no change, NaN, nothing within reach."""
        return (self.reach, self.hole, self.hole + 1) if self.holes else (self.reach,)

    @property
    def sized(self) -> int:
        """The symbol after which a residual follows in as many bytes as `_fewest`."""
        return self.small + self.highs

    @property
    def _fewest(self) -> int:
        return 2 if self.highs else 1

    @property
    def raw(self) -> int:
        return self.sized + 9 - self._fewest

    @property
    def byte(self) -> int:
        return self.raw + 1

    @property
    def size(self) -> int:
        return self.byte + 256

    def of_holes(self, holes: np.ndarray) -> np.ndarray:
        """int64: symbols of holes int8, as of `holes_of`."""
        return self.hole - 1 + holes.astype(np.int64)

    def runs(
        self, residuals: np.ndarray, holes: np.ndarray, raw: np.ndarray, verbatim: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Symbols of runs: residuals int64 (R, T), holes int8 (R, T), raw bool (R, T), verbatim uint8 (R, T, itemsize).
        holes: see `holes_of`.

        Returns symbols int64 (R, longest) filled with PAD, and which rows are plain (T symbols, no bytes).
        """
        assert self.holes or not holes.any()
        with np.errstate(over="ignore"):
            symbols = np.where(holes, self.of_holes(holes), residuals + self.reach)
        large = ((residuals > self.reach) | (residuals < -self.reach)) & (holes == 0)
        plain = ~(raw | large).any(1)
        if plain.all():
            return symbols, plain
        rows = [
            symbols[r].tolist()
            if plain[r]
            else self._spell(
                symbols[r].tolist(), residuals[r].tolist(), large[r].tolist(), raw[r].tolist(), verbatim[r]
            )
            for r in range(len(residuals))
        ]
        out = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
        for r, row in enumerate(rows):
            out[r, : len(row)] = row
        return out, plain

    def _spell(
        self, single: list[int], residuals: list[int], large: list[bool], raw: list[bool], verbatim: np.ndarray
    ) -> list[int]:
        """single: the symbols of those that take one."""
        symbols: list[int] = []
        for i, residual in enumerate(residuals):
            if raw[i]:
                symbols.append(self.raw)
                symbols += (verbatim[i].astype(np.int64) + self.byte).tolist()
            if not large[i]:
                symbols.append(single[i])
                continue
            zigzag = 2 * residual if residual >= 0 else -2 * residual - 1
            if zigzag < 256 * self.highs:
                symbols += [self.small + zigzag // 256, self.byte + zigzag % 256]
                continue
            data = zigzag.to_bytes(8, "little").rstrip(b"\0")
            symbols.append(self.sized + len(data) - self._fewest)
            symbols += [b + self.byte for b in data]
        return symbols

    def parse(
        self, symbols: np.ndarray, runs: int, length: int, itemsize: int
    ) -> tuple[np.ndarray, np.ndarray, dict[tuple[int, int], bytes]]:
        """Of the symbols of one tick: residuals int64 (runs, length), 0 in holes; holes int8 of the same shape; and
        {(run, row): raw bytes}."""
        if len(symbols) == runs * length and (not len(symbols) or int(symbols.max()) < self.small):
            found = symbols.reshape(runs, length)
            holes = np.maximum(found - self.hole + 1, 0).astype(np.int8)
            return np.where(holes, 0, found - self.reach), holes, {}
        residuals, holes = np.zeros(runs * length, np.int64), np.zeros(runs * length, np.int8)
        raw: dict[tuple[int, int], bytes] = {}
        items, at, done = symbols.tolist(), 0, 0
        while at < len(items) and done < runs * length:
            symbol = items[at]
            at += 1
            if symbol < self.small:
                if symbol < self.hole:
                    residuals[done] = symbol - self.reach
                else:
                    holes[done] = symbol - self.hole + 1
                done += 1
            elif symbol <= self.raw:
                data, at = self._bytes(items, at, self._wanted(symbol, itemsize))
                if symbol == self.raw:
                    raw[divmod(done, length)] = data.ljust(itemsize, b"\0")
                    continue
                zigzag = int.from_bytes(data, "little")
                if symbol < self.sized:
                    zigzag += 256 * (symbol - self.small)
                value = zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1
                residuals[done] = value
                done += 1
        return residuals.reshape(runs, length), holes.reshape(runs, length), raw

    def spelled(self, symbols: np.ndarray, residuals: int, itemsize: int) -> bool:
        """Whether so many residuals are there, to the last byte: nothing after them is read."""
        if not len(symbols) or int(symbols.max()) < self.small:
            return len(symbols) >= residuals
        items, at, done = symbols.tolist(), 0, 0
        while at < len(items) and done < residuals:
            symbol = items[at]
            at += 1
            whole = True
            if self.small <= symbol <= self.raw:
                wanted = self._wanted(symbol, itemsize)
                data, at = self._bytes(items, at, wanted)
                whole = len(data) == wanted or at < len(items)
            done += symbol < self.raw and whole
        return done >= residuals

    def _wanted(self, symbol: int, itemsize: int) -> int:
        """How many byte symbols belong to one from `small` to `raw`."""
        if symbol == self.raw:
            return itemsize
        return 1 if symbol < self.sized else symbol - self.sized + self._fewest

    def _bytes(self, items: list[int], at: int, wanted: int) -> tuple[bytes, int]:
        """At most `wanted` byte symbols from `at` on, and where they end."""
        end = at
        while end < len(items) and end - at < wanted and items[end] >= self.byte:
            end += 1
        return bytes(v - self.byte for v in items[at:end]), end


def holes_of(values: np.ndarray) -> np.ndarray:
    """int8 of the shape of `values`: 1 + the place in HOLES of what each of them is, 0 of a number. NaN is the one that
    everybody writes, of either sign; one that says something in its other bits (R's NA) is not a hole."""
    kinds = np.zeros(values.shape, np.int8)
    if values.dtype.kind != "f":
        return kinds
    size = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(values.dtype.str.replace("f", "u"))
    usual, sign = int(np.full(1, np.nan, f"f{size}").view(f"u{size}")[0]), 1 << (8 * size - 1)
    kinds[(bits | sign) == (usual | sign)] = 1
    kinds[values == np.inf], kinds[values == -np.inf] = 2, 3
    return kinds
