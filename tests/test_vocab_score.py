"""`pantok vocab score`, `compose` and `theorem` as a user runs them, and what a score is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pantok.commands.vocab_score import score as score_command
from pantok.errors import InputError
from pantok.evolve import codebooks
from pantok.evolve.compose import Corpus
from pantok.evolve.compositions import Compositions, makeup_of, with_compositions
from pantok.evolve.dictionary import composition_bits
from pantok.evolve.objective import held_out
from pantok.evolve.predictor import NGram
from pantok.evolve.score import description_bits, score
from pantok.formats.sequences import read_sequences
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary, read_lineage, save_vocabulary
from pantok.layout import Layout, arrange


def test_a_score_is_the_ngrams_bits_on_what_is_held_out(store: Path) -> None:
    own = load_vocabulary(store / "vocabulary")
    given = list(read_sequences(store, Layout.preset("default"), own))
    assert [s.ids.tolist() for s, _ in given] == [
        arrange(Store.open(store).read(n), Layout.preset("default"), own).ids.tolist()
        for n in ("film-01", "street/walk")
    ]
    found = score(own, given)
    corpus = Corpus.of(given, "level")
    held = held_out(len(corpus.passage.seconds))[corpus.passage.group]
    ids, group = corpus.passage.ids, corpus.passage.group
    bits = NGram(own.size, makeup_of(own)).count(ids[~held], group[~held]).bits(ids[held], group[held])
    seconds = found.cost.seconds.sum()
    assert found.cost.id_bits_per_second == pytest.approx(bits.sum() / seconds)
    assert found.cost.ids_per_second == pytest.approx(held.sum() / seconds)
    assert sum(s.bits_per_second for s in found.shares) == pytest.approx(found.cost.id_bits_per_second)
    assert found.ids == found.uncomposed_ids == sum(len(s) for s, _ in given)
    assert found.seconds == pytest.approx(sum(seconds for _, seconds in given))
    tensors = sum(t.nbytes for s in own.states.values() for t in s.tensors.values())
    assert description_bits(own) > 8 * tensors


def test_however_many_documents_last_no_time(store: Path) -> None:
    own = load_vocabulary(store / "vocabulary")
    (sequence, _), *_ = read_sequences(store, Layout.preset("default"), own)
    with pytest.raises(InputError, match="last no time"):
        score(own, [(sequence.cut(0, 2), 1e-9)] * 1200)


def test_a_score_counts_compositions_as_the_ids_that_they_are(store: Path) -> None:
    own = load_vocabulary(store / "vocabulary")
    given = list(read_sequences(store, Layout.preset("default"), own))
    sequence = max((s for s, _ in given), key=len)
    video = sequence.ids[sequence.kind == 2].astype(np.int64)
    pair = Compositions(np.array([own.size]), np.array([[video[0], video[1]]]))
    new = with_compositions(own, pair)
    here = Compositions.of(new)
    fewer = sum(len(s) - len(here.sequence(s)) for s, _ in given)
    found = score(new, given)
    assert found.uncomposed_ids - found.ids == fewer
    assert description_bits(new) == pytest.approx(
        description_bits(own) + composition_bits(pair, makeup_of(new).classes)[1]
    )


def test_compose_and_score_on_the_command_line(store: Path, tmp_path: Path, pantok) -> None:
    home, out = store / "vocabulary", tmp_path / "more.vocab"
    refused = pantok("vocab", "compose", home, "--on", store, "-o", out, "--merges", 16, "--json")
    said = json.loads(refused.out)
    assert refused.code == 3 and said["kept"] == 0 and not said["pays"] and not out.exists()
    done = pantok("vocab", "compose", home, "--on", store, "-o", out, "--merges", 16, "--force")
    assert done.code == 0 and "16 compositions" in done.err and done.out == ""
    old, new = load_vocabulary(home), load_vocabulary(out)
    assert new.size == old.size + 16 and new.reads(old) and new.decodes(old)
    step = read_lineage(out)[-1]
    assert step["arguments"]["across"] == "unit" and step["arguments"]["objective"] == "length"
    assert step["op"] == "compose" and step["before"]["ids"] == old.size and step["after"]["merges"] == 16
    before, after = (json.loads(pantok("vocab", "score", v, "--on", store, "--json").out) for v in (home, out))
    assert after["ids"] < after["uncomposed_ids"] == before["ids"] and after["id"] == new.id
    assert after["held_out_bits_per_second"] == pytest.approx(step["after"]["id_bits_per_second"])
    table = pantok("vocab", "score", home, "--on", store)
    assert table.code == 0 and "bits a second" in table.out and table.err == ""
    wrong = pantok("vocab", "compose", home, "--on", store, "-o", tmp_path / "x.vocab", "--objective", "size")
    assert wrong.code in (1, 2) and "known: bits, length, rd" in wrong.err


def test_the_error_of_what_stands_for_retired_codes(store: Path, recordings: Path, tmp_path: Path) -> None:
    own = load_vocabulary(store / "vocabulary")
    state = own.states["audio"]
    gone = np.arange(0, state.levels[codebooks.level_of(state, "gain.tick")].cardinality - 1)
    to = np.full(len(gone), len(gone))
    pruned = own.with_state(codebooks.without(state, codebooks.level_of(state, "gain.tick"), gone, to))
    save_vocabulary(pruned, tmp_path / "p.vocab")

    def errors(vocabulary: Path, *more: object) -> dict:
        args = [str(vocabulary), "--on", str(store), "--seconds", "1", "--json", "-q", *map(str, more)]
        done = CliRunner().invoke(score_command, args)
        assert done.exit_code == 0, (done.stderr, done.exception)
        said = json.loads(done.stdout)
        digits = sum(e["digit_bits_per_second"] for e in said["errors"])
        if said["objective"]["name"] == "rd":
            assert said["objective"]["value"] == pytest.approx(said["bits_per_second"] + digits)
        return {e["modality"]: e for e in said["errors"]}

    same, less = errors(store / "vocabulary"), errors(tmp_path / "p.vocab", "--objective", "rd")
    assert {e["error"] for e in same.values()} == {0.0}
    assert less["audio"]["error"] > 0 and less["audio"]["digit_bits_per_second"] > 0 and less["video"]["error"] == 0
    true = errors(store / "vocabulary", "--recordings", recordings)
    assert all(e["error"] == e["own_error"] > 0 for e in true.values())
    for modality in ("audio", "video"):
        assert true[modality]["eps"] == pytest.approx(true[modality]["own_error"] / 2)
        assert true[modality]["by_unit"] == {modality: pytest.approx(true[modality]["eps"])}
    assert true["numeric"]["by_unit"] and all("/" in unit for unit in true["numeric"]["by_unit"])
    worse = errors(tmp_path / "p.vocab", "--recordings", recordings)
    assert worse["audio"]["error"] > true["audio"]["error"] and worse["audio"]["eps"] == true["audio"]["eps"]
