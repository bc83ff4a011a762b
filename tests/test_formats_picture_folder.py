"""Folders of numbered pictures: a film where episode.toml says when they were taken, else each a recording."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pantok.errors import InputError
from pantok.experience import Episode
from pantok.formats.container import read_container
from pantok.formats.files import source_of
from pantok.formats.folder import ReadOptions, find_again, find_episodes, read_episode

START = 1_403_636_579_763_555_584  # EuRoC's clock: nanoseconds since 1970


def picture(number: int, codec: str = "png") -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 40, 24, "rgb24" if codec == "png" else "yuvj420p"
    context.time_base = 1
    values = np.random.default_rng(number).integers(0, 256, (24, 40, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(values, "rgb24").reformat(format=context.pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def folder(path: Path, names: list[str], rules: str) -> Path:
    path.mkdir(parents=True)
    for number, name in enumerate(names):
        (path / name).write_bytes(picture(number, "png" if name.endswith("png") else "mjpeg"))
    (path.parent / "episode.toml").write_text(rules)
    return path


def read(path: Path, options: ReadOptions | None = None) -> tuple[Episode, list[str]]:
    said: list[str] = []
    (found,) = find_episodes([path], said.append)
    return read_episode(found, options, said.append), said


def test_a_folder_with_a_rate_is_a_film_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    names = [f"frame_{number}.png" for number in range(12)]  # 10 after 9, not after 1
    cam = folder(tmp_path / "rec" / "cam0", names, '[files."cam*"]\nrate_hz = "30000/1001"\noffset_s = 0.5\n')
    (cam / "notes.md").write_text("by hand")
    for given in (tmp_path / "rec", cam):
        episode, said = read(given)
        assert episode.id == "cam0" and not said
        track = episode.tracks["video"]
        values, clock = track.read()
        assert clock.rate == Fraction(30000, 1001) and len(values) == 12 and clock.start_ns == 500_000_000
        for name, value in zip(names, values, strict=True):
            assert np.array_equal(read_container(cam / name)[0].read()[0][0], value)
    small, _ = read(cam, ReadOptions(size=12, fps=Fraction(10)))
    assert small.tracks["video"].info["height"] == 12 and len(small.tracks["video"].read()[0]) == 4


@pytest.mark.parametrize(
    ("names", "unit", "times"),
    [
        ([f"{START + k * 50_000_000}.jpg" for k in range(4)], "", [k * 50_000_000 for k in range(4)]),
        (["1305031102.175304.png", "1305031102.211214.png"], "", [0, 35_910_000]),  # TUM's
        (["img-0.png", "img-40.png", "img-90.png"], 'unit = "ms"', [0, 40_000_000, 90_000_000]),
    ],
)
def test_names_may_be_times(tmp_path: Path, names: list[str], unit: str, times: list[int]) -> None:
    cam = folder(tmp_path / "cam", names, f'[files."cam"]\ntime = "name"\n{unit}\n')
    episode, said = read(cam)
    found = episode.tracks["video"].read()[1].times_ns
    assert (found - found[0]).tolist() == times and not said


def test_films_of_a_drive_are_placed_beside_its_numbers_by_the_date(tmp_path: Path) -> None:
    for side in ("left", "right"):
        names = [f"{START + k * 50_000_000}.jpg" for k in range(5)]
        folder(tmp_path / f"drive@video.{side}", names, '[files."drive@*"]\ntime = "name"\n')
    rows = [f"{START - 20_000_000 + k * 10_000_000},{k}" for k in range(30)]
    (tmp_path / "drive.csv").write_text("\n".join(["time_ns,x", *rows]))
    episode, _ = read(tmp_path)
    assert episode.id == "drive" and set(episode.tracks) == {"proprio", "video.left", "video.right"}
    began = {name: track.read()[1].start_ns for name, track in episode.tracks.items()}
    assert began["video.left"] == began["video.right"] == began["proprio"] + 20_000_000


def test_the_example_in_episodes_md_is_obeyed(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "formats" / "EPISODES.md").read_text()
    example = page.split("## Folders of pictures")[1].split("```toml\n")[1].split("```")[0]
    folder(tmp_path / "cam0", ["000000.png", "000001.png"], example)
    folder(tmp_path / "drive@video.left", [f"{START}.png", f"{START + 40_000_000}.png"], example)
    said: list[str] = []
    episodes = {found.id: read_episode(found, None, said.append) for found in find_episodes([tmp_path], said.append)}
    assert {name: [*episode.tracks] for name, episode in episodes.items()} == {
        "cam0": ["video"],
        "drive": ["video.left"],
    }
    assert episodes["cam0"].tracks["video"].rate == 30 and episodes["drive"].tracks["video.left"].rate == 25
    assert not said


def test_without_times_each_is_a_recording(tmp_path: Path) -> None:
    folder(tmp_path / "photos", ["a-1.png", "a-2.png"], '[files."photos"]\nname = "video.front"\n')
    assert [found.id for found in find_episodes([tmp_path])] == ["photos/a-1", "photos/a-2"]


def test_what_is_damaged_costs_itself_alone(tmp_path: Path) -> None:
    cam = folder(tmp_path / "cam", [f"{k}.png" for k in range(6)], '[files."cam"]\nrate_hz = 10\n')
    (cam / "3.png").write_bytes(b"\x89PNG" + bytes(40))
    episode, said = read(cam)
    values, clock = episode.tracks["video"].read()
    assert clock.times_ns.tolist() == [0, 100_000_000, 200_000_000, 400_000_000, 500_000_000] and len(values) == 5
    assert said == [f"{cam} video: 1 of 6 pictures cannot be decoded (left out; the others are kept)"]


@pytest.mark.parametrize(
    ("names", "rule", "says"),
    [
        (["left_1.png", "right_1.png"], "rate_hz = 5", r"several series \(left_#, right_#\) \(put each into a folder"),
        (["1.png", "2.png"], 'time = "name"', "whole numbers of an unknown unit"),
        (["a.png"], 'time = "name"', r"a.png: has no number in its name \(give rate_hz in episode.toml"),
        (["1.5.png", "1.50.png"], 'time = "name"', "stands still"),
        (["9" * 30 + ".png"], 'time = "name"\nunit = "ns"', "which is no time"),
        (["1.png"], "rate_hz = 5", r"1.png: cannot be decoded \(copy it again"),
    ],
)
def test_what_is_no_film_is_said_in_a_line(tmp_path: Path, names: list[str], rule: str, says: str) -> None:
    cam = folder(tmp_path / "cam", names, f'[files."cam"]\n{rule}\n')
    if len(names) == 1 and "rate" in rule:
        (cam / names[0]).write_bytes(b"no picture")
    with pytest.raises(InputError, match=says):
        read(cam)


def test_its_pictures_and_nothing_else_are_its_content(tmp_path: Path) -> None:
    cam = folder(tmp_path / "cam", ["0.png", "1.png"], '[files."cam"]\nrate_hz = 10\n')
    before = source_of(cam)
    (cam / "thumbs.db").write_bytes(b"7")
    assert source_of(cam) == before
    again = find_again("cam", [cam])
    assert len(read_episode(again).tracks["video"].read()[0]) == 2
    (cam / "1.png").write_bytes(picture(5))
    assert source_of(cam).sha256 != before.sha256
