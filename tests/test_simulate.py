"""Simulated futures: the past stays, the times are the clocks', what is given is given, what is drawn is valid."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pantok.commands import cli
from pantok.encode import Codec
from pantok.errors import OptionError
from pantok.formats.container import read_container
from pantok.formats.store import Store
from pantok.formats.tables import read_table
from pantok.layout import Layout
from pantok.stream import TokenStream
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.config import TrainConfig
from pantok.world_model.drawing import SimulateConfig
from pantok.world_model.model import WorldModel
from pantok.world_model.simulate import Simulation
from tests.conftest import Outcome

CONFIG = TrainConfig(
    length=96, latents=0, backbone=BackboneConfig(width=16, layers=1, heads=2, kv_heads=1), steps=2, batch=2
)
START, STOP = 400_000_000, 1_400_000_000


@pytest.fixture(scope="module")
def opened(store: Path) -> Store:
    return Store.open(store)


@pytest.fixture(scope="module")
def model(opened: Store) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(opened.vocabulary, CONFIG)


def simulated(model: WorldModel, stream: TokenStream, **settings) -> Simulation:
    made = Simulation(model, Layout(), stream, START, STOP, config=SimulateConfig(**settings))
    steps = list(made)
    assert len(steps) == made.steps and all(a.time_ns < b.time_ns for a, b in pairwise(steps))
    assert steps[0].time_ns >= START and steps[-1].time_ns < STOP
    return made


def ticks_before(track, when: int) -> int:
    times = track.clock.at(np.arange(track.ticks, dtype=np.int64) * track.tick)
    return int((times < when).sum())


def test_a_future(opened: Store, model: WorldModel) -> None:
    recorded = opened.read("film-01")
    future = simulated(model, recorded).stream
    codec = Codec(opened.vocabulary)
    drawn = 0
    for name, track in future.tracks.items():
        track.check(tuple(level.cardinality for level in opened.vocabulary.levels(track.modality)))
        old = recorded.tracks[name]
        kept = ticks_before(old, START)
        for level, was in zip(track.levels, old.levels, strict=True):
            assert np.array_equal(level.cut(0, kept).codes, was.cut(0, kept).codes), name
        if track.clock.rate is not None:
            end = int(track.clock.start_ns) + track.clock.duration_ns
            assert end >= STOP and len(codec.tokenizer(track.modality).decoded(track)) == track.clock.count
        if name == "action":
            for level, was in zip(track.levels, old.levels, strict=True):
                assert np.array_equal(level.codes[: len(was.codes)], was.codes), "recorded actions are kept"
            last = track.levels[0].cut(ticks_before(track, START), ticks_before(track, STOP))
            assert len(last.codes), "actions go on"
        elif track.clock.rate is not None:
            drawn += sum(len(level.cut(kept, track.ticks).codes) for level in track.levels)
    assert drawn


def codes(stream: TokenStream) -> list[int]:
    return [int(c) for t in stream.tracks.values() for lv in t.levels for c in lv.codes]


def test_the_seed_is_the_future(opened: Store, model: WorldModel) -> None:
    recorded = opened.read("film-01")
    one, same, other = (codes(simulated(model, recorded, seed=s).stream) for s in (1, 1, 2))
    assert one == same and one != other


def test_the_context_is_bounded(opened: Store, model: WorldModel) -> None:
    made = Simulation(model, Layout(), opened.read("film-01"), START, STOP, context=40)
    assert len(list(made)) == made.steps
    assert len(made._elements) <= 40 + 1


def test_actions_are_heard(opened: Store, model: WorldModel) -> None:
    """Other actions, other futures: with the same seed, only what is given differs."""
    recorded = opened.read("film-01")
    action = recorded.tracks["action"]
    half = replace(action, levels=tuple(replace(lv, codes=lv.codes[::-1].copy()) for lv in action.levels))
    kept = Simulation(model, Layout(), recorded, START, STOP)
    given = Simulation(model, Layout(), recorded, START, STOP, actions={"action": half})
    said = Simulation(model, Layout(), recorded, START, STOP, words=np.array([5, 9, 12]))
    for each in (kept, given, said):
        list(each)
    mine = given.stream.tracks["action"]
    first = ticks_before(mine, START)
    for level, source in zip(mine.levels, half.levels, strict=True):
        assert np.array_equal(level.of_tick(first), source.of_tick(0))
    assert len({str(codes(each.stream)) for each in (kept, given, said)}) == 3


def test_wrong_settings(opened: Store, model: WorldModel) -> None:
    with pytest.raises(OptionError, match="before it begins"):
        Simulation(model, Layout(), opened.read("film-01"), STOP, START)
    with pytest.raises(OptionError, match="out of range"):
        SimulateConfig(top_p=0)
    with pytest.raises(OptionError, match="no track"):
        Simulation(model, Layout(tracks=("nothing",)), opened.read("film-01"), START, STOP)


def pantok(*args: object) -> Outcome:
    """The command line in this process."""
    done = CliRunner().invoke(cli.pantok, [str(a) for a in args])
    return Outcome(done.exit_code, done.stdout, done.stderr)


def test_the_command(store: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        "length = 64\nbatch = 2\nsteps = 2\nlatents = 0\nevaluate_windows = 2\n"
        "[backbone]\nwidth = 16\nlayers = 1\nheads = 2\nkv_heads = 1\n"
    )
    done = pantok("train-wm", store, "-o", tmp_path / "run", "--config", tmp_path / "c.toml", "-q")
    assert done.code == 0, done.err
    out = tmp_path / "out" / "future.mp4"
    (tmp_path / "push.csv").write_text("time_s,action_grip\n" + "".join(f"{k / 50},{k // 10}\n" for k in range(50)))
    ask = ("simulate", tmp_path / "run", "--from", f"{store}:film-01@0.4s", "--for", "0.5s")
    done = pantok(*ask, "-o", out, "--actions", tmp_path / "push.csv", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert str(out) in document["written"] and document["steps"] >= 3
    tracks = {t.name: t for t in read_container(out)}
    assert len(tracks["video"].read()[0]) == 12
    (table,) = [p for p in document["written"] if p.endswith(".parquet")]
    assert {t.name for t in read_table(Path(table))} >= {"action"}
    assert pantok(*ask, "-o", out).code == 2, "what is there is not overwritten"
    the_sheet(tmp_path, ask)
    film = f"{store}:film-01"
    for wrong, more, message in (
        ("nowhere", [], "store and an episode"),
        (f"{store}:film-1", [], "did you mean film-01"),
        (f"{store}:*", [], "is 2 of them: film-01, street/walk"),
        (f"{film}@99", [], "is outside of film-01, which lasts 1.3 s"),
        (f"{film}@-1", [], "is outside of film-01"),
        (f"{film}@0.4", ["--for", "1e9"], "is more than a day"),
        (f"{film}@0.41", ["--for", "0.001"], "nothing of film-01 begins in it"),
        (film, ["--for", "1e30"], "more than a hundred years"),
        (film, ["-o", tmp_path / "x.avi"], "simulate writes .mp4"),
        (film, ["-o", tmp_path], "is a folder"),
    ):
        failed = pantok("simulate", tmp_path / "run", "--from", wrong, "-o", tmp_path / "x.mp4", *more)
        assert failed.code == 2 and message in failed.err, failed.err
    for actions in ("", tmp_path / "two"):
        (tmp_path / "two").mkdir(exist_ok=True)
        for name in ("a.csv", "b.csv"):
            shutil.copy(tmp_path / "push.csv", tmp_path / "two" / name)
        failed = pantok(*ask, "-o", tmp_path / "x.mp4", "--actions", actions)
        assert failed.code == 1 and "give a .csv" in failed.err, failed.err
    failed = pantok(*ask, "-o", tmp_path / "x.mp4", "--checkpoint", "step-7")
    assert failed.code == 1 and "there are last, best, step-00000002" in failed.err


class Looked(HTMLParser):
    """Text by tag, and where images and sounds come from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self._open.append(tag)
        self.urls += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def the_sheet(folder: Path, ask: tuple[object, ...]) -> None:
    """Two futures beside what came, as one page with all of it inside, and as files; figures as the page has them."""
    page = folder / "sheet.html"
    more = ("--samples", 2, "--html", page, "-o", folder / "two" / "future.mp4", "--json")
    done = pantok(*ask, *more)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert str(page) in document["written"] and str(folder / "two" / "future-2.mp4") in document["written"]
    psnr = document["psnr_db"]["video"]
    assert list(psnr) == ["future 1", "future 2", "the last one again"] and all(len(v) == 2 for v in psnr.values())
    looked = Looked(page.read_text())
    assert looked._open == [] and all(u.startswith("data:") for u in looked.urls)
    pictures = [u for u in looked.urls if u.startswith("data:image")]
    sounds = [u for u in looked.urls if u.startswith("data:audio")]
    # Of film-01 twelve frames: what came, two futures and copy-last at eight moments; sound of three.
    assert len(pictures) == 4 * 8 + 3 and len(sounds) == 3
    seen = [opened_url(u) for u in pictures[:32]]
    assert all(s.shape == seen[0].shape for s in seen) and np.array_equal(seen[24], seen[31])
    assert not np.array_equal(seen[7], seen[15]), "the future is drawn, not recorded"
    named = [t for t in looked.texts["th"] if t.strip()]
    assert [n for n in named if n in ("recorded", *psnr)][:4] == ["recorded", *psnr]
    assert {f"{v:.2f}" for values in psnr.values() for v in values} <= set(looked.texts["td"])
    again = pantok(*ask, "--html", folder / "c.toml")
    assert again.code == 2 and "is not a report" in again.err
    if shutil.which("chromium"):
        colours_in_a_browser(page, folder)


def colours_in_a_browser(page: Path, folder: Path) -> None:
    shot = folder / "shot.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    asked = [*command, "--window-size=1200,1600", f"--screenshot={shot}", f"file://{page}"]
    subprocess.run(asked, capture_output=True, check=True, timeout=120)
    with av.open(str(shot)) as file:
        picture = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2000  # pictures and text, not a broken page


def opened_url(url: str) -> np.ndarray:
    with av.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")
