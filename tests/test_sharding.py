"""FSDP2: two processes that each hold half of the weights train as one that holds all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from pantok.commands import cli

CONFIG = """
length = 64
batch = 4
steps = 6
warmup = 2
evaluate_every = 3
evaluate_windows = 4
[backbone]
width = 16
layers = 2
heads = 2
kv_heads = 1
"""


def curve(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r.get("loss", r.get("bits_per_second"))) for r in lines]


def test_divided_weights_give_the_same_run_and_it_goes_on_whole(store: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    one, two = tmp_path / "one", tmp_path / "two"
    options = ["--config", str(tmp_path / "c.toml"), "-q"]

    def train(run: Path, *more: str) -> int:
        return CliRunner().invoke(cli.pantok, ["train-wm", str(store), "-o", str(run), *options, *more]).exit_code

    assert train(one) == 0
    shares = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29541"]
    command = [*shares, "-m", "pantok", "train-wm", str(store), "-o", str(two), *options, "--fsdp"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)

    def same() -> None:
        for (step, alone), (at, shared) in zip(curve(one), curve(two), strict=True):
            assert step == at and shared == pytest.approx(alone, rel=1e-4)
        for file in ("model", "average", "optimizer"):
            whole, gathered = (load_file(run / "last" / f"{file}.safetensors") for run in (one, two))
            assert whole.keys() == gathered.keys() and whole
            for name, value in whole.items():
                assert np.allclose(value, gathered[name], atol=2e-3), (file, name)

    same()
    last = two / "checkpoints" / "step-00000006"
    shutil.rmtree(last)
    (two / "last").unlink()
    (two / "last").symlink_to(Path("checkpoints") / "step-00000003")
    assert train(two) == 0 and last.is_dir()
    same()
    assert train(tmp_path / "three", "--fsdp") == 2
