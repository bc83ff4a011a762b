"""What is written to a store is what is read from it, by us and by any program that reads Zarr."""

import hashlib
import json
import pickle
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import StoreError, TokenError, VocabularyError
from pantok.experience import Clock, Source
from pantok.formats.store import Store
from pantok.formats.store_facts import folder_name, from_json, to_json
from pantok.formats.store_manifest import Manifest
from pantok.stream import LevelCodes, TokenStream, TrackTokens, smallest_dtype
from tests.store_streams import a_stream, a_vocabulary, assert_equal

VOCABULARY = a_vocabulary()


@pytest.fixture
def store(tmp_path):
    """Three episodes in segments of their own, three in one."""
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    assert store.write(a_stream(i, VOCABULARY) for i in range(3)) == 3
    with store.writer() as segment:
        for i in range(3, 6):
            segment.add(a_stream(i, VOCABULARY))
    return store


def test_comes_back_whole(store):
    for reader in (store, Store.open(store.path), pickle.loads(pickle.dumps(store))):
        assert list(reader.episodes) == [f"episode-{i:03d}" for i in range(6)]
        assert len(reader.segments) == 4
        for i in range(6):
            assert_equal(reader.read(f"episode-{i:03d}"), a_stream(i, VOCABULARY))
    assert store.vocabulary.id == VOCABULARY.id and store.vocabulary.reads(VOCABULARY)
    assert list(store.verify()) == []


@st.composite
def streams(draw) -> TokenStream:
    """Any stream: no tracks, no ticks, ticks of one sample, levels empty or constant, any names and facts."""
    names = draw(st.lists(st.text(min_size=1, max_size=12), max_size=3, unique=True))
    facts = st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.fractions(), st.binary()
        ),
        max_size=3,
    )
    tracks = {}
    for name in names:
        modality = sorted(VOCABULARY.states)[len(name) % 4]  # a name has one modality in a segment
        count, tick = draw(st.integers(0, 40)), draw(st.integers(1, 9))
        if draw(st.booleans()):
            rate = draw(st.fractions(Fraction(1, 1000), 10**6, max_denominator=10**6))
            clock = Clock.regular(rate, count, draw(st.integers(-(2**60), 2**60)))
        else:
            instants = draw(st.lists(st.integers(-(2**61), 2**61), min_size=count, max_size=count))
            clock = Clock.irregular(np.array(instants, np.int64))
        ticks = -(-count // tick)
        levels = []
        for level in VOCABULARY.levels(modality):
            counts = np.array(draw(st.lists(st.integers(0, 3), min_size=ticks, max_size=ticks)), np.int64)
            codes = np.random.default_rng(draw(st.integers(0, 99))).integers(0, level.cardinality, counts.sum())
            levels.append(LevelCodes.of_counts(codes, counts))
        tracks[name] = TrackTokens(name, modality, clock, tick, tuple(levels), draw(facts), draw(facts))
    sources = tuple(Source(p, len(p)) for p in draw(st.lists(st.text(max_size=9), max_size=2)))
    return TokenStream(draw(st.text()), tracks, VOCABULARY.id, sources, draw(facts))


@given(st.lists(streams(), min_size=1, max_size=3, unique_by=lambda s: s.id))
@settings(max_examples=40, deadline=None)
def test_any_stream_comes_back_whole(some):
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "s.zarr", VOCABULARY)
        store.write_segment(some)
        store = Store.open(store.path)
        for stream in some:
            assert_equal(store.read(stream.id), stream)
            assert store.has(stream.id, stream.sources, stream.parameters)
        assert list(store.verify()) == []


def test_any_program_reads_it(store):
    """STORE.md followed to the letter with zarr, json and numpy, nothing of ours; the digest too."""
    root = zarr.open_group(store.path, mode="r")
    assert root.attrs["pantok"]["format"] == 1
    assert root.attrs["pantok"]["vocabulary_id"] == VOCABULARY.id
    live = {}
    for file in sorted((store.path / "manifest").glob("??????????.json"))[1:]:
        commit = json.loads(file.read_bytes())
        for episode in commit["remove"]:
            live.pop(episode, None)
        for segment in commit["add"]:
            for row, episode in enumerate(segment["episodes"]):
                live[episode[0]] = segment["segment"], row, episode[2]
    assert len(live) == 6
    for id, (name, row, digest) in live.items():
        expected = a_stream(int(id[-3:]), VOCABULARY)
        segment = root[f"segments/{name}"]
        line = json.loads(bytes(segment["episodes"][:]).split(b"\n")[row])
        sha = hashlib.sha256()

        def hash_json(value, sha=sha):
            sha.update(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())

        sources = [[size, sha256] for _, size, sha256 in line["sources"]]
        hash_json([line["id"], VOCABULARY.id, sources, line["parameters"]])
        for facts in sorted(line["tracks"], key=lambda f: f["track"]):
            group = segment[f"tracks/{facts['folder']}"]
            about, track = group.attrs["pantok"], expected.tracks[facts["track"]]
            first, ticks = facts["ticks"]

            def counts(spread, group=group, first=first, ticks=ticks):
                if "column" in spread:
                    return group["counts"][first : first + ticks, spread["column"]].astype("<u4")
                return np.full(ticks, spread["count"], "<u4")

            width = about["latents"]["width"] if facts["latents"] else None
            what = [facts["track"], about["modality"], facts["clock"], facts["tick"], len(about["levels"]), width]
            hash_json([*what, facts["header"], facts["info"], facts["channels"], facts["units"]])
            if facts["times"]:
                times = group["times_ns"][facts["times"][0] : sum(facts["times"])]
                np.testing.assert_array_equal(times, track.clock.times_ns)
                sha.update(times.astype("<i8").tobytes())
            else:
                assert Fraction(*facts["clock"]["rate"]) == track.clock.rate
            for k, spread in enumerate(about["levels"]):
                codes = group[f"codes_{k:02d}"][facts["codes"][k][0] : sum(facts["codes"][k])]
                assert codes.dtype == smallest_dtype(spread["cardinality"])
                assert group[f"codes_{k:02d}"].fill_value == np.iinfo(codes.dtype).max >= spread["cardinality"]
                np.testing.assert_array_equal(codes, track.levels[k].codes)
                np.testing.assert_array_equal(counts(spread), np.diff(track.levels[k].splits))
                sha.update(codes.tobytes() + counts(spread).tobytes())
            if facts["latents"]:
                latents = group["latents"][facts["latents"][0] : sum(facts["latents"])]
                np.testing.assert_array_equal(latents, track.latents.values)
                sha.update(latents.astype("<f2").tobytes() + counts(about["latents"]).tobytes())
        assert sha.hexdigest() == digest == store.episodes[id].digest


def test_large_levels_are_views_of_the_file(tmp_path):
    store = Store.create(tmp_path / "s.zarr", VOCABULARY)
    codes = np.random.default_rng(0).integers(0, 1024, 900_000).astype(np.uint16)
    ticks = 9000
    levels = tuple(LevelCodes.of_counts(c, np.full(ticks, len(c) // ticks)) for c in (codes[:ticks] % 256, codes))
    track = TrackTokens("audio", "audio", Clock.regular(16000, 320 * ticks), 320, levels)
    store.write([TokenStream("long", {"audio": track}, VOCABULARY.id)])
    level = store.segment(store.segments[0]).codes("audio", 1)
    part = level.read(10, 400_000)
    assert part.base is not None and not part.flags.owndata and not part.flags.writeable
    np.testing.assert_array_equal(part, codes[10:400_000])
    np.testing.assert_array_equal(store.read("long").tracks["audio"].levels[1].codes, codes)
    assert store.segment(store.segments[0]).row("long", "audio")["codes"] == [[0, 9000], [0, 900_000]]
    # one code a tick, 100 codes a tick: no counts are stored at all
    assert not (tmp_path / "s.zarr/segments" / store.segments[0] / "tracks/audio/counts").exists()


def test_tracks_and_levels_can_be_chosen(store):
    whole = store.read("episode-004")
    some = store.read("episode-004", tracks=["video.front"], levels=1)
    assert list(some.tracks) == ["video.front"]
    np.testing.assert_array_equal(
        some.tracks["video.front"].levels[0].codes, whole.tracks["video.front"].levels[0].codes
    )
    assert [len(level.codes) for level in some.tracks["video.front"].levels[1:]] == [0, 0]
    some.tracks["video.front"].check(tuple(level.cardinality for level in VOCABULARY.levels("video")))
    with pytest.raises(StoreError, match=r"episode-04.*did you mean episode-004\?"):
        store.read("episode-04")
    with pytest.raises(StoreError, match=r"has no track video\.back \(it has video\.front, audio\.mic"):
        store.read("episode-004", tracks=["video.back"])


def test_content_does_not_depend_on_order_or_grouping(store, tmp_path):
    other = Store.create(tmp_path / "other.zarr", VOCABULARY)
    other.write(a_stream(i, VOCABULARY) for i in (5, 4, 3, 0, 2, 1))
    assert other.digest() == store.digest()
    assert len(other.segments) == 6
    other.write([a_stream(1, VOCABULARY, ticks=11)])
    assert other.digest() != store.digest()


def test_what_is_there_is_known(store):
    stream = a_stream(1, VOCABULARY)
    assert store.has(stream.id, stream.sources, stream.parameters)
    assert not store.has("episode-999", stream.sources, stream.parameters)
    assert not store.has(stream.id, stream.sources, {**stream.parameters, "max_error": 0.01})
    assert not store.has(stream.id, (replace(stream.sources[0], sha256="0" * 64),), stream.parameters)
    moved = (replace(stream.sources[0], path="/elsewhere/1.mp4"),)
    assert store.has(stream.id, moved, stream.parameters), "a source is its content"
    unhashed = (replace(stream.sources[0], sha256=""),)
    assert not store.has(stream.id, unhashed, stream.parameters)


def test_writing_again_changes_nothing_and_replacing_replaces(store):
    reader = Store.open(store.path)
    before = store.digest(), store.segments, Manifest.load(store.path).number
    store.write([a_stream(0, VOCABULARY)])
    assert (store.digest(), store.segments, Manifest.load(store.path).number) == before
    finer = a_stream(0, VOCABULARY, ticks=20, parameters={"bits_per_second": 16000})
    store.write([finer])
    assert len(store) == 6 and len(store.segments) == 4 and not set(before[1]) <= set(store.segments)
    assert_equal(store.read("episode-000"), finer)
    assert_equal(reader.read("episode-000"), a_stream(0, VOCABULARY))  # a reader keeps what it opened
    reader.refresh()
    assert_equal(reader.read("episode-000"), finer)
    # one of three in a segment: the other two live on
    store.write([a_stream(4, VOCABULARY, ticks=3)])
    assert_equal(store.read("episode-004"), a_stream(4, VOCABULARY, ticks=3))
    assert_equal(store.read("episode-005"), a_stream(5, VOCABULARY))
    assert list(store.verify()) == []
    assert len(store.sweep()) == 1
    assert list(store.verify()) == []
    assert_equal(Store.open(store.path).read("episode-000"), finer)
    store.write([a_stream(0, VOCABULARY)])
    assert_equal(store.read("episode-000"), a_stream(0, VOCABULARY))


def test_episodes_can_be_removed(store):
    store.remove(["episode-000", "episode-004"])
    store = Store.open(store.path)
    assert "episode-000" not in store and len(store) == 4
    with pytest.raises(StoreError, match="has no episode episode-000"):
        store.read("episode-000")
    with pytest.raises(StoreError, match="has no episode"):
        store.remove(["episode-000"])
    store.write([a_stream(0, VOCABULARY)])
    assert_equal(store.read("episode-000"), a_stream(0, VOCABULARY))
    assert list(store.verify()) == []


def test_sizes_and_facts_come_from_the_manifest_alone(store):
    expected = {}
    for i in range(6):
        for name, t in a_stream(i, VOCABULARY).tracks.items():
            expected.setdefault(name, []).append([len(level.codes) for level in t.levels])
    sizes = {t.name: t for t in store.sizes().tracks}
    assert {name: size.codes for name, size in sizes.items()} == {n: tuple(np.sum(c, 0)) for n, c in expected.items()}
    assert sizes["text.caption"].code_bytes == (4 * sizes["text.caption"].codes[0],)
    assert sizes["video.front"].code_bytes == tuple(
        n * size for n, size in zip(sizes["video.front"].codes, (1, 1, 2), strict=True)
    )
    assert sizes["audio.mic"].latent_bytes == 4 * 24 * 6 * 2
    assert sizes["audio.mic"].duration_ns == 4 * 12 * 20_000_000
    objects = [f for f in (store.path / "segments").rglob("*") if f.is_file() and f.name != "COMMIT.json"]
    assert (
        store.sizes().bytes
        == sum(f.stat().st_size for f in objects) - (store.path / "segments/zarr.json").stat().st_size
    )
    info = store.episodes["episode-003"]
    stream = a_stream(3, VOCABULARY)
    assert info.sources == stream.sources
    starts = [t.clock.start_ns for t in stream.tracks.values()]
    ends = [t.clock.start_ns + t.clock.duration_ns for t in stream.tracks.values()]
    assert (info.start_ns, info.duration_ns) == (min(starts), max(ends) - min(starts))
    assert info.tracks["audio.mic"].latents == (24, 6) and info.tracks["video.front"].ticks == 12


def test_codes_that_cannot_be_are_refused_before_anything_is_written(store):
    good = a_stream(7, VOCABULARY)
    audio = a_stream(6, VOCABULARY).tracks["audio.mic"]

    def with_code(code):
        codes = np.full(len(audio.levels[1].codes), code)
        track = replace(audio, levels=(audio.levels[0], LevelCodes(codes, audio.levels[1].splits)))
        return replace(good, tracks={**good.tracks, "audio.mic": track})

    for code in (1024, -1):
        with pytest.raises(TokenError, match=r"episode episode-007 audio\.mic level 1 position 0"):
            store.write([with_code(code)])
    with pytest.raises(VocabularyError, match=r"was encoded under vocabulary .* the store holds"):
        store.write([replace(good, vocabulary_id="0" * 64)])
    assert len(Store.open(store.path)) == 6 and list(store.verify()) == []


def test_another_vocabulary_is_refused_by_name(store):
    other = a_vocabulary(1)
    for ask in (lambda: Store.open(store.path, other), lambda: Store.create_or_open(store.path, other)):
        with pytest.raises(VocabularyError, match=f"{VOCABULARY.id[:12]}.*{other.id[:12]}"):
            ask()
    assert len(Store.open(store.path, VOCABULARY)) == len(Store.create_or_open(store.path, VOCABULARY)) == 6


def test_a_later_vocabulary_that_begins_with_it_reads_it(tmp_path):
    small = type(VOCABULARY).build({"audio": VOCABULARY.states["audio"]})
    larger = small.with_state(VOCABULARY.states["numeric"])
    Store.create(tmp_path / "s.zarr", small)
    assert Store.open(tmp_path / "s.zarr", larger).vocabulary_id == small.id
    Store.create(tmp_path / "l.zarr", larger)
    with pytest.raises(VocabularyError):
        Store.open(tmp_path / "l.zarr", small)


def test_replaced_only_by_force_and_only_a_store(store, tmp_path):
    with pytest.raises(StoreError, match=r"home\.zarr: is there already .*--force"):
        Store.create(store.path, VOCABULARY)
    assert len(Store.create(store.path, VOCABULARY, force=True)) == 0
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat.txt").write_text("cat")
    with pytest.raises(StoreError, match="is not a token store, so it is not replaced"):
        Store.create(tmp_path / "pictures", VOCABULARY, force=True)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="is not a token store, so it is not replaced"):
        Store.create(tmp_path / "other.zarr", VOCABULARY, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home.zarr", "other.zarr", "pictures"]


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.fractions()),
        lambda inner: st.one_of(
            st.lists(inner), st.dictionaries(st.text() | st.sampled_from(["$array", "$object"]), inner)
        ),
    )
)
def test_facts_survive_json(value):
    again = from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))
    np.testing.assert_equal(again, value)


@given(st.text(min_size=1))
def test_names_of_folders_are_safe_and_distinct(name):
    folder = folder_name(name)
    assert folder.isascii() and not set(folder) & set('/\\:*?"<>| ') and len(folder) <= 250
    assert not folder.startswith((".", "__"))
    if len(name) < 10:
        from urllib.parse import unquote

        assert unquote(folder) == name
