"""Tokenizers by modality. They are loaded by name, so that a text job does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pantok.config import from_mapping
from pantok.tokenizers.base import Encoder, Report, Tokenizer, silent
from pantok.vocabulary import TokenizerState

__all__ = ["Encoder", "Report", "Tokenizer", "config_of", "load", "of_modality", "options_of", "silent"]


def of_modality(modality: str) -> type[Tokenizer]:
    """The class that tokenizes `modality`: `video` is `VideoTokenizer` of `pantok.tokenizers.video`, and so on."""
    return _member(modality, "Tokenizer")


def load(state: TokenizerState) -> Tokenizer:
    """The tokenizer that `state` describes."""
    return of_modality(state.modality).from_state(state)


def config_of(modality: str, settings: Mapping[str, Any]) -> Any:
    """What `fit` takes, from a table of settings. Raises OptionError naming a setting that there is not."""
    return from_mapping(_member(modality, "Config"), settings, f"fit {modality}")


def options_of(modality: str, settings: Mapping[str, Any]) -> Any:
    """What `encode` takes, from a table of settings. Text has no options. Raises OptionError."""
    if modality == "text":
        return None
    return from_mapping(_member(modality, "Options"), settings, f"encode {modality}")


def _member(modality: str, suffix: str) -> Any:
    return getattr(import_module(f"pantok.tokenizers.{modality}"), modality.capitalize() + suffix)
