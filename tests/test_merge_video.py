"""Two vocabularies of video that were fitted apart made one: the first's codes stay what they are, the second's are
told in its space and draw what they drew."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import VocabularyError
from pantok.evolve import codebooks, lineage
from pantok.evolve.merge import join
from pantok.evolve.merge_video import in_terms_of
from pantok.stream import TokenStream
from pantok.tokenizers import video_living as living
from pantok.tokenizers.video import VideoOptions, VideoTokenizer
from pantok.vocabulary import Vocabulary
from tests.test_video import SMALL, psnr, scene, track_of

SIZE = 64, 96


def film(count: int = 24, speed: float = 1.5) -> np.ndarray:
    return scene(count, *SIZE, speed=speed)


def stripes(count: int = 24) -> np.ndarray:
    """Of another kind: hard edges, turning, in colour."""
    from pantok import pixels

    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    frames = []
    for t in range(count):
        angle = 0.06 * t
        along = (x - 48) * np.cos(angle) + (y - 32) * np.sin(angle)
        rgb = np.stack([(along // width % 2) * 160 + 40 for width in (5, 7, 11)], -1)
        frames.append(rgb.astype(np.uint8))
    return pixels.from_rgb(np.stack(frames))


def fitted(frames: np.ndarray) -> VideoTokenizer:
    return VideoTokenizer.fit([track_of(frames, *SIZE)], SMALL)


@pytest.fixture(scope="module")
def home() -> Vocabulary:
    return Vocabulary.build({"video": fitted(film()).state()})


@pytest.fixture(scope="module")
def lab() -> Vocabulary:
    return Vocabulary.build({"video": fitted(stripes()).state()})


@pytest.fixture(scope="module")
def both(home: Vocabulary, lab: Vocabulary) -> Vocabulary:
    return join(home, lab, within=0.0)[0]


def tokenizer(vocabulary: Vocabulary) -> VideoTokenizer:
    return VideoTokenizer.from_state(vocabulary.states["video"])


def test_the_first_is_as_it_was(home: Vocabulary, lab: Vocabulary, both: Vocabulary) -> None:
    assert both.reads(home) and not both.decodes(lab) and lineage.related(both, lab)
    track = track_of(film(), *SIZE)
    tokens = tokenizer(home).encode(track, VideoOptions(latents=True))
    assert np.array_equal(tokenizer(home).decoded(tokens), tokenizer(both).decoded(tokens))
    again = tokenizer(both).encode(track, VideoOptions(latents=True))
    assert np.array_equal(tokens.latents.values, again.latents.values), "the directions of latents stay"
    assert tokenizer(both).state().digest == both.states["video"].digest


def test_codes_of_the_second_draw_what_they_drew(home: Vocabulary, lab: Vocabulary, both: Vocabulary) -> None:
    ours, theirs = tokenizer(both).books, tokenizer(lab).books
    for name, levels in living.LEVELS.items():
        for stage, level in enumerate(levels):
            number = codebooks.level_of(lab.states["video"], level)
            codes = lineage.codes_of(both, lab, "video", number)
            gap = ours.by_name[name].pixels[stage][codes].astype(float) - theirs.by_name[name].pixels[stage]
            drawn = theirs.by_name[name].pixels[stage].astype(float)
            # In eighths of a grey level: a coefficient is rounded to `unit` levels over the root of the pixels.
            assert np.sqrt((gap**2).mean()) < 0.02 * np.sqrt((drawn**2).mean()) + 4, level
    for level, tensor in (("pattern", "patterns"), ("between_pattern", "inner_patterns"), ("course", "courses")):
        codes = lineage.codes_of(both, lab, "video", codebooks.level_of(lab.states["video"], level))
        assert np.array_equal(both.states["video"].tensors[tensor][codes], lab.states["video"].tensors[tensor])
    # A whole stream, in a closed loop: as codes of the merged vocabulary it is nearly the same film.
    tokens = tokenizer(lab).encode(track_of(stripes(), *SIZE))
    written = replace(tokens, header={**tokens.header, "smooth": 999})
    told = lineage.translated(both, lab, TokenStream("stripes", {"video.test": written}, lab.id)).tracks["video.test"]
    assert "smooth" not in told.header, "a set of smoothing of the other tokenizer says nothing here"
    plain = replace(tokens, header={k: v for k, v in tokens.header.items() if k != "smooth"})
    assert psnr(tokenizer(both).decoded(told), tokenizer(lab).decoded(plain)) > 38


def test_it_describes_both_kinds(home: Vocabulary, lab: Vocabulary, both: Vocabulary) -> None:
    for frames, least in ((stripes(), 3.0), (film(speed=2), -0.3)):
        track = track_of(frames, *SIZE)
        quality = [psnr(frames, t.decoded(t.encode(track))) for t in (tokenizer(home), tokenizer(both))]
        assert quality[1] - quality[0] > least


def test_what_is_known_is_not_appended_again(home: Vocabulary, lab: Vocabulary, both: Vocabulary) -> None:
    once, facts = join(home, lab)
    assert sum(f.codes for f in facts) == sum(f.shared + f.appended for f in facts)
    assert once.size == home.size + sum(f.appended for f in facts)
    again, facts = join(once, lab)
    assert not sum(f.appended for f in facts) and again.states["video"].digest == once.states["video"].digest
    assert join(once, home)[0].id == once.id and join(home, once)[0].id == once.id


def test_a_vocabulary_that_has_grown_is_merged_too(home: Vocabulary, lab: Vocabulary) -> None:
    """Its later codes get no part in the directions that come with the merge."""
    third, _ = join(home, Vocabulary.build({"video": fitted(scene(16, *SIZE, seed=7)[:, ::-1].copy()).state()}))
    state = third.states["video"]
    both, _ = join(third, lab)
    assert both.reads(third) and both.reads(home)
    wide = {n: t for n, t in both.states["video"].tensors.items() if n.endswith(".beyond")}
    assert any(t.shape[1] > state.tensors[n].shape[1] for n, t in wide.items() if n in state.tensors)
    track = track_of(film(8), *SIZE)
    tokens = tokenizer(third).encode(track)
    assert np.array_equal(tokenizer(third).decoded(tokens), tokenizer(both).decoded(tokens))
    assert tokenizer(both).state().digest == both.states["video"].digest
    name = next(n for n in wide if n in state.tensors and wide[n].shape[1] > state.tensors[n].shape[1])
    forged = wide[name].copy()
    forged[0, -1] += 1
    tensors = {**both.states["video"].tensors, name: forged}
    assert not replace(both.states["video"], tensors=tensors).descends(state), "an older code must not change"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_whatever_the_codes_are(home: Vocabulary, lab: Vocabulary, seed: int) -> None:
    rng, state = np.random.default_rng(seed), lab.states["video"]
    tensors = dict(state.tensors)
    for name in ("moved.0", "fine.1", "inner.2"):
        size = 10 ** rng.uniform(0, 2)
        tensors[name] = rng.normal(0, size, tensors[name].shape).astype(np.int16)
    theirs = replace(state, tensors=tensors)
    mine, said, _ = in_terms_of(home.states["video"], theirs)
    assert mine.descends(home.states["video"])
    before, after = (VideoTokenizer.from_state(s).books for s in (theirs, said))
    for name in ("moved", "fine", "inner"):
        for a, b in zip(before.by_name[name].pixels, after.by_name[name].pixels, strict=True):
            gap = (a.astype(float) - b) / 8
            # Each of D whole coefficients is off by a half at most, whatever is left out by a hundredth of the whole.
            bound = 0.5 * np.sqrt(len(after.by_name[name].basis)) * after.by_name[name].unit + 1
            norms = np.sqrt((gap**2).sum((1, 2)))
            assert (norms <= bound + 0.02 * np.sqrt((a.astype(float) ** 2).sum()) / 8).all()


def test_other_formats_are_refused(home: Vocabulary, lab: Vocabulary) -> None:
    state = lab.states["video"]
    keep = [lv for lv in state.levels if lv.name != "course"]
    older = replace(
        state, levels=tuple(keep), config={**state.config, "format": 2},
        tensors={n: t for n, t in state.tensors.items() if n != "courses"},
    )  # fmt: skip
    with pytest.raises(VocabularyError, match=r"different ways.*vocab grow"):
        join(home, Vocabulary.build({"video": older}))
