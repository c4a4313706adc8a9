"""From a room to triangles: all primitives become vertices, and flat quads seal edges and carry contact shadows.

Plain numpy, computed once a room; must not know light nor the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from virtual_room.floorplan import ARCHITECTURE, CEILING, FLOOR, Wall, edge_distance, is_obstacle, walls_of
from virtual_room.scene import Primitive, Room, SceneObject
from virtual_room.shapes import Mesh, box_map, euler, mesh, place

SLENDER = ("floor lamp", "side table", "plant")  # narrower where they stand than above
STRIP, BEHIND = .06, .02  # meters: reach of a seal to both sides of an edge, and how far it lies behind the faces

Run = tuple[int, str, np.ndarray]  # index of an object, a texture, triangles (T, 3)
Seal = tuple[int, np.ndarray]  # index of a wall, the floor or the ceiling, and a quad (4, 3) behind one of its edges
Owned = tuple[int, Primitive]  # a primitive and the index of its object


@dataclass(frozen=True)
class RoomMesh:
    "Vertices of a whole room before any light, and its triangles in runs of one object and one texture"
    position: np.ndarray  # (V, 3)
    normal: np.ndarray  # (V, 3)
    uv: np.ndarray  # (V, 2)
    tint: np.ndarray  # (V, 3), 0..1
    emission: np.ndarray  # (V,)
    owner: np.ndarray  # (V,) index of the object
    runs: list[Run]


def build_mesh(room: Room) -> RoomMesh:
    "All primitives of a room, those of one shape next to each other"
    owned = [(i, p) for i, o in enumerate(room.objects) for p in o.model.primitives]
    table = _primitive_table(room, owned)
    blocks, triangles, first = [], [None] * len(owned), 0
    for family, rows in _rows_of_families(owned):
        unit_mesh = mesh(family)
        blocks.append(_block({name: column[rows] for name, column in table.items()}, unit_mesh))
        for row in rows:
            triangles[row] = unit_mesh.triangles + first
            first += len(unit_mesh.unit)
    columns = [np.concatenate(arrays) for arrays in zip(*blocks)]
    return RoomMesh(*columns, _runs(owned, triangles))


def _rows_of_families(owned: list[Owned]) -> list[tuple[tuple, list[int]]]:
    "Each family of shapes with the rows of its primitives, in an order of their own"
    families = [_family(p.shape) for _, p in owned]
    order = sorted(range(len(owned)), key=lambda row: repr(families[row]))
    return [(family, list(rows)) for family, rows in groupby(order, key=families.__getitem__)]


def on_architecture(room: Room, owner: np.ndarray) -> np.ndarray:
    "Which vertices (V,) belong to walls, floor and ceiling?"
    return np.array([o.kind in ARCHITECTURE for o in room.objects])[owner]


def _family(description: tuple) -> tuple:
    "Boxes with cut edges differ by a factor only, so that they are placed together"
    return ("bevel", 1.0) if description[0] == "bevel" else description


def _primitive_table(room: Room, owned: list[Owned]) -> dict[str, np.ndarray]:
    "One row a primitive: how it lies in the room and what it looks like"
    primitives = [p for _, p in owned]
    objects = [room.objects[i] for i, _ in owned]
    table = {name: _column(primitives, name) for name in ("size", "center", "color", "tile", "emission")}
    table["owner"] = np.array([i for i, _ in owned])
    table["grained"] = np.array([p.texture.startswith("wood") for p in primitives])
    table["cut"] = np.array([p.shape[1] if p.shape[0] == "bevel" else 0 for p in primitives])
    return table | _placed_columns(primitives, objects, table["center"])


def _column(primitives: list[Primitive], name: str) -> np.ndarray:
    return np.array([getattr(p, name) for p in primitives], float)


def _placed_columns(
    primitives: list[Primitive], objects: list[SceneObject], center: np.ndarray
) -> dict[str, np.ndarray]:
    "How primitives lie in the room: rotation, origin, and the shift of the texture"
    heading = euler(np.array([(0, 0, o.heading) for o in objects], float))
    rotation = euler(_column(primitives, "rotation"))
    turned_center = (heading @ center[..., None])[..., 0]
    return dict(
        rotation=heading @ rotation,
        shift=(center[:, None] @ rotation)[:, 0, ::2],
        origin=turned_center + np.array([o.at for o in objects]),
    )


def _runs(owned: list[Owned], triangles: list[np.ndarray]) -> list[Run]:
    "The triangles of each object and texture together"
    def key(row: int) -> tuple[int, str]:
        i, primitive = owned[row]
        return i, primitive.texture

    runs = []
    for (i, texture), group in groupby(sorted(range(len(owned)), key=key), key=key):
        runs.append((i, texture, np.concatenate([triangles[row] for row in group])))
    return runs


def _block(table: dict[str, np.ndarray], m: Mesh) -> tuple[np.ndarray, ...]:
    "Position, normal, uv, tint, emission and owner of every vertex of primitives of one mesh"
    position, normal, local = place(m, table["size"], table["origin"], table["rotation"], table["cut"])
    uv = _texture_coordinates(table, m, local)
    tint, emission, owner = (np.repeat(table[name], len(m.unit), axis=0) for name in ("color", "emission", "owner"))
    if m.tint is not None:
        tint = tint * np.tile(m.tint, (len(position), 1))
    return position.reshape(-1, 3), normal.reshape(-1, 3), uv.reshape(-1, 2), tint, emission, owner


def _texture_coordinates(table: dict[str, np.ndarray], m: Mesh, local: np.ndarray) -> np.ndarray:
    "(P, V, 2): the mesh's own where a texture is fitted to the shape, else meters in tiles"
    is_fitted = (table["tile"] == 0)[:, None, None]
    tile = np.where(table["tile"] == 0, 1, table["tile"])[:, None, None]
    projected = box_map(m, local, table["size"], table["grained"])
    return np.where(is_fitted, m.uv, (projected + table["shift"][:, None]) / tile)


def contact_shadows(room: Room) -> np.ndarray:
    "A quad (S, 4, 3) under each object that stands on the floor or on another object; over rugs, which are flat"
    quads = [_contact_shadow(o, room) for o in room.objects if _throws_contact_shadow(o, room)]
    return np.array(quads, np.float32).reshape(-1, 4, 3)


def _throws_contact_shadow(o: SceneObject, room: Room) -> bool:
    under = room.objects[o.support].kind
    return is_obstacle(o) and under not in ("wall", "ceiling")


def _contact_shadow(o: SceneObject, room: Room) -> np.ndarray:
    "A quad (4, 3) a little larger than the footprint, a little above what the object stands on"
    w, d, _ = o.size
    if room.objects[o.support].kind == "floor":
        margin, z = min(.14, .3 * min(w, d)), .0135
    else:
        margin, z = min(.03, .25 * min(w, d)), o.bottom + .002
    if o.kind in SLENDER:
        margin = -.12 * w
    grown = replace(o, model=replace(o.model, size=(w + 2 * margin, d + 2 * margin, 0)))
    return np.column_stack([grown.footprint, np.full(4, z)])


def seals(room: Room) -> list[Seal]:
    """Strips a little behind every edge of the room's shell.

    A renderer that rounds corners to whole pixels leaves single pixels open where two faces meet;
    behind them stands a strip of the right label.
    """
    strips = []
    for wall in walls_of(room.outline):
        if room.objects[wall.index].kind == "wall":
            quads = _wall_strips(wall, room) + _joint_strips(wall, room)
            strips += [(wall.index, quad) for quad in quads]
        strips.append((FLOOR, _level_strip(wall, -BEHIND)))
        strips.append((CEILING, _level_strip(wall, room.height + BEHIND)[::-1]))
    return strips


def _wall_strips(wall: Wall, room: Room) -> list[np.ndarray]:
    "Behind the lower, the upper and both side edges; at a corner that points into the room they end with the wall"
    start = -STRIP if _is_outside(wall.a - wall.along * STRIP, room) else 0.0
    end = wall.length + (STRIP if _is_outside(wall.b + wall.along * STRIP, room) else 0.0)
    low, high = -STRIP, room.height + STRIP
    return [
        _upright_strip(wall, start, end, low, STRIP),
        _upright_strip(wall, start, end, room.height - STRIP, high),
        _upright_strip(wall, start, STRIP, low, high),
        _upright_strip(wall, wall.length - STRIP, end, low, high),
    ]


def _joint_strips(wall: Wall, room: Room) -> list[np.ndarray]:
    "Behind both sides of the pieces of a wall that lie over or under an opening"
    strips = []
    for piece in room.objects[wall.index].model.primitives:
        if piece.shape[0] == "panel" and piece.size[2] < room.height:
            strips += _side_strips(wall, piece)
    return strips


def _side_strips(wall: Wall, piece: Primitive) -> list[np.ndarray]:
    "Behind the left and the right edge of a piece of a wall"
    half_width, half_height = piece.size[0] / 2, piece.size[2] / 2
    middle = piece.center[0] + wall.length / 2
    low, high = piece.center[2] - half_height, piece.center[2] + half_height
    sides = (middle - half_width, middle + half_width)
    return [_upright_strip(wall, side - STRIP, side + STRIP, low, high) for side in sides]


def _is_outside(point: np.ndarray, room: Room) -> bool:
    return bool(edge_distance(point[None], room.outline)[0] <= 0)


def _upright_strip(wall: Wall, s0: float, s1: float, z0: float, z1: float) -> np.ndarray:
    "A quad behind a wall, its corners counter-clockwise as seen from the room"
    corners = ((s1, z0), (s0, z0), (s0, z1), (s1, z1))
    return np.array([(*wall.point(s, -BEHIND), z) for s, z in corners], np.float32)


def _level_strip(wall: Wall, z: float) -> np.ndarray:
    "A quad along the foot of a wall, its corners counter-clockwise as seen from above"
    start, end = -STRIP, wall.length + STRIP
    corners = ((start, -STRIP), (end, -STRIP), (end, STRIP), (start, STRIP))
    return np.array([(*wall.point(s, off), z) for s, off in corners], np.float32)
