"""A store whose vocabulary grows while it is written: whole at any moment, and read as one under the newest."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from pantok.commands.encode import command
from pantok.encode import Codec
from pantok.errors import OptionError, StoreError, VocabularyError
from pantok.evolve.grow import LEAST
from pantok.evolve.lineage import line
from pantok.evolve.online import Grower, OnlineConfig
from pantok.experience import Clock, Track
from pantok.formats.id_plan import Planner, write
from pantok.formats.store import Store
from pantok.formats.store_merge import MergeConfig, compact, pack
from pantok.formats.store_verify import verify_store
from pantok.formats.store_vocabularies import newest_folder
from pantok.formats.vocab import load_vocabulary, read_lineage
from pantok.loader import StreamDataset
from pantok.vocabulary import Vocabulary
from tests.store_streams import a_stream, a_vocabulary, assert_equal, kill_before
from tests.test_stream_plan import follow

SAMPLES = Path(__file__).parent.parent / "sample_data"
FIRST = a_vocabulary()


def grown(vocabulary: Vocabulary, level: int, more: int) -> Vocabulary:
    """A level of video with more codes; of `coarse`, over the step from one byte a code to two."""
    state = vocabulary.states["video"]
    levels = list(state.levels)
    levels[level] = replace(levels[level], cardinality=levels[level].cardinality + more)
    return vocabulary.with_state(replace(state, levels=tuple(levels)))


SECOND = grown(FIRST, 1, 40)
THIRD = grown(SECOND, 2, 1000)


def wide_stream(number: int, vocabulary: Vocabulary):
    """An episode that uses the newest codes of its vocabulary."""
    stream = a_stream(number, vocabulary)
    video = stream.tracks["video.front"]
    levels = [
        replace(lv, codes=(lv.codes.astype(np.int64) + spec.cardinality - old.cardinality))
        for lv, spec, old in zip(video.levels, vocabulary.levels("video"), FIRST.levels("video"), strict=True)
    ]
    return replace(stream, tracks={**stream.tracks, "video.front": replace(video, levels=tuple(levels))})


@pytest.fixture
def made(tmp_path):
    store = Store.create(tmp_path / "home.zarr", FIRST)
    store.write([wide_stream(0, FIRST), wide_stream(1, FIRST)])
    for number, (old, new) in enumerate([(FIRST, SECOND), (SECOND, THIRD)]):
        assert store.extend(new, [line("grow", new, [old])])
        store.write([wide_stream(2 + number, new)])
    return store


def test_segments_of_successive_vocabularies_read_as_one(made, tmp_path):
    store = Store.open(made.path)
    assert store.vocabulary_ids == (FIRST.id, SECOND.id, THIRD.id) and store.vocabulary.id == THIRD.id
    for number, vocabulary in enumerate([FIRST, FIRST, SECOND, THIRD]):
        assert_equal(store.read(f"episode-{number:03d}"), wide_stream(number, vocabulary))
    assert list(store.verify()) == []
    ids = [s["vocabulary_id"] for s in (store.segment(name).commit for name in store.segments)]
    assert sorted(ids) == sorted([FIRST.id, FIRST.id, SECOND.id, THIRD.id])
    # What was made from the same sources under an older one is there: a restart encodes nothing twice.
    old = wide_stream(0, FIRST)
    assert store.has(old.id, old.sources, old.parameters) and not store.has("episode-001", old.sources, old.parameters)
    with pytest.raises(VocabularyError, match=f"{THIRD.id[:12]}.*{SECOND.id[:12]}.*vocabularies/0002"):
        Store.open(made.path, SECOND)
    before, expected = store.digest(), {name: store.read(name) for name in store.episodes}
    compact(store, MergeConfig(episodes=9))
    assert len(store.segments) == 3 and store.digest() == before  # a segment is of one vocabulary
    pack(store, tmp_path / "packed.zarr", MergeConfig())
    packed = Store.open(tmp_path / "packed.zarr")
    assert packed.vocabulary_ids == store.vocabulary_ids and list(packed.verify()) == []
    for name, stream in expected.items():
        assert_equal(store.read(name), stream)
        assert_equal(packed.read(name), stream)


def test_ids_are_of_the_newest_whatever_a_segment_was_written_under(made):
    data = StreamDataset(made.path, length=256, shuffle=False, epochs=1)
    assert data.vocabulary.id == THIRD.id
    windows = np.concatenate([window["ids"] for window in data])
    for number, vocabulary in enumerate([FIRST, FIRST, SECOND, THIRD]):
        video = wide_stream(number, vocabulary).tracks["video.front"]
        expected = THIRD.ids("video", 2, video.levels[2].codes)
        found = windows[np.isin(windows, THIRD.table("video", 2))]
        assert "".join(map(chr, expected)) in "".join(map(chr, found))
    planner, out = Planner(made.path, data.layout, THIRD), io.BytesIO()
    assert {c["dtype"] for c in planner.head(9)["columns"] if c["track"] == "video.front" and c["level"] == 1} == {
        "|u1",
        "<u2",
    }
    parts = [("episode-000", 0, 150), ("episode-003", 0, 106)]
    write(planner, iter([{"epoch": 0, "window": 0, "resume": {}, "parts": parts}]), out, 256)
    (ids,) = follow(out.getvalue().splitlines()).values()
    from pantok.layout import arrange

    for (name, start, stop), at in zip(parts, (0, 150), strict=True):
        whole = arrange(made.read(name), data.layout, THIRD).ids
        assert np.array_equal(ids[at : at + stop - start], whole[start:stop])


def test_only_what_grew_out_of_it_and_only_in_turn(made, tmp_path):
    with pytest.raises(VocabularyError, match="did not grow out of"):
        made.extend(a_vocabulary(1), [])
    other = Store.open(made.path)
    fourth = grown(THIRD, 2, 7)
    assert other.extend(fourth, [])
    assert not made.extend(grown(THIRD, 2, 9), []), "another writer was quicker"
    assert made.vocabulary_ids == other.vocabulary_ids and made.vocabulary.id == fourth.id
    made.write([wide_stream(5, THIRD)])  # one who began under an older one may finish
    assert_equal(made.read("episode-005"), wide_stream(5, THIRD))
    assert Store.create_or_open(made.path, FIRST).vocabulary.id == fourth.id


def test_what_is_damaged_or_missing_is_named(made):
    (made.path / "vocabularies" / "0001" / "extra").write_text("x")
    assert [str(p) for p in made.verify()] == ["vocabularies/0001/extra: does not belong to the store"]
    (made.path / "vocabularies" / "0001" / "extra").unlink()
    target = made.path / "vocabularies" / "0002" / "manifest.json"
    data = bytearray(target.read_bytes())
    data[40] ^= 1
    target.write_bytes(data)
    assert any(p.path.startswith("vocabularies/0002") and p.is_fault for p in made.verify())
    with pytest.raises(VocabularyError, match="0002"):
        Store.open(made.path)
    data[40] ^= 1
    target.write_bytes(data)
    os.rename(made.path / "vocabularies" / "0001", made.path.parent / "gone")
    assert [p for p in made.verify() if p.path == "vocabularies/0001" and p.kind == "missing"]
    with pytest.raises(StoreError, match=r"0001.*is missing"):
        Store.open(made.path)


def test_killed_at_each_step_of_growth(tmp_path):
    """A forked writer dies before its n-th call that makes anything durable, for every n, growing and writing."""
    path = tmp_path / "home.zarr"
    Store.create(path, FIRST).write([wide_stream(0, FIRST)])
    chain = [FIRST, SECOND, THIRD]
    seen: set[int] = set()
    for step in range(1, 400, 6):
        child = os.fork()
        if child == 0:
            try:
                kill_before(step)
                store = Store.open(path)
                at = len(store.vocabulary_ids) - 1
                for number in range(at, 3):
                    stream = wide_stream(number, chain[number])
                    if number > at:
                        assert store.extend(chain[number], [])
                    if not store.has(stream.id, stream.sources, stream.parameters):
                        store.write([stream])
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        problems = list(verify_store(path))
        assert not [p for p in problems if p.is_fault], (step, problems)
        store = Store.open(path)
        seen.add(len(store.vocabulary_ids))
        for name in store.episodes:
            stream = store.read(name)
            number = int(name[-3:])
            assert_equal(stream, wide_stream(number, chain[number]))
            assert stream.vocabulary_id in store.vocabulary_ids
        if os.WIFEXITED(status) and len(store) == 3:
            break
    assert seen == {1, 2, 3} and step > 3 and len(store) == 3


def sound(path: Path, seconds: float, start: float = 0.0) -> Track:
    values, rate = soundfile.read(path, dtype="float32", always_2d=True)
    values = values[round(start * rate) : round((start + seconds) * rate), :1]
    return Track.of_array("audio", values, Clock.regular(rate, len(values)))


def test_growth_is_within_its_limit_and_stops_where_nothing_is_new(vocabulary):
    old = load_vocabulary(vocabulary)
    tabla = sound(SAMPLES / "music" / "tabla.ogg", 9)
    grower = Grower(OnlineConfig(max_new=200))
    new, steps = grower.grown(old, [tabla], 200)
    assert steps and 0 < new.size - old.size <= 100 and new.reads(old)
    assert steps[0].after < steps[0].before and steps[0].added == new.size - old.size
    assert grower.grown(new, [tabla], 200 - steps[0].added) == (new, []), "it knows them now"
    assert Grower(OnlineConfig()).grown(old, [tabla], LEAST - 1) == (old, [])
    with pytest.raises(OptionError, match="max-new"):
        OnlineConfig(max_new=3)


def encode(*args: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, [str(a) for a in args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def two_of_music(folder):
    folder.mkdir()
    values, rate = soundfile.read(SAMPLES / "music" / "tabla.ogg", always_2d=True)
    for k in range(2):
        soundfile.write(folder / f"tabla-{k}.wav", values[k * 5 * rate : (k + 1) * 5 * rate], rate)


def test_encode_grow_from_the_command_line(recordings, vocabulary, tmp_path):
    """The first run encodes what is known; the second, of another kind, grows; the third has nothing to do."""
    new, path = tmp_path / "new", tmp_path / "home.zarr"
    two_of_music(new)
    assert encode(recordings / "film-01.csv", "--vocab", vocabulary, "-o", path)[0] == 0
    first = Store.open(path)
    code, out, err = encode(new, "--grow", "--max-new", 300, "-o", path, "--json")
    assert code == 0, err
    said = json.loads(out)
    store = Store.open(path)
    assert len(store.vocabulary_ids) > 1 and said["vocabularies"] == list(store.vocabulary_ids)
    assert 0 < store.vocabulary.size - first.vocabulary.size <= 300
    assert said["new_ids_left"] == 300 - store.vocabulary.size + first.vocabulary.size
    assert sum(step["added"] for step in said["grown"]) == store.vocabulary.size - first.vocabulary.size
    assert {s["episode"] for s in said["grown"]} <= {"tabla-0", "tabla-1"}
    assert next(entry["op"] for entry in read_lineage(newest_folder(path))) == "born"
    assert list(store.verify()) == []
    code, out, err = encode(new, "--grow", "--max-new", 300, "--vocab", vocabulary, "-o", path, "--json")
    again = json.loads(out)
    assert code == 0 and again["already_there"] == 2 and again["grown"] == []
    assert again["new_ids_left"] == said["new_ids_left"], "of what the runs before took, too"
    codec = Codec(store.vocabulary)
    for name in store.episodes:
        for track in store.read(name).tracks.values():
            assert sum(map(len, codec.decode(track))) == track.clock.count
    for wrong in (["--max-new", 9], ["--grow", "--max-new", 3], ["--grow", "--workers", 2]):
        runner = CliRunner().invoke(command, [str(new), "-o", str(path), *map(str, wrong)])
        assert isinstance(runner.exception, OptionError) and "--" in str(runner.exception)


def test_a_run_that_was_stopped_grows_as_one_that_was_not(vocabulary, tmp_path, monkeypatch):
    """What makes an episode surprising is known from those before it, by the run that goes on too."""
    new, whole = tmp_path / "new", tmp_path / "whole.zarr"
    two_of_music(new)
    args = [*map(str, (new, "--vocab", vocabulary, "--grow", "--max-new", 300, "-o"))]
    assert encode(*args, whole)[0] == 0
    first = Store.open(whole)
    assert len(first.vocabulary_ids) > 1

    def stopped(call, after):
        def instead(self, *given, **more):
            if after:
                call(self, *given, **more)
            raise KeyboardInterrupt

        return instead

    for name, after in (("extend", True), ("write", False)):
        path = tmp_path / f"{name}-{after}.zarr"
        with monkeypatch.context() as patched:
            patched.setattr(Store, name, stopped(getattr(Store, name), after))
            CliRunner().invoke(command, [*args, str(path)])
        assert len(Store.open(path)) == 0
        assert encode(*args, path)[0] == 0
        second = Store.open(path)
        assert second.vocabulary_ids == first.vocabulary_ids and len(second) == 2
        for episode in first.episodes:
            assert_equal(second.read(episode), first.read(episode))


def test_a_store_takes_in_a_vocabulary_that_its_own_grew_into(recordings, vocabulary, tmp_path):
    path, later = tmp_path / "home.zarr", tmp_path / "later.vocab"
    assert encode(recordings / "film-01.csv", "--vocab", vocabulary, "-o", path)[0] == 0
    from pantok.formats.vocab import save_vocabulary
    from tests.test_vocabulary_grown import composition

    save_vocabulary(load_vocabulary(vocabulary).with_state(composition(4)), later)
    code, _, err = encode(recordings / "street", "--vocab", later, "-o", path)
    assert code == 0 and "from now on" in err, err
    assert len(Store.open(path)) == 2 and Store.open(path).vocabulary.id == load_vocabulary(later).id
