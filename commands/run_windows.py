"""What a trained run is measured on: windows of a store's episodes, evenly spread, with all that its model is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pantok.commands.common import span_ns

if TYPE_CHECKING:
    from pantok.layout import Layout
    from pantok.loader import StreamDataset
    from pantok.stream import TokenStream
    from pantok.vocabulary import Vocabulary
    from pantok.world_model.grounding import Grounding, Steps
    from pantok.world_model.inputs import Inputs
    from pantok.world_model.model import WorldModel

_BATCH = 8


@dataclass(frozen=True, eq=False)
class RunWindows:
    """chosen: numbers of windows of `data`. streams: the episodes under the model's vocabulary. steps: what is observed
    in them, if the model is grounded. seconds: how long the episodes are."""

    model: WorldModel
    layout: Layout
    data: StreamDataset
    chosen: tuple[int, ...]
    streams: dict[str, TokenStream]
    grounding: Grounding | None
    steps: Steps | None
    seconds: float

    @classmethod
    def of(
        cls, folder: Path, store: Path, vocabulary: Vocabulary, names: Sequence[str], windows: int, checkpoint: str,
        pictures: bool = False,
    ) -> RunWindows:  # fmt: skip
        """At most `windows`. pictures: those of the steps are kept. Raises StoreError, OptionError, VocabularyError."""
        from pantok.commands.simulate import load_model
        from pantok.evolve.lineage import translated
        from pantok.formats.runs import RunFolder
        from pantok.formats.store import Store
        from pantok.loader import StreamDataset
        from pantok.world_model.grounding import Grounding, Steps

        model, layout = load_model(folder, checkpoint, "cpu")
        opened = Store.open(store)
        data = StreamDataset(
            store, layout, length=model.config.length, batch_size=_BATCH, episodes=tuple(names), shuffle=False, rank=0,
            world=1, vocabulary=vocabulary,
        )  # fmt: skip
        total = len(data.windows)
        count = min(windows, total)
        chosen = tuple(sorted({round(k * (total - 1) / max(1, count - 1)) for k in range(count)}))
        streams = {name: translated(vocabulary, opened.vocabulary, opened.read(name)) for name in names}
        kept = RunFolder(folder).arrays("observations") if model.grounded is not None else None
        grounding = None if kept is None else Grounding.from_arrays(*kept, model.vocabulary, layout)
        steps = None if grounding is None else Steps(grounding, streams.values(), data.episodes, pictures=pictures)
        seconds = sum(end - start for start, end in map(span_ns, streams.values())) / 1e9
        return cls(model, layout, data, chosen, streams, grounding, steps, seconds)

    def batches(self, tick: Callable[[float], None] = lambda done: None) -> Iterator[Inputs]:
        """In order. tick: takes the share that is done."""
        from pantok.world_model.trainer import Feed, Share

        feed = Feed(self.data, self.model, self.model.config, Share(), self.steps)
        try:
            for first in range(0, len(self.chosen), _BATCH):
                yield feed.inputs(0, self.chosen[first : first + _BATCH])
                tick(min(1.0, (first + _BATCH) / len(self.chosen)))
        finally:
            feed.close()

    def rate(self, elements: float) -> float | None:
        """Predicted ids of a second of experience, if `elements` of the windows' ids are predicted; None where no time
        passes."""
        if not self.seconds:
            return None
        return self.data.windows.ids / self.seconds * elements / (len(self.chosen) * self.model.config.length)
