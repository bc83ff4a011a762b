"""Small real recordings, a vocabulary fitted on them and a store, made once for all tests that need them."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: threads of torch beyond that wait for each other. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from pantok.experience import Block, Clock
from tests.warm import Warm, at_import

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_data"
TINY = """
[video]
size = 32
sample_megabytes = 4
vectors = 1500
rounds = 1

[text]
size = 600
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@functools.cache
def warm() -> Warm:
    started = Warm()
    atexit.register(started.close)
    return started


def run_pantok(*args: object, cwd: Path | None = None) -> Outcome:
    """The command line in a process of its own, as a user runs it; torch and the like are imported once for all."""
    code, out, err = run_pantok_for_bytes(*args, cwd=cwd)
    return Outcome(code, out.decode(), err.decode())


def run_pantok_for_bytes(*args: object, cwd: Path | None = None) -> tuple[int, bytes, bytes]:
    """The same; exit code, standard output and standard error as they are."""
    words = [*map(str, args)]
    if at_import(dict(os.environ)) != warm().environment:
        done = subprocess.run([sys.executable, "-m", "pantok", *words], capture_output=True, cwd=cwd, timeout=300)
        return done.returncode, done.stdout, done.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = warm().run(words, cwd, 300, out.fileno(), err.fileno())
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


@pytest.fixture(scope="session")
def pantok() -> Callable[..., Outcome]:
    return run_pantok


def make_recordings(folder: Path) -> Path:
    """Two episodes of real media: a second of film with sound, subtitles and numbers; and half a second of another."""
    from pantok.formats.container import read_container
    from pantok.formats.media_out import Signal, write_media

    folder.mkdir(parents=True)
    for name, source, frames, size in (
        ("film-01", SAMPLES / "film" / "bunny.mp4", 24, 64),
        ("street/walk", SAMPLES / "street" / "walker.mp4", 12, 72),
    ):
        path = folder / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        tracks = {t.name: t for t in read_container(source, size=size)}
        video, sound = tracks["video"], tracks.get("audio")
        picture = Signal(
            (Block(b.values) for b in islice(video.blocks(1), frames)), Clock.regular(video.rate, frames), video.info
        )
        voice = None
        if sound is not None:
            rate = int(sound.rate)
            blocks = list(islice(sound.blocks(1024), int(rate * frames / video.rate) // 1024))
            voice = Signal(iter(blocks), Clock.regular(rate, sum(map(len, blocks))), {}, len(sound.channels))
        write_media(path, picture, voice)
    (folder / "film-01.srt").write_text(
        "1\n00:00:00,100 --> 00:00:00,600\nA rabbit wakes up.\n\n2\n00:00:00,700 --> 00:00:00,950\nIt looks around.\n"
    )
    rows = "\n".join(f"{i / 50:.2f},{(i % 17) / 10},{-0.5 if i < 30 else 0.5},{i // 25}" for i in range(50))
    (folder / "film-01.csv").write_text(f"time_s,joint_a,joint_b,action_grip\n{rows}\n")
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("data") / "recordings")


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def vocabulary(recordings: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "tiny.vocab"
    done = run_pantok("fit-vocab", recordings, "-o", path, "--config", tiny_config)
    assert done.code == 0, done.err
    return path


@pytest.fixture(scope="session")
def store(recordings: Path, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "tiny.zarr"
    done = run_pantok("encode", recordings, "--vocab", vocabulary, "-o", path)
    assert done.code == 0, done.err
    return path
