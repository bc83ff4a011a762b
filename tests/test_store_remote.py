"""Stores in object storage, against a real S3 server that the test starts."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import soundfile

pytest.importorskip("obstore", reason="stores in object storage need obstore")
if find_spec("moto") is None or find_spec("flask_cors") is None:
    pytest.skip("the server of these tests is moto's", allow_module_level=True)

from pantok.errors import StoreError
from pantok.formats import store_disk
from pantok.formats.store import Store
from pantok.formats.store_merge import MergeConfig, compact
from pantok.formats.store_remote import Mirror
from pantok.formats.store_verify import verify_store
from pantok.loader import StreamDataset
from tests.store_streams import a_long_stream, a_stream, a_vocabulary, assert_equal
from tests.test_encode_grow import SAMPLES, SECOND, THIRD, grown, wide_stream

VOCABULARY = a_vocabulary()
SERVE = (
    "from moto.server import ThreadedMotoServer; import sys;"
    "s = ThreadedMotoServer(port=0, verbose=False); s.start(); print(s.get_host_and_port()[1], flush=True);"
    "sys.stdin.read(); s.stop()"
)


@pytest.fixture(scope="module")
def bucket():
    """The address of an empty bucket; the server is a process of its own."""
    import obstore
    from obstore.store import S3Store

    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stdin is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        import urllib.request

        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/rooms", method="PUT")).close()
        facts = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**facts, "AWS_REGION": "us-east-1"}.items():
                patch.setenv(name, value)
            client = S3Store(
                "rooms", endpoint=endpoint, client_options={"allow_http": True}, virtual_hosted_style_request=False
            )
            yield "s3://rooms", partial(obstore.delete, client), partial(obstore.put, client)
        server.stdin.close()


@pytest.fixture
def url(bucket, tmp_path, monkeypatch):
    """The address of a store with four episodes, as one who has never read it finds it."""
    monkeypatch.setenv("PANTOK_CACHE", str(tmp_path / "writer"))
    address = f"{bucket[0]}/{tmp_path.name}/home.zarr"
    store = Store.create_or_open(address, VOCABULARY)
    store.write([*(a_stream(n, VOCABULARY) for n in range(3)), a_long_stream()])
    other_machine(monkeypatch, tmp_path / "reader")
    return address


def other_machine(monkeypatch, cache) -> None:
    monkeypatch.setenv("PANTOK_CACHE", str(cache))
    store_disk.MIRRORS.clear()


def test_what_was_written_is_read_elsewhere(url, monkeypatch, tmp_path) -> None:
    store = Store.open(url)
    for n in range(3):
        assert_equal(store.read(f"episode-{n:03d}"), a_stream(n, VOCABULARY))
    mirror = store_disk.mirror_at(store.path)
    before = mirror.fetched_bytes
    assert_equal(store.read("episode-001"), a_stream(1, VOCABULARY))
    assert mirror.fetched_bytes == before, "what is here is not fetched again"
    store.read("long", levels=1)
    assert mirror.fetched_bytes - before < 200_000, "no byte of a level that is not read"
    writer = Store.open(url)
    writer.write([a_stream(7, VOCABULARY)])
    other_machine(monkeypatch, tmp_path / "third")
    assert list(Store.open(url).episodes) == [*(f"episode-{n:03d}" for n in (0, 1, 2, 7)), "long"]
    with pytest.raises(StoreError, match="there is no such store"):
        Store.open(url + "x")


def test_two_writers_race_for_each_number(url, monkeypatch, tmp_path) -> None:
    first = Store.open(url)
    other_machine(monkeypatch, tmp_path / "second")
    second = Store.open(url)
    mirrors = {str(first.path): "first", str(second.path): "second"}
    assert len(mirrors) == 2
    store_disk.MIRRORS[str(first.path)] = Mirror(url, first.path)
    for n in range(10, 14):
        (first if n % 2 else second).write([a_stream(n, VOCABULARY)])
    other_machine(monkeypatch, tmp_path / "third")
    assert len(Store.open(url)) == 8
    assert list(verify_store(url)) == []


def test_verify_reads_what_is_there_now(url, bucket) -> None:
    store = Store.open(url)
    segment = store.episodes["episode-002"].segment
    _, delete, put = bucket
    key = f"{url.removeprefix(bucket[0] + '/')}/segments/{segment}/tracks/text.caption/codes_00/c.0"
    put(key, b"nonsense")
    assert {p.episode for p in verify_store(url) if p.is_fault} == {"episode-002"}
    delete(key)
    (problem,) = [p for p in verify_store(url) if p.is_fault]
    assert (problem.kind, problem.episode, problem.level) == ("missing", "episode-002", 0)
    with pytest.raises(StoreError, match="is missing"):
        Store.open(url).read("episode-002")


def test_the_mirror_is_bounded(url, monkeypatch) -> None:
    monkeypatch.setenv("PANTOK_CACHE_BYTES", "300000")
    store = Store.open(url)
    for _ in range(2):
        for id in store.episodes:
            Store.open(url).read(id)
        held = sum(f.stat().st_size for f in store.path.glob("segments/**/c.*"))
        assert held < 300_000 + 3_000_000, "no more than the last file above the limit"
    assert_equal(store.read("long"), a_long_stream())


def test_training_and_the_command_line(url, tmp_path, pantok) -> None:
    local = Store.create(tmp_path / "local.zarr", VOCABULARY)
    local.write([*(a_stream(n, VOCABULARY) for n in range(3)), a_long_stream()])
    assert Store.open(url).digest() == local.digest()
    pairs = [StreamDataset(p, "coarse", length=512, epochs=1, batch_size=8) for p in (url, local.path)]
    for here, there in zip(*pairs, strict=True):
        assert (here["ids"] == there["ids"]).all()
    done = pantok("info", url, "--json")
    assert done.code == 0 and json.loads(done.out)["episode_count"] == 4, done.err
    done = pantok("verify", url)
    assert done.code == 0, done.out + done.err
    assert os.environ["PANTOK_CACHE"]


def test_what_was_finished_but_not_sent_is_sent_before_it_is_listed(url, monkeypatch, tmp_path) -> None:
    store = Store.open(url)
    with monkeypatch.context() as patch:  # as killed: nothing is sent, nothing is tidied up
        patch.setattr(Mirror, "put", lambda self, folder: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr("pantok.formats.store.shutil.rmtree", lambda *words, **more: None)
        with pytest.raises(KeyboardInterrupt):
            store.write([a_stream(20, VOCABULARY)])
    store_disk.MIRRORS.clear()
    Store.open(url).write([a_stream(21, VOCABULARY)])
    other_machine(monkeypatch, tmp_path / "third")
    elsewhere = Store.open(url)
    for n in (20, 21):
        assert_equal(elsewhere.read(f"episode-{n:03d}"), a_stream(n, VOCABULARY))
    assert list(verify_store(url)) == []


def test_what_killed_writers_left_is_named_and_removed_a_day_later(url, bucket, monkeypatch, tmp_path) -> None:
    _, _, put = bucket
    root = url.removeprefix(bucket[0] + "/")
    left = ["segments/dead-1/tracks/a/codes_00/c.0", "segments/dead-1/zarr.json", "vocabularies/.stage-dead/x.bin"]
    for key in left:
        put(f"{root}/{key}", b"half")
    store = Store.open(url)
    replaced = store.episodes["episode-001"].segment
    store.write([replace(a_stream(1, VOCABULARY), parameters={"again": 1})])
    assert store.extend(SECOND, [])
    mirror = store_disk.mirror_at(store.path)
    (aside,) = set(mirror.folders("vocabularies/")) - {"vocabularies/0001", "vocabularies/.stage-dead"}
    mirror.delete(["vocabularies/0001/lineage.jsonl"])  # its writer died before it was in its place
    named = [p for p in verify_store(url) if not p.is_fault]
    assert [p.path for p in named] == ["segments/dead-1", "vocabularies/.stage-dead"]
    assert store.sweep() == [], "a living writer may be at it"
    monkeypatch.setattr(store_disk, "STALE_S", -60)  # a day later
    done = compact(store, MergeConfig(bytes=1))
    assert (done.episodes, done.swept) == (0, 4)
    there = mirror.objects("")
    assert not [key for key in there if "dead" in key or aside in key or replaced in key]
    assert "vocabularies/0001/lineage.jsonl" in there
    other_machine(monkeypatch, tmp_path / "third")
    assert len(Store.open(url)) == 4 and Store.open(url).vocabulary_id == SECOND.id
    assert list(verify_store(url)) == []


def test_a_store_takes_in_later_vocabularies_whole_or_not_at_all(url, monkeypatch, tmp_path) -> None:
    first = Store.open(url)
    other_machine(monkeypatch, tmp_path / "second")
    second = Store.open(url)
    mirrors = [Mirror(url, store.path) for store in (first, second)]
    for store, mirror in zip((first, second), mirrors, strict=True):
        store_disk.MIRRORS[str(store.path)] = mirror
    put = mirrors[1]._api.put
    heads: list[str] = []

    def dying(at_head: bool):
        """A writer that dies before it puts the manifest of the vocabulary, or right after."""

        def put_or_die(to, key, *words, **more):
            if key.endswith("manifest.json"):
                heads.append(key)
                if at_head:
                    raise OSError("no more")
            elif heads and not at_head:
                raise OSError("no more")
            return put(to, key, *words, **more)

        return put_or_die

    with monkeypatch.context() as patch:
        patch.setattr(mirrors[1]._api, "put", dying(at_head=True))
        with pytest.raises(StoreError, match="cannot be written: no more"):
            second.extend(SECOND, [])
    assert heads == ["vocabularies/0001/manifest.json"]
    first.refresh()
    assert first.vocabulary_ids == (VOCABULARY.id,), "it has left nothing"
    heads.clear()
    with monkeypatch.context() as patch:
        patch.setattr(mirrors[1]._api, "put", dying(at_head=False))
        with pytest.raises(StoreError, match="cannot be written: no more"):
            second.extend(SECOND, [])
    assert not first.extend(grown(VOCABULARY, 1, 7), []), "it had won before it died"
    assert first.vocabulary_id == SECOND.id
    first.write([wide_stream(8, SECOND)])
    assert first.extend(THIRD, [])
    second.refresh()
    assert second.vocabulary_ids == (VOCABULARY.id, SECOND.id, THIRD.id)
    second.write([wide_stream(9, THIRD)])
    other_machine(monkeypatch, tmp_path / "third")
    store = Store.open(url)
    assert store.vocabulary.id == THIRD.id and len(store) == 6
    for number, written in ((8, SECOND), (9, THIRD)):
        assert_equal(store.read(f"episode-{number:03d}"), wide_stream(number, written))
    (left,) = verify_store(url)
    assert left.path.startswith("vocabularies/.stage-") and not left.is_fault, "what the first to die had put aside"


def test_a_vocabulary_grows_while_it_encodes_there(url, vocabulary, tmp_path, pantok, monkeypatch) -> None:
    new, fresh = tmp_path / "new", f"{url.removesuffix('home.zarr')}grown.zarr"
    new.mkdir()
    values, rate = soundfile.read(SAMPLES / "music" / "tabla.ogg", always_2d=True)
    soundfile.write(new / "tabla.wav", values[: 5 * rate], rate)
    done = pantok("encode", new, "--grow", "--max-new", 200, "--vocab", vocabulary, "-o", fresh, "--json")
    assert done.code == 0, done.err
    other_machine(monkeypatch, tmp_path / "third")
    store = Store.open(fresh)
    assert json.loads(done.out)["vocabularies"] == list(store.vocabulary_ids) and len(store.vocabulary_ids) == 2
    assert list(store.read("tabla").tracks) and list(verify_store(fresh)) == []


def test_messages_name_the_address_and_only_encode_writes_there(url, bucket, vocabulary, tmp_path, pantok) -> None:
    (tmp_path / "said.txt").write_text("words that were said, and some more of them")
    fresh = f"{url.removesuffix('home.zarr')}said.zarr"
    named = ("--vocab", str(vocabulary))
    for summary, words in (("1 episode", named), ("nothing to do", ())):  # then its own is known
        done = pantok("encode", str(tmp_path / "said.txt"), *words, "-o", fresh)
        assert done.code == 0 and summary in done.err and f"{fresh}: " in done.err and " 0 B" not in done.err, done.err
    done = pantok("info", fresh)
    assert done.code == 0 and f"{fresh}: 1 episode" in done.out + done.err, done.out + done.err
    done = pantok("store", "pack", fresh, "-o", str(tmp_path / "packed.zarr"))
    assert done.code == 0 and " of 0 B" not in done.err, done.err
    for words in (("store", "pack", fresh), ("export", fresh, "--to", "parquet"), ("decode", fresh)):
        done = pantok(*words, "-o", f"{bucket[0]}/out")
        assert done.code == 2 and f"{bucket[0]}/out: is in object storage" in done.err, done.err
    done = pantok("encode", str(tmp_path / "said.txt"), *named, "-o", "s3://nowhere/said.zarr")
    assert done.code == 1 and "s3://nowhere/said.zarr: cannot be written: there is no such bucket" in done.err, done.err
    assert not list(tmp_path.glob("s3:*")), "a folder of that name was made here"
