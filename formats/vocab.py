"""A vocabulary on disk: a directory that another program can read, written whole or not at all.

What is unusual: what identifies a vocabulary is the content of its tensors, not its files (safetensors may order
its header as it likes), and every tensor is hashed again when it is read; the text model is kept byte for byte as
it came.

    X.vocab/
        manifest.json       format first; vocabulary id, extents, per modality config, levels, metrics, digest, files
        lineage.jsonl       one line for each operation that led here, oldest first
        <modality>.safetensors      the tensors of one modality
        <modality>/<name>           its opaque files (`text/model`: the text model, untouched)
        remap/<digest>.safetensors  for a tokenizer that was merged into one of these: its codes as codes here

manifest.json is sealed (its last key is the CRC-32C of the bytes before it; see `store_disk`) and names size and
CRC-32C of every other file.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pantok
from pantok.errors import VocabularyError
from pantok.formats.store_disk import SealError, crc32c, publish, reason, seal, staged, unseal, write_file
from pantok.vocabulary import BASIS, LIFE, Extent, Level, TokenizerState, Vocabulary

FORMATS = (1, 2, 3)
"""1: as it was born. 2: levels that grew, retired codes, compositions or remaps, which a reader of 1 would misread.
3: books of video with directions that they got when they grew, which a reader of 2 would misread."""
MANIFEST = "manifest.json"
KIND = "pantok vocabulary"
_AGAIN = "restore it from a copy, or fit it again with `pantok fit-vocab`"


def save_vocabulary(
    vocabulary: Vocabulary, path: str | Path, force: bool = False, lineage: Iterable[Mapping[str, Any]] | None = None
) -> None:
    """Writes the directory `path`: staged beside it, forced to the disk, then renamed.

    force: replace a vocabulary that is there (anything else that is there is never touched).
    lineage: what led to it, one mapping for each operation; its birth if None. Raises VocabularyError.
    """
    path = Path(path)
    may_replace(path, force)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with staged(path.absolute().parent, path.name) as stage:
            write_vocabulary(vocabulary, stage, lineage)
            publish(stage, path.absolute(), replace=force)
    except FileExistsError as error:
        raise VocabularyError(path, "is there already", "--force replaces it") from error
    except OSError as error:
        raise VocabularyError(path, f"cannot be written: {reason(error)}", "free space or choose another -o") from error


def write_vocabulary(
    vocabulary: Vocabulary, folder: Path, lineage: Iterable[Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Writes the files of a vocabulary into an existing directory; {relative path: {bytes, crc32c}} of all of them."""
    from safetensors.numpy import save

    files: dict[str, dict[str, Any]] = {}

    def write(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        write_file(folder / name, data)
        files[name] = _facts(data)

    modalities = {}
    for modality, state in vocabulary.states.items():
        assert re.fullmatch(r"[a-z_]+", modality), modality
        if state.tensors:
            # The order="C" copy matters: safetensors writes the memory of a transposed array as it lies.
            tensors = {name: np.asarray(t, order="C") for name, t in state.tensors.items()}
            assert all(t.dtype.str[0] in "<|" for t in tensors.values()), "tensors must be little endian"
            write(f"{modality}.safetensors", save(tensors))
        for name, blob in state.blobs.items():
            assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name), name
            write(f"{modality}/{name}", bytes(blob))
        modalities[modality] = {
            "digest": state.digest,
            "config": state.config,
            "levels": [asdict(level) for level in state.levels],
            "metrics": _plain(state.metrics),
            "tensors": sorted(state.tensors),
            "blobs": sorted(state.blobs),
        }
    for digest, tables in vocabulary.remaps.items():
        assert re.fullmatch(r"[0-9a-f]{64}", digest), digest
        write(f"remap/{digest}.safetensors", save({n: np.ascontiguousarray(t, np.uint32) for n, t in tables.items()}))
    born = {"op": "born", "vocabulary_id": vocabulary.id, "pantok": pantok.__version__, "unix_time": int(time.time())}
    lines = [born] if lineage is None else list(lineage)
    write("lineage.jsonl", b"".join(json.dumps(_plain(line)).encode() + b"\n" for line in lines))
    manifest = {
        "format": _format(vocabulary),
        "kind": KIND,
        "pantok": pantok.__version__,
        "vocabulary_id": vocabulary.id,
        "size": vocabulary.size,
        "extents": [{k: v for k, v in asdict(e).items() if k != "first" or v} for e in vocabulary.extents],
        "modalities": modalities,
        "files": dict(files),
    }
    write(MANIFEST, seal(manifest))
    return files


def load_vocabulary(path: str | Path, *, lazy: bool = False) -> Vocabulary:
    """The vocabulary in the directory `path`, every tensor hashed and compared.

    lazy: read the manifest only (checked by its own checksum); tensors and the text model are read, and compared,
        when first touched. What is damaged then raises there instead of here.
    Raises VocabularyError if it is missing, damaged, or of a format that this version does not know.
    """
    path = Path(path)
    manifest = read_manifest(path)
    try:
        states = {m: _state(path, m, spec, manifest["files"], lazy) for m, spec in manifest["modalities"].items()}
        remaps: dict[str, Mapping[str, np.ndarray]] = {
            Path(name).stem: _tensors(path, name, manifest["files"])
            for name in manifest["files"]
            if name.startswith("remap/")
        }
        vocabulary = Vocabulary(states, tuple(Extent(**extent) for extent in manifest["extents"]), remaps)
        stored = manifest["vocabulary_id"]
    except (KeyError, TypeError, AttributeError) as error:
        raise VocabularyError(path / MANIFEST, f"lacks what its format asks for: {error}", _AGAIN) from error
    if vocabulary.id != stored:
        raise VocabularyError(path / MANIFEST, f"its content has the id {vocabulary.id}, it says {stored}", _AGAIN)
    return vocabulary


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of the vocabulary in the directory `path`, checked: quick, no tensor is read."""
    path = Path(path)
    make = "make one with `pantok fit-vocab RECORDINGS -o NAME.vocab`"
    try:
        data = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if (path / "vocabulary" / MANIFEST).is_file():
            from pantok.formats.store_vocabularies import newest_folder

            make = f"it is a token store; its vocabulary is {newest_folder(path)}"
        problem = f"is not a vocabulary: it has no {MANIFEST}" if path.exists() else "there is no such vocabulary"
        raise VocabularyError(path, problem, make) from error
    except OSError as error:
        raise VocabularyError(path, f"cannot be read: {reason(error)}", "check the path and its permissions") from error
    return _checked_manifest(path, data, make)


def read_lineage(path: str | Path) -> list[dict[str, Any]]:
    """The operations that led to the vocabulary in the directory `path`, oldest first."""
    path = Path(path)
    data = _read(path, "lineage.jsonl", read_manifest(path)["files"])
    return [json.loads(line) for line in data.splitlines()]


def _checked_manifest(path: Path, data: bytes, make: str) -> dict[str, Any]:
    try:
        manifest = unseal(data, MANIFEST)
    except SealError as error:
        # One of a later format may be sealed otherwise; one of another program is not ours to call damaged.
        try:
            loose = json.loads(data)
            assert isinstance(loose, dict)
        except (ValueError, AssertionError):
            loose = {}
        _refuse_newer(path, loose.get("format"))
        if loose and loose.get("kind") != KIND:
            raise VocabularyError(path, f"its {MANIFEST} is not a vocabulary's", make) from error
        raise VocabularyError(path, str(error), _AGAIN) from error
    _refuse_newer(path, manifest.get("format"))
    if manifest.get("kind") != KIND:
        raise VocabularyError(path, f"its {MANIFEST} is not a vocabulary's", make)
    return manifest


def _format(vocabulary: Vocabulary) -> int:
    """The oldest of FORMATS whose readers read it."""
    life = [name for state in vocabulary.states.values() for name in state.tensors if name.startswith(LIFE)]
    if any(name.endswith(f".{BASIS}") for name in life):
        return 3
    grown = any(e.first or e.modality == "composition" for e in vocabulary.extents)
    return 2 if life or grown or vocabulary.remaps else 1


def _refuse_newer(path: Path, version: object) -> None:
    if isinstance(version, int) and version not in FORMATS:
        remedy = "upgrade pantok" if version > FORMATS[-1] else "fit it again with `pantok fit-vocab`"
        reads = f"{', '.join(map(str, FORMATS[:-1]))} and {FORMATS[-1]}"
        raise VocabularyError(
            path, f"its {MANIFEST} is of format {version}, pantok {pantok.__version__} reads format {reads}", remedy
        )


class _Late(Mapping[str, Any]):
    """Tensors or files of a modality, read when first touched."""

    def __init__(self, names: list[str], read: Callable[[], Mapping[str, Any]]) -> None:
        self._names, self._read = names, read
        self._content: Mapping[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        if self._content is None:
            self._content = self._read()
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _state(path: Path, modality: str, spec: dict[str, Any], files: dict[str, Any], lazy: bool) -> TokenizerState:
    levels = tuple(Level(v["name"], v["cardinality"], v["role"], tuple(v["stride"])) for v in spec["levels"])
    read_all = partial(_state, path, modality, spec, files, False)
    if lazy:
        tensors: Mapping[str, np.ndarray] = _Late(spec["tensors"], partial(_part, read_all, "tensors"))
        blobs: Mapping[str, bytes] = _Late(spec["blobs"], partial(_part, read_all, "blobs"))
    else:
        tensors = _tensors(path, f"{modality}.safetensors", files) if spec["tensors"] else {}
        blobs = {name: _read(path, f"{modality}/{name}", files) for name in spec["blobs"]}
    state = TokenizerState(modality, spec["config"], levels, tensors, blobs, spec["metrics"])
    if lazy:
        state.__dict__["digest"] = spec["digest"]  # compared when the content is read
    elif state.digest != spec["digest"]:
        name = f"{modality}.safetensors" if spec["tensors"] else MANIFEST
        raise VocabularyError(
            path / name, f"its content has the hash {state.digest}, the manifest says {spec['digest']}", _AGAIN
        )
    return state


def _part(read_all: Callable[[], TokenizerState], name: str) -> Mapping[str, Any]:
    return getattr(read_all(), name)


def _tensors(path: Path, name: str, files: dict[str, Any]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(_read(path, name, files))
    except SafetensorError as error:
        raise VocabularyError(path / name, f"is not a safetensors file: {error}", _AGAIN) from error


def _read(path: Path, name: str, files: dict[str, Any]) -> bytes:
    try:
        data = (path / name).read_bytes()
    except FileNotFoundError as error:
        raise VocabularyError(path / name, "is missing", _AGAIN) from error
    except OSError as error:
        raise VocabularyError(path / name, f"cannot be read: {reason(error)}", "check its permissions") from error
    found, stored = _facts(data), files[name]
    if found != stored:
        was, now = (f"{f['bytes']} bytes of hash {f['crc32c']}" for f in (stored, found))
        raise VocabularyError(path / name, f"is damaged: it holds {now}, the manifest says {was}", _AGAIN)
    return data


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "crc32c": f"{crc32c(data):08x}"}


def may_replace(path: Path, force: bool) -> None:
    """Raises VocabularyError unless `path` may be replaced: nothing is there, or a vocabulary and `force` is given."""
    if not (path.exists() or path.is_symlink()):
        return
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return
    if not force:
        raise VocabularyError(path, "is there already", "--force replaces it, -o gives another name")
    try:
        ours = json.loads((path / MANIFEST).read_bytes()).get("kind") == KIND
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise VocabularyError(path, "is there and is not a vocabulary, so it is not replaced", "remove it or rename -o")


def _plain(value: Any) -> Any:
    """JSON values: numpy scalars as numbers, tuples as lists, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
