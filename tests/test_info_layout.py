"""`pantok info --layout` counts what the layout writes."""

import json

import numpy as np
import pytest

from pantok.commands.common import Run
from pantok.commands.info_layout import show_layout
from pantok.errors import StoreError
from pantok.formats.store import Store
from pantok.layout import KINDS, Arranged, Layout
from tests.store_streams import a_stream, a_vocabulary

VOCABULARY = a_vocabulary()


@pytest.mark.parametrize("layout", ["default", "coarse", "video-only"])
def test_the_rates_are_those_of_the_sequences(tmp_path, capsys, layout) -> None:
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    store.write(a_stream(n, VOCABULARY) for n in range(3))
    with pytest.raises(SystemExit) as ended:
        show_layout(Run(as_json=True), store.path, layout, None)
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    sequences = [Arranged(store.read(name), Layout.of(layout), VOCABULARY).cut() for name in store.episodes]
    seconds = sum(e.duration_ns for e in store.episodes.values()) / 1e9
    assert said["ids"] == sum(map(len, sequences)) and said["seconds"] == seconds
    assert said["ids_per_second"] == pytest.approx(said["ids"] / seconds)
    for rate in said["rates"]:
        found = 0
        for s in sequences:
            track = s.tracks.index(rate["track"]) if rate["track"] in s.tracks else (-1 if rate["track"] else 255)
            kind = KINDS.index(rate["kind"])
            found += int(np.sum((s.track == track) & (s.level == rate["level"]) & (s.kind == kind)))
        assert rate["ids"] == found and rate["ids_per_second"] == pytest.approx(found / seconds)
    assert sum(rate["ids"] for rate in said["rates"]) == said["ids"]
    first = sequences[0]
    ticks = np.flatnonzero(first.ids == VOCABULARY.control("tick"))
    runs = said["first_step"]["runs"]
    assert sum(run["ids"] for run in runs) == int(ticks[1])
    expanded = [(run["level"], KINDS.index(run["kind"])) for run in runs for _ in range(run["ids"])]
    assert expanded == list(zip(first.level[: ticks[1]].tolist(), first.kind[: ticks[1]].tolist(), strict=True))


def test_an_unknown_episode_and_an_empty_store(tmp_path) -> None:
    store = Store.create(tmp_path / "home.zarr", VOCABULARY)
    with pytest.raises(StoreError, match="holds no episodes"):
        show_layout(Run(), store.path, "default", None)
    store.write([a_stream(0, VOCABULARY)])
    with pytest.raises(StoreError, match="has no episode nothing"):
        show_layout(Run(), store.path, "default", "nothing")
