"""The memory of batches, used again.

What is unusual: nobody gives anything back. A piece that no tensor or array looks at any more has no reference but
ours, and is taken again; what a training loop keeps stays its own. Fresh memory costs the kernel about as much as it
costs to fill it. Page-locked memory is torch's to use again: it alone knows when a copy to the device has ended.
"""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any

import numpy as np
import torch

_KEPT = 8


class Memory:
    """Pieces of memory for batches. pin: page-locked."""

    def __init__(self, pin: bool = False) -> None:
        self._pin, self._pieces, self._lock = pin, list[np.ndarray](), Lock()

    def take(self, size: int) -> np.ndarray:
        """uint8 (size,), nobody else's; its content is what was left there."""
        if self._pin:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        with self._lock:
            for k in range(len(self._pieces)):
                # The list's reference and that of the call: every view of it would be one more.
                if self._pieces[k].nbytes == size and sys.getrefcount(self._pieces[k]) <= 2:
                    return self._pieces[k]
            self._pieces = [piece for piece in self._pieces if piece.nbytes == size][-_KEPT + 1 :]
            self._pieces.append(np.empty(size, np.uint8))
            return self._pieces[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_pin": self._pin, "_pieces": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())
