"""Unit meshes as numpy arrays, and their placing: many parts of one shape become vertices in one go.

Must not know what the shapes are used for, nor the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Mesh:
    "Vertices are `unit * size + inset`; `axis` is the direction each normal looks along most"
    unit: np.ndarray  # (V, 3) in -0.5..0.5
    inset: np.ndarray  # (V, 3) metres
    normal: np.ndarray  # (V, 3)
    uv: np.ndarray  # (V, 2)
    axis: np.ndarray  # (V,)
    tris: np.ndarray  # (T, 3)
    tint: np.ndarray | None = None  # (V, 3) of a model with colours of its own


def as_mesh(unit, normal, uv, tris, inset=None, tint=None) -> Mesh:
    unit, normal, uv = (np.asarray(a, np.float32) for a in (unit, normal, uv))
    inset = np.zeros_like(unit) if inset is None else np.asarray(inset, np.float32)
    return Mesh(unit, inset, normal, uv, np.abs(normal).argmax(1), np.asarray(tris, np.int32), tint)


@lru_cache(maxsize=512)
def mesh(shape: tuple) -> Mesh:
    "The mesh of `(name, *parameters)`: box, bevel(radius), panel(nx, nz), soft(power), lathe(profile), ring(thickness), asset(path, up, sha256)"
    name, *args = shape
    if name == "asset":
        from virtual_room.assets import load
        return load(*args)[0]
    return {"box": bevel, "bevel": bevel, "panel": panel, "soft": soft, "lathe": lathe, "ring": ring}[name](*args)


def bevel(radius: float = 0.0) -> Mesh:
    "A box whose edges are cut by `radius` metres; shared vertices make the cuts look round"
    normal = np.repeat([np.eye(3)[a] * s for a in range(3) for s in (-1, 1)], 4, axis=0)
    around = np.tile([[-1, -1], [1, -1], [1, 1], [-1, 1]], (6, 1))
    corner = np.where(normal != 0, normal, 0)
    corner[normal == 0] = around.ravel()
    first = np.arange(0, 24, 4)[:, None]
    tris = np.concatenate([first + [0, 1, 2], first + [0, 2, 3], *([_bevel_cuts(corner, normal)] if radius else [])])
    cut = normal - corner
    uv = (around + 1) / 2
    return as_mesh(corner / 2, normal, uv, _outward(corner / 2 + .1 * cut, tris, normal), radius * cut)


def _bevel_cuts(corner: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Triangles that join the faces of a cut box: a triangle a corner, a strip an edge"
    cuts = []
    at = {tuple(c): [i for i in range(24) if (corner[i] == c).all()] for c in corner}
    for c, here in at.items():
        cuts.append(here)
        for axis in range(3):
            if c[axis] > 0: continue
            there = at[tuple(np.where(np.arange(3) == axis, 1, c))]
            a, b = ([i for i in ends if not normal[i][axis]] for ends in (here, there))
            cuts += [[a[0], a[1], b[0]], [a[1], b[1], b[0]]]
    return np.array(cuts)


def _outward(position: np.ndarray, tris: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Turn each triangle so that its winding agrees with its normals"
    a, b, c = (position[tris[:, i]] for i in range(3))
    wrong = (np.cross(b - a, c - a) * normal[tris].sum(1)).sum(1) < 0
    return np.where(wrong[:, None], tris[:, ::-1], tris)


def panel(nx: int = 1, nz: int = 1) -> Mesh:
    "A flat rectangle in x and z that looks along +y, in `nx` by `nz` cells so that light can vary over it"
    u, v = np.meshgrid(np.linspace(0, 1, nx + 1), np.linspace(0, 1, nz + 1))
    u, v = u.ravel(), v.ravel()
    unit = np.stack([u - .5, 0 * u, v - .5], 1)
    return as_mesh(unit, np.tile([0, 1, 0], (len(u), 1)), np.stack([1 - u, v], 1), _grid(nz, nx)[:, ::-1])


def _grid(rows: int, columns: int) -> np.ndarray:
    "Triangles (2 * rows * columns, 3) of a grid of (rows + 1) x (columns + 1) vertices"
    i = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    j = i + columns + 1
    return np.concatenate([np.stack([i, i + 1, j + 1], 1), np.stack([i, j + 1, j], 1)])


def soft(power: float = 1.0, around: int = 14, up: int = 8) -> Mesh:
    "A superellipsoid: power 1 is a ball, smaller ones come near a cushion or a box"
    bend = lambda a: np.sign(a) * np.abs(a) ** power
    t, p = np.meshgrid(np.linspace(0, 2 * np.pi, around + 1), np.linspace(-np.pi / 2, np.pi / 2, up + 1))
    t, p = t.ravel(), p.ravel()
    unit = np.stack([bend(np.cos(p)) * bend(np.cos(t)), bend(np.cos(p)) * bend(np.sin(t)), bend(np.sin(p))], 1) / 2
    steep = 2 / max(power, .35) - 1
    normal = np.sign(unit) * np.abs(2 * unit) ** min(steep, 3.0) + 1e-6 * unit
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return as_mesh(unit, normal, np.stack([t / 2 / np.pi, p / np.pi + .5], 1), _grid(up, around))


def lathe(profile: tuple[tuple[float, float], ...], around: int = 14) -> Mesh:
    "A profile of (radius, height) points, 0..1 each and from the bottom outwards, turned about z; sharp bends stay sharp"
    points = np.array(profile, np.float32)
    step = np.diff(points, axis=0)
    out = np.stack([step[:, 1], -step[:, 0]], 1)
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
    unit, normal, uv, tris = [], [], [], []
    for i in range(len(step)):
        ends = (_blend(out, i, -1), _blend(out, i, 1))
        rings = [_ring_of(points[i + k], n, around) for k, n in enumerate(ends)]
        tris.append(_grid(1, around) + sum(map(len, unit)))
        for p, n, w in rings: unit.append(p), normal.append(n), uv.append(w)
    return as_mesh(np.concatenate(unit), np.concatenate(normal), np.concatenate(uv), np.concatenate(tris))


def _blend(out: np.ndarray, i: int, side: int) -> np.ndarray:
    "The normal at one end of segment `i`: shared with its neighbour where the bend is gentle"
    j = i + side
    if not 0 <= j < len(out) or out[i] @ out[j] < .6: return out[i]
    both = out[i] + out[j]
    return both / np.linalg.norm(both)


def _ring_of(point: np.ndarray, normal: np.ndarray, around: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a = np.linspace(0, 2 * np.pi, around + 1)
    c, s = np.cos(a), np.sin(a)
    position = np.stack([c * point[0] / 2, s * point[0] / 2, np.full_like(a, point[1] - .5)], 1)
    return position, np.stack([c * normal[0], s * normal[0], np.full_like(a, normal[1])], 1), np.stack([a / 2 / np.pi, np.full_like(a, point[1])], 1)


def ring(thickness: float = .2, around: int = 12, tube: int = 6) -> Mesh:
    "A ring in x and z; `thickness` is the tube's share of its width"
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, around + 1), np.linspace(0, 2 * np.pi, tube + 1), indexing="ij")
    a, b = a.ravel(), b.ravel()
    radius = .5 - thickness / 2
    normal = np.stack([np.cos(a) * np.cos(b), np.sin(b), np.sin(a) * np.cos(b)], 1)
    centre = np.stack([np.cos(a), 0 * a, np.sin(a)], 1) * radius
    unit = centre + normal * [thickness / 2, .5, thickness / 2]
    return as_mesh(unit, normal, np.stack([a, b], 1) / 2 / np.pi, _grid(around, tube))


def place(m: Mesh, size: np.ndarray, at: np.ndarray, turn: np.ndarray, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Positions, normals and unturned positions, each (P, V, 3), of P copies of a mesh; `turn` is (P, 3, 3), `cut` (P,) a factor of the inset"
    local = m.unit * size[:, None] + m.inset * cut[:, None, None]
    normal = m.normal / size[:, None].clip(1e-4)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    back = turn.transpose(0, 2, 1)
    return local @ back + at[:, None], normal @ back, local


def box_map(m: Mesh, local: np.ndarray, size: np.ndarray, grained: np.ndarray) -> np.ndarray:
    "Texture coordinates (P, V, 2) in metres, projected along each face; grain runs along the longer side of a face"
    first, second = np.where(m.axis == 0, 1, 0), np.where(m.axis == 2, 1, 2)
    rows = np.arange(local.shape[1])
    uv = np.stack([local[:, rows, first], local[:, rows, second]], 2)
    swap = grained[:, None] & (size[:, second] > size[:, first])
    return np.where(swap[..., None], uv[..., ::-1], uv)
