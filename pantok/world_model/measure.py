"""What a model knows of recordings it has not seen: bits a second of experience, by kind and by role.

Bits are those of the codes, given everything before them in the window and the actions, as an arithmetic coder with
this model would spend them. Continuous latents are reported apart: their bits hold at a stated step only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pantok.layout import ROLES
from pantok.world_model.inputs import Ends, Inputs
from pantok.world_model.intervals import resampled
from pantok.world_model.model import WorldModel
from pantok.world_model.switch import gate_report

BITS = 1 / math.log(2)
LATENT_STEPS = 64
"""Bits of a latent are those of saying it to a 64th of its standard deviation."""


@dataclass
class Measured:
    """Sums over what was measured. by_kind, by_role: {name: (elements, bits)}; by_track: of each track by kind.
    windows: (elements, bits) of each, for confidence intervals; observed: the same of what has the role of an
    observation. latents: {modality: (values, bits)}, to a step of
    `1 / LATENT_STEPS` of a value's deviation. gate: (log gate (N, K), kinds (N,), windows (N,)) of each batch, kinds of
    `names`."""

    elements: float = 0
    bits: float = 0.0
    by_kind: dict[str, list[float]] = field(default_factory=dict)
    by_role: dict[str, list[float]] = field(default_factory=dict)
    by_track: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    windows: list[tuple[float, float]] = field(default_factory=list)
    observed: list[tuple[float, float]] = field(default_factory=list)
    latents: dict[str, list[float]] = field(default_factory=dict)
    gate: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    names: tuple[str, ...] = ()

    def report(self, elements_per_second: float | None) -> dict[str, Any]:
        """elements_per_second: predicted elements of a second of experience, so that bits become bits a second; None
        where no time passes (text without times), and then bits a second are None, too."""
        each = self.bits / max(1.0, self.elements)
        elements, bits = np.array([(e, b) for e, b in self.windows if e]).reshape(-1, 2).T

        def told(scale: float | None) -> tuple[float | None, list[float] | None]:
            rate = None if scale is None else resampled(bits, elements, scale)
            return (None, None) if rate is None else (rate["value"], rate["95"] or [rate["value"]] * 2)

        a_second, a_second_95 = told(elements_per_second)
        return {
            "bits_per_second": a_second,
            "bits_per_second_95": a_second_95,
            "bits_per_element": each,
            "bits_per_element_95": told(1.0)[1],
            "elements": self.elements,
            "windows": len(self.windows),
            "by_kind": self._shares(self.by_kind, elements_per_second),
            "by_role": self._shares(self.by_role, elements_per_second),
            "by_track": self._tracks(elements_per_second),
            "latents": {
                modality: {"bits_per_value": bits / count, "values": count, "steps_per_deviation": LATENT_STEPS}
                for modality, (count, bits) in sorted(self.latents.items())
            },
            "switch": self._switch(),
        }

    def _tracks(self, elements_per_second: float | None) -> dict[str, dict[str, Any]]:
        """Of each track, and in `levels` of each kind of its ids; what belongs to none is `steps`."""
        found: dict[str, dict[str, Any]] = {}
        for track, kinds in sorted(self.by_track.items()):
            whole = {track: [sum(n for n, _ in kinds.values()), sum(b for _, b in kinds.values())]}
            levels = self._shares(kinds, elements_per_second)
            found[track] = {**self._shares(whole, elements_per_second)[track], "levels": levels}
        return found

    def _switch(self) -> dict[str, Any]:
        """How well the gate knows what comes: its entropy, what the kinds cost, and its calibration error."""
        if not self.gate:
            return {}
        log_gate, kinds, windows = (torch.cat(part) for part in zip(*self.gate, strict=True))
        found = gate_report(self.names, log_gate, kinds, windows)
        return {
            "entropy_bits": found.entropy_bits,
            "cross_entropy_bits": found.cross_entropy_bits,
            "calibration_error": found.calibration_error,
            "calibration_error_95": None if found.calibration_95 is None else list(found.calibration_95),
        }

    def _shares(
        self, sums: Mapping[str, list[float]], elements_per_second: float | None
    ) -> dict[str, dict[str, float | None]]:
        return {
            name: {
                "share": count / self.elements,
                "bits_per_element": bits / count,
                "bits_per_second": None if elements_per_second is None else bits / self.elements * elements_per_second,
            }
            for name, (count, bits) in sorted(sums.items())
        }


def measure(model: WorldModel, batches: Iterable[Inputs], states: list[tuple[Ends, Tensor]] | None = None) -> Measured:
    """Runs the model over batches, teacher-forced. states: takes the ends of each batch's states, and h (N, H)."""
    model.eval()
    total = Measured()
    device = next(model.parameters()).device
    with torch.no_grad():
        for inputs in batches:
            inputs = inputs.to(device)
            hidden = model.hidden(inputs)
            if states is not None and inputs.ends is not None and len(inputs.ends):
                after = hidden.reshape(-1, hidden.shape[-1])[inputs.ends.place]
                states.append((inputs.ends.to("cpu"), after.float().cpu()))
            bits = -model.log_probs(inputs, hidden).double() * BITS
            kinds, predict = model.kinds_of(inputs), inputs.predict
            total.elements += int(predict.sum())
            total.bits += float(bits.sum())
            for names, which, sums in (
                (model.kinds.names, kinds, total.by_kind), (ROLES, inputs.role, total.by_role),
            ):  # fmt: skip
                count = torch.bincount(which[predict], minlength=len(names)).tolist()
                spent = torch.bincount(which[predict], bits[predict], minlength=len(names)).tolist()
                for name, n, b in zip(names, count, spent, strict=True):
                    if n:
                        found = sums.setdefault(name, [0, 0.0])
                        found[0] += n
                        found[1] += b
            _by_track(total, inputs, bits, kinds, model.kinds.names)
            total.names = model.kinds.names
            before = hidden[:, :-1][predict[:, 1:]]
            gate = model.switch.log_gate(before, model.admitted(inputs))
            of = len(total.windows) + predict[:, 1:].nonzero()[:, 0]
            total.gate.append((gate.cpu(), kinds[:, 1:][predict[:, 1:]].cpu(), of.cpu()))
            for modality, nats, scale in model.latent_nats(inputs, hidden):
                spent_on = total.latents.setdefault(modality, [0, 0.0])
                spent_on[0] += nats.numel() * len(scale)
                spread = float(torch.log2(scale / LATENT_STEPS).sum())
                spent_on[1] += float(-nats.double().sum() * BITS) - nats.numel() * spread
            seen = predict & (inputs.role == ROLES.index("observation"))
            for which, each in ((predict, total.windows), (seen, total.observed)):
                each += zip(which.sum(1).tolist(), (bits * which).sum(1).tolist(), strict=True)
    return total


def _by_track(total: Measured, inputs: Inputs, bits: Tensor, kinds: Tensor, names: tuple[str, ...]) -> None:
    if inputs.track is None:
        return
    every, predict = (*inputs.tracks, "steps"), inputs.predict
    which = inputs.track[predict].clamp_max(len(inputs.tracks)) * len(names) + kinds[predict]
    count = torch.bincount(which, minlength=len(every) * len(names)).view(-1, len(names))
    spent = torch.bincount(which, bits[predict], minlength=len(every) * len(names)).view(-1, len(names))
    for track, kind in torch.nonzero(count).tolist():
        found = total.by_track.setdefault(every[track], {}).setdefault(names[kind], [0, 0.0])
        found[0] += int(count[track, kind])
        found[1] += float(spent[track, kind])
