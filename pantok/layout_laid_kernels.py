"""The loops of sequences that are laid out: runs are found once, and a window is a copy and some fills.

What is unusual: of each id only the id itself is kept. Everything else that a batch says of it (kind, level, track,
role, instant, whether it is to be predicted) is the same for a whole level of a whole unit, some dozens of ids, and is
kept once for such a *run*. A run is two int64: where it begins (32 bits), kind and whether its ids are to be predicted
(8), level (8), track within the episode (8), role (8); then its instant. One number for every `EVERY` ids tells which
run they are in. In the place of a latent's id stands the row of its vector.

What lies in a file may be damaged: nothing here is written outside the part that was asked for, whatever it says.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from pantok.layout_kernels import AT, DOCUMENT, FIRST, LATENT_KIND, NUMBERING, SHEET, STOP, WRITE, pointer

# Numbers of another file are compiled into this one: touch it when they change, see `layout_kernels`.
IDS, WIDTH, RUNS, COUNT, MARKS, TOTAL, LATENT_ID, FIELDS = range(8)
"""Of a sheet, int64: addresses of the ids (WIDTH bytes each), of the runs (COUNT of them) and of the marks."""
EVERY = 1024


@njit(
    "int64(int64, int64[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1], int64[::1], boolean[::1], int64[:,::1], "
    "int64)",
    cache=True, nogil=True,
)  # fmt: skip
def runs_of(
    first: int, starts: np.ndarray, kind: np.ndarray, level: np.ndarray, track: np.ndarray, role: np.ndarray,
    time_ns: np.ndarray, mask: np.ndarray, runs: np.ndarray, made: int,
) -> int:  # fmt: skip
    """Adds the runs of ids to `runs` (R, 2), of which `made` are there; how many there are then.

    first: the place of the first of them in the sequence. starts: where among the columns each stands.
    """
    for k in range(len(starts)):
        i = starts[k]
        said = np.int64(kind[i]) | (np.int64(0) if mask[i] else np.int64(128))
        said |= (np.int64(level[i]) << 8) | (np.int64(track[i]) << 16) | (np.int64(role[i]) << 24)
        if made and runs[made - 1, 0] >> 32 == said and runs[made - 1, 1] == time_ns[i]:
            continue
        runs[made, 0], runs[made, 1] = (said << 32) | np.int64(first + k), time_ns[i]
        made += 1
    return made


@njit("void(int64[:,::1], int32[::1])", cache=True, nogil=True)
def mark(runs: np.ndarray, marks: np.ndarray) -> None:
    """marks[k]: the run that id k * EVERY is in."""
    run = 0
    for k in range(len(marks)):
        while run + 1 < len(runs) and (runs[run + 1, 0] & 0xFFFFFFFF) <= k * EVERY:
            run += 1
        marks[k] = run


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(column: np.ndarray, first: int, last: int, value: int) -> None:
    if len(column):
        column[first:last] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _write(
    sheet: np.ndarray, first: int, stop: int, names: np.ndarray, ids: np.ndarray, kind: np.ndarray, level: np.ndarray,
    owner: np.ndarray, role: np.ndarray, time_ns: np.ndarray, mask: np.ndarray, latents: np.ndarray,
) -> int:  # fmt: skip
    """The ids [first, stop) of an episode; how many latents there are."""
    n, found, total = stop - first, 0, sheet[TOTAL]
    if len(ids):
        if sheet[WIDTH] == 2:
            narrow = carray(pointer(sheet[IDS]), (total,), np.uint16)[first:stop]
            for j in range(n):
                ids[j] = narrow[j]
        else:
            wide = carray(pointer(sheet[IDS]), (total,), np.uint32)[first:stop]
            for j in range(n):
                ids[j] = wide[j]
    if not (len(kind) or len(level) or len(owner) or len(role) or len(time_ns) or len(mask) or len(latents)):
        return found
    count = sheet[COUNT]
    runs = carray(pointer(sheet[RUNS]), (count, 2), np.int64)
    marks = carray(pointer(sheet[MARKS]), (total // EVERY + 1,), np.int32)
    run = min(max(np.int64(marks[first // EVERY]), 0), count - 1)
    while run + 1 < count and (runs[run + 1, 0] & 0xFFFFFFFF) <= first:
        run += 1
    at = 0
    while at < n:
        end = n
        if run + 1 < count:
            end = min(max((runs[run + 1, 0] & 0xFFFFFFFF) - first, at), n)
        said = runs[run, 0] >> 32
        of = said & 127
        _fill(kind, at, end, of)
        _fill(level, at, end, (said >> 8) & 255)
        _fill(owner, at, end, names[(said >> 16) & 255])
        _fill(role, at, end, (said >> 24) & 255)
        _fill(time_ns, at, end, runs[run, 1])
        _fill(mask, at, end, (said & 128) == 0)
        if of == LATENT_KIND:
            if len(latents):
                for j in range(at, min(end, at + len(latents) - found)):
                    row = first + j
                    latents[found, 1] = (said >> 16) & 255
                    if sheet[WIDTH] == 2:
                        latents[found, 2] = carray(pointer(sheet[IDS]), (total,), np.uint16)[row]
                    else:
                        latents[found, 2] = carray(pointer(sheet[IDS]), (total,), np.uint32)[row]
                    found += 1
            _fill(ids, at, end, sheet[LATENT_ID])
        at, run = end, run + 1  # the last one goes on to the end, so that `run` stays below `count`
    return found


@njit(WRITE, cache=True, nogil=True, error_model="numpy")
def write(
    parts: np.ndarray, numbers: np.ndarray, size: int, ids: np.ndarray, kind: np.ndarray, level: np.ndarray,
    owner: np.ndarray, role: np.ndarray, time_ns: np.ndarray, mask: np.ndarray, document: np.ndarray,
    latents: np.ndarray,
) -> tuple[int, int, int, int]:  # fmt: skip
    """As `layout_kernels.write`, of episodes that are laid out. No code is looked at, so none can be wrong."""
    found = 0
    for number in range(len(parts)):
        part = parts[number]
        if part[FIRST] >= part[STOP]:
            continue
        sheet = carray(pointer(part[SHEET]), (FIELDS,), np.int64)
        a, b = part[AT], part[AT] + part[STOP] - part[FIRST]
        if part[FIRST] < 0 or part[STOP] > sheet[TOTAL] or a < 0 or b > size:
            return found, number, -1, 0
        _fill(document, a, b, part[DOCUMENT])
        made = _write(
            sheet, part[FIRST], part[STOP], numbers[part[NUMBERING]], ids[a:b], kind[a:b], level[a:b], owner[a:b],
            role[a:b], time_ns[a:b], mask[a:b], latents[found:],
        )  # fmt: skip
        latents[found : found + made, 0] = number
        found += made
    return found, -1, 0, 0
