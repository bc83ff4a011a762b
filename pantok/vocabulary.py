"""The one vocabulary: text, control ids, digits and every level of every tokenizer share one space of ids.

Ids are a view, codes are what is stored. An id, once given, is never moved and never given to something
else, so extents are append-only, in order of birth:

    [0, T)            the text model's own ids, untouched
    [T, T + 64)       control ids (bos, eos, pad, tick, begin and end of each modality, ...)
    [.., + 256)       digits of bounded-error levels, shared by all modalities
    [.., ...)         one extent for each (modality, level)

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
from dataclasses import dataclass, field
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
    """All that makes a tokenizer: modality, configuration (JSON), levels, tensors, and opaque files (a text model)."""

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


@dataclass(frozen=True)
class Extent:
    """A run of ids. kind: `text`, `control`, `digit` or `code`; level counts within the modality."""

    start: int
    length: int
    kind: str
    modality: str = ""
    level: int = 0
    name: str = ""

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokenizers by modality and the extents that number their codes."""

    states: Mapping[str, TokenizerState]
    extents: tuple[Extent, ...]

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
        """This vocabulary with one more modality, its extents appended: no id moves.

        Raises VocabularyError if the modality is there already with other codes, or if text would have to move.
        """
        mine = self.states.get(state.modality)
        if mine is not None:
            if mine.digest == state.digest:
                return self
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
                if level.role != "digit":
                    at = extents[-1].stop
                    extents.append(Extent(at, level.cardinality, "code", state.modality, number, level.name))
        return Vocabulary({**self.states, state.modality: state}, tuple(extents))

    @property
    def size(self) -> int:
        """Ids given so far: valid ids are 0 .. size - 1."""
        return self.extents[-1].stop

    @cached_property
    def id(self) -> str:
        """sha256 over the extents and the content of every tokenizer."""
        extents = [[e.start, e.length, e.kind, e.modality, e.level] for e in self.extents]
        states = {m: s.digest for m, s in self.states.items()}
        return hashlib.sha256(canonical_json({"format": FORMAT, "extents": extents, "states": states})).hexdigest()

    def control(self, name: str) -> int:
        """The id of a control symbol, by its name in CONTROL."""
        return self._extent("control").start + CONTROL.index(name)

    def levels(self, modality: str) -> tuple[Level, ...]:
        if modality not in self.states:
            raise VocabularyError(
                f"vocabulary {self.id[:12]}",
                f"has no tokenizer for {modality}",
                f"fit one on recordings that hold {modality}",
            )
        return self.states[modality].levels

    def table(self, modality: str, level: int) -> np.ndarray:
        """uint32 (cardinality,): the id of each code of the level."""
        spec = self.levels(modality)[level]
        if spec.role == "digit":
            start = self._extent("digit").start
        else:
            start = self._extent("text" if modality == "text" else "code", modality, level).start
        return np.arange(start, start + spec.cardinality, dtype=np.uint32)

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
                return e.modality or e.kind, e.level, number - e.start
        raise TokenError(f"id {number}", f"is not in the vocabulary (0 .. {self.size - 1})")

    def reads(self, other: Vocabulary) -> bool:
        """Whether ids given by `other` mean the same here: its extents begin this one's, and `decodes`."""
        return self.extents[: len(other.extents)] == other.extents and self.decodes(other)

    def decodes(self, other: Vocabulary) -> bool:
        """Whether codes written under `other` mean the same here. Ids may differ: codes are what is stored."""
        return all(m in self.states and self.states[m].digest == s.digest for m, s in other.states.items())

    def _extent(self, kind: str, modality: str | None = None, level: int = 0) -> Extent:
        for e in self.extents:
            if e.kind == kind and (modality is None or (e.modality, e.level) == (modality, level)):
                return e
        raise VocabularyError(f"vocabulary {self.id[:12]}", f"has no extent for {kind} {modality or ''} {level}")


def merge(vocabularies: Sequence[Vocabulary], text: TokenizerState | None = None) -> Vocabulary:
    """The first vocabulary extended by what the others add; numbered anew only if text must be put before it.

    text: a text model that replaces those of the vocabularies. Stores keep reading either way: they hold codes.

    Raises VocabularyError if two of them have different tokenizers for one modality.
    """
    states: dict[str, TokenizerState] = {} if text is None else {"text": text}
    for vocabulary in vocabularies:
        for modality, state in vocabulary.states.items():
            mine = states.setdefault(modality, state)
            if mine.digest != state.digest and not (modality == "text" and text is not None):
                raise VocabularyError(
                    "merge",
                    f"two of the vocabularies have different tokenizers for {modality}",
                    "name the text model to keep" if modality == "text" else "fit one vocabulary on both recordings",
                )
    first = vocabularies[0] if vocabularies else Vocabulary.build(states)
    mine_text, new_text = first.states.get("text"), states.get("text")
    if new_text is not None and (mine_text is None or mine_text.digest != new_text.digest):
        return Vocabulary.build(states)
    for modality, state in states.items():
        if modality not in first.states:
            first = first.with_state(state)
    return first


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
