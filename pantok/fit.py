"""From recordings to a vocabulary: each modality that they hold is fitted on its own, then numbered together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pantok import tokenizers
from pantok.errors import InputError, NothingToLearnError
from pantok.experience import MODALITIES, Episode
from pantok.vocabulary import TokenizerState, Vocabulary

Progress = Callable[[str, str, float], None]
"""(modality, what is being done, fraction done from 0 to 1)"""


def fit_vocabulary(
    episodes: Sequence[Episode],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    text: TokenizerState | None = None,
    modalities: Sequence[str] = MODALITIES,
    seed: int = 0,
    progress: Progress = lambda modality, what, fraction: None,
    fitted: Callable[[TokenizerState], None] = lambda state: None,
    left_out: Callable[[str, NothingToLearnError], None] = lambda modality, why: None,
) -> Vocabulary:
    """A vocabulary of the modalities that the episodes hold.

    settings: a table for each modality (`{"video": {"size": 1024}}`), see the Config class of its tokenizer.
    text: an existing text model, kept as it is; else one is trained on the recordings' own text, if any.
    fitted: called with each tokenizer as soon as it is done, so that long work can be shown.
    left_out: called with each modality that the episodes have tracks of but nothing to learn from, such as silence.
    Raises InputError if the episodes hold nothing that can be fitted, OptionError for an unknown setting.
    """
    settings = settings or {}
    held = {m: [t for e in episodes for t in e.of_modality(m)] for m in modalities}
    # A wrong setting fails before any work; a modality that nobody asks for is not even imported.
    configs = {m: tokenizers.config_of(m, settings.get(m, {})) for m in modalities if held[m] or m in settings}
    states: dict[str, TokenizerState] = {}
    nothing: dict[str, NothingToLearnError] = {}
    if text is not None:
        states["text"] = text
    for modality, tracks in held.items():
        if not tracks or modality in states:
            continue
        try:
            tokenizer = tokenizers.of_modality(modality).fit(
                tracks, configs[modality], seed=seed, report=partial(progress, modality)
            )
        except NothingToLearnError as error:
            nothing[modality] = error
            continue
        states[modality] = tokenizer.state()
        fitted(states[modality])
    if not states:
        if nothing:
            raise next(iter(nothing.values()))
        raise InputError("recordings", "hold no video, sound, numbers or text to learn from")
    for modality, why in nothing.items():
        left_out(modality, why)
    return Vocabulary.build(states)
