"""Packing and compacting: the same content, whoever reads or writes meanwhile, and whoever is killed."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import zarr

from pantok.errors import OptionError, StoreError
from pantok.formats.store import Store
from pantok.formats.store_merge import MergeConfig, compact, pack
from tests.store_streams import a_long_stream, a_stream, a_vocabulary, assert_equal

VOCABULARY = a_vocabulary()
COUNT = 9


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Nine segments of an episode, a long one, one replaced and one removed."""
    store = Store.create(tmp_path_factory.mktemp("merge") / "home.zarr", VOCABULARY)
    store.write(a_stream(n, VOCABULARY) for n in range(COUNT))
    store.write([a_long_stream(), a_stream(20, VOCABULARY), a_stream(2, VOCABULARY, parameters={"again": 1})])
    store.remove(["episode-020"])
    return store.path


@pytest.fixture
def store(whole, tmp_path):
    return Store.open(shutil.copytree(whole, tmp_path / "home.zarr"))


def contents(store):
    return {id: store.read(id) for id in store.episodes}


def assert_same(store, expected):
    assert list(store.episodes) == list(expected)
    for id, stream in expected.items():
        assert_equal(store.read(id), stream)


def test_compact_keeps_all_and_frees_the_rest(store):
    before, digest, size = contents(store), store.digest(), len(store.segments)
    reader = Store.open(store.path)
    streams = {id: reader.read(id) for id in list(reader.episodes)[:2]}
    done = compact(store, MergeConfig())
    assert (done.episodes, done.segments_before, done.segments_after) == (COUNT + 1, size, 1)
    assert len(os.listdir(store.path / "segments")) == 2, "one segment and zarr.json"
    for opened in (store, Store.open(store.path)):
        assert opened.digest() == digest and len(opened.segments) == 1
        assert_same(opened, before)
    assert list(store.verify()) == []
    assert_same(reader, before)  # opened before, and some of its maps too
    for id, stream in streams.items():
        assert_equal(stream, before[id])
    assert compact(store, MergeConfig()).episodes == 0, "nothing is left to do"


def test_compact_stays_within_its_limits(store):
    digest = store.digest()
    done = compact(store, MergeConfig(episodes=4))
    assert done.segments_after == 3 and Store.open(store.path).digest() == digest
    with pytest.raises(OptionError, match="segment-bytes"):
        MergeConfig(bytes=0)


@pytest.mark.parametrize("change", ["replace", "remove"])
def test_what_changes_meanwhile_does_not_come_back(store, monkeypatch, change):
    other = Store.open(store.path)
    real = Store.put
    calls = []

    def put(self, *args, **kwargs):
        if not calls and self is store:
            calls.append(1)
            if change == "replace":
                other.write([a_stream(3, VOCABULARY, parameters={"newer": 1})])
            else:
                other.remove(["episode-003"])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Store, "put", put)
    done = compact(store, MergeConfig())
    assert done.kept == 1
    found = Store.open(store.path)
    assert list(found.verify()) == []
    if change == "replace":
        assert found.read("episode-003").parameters == {"newer": 1}
    else:
        assert "episode-003" not in found
    assert len(found) == COUNT + (change == "replace")


def test_killed_at_each_step(store):
    """A forked compaction dies before its n-th durable call, for every n: the content never changes."""
    digest = store.digest()
    finished = False
    for step in range(1, 400, 9):
        child = os.fork()
        if child == 0:
            count = 0
            try:
                for name in ("fsync", "link", "rename", "rmdir"):
                    real = getattr(os, name)

                    def dying(*args, real=real, **kwargs):
                        nonlocal count
                        count += 1
                        if count == step:  # noqa: B023
                            os.kill(os.getpid(), signal.SIGKILL)
                        return real(*args, **kwargs)

                    setattr(os, name, dying)
                compact(Store.open(store.path), MergeConfig(episodes=6))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        again = Store.open(store.path)
        assert again.digest() == digest
        assert not [p for p in again.verify() if p.is_fault], step
        if not os.WIFSIGNALED(status):
            finished = True
            break
    assert finished
    compact(Store.open(store.path), MergeConfig(episodes=6))
    assert list(store.verify()) == [] and Store.open(store.path).digest() == digest


def test_a_merged_segment_that_was_never_listed_does_not_bring_back_the_removed(store, monkeypatch):
    from pantok.formats.store_manifest import Manifest

    names = list(store.episodes)
    with monkeypatch.context() as patch:

        def refuse(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(Manifest, "commit", refuse)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            compact(store, MergeConfig())
    for name in os.listdir(store.path / "segments"):
        if name.startswith("."):
            shutil.rmtree(store.path / "segments" / name)
    Store.open(store.path).remove(names)
    again = Store.open(store.path)
    again.write([a_stream(30, VOCABULARY)])
    assert list(Store.open(store.path).episodes) == ["episode-030"]


def test_pack_reads_like_any_store(store, tmp_path, pantok):
    before, digest = contents(store), store.digest()
    done = pantok("store", "pack", store.path, "-o", tmp_path / "packed.zarr", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["digest"] == digest and document["segments_after"] == 1
    packed = Store.open(tmp_path / "packed.zarr")
    assert packed.digest() == digest and list(packed.verify()) == []
    assert_same(packed, before)
    level = packed.segment(packed.segments[0]).codes("audio.mic", 1)
    plain = np.concatenate([s.tracks["audio.mic"].levels[1].codes for s in before.values() if "audio.mic" in s.tracks])
    assert level.is_packed and not level.is_hot
    np.testing.assert_array_equal(level.read(), plain)
    np.testing.assert_array_equal(zarr.open_array(level.path, mode="r")[:], plain)
    rng = np.random.default_rng(0)
    for first, last in np.sort(rng.integers(0, len(plain), (40, 2)), axis=1).tolist():
        np.testing.assert_array_equal(level.read(first, last, check=bool(first % 2)), plain[first:last])
    file = level.path / "c.0"
    assert file.stat().st_size < 0.75 * plain.nbytes, "ten of sixteen bits are in use"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)
    with pytest.raises(StoreError, match="checksum of its chunk"):
        Store.open(packed.path).read("long")
    assert {(p.episode, p.track, p.level) for p in packed.verify()} == {("long", "audio.mic", 1)}
    pack(store, tmp_path / "packed.zarr", MergeConfig(), force=True)
    back = pack(Store.open(tmp_path / "packed.zarr"), tmp_path / "plain.zarr", MergeConfig(), packed=False)
    assert back.episodes == len(before)
    plain_store = Store.open(tmp_path / "plain.zarr")
    assert plain_store.segment(plain_store.segments[0]).codes("audio.mic", 1).is_hot
    assert_same(plain_store, before)
    with pytest.raises(StoreError, match="is there already"):
        pack(store, tmp_path / "plain.zarr", MergeConfig())


def test_the_command_says_what_it_would_do(store, pantok):
    before = sorted(os.listdir(store.path / "segments"))
    done = pantok("store", "compact", store.path, "--dry-run", "--json")
    said = json.loads(done.out)
    assert done.code == 0 and said["segments_after"] == 1 and sorted(os.listdir(store.path / "segments")) == before
    done = pantok("store", "compact", store.path)
    assert done.code == 0 and "11 segments before, 1 after" not in done.out and "1 after" in done.err
    assert pantok("store", "compact", store.path, "--segment-bytes", "x").code == 2
