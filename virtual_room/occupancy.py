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
    inside = _inside_outline(room)
    between = _below_ceiling(room)[:, None, None]
    return np.where(inside & between, 0, 255).astype(np.uint8)


def _inside_outline(room: Room) -> np.ndarray:
    "Which columns of cells (Y, X) have their middle inside the room's outline"
    _, y, x = (np.arange(n) for n in grid_of(room))
    columns = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    centers = (columns + .5) * CELL + origin(room)[:2]
    return (edge_distance(centers, room.outline) > 0).reshape(len(y), len(x))


def _below_ceiling(room: Room) -> np.ndarray:
    "Which layers of cells (Z,) have their middle between floor and ceiling"
    height = (np.arange(grid_of(room)[0]) + .5) * CELL + origin(room)[2]
    return (height > 0) & (height < room.height)


def _box_in_cells(room: Room, o: SceneObject, p: Primitive) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Middle (3,), half size (3,) and rotation (3, 3) of a primitive's box, in cells"
    heading = np.eye(3)
    heading[:2, :2] = rotation_2d(o.heading)
    middle = (heading @ p.center + o.at - origin(room)) / CELL - .5
    rotation = heading @ euler(np.array([p.rotation], float))[0]
    return middle, np.array(p.size) / 2 / CELL + .2, rotation


def _occupy(grid: np.ndarray, middle: np.ndarray, half: np.ndarray, rotation: np.ndarray) -> None:
    "Fill the cells whose middle is inside a box"
    low, high = _cells_around(grid, middle, half, rotation)
    if (low >= high).any():
        return
    x, y, z = (np.arange(a, b) - m for a, b, m in zip(low, high, middle))
    inside = True
    for axis in range(3):
        own = _along(rotation[:, axis], x, y, z)
        inside = inside & (np.abs(own) <= half[axis])
    x_range, y_range, z_range = (slice(a, b) for a, b in zip(low, high))
    grid[z_range, y_range, x_range][inside] = 255


def _cells_around(
    grid: np.ndarray, middle: np.ndarray, half: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    "The first cell (x, y, z) that a box may reach, and the one after the last"
    reach = np.abs(rotation) @ half
    low = np.maximum(np.ceil(middle - reach), 0)
    high = np.minimum(np.floor(middle + reach) + 1, grid.shape[::-1])
    return low.astype(int), high.astype(int)


def _along(direction: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    "How far (Z, Y, X) the cells at these distances from a box's middle lie along a direction (3,)"
    return x * direction[0] + y[:, None] * direction[1] + z[:, None, None] * direction[2]
