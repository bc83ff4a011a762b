"""The heads of continuous latents: densities against what is known, samples against densities, and the API's laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pantok.errors import OptionError
from pantok.world_model.flow import FlowConfig, FlowHead, GaussianHead, bits, dithered, make_head


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(width: int, dims: int, seed: int, **config: object) -> FlowHead:
    """A head whose velocity is far from zero."""
    torch.manual_seed(seed)
    head = FlowHead(width, dims, FlowConfig(width=32, **config))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.25 * torch.randn(parameter.shape, generator=seeded(seed)))
    return head


def trained(head: FlowHead | GaussianHead, draw, steps: int, seed: int = 0) -> None:
    generator = seeded(seed)
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, 2 * (1 - s / steps)))
    for _ in range(steps):
        loss = head.loss(*draw(256, generator), generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def linear_gaussian(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """h ~ N(0, I2); x | h ~ N(3 + A h, diag(0.5, 2))."""
    hidden = torch.randn(count, 2, generator=generator)
    mean = 3 + hidden @ torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    return hidden, mean + torch.randn(count, 2, generator=generator) * torch.tensor([0.5, 2.0])


def two_modes(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """x | h ~ half N(h + 1, 0.2), half N(h - 1, 0.2)."""
    hidden = torch.randn(count, 1, generator=generator)
    side = torch.randint(2, (count, 1), generator=generator) * 2.0 - 1
    return hidden, hidden + side + 0.2 * torch.randn(count, 1, generator=generator)


def two_modes_nats(hidden: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    parts = [-0.5 * ((values - hidden - s) / 0.2) ** 2 - math.log(0.2) - 0.5 * math.log(2 * math.pi) for s in (1, -1)]
    return torch.logaddexp(*parts)[:, 0] - math.log(2)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("from_gaussian", [True, False])
def test_the_density_is_the_jacobian_of_the_flow(dims: int, from_gaussian: bool) -> None:
    """Against autograd's determinant of the whole map from value to noise, in small steps of another rule."""
    head = stirred(4, dims, 1, from_gaussian=from_gaussian)
    head.fit_scale(5 + 3 * torch.randn(100, dims, generator=seeded(3)))
    hidden, values = torch.randn(3, 4, generator=seeded(4)), 5 + 3 * torch.randn(3, dims, generator=seeded(5))
    found = head.log_density(hidden, values, 16)

    def to_noise(value: torch.Tensor, row: int) -> torch.Tensor:
        x, given = head.normalised(value)[None], head.velocity.of_hidden(hidden[row : row + 1])
        if head.base is not None:
            mean, log_deviation = head.base.moments_of(hidden[row : row + 1])
            x = (x - mean) / log_deviation.exp()
        count = 48
        for step in range(count):
            t = torch.tensor([1 - step / count])
            middle = x - head.velocity(x, t, given) / (2 * count)
            x = x - head.velocity(middle, t - 0.5 / count, given) / count
        return x[0]

    for row in range(3):
        matrix = torch.autograd.functional.jacobian(lambda v, row=row: to_noise(v, row), values[row])
        noise = to_noise(values[row], row).detach()
        expected = -0.5 * float(noise.square().sum()) - 0.5 * dims * math.log(2 * math.pi)
        expected += float(torch.linalg.slogdet(matrix)[1])
        assert float(found[row]) == pytest.approx(expected, abs=5e-3)


def test_the_density_integrates_to_one_and_converges_in_steps() -> None:
    head = stirred(4, 1, 7)
    hidden = torch.randn(1, 4, generator=seeded(1)).expand(2001, -1)
    grid = torch.linspace(-40, 40, 2001)[:, None]
    log_densities = [head.log_density(hidden, grid, steps) for steps in (2, 16, 48)]
    assert float(log_densities[-1].exp().sum() * 0.04) == pytest.approx(1, abs=2e-3)
    likely = log_densities[-1] > -8
    errors = [float((found - log_densities[-1]).abs()[likely].max()) for found in log_densities[:2]]
    assert errors[1] < errors[0] / 20 and errors[1] < 0.01


def test_samples_follow_the_density() -> None:
    head = stirred(4, 1, 7)
    hidden = torch.randn(1, 4, generator=seeded(1)).expand(10_000, -1)
    drawn = head.sample(hidden, 32, seeded(2))[:, 0].sort().values.numpy()
    grid = np.linspace(-40, 40, 2001)
    density = head.log_density(hidden[:2001], torch.from_numpy(grid).float()[:, None], 16).exp().numpy()
    cumulative = np.interp(drawn, grid, np.cumsum(density) * 0.04)
    assert np.abs(cumulative - (np.arange(10_000) + 0.5) / 10_000).max() < 0.02  # Kolmogorov-Smirnov; 0.0115 at 1%


@pytest.mark.parametrize("from_gaussian", [True, False])
def test_a_known_gaussian_conditional_is_learned(from_gaussian: bool) -> None:
    torch.manual_seed(0)
    head = FlowHead(2, 2, FlowConfig(width=48, from_gaussian=from_gaussian))
    head.fit_scale(linear_gaussian(4000, seeded(9))[1])
    untrained_hidden, untrained_values = linear_gaussian(2000, seeded(8))
    before = head.log_density(untrained_hidden, untrained_values, 8).mean()
    trained(head, linear_gaussian, 150)
    hidden, values = linear_gaussian(2000, seeded(8))
    mean = 3 + hidden @ torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    true = torch.distributions.Normal(mean, torch.tensor([0.5, 2.0])).log_prob(values).sum(1)
    gap = float((true - head.log_density(hidden, values, 8)).mean())
    shuffled = float((true - head.log_density(hidden.roll(1, 0), values, 8)).mean())
    assert -0.02 < gap < (0.08 if from_gaussian else 0.15)
    assert float(true.mean() - before) > 0.5 and shuffled > 1


def test_the_flow_tells_two_modes_apart_and_the_gaussian_cannot() -> None:
    gaps = {}
    for kind in ("flow", "gaussian"):
        torch.manual_seed(0)
        head = make_head(1, 1, FlowConfig(head=kind, width=48))
        head.fit_scale(two_modes(4000, seeded(9))[1])
        trained(head, two_modes, 200)
        hidden, values = two_modes(2000, seeded(8))
        gaps[kind] = float((two_modes_nats(hidden, values) - head.log_density(hidden, values, 8)).mean().detach())
        if kind == "flow":
            residual = (head.sample(hidden, 8, seeded(1)) - hidden)[:, 0]
            assert abs(float((residual > 0).float().mean()) - 0.5) < 0.05
            assert float((residual.abs() < 0.4).float().mean()) < 0.1  # a Gaussian of the same moments: 0.31
    best_gaussian = 0.5 * math.log(1.04 / 0.04) - math.log(2)  # its differential entropy less the source's
    assert gaps["gaussian"] == pytest.approx(best_gaussian, abs=0.1)
    assert -0.05 < gaps["flow"] < 0.25 < gaps["gaussian"]


@pytest.mark.parametrize("kind", ["flow", "gaussian"])
def test_the_same_generator_gives_the_same_and_batches_do_not_matter(kind: str) -> None:
    torch.manual_seed(0)
    head = make_head(4, 3, FlowConfig(head=kind, width=16))
    hidden, values = torch.randn(7, 4, generator=seeded(1)), torch.randn(7, 3, generator=seeded(2))
    assert torch.equal(head.sample(hidden, 3, seeded(5)), head.sample(hidden, 3, seeded(5)))
    assert not torch.equal(head.sample(hidden, 3, seeded(5)), head.sample(hidden, 3, seeded(6)))
    assert torch.equal(head.loss(hidden, values, seeded(5)), head.loss(hidden, values, head.noise(7, seeded(5))))
    still = head.sample(hidden, 3, seeded(5), temperature=0.0)
    assert torch.equal(still, head.sample(hidden, 3, seeded(6), temperature=0.0))
    parts = torch.cat([head.log_density(hidden[:2], values[:2], 4), head.log_density(hidden[2:], values[2:], 4)])
    torch.testing.assert_close(parts, head.log_density(hidden, values, 4), atol=1e-5, rtol=0)
    assert head.log_density(hidden[:0], values[:0], 4).shape == (0,)


@pytest.mark.parametrize("kind", ["flow", "gaussian"])
def test_densities_are_in_units_of_the_data(kind: str) -> None:
    """The same data in millimetres costs the same bits at the same step."""
    torch.manual_seed(0)
    head = make_head(2, 2, FlowConfig(head=kind, width=16))
    hidden, metres = linear_gaussian(500, seeded(1))
    head.fit_scale(metres)
    first = bits(head.log_density(hidden, metres, 4), 0.001, 2)
    head.fit_scale(1000 * metres)
    torch.testing.assert_close(bits(head.log_density(hidden, 1000 * metres, 4), 1.0, 2), first, atol=1e-2, rtol=0)


def test_a_dimension_that_never_moves_and_a_sharp_value_stay_finite() -> None:
    head = FlowHead(2, 3, FlowConfig(width=16))
    values = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0]])
    head.fit_scale(values)
    assert torch.isfinite(head.log_density(torch.zeros(2, 2), values, 4)).all()
    head.fit_scale(torch.ones(4, 3))
    assert torch.isfinite(head.normalised(torch.ones(2, 3))).all()
    steps = dithered(torch.zeros(10_000), 0.5, seeded(1))
    assert float(steps.abs().max()) <= 0.25 and float(steps.std()) == pytest.approx(0.5 / 12**0.5, rel=0.02)


def test_what_cannot_be_is_refused_by_name() -> None:
    for wrong in ({"head": "cauchy"}, {"draws": 0}, {"floor": 0.0}, {"width": 1}):
        with pytest.raises(OptionError):
            FlowConfig(**wrong)
    with pytest.raises(OptionError, match="1 to 32"):
        FlowHead(8, 33)
    with pytest.raises(OptionError, match="at least 1"):
        FlowHead(8, 2).sample(torch.zeros(1, 8), 0, seeded(0))
    with pytest.raises(OptionError, match="positive"):
        bits(torch.zeros(1), 0.0, 1)
