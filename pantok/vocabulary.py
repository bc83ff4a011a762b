"""The one vocabulary: text, control ids, digits and every level of every tokenizer share one space of ids.

Ids are a view, codes are what is stored. An id, once given, is never moved and never given to something
else, so extents are append-only, in order of birth:

    [0, T)            the text model's own ids, untouched
    [T, T + 64)       control ids (bos, eos, pad, tick, begin and end of each modality, ...)
    [.., + 256)       digits of bounded-error levels, shared by all modalities
    [.., ...)         one extent for each (modality, level), then those of what was learned later

A level that grows gets one more extent, after all others: its codes go on where they ended, no id moves. A code
that was merged or pruned keeps its id and its vector; the state that holds it says what stands for it now.

    >>> v = Vocabulary.build({"audio": TokenizerState("audio", {}, (Level("gain", 256), Level("shape", 256)))})
    >>> v.ids("audio", 1, np.array([0, 255])).tolist()
    [576, 831]
    >>> v.locate(831)
    ('audio', 1, 255)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pantok.errors import TokenError, VocabularyError

FORMAT = 1
CONTROL = (
    ("bos", "eos", "pad", "tick", "gap", "latent", "act_begin", "act_end")
    + tuple(f"{modality}_{edge}" for modality in ("video", "audio", "numeric", "text") for edge in ("begin", "end"))
    + tuple(f"level_{k}" for k in range(16))
    + tuple(f"spare_{k}" for k in range(32))
)
DIGITS = 256
ROLES = ("code", "mode", "digit", "text")
LIFE = "life."
BASIS, BEYOND = "basis", "beyond"
"""Tensors `life.<level>.blocks` and `life.<level>.retired` of a state tell how its levels have changed since they were
born, see `TokenizerState`; all other tensors describe codes and never change but by appending."""
NOTHING = 0xFFFFFFFF
"""In place of the code that stands for a retired one: nothing does."""


@dataclass(frozen=True)
class Level:
    """One stage of a tokenizer's hierarchy.

    cardinality: codes are 0 .. cardinality - 1.
    role: `code` (an entry of a learned codebook), `mode` (a choice that says what follows), `digit` (of a
        bounded-error level; shares the digit ids, cardinality at most 256), `text`.
    stride: samples that one code covers, (time, height, width) for video, (time,) elsewhere; 0 = varies.
    """

    name: str
    cardinality: int
    role: str = "code"
    stride: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.role in ROLES and self.cardinality > 0, self
        assert self.role != "digit" or self.cardinality <= DIGITS, self


@dataclass(frozen=True, eq=False)
class TokenizerState:
    """All that makes a tokenizer: modality, configuration (JSON), levels, tensors, and opaque files (a text model).

    tensors `life.<level>.blocks`: int64 (n, 2), the first code of each block by which the level grew, and the squared
        distance from the nearest earlier code beyond which the block is looked at (in the level's own units).
    tensors `life.<level>.retired`: uint32 (m, 2), codes out of use, ascending, and the code that stands for each.
    tensors `life.<book>.basis`: int16 (d, V), directions that a book of video got when it grew, and
        `life.<level>.beyond`: int16 (n, d), the coefficients there of the codes that came since; older ones have none.
    """

    modality: str
    config: Mapping[str, Any]
    levels: tuple[Level, ...]
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What was measured when it was fitted. Not part of its identity."""

    @cached_property
    def digest(self) -> str:
        """sha256 over configuration, levels and the content of tensors and blobs (not over files, whose bytes vary)."""
        sha = hashlib.sha256()
        levels = [[lv.name, lv.cardinality, lv.role, list(lv.stride)] for lv in self.levels]
        sha.update(canonical_json({"modality": self.modality, "config": self.config, "levels": levels}))
        for name in sorted(self.tensors):
            t = np.ascontiguousarray(self.tensors[name])
            sha.update(canonical_json([name, t.dtype.str, list(t.shape)]))
            sha.update(t.tobytes())
        for name in sorted(self.blobs):
            sha.update(canonical_json([name, len(self.blobs[name])]))
            sha.update(self.blobs[name])
        return sha.hexdigest()

    def retired(self, level: int) -> np.ndarray:
        """uint32 (m, 2): codes of the level that are out of use, ascending, and what stands for each (or NOTHING)."""
        found = self.tensors.get(f"{LIFE}{self.levels[level].name}.retired")
        return np.zeros((0, 2), np.uint32) if found is None else np.asarray(found, np.uint32)

    def redirects(self, level: int) -> np.ndarray:
        """uint32 (cardinality,): the code in use that stands for each code; a code for which nothing does is itself."""
        to = np.arange(self.levels[level].cardinality, dtype=np.uint32)
        for code, stand_in in self.retired(level):
            to[code] = code if stand_in == NOTHING else stand_in
        for _ in range(32):
            if np.array_equal(to, to[to]):
                return to
            to = to[to]
        raise VocabularyError(
            f"{self.modality} level {self.levels[level].name}", "its retired codes stand for each other"
        )

    def descends(self, other: TokenizerState) -> bool:
        """Whether every code of `other` means the same here: this is `other`, or grew out of it.

        Compared by content: modality, configuration, names and roles of levels, and tensors, of which those of a
        level that grew may have rows more, after the old ones, and no old code a part in directions that came since.
        What was retired stays retired.
        """
        if self.digest == other.digest:
            return True
        if (self.modality, canonical_json(self.config)) != (other.modality, canonical_json(other.config)):
            return False
        pairs = list(zip(self.levels, other.levels, strict=False))
        if len(self.levels) != len(other.levels) or any(
            replace(mine, cardinality=theirs.cardinality) != theirs or mine.cardinality < theirs.cardinality
            for mine, theirs in pairs
        ):
            return False
        growths = {mine.cardinality - theirs.cardinality for mine, theirs in pairs}
        grown = {0} | {
            n
            for (mine, _), n in zip(pairs, [a.cardinality - b.cardinality for a, b in pairs], strict=True)
            if mine.role in ("code", "mode")
        }
        if growths - grown or dict(self.blobs) != dict(other.blobs):
            return False
        plain, theirs_plain = ({n for n in s.tensors if not n.startswith(LIFE)} for s in (self, other))
        return (
            plain == theirs_plain
            and all(_begins(self.tensors[n], other.tensors[n], grown) for n in plain)
            and all(
                _begins(_within(self.tensors.get(n, t[:0]), t, n), t, None)
                for n, t in other.tensors.items()
                if n.startswith(LIFE) and not n.endswith(".retired")
            )
            and all(np.isin(other.retired(k)[:, 0], self.retired(k)[:, 0]).all() for k in range(len(other.levels)))
        )


def _within(mine: np.ndarray, theirs: np.ndarray, name: str) -> np.ndarray:
    """Of coefficients beyond the first directions those in directions that `theirs` has, if its codes lie in no others.
    A tensor of another name is itself."""
    if not name.endswith(f".{BEYOND}") or mine.ndim != 2 or mine[: len(theirs), theirs.shape[1] :].any():
        return mine
    return mine[:, : theirs.shape[1]]


def _begins(mine: np.ndarray, theirs: np.ndarray, growths: set[int] | None) -> bool:
    """Whether `mine` is `theirs` with rows appended, as many as one of `growths` (any number if None)."""
    mine, theirs = np.asarray(mine), np.asarray(theirs)
    if mine.dtype != theirs.dtype or mine.ndim != theirs.ndim or mine.shape[1:] != theirs.shape[1:]:
        return False
    if mine.ndim == 0:
        return bool(mine == theirs)
    more = len(mine) - len(theirs)
    # As bytes: NaN equals itself, and -0.0 is not 0.0.
    same = np.ascontiguousarray(mine[: len(theirs)]).tobytes() == np.ascontiguousarray(theirs).tobytes()
    return more >= 0 and (growths is None or more in growths) and same


@dataclass(frozen=True)
class Extent:
    """A run of ids. kind: `text`, `control`, `digit` or `code`; level counts within the modality."""

    start: int
    length: int
    kind: str
    modality: str = ""
    level: int = 0
    name: str = ""

    first: int = 0
    """The code of the level that the first id stands for: 0 but for what was grown later."""

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokenizers by modality and the extents that number their codes.

    remaps: for tokenizers that were merged into one of these, by their digest: `<level>` -> uint32 code here of each
        of their codes. They tell how to read what was written elsewhere, and are no part of the identity.
    """

    states: Mapping[str, TokenizerState]
    extents: tuple[Extent, ...]
    remaps: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def build(cls, states: Mapping[str, TokenizerState]) -> Vocabulary:
        """A new vocabulary: text first, then control, digits, and the levels in the order of MODALITIES."""
        extents: list[Extent] = []
        if "text" in states:
            extents.append(Extent(0, states["text"].levels[0].cardinality, "text", "text", 0, "text"))
        at = extents[-1].stop if extents else 0
        extents.append(Extent(at, len(CONTROL), "control", name="control"))
        extents.append(Extent(extents[-1].stop, DIGITS, "digit", name="digit"))
        born = cls({}, tuple(extents))
        for modality in ("video", "audio", "numeric"):
            if modality in states:
                born = born.with_state(states[modality])
        return cls(dict(states), born.extents)

    def with_state(self, state: TokenizerState) -> Vocabulary:
        """This vocabulary with one more modality, or one that grew, its new extents appended: no id moves.

        A state that this vocabulary's own descends from changes nothing. Raises VocabularyError if the modality is
        there already with other codes, or if text would have to move.
        """
        mine = self.states.get(state.modality)
        if mine is not None:
            if mine.descends(state):
                return self
            if not state.descends(mine) or state.modality == "text":
                raise VocabularyError(
                    f"vocabulary {self.id[:12]}",
                    f"already has a tokenizer for {state.modality}, with other codes",
                    "take each modality from one vocabulary; leave the other out of the merge",
                )
        extents = list(self.extents)
        if state.modality == "text":
            if extents and extents[0].kind != "text":
                raise VocabularyError("text model", "text ids must come first", "name it first in the merge")
        else:
            for number, level in enumerate(state.levels):
                first = 0 if mine is None else mine.levels[number].cardinality
                if level.role != "digit" and level.cardinality > first:
                    at = extents[-1].stop
                    length = level.cardinality - first
                    extents.append(Extent(at, length, "code", state.modality, number, level.name, first))
        return Vocabulary({**self.states, state.modality: state}, tuple(extents), self.remaps)

    @property
    def size(self) -> int:
        """Ids given so far: valid ids are 0 .. size - 1."""
        return self.extents[-1].stop

    @cached_property
    def id(self) -> str:
        """sha256 over the extents and the content of every tokenizer."""
        extents = [
            [e.start, e.length, e.kind, e.modality, e.level, *([e.first] if e.first else [])] for e in self.extents
        ]
        states = {m: s.digest for m, s in self.states.items()}
        return hashlib.sha256(canonical_json({"format": FORMAT, "extents": extents, "states": states})).hexdigest()

    def control(self, name: str) -> int:
        """The id of a control symbol, by its name in CONTROL."""
        return self._extents("control")[0].start + CONTROL.index(name)

    def levels(self, modality: str) -> tuple[Level, ...]:
        if modality not in self.states:
            raise VocabularyError(
                f"vocabulary {self.id[:12]}",
                f"has no tokenizer for {modality}",
                f"fit one on recordings that hold {modality}",
            )
        return self.states[modality].levels

    def table(self, modality: str, level: int, *, in_use: bool = False) -> np.ndarray:
        """uint32 (cardinality,): the id of each code of the level.

        in_use: for a code that was retired, the id of what stands for it now.
        """
        spec = self.levels(modality)[level]
        if spec.role == "digit":
            start = self._extents("digit")[0].start
            return np.arange(start, start + spec.cardinality, dtype=np.uint32)
        extents = self._extents("text" if modality == "text" else "code", modality, level)
        table = np.concatenate([np.arange(e.start, e.stop, dtype=np.uint32) for e in extents])
        assert len(table) == spec.cardinality and [e.first for e in extents] == list(
            np.cumsum([0, *(e.length for e in extents[:-1])])
        ), (spec, extents)
        return table[self.states[modality].redirects(level)] if in_use else table

    def ids(self, modality: str, level: int, codes: np.ndarray) -> np.ndarray:
        """uint32 ids of codes; raises TokenError for a code that the level does not have."""
        table = self.table(modality, level)
        codes = np.asarray(codes)
        if codes.size and (int(codes.max()) >= len(table) or int(codes.min()) < 0):
            at = int(np.argmax((codes >= len(table)) | (codes < 0)))
            raise TokenError(f"{modality} level {level} position {at}", f"code {codes.flat[at]} is not in the level")
        return table[codes]

    def locate(self, number: int) -> tuple[str, int, int]:
        """(modality or kind, level, code) of an id; raises TokenError for an id that was never given."""
        for e in self.extents:
            if e.start <= number < e.stop:
                return e.modality or e.kind, e.level, e.first + number - e.start
        raise TokenError(f"id {number}", f"is not in the vocabulary (0 .. {self.size - 1})")

    def status(self, number: int) -> tuple[str, int]:
        """("live", the id), ("deprecated", the id that stands for it) or ("tombstone", the id): what an id is now.

        Raises TokenError for an id that was never given.
        """
        modality, level, code = self.locate(number)
        if modality in self.states:
            state = self.states[modality]
            if (state.retired(level)[:, 0] == code).any():
                to = int(state.redirects(level)[code])
                return ("tombstone", number) if to == code else ("deprecated", int(self.table(modality, level)[to]))
        return "live", number

    def live(self) -> np.ndarray:
        """bool (size,): which ids a tokenizer may still give."""
        use = np.ones(self.size, bool)
        for modality, state in self.states.items():
            for level in range(len(state.levels)):
                gone = state.retired(level)[:, 0]
                if len(gone):
                    use[self.table(modality, level)[gone]] = False
        return use

    def reads(self, other: Vocabulary) -> bool:
        """Whether ids given by `other` mean the same here: its extents begin this one's, and `decodes`."""
        return self.extents[: len(other.extents)] == other.extents and self.decodes(other)

    def decodes(self, other: Vocabulary) -> bool:
        """Whether codes written under `other` mean the same here: each tokenizer is the other's, or grew out of it.

        Ids may differ: codes are what is stored.
        """
        return all(m in self.states and self.states[m].descends(s) for m, s in other.states.items())

    def _extents(self, kind: str, modality: str = "", level: int = 0) -> list[Extent]:
        found = [e for e in self.extents if (e.kind, e.modality, e.level) == (kind, modality, level)]
        if not found:
            raise VocabularyError(f"vocabulary {self.id[:12]}", f"has no extent for {kind} {modality} {level}")
        return found


def merge(vocabularies: Sequence[Vocabulary], text: TokenizerState | None = None) -> Vocabulary:
    """The first vocabulary extended by what the others add; numbered anew only if text must be put before it.

    text: a text model that replaces those of the vocabularies. Stores keep reading either way: they hold codes.

    Raises VocabularyError if two of them have tokenizers for one modality of which neither grew out of the other.
    """
    states: dict[str, TokenizerState] = {} if text is None else {"text": text}
    remaps: dict[str, Mapping[str, np.ndarray]] = {}
    for vocabulary in vocabularies:
        remaps |= vocabulary.remaps
        for modality, state in vocabulary.states.items():
            mine = states.setdefault(modality, state)
            if mine.descends(state) or (modality == "text" and text is not None):
                continue
            if not state.descends(mine):
                raise VocabularyError(
                    "merge",
                    f"two of the vocabularies have different tokenizers for {modality}",
                    "name the text model to keep" if modality == "text" else "fit one vocabulary on both recordings",
                )
            states[modality] = state
    first = vocabularies[0] if vocabularies else Vocabulary.build(states)
    mine_text, new_text = first.states.get("text"), states.get("text")
    if new_text is not None and (mine_text is None or mine_text.digest != new_text.digest):
        if "composition" in states:
            raise VocabularyError(
                "merge", "another text model would move the ids that compositions are made of",
                "merge the text model with the vocabulary as it was before `vocab compose`, then compose again",
            )  # fmt: skip
        first = Vocabulary.build({"text": new_text})
        # Grown levels are numbered in one piece: nothing is left of the old order to keep.
        states = {m: states[m] for m in ("text", "video", "audio", "numeric", *states) if m in states}
    for state in states.values():
        first = first.with_state(state)
    return replace(first, remaps=remaps)


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
