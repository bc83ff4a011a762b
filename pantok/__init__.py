"""pantok: tokenize recordings of sight, sound, motion and text with one vocabulary, and train a world model on them.

This module imports neither torch nor any codec: every `--help` runs it.
"""

from pantok.errors import InputError, OptionError, PantokError, StoreError, TokenError, VocabularyError
from pantok.experience import Block, Clock, Episode, Source, Track
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Level, TokenizerState, Vocabulary

__version__ = "0.1.0"

__all__ = [
    "Block",
    "Clock",
    "Episode",
    "InputError",
    "Level",
    "LevelCodes",
    "OptionError",
    "PantokError",
    "Source",
    "StoreError",
    "TokenError",
    "TokenStream",
    "TokenizerState",
    "Track",
    "TrackTokens",
    "Vocabulary",
    "VocabularyError",
]
