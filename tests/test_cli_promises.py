"""Promises on the command line: fits that are refined, latents that are counted, bounds that are checked again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
import pytest

from pantok.certify import check
from pantok.commands import common
from pantok.commands.cli import pantok as cli
from pantok.experience import Clock, Track
from pantok.formats.store import Store
from pantok.stream import LevelCodes
from pantok.tokenizers.numeric import NumericOptions, NumericTokenizer
from tests.conftest import SAMPLES


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of speech and numbers, fitted with one second of refinement, and what fit-vocab said."""
    return tmp_path_factory.mktemp("sound")


@pytest.fixture(scope="module")
def fitted(pantok, sound: Path) -> dict:
    config = sound / "small.toml"
    config.write_text("[audio]\nsize = 128\ntick_size = 64\n\n[read]\n")
    folder = sound / "recordings"
    folder.mkdir()
    shutil.copy(SAMPLES / "speech" / "austen-1.flac", folder / "one.flac")
    rows = "\n".join(f"{i / 50:.2f},{np.sin(i / 9):.5f},{np.cos(i / 7):.5f}" for i in range(200))
    (folder / "one.csv").write_text(f"time_s,joint_a,joint_b\n{rows}\n")
    done = pantok("fit-vocab", folder, "-o", sound / "v", "--config", config, "--refine", "1", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture(scope="module")
def stored(pantok, sound: Path, fitted: dict) -> Path:
    target = sound / "s.zarr"
    args = ("--latents", "audio", "--max-error", "0.01", "--json")
    done = pantok("encode", sound / "recordings", "--vocab", sound / "v", "-o", target, *args)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["encoded"] == ["one"]
    assert told["latent_bytes"] > 0
    return target


def test_a_fit_says_what_each_tokenizer_measures(pantok, sound: Path, fitted: dict) -> None:
    assert set(fitted["tokenizers"]) == {"audio", "numeric"}
    assert fitted["tokenizers"]["audio"]["metrics"]["refined"]["gain_db"] is None  # 7 s: nothing to hold out
    config = sound / "small.toml"
    shown = pantok("fit-vocab", sound / "recordings", "-o", sound / "w", "--config", config, "--refine", "1")
    assert shown.code == 0
    assert shown.out == ""
    for expected in ("too little was there to hold some out", "books used", "kbit/s a channel", "of the bound"):
        assert expected in shown.err, shown.err


def test_nothing_to_refine_is_said(pantok, tmp_path: Path) -> None:
    done = pantok("fit-vocab", SAMPLES / "text", "-o", tmp_path / "v", "--text-size", "600", "--refine", "2")
    assert done.code == 0
    assert "nothing" in done.err or "none of what is fitted here can be refined" in done.err
    assert pantok("fit-vocab", SAMPLES / "text", "-o", tmp_path / "w", "--refine", "-1").code == 2


def test_latents_are_shown_with_their_size(pantok, stored: Path, sound: Path) -> None:
    told = json.loads(pantok("info", stored, "--json").out)
    audio = next(t for t in told["tracks"] if t["modality"] == "audio")
    assert audio["latent_bytes"] >= 89 * 24 * 2  # 7.1 s of 12.5 ticks, 24 float16 each
    assert audio["latent_bits_per_second"] == pytest.approx(8 * audio["latent_bytes"] / audio["seconds"])
    assert audio["tokens_per_second"] == pytest.approx(sum(lv["tokens_per_second"] for lv in audio["levels"]))
    shown = pantok("info", stored).out
    assert "latents" in shown
    assert "all 14 levels" in shown
    assert "89x24" in pantok("info", stored, "--episode", "one").out
    again = pantok("encode", sound / "recordings", "-o", stored, "--latents", "audio", "--max-error", "0.01")
    assert "nothing to do, 1 episode of 1 there already" in again.err
    assert "of which latents" in again.err
    one = json.loads(pantok("info", stored, "--episode", "one", "--json").out)
    assert next(t for t in one["tracks"] if t["modality"] == "audio")["latents"] == [89, 24]


def test_none_of_the_latents_are_kept_unless_asked_for(pantok, sound: Path, fitted: dict, tmp_path: Path) -> None:
    for args in ((), ("--latents", "none"), ("--latents", "video")):
        target = tmp_path / "-".join(("s", *args[1:]))
        done = pantok("encode", sound / "recordings", "--vocab", sound / "v", "-o", target, *args, "--json")
        assert json.loads(done.out)["latent_bytes"] == 0, args


def test_promises_are_compared_with_the_recordings(pantok, stored: Path, sound: Path) -> None:
    done = pantok("verify", stored, "--sources", sound / "recordings", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["ok"] is True
    compared = {t["track"]: t for t in told["compared"]}
    assert compared["audio"]["samples"] == 113_600
    for channel in compared["proprio"]["channels"]:
        assert 0 < channel["max_error"] <= channel["bound"] == 0.01
    assert "2 tracks compared" in pantok("verify", stored, "--sources", sound / "recordings").err


def test_a_missing_recording_is_skipped_and_a_lone_episode_refused(pantok, stored: Path, tmp_path: Path) -> None:
    done = pantok("verify", stored, "--sources", tmp_path)
    assert done.code == 4
    assert "one" in done.err
    assert "holds no one.csv" in done.err
    assert pantok("verify", stored, "--episode", "one").code == 2
    assert pantok("verify", stored, "--episode", "two", "--sources", tmp_path).code == 2


def test_a_broken_bound_is_named(pantok, stored: Path, sound: Path, tmp_path: Path) -> None:
    """A store whose codes are valid, whose bytes are whole, and whose numbers are not those of the recording."""
    source = Store.open(stored)
    lying = Store.create(tmp_path / "lying.zarr", source.vocabulary)
    stream = source.read("one")
    tokens = stream.tracks["proprio"]
    pieces, *others = tokens.levels
    first, second = np.unique(pieces.codes)[:2]
    swapped = np.where(pieces.codes == first, second, np.where(pieces.codes == second, first, pieces.codes))
    levels = [LevelCodes(swapped.astype(pieces.codes.dtype), pieces.splits), *others]
    lying.write([replace(stream, tracks={**stream.tracks, "proprio": replace(tokens, levels=tuple(levels))})])
    assert pantok("verify", lying.path).code == 0
    found = pantok("verify", lying.path, "--sources", sound / "recordings")
    assert found.code == 3
    assert "guaranteed was 0.01" in found.out
    assert all("episode one, track proprio" in line for line in found.out.splitlines())
    assert json.loads(pantok("verify", lying.path, "--sources", sound / "recordings", "--json").out)["ok"] is False


def _numbers(count: int = 400, start_ns: int = 0, rate: int = 50) -> Track:
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(count, 2)), 0).astype(np.float32)
    values[7, 1] = np.nan
    return Track.of_array("proprio.x", values, Clock.regular(Fraction(rate), count, start_ns), channels=("a", "b"))


def test_every_kind_of_broken_promise_is_found() -> None:
    track = _numbers()
    tokenizer = NumericTokenizer.fit([track])
    tokens = tokenizer.encode(track, NumericOptions(max_error=0.01))
    good = check(track, tokens, tokenizer)
    assert good.broken == ()
    assert good.samples == 400
    assert good.certificate is not None
    assert good.certificate.holds
    values, _ = track.read()
    shifted = values.copy()
    shifted[100, 0] += 0.5
    whole = values.copy()
    whole[7, 1] = 0.0
    clock = track.clock
    assert clock is not None
    for other, expected in (
        (Track.of_array("proprio.x", shifted, clock, channels=track.channels), "channel a is off by 0.49"),
        (Track.of_array("proprio.x", whole, clock, channels=track.channels), "NaN or infinities"),
        (_numbers(399), "has 400 samples, the recording 399"),
        (_numbers(401), "has 400 samples, the recording 401"),
        (_numbers(start_ns=5), "sample 0 is 5 ns from"),
        (_numbers(rate=51), "sample 399 is"),
    ):
        broken = check(other, tokens, tokenizer).broken
        assert any(expected in what for what in broken), (expected, broken)


def test_every_option_is_explained(pantok) -> None:
    for name in ("fit-vocab", "encode", "decode", "info", "verify", "eval"):
        shown = pantok(name, "--help").out
        assert "--json" in shown, name
        options = [line for line in shown.splitlines() if line.lstrip().startswith("-")]
        blocks = shown.split("Options:")[1].split("\n  -")
        assert len(options) >= 3, name
        for block in blocks[1:]:
            assert len(block.split()) > 3, f"{name}: no help for -{block}"


def test_every_help_has_an_example() -> None:
    import click

    from pantok.commands import cli

    def leaves(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            return [(name, command)]
        within = click.Context(command)
        return [x for n in command.list_commands(within) for x in leaves(command.get_command(within, n), f"{name} {n}")]

    found = leaves(cli.pantok, "pantok")
    assert len(found) > 15
    for name, command in found:
        assert "Example:" in str(command.help), name
        assert "--json" in [o for p in command.params for o in p.opts] or name == "pantok stream", name


def test_a_stop_promises_no_more_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C `encode` and `train-wm` go on where they were; what others had begun is not there."""
    import click
    from click.testing import CliRunner

    from pantok.commands import cli

    def stopped(*args: object) -> click.Command:
        return click.Command("x", callback=lambda: (_ for _ in ()).throw(KeyboardInterrupt))

    monkeypatch.setattr(cli.LazyGroup, "get_command", stopped)
    for name, goes_on in (("encode", True), ("export", False), ("fit-vocab", False)):
        done = CliRunner().invoke(cli.pantok, [name])
        assert done.exit_code == 130 and ("goes on" in done.stderr) == goes_on and done.stderr.startswith("Stopped.")


def test_a_store_may_lie_in_object_storage_wherever_one_is_read() -> None:
    def parameters(command: click.Command | None) -> list[click.Parameter]:
        assert command is not None
        context = click.Context(command)
        names = command.list_commands(context) if isinstance(command, click.Group) else ()
        below = [command.get_command(context, name) for name in names]
        return [*command.params, *(p for one in below for p in parameters(one))]

    whole = parameters(cli)
    stores = [p for p in whole if p.name == "store"]
    assert len(stores) >= 10 and all(p.type is common.STORE for p in stores)
