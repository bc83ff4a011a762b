"""Text: lossless when trained here, untouched when brought along, and never able to forge a code."""

from __future__ import annotations

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders, models, pre_tokenizers, trainers

from pantok.errors import OptionError, TokenError, VocabularyError
from pantok.experience import Clock, Track
from pantok.tokenizers.text import TextConfig, TextTokenizer
from pantok.vocabulary import Vocabulary

CORPUS = ["the robot moves the red block to the left of the blue block", "and then it stops and waits"] * 20


@pytest.fixture(scope="module")
def trained() -> TextTokenizer:
    return TextTokenizer.train(CORPUS, TextConfig(size=400))


@pytest.fixture(scope="module")
def huggingface_json() -> bytes:
    model = HuggingFace(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(CORPUS, trainer)
    return model.to_str().encode()


def track(*spans: str) -> Track:
    values = np.empty(len(spans), object)
    values[:] = spans
    return Track.of_array("text", values, Clock.irregular(np.arange(len(spans)) * 5), info={"ends_ns": [1]})


@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_every_text_comes_back(trained: TextTokenizer, text: str) -> None:
    assert trained.to_text(trained.to_codes(text)) == text


def test_a_stream_of_spans_comes_back_with_its_clock(trained: TextTokenizer) -> None:
    tokens = trained.encode(track("the robot", "", "stops\n\n"))
    assert trained.decoded(tokens).tolist() == ["the robot", "", "stops\n\n"]
    assert trained.decoded(tokens, start=2).tolist() == ["stops\n\n"]
    assert tokens.clock.times_ns.tolist() == [0, 5, 10]
    assert tokens.info["ends_ns"] == [1]
    assert trained.from_state(trained.state()).decoded(tokens).tolist() == ["the robot", "", "stops\n\n"]


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_any_codes_decode(trained: TextTokenizer, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, trained.levels[0].cardinality, 50)
    assert isinstance(trained.to_text(codes), str)


def test_codes_that_are_not_there_are_refused(trained: TextTokenizer) -> None:
    tokens = trained.encode(track("the robot"))
    tokens.levels[0].codes[1] = trained.levels[0].cardinality
    with pytest.raises(TokenError, match="position 1"):
        trained.decoded(tokens)


def test_training_is_deterministic() -> None:
    a, b = (TextTokenizer.train(CORPUS, TextConfig(size=350)) for _ in range(2))
    assert a.state().digest == b.state().digest


def test_ids_of_models_brought_along_are_their_own(huggingface_json: bytes, trained: TextTokenizer) -> None:
    text = "the robot waits, then moves"
    ours = TextTokenizer.of_file("tokenizer.json", huggingface_json)
    assert ours.to_codes(text).tolist() == HuggingFace.from_str(huggingface_json.decode()).encode(text).ids
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained.model)
    assert TextTokenizer.of_file("m.model", trained.model).to_codes(text).tolist() == theirs.encode(text)


def test_no_text_forges_a_control_or_a_code(huggingface_json: bytes, trained: TextTokenizer) -> None:
    hostile = "<|end|> <s> </s> <unk> <video_begin> <v0:7> <0x41> id 577"
    for model in (TextTokenizer.of_file("t.json", huggingface_json), trained):
        vocabulary = Vocabulary.build({"text": model.state()})
        ids = vocabulary.ids("text", 0, model.to_codes(hostile))
        assert ids.max() < model.levels[0].cardinality
        assert model.to_text(model.to_codes(hostile)) == hostile
    special = HuggingFace.from_str(huggingface_json.decode()).token_to_id("<|end|>")
    assert special not in TextTokenizer.of_file("t.json", huggingface_json).to_codes(hostile)
    assert not set(trained.to_codes(hostile).tolist()) & {0, 1, 2}, "unk, bos and eos of the model"


def test_wrong_models_and_empty_corpora_say_so() -> None:
    for content in (b"", b"garbage", b'{"version": 1}'):
        with pytest.raises(VocabularyError, match=r"some\.file"):
            TextTokenizer.of_file("some.file", content)
    with pytest.raises(OptionError, match="none to learn from"):
        TextTokenizer.train(["", "  \n"])
    with pytest.raises(OptionError, match="out of range"):
        TextConfig(size=3)
