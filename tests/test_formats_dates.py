"""Tables that tell dates beside recordings that begin at zero."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pantok.experience import NS, Episode
from pantok.formats.folder import find_episodes, read_episode
from tests.media_files import Pictures, make_media, moving_pictures
from tests.robot_logs import Sent, bag

START_S = 1_714_564_800  # 2024-05-01 12:00:00 UTC
FRAMES = 250  # ten seconds


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_media(
        tmp_path_factory.mktemp("film") / "a.mp4", Pictures(values=moving_pictures(FRAMES), height=32, width=48)
    )


def made_at(film: Path, target: Path, when: str | None) -> None:
    """The film again, with a creation_time."""
    with av.open(str(film)) as source, av.open(str(target), "w") as goal:
        if when:
            goal.metadata["creation_time"] = when
        stream = goal.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                goal.mux(packet)


def log(path: Path, begin_s: float, rows: int = 400) -> None:
    lines = [f"{begin_s + k / 50:.2f},{np.sin(k / 9):.4f}" for k in range(rows)]
    path.write_text("\n".join(["t,x", *lines]) + "\n")


def episode_of(folder: Path) -> tuple[Episode, list[str]]:
    said: list[str] = []
    (found,) = find_episodes([folder])
    return read_episode(found, None, said.append), said


@pytest.mark.parametrize(
    ("when", "begin_s"),
    [
        ("2024-05-01T12:00:00.000000Z", 1.25),  # the beginning of the recording
        ("2024-05-01T12:00:10.000000Z", 0.5),  # its end
    ],
)
def test_a_table_is_placed_by_when_the_film_was_made(film: Path, tmp_path: Path, when: str, begin_s: float) -> None:
    made_at(film, tmp_path / "a.mp4", when)
    log(tmp_path / "a.csv", START_S + begin_s)
    episode, said = episode_of(tmp_path)
    assert said == []
    track = episode.tracks["proprio"]
    assert track.info["epoch_ns"] == START_S * NS
    assert track.clock is not None and track.clock.start_ns == round(begin_s * NS) and track.clock.rate == 50
    values, clock = track.read()
    assert len(values) == 400 and clock == track.clock
    assert episode.tracks["video"].read()[1].start_ns == 0


@pytest.mark.parametrize("when", [None, "2019-01-01T00:00:00.000000Z"])
def test_both_begin_together_where_nothing_fits(film: Path, tmp_path: Path, when: str | None) -> None:
    made_at(film, tmp_path / "a.mp4", when)
    log(tmp_path / "a.csv", START_S + 3)
    episode, said = episode_of(tmp_path)
    (line,) = said
    assert line.startswith(f"{tmp_path / 'a.csv'}: its times are dates") and "a.mp4" in line
    assert f"offset_s = {START_S + 3}" in line
    clock = episode.tracks["proprio"].clock
    assert clock is not None and clock.start_ns == 0 and clock.count == 400


def test_what_episode_toml_says_is_exact(film: Path, tmp_path: Path) -> None:
    made_at(film, tmp_path / "a.mp4", "2024-05-01T12:00:07.000000Z")
    log(tmp_path / "a.csv", START_S + 1.5)
    (tmp_path / "episode.toml").write_text(f'[files."a.mp4"]\noffset_s = {START_S}.25\n')
    episode, said = episode_of(tmp_path)
    assert said == []
    video, table = (episode.tracks[name].read()[1].start_ns for name in ("video", "proprio"))
    assert table - video == 1_250_000_000


def test_several_tables_keep_their_distance(film: Path, tmp_path: Path) -> None:
    made_at(film, tmp_path / "a.mp4", None)
    log(tmp_path / "a.csv", START_S + 2.5)
    np.savez(tmp_path / "a.npz", t=START_S + 2 + np.arange(100) / 50, x=np.arange(100.0))
    (tmp_path / "a.jsonl").write_text(f'{{"text": "go", "start": {START_S + 3}, "end": {START_S + 4}}}\n')
    episode, said = episode_of(tmp_path)
    assert len(said) == 1
    begins = {name: t.read()[1].start_ns for name, t in episode.tracks.items() if name != "video"}
    assert sorted(begins.values()) == [0, NS // 2, NS]
    assert episode.tracks["text"].info["ends_ns"] == [2 * NS]


def test_dates_alone_stay(tmp_path: Path) -> None:
    log(tmp_path / "a.csv", START_S)
    episode, said = episode_of(tmp_path)
    clock = episode.tracks["proprio"].clock
    assert said == [] and clock is not None and clock.start_ns == START_S * NS


def test_pictures_of_a_table_go_where_its_numbers_go(film: Path, tmp_path: Path) -> None:
    stamps = START_S + 2 + np.arange(20) / 10
    views = np.zeros((20, 24, 32, 3), np.uint8)
    np.savez(tmp_path / "a.npz", timestamp=stamps, image=views, q=np.zeros((20, 2)))
    episode, said = episode_of(tmp_path)
    begins = {name: track.read()[1].start_ns for name, track in episode.tracks.items()}
    assert said == [] and begins == {"video": (START_S + 2) * NS, "proprio.q": (START_S + 2) * NS}
    made_at(film, tmp_path / "a.mp4", "2024-05-01T12:00:00.000000Z")
    episode, said = episode_of(tmp_path)
    begins = {name: track.read()[1].start_ns for name, track in episode.tracks.items()}
    assert said == [] and begins == {"video": 0, "video.npz": 2 * NS, "proprio.q": 2 * NS}
    assert episode.tracks["video.npz"].info["epoch_ns"] == START_S * NS


def test_a_log_beside_a_film_that_says_when_it_was_made(film: Path, tmp_path: Path) -> None:
    made_at(film, tmp_path / "a.mp4", "2024-05-01T12:00:00Z")
    sent: list[Sent] = [
        ("/x", "std_msgs/msg/Float32", {"data": k}, START_S * NS + 1_250_000_000 + k * 20_000_000) for k in range(100)
    ]
    bag(tmp_path / "a.mcap", sent)
    said: list[str] = []
    tracks = read_episode(find_episodes([tmp_path])[0], problems=said.append).tracks
    assert said == [] and tracks["proprio.x"].info["epoch_ns"] == START_S * NS
    assert (tracks["proprio.x"].clock.start_ns, tracks["proprio.x"].clock.rate) == (1_250_000_000, 50)
