"""The learned switch: a joint that sums to one, depths summed over exactly, and bits near a known source's entropy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from pantok.errors import OptionError
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.flow import FlowConfig
from pantok.world_model.known_model import KnownModel, KnownModelConfig, evaluate, train
from pantok.world_model.known_source import LATENT, KnownConfig, KnownSource
from pantok.world_model.switch import Kinds, Switch, depth_marginal, draw, gate_report

KINDS = Kinds(("text", "video.0", "end", "latent.video"), (0, 5, 12, 0), (5, 12, 13, 0), (0, 0, 0, 3))
SOURCE = KnownSource(KnownConfig(words=4, coarse=4, fine=3))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def switch() -> tuple[Switch, torch.Tensor]:
    torch.manual_seed(0)
    made = Switch(16, KINDS)
    with torch.no_grad():
        made.table.weight.normal_(generator=seeded(1))
        made.bias.normal_(generator=seeded(2))
    return made, torch.randn(6, 16, generator=seeded(3))


def test_ids_and_latents_together_sum_to_one_and_agree_with_the_target_alone() -> None:
    made, hidden = switch()
    ids, latents = made.log_probs(hidden)
    assert ids.shape == (6, 13) and latents.shape == (6, 1)
    torch.testing.assert_close(ids.exp().sum(1) + latents.exp().sum(1), torch.ones(6), atol=1e-5, rtol=0)
    table = KINDS.table()
    for number in range(13):
        target = torch.full((6,), number)
        torch.testing.assert_close(sum(made.log_prob(hidden, target, table[target])), ids[:, number])
    gate, code = made.log_prob(hidden, torch.zeros(6, dtype=torch.int64), torch.full((6,), 3))
    torch.testing.assert_close(gate, latents[:, 0])
    assert not code.any()


def test_no_kind_is_ever_ruled_out() -> None:
    made, hidden = switch()
    with torch.no_grad():
        made.gate.bias.copy_(torch.tensor([1000.0, 0.0, 0.0, 0.0]))
    assert float(made.log_gate(hidden).exp().min().detach()) == pytest.approx(0.01 / 4, rel=1e-4)


def test_draws_are_as_probable_as_they_are_said_to_be() -> None:
    made, hidden = switch()
    count = 20_000
    ids, latents = made.log_probs(hidden[:1])
    drawn = made.sample(hidden[:1].expand(count, -1), seeded(4))
    assert torch.equal(drawn.kinds == 3, drawn.ids == -1)
    often = torch.bincount(torch.where(drawn.ids < 0, 13, drawn.ids), minlength=14) / count
    expected = torch.cat([ids, latents], 1).exp()[0].detach()
    assert float((often - expected).abs().max()) < 0.015  # four standard errors of a half
    assert torch.equal(made.sample(hidden, seeded(5)).ids, made.sample(hidden, seeded(5)).ids)


def test_kinds_can_be_forced_and_forbidden() -> None:
    made, hidden = switch()
    many = hidden.repeat(50, 1)
    assert bool((made.sample(many, seeded(1), forced=1).kinds == 1).all())
    allowed = torch.tensor([False, True, True, False])
    assert set(made.sample(many, seeded(1), allowed=allowed).kinds.tolist()) == {1, 2}
    likeliest = made.sample(hidden, seeded(1), temperature=0.0, forced=1).ids
    assert torch.equal(likeliest, 5 + made.logits(hidden, 1)[0].argmax(1))
    with pytest.raises(OptionError, match="no kind"):
        made.sample(hidden, seeded(1), allowed=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(OptionError, match="top_p"):
        made.sample(hidden, seeded(1), top_p=0.0)


def test_top_p_keeps_the_least_set_that_holds_it() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]])).expand(1000, -1)
    points = torch.linspace(0, 1, 1001)[:-1]
    assert set(draw(logits, points, top_p=0.6).tolist()) == {1, 3}
    assert set(draw(logits, points, top_p=0.4).tolist()) == {1}
    assert torch.bincount(draw(logits, points)).tolist() == pytest.approx([100, 500, 150, 250], abs=2)


@pytest.mark.parametrize(("levels", "rate_weight"), [(0, 1.0), (1, 1.0), (4, 1.0), (3, 0.5)])
def test_depths_are_summed_as_by_enumeration(levels: int, rate_weight: float) -> None:
    rng = np.random.default_rng(levels)
    go, code = -rng.exponential(size=(2, 5, levels))
    stop, observed = -rng.exponential(size=(5, levels + 1)), 3 * rng.normal(size=(5, levels + 1))
    parts = [torch.from_numpy(x) for x in (go, code, stop, observed)]
    total, responsibilities = depth_marginal(*parts, rate_weight=rate_weight)
    for row, n in itertools.product(range(5), range(levels + 1)):
        terms = [
            math.prod((math.exp(go[row, m]) * math.exp(code[row, m])) ** rate_weight for m in range(depth))
            * math.exp(stop[row, depth]) ** rate_weight
            * math.exp(observed[row, depth])
            for depth in range(levels + 1)
        ]
        assert float(total[row]) == pytest.approx(math.log(sum(terms)), abs=1e-10)
        assert float(responsibilities[row, n]) == pytest.approx(terms[n] / sum(terms), abs=1e-10)


def test_the_gradient_is_the_posterior_and_impossible_depths_are_harmless() -> None:
    rng = np.random.default_rng(1)
    parts = [torch.from_numpy(-rng.exponential(size=(3, m))).requires_grad_() for m in (2, 2, 3, 3)]
    total, responsibilities = depth_marginal(*parts)
    total.sum().backward()
    torch.testing.assert_close(parts[3].grad, responsibilities)
    observed = torch.tensor([[0.0, -math.inf, 0.0], [-math.inf] * 3], dtype=torch.float64)
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    total, responsibilities = depth_marginal(zeros, zeros, torch.zeros(2, 3, dtype=torch.float64), observed)
    assert responsibilities.tolist() == [[0.5, 0, 0.5], [0, 0, 0]] and float(total[1]) == -math.inf


def test_where_states_stop_is_learned_from_observations_alone() -> None:
    """Nobody says at which of two levels a state stopped: only z and a noisy o = z_1 (+ z_2) are seen. The gate that
    maximises the marginal is the true one, which differs by z_1."""
    rng = np.random.default_rng(0)
    count = 6000
    z = np.stack([rng.integers(0, 3, count), rng.choice([-1, 1], count)], 1)
    true_go = np.array([0.2, 0.5, 0.9])
    deep = rng.random(count) < true_go[z[:, 0]]
    decoded = np.stack([np.zeros(count), 3.0 * z[:, 0], 3.0 * z[:, 0] + 0.8 * z[:, 1]], 1)
    seen = decoded[np.arange(count), 1 + deep] + 0.5 * rng.normal(size=count)
    observed = torch.from_numpy(-0.5 * ((seen[:, None] - decoded) / 0.5) ** 2)
    first = torch.from_numpy(z[:, 0])
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)
    zeros = torch.zeros(count, 1, dtype=torch.float64)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        go = torch.nn.functional.logsigmoid(logits[first])[:, None]
        stop = torch.nn.functional.logsigmoid(-logits[first])[:, None]
        never = torch.full_like(zeros, -1e9)
        nats, _ = depth_marginal(
            torch.cat([zeros, go], 1), torch.cat([zeros, zeros], 1), torch.cat([never, stop, zeros], 1), observed
        )
        value = -nats.mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert np.abs(torch.sigmoid(logits).detach().numpy() - true_go).max() < 0.06


def test_the_report_tells_a_calibrated_gate_from_one_that_is_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 20_000)
    kinds = torch.from_numpy((rng.random(20_000)[:, None] >= np.cumsum(p, 1)).sum(1).clip(max=2))
    true, sharp = torch.from_numpy(np.log(p)), torch.from_numpy(np.log(p**3 / (p**3).sum(1, keepdims=True)))
    good, bad = (gate_report(("a", "b", "c"), gate, kinds) for gate in (true, sharp))
    assert good.calibration_error < 0.02 < 0.1 < bad.calibration_error
    assert good.entropy_bits == pytest.approx(good.cross_entropy_bits, abs=0.02)
    assert bad.entropy_bits < bad.cross_entropy_bits - 0.2
    assert sum(good.usage) == pytest.approx(1) and good.elements == 20_000
    # Over resampled windows: around the error, and the wider the fewer windows there are.
    spread = []
    for count in (10, 200):
        windows = torch.arange(20_000) % count
        interval = gate_report(("a", "b", "c"), sharp, kinds, windows).calibration_95
        assert interval is not None and interval[0] < bad.calibration_error < interval[1]
        low, high = gate_report(("a", "b", "c"), true, kinds, windows).calibration_95 or (1, 1)
        assert low < 0.005 and high < 0.03
        spread.append(interval[1] - interval[0])
    # As many ids of a wrong gate: in whole windows they leave more open than one here and there.
    window, index = torch.arange(20_000) // 1000, torch.arange(20_000)
    whole, single = (torch.where((n % 2 == 0)[:, None], true, sharp) for n in (window, index))
    apart, mixed = (gate_report(("a", "b", "c"), g, kinds, window).calibration_95 for g in (whole, single))
    assert apart is not None and mixed is not None and apart[1] - apart[0] > 1.5 * (mixed[1] - mixed[0])
    # By hand: half is promised of each of two kinds, and it is always the first: all of the promise is off by a half.
    half = gate_report(("a", "b"), torch.full((10, 2), 0.5).log(), torch.zeros(10, dtype=torch.int64))
    assert half.calibration_error == pytest.approx(0.5) and half.entropy_bits == pytest.approx(1)


def test_the_source_is_as_it_says() -> None:
    """Its entropy rate, a sum over contexts, is what long samples cost under their own probabilities."""
    drawing = SOURCE.draw(400, 300, seed=1)
    is_latent = drawing.kinds == LATENT
    empirical = drawing.nats.mean() / math.log(2) - is_latent.mean() * math.log2(0.1)
    assert SOURCE.entropy_rate(0.1).total == pytest.approx(empirical, rel=0.01)
    gates = torch.from_numpy(drawing.gate).flatten(0, 1).clamp_min(1e-12).log()
    assert gate_report(SOURCE.kinds.names, gates, torch.from_numpy(drawing.kinds).flatten()).calibration_error < 0.005
    halved = SOURCE.entropy_rate(0.05)
    assert halved.latents - SOURCE.entropy_rate(0.1).latents == pytest.approx(is_latent.mean(), abs=0.005)
    again = SOURCE.draw(400, 300, seed=1)
    assert np.array_equal(again.values, drawing.values) and np.array_equal(again.ids, drawing.ids)


def test_a_trained_model_comes_near_the_entropy_rate() -> None:
    """In seconds; benchmarks/known_source.py has what more steps give. Frequencies alone are 95% above."""
    config = KnownModelConfig(
        backbone=BackboneConfig(width=32, layers=2, heads=2, kv_heads=1, longest_s=30.0),
        flow=FlowConfig(width=16, blocks=1, draws=2),
    )
    held_out = SOURCE.draw(60, 96, seed=10**6)
    torch.manual_seed(0)
    model = KnownModel(SOURCE, config)
    train(model, SOURCE, 0, seed=0)
    before = evaluate(model, SOURCE, held_out, 0.05, flow_steps=4)
    train(model, SOURCE, 120, seed=0, batch=16, length=64, learning_rate=8e-3)
    after = evaluate(model, SOURCE, held_out, 0.05, flow_steps=4)
    assert before.above_true > 0.8 and before.posterior_gap > 0.3
    assert -0.01 < after.above_true < 0.1
    assert after.gate is not None and after.gate.calibration_error < 0.04 and after.posterior_gap < 0.06


def test_always_continuous_is_a_bound_and_learns() -> None:
    """Points in the plane in the place of the switch: valid bits, and far more of them after the same training."""
    config = KnownModelConfig(
        backbone=BackboneConfig(width=32, layers=2, heads=2, kv_heads=1, longest_s=30.0),
        flow=FlowConfig(width=16, blocks=1, draws=2), continuous=True,
    )  # fmt: skip
    held_out = SOURCE.draw(40, 64, seed=10**6)
    torch.manual_seed(0)
    model = KnownModel(SOURCE, config)
    train(model, SOURCE, 0, seed=0)
    before = evaluate(model, SOURCE, held_out, 0.05, flow_steps=4)
    train(model, SOURCE, 60, seed=0, batch=16, length=64, learning_rate=8e-3)
    after = evaluate(model, SOURCE, held_out, 0.05, flow_steps=8)
    assert before.gate is None and 0.15 < after.above_true < before.above_true - 0.3
