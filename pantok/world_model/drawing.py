"""How a future draws its next id: which kind speaks, and which of its ids.

What is unusual: at temperature 0 the best guess is taken and not the likeliest code. Among a thousand codes of which
none is likely the likeliest is mostly wrong, by as much as a code can say; the one of least expected squared error is
near all of those that may come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pantok.errors import OptionError
from pantok.world_model.features import shapes_of
from pantok.world_model.model import WorldModel


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """temperature, top_p: of codes; the switch is drawn as it is. At temperature 0 the code of least expected squared
    error is taken, the likeliest where codes have no shape. seed: of the first future. flow_steps: of the
    solver that draws a latent. longest: most ids of a unit, in multiples of the longest that was met."""

    temperature: float = 1.0
    top_p: float = 0.95
    seed: int = 0
    flow_steps: int = 8
    longest: float = 1.5

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.flow_steps < 1 or self.longest < 1:
            raise OptionError("simulate", "temperature, top_p, flow_steps or longest is out of range", "see --help")


class Drawer:
    """Draws for one future; `generator` is on the CPU, so that a seed gives the same future on every device.

    hidden: (1, width), the state that the next id follows from.
    """

    def __init__(self, model: WorldModel, config: SimulateConfig) -> None:
        self.generator = torch.Generator().manual_seed(config.seed)
        self._model, self._config = model, config
        self._shapes: dict[int, Tensor | None] = {}

    def within(self, hidden: Tensor, allowed: Mapping[int, Tensor | None], may_end: bool) -> int | None:
        """The id of what comes next within a unit, or None where it ends. allowed: kinds, and which ids of them, bool
        (ids,), None for all. may_end: whether the unit can end here; the switch is asked where there is a choice."""
        kinds = sorted(allowed)
        if not kinds:
            return None
        if len(kinds) == 1 and not may_end:
            return self.code(hidden, kinds[0], allowed[kinds[0]])
        gate = self._model.switch.log_gate(hidden)[0].exp().cpu()
        for kind, which in allowed.items():
            if which is not None:
                logits, _ = self._model.switch.logits(hidden, kind)
                gate[kind] *= F.softmax(logits[0].float().cpu(), -1)[which].sum()
        inside = gate[kinds] if may_end else gate[kinds] / gate[kinds].sum()
        point = float(torch.rand((), generator=self.generator))
        for kind, top in zip(kinds, torch.cumsum(inside, 0).tolist(), strict=True):
            if point < top:
                return self.code(hidden, kind, allowed[kind])
        return None if may_end else self.code(hidden, kinds[-1], allowed[kinds[-1]])

    def code(self, hidden: Tensor, kind: int, which: Tensor | None) -> int:
        """An id of `kind`. which: bool (ids,), those that are allowed, None for all."""
        logits, first = self._model.switch.logits(hidden, kind)
        row = logits[0].float().cpu()
        if which is not None:
            row = row.masked_fill(~which, -torch.inf)
        if self._config.temperature == 0:
            return first + self._plainest(kind, row)
        p = F.softmax(row / self._config.temperature, -1)
        ordered, order = torch.sort(p, descending=True, stable=True)
        kept = torch.cumsum(ordered, 0) - ordered < self._config.top_p
        chosen = torch.multinomial(ordered * kept, 1, generator=self.generator)
        return first + int(order[chosen])

    def _plainest(self, kind: int, logits: Tensor) -> int:
        """The code of least expected squared error, where codes have a shape; else the likeliest."""
        if kind not in self._shapes:
            self._shapes[kind] = shapes_of(self._model.vocabulary, self._model.kinds.starts[kind])
        shapes = self._shapes[kind]
        if shapes is None:
            return int(logits.argmax())
        p = F.softmax(logits, -1)
        error = shapes.square().sum(1) - 2 * shapes @ (p @ shapes)
        return int(error.masked_fill(p == 0, torch.inf).argmin())
