"""`pantok stream` as another program reads it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pantok.commands.stream import _records
from pantok.formats import id_streams
from pantok.formats.store import Store
from pantok.loader import StreamDataset
from tests.conftest import run_pantok, run_pantok_for_bytes


def stream(store: Path, *words: str) -> bytes:
    code, out, err = run_pantok_for_bytes("stream", store, *words)
    assert code == 0, err.decode()
    assert err == b""
    return out


def test_three_formats_hold_the_same_ids(store: Path) -> None:
    data = list(StreamDataset(store, length=256, batch_size=64, shuffle=False, epochs=1))
    ids = np.concatenate([b["ids"].numpy() for b in data])
    array = np.load(io.BytesIO(stream(store, "--format", "npy", "--length", "256")))
    assert array.dtype == np.uint32 and np.array_equal(array, ids)
    lines = [json.loads(line) for line in stream(store, "--format", "jsonl", "--length", "256").splitlines()]
    assert np.array_equal([line["ids"] for line in lines], ids)
    with pa.ipc.open_stream(stream(store, "--length", "256")) as reader:
        table = reader.read_all()
        assert reader.schema.metadata[b"vocabulary_id"].decode() == StreamDataset(store).vocabulary.id
    assert np.array_equal(np.stack(table["ids"].to_numpy()), ids)
    for name in ("kind", "level", "document", "time_ns"):
        expected = np.concatenate([b[name].numpy() for b in data])
        assert np.array_equal(np.stack(table[name].to_numpy()), expected)


def test_the_columns_that_are_asked_for_and_no_others(store: Path, pantok) -> None:
    options = {"length": 256, "batch_size": 64, "shuffle": False, "epochs": 1}
    data = list(StreamDataset(store, **options))

    def written(form: str, columns: tuple[str, ...]) -> io.BytesIO:
        some, out = StreamDataset(store, columns=columns, **options), io.BytesIO()
        id_streams.write(_records(some), form, out, len(some.windows), 256, columns)
        out.seek(0)
        return out

    with pa.ipc.open_stream(written("arrow", ("track", "loss_mask"))) as reader:
        table = reader.read_all()
    assert table.column_names == ["epoch", "window", "resume", "tracks", "track", "loss_mask"]
    for name in ("track", "loss_mask"):
        np.testing.assert_array_equal(np.stack(table[name].to_numpy()), np.concatenate([b[name].numpy() for b in data]))
    assert table["tracks"][0].as_py() == data[0]["tracks"]
    times = np.load(written("npy", ("time_ns",)))
    np.testing.assert_array_equal(times, np.concatenate([b["time_ns"].numpy() for b in data]))
    done = pantok("stream", store, "--format", "jsonl", "--columns", "role, loss_mask")
    assert done.code == 0 and json.loads(done.out.splitlines()[0]).keys() == {
        "epoch", "window", "resume", "role", "loss_mask",
    }  # fmt: skip


def test_episodes_are_named_by_patterns(store: Path, pantok) -> None:
    names = list(Store.open(store).episodes)
    begin, same = names[0][:3], ("--format", "jsonl", "--length", "64")
    some = [n for n in names if n.startswith(begin)]
    by_name = [word for name in some for word in ("--episode", name)]
    assert pantok("stream", store, *same, *by_name).out == pantok("stream", store, *same, "--episode", f"{begin}*").out


def test_it_goes_on_from_a_token_and_shares_are_whole(store: Path) -> None:
    words = ("--format", "jsonl", "--length", "128", "--shuffle", "--seed", "3", "--repeat", "2", "--batch", "4")
    whole = stream(store, *words).splitlines()
    assert len(whole) > 8
    token = json.loads(whole[5])["resume"]
    assert stream(store, *words, "--from", token).splitlines() == whole[6:]
    before = token.rpartition(".")[0]  # as versions of before wrote them
    assert stream(store, *words, "--from", before).splitlines() == whole[6:]
    assert stream(store, *words, "--from", json.loads(whole[-1])["resume"]) == b""
    for wrong, told in (
        ((*words[:3], "64", *words[4:], "--from", token), "is of data"),
        ((*words, "--from", "0.9999.3"), "beyond the end"),
        ((*words, "--from", "3.0.3"), "beyond the end"),
        ((*words, "--from", "-1.0.3"), "no resume token"),
    ):
        done = run_pantok("stream", store, *wrong)
        assert done.code == 2 and told in done.err, done.err
    shares = [stream(store, *words, "--rank", str(r), "--world", "3").splitlines() for r in range(3)]

    def records(lines: list[bytes]) -> list[tuple]:
        return sorted((r["epoch"], r["window"], r["ids"]) for r in map(json.loads, lines))

    assert records([line for share in shares for line in share]) == records(whole)


def test_a_closed_pipe_is_no_fault(store: Path) -> None:
    command = [sys.executable, "-m", "pantok", "stream", str(store), "--format", "jsonl", "--repeat", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--layout", "defualt"), "no preset"),
        (("--from", "x"), "resume"),
        (("--format", "npy", "--repeat", "0"), "no end"),
        (("--from", "0.0.5"), "seed"),
        (("--columns", "ids,idz"), "known: ids, kind"),
        (("--episode", "nowhere*"), "is not there"),
        (("--columns", "ids,kind", "--format", "npy"), "one array"),
    ],
)
def test_wrong_usage_is_two(store: Path, words: tuple[str, ...], told: str, pantok) -> None:
    done = pantok("stream", store, *words)
    assert done.code == 2 and told in done.err and done.err.count("\n") == 1
