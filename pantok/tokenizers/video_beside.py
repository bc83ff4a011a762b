"""Work that a second thread does beside the first, or whoever needs its result before it has begun."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """One piece of work, waiting for `thread`; done here and now if there is none."""

    def __init__(self, thread: ThreadPoolExecutor | None, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._future = thread.submit(work) if thread else None
        self._mine: list[T] = []
        if not thread:
            self.help()

    @property
    def is_done(self) -> bool:
        return bool(self._mine) or (self._future is not None and self._future.done())

    def help(self) -> None:
        """Does it here and now, if nobody has begun it."""
        work = self._work  # another thread may let go of it
        if not self._mine and work and (self._future is None or self._future.cancel()):
            self._mine.append(work())

    def result(self) -> T:
        """Raises what the work raised. Whatever the work was given is let go."""
        self.help()
        self._work = None
        if self._mine:
            return self._mine[0]
        assert self._future is not None
        return self._future.result()
