"""Which parts of a room's air are occupied: a grid from which the shaded renderer reads ambient occlusion.

Plain numpy; must not know the engine.
"""

from __future__ import annotations

import numpy as np

from virtual_room.floorplan import edge_distance, is_architecture
from virtual_room.scene import Primitive, Room, SceneObject, rotation_2d
from virtual_room.shapes import euler

CELL = .06  # meters
MARGIN = 4  # cells beyond the outline on every side, all of them occupied
THIN = .02  # meters: thinner primitives occupy nothing
HOLLOW = ("panel", "asset")  # shapes that occupy nothing


def occupied(room: Room) -> np.ndarray:
    """For each cell (Z, Y, X) uint8: 255 outside the room or inside a primitive of an object, 0 where it is free.

    The first cell begins at `origin`.
    """
    grid = _shell(room)
    for o in room.objects:
        if not is_architecture(o):
            for p in filter(_is_solid, o.model.primitives):
                _occupy(grid, *_box_in_cells(room, o, p))
    return grid


def _is_solid(p: Primitive) -> bool:
    return p.shape[0] not in HOLLOW and min(p.size) > THIN


def origin(room: Room) -> np.ndarray:
    "The corner (3,) of the first cell in the room's frame"
    return np.array([*room.low, 0.0]) - MARGIN * CELL


def grid_of(room: Room) -> tuple[int, int, int]:
    "Cells along z, y and x: powers of two"
    cells = np.array([*(room.high - room.low), room.height]) / CELL + 2 * MARGIN
    return tuple(2 ** np.ceil(np.log2(cells)).astype(int)[::-1])


def _shell(room: Room) -> np.ndarray:
    "The grid of an empty room"
    shape = grid_of(room)
    z, y, x = (np.arange(n) for n in shape)
    flat = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    centers = (flat + .5) * CELL + origin(room)[:2]
    inside = (edge_distance(centers, room.outline) > 0).reshape(shape[1:])
    height = (z + .5) * CELL + origin(room)[2]
    between = ((height > 0) & (height < room.height))[:, None, None]
    return np.where(inside & between, 0, 255).astype(np.uint8)


def _box_in_cells(room: Room, o: SceneObject, p: Primitive) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Middle (3,), half size (3,) and rotation (3, 3) of a primitive's box, in cells"
    heading = np.eye(3)
    heading[:2, :2] = rotation_2d(o.heading)
    middle = (heading @ p.center + o.at - origin(room)) / CELL - .5
    rotation = heading @ euler(np.array([p.rotation], float))[0]
    return middle, np.array(p.size) / 2 / CELL + .2, rotation


def _occupy(grid: np.ndarray, middle: np.ndarray, half: np.ndarray, rotation: np.ndarray) -> None:
    "Fill the cells whose middle is inside a box"
    reach = np.abs(rotation) @ half
    low = np.maximum(np.ceil(middle - reach), 0).astype(int)
    high = np.minimum(np.floor(middle + reach) + 1, grid.shape[::-1]).astype(int)
    if (low >= high).any():
        return
    x, y, z = (np.arange(a, b) - m for a, b, m in zip(low, high, middle))
    inside = True
    for i in range(3):
        own = x * rotation[0, i] + y[:, None] * rotation[1, i] + z[:, None, None] * rotation[2, i]
        inside = inside & (np.abs(own) <= half[i])
    x_range, y_range, z_range = (slice(a, b) for a, b in zip(low, high))
    grid[z_range, y_range, x_range][inside] = 255
