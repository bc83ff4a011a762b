"""Regular clocks are known behind rounded stamps, and irregular ones stay exactly as they are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.experience import NS
from pantok.formats.table_clock import clock_of_stamps

RATES = st.sampled_from(
    [Fraction(n) for n in (1, 5, 10, 12, 24, 25, 30, 50, 60, 100, 120, 125, 200, 240, 250, 400, 500, 1000)]
    + [Fraction(k * 1000, 1001) for k in (24, 30, 60, 120)]
    + [Fraction(25, 2), Fraction(100, 3), Fraction(1, 3)]
)


ROUNDINGS = {
    "float64": lambda t: t,
    "float32": lambda t: t.astype(np.float32),
    "us": lambda t: np.round(t, 6),
    "us in float32": lambda t: np.round(t, 6).astype(np.float32),
    "ms": lambda t: np.round(t, 3),
    "ms cut off": lambda t: np.floor(t * 1000 + 1e-9) / 1000,
    "ms in float32": lambda t: np.round(t, 3).astype(np.float32),
    "whole us": lambda t: np.rint(t * 1e6).astype(np.int64),
    "whole ns": lambda t: np.rint(t * 1e9).astype(np.int64),
}


@settings(max_examples=150, deadline=None)
@given(
    rate=RATES, count=st.integers(3, 3000), start=st.sampled_from([0, 1, 17, 900]), how=st.sampled_from([*ROUNDINGS])
)
def test_a_regular_clock_is_known_behind_its_rounding(rate: Fraction, count: int, start: int, how: str) -> None:
    exact = start + np.arange(count) / float(rate)
    stamps = ROUNDINGS[how](exact)
    scale = 1 if how == "whole ns" else 1000 if how == "whole us" else NS
    rounding = {"us": 1e-6, "ms": 1e-3, "wh": 10e-6 if "us" in how else 1e-8}.get(how[:2], 0.0)
    if "32" in how:
        rounding = max(rounding, 3 * float(np.spacing(np.float32(exact[-1]))))
    if rounding * 16 * float(rate) > 1 or (np.diff(stamps.astype(np.float64)) <= 0).any():
        return  # too coarse to prove anything: another test holds that they stay as they are
    clock = clock_of_stamps(stamps, scale)
    assert clock.rate is not None
    away = np.abs(clock.times_ns - np.rint(exact * 1e9)).max()
    assert away <= 2 * rounding * 1e9 + 2, (how, clock.rate, away)
    if count > 50 and rounding * float(rate) < count / 4000:
        assert clock.rate == rate


@settings(max_examples=150, deadline=None)
@given(
    rate=st.sampled_from([10, 25, 30, 50, 100]),
    count=st.integers(4, 400),
    how=st.sampled_from(["float64", "float32", "us", "ms", "ms in float32"]),
    seed=st.integers(0, 1000),
)
def test_the_clock_kept_is_within_the_rounding(rate: int, count: int, how: str, seed: int) -> None:
    """Whatever the jitter: a clock that is called regular differs from the column by less than its rounding."""
    jitter = np.random.default_rng(seed).normal(0, 10.0 ** -(1 + seed % 9), count) / rate
    stamps = ROUNDINGS[how](np.arange(count) / rate + np.clip(jitter, -0.2 / rate, 0.2 / rate))
    if (np.diff(stamps.astype(np.float64)) <= 0).any():
        return
    clock = clock_of_stamps(stamps, NS)
    rounding = {"float64": 0.0, "us": 1e-6, "ms": 1e-3, "ms in float32": 1e-3}.get(how, 0.0)
    spacing = 3 * float(np.spacing(stamps[-1])) if stamps.dtype == np.float32 else 0.0
    away = np.abs(clock.times_ns / 1e9 - stamps.astype(np.float64)).max()
    assert away < max(rounding, spacing) + 4e-9
    if clock.rate is None:
        assert (np.abs(clock.times_ns / 1e9 - stamps.astype(np.float64)) <= spacing / 6 + 2e-9).all()


@pytest.mark.parametrize(
    "stamps",
    [
        [0.0, 1.0, 3.0],
        [0.0, 0.02, 0.04, 0.07, 0.08],
        [0.0, 0.020, 0.041, 0.060, 0.080],
        [0.0, 0.1, 0.2, 0.4],
        [5.0, 5.5, 7.0, 9.5],
        [0.0, 0.033, 0.067, 0.100, 0.135, 0.167],
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_irregular_stamps_stay_exactly_as_they_are(stamps: list[float], dtype: type) -> None:
    clock = clock_of_stamps(np.array(stamps, dtype), NS)
    assert clock.rate is None
    assert clock.times_ns.tolist() == [round(t * 1000) * 1_000_000 for t in stamps]


def test_a_missed_row_in_a_long_regular_log_is_seen() -> None:
    exact = np.arange(20_000) / 50
    for how in ("float64", "float32", "ms", "us"):
        assert clock_of_stamps(ROUNDINGS[how](exact), NS).rate == 50
        assert clock_of_stamps(ROUNDINGS[how](np.delete(exact, 10_000)), NS).rate is None
