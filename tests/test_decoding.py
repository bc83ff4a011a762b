"""Equation 8 through the tokenizers' decoders: the expected code against the true one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pantok.loader import StreamDataset
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.config import TrainConfig
from pantok.world_model.features import shapes_of
from pantok.world_model.inputs import inputs_of, level_keys
from pantok.world_model.model import WorldModel

SMALL = BackboneConfig(width=16, layers=1, heads=2, kv_heads=1)
CONFIG = TrainConfig(length=64, batch=4, steps=4, align="none", hint=0, latents=0, backbone=SMALL, decode=0.5)


@pytest.fixture(scope="module")
def data(store: Path) -> StreamDataset:
    return StreamDataset(store, "default", length=64, batch_size=4, rank=0, world=1)


def test_it_is_the_squared_error_of_the_expected_vector(data: StreamDataset) -> None:
    torch.manual_seed(0)
    model = WorldModel(data.vocabulary, CONFIG)
    kinds = model.kinds
    for kind, name in enumerate(kinds.names):
        first, count = kinds.starts[kind], kinds.stops[kind] - kinds.starts[kind]
        hidden, code = torch.randn(5, 16), torch.randint(max(count, 1), (5,))
        assert model.decoding is not None
        found = model.decoding.losses(model.switch, hidden, first + code, torch.full((5,), kind))
        shapes = shapes_of(data.vocabulary, first) if count > 1 else None
        if shapes is None or name == "digit":
            assert not found.any()
            continue
        unit = (shapes - shapes.mean(0)).square().sum(1).mean()
        p = torch.softmax(model.switch.logits(hidden, kind)[0], -1)
        reference = torch.stack([((p[i] @ shapes - shapes[code[i]]) ** 2).sum() for i in range(5)]) / unit
        torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-4)


def test_it_moves_what_is_expected_towards_what_came(data: StreamDataset) -> None:
    inputs = inputs_of(data.batch(0, list(range(min(8, len(data.windows))))), level_keys(data.vocabulary), {}, 0)
    ends = {}
    for weight in (0.0, 20.0):
        torch.manual_seed(0)
        model = WorldModel(data.vocabulary, replace(CONFIG, decode=weight))
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        counts = model.counts(inputs)
        for _ in range(12):
            optimizer.zero_grad()
            losses = model(inputs)
            losses.mean(counts).backward()
            optimizer.step()
        model.decoding = model.decoding or WorldModel(data.vocabulary, CONFIG).decoding
        with torch.no_grad():
            ends[weight] = model(inputs).report(model(inputs).detached(), counts)["decode_loss"]
    assert 0 < ends[20.0] < ends[0.0]
