"""Bad input through the command line: each fault is one line that names the file, the problem and the remedy.

Other inputs go on, and the exit code says that some were skipped (4), or that nothing could be done (1).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from click.testing import CliRunner

from pantok.commands import cli
from tests.conftest import Outcome
from tests.media_files import Sound, make_media, tones

ODD = np.array([[np.nan, 1.0], [np.inf, -np.inf], [0.5, np.nan], [1e30, -0.0]] * 25, np.float32)
CAPTION = "1\n00:00:00,100 --> 00:00:00,600\nA rabbit wakes up.\n\n2\n00:00:00,700 --> 00:00:00,950\nIt looks around.\n"


@dataclass(frozen=True)
class Home:
    """Small recordings of sound, numbers and text, a vocabulary of them, and their store."""

    recordings: Path
    vocabulary: Path
    store: Path


def good_recordings(folder: Path) -> Path:
    folder.mkdir()
    rows = "".join(f"{i / 50:.2f},{np.sin(i / 7):.4f},{i % 5}\n" for i in range(200))
    (folder / "good.csv").write_text(f"t,x,n\n{rows}")
    (folder / "good.srt").write_text(CAPTION)
    (folder / "words.txt").write_text("some words to learn from, quite a few of them\n" * 50)
    soundfile.write(folder / "tone.wav", tones(16_000, 16_000, 1), 16_000)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    made = Home(good_recordings(folder / "recordings"), folder / "a.vocab", folder / "a.zarr")
    (folder / "small.toml").write_text("[text]\nsize = 300\n")
    done = here("fit-vocab", made.recordings, "-o", made.vocabulary, "--config", folder / "small.toml")
    assert done.code == 0, done.err
    done = here("encode", made.recordings, "--vocab", made.vocabulary, "-o", made.store)
    assert done.code == 0, done.err
    return made


def here(*args: object) -> Outcome:
    """The command line in this process: the same but for the seconds that a new one takes to start."""
    done = CliRunner().invoke(cli.pantok, [str(a) for a in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Outcome(done.exit_code, done.stdout, done.stderr)


def one_line(done: Outcome, *expected: object, code: int = 1) -> str:
    """The single line on standard error that begins with Error."""
    assert "Traceback" not in done.err, done.err
    assert done.code == code, done
    lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.err
    for words in expected:
        assert str(words) in lines[0], lines[0]
    assert re.search(r"\(.+\)$", lines[0]), f"no remedy: {lines[0]}"
    return lines[0]


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def bad_recordings(folder: Path) -> dict[str, str]:
    """Every kind of fault in a file of its own; what its line has to say."""
    noise = np.random.default_rng(1).bytes(4000)
    expected = {}
    for suffix in ("wav", "csv", "npz", "npy", "parquet", "srt", "txt", "mp4", "jsonl"):
        (folder / f"empty-{suffix}.{suffix}").touch()
        expected[f"empty-{suffix}.{suffix}"] = "is empty (0 bytes)"
    for suffix, problem in (
        ("wav", "not a media file"), ("npz", "not a NumPy file"), ("npy", "not a NumPy file"),
        ("parquet", "not a Parquet file"), ("mkv", "not a media file"), ("flac", "not a media file"),
        ("csv", "is not text"), ("srt", "is not text"), ("png", "holds no picture"),
    ):  # fmt: skip
        (folder / f"noise-{suffix}.{suffix}").write_bytes(noise)
        expected[f"noise-{suffix}.{suffix}"] = problem
    for suffix, problem in (
        ("parquet", "not a Parquet file"), ("npz", "not a NumPy file"), ("wav", "not a media file"),
        ("mp4", "not a media file"), ("srt", "holds no text"), ("jsonl", "line 1: is not an object"),
    ):  # fmt: skip
        shutil.copy(folder / "good.csv", folder / f"csv-{suffix}.{suffix}")
        expected[f"csv-{suffix}.{suffix}"] = problem
    for name, content, problem in (
        ("nan-time.csv", "t,x\n0.0,1\nnan,2\n0.2,3\n", "row 2: its time t is nan"),
        ("inf-time.csv", "t,x\n0.0,1\n0.1,2\ninf,3\n", "row 3: its time t is inf"),
        ("back.csv", "t,x\n0.0,1\n0.2,2\n0.1,3\n", "row 3: its time t jumps back (0.2 then 0.1)"),
        ("still.csv", "t,x\n0.0,1\n0.2,2\n0.2,3\n", "row 3: its time t stands still"),
        ("back.jsonl", '{"start": 3, "end": 2, "text": "back"}\n', "span 1: lasts from 3 s to 2 s"),
        ("no-time.csv", "x,y\n1,2\n3,4\n", "neither when its rows were taken nor at what rate"),
    ):
        path = folder / ("text-" + name if name.endswith("jsonl") else name)
        path.write_text(content)
        expected[path.name] = problem
    (folder / "latin.txt").write_bytes("Größe".encode("latin1"))
    expected["latin.txt"] = "is not UTF-8 text (byte 2) (iconv"
    wave = tones(16_000, 16_000, 1, "float32")
    for name, value in (("nan.wav", np.nan), ("inf.wav", np.inf)):
        wave[500] = value
        soundfile.write(folder / name, wave, 16_000, "FLOAT")
        expected[name] = "1 samples are NaN or infinite (they are silence now"
    np.savez(folder / "pickled.npz", hz=10, x=np.array([{}], object))
    expected["pickled.npz"] = "holds pickled objects"
    (folder / "gone.csv").symlink_to("nowhere.csv")
    expected["gone.csv"] = "is a link to a file that is not there"
    os.mkfifo(folder / "pipe.wav")
    expected["pipe.wav"] = "is not a regular file"
    pa.parquet.write_table(pa.table({"t": [0.0, 1.0], "x": [1.0, 2.0]}), folder / "cut.parquet")
    cut(folder / "cut.parquet", 0.8)
    expected["cut.parquet"] = "not a Parquet file, or is damaged"
    return expected


def test_every_bad_file_is_one_line_and_the_others_go_on(home: Home, pantok, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(home.recordings, folder)
    expected = bad_recordings(folder)
    # What can be read in part is kept in part, and said.
    np.savez(folder / "odd.npz", hz=10, x=ODD)
    make_media(folder / "part-mkv.mkv", Sound(values=tones(96_000), codec="flac"))
    hiss = np.random.default_rng(0).integers(-9000, 9000, (60_000, 1)).astype(np.int16)
    soundfile.write(folder / "part-flac.flac", hiss, 8000)
    for name in ("part-mkv.mkv", "part-flac.flac"):
        cut(folder / name, 0.6)
        expected[name] = "of the"
    (folder / "ragged.csv").write_text("t,x\n0.0,1.5\n0.1,2.5\n0.2,3.5\n0.3")
    expected["ragged.csv"] = "row 4 has 1 cells"
    done = pantok("encode", folder, "--vocab", home.vocabulary, "-o", tmp_path / "a.zarr", "--json")
    assert done.code == 4, done.err
    told = json.loads(done.out)
    assert told["encoded"] == ["good", "inf", "nan", "odd", "part-flac", "part-mkv", "ragged", "tone", "words"]
    for name, problem in expected.items():
        lines = [line for line in done.err.splitlines() if f"/{name}" in line]
        assert len(lines) == 1, (name, lines)
        assert lines[0].startswith(f"Skipped: {folder}/{name}")
        assert problem in lines[0], lines[0]
        assert re.search(r"\(.{8,}\)$", lines[0]), f"no remedy: {lines[0]}"
    assert len(done.err.strip().splitlines()) == len(expected), done.err
    assert told["problems"] == [line.removeprefix("Skipped: ") for line in done.err.strip().splitlines()]

    # NaN and infinities among numbers are kept where they were; everything else within its bound.
    done = here("decode", tmp_path / "a.zarr", "--episode", "odd", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    table = pyarrow.parquet.read_table(tmp_path / "out" / "odd.parquet")
    back = np.stack([table.column(f"{i}").to_numpy() for i in range(2)], 1)
    assert back.dtype == np.float32
    special = ~np.isfinite(ODD)
    assert np.array_equal(back[special], ODD[special], equal_nan=True)
    assert np.isfinite(back[~special]).all()
    assert table.column("time_ns").to_pylist() == [i * 100_000_000 for i in range(100)]


def test_only_bad_files_is_a_failure(home: Home, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.wav").touch()
    done = here("encode", tmp_path, "--vocab", home.vocabulary, "-o", tmp_path / "a.zarr")
    assert done.code == 1
    assert len([line for line in done.err.splitlines() if line.startswith("Skipped: ")]) == 2
    done = here("fit-vocab", tmp_path / "a.csv", tmp_path / "b.wav", "-o", tmp_path / "a.vocab")
    one_line(done, "none can be read")
    assert not (tmp_path / "a.vocab").exists()


def test_silence_beside_what_can_be_learned_from_is_left_out_and_said(home: Home, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(80_000, np.int16), 16_000)
    (tmp_path / "quiet.csv").write_text("t,x\n" + "".join(f"{i / 50:.2f},{np.sin(i / 3):.4f}\n" for i in range(300)))
    fit, vocabulary = ("fit-vocab", "--only", "audio", "--only", "numeric"), tmp_path / "a.vocab"
    done = here(*fit, tmp_path, "-o", vocabulary)
    assert done.code == 4, done.err
    assert "Skipped: recordings: hold no sound to learn from" in done.err and "without audio" in done.err
    levels = json.loads((vocabulary / "manifest.json").read_text())
    assert "numeric" in json.dumps(levels) and not (vocabulary / "audio.safetensors").exists()
    done = here("vocab", "grow", home.vocabulary, "--with", tmp_path, "-o", tmp_path / "b.vocab", "--force", "--json")
    assert done.code == 4, done.err
    assert set(json.loads(done.out)["levels"]) == {"numeric"} and "audio stays as it is" in done.err
    # Nothing else to learn from: a failure, told once.
    for words in ((*fit, tmp_path / "quiet.wav"), ("vocab", "grow", home.vocabulary, "--with", tmp_path / "quiet.wav")):
        done = here(*words, "-o", tmp_path / "c.vocab")
        one_line(done, "sound to learn from")
        assert "Skipped" not in done.err


def test_a_bound_that_meets_no_numbers_is_named(home: Home, tmp_path: Path) -> None:
    encode = ("encode", home.recordings / "good.csv", "--vocab", home.vocabulary, "-o")
    done = here(*encode, tmp_path / "a.zarr", "--max-error", "acton=0.1", "--max-error", "x=0", "-q")
    assert done.code == 4
    assert done.err.startswith("Skipped: --max-error acton: no track or channel is called that")
    assert len(done.err.splitlines()) == 1
    for known in ("x", "proprio", "proprio.x", "proprio.counts.n"):
        assert here(*encode, tmp_path / known, "--max-error", f"{known}=0.1", "-q").code == 0, known


def test_bad_rules_leave_out_their_folder_alone(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.recordings, tmp_path / "rec" / "fine")
    shutil.copytree(home.recordings, tmp_path / "rec" / "wrong")
    (tmp_path / "rec" / "wrong" / "episode.toml").write_text('[files."*.csv"]\nrate = 50\n')
    done = here("encode", tmp_path / "rec", "--vocab", home.vocabulary, "-o", tmp_path / "a.zarr", "--json")
    assert done.code == 4
    assert json.loads(done.out)["encoded"] == ["fine/good", "fine/tone", "fine/words"]
    assert len(done.err.strip().splitlines()) == 1
    assert "did you mean rate_hz?" in done.err


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_a_vocabulary_and_a_store_of_another_version(home: Home, tmp_path: Path) -> None:
    later = Path(shutil.copytree(home.vocabulary, tmp_path / "later.vocab"))
    edited(later / "manifest.json", '"format":1', '"format":9')
    done = here("encode", home.recordings, "--vocab", later, "-o", tmp_path / "b.zarr")
    one_line(done, later, "format 9", "format 1", "upgrade pantok")
    assert not (tmp_path / "b.zarr").exists()
    store = Path(shutil.copytree(home.store, tmp_path / "later.zarr"))
    edited(store / "zarr.json", '"format": 1', '"format": 9')
    done = here("decode", store, "-o", tmp_path / "out")
    one_line(done, store, "format 9", "format 1", "upgrade pantok")
    assert not (tmp_path / "out").exists()


def test_a_damaged_vocabulary(home: Home, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(home.vocabulary, tmp_path / "broken.vocab"))
    tensors = broken / "numeric.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    one_line(here("encode", home.recordings, "--vocab", broken, "-o", tmp_path / "b.zarr"), broken)


@pytest.mark.parametrize("missing", ["zarr.json", "vocabulary", "manifest"])
def test_a_store_half_written(home: Home, tmp_path: Path, missing: str) -> None:
    half = Path(shutil.copytree(home.store, tmp_path / "half.zarr"))
    path = half / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    one_line(here("decode", half, "-o", tmp_path / "out"), path)


def test_an_episode_half_written_costs_itself_alone(home: Home, tmp_path: Path) -> None:
    half = Path(shutil.copytree(home.store, tmp_path / "half.zarr"))
    commit = min((half / "segments").glob("*/COMMIT.json"))
    commit.unlink()
    done = here("decode", half, "-o", tmp_path / "out", "--json")
    assert done.code == 4
    (line,) = done.err.strip().splitlines()
    assert line.startswith("Skipped: ")
    assert str(commit) in line
    assert "pantok verify" in line
    assert len(json.loads(done.out)["written"]) >= 2
    assert here("verify", half).code == 3


def limited(blocks: int, *args: object) -> Outcome:
    """The command line where no file may grow beyond so many blocks of 1,024 bytes: as on a disk that fills."""
    command = f'ulimit -f {blocks}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "pantok", *map(str, args)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_disk_that_fills_while_a_vocabulary_is_written(home: Home, tmp_path: Path) -> None:
    done = limited(4, "fit-vocab", home.recordings, "-o", tmp_path / "a.vocab", "--only", "text", "--only", "audio")
    one_line(done, tmp_path / "a.vocab", "cannot be written")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_a_store_is_written(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    one_line(limited(4, "encode", home.recordings, "--vocab", home.vocabulary, "-o", store), store, "cannot be written")
    # The same command goes on where it was, once there is room.
    assert here("encode", home.recordings, "--vocab", home.vocabulary, "-o", store).code == 0
    assert here("verify", store).code == 0


@pytest.mark.parametrize("name", ["tone.wav", "good.parquet", "words.txt"])
def test_a_disk_that_fills_while_files_are_written(home: Home, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    done = limited(1, "decode", home.store, "--episode", name.split(".")[0], "-o", out)
    one_line(done, out / name, "cannot be written", "ulimit -f")
    assert [p for p in out.rglob("*") if p.is_file()] == []


def test_where_nothing_can_be_written(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        one_line(here("decode", home.store, "-o", out), out, code=2)
    encoded = here("encode", home.recordings, "--vocab", home.vocabulary, "-o", tmp_path / "file")
    one_line(encoded, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def bound(*args: object, cwd: Path) -> Outcome:
    """The command line as one whom permissions bind: root gives up the right to pass over them."""
    drop: list[str] = []
    if os.geteuid() == 0:
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or subprocess.run([*drop, "true"], check=False).returncode:
            pytest.skip("root cannot give up its rights here")
    done = subprocess.run(
        [*drop, sys.executable, "-m", "pantok", *map(str, args)], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_no_permission_to_read(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    shutil.copytree(home.recordings, folder)
    np.savez(folder / "array.npz", fps=3, x=np.zeros(3))
    make_media(folder / "film.mkv", Sound(values=tones(4800), codec="flac"))
    forbidden = [folder / name for name in ("array.npz", "film.mkv", "good.csv", "tone.wav", "words.txt")]
    (folder / "locked").mkdir()
    for path in (*forbidden, folder / "locked"):
        path.chmod(0)
    done = bound("encode", "rec", "--vocab", home.vocabulary, "-o", "a.zarr", "--json", cwd=tmp_path)
    (folder / "locked").chmod(0o700)
    assert done.code == 4, done
    assert json.loads(done.out)["encoded"] == ["good"]  # of its captions
    expected = [f"rec/{path.name}" for path in sorted([*forbidden, folder / "locked"])]
    lines = sorted(done.err.strip().splitlines())
    assert lines == [
        f"Skipped: {name}: cannot be read: permission denied (check the path and its permissions)" for name in expected
    ]


def test_no_permission_to_write(home: Home, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    one_line(bound("decode", home.store, "-o", "locked/out", cwd=tmp_path), "locked/out: cannot be written: permission")
    done = bound("encode", home.recordings, "--vocab", home.vocabulary, "-o", "locked/a.zarr", cwd=tmp_path)
    one_line(done, "locked/a.zarr", "ermission denied")
    assert list(locked.iterdir()) == []
