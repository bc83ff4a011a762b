"""Text through an existing SentencePiece or Hugging Face model, or one trained here; its ids stay as they are.

What is unusual: text is always text. The literal words `<s>` or `<|endoftext|>` in a transcript become the
pieces that spell them, never the control token, so no recording can forge one; and ids of codes lie above all
text ids. A model trained here is lossless: no normalisation, and bytes for whatever it has not seen.

    >>> text = TextTokenizer.train(["push the red block left", "push it back"] * 8, TextConfig(size=300))
    >>> text.to_text(text.to_codes("push\\ta ▁ λ"))
    'push\\ta ▁ λ'
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from pantok.errors import OptionError, VocabularyError
from pantok.experience import Block, Clock, Track
from pantok.stream import LevelCodes, TrackTokens, smallest_dtype
from pantok.tokenizers.base import Encoder, Report, Tokenizer, silent
from pantok.vocabulary import Level, TokenizerState

_SPACE = "\u2581"  # SentencePiece writes a space as this; a literal one is spelled in bytes
_LONGEST_LINE = 4096


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """size: pieces to learn, bytes and control pieces included; a small corpus may give fewer."""

    size: int = 4096

    def __post_init__(self) -> None:
        if not 300 <= self.size <= 1_000_000:
            raise OptionError("text size", f"{self.size} is out of range", "choose 300 to 1000000")


class TextTokenizer(Tokenizer):
    """One level: the ids of the text model. A tick is a span (a subtitle, a line, a whole document)."""

    modality: ClassVar[str] = "text"

    def __init__(self, kind: str, model: bytes) -> None:
        """kind: `sentencepiece` (a serialised model) or `huggingface` (a tokenizer.json). Raises VocabularyError."""
        self.kind, self.model = kind, model
        if kind not in ("sentencepiece", "huggingface"):
            raise VocabularyError(
                "text model", f"is of unknown kind {kind!r}", "SentencePiece .model or tokenizer.json"
            )
        try:
            self._encode, self._decode, size = (_sentencepiece if kind == "sentencepiece" else _huggingface)(model)
        except Exception as error:
            raise VocabularyError("text model", f"is not a {kind} model") from error
        self._levels = (Level("text", size, "text"),)

    @classmethod
    def of_file(cls, name: str, content: bytes) -> TextTokenizer:
        """The tokenizer in a file's content; told apart by the content, `name` is for the error."""
        kind = "huggingface" if content.lstrip()[:1] == b"{" else "sentencepiece"
        try:
            return cls(kind, content)
        except VocabularyError as error:
            raise VocabularyError(name, error.problem, "give a SentencePiece .model or a tokenizer.json") from error

    @classmethod
    def train(cls, texts: Iterable[str], config: TextConfig | None = None) -> TextTokenizer:
        """A lossless SentencePiece BPE model of `texts`."""
        import sentencepiece

        config = config or TextConfig()
        lines = [line for text in texts for line in _lines(text)]
        if not lines:
            raise OptionError("text", "there is none to learn from", "give --text-model or --text-corpus")
        size = config.size
        for _ in range(2):
            out = io.BytesIO()
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(lines),
                    model_writer=out,
                    vocab_size=size,
                    model_type="bpe",
                    byte_fallback=True,
                    character_coverage=1.0,
                    normalization_rule_name="identity",
                    remove_extra_whitespaces=False,
                    add_dummy_prefix=False,
                    max_sentence_length=4 * _LONGEST_LINE + 16,
                    num_threads=1,
                    minloglevel=2,
                )
                return cls("sentencepiece", out.getvalue())
            except RuntimeError as error:
                # A small corpus cannot fill the size asked for; SentencePiece names what it can.
                most = re.search(r"value <= (\d+)", str(error))
                least = re.search(r"smaller than required_chars.*?(\d+) vs (\d+)", str(error))
                if most:
                    size = int(most[1])
                elif least:
                    size = max(int(least[1]), int(least[2])) + 1
                else:
                    raise OptionError("text", f"no model could be learned: {error}", "give --text-model") from error
        raise OptionError("text", f"no model of {size} pieces could be learned", "give --text-model")

    @classmethod
    def fit(
        cls, tracks: Sequence[Track], config: Any = None, *, seed: int = 0, report: Report = silent
    ) -> TextTokenizer:
        """A model trained on the tracks' own text. The training has no randomness; `seed` changes nothing."""
        report("text pieces", 0.0)
        fitted = cls.train((str(s) for t in tracks for b in t.blocks() for s in b.values), config)
        report("text pieces", 1.0)
        return fitted

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels

    def to_codes(self, text: str) -> np.ndarray:
        """Codes of one text, smallest unsigned dtype (n,)."""
        return np.asarray(self._encode(text), smallest_dtype(self._levels[0].cardinality))

    def to_text(self, codes: np.ndarray) -> str:
        """The text of codes; never fails on codes below the cardinality (odd bytes become U+FFFD)."""
        return self._decode([int(c) for c in codes])

    def encoder(self, track: Track, options: Any = None) -> Encoder:
        return _TextEncoder(self, track)

    def decode(
        self, tokens: TrackTokens, *, levels: int | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Block]:
        tokens.check((self._levels[0].cardinality,))
        stop = tokens.clock.count if stop is None else min(stop, tokens.clock.count)
        spans = np.empty(max(stop - start, 0), object)
        for i in range(start, stop):
            spans[i - start] = "" if levels == 0 else self.to_text(tokens.levels[0].of_tick(i))
        yield Block(spans, tokens.clock.times_ns[start:stop])

    def state(self) -> TokenizerState:
        return TokenizerState("text", {"kind": self.kind}, self._levels, {}, {"model": self.model})

    @classmethod
    def from_state(cls, state: TokenizerState) -> TextTokenizer:
        return cls(str(state.config["kind"]), state.blobs["model"])

    @cached_property
    def is_lossless(self) -> bool:
        """Whether the model gives back what is hard for most: runs of spaces, tabs, odd characters."""
        hard = " a  b\tc\nÅﬁ½ \u2581 λ🤖"
        return self.to_text(self.to_codes(hard)) == hard


class _TextEncoder(Encoder):
    def __init__(self, tokenizer: TextTokenizer, track: Track) -> None:
        self._tokenizer, self._track = tokenizer, track
        self._codes: list[np.ndarray] = []
        self._times: list[np.ndarray] = []

    def push(self, block: Block) -> None:
        assert block.times_ns is not None
        self._times.append(block.times_ns)
        self._codes += [self._tokenizer.to_codes(str(text)) for text in block.values]

    def finish(self) -> TrackTokens:
        dtype = smallest_dtype(self._tokenizer.levels[0].cardinality)
        clock = Clock.irregular(np.concatenate(self._times) if self._times else np.zeros(0, np.int64))
        level = LevelCodes.of_counts(
            np.concatenate(self._codes) if self._codes else np.zeros(0, dtype),
            np.array([len(c) for c in self._codes], np.int64),
        )
        return TrackTokens(self._track.name, "text", clock, 1, (level,), {}, dict(self._track.info))


Functions = tuple[Callable[[str], Sequence[int]], Callable[[list[int]], str], int]


def _sentencepiece(model: bytes) -> Functions:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    byte_ids = {i: pieces.piece_to_id(f"<0x{i:02X}>") for i in range(256)}
    has_bytes = all(pieces.is_byte(i) for i in byte_ids.values())

    def encode(text: str) -> list[int]:
        if not (has_bytes and _SPACE in text):
            return list(pieces.encode(text))
        codes: list[int] = []
        for part in re.split(f"({_SPACE}+)", text):
            if part[:1] == _SPACE:
                codes += [byte_ids[b] for b in part.encode()]
            elif part:
                codes += pieces.encode(part)
        return codes

    return encode, pieces.decode, pieces.vocab_size()


def _huggingface(model: bytes) -> Functions:
    from tokenizers import Tokenizer as Model

    pieces = Model.from_str(model.decode("utf-8"))
    pieces.encode_special_tokens = True  # a literal `<|endoftext|>` is spelled, not obeyed
    pieces.no_truncation()
    pieces.no_padding()
    # Ids may have holes: the extent must hold the largest.
    size = 1 + max(pieces.get_vocab(with_added_tokens=True).values())
    return (
        lambda text: pieces.encode(text, add_special_tokens=False).ids,
        lambda codes: pieces.decode(codes, skip_special_tokens=False),
        size,
    )


def _lines(text: str) -> Iterator[str]:
    """Lines short enough for the trainer, which drops longer ones without a word."""
    for line in text.splitlines():
        for i in range(0, len(line), _LONGEST_LINE):
            if line[i : i + _LONGEST_LINE].strip():
                yield line[i : i + _LONGEST_LINE]
