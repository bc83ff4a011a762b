"""Work that a second thread does beside the first, or whoever needs its result before it has begun."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """One piece of work, waiting for `thread`."""

    def __init__(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> None:
        self._work = work
        self._future = thread.submit(work)
        self._mine: list[T] = []

    @property
    def is_done(self) -> bool:
        return bool(self._mine) or self._future.done()

    def help(self) -> None:
        """Does it here and now, if nobody has begun it."""
        if not self._mine and self._future.cancel():
            self._mine.append(self._work())

    def result(self) -> T:
        """Raises what the work raised."""
        self.help()
        return self._mine[0] if self._mine else self._future.result()
