"""Vocabularies and encoded episodes made with numpy, for the tests of the store."""

import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np

from pantok.experience import Clock, Source
from pantok.formats.store import Store
from pantok.stream import Latents, LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Level, TokenizerState, Vocabulary


def a_vocabulary(seed: int = 0) -> Vocabulary:
    """Levels of one, two and four bytes a code; 255 and 256 stand on either side of the step from one to two."""
    rng = np.random.default_rng(seed)
    video = (Level("mode", 5, "mode"), Level("coarse", 255), Level("moved", 256))
    return Vocabulary.build(
        {
            "video": TokenizerState("video", {"seed": seed}, video, {"basis": rng.normal(size=(8, 8))}),
            "audio": TokenizerState("audio", {}, (Level("gain.frame", 256), Level("shape", 1024))),
            "numeric": TokenizerState("numeric", {}, (Level("value", 1000), Level("digit", 16, "digit"))),
            "text": TokenizerState("text", {}, (Level("text", 70_000, "text"),), {}, {"model": rng.bytes(99)}),
        }
    )


def a_stream(number: int, vocabulary: Vocabulary, ticks: int = 12, **changes) -> TokenStream:
    """Episode `number`, different in every code; level 1 of video may be empty, the clock of text is irregular."""
    rng = np.random.default_rng([number, ticks])

    def level(cardinality: int, low: int = 0, high: int = 4, n: int = ticks) -> LevelCodes:
        counts = rng.integers(low, high, n)
        return LevelCodes.of_counts(rng.integers(0, cardinality, counts.sum()), counts)

    video = TrackTokens(
        "video.front",
        "video",
        Clock.regular(Fraction(30000, 1001), max(4 * ticks - 1, 0), number * 10**9 + 7),
        4,
        (level(5, 1, 2), level(255, 0, 1 if number % 2 else 300), level(256)),
        {"key_every": 5, "size": np.array([640, 272])},
        {"matrix": "bt709", "time_base": Fraction(1, 12800)},
    )
    audio = TrackTokens(
        "audio.mic",
        "audio",
        Clock.regular(16000, 320 * ticks),
        320,
        (level(256), level(1024)),
        {"peak": float("inf")},
        channels=("left", "right"),
        latents=Latents(rng.normal(size=(2 * ticks, 6)).astype(np.float16), np.arange(ticks + 1) * 2),
    )
    arm = TrackTokens(
        "proprio.arm/ä %",
        "numeric",
        Clock.regular(50, 10 * ticks),
        10,
        (level(1000, 3, 4), level(16)),
        units=("rad", "rad/s"),
        channels=("q", "dq"),
    )
    times = np.cumsum(rng.integers(0, 10**10, ticks)) - 5
    text = TrackTokens(
        "text.caption", "text", Clock.irregular(times), 1, (level(70_000),), info={"ends_ns": times + 5, "$odd": 1}
    )
    tracks = {t.name: t for t in (video, audio, arm, text)}
    if number % 3 == 2:
        del tracks["audio.mic"]
    facts = {
        "sources": (Source(f"/tape/{number}.mp4", 1000 + number, f"{number:064x}"),),
        "parameters": {"bits_per_second": 8000.0, "max_error": None, "rate": Fraction(1, 3)},
    }
    return TokenStream(f"episode-{number:03d}", tracks, vocabulary.id, **{**facts, **changes})


def assert_equal(a: TokenStream, b: TokenStream) -> None:
    """Every code, count, latent, instant and fact."""
    assert (a.id, a.vocabulary_id, a.sources) == (b.id, b.vocabulary_id, b.sources)
    assert dict(a.parameters) == dict(b.parameters)
    assert list(a.tracks) == list(b.tracks)
    for name, x in a.tracks.items():
        y = b.tracks[name]
        assert (x.name, x.modality, x.tick, x.channels, x.units) == (y.name, y.modality, y.tick, y.channels, y.units)
        assert (x.clock.start_ns, x.clock.count, x.clock.rate) == (y.clock.start_ns, y.clock.count, y.clock.rate)
        np.testing.assert_array_equal(x.clock.times_ns, y.clock.times_ns)
        for mine, other in ((x.header, y.header), (x.info, y.info)):
            np.testing.assert_equal(dict(mine), dict(other))
        for p, q in zip(x.levels, y.levels, strict=True):
            np.testing.assert_array_equal(p.codes, q.codes)
            np.testing.assert_array_equal(p.splits, q.splits)
        assert (x.latents is None) == (y.latents is None)
        if x.latents is not None:
            assert y.latents.values.dtype == np.float16
            np.testing.assert_array_equal(x.latents.values, y.latents.values)
            np.testing.assert_array_equal(x.latents.splits, y.latents.splits)


def a_long_stream() -> TokenStream:
    """A level of three chunks, of which the ticks have no fixed number of codes."""
    rng = np.random.default_rng(9)
    counts = rng.integers(100, 300, 7000)
    fine = LevelCodes.of_counts(rng.integers(0, 1024, counts.sum()), counts)
    coarse = LevelCodes.of_counts(rng.integers(0, 256, 7000), np.ones(7000, int))
    track = TrackTokens("audio.mic", "audio", Clock.regular(48000, 7000 * 960 - 5), 960, (coarse, fine))
    return TokenStream("long", {"audio.mic": track}, a_vocabulary().id)


def a_whole_store(path: Path) -> Path:
    """Two episodes in a segment, one in another, and a long one."""
    vocabulary = a_vocabulary()
    store = Store.create(path, vocabulary)
    with store.writer() as segment:
        segment.add(a_stream(0, vocabulary))
        segment.add(a_stream(1, vocabulary))
    store.write([a_stream(3, vocabulary), a_long_stream()])
    assert list(store.verify()) == []
    return store.path


def kill_before(step: int) -> None:
    """From now on this process dies before its `step`-th call to the kernel that makes anything durable."""
    count = 0
    for name in ("fsync", "link", "rename"):
        real = getattr(os, name)

        def dying(*args, real=real, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(os, name, dying)
