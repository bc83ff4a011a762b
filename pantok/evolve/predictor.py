"""How well ids can be predicted, without a model to train: an interpolated trigram, counted in one pass.

What is unusual: it judges vocabularies, so it must not have opinions. It has no parameter, no random number and no
order of training: integers are counted, and each order of context hands a share of its probability to the next lower
one, down to an even share of all ids. The share is told by the counts themselves (absolute discounting):

    p(w | h) = max(c(h w) - D, 0) / c(h) + D t(h) / c(h) p(w | shorter h)     t(h): different ids seen after h
    D = (n1 + 1) / (n1 + 2 n2 + 2)                                            n1, n2: n-grams met once, twice

where the textbook's D = n1 / (n1 + 2 n2) could be 0, and what was never seen then impossible. Codes of codebooks are
close to noise, with contexts that are hardly ever met twice; mixing by t(h) / (c(h) + t(h)) alone (Witten and Bell)
charges half a probability for each of them, 0.3 to 0.4 bits an id on real stores.

Between one id of context and none stands the *class* of the id before, if classes are given: the level that an id is
of. After a context that was never met, what is left to say is then which code of the level that comes next, not which
of all ids. That is 10 to 18% of all bits on real stores, and it is what judges compositions rightly: a pair of codes
that say nothing of each other costs what both do, where without classes it loses its context and pays for that.

Between the class and the id before stands what the compositions say, if they are given: what the id before would have
been joined with cannot follow it (`makeup`), and what it would have had of probability goes to all others alike. An
id of a vocabulary without compositions costs what it costs without that.

    >>> bits = NGram(4).count(np.array([0, 1, 0, 1, 0, 1])).bits(np.array([0, 1, 0, 3]))
    >>> [round(float(b), 2) for b in bits]
    [0.35, 0.03, 0.02, 10.3]

Sources: P. F. Brown et al., "Class-based n-gram models of natural language", Computational Linguistics 18 (1992), where
the class of the context predicts the class of the word; here it predicts the word itself, which needs no second table.
H. Ney, U. Essen and R. Kneser, "On structuring probabilistic dependences in stochastic language modelling",
Computer Speech and Language 8 (1994); A. P. Dawid, "Present position and potential developments", J. R. Statist. Soc. A
147 (1984), for judging a predictor by what it says of each observation before it is seen.
"""

from __future__ import annotations

import numpy as np

from pantok.errors import OptionError
from pantok.evolve.makeup import Makeup

_START = 1 << 12


class NGram:
    """Counts of ids 0 .. size - 1 and of what follows one and two of them. A context never reaches over the begin of a
    document. Memory: 32 to 96 bytes for each different bigram and trigram, and 24 for each id of the vocabulary, 110
    where it has compositions.
    """

    def __init__(self, size: int, makeup: Makeup | None = None) -> None:
        """makeup: of what classes the ids are and what they are composed of; None where nothing is known of them.

        Raises OptionError for a vocabulary of no ids, or of more than 2^31.
        """
        if not 0 < size < 1 << 31:
            raise OptionError("predictor", f"cannot predict {size} ids", "1 to 2^31 - 1")
        from pantok.evolve import predictor_kernels as kernels  # numba takes a third of a second to import

        assert makeup is None or len(makeup) == size, (len(makeup), size)
        self.size = size
        makeup = makeup or Makeup(np.zeros(0, np.int32))
        self._classes, self._tree = np.ascontiguousarray(makeup.classes, np.int32), makeup.tree
        kinds = 1 + int(self._classes.max(initial=-1))
        self._openings = np.zeros((kinds + 1, 2), np.int64)
        self._mass, self._seams = np.zeros(len(self._tree.left)), np.zeros(kinds)
        self._room, self._settled = np.full((3, len(self._tree.left)), -1, np.int64), -1
        self._kernels = kernels
        self._counts = np.zeros(size, np.int64)
        self._contexts = np.zeros((size + 1, 2), np.int64)
        self._bigrams = np.zeros((2 * _START, 2), np.int64)
        self._nodes = np.zeros((_START, 3), np.int64)
        self._trigrams = np.zeros((2 * _START, 2), np.int64)
        self._facts = np.zeros(kernels.FACTS, np.int64)
        self._facts[kernels.SETTLE] = np.iinfo(np.int64).max

    @property
    def distinct(self) -> tuple[int, int, int]:
        """Different ids, bigrams and trigrams counted."""
        k = self._kernels
        openings = int(self._openings[:, 1].sum())
        return int(self._facts[k.DISTINCT]), int(self._facts[k.BIGRAMS]), int(self._facts[k.TRIPLES]) - openings

    def count(self, ids: np.ndarray, documents: np.ndarray | None = None) -> NGram:
        """Counts ids (N,), of any integer dtype. documents: (N,), a new number where a document begins; one if None.

        Raises OptionError for an id that is not below `size`. Returns itself.
        """
        self._walk(ids, documents, score=False, learn=True)
        return self

    def bits(self, ids: np.ndarray, documents: np.ndarray | None = None) -> np.ndarray:
        """float64 (N,): what each id costs by what was counted, -log2 p; they are not counted."""
        return self._walk(ids, documents, score=True, learn=False)

    def prequential(self, ids: np.ndarray, documents: np.ndarray | None = None) -> np.ndarray:
        """float64 (N,): what each id costs by what was counted before it; then it is counted."""
        return self._walk(ids, documents, score=True, learn=True)

    def _walk(self, ids: np.ndarray, documents: np.ndarray | None, score: bool, learn: bool) -> np.ndarray:
        ids = np.ascontiguousarray(ids, np.int64)
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= self.size):
            at = int(np.argmax((ids < 0) | (ids >= self.size)))
            raise OptionError(f"predictor position {at}", f"id {ids[at]} is not below {self.size}", "give its size")
        if documents is None:
            documents = np.zeros(len(ids), np.int64)
        documents = np.ascontiguousarray(documents, np.int64)
        assert documents.shape == ids.shape, (documents.shape, ids.shape)
        bits = np.empty(len(ids) if score else 0, np.float64)
        kernels, at = self._kernels, 0
        if score and len(self._mass):
            self._settle()
        if len(ids):
            # Each call begins a document: what was walked before is no context.
            self._facts[kernels.DOCUMENT] = documents[0] - 1
        while True:
            at = kernels.walk(
                ids, documents, at, self._classes, self._tree, self._mass, self._seams, self._room, self._counts,
                self._contexts, self._openings, self._bigrams, self._nodes, self._trigrams, self._facts, bits, score,
                learn,
            )  # fmt: skip
            if at == len(ids):
                return bits
            if int(self._facts[kernels.TOTAL]) >= int(self._facts[kernels.SETTLE]):
                self._settle()
            elif 2 * int(self._facts[kernels.TRIPLES]) >= len(self._trigrams):
                self._trigrams = self._doubled(self._trigrams)
            else:
                self._nodes = np.concatenate([self._nodes, np.zeros_like(self._nodes)])
                self._bigrams = self._doubled(self._bigrams)

    def _settle(self) -> None:
        """What compositions say by what was counted: how probable all is that cannot follow an id, behind its class,
        and which share of that is met nevertheless, over seams."""
        from pantok.evolve import makeup_kernels

        k, size, total = self._kernels, self.size, int(self._facts[self._kernels.TOTAL])
        self._facts[k.SETTLE] = 2 * total + _START
        if total == self._settled:
            return
        self._settled = total
        alone = np.full(size, 1.0 / size)
        if total:
            d = k.less(self._facts, 0)
            alone = (np.maximum(self._counts - d, 0.0) + d * int(self._facts[k.DISTINCT]) / size) / total
        # Openings stand below zero, see `predictor_kernels`.
        there = self._trigrams[self._trigrams[:, 0] < 0]
        kinds, words = np.divmod(-there[:, 0], size + 1)
        d, branch, late = k.less(self._facts, 1), np.empty(size), np.empty(len(self._tree.named))
        for kind in range(len(self._seams)):
            seen, different = self._openings[kind].tolist()
            p, mine = alone, kinds == kind
            if seen:
                p = d * different / seen * alone
                p[size - words[mine]] += np.maximum(there[mine, 1] - d, 0.0) / seen
            ids = np.flatnonzero(self._classes == kind)
            makeup_kernels.masses(self._tree, ids, p, self._room[0], self._room[1], branch, late, self._mass)
        met = np.zeros(len(self._seams))
        makeup_kernels.met(self._tree, self._bigrams, self._nodes, self._classes, met)
        would = np.bincount(self._classes, self._contexts[:-1, 0] * self._mass, len(met))
        self._seams = np.minimum((met + 1) / (would + 2), 1.0)

    def _doubled(self, table: np.ndarray) -> np.ndarray:
        larger = np.zeros((2 * len(table), 2), np.int64)
        self._kernels.rehash(table, larger)
        return larger
