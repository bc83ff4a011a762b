"""The root of a token store: made whole, and told from all else that may lie at a path.

zarr.json                       a Zarr v3 group; attributes.pantok = {format, kind, pantok, vocabulary_id, time_unit}
vocabulary/                     a copy of the vocabulary (see `vocab`)
segments/zarr.json              a Zarr v3 group
manifest/0000000000.json        the birth: vocabulary id, size and CRC-32C of the files above
.cache/                         what readers have computed and may be removed at any time (see `store_columns`)
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pantok
from pantok.errors import StoreError
from pantok.formats.files import is_free
from pantok.formats.store_array import group_json
from pantok.formats.store_disk import SealError, crc32c, put_if_absent, reason, seal, unseal, write_file
from pantok.formats.store_manifest import FOLDER, commit_name
from pantok.formats.vocab import write_vocabulary
from pantok.vocabulary import Vocabulary

FORMAT = 1
KIND = "pantok store"
CACHE = ".cache"
_MAKE = "make one with `pantok encode RECORDINGS --vocab NAME.vocab -o NAME.zarr`"


def write_empty(stage: Path, vocabulary: Vocabulary) -> None:
    about = {
        "format": FORMAT,
        "kind": KIND,
        "pantok": pantok.__version__,
        "vocabulary_id": vocabulary.id,
        "time_unit": "ns",
    }
    roots = {"zarr.json": group_json(pantok=about), "segments/zarr.json": group_json()}
    for name in ("vocabulary", "segments", FOLDER):
        (stage / name).mkdir()
    files = {f"vocabulary/{name}": facts for name, facts in write_vocabulary(vocabulary, stage / "vocabulary").items()}
    objects = {name: [facts["bytes"], facts["crc32c"]] for name, facts in files.items()}
    for name, data in roots.items():
        write_file(stage / name, data)
        objects[name] = [len(data), f"{crc32c(data):08x}"]
    birth = {
        "format": FORMAT,
        "number": 0,
        "unix_time": int(time.time()),
        "vocabulary_id": vocabulary.id,
        "objects": objects,
    }
    put_if_absent(stage / FOLDER / commit_name(0), seal(birth))


def read_root(path: Path) -> str:
    """The vocabulary id of the store at `path`. Raises StoreError if there is none that this version reads."""
    try:
        root = json.loads((path / "zarr.json").read_bytes())
        about = root["attributes"]["pantok"]
        version, kind, vocabulary_id = about["format"], about["kind"], about["vocabulary_id"]
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.exists():
            raise StoreError(path, "there is no such store", _MAKE) from error
        if (path / FOLDER / commit_name(0)).exists():
            raise StoreError(path / "zarr.json", "is missing", "restore it from a copy, or encode again") from error
        raise StoreError(path, "is not a token store: it has no zarr.json", _MAKE) from error
    except OSError as error:
        raise StoreError(path, f"cannot be read: {reason(error)}", "check the path and its permissions") from error
    except (ValueError, KeyError, TypeError) as error:
        if (path / FOLDER / commit_name(0)).exists():
            raise StoreError(path / "zarr.json", "is damaged", "`pantok verify` names all that is damaged") from error
        raise StoreError(path, "is not a token store: its zarr.json is another program's", _MAKE) from error
    if kind != KIND:
        raise StoreError(path, f"is not a token store but a {kind}", _MAKE)
    if version != FORMAT:
        remedy = "encode it again" if version in range(FORMAT) else "upgrade pantok"
        raise StoreError(path, f"is of format {version}, pantok {pantok.__version__} reads format {FORMAT}", remedy)
    first = path / FOLDER / commit_name(0)
    again = "restore it from a copy, or encode again"
    try:
        birth = unseal(first.read_bytes(), "it")
    except FileNotFoundError as error:
        raise StoreError(first, "is missing", again) from error
    except OSError as error:
        raise StoreError(first, f"cannot be read: {reason(error)}", "check its permissions") from error
    except SealError as error:
        raise StoreError(first, str(error).removeprefix("it "), again) from error
    if birth["vocabulary_id"] != vocabulary_id:
        raise StoreError(
            path / "zarr.json",
            f"names vocabulary {vocabulary_id}, the store was made under {birth['vocabulary_id']}",
            "`pantok verify` names all that is damaged",
        )
    return birth["vocabulary_id"]


def may_replace(path: Path, force: bool) -> None:
    if is_free(path):
        return
    if not force:
        raise StoreError(path, "is there already", "--force replaces it, -o gives another name")
    try:
        ours = json.loads((path / "zarr.json").read_bytes())["attributes"]["pantok"]["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        ours = (path / FOLDER / commit_name(0)).is_file()
    if not ours:
        raise StoreError(path, "is there and is not a token store, so it is not replaced", "remove it or rename -o")
