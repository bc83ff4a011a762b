"""Token stores in object storage (`s3://bucket/home.zarr`): a local mirror of what has been touched.

What is unusual: nothing in a store ever changes, so whatever was fetched once is true for ever, and the mirror is a
directory in which all other code finds the files that it asks for (`store_disk.present` fetches one that is not there
yet). A shard is fetched whole, in ranges at once, and the next one of its array is fetched ahead; the least recently
fetched shards are dropped when the mirror grows beyond `PANTOK_CACHE_BYTES` (default 8 GiB).

Writing: a segment's objects go up before its COMMIT.json, and that before the commit of the manifest, which is put only
if its number is free (a conditional put), so that many writers are as safe as on a disk. A vocabulary that the store
takes in is decided by its manifest likewise. What no reader needs is removed by `pantok store compact`, a day after it
was touched last (`store_remote_sweep`).

Credentials, region and endpoint come from the environment, as for every S3 client (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL,
...). Needs `pip install "pantok[remote]"`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pantok.errors import StoreError
from pantok.formats import store_disk
from pantok.formats.addresses import address, is_remote
from pantok.formats.vocab import MANIFEST, read_manifest

_RANGE = 8 << 20
_SHARD = re.compile(r"^(.*/c\.)(\d+)((?:\.0)*)$")
_REMEDY = "check the address, AWS_ENDPOINT_URL and credentials"


def mirror_of(path: str | Path) -> Path:
    """The local directory that stands for a store in object storage; other paths as they are.

    Raises StoreError if it cannot be reached.
    """
    if not is_remote(path):
        return Path(path)
    url = address(path)
    base = Path(os.environ.get("PANTOK_CACHE") or Path.home() / ".cache" / "pantok")
    folder = base / hashlib.sha256(url.encode()).hexdigest()[:24]
    found = store_disk.MIRRORS.get(str(folder))
    mirror = found if isinstance(found, Mirror) else Mirror(url, folder)
    mirror.sync()
    store_disk.MIRRORS[str(folder)] = mirror
    return folder


@contextmanager
def fresh_mirror(path: str | Path) -> Iterator[Path]:
    """A mirror that holds nothing yet, so that all is fetched as it is now; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pantok-verify-") as name:
        mirror = Mirror(address(path), Path(name))
        mirror.sync()
        if not (Path(name) / "zarr.json").exists() and not (Path(name) / "manifest").is_dir():
            raise StoreError(mirror.url, "there is no such store", "`pantok encode -o` makes one")
        store_disk.MIRRORS[name] = mirror
        try:
            yield Path(name)
        finally:
            mirror.close()
            del store_disk.MIRRORS[name]


class Mirror:
    """What has been fetched of a store. url: its address. folder: where its files are put."""

    def __init__(self, url: str, folder: Path) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise StoreError(url, "needs obstore", 'pip install "pantok[remote]"') from error
        self.url, self.folder, self._api = url, folder, obstore
        options: dict[str, Any] = {}
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        if url.startswith("s3://") and endpoint:
            options = {"endpoint": endpoint, "virtual_hosted_style_request": False}
            if endpoint.startswith("http://"):
                options["client_options"] = {"allow_http": True}
        try:
            self._store = from_url(url, **options)
        except Exception as error:
            raise StoreError(url, f"is no address that can be read: {_first_line(error)}", _REMEDY) from error
        self._limit = int(os.environ.get("PANTOK_CACHE_BYTES") or 8 << 30)
        self._lock = threading.Lock()
        self._held: OrderedDict[str, int] = OrderedDict()
        self._ahead = ThreadPoolExecutor(2, thread_name_prefix="pantok-ahead")
        self.fetched_bytes = 0
        files = [f for f in folder.glob("segments/**/c.*") if f.is_file()] if folder.is_dir() else []
        for file in sorted(files, key=lambda f: f.stat().st_mtime):
            self._held[self._key(file)] = file.stat().st_size

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def sync(self) -> None:
        """Fetches what every reader needs: root, vocabulary, and the manifest as far as it is not there yet."""
        try:
            birth = self._get("manifest/0000000000.json")
            old = self.folder / "manifest" / "0000000000.json"
            if birth is None or (old.exists() and old.read_bytes() != birth):
                shutil.rmtree(self.folder, ignore_errors=True)  # another store has taken the address
                self._held.clear()
            if birth is None:
                return
            (self.folder / "segments").mkdir(parents=True, exist_ok=True)
            wanted = ["zarr.json", "segments/zarr.json"]
            for prefix in ("manifest/", "vocabulary/", "vocabularies/"):
                found = [entry["path"] for batch in self._api.list(self._store, prefix) for entry in batch]
                wanted += [key for key in found if "/.stage-" not in key]
            missing = [key for key in wanted if not (self.folder / key).exists()]
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(self.fetch, missing))
                heads = [key for key in wanted if key.startswith("vocabularies/") and key.endswith(f"/{MANIFEST}")]
                for folder in [(self.folder / key).parent for key in heads]:  # some may not be in their place yet
                    list(pool.map(self.present, [folder / name for name in read_manifest(folder)["files"]]))
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(self.url, f"cannot be read: {_first_line(error)}", _REMEDY) from error

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(self._api.get(self._store, key).bytes())
        except (FileNotFoundError, self._api.exceptions.NotFoundError):
            return None

    def fetch(self, key: str) -> bool:
        """Puts a file of the store into the mirror; False if the store has none of that name."""
        path = self.folder / key
        if path.exists():
            return True
        try:
            if _SHARD.match(key):
                size = int(self._api.head(self._store, key)["size"])
                starts = list(range(0, size, _RANGE))
                ends = [min(at + _RANGE, size) for at in starts]
                pieces = self._api.get_ranges(self._store, key, starts=starts, ends=ends) if starts else []
                data = b"".join(bytes(piece) for piece in pieces)
            else:
                found = self._get(key)
                if found is None and (aside := self._aside(path)):
                    found = self._get(aside)
                if found is None:
                    return False
                data = found
        except (FileNotFoundError, self._api.exceptions.NotFoundError):
            return False
        except Exception as error:
            raise StoreError(f"{self.url}/{key}", f"cannot be read: {_first_line(error)}", _REMEDY) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".stage-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
        with self._lock:
            self.fetched_bytes += len(data)
            if _SHARD.match(key):
                self._held[key] = len(data)
                self._held.move_to_end(key)
                while sum(self._held.values()) > self._limit and len(self._held) > 1:
                    oldest, _ = self._held.popitem(last=False)
                    (self.folder / oldest).unlink(missing_ok=True)  # maps of it stay good
        return True

    def present(self, path: Path) -> bool:
        """Fetches a file that is asked for; whether it is there."""
        key = self._key(path)
        if not self.fetch(key):
            return False
        shard = _SHARD.match(key)
        if shard:
            following = f"{shard[1]}{int(shard[2]) + 1}{shard[3]}"
            if not (self.folder / following).exists():
                self._ahead.submit(self._fetch_ahead, following)
        return True

    def _fetch_ahead(self, key: str) -> None:
        with suppress(StoreError, OSError):  # it is asked for again when it is wanted
            self.fetch(key)

    def close(self) -> None:
        """Waits for what is being fetched ahead."""
        self._ahead.shutdown(wait=True, cancel_futures=True)

    def put(self, folder: Path) -> None:
        """Sends all files below a folder of the mirror; COMMIT.json last."""
        files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.name == "COMMIT.json")
        with self._failing("written"):
            for file in files:
                self._api.put(self._store, self._key(file), file)

    def folders(self, prefix: str) -> list[str]:
        """Keys of the folders right below a prefix that ends in a slash, as they are in the store now."""
        with self._failing("read"):
            found = self._api.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return sorted(key.rstrip("/") for key in found)

    def objects(self, prefix: str) -> dict[str, float]:
        """Keys of the objects below a prefix as they are in the store now, each with its unix time."""
        with self._failing("read"):
            found = [entry for batch in self._api.list(self._store, prefix) for entry in batch]
        return {entry["path"]: entry["last_modified"].timestamp() for entry in found}

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects, in this order."""
        with self._failing("written"):
            for key in keys:
                with suppress(FileNotFoundError, self._api.exceptions.NotFoundError):
                    self._api.delete(self._store, key)

    def put_missing(self, folder: Path, names: Iterable[str]) -> None:
        """Sends the files of a folder of the mirror that the store does not have in their place."""
        there = self.objects(f"{self._key(folder)}/")
        with self._failing("written"):
            for name in names:
                if self._key(folder / name) not in there:
                    self._api.put(self._store, self._key(folder / name), folder / name)

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if "not found: Error performing PUT" in str(error):  # what is put need not have been there, but for that
                raise StoreError(
                    self.url, "cannot be written: there is no such bucket", "make it, or check the address"
                ) from error
            raise StoreError(self.url, f"cannot be {what}: {_first_line(error)}", _REMEDY) from error

    def put_whole(self, stage: Path, to: Path, head: str) -> bool:
        """Makes the files of `stage` the directory `to` of the store, whole or not at all; False if it is there.

        Its file `head` is put only if there is none of that name, and who has done so has won. All others were put
        beside it before, under a name that the contents of the head give, where readers find what is not yet in its
        place. So a writer that dies leaves nothing, or all.
        """
        data = (stage / head).read_bytes()
        aside = aside_of(self._key(to), data)
        files = [f for f in sorted(stage.rglob("*")) if f.is_file() and f != stage / head]
        names = [f.relative_to(stage).as_posix() for f in files]
        try:
            for file, name in zip(files, names, strict=True):
                self._api.put(self._store, f"{aside}/{name}", file)
            try:
                self._api.put(self._store, f"{self._key(to)}/{head}", data, mode="create")
            except (FileExistsError, self._api.exceptions.AlreadyExistsError, self._api.exceptions.PreconditionError):
                return False
            for file, name in zip(files, names, strict=True):
                self._api.put(self._store, f"{self._key(to)}/{name}", file)
        except Exception as error:
            raise StoreError(self.url, f"cannot be written: {_first_line(error)}", _REMEDY) from error
        return True

    def _aside(self, path: Path) -> str:
        """Where a file lies that `put_whole` has not put in its place; "" for one that it has nothing to do with."""
        for folder in path.parents:
            if folder.parent == self.folder / "vocabularies" and (folder / MANIFEST).exists():
                aside = aside_of(self._key(folder), (folder / MANIFEST).read_bytes())
                return f"{aside}/{path.relative_to(folder).as_posix()}"
        return ""

    def put_if_absent(self, path: Path, data: bytes) -> bool:
        """Makes an object if there is none of that name, in the store and then in the mirror."""
        try:
            self._api.put(self._store, self._key(path), data, mode="create")
        except (FileExistsError, self._api.exceptions.AlreadyExistsError, self._api.exceptions.PreconditionError):
            return False
        except Exception as error:
            raise StoreError(self.url, f"cannot be written: {_first_line(error)}", _REMEDY) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        store_disk.put_if_absent(path, data)
        return True


def aside_of(key: str, head: bytes) -> str:
    """Where `put_whole` puts the files of the directory `key` whose head has these bytes."""
    return f"{key.rpartition('/')[0]}/.stage-{hashlib.sha256(head).hexdigest()[:24]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":").strip()
