"""Pictures within tables: arrays of them, and files in cells, are video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pantok import pixels
from pantok.errors import InputError
from pantok.formats.container import read_container
from pantok.formats.tables import read_table
from tests.media_files import Pictures, make_media, moving_pictures
from tests.test_formats_tables import MS, read, values_of


@pytest.mark.parametrize("form", ["rgb last", "rgb first", "grey"])
def test_arrays_of_pictures_are_video(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (40, 3, 4, 3), dtype=np.uint8)
    rgb = coarse.repeat(6, 1).repeat(6, 2)
    stored = {"rgb last": rgb, "rgb first": rgb.transpose(0, 3, 1, 2), "grey": rgb[..., :1]}[form]
    np.savez(tmp_path / "a.npz", fps=10, image=stored, wrist=stored, qpos=np.zeros((40, 2)))
    tracks, said = read(tmp_path / "a.npz")
    assert set(tracks) == {"video", "video.wrist", "proprio.qpos"}
    assert said == []
    values, clock = tracks["video"].read()
    assert (clock.rate, clock.count) == (10, 40)
    assert (tracks["video"].info["height"], tracks["video"].info["width"]) == (18, 24)
    shown = pixels.to_rgb(values, 18, 24).astype(int)
    expected = rgb[..., :1].repeat(3, 3) if form == "grey" else rgb
    inside = np.isin(np.arange(24) % 6, (2, 3))  # colour is blended where it changes
    assert np.abs(shown - expected)[:, inside[:18]][:, :, inside].max() <= 4
    small = {t.name: t for t in read_table(tmp_path / "a.npz", size=9, fps=Fraction(5))}["video"]
    values, clock = small.read()
    assert (clock.rate, clock.count) == (5, 20)
    assert values.shape[1] == pixels.frame_bytes(9, 12)


def test_pictures_are_told_by_their_shape_and_their_numbers(tmp_path: Path) -> None:
    """The same pictures in every form in which they are saved are the same video; what is none is named."""
    rgb = np.random.default_rng(3).integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
    rgb[0, 0, 0] = 255
    grey, first = rgb[..., 0], rgb.transpose(0, 3, 1, 2)
    forms = {"bytes": rgb, "unit": rgb / 255, "single": (rgb / 255).astype(np.float32), "whole": rgb.astype(float),
             "first": first / 255, "wide": rgb.astype(np.int64)}  # fmt: skip
    greys = {
        "plain": grey,
        "gray_view": grey / 255,
        "cam_2": np.maximum(grey - np.float32(0.25), 0),
        "channel": grey[..., None],
    }
    np.savez(tmp_path / "a.npz", fps=10, **forms, **greys)
    tracks, said = read(tmp_path / "a.npz")
    assert said == [] and set(tracks) == {f"video.{name}" for name in (*forms, *greys)}
    for same in (forms, greys):
        values = [tracks[f"video.{name}"].read()[0] for name in same]
        assert all(np.array_equal(v, values[0]) for v in values[1:])
    numbers = {"depth": grey / 40, "field": rgb / 200 - 0.5, "force": np.zeros((12, 16, 16)), "flow": rgb[..., :2] / 9}
    np.savez(tmp_path / "b.npz", fps=10, image=rgb, heat=grey / 255, **numbers)
    tracks, said = read(tmp_path / "b.npz")
    assert set(tracks) == {"video", "proprio.heat", *(f"proprio.{name}" for name in numbers)}
    counts = {"heat": 768, "depth": 768, "field": 2304, "flow": 1536}
    lines = [f"{name} is not read as pictures but as {count} channels of numbers" for name, count in counts.items()]
    assert [line.split(": ")[1].split(" (")[0] for line in said] == lines
    assert """[files."b.npz"] pictures = ["depth"]; if not, pictures = [])""" in said[1]
    assert np.array_equal(values_of(tracks["proprio.depth"]).reshape(grey.shape), grey / 40)
    told: list[str] = []
    asked = {t.name for t in read_table(tmp_path / "b.npz", {"pictures": ["heat", "image"]}, told.append)}
    assert {"video.heat", "video", "proprio.depth"} <= asked and told == []
    assert "proprio.image" in {t.name for t in read_table(tmp_path / "b.npz", {"pictures": []}, told.append)}
    for name, expected in (("field", "its field, pictures by episode.toml, are float64"), ("x", "has no column x")):
        with pytest.raises(InputError, match=expected):
            read_table(tmp_path / "b.npz", {"pictures": [name]})


def test_encoded_pictures_in_a_parquet_are_video(tmp_path: Path) -> None:
    """As data sets have them: PNG in {bytes, path}, not in every row; one that is damaged is left out and named."""
    frames = moving_pictures(4, 20, 30)
    shown = []
    for number in range(4):
        film = Pictures(values=frames[number : number + 1], height=20, width=30, codec="png", form="rgb24")
        shown.append(make_media(tmp_path / f"{number}.png", film, update="1").read_bytes())
    cells = [{"bytes": shown[i // 2] if i % 2 == 0 else None, "path": f"{i}.png"} for i in range(8)]
    table = pa.table({"t": np.arange(8) / 10, "top": cells, "raw": [b"xy"] * 8, "q": np.arange(8.0)})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    tracks, said = read(tmp_path / "a.parquet")
    assert set(tracks) == {"video.top", "proprio"} and len(said) == 1 and "raw: neither" in said[0]
    values, clock = tracks["video.top"].read()
    assert clock.times_ns.tolist() == [0, 200 * MS, 400 * MS, 600 * MS]
    for number in range(4):
        assert np.array_equal(values[number], read_container(tmp_path / f"{number}.png")[0].read()[0][0])
    cells[2]["bytes"] = shown[1][:60]
    pa.parquet.write_table(table.set_column(1, "top", pa.array(cells)), tmp_path / "a.parquet")
    tracks, said = read(tmp_path / "a.parquet")
    assert tracks["video.top"].read()[1].count == 3
    assert "video.top: 1 of 4 pictures cannot be decoded" in said[-1]
