"""The index of a large store says exactly what the commits say, and is only a short cut."""

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pantok.formats.store_manifest as store_manifest
from pantok.errors import StoreError
from pantok.formats.store import Store
from pantok.formats.store_index import Index, names_in
from pantok.formats.store_manifest import Manifest
from pantok.formats.store_merge import MergeConfig, compact
from pantok.formats.store_verify import verify_store
from tests.store_streams import a_stream, a_vocabulary, assert_equal

VOCABULARY = a_vocabulary()


def an_entry(name: str, ids, number: int) -> dict:
    tracks = {"audio.mic": ["audio", 5 + number, 2, 10**9, [3, number], [2, 4] if number % 2 else None]}
    rows = [
        [id, f"{k:032x}", f"{number:064x}", -k, 7 * number, [["/tape", k, "0" * 64]], tracks]
        for k, id in enumerate(ids)
    ]
    return {"segment": name, "bytes": 100 + number, "commit_sha256": f"{number:064x}", "episodes": rows}


def state(manifest: Manifest):
    totals = manifest.totals
    tracks = {name: t for name, t in totals.tracks.items() if t[1]}
    return (
        [manifest.episodes[id].line for id in sorted(manifest.episodes)],
        sorted(manifest.episodes),
        len(manifest.episodes),
        manifest.segments,
        {name: manifest.known[name] for name in manifest.known},
        (totals.duration_ns, tracks),
        manifest.live_bytes,
    )


IDS = st.sampled_from(["a", "ä/b", "z", "b" * 300, "nul\0", "nul", "\ud800", "kitchen-03", "kitchen-030"])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("aaarii"), st.lists(IDS, max_size=4, unique=True)), min_size=1, max_size=14),
    st.booleans(),
)
def test_any_history(tmp_path_factory, history, whole):
    """Adds, removals and indexes in any order: with indexes the state is what it is without."""
    folder = tmp_path_factory.mktemp("history")
    (folder / "manifest").mkdir()
    for number, (what, ids) in enumerate(history):
        manifest = Manifest.load(folder)
        if what == "a":
            manifest.commit(add=[an_entry(f"s{number % 5}", ids, number)])
        elif what == "r":
            manifest.commit(remove=ids)
        elif manifest.number:
            manifest.put_index(whole)
    plain = Manifest(folder)
    for commit in plain.commits():
        plain.apply(commit)
    mapped = Manifest.load(folder)
    assert state(mapped) == state(plain)
    assert list(mapped.episodes.sorted()) == sorted(plain.episodes)
    for name in names_in(folder / "manifest"):
        assert Index(folder / "manifest" / "index" / name).fault() == ""
    assert "no" not in mapped.episodes and "no" not in mapped.known
    with pytest.raises(KeyError):
        mapped.episodes["no"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(store_manifest, "INDEX_FROM", 4)
    monkeypatch.setattr("pantok.formats.store_merge.INDEX_FROM", 4)
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    with store.writer() as segment:
        for n in range(6):
            segment.add(a_stream(n, VOCABULARY))
    store.write([a_stream(6, VOCABULARY)])
    compact(store, MergeConfig())
    store.write([a_stream(7, VOCABULARY), a_stream(2, VOCABULARY, parameters={"again": 1})])
    store.remove(["episode-004"])
    return Store.open(store.path)


def test_a_store_over_an_index_reads_and_verifies(store):
    assert store._manifest.episodes.base is not None and len(store) == 7
    assert list(store.episodes) == sorted(f"episode-{n:03d}" for n in (0, 1, 2, 3, 5, 6, 7))
    assert_equal(store.read("episode-003"), a_stream(3, VOCABULARY))
    assert store.read("episode-002").parameters == {"again": 1}
    with pytest.raises(StoreError, match="did you mean episode-00"):
        store.read("episode-004")
    assert list(store.verify()) == []
    (name,) = names_in(store.path / "manifest")
    sizes, digest = store.sizes(), store.digest()
    (store.path / "manifest" / "index" / name).unlink()
    assert (Store.open(store.path).sizes(), Store.open(store.path).digest()) == (sizes, digest)


def test_every_flipped_bit_of_an_index_is_found(store):
    (name,) = names_in(store.path / "manifest")
    file = store.path / "manifest" / "index" / name
    data, draw, digest = file.read_bytes(), random.Random(5), store.digest()
    length = int.from_bytes(data[-8:], "little")
    footer = json.loads(data[-8 - length : -8])
    gaps = sorted((at, at + n) for at, n, _ in footer["sections"].values())
    for _ in range(60):
        at = draw.randrange(len(data))
        if at < len(data) - 8 - length and not any(lo <= at < hi for lo, hi in gaps):
            continue  # between sections nothing is read
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        found = [p for p in verify_store(store.path) if p.is_fault]
        assert [p.path for p in found] == [f"manifest/index/{name}"], at
        if at >= len(data) - 8 - length:
            assert Store.open(store.path).digest() == digest, "its end tells, and it is read past"
    file.write_bytes(data[: len(data) // 2])
    assert Store.open(store.path).digest() == digest, "one that is damaged is read past"
    file.write_bytes(data)
    assert list(verify_store(store.path)) == []


def test_a_missing_commit_after_the_index_is_seen(store):
    numbers = sorted(n for n in (store.path / "manifest").iterdir() if n.suffix == ".json")
    numbers[-2].unlink()
    with pytest.raises(StoreError, match="is missing"):
        Store.open(store.path)


def test_many_commits_put_an_index_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(store_manifest, "INDEX_FROM", 50)
    (tmp_path / "manifest").mkdir()
    manifest = Manifest(tmp_path)
    for n in range(140):
        manifest.commit(add=[an_entry(f"s{n}", [f"e{n}"], n)])
    assert names_in(tmp_path / "manifest") == ["0000000128.idx"] or names_in(tmp_path / "manifest") == [
        "0000000064.idx"
    ]
    again = Manifest.load(tmp_path)
    assert again.number == 140 and len(again.episodes) == 140 and state(again) == state(manifest)


def test_opening_takes_no_memory_for_what_is_there(tmp_path):
    """30,000 episodes: opening and one look-up cost the process what an empty store costs, within a few megabytes."""
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    store.write([a_stream(0, VOCABULARY)])
    code = (
        "import sys; from pantok.formats.store import Store;"
        "s = Store.open(sys.argv[1]); s.sizes(); n = len(s); 'no' in s; s.read('episode-000');"
        "print(n, [x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')][0])"
    )

    def measure():
        done = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True, check=True)
        return [int(x) for x in done.stdout.split()]

    (_, empty) = measure()
    manifest = Manifest.load(store.path)
    for k in range(3):
        ids = [f"living-room/{k}/{n:06d}" for n in range(10_000)]
        entry = an_entry(f"s{k}", ids, k + 1)
        manifest.commit(add=[entry])
    manifest.put_index()
    count, full = measure()
    assert count == 30_001
    assert full - empty < 6_000, (empty, full)
