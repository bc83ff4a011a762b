"""A pendulum that is pushed, seen through a linear map: an observation whose next one no linear predictor knows."""

from __future__ import annotations

from functools import cache

import numpy as np

from pantok.layout import Layout
from pantok.vocabulary import Vocabulary
from pantok.world_model.observations import ObservationConfig, Observations, ObservationSpace, TrackSpace

STEPS, SEEN = 120, 12
NOISE = 0.03
"""Of each dimension that is seen, in standard deviations."""


@cache
def pendulum_space(action_first: bool = False) -> ObservationSpace:
    """`proprio`, 12 dimensions, and `action`, 2."""
    parts = [
        TrackSpace(name, "numeric", np.zeros(n, np.float32), np.ones(n, np.float32))
        for name, n in (("proprio", SEEN), ("action", 2))
    ]
    layout = Layout(tracks=("action*", "*")) if action_first else Layout()
    return ObservationSpace(ObservationConfig(), layout, Vocabulary.build({}), parts)


@cache
def pendulum_episodes(count: int = 16) -> tuple[Observations, ...]:
    """Episodes of 120 steps; the action of a row moves what the next row sees."""
    rng = np.random.default_rng(7)
    view = rng.normal(size=(3, SEEN)) / np.sqrt(3)
    found = []
    for episode in range(count):
        angle, speed, push = rng.uniform(-np.pi, np.pi), 0.0, 0.0
        rows = np.empty((STEPS, SEEN + 2), np.float32)
        for k in range(STEPS):
            push = 0.7 * push + 0.3 * rng.normal(0, 6)
            state = np.array([np.cos(angle) * 1.4, np.sin(angle) * 1.4, speed / 3])
            rows[k] = [*(state @ view + rng.normal(0, NOISE, SEEN)), push / 3, push / 3]
            for _ in range(10):  # ten steps of 0.02 s
                speed += 0.02 * (-6 * np.sin(angle) - 0.3 * speed + push)
                angle += 0.02 * speed
        times = np.arange(STEPS, dtype=np.int64) * 200_000_000
        found.append(Observations(f"swing-{episode}", rows, np.ones((STEPS, 2), bool), times))
    return tuple(found)
