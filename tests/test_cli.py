"""The command line as a user meets it: the whole path, exit codes, one-line errors, resume, pipes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet
import pytest

from pantok.commands.cli import COMMANDS
from pantok.commands.common import choose
from pantok.commands.workers import workers_for
from pantok.errors import OptionError
from pantok.experience import Block, Clock
from pantok.formats.folder import EpisodeFiles, find_episodes, read_episode
from pantok.formats.media_out import Signal, write_media
from pantok.formats.soundfiles import write_wav
from pantok.formats.store import Store
from pantok.formats.texts import write_texts
from tests.media_files import moving_pictures


def test_every_command_helps_with_an_example(pantok) -> None:
    for name in COMMANDS:
        shown = pantok(name, "--help")
        assert shown.code == 0
        assert "Example:" in shown.out, name
        assert f"pantok {name}" in shown.out


def test_the_forked_commands_of_these_tests_are_as_those_of_a_shell(pantok, store: Path, tmp_path: Path) -> None:
    for words in (["info", str(store), "--json"], ["info", str(tmp_path / "none")]):
        fresh = subprocess.run([sys.executable, "-m", "pantok", *words], capture_output=True, text=True, check=False)
        done = pantok(*words)
        assert (done.code, done.out, done.err) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_wrong_usage_is_two_and_says_what_to_do(pantok, recordings: Path, vocabulary: Path, tmp_path: Path) -> None:
    for args, expected in (
        (("encod",), "did you mean encode"),
        (("encode", recordings, "-o", tmp_path / "x.zarr"), "--vocab: is missing"),
        (("fit-vocab", recordings, "-o", vocabulary), "is there already"),
        (("encode", recordings, "--vocab", vocabulary, "-o", tmp_path / "x", "--bits-per-second", "text=1k"), "text"),
        (("encode", recordings, "--vocab", vocabulary, "-o", tmp_path / "x", "--effort", "0"), "choose 1 to 64"),
        (("encode", recordings, "--vocab", vocabulary, "-o", tmp_path / "x", "--size", "3"), "out of range"),
        (("encode", recordings, "--vocab", vocabulary, "-o", tmp_path / "x", "--fps", "x"), "such as 30 or 30000/1001"),
        (
            ("encode", recordings, "--vocab", vocabulary, "-o", tmp_path / "x", "--bits-per-second", "video=x"),
            "video=300k",
        ),
    ):
        done = pantok(*args)
        assert done.code == 2, (args, done)
        assert expected in done.err
        assert "Traceback" not in done.err
        assert done.out == ""


def test_a_name_with_brackets_is_chosen_as_it_is() -> None:
    names = ["take[1]", "take[2]", "take1"]
    assert choose(names, ["take[1]"], "--episode") == ["take[1]"]
    assert choose(names, ["take[12]", "take1"], "--episode") == ["take1"]
    with pytest.raises(OptionError, match="did you mean"):
        choose(names, ["take[3]"], "--episode")


def test_missing_things_are_one_line(pantok, tmp_path: Path) -> None:
    for args in (
        ("info", tmp_path / "nothing"),
        ("verify", tmp_path / "nothing.zarr"),
        ("decode", tmp_path / "nothing.zarr", "-o", tmp_path / "out"),
        ("vocab", "show", tmp_path / "nothing.vocab"),
        ("fit-vocab", tmp_path, "-o", tmp_path / "x.vocab"),
    ):
        done = pantok(*args)
        assert done.code == 1, (args, done)
        assert len(done.err.strip().splitlines()) == 1, done.err
        assert done.err.startswith("Error: ")


def test_recordings_come_back(pantok, recordings: Path, store: Path, tmp_path: Path) -> None:
    done = pantok("decode", store, "-o", tmp_path, "--json")
    assert done.code == 0, done.err
    written = {str(Path(p).relative_to(tmp_path)) for p in json.loads(done.out)["written"]}
    assert written == {"film-01.mp4", "film-01.parquet", "film-01.srt", "street/walk.mp4"}
    for name, frames in (("film-01", 24), ("street/walk", 12)):
        with av.open(str(tmp_path / f"{name}.mp4")) as out, av.open(str(recordings / f"{name}.mp4")) as original:
            times = [[f.time for f in c.decode(video=0)] for c in (out, original)]
            assert len(times[0]) == frames
            assert times[0] == pytest.approx(times[1], abs=1e-6)
            assert bool(out.streams.audio) == bool(original.streams.audio)
    assert (tmp_path / "film-01.srt").read_text() == (recordings / "film-01.srt").read_text()
    table = pyarrow.parquet.read_table(tmp_path / "film-01.parquet").to_pydict()
    assert table["time_ns"] == [i * 20_000_000 for i in range(50)]
    assert any(k.endswith("action_grip") for k in table)


def test_part_of_a_recording(pantok, store: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder, args in ((whole, ()), (part, ("--start", "0.5", "--end", "0:00.75"))):
        done = pantok("decode", store, "-o", folder, "--episode", "film-01", "--track", "video", "--lossless", *args)
        assert done.code == 0, done.err
    pictures = {}
    for folder in (whole, part):
        (path,) = folder.iterdir()
        with av.open(str(path)) as container:
            pictures[folder] = [(f.time, f.to_ndarray()) for f in container.decode(video=0)]
    assert len(pictures[part]) == 6
    first = pictures[part][0][0]
    assert first == pytest.approx(0.5, abs=1e-3)
    for (t, picture), (t_whole, picture_whole) in zip(pictures[part], pictures[whole][12:18], strict=True):
        assert t == pytest.approx(t_whole, abs=1e-3)
        assert (picture == picture_whole).all()


def test_what_a_file_cannot_hold_is_said(pantok, vocabulary: Path, tmp_path: Path) -> None:
    facts = {"height": 35, "width": 51}
    frames = Block(moving_pictures(8, 35, 51))
    (tmp_path / "in").mkdir()
    write_media(tmp_path / "in" / "odd.mp4", Signal(iter([frames]), Clock.regular(8, 8), facts), lossless=True)
    assert pantok("encode", tmp_path / "in", "--vocab", vocabulary, "-o", tmp_path / "a.zarr").code == 0
    done = pantok("decode", tmp_path / "a.zarr", "-o", tmp_path / "out")
    assert done.code == 0
    assert "52x36 for 51x35" in done.err + done.out
    done = pantok("decode", tmp_path / "a.zarr", "-o", tmp_path / "exact", "--lossless")
    assert "for 51x35" not in done.err + done.out


def test_what_was_decoded_is_the_same_episode_again(pantok, vocabulary: Path, tmp_path: Path) -> None:
    """Sounds and texts in two languages, two pictures, two clocks of numbers, columns named as ROS names topics; the
    sound of the film has a name of its own."""
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    pictures, clock = Block(moving_pictures(8, 34, 50)), Clock.regular(8, 8)
    tone = np.sin(np.arange(8000) / 9)[:, None].astype(np.float32) / 4
    for name in ("a.mp4", "a@video.left.mp4"):
        write_media(given / name, Signal(iter([pictures]), clock, {"height": 34, "width": 50}), lossless=True)
    for name, language in (("a@audio.mic.wav", "eng"), ("a@audio.dub.wav", "fre")):
        write_wav(given / name, iter([Block(tone)]), 8000, 1, "float32", language)
    (given / "episode.toml").write_text('[files."a@audio.dub.wav"]\nname = "audio.second"\n')
    write_texts(given / "a.vtt", [(0, 10**9, "go")], "eng")
    write_texts(given / "a@text.fr.jsonl", [(5, None, "va")], "fre")
    rows = {"t": np.arange(20) / 20, "/say": ["a/b"] * 20, "/imu": [None, [1.0, 2.0]] * 10, "/q": np.arange(20.0)}
    pyarrow.parquet.write_table(pyarrow.table(rows), given / "a.parquet")
    assert pantok("encode", given, "--vocab", vocabulary, "-o", tmp_path / "a.zarr").code == 0
    assert pantok("decode", tmp_path / "a.zarr", "-o", out).code == 0
    assert {"a@audio.second.wav", "a.vtt", "a@text.fr.jsonl"} <= set(os.listdir(out))
    before, after = (read_episode(find_episodes([folder])[0]) for folder in (given, out))
    assert len(find_episodes([out])) == 1
    names = {"video", "video.left", "audio.mic", "audio.second", "text", "text.fr", "text./say"}
    names |= {"proprio", "proprio./imu"}
    assert set(before.tracks) == set(after.tracks) == names
    for name in names:
        assert (after.tracks[name].read()[1].times_ns == before.tracks[name].read()[1].times_ns).all(), name
    spoken = [after.tracks[n].info.get("language") for n in ("audio.mic", "audio.second", "text", "text.fr")]
    assert spoken == ["eng", "fre", "eng", "fre"]


def test_fewer_levels_decode(pantok, store: Path, tmp_path: Path) -> None:
    done = pantok("decode", store, "-o", tmp_path, "--levels", "4", "--episode", "street/*")
    assert done.code == 0, done.err
    assert (tmp_path / "street" / "walk.mp4").exists()


def test_info_shows_stores_vocabularies_and_folders(pantok, recordings: Path, vocabulary: Path, store: Path) -> None:
    told = json.loads(pantok("info", store, "--json").out)
    assert told["episodes"] == ["film-01", "street/walk"]
    video = next(t for t in told["tracks"] if t["track"] == "video")
    assert video["bits_per_second"] == pytest.approx(sum(lv["bits_per_second"] for lv in video["levels"]))
    assert json.loads(pantok("info", vocabulary, "--json").out)["ids"] == told["ids"]
    film, walk = json.loads(pantok("info", recordings, "--json").out)["episodes"]
    assert (film["id"], walk["id"]) == ("film-01", "street/walk")
    tracks = {t["track"]: t for t in film["tracks"]}
    info = tracks["video"]["info"]
    assert f"{info['width']}x{info['height']}, h264" in pantok("info", recordings).out
    assert tracks["video"]["duration_s"] == pytest.approx(tracks["audio"]["duration_s"], rel=0.2)
    assert tracks["text"]["samples"] > 0
    one = json.loads(pantok("info", store, "--episode", "film-01", "--json").out)
    assert {t["track"] for t in one["tracks"]} >= {"video", "audio", "text"}
    assert "film-01" in pantok("info", store).out


def test_many_small_episodes_are_told_in_few_lines(pantok, vocabulary: Path, tmp_path: Path) -> None:
    """And what a store holds is as large by `info` as by `encode` and `store pack`."""
    notes, out = tmp_path / "notes", tmp_path / "many.zarr"
    notes.mkdir()
    for k in range(101):
        (notes / f"n{k:03d}.txt").write_text("Look, the cube is red. " * 30)
    encode = ("encode", notes, "--vocab", vocabulary, "-o", out)
    planned, held = pantok(*encode, "-n"), pantok("info", notes)
    for shown, most in ((planned, 60), (held, 120)):
        assert "n049" in shown.out and "n050" not in shown.out and len(shown.out.splitlines()) < most
        assert "… and 51 episodes more" in shown.err
    assert len(json.loads(pantok(*encode, "-n", "--json").out)["episodes"]) == 101
    assert "store compact" in pantok(*encode).err
    told = json.loads(pantok("info", out, "--json").out)
    assert json.loads(pantok(*encode, "--json").out)["bytes"] == told["bytes"]
    packed = json.loads(pantok("store", "pack", out, "-o", tmp_path / "packed.zarr", "--json").out)
    small = json.loads(pantok("info", tmp_path / "packed.zarr", "--json").out)
    assert (packed["bytes_before"], packed["bytes_after"]) == (told["bytes"], small["bytes"])
    codes = told["tracks"][0]["codes"]
    assert codes > 1000 and f" {codes:,} " in pantok("info", out).out
    measured = pantok("eval", out)
    rows = [line.strip() for line in measured.out.splitlines() if line.strip().startswith("n") and " text" in line]
    assert len(rows) == 50 and rows == sorted(rows), "those that were decoded are among them"
    assert sum("not measured" not in row for row in rows) == 16
    assert f" {codes:,} " in measured.out, "codebooks are of all"
    assert "… and 51 episodes more" in measured.err


def test_what_a_vocabulary_has_no_tokenizer_for_is_one_line(pantok, tmp_path: Path) -> None:
    both, deaf = tmp_path / "in", tmp_path / "deaf.vocab"
    both.mkdir()
    for k in range(3):
        (both / f"e{k}.csv").write_text("t,a\n" + "".join(f"{i / 50},{i % 7}\n" for i in range(60)))
        (both / f"e{k}.txt").write_text("Look there. " * 20)
    (both / "only.txt").write_text("Nothing else. " * 20)
    assert pantok("fit-vocab", both, "-o", deaf, "--only", "numeric", "-q").code == 0
    done = pantok("encode", both, "--vocab", deaf, "-o", tmp_path / "d.zarr", "--json")
    told = json.loads(done.out)
    assert done.code == 4 and len(told["encoded"]) == 3 and told["failed"] == ["only"]
    assert told["problems"] == ["text of 4 episodes: the vocabulary has no tokenizer for it"]
    assert done.err.count("Skipped") == 1


def test_dry_runs_write_nothing(pantok, recordings: Path, vocabulary: Path, store: Path, tmp_path: Path) -> None:
    for args in (
        ("fit-vocab", recordings, "-o", tmp_path / "a", "-n"),
        ("encode", recordings, "--vocab", vocabulary, "-o", tmp_path / "b", "-n"),
        ("decode", store, "-o", tmp_path / "c", "-n"),
    ):
        assert pantok(*args).code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_encodes_nothing_and_workers_change_nothing(
    pantok, recordings: Path, vocabulary: Path, store: Path, tmp_path: Path
) -> None:
    again = json.loads(pantok("encode", recordings, "--vocab", vocabulary, "-o", store, "--json").out)
    assert (again["encoded"], again["already_there"]) == ([], 2)
    other = tmp_path / "two.zarr"
    done = pantok("encode", recordings, "--vocab", vocabulary, "-o", other, "--workers", "2")
    assert done.code == 0, done.err
    assert Store.open(other).digest() == Store.open(store).digest()
    done = pantok("encode", recordings, "--vocab", vocabulary, "-o", other, "--effort", "2", "--json")
    assert json.loads(done.out)["encoded_anew"] == ["film-01", "street/walk"]
    assert Store.open(other).digest() != Store.open(store).digest()


def test_processes_are_as_many_as_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def episodes(*sizes: int) -> list[EpisodeFiles]:
        found = []
        for number, size in enumerate(sizes):
            path = tmp_path / f"{number}.mp4"
            with open(path, "wb") as file:
                file.truncate(size)
            found.append(EpisodeFiles(str(number), (path,)))
        return found

    monkeypatch.setattr("pantok.commands.workers.cores", lambda: 4)
    large = 3 << 20
    assert workers_for(episodes()) == 1
    assert workers_for(episodes(large)) == 1
    assert workers_for(episodes(large, 1000)) == 1, "nothing to share"
    assert workers_for(episodes(large, large)) == 2
    assert workers_for(episodes(*[large] * 9)) == 4
    monkeypatch.setattr("pantok.commands.workers.cores", lambda: 64)
    assert workers_for(episodes(*[large] * 9)) == 8, "memory is bounded too"
    assert workers_for([EpisodeFiles("gone", (tmp_path / "gone.mp4",))]) == 1


def test_killed_and_run_again(recordings: Path, vocabulary: Path, store: Path, pantok, tmp_path: Path) -> None:
    target = tmp_path / "killed.zarr"
    command = [sys.executable, "-m", "pantok", "encode", str(recordings), "--vocab", str(vocabulary), "-o", str(target)]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if target.exists() and len(Store.open(target)) == 1:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # the pipe is closed when the last of its workers has ended
    done = json.loads(pantok(*command[3:], "--json").out)
    assert done["already_there"] >= 1
    assert Store.open(target).digest() == Store.open(store).digest()
    assert pantok("verify", target).code == 0


def test_a_flipped_bit_is_found(pantok, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    assert pantok("verify", copy).code == 0
    codes = max((p for p in (copy / "segments").glob("*/tracks/**/c.*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(codes.read_bytes())
    content[len(content) // 3] ^= 4
    codes.write_bytes(content)
    found = pantok("verify", copy)
    assert found.code == 3
    assert "episode" in found.out
    told = json.loads(pantok("verify", copy, "--json").out)
    assert told["ok"] is False
    assert told["faults"][0]["track"]


def test_bad_files_are_named_and_the_others_go_on(pantok, recordings: Path, vocabulary: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(recordings, mixed)
    (mixed / "empty.mp4").touch()
    (mixed / "words.mp4").write_text("this is not a film")
    (mixed / "cut.mp4").write_bytes((recordings / "film-01.mp4").read_bytes()[:2000])
    (mixed / "clockless.csv").write_text("a,b\n1,2\n3,4\n")
    (mixed / "street" / "walk.csv").write_text("t,a\n0.0,1\n0.2,2\n0.1,3\n")
    done = pantok("encode", mixed, "--vocab", vocabulary, "-o", tmp_path / "mixed.zarr", "--json")
    assert done.code == 4, done.err
    told = json.loads(done.out)
    assert told["encoded"] == ["film-01", "street/walk"]
    for name in ("empty.mp4", "words.mp4", "cut.mp4", "clockless.csv", "walk.csv"):
        lines = [line for line in done.err.splitlines() if name in line]
        assert len(lines) == 1, (name, done.err)
        assert lines[0].startswith("Skipped: ")
        assert lines[0].endswith(")"), f"no remedy: {lines[0]}"
    assert "Traceback" not in done.err


def test_merging_vocabularies(pantok, vocabulary: Path, recordings: Path, tiny_config: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.vocab"
    assert pantok("fit-vocab", recordings, "-o", text, "--only", "text", "--config", tiny_config).code == 0
    done = pantok("vocab", "merge", vocabulary, text, "-o", tmp_path / "both.vocab", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["ids_unchanged_from"][0] == str(vocabulary)
    model = text / "text" / "model"
    done = pantok("vocab", "merge", vocabulary, model, "-o", tmp_path / "worded.vocab", "--json")
    assert done.code == 0, done.err
    shown = json.loads(pantok("vocab", "show", tmp_path / "worded.vocab", "--json").out)
    assert shown["extents"][0]["of"] == "text"


def test_a_store_of_another_vocabulary_is_refused(
    pantok, recordings: Path, store: Path, tiny_config: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.vocab"
    assert pantok("fit-vocab", recordings, "-o", other, "--only", "text", "--config", tiny_config).code == 0
    done = pantok("encode", recordings, "--vocab", other, "-o", store)
    assert done.code == 1
    assert "vocabulary" in done.err


def test_a_closed_pipe_is_quiet(store: Path) -> None:
    shown = subprocess.run(
        f"{sys.executable} -m pantok info {store} | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert shown.stdout.count("\n") == 1
    assert shown.stderr == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root alone")
def test_a_full_disk_ends_with_one_line(pantok, recordings: Path, vocabulary: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        done = pantok("encode", recordings, "--vocab", vocabulary, "-o", disk / "full.zarr")
        assert done.code == 1, done
        assert done.err.strip().splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in done.err
    finally:
        subprocess.run(["umount", str(disk)], check=True)
