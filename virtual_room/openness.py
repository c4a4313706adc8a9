"""How open the air of a room is: a grid of cells that are filled or free, from which ambient occlusion is read.

Plain numpy; must not know the engine.
"""

from __future__ import annotations

import numpy as np

from virtual_room.light import euler
from virtual_room.placement import ARCHITECTURE, edge_distance
from virtual_room.scene import Room, turned

CELL = .06  # metres
MARGIN = 4  # cells beyond the outline on every side, all of them filled
THIN = .02  # metres: thinner parts fill nothing


def filled(room: Room) -> np.ndarray:
    "For each cell (Z, Y, X) 255 where it is outside the room or inside a part of a thing, 0 where it is free; the first cell begins at `origin`"
    shape = grid_of(room)
    z, y, x = (np.arange(n) for n in shape)
    flat = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    inside = (edge_distance((flat + .5) * CELL + origin(room)[:2], room.outline) > 0).reshape(shape[1:])
    height = (z + .5) * CELL + origin(room)[2]
    cells = np.where(inside & ((height > 0) & (height < room.height))[:, None, None], 0, 255).astype(np.uint8)
    for t in room.things:
        if t.model.kind in ARCHITECTURE: continue
        for p in t.model.parts:
            if p.shape[0] not in ("panel", "asset") and min(p.size) > THIN: _fill(cells, room, t, p)
    return cells


def origin(room: Room) -> np.ndarray: return np.array([*np.min(room.outline, axis=0), 0.0]) - MARGIN * CELL


def grid_of(room: Room) -> tuple[int, int, int]:
    "Cells along z, y and x: powers of two"
    size = np.array([*(np.max(room.outline, axis=0) - np.min(room.outline, axis=0)), room.height])
    return tuple(2 ** np.ceil(np.log2(size / CELL + 2 * MARGIN)).astype(int)[::-1])


def _fill(cells: np.ndarray, room: Room, thing, part) -> None:
    "Fill the cells whose middle is inside a part's box"
    turn = np.eye(3)
    turn[:2, :2] = turned(thing.heading)
    middle = (turn @ part.at + thing.at - origin(room)) / CELL - .5
    turn = turn @ euler(np.array([part.turn], float))[0]
    half = np.array(part.size) / 2 / CELL + .2
    reach = np.abs(turn) @ half
    low, high = np.maximum(np.ceil(middle - reach), 0).astype(int), np.minimum(np.floor(middle + reach) + 1, cells.shape[::-1]).astype(int)
    if (low >= high).any(): return
    x, y, z = (np.arange(a, b) - m for a, b, m in zip(low, high, middle))
    own = [np.abs(x * turn[0, i] + y[:, None] * turn[1, i] + z[:, None, None] * turn[2, i]) <= half[i] for i in range(3)]
    cells[low[2]:high[2], low[1]:high[1], low[0]:high[0]][own[0] & own[1] & own[2]] = 255
