"""The plane geometry of a room: its walls, its rectangles, distances to its outline and to what stands in it.

Must not know rules of placing. An object occupies its oriented box: its footprint times its height.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from virtual_room.scene import Outline, Room, SceneObject

ARCHITECTURE = ("wall", "floor", "ceiling")
FLOOR, CEILING = 0, 1  # indices of the first two objects of every room; walls follow
RUG = "furniture_rug"  # people and furniture stand on it
OVERHEAD = 1.9  # meters: what hangs higher is in nobody's way

_QUARTER_TURN = np.array([-1.0, 1.0])


@dataclass(frozen=True)
class Wall:
    "From corner `a` to corner `b`, the room on its left"
    index: int  # of its object
    a: np.ndarray
    b: np.ndarray

    @cached_property
    def length(self) -> float:
        "Meters from corner to corner"
        return float(np.linalg.norm(self.b - self.a))

    @cached_property
    def along(self) -> np.ndarray:
        "The direction from `a` to `b`, (2,)"
        return (self.b - self.a) / self.length

    @cached_property
    def inward(self) -> np.ndarray:
        "The direction into the room, (2,)"
        return np.array([-self.along[1], self.along[0]])

    @cached_property
    def heading(self) -> float:
        "Degrees of an object whose back is to the wall"
        return float(np.degrees(np.arctan2(self.along[1], self.along[0])))

    def point(self, s: float, off: float) -> np.ndarray:
        "The point (2,) at `s` meters from `a` and `off` meters into the room"
        return self.a + self.along * s + self.inward * off


def is_architecture(o: SceneObject) -> bool:
    "Is it a wall, the floor or the ceiling?"
    return o.kind in ARCHITECTURE


def is_obstacle(o: SceneObject) -> bool:
    "Can nothing stand where it stands? Rugs and the shell of a room are no obstacle"
    return not is_architecture(o) and o.label != RUG


def walls_of(outline: Outline) -> list[Wall]:
    "A wall for each side of the outline"
    corners = np.asarray(outline)
    ends = zip(corners, np.roll(corners, -1, axis=0))
    return [Wall(CEILING + 1 + i, a, b) for i, (a, b) in enumerate(ends)]


def separation(a: np.ndarray, b: np.ndarray) -> float:
    "Gap between two convex quads (4, 2) along the best of their edge normals; negative is the depth they overlap"
    edges = np.concatenate([a[1:3] - a[:2], b[1:3] - b[:2]])
    normals = edges[:, ::-1] * _QUARTER_TURN / np.hypot(edges[:, :1], edges[:, 1:])
    along_a, along_b = a @ normals.T, b @ normals.T
    gaps = np.maximum(along_a.min(0) - along_b.max(0), along_b.min(0) - along_a.max(0))
    return float(gaps.max())


def apart(a: SceneObject, b: SceneObject, gap: float = 0.0) -> bool:
    "Do two objects keep `gap` meters between their boxes?"
    if a.bottom >= b.top or b.bottom >= a.top:
        return True
    reach = sum(np.hypot(*o.size[:2]) for o in (a, b)) / 2 + gap
    if np.hypot(*(a.spot - b.spot)) > reach:
        return True
    return separation(a.footprint, b.footprint) >= gap


def edge_distance(points: np.ndarray, outline: Outline) -> np.ndarray:
    "Distance (N,) of points (N, 2) to the outline, negative outside"
    a = np.asarray(outline, float)
    edge = np.roll(a, -1, axis=0) - a
    distance = _segment_distance(points, a, edge).min(1)
    return np.where(_is_inside(points, a, edge), distance, -distance)


def _segment_distance(points: np.ndarray, a: np.ndarray, edge: np.ndarray) -> np.ndarray:
    "Distance (N, S) of points (N, 2) to segments from `a` (S, 2) along `edge` (S, 2)"
    from_a = points[:, None] - a
    along = ((from_a * edge).sum(2) / (edge * edge).sum(1)).clip(0, 1)
    return np.linalg.norm(from_a - along[..., None] * edge, axis=2)


def _is_inside(points: np.ndarray, a: np.ndarray, edge: np.ndarray) -> np.ndarray:
    "Which points (N, 2) are inside a closed outline (N,): those from which a ray crosses it an odd number of times"
    x, y = points[:, None, 0], points[:, None, 1]
    b = np.roll(a, -1, axis=0)
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(edge[:, 1] == 0, 1, edge[:, 1])
    left = x < edge[:, 0] * (y - a[:, 1]) / rise + a[:, 0]
    return (crosses & left).sum(1) % 2 == 1


def box_distance(points: np.ndarray, o: SceneObject) -> np.ndarray:
    "Distance (N,) of points (N, 2) to the object's footprint, 0 inside"
    outside = np.abs(o.in_own_frame(points)) - np.asarray(o.size[:2]) / 2
    return np.linalg.norm(outside.clip(0), axis=1)


def cells(outline: Outline) -> tuple[np.ndarray, np.ndarray]:
    """The rectangles (x0, y0, x1, y1) inside an outline of right angles, (N, 4), and those outside it, (M, 4).

    Both together make up the bounding box.
    """
    x, y = (np.unique(np.asarray(outline)[:, i]) for i in (0, 1))
    columns, rows = list(zip(x, x[1:])), list(zip(y, y[1:]))
    rectangles = []
    for x0, x1 in columns:
        rectangles += [(x0, y0, x1, y1) for y0, y1 in rows]
    every = np.array(rectangles)
    inside = edge_distance((every[:, :2] + every[:, 2:]) / 2, outline) > 0
    return every[inside], every[~inside]


def overhang(o: SceneObject, outline: Outline) -> float:
    "Meters by which the object's footprint sticks out; a corner of the room inside the footprint counts too"
    out = -edge_distance(o.footprint, outline).min()
    if len(outline) == 4:
        return out
    corners = o.in_own_frame(np.asarray(outline, float))
    pierced = np.asarray(o.size[:2]) / 2 - np.abs(corners)
    return max(out, pierced.min(1).max())


def walkable(
    room: Room, points: np.ndarray, wall_gap: float = .3, object_gap: float = .28, headroom: float = OVERHEAD
) -> np.ndarray:
    "Which of the points (N, 2) a person can stand on (N,); what hangs higher than `headroom` is in nobody's way"
    free = edge_distance(points, room.outline) >= wall_gap
    for o in room.objects:
        if is_obstacle(o) and o.bottom <= headroom:
            free &= box_distance(points, o) >= object_gap
    return free
