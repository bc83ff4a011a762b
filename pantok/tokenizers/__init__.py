"""Tokenizers by modality. They are loaded by name, so that a text job does not import torch."""

from __future__ import annotations

from importlib import import_module

from pantok.tokenizers.base import Encoder, Report, Tokenizer, silent
from pantok.vocabulary import TokenizerState

__all__ = ["Encoder", "Report", "Tokenizer", "load", "of_modality", "silent"]

_CLASSES = {
    "video": "VideoTokenizer",
    "audio": "AudioTokenizer",
    "numeric": "NumericTokenizer",
    "text": "TextTokenizer",
}


def of_modality(modality: str) -> type[Tokenizer]:
    """The class that tokenizes `modality` (`video`, `audio`, `numeric`, `text`)."""
    return getattr(import_module(f"pantok.tokenizers.{modality}"), _CLASSES[modality])


def load(state: TokenizerState) -> Tokenizer:
    """The tokenizer that `state` describes."""
    return of_modality(state.modality).from_state(state)
