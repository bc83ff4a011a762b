"""Which vocabulary a store is read under for a run: the run's own, if that grew out of the store's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pantok.errors import VocabularyError

if TYPE_CHECKING:
    from pantok.formats.runs import RunFolder
    from pantok.formats.store import Store
    from pantok.vocabulary import Vocabulary


def of_run(path: Path, store: Store, run: RunFolder, remedy: str = "train a new run, -o names it") -> Vocabulary:
    """The run's vocabulary. Raises VocabularyError if it does not read the store: what to do is said where the store's
    grew out of the run's, else `remedy`."""
    from pantok.evolve.lineage import related

    mine, its = store.vocabulary_id, str(run.config["vocabulary_id"])
    vocabulary = run.vocabulary
    if mine == its or related(vocabulary, store.vocabulary):
        return vocabulary
    if store.vocabulary.reads(vocabulary):
        raise VocabularyError(
            path, f"has grown to vocabulary {mine[:12]}, the run is of its ancestor {its[:12]}",
            f"go on under it: `pantok train-wm {path} -o NEW_RUN --from-run {run.path}`",
        )  # fmt: skip
    raise VocabularyError(path, f"is of vocabulary {mine[:12]}, the run is of {its[:12]}", remedy)
