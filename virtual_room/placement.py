"""Where objects stand: a layout that puts models against walls, on surfaces and on the floor, and a checker.

Must not know how models are made or drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from virtual_room.floorplan import (  # noqa: F401  (some names are used from here by others)
    ARCHITECTURE,
    CEILING,
    FLOOR,
    RUG,
    Wall,
    apart,
    box_distance,
    cells,
    edge_distance,
    is_architecture,
    is_obstacle,
    overhang,
    separation,
    walkable,
    walls_of,
)
from virtual_room.scene import Model, Outline, Room, SceneObject, SupportSurface, rotation_2d

TRIED_SURFACES = 4  # of an object with many
CENTERED_TRIES = 4


@dataclass
class Layout:
    "A room while it is being furnished; all chance comes from `rng`"
    outline: Outline
    height: float
    rng: np.random.Generator
    objects: list[SceneObject] = field(default_factory=list)
    keep_free: list[SceneObject] = field(default_factory=list)  # such as the space before a door

    def __post_init__(self) -> None:
        self.walls = walls_of(self.outline)
        self.low, self.high = np.min(self.outline, axis=0), np.max(self.outline, axis=0)
        rectangles, _ = cells(self.outline)
        self.main = max(rectangles.tolist(), key=_area)  # the largest rectangle of the floor
        self._reach = np.zeros((0, 5))  # for each object: middle, radius, bottom and top, to find neighbors fast

    def fits(self, o: SceneObject, gap: float = 0.0) -> bool:
        "Inside the room, apart from all others and out of the spaces to keep free"
        if o.top > self.height or self._leaves_bounds(o):
            return False
        if len(self.outline) > 4 and overhang(o, self.outline) > 0:
            return False
        return self.clear_of_others(o, gap) and all(apart(o, other) for other in self.keep_free)

    def _leaves_bounds(self, o: SceneObject) -> bool:
        return bool((o.footprint < self.low).any() or (o.footprint > self.high).any())

    def clear_of_others(self, o: SceneObject, gap: float, ignored: int = -1) -> bool:
        "Apart from all objects other than number `ignored`; rugs and the shell of the room are no obstacle"
        x, y, radius, low, high = _reach_of(o)
        reach = self._reach
        close = np.hypot(reach[:, 0] - x, reach[:, 1] - y) < reach[:, 2] + radius + gap
        near = (reach[:, 3] < high) & (reach[:, 4] > low) & close
        return all(apart(o, self.objects[i], gap) for i in np.flatnonzero(near) if i != ignored)

    def add(self, o: SceneObject) -> int:
        "Put the object into the room as it is; its index"
        self.objects.append(o)
        self._reach = np.vstack([self._reach, _reach_of(o)])
        return len(self.objects) - 1

    def against_wall(
        self, model: Model, z: float = 0.0, gap: float = .03, off: float = .01, above: float = 0.0,
        tries: int = 24, walls: list[Wall] | None = None, centered: bool = False,
    ) -> int | None:
        """Put the model's back to a wall at a random place with `above` meters free over it.

        The first tries of a `centered` model are near the middle of the wall. Its index, or None when nowhere is free.
        """
        walls = walls or self.walls
        w, d, h = model.size
        with_space = replace(model, size=(w, d, h + above))
        for attempt in range(tries):
            wall = walls[int(self.rng.integers(len(walls)))]
            slack = wall.length - w - 2 * gap
            if slack <= 0:
                continue
            near_middle = centered and attempt < CENTERED_TRIES
            s = wall.length / 2 - slack / 2 + slack * self._share(near_middle)
            o = self.back_to(model, wall, s, z, off)
            if self.fits(replace(o, model=with_space), gap):
                return self.add(o)
        return None

    def _share(self, centered: bool) -> float:
        "A place along a wall, 0..1"
        return .5 + self.rng.uniform(-.1, .1) if centered else self.rng.random()

    def walls_opposite(self, index: int) -> list[Wall]:
        "The walls that an object looks at"
        heading = self.objects[index].heading
        return [w for w in self.walls if abs((w.heading - heading) % 360 - 180) < 1]

    def back_to(self, model: Model, wall: Wall, s: float, z: float, off: float) -> SceneObject:
        "The model with its back to a wall, `s` meters from the wall's start"
        x, y = wall.point(s, model.size[1] / 2 + off)
        return SceneObject(model, (float(x), float(y), z), wall.heading, wall.index if z else FLOOR)

    def beside(self, model: Model, index: int, side: int, gap: float) -> int | None:
        "Put the model beside another, backs in line; its index, or None when there is no room"
        other = self.objects[index]
        sideways = side * (other.size[0] / 2 + gap + model.size[0] / 2)
        backwards = (model.size[1] - other.size[1]) / 2
        x, y = np.asarray(other.at[:2]) + rotation_2d(other.heading) @ [sideways, backwards]
        o = SceneObject(model, (float(x), float(y), 0.0), other.heading, FLOOR)
        return self.add(o) if self.fits(o, min(gap, .02)) else None

    def on_floor(
        self, model: Model, gap: float = .1, tries: int = 40, near_wall: bool = False, face_middle: bool = False
    ) -> int | None:
        "Put the model on free floor, by the walls where wanted; its index, or None when nowhere is free"
        reach = float(np.hypot(*model.size[:2])) / 2
        low = self.low + reach * .7
        high = np.maximum(self.high - reach * .7, low + .01)
        for _ in range(tries):
            spot = self.rng.uniform(low, high)
            if near_wall and self._is_far_from_walls(spot, reach):
                continue
            heading = self._toward_middle(spot) if face_middle else self.rng.uniform(0, 360)
            x, y = spot.tolist()
            o = SceneObject(model, (x, y, 0.0), float(heading), FLOOR)
            if self.fits(o, gap):
                return self.add(o)
        return None

    def _is_far_from_walls(self, spot: np.ndarray, reach: float) -> bool:
        "Is there more than a hand's breadth between the walls and an object of this reach?"
        return bool(edge_distance(spot[None], self.outline)[0] > reach + .25)

    def _toward_middle(self, spot: np.ndarray) -> float:
        "A heading more or less towards the middle of the room"
        x, y = (self.low + self.high) / 2 - spot
        return np.degrees(np.arctan2(y, x)) - 90 + self.rng.uniform(-25, 25)

    def on_top(
        self, model: Model, index: int, heading: float | None = None, back: bool = False, tries: int = 8
    ) -> int | None:
        """Put the model on one of the surfaces of the object at `index`; its index, or None when nowhere is free.

        Without a heading it is turned at random; `back` keeps it away from the front edge.
        """
        under = self.objects[index]
        turn = float(self.rng.uniform(-180, 180)) if heading is None else heading
        for i in self.rng.permutation(len(under.model.supports))[:TRIED_SURFACES]:
            surface = under.model.supports[i]
            z = under.bottom + surface.z
            for x, y in self._free_spots(under, surface, model, turn, back, tries):
                o = SceneObject(model, (float(x), float(y), z), under.heading + turn, index)
                if self.clear_of_others(o, .015, index):
                    return self.add(o)
        return None

    def _free_spots(
        self, under: SceneObject, surface: SupportSurface, model: Model, turn: float, back: bool, tries: int
    ) -> np.ndarray:
        "Random spots (N, 2) on a surface of an object where a model is likely to fit; at most `tries`"
        z = under.bottom + surface.z
        bounds = _free_bounds(surface, model, turn, back)
        if bounds is None or z + model.size[2] > self.height:
            return np.zeros((0, 2))
        spots = self.rng.uniform(*bounds, (tries, 2)) @ rotation_2d(under.heading).T + under.at[:2]
        return spots[self._roomy(spots, z, model)]

    def _roomy(self, spots: np.ndarray, z: float, model: Model) -> np.ndarray:
        "At which spots (N, 2) is the model's round reach free of the objects at the same height? (N,)"
        beside = self._reach[np.abs(self._reach[:, 3] - z) < 1e-6]
        distance = np.hypot(spots[:, :1] - beside[:, 0], spots[:, 1:] - beside[:, 1])
        return (distance >= beside[:, 2] + np.hypot(*model.size[:2]) / 2).all(1)


def _area(rectangle: list[float]) -> float:
    x0, y0, x1, y1 = rectangle
    return (x1 - x0) * (y1 - y0)


def _free_bounds(
    surface: SupportSurface, model: Model, turn: float, back: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    "The lowest and highest place (2,) of a model's middle on a surface, None where it is too large"
    half = np.abs(rotation_2d(turn)) @ np.asarray(model.size[:2]) / 2
    low, high = surface.low + half, surface.high - half
    if (low > high).any() or model.size[2] > surface.headroom:
        return None
    if back:
        high[1] = low[1] + .3 * (high[1] - low[1])
    return low, high


def _reach_of(o: SceneObject) -> tuple[float, float, float, float, float]:
    "Middle, radius (none for what is no obstacle), bottom and top"
    radius = float(np.hypot(*o.size[:2])) / 2 if is_obstacle(o) else -np.inf
    return o.at[0], o.at[1], radius, o.bottom, o.top


def find_faults(room: Room, tolerance: float = 2e-3) -> list[str]:
    "Everything that floats, sinks in, sticks out of the room or stands inside another object, in words"
    placed = [(i, o) for i, o in enumerate(room.objects) if not is_architecture(o)]
    faults = []
    for i, o in placed:
        faults += [f"{o.kind} {i} {fault}" for fault in _own_faults(room, o, tolerance)]
    for (i, a), (j, b) in combinations(placed, 2):
        on_each_other = i == b.support or j == a.support
        if not (on_each_other or _is_over_rug(a, b) or apart(a, b, -tolerance)):
            faults.append(f"{a.kind} {i} overlaps {b.kind} {j}")
    return faults


def _is_over_rug(a: SceneObject, b: SceneObject) -> bool:
    "Is one of them a rug on the floor of the other?"
    return RUG in (a.label, b.label) and a.support == b.support


def _own_faults(room: Room, o: SceneObject, tolerance: float) -> list[str]:
    "What is wrong with an object's place, whatever stands around it"
    checks = {
        "sticks out of the room": overhang(o, room.outline) > tolerance,
        "sticks through the ceiling": o.top > room.height + tolerance,
        "floats": not _is_supported(room, o, tolerance),
    }
    return [fault for fault, found in checks.items() if found]


def _is_supported(room: Room, o: SceneObject, tolerance: float) -> bool:
    "Does the object rest on its support: the floor, a surface, a wall behind it or the ceiling above it?"
    under = room.objects[o.support]
    if under.kind == "floor":
        return abs(o.bottom) <= tolerance
    if under.kind == "ceiling":
        return abs(o.top - room.height) <= tolerance
    if under.kind == "wall":
        return edge_distance(o.footprint, room.outline).min() <= .02
    return any(_rests_on(surface, o, under, tolerance) for surface in under.model.supports)


def _rests_on(surface: SupportSurface, o: SceneObject, under: SceneObject, tolerance: float) -> bool:
    "Does the footprint lie on a surface of the object under it, and is there room above?"
    z = o.bottom - under.bottom
    if abs(z - surface.z) > tolerance or o.size[2] > surface.headroom + tolerance:
        return False
    corners = under.in_own_frame(o.footprint)
    return bool((corners >= surface.low - tolerance).all() and (corners <= surface.high + tolerance).all())
