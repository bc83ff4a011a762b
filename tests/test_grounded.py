"""The generative loss starts at the ridge and never ends below it; what collapses and what does not; Theorem 2."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pantok.errors import InputError, OptionError
from pantok.world_model.baselines import CopyLast, inputs_of, score
from pantok.world_model.collapse import effective_rank, latent_bound, lipschitz, measure_collapse
from pantok.world_model.descend import descend
from pantok.world_model.grounded import GroundedHead, GroundedPredictor, Table, ends_of_steps
from pantok.world_model.latent import KINDS, LatentConfig, LatentHead, sigreg, vicreg
from pantok.world_model.ridge import Ridge
from tests.driven_pendulum import NOISE, SEEN, STEPS, pendulum_episodes, pendulum_space


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ridge() -> Ridge:
    return Ridge.fit(pendulum_space(), pendulum_episodes()[:9], pendulum_episodes()[9:12])


@pytest.fixture(scope="module")
def tables() -> tuple[Table, Table, Table]:
    episodes, space = pendulum_episodes(), pendulum_space()
    return Table.of(space, episodes[:9]), Table.of(space, episodes[9:12]), Table.of(space, episodes[12:])


def head_of(ridge: Ridge, width: int = 0) -> GroundedHead:
    torch.manual_seed(0)
    return GroundedHead(pendulum_space(), ridge, width, hidden=64)


# ---------------------------------------------------------------------- the head
def test_training_starts_exactly_at_the_ridge(ridge: Ridge) -> None:
    seen = pendulum_episodes()[12]
    inputs, values = torch.from_numpy(inputs_of(pendulum_space(), seen)), seen.values
    head = head_of(ridge, width=24)
    hidden = torch.randn(len(inputs), 24) * 100
    assert torch.equal(head(hidden, inputs), head.closed(inputs))
    assert not head.correction(hidden, inputs).any()
    assert np.allclose(head.closed(inputs).detach().numpy(), ridge.predict(seen), atol=1e-5)
    # And it can leave: the gradient is not nought, in the last layer at first.
    target, present = torch.from_numpy(values[1:]), torch.ones(len(inputs), 2, dtype=torch.bool)
    head.loss(hidden, inputs, target, present).backward()
    assert head.outer.weight.grad is not None and head.outer.weight.grad.abs().max() > 0


def test_the_loss_is_the_likelihood_of_what_is_there(ridge: Ridge, tables: tuple[Table, ...]) -> None:
    rows = tables[0].all_rows[:50]
    inputs, target, present = tables[0].batch(rows)
    present[10:, 0] = False
    head = head_of(ridge)
    with torch.no_grad():
        head.log_variance.copy_(torch.linspace(-2, 1, SEEN + 2))
    normal = torch.distributions.Normal(head.closed(inputs), torch.exp(head.log_variance / 2))
    expected = -normal.log_prob(target)[:10, :SEEN].mean()
    assert torch.isclose(head.loss(None, inputs, target, present), expected, rtol=1e-5)
    assert head.loss(None, inputs, target, torch.zeros_like(present)) == 0


def test_it_learns_what_the_ridge_cannot_and_the_actions_stay(ridge: Ridge, tables: tuple[Table, ...]) -> None:
    train, valid, _ = tables
    head = head_of(ridge)
    descend(
        head, lambda rows: head.loss(None, *train.batch(rows)), train.all_rows, steps=250, batch=128, learning_rate=3e-3
    )
    errors = head.calibrate([(None, *valid.batch(valid.all_rows))])
    assert errors[0][1] < 0.3 * errors[0][0] and head.gate[0] > 0.8
    rivals = {"copy": CopyLast(ridge.space), "ridge": ridge, "head": GroundedPredictor(head, ridge)}
    report = score(ridge.space, rivals, pendulum_episodes()[12:])
    found = {name: r["proprio"].nmse for name, r in report.items()}
    assert found["head"] < 0.3 * found["ridge"] < 0.3 * found["copy"], found
    inputs = torch.from_numpy(inputs_of(ridge.space, pendulum_episodes()[12]))
    assert torch.equal(head(None, inputs)[:, SEEN:], inputs[:, SEEN : SEEN + 2])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 9999), st.floats(0.01, 30))
def test_a_calibrated_head_is_never_below_the_ridge(seed: int, size: float) -> None:
    episodes, space = pendulum_episodes(), pendulum_space()
    ridge = Ridge.fit(space, episodes[:2], episodes[2:3])
    table = Table.of(space, episodes[3:5])
    torch.manual_seed(seed)
    head = GroundedHead(space, ridge, 0, hidden=16)
    nn.init.normal_(head.outer.weight, std=size)  # any correction, mostly nonsense
    batch = table.batch(table.all_rows)
    errors = head.calibrate([(None, *(x[:100] for x in batch)), (None, *(x[100:] for x in batch))])
    with torch.no_grad():
        inputs, target, _ = batch
        alone = float((target - head.closed(inputs)).double().square()[:, :SEEN].sum())
        gated = float((target - head(None, inputs)).double().square()[:, :SEEN].sum())
    assert 0 <= head.gate[0] <= 1 and gated <= alone * (1 + 1e-5)
    assert np.isclose(errors[0][0], alone, rtol=1e-4) and np.isclose(errors[0][1], gated, rtol=1e-3)


def test_the_hidden_state_is_used(ridge: Ridge, tables: tuple[Table, ...]) -> None:
    """What a hidden state alone knows (here the answer) gets through."""
    train = tables[0]
    head = head_of(ridge, width=SEEN + 2)

    def loss(rows: np.ndarray) -> Tensor:
        inputs, target, present = train.batch(rows)
        return head.loss(target, inputs, target, present)

    nats: list[float] = []
    descend(head, loss, train.all_rows, steps=150, batch=128, learning_rate=3e-3, report=lambda _, x: nats.append(x))
    blind = descend(
        other := head_of(ridge), lambda rows: other.loss(None, *train.batch(rows)), train.all_rows,
        steps=150, batch=128, learning_rate=3e-3,
    )  # fmt: skip
    inputs, target, _ = train.batch(train.all_rows)
    with torch.no_grad():
        told, untold = ((target - h(x, inputs)).square()[:, :SEEN].mean() for h, x in ((head, target), (blind, None)))
    assert told < untold and nats[-1] < nats[0]


def test_the_same_seed_gives_the_same_head(ridge: Ridge, tables: tuple[Table, ...]) -> None:
    train = tables[0]
    made = []
    for seed in (1, 1, 2):
        head = head_of(ridge)
        descend(head, lambda rows, h=head: h.loss(None, *train.batch(rows)), train.all_rows, steps=6, seed=seed)
        made.append(torch.cat([p.detach().ravel() for p in head.parameters()]))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


# ---------------------------------------------------------------------- data
@pytest.mark.parametrize("ahead", [False, True])
def test_a_table_gives_what_the_ridge_is_given(ahead: bool) -> None:
    space, episodes = pendulum_space(ahead), pendulum_episodes()[:3]
    if ahead:  # tracks stand in the order of the space, whatever the layout
        assert space.layout.place("action") < space.layout.place("proprio")
    table = Table.of(space, episodes)
    rows = table.all_rows
    assert len(rows) == 3 * (STEPS - 1)
    inputs, target, present = table.batch(rows)
    assert np.array_equal(inputs.numpy(), np.concatenate([inputs_of(space, e) for e in episodes]))
    assert np.array_equal(target.numpy(), np.concatenate([e.values[1:] for e in episodes])) and present.all()
    found = table.rows("swing-1", np.array([-1, 0, 199_999_999, 200_000_000, (STEPS - 1) * 200_000_000]))
    assert found.tolist() == [-1, STEPS, STEPS, STEPS + 1, -1]
    assert table.rows("none", np.array([0])).tolist() == [-1]
    with pytest.raises(InputError, match="no episode has a step"):
        Table.of(space, [])


def test_where_states_end() -> None:
    time_ns = np.array([0, 0, 3, 9, 10, 12, 25, 0, 0, 11, 0, 0])
    document = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, -1, -1])
    # The last steps of documents are not followed by one of the same; the second document's step 0 began at -5.
    assert ends_of_steps(time_ns, document, 10, np.array([0, -5])).tolist() == [3, 5, 8]


def test_states_end_where_a_tick_follows(store: object) -> None:
    from pantok.formats.store import Store
    from pantok.layout import Layout, arrange
    from pantok.world_model.step_grid import StepGrid

    home = Store.open(str(store))
    stream, layout = home.read("film-01"), Layout(step_s=0.1)
    sequence, steps = arrange(stream, layout, home.vocabulary), StepGrid.of(stream, layout)
    ends = ends_of_steps(sequence.time_ns, np.zeros(len(sequence), int), steps.width_ns, np.array([steps.first_ns]))
    ticks = np.flatnonzero(sequence.ids == home.vocabulary.control("tick"))
    assert len(ends) > 2 and np.array_equal(ends + 1, ticks[1:])


# ---------------------------------------------------------------------- collapse
def test_effective_rank_of_known_spectra() -> None:
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.normal(size=(200, 6)) - 0)[0]
    u = np.linalg.qr(u - u.mean(0))[0]
    v = np.linalg.qr(rng.normal(size=(8, 8)))[0][:6]
    assert np.isclose(effective_rank(u @ v), 6)
    assert np.isclose(effective_rank(u[:, :1] @ v[:1] * 1e-3 + 5), 1, atol=1e-6)
    share = np.array([0.5, 0.25, 0.25])
    assert np.isclose(effective_rank((u[:, :3] * share) @ v[:3]), math.exp(-(share * np.log(share)).sum()))
    assert effective_rank(np.full((50, 4), 3.7)) == 0


def test_the_probe_finds_what_is_linear_and_only_that() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(600, 5))
    assert measure_collapse(seen @ rng.normal(size=(5, 9)), seen).probe_r2 > 0.999
    assert abs(measure_collapse(rng.normal(size=(600, 9)), seen).probe_r2) < 0.1
    half = measure_collapse(seen[:, :1], seen)
    assert 0.1 < half.probe_r2 < 0.3 and half.effective_rank == pytest.approx(1)
    gone = measure_collapse(np.zeros((600, 9)), seen)
    assert gone.least_std == 0 and gone.probe_r2 < 0.01
    # Fitted on others: a map that is another one there finds nothing.
    other = (-seen, seen)
    assert measure_collapse(seen, seen, fitted_on=other).probe_r2 < -2


def test_a_plain_latent_loss_collapses_and_regularised_ones_do_not(tables: tuple[Table, ...]) -> None:
    """The same encoder, predictor, data and steps: the loss that falls the furthest has learned the least."""
    train, _, test = tables

    def split(table: Table, rows: np.ndarray) -> tuple[Tensor, ...]:
        inputs, target, _ = table.batch(rows)
        width = SEEN + 2
        return inputs[:, :SEEN], inputs[:, width : width + SEEN], inputs[:, SEEN:width], target[:, :SEEN]

    found, fell = {}, {}
    for kind in KINDS:
        torch.manual_seed(0)
        head = LatentHead(0, SEEN, 2, LatentConfig(kind=kind, dims=8, width=64, projections=24))
        losses: list[float] = []
        generator = torch.Generator().manual_seed(0)

        def loss(rows: np.ndarray, h: LatentHead = head, g: torch.Generator = generator) -> Tensor:
            return h.loss(None, *split(train, rows), generator=g)

        descend(
            head, loss, train.all_rows, steps=200, batch=128, learning_rate=2e-3, after=head.after_step,
            report=lambda _, x, to=losses: to.append(x),
        )  # fmt: skip
        with torch.no_grad():
            seen = [split(t, t.all_rows)[0] for t in (train, test)]
            codes = [head.encode(s).numpy() for s in seen]
        found[kind] = measure_collapse(codes[1], seen[1].numpy(), (codes[0], seen[0].numpy()))
        fell[kind] = losses[-1] / losses[0]
    assert fell["plain"] < 0.02, fell
    assert found["plain"].probe_r2 < 0.6 and found["plain"].least_std < 0.02, found["plain"]
    for kind in ("ema", "vicreg", "sigreg", "generative"):
        assert found[kind].probe_r2 > 0.8 and found[kind].least_std > 0.1, (kind, found[kind])
    # Three numbers move the pendulum; noise of 0.03 is all else.
    assert found["generative"].probe_r2 > 1 - 20 * NOISE**2


def test_vicreg_of_hand_made_codes() -> None:
    codes = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]) * 0.3
    variance, covariance = vicreg(codes)
    # Variance 4 * 0.09 / 3 = 0.12 in each of two dimensions, which are the same one.
    assert torch.isclose(variance, torch.tensor(1 - math.sqrt(0.12 + 1e-4)), atol=1e-5)
    assert torch.isclose(covariance, torch.tensor(2 * 0.12**2 / 2), atol=1e-6)


def test_sigreg_is_small_for_gaussians_and_grows_for_others() -> None:
    torch.manual_seed(0)
    sizes = (256, 4096)
    gauss = [float(sigreg(torch.randn(n, 16), 64)) for n in sizes]
    assert all(0.5 < g < 1.6 for g in gauss)
    makers: list[Callable[[int], Tensor]] = [
        lambda n: torch.zeros(n, 16),
        lambda n: 0.3 * torch.randn(n, 16),
        lambda n: torch.randn(n, 1).expand(n, 16),
        lambda n: torch.randn(n, 16) + 0.5,
    ]
    for make in makers:
        small, large = (float(sigreg(make(n), 64)) for n in sizes)
        assert large > 4 * gauss[1] and large > 5 * small


def test_sigreg_is_the_integral_that_it_says() -> None:
    codes = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    t = np.linspace(-3, 3, 20_001)
    x = codes.numpy()
    empirical = np.exp(1j * x * t).mean(0)
    slow = 40 * np.trapezoid(np.abs(empirical - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2), t)
    assert np.isclose(float(sigreg(codes, projections=2, knots=1001)), slow, rtol=1e-4)


def test_objectives_that_there_are_not() -> None:
    with pytest.raises(OptionError, match="objective jepa: is not there"):
        LatentConfig(kind="jepa")
    with pytest.raises(OptionError, match="is no share"):
        LatentConfig(ema=1.0)


# ---------------------------------------------------------------------- Theorem 2
def losses_of(h: nn.Module, g: nn.Module, f: nn.Module, o: Tensor, after: Tensor) -> tuple[float, float, float]:
    with torch.no_grad():
        guess = f(h(o))
        latent = (guess - h(after)).norm(dim=1).mean()
        generative = (g(guess) - after).norm(dim=1).mean()
        inconsistency = (h(g(guess)) - guess).norm(dim=1).mean()
    return float(latent), float(generative), float(inconsistency)


def linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return layer


def test_theorem_2_as_printed_is_false() -> None:
    """h(o) = 2o, g(s) = s/2: encoding undoes decoding, and yet the latent loss is twice the generative one."""
    h, g = linear(torch.tensor([[2.0]])), linear(torch.tensor([[0.5]]))
    o, after = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    latent, generative, inconsistency = losses_of(h, g, nn.Identity(), o, after)
    assert (latent, generative, inconsistency) == (2, 1, 0)
    assert latent > generative + inconsistency
    assert latent <= latent_bound(generative, lipschitz(h), inconsistency)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 99_999), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 20))
def test_the_corrected_bound_holds(seed: int, seen: int, coded: int, size: float) -> None:
    torch.manual_seed(seed)
    h = nn.Sequential(nn.Linear(seen, 8), nn.SiLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, coded)).double()
    with torch.no_grad():
        for p in h.parameters():
            p.mul_(size)
    g, f = (nn.Sequential(nn.Linear(coded, 8), nn.Tanh(), nn.Linear(8, n)).double() for n in (seen, coded))
    o, after = torch.randn(2, 50, seen, dtype=torch.float64)
    latent, generative, inconsistency = losses_of(h, g, f, o, after)
    assert latent <= latent_bound(generative, lipschitz(h), inconsistency) * (1 + 1e-9)
    # The constant bounds every step of h.
    with torch.no_grad():
        assert ((h(o) - h(after)).norm(dim=1) <= lipschitz(h) * (o - after).norm(dim=1) * (1 + 1e-9)).all()


def test_a_constant_encoder_has_no_latent_loss_at_all() -> None:
    """Proposition 1: why a latent loss alone proves nothing, and the bound has no converse."""
    h, g = linear(torch.zeros(2, 3)), linear(torch.zeros(3, 2))
    o, after = torch.randn(2, 20, 3, dtype=torch.float64)
    latent, generative, _ = losses_of(h, g, nn.Identity(), o, after)
    assert latent == 0 and generative > 1


def test_layers_whose_slope_is_not_known() -> None:
    with pytest.raises(TypeError, match="no bound is known for LayerNorm"):
        lipschitz(nn.LayerNorm(3))


def test_a_head_starts_from_one_without_a_backbone(ridge: Ridge, tables: tuple[Table, ...]) -> None:
    train, valid, test = tables
    alone = GroundedHead.alone(ridge.space, ridge, train, valid)
    head = GroundedHead(ridge.space, ridge, 24, start=alone)
    inputs, target, _ = test.batch(test.all_rows)
    hidden = torch.randn(len(inputs), 24)
    assert torch.equal(head(hidden, inputs), alone(None, inputs)) and not torch.equal(
        alone(None, inputs), head.closed(inputs)
    )
    errors = [float((g - target)[:, :SEEN].square().mean()) for g in (alone(None, inputs), head.closed(inputs))]
    assert errors[0] < 0.5 * errors[1]
    head.losses(hidden, inputs, target, torch.ones(len(inputs), 2, dtype=torch.bool)).sum().backward()
    assert all(p.grad is None for p in alone.parameters()) and head.outer.bias.grad is not None
    again = GroundedHead.alone(ridge.space, ridge, train, valid)
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), again.state_dict().values(), strict=True))
