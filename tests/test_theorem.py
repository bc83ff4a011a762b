"""Theorem 1 as counted, and what pantok's code of a real track costs within the same bound."""

from __future__ import annotations

import json
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantok.errors import OptionError
from pantok.evolve.theorem import BASES, Plan, measured
from pantok.experience import Clock, Track
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary
from pantok.tokenizers.numeric import NumericTokenizer


@given(
    st.integers(1, 500), st.integers(1, 20), st.floats(1e-3, 1e3), st.floats(1e-6, 1.0), st.sampled_from(BASES),
    st.booleans(),
)  # fmt: skip
def test_digits_number_all_cells_and_no_more_than_it_takes(
    steps: int, coordinates: int, width: float, eps: float, base: int, whole: bool
) -> None:
    plan = Plan(steps=steps, coordinates=coordinates, width=width, eps=eps, whole=whole)
    digits = plan.digits(base)
    assert base**digits >= plan.cells and (digits == 0 or base ** (digits - 1) < plan.cells)
    assert plan.scaled_out(base) == steps * coordinates * digits
    side = eps / sqrt(steps * coordinates) if whole else 2 * eps
    assert plan.cells * side >= width * (1 - 1e-12) and plan.cells <= max(1, ceil(width / side))
    assert plan.vocabulary_bits == pytest.approx(coordinates * np.log2(plan.cells))


def test_the_worked_example() -> None:
    """7 joints, 50 steps, [-1, 1], a thousandth: 3,500 ids in base 2, 1,050 in 16, 700 in 256, 350 in 1024."""
    plan = Plan(steps=50, coordinates=7, width=2.0, eps=1e-3)
    assert [plan.scaled_out(b) for b in (2, 16, 256, 1024)] == [3500, 1050, 700, 350]
    for wrong in ({"eps": 0.0}, {"eps": float("nan")}, {"steps": 0}, {"width": float("inf")}):
        with pytest.raises(OptionError):
            Plan(**{"steps": 1, "coordinates": 1, "width": 1.0, "eps": 0.1, **wrong})


def test_what_is_measured_is_within_the_bound_and_counted(store: Path) -> None:
    state = load_vocabulary(store / "vocabulary").states["numeric"]
    tokens = Store.open(store).read("film-01").tracks["proprio"]
    values = NumericTokenizer.from_state(state).decoded(tokens)
    found = {eps: measured(state, tokens, eps) for eps in (0.3, 0.03, 0.003)}
    for eps, one in found.items():
        assert 0 < one.max_error <= eps
        assert (one.steps, one.coordinates) == values.shape
        assert one.width == pytest.approx(float(np.ptp(values, 0).max()))
    assert found[0.3].ids < found[0.03].ids <= found[0.003].ids and found[0.3].bits < found[0.003].bits
    with pytest.raises(OptionError, match="is no bound"):
        measured(state, tokens, 0.0)


def test_what_is_no_number_is_not_measured(store: Path, recwarn: pytest.WarningsRecorder) -> None:
    state = load_vocabulary(store / "vocabulary").states["numeric"]
    values = np.sin(np.arange(120.0) / 9)[:, None].repeat(2, 1)
    values[10:40, 0], values[60:, 1] = np.inf, np.nan
    track = Track.of_array("proprio", values, Clock.regular(50, 120))
    tokens = NumericTokenizer.from_state(state).encode(track)
    found = measured(state, tokens, 0.01)
    assert 0 < found.max_error <= 0.01 and found.width == pytest.approx(2, abs=0.1)
    assert not recwarn.list


def test_the_command_prints_and_plots(store: Path, tmp_path: Path, pantok) -> None:
    page = tmp_path / "theorem.html"
    done = pantok("vocab", "theorem", store, "--track", "proprio", "--eps", 0.05, "-o", page, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    plan = Plan(steps=said["steps"], coordinates=said["coordinates"], width=said["width"], eps=0.05)
    assert said["scale_out"]["256"] == plan.scaled_out(256) and said["pantok"]["max_error"] <= 0.05
    assert "<svg" in page.read_text() and "scale out: digits in base 256" in page.read_text()
    wrong = pantok("vocab", "theorem", store, "--track", "video", "--eps", 0.05)
    assert wrong.code != 0 and "is video" in wrong.err


def test_the_ids_of_a_wide_table_are_beyond_any_float_and_are_plotted(pantok, vocabulary: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 300)).cumsum(0)
    header = "# rate_hz: 20\n" + ",".join(f"c{k}" for k in range(300))
    np.savetxt(tmp_path / "wide.csv", rows, delimiter=",", header=header, comments="")
    assert pantok("encode", tmp_path / "wide.csv", "--vocab", vocabulary, "-o", tmp_path / "s.zarr").code == 0
    page = tmp_path / "theorem.html"
    done = pantok("vocab", "theorem", tmp_path / "s.zarr", "--track", "proprio", "--eps", 0.01, "-o", page, "--json")
    assert done.code == 0, done.err
    bits = json.loads(done.out)["scale_up"]["vocabulary_bits"]
    assert bits > 2000 and f"2^{bits:.1f} ids" in page.read_text()
