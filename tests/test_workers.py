"""Processes that encode: what kills one costs its own episode alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pantok.commands import workers
from pantok.commands.signals import StoppedError, stoppable
from pantok.commands.workers import Done, Job, encode_in_processes
from pantok.errors import StoreError
from pantok.formats.folder import EpisodeFiles, ReadOptions
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary


class Deadly(dict):  # type: ignore[type-arg]
    """Rules of a file that end the process which asks for them, as a library does that crashes on it."""

    def get(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def episodes(folder: Path, count: int, deadly: set[int]) -> list[EpisodeFiles]:
    found = []
    for number in range(count):
        path = folder / f"walk-{number:02d}.csv"
        rows = np.random.default_rng(number).normal(size=(40, 2)).cumsum(0)
        np.savetxt(path, rows, delimiter=",", header="# rate_hz: 20\nx,y", comments="")
        found.append(EpisodeFiles(path.stem, (path,), Deadly() if number in deadly else {}))
    return found


@pytest.fixture
def job(vocabulary: Path, tmp_path: Path) -> Job:
    Store.create(tmp_path / "out.zarr", load_vocabulary(vocabulary))
    return Job(str(tmp_path / "out.zarr"), ReadOptions(), {}, force=False)


def test_an_episode_that_kills_its_process_costs_no_other(job: Job, tmp_path: Path) -> None:
    found = episodes(tmp_path, 9, {4})
    done: list[Done] = []
    encode_in_processes(job, found, 2, done.append)
    assert sorted(d.episode for d in done) == [files.id for files in found]
    problems = {d.episode: d.problems for d in done if d.problems}
    assert list(problems) == ["walk-04"]
    assert problems["walk-04"][0].startswith(f"{found[4].paths[0]}: the process that encoded it was killed (")
    assert [*Store.open(job.store).episodes] == [files.id for files in found if files.id != "walk-04"]


@pytest.mark.parametrize("starts", [True, False])
def test_only_processes_that_cannot_start_end_it(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    monkeypatch.setattr(workers, "_IN_A_ROW", 2)
    if not starts:
        monkeypatch.setattr(workers, "_can_start", lambda: False)
        with pytest.raises(StoreError, match="one worker process after another was killed"):
            encode_in_processes(job, episodes(tmp_path, 3, {0, 1, 2}), 2, lambda done: None)
        return
    done: list[Done] = []
    encode_in_processes(job, episodes(tmp_path, 4, {0, 1, 2}), 2, done.append)
    assert [d.episode for d in done if d.problems] == ["walk-00", "walk-01", "walk-02"]
    assert [*Store.open(job.store).episodes] == ["walk-03"]


class Endless(dict):  # type: ignore[type-arg]
    """Rules of a file at which its process stays for good, once it has said that it is there."""

    def get(self, *_: object) -> None:
        Path(self["here"]).touch()
        time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_what_runs(job: Job, tmp_path: Path, number: signal.Signals) -> None:
    found = episodes(tmp_path, 3, set())
    here = tmp_path / "here"
    found[1] = EpisodeFiles(found[1].id, found[1].paths, Endless(here=here))

    def end_it() -> None:
        deadline = time.monotonic() + 50  # the assertions say what was not there then
        while time.monotonic() < deadline and (not here.exists() or "walk-02" not in Store.open(job.store)):
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    threading.Thread(target=end_it, daemon=True).start()
    with pytest.raises(StoppedError) as stop, stoppable():
        encode_in_processes(job, found, 2, lambda done: None)
    assert stop.value.number == number and not multiprocessing.active_children()
    assert [*Store.open(job.store).episodes] == ["walk-00", "walk-02"]
    encode_in_processes(job, episodes(tmp_path, 3, set()), 1, lambda done: None)  # and it goes on from there
    assert len(Store.open(job.store).episodes) == 3


def test_a_scheduler_that_ends_the_command_is_told_so(recordings: Path, vocabulary: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(400_000, 2)).cumsum(0)
    np.savez(tmp_path / "long.npz", walk=rows.astype(np.float32), rate_hz=20)  # longer than this test waits
    target = tmp_path / "ended.zarr"
    words = ["encode", recordings, tmp_path / "long.npz", "--vocab", vocabulary, "-o", target, "--workers", "2"]
    command = [sys.executable, "-m", "pantok", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not target.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]  # its workers hold the pipe, too
    assert process.returncode == 128 + signal.SIGTERM and "Stopped." in said and "Traceback" not in said
    Store.open(target)
