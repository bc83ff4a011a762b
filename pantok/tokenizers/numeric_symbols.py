"""Residuals as symbols: one symbol for a small one, a few for a large one, raw bytes for what no grid holds.

    0 .. 2A           residual -A .. A
    2A + n            n = 1 .. 8: a residual in n bytes follows (zigzag, low byte first), as n byte symbols
    2A + 9            the sample itself follows as bytes of its dtype; then its residual, as for any other
    .. + 256          the byte symbols

Any sequence of symbols means something: bytes where a residual should stand are passed over, a run that ends early
goes on with residuals of 0, what is too many is not read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pantok.quantizers.bpe import PAD


@dataclass(frozen=True)
class Alphabet:
    """reach: A, the largest residual that is one symbol."""

    reach: int

    @property
    def small(self) -> int:
        """Symbols below this are residuals."""
        return 2 * self.reach + 1

    @property
    def raw(self) -> int:
        return self.small + 8

    @property
    def byte(self) -> int:
        return self.small + 9

    @property
    def size(self) -> int:
        return self.byte + 256

    def runs(self, residuals: np.ndarray, raw: np.ndarray, verbatim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Symbols of runs: residuals int64 (R, T), raw bool (R, T), verbatim uint8 (R, T, itemsize).

        Returns symbols int64 (R, longest) filled with PAD, and which rows are plain (T symbols, no bytes).
        """
        large = (residuals > self.reach) | (residuals < -self.reach)
        plain = ~(large | raw).any(1)
        if plain.all():
            return residuals + self.reach, plain
        rows = [
            (residuals[r] + self.reach).tolist()
            if plain[r]
            else self._spell(residuals[r].tolist(), raw[r].tolist(), verbatim[r])
            for r in range(len(residuals))
        ]
        out = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
        for r, row in enumerate(rows):
            out[r, : len(row)] = row
        return out, plain

    def _spell(self, residuals: list[int], raw: list[bool], verbatim: np.ndarray) -> list[int]:
        symbols: list[int] = []
        for i, residual in enumerate(residuals):
            if raw[i]:
                symbols.append(self.raw)
                symbols += (verbatim[i].astype(np.int64) + self.byte).tolist()
            if -self.reach <= residual <= self.reach:
                symbols.append(residual + self.reach)
                continue
            zigzag = 2 * residual if residual >= 0 else -2 * residual - 1
            data = zigzag.to_bytes(8, "little").rstrip(b"\0")
            symbols.append(self.small - 1 + len(data))
            symbols += [b + self.byte for b in data]
        return symbols

    def parse(
        self, symbols: np.ndarray, runs: int, length: int, itemsize: int
    ) -> tuple[np.ndarray, dict[tuple[int, int], bytes]]:
        """Residuals int64 (runs, length) of the symbols of one tick, and {(run, row): raw bytes}."""
        if len(symbols) == runs * length and (not len(symbols) or int(symbols.max()) < self.small):
            return (symbols - self.reach).reshape(runs, length), {}
        residuals = np.zeros(runs * length, np.int64)
        raw: dict[tuple[int, int], bytes] = {}
        items, at, done = symbols.tolist(), 0, 0
        while at < len(items) and done < runs * length:
            symbol = items[at]
            at += 1
            if symbol < self.small:
                residuals[done] = symbol - self.reach
                done += 1
            elif symbol < self.raw:
                wanted = symbol - self.small + 1
                data, at = self._bytes(items, at, wanted)
                zigzag = int.from_bytes(data, "little")
                value = zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1
                residuals[done] = value
                done += 1
            elif symbol == self.raw:
                data, at = self._bytes(items, at, itemsize)
                raw[divmod(done, length)] = data.ljust(itemsize, b"\0")
        return residuals.reshape(runs, length), raw

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
                wanted = itemsize if symbol == self.raw else symbol - self.small + 1
                data, at = self._bytes(items, at, wanted)
                whole = len(data) == wanted or at < len(items)
            done += symbol < self.raw and whole
        return done >= residuals

    def _bytes(self, items: list[int], at: int, wanted: int) -> tuple[bytes, int]:
        """At most `wanted` byte symbols from `at` on, and where they end."""
        end = at
        while end < len(items) and end - at < wanted and items[end] >= self.byte:
            end += 1
        return bytes(v - self.byte for v in items[at:end]), end
