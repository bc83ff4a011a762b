"""Configurations from TOML tables: frozen dataclasses, every unknown or ill-typed key refused by name.

>>> @dataclass(frozen=True, kw_only=True)
... class Example:
...     size: int = 3
>>> from_mapping(Example, {"size": 4})
Example(size=4)
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, TypeVar

from pantok.errors import OptionError

T = TypeVar("T")

__all__ = ["dataclass", "from_mapping", "to_mapping"]


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """An instance of the dataclass `cls`. Raises OptionError naming the key that it does not have or cannot take."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    taken = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
            raise OptionError(f"{where}: {key}", "is not a setting", hint)
        taken[name] = _coerce(hints[name], value, f"{where}: {key}")
    return cls(**taken)


def to_mapping(config: Any) -> dict[str, Any]:
    """The dataclass as JSON values (Fractions as text)."""

    def plain(value: Any) -> Any:
        if isinstance(value, Fraction):
            return str(value)
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        return value

    return {k: plain(v) for k, v in asdict(config).items()}


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type: numbers widen, lists become tuples, text becomes a Fraction; else OptionError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        for option in args:
            if option is type(None):
                continue
            try:
                return _coerce(option, value, where)
            except OptionError:
                continue
    elif hint is Any:
        return value
    elif is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, hint), value, where)
    elif hint is Fraction and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            pass
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif origin is tuple and isinstance(value, (list, tuple)):
        inner = args[0] if args else Any
        return tuple(_coerce(inner, v, where) for v in value)
    elif origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(k): _coerce(args[1], v, f"{where}.{k}") for k, v in value.items()}
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise OptionError(where, f"cannot be {value!r}", f"it takes {_named(hint)}")


def _named(hint: Any) -> str:
    """The type as a message says it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_named(option) for option in typing.get_args(hint) if option is not type(None))
    if hint is Fraction:
        return "a number or a fraction, such as 30 or 30000/1001"
    return getattr(hint, "__name__", str(hint))
