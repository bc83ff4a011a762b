"""The codebooks of a tokenizer as plain tables: what each code of a level looks like, decoded, and how to change them.

What is unusual: distances between rows are differences of what is decoded, whatever the modality, so that growing,
merging and pruning need not know whether they handle sound or pictures. Levels whose codes are choices (modes,
displacements, patterns, pieces of numbers) have no such table and are left as they are.

    >>> level_of(TokenizerState("audio", {}, (Level("mode", 4, "mode"), Level("shape.1", 2))), "shape.1")
    1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pantok.quantizers.gated import Life, lives_of, tensors_of
from pantok.vocabulary import BASIS, BEYOND, LIFE, Level, TokenizerState

_VIDEO = {"coarse": "coarse.0", "fresh": "fresh.0", "moved": "moved.0"}
_VIDEO |= {f"fine{k + 1}": f"fine.{k}" for k in range(8)} | {f"between{k + 1}": f"inner.{k}" for k in range(8)}
_LEFT_UNIT = 8.0
"""What a shape code leaves over rules the depth behind it: a step of 0.38 dB counts like this distance of shapes."""


def tensor_of(state: TokenizerState, level: int) -> str | None:
    """The name of the tensor that holds the vectors of a level's codes; None if they have none."""
    name = state.levels[level].name
    tensor = {"audio": name, "video": _VIDEO.get(name, "")}.get(state.modality, "")
    return tensor if tensor in state.tensors and len(state.tensors[tensor]) == state.levels[level].cardinality else None


def beside(state: TokenizerState, level: int) -> tuple[str, ...]:
    """Other tensors that hold entries of the level's codes; see `entries`."""
    name = state.levels[level].name
    if state.modality == "video":
        book = _VIDEO.get(name, "").split(".")[0]
        return (f"{LIFE}{name}.{BEYOND}",) if f"{LIFE}{book}.{BASIS}" in state.tensors else ()
    return (f"left.{name.removeprefix('shape.')}",) if state.modality == "audio" and name.startswith("shape.") else ()


def entries(state: TokenizerState, level: int, name: str) -> np.ndarray:
    """What a tensor `beside` says of each code of the level, (K, ...): what it does not speak of is zero. Only the last
    codes of a level have coefficients beyond the directions that it was born with."""
    if not name.startswith(LIFE):
        return np.asarray(state.tensors[name])
    book = _VIDEO[state.levels[level].name].split(".")[0]
    said = np.asarray(state.tensors.get(name, np.zeros((0, len(state.tensors[f"{LIFE}{book}.{BASIS}"])), np.int16)))
    return np.concatenate([np.zeros((state.levels[level].cardinality - len(said), said.shape[1]), said.dtype), said])


def vectors(state: TokenizerState, level: int) -> np.ndarray | None:
    """float64 (K, D): rows whose differences are those of what is decoded; None for a level of choices."""
    tensor = tensor_of(state, level)
    if tensor is None:
        return None
    rows = np.asarray(state.tensors[tensor], np.float64)
    for name in beside(state, level):
        more = entries(state, level, name).astype(np.float64)
        rows = np.concatenate([rows, more if name.startswith(LIFE) else _LEFT_UNIT * more[:, None]], 1)
    return rows


def level_of(state: TokenizerState, name: str) -> int:
    return [lv.name for lv in state.levels].index(name)


def with_lives(state: TokenizerState, lives: Mapping[str, Life]) -> TokenizerState:
    """The state with these lives in place of those it has."""
    plain = {
        n: t for n, t in state.tensors.items() if not n.startswith(LIFE) or n.endswith((f".{BASIS}", f".{BEYOND}"))
    }
    return replace(state, tensors=plain | tensors_of(lives))


def appended(
    state: TokenizerState, level: int, rows: np.ndarray, threshold: int, others: Mapping[str, np.ndarray] | None = None
) -> TokenizerState:
    """The state with codes appended to a level, eligible beyond a squared `threshold` from every code before them.

    rows: (k, D) in the tensor's own units. others: the new entries of the tensors `beside`.
    """
    tensor = tensor_of(state, level)
    assert tensor is not None and len(rows) and set(others or {}) == set(beside(state, level)), (level, others)
    tensors = dict(state.tensors)
    for name, more in {tensor: rows, **(others or {})}.items():
        old = np.asarray(tensors[name]) if name in tensors else entries(state, level, name)[:0]
        tensors[name] = np.concatenate([old, np.asarray(more).astype(old.dtype)])
    old_size = state.levels[level].cardinality
    levels = list(state.levels)
    levels[level] = replace(levels[level], cardinality=old_size + len(rows))
    lives = lives_of(state)
    lives[levels[level].name] = lives.get(levels[level].name, Life()).grown(old_size, threshold)
    return with_lives(replace(state, levels=tuple(levels), tensors=tensors), lives)


def without(state: TokenizerState, level: int, codes: np.ndarray, stand_ins: np.ndarray) -> TokenizerState:
    """The state with codes of a level out of use, `stand_ins` in their place (NOTHING for none)."""
    lives = lives_of(state)
    name = state.levels[level].name
    lives[name] = lives.get(name, Life()).without(codes, stand_ins)
    return with_lives(state, lives)


def in_use(state: TokenizerState, level: int) -> np.ndarray:
    """int64: the codes of a level that are not retired, ascending."""
    alive = np.ones(state.levels[level].cardinality, bool)
    alive[state.retired(level)[:, 0]] = False
    return np.flatnonzero(alive)


__all__ = ["Level", "appended", "beside", "in_use", "level_of", "tensor_of", "vectors", "with_lives", "without"]
