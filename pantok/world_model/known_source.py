"""T0: a mixed source of which everything is known, to show that a model of codes, latents and a switch is right.

What is unusual: its entropy rate is a number, not an estimate. Words and codes are Markov chains, latents are a
Gaussian AR(1) channel with an input, and which of them comes next is itself Markov; whatever is observed determines the
context, so the true probability of the next kind is known at every element, and the rate is a sum over the stationary
distribution of a finite chain (in float64), the latents adding log2(deviation sqrt(2 pi e) / step) bits each.

    a tick:  end of the last one -> words | a code, by what the last tick was
             word w  -> another word (by w), or the end
             code c  -> a finer code d given c (by c), or the end: the state stops at depth 1
             code d  -> a latent y = a y' + b[c] + s[d] e (by d), or the end: depth 2
             latent  -> the end: depth 3
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from pantok.errors import OptionError
from pantok.world_model.switch import Kinds

WORD, COARSE, FINE, END, LATENT = range(5)
NAMES = ("word", "code.0", "code.1", "end", "latent")


@dataclass(frozen=True, kw_only=True)
class KnownConfig:
    """words, coarse, fine: sizes of the vocabularies. sharpness: of the rows of the chains (a softmax of that many
    standard deviations). memory: a of the AR(1) channel. seed: of the source's own tables."""

    words: int = 8
    coarse: int = 6
    fine: int = 4
    sharpness: float = 1.5
    memory: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.words, self.coarse, self.fine) < 2:
            raise OptionError("known source", "a vocabulary of less than 2", "at least 2 words, coarse and fine codes")
        if not -1 < self.memory < 1:
            raise OptionError("known source memory", f"{self.memory} is not stationary", "between -1 and 1")


@dataclass(frozen=True)
class Drawing:
    """B sequences of L elements, and the truth about each. kinds, ids: int64 (B, L), ids -1 for a latent. values:
    float32 (B, L), 0 where there is no latent. gate: float32 (B, L, K), probability of the element's kind given all
    before it. nats: float64 (B, L), -log of the true probability (density, for a latent) of the element, its kind
    included."""

    kinds: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    gate: np.ndarray
    nats: np.ndarray


@dataclass(frozen=True)
class Rate:
    """Bits an element at a quantisation step: total = kinds + codes + latents."""

    kinds: float
    codes: float
    latents: float

    @property
    def total(self) -> float:
        return self.kinds + self.codes + self.latents


@dataclass(frozen=True)
class KnownSource:
    """The source. Its tables are drawn once, from the seed of its configuration."""

    config: KnownConfig = field(default_factory=KnownConfig)
    tables: dict[str, np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        c, rng = self.config, np.random.default_rng(self.config.seed)

        def rows(count: int, size: int) -> np.ndarray:
            logits = c.sharpness * rng.normal(size=(count, size))
            p = np.exp(logits - logits.max(1, keepdims=True))
            return p / p.sum(1, keepdims=True)

        tables = {
            "next_word": rows(c.words, c.words),
            "next_coarse": rows(c.coarse, c.coarse),
            "fine_of": rows(c.coarse, c.fine),
            "to_code": np.array([0.75, 0.85]),  # after a tick of words, of codes
            "go_word": rng.uniform(0.3, 0.8, c.words),
            "go_fine": rng.uniform(0.5, 0.95, c.coarse),
            "go_latent": rng.uniform(0.4, 0.95, c.fine),
            "input": rng.normal(0, 1, c.coarse),
            "deviation": rng.uniform(0.3, 0.8, c.fine),
        }
        object.__setattr__(self, "tables", tables)

    @property
    def kinds(self) -> Kinds:
        c = self.config
        tops = np.cumsum([0, c.words, c.coarse, c.fine, 1]).tolist()
        return Kinds(NAMES, (*tops[:-1], 0), (*tops[1:], 0), (0, 0, 0, 0, 1))

    def gate(self, last: np.ndarray, mode: np.ndarray, w: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        """float64 (N, K): the next kind, given the last kind, what its tick is of (0 words, 1 codes), and the last
        word, coarse and fine code."""
        t = self.tables
        p = np.zeros((len(last), len(NAMES)))
        at = last == END
        p[at, COARSE] = t["to_code"][mode[at]]
        p[at, WORD] = 1 - p[at, COARSE]
        for kind, following, go in (
            (WORD, WORD, t["go_word"][w]),
            (COARSE, FINE, t["go_fine"][c]),
            (FINE, LATENT, t["go_latent"][d]),
            (LATENT, LATENT, np.zeros(len(last))),
        ):
            at = last == kind
            p[at, following] = go[at]
            p[at, END] = 1 - go[at]
        return p

    def draw(self, sequences: int, length: int, seed: int, burn: int = 128) -> Drawing:
        """burn: elements that are drawn first and left out, so that what is left is stationary."""
        t, c, rng = self.tables, self.config, np.random.default_rng([self.config.seed, seed])
        n, total = sequences, burn + length
        last, mode = np.full(n, END), np.ones(n, np.int64)
        w, coarse, d = (rng.integers(0, size, n) for size in (c.words, c.coarse, c.fine))
        y = np.zeros(n)
        kinds, ids = np.zeros((n, total), np.int64), np.full((n, total), -1)
        values, nats = np.zeros((n, total), np.float32), np.zeros((n, total))
        gates = np.zeros((n, total, len(NAMES)), np.float32)
        starts = self.kinds.starts
        for i in range(total):
            gate = self.gate(last, mode, w, coarse, d)
            kind = _pick(gate, rng)
            nats[:, i] = -np.log(gate[np.arange(n), kind])
            kinds[:, i], gates[:, i] = kind, gate
            mode = np.where(kind == WORD, 0, np.where(kind == COARSE, 1, mode))
            for which, rows, held in ((WORD, t["next_word"][w], w), (COARSE, t["next_coarse"][coarse], coarse),
                                      (FINE, t["fine_of"][coarse], d)):  # fmt: skip
                at = np.nonzero(kind == which)[0]
                code = _pick(rows[at], rng)
                nats[at, i] -= np.log(rows[at, code])
                held[at], ids[at, i] = code, starts[which] + code
            ids[kind == END, i] = starts[END]
            at = np.nonzero(kind == LATENT)[0]
            noise, deviation = rng.normal(size=len(at)), t["deviation"][d[at]]
            y[at] = c.memory * y[at] + t["input"][coarse[at]] + deviation * noise
            nats[at, i] += 0.5 * noise**2 + np.log(deviation) + 0.5 * math.log(2 * math.pi)
            values[at, i] = y[at]
            last = kind
        kept = slice(burn, None)
        return Drawing(kinds[:, kept], ids[:, kept], values[:, kept], gates[:, kept], nats[:, kept])

    def entropy_rate(self, step: float) -> Rate:
        """The exact entropy rate at a quantisation step of the latents, in bits an element."""
        t, c = self.tables, self.config
        # Contexts (last kind, mode, w, c, d), the latent's value aside: nothing but its own mean depends on it.
        grid = np.stack(np.meshgrid(range(5), range(2), range(c.words), range(c.coarse), range(c.fine), indexing="ij"))
        last, mode, w, coarse, d = grid.reshape(5, -1)
        shape, here = grid.shape[1:], np.arange(last.size)
        gate = self.gate(last, mode, w, coarse, d)
        move = np.zeros((last.size, last.size))
        for kind, rows, size in (
            (WORD, t["next_word"][w], c.words), (COARSE, t["next_coarse"][coarse], c.coarse),
            (FINE, t["fine_of"][coarse], c.fine), (END, np.ones((last.size, 1)), 1),
            (LATENT, np.ones((last.size, 1)), 1),
        ):  # fmt: skip
            for code in range(size):
                after = np.ravel_multi_index(
                    (
                        np.full_like(last, kind),
                        np.where(kind == WORD, 0, np.where(kind == COARSE, 1, mode)),
                        np.where(kind == WORD, code, w),
                        np.where(kind == COARSE, code, coarse),
                        np.where(kind == FINE, code, d),
                    ),
                    shape,
                )
                np.add.at(move, (here, after), gate[:, kind] * rows[:, code])
        weights = stationary(move)
        codes = (
            gate[:, WORD] * entropy_bits(t["next_word"])[w]
            + gate[:, COARSE] * entropy_bits(t["next_coarse"])[coarse]
            + gate[:, FINE] * entropy_bits(t["fine_of"])[coarse]
        )
        latents = gate[:, LATENT] * np.log2(t["deviation"][d] * math.sqrt(2 * math.pi * math.e) / step)
        return Rate(float(weights @ entropy_bits(gate)), float(weights @ codes), float(weights @ latents))


def stationary(move: np.ndarray) -> np.ndarray:
    """The distribution that a row-stochastic matrix with one recurrent class keeps."""
    # p (1 - P) = 0 and sum(p) = 1 together: p (1 - P + J) = 1, with J all ones; not singular for one recurrent class.
    found = np.linalg.solve((np.eye(len(move)) - move + 1).T, np.ones(len(move))).clip(0)
    total: np.ndarray = found / found.sum()
    return total


def entropy_bits(p: np.ndarray) -> np.ndarray:
    """Of each row (..., K)."""
    found: np.ndarray = -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)
    return found


def _pick(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A column of each row of probabilities."""
    return np.minimum((rng.random(len(p))[:, None] >= np.cumsum(p, 1)).sum(1), p.shape[1] - 1)
