"""The table of embeddings that starts from codebooks: kept while no gradient is wanted, and never a stale one."""

from __future__ import annotations

import copy

import numpy as np
import torch

from pantok.world_model.features import FeatureTable

RNG = np.random.default_rng(0)
FEATURES = {(3, 7): RNG.normal(size=(4, 5)).astype(np.float32), (9, 12): RNG.normal(size=(3, 5)).astype(np.float32)}


def expected(table: FeatureTable) -> np.ndarray:
    whole = table.weight.detach().double().numpy().copy()
    for (start, stop), features, each in zip(FEATURES, FEATURES.values(), table.maps, strict=True):
        whole[start:stop] += features @ each.detach().double().numpy()
    return whole


def check(table: FeatureTable) -> None:
    with torch.no_grad():
        found = table()
        assert table() is found
    np.testing.assert_allclose(found.double().numpy(), expected(table), atol=1e-6)
    assert torch.equal(table(), found) and table().requires_grad


def test_the_table_follows_its_weights() -> None:
    table = FeatureTable(15, 4, FEATURES, 0.1)
    check(table)
    optimizer = torch.optim.AdamW(table.parameters(), lr=0.1)
    table().square().sum().backward()
    with torch.no_grad():
        table()
    optimizer.step()
    check(table)
    other = FeatureTable(15, 4, FEATURES, 0.1)
    with torch.no_grad():
        table()
    table.load_state_dict(other.state_dict())
    check(table)
    with torch.no_grad():
        table()
        table.maps[0, 0, 0] += 1
    check(table)
    check(copy.deepcopy(table))
    check(table.double())
    table.float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = table()
    check(table)  # not the one that was made in bfloat16
    with torch.no_grad():
        assert not torch.equal(rough.float(), table())
    with torch.inference_mode():
        assert np.allclose(table().numpy(), expected(table), atol=1e-6)
