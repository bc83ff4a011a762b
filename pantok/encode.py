"""The main path, spoken aloud: an Episode and a vocabulary's tokenizers give a TokenStream, and back.

store.write(encode(episode, tokenizers, ...) for episode in read_episodes(paths))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pantok import tokenizers
from pantok.errors import InputError
from pantok.experience import Block, Episode
from pantok.stream import TokenStream, TrackTokens
from pantok.tokenizers import Tokenizer
from pantok.vocabulary import Vocabulary

Progress = Callable[[str, int], None]
"""(track name, samples taken in since the last call)"""
Skipped = Callable[[str, str], None]
"""(track name, why it is not in the stream)"""
Noted = Callable[[str, str], None]
"""(track name, what was asked for and is not so in the stream)"""


class Codec:
    """A vocabulary with its tokenizers loaded, each when it is first needed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._loaded: dict[str, Tokenizer] = {}

    def tokenizer(self, modality: str) -> Tokenizer:
        """Raises VocabularyError if the vocabulary has none for `modality`."""
        if modality not in self._loaded:
            self.vocabulary.levels(modality)
            self._loaded[modality] = tokenizers.load(self.vocabulary.states[modality])
        return self._loaded[modality]

    def encode(
        self,
        episode: Episode,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        progress: Progress = lambda track, samples: None,
        skipped: Skipped = lambda track, why: None,
        noted: Noted = lambda track, what: None,
    ) -> TokenStream:
        """All tracks for which the vocabulary has a tokenizer; the others are reported to `skipped`.

        settings: a table for each modality, see the Options class of its tokenizer.
        parameters: what the caller did beyond that (resampling, say), kept in the stream; the settings if None.
        Raises InputError if no track of the episode can be encoded.
        """
        settings = settings or {}
        done: dict[str, TrackTokens] = {}
        for track in episode.tracks.values():
            if track.modality not in self.vocabulary.states:
                skipped(track.name, f"the vocabulary has no tokenizer for {track.modality}")
                continue
            options = tokenizers.options_of(track.modality, settings.get(track.modality, {}))
            encoder = self.tokenizer(track.modality).encoder(track, options)
            try:
                for block in track.blocks():
                    encoder.push(block)
                    progress(track.name, len(block))
                tokens = encoder.finish()
            except InputError as error:
                skipped(track.name, str(error))
                continue
            if tokens.clock.count == 0:
                skipped(track.name, "holds no samples")
                continue
            done[track.name] = tokens
            if encoder.unmet is not None:
                noted(track.name, encoder.unmet)
        if not done:
            raise InputError(episode.id, "has no track that can be encoded", "see the messages above it")
        if parameters is None:
            parameters = {m: dict(s) for m, s in settings.items() if s}
        return TokenStream(episode.id, done, self.vocabulary.id, episode.sources, parameters)

    def decode(
        self,
        tokens: TrackTokens,
        *,
        levels: int | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[Block]:
        """The samples of one track whose instants lie in [start_ns, end_ns), from its first `levels` levels."""
        first, last = tokens.clock.span(start_ns, end_ns)
        yield from self.tokenizer(tokens.modality).decode(tokens, levels=levels, start=first, stop=last)
