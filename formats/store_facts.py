"""What identifies an episode of a store, and its facts as JSON.

What is unusual: two hashes. The *key* is of what an episode was made from (id, content of the sources, vocabulary,
parameters), known before any work is done, so that a restart skips what is there. The *digest* is of what came out,
every code, count, latent and instant, so that two stores can be compared whatever order, grouping or number of
workers wrote them.

JSON has no arrays with a dtype, fractions, infinities or bytes. They become objects of one key that begins with `$`:

    >>> to_json({"rate": Fraction(30000, 1001), "ends_ns": np.array([1, 2]), "gain": float("inf")})
    {'rate': {'$fraction': '30000/1001'}, 'ends_ns': {'$array': ['<i8', [2], 'AQAAAAAAAAACAAAAAAAAAA==']}, 'gain': {'$float': 'inf'}}
"""  # noqa: E501

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any
from urllib.parse import quote

import numpy as np

from pantok.errors import TokenError, VocabularyError
from pantok.experience import Clock, Source
from pantok.stream import Latents, LevelCodes, TokenStream, TrackTokens, smallest_dtype
from pantok.vocabulary import Vocabulary


def canonical(value: Any) -> bytes:
    """JSON to be hashed: keys sorted, no white space, ASCII only (file names may hold what UTF-8 cannot)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def to_json(value: Any) -> Any:
    """`value` in JSON types; see the module. Tuples become lists. Raises TypeError for what has no form here."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Fraction):
        return {"$fraction": f"{value.numerator}/{value.denominator}"}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        data = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return {"$array": [data.dtype.str, list(value.shape), base64.b64encode(data.tobytes()).decode()]}
    if isinstance(value, Mapping):
        plain = {str(k): to_json(v) for k, v in value.items()}
        return {"$object": plain} if len(plain) == 1 and next(iter(plain)).startswith("$") else plain
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON: {value!r}")


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key == "$fraction":
            return Fraction(inner)
        if key == "$float":
            return float(inner)
        if key == "$bytes":
            return base64.b64decode(inner)
        if key == "$array":
            return np.frombuffer(base64.b64decode(inner[2]), np.dtype(inner[0])).reshape(inner[1]).copy()
        if key == "$object":
            value = inner
    return {k: from_json(v) for k, v in value.items()}


def episode_key(episode: str, sources: Iterable[Source], vocabulary_id: str, parameters: Mapping[str, Any]) -> str:
    """What an episode is made from, 32 hexadecimal digits. A source whose sha256 is not known counts by its path."""
    made_from = [[s.size_bytes, s.sha256 or f"path:{s.path}"] for s in sources]
    return _sha(canonical([episode, made_from, vocabulary_id, to_json(parameters)]))[:32]


def checked(stream: TokenStream, vocabulary: Vocabulary) -> TokenStream:
    """The stream with codes in the dtypes of the store, checked against its vocabulary and its clocks.

    Raises VocabularyError for a stream of another vocabulary, TokenError for a code that its level does not have.
    """
    if stream.vocabulary_id != vocabulary.id:
        raise VocabularyError(
            f"episode {stream.id}",
            f"was encoded under vocabulary {stream.vocabulary_id[:12]}, the store holds {vocabulary.id[:12]}",
            "encode it again under the store's vocabulary, or into a new store",
        )
    return replace(stream, tracks={name: _checked_track(stream.id, t, vocabulary) for name, t in stream.tracks.items()})


def _checked_track(episode: str, track: TrackTokens, vocabulary: Vocabulary) -> TrackTokens:
    cardinalities = tuple(level.cardinality for level in vocabulary.levels(track.modality))
    try:
        track.check(cardinalities)
        for k, level in enumerate(track.levels):
            if level.codes.dtype.kind == "i" and len(level.codes) and int(level.codes.min()) < 0:
                at = int(np.argmax(level.codes < 0))
                raise TokenError(f"{track.name} level {k} position {at}", f"code {level.codes[at]} is negative")
    except TokenError as error:
        raise TokenError(f"episode {episode} {error.thing}", error.problem, error.remedy) from error
    levels = []
    for level, cardinality in zip(track.levels, cardinalities, strict=True):
        assert level.codes.dtype.kind in "ui" and (np.diff(level.splits) >= 0).all(), (episode, track.name)
        dtype = smallest_dtype(cardinality).newbyteorder("<")
        levels.append(LevelCodes(np.ascontiguousarray(level.codes, dtype), np.asarray(level.splits, np.int64)))
    latents = track.latents
    if latents is not None:
        assert latents.values.ndim == 2 and len(latents.splits) == track.ticks + 1, (episode, track.name)
        assert latents.splits[0] == 0 and latents.splits[-1] == len(latents.values), (episode, track.name)
        latents = Latents(np.ascontiguousarray(latents.values, "<f2"), np.asarray(latents.splits, np.int64))
    return replace(track, levels=tuple(levels), latents=latents)


def clock_json(clock: Clock) -> dict[str, Any]:
    """A regular clock exactly; of an irregular one all but the instants."""
    rate = None if clock.rate is None else [clock.rate.numerator, clock.rate.denominator]
    return {"start_ns": int(clock.start_ns), "count": int(clock.count), "rate": rate}


def episode_digest(stream: TokenStream) -> str:
    """sha256 of the content of a `checked` stream: STORE.md says over which bytes. Paths of sources don't count."""
    sha = hashlib.sha256()
    sources = [[s.size_bytes, s.sha256] for s in stream.sources]
    sha.update(canonical([stream.id, stream.vocabulary_id, sources, to_json(stream.parameters)]))
    for name in sorted(stream.tracks):
        track = stream.tracks[name]
        facts = [to_json(dict(track.header)), to_json(dict(track.info)), list(track.channels), list(track.units)]
        width = None if track.latents is None else track.latents.values.shape[1]
        what = [name, track.modality, clock_json(track.clock), track.tick, len(track.levels), width, *facts]
        sha.update(canonical(what))
        if track.clock.irregular_ns is not None:
            _update(sha, track.clock.irregular_ns, "<i8")
        for level in track.levels:
            _update(sha, level.codes, level.codes.dtype.newbyteorder("<"))
            _update(sha, np.diff(level.splits), "<u4")
        if track.latents is not None:
            _update(sha, track.latents.values, "<f2")
            _update(sha, np.diff(track.latents.splits), "<u4")
    return sha.hexdigest()


def span_ns(stream: TokenStream) -> tuple[int, int]:
    """(start_ns, duration_ns): from the earliest start of a track to the latest end."""
    clocks = [t.clock for t in stream.tracks.values() if t.clock.count]
    if not clocks:
        return 0, 0
    start = min(int(c.start_ns) for c in clocks)
    return start, max(int(c.start_ns) + int(c.duration_ns) for c in clocks) - start


def folder_name(track: str) -> str:
    """The directory of a track: its name, percent-encoded where a file system or Zarr could stumble."""
    name = quote(track, safe="").replace("~", "%7E")
    if name.startswith((".", "__")):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name if len(name) <= 200 else f"{name[:150]}~{_sha(track.encode())[:24]}"


def _update(sha: Any, values: np.ndarray, dtype: Any) -> None:
    values = np.ascontiguousarray(values, dtype)
    if values.size:
        sha.update(values.reshape(-1).view(np.uint8).data)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
