"""One thread where more would only wait for each other.

What is unusual: this makes work faster. Threads of torch spin while they wait; products of a few hundred rows gain
nothing from a second core, and where another process holds it they take up to ten times as long (sound at 16 kHz on
two cores, of which one was busy: 9x real time with two threads, 90x with one).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import scipy.linalg.cython_blas  # noqa: F401  what compiled loops call for products of matrices; loaded to be found
import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """torch works on one thread inside; also a decorator. Takes less than a microsecond."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def one_thread_of_blas() -> Iterator[None]:
    """torch and the BLAS of numpy and of compiled loops work on one thread inside. Takes about 50 microseconds."""
    with one_thread(), _blas().limit(limits=1):
        yield


@cache
def _blas() -> Any:
    return ThreadpoolController().select(user_api="blas")
