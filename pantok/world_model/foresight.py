"""How well a model foresees: frames that it simulates beside those that came, and what actions tell it.

Measured against the recording as its tokens decode it, so that what is counted is the prediction alone, and beside
the frame before repeated, which is hard to beat over short times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pantok import pixels
from pantok.encode import Codec
from pantok.layout import ROLES, Layout
from pantok.stream import TokenStream, TrackTokens
from pantok.world_model.drawing import SimulateConfig
from pantok.world_model.inputs import Foretold, Inputs
from pantok.world_model.intervals import resampled
from pantok.world_model.measure import measure
from pantok.world_model.model import WorldModel
from pantok.world_model.simulate import Simulation

NS = 1_000_000_000


@dataclass(frozen=True)
class Foreseen:
    """Frames (N, H, W, 3) uint8 of one point: those that came, those that were simulated, the one before."""

    episode: str
    start_ns: int
    came: np.ndarray
    simulated: np.ndarray
    before: np.ndarray
    rate_hz: float

    def psnr(self) -> dict[str, float]:
        """dB of the simulated frames and of the frame before, repeated."""
        still = np.broadcast_to(self.before[None], self.came.shape)
        return {"simulated": psnr(self.came, self.simulated), "copy_last": psnr(self.came, still)}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, peak 255; 99 where nothing differs."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def points(streams: Mapping[str, TokenStream], count: int, horizon_ns: int, seed: int) -> list[tuple[str, int]]:
    """(episode, start_ns) spread over the episodes that hold video, far enough from their ends. By seed."""
    rng = np.random.default_rng(seed)
    spans = []
    for name, stream in streams.items():
        track = _video(stream)
        if track is not None and track.clock.duration_ns > 2 * horizon_ns:
            spans.append((name, track))
    found = []
    for number in range(count if spans else 0):
        name, track = spans[number % len(spans)]
        ticks = np.arange(1, track.ticks) * track.tick
        times = track.clock.at(ticks)
        end = int(track.clock.start_ns) + track.clock.duration_ns
        fitting = times[times + horizon_ns <= end]
        if len(fitting):
            found.append((name, int(rng.choice(fitting))))
    return found


def foresee(
    model: WorldModel, layout: Layout, codec: Codec, stream: TokenStream, start_ns: int, horizon_ns: int,
    config: SimulateConfig,
) -> Foreseen | None:  # fmt: skip
    """Simulates the video of one point; None where no frame falls within the horizon."""
    track = _video(stream)
    assert track is not None
    simulation = Simulation(model, layout, stream, start_ns, start_ns + horizon_ns, config=config)
    for _ in simulation:
        pass
    predicted = simulation.stream.tracks[track.name]
    came, simulated = _frames(codec, track, start_ns, horizon_ns), _frames(codec, predicted, start_ns, horizon_ns)
    first, _ = track.clock.span(start_ns, None)
    if not len(came) or not first:
        return None
    before = _rgb(track, codec.tokenizer("video").decoded(track, start=first - 1, stop=first))[0]
    count = min(len(came), len(simulated))
    return Foreseen(stream.id, start_ns, came[:count], simulated[:count], before, float(track.clock.rate or 0))


def action_information(model: WorldModel, batches: Sequence[Inputs], hidden_id: int, seed: int = 0) -> dict[str, Any]:
    """Bits an element of what is observed: with the recorded actions, without them, and with those of other times.

    What actions tell (`information`) and what wrong ones cost (`misled`) are the differences, with their 95% intervals
    over resampled windows; a model that does not listen shows none. Empty if there are no actions.
    """
    is_action = [b.role == ROLES.index("action") for b in batches]
    if not any(bool(a.any()) for a in is_action):
        return {}
    rng = np.random.default_rng(seed)
    pool = torch.cat([b.ids[a & (b.ids != hidden_id)] for b, a in zip(batches, is_action, strict=True)])
    without, shuffled = [], []
    for batch, action in zip(batches, is_action, strict=True):
        code = action & (model.keys[batch.ids] > 0)
        hidden = torch.where(code, hidden_id, batch.ids)
        other = batch.ids.clone()
        codes = pool[model.keys[pool] > 0]
        other[code] = codes[torch.from_numpy(rng.integers(0, len(codes), int(code.sum())))]
        told = batch.foretold
        if told is None:
            without.append(_with(batch, ids=hidden))
            shuffled.append(_with(batch, ids=other))
            continue
        every = torch.ones(len(batch.ids), dtype=torch.bool)
        without.append(_with(batch, ids=hidden, foretold=told.without_actions(every)))
        mixed = torch.from_numpy(rng.permutation(len(told.inputs)))
        inputs = torch.where(told.actions, told.inputs[mixed], told.inputs)
        shuffled.append(_with(batch, ids=other, foretold=Foretold(inputs, told.row, told.actions)))
    found = {
        name: _observed(model, given)
        for name, given in (("recorded", batches), ("without", without), ("shuffled", shuffled))
    }
    counts, spent = found["recorded"]
    document: dict[str, Any] = {name: float(bits.sum() / max(1.0, counts.sum())) for name, (_, bits) in found.items()}
    for difference, case in (("information", "without"), ("misled", "shuffled")):
        interval = resampled(found[case][1] - spent, counts)
        document |= {difference: interval["value"], f"{difference}_95": interval["95"]}
    return document


def _with(batch: Inputs, **changed: Any) -> Inputs:
    return Inputs(**{**vars(batch), **changed})


def _observed(model: WorldModel, batches: Sequence[Inputs]) -> np.ndarray:
    """(2, W): observed ids of each window, and their bits."""
    return np.array(measure(model, batches).observed, np.float64).T


def _video(stream: TokenStream) -> TrackTokens | None:
    found = [t for t in stream.tracks.values() if t.modality == "video" and t.clock.rate is not None]
    return found[0] if found else None


def _frames(codec: Codec, track: TrackTokens, start_ns: int, horizon_ns: int) -> np.ndarray:
    blocks = [b.values for b in codec.decode(track, start_ns=start_ns, end_ns=start_ns + horizon_ns)]
    height, width = int(track.header["height"]), int(track.header["width"])
    if not blocks:
        return np.zeros((0, height, width, 3), np.uint8)
    return _rgb(track, np.concatenate(blocks))


def _rgb(track: TrackTokens, frames: np.ndarray) -> np.ndarray:
    height, width = int(track.header["height"]), int(track.header["width"])
    matrix, full = str(track.info.get("matrix", "bt601")), bool(track.info.get("full_range", False))
    return pixels.to_rgb(frames, height, width, matrix, full)
