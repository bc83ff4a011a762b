"""Tables as tracks: how they say their time, what becomes of their columns, and the way back, bit for bit."""

from __future__ import annotations

import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import InputError
from pantok.experience import NS, Clock, Track
from pantok.formats.tables import read_table, write_parquet

MS = 1_000_000


def table(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def read(path: Path, **rules: object) -> tuple[dict[str, Track], list[str]]:
    said: list[str] = []
    return {t.name: t for t in read_table(path, rules, said.append)}, said


def values_of(track: Track) -> np.ndarray:
    return track.read()[0]


def refused(path: Path, expected: str, **rules: object) -> None:
    with pytest.raises(InputError) as caught:
        read_table(path, rules)
    assert expected in str(caught.value), str(caught.value)
    assert path.name in str(caught.value)
    assert caught.value.remedy or "rows" in str(caught.value)
    assert "\n" not in str(caught.value)


# Time from a column


@pytest.mark.parametrize(
    ("column", "cells", "times_ns"),
    [
        ("t", ["0.0", "0.5", "1.25"], [0, 500 * MS, 1250 * MS]),
        ("time_s", ["10", "11", "13"], [10 * NS, 11 * NS, 13 * NS]),
        ("timestamp_ms", ["5", "6", "9"], [5 * MS, 6 * MS, 9 * MS]),
        ("stamp_us", ["7", "8", "10"], [7000, 8000, 10_000]),
        ("ts_ns", ["7", "8", "10"], [7, 8, 10]),
        ("timestamp", ["1700000000000000001", "1700000000000000002", "1700000000000000005"],
         [1700000000000000001, 1700000000000000002, 1700000000000000005]),
        ("time", ["1700000000000", "1700000000020", "1700000000050"],
         [1700000000000 * MS, 1700000000020 * MS, 1700000000050 * MS]),
        ("time", ["1700000000.25", "1700000000.5", "1700000001"],
         [1700000000250 * MS, 1700000000500 * MS, 1700000001000 * MS]),
        ("Timestamp", ["1970-01-01T00:00:01", "1970-01-01T00:00:02.5", "1970-01-01T00:00:05"],
         [NS, 2500 * MS, 5 * NS]),
        ("time", ["1970-01-01 00:00:01Z", "1970-01-01 00:00:02Z", "1970-01-01 00:00:04Z"], [NS, 2 * NS, 4 * NS]),
        ("time", ["00:00:01", "00:00:02", "00:01:00"], [NS, 2 * NS, 60 * NS]),
    ],
)  # fmt: skip
def test_time_columns_and_their_units(tmp_path: Path, column: str, cells: list[str], times_ns: list[int]) -> None:
    rows = "".join(f"{t},{i}\n" for i, t in enumerate(cells))
    tracks, said = read(table(tmp_path / "a.csv", f"{column},x\n{rows}"))
    assert list(tracks) == ["proprio"]
    assert tracks["proprio"].channels == ("x",)
    assert tracks["proprio"].clock.times_ns.tolist() == times_ns
    assert said == []


def test_the_rules_say_column_unit_and_offset(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "frame,clock,x\n0,0,1.5\n1,40,2.5\n2,100,3.5\n")
    tracks, _ = read(path, time="clock", unit="ms", offset_s=0.25)
    assert tracks["proprio"].clock.times_ns.tolist() == [250 * MS, 290 * MS, 350 * MS]
    assert tracks["proprio.counts"].channels == ("frame",)
    assert read(path, time="clock", unit="ms", offset_ns=-7)[0]["proprio"].clock.start_ns == -7
    refused(path, "no column when", time="when")
    refused(path, "has no column u, an action", time="clock", unit="ms", actions=["u"])
    refused(path, "unit of time is 'hours'", time="clock", unit="hours")
    refused(path, "unknown unit", time="clock")
    held, _ = read(path, rate_hz=10)
    assert held["proprio"].clock.rate == 10


@pytest.mark.parametrize("name", ["rate_hz", "fps", "hz", "rate", "control_hz", "frequency", "sample_rate"])
def test_rates_under_their_usual_names(tmp_path: Path, name: str) -> None:
    x = np.arange(5.0)
    np.savez(tmp_path / "a.npz", x=x, **{name: 30})
    np.savez(tmp_path / "b.npz", x=x, **{name: np.array([12.5], np.float32)})
    pa.parquet.write_table(pa.table({"x": x}).replace_schema_metadata({name: "30000/1001"}), tmp_path / "c.parquet")
    table(tmp_path / "d.csv", f"# {name}: 50\n# robot: arm\nx\n1.0\n2.0\n")
    for file, rate in (("a.npz", 30), ("b.npz", Fraction(25, 2)), ("c.parquet", Fraction(30000, 1001)), ("d.csv", 50)):
        (track,) = read(tmp_path / file)[0].values()
        assert (track.clock.rate, track.clock.start_ns) == (rate, 0), file


def test_no_time_is_an_error_that_says_how_to_give_it(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "x,y\n1,2\n3,4\n")
    refused(path, 'time_s, or to episode.toml: [files."a.csv"] rate_hz = 50')
    for rate in (0, -3, "fast", float("nan"), 1e30, True):
        refused(path, "rate_hz is", rate_hz=rate)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("0.1,0.2,0.15", "row 3: its time t jumps back (0.2 then 0.15)"),
        ("0.1,0.1,0.2", "row 2: its time t stands still"),
        ("0.1,nan,0.2", "row 2: its time t is nan"),
        ("0.1,,0.2", "row 2: its time t is nan"),
        ("0.1,inf,0.2", "row 2: its time t is inf"),
        ("0.1,0.2,1e300", "reaches 1e+300"),
        ("1,2,4", "unknown unit"),
    ],
)
def test_clocks_that_cannot_be(tmp_path: Path, times: str, expected: str) -> None:
    rows = "".join(f"{t},1\n" for t in times.split(","))
    refused(table(tmp_path / "a.csv", f"t,x\n{rows}"), expected)


# Columns, arrays, dtypes

DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
)  # fmt: skip


def sample(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values of every bit pattern, NaN and infinities among the floats."""
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    return raw.view(dtype)[..., 0] if dtype != "bool" else (raw[..., 0] & 1).astype(bool)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_arrays_of_one_file_are_tracks_of_their_own_dtype(tmp_path: Path) -> None:
    arrays = {f"a_{d}": sample(d, (7, 3)) for d in DTYPES}
    np.savez(tmp_path / "a.npz", time_s=np.arange(7) * 0.5, action=sample("float32", (7, 2)), **arrays)
    tracks, said = read(tmp_path / "a.npz")
    assert said == []
    assert set(tracks) == {f"proprio.{n}" for n in arrays} | {"action"}
    for name, values in arrays.items():
        track = tracks[f"proprio.{name}"]
        assert same(values_of(track), values), name
        assert track.info["dtype"] == str(values.dtype)
        assert track.channels == ("0", "1", "2")
        assert track.clock.rate == 2


def test_columns_of_differing_types_are_not_mixed(tmp_path: Path) -> None:
    columns = {d: sample(d, (6,)) for d in DTYPES}
    pa.parquet.write_table(
        pa.table(
            {"time_s": np.arange(6) / 10, **columns, "action_grip": columns["bool"], "reward": columns["float32"]}
        ),
        tmp_path / "a.parquet",
    )
    tracks, _ = read(tmp_path / "a.parquet")
    found = {c: values_of(t)[:, i] for t in tracks.values() for i, c in enumerate(t.channels)}
    for dtype, values in columns.items():
        assert same(found[dtype], values), dtype
    assert same(values_of(tracks["action"])[:, 0], columns["bool"])
    assert tracks["reward"].channels == ("reward",)


def test_csv_types_names_and_missing_cells(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        "\ufefftime_s,joint a,on,count,empty,some,joint a,\n"
        '0.0,1.5,true,1,,1,7.0,\n0.1,-inf,false,2,,,8.0,\n0.2,nan,true,3,,3,"9.0",\n',
    )
    tracks, said = read(path)
    assert said == []
    assert tracks["proprio"].channels == ("joint a", "empty", "some", "joint a.2")
    expected = [[1.5, np.nan, 1, 7], [-np.inf, np.nan, np.nan, 8], [np.nan, np.nan, 3, 9]]
    assert np.array_equal(values_of(tracks["proprio"]), expected, equal_nan=True)
    assert values_of(tracks["proprio.flags"])[:, 0].tolist() == [True, False, True]
    assert values_of(tracks["proprio.counts"]).dtype == np.int64


def test_csv_dialects(tmp_path: Path) -> None:
    for name, content in (
        ("semicolon.csv", "t;x\n0.0;1.5\n0.1;2.5\n"),
        ("decimal-comma.csv", "t;x\r\n0;1,5\r\n0,1;2,5\r\n"),
        ("tabs.csv", "t\tx\n0.0\t1.5\n0.1\t2.5\n"),
        ("tabs.tsv", "t\tx\n0.0\t1.5\n0.1\t2.5\n"),
        ("windows.csv", "t,x\r\n0.0,1.5\r\n0.1,2.5\r\n"),
        ("blank.csv", "\n# a comment\n\nt,x\n0.0,1.5\n\n0.1,2.5\n\n"),
    ):
        (track,) = read(table(tmp_path / name, content))[0].values()
        assert values_of(track).tolist() == [[1.5], [2.5]], name
        assert track.clock.times_ns.tolist() == [0, 100 * MS]
    (tmp_path / "wide.csv").write_bytes("t,größe\n0.0,1.5\n0.1,2.5\n".encode("utf-16"))
    assert read(tmp_path / "wide.csv")[0]["proprio"].channels == ("größe",)
    headless, _ = read(table(tmp_path / "plain.csv", "1,2.5\n3,4.5\n"), rate_hz=10)
    assert headless["proprio"].channels == ("c1",)
    assert headless["proprio.counts"].channels == ("c0",)
    headless, _ = read(table(tmp_path / "komma.csv", "1,25;2,5\n3;4,5\n"), rate_hz=10)
    assert values_of(headless["proprio"]).tolist() == [[1.25, 2.5], [3, 4.5]]
    (tmp_path / "latin.csv").write_bytes("t,größe\n0.0,1.5\n".encode("latin1"))
    refused(tmp_path / "latin.csv", "is not UTF-8")


def test_ragged_rows_cost_themselves_alone(tmp_path: Path) -> None:
    tracks, said = read(table(tmp_path / "a.csv", "t,x,y\n0.0,1,2\n0.1,3\n0.2,5,6\n0.3,7,8,9\n0.4,9,8\n0.5,1"))
    assert values_of(next(iter(tracks.values()))).tolist() == [[1, 2], [5, 6], [9, 8]]
    assert len(said) == 1
    assert "row 2 has 2 cells, the first line 3 (3 such left out" in said[0]
    refused(table(tmp_path / "b.csv", "a table\nof,words,and\nother,things,here\n"), "cells")


def test_words_become_text_and_spoilt_numbers_are_named(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        "t,x,task,spoilt\n0.0,1.0,pick up,1\n0.1,2.0,pick up,2\n0.2,3.0,,ERR\n0.3,4.0,put down,4\n0.4,5.0,pick up,5\n",
    )
    tracks, said = read(path)
    assert set(tracks) == {"proprio", "text.task"}
    words, clock = tracks["text.task"].read()
    assert words.tolist() == ["pick up", "put down", "pick up"]
    assert clock.times_ns.tolist() == [0, 300 * MS, 400 * MS]
    assert tracks["text.task"].info["ends_ns"] == [200 * MS, 400 * MS, 500 * MS]
    assert said == [
        f"{path}: row 3 of spoilt holds 'ERR', which is no number "
        "(the column is left out; mend the cell, or leave it empty)"
    ]
    np.savez(tmp_path / "b.npz", rate=10, x=np.zeros(3), say=np.array(["a", "a", "b"]))
    assert read(tmp_path / "b.npz")[0]["text.say"].read()[0].tolist() == ["a", "b"]


def test_parquet_kinds(tmp_path: Path) -> None:
    when = [datetime.datetime(2024, 5, 1, 12, 0, s, tzinfo=datetime.UTC) for s in (0, 1, 3)]
    pa.parquet.write_table(
        pa.table(
            {
                "timestamp": pa.array(when, pa.timestamp("ms", "Europe/Paris")),
                "observation.state": pa.array([[1.0, 2.0], [3.0, None], [5.0, 6.0]], pa.list_(pa.float32())),
                "action": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(9, dtype=np.int16)), 3),
                "pose": pa.array([{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}]),
                "label": pa.array(["a", "b", "b"]).dictionary_encode(),
                "half": pa.array([1, None, 3], pa.int8()),
                "flag": pa.array([True, None, False]),
                "price": pa.array(["1.25", "2.50", "3.75"]).cast(pa.decimal128(5, 2)),
                "ragged": pa.array([[1], [1, 2], []]),
                "silent": pa.array([None, [], None], pa.list_(pa.float32())),
                "raw": pa.array([b"a", b"b", b"c"]),
            }
        ),
        tmp_path / "a.parquet",
    )
    tracks, said = read(tmp_path / "a.parquet")
    seconds = int(when[0].timestamp())
    assert tracks["action"].clock.times_ns.tolist() == [(seconds + s) * NS for s in (0, 1, 3)]
    state = values_of(tracks["proprio.observation.state"])
    assert same(state, np.array([[1, 2], [3, np.nan], [5, 6]], np.float32))
    assert values_of(tracks["action"]).dtype == np.int16
    assert tracks["proprio.counts"].channels == ("pose.x", "pose.y")
    expected = [[1, 1, 1.25], [np.nan, np.nan, 2.5], [3, 0, 3.75]]
    assert tracks["proprio"].channels == ("half", "flag", "price")
    assert np.array_equal(values_of(tracks["proprio"]), expected, equal_nan=True)
    assert tracks["text.label"].read()[0].tolist() == ["a", "b"]
    assert len(said) == 3
    assert "ragged: lists of different lengths" in said[0]
    assert "silent: lists that hold nothing" in said[1]
    assert "raw: neither numbers nor words" in said[2]


def test_lists_with_gaps_have_a_clock_of_their_own_and_nested_ones_are_arrays(tmp_path: Path) -> None:
    """A scanner of 10 Hz beside joints of 100 Hz: what is between the scans is no scan."""
    rng = np.random.default_rng(2)
    scans, pictures = rng.normal(size=(3, 5)).astype(np.float32), rng.integers(0, 256, (24, 8, 9, 3))
    scans[1, 2:] = np.inf, np.nan, -np.inf
    joints = rng.normal(size=24)
    lidar = [scans[i // 10].tolist() if i % 10 == 0 else [] if i % 2 else None for i in range(24)]
    seen = [pictures[i].tolist() if i in (3, 4, 9) else None for i in range(24)]
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(pictures.astype(np.uint8))
    table = pa.table({"j": joints, "lidar": pa.array(lidar), "left": seen, "right": tensors})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    tracks = {t.name: t for t in read_table(tmp_path / "a.parquet", {"rate_hz": 100})}
    assert set(tracks) == {"proprio", "proprio.lidar", "video.left", "video.right"}
    values, clock = tracks["proprio.lidar"].read()
    assert np.array_equal(values, scans, equal_nan=True)
    assert (clock.rate, clock.count, clock.start_ns) == (10, 3, 0)
    values, clock = tracks["video.left"].read()
    assert clock.times_ns.tolist() == [30 * MS, 40 * MS, 90 * MS]
    whole, clock = tracks["video.right"].read()
    assert (clock.rate, clock.count) == (100, 24)
    assert (whole[[3, 4, 9]] == values).all()
    assert tracks["proprio"].clock.count == 24


def test_arrays_that_do_not_go_with_the_clock_are_named(tmp_path: Path) -> None:
    facts = {"camera": np.eye(3), "qpos": np.zeros((20, 2)), "action": np.ones((19, 2))}
    np.savez(tmp_path / "timed.npz", time_s=np.arange(20) / 10, **facts)
    np.savez(tmp_path / "rated.npz", fps=10, qvel=np.zeros((20, 2)), z=np.zeros((2, 2), complex), **facts)
    for name in ("timed.npz", "rated.npz"):
        tracks, said = read(tmp_path / name)
        assert tracks["proprio.qpos"].clock.count == 20
        assert tracks["action"].clock.count == 19
        assert "camera has 3 rows, not 20" in said[-1]
    assert "z: neither numbers nor words" in said[0]
    np.savez(tmp_path / "torn.npz", fps=10, a=np.zeros(5), b=np.zeros(9))
    refused(tmp_path / "torn.npz", "its arrays have [5, 9] rows")


def test_structured_dated_and_foreign_arrays(tmp_path: Path) -> None:
    rows = np.zeros(4, [("t", "<f8"), ("x", ">f4"), ("on", "?")])
    rows["t"], rows["x"], rows["on"] = [0, 0.5, 1.25, 2], [1, 2, 3, 4], [0, 1, 1, 0]
    np.save(tmp_path / "a.npy", rows)
    tracks, _ = read(tmp_path / "a.npy")
    assert values_of(tracks["proprio"])[:, 0].tolist() == [1, 2, 3, 4]
    assert values_of(tracks["proprio"]).dtype == np.dtype("=f4")
    assert values_of(tracks["proprio.flags"]).dtype == bool
    stamps = np.array(["1970-01-01T00:00:01", "1970-01-01T00:00:03", "1970-01-01T00:00:04"], "M8[ms]")
    np.savez(tmp_path / "b.npz", timestamps=stamps, x=np.zeros((3, 2)))
    assert read(tmp_path / "b.npz")[0]["proprio.x"].clock.times_ns.tolist() == [NS, 3 * NS, 4 * NS]
    np.savez(tmp_path / "c.npz", x=np.array([{}, []], object), fps=3)
    refused(tmp_path / "c.npz", "pickled objects")


@settings(max_examples=25, deadline=None)
@given(
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4),
    rate=st.sampled_from([None, 50, Fraction(30000, 1001), Fraction(25, 7)]),
    count=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_what_is_written_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, dtypes: list[str], rate: Fraction | None, count: int, seed: int
) -> None:
    gaps = np.random.default_rng(seed).integers(1, 10**10, count)
    clock = Clock.irregular(np.cumsum(gaps) - 10**10) if rate is None else Clock.regular(rate, count, seed * 1001)
    tracks = {
        f"{kind}.{n}": (sample(d, (count, 1 + n), seed), (f"{kind}.{n}.t", *(f"c{i}" for i in range(n))))
        for n, (d, kind) in enumerate(zip(dtypes, ("proprio", "action", "time_ns", "reward"), strict=False))
    }  # fmt: skip
    path = tmp_path_factory.mktemp("back") / "a.parquet"
    write_parquet(path, clock, tracks)
    back, said = read(path)
    assert said == []
    assert set(back) == set(tracks)
    for name, (values, channels) in tracks.items():
        assert same(values_of(back[name]), values)
        assert back[name].channels == channels
        assert back[name].clock.times_ns.tolist() == clock.times_ns.tolist()
        if rate is not None:
            assert back[name].clock.rate == rate


# Damage


def test_damaged_tables_are_input_errors_and_nothing_else(tmp_path: Path) -> None:
    good: dict[str, bytes] = {}
    arrays = {"time_s": np.arange(50) / 10, "x": np.random.default_rng(0).normal(size=50), "n": np.arange(50)}
    np.savez(tmp_path / "g.npz", **arrays)
    np.savez_compressed(tmp_path / "gz.npz", **arrays)
    np.save(tmp_path / "g.npy", arrays["x"])
    pa.parquet.write_table(pa.table(arrays), tmp_path / "g.parquet")
    table(tmp_path / "g.csv", "time_s,x\n" + "".join(f"{i / 10},{i}.5\n" for i in range(50)))
    for path in sorted(tmp_path.iterdir()):
        good[path.name] = path.read_bytes()
    rng = np.random.default_rng(5)
    outcomes = {"read": 0, "refused": 0}
    for name, content in good.items():
        for trial in range(60):
            spoilt = bytearray(content)
            if trial % 3 == 0:
                spoilt = spoilt[: int(rng.integers(0, len(spoilt)))]
            else:
                for at in rng.integers(0, len(spoilt), 1 + trial % 8):
                    spoilt[at] ^= 1 << int(rng.integers(8))
            (tmp_path / f"spoilt-{name}").write_bytes(spoilt)
            try:
                for track in read(tmp_path / f"spoilt-{name}", rate_hz=10)[0].values():
                    track.read()
                outcomes["read"] += 1
            except InputError:  # anything else fails the test
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 50, outcomes


def test_empty_tables(tmp_path: Path) -> None:
    for name, content in (("a.csv", ""), ("b.csv", "\n\n"), ("c.csv", "t,x\n"), ("d.csv", "# rate_hz: 5\n")):
        refused(table(tmp_path / name, content), "0 bytes" if not content else "holds no rows")
    np.save(tmp_path / "e.npy", np.zeros((0, 3)))
    refused(tmp_path / "e.npy", "holds no rows")
    np.savez(tmp_path / "f.npz", rate=3)
    refused(tmp_path / "f.npz", "holds no rows")
    np.savez(tmp_path / "g.npz", time_s=np.arange(3.0))
    refused(tmp_path / "g.npz", "holds neither numbers nor words")
