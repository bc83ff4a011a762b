"""Writers that are killed, race each other or are swept away: every committed episode is there and whole."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pantok.formats.store import Store
from pantok.formats.store_manifest import Manifest
from pantok.formats.store_verify import verify_store
from tests.store_streams import a_stream, a_vocabulary, a_whole_store, assert_equal, kill_before

VOCABULARY = a_vocabulary()
HERE = Path(__file__).parent.parent


@pytest.fixture
def path(tmp_path):
    return a_whole_store(tmp_path / "home.zarr")


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
    seen = set()
    for step in range(1, 400, 4):
        child = os.fork()
        if child == 0:
            try:
                kill_before(step)
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
        "from tests.store_streams import *;"
        "import pantok.formats.store_manifest as m;"
        "real = m.Manifest.commit;\n"
        "def slow(self, **what):\n"
        "    print('placed', flush=True); sys.stdin.readline(); return real(self, **what)\n"
        "m.Manifest.commit = slow\n"
        "Store.open(sys.argv[1]).write([a_stream(8, a_vocabulary())])"
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
