"""Nothing that happens to a store goes unseen, and nothing that happens to its writer hurts it."""

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pantok.errors import StoreError, VocabularyError
from pantok.formats.store import Store
from pantok.formats.store_disk import seal, unseal
from pantok.formats.store_root import read_root
from pantok.formats.store_segment import Segment
from pantok.formats.store_verify import verify_store
from tests.store_streams import a_stream, a_vocabulary, a_whole_store, assert_equal

VOCABULARY = a_vocabulary()
HERE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return a_whole_store(tmp_path_factory.mktemp("whole") / "home.zarr")


@pytest.fixture
def path(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "home.zarr"))


def files_of(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file())


def faults(path: Path) -> list:
    return [problem for problem in verify_store(path) if problem.is_fault]


def test_every_flipped_bit_is_found_and_named(path):
    draw = random.Random(0)
    files = files_of(path)
    codes = [f for f in files if "codes_" in str(f) and f.name == "c.0"]
    for round_ in range(90):
        file = files[round_ * 7919 % len(files)] if round_ < 60 else draw.choice(codes)
        data = file.read_bytes()
        at, bit = draw.randrange(len(data)), draw.randrange(8)
        with open(file, "r+b") as handle:
            handle.seek(at)
            handle.write(bytes([data[at] ^ 1 << bit]))
        name = str(file.relative_to(path))
        found = [problem for problem in faults(path) if problem.path == name]
        assert found, f"{name} byte {at} bit {bit}"
        assert all("\n" not in str(problem) and name in str(problem) for problem in found)
        if name.startswith("segments/") and name != "segments/zarr.json":
            check_named(path, name, at, found)
        file.write_bytes(data)
    assert faults(path) == []


def check_named(path: Path, name: str, at: int, found: list) -> None:
    """The problem names the right episode, track, level, and a range that holds the byte."""
    segment = Segment(path / "segments" / name.split("/")[1]) if not name.endswith("COMMIT.json") else None
    if "codes_" not in name or name.endswith("zarr.json") or segment is None:
        assert all(problem.episode for problem in found)
        return
    track, level = name.split("/")[3], int(name.split("codes_")[1][:2])
    array = segment.array("/".join(name.split("/")[2:-1]))
    chunk, byte = divmod(at, array._chunk_rows * array.dtype.itemsize + 4)
    row = chunk * array._chunk_rows + byte // array.dtype.itemsize
    if chunk * array._chunk_rows >= len(array) or row >= min((chunk + 1) * array._chunk_rows, len(array)):
        return  # in the shard's index, or in a checksum: all rows that it covers are named
    for line in segment.episodes:
        for facts in (f for f in line["tracks"] if f["folder"] == track):
            first, count = facts["codes"][level]
            if first <= row < first + count:
                (problem,) = [p for p in found if p.episode == line["id"]]
                assert (problem.track, problem.level) == (facts["track"], level)
                spread = segment.about(track)["levels"][level]
                tick = int(np.searchsorted(segment.splits(facts, spread), row - first, "right")) - 1
                assert problem.ticks[0] <= tick < problem.ticks[1] <= facts["ticks"][1]
                assert problem.samples[0] <= tick * facts["tick"] < problem.samples[1] <= facts["clock"]["count"]
                if line["id"] == "long" and level == 1:
                    assert problem.ticks[1] - problem.ticks[0] < 0.4 * facts["ticks"][1], "one chunk of three"


def test_a_flipped_bit_is_seen_on_reading(path):
    store = Store.open(path)
    files = [f for f in files_of(path) if f.name.startswith("c.0") and "tracks" in str(f)]
    draw = random.Random(1)
    whole = {id: store.read(id) for id in store.episodes}
    for file in files:
        data = file.read_bytes()
        at = draw.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        with pytest.raises(StoreError, match=str(file.relative_to(path))) as caught:
            list(map(Store.open(path).read, [e.id for e in store.episodes.values() if e.segment in str(file)]))
        assert "\n" not in str(caught.value) and "pantok verify" in str(caught.value)
        file.write_bytes(data)
    for id, stream in whole.items():
        assert_equal(Store.open(path).read(id), stream)


def test_every_missing_or_cut_file_is_found(path):
    """Where Zarr reads fill value. The last commit cannot be missed, but what it lists is then found unlisted."""
    draw = random.Random(2)
    files = files_of(path)
    last = path / "manifest" / max(os.listdir(path / "manifest"))
    for file in files:
        data, name = file.read_bytes(), str(file.relative_to(path))
        file.unlink()
        if file == last:
            (left,) = verify_store(path)
            assert left.kind == "leftover" and "the next writer will list it" in left.what
            assert left.path == f"segments/{unseal(data, '')['add'][0]['segment']}"
        else:
            found = [p for p in faults(path) if p.path == name]
            assert found and all("is missing" in p.what or "no zarr.json" in p.what for p in found), name
        file.write_bytes(data[: draw.randrange(len(data))])
        assert [p for p in faults(path) if p.path == name], f"{name} cut"
        file.write_bytes(data)
    assert faults(path) == []


def test_a_missing_segment_and_stray_files_are_found(path):
    name = next(iter(Store.open(path).segments))
    lost = {e.id for e in Store.open(path).episodes.values() if e.segment == name}
    os.rename(path / "segments" / name, path.parent / "aside")
    assert {p.episode for p in faults(path)} == lost
    os.rename(path.parent / "aside", path / "segments" / name)
    strays = ["notes.txt", "segments/notes", f"segments/{name}/tracks/c.9", "manifest/notes.json", "vocabulary/old.bin"]
    for stray in strays:
        (path / stray).write_text("?")
    (path / "segments" / "half").mkdir()
    (path / "segments" / "half" / "zarr.json").write_text("{}")
    assert sorted((p.kind, p.path) for p in faults(path)) == sorted(("stray", s) for s in [*strays, "segments/half"])


def test_a_writers_own_mistake_is_found(path):
    """Bytes that are as written, and wrong: a code above its cardinality, under checksums that fit."""
    import pantok.formats.store_facts as facts

    stream = a_stream(4, VOCABULARY)
    stream.tracks["text.caption"].levels[0].codes[3] = 70_000
    store = Store.open(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts.TrackTokens, "check", lambda *_: None)
        store.write([stream])
    (problem,) = faults(path)
    assert problem.episode == "episode-004" and problem.track == "text.caption"
    assert "level 0 position 3 code 70000 is not below the cardinality 70000" in problem.what


def test_errors_are_one_line_each(path, tmp_path):
    def refused(at, *words):
        with pytest.raises(StoreError) as caught:
            Store.open(at)
        assert "\n" not in str(caught.value)
        for word in words:
            assert word in str(caught.value), caught.value

    refused(tmp_path / "nothing", "there is no such store", "pantok encode")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is not a token store: it has no zarr.json")
    refused(__file__, "is not a token store")
    (tmp_path / "empty/zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    refused(tmp_path / "empty", "another program's")
    root = (path / "zarr.json").read_text()
    for version, remedy in ((2, "upgrade pantok"), (0, "encode it again")):
        (path / "zarr.json").write_text(root.replace('"format": 1', f'"format": {version}'))
        refused(path, f"is of format {version}, pantok", "reads format 1", remedy)
    (path / "zarr.json").write_text(root[:50])
    refused(path, "zarr.json: is damaged")
    for bit in range(8 * len(root.encode())):  # the name of a key among them
        data = bytearray(root.encode())
        data[bit // 8] ^= 1 << bit % 8
        (path / "zarr.json").write_bytes(data)
        with suppress(StoreError):
            assert read_root(path) == VOCABULARY.id
    (path / "zarr.json").unlink()
    refused(path, "zarr.json: is missing")
    (path / "zarr.json").write_text(root)
    commit = path / "manifest/0000000002.json"
    body = commit.read_bytes()
    commit.unlink()
    refused(path, "0000000002.json: is missing")
    commit.write_bytes(seal({**unseal(body, ""), "format": 3}))
    refused(path, "is of format 3, this pantok reads 1", "upgrade")
    commit.write_bytes(body[:-9])
    refused(path, "0000000002.json: is damaged or cut short")
    commit.write_bytes(body)
    model = path / "vocabulary/text/model"
    model.write_bytes(b"x" + model.read_bytes())
    with pytest.raises(VocabularyError, match=r"text/model: is damaged"):
        Store.open(path).vocabulary.states["text"].blobs["model"]


def test_encoding_again_mends(path):
    store = Store.open(path)
    (file,) = (path / "segments" / store.episodes["episode-003"].segment).glob("tracks/text.caption/codes_00/c.0")
    file.write_bytes(file.read_bytes()[:-30])
    assert {p.episode for p in faults(path)} == {"episode-003"}
    store.write([a_stream(3, VOCABULARY)])
    assert list(verify_store(path)) == []
    assert_equal(Store.open(path).read("episode-003"), a_stream(3, VOCABULARY))


@pytest.mark.parametrize("call", ["os.fsync", "os.link", "os.rename", "os.mkdir"])
def test_a_disk_that_fills_at_any_moment(tmp_path, monkeypatch, call):
    """Every call that can meet a full disk meets one: one line, no stage left, what was there stays."""
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    store.write([a_stream(0, VOCABULARY)])
    real, count = {"os.fsync": os.fsync, "os.link": os.link, "os.rename": os.rename, "os.mkdir": os.mkdir}[call], 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(call, counted)
        store.write([a_stream(1, VOCABULARY)])
    store.remove(["episode-001"])
    store.sweep()
    calls = count
    assert calls >= 1
    failed: list[str] = []
    for at in range(1, calls + 1, 1 + calls // 25):
        count = 0

        def full(*args, at=at, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        fresh = Store.open(store.path)
        with monkeypatch.context() as patch:
            patch.setattr(call, full)
            try:
                fresh.write([a_stream(1, VOCABULARY)])
            except StoreError as error:
                failed.append(str(error))
        again = Store.open(store.path)
        assert list(verify_store(store.path)) == []
        assert_equal(again.read("episode-000"), a_stream(0, VOCABULARY))
        assert not [name for name in os.listdir(store.path / "segments") if name.startswith(".")]
        if "episode-001" in again:
            again.remove(["episode-001"])
            again.sweep()
    line = f"{store.path}: episode episode-001 cannot be written: no space left"
    assert len(failed) >= 1 and all(said.startswith(line) for said in failed)
    store = Store.open(store.path)
    store.write([a_stream(1, VOCABULARY)])
    assert_equal(store.read("episode-001"), a_stream(1, VOCABULARY))


def test_a_disk_that_is_really_full(tmp_path):
    """A file-size limit of the kernel stands for the disk: another process meets it in the middle of a level."""
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    store.write([a_stream(0, VOCABULARY)])
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[2]);"
        "from tests.store_streams import *;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000));"
        "Store.open(sys.argv[1]).write([a_long_stream()])"
    )
    done = subprocess.run([sys.executable, "-c", code, store.path, HERE], capture_output=True, text=True, check=False)
    assert f"pantok.errors.StoreError: {store.path}: episode long cannot be written: file too large" in done.stderr
    assert list(verify_store(store.path)) == []
    assert list(Store.open(store.path).episodes) == ["episode-000"]


def test_problems_print_as_one_line():
    from pantok.formats.store_verify import Problem

    problem = Problem(
        kind="damaged", path="a/c.0", what="is\ndamaged", episode="e", track="t", level=2, ticks=(3, 5), samples=(9, 15)
    )
    assert str(problem) == "a/c.0: is damaged (episode e, track t, level 2, ticks 3 to 4, samples 9 to 14)"
    assert problem.is_fault and json.dumps(problem.__dict__)
