"""Folders as episodes: shared stems, ids that do not depend on order, and what episode.toml may say."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pantok.errors import InputError
from pantok.experience import NS, Episode
from pantok.formats.folder import EpisodeFiles, ReadOptions, find_episodes, read_episode
from tests.conftest import SAMPLES

MS = 1_000_000


def put(path: Path, content: str = "t,x\n0.0,1.5\n0.1,2.5\n0.2,3.5\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        soundfile.write(path, np.arange(80, dtype=np.int16), 8000)
    elif path.suffix == ".mp4":
        path.write_bytes((SAMPLES / "film" / "bunny.mp4").read_bytes())
    else:
        path.write_text(content)
    return path


def found(*sources: Path) -> tuple[dict[str, EpisodeFiles], list[str]]:
    said: list[str] = []
    return {e.id: e for e in find_episodes(sources, said.append)}, said


def episode(folder: Path, name: str = "ep", options: ReadOptions | None = None) -> tuple[Episode, list[str]]:
    episodes, said = found(folder)
    return read_episode(episodes[name], options, said.append), said


def rules(folder: Path, text: str) -> Path:
    return put(folder / "episode.toml", text)


# Which files are which episode


def test_files_that_share_a_stem_are_one_episode(tmp_path: Path) -> None:
    for name in ("kitchen/ep1.csv", "kitchen/ep1.srt", "kitchen/ep1.wav", "kitchen/ep2.csv", "ep1.csv"):
        put(tmp_path / name, "1\n00:00:01,000 --> 00:00:02,000\nGo\n" if name.endswith("srt") else "t,x\n0.0,1\n")
    for name in ("README.md", "kitchen/LICENSE.txt", ".hidden.csv", ".git/x.csv", "notes.pdf", "data.zarr/zarr.json"):
        put(tmp_path / name, "x")
    put(tmp_path / "data.zarr" / "c.csv")
    episodes, said = found(tmp_path)
    assert {i: sorted(p.name for p in e.paths) for i, e in episodes.items()} == {
        "ep1": ["ep1.csv"],
        "kitchen/ep1": ["ep1.csv", "ep1.srt", "ep1.wav"],
        "kitchen/ep2": ["ep2.csv"],
    }
    assert said == []
    whole, _ = episode(tmp_path, "kitchen/ep1")
    assert set(whole.tracks) == {"proprio", "text", "audio"}
    assert [Path(s.path).name for s in whole.sources] == ["ep1.csv", "ep1.srt", "ep1.wav"]
    assert all(len(s.sha256) == 64 and s.size_bytes for s in whole.sources)


def test_ids_do_not_depend_on_the_order_of_the_sources(tmp_path: Path) -> None:
    sources = [
        put(tmp_path / "monday" / "ep1.csv").parent,
        put(tmp_path / "tuesday" / "ep1.csv").parent,
        put(tmp_path / "tuesday" / "ep1.srt", "1\n00:00:01,000 --> 00:00:02,000\nGo\n"),
        put(tmp_path / "single" / "ep1.csv"),
        put(tmp_path / "other" / "take.wav"),
        put(tmp_path / "other" / "take.csv"),
        put(tmp_path / "deep" / "a" / "b" / "ep9.csv").parent.parent,
        tmp_path / "deep",
    ]
    expected = {
        "monday/ep1": {"monday/ep1.csv"},
        "tuesday/ep1": {"tuesday/ep1.csv", "tuesday/ep1.srt"},
        "single/ep1": {"single/ep1.csv"},
        "take": {"other/take.csv", "other/take.wav"},
        "a/b/ep9": {"deep/a/b/ep9.csv"},
    }
    for order in itertools.islice(itertools.permutations(sources), 0, None, 997):
        episodes, _ = found(*order)
        assert list(episodes) == sorted(expected)
        assert {i: {str(p.relative_to(tmp_path)) for p in e.paths} for i, e in episodes.items()} == expected
        assert all(list(e.paths) == sorted(e.paths) for e in episodes.values())


def test_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "ep.csv")
    monkeypatch.chdir(tmp_path)
    episodes, _ = found(path, Path("ep.csv"), tmp_path)
    assert [len(e.paths) for e in episodes.values()] == [1]


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    put(tmp_path / "far" / "ep.csv")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "there").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "here")
    episodes, said = found(tmp_path / "here")
    assert list(episodes) == ["there/ep"]
    assert said == []
    (tmp_path / "here" / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"gone\.csv: is a link to a file that is not there"):
        episode(tmp_path / "here", "gone")


def test_nothing_to_read_says_what_there_is(tmp_path: Path) -> None:
    put(tmp_path / "a.pdf")
    put(tmp_path / "b.pdf")
    with pytest.raises(InputError, match=r"holds no recording \(it holds 2 .pdf\)"):
        found(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        found(tmp_path / "nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path / "ep.csv")
    locked = put(tmp_path / "locked" / "ep.csv").parent
    locked.chmod(0)
    try:
        episodes, said = found(tmp_path)
        assert list(episodes) == ["ep"]
        assert len(said) == 1
        assert "locked: cannot be read: permission denied" in said[0]
    finally:
        locked.chmod(0o700)


def test_what_cannot_be_read_is_named_and_the_rest_of_the_episode_goes_on(tmp_path: Path) -> None:
    put(tmp_path / "ep.csv")
    put(tmp_path / "ep.srt", "nothing")
    (tmp_path / "ep.wav").touch()
    whole, said = episode(tmp_path)
    assert list(whole.tracks) == ["proprio"]
    assert [Path(s.path).name for s in whole.sources] == ["ep.csv"]
    assert len(said) == 2
    assert all(line.endswith(")") for line in said)


def test_tracks_of_one_name_are_told_apart_by_suffix(tmp_path: Path) -> None:
    put(tmp_path / "ep.wav")
    put(tmp_path / "ep.csv")
    put(tmp_path / "ep.tsv", "t\tx\n0.0\t1.5\n0.1\t2.5\n")
    soundfile.write(tmp_path / "ep.flac", np.zeros(80, np.int16), 8000)
    whole, _ = episode(tmp_path)
    assert set(whole.tracks) == {"audio", "audio.wav", "proprio", "proprio.tsv"}


# episode.toml


def test_a_name_says_which_track_a_file_holds(tmp_path: Path) -> None:
    for name in ("ep.mp4", "ep@video.left.mp4", "ep@audio.1.wav", "ep@text.%2Fa%2Fb.txt", "ep@proprio.arm.csv"):
        put(tmp_path / name)
    for name in ("me@home.csv", "ep@videos.csv"):
        put(tmp_path / name)
    episodes, said = found(tmp_path)
    assert set(episodes) == {"ep", "me@home", "ep@videos"}
    whole, said = episode(tmp_path)
    assert set(whole.tracks) == {"video", "audio", "video.left", "audio.mp4", "audio.1", "text./a/b", "proprio.arm"}
    assert said == []
    rules(tmp_path, '[files."ep@audio.1.wav"]\nname = "audio.far"\n')
    assert "audio.far" in episode(tmp_path)[0].tracks


def test_rules_of_time_for_tables(tmp_path: Path) -> None:
    put(tmp_path / "ep.csv", "clock,u1,u2,x\n10,1.5,2.5,3.5\n20,1.5,2.5,3.5\n45,1.5,2.5,3.5\n")
    rules(
        tmp_path,
        '[files."*.csv"]\ntime = "clock"\nunit = "ms"\noffset_s = -0.005\nactions = ["u2", "u1"]\n'
        '[files."e*"]\noffset_ns = 1\n',
    )
    whole, said = episode(tmp_path)
    assert said == []
    assert whole.tracks["action"].channels == ("u1", "u2")
    assert whole.tracks["proprio"].channels == ("x",)
    assert whole.tracks["proprio"].clock.times_ns.tolist() == [5 * MS + 1, 15 * MS + 1, 40 * MS + 1]
    rules(tmp_path, '[files."*.csv"]\nrate_hz = "30000/1001"\n')
    assert episode(tmp_path)[0].tracks["proprio"].clock.rate == Fraction(30000, 1001)


def test_later_tables_win(tmp_path: Path) -> None:
    put(tmp_path / "ep.csv", "x\n1.5\n2.5\n")
    rules(tmp_path, '[files."*"]\nrate_hz = 10\noffset_s = 1\n[files."ep.csv"]\nrate_hz = 20\n')
    clock = episode(tmp_path)[0].tracks["proprio"].clock
    assert (clock.rate, clock.start_ns) == (20, NS)


def test_a_rule_names_a_file_with_brackets_as_it_is(tmp_path: Path) -> None:
    put(tmp_path / "take[1].csv", "x\n1.5\n2.5\n")
    rules(tmp_path, '[files."take[1].csv"]\nrate_hz = 20\n')
    whole, said = episode(tmp_path, "take[1]")
    assert said == [] and whole.tracks["proprio"].clock.rate == 20


def test_offsets_move_sound_pictures_and_text(tmp_path: Path) -> None:
    put(tmp_path / "ep.wav")
    put(tmp_path / "ep.mp4")
    put(tmp_path / "ep.srt", "1\n00:00:01,000 --> 00:00:02,500\nGo\n")
    plain, _ = episode(tmp_path)
    rules(tmp_path, '[files."ep.*"]\noffset_s = 0.25\n')
    moved, _ = episode(tmp_path)
    for name in ("audio", "video", "audio.wav", "text"):
        first = [next(iter(e.tracks[name].blocks(4))) for e in (plain, moved)]
        starts = []
        for whole, block in zip((plain, moved), first, strict=True):
            clock = whole.tracks[name].clock
            starts.append(int(block.times_ns[0]) if block.times_ns is not None else clock.start_ns)
        assert starts[1] - starts[0] == 250 * MS, name
    assert moved.tracks["text"].info["ends_ns"] == [2750 * MS]


def test_names_and_what_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "ep.csv", "t,x,on\n0.0,1.5,true\n0.1,2.5,false\n")
    put(tmp_path / "ep.wav")
    put(tmp_path / "ep.txt", "not for you")
    rules(
        tmp_path,
        '[files."ep.csv"]\nname = "wrist"\n[files."ep.wav"]\nname = "audio.left"\n[files."*.txt"]\nignore = true\n',
    )
    assert set(episode(tmp_path)[0].tracks) == {"proprio.wrist", "proprio.wrist.flags", "audio.left"}
    put(tmp_path / "other" / "ep.txt", "read me")
    rules(tmp_path, '[files."*"]\nignore = true\n')
    assert list(found(tmp_path)[0]) == ["other/ep"]  # rules hold in their own folder alone


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[files."*.csv"]\nrate = 50\n', "has rate (did you mean rate_hz? known: actions, ignore, name, offset_ns"),
        ('[file."*.csv"]\nrate_hz = 50\n', "has file (did you mean files? known: files"),
        ('rate_hz = 50\n', "has rate_hz (known: files)"),
        ('[files."*.csv"]\nrate_hz = true\n', "has rate_hz = True (rate_hz is rows a second"),
        ('[files."*.csv"]\nrate_hz = "fast"\n', "has rate_hz = 'fast'"),
        ('[files."*.csv"]\nrate_hz = -1\n', "has rate_hz = -1"),
        ('[files."*.csv"]\nunit = "hours"\n', "has unit = 'hours' (unit is s, ms, us or ns)"),
        ('[files."*.csv"]\noffset_s = "soon"\n', "has offset_s = 'soon'"),
        ('[files."*.csv"]\noffset_s = nan\n', "has offset_s = nan"),
        ('[files."*.csv"]\noffset_ns = 0.5\n', "has offset_ns = 0.5 (offset_ns is whole nanoseconds)"),
        ('[files."*.csv"]\nactions = "x"\n', "has actions = 'x' (actions is a list of columns)"),
        ('[files."*.csv"]\nignore = 1\n', "has ignore = 1"),
        ('[files."*.csv"]\nname = "../up"\n', "has name = '../up'"),
        ('[files."*.csv"]\ntime = 3\n', "has time = 3"),
        ('[files]\n"*.csv" = 3\n', "begins a table of rules"),
        ('files = 3\n', "begins a table of rules"),
        ("[files\n", "is not TOML"),
        ("\x00", "is not text"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_obeyed(tmp_path: Path, text: str, expected: str) -> None:
    put(tmp_path / "ep.csv")
    path = rules(tmp_path, text)
    with pytest.raises(InputError) as caught:
        found(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    put(tmp_path / "well" / "ep.csv")
    episodes, said = found(tmp_path)  # other folders go on
    assert list(episodes) == ["well/ep"]
    assert len(said) == 1
    assert expected in said[0]
    assert "the recordings beside it are left out" in said[0]


def test_a_rule_for_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    put(tmp_path / "ep.csv")
    rules(tmp_path, '[files."epp.csv"]\nrate_hz = 5\n[files."*.wav"]\noffset_s = 1\n')
    episodes, said = found(tmp_path)
    assert list(episodes) == ["ep"]
    assert said == [f'{tmp_path / "episode.toml"}: [files."epp.csv"] fits no file (check its spelling)']


def test_the_example_in_episodes_md_is_obeyed(tmp_path: Path) -> None:
    page = (SAMPLES.parent / "formats" / "EPISODES.md").read_text()
    example = page.split("## episode.toml")[1].split("```toml\n")[1].split("```")[0]
    put(tmp_path / "ep.csv", "clock,u1,u2,x\n10,1.5,2.5,3.5\n30,1.5,2.5,3.5\n50,1.5,2.5,3.5\n")
    put(tmp_path / "left.mp4")
    put(tmp_path / "notes.txt", "private")
    rules(tmp_path, example)
    episodes, said = found(tmp_path)
    assert said == []
    assert list(episodes) == ["ep", "left"]
    assert episode(tmp_path)[0].tracks["action"].clock.start_ns == 260 * MS
    assert "video.left" in episode(tmp_path, "left")[0].tracks


def test_resampling_is_asked_of_pictures_in_any_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "ep.npz", fps=10, image=np.zeros((6, 32, 48, 3), np.uint8))
    whole, _ = episode(tmp_path, options=ReadOptions(size=16, fps=Fraction(5)))
    values, clock = whole.tracks["video"].read()
    assert values.shape == (3, 16 * 24 * 3 // 2)
    assert clock.rate == 5
