"""One episode after another, in this process or in several: each worker reads, encodes and commits on its own.

Segments are immutable and one episode each, so workers share nothing and the store's content does not depend on
how many there are. What goes between processes is a list of files one way and a few numbers the other.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.commands.signals import unbroken
from pantok.errors import InputError, StoreError, TokenError

if TYPE_CHECKING:
    from pantok.encode import Codec
    from pantok.experience import Episode
    from pantok.formats.folder import EpisodeFiles, ReadOptions
    from pantok.formats.store import Store


_WORTH_SHARING = 2 << 20
"""Bytes of recordings that take as long to encode as a process takes to start: some seconds of video."""
_IN_A_ROW = 5
"""Killed processes after which it may be something else than recordings."""
_MOST = 8  # of a process that encodes an hour of video a gigabyte is asked


@dataclass(frozen=True)
class Job:
    """What every episode of a run shares; small enough to send to a process."""

    store: str
    reading: ReadOptions
    settings: Mapping[str, Mapping[str, Any]]
    force: bool

    @property
    def parameters(self) -> dict[str, Any]:
        """What, beside sources and vocabulary, decides the codes: kept with each episode, so that a change is seen."""
        from pantok.config import to_mapping

        tables = {"read": to_mapping(self.reading), **{m: dict(t) for m, t in self.settings.items() if t}}
        return {name: table for name, table in tables.items() if any(v is not None for v in table.values())}


@dataclass
class Done:
    """What became of one episode."""

    episode: str
    encoded: bool = False
    kept: bool = False
    changed: bool = False
    """It was there, of other files or with other settings."""
    duration_s: float = 0.0
    codes: int = 0
    channels: list[tuple[str, str]] = field(default_factory=list)
    """Of numbers that were encoded: track and channel."""
    unread: list[str] = field(default_factory=list)
    """Modalities of its tracks that the vocabulary has no tokenizer for."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was asked for and is not so."""


@lru_cache(maxsize=1)
def _open(path: str) -> tuple[Store, Codec]:
    """The store and its tokenizers, once in each process."""
    from pantok.encode import Codec
    from pantok.formats.store import Store

    store = Store.open(path)
    return store, Codec(store.vocabulary)


def encode_episode(
    job: Job,
    files: EpisodeFiles,
    tick: Callable[[str, float], None] = lambda *_: None,
    codec_for: Callable[[Store, Episode], Codec] | None = None,
) -> Done:
    """Reads, encodes and commits one episode. What is wrong with its files comes back as problems, not as an error.

    codec_for: what encodes it, chosen when it is known that it is not in the store; the store's own if None.
    Raises StoreError where the store itself cannot be written: no other episode would fare better.
    """
    from pantok.formats.folder import read_episode

    done = Done(files.id)
    store, codec = _open(job.store)
    skipped: list[str] = []
    try:
        episode = read_episode(files, job.reading, done.problems.append)
        parameters = job.parameters
        if not job.force and store.has(episode.id, episode.sources, parameters):
            done.kept = True
            return done
        done.changed = not job.force and episode.id in store
        if codec_for is not None:
            codec = codec_for(store, episode)
        taken: dict[str, int] = {}

        def progress(name: str, samples: int) -> None:
            taken[name] = taken.get(name, 0) + samples
            rate = episode.tracks[name].rate
            tick(name, float(taken[name] / rate) if rate else 0.0)

        known = {name: t for name, t in episode.tracks.items() if t.modality in codec.vocabulary.states}
        done.unread = sorted({t.modality for t in episode.tracks.values()} - {t.modality for t in known.values()})
        if not known:
            return done
        named = episode.sources[0].path if len(episode.sources) == 1 else files.id
        stream = codec.encode(
            replace(episode, tracks=known),
            job.settings,
            parameters=parameters,
            progress=progress,
            skipped=lambda name, why: skipped.append(f"{named} {name}: {why}"),
            noted=lambda name, what: done.notes.append(f"{named} {name}: {what}"),
        )
        done.problems += skipped
        skipped = []
        store.write([stream])
    except (InputError, TokenError) as error:  # of this recording alone; any other error would meet all of them
        # Where no track can be encoded, the reason of each says more than that.
        done.problems += skipped or [str(error)]
        return done
    done.encoded = True
    spans = [(t.clock.start_ns, t.clock.start_ns + t.clock.duration_ns) for t in stream.tracks.values()]
    done.duration_s = (max(e for _, e in spans) - min(s for s, _ in spans)) / 1e9
    done.channels = [(t.name, c) for t in stream.tracks.values() if t.modality == "numeric" for c in t.channels]
    done.codes = sum(len(level.codes) for t in stream.tracks.values() for level in t.levels)
    return done


def workers_for(found: Sequence[EpisodeFiles]) -> int:
    """Processes that pay: at most a core and an episode each, and one where there is too little to share.

    A process takes seconds to start; the size of the files tells how much there is to do beside the largest episode.
    """
    known = {path: _size(path) for files in found for path in files.paths}
    sizes = sorted(sum(known[path] for path in files.paths) for files in found)
    if sum(sizes[:-1]) < _WORTH_SHARING:
        return 1
    return min(len(found), cores(), _MOST)


def _size(path: Path) -> int:
    from pantok.formats.files import size_of

    try:
        return size_of(path)
    except OSError:  # said when it is read
        return 0


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        return os.cpu_count() or 1


def encode_in_processes(
    job: Job, found: Sequence[EpisodeFiles], workers: int, finished: Callable[[Done], None]
) -> None:
    """All episodes by `workers` processes; `finished` is called here, in the order in which they end.

    An episode that kills its process (a library that crashes on a damaged file, or no memory left) is a problem of its
    own: those that may have done it are encoded again one by one, and the others go on. Raises StoreError if processes
    cannot be started at all.
    """
    waiting = [*found]
    killed = 0

    def counted(done: Done) -> None:
        nonlocal killed
        killed = 0
        finished(done)

    while waiting:
        waiting = _encode(job, waiting, workers, counted)
        suspects, waiting = waiting[: 2 * workers + 1], waiting[2 * workers + 1 :]  # which a pool hands out at once
        while suspects:
            suspects = _encode(job, suspects, 1, counted)
            if suspects:
                killed += 1
                if killed % _IN_A_ROW == 0 and not _can_start():
                    remedy = "what was committed stays; free some memory and run again, with fewer --workers"
                    raise StoreError(job.store, "one worker process after another was killed", remedy)
                deadly = suspects.pop(0)
                named = deadly.paths[0] if len(deadly.paths) == 1 else deadly.id
                why = "the process that encoded it was killed"
                remedy = "it crashes the library that reads it, or takes more memory than there is: leave it out"
                finished(Done(deadly.id, problems=[str(InputError(named, why, remedy))]))


def _can_start() -> bool:
    """Whether a process lives that reads no recording."""
    with _pool(1) as pool:
        try:
            return bool(pool.submit(os.getpid).result())
        except BrokenProcessPool:
            return False


def _encode(
    job: Job, found: Sequence[EpisodeFiles], workers: int, finished: Callable[[Done], None]
) -> list[EpisodeFiles]:
    """Encodes in processes of their own; what was left when one of those was killed, in the order given."""
    left = {files.id: files for files in found}
    pool = _pool(workers)
    futures = []
    try:
        with unbroken(), suppress(BrokenProcessPool):  # which starts the processes
            for files in found:
                futures.append(pool.submit(encode_episode, job, files))
        for future in as_completed(futures):
            with suppress(BrokenProcessPool):
                done = future.result()
                del left[done.episode]
                finished(done)
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():  # a scheduler does not wait until an episode is done
            child.kill()  # what it has not committed is no part of the store
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [*left.values()]


def _pool(workers: int) -> ProcessPoolExecutor:
    """So many new processes, which share the cores."""
    threads = max(1, cores() // workers)
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its thread pool
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(threads,))


def _start(threads: int) -> None:
    """In a new worker: its share of the cores, no reaction to Ctrl-C, which the parent handles, and an end with it."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody, and its workers hold both ends of the pipe that they wait at, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # as if it were killed itself: what it has not committed is no part of the store
