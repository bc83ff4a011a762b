"""What a store promises of its recordings, checked again against them: lengths, instants, bounds.

What is unusual: nothing of the certificate is believed. The track is decoded as anyone would decode it and compared
sample by sample with the recording; what was measured when it was encoded plays no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pantok.errors import PantokError
from pantok.evaluate import Certificate, aligned
from pantok.experience import Block, Clock, Track
from pantok.metrics.meters import NumericMeter
from pantok.stream import TrackTokens
from pantok.tokenizers import Tokenizer

CLOCK_TOLERANCE_NS = 1
"""A clock is taken for regular if every instant lies so close to what its rate gives, see `Clock.of_times`."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One track: how many samples were compared, what of its promises does not hold, and its certificate if it has
    one."""

    track: str
    modality: str
    samples: int
    broken: tuple[str, ...]
    certificate: Certificate | None = None


def check(track: Track, tokens: TrackTokens, tokenizer: Tokenizer) -> Checked:
    """Compares the decoded track with the recording `track`.

    Of every modality: as many samples, at the same instants. Of numbers with a certificate: every channel within its
    bound, NaN and infinities as they were. Raises InputError where the recording cannot be read; what is wrong with
    the tokens is among `broken`.
    """
    meter = NumericMeter(1)
    original, decoded = _Recording(track, tokens.clock), _Decoded(tokenizer, tokens)
    compared, broken = 0, []
    for theirs, ours in aligned([original.blocks(), decoded.blocks()]):
        same = min(len(theirs), len(ours))
        if same and tokens.modality == "numeric":
            meter.update(theirs[:same], [ours[:same]])
        compared += same
    expected = tokens.clock.count
    if decoded.fault:
        broken.append(decoded.fault)
    elif decoded.count != expected:
        broken.append(f"decodes to {decoded.count} samples, its clock says {expected}")
    if original.count != expected:
        broken.append(f"has {expected} samples, the recording {original.count}")
    elif original.off_ns:
        broken.append(f"sample {original.off_at} is {abs(original.off_ns)} ns from where the recording has it")
    certificate = None
    if tokens.modality == "numeric" and tokens.header.get("channels") and compared:
        promised = tokens.header["channels"]
        certificate = Certificate(
            channels=tuple(str(c["name"]) for c in promised),
            bounds=tuple(float(c["bound"]) for c in promised),
            errors=meter.max_errors(0),
            kept=meter.scores()[0]["same_nonfinite"] == 1.0,
        )
        broken += _violations(certificate)
    return Checked(
        track=tokens.name, modality=tokens.modality, samples=compared, broken=tuple(broken), certificate=certificate
    )


def _violations(certificate: Certificate) -> list[str]:
    """One phrase for each channel beyond its bound, and one if NaN or infinities were lost."""
    found = [
        f"channel {name} is off by {error:.6g}, guaranteed was {bound:.6g}"
        for name, bound, error in zip(certificate.channels, certificate.bounds, certificate.errors, strict=True)
        if not error <= bound
    ]
    return found + ([] if certificate.kept else ["NaN or infinities did not come back as they were"])


class _Recording:
    """The original's blocks, counted, and its instants compared with those of the clock."""

    def __init__(self, track: Track, clock: Clock) -> None:
        self._track, self._clock = track, clock
        self.count, self.off_ns, self.off_at = 0, 0, -1

    def blocks(self) -> Iterator[Block]:
        for block in self._track.blocks():
            if block.times_ns is not None and self.off_ns == 0 and self.count + len(block) <= self._clock.count:
                off = block.times_ns - self._clock.at(np.arange(self.count, self.count + len(block)))
                far = np.flatnonzero(np.abs(off) > CLOCK_TOLERANCE_NS)
                if len(far):
                    self.off_at, self.off_ns = self.count + int(far[0]), int(off[far[0]])
            self.count += len(block)
            yield block
        known = self._track.clock  # then blocks need not say their instants
        if known is not None and self.off_ns == 0 and 0 < known.count == self._clock.count:
            ends = np.array([0, known.count - 1])
            off = known.at(ends) - self._clock.at(ends)
            self.off_at, self.off_ns = next(((int(i), int(o)) for i, o in zip(ends, off, strict=True) if o), (-1, 0))


class _Decoded:
    """What the tokens decode to, counted; decoding ends where it fails."""

    def __init__(self, tokenizer: Tokenizer, tokens: TrackTokens) -> None:
        self._tokenizer, self._tokens = tokenizer, tokens
        self.count, self.fault = 0, ""

    def blocks(self) -> Iterator[Block]:
        try:
            for block in self._tokenizer.decode(self._tokens):
                self.count += len(block)
                yield block
        except PantokError as error:
            self.fault = f"cannot be decoded: {error}"
