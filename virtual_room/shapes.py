"""Unit meshes as numpy arrays, and their placing: many primitives of one shape become vertices in one go.

Must not know what the shapes are used for, nor the engine. A shape is a function with the decorator `shape`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_SHAPES: dict[str, Callable[..., Mesh]] = {}


@dataclass(frozen=True)
class Mesh:
    "Vertices are `unit * size + inset`; `axis` is the direction each normal looks along most"
    unit: np.ndarray  # (V, 3) in -0.5..0.5
    inset: np.ndarray  # (V, 3) meters
    normal: np.ndarray  # (V, 3)
    uv: np.ndarray  # (V, 2)
    axis: np.ndarray  # (V,)
    triangles: np.ndarray  # (T, 3)
    tint: np.ndarray | None = None  # (V, 3) of a model with colors of its own



def as_mesh(unit, normal, uv, triangles, inset=None, tint=None) -> Mesh:
    "A mesh of arrays or lists: float32 vertices, int32 triangles, no inset unless given"
    unit = np.asarray(unit, np.float32)
    normal = np.asarray(normal, np.float32)
    uv = np.asarray(uv, np.float32)
    inset = np.zeros_like(unit) if inset is None else np.asarray(inset, np.float32)
    axis = np.abs(normal).argmax(1)
    return Mesh(unit, inset, normal, uv, axis, np.asarray(triangles, np.int32), tint)


def shape(name: str) -> Callable[[Callable[..., Mesh]], Callable[..., Mesh]]:
    "Decorate a function that makes the mesh of the shape `(name, *parameters)`"
    def register(make: Callable[..., Mesh]) -> Callable[..., Mesh]:
        _SHAPES[name] = make
        return make
    return register


@lru_cache(maxsize=512)
def mesh(description: tuple) -> Mesh:
    "The mesh of `(name, *parameters)`, such as `('bevel', .02)`"
    name, *parameters = description
    return _SHAPES[name](*parameters)


@shape("box")
@shape("bevel")
def bevel(radius: float = 0.0) -> Mesh:
    "A box whose edges are cut by `radius` meters; shared vertices make the cuts look round"
    normal = _side_normals()
    around = np.tile([[-1, -1], [1, -1], [1, 1], [-1, 1]], (6, 1))
    corner = np.where(normal != 0, normal, 0)
    corner[normal == 0] = around.ravel()
    triangles = _side_triangles()
    if radius:
        triangles = np.concatenate([triangles, _bevel_cuts(corner, normal)])
    cut = normal - corner
    facing_out = _outward(corner / 2 + .1 * cut, triangles, normal)
    return as_mesh(corner / 2, normal, (around + 1) / 2, facing_out, radius * cut)


def _side_normals() -> np.ndarray:
    "The normals (24, 3) of a box, four equal ones for each of its six sides"
    sides = [np.eye(3)[axis] * sign for axis in range(3) for sign in (-1, 1)]
    return np.repeat(sides, 4, axis=0)


def _side_triangles() -> np.ndarray:
    "The triangles (12, 3) of the six sides of a box, two of four vertices each"
    first = np.arange(0, 24, 4)[:, None]
    return np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])


def _bevel_cuts(corner: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Triangles that join the faces of a cut box: a triangle a corner, a strip an edge"
    cuts = []
    vertices_at = {tuple(c): np.flatnonzero((corner == c).all(1)).tolist() for c in corner}
    for c, here in vertices_at.items():
        cuts.append(here)
        for axis in range(3):
            if c[axis] > 0:
                continue  # the edge belongs to the corner at its other end
            opposite = tuple(np.where(np.arange(3) == axis, 1, c))
            cuts += _edge_strip(_beside_edge(here, normal, axis), _beside_edge(vertices_at[opposite], normal, axis))
    return np.array(cuts)


def _beside_edge(vertices: list[int], normal: np.ndarray, axis: int) -> list[int]:
    "The two of a corner's three vertices whose sides meet in the edge along an axis"
    return [i for i in vertices if not normal[i][axis]]


def _edge_strip(a: list[int], b: list[int]) -> list[list[int]]:
    "Two triangles between two vertices at one end of an edge and two at the other"
    return [[a[0], a[1], b[0]], [a[1], b[1], b[0]]]


def _outward(position: np.ndarray, triangles: np.ndarray, normal: np.ndarray) -> np.ndarray:
    "Turn each triangle so that its winding agrees with its normals"
    a, b, c = (position[triangles[:, i]] for i in range(3))
    wrong = (np.cross(b - a, c - a) * normal[triangles].sum(1)).sum(1) < 0
    return np.where(wrong[:, None], triangles[:, ::-1], triangles)


@shape("panel")
def panel(nx: int = 1, nz: int = 1) -> Mesh:
    "A flat rectangle in x and z that looks along +y, in `nx` by `nz` cells so that light can vary over it"
    u, v = np.meshgrid(np.linspace(0, 1, nx + 1), np.linspace(0, 1, nz + 1))
    u, v = u.ravel(), v.ravel()
    unit = np.stack([u - .5, 0 * u, v - .5], 1)
    normal = np.tile([0, 1, 0], (len(u), 1))
    return as_mesh(unit, normal, np.stack([1 - u, v], 1), _grid(nz, nx)[:, ::-1])


def _grid(rows: int, columns: int) -> np.ndarray:
    "Triangles (2 * rows * columns, 3) of a grid of (rows + 1) x (columns + 1) vertices"
    i = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    j = i + columns + 1
    return np.concatenate([np.stack([i, i + 1, j + 1], 1), np.stack([i, j + 1, j], 1)])


@shape("soft")
def soft(power: float = 1.0, around: int = 14, up: int = 8) -> Mesh:
    "A superellipsoid: power 1 is a ball, smaller ones come near a cushion or a box"
    longitude, latitude = _sphere_angles(around, up)
    flat = _signed_power(np.cos(latitude), power)
    x = flat * _signed_power(np.cos(longitude), power)
    y = flat * _signed_power(np.sin(longitude), power)
    z = _signed_power(np.sin(latitude), power)
    unit = np.stack([x, y, z], 1) / 2
    uv = np.stack([longitude / 2 / np.pi, latitude / np.pi + .5], 1)
    return as_mesh(unit, _soft_normals(unit, power), uv, _grid(up, around))


def _sphere_angles(around: int, up: int) -> tuple[np.ndarray, np.ndarray]:
    "Longitude and latitude (V,) of a grid of vertices on a ball, in radians"
    longitude, latitude = np.meshgrid(np.linspace(0, 2 * np.pi, around + 1), np.linspace(-np.pi / 2, np.pi / 2, up + 1))
    return longitude.ravel(), latitude.ravel()


def _soft_normals(unit: np.ndarray, power: float) -> np.ndarray:
    "Normals (V, 3) of a superellipsoid at positions (V, 3); those of flat ones are bent less than they should"
    steep = 2 / max(power, .35) - 1
    normal = np.sign(unit) * np.abs(2 * unit) ** min(steep, 3.0) + 1e-6 * unit
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _signed_power(values: np.ndarray, power: float) -> np.ndarray:
    "A power that keeps the sign"
    return np.sign(values) * np.abs(values) ** power


@shape("lathe")
def lathe(profile: tuple[tuple[float, float], ...], around: int = 14) -> Mesh:
    "A profile of (radius, height) points, 0..1 and from the bottom outwards, turned about z; sharp bends stay sharp"
    points = np.array(profile, np.float32)
    outward = _profile_normals(points)
    n_segments = len(outward)
    rings = []
    for i in range(n_segments):
        rings.append(_ring_of(points[i], _blend(outward, i, -1), around))
        rings.append(_ring_of(points[i + 1], _blend(outward, i, 1), around))
    unit, normal, uv = (np.concatenate(arrays) for arrays in zip(*rings))
    band = 2 * (around + 1)  # vertices of a segment's two rings
    triangles = [_grid(1, around) + band * i for i in range(n_segments)]
    return as_mesh(unit, normal, uv, np.concatenate(triangles))


def _profile_normals(points: np.ndarray) -> np.ndarray:
    "The direction away from the axis of each segment between two points, (N - 1, 2)"
    step = np.diff(points, axis=0)
    out = np.stack([step[:, 1], -step[:, 0]], 1)
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
    return out


def _blend(outward: np.ndarray, i: int, side: int) -> np.ndarray:
    "The normal at one end of segment `i`: shared with its neighbor where the bend is gentle"
    j = i + side
    if not 0 <= j < len(outward) or outward[i] @ outward[j] < .6:
        return outward[i]
    both = outward[i] + outward[j]
    return both / np.linalg.norm(both)


def _ring_of(point: np.ndarray, normal: np.ndarray, around: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Positions, normals and texture coordinates of a profile's point turned about z"
    radius, height = point
    outward, upward = normal
    angle = np.linspace(0, 2 * np.pi, around + 1)
    cos, sin = np.cos(angle), np.sin(angle)
    same = np.ones_like(angle)
    position = np.stack([cos * radius / 2, sin * radius / 2, same * (height - .5)], 1)
    facing = np.stack([cos * outward, sin * outward, same * upward], 1)
    uv = np.stack([angle / 2 / np.pi, same * height], 1)
    return position, facing, uv


@shape("ring")
def ring(thickness: float = .2, around: int = 12, tube: int = 6) -> Mesh:
    "A ring in x and z; `thickness` is the tube's share of its width"
    along, across = _ring_angles(around, tube)
    cos_along, sin_along, cos_across = np.cos(along), np.sin(along), np.cos(across)
    normal = np.stack([cos_along * cos_across, np.sin(across), sin_along * cos_across], 1)
    radius = .5 - thickness / 2
    center = np.stack([cos_along, 0 * along, sin_along], 1) * radius
    unit = center + normal * [thickness / 2, .5, thickness / 2]
    return as_mesh(unit, normal, np.stack([along, across], 1) / 2 / np.pi, _grid(around, tube))


def _ring_angles(around: int, tube: int) -> tuple[np.ndarray, np.ndarray]:
    "The angles (V,) along the ring and across its tube, in radians"
    along, across = np.linspace(0, 2 * np.pi, around + 1), np.linspace(0, 2 * np.pi, tube + 1)
    a, b = np.meshgrid(along, across, indexing="ij")
    return a.ravel(), b.ravel()


def place(
    m: Mesh, size: np.ndarray, center: np.ndarray, rotation: np.ndarray, cut: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, normals and positions before the rotation, each (P, V, 3), of P copies of a mesh.

    `size` and `center` are (P, 3) in meters, `rotation` is (P, 3, 3), `cut` (P,) a factor of the inset.
    """
    local = m.unit * size[:, None] + m.inset * cut[:, None, None]
    normal = m.normal / size[:, None].clip(1e-4)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    back = rotation.transpose(0, 2, 1)
    return local @ back + center[:, None], normal @ back, local


def box_map(m: Mesh, local: np.ndarray, size: np.ndarray, grained: np.ndarray) -> np.ndarray:
    "Texture coordinates (P, V, 2) in meters, projected along each face; grain runs along the longer side of a face"
    first, second = np.where(m.axis == 0, 1, 0), np.where(m.axis == 2, 1, 2)
    vertices = np.arange(local.shape[1])
    uv = np.stack([local[:, vertices, first], local[:, vertices, second]], 2)
    swap = grained[:, None] & (size[:, second] > size[:, first])
    return np.where(swap[..., None], uv[..., ::-1], uv)


def euler(degrees: np.ndarray) -> np.ndarray:
    "Matrices (P, 3, 3) that turn about x, then y, then z, by degrees (P, 3)"
    cx, cy, cz = np.cos(np.radians(degrees)).T
    sx, sy, sz = np.sin(np.radians(degrees)).T
    rows = [
        cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx,
        sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx,
        -sy, cy * sx, cy * cx,
    ]
    return np.stack(rows, 1).reshape(-1, 3, 3)
