"""Text that was written under one text model, read under another: spelled out, and tokenized anew.

What is unusual: only text can be. A code of a picture means what its codebook says, and is read by a table or not at
all; the words of a text model can be said in those of every other. Times stay, the number of ids does not. What a text
model cannot give back as it was (`TextTokenizer.is_lossless`) is said as it gives it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pantok.stream import LevelCodes, TrackTokens, smallest_dtype
from pantok.vocabulary import TokenizerState, Vocabulary

if TYPE_CHECKING:
    from pantok.tokenizers.text import TextTokenizer


class Respelling:
    """From the text model `written` to the text model `newest`."""

    def __init__(self, newest: TokenizerState, written: TokenizerState) -> None:
        self._newest, self._written = newest, written

    def track(self, track: TrackTokens) -> TrackTokens:
        """A track of text, of the same instants, in the words of the newest."""
        old, new = _tokenizer(self._written), _tokenizer(self._newest)
        said = [new.to_codes(old.to_text(track.levels[0].of_tick(i))) for i in range(track.ticks)]
        dtype = smallest_dtype(new.levels[0].cardinality)
        codes = np.concatenate(said) if said else np.zeros(0, dtype)
        level = LevelCodes.of_counts(codes, np.array([len(c) for c in said], np.int64))
        return replace(track, levels=(level,))


def respelling(newest: Vocabulary, written: Vocabulary) -> Respelling | None:
    """How text written under `written` is read under `newest`; None where its codes mean the same, or one of the two
    has no text model."""
    mine, theirs = newest.states.get("text"), written.states.get("text")
    return None if mine is None or theirs is None or mine.descends(theirs) else Respelling(mine, theirs)


@lru_cache(maxsize=8)
def _tokenizer(state: TokenizerState) -> TextTokenizer:
    from pantok.tokenizers.text import TextTokenizer

    return TextTokenizer.from_state(state)
