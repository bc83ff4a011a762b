"""The inner loops of layouts, compiled: where each id of an episode lies, and the ids of any part of it.

What is unusual: there is no list of units. The walk through an episode merges its tracks step by step, reading how many
codes each unit has from the store's own small counts; a *state* of the walk is one row of integers, and every few
thousand ids the survey keeps one (a checkpoint). A part is written by taking up the walk at the checkpoint before it:
codes go from the mapped file through the table of ids straight into the rows of the batch. All is integers.

Columns are handed over as addresses, so that one call reads any number of files of any dtype. Whoever calls keeps the
arrays alive, and has compared the totals that `survey` finds with what the columns hold before anything is written.

All of it is in one file because compiled code is kept by file: numba asks whether this one has changed, not whether
another has whose functions and numbers are compiled into it.

State (one row): PLACE in the sequence, STEP and TRACK that the walk stands at, OPENED whether the step's first unit has
been met, PREVIOUS modality within the step (-1 none), UNIT of the step; then for each of T tracks the step of its next
tick, that tick, its latents so far; then for each of N levels its codes so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

PLACE, STEP, TRACK, OPENED, PREVIOUS, UNIT, HEAD = range(7)
"""Of a state; HEAD is where the tracks' entries begin."""
(
    START, NUM, DEN, SAMPLES, TICKS, TIMES, TIMES_STRIDE, COUNTS, COUNTS_SIZE, COUNTS_STRIDE, BEGIN, EARLY,
    FIRST_LEVEL, LAST_LEVEL, LATENT_COLUMN, LATENT_COUNT, MODALITY, MOST, ROLE, TRACK_FIELDS,
) = range(20)  # fmt: skip
"""Of a track: its clock (TIMES an address, or 0 and START, NUM/DEN), the counts of its ticks, its levels, ..."""
COLUMN, COUNT, CHUNK, ROWS, OFFSET, SIZE, LINEAR, TABLE, CARDINALITY, KIND, NUMBER, MARK, LEVEL_FIELDS = range(13)
"""Of a level: COLUMN of the counts (-1: COUNT in every tick); code i lies in chunk CHUNK + (i + OFFSET) // ROWS, SIZE
bytes each; its id is LINEAR + code or, if LINEAR < 0, what stands at the address TABLE (int64); MARK before the codes,
or -1."""
(
    FIRST_NS, WIDTH, MARKS, TICK_ID, LATENT_ID, STEP_IDS, BOS, EOS, BOS_NS, EOS_NS, TOTAL, NO_ROLE,
    SIZE_TRACKS, SIZE_LEVELS, SIZE_CHUNKS, SIZE_POINTS, FACTS,
) = range(17)  # fmt: skip
"""Of a layout and episode. MARKS: 0 none, 1 where needed, 2 all. STEP_IDS: 0 no bound. SIZE_*: rows of the arrays that
follow in an episode's *sheet*: facts, tracks, levels, chunks, checkpoints, one after another in one int64 array."""
SHEET, FIRST, STOP, AT, NUMBERING, DOCUMENT, PART_FIELDS = range(7)
"""Of a part: the address of its episode's sheet, its ids [FIRST, STOP), where they go, which row of `numbers` says what
the episode's tracks are called, and the number of its document."""
LATENT_KIND = 5
_SURVEY = "int64(int64[:,::1], int64[:,::1], int64[::1], int64, int64[:,::1], int64[::1])"
WRITE = (
    "UniTuple(int64, 4)(int64[:,::1], uint8[:,::1], int64, int64[::1], uint8[::1], uint8[::1], uint8[::1], "
    "uint8[::1], int64[::1], boolean[::1], int32[::1], int64[:,::1])"
)
_END = 2**62


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """An address, int64, as what `carray` takes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@njit(cache=True, nogil=True, error_model="numpy")
def _load(address: int, size: int) -> int:
    if size == 1:
        return int(carray(pointer(address), (1,), np.uint8)[0])
    if size == 2:
        return int(carray(pointer(address), (1,), np.uint16)[0])
    if size == 4:
        return int(carray(pointer(address), (1,), np.uint32)[0])
    return int(carray(pointer(address), (1,), np.int64)[0])


@njit(cache=True, nogil=True, error_model="numpy")
def _time(track: np.ndarray, tick: int) -> int:
    """Nanoseconds of a tick's first sample; see `Clock.at`."""
    if track[TIMES] != 0:
        return _load(track[TIMES] + tick * track[TIMES_STRIDE], 8)
    num, den = track[NUM], track[DEN]
    index = tick * track[SAMPLES]
    periods = index // num
    scaled = (index - periods * num) * den
    seconds = scaled // num
    rest = scaled - seconds * num
    return track[START] + (periods * den + seconds) * 1_000_000_000 + (rest * 1_000_000_000 + num // 2) // num


@njit(cache=True, nogil=True, error_model="numpy")
def _step(track: np.ndarray, tick: int, facts: np.ndarray) -> int:
    if tick >= track[TICKS]:
        return _END
    return -1 if track[EARLY] else (_time(track, tick) - facts[FIRST_NS]) // facts[WIDTH]


@njit(cache=True, nogil=True, error_model="numpy")
def begin(tracks: np.ndarray, facts: np.ndarray, state: np.ndarray) -> None:
    """The state at the beginning of an episode: behind its <bos>."""
    state[:] = 0
    state[PLACE], state[STEP], state[PREVIOUS] = 1, _END, -1
    for p in range(len(tracks)):
        state[HEAD + p] = _step(tracks[p], 0, facts)
        state[STEP] = min(state[STEP], state[HEAD + p])


@njit(cache=True, nogil=True, error_model="numpy")
def _seek(state: np.ndarray, count: int) -> int:
    """Moves on to the next unit: its track, -1 at the end."""
    step, p = state[STEP], state[TRACK]
    while step < _END:
        while p < count:
            if state[HEAD + p] == step:
                state[TRACK] = p
                return p
            p += 1
        step, p = _END, 0
        for k in range(count):
            step = min(step, state[HEAD + k])
        state[STEP], state[OPENED] = step, 0
    state[TRACK] = p
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def _count(track: np.ndarray, column: int, same: int, row: int) -> int:
    return same if column < 0 else _load(row + column * track[COUNTS_SIZE], track[COUNTS_SIZE])


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(track: np.ndarray, levels: np.ndarray, facts: np.ndarray, previous: int, row: int) -> int:
    """1 if a unit begins with its marker: always, or where its first id does not tell that it begins."""
    if facts[MARKS] == 1 and previous != track[MODALITY]:
        for k in range(track[FIRST_LEVEL], track[LAST_LEVEL]):
            if _count(track, levels[k, COLUMN], levels[k, COUNT], row) > 0:
                return 0 if levels[k, MARK] < 0 else 1  # an id that is of its modality alone
    return 1 if facts[MARKS] > 0 else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _size(tracks: np.ndarray, levels: np.ndarray, facts: np.ndarray, state: np.ndarray, p: int) -> tuple[int, int]:
    """(ids of the unit that the walk stands at, 1 if it begins with its marker)."""
    track = tracks[p]
    row = track[COUNTS] + state[HEAD + len(tracks) + p] * track[COUNTS_STRIDE]
    size = 0
    for k in range(track[FIRST_LEVEL], track[LAST_LEVEL]):
        n = _count(track, levels[k, COLUMN], levels[k, COUNT], row)
        if n:
            size += n + (1 if levels[k, MARK] >= 0 else 0)
    size += _count(track, track[LATENT_COLUMN], track[LATENT_COUNT], row)
    if track[MOST] >= 0:
        size = min(size, track[MOST])
    mark = _mark(track, levels, facts, state[PREVIOUS], row)
    return size + mark, mark


@njit(cache=True, nogil=True, error_model="numpy")
def _advance(tracks: np.ndarray, levels: np.ndarray, facts: np.ndarray, state: np.ndarray, p: int) -> None:
    """Past the unit that the walk stands at, all but PLACE."""
    track, count = tracks[p], len(tracks)
    tick = state[HEAD + count + p]
    row = track[COUNTS] + tick * track[COUNTS_STRIDE]
    at = HEAD + 3 * count
    for k in range(track[FIRST_LEVEL], track[LAST_LEVEL]):
        state[at + k] += _count(track, levels[k, COLUMN], levels[k, COUNT], row)
    state[HEAD + 2 * count + p] += _count(track, track[LATENT_COLUMN], track[LATENT_COUNT], row)
    state[HEAD + count + p] = tick + 1
    state[HEAD + p] = _step(track, tick + 1, facts)
    state[PREVIOUS] = track[MODALITY]
    state[UNIT] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _open(
    tracks: np.ndarray, levels: np.ndarray, facts: np.ndarray, state: np.ndarray, share: np.ndarray, probe: np.ndarray
) -> int:
    """Begins a step: ids that stand before its units (its <tick>). share[u]: how many ids unit u of it may have."""
    state[OPENED], state[PREVIOUS], state[UNIT] = 1, -1, 0
    tick = 1 if facts[MARKS] > 0 else 0
    if facts[STEP_IDS] == 0:
        return tick
    budget = facts[STEP_IDS] - tick
    share[:] = 0
    probe[:] = state
    units, wanted, step = 0, 0, state[STEP]
    while units < budget:
        p = _seek(probe, len(tracks))
        if p < 0 or probe[STEP] != step:
            break
        share[units] = _size(tracks, levels, facts, probe, p)[0]
        wanted += share[units]
        units += 1
        _advance(tracks, levels, facts, probe, p)
    if wanted <= budget:
        return tick
    # The longest units are cut to a common length; what that leaves over goes to the first of them.
    low, high = np.int64(0), budget
    while low < high:
        middle = (low + high + 1) // 2
        wanted = 0
        for u in range(units):
            wanted += min(share[u], middle)
        if wanted <= budget:
            low = middle
        else:
            high = middle - 1
    left = budget
    for u in range(units):
        left -= min(share[u], low)
    for u in range(units):
        if share[u] > low:
            share[u] = low + (1 if left > 0 else 0)
            left -= 1
    return tick


# What Python calls has its types said, so that importing this loads it, and the first batch does not wait for that.
@njit(_SURVEY, cache=True, nogil=True, error_model="numpy")
def survey(
    tracks: np.ndarray, levels: np.ndarray, facts: np.ndarray, spacing: int, points: np.ndarray, totals: np.ndarray
) -> int:
    """Walks through an episode: how many checkpoints it put into `points` (M, state), about one every `spacing` ids.

    Fills facts TOTAL, BOS_NS and EOS_NS; totals: (N + T,) codes of each level, then latents of each track.
    """
    count, width = len(tracks), points.shape[1]
    state, probe = np.zeros(width, np.int64), np.zeros(width, np.int64)
    share = np.zeros(facts[STEP_IDS], np.int64)
    begin(tracks, facts, state)
    made, due, is_first = 0, np.int64(0), True
    while True:
        p = _seek(state, count)
        if p < 0:
            break
        when = _time(tracks[p], state[HEAD + count + p])
        if is_first:
            facts[BOS_NS], is_first = when, False
        facts[EOS_NS] = when
        if state[PLACE] >= due and made < len(points) and (state[OPENED] == 0 or facts[STEP_IDS] == 0):
            points[made] = state
            made += 1
            due = state[PLACE] + spacing
        if state[OPENED] == 0:
            state[PLACE] += _open(tracks, levels, facts, state, share, probe)
        size = _size(tracks, levels, facts, state, p)[0]
        if facts[STEP_IDS]:
            size = min(size, share[state[UNIT]]) if state[UNIT] < len(share) else 0
        state[PLACE] += size
        _advance(tracks, levels, facts, state, p)
    facts[TOTAL] = state[PLACE] + 1
    for k in range(len(levels)):
        totals[k] = state[HEAD + 3 * count + k]
    for p in range(count):
        totals[len(levels) + p] = state[HEAD + 2 * count + p]
    return made


@njit(cache=True, nogil=True, error_model="numpy")
def list_units(tracks: np.ndarray, levels: np.ndarray, facts: np.ndarray, out: np.ndarray) -> int:
    """All units in order, rows of `out` (U, 5): track, tick, step, place, ids. How many."""
    count = len(tracks)
    state = np.zeros(HEAD + 3 * count + len(levels), np.int64)
    probe, share = state.copy(), np.zeros(facts[STEP_IDS], np.int64)
    begin(tracks, facts, state)
    made = 0
    while True:
        p = _seek(state, count)
        if p < 0:
            return made
        if state[OPENED] == 0:
            state[PLACE] += _open(tracks, levels, facts, state, share, probe)
        size = _size(tracks, levels, facts, state, p)[0]
        if facts[STEP_IDS]:
            size = min(size, share[state[UNIT]]) if state[UNIT] < len(share) else 0
        out[made, 0], out[made, 1], out[made, 2] = p, state[HEAD + count + p], state[STEP]
        out[made, 3], out[made, 4] = state[PLACE], size
        made += 1
        state[PLACE] += size
        _advance(tracks, levels, facts, state, p)


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(address: int, n: int, size: int, level: np.ndarray, out: np.ndarray) -> bool:
    """ids of n codes of one piece of a column; whether one of them is not below the cardinality."""
    most, linear = level[CARDINALITY] - 1, level[LINEAR]
    top = np.int64(0)
    if size == 1:
        a = carray(pointer(address), (n,), np.uint8)
        for j in range(n):
            top = max(top, np.int64(a[j]))
            out[j] = linear + np.int64(a[j])
    elif size == 2:
        b = carray(pointer(address), (n,), np.uint16)
        for j in range(n):
            top = max(top, np.int64(b[j]))
            out[j] = linear + np.int64(b[j])
    else:
        c = carray(pointer(address), (n,), np.uint32)
        for j in range(n):
            top = max(top, np.int64(c[j]))
            out[j] = linear + np.int64(c[j])
    if linear < 0 and top <= most:  # -1: what stands there is the code less one
        table = carray(pointer(level[TABLE]), (most + 1,), np.int64)
        for j in range(n):
            out[j] = table[out[j] + 1]
    return top > most


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(column: np.ndarray, first: int, last: int, value: int) -> None:
    """The places [first, last), none where last is not above first; a column that is not wanted has no room."""
    if first < last and len(column):
        column[first:last] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _say(ids: np.ndarray, kind: np.ndarray, level: np.ndarray, at: int, value: int) -> None:
    """A control id."""
    if len(ids):
        ids[at] = value
    if len(kind):
        kind[at] = 0
    if len(level):
        level[at] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _of_none(owner: np.ndarray, role: np.ndarray, time_ns: np.ndarray, at: int, nothing: int, when: int) -> None:
    """An id that is of no track."""
    if len(owner):
        owner[at] = 255
    if len(role):
        role[at] = nothing
    if len(time_ns):
        time_ns[at] = when


@njit(cache=True, nogil=True, error_model="numpy")
def _write(
    tracks: np.ndarray, levels: np.ndarray, chunks: np.ndarray, facts: np.ndarray, point: np.ndarray, start: int,
    stop: int, numbers: np.ndarray, ids: np.ndarray, kind: np.ndarray, level: np.ndarray, owner: np.ndarray,
    role: np.ndarray, time_ns: np.ndarray, mask: np.ndarray, latents: np.ndarray,
) -> tuple[int, int, int]:  # fmt: skip
    """The ids [start, stop) of an episode, from the checkpoint `point` at or before start."""
    count, bad, bad_at, found = len(tracks), -1, 0, 0
    nothing, reads = facts[NO_ROLE], len(ids) > 0
    mask[:] = 1
    if start == 0:
        _say(ids, kind, level, 0, facts[BOS])
        _of_none(owner, role, time_ns, 0, nothing, facts[BOS_NS])
        _fill(mask, 0, 1, 0)
    if stop == facts[TOTAL]:
        _say(ids, kind, level, stop - 1 - start, facts[EOS])
        _of_none(owner, role, time_ns, stop - 1 - start, nothing, facts[EOS_NS])
    state, probe = point.copy(), point.copy()
    share = np.zeros(facts[STEP_IDS], np.int64)
    times = np.full(count, _END, np.int64)  # of each track's next tick, once it is known
    whole, codes = stop - start, HEAD + 3 * count
    while state[PLACE] < stop:
        p = _seek(state, count)
        if p < 0:
            break
        track = tracks[p]
        tick = state[HEAD + count + p]
        when = times[p] if times[p] != _END else _time(track, tick)
        if state[OPENED] == 0:
            marks = _open(tracks, levels, facts, state, share, probe)
            if marks and start <= state[PLACE] < stop:
                _say(ids, kind, level, state[PLACE] - start, facts[TICK_ID])
                _of_none(owner, role, time_ns, state[PLACE] - start, nothing, when)
            state[PLACE] += marks
        row = track[COUNTS] + tick * track[COUNTS_STRIDE]
        first = state[PLACE] - start
        lo, hi, size = max(first, 0), whole, -1
        if facts[STEP_IDS] or track[MOST] >= 0:
            size, mark = _size(tracks, levels, facts, state, p)
            if facts[STEP_IDS]:
                size = min(size, share[state[UNIT]]) if state[UNIT] < len(share) else 0
            hi = min(first + size, whole)
        else:
            mark = _mark(track, levels, facts, state[PREVIOUS], row)
        # In one pass: what is written, and the walk moves on.
        place = first
        if mark:
            if lo <= place < hi:
                _say(ids, kind, level, place, track[BEGIN])
            place += 1
        for k in range(track[FIRST_LEVEL], track[LAST_LEVEL]):
            n = _count(track, levels[k, COLUMN], levels[k, COUNT], row)
            if n == 0:
                continue
            if levels[k, MARK] >= 0:
                if lo <= place < hi:
                    _say(ids, kind, level, place, levels[k, MARK])
                place += 1
            a, b = max(place, lo), min(place + n, hi)
            _fill(kind, a, b, levels[k, KIND])
            _fill(level, a, b, levels[k, NUMBER])
            if reads and a < b:
                rows, width = levels[k, ROWS], levels[k, SIZE]
                i = state[codes + k] + (a - place) + levels[k, OFFSET]
                while a < b:
                    chunk = i // rows
                    within = i - chunk * rows
                    many = min(b - a, rows - within)
                    address = chunks[levels[k, CHUNK] + chunk] + within * width
                    if _copy(address, many, width, levels[k], ids[a : a + many]):
                        bad, bad_at = k, state[codes + k]
                    a, i = a + many, i + many
            state[codes + k] += n
            place += n
        n = _count(track, track[LATENT_COLUMN], track[LATENT_COUNT], row)
        a, b = max(place, lo), min(place + n, hi)
        _fill(ids, a, b, facts[LATENT_ID])
        _fill(kind, a, b, LATENT_KIND)
        _fill(level, a, b, 0)
        _fill(mask, a, b, 0)
        for j in range(a, b):
            latents[found, 1], latents[found, 2] = p, state[HEAD + 2 * count + p] + j - place
            found += 1
        place += n
        if size < 0:
            size, hi = place - first, min(place, whole)
        _fill(owner, lo, hi, numbers[p])
        _fill(role, lo, hi, track[ROLE])
        _fill(time_ns, lo, hi, when)
        state[PLACE] += size
        state[HEAD + 2 * count + p] += n
        state[HEAD + count + p] = tick + 1
        state[PREVIOUS] = track[MODALITY]
        state[UNIT] += 1
        if tick + 1 >= track[TICKS]:
            state[HEAD + p] = _END
            continue
        times[p] = _time(track, tick + 1)
        passed = times[p] - facts[FIRST_NS] - state[HEAD + p] * facts[WIDTH]
        if not track[EARLY] and not 0 <= passed < facts[WIDTH]:  # most ticks are in the step of the one before
            state[HEAD + p] += passed // facts[WIDTH]
    return found, bad, bad_at


@njit(WRITE, cache=True, nogil=True, error_model="numpy")
def write(
    parts: np.ndarray, numbers: np.ndarray, size: int, ids: np.ndarray, kind: np.ndarray, level: np.ndarray,
    owner: np.ndarray, role: np.ndarray, time_ns: np.ndarray, mask: np.ndarray, document: np.ndarray,
    latents: np.ndarray,
) -> tuple[int, int, int, int]:  # fmt: skip
    """The ids of all parts (P, PART_FIELDS) into flat columns of `size` ids, or of none: that one is not wanted.

    numbers: uint8 (Q, 256), what `owner` says of the tracks of an episode. mask: whether an id is to be predicted.
    latents: (M, 3) int64, part, track and row of the vector of each placeholder; M 0 if there are none. Returns how
    many of these, and where a code is not below its cardinality: the part (-1: nowhere), the level (-1: the part
    does not fit) and its run's start.
    """
    found = 0
    for number in range(len(parts)):
        part = parts[number]
        if part[FIRST] >= part[STOP]:
            continue
        at = part[SHEET]
        facts = carray(pointer(at), (FACTS,), np.int64)
        at += 8 * FACTS
        tracks = carray(pointer(at), (facts[SIZE_TRACKS], TRACK_FIELDS), np.int64)
        at += 8 * tracks.size
        levels = carray(pointer(at), (facts[SIZE_LEVELS], LEVEL_FIELDS), np.int64)
        at += 8 * levels.size
        chunks = carray(pointer(at), (facts[SIZE_CHUNKS],), np.int64)
        at += 8 * chunks.size
        width = HEAD + 3 * facts[SIZE_TRACKS] + facts[SIZE_LEVELS]
        points = carray(pointer(at), (facts[SIZE_POINTS], width), np.int64)
        low, high = 0, len(points) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if points[middle, PLACE] <= part[FIRST]:
                low = middle
            else:
                high = middle - 1
        a, b = part[AT], part[AT] + part[STOP] - part[FIRST]
        if part[FIRST] < 0 or part[STOP] > facts[TOTAL] or a < 0 or b > size:
            return found, number, -1, 0
        _fill(document, a, b, part[DOCUMENT])
        made, bad, bad_at = _write(
            tracks, levels, chunks, facts, points[low], part[FIRST], part[STOP], numbers[part[NUMBERING]],
            ids[a:b], kind[a:b], level[a:b], owner[a:b], role[a:b], time_ns[a:b], mask[a:b], latents[found:],
        )  # fmt: skip
        latents[found : found + made, 0] = number
        found += made
        if bad >= 0:
            return found, number, bad, bad_at
    return found, -1, 0, 0
