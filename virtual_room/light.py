"""From a room to lit triangles: all parts become vertices, and each vertex gets its share of light, occlusion and shadow.

Plain numpy, computed once a room; must not know the engine or how a picture is developed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from virtual_room.placement import ARCHITECTURE, CEILING, FLOOR, Wall, cells, edge_distance, walls_of
from virtual_room.scene import Light, Part, Room
from virtual_room.shapes import Mesh, box_map, mesh, place

GAMMA = 2.2
SLENDER = ("floor lamp", "side table", "plant")  # narrower where they stand than above
HEADROOM = 2.0  # vertex colours hold light up to this much over white
WELL = .48  # light on the average wall
STRIP, BEHIND = .06, .02  # metres: reach of a seal to both sides of an edge, and how far it lies behind the faces


@dataclass(frozen=True)
class Shape:
    "Vertices of a whole room before any light, and its triangles in runs of one thing and one texture"
    position: np.ndarray  # (V, 3)
    normal: np.ndarray  # (V, 3)
    uv: np.ndarray  # (V, 2)
    tint: np.ndarray  # (V, 3), 0..1
    glow: np.ndarray  # (V,)
    owner: np.ndarray  # (V,) index of the thing
    runs: list[tuple[int, str, np.ndarray]]  # thing, texture, triangles (T, 3)


@dataclass(frozen=True)
class Surfaces:
    "Vertices of a whole room as the light falls on them"
    position: np.ndarray  # (V, 3) float32
    colour: np.ndarray  # (V, 3) uint8, tint times light
    uv: np.ndarray  # (V, 2) float32
    runs: list[tuple[int, str, np.ndarray]]  # thing, texture, triangles (T, 3)
    shadows: np.ndarray  # (S, 4, 3) float32, flat quads that darken what things stand on
    seals: list[tuple[int, np.ndarray]]  # wall, floor or ceiling, and a quad (4, 3) behind one of its edges


def surfaces(room: Room) -> Surfaces:
    "Build and light a room"
    s = shape_of(room)
    light = _light(room, s.position, s.normal, s.owner)
    light = light * (WELL / light[_built(room, s.owner)].mean()) + s.glow[:, None]
    colour = s.tint * (light / HEADROOM).clip(0, 1) ** (1 / GAMMA)
    return Surfaces(s.position.astype(np.float32), (colour * 255).round().astype(np.uint8), s.uv.astype(np.float32), s.runs, contact_shadows(room), seals(room))


def shape_of(room: Room) -> Shape:
    "Build a room"
    owned = [(i, p) for i, t in enumerate(room.things) for p in t.model.parts]
    table = _table(room, owned)
    family = [_family(p.shape) for _, p in owned]
    blocks, tris, first = [], [None] * len(owned), 0
    for shape, group in groupby(sorted(range(len(owned)), key=lambda n: repr(family[n])), key=family.__getitem__):
        rows, m = list(group), mesh(shape)
        blocks.append(_block({k: v[rows] for k, v in table.items()}, m))
        for n in rows:
            tris[n] = m.tris + first
            first += len(m.unit)
    return Shape(*(np.concatenate(b) for b in zip(*blocks)), _runs(owned, tris))


def gain(room: Room, shape: Shape) -> float:
    "By what all light is multiplied so that the average wall is well exposed"
    some = np.flatnonzero(_built(room, shape.owner))[::4]
    return WELL / float(_light(room, shape.position[some], shape.normal[some], shape.owner[some]).mean())


def _built(room: Room, owner: np.ndarray) -> np.ndarray:
    "Which vertices belong to walls, floor and ceiling?"
    return np.array([t.model.kind in ARCHITECTURE for t in room.things])[owner]


def _family(shape: tuple) -> tuple:
    "Boxes with cut edges differ by a factor only, so that they are placed together"
    return ("bevel", 1.0) if shape[0] == "bevel" else shape


def _table(room: Room, owned: list[tuple[int, Part]]) -> dict[str, np.ndarray]:
    "One row a part: how it lies in the room and what it looks like"
    parts, things = [p for _, p in owned], [room.things[i] for i, _ in owned]
    t = {k: np.array([getattr(p, k) for p in parts], float) for k in ("size", "at", "colour", "tile", "glow")}
    heading, turn = euler(np.array([(0, 0, t.heading) for t in things], float)), euler(np.array([p.turn for p in parts], float))
    return t | dict(
        owner=np.array([i for i, _ in owned]), grained=np.array([p.texture.startswith("wood") for p in parts]),
        cut=np.array([p.shape[1] if p.shape[0] == "bevel" else 0 for p in parts]), turn=heading @ turn,
        shift=(t["at"][:, None] @ turn)[:, 0, ::2],
        origin=(heading @ t["at"][..., None])[..., 0] + np.array([t.at for t in things]))


def _runs(owned: list[tuple[int, Part]], tris: list[np.ndarray]) -> list[tuple[int, str, np.ndarray]]:
    key = lambda n: (owned[n][0], owned[n][1].texture)
    return [(i, name, np.concatenate([tris[n] for n in group])) for (i, name), group in groupby(sorted(range(len(owned)), key=key), key=key)]


def euler(degrees: np.ndarray) -> np.ndarray:
    "Matrices (P, 3, 3) that turn about x, then y, then z"
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)).T, np.sin(np.radians(degrees)).T
    return np.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx, sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx,
                     -sy, cy * sx, cy * cx], 1).reshape(-1, 3, 3)


def _block(t: dict[str, np.ndarray], m: Mesh) -> tuple[np.ndarray, ...]:
    "Position, normal, uv, tint, glow and owner of every vertex of parts of one mesh"
    position, normal, local = place(m, t["size"], t["origin"], t["turn"], t["cut"])
    fitted, tile = (t["tile"] == 0)[:, None, None], np.where(t["tile"] == 0, 1, t["tile"])[:, None, None]
    uv = np.where(fitted, m.uv, (box_map(m, local, t["size"], t["grained"]) + t["shift"][:, None]) / tile)
    each = [np.repeat(t[k], len(m.unit), axis=0) for k in ("colour", "glow", "owner")]
    if m.tint is not None: each[0] = each[0] * np.tile(m.tint, (len(position), 1))
    return position.reshape(-1, 3), normal.reshape(-1, 3), uv.reshape(-1, 2), *each


def _light(room: Room, position: np.ndarray, normal: np.ndarray, owner: np.ndarray) -> np.ndarray:
    "Light (V, 3) that arrives at each vertex"
    built = _built(room, owner)
    total = np.array(room.ambient) * (_occlusion(room, position, normal) * (.8 + .2 * normal[:, 2]))[:, None]
    boxes = _occluders(room)
    for light in (l for l in room.lights if l.area):
        arriving = _arriving(light, position, normal)
        arriving[built] *= _unshadowed(light, position[built], boxes)
        total += arriving[:, None] * np.array(light.colour)
    return total


def _arriving(light: Light, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Share (V,) of a small area's light by distance and both cosines"
    way = np.array(light.at) - position
    square = (way * way).sum(1)
    way /= np.sqrt(square + 1e-6)[:, None]
    facing = ((way * normal).sum(1) * .85 + .15).clip(0)
    leaving = (-way @ np.array(light.normal)).clip(0) if any(light.normal) else .25
    return facing * leaving * light.area / (np.pi * square + light.area * .7)


def _occlusion(room: Room, position: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Darker towards the corners of the room and where furniture meets the floor, (V,)"
    open_ = np.ones(len(position))
    planes = [((0, 0, 1.0), position[:, 2]), ((0, 0, -1.0), room.height - position[:, 2])]
    planes += [((*w.inward, 0.0), _from_wall(w, position[:, :2])) for w in walls_of(room.outline)]
    for inward, distance in planes: open_ *= 1 - .22 * (1 - (normal @ np.array(inward)).clip(0)) * np.exp(-distance.clip(0) / .22)
    ground = np.flatnonzero((position[:, 2] < .02) & (normal[:, 2] > .9))
    for t in room.things:
        if t.model.kind in ARCHITECTURE or t.at[2] > .02 or t.model.size[2] < .1: continue
        a = np.radians(t.heading)
        local = (position[ground, :2] - t.at[:2]) @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        distance = np.linalg.norm((np.abs(local) - np.array(t.model.size[:2]) / 2).clip(0), axis=1)
        open_[ground] *= 1 - .4 * np.exp(-distance / .13)
    return open_


def contact_shadows(room: Room) -> np.ndarray:
    "A quad (S, 4, 3) under each thing that stands on the floor or on another thing; over rugs, which are flat"
    quads = []
    for t in room.things:
        under, (w, d, _) = room.things[t.support].model.kind, t.model.size
        if t.model.kind in ARCHITECTURE or t.label == "furniture_rug" or under in ("wall", "ceiling"): continue
        margin, z = (min(.14, .3 * min(w, d)), .0135) if under == "floor" else (min(.03, .25 * min(w, d)), t.at[2] + .002)
        if t.model.kind in SLENDER: margin = -.12 * w
        grown = replace(t, model=replace(t.model, size=(w + 2 * margin, d + 2 * margin, 0)))
        quads.append(np.column_stack([grown.footprint, np.full(4, z)]))
    return np.array(quads, np.float32).reshape(-1, 4, 3)


def seals(room: Room) -> list[tuple[int, np.ndarray]]:
    """Strips a little behind every edge of the room's shell, each a quad (4, 3) with the index of its object.

    A renderer that rounds corners to whole pixels leaves single pixels open where two faces meet; behind them now stands a strip of the right label.
    """
    strips = []
    for wall in walls_of(room.outline):
        if room.things[wall.index].model.kind == "wall":
            strips += [(wall.index, quad) for quad in [*_wall_strips(wall, room), *_joint_strips(wall, room)]]
        strips.append((FLOOR, _level_strip(wall, -BEHIND)))
        strips.append((CEILING, _level_strip(wall, room.height + BEHIND)[::-1]))
    return strips


def _wall_strips(wall: Wall, room: Room) -> list[np.ndarray]:
    "Behind the lower, the upper and both side edges of a wall; at a corner that points into the room they end with the wall"
    start = -STRIP if _recedes(wall.a - wall.along * STRIP, room) else 0.0
    end = wall.length + (STRIP if _recedes(wall.b + wall.along * STRIP, room) else 0.0)
    low, high = -STRIP, room.height + STRIP
    return [_upright(wall, start, end, low, STRIP), _upright(wall, start, end, room.height - STRIP, high),
            _upright(wall, start, STRIP, low, high), _upright(wall, wall.length - STRIP, end, low, high)]


def _joint_strips(wall: Wall, room: Room) -> list[np.ndarray]:
    "Behind both sides of the pieces of a wall that lie over or under an opening"
    strips = []
    for part in room.things[wall.index].model.parts:
        if part.shape[0] != "panel" or part.size[2] >= room.height: continue
        low, high = part.at[2] - part.size[2] / 2, part.at[2] + part.size[2] / 2
        middle = part.at[0] + wall.length / 2
        for side in (middle - part.size[0] / 2, middle + part.size[0] / 2):
            strips.append(_upright(wall, side - STRIP, side + STRIP, low, high))
    return strips


def _recedes(point: np.ndarray, room: Room) -> bool:
    "Is a point beyond the end of a wall outside the room?"
    return bool(edge_distance(point[None], room.outline)[0] <= 0)


def _upright(wall: Wall, s0: float, s1: float, z0: float, z1: float) -> np.ndarray:
    "A quad behind a wall, seen from the room"
    return np.array([(*wall.point(s, -BEHIND), z) for s, z in ((s1, z0), (s0, z0), (s0, z1), (s1, z1))], np.float32)


def _level_strip(wall: Wall, z: float) -> np.ndarray:
    "A quad along the foot of a wall, seen from above"
    corners = ((-STRIP, -STRIP), (wall.length + STRIP, -STRIP), (wall.length + STRIP, STRIP), (-STRIP, STRIP))
    return np.array([(*wall.point(s, off), z) for s, off in corners], np.float32)


def _from_wall(wall: Wall, points: np.ndarray) -> np.ndarray:
    "Distance (N,) of points to the wall; those well behind it are far away"
    along, off = (points - wall.a) @ wall.along, (points - wall.a) @ wall.inward
    beyond = np.maximum(-along, along - wall.length).clip(0)
    return np.where(off < -.3, 9.0, np.hypot(off.clip(0), beyond))


def _occluders(room: Room) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Middles (B, 3), half sizes (B, 3) and headings (B,) of the boxes that throw shadows"
    casting = [t for t in room.things if t.at[2] < .02 and t.model.size[2] > .3 and t.model.kind not in (*ARCHITECTURE, "door", "floor lamp", "plant", "side table")]
    _, corners = cells(room.outline)
    h = np.full((len(corners), 1), room.height / 2)
    middle = np.concatenate([np.array([(*t.at[:2], t.model.size[2] / 2) for t in casting]).reshape(-1, 3), np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, h])])
    half = np.concatenate([np.array([t.model.size for t in casting]).reshape(-1, 3) / 2 * .92, np.hstack([(corners[:, 2:] - corners[:, :2]) / 2 - .02, h])])
    return middle, half, np.radians([t.heading for t in casting] + [0] * len(corners))


def _unshadowed(light: Light, position: np.ndarray, boxes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    "Share (V,) of a light that no box stops; its ends are spread to soften the edges"
    if any(light.normal) and max(light.colour) < .5: return np.ones(len(position))
    side = np.array([-light.normal[1], light.normal[0], 0]) * np.sqrt(light.area) * .3
    ends = [np.array(light.at) + k * side for k in ((-1, 1) if side.any() else (0,))]
    return np.mean([_clear(position, end, *boxes) for end in ends], axis=0) * .85 + .15


def _clear(position: np.ndarray, end: np.ndarray, middle: np.ndarray, half: np.ndarray, heading: np.ndarray) -> np.ndarray:
    "Is the way from each position to `end` free of all boxes? (slab test, each box in its own frame)"
    c, s = np.cos(heading), np.sin(heading)
    own = lambda x, y: (c * x + s * y, c * y - s * x)
    x, y, z = ((position[:, i, None] - middle[:, i]) for i in range(3))
    dx, dy, dz = (end[i] - position[:, i, None] for i in range(3))
    enter, leave = np.full(x.shape, .0), np.full(x.shape, 1.0)
    for start, step, h in zip((*own(x, y), z), (*own(dx, dy), dz), half.T):
        step = np.where(np.abs(step) < 1e-9, 1e-9, step)
        centre, reach = -start / step, h / np.abs(step)
        np.maximum(enter, centre - reach, out=enter), np.minimum(leave, centre + reach, out=leave)
    return ~((enter < leave) & (leave > .001)).any(1)
