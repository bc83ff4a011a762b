"""What is known before each state of a future of its observation, decoded as the future comes.

What is unusual: a simulation looks at what it has said. As soon as a state is whole it is decoded, and what the last
two observations, their motion and the next actions foretell goes into the elements that say the next one, as in
training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pantok.stream import TokenStream
from pantok.world_model.baselines import known_ahead
from pantok.world_model.grounding import FORETOLD, action_inputs
from pantok.world_model.inputs import Foretold
from pantok.world_model.observations import ObservationSpace
from pantok.world_model.step_grid import StepGrid


class Foreteller:
    """Of one future. so_far: the stream as far as it is known. Steps count from the episode's first."""

    def __init__(self, space: ObservationSpace, so_far: Callable[[], TokenStream]) -> None:
        self._space, self._so_far = space, so_far
        self._steps = StepGrid.of(so_far(), space.layout)
        self._ahead, self._actions = known_ahead(space), action_inputs(space)
        self._early = [space.names[k] for k in sorted(set(space.of_track[self._ahead].tolist()))]
        self._seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._inputs: dict[int, np.ndarray] = {}

    def step(self, role: int, time_ns: int) -> int | None:
        """The step that an element helps to say, if it is one that is foretold."""
        step = (time_ns - self._steps.first_ns) // self._steps.width_ns
        return step if role in FORETOLD and step >= 1 else None

    def foretold(self, steps: Sequence[int | None]) -> Foretold:
        """For elements (1, L) of these steps. All that comes before the last of them must be known."""
        known = sorted({s for s in steps if s is not None})
        self._look(known)
        place = {s: k for k, s in enumerate(known)}
        row = torch.tensor([[-1 if s is None else place[s] for s in steps]])
        width = len(self._actions)
        inputs = np.stack([self._inputs[s] for s in known]) if known else np.zeros((0, width), np.float32)
        return Foretold(torch.from_numpy(inputs), row, self._actions)

    def forget(self, first: int) -> None:
        """What is only needed for steps before this one."""
        self._seen = {s: v for s, v in self._seen.items() if s >= first - 2}
        self._inputs = {s: v for s, v in self._inputs.items() if s >= first}

    def _look(self, steps: Sequence[int]) -> None:
        missing = [s for s in steps if s not in self._inputs]
        if not missing:
            return
        stream = self._so_far()
        wanted = {max(s - back, 0) for s in missing for back in (1, 2)} - self._seen.keys()
        if wanted:
            first, last = min(wanted), max(wanted) + 1
            found = self._space.vectors(stream, first=first, last=last)
            assert found.moved is not None
            self._seen |= {first + k: row for k, row in enumerate(zip(found.values, found.moved, strict=True))}
        for s in missing:
            now, moved = self._seen[s - 1]
            parts = [now, self._seen[max(s - 2, 0)][0]]
            if self._early:
                early = self._space.vectors(stream, first=s, last=s + 1, only=self._early)
                parts.append(early.values[0][self._ahead])
            self._inputs[s] = np.concatenate([*parts, moved]).astype(np.float32)
