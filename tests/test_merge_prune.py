"""Codes out of use: what was written stays, encoders avoid them, and the loss that was stated is the loss."""

from dataclasses import replace

import numpy as np
import pytest

from pantok import tokenizers
from pantok.evolve import codebooks
from pantok.evolve.prune import entropy, prune
from pantok.experience import Clock, Track
from pantok.formats.usage import count_codes
from pantok.formats.vocab import load_vocabulary
from pantok.vocabulary import Vocabulary
from tests.test_vocabulary_grown import audio


def noise(seed: int, seconds: float = 1.0, rate: int = 16000) -> Track:
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    tone = np.sin(np.arange(n) * 0.05 * (1 + seed)) * 8000 * (1 + np.sin(np.arange(n) / 900))
    values = np.clip(tone + rng.normal(size=n) * 900, -32768, 32767).astype(np.int16)[:, None]
    return Track.of_array("audio.mic", values, Clock.regular(rate, n))


def test_prune_counts_as_it_says():
    state = audio((6, 20))
    gains = np.array([[0, 0, 0], [10, 0, 0], [11, 0, 0], [0, 50, 0], [0, 52, 0], [90, 0, 0]], np.int16)
    state = replace(state, tensors={**state.tensors, "gain": gains})
    uses = np.array([400, 300, 2, 200, 4, 0])
    vocabulary = Vocabulary.build({"audio": state})
    pruned, (facts,) = prune(vocabulary, {("audio", 0): uses}, below=0.1)
    assert pruned.states["audio"].retired(0).tolist() == [[2, 1], [4, 3], [5, 1]]
    assert (facts.before, facts.after, facts.uses, facts.changed) == (6, 3, 906, 6)
    rows = gains.astype(float)
    now = np.array([400, 302, 0, 204, 0, 0])
    mean = (uses[:, None] * rows).sum(0) / 906
    spread = (uses * ((rows - mean) ** 2).sum(1)).sum()
    assert facts.added_error == pytest.approx((2 * 1 + 4 * 4) / spread)
    assert facts.bits_before == pytest.approx(entropy(uses)) and facts.bits_after == pytest.approx(entropy(now))
    assert pruned.extents == vocabulary.extents and pruned.decodes(vocabulary)
    # What was retired once counts for what stands for it; too few codes say nothing.
    again, report = prune(pruned, {("audio", 0): uses}, below=0.1)
    assert not report and again.id == pruned.id
    assert prune(vocabulary, {("audio", 0): uses // 50}, below=0.1)[1] == []


def test_pruned_codes_are_not_chosen_and_old_streams_decode_as_before(vocabulary, store):
    old = load_vocabulary(vocabulary)
    state = old.states["audio"]
    track = noise(1)
    before = tokenizers.load(state)
    written = before.encode(track)
    counts = {
        ("audio", k): np.bincount(lv.codes, minlength=state.levels[k].cardinality)
        for k, lv in enumerate(written.levels)
    }
    new, report = prune(old, counts, below=0.9)
    assert len(report) >= 3
    after = tokenizers.load(new.states["audio"])
    assert np.array_equal(before.decoded(written), after.decoded(written))
    again = after.encode(track)
    for k, level in enumerate(again.levels):
        gone = new.states["audio"].retired(k)[:, 0]
        assert not np.isin(level.codes, gone).any(), k
    assert any(len(new.states["audio"].retired(k)) for k in range(len(state.levels)))
    assert tokenizers.load(after.state()).state().digest == new.states["audio"].digest
    assert codebooks.in_use(new.states["audio"], 1).size < state.levels[1].cardinality
    # The counts of a whole store, under a descendant of its vocabulary.
    found = count_codes(store, new)
    assert sum(int(n.sum()) for n in found.values()) > 1000


def test_the_command_states_the_loss_and_refuses_it(pantok, vocabulary, store, tmp_path):
    out = tmp_path / "small.vocab"
    said = pantok("vocab", "prune", vocabulary, "--on", store, "-o", out, "--below", "0.9", "--max-loss", "0")
    assert said.code == 2 and "added error" in said.err and "--max-loss" in said.err and not out.exists()
    done = pantok("vocab", "prune", vocabulary, "--on", store, "-o", out, "--below", "0.9", "--force")
    assert done.code == 0, done.err
    assert load_vocabulary(out).reads(load_vocabulary(vocabulary))
    lineage = pantok("vocab", "lineage", out)
    assert "prune" in lineage.out and "ids_in_use" in lineage.out
