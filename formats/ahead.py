"""Blocks made ahead by a thread of its own, so that reading overlaps what is done with them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pantok.experience import Block

_WAIT_S = 0.2  # how often a full queue looks whether anybody still reads


def ahead(make: Callable[[], Iterator[Block]], blocks: int = 2) -> Iterator[Block]:
    """The blocks of `make()` in their order, at most `blocks` of them waiting.

    The thread starts with the first block asked for. Its errors are raised here; leaving early ends it and closes
    the iterator that it reads.
    """
    waiting: queue.Queue[Any] = queue.Queue(blocks)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_WAIT_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        end: BaseException | None = None
        try:
            source = make()
            try:
                for block in source:
                    if not put(block):
                        return
            finally:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # raised where the blocks are read
            end = error
        put(end)

    worker = threading.Thread(target=work, name="pantok-reader", daemon=True)
    worker.start()
    try:
        while isinstance(item := waiting.get(), Block):
            yield item
        if item is not None:
            raise item
    finally:
        stop.set()
        worker.join()
