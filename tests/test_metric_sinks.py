"""Where the figures of a run go: event files that are what TensorBoard reads, and what is said without W&B."""

from __future__ import annotations

import doctest
import json
import struct
import sys
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from pantok.commands import cli
from pantok.commands.train_wm_loop import _ahead, _panel
from pantok.errors import OutputError
from pantok.formats import metric_sinks
from pantok.formats.metric_sinks import TensorBoard, scalars

TOML = """
length = 256
batch = 4
steps = 4
warmup = 1
latents = 0
evaluate_every = 2
evaluate_windows = 32
held_out = 0.0
[backbone]
width = 16
layers = 1
heads = 2
kv_heads = 1
"""


def crc(data: bytes) -> int:
    """CRC-32C bit by bit, masked."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def message(data: bytes) -> list[tuple[int, int | bytes]]:
    """(field, value) of a protobuf message, by its wire types alone."""
    found: list[tuple[int, int | bytes]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 0:
            found.append((key >> 3, varint()))
            continue
        size = size or varint()
        found.append((key >> 3, data[at : at + size]))
        at += size
    return found


def events(path: Path) -> list[dict]:
    """The records of an event file: step, and its scalars; checked as a reader would."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body, rest = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[8:12])[0] == crc(data[:8]) and struct.unpack("<I", rest[:4])[0] == crc(body)
        fields = dict(message(body))
        one = {"step": fields.get(2, 0), "version": fields.get(3), "starts": 7 in fields, "scalars": {}}
        for _, value in message(fields.get(5, b"")):
            tag, number = (v for _, v in message(value))
            one["scalars"][tag.decode()] = struct.unpack("<f", number)[0]
        found.append(one)
        data = rest[4:]
    return found


def test_examples() -> None:
    assert doctest.testmod(metric_sinks).failed == 0


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sinks")
    (folder / "c.toml").write_text(TOML)
    train = ["train-wm", store, "-o", folder / "run", "--config", folder / "c.toml", "--tensorboard", "-q"]
    for _ in range(2):  # the second finds nothing left to do, and begins a file of its own
        done = CliRunner().invoke(cli.pantok, [str(a) for a in train])
        assert done.exit_code == 0, done.stderr
    return folder / "run"


def test_event_files_hold_what_the_log_holds(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    first, second = (events(path) for path in sorted((trained / "tensorboard").iterdir()))
    assert first[0]["version"] == b"brain.Event:2" and first[1]["starts"]
    assert [e["step"] for e in first[2:]] == [r["step"] for r in log]
    for event, record in zip(first[2:], log, strict=True):
        assert event["scalars"] == {k: pytest.approx(v, rel=1e-6) for k, v in scalars(record).items()}
    assert [(e["step"], e["starts"]) for e in second] == [(0, False), (5, True)]
    tags = {tag for e in first for tag in e["scalars"]}
    assert {"train/learning_rate", "train/ids_per_second", "held_out/bits_per_second"} <= tags
    assert "held_out/by_track/video/bits_per_second" in tags
    assert any(t.startswith("held_out/by_track/audio/levels/audio.") for t in tags)
    assert {"held_out/next_step/video/model", "held_out/next_step/video/copy_last"} <= tags


def test_tracks_sum_to_the_whole(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    held = [r for r in log if "by_track" in r]
    assert held
    for record in held:
        for name in ("bits_per_second", "share"):
            whole = record["bits_per_second"] if name != "share" else 1
            assert sum(t[name] for t in record["by_track"].values()) == pytest.approx(whole)
            for track in record["by_track"].values():
                assert sum(v[name] for v in track["levels"].values()) == pytest.approx(track[name])


def test_tensorboard_reads_them(trained: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = reader.EventAccumulator(str(trained / "tensorboard"))
    read.Reload()
    log = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    wanted = [(r["step"], pytest.approx(r["loss"], rel=1e-6)) for r in log if "loss" in r]
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == wanted


def test_the_panel(trained: Path) -> None:
    """By track, one step ahead beside the last one again, and levels where the terminal is high enough."""
    log = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    shown = []
    for height in (100, 12):
        console = Console(width=120, record=True, file=StringIO())
        console.print(_panel(log[-1], height))
        shown.append(console.export_text())
    assert all(
        "video" in s and "dB" in s and f"{log[-1]['by_track']['video']['bits_per_second']:,.1f}" in s for s in shown
    )
    assert "coarse" in shown[0] and "coarse" not in shown[1]
    assert _panel({}, 50) is None


def test_what_is_said(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.toml").write_text(TOML)
    monkeypatch.setitem(sys.modules, "wandb", None)
    train = ["train-wm", str(store), "-o", str(tmp_path / "run"), "--config", str(tmp_path / "c.toml"), "-q"]
    done = CliRunner().invoke(cli.pantok, [*train, "--wandb", "home"])
    assert done.exit_code == 2 and "pip install wandb" in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--tensorboard"):
        TensorBoard(tmp_path / "file")


def test_a_share_of_the_spread_is_not_called_decibels() -> None:
    """What is far worse than the mean, as a pure tone foretold by its last value, is a share above 5."""
    ahead = {"audio": {"unit": "nmse", "model": 24.44, "copy_last": 24.5}}
    assert _ahead(ahead, "audio") == "24.44 of the spread (24.50)" and _ahead(ahead, "video") == ""
