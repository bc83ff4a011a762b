"""A level that grows, a code that is retired, a composition: no id moves, and what is not a descendant is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import TokenError, VocabularyError
from pantok.formats.vocab import load_vocabulary, read_manifest, save_vocabulary
from pantok.vocabulary import NOTHING, Level, TokenizerState, Vocabulary, merge


def audio(sizes: tuple[int, int] = (8, 20), seed: int = 0) -> TokenizerState:
    rng = np.random.default_rng(seed)
    return TokenizerState(
        "audio",
        {"format": 1},
        (Level("gain", sizes[0]), Level("shape", sizes[1])),
        {
            "gain": rng.integers(-9, 9, (sizes[0], 3)).astype(np.int16),
            "shape": rng.normal(size=(sizes[1], 4)).astype(np.float32),
            "mask": np.eye(5),
        },
    )


def grown(state: TokenizerState, level: int, more: int, seed: int = 1) -> TokenizerState:
    """One level more codes, as an operation would make it."""
    name = state.levels[level].name
    old = state.tensors[name]
    new = np.random.default_rng(seed).normal(size=(more, *old.shape[1:])).astype(old.dtype)
    levels = list(state.levels)
    levels[level] = replace(levels[level], cardinality=len(old) + more)
    blocks = state.tensors.get(f"life.{name}.blocks", np.zeros((0, 2), np.int64))
    tensors = {
        **state.tensors,
        name: np.concatenate([old, new]),
        f"life.{name}.blocks": np.concatenate([blocks, [[len(old), 7]]]),
    }
    return replace(state, levels=tuple(levels), tensors=tensors)


def retired(state: TokenizerState, level: int, pairs: list[tuple[int, int]]) -> TokenizerState:
    table = np.array(sorted([*map(tuple, state.retired(level).tolist()), *pairs]), np.uint32)
    return replace(state, tensors={**state.tensors, f"life.{state.levels[level].name}.retired": table})


def composition(size: int, seed: int = 0) -> TokenizerState:
    rng = np.random.default_rng(seed)
    pairs = rng.integers(600, 628, (2, size)).astype(np.uint32)
    return TokenizerState("composition", {}, (Level("composed", size),), {"left": pairs[0], "right": pairs[1]})


def test_growth_appends_an_extent_and_moves_no_id():
    old = Vocabulary.build({"audio": audio()})
    new = old.with_state(grown(audio(), 0, 5))
    assert new.extents[: len(old.extents)] == old.extents
    assert new.size == old.size + 5
    assert new.table("audio", 0).tolist() == [*range(320, 328), *range(348, 353)]
    assert new.locate(350) == ("audio", 0, 10)
    assert new.ids("audio", 0, np.array([7, 8])).tolist() == [327, 348]
    with pytest.raises(TokenError, match="code 13"):
        new.ids("audio", 0, np.array([13]))
    assert new.reads(old) and new.decodes(old) and not old.decodes(new)
    assert new.with_state(audio()) is new  # of an ancestor there is nothing to add
    assert new.id != old.id


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), max_size=5), st.data())
def test_ids_of_any_history_stay(steps, data):
    state, vocabulary = audio(), Vocabulary.build({"audio": audio()})
    history = [vocabulary]
    for number, (level, more) in enumerate(steps):
        state = grown(state, level, more, seed=number)
        if data.draw(st.booleans()):
            state = retired(state, level, [(number, number + 1)])
        vocabulary = vocabulary.with_state(state)
        history.append(vocabulary)
    seen = np.concatenate([vocabulary.table("audio", k) for k in (0, 1)])
    assert len(np.unique(seen)) == len(seen) == vocabulary.size - 320
    for number in map(int, seen):
        modality, level, code = vocabulary.locate(number)
        assert vocabulary.table(modality, level)[code] == number
    for older in history:
        assert vocabulary.reads(older)
        for k in (0, 1):
            mine = older.table("audio", k)
            assert np.array_equal(vocabulary.table("audio", k)[: len(mine)], mine)


@pytest.mark.parametrize("change", ["value", "dtype", "row", "config", "level", "blob", "mask", "shrunk", "other"])
def test_what_did_not_grow_out_of_it_is_refused(change):
    state = grown(audio(), 0, 5)
    if change == "value":
        table = state.tensors["gain"].copy()
        table[3, 1] += 1
        state = replace(state, tensors={**state.tensors, "gain": table})
    elif change == "dtype":
        state = replace(state, tensors={**state.tensors, "gain": state.tensors["gain"].astype(np.int32)})
    elif change == "row":
        state = replace(state, tensors={**state.tensors, "gain": state.tensors["gain"][:-1]})
    elif change == "config":
        state = replace(state, config={"format": 2})
    elif change == "level":
        state = replace(state, levels=(replace(state.levels[0], name="gain2"), state.levels[1]))
    elif change == "blob":
        state = replace(state, blobs={"model": b"x"})
    elif change == "mask":
        state = replace(state, tensors={**state.tensors, "mask": np.eye(6)})
    elif change == "shrunk":
        state = audio((7, 20))
    else:
        state = audio(seed=5)
    assert not state.descends(audio())
    with pytest.raises(VocabularyError, match="with other codes"):
        Vocabulary.build({"audio": audio()}).with_state(state)


def test_retired_codes_keep_their_ids_and_say_what_stands_for_them():
    state = retired(grown(audio(), 0, 5), 0, [(2, 9), (4, NOTHING)])
    state = retired(state, 0, [(9, 3)])
    vocabulary = Vocabulary.build({"audio": audio()}).with_state(state)
    assert state.redirects(0).tolist() == [0, 1, 3, 3, 4, 5, 6, 7, 8, 3, 10, 11, 12]
    assert vocabulary.status(322) == ("deprecated", 323)
    assert vocabulary.status(324) == ("tombstone", 324)
    assert vocabulary.status(323) == ("live", 323) and vocabulary.status(1) == ("live", 1)
    assert vocabulary.table("audio", 0)[2] == 322
    assert vocabulary.table("audio", 0, in_use=True)[[2, 9]].tolist() == [323, 323]
    assert np.flatnonzero(~vocabulary.live()).tolist() == [322, 324, 349]
    assert not audio().descends(state) and not grown(audio(), 0, 5).descends(state)
    with pytest.raises(VocabularyError, match="stand for each other"):
        retired(audio(), 0, [(0, 1), (1, 2), (2, 0)]).redirects(0)


def test_compositions_are_numbered_and_grow():
    vocabulary = Vocabulary.build({"audio": audio()}).with_state(composition(6))
    more = composition(6)
    more = replace(
        more,
        levels=(Level("composed", 9),),
        tensors={n: np.concatenate([t, np.full(3, 620, np.uint32)]) for n, t in more.tensors.items()},
    )
    larger = vocabulary.with_state(grown(audio(), 1, 2)).with_state(more)
    assert larger.reads(vocabulary)
    assert larger.table("composition", 0).tolist() == [*range(348, 354), 356, 357, 358]
    assert larger.locate(357) == ("composition", 0, 7)


def test_a_merge_takes_the_grown_one_whichever_comes_first():
    old = Vocabulary.build({"audio": audio()})
    new = old.with_state(grown(audio(), 0, 5))
    assert merge([old, new]).id == new.id
    assert merge([new, old]).id == new.id
    words = TokenizerState("text", {}, (Level("text", 100, "text"),), {}, {"model": b"m"})
    worded = merge([old, new], words)
    assert worded.table("text", 0).tolist() == list(range(100))
    assert worded.decodes(old) and worded.decodes(new) and not worded.reads(new)
    with pytest.raises(VocabularyError, match="different tokenizers for audio"):
        merge([new, old.with_state(grown(audio(), 0, 5, seed=9))])


@pytest.mark.parametrize("lazy", [False, True])
def test_on_disk(tmp_path, lazy):
    old = Vocabulary.build({"audio": audio()})
    new = old.with_state(retired(grown(audio(), 0, 5), 0, [(2, 9)])).with_state(composition(6))
    new = replace(new, remaps={"ab" * 32: {"gain": np.arange(8, dtype=np.uint32)}})
    for name, vocabulary, version in (("old", old, 1), ("new", new, 2)):
        save_vocabulary(vocabulary, tmp_path / name)
        manifest = read_manifest(tmp_path / name)
        assert manifest["format"] == version
        assert all(("first" in e) == bool(e.get("first")) for e in manifest["extents"])
    again = load_vocabulary(tmp_path / "new", lazy=lazy)
    assert again.id == new.id and again.extents == new.extents
    assert again.reads(load_vocabulary(tmp_path / "old", lazy=lazy))
    assert again.remaps["ab" * 32]["gain"].tolist() == list(range(8))
    assert again.status(322) == new.status(322)
