"""A pretrained language model in a folder as Hugging Face keeps it: config.json, safetensors, tokenizer.

What is unusual: nothing of it is run. Its numbers are read, one array at a time, into a backbone of pantok's own, so
`transformers` is not needed and a model of many shards takes no more memory than its largest array.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import InputError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class PretrainedFolder:
    """Raises InputError for a folder that is none, naming what is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = self._json("config.json")
        if (path / _INDEX).exists():
            self._file_of = dict(self._json(_INDEX)["weight_map"])
        elif (path / _SINGLE).exists():
            self._file_of = dict.fromkeys(_header(path / _SINGLE)[0], _SINGLE)
        else:
            raise InputError(path, f"has neither {_SINGLE} nor {_INDEX}", "save the model with safetensors")
        missing = sorted({f for f in self._file_of.values() if not (path / f).exists()})
        if missing:
            raise InputError(path, f"lacks {missing[0]}, which {_INDEX} names", "download it whole")

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def array(self, name: str) -> np.ndarray:
        """float32, whatever it is kept as. Raises InputError for one that is not there or cannot be read."""
        if name not in self:
            raise InputError(self.path, f"has no {name}", "is it a causal language model of the Llama family?")
        file = self.path / self._file_of[name]
        try:
            header, begin = _header(file)
            kept, (first, stop) = header[name]["dtype"], header[name]["data_offsets"]
            if kept == "BF16":  # numpy has no such type: the upper half of a float32
                halves = np.fromfile(file, np.uint16, (stop - first) // 2, offset=begin + first)
                values = (halves.astype(np.uint32) << 16).view(np.float32)
                if len(halves) != (stop - first) // 2:
                    raise ValueError("the file is cut")
                return values.reshape(header[name]["shape"])
            from safetensors import safe_open

            with safe_open(file, framework="np") as opened:
                return np.asarray(opened.get_tensor(name), np.float32)
        except Exception as error:  # safetensors raises errors of its own
            raise InputError(file, f"cannot be read: {error}", "download it again") from error

    @cached_property
    def tokenizer(self) -> bytes | None:
        """The contents of tokenizer.json, else of tokenizer.model; None if there is neither."""
        for name in ("tokenizer.json", "tokenizer.model"):
            if (self.path / name).exists():
                return (self.path / name).read_bytes()
        return None

    @cached_property
    def digest(self) -> str:
        """sha256 of its configuration, of the names, types, shapes and places of its arrays, and of the numbers of its
        last norm, which further training changes: to tell models apart without reading them whole."""
        said = hashlib.sha256((self.path / "config.json").read_bytes())
        said.update(self.array("model.norm.weight").tobytes())
        for file in sorted(set(self._file_of.values())):
            said.update(json.dumps([file, _header(self.path / file)[0]], sort_keys=True).encode())
        return said.hexdigest()

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise InputError(
                self.path, f"has no {name} that can be read", "name the folder of a Hugging Face model"
            ) from error


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """What a file of safetensors holds by name, and where its first array begins."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
    except (OSError, ValueError) as error:
        raise InputError(file, "is no file of safetensors", "download it again") from error
    return {k: v for k, v in header.items() if k != "__metadata__"}, 8 + length
