"""`pantok encode --grow`: the vocabulary of a store is extended while recordings are encoded into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.commands import common

if TYPE_CHECKING:
    from pantok.encode import Codec
    from pantok.experience import Episode
    from pantok.formats.store import Store
    from pantok.vocabulary import Vocabulary


def open_store(run: common.Run, output: Path, vocabulary: Vocabulary, path: Path | None) -> Store:
    """The store to encode into, made if there is none. One whose vocabulary the given one grew out of takes it in."""
    from pantok.formats.store import Store
    from pantok.formats.store_remote import mirror_of
    from pantok.formats.vocab import read_lineage

    if path is not None and (mirror_of(output) / "zarr.json").exists():
        store = Store.open(output)
        if vocabulary.id not in store.vocabulary_ids and vocabulary.reads(store.vocabulary):
            store.extend(vocabulary, read_lineage(path))
            run.say(f"{output} is read and written under {path} from now on; what it holds reads as before.")
    store = Store.create_or_open(output, vocabulary)
    if store.vocabulary_id != vocabulary.id:
        run.say(f"{output} has a later vocabulary of its own, {store.vocabulary_id[:12]}: it is used.")
    return store


class Notes:
    """What growth has come to know, kept in the store's cache, so that a run that was stopped at any moment and goes on
    grows as one that was not. Without them it begins to learn anew, and may grow elsewhere."""

    def __init__(self, store: Store, max_new: int) -> None:
        from pantok.formats.store_root import CACHE

        self._path, self._now, self._max_new = store.path / CACHE / "growth.json", store.vocabulary_id, max_new

    @staticmethod
    def key_of(episode: Episode) -> list[str]:
        """Which recording it is, by its name and what its files hold."""
        return [episode.id, *(source.sha256 for source in episode.sources)]

    def read(self) -> dict[str, Any] | None:
        """The `knowledge` under the store's newest vocabulary, and the `episode` that is looked at with that; None if
        there is none, or of runs under another limit."""
        try:
            said = json.loads(self._path.read_text())
            known = said["known"]
            if said["max_new"] != self._max_new or self._now not in known:
                return None
            # Still the vocabulary from before the last growth: it is to be done again.
            last = list(known)[-1]
            return {"knowledge": known[self._now], "episode": said["episode"] if self._now == last else None}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, episode: Episode, known: Mapping[str, Mapping[str, Any]]) -> None:
        """known: by vocabulary, the one before the episode and the one that encodes it, which may be the same."""
        from pantok.errors import OutputError
        from pantok.formats.files import replaced

        said = {"max_new": self._max_new, "episode": self.key_of(episode), "known": known}
        with suppress(OSError, OutputError):  # a store in which nothing can be kept is no worse than one without
            self._path.parent.mkdir(exist_ok=True)
            with replaced(self._path) as temporary:
                temporary.write_text(json.dumps(said))


class Growing:
    """What --grow does on each episode, and what came of it. Raises OptionError for a limit that cannot be."""

    def __init__(self, run: common.Run, max_new: int | None) -> None:
        from pantok.evolve.online import Grower, OnlineConfig

        self._config = OnlineConfig() if max_new is None else OnlineConfig(max_new=max_new)
        self._run, self._grower = run, Grower(self._config)
        self._codec: Codec | None = None
        self._steps: list[dict[str, Any]] = []
        self._recalled, self._looked_at = False, None

    def codec_for(self, bar: Any, task: Any) -> Callable[[Store, Episode], Codec]:
        """For `encode_episode`: grows the store's vocabulary for an episode if that pays; what encodes it."""

        def told(modality: str) -> Callable[[str, float], None]:
            return lambda what, fraction: bar.update(task, note=f"growing {modality}: {what}")

        def choose(store: Store, episode: Episode) -> Codec:
            from pantok.encode import Codec

            bar.update(task, note="growing: looking")
            notes = Notes(store, self._config.max_new)
            if not self._recalled:
                self._recalled = True
                self._recall(notes)
            looked_at = self._looked_at == Notes.key_of(episode)
            while not looked_at and not self._grow(store, episode, told, notes):
                pass  # another process was quicker: its vocabulary may do
            if self._codec is None or self._codec.vocabulary.id != store.vocabulary_id:
                self._codec = Codec(store.vocabulary)
            return self._codec

        return choose

    def _recall(self, notes: Notes) -> None:
        """Goes on where the run before this was stopped."""
        known = notes.read()
        if known is not None:
            self._grower.knowledge, self._looked_at = known["knowledge"], known["episode"]

    def _grow(self, store: Store, episode: Episode, told: Callable[[str], Any], notes: Notes) -> bool:
        from pantok.evolve.lineage import line
        from pantok.formats.store_vocabularies import lines_of

        old = store.vocabulary
        before = self._grower.knowledge
        new, steps = self._grower.grown(old, list(episode.tracks.values()), self._room(store), told)
        # Before the store has the new vocabulary: if this is stopped in between, it is to be known what to do again.
        notes.write(episode, {old.id: before, new.id: self._grower.knowledge})
        if not steps:
            return True
        was = {s.modality: round(s.before, 1) for s in steps}
        now = {s.modality: round(s.after, 1) for s in steps}
        arguments = {"episode": episode.id, "max_new": self._config.max_new}
        entry = line(
            "grow", new, [old], arguments, {"ids": old.size, "bits_per_second": was},
            {"ids": new.size, "bits_per_second": now, "levels": {s.modality: s.levels for s in steps}},
        )  # fmt: skip
        if not store.extend(new, [*lines_of(store.path), entry]):
            return False
        for step in steps:
            self._steps.append(
                {
                    "episode": episode.id,
                    "modality": step.modality,
                    "added": step.added,
                    "bits_per_second_before": round(step.before, 1),
                    "bits_per_second_after": round(step.after, 1),
                    "vocabulary_id": new.id,
                }
            )
            self._run.say(
                f"{episode.id}: {step.added} new {step.modality} codes, "
                f"{step.before:.0f} -> {step.after:.0f} bits a second to half the error."
            )
        return True

    def _room(self, store: Store) -> int:
        """Ids that the store's vocabulary may still get."""
        return self._config.max_new - (store.vocabulary.size - store.version(store.vocabulary_ids[0]).size)

    def document(self, output: Path) -> dict[str, Any]:
        """What came of it, for --json."""
        from pantok.formats.store import Store

        store = Store.open(output)
        ids = {"ids": store.vocabulary.size, "vocabulary_id": store.vocabulary_id, "vocabularies": store.vocabulary_ids}
        return {**ids, "grown": self._steps, "new_ids_left": self._room(store)}

    def summary(self, output: Path) -> None:
        """What came of it, in a sentence."""
        from pantok.formats.addresses import address, is_remote
        from pantok.formats.store import Store
        from pantok.formats.store_remote import mirror_of
        from pantok.formats.store_vocabularies import newest_folder

        added, left = sum(step["added"] for step in self._steps), self._room(Store.open(output))
        if added:
            here = mirror_of(output)
            newest = f"{address(output) if is_remote(output) else output}/{newest_folder(here).relative_to(here)}"
            self._run.say(f"Its vocabulary got {added} ids and may get {left} more; it is {newest}.")
        elif left > 0:
            self._run.say(f"Its vocabulary did not grow: no new code would pay. It may get {left} more ids.")
        else:
            self._run.say(f"Its vocabulary did not grow: it has all {self._config.max_new} ids that --max-new allows.")
