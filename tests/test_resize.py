"""At the moment of growth a model says what it said before, to one part in a million."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import VocabularyError
from pantok.evolve import resize
from pantok.vocabulary import Level, TokenizerState, Vocabulary
from tests.test_vocabulary_grown import audio, grown


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def family(moved: resize.Transfer, number: int) -> int:
    """The old id that an id came of."""
    while number >= moved.size:
        number = int(moved.parent[number - moved.size])
    return number


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 40))
def test_output_is_preserved(seed, size, more):
    rng = np.random.default_rng(seed)
    parent = np.array([rng.integers(0, size + k) for k in range(more)])
    # A new parent may have children too: shares are of what it got.
    share = resize._shared(parent.tolist(), rng.uniform(0.05, 0.95, more).tolist())
    moved = resize.Transfer(size, parent, share, tuple((np.array([p]), np.ones(1)) for p in parent))
    h, w, b = rng.normal(size=(7, 5)), rng.normal(size=(size, 5)) * 3, rng.normal(size=size)
    before = softmax(h @ w.T + b)
    after = softmax(h @ resize.resize_rows(w, moved).T + resize.resize_bias(b, moved))
    summed = np.zeros_like(before)
    for number in range(moved.total):
        summed[:, family(moved, number)] += after[:, number]
    assert np.abs(summed - before).max() < 1e-12
    untouched = np.setdiff1d(np.arange(size), parent)
    assert np.abs(after[:, untouched] - before[:, untouched]).max(initial=0) < 1e-12


def test_half_to_the_child_without_counts():
    moved = resize.Transfer(3, np.array([1]), np.array([0.5]), ((np.array([1]), np.ones(1)),))
    bias = resize.resize_bias(np.zeros(3), moved)
    assert bias.tolist() == pytest.approx([0, -np.log(2), 0, -np.log(2)])


def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    old = Vocabulary.build({"audio": audio()})
    pairs = {"left": np.array([321, 330, 350, 321], np.uint32), "right": np.array([340, 330, 322, 324], np.uint32)}
    composed = TokenizerState("composition", {}, (Level("composed", 4),), pairs)
    return old, old.with_state(grown(audio(), 0, 5)).with_state(composed)


def test_a_model_of_a_grown_vocabulary():
    old, new = vocabularies()
    moved = resize.transfer(old, new, {new.size - 1: 0.2})
    assert moved.total == new.size
    gain = new.states["audio"].tensors["gain"].astype(float)
    gaps = ((gain[8:, None] - gain[None, :8]) ** 2).sum(2)
    assert all(gaps[k, p - 320] == gaps[k].min() for k, p in enumerate(moved.parent[:5].tolist()))
    left = new.states["composition"].tensors["left"].astype(int)
    assert moved.parent[5:].tolist() == left.tolist()

    torch.manual_seed(0)
    width = 16
    table, out, bias = torch.randn(old.size, width), torch.randn(old.size, width), torch.randn(old.size)
    parts = {
        "embedding": table, "output": out, "bias": bias,
        "output.exp_avg": torch.randn_like(out), "output.exp_avg_sq": torch.rand_like(out),
        "bias.exp_avg_sq": torch.rand_like(bias), "embedding.exp_avg_sq": torch.rand_like(table),
    }  # fmt: skip
    made = resize.resize_model(parts, moved)
    assert all(len(v) == new.size and v.dtype == torch.float32 for v in made.values())
    hidden = torch.randn(11, width)
    before = torch.softmax(hidden @ out.T + bias, -1)
    after = torch.softmax(hidden @ made["output"].T + made["bias"], -1)
    summed = torch.zeros_like(before)
    for number in range(new.size):
        summed[:, family(moved, number)] += after[:, number]
    assert float((summed - before).abs().max()) < 1e-6
    assert torch.equal(made["embedding"][: old.size], table)
    both = moved.inputs[-1][0]
    assert torch.allclose(made["embedding"][-1], made["embedding"][torch.tensor(both)].mean(0))
    for name in ("output.exp_avg", "output.exp_avg_sq", "bias.exp_avg_sq"):
        assert torch.equal(made[name][old.size :], made[name][torch.tensor(moved.parent)]), name
    assert (made["output.exp_avg_sq"][old.size :] > 0).all()
    with pytest.raises(ValueError, match="no part"):
        resize.resize_model({"head": out}, moved)


def test_training_goes_on_without_a_jump():
    """The loss of old data one step after growth, with the moments of the parents, is that of the step without."""
    old, new = vocabularies()
    moved = resize.transfer(old, new)
    torch.manual_seed(1)
    width = 12
    weight, bias = torch.nn.Parameter(torch.randn(old.size, width) * 0.1), torch.nn.Parameter(torch.zeros(old.size))
    hidden, ids = torch.randn(400, width), torch.randint(320, old.size, (400,))

    def train(w, b, adam, steps):
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(hidden @ w.T + b, ids)
            adam.zero_grad()
            loss.backward()
            adam.step()
        return float(torch.nn.functional.cross_entropy(hidden @ w.T + b, ids).detach())

    adam = torch.optim.Adam([weight, bias], 0.01)
    before = train(weight, bias, adam, 60)
    made = resize.resize_model(
        {"output": weight, "bias": bias}
        | {
            f"{n}.{m}": adam.state[p][m]
            for n, p in (("output", weight), ("bias", bias))
            for m in ("exp_avg", "exp_avg_sq")
        },
        moved,
    )
    larger = [torch.nn.Parameter(made[n]) for n in ("output", "bias")]
    again = torch.optim.Adam(larger, 0.01)
    for name, p in zip(("output", "bias"), larger, strict=True):
        again.state[p] = {
            "step": torch.tensor(60.0), "exp_avg": made[f"{name}.exp_avg"], "exp_avg_sq": made[f"{name}.exp_avg_sq"],
        }  # fmt: skip
    families = torch.tensor([family(moved, n) for n in range(new.size)])

    def as_old_ids() -> float:
        logp = torch.log_softmax(hidden @ larger[0].T + larger[1], -1)
        total = torch.stack([logp[:, families == i].logsumexp(1) for i in range(320, old.size)], 1)
        return float(torch.nn.functional.nll_loss(total, ids - 320).detach())

    at_growth = as_old_ids()
    assert at_growth == pytest.approx(before, abs=1e-6)
    train(*larger, again, 1)
    assert as_old_ids() < at_growth + 1e-3


def test_a_model_that_switches_between_kinds():
    old, new = vocabularies()
    moved = resize.transfer(old, new)
    rng = np.random.default_rng(2)
    spans = [[(e.start, e.stop) for e in v.extents] for v in (old, new)]
    kinds, news, latents = len(spans[0]), len(spans[1]) - len(spans[0]), 2
    parts = [rng.normal(size=shape) for shape in ((kinds + latents, 8), kinds + latents, (old.size, 8), old.size)]
    made = resize.resize_switched(*parts, *spans, moved)
    hidden = rng.normal(size=(9, 8))

    def said(gate, gate_bias, weight, bias, edges) -> tuple[np.ndarray, list[np.ndarray]]:
        inside = [softmax(hidden @ weight[a:b].T + bias[a:b]) for a, b in edges]
        return softmax(hidden @ gate.T + gate_bias), inside

    before, ids_before = said(*parts, spans[0])
    after, ids_after = said(*made, spans[1])
    assert np.abs(after[:, kinds + news :] - before[:, kinds:]).max() < 1e-12  # latents
    assert np.abs(after[:, :2] - before[:, :2]).max() < 1e-12  # control and digits have no child
    assert np.abs(after[:, 2 : kinds + news].sum(1) - before[:, 2:kinds].sum(1)).max() < 1e-12
    for x, y in zip(ids_before, ids_after, strict=False):
        assert np.abs(x - y).max() < 1e-12
    assert all(np.isfinite(x).all() for x in ids_after)


def test_ids_that_would_move_are_refused():
    old, new = vocabularies()
    with pytest.raises(VocabularyError, match="along a lineage"):
        resize.transfer(new, old)
    other = Vocabulary.build({"audio": replace(audio(seed=4))})
    with pytest.raises(VocabularyError, match="does not begin"):
        resize.transfer(old, other)
