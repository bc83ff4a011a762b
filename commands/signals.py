"""Ctrl-C and SIGTERM: what asks a command to end becomes an exception, so that what was half done is put away.

Python raises between any two steps of a program, also where nobody can catch it: in a callback of the import system or
of the garbage collector it is printed and forgotten, and the command would go on as if nobody had asked.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

_AGAIN_S = 0.2
"""After so long it is looked whether a stop that was raised still travels."""
_held: list[int] | None = None
"""Stops that were asked for within `unbroken`; None outside of it."""


class StoppedError(KeyboardInterrupt):
    """Somebody asked for an end; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise StoppedError in here, again if it was lost; not those that the caller of pantok ignores
    or handles.

    In worker processes, which do not come here, SIGTERM ends them.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: handler for number, handler in usual.items() if signal.getsignal(number) is handler}
    if threading.current_thread() is not threading.main_thread() or not before:
        yield
        return
    raised: weakref.ref[StoppedError] | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal raised
        if _held is not None:
            _held.append(number)
            return
        error = StoppedError(number)
        raised = weakref.ref(error)  # nobody holds one that was lost
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: look(number))
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def look(number: int) -> None:
        if raised is None or raised() is None:
            stop(number, None)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        if raised is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unbroken() -> Iterator[None]:
    """What must not be done by half, such as to start a process: a stop asked for in here comes at the end of it.

    Of stops that `stoppable` raises; not nested.
    """
    global _held
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = _held = []
    try:
        yield
    finally:
        _held = None
        if asked:
            signal.raise_signal(asked[0])
