"""What the attributes of an HDF5 file say of its episodes: how fast they go, and what is done in them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from pantok.formats.rows import FAULTS
from pantok.formats.table_clock import RATE_NAMES

_TASKS = ("language_instruction", "instruction", "task", "current_task", "task_description", "lang", "prompt")
"""Attributes that say in words what is done in an episode."""
_DOCUMENTS = ("env_args", "env_info", "env_meta", "ep_meta", "problem_info")
"""Attributes in JSON in which simulators keep how fast they go and what they ask for."""


@dataclass(frozen=True)
class Said:
    """What attributes say. rate: rows a second, as `rate_of` takes it; empty if they do not say."""

    rate: dict[str, Any] = field(default_factory=dict)
    task: str | None = None


def said_by(attributes: Any) -> Said:
    """What the attributes of one group or dataset say."""
    rate: dict[str, Any] = {}
    tasks: dict[str, str] = {}
    for name in attributes:
        low = name.lower()
        if low not in (*RATE_NAMES, *_TASKS, *_DOCUMENTS):
            continue
        try:
            value = single(attributes[name])
        except (*FAULTS, TypeError):
            continue  # of a type that has no array
        if low in RATE_NAMES and value is not None:
            rate.setdefault(low, value)
        elif low in _TASKS and isinstance(value, str):
            tasks[low] = value
        elif isinstance(value, str):
            told = _document(value)
            rate = rate or told.rate
            tasks |= {} if told.task is None else {"lang": told.task}
    return Said(rate, next((tasks[name] for name in _TASKS if tasks.get(name)), None))


def _document(text: str) -> Said:
    """What a simulator says of itself in JSON: `env_kwargs.control_freq`, or what robosuite or Isaac Lab have."""
    with suppress(ValueError):
        whole = json.loads(text)
        if isinstance(whole, dict):
            inner, steps = (whole.get(key) for key in ("env_kwargs", "sim_args"))
            told = next(
                (d["control_freq"] for d in (inner, whole) if isinstance(d, dict) and d.get("control_freq")), None
            )
            with suppress(TypeError, KeyError, ZeroDivisionError):
                told = told or 1 / (Fraction(str(steps["dt"])) * steps["decimation"])  # type: ignore[index]
            rate = {} if told is None else {"control_freq": told}
            words = whole.get("language_instruction") or whole.get("lang")
            words = " ".join(map(str, words)) if isinstance(words, list) else words
            return Said(rate, words.strip().strip('"') if isinstance(words, str) else None)
    return Said()


def single(value: Any) -> Any | None:
    """A value as JSON has them, or a number as the text that it is written as; None if it is none or several."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return single(value.reshape(-1)[0]) if value.size == 1 else None
    if isinstance(value, np.floating):
        return float(str(value))  # 29.97 that was kept as float32 is 29.97
    return value.item() if isinstance(value, np.generic) else value if isinstance(value, str | int | float) else None
