"""Every command that the README shows is run here, and does what the README says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pantok.commands.cli import COMMANDS
from tests.conftest import ROOT, SAMPLES

WHOLE = pytest.mark.skipif("PANTOK_TOUR" not in os.environ, reason="takes four minutes: set PANTOK_TOUR=1")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shown_commands() -> list[str]:
    """The commands in code blocks, without their comments."""
    fenced = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += re.findall(r"^ {4}(pantok .*)$", README, re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def table_commands() -> list[str]:
    """The commands in the table of commands, with values in the place of what stands in capitals or between …"""
    return re.findall(r"`(pantok [^`]*)`", README)


def test_the_readme_shows_every_command() -> None:
    for name in COMMANDS:
        assert re.search(rf"pantok {name}\b", README), name


def test_the_main_path_of_the_readme(
    pantok, recordings: Path, store: Path, vocabulary: Path, tiny_config: Path, tmp_path: Path
) -> None:
    """`pantok …` lines, in their order, in a folder that holds `recordings/`."""
    shutil.copytree(recordings, tmp_path / "recordings")
    shutil.copytree(vocabulary, tmp_path / "X.vocab")
    shutil.copytree(store, tmp_path / "Y.zarr")
    model = tmp_path / "text.model"
    shutil.copy(vocabulary / "text" / "model", model)
    quick = tmp_path / "quick.toml"
    quick.write_text("length = 64\nbatch = 2\nsteps = 2\nlatents = 0\nevaluate_windows = 2\n[backbone]\nwidth = 16\n")
    named = {"A": "X.vocab", "B": "X.vocab", "C": "C.vocab", "SOURCES": "recordings", "PATH": "Y.zarr"}
    ran = 0
    for line in [c for c in shown_commands() if c.startswith("pantok")] + table_commands():
        words = [named.get(w, w) for w in shlex.split(line)[1:]]
        if words[:1] == ["fit-vocab"]:
            words += ["--config", str(tiny_config)]
        if words[:2] == ["vocab", "grow"]:
            words[words.index("recordings")] = str(SAMPLES / "speech")  # a second and a half is too short to judge by
        if words[:1] == ["train-wm"]:
            words += ["--config", str(quick)]
        if words[0] in ("fit-vocab", "encode", "decode", "eval") and ran >= 3:
            words += ["--force"]  # the main path has written there already
        done = pantok(*words, cwd=tmp_path)
        assert done.code == 0, (line, done.err)
        ran += 1
    assert ran >= 8
    for made in ("home.vocab", "home.zarr", "out", "report.html", "C.vocab", "future.mp4", "run.html", "small.vocab"):
        assert (tmp_path / made).exists(), made
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    script = tmp_path / "shown.py"
    script.write_text(
        "import numpy as np, torch\n"
        "rgb = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)\n"
        "angles = np.sin(np.arange(40.0).reshape(20, 2) / 9)\n"
        + blocks[0]
        + "    break\n"
        + blocks[1]
        + "assert shown.shape == rgb.shape\n"
    )
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pantok("info", "live.zarr", cwd=tmp_path).code == 0


def test_the_two_commands_that_set_up() -> None:
    """The second collects the tests that this is one of; the first is run on sample_data by `test_the_tour`."""
    assert shown_commands()[:2] == ["bash sample_data/tour.sh", "bash tests/run.sh"]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PANTOK_TEST_WORKERS": "0"}
    done = subprocess.run(
        ["bash", "tests/run.sh", "--collect-only", "tests/test_readme.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_the_two_commands_that_set_up" in done.stdout


def test_what_is_installed_is_found_from_the_folder_that_the_clone_lies_in(tmp_path: Path) -> None:
    """Python takes a folder `pantok` there, the clone, for the package, unless a real one is on its path."""
    (tmp_path / "pantok" / "pantok").mkdir(parents=True)
    (tmp_path / "pantok" / "commands").mkdir()
    script = "import pantok.commands.cli, pantok.formats.files, pantok; print(pantok.__version__)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n(install it as tests/run.sh does)"


def test_sample_data_is_small_and_every_file_has_its_origin() -> None:
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    files = [p for p in SAMPLES.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 8_000_000
    for path in files:
        if path.suffix not in (".md", ".py", ".sh"):
            assert path.name in text or path.stem in text, path


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=WHOLE)])
def test_the_tour(recordings: Path, tmp_path: Path, whole: bool) -> None:
    """The README's first command, here on two seconds of recordings; on sample_data, as it stands there, if asked."""
    done = subprocess.run(
        ["bash", "sample_data/tour.sh", str(tmp_path), *([] if whole else [str(recordings)])],
        cwd=ROOT, env={**os.environ, "VIRTUAL_ENV": sys.prefix}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "decoded").rglob("*.mp4"))
