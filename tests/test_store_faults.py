"""Nothing that happens to a store goes unseen, and nothing that happens to its writer hurts it."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pantok.errors import StoreError, VocabularyError
from pantok.experience import Clock
from pantok.formats.store import Store
from pantok.formats.store_disk import seal, unseal
from pantok.formats.store_manifest import Manifest
from pantok.formats.store_root import read_root
from pantok.formats.store_segment import Segment
from pantok.formats.store_verify import verify_store
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from tests.store_streams import a_stream, a_vocabulary, assert_equal

VOCABULARY = a_vocabulary()
HERE = Path(__file__).parent.parent


def a_long_stream() -> TokenStream:
    """A level of three chunks, of which the ticks have no fixed number of codes."""
    rng = np.random.default_rng(9)
    counts = rng.integers(100, 300, 7000)
    fine = LevelCodes.of_counts(rng.integers(0, 1024, counts.sum()), counts)
    coarse = LevelCodes.of_counts(rng.integers(0, 256, 7000), np.ones(7000, int))
    track = TrackTokens("audio.mic", "audio", Clock.regular(48000, 7000 * 960 - 5), 960, (coarse, fine))
    return TokenStream("long", {"audio.mic": track}, VOCABULARY.id)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two episodes in a segment, one in another, and a long one."""
    store = Store.create(tmp_path_factory.mktemp("whole") / "home.zarr", VOCABULARY)
    with store.writer() as segment:
        segment.add(a_stream(0, VOCABULARY))
        segment.add(a_stream(1, VOCABULARY))
    store.write([a_stream(3, VOCABULARY), a_long_stream()])
    assert list(store.verify()) == []
    return store.path


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
        "from tests.test_store_faults import *;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000));"
        "Store.open(sys.argv[1]).write([a_long_stream()])"
    )
    done = subprocess.run([sys.executable, "-c", code, store.path, HERE], capture_output=True, text=True, check=False)
    assert f"pantok.errors.StoreError: {store.path}: episode long cannot be written: file too large" in done.stderr
    assert list(verify_store(store.path)) == []
    assert list(Store.open(store.path).episodes) == ["episode-000"]


WRITE_ALL = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.store_streams import a_stream, a_vocabulary
from pantok.formats.store import Store
vocabulary = a_vocabulary()
store = Store.create_or_open(sys.argv[1], vocabulary)
print("ready", flush=True)
for number in map(int, sys.argv[3:]):
    stream = a_stream(number, vocabulary)
    if not store.has(stream.id, stream.sources, stream.parameters):
        store.write([stream])
        print(stream.id, flush=True)
"""


def writer_process(path: Path, numbers) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WRITE_ALL, str(path), str(HERE), *map(str, numbers)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_kill_9_at_random_moments(tmp_path):
    draw = random.Random(3)
    path, kills, said, left = tmp_path / "home.zarr", 0, [], 0
    numbers = range(60)
    while kills < 12:
        process = writer_process(path, numbers)
        assert process.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        output = process.communicate()[0]
        kills += process.returncode == -signal.SIGKILL
        said += output.split()
        problems = list(verify_store(path))
        assert not [p for p in problems if p.is_fault], problems
        left += len(problems)
        store = Store.open(path)
        assert set(said) <= set(store.episodes), "an episode was said to be committed and is not"
        for id in list(store.episodes)[:: max(1, len(store) // 3)]:
            assert_equal(store.read(id), a_stream(int(id[-3:]), VOCABULARY))
        if len(store) == 60:
            break
    assert kills >= 5
    assert left >= 1, "no kill fell into the middle of a write"
    finish = writer_process(path, numbers)
    assert finish.communicate()[0] and finish.returncode == 0
    store = Store.open(path)
    assert list(store.verify()) == [] and len(store) == 60
    assert len(said) == len(set(said)), "an episode was encoded twice"
    other = Store.create(tmp_path / "unbroken.zarr", VOCABULARY)
    other.write(a_stream(i, VOCABULARY) for i in numbers)
    assert other.digest() == store.digest()


def test_killed_at_each_step(tmp_path):
    """A forked writer dies before its n-th call to the kernel that makes anything durable, for every n."""
    path = tmp_path / "home.zarr"
    store = Store.create(path, VOCABULARY)
    store.write([a_stream(0, VOCABULARY)])
    count, seen = 0, set()
    for step in range(1, 400, 4):
        child = os.fork()
        if child == 0:
            try:
                for name in ("fsync", "link", "rename"):
                    real = getattr(os, name)

                    def dying(*args, real=real, step=step, **kwargs):
                        nonlocal count
                        count += 1
                        if count == step:
                            os.kill(os.getpid(), signal.SIGKILL)
                        return real(*args, **kwargs)

                    setattr(os, name, dying)
                Store.open(path).write([a_stream(1, VOCABULARY)])
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        problems = list(verify_store(path))
        assert not [p for p in problems if p.is_fault], (step, problems)
        seen |= {p.what for p in problems}
        store = Store.open(path)
        assert_equal(store.read("episode-000"), a_stream(0, VOCABULARY))
        if not os.WIFSIGNALED(status):
            break
        if "episode-001" in store:
            store.remove(["episode-001"])
        store.sweep()
        if "episode-001" in store:  # what it had finished was taken up
            store.remove(["episode-001"])
            store.sweep()
        assert list(verify_store(path)) == [] and list(Store.open(path).episodes) == ["episode-000"]
    assert os.WIFEXITED(status) and "episode-001" in store
    assert seen >= {"was being written by a process that was killed"}


def test_what_a_killed_writer_had_finished_is_listed_by_the_next(path):
    store = Store.open(path)
    before = store.digest()
    (path / "manifest" / max(os.listdir(path / "manifest"))).unlink()
    assert "long" not in Store.open(path)
    Store.open(path).write([])
    reader = Store.open(path)
    assert "long" not in reader, "a reader, or a writer that writes nothing, changes nothing"
    reader.write([a_stream(0, VOCABULARY)])
    assert Store.open(path).digest() == before and list(verify_store(path)) == []


def test_four_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "home.zarr"
    shares = [range(14), range(10, 24), range(20, 34), [*range(30, 40), *range(4)]]
    processes = [writer_process(path, share) for share in shares]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    store = Store.open(path)
    assert list(store.verify()) == []
    assert list(store.episodes) == [f"episode-{i:03d}" for i in range(40)]
    other = Store.create(tmp_path / "alone.zarr", VOCABULARY)
    other.write(a_stream(i, VOCABULARY) for i in range(40))
    assert other.digest() == store.digest()


def test_commits_race_and_none_is_lost(tmp_path):
    """Four processes, 70 commits each: numbered without a gap, rolled up, read back in one order by all."""
    path = Store.create(tmp_path / "home.zarr", VOCABULARY).path
    children = []
    for writer in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                manifest = Manifest.load(path)
                for k in range(70):
                    manifest.commit(remove=[f"{writer}-{k}"])
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    commits = list(Manifest(path).commits())
    assert [c["number"] for c in commits] == list(range(1, 281))
    assert sorted(c["remove"][0] for c in commits) == sorted(f"{w}-{k}" for w in range(4) for k in range(70))
    for writer in range(4):
        mine = [c["remove"][0] for c in commits if c["remove"][0][0] == str(writer)]
        assert mine == [f"{writer}-{k}" for k in range(70)]
    rolls = sorted(n for n in os.listdir(path / "manifest") if n.count(".") == 2)
    assert rolls == [f"{n:010d}.64.json" for n in (64, 128, 192, 256)]
    for name in os.listdir(path / "manifest"):
        if int(name[:10]) in range(1, 128) and name.count(".") == 1:
            (path / "manifest" / name).unlink()
    assert list(Manifest(path).commits()) == commits, "rolls stand for the commits that they repeat"
    (path / "manifest" / rolls[2]).write_text("torn")
    (path / "manifest" / rolls[3]).unlink()
    assert list(Manifest(path).commits()) == commits, "and commits for rolls that are damaged or missing"
    kinds = {(p.kind, p.path) for p in verify_store(path)}
    assert ("damaged", f"manifest/{rolls[2]}") in kinds and ("leftover", f"manifest/{rolls[3]}") in kinds
    assert ("missing", "manifest/0000000005.json") in kinds


@pytest.mark.parametrize("has_rename", [True, False])
def test_a_file_system_without_hard_links(tmp_path, monkeypatch, has_rename):
    """Commits are put by a rename that replaces nothing, or else by an exclusive create; never twice."""
    import pantok.formats.store_disk as disk

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if not has_rename:
        monkeypatch.setattr(disk, "_renameat2", lambda *_: errno.ENOSYS)
    store, other = Store.create(tmp_path / "home.zarr", VOCABULARY), Store.open(tmp_path / "home.zarr")
    store.write([a_stream(0, VOCABULARY)])
    other.write([a_stream(1, VOCABULARY)])  # does not know of the first commit yet
    assert not disk.put_if_absent(store.path / "manifest/0000000001.json", b"mine")
    assert list(Store.open(store.path).episodes) == ["episode-000", "episode-001"]
    assert list(verify_store(store.path)) == []
    Store.create(store.path, VOCABULARY, force=True)
    assert len(Store.open(store.path)) == 0 and os.listdir(tmp_path) == ["home.zarr"]


def test_a_put_that_is_swept_is_put_again(path, monkeypatch):
    """A sweep may come between the making of a temporary file and its lock."""
    real, swept = os.link, []

    def sweeping(source, target):
        if not swept:
            swept.append(source)
            os.unlink(source)
        return real(source, target)

    monkeypatch.setattr(os, "link", sweeping)
    Store.open(path).write([a_stream(5, VOCABULARY)])
    assert swept and "episode-005" in Store.open(path) and list(verify_store(path)) == []


def test_a_sweep_leaves_living_writers_alone(path):
    """Another process's stage, and a segment that it is about to list, are held by locks."""
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[2]);"
        "from tests.test_store_faults import *;"
        "import pantok.formats.store_manifest as m;"
        "real = m.Manifest.commit;\n"
        "def slow(self, **what):\n"
        "    print('placed', flush=True); sys.stdin.readline(); return real(self, **what)\n"
        "m.Manifest.commit = slow\n"
        "Store.open(sys.argv[1]).write([a_stream(8, VOCABULARY)])"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(path), str(HERE)], **pipes)
    assert process.stdout.readline() == "placed\n"
    before = len(os.listdir(path / "segments"))
    assert list(verify_store(path)) == [], "what a living writer holds is nobody's problem"
    other = Store.open(path)
    other.sweep()
    other.write([a_stream(9, VOCABULARY)])
    assert len(os.listdir(path / "segments")) == before + 1 and "episode-008" not in other
    process.communicate("go on\n")
    assert process.returncode == 0
    assert {"episode-008", "episode-009"} <= set(Store.open(path).episodes)
    assert list(verify_store(path)) == []


def test_problems_print_as_one_line():
    from pantok.formats.store_verify import Problem

    problem = Problem(
        kind="damaged", path="a/c.0", what="is\ndamaged", episode="e", track="t", level=2, ticks=(3, 5), samples=(9, 15)
    )
    assert str(problem) == "a/c.0: is damaged (episode e, track t, level 2, ticks 3 to 4, samples 9 to 14)"
    assert problem.is_fault and json.dumps(problem.__dict__)
