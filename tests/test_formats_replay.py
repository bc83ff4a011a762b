"""Replay buffers in Zarr: folders of format 2, as Diffusion Policy wrote them, of format 3, and packed as .zarr.zip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, ZipStore

from pantok import pixels
from pantok.errors import InputError
from pantok.experience import Episode
from pantok.formats.folder import find_again, find_episodes, read_episode
from pantok.formats.originals import locate

ENDS = (7, 19, 24)
RNG = np.random.default_rng(3)
ACTION = RNG.normal(size=(24, 2)).astype(np.float32)
STATE = RNG.normal(size=(24, 5)).astype(np.float64)
VIEW = RNG.integers(0, 256, (24, 3, 4, 3)).repeat(8, 1).repeat(8, 2)  # even patches of 8x8


def written(path: Path, form: int = 2) -> Path:
    store = ZipStore(path, mode="w") if path.suffix == ".zip" else LocalStore(path)
    group = zarr.open_group(store, mode="w", zarr_format=form)
    for name, values in (
        ("data/action", ACTION), ("data/state", STATE), ("data/img", VIEW.astype(np.float32)),
        ("meta/episode_ends", np.array(ENDS)),
    ):  # fmt: skip
        array = group.create_array(name, shape=values.shape, chunks=(10, *values.shape[1:]), dtype=values.dtype)
        array[:] = values
    store.close()
    return path


@pytest.fixture(params=[("pusht.zarr", 2), ("pusht.zarr", 3), ("pusht.zarr.zip", 2)], ids=str)
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, form = request.param
    (tmp_path / "episode.toml").write_text(f'[files."{name}"]\nrate_hz = 10\n')
    return written(tmp_path / name, form)


def read(folder: Path) -> tuple[dict[str, Episode], list[str]]:
    said: list[str] = []
    return {f.id: read_episode(f, None, said.append) for f in find_episodes([folder], said.append)}, said


def test_each_episode_has_its_rows(buffer: Path) -> None:
    episodes, said = read(buffer.parent)
    assert list(episodes) == [f"pusht.zarr/episode_{n:06d}" for n in range(3)] and not said
    for episode, first, last in zip(episodes.values(), (0, *ENDS), ENDS, strict=False):
        assert set(episode.tracks) == {"action", "proprio.state", "video.img"}
        for name, whole in (("action", ACTION), ("proprio.state", STATE)):
            values, clock = episode.tracks[name].read()
            assert values.dtype == whole.dtype and np.array_equal(values, whole[first:last])
            assert clock.rate == 10 and clock.count == last - first and clock.start_ns == 0
        shown = pixels.to_rgb(episode.tracks["video.img"].read()[0], 24, 32).astype(int)
        middle = np.s_[:, 3::8, 3::8]
        assert np.abs(shown[middle] - VIEW[first:last][middle]).max() <= 4


def test_an_episode_is_found_again(buffer: Path, tmp_path: Path) -> None:
    episodes, _ = read(buffer.parent)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(buffer, moved / buffer.name)
    shutil.move(tmp_path / "episode.toml", moved / "episode.toml")
    for name, episode in episodes.items():
        again = read_episode(find_again(name, locate(episode.sources, moved)))
        number = int(name[-1])
        assert np.array_equal(again.tracks["action"].read()[0], ACTION[(0, *ENDS)[number] : ENDS[number]])
    changed = moved / buffer.name
    if changed.is_dir():
        chunk = max((changed / "data" / "action").rglob("*"), key=lambda p: (p.is_file(), p.name[0].isdigit(), str(p)))
        chunk.write_bytes(bytes(reversed(chunk.read_bytes())))
        with pytest.raises(InputError, match="has changed"):
            locate(episodes[name].sources, moved)


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "episode.toml").write_text('[files."*"]\nrate_hz = 10\n')
    buffer = written(tmp_path / "a.zarr")
    for chunk in (buffer / "data" / "action").glob("[0-9]*"):
        chunk.write_bytes(b"nothing that was compressed")
    episodes, said = read(tmp_path)
    assert all(set(e.tracks) == {"proprio.state", "video.img"} for e in episodes.values())
    assert said and all("action" in line and "damaged" in line for line in said)
    (tmp_path / "b.zarr.zip").write_bytes(b"no archive")
    found = {f.id: f for f in find_episodes([tmp_path])}
    with pytest.raises(InputError, match=r"b\.zarr\.zip: is not a Zarr group, or is damaged"):
        read_episode(found["b.zarr"])
    (tmp_path / "episode.toml").unlink()
    with pytest.raises(InputError, match="at what rate"):
        read_episode(find_episodes([buffer])[0])
    zarr.open_group(LocalStore(buffer), mode="a", zarr_format=2)["meta/episode_ends"][1] = 3
    with pytest.raises(InputError, match="do not rise"):
        find_episodes([buffer])


def metadata(path: Path, **changes: object) -> None:
    said = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(said | changes))


@pytest.mark.parametrize(
    "changes", [{"compressor": {"id": "imagecodecs_jpegxl"}}, {"dtype": "|O"}, {"dtype": "<q9"}, {"shape": "x"}, None]
)
def test_an_array_that_cannot_be_opened_costs_no_other(tmp_path: Path, changes: dict[str, object] | None) -> None:
    (tmp_path / "episode.toml").write_text('[files."*"]\nrate_hz = 10\n')
    buffer = written(tmp_path / "a.zarr")
    if changes is None:
        (buffer / "data" / "img" / ".zarray").unlink()
    else:
        metadata(buffer / "data" / "img", **changes)
    episodes, said = read(tmp_path)
    assert [set(e.tracks) for e in episodes.values()] == [{"action", "proprio.state"}] * 3
    assert len(said) == 3 and all("a.zarr: img: is damaged, or compressed by a codec" in line for line in said)


def test_pictures_that_are_damaged_cost_those_alone(tmp_path: Path) -> None:
    (tmp_path / "episode.toml").write_text('[files."*"]\nrate_hz = 10\n')
    buffer = written(tmp_path / "a.zarr")
    next((buffer / "data" / "img").glob("1.*")).write_bytes(b"nothing that was compressed")
    episodes, said = read(tmp_path)
    assert ["video.img" in e.tracks for e in episodes.values()] == [True, False, False]  # it holds rows 10 to 19
    assert len(said) == 2 and said[0].startswith(f"{buffer}: its data/img cannot be read from row")


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        (np.array(24), "has no meta/episode_ends"),
        (np.array([7.5, 19, 24]), "do not rise"),
        (np.array([np.nan, 19, 24]), "do not rise"),
        (np.array(["a", "b"]), "has no meta/episode_ends"),
    ],
    ids=str,
)
def test_ends_that_are_none_are_one_line(tmp_path: Path, ends: np.ndarray, wanted: str) -> None:
    buffer = written(tmp_path / "a.zarr")
    shutil.rmtree(buffer / "meta" / "episode_ends")
    group = zarr.open_group(LocalStore(buffer), mode="a")
    group.create_array("meta/episode_ends", shape=ends.shape, dtype=ends.dtype)[...] = ends
    with pytest.raises(InputError, match=wanted):
        find_episodes([buffer])


def test_archives_and_groups_that_are_damaged_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "episode.toml").write_text('[files."*"]\nrate_hz = 10\n')
    whole = written(tmp_path / "a.zarr.zip")
    content = bytearray(whole.read_bytes())
    content[200:4000] = bytes(3800)
    whole.write_bytes(content)
    (tmp_path / "gone.zarr.zip").symlink_to(tmp_path / "nowhere")
    shutil.rmtree(written(tmp_path / "b.zarr") / "data")
    wanted = {"a.zarr": "damaged|holds no rows", "b.zarr": "has no data", "gone.zarr": "a link to a file that is not"}
    for files in find_episodes([tmp_path]):
        with pytest.raises(InputError, match=wanted[files.id.split("/")[0]]):
            read_episode(files)
