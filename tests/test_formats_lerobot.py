"""LeRobot datasets as lerobot itself wrote them (`tests/lerobot/make.py`), whole and damaged."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from pantok.errors import InputError
from pantok.experience import NS, Block, Clock, Episode
from pantok.formats.folder import ReadOptions, find_again, find_episodes, read_episode
from pantok.formats.media_out import Signal, write_media
from pantok.pixels import frame_bytes, planes

MADE = Path(__file__).parent / "lerobot"
VERSIONS = ("v2.1", "v3.0")
LENGTHS, TASKS = (12, 17, 8), ("pick the cube", "put it down", "pick the cube")
JOINTS = ("shoulder.pos", "elbow.pos", "gripper.pos")
NAMES = [f"episode_{e:06d}" for e in range(3)]


@pytest.fixture(params=VERSIONS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE / request.param, tmp_path / "pantry"))


def read(*sources: Path, options: ReadOptions | None = None) -> tuple[dict[str, Episode], list[str]]:
    said: list[str] = []
    found = find_episodes(sources, said.append)
    episodes = {}
    for files in found:
        try:
            episodes[files.id] = read_episode(files, options, said.append)
        except InputError as error:
            said.append(str(error))
    return episodes, said


def luma(episode: Episode, name: str) -> tuple[np.ndarray, Clock]:
    """The luma of each picture, (n, height, width), and the clock."""
    track = episode.tracks[name]
    values, clock = track.read()
    return planes(values, track.info["height"], track.info["width"])[0], clock


def test_every_row_picture_and_word_is_at_its_place(dataset: Path) -> None:
    episodes, said = read(dataset)
    assert list(episodes) == NAMES and not said
    for e, episode in enumerate(episodes.values()):
        n = LENGTHS[e]
        assert set(episode.tracks) == {
            "proprio", "proprio.state", "action", "reward", "text.task", "video.top", "video.wrist",
        }  # fmt: skip
        even = Clock.regular(30, n).times_ns
        for name, function in (("proprio.state", np.sin), ("action", np.cos)):
            track = episode.tracks[name]
            values, clock = track.read()
            wanted = function(np.arange(3) + np.arange(n)[:, None] / 10) + e
            assert track.channels == JOINTS and values.dtype == np.float32
            assert np.array_equal(values, wanted.astype(np.float32)) and clock.rate == 30
            assert np.array_equal(clock.times_ns, even)
        assert episode.tracks["reward"].read()[0][:, 0].tolist() == list(range(n))
        assert episode.tracks["proprio"].channels == ("done",)
        assert episode.tracks["proprio"].read()[0][:, 0].tolist() == [i == n - 1 for i in range(n)]
        words, spoken = episode.tracks["text.task"].read()
        assert words.tolist() == [TASKS[e]] and spoken.times_ns.tolist() == [0]
        grey, clock = luma(episode, "video.top")
        wanted_grey = 16 + (16 + 12 * np.arange(n) + 4 * e) * 219 / 255  # limited range
        assert np.abs(grey.mean((1, 2)) - wanted_grey).max() < 3  # neighbours are 10 apart
        assert np.array_equal(clock.times_ns, even) and clock.rate == 30
        wrist, clock = luma(episode, "video.wrist")
        middle = (wrist[:, 8:24] - 16.0).mean(1) @ np.arange(64) / (wrist[:, 8:24] - 16.0).mean(1).sum(1)
        assert np.abs(middle - (2 * np.arange(n) + 7.5)).max() < 1
        assert np.array_equal(clock.times_ns, even)


def test_size_and_rate_hold_for_spans_of_a_film(dataset: Path) -> None:
    episodes, _ = read(dataset, options=ReadOptions(size=24, fps=Fraction(10)))
    grey, clock = luma(episodes[NAMES[1]], "video.top")
    assert grey.shape == (6, 24, 32) and clock.rate == 10  # 17 pictures of 30 Hz
    assert np.abs(grey.mean((1, 2)) - (16 + (16 + 12 * np.arange(0, 17, 3) + 4) * 219 / 255)).max() < 3


def test_a_glance_stays_within_the_recording(dataset: Path) -> None:
    track = read(dataset)[0][NAMES[1]].tracks["video.top"]
    assert track.told_s == pytest.approx(17 / 30) and track.glance is not None
    times = np.concatenate([b.times_ns for b in track.glance(0.5)])
    assert times.tolist() == Clock.regular(30, 17).times_ns[9:].tolist()


def test_an_episode_is_found_again_by_its_files(dataset: Path, tmp_path: Path) -> None:
    episodes, _ = read(tmp_path)
    assert list(episodes) == [f"pantry/{name}" for name in NAMES]
    for name, episode in episodes.items():
        again = read_episode(find_again(name, [Path(s.path) for s in episode.sources]))
        assert again.id == name and again.sources == episode.sources
        for track, one in episode.tracks.items():
            assert np.array_equal(one.read()[0], again.tracks[track].read()[0]), track


def test_datasets_stand_beside_each_other_and_beside_other_recordings(tmp_path: Path) -> None:
    for version in VERSIONS:
        shutil.copytree(MADE / version, tmp_path / version)
    (tmp_path / "notes.txt").write_text("a note")
    found = find_episodes([tmp_path])
    assert [f.id for f in found] == sorted([f"{v}/{name}" for v in VERSIONS for name in NAMES] + ["notes"])
    both = find_episodes([tmp_path / v for v in VERSIONS])
    assert [f.id for f in both] == [f"{v}/{name}" for v in VERSIONS for name in NAMES]
    # A file of a dataset that is named by itself is a file like any other.
    film = next((tmp_path / "v2.1").rglob("episode_000001.mp4"))
    assert list(read_episode(find_episodes([film])[0]).tracks) == ["video"]


def test_a_folder_called_meta_is_not_yet_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"title": "walks"}')
    (tmp_path / "notes.txt").write_text("a note")
    assert [f.id for f in find_episodes([tmp_path])] == ["notes"]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ('{"codebase_version": "v3.0"', "is not JSON"),
        ('{"codebase_version": "v1.6"}', "version v1.6"),
        ('{"codebase_version": "v2.1", "fps": 30}', "cannot be understood: it has no features"),
        ('{"codebase_version": "v2.1", "features": {}, "fps": 0}', "its fps is 0"),
    ],
)
def test_a_dataset_that_cannot_be_understood_is_one_line(dataset: Path, content: str, wanted: str) -> None:
    (dataset / "meta" / "info.json").write_text(content)
    with pytest.raises(InputError, match=wanted) as raised:
        find_episodes([dataset])
    assert str(dataset / "meta" / "info.json") in str(raised.value)
    # Beside other recordings it costs only itself.
    (dataset.parent / "notes.txt").write_text("a note")
    episodes, said = read(dataset.parent)
    assert list(episodes) == ["notes"] and len(said) == 1 and wanted.split("'")[0] in said[0]


def test_a_film_that_is_missing_costs_its_pictures_alone(dataset: Path) -> None:
    for film in (dataset / "videos").rglob("*.mp4"):
        if "wrist" in str(film):
            film.unlink()
    episodes, said = read(dataset)
    assert list(episodes) == NAMES and said
    assert all("wrist" in line and "cannot be read" in line for line in said)
    assert all("video.top" in e.tracks and "video.wrist" not in e.tracks for e in episodes.values())


def test_rows_that_are_missing_are_named(dataset: Path) -> None:
    info = json.loads((dataset / "meta" / "info.json").read_text())
    if info["codebase_version"] == "v3.0":
        path = next((dataset / "meta" / "episodes").rglob("*.parquet"))
        table = pyarrow.parquet.read_table(path)
        lengths = pyarrow.array([12, 17, 10], table.schema.field("length").type)
        table = table.set_column(table.schema.names.index("length"), "length", lengths)
        pyarrow.parquet.write_table(table, path)
    else:
        path = dataset / "meta" / "episodes.jsonl"
        path.write_text(path.read_text().replace('"length": 8', '"length": 10'))
    episodes, said = read(dataset)
    assert "episode_000002 has 8 rows, not 10" in said[-1] and all("10 rows and 8 pictures" in s for s in said[:-1])
    said.clear()
    grey, clock = luma(episodes[NAMES[2]], "video.top")
    assert len(grey) == 8 and clock.duration_ns == round(Fraction(8, 30) * NS)


def test_pictures_that_are_missing_are_named(dataset: Path) -> None:
    said: list[str] = []
    last = find_episodes([dataset], said.append)[-1]
    shared = last.paths[0].name == "file-000.parquet"
    short = MADE / "v2.1" / "videos" / "chunk-000" / "observation.images.top" / "episode_000000.mp4"
    film = next(p for p in last.paths if p.suffix == ".mp4" and "top" in str(p))
    shutil.copy(short, film)  # twelve pictures: four more than the last episode has, none of those shared by all
    track = read_episode(last, None, said.append).tracks["video.top"]
    assert sum(len(block) for block in track.blocks()) == (0 if shared else 8)
    assert any("0 of the 8 pictures" in line for line in said) if shared else not said


def test_frames_of_a_film_of_another_rate_stay_with_their_episode(dataset: Path) -> None:
    """Twice as many pictures as rows: those between two rows are of the episode before them, and it is said."""
    shape = {"height": 16, "width": 16}
    for film in (dataset / "videos").rglob("*.mp4"):
        of = [int(film.stem[-1])] if film.stem.startswith("episode") else [0, 1, 2]
        grey = np.repeat([60 * e + 60 for e in of], [2 * LENGTHS[e] for e in of]).astype(np.uint8)
        blocks = iter([Block(np.repeat(grey[:, None], frame_bytes(16, 16), 1))])
        write_media(film, Signal(blocks, Clock.regular(60, len(grey)), shape))
    episodes, said = read(dataset)
    for e, episode in enumerate(episodes.values()):
        grey, clock = luma(episode, "video.top")
        assert np.abs(grey.mean((1, 2)) - (60 * e + 60)).max() < 9 and len(grey) == 2 * LENGTHS[e]
        assert np.abs(clock.times_ns - Clock.regular(60, len(grey)).times_ns).max() <= 1
        assert any(f"{2 * LENGTHS[e]} pictures where {LENGTHS[e]} were recorded" in line for line in said)


def line_of(dataset: Path, column: str, value: object) -> None:
    """What `meta` says of the second episode in that column."""
    path = dataset / "meta" / "episodes.jsonl"
    if path.exists():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[1][column] = value
        path.write_text("\n".join(json.dumps(line) for line in lines))
        return
    path = next((dataset / "meta" / "episodes").rglob("*.parquet"))
    table = pyarrow.parquet.read_table(path)
    values = table[column].to_pylist()
    values[1] = value
    number = table.schema.names.index(column)
    pyarrow.parquet.write_table(table.set_column(number, column, pyarrow.array(values)), path)


WRONG: list[tuple[str, object, str, list[str]]] = [
    ("length", 0, "its length is 0", NAMES[1:2]),
    ("length", None, "its length is None", NAMES[1:2]),
    ("length", 40, "17 rows, not 40", []),
    ("episode_index", 2**40, "its episode_index is", NAMES[1:2]),
    ("episode_index", 0, "more than once", NAMES[:2]),
    ("data/file_index", None, "its data/file_index is None", NAMES[1:2]),
    ("videos/observation.images.top/from_timestamp", float("nan"), "begin at nan s", []),
    ("videos/observation.images.top/from_timestamp", float("inf"), "begin at inf s", []),
    ("videos/observation.images.top/from_timestamp", 0.0, "episode_000000 and episode_000001 have the same", []),
    ("videos/observation.images.top/from_timestamp", 1.1, "episode_000002 and episode_000001 have the same", []),
]
"""A column of `meta`, what it says, a part of the line that tells it, the episodes that are lost."""


@pytest.mark.parametrize(
    ("dataset", "column", "value", "wanted", "lost"),
    [(version, *case) for version in VERSIONS for case in WRONG if version == "v3.0" or "/" not in case[0]],
    indirect=["dataset"],
)
def test_an_episode_that_cannot_be_costs_no_other(
    dataset: Path, column: str, value: object, wanted: str, lost: list[str]
) -> None:
    before, _ = read(dataset)
    line_of(dataset, column, value)
    os.utime(dataset / "meta" / "info.json", ns=(1, 1))
    after, said = read(dataset)
    assert any(wanted in line for line in said), said
    assert all(str(dataset) in line for line in said)
    assert list(after) == [name for name in NAMES if name not in lost]
    for name, episode in after.items():  # never pictures of another
        assert {*episode.tracks} >= {*before[name].tracks} - {"video.top", "video.wrist"}
        for camera in {*episode.tracks} & {"video.top", "video.wrist"}:
            values, wanted_values = (one.tracks[camera].read()[0] for one in (episode, before[name]))
            assert np.array_equal(values, wanted_values[: len(values)])


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("video_path", None, "its video_path is None"),
        ("video_path", "videos/{camera}.mp4", "which cannot be followed"),
        ("video_path", "/etc/{video_key}.mp4", "which leads out of the dataset"),
        ("video_path", "../{video_key}.mp4", "which leads out of the dataset"),
        ("features", "observation.force", "has no column observation.force"),
        ("tasks", None, "what the numbers of tasks mean is not known"),
    ],
)
def test_what_is_not_where_it_should_be_is_named(dataset: Path, key: str, value: object, wanted: str) -> None:
    path = dataset / "meta" / "info.json"
    info = json.loads(path.read_text())
    if key == "tasks":
        next((dataset / "meta").glob("tasks.*")).unlink()
    elif key == "features":
        info["features"][str(value)] = {"dtype": "float32", "shape": [3], "names": None}
    else:
        info[key] = value
    path.write_text(json.dumps(info))
    episodes, said = read(dataset)
    assert list(episodes) == NAMES and all("action" in e.tracks for e in episodes.values())
    assert any(wanted in line and str(dataset) in line for line in said), said
    assert len(said) <= 3


def test_columns_that_only_count_may_be_nonsense(dataset: Path) -> None:
    for path in (dataset / "data").rglob("*.parquet"):
        table = pyarrow.parquet.read_table(path)
        for name, value in (("timestamp", "x"), ("task_index", [1])):
            column = pyarrow.array([value] * len(table))
            table = table.set_column(table.schema.names.index(name), name, column)
        pyarrow.parquet.write_table(table, path)
    episodes, said = read(dataset)
    assert list(episodes) == NAMES and len(said) == 6
    assert sum("stamps that are not all numbers" in line for line in said) == 3
    assert sum("has the tasks [1], whose words" in line for line in said) == 3
    path = next((dataset / "data").rglob("*.parquet"))
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["episode_index"]), path)
    assert any("has no column episode_index" in line for line in read(dataset)[1])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_film_that_is_cut_is_named(dataset: Path, share: float) -> None:
    for film in (dataset / "videos").rglob("*.mp4"):
        film.write_bytes(film.read_bytes()[: int(film.stat().st_size * share)])
    episodes, said = read(dataset)
    assert list(episodes) == NAMES and all("action" in e.tracks for e in episodes.values())
    for e, episode in enumerate(episodes.values()):
        for name in {"video.top", "video.wrist"} & {*episode.tracks}:
            lost = LENGTHS[e] - len(episode.tracks[name].read()[0])
            assert lost == 0 or any(f"{LENGTHS[e] - lost} of the {LENGTHS[e]} pictures" in line for line in said)
    assert any(".mp4" in line for line in said)
