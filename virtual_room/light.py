"""Light on the vertices of a room: each gets its share of light, occlusion and shadow.

Plain numpy, computed once a room; must not know the engine or how an image is developed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from virtual_room.floorplan import ARCHITECTURE, Wall, box_distance, cells, is_architecture, walls_of
from virtual_room.meshes import RoomMesh, Run, Seal, build_mesh, contact_shadows, on_architecture, seals
from virtual_room.scene import Light, Room, SceneObject

GAMMA = 2.2
HEADROOM = 2.0  # vertex colors hold light up to this much over white
MEAN_WALL_LIGHT = .48
FAINT = .5  # a window with less light than this throws no shadow
NO_OBSTACLE_TO_LIGHT = (*ARCHITECTURE, "door", "floor lamp", "plant", "side table")


@dataclass(frozen=True)
class Surfaces:
    "Vertices of a whole room as the light falls on them"
    position: np.ndarray  # (V, 3) float32
    color: np.ndarray  # (V, 3) uint8, tint times light
    uv: np.ndarray  # (V, 2) float32
    runs: list[Run]
    shadows: np.ndarray  # (S, 4, 3) float32, flat quads that darken what objects stand on
    seals: list[Seal]


@dataclass(frozen=True)
class Occluders:
    "Boxes that throw shadows, each with its own heading"
    middle: np.ndarray  # (B, 3)
    half: np.ndarray  # (B, 3) half sizes
    heading: np.ndarray  # (B,) radians

    def turned(self, vector: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        "x, y and z, each (V, B), in the frame of each box"
        x, y, z = vector
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return cos * x + sin * y, cos * y - sin * x, z


def surfaces(room: Room) -> Surfaces:
    "Build and light a room"
    m = build_mesh(room)
    arriving = _light(room, m.position, m.normal, m.owner)
    walls = on_architecture(room, m.owner)
    light = arriving * (MEAN_WALL_LIGHT / arriving[walls].mean()) + m.emission[:, None]
    encoded = m.tint * (light / HEADROOM).clip(0, 1) ** (1 / GAMMA)
    color = (encoded * 255).round().astype(np.uint8)
    position, uv = m.position.astype(np.float32), m.uv.astype(np.float32)
    return Surfaces(position, color, uv, m.runs, contact_shadows(room), seals(room))


def gain(room: Room, m: RoomMesh) -> float:
    "By what all light is multiplied so that the average wall is well exposed"
    some = np.flatnonzero(on_architecture(room, m.owner))[::4]
    mean = _light(room, m.position[some], m.normal[some], m.owner[some]).mean()
    return MEAN_WALL_LIGHT / float(mean)


def _light(room: Room, position: np.ndarray, normal: np.ndarray, owner: np.ndarray) -> np.ndarray:
    "Light (V, 3) that arrives at each vertex"
    walls = on_architecture(room, owner)
    upward = .8 + .2 * normal[:, 2]
    total = np.array(room.ambient) * (_ambient_occlusion(room, position, normal) * upward)[:, None]
    boxes = _occluders(room)
    for light in room.lights:
        if not light.area:
            continue
        arriving = _arriving(light, position, normal)
        arriving[walls] *= _unshadowed(light, position[walls], boxes)
        total += arriving[:, None] * np.array(light.color)
    return total


def _arriving(light: Light, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Share (V,) of a small area's light by distance and both cosines"
    way = np.array(light.at) - position
    square = (way * way).sum(1)
    way /= np.sqrt(square + 1e-6)[:, None]
    facing = ((way * normal).sum(1) * .85 + .15).clip(0)
    leaving = (-way @ np.array(light.normal)).clip(0) if any(light.normal) else .25
    return facing * leaving * light.area / (np.pi * square + light.area * .7)


def _ambient_occlusion(room: Room, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Share (V,) of the ambient light: less towards the corners of the room and where furniture meets the floor"
    share = np.ones(len(position))
    for inward, distance in _distances_to_shell(room, position):
        turned_away = 1 - (normal @ np.array(inward)).clip(0)
        share *= 1 - .22 * turned_away * np.exp(-distance.clip(0) / .22)
    ground = np.flatnonzero((position[:, 2] < .02) & (normal[:, 2] > .9))
    for o in filter(_darkens_floor, room.objects):
        distance = box_distance(position[ground, :2], o)
        share[ground] *= 1 - .4 * np.exp(-distance / .13)
    return share


def _distances_to_shell(room: Room, position: np.ndarray) -> list[tuple[tuple, np.ndarray]]:
    "For floor, ceiling and walls the direction into the room, and the distance (V,) of each vertex"
    planes = [((0, 0, 1.0), position[:, 2]), ((0, 0, -1.0), room.height - position[:, 2])]
    for wall in walls_of(room.outline):
        planes.append(((*wall.inward, 0.0), _from_wall(wall, position[:, :2])))
    return planes


def _darkens_floor(o: SceneObject) -> bool:
    stands_on_floor = o.bottom <= .02 and o.size[2] >= .1
    return stands_on_floor and not is_architecture(o)


def _from_wall(wall: Wall, points: np.ndarray) -> np.ndarray:
    "Distance (N,) of points to the wall; those well behind it are far away"
    along, off = (points - wall.a) @ wall.along, (points - wall.a) @ wall.inward
    beyond = np.maximum(-along, along - wall.length).clip(0)
    return np.where(off < -.3, 9.0, np.hypot(off.clip(0), beyond))


def _occluders(room: Room) -> Occluders:
    "Tall objects on the floor, and the missing corner of a room"
    casting = [o for o in room.objects if _throws_shadow(o)]
    middle = np.array([(*o.spot, o.size[2] / 2) for o in casting]).reshape(-1, 3)
    half = np.array([o.size for o in casting]).reshape(-1, 3) / 2 * .92
    corner_middle, corner_half = _missing_corners(room)
    heading = np.radians([o.heading for o in casting] + [0] * len(corner_half))
    return Occluders(np.concatenate([middle, corner_middle]), np.concatenate([half, corner_half]), heading)


def _throws_shadow(o: SceneObject) -> bool:
    is_tall = o.bottom < .02 and o.size[2] > .3
    return is_tall and o.kind not in NO_OBSTACLE_TO_LIGHT


def _missing_corners(room: Room) -> tuple[np.ndarray, np.ndarray]:
    "Middle and half size, (N, 3) each, of the blocks that an L-shaped room lacks"
    _, corners = cells(room.outline)
    low, high = corners[:, :2], corners[:, 2:]
    height = np.full((len(corners), 1), room.height / 2)
    return np.hstack([(low + high) / 2, height]), np.hstack([(high - low) / 2 - .02, height])


def _unshadowed(light: Light, position: np.ndarray, boxes: Occluders) -> np.ndarray:
    "Share (V,) of a light that no box stops; its ends are spread to soften the edges"
    if any(light.normal) and max(light.color) < FAINT:
        return np.ones(len(position))
    side = np.array([-light.normal[1], light.normal[0], 0]) * np.sqrt(light.area) * .3
    ends = [np.array(light.at) + k * side for k in ((-1, 1) if side.any() else (0,))]
    return np.mean([_is_clear(position, end, boxes) for end in ends], axis=0) * .85 + .15


def _is_clear(position: np.ndarray, end: np.ndarray, boxes: Occluders) -> np.ndarray:
    "Is the way from each position (V, 3) to `end` free of all boxes? (slab test, each box in its own frame)"
    starts = boxes.turned(position[:, i, None] - boxes.middle[:, i] for i in range(3))
    steps = boxes.turned(end[i] - position[:, i, None] for i in range(3))
    shape = len(position), len(boxes.heading)
    enter, leave = np.full(shape, .0), np.full(shape, 1.0)  # shares of the way
    for start, step, half in zip(starts, steps, boxes.half.T):
        into, out_of = _slab(start, step, half)
        np.maximum(enter, into, out=enter)
        np.minimum(leave, out_of, out=leave)
    is_inside = (enter < leave) & (leave > .001)
    return ~is_inside.any(1)


def _slab(start: np.ndarray, step: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "At which shares (V, B) of the way one enters and leaves a slab of half this thickness around 0"
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    center, reach = -start / step, half / np.abs(step)
    return center - reach, center + reach
