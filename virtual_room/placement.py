"""Where things stand: rules that put models against walls, on tops and on the floor, and a checker of the result.

Must not know how models are made or drawn. A thing occupies its oriented box: its footprint times its height.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from virtual_room.scene import Model, Room, Thing, Top, turned

ARCHITECTURE = ("wall", "floor", "ceiling")
FLOOR, CEILING = 0, 1  # indices of the first two things of every room; walls follow


_QUARTER = np.array([-1.0, 1.0])


@dataclass(frozen=True)
class Wall:
    "From corner `a` to corner `b`, the room on its left"
    index: int  # of its thing
    a: np.ndarray
    b: np.ndarray

    @cached_property
    def length(self) -> float: return float(np.linalg.norm(self.b - self.a))

    @cached_property
    def along(self) -> np.ndarray: return (self.b - self.a) / self.length

    @cached_property
    def inward(self) -> np.ndarray: return np.array([-self.along[1], self.along[0]])

    @cached_property
    def heading(self) -> float: return float(np.degrees(np.arctan2(self.along[1], self.along[0])))

    def point(self, s: float, off: float) -> np.ndarray: return self.a + self.along * s + self.inward * off


def walls_of(outline: tuple) -> list[Wall]:
    corners = np.asarray(outline)
    return [Wall(2 + i, a, b) for i, (a, b) in enumerate(zip(corners, np.roll(corners, -1, axis=0)))]


def separation(a: np.ndarray, b: np.ndarray) -> float:
    "Gap between two convex quads (4, 2) along the best of their edge normals; negative is the depth they overlap"
    edges = np.concatenate([a[1:3] - a[:2], b[1:3] - b[:2]])
    normals = edges[:, ::-1] * _QUARTER / np.hypot(edges[:, :1], edges[:, 1:])
    pa, pb = a @ normals.T, b @ normals.T
    return float(np.maximum(pa.min(0) - pb.max(0), pb.min(0) - pa.max(0)).max())


def apart(a: Thing, b: Thing, gap: float = 0.0) -> bool:
    "Do two things keep `gap` metres between their boxes?"
    if a.at[2] >= b.at[2] + b.model.size[2] or b.at[2] >= a.at[2] + a.model.size[2]: return True
    reach = sum(np.hypot(*t.model.size[:2]) for t in (a, b)) / 2 + gap
    if np.hypot(a.at[0] - b.at[0], a.at[1] - b.at[1]) > reach: return True
    return separation(a.footprint, b.footprint) >= gap


def edge_distance(points: np.ndarray, outline: tuple) -> np.ndarray:
    "Distance (N,) of points (N, 2) to the outline, negative outside"
    a = np.asarray(outline, float)
    b = np.roll(a, -1, axis=0)
    e, p = b - a, points[:, None] - a
    t = ((p * e).sum(2) / (e * e).sum(1)).clip(0, 1)
    d = np.linalg.norm(p - t[..., None] * e, axis=2).min(1)
    crosses = (a[:, 1] > points[:, None, 1]) != (b[:, 1] > points[:, None, 1])
    slope = np.where(e[:, 1] == 0, 1, e[:, 1])
    left = points[:, None, 0] < e[:, 0] * (points[:, None, 1] - a[:, 1]) / slope + a[:, 0]
    return np.where((crosses & left).sum(1) % 2 == 1, d, -d)


def box_distance(points: np.ndarray, thing: Thing) -> np.ndarray:
    "Distance (N,) of points (N, 2) to the thing's footprint, 0 inside"
    local = (points - np.asarray(thing.at[:2])) @ turned(thing.heading)
    return np.linalg.norm((np.abs(local) - np.asarray(thing.model.size[:2]) / 2).clip(0), axis=1)


def cells(outline: tuple) -> tuple[np.ndarray, np.ndarray]:
    "The rectangles (x0, y0, x1, y1) that make up an outline of right angles, (N, 4), and those that its bounding box has beyond it, (M, 4)"
    x, y = (np.unique(np.asarray(outline)[:, i]) for i in (0, 1))
    all_ = np.array([(a, c, b, d) for a, b in zip(x, x[1:]) for c, d in zip(y, y[1:])])
    inside = edge_distance((all_[:, :2] + all_[:, 2:]) / 2, outline) > 0
    return all_[inside], all_[~inside]


def overhang(thing: Thing, outline: tuple) -> float:
    "Metres by which the thing's footprint sticks out; a corner of the room inside the footprint counts too"
    out = -edge_distance(thing.footprint, outline).min()
    if len(outline) == 4: return out
    pierced = (np.asarray(outline, float) - thing.at[:2]) @ turned(thing.heading)
    return max(out, (np.asarray(thing.model.size[:2]) / 2 - np.abs(pierced)).min(1).max())


@dataclass
class Layout:
    "A room while it is being furnished"
    outline: tuple
    height: float
    rng: np.random.Generator
    things: list[Thing] = field(default_factory=list)
    keep_free: list[Thing] = field(default_factory=list)  # such as the space before a door

    def __post_init__(self) -> None:
        self.walls = walls_of(self.outline)
        self.low, self.high = np.min(self.outline, axis=0), np.max(self.outline, axis=0)
        rooms, _ = cells(self.outline)
        self.main = max(rooms.tolist(), key=lambda c: (c[2] - c[0]) * (c[3] - c[1]))  # the largest rectangle of the floor
        self._reach = np.zeros((0, 5))  # for each thing: middle, radius, bottom and top, to find neighbours fast

    def fits(self, thing: Thing, gap: float = 0.0) -> bool:
        "Inside the room, apart from all others and out of the spaces to keep free"
        corners = thing.footprint
        if thing.at[2] + thing.model.size[2] > self.height or (corners < self.low).any() or (corners > self.high).any(): return False
        if len(self.outline) > 4 and overhang(thing, self.outline) > 0: return False
        return self.clear_of_others(thing, gap) and all(apart(thing, o) for o in self.keep_free)

    def clear_of_others(self, thing: Thing, gap: float, but: int = -1) -> bool:
        "Apart from all things other than number `but`; rugs and the shell of the room are no obstacle"
        x, y, radius, low, high = _reach_of(thing)
        r = self._reach
        near = (r[:, 3] < high) & (r[:, 4] > low) & (np.hypot(r[:, 0] - x, r[:, 1] - y) < r[:, 2] + radius + gap)
        return all(apart(thing, self.things[i], gap) for i in np.flatnonzero(near) if i != but)

    def add(self, thing: Thing) -> int:
        self.things.append(thing)
        self._reach = np.vstack([self._reach, _reach_of(thing)])
        return len(self.things) - 1

    def against_wall(self, model: Model, z: float = 0.0, gap: float = .03, off: float = .01, above: float = 0.0,
                     tries: int = 24, walls: list[Wall] | None = None, centred: bool = False) -> int | None:
        "Put the model's back to a wall at a random place with `above` metres free over it; its index, or None when nowhere is free"
        w, d, h = model.size
        for attempt in range(tries):
            wall = (walls or self.walls)[int(self.rng.integers(len(walls or self.walls)))]
            slack = wall.length - model.size[0] - 2 * gap
            if slack <= 0: continue
            s = wall.length / 2 - slack / 2 + slack * (.5 + self.rng.uniform(-.1, .1) if centred and attempt < 4 else self.rng.random())
            thing = self.back_to(model, wall, s, z, off)
            if self.fits(replace(thing, model=replace(model, size=(w, d, h + above))), gap): return self.add(thing)
        return None

    def back_to(self, model: Model, wall: Wall, s: float, z: float, off: float) -> Thing:
        x, y = wall.point(s, model.size[1] / 2 + off)
        return Thing(model, (float(x), float(y), z), wall.heading, wall.index if z else FLOOR)

    def beside(self, model: Model, index: int, side: int, gap: float) -> int | None:
        "Put the model beside another, backs in line"
        other = self.things[index]
        offset = [side * (other.model.size[0] / 2 + gap + model.size[0] / 2), (model.size[1] - other.model.size[1]) / 2]
        x, y = np.asarray(other.at[:2]) + turned(other.heading) @ offset
        thing = Thing(model, (float(x), float(y), 0.0), other.heading, FLOOR)
        return self.add(thing) if self.fits(thing, min(gap, .02)) else None

    def on_floor(self, model: Model, gap: float = .1, tries: int = 40, near_wall: bool = False, face_middle: bool = False) -> int | None:
        "Put the model on free floor, by the walls where wanted"
        low, high = self.low, self.high
        reach = float(np.hypot(*model.size[:2])) / 2
        for _ in range(tries):
            p = self.rng.uniform(low + reach * .7, np.maximum(high - reach * .7, low + reach * .7 + .01))
            if near_wall and edge_distance(p[None], self.outline)[0] > reach + .25: continue
            toward = np.degrees(np.arctan2(*((low + high) / 2 - p)[::-1])) - 90
            heading = toward + self.rng.uniform(-25, 25) if face_middle else self.rng.uniform(0, 360)
            thing = Thing(model, (float(p[0]), float(p[1]), 0.0), float(heading), FLOOR)
            if self.fits(thing, gap): return self.add(thing)
        return None

    def on_top(self, model: Model, index: int, heading: float | None = None, back: bool = False, tries: int = 8) -> int | None:
        "Put the model on one of the tops of the thing at `index`; `back` keeps it away from the front edge"
        under = self.things[index]
        turn = float(self.rng.uniform(-180, 180)) if heading is None else heading
        half = np.abs(turned(turn)) @ np.asarray(model.size[:2]) / 2
        for i in self.rng.permutation(len(under.model.tops))[:4]:
            top = under.model.tops[i]
            low, high = np.array([top.x0, top.y0]) + half, np.array([top.x1, top.y1]) - half
            if (low > high).any() or model.size[2] > top.headroom or under.at[2] + top.z + model.size[2] > self.height: continue
            if back: high[1] = low[1] + .3 * (high[1] - low[1])
            spots = self.rng.uniform(low, high, (tries, 2)) @ turned(under.heading).T + under.at[:2]
            for x, y in spots[self._roomy(spots, under.at[2] + top.z, model)]:
                thing = Thing(model, (float(x), float(y), under.at[2] + top.z), under.heading + turn, index)
                if self.clear_of_others(thing, .015, index): return self.add(thing)
        return None

    def _roomy(self, spots: np.ndarray, z: float, model: Model) -> np.ndarray:
        "At which of the spots (N, 2) is the model's round reach free of the things that stand at the same height? (N,)"
        beside = self._reach[np.abs(self._reach[:, 3] - z) < 1e-6]
        distance = np.hypot(spots[:, :1] - beside[:, 0], spots[:, 1:] - beside[:, 1])
        return (distance >= beside[:, 2] + np.hypot(*model.size[:2]) / 2).all(1)


def _reach_of(thing: Thing) -> tuple[float, float, float, float, float]:
    x, y, z = thing.at
    w, d, h = thing.model.size
    obstacle = thing.model.kind not in ARCHITECTURE and thing.label != "furniture_rug"
    return x, y, float(np.hypot(w, d)) / 2 if obstacle else -np.inf, z, z + h


def walkable(room: Room, points: np.ndarray, wall_gap: float = .3, thing_gap: float = .28, headroom: float = 1.9) -> np.ndarray:
    "Which of the points (N, 2) a person can stand on (N,); what hangs higher than `headroom` metres is in nobody's way"
    free = edge_distance(points, room.outline) >= wall_gap
    for t in room.things:
        if t.model.kind in ARCHITECTURE or t.label == "furniture_rug" or t.at[2] > headroom: continue
        free &= box_distance(points, t) >= thing_gap
    return free


def find_faults(room: Room, tolerance: float = 2e-3) -> list[str]:
    "Everything that floats, sinks in, sticks out of the room or stands inside another thing, in words"
    faults = []
    placed = [(i, t) for i, t in enumerate(room.things) if t.model.kind not in ARCHITECTURE]
    for i, t in placed:
        name = f"{t.model.kind} {i}"
        if overhang(t, room.outline) > tolerance: faults.append(f"{name} sticks out of the room")
        if t.at[2] + t.model.size[2] > room.height + tolerance: faults.append(f"{name} sticks through the ceiling")
        if not _supported(room, t, tolerance): faults.append(f"{name} floats")
    for n, (i, a) in enumerate(placed):
        for j, b in placed[n + 1:]:
            if i == b.support or j == a.support or "furniture_rug" in (a.label, b.label) and a.support == b.support: continue
            if not apart(a, b, -tolerance): faults.append(f"{a.model.kind} {i} overlaps {b.model.kind} {j}")
    return faults


def _supported(room: Room, thing: Thing, tolerance: float) -> bool:
    "Does the thing rest on its support: the floor, a top, a wall behind it or the ceiling above it?"
    under = room.things[thing.support]
    if under.model.kind == "floor": return abs(thing.at[2]) <= tolerance
    if under.model.kind == "ceiling": return abs(thing.at[2] + thing.model.size[2] - room.height) <= tolerance
    if under.model.kind == "wall": return edge_distance(thing.footprint, room.outline).min() <= .02
    local = (thing.footprint - np.asarray(under.at[:2])) @ turned(under.heading)
    return any(_rests(top, local, thing.at[2] - under.at[2], thing.model.size[2], tolerance) for top in under.model.tops)


def _rests(top: Top, local: np.ndarray, z: float, height: float, tolerance: float) -> bool:
    inside = (local >= np.array([top.x0, top.y0]) - tolerance).all() and (local <= np.array([top.x1, top.y1]) + tolerance).all()
    return bool(inside) and abs(z - top.z) <= tolerance and height <= top.headroom + tolerance
