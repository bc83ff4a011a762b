"""The layout of an episode id by id in plain Python: what the compiled loops are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from pantok.layout import KINDS, ROLES, Layout
from pantok.stream import TokenStream
from pantok.vocabulary import Vocabulary


@dataclass(frozen=True)
class Place:
    """One id of a sequence and what is said of it. code: (track, tick, level, code) where it is one."""

    id: int
    kind: int
    level: int
    track: int
    role: int
    time_ns: int
    code: tuple[str, int, int, int] | None = None


def sequence(stream: TokenStream, layout: Layout, vocabulary: Vocabulary) -> list[Place]:
    control = vocabulary.control
    kept = [t for t in stream.tracks.values() if layout.keeps(t.name) and t.ticks]
    tracks = sorted(kept, key=lambda t: (layout.place(t.name), t.name))
    times = [[int(t.clock.times_ns[k * t.tick]) for k in range(t.ticks)] for t in tracks]
    first = min((t[0] for t in times), default=0)
    width = round(layout.step_s * 1e9)
    units = []
    for p, track in enumerate(tracks):
        for tick, when in enumerate(times[p]):
            step = -1 if layout.place(track.name) >= len(layout.tracks) else (when - first) // width
            units.append((step, p, tick, when))
    units.sort()
    nothing = ROLES.index("control")
    out: list[Place] = []
    for _, group in groupby(units, key=lambda unit: unit[0]):
        step_units, modality = [], ""
        members = list(group)
        for _, p, tick, when in members:
            track = tracks[p]
            role = ROLES.index(layout.role(track.name))
            made: list[Place] = []
            specs = vocabulary.levels(track.modality)
            for k in range(layout.depth(track, specs)):
                codes = track.levels[k].of_tick(tick)
                if len(codes) and specs[k].role == "digit" and layout.marks != "none":
                    made.append(Place(control(f"level_{k}"), 0, 0, p, role, when))
                kind = KINDS.index(specs[k].role)
                for code, number in zip(codes.tolist(), vocabulary.ids(track.modality, k, codes).tolist(), strict=True):
                    made.append(Place(number, kind, k, p, role, when, (track.name, tick, k, code)))
            if layout.latents and track.latents is not None:
                for _ in range(int(track.latents.splits[tick + 1] - track.latents.splits[tick])):
                    made.append(Place(control("latent"), KINDS.index("latent"), 0, p, role, when))
            if layout.most(track) >= 0:
                made = made[: layout.most(track)]
            told = bool(made) and made[0].code is not None and modality != track.modality
            if layout.marks == "all" or (layout.marks == "needed" and not told):
                made.insert(0, Place(control(f"{track.modality}_begin"), 0, 0, p, role, when))
            modality = track.modality
            step_units.append(made)
        ticks = [] if layout.marks == "none" else [Place(control("tick"), 0, 0, 255, nothing, members[0][3])]
        if layout.step_ids:
            shares = [0] * len(step_units)
            left = layout.step_ids - len(ticks)
            while left and any(s < len(unit) for s, unit in zip(shares, step_units, strict=True)):
                for u, unit in enumerate(step_units):
                    if left and shares[u] < len(unit):
                        shares[u], left = shares[u] + 1, left - 1
            step_units = [unit[:n] for unit, n in zip(step_units, shares, strict=True)]
        out += ticks + [place for unit in step_units for place in unit]
    bos, eos = (units[0][3], units[-1][3]) if units else (0, 0)
    edge = [Place(control(name), 0, 0, 255, nothing, when) for name, when in (("bos", bos), ("eos", eos))]
    return [edge[0], *out, edge[1]]
