"""Models of one's own: a folder of glTF files and a mapping say what may stand in for the shapes of `furniture`.

`assets.csv` (or `assets.json`, a list of objects) has the columns file, label, scale, up and licence.
Must not know rooms or the engine.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.gltf import Gltf, check_gltf, is_inside, read_gltf
from virtual_room.scene import Model, Primitive, SupportSurface
from virtual_room.shapes import Mesh, as_mesh, shape

COLUMNS = ("file", "label", "scale", "up", "licence")
# To our axes; glTF's front looks along +z, a z-up program's along -y
UP = dict(y=[[-1, 0, 0], [0, 0, 1], [0, 1, 0]], z=[[-1, 0, 0], [0, -1, 0], [0, 0, 1]])
MAX_TRIANGLES = 20_000  # of a model
MAX_TEXTURE = 8192**2  # pixels
THINNEST = .1  # meters that a model may be thick in any case
LEVEL_SHARE = .6  # share of its footprint that a top must have to carry objects
MARGIN = .03  # meters from the edge of a top to what stands on it
GAMMA = 2.2  # of sRGB, nearly


@dataclass(frozen=True)
class Asset:
    "A usable model and its row of the mapping"
    path: str
    label: str
    scale: float  # meters a unit; 0: as large as its place allows
    up: str  # y or z
    licence: str
    sha256: str  # of the file and of those it needs

    @property
    def shape(self) -> tuple[str, ...]:
        "How a primitive names this asset's mesh"
        return "asset", self.path, self.up, self.sha256


def read_assets(folder: str | Path, say: Callable[[str], None]) -> tuple[Asset, ...]:
    "The usable models of a folder; each other one is said in a line. `SegError` without a readable mapping"
    folder, assets = Path(folder), []
    rows = _mapping(folder)
    for name in _names(folder, rows):
        try:
            assets.append(_asset(folder, name, [row for row in rows if row["file"] == name]))
        except SegError as e:
            say(f"{name}: {e}; skipped\n".replace("\0", "?"))
    say(f"{len(assets)} models of {folder}\n")
    return tuple(assets)


def _names(folder: Path, rows: list[dict[str, str]]) -> list[str]:
    "The models that lie in a folder or that the mapping names, by their paths in it"
    paths = [*folder.rglob("*.glb"), *folder.rglob("*.gltf")]
    names = {path.relative_to(folder).as_posix() for path in paths}
    return sorted(names | {row["file"] for row in rows})


def _mapping(folder: Path) -> list[dict[str, str]]:
    "The rows of assets.csv or assets.json, all columns as text"
    paths = [path for path in (folder / "assets.csv", folder / "assets.json") if path.exists()]
    if not paths:
        raise SegError(f"--assets {folder} holds no assets.csv; write one with the columns {', '.join(COLUMNS)}")
    try:
        return [_cells(row) for row in _rows(paths[0]) if row.get("file")]
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise SegError(f"{paths[0]} is no mapping ({e}); write rows of {', '.join(COLUMNS)}") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return list(csv.DictReader(lines))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {column: str(row.get(column) or "").strip() for column in COLUMNS}


def _asset(folder: Path, name: str, rows: list[dict[str, str]]) -> Asset:
    "A model and its row, or a `SegError` that says what is wrong with them"
    if len(rows) != 1:
        raise SegError(f"{len(rows)} rows of the mapping name it, not one")
    if not is_inside(name):
        raise SegError("it is not inside the folder of the mapping; give a path relative to that folder")
    row = rows[0]
    up = row["up"] or "y"
    _check_row(row, up)
    path = (folder / name).resolve()
    gltf = _read(path)
    asset = Asset(str(path), row["label"], _scale(row["scale"]), up, row["licence"], gltf.sha256)
    load(asset.path, asset.up, asset.sha256)
    return asset


def _check_row(row: dict[str, str], up: str) -> None:
    "Label, licence and up axis are usable"
    if row["label"] not in ROOM_LABELS.codes[1:] or row["label"].startswith("building_"):
        raise SegError(f"'{row['label']}' is no label of furniture, items or live")
    if not row["licence"]:
        raise SegError("it has no licence")
    if up not in UP:
        raise SegError(f"its up axis is '{up}', not y or z")


def _scale(text: str) -> float:
    "Metres a unit; 0 where nothing is said"
    try:
        scale = float(text or 0)
    except ValueError:
        scale = -1.0
    if not 0 <= scale < np.inf:
        raise SegError(f"its scale is '{text}', not meters a unit")
    return scale


# --- meshes -------------------------------------------------------------------------------------------------------

def _read(path: Path) -> Gltf:
    "A model's file, checked; `SegError` where it is no glTF model or claims what it does not hold"
    try:
        gltf = read_gltf(path)
        check_gltf(gltf, MAX_TRIANGLES)
        return gltf
    except SegError:
        raise
    except Exception as e:  # whatever a damaged file makes its reader stumble over
        raise _no_model(e) from None


@shape("asset")
def asset_mesh(path: str, up: str, sha256: str) -> Mesh:
    "The mesh of the shape that `Asset.shape` names; errors as for `load`"
    return load(path, up, sha256)[0]


def _no_model(e: Exception) -> SegError:
    detail = " ".join(str(e).split())[:80]
    return SegError(f"it is no glTF model ({type(e).__name__}: {detail})")


def load(path: str, up: str, sha256: str) -> tuple[Mesh, np.ndarray]:
    "A model as a mesh in the unit cube, and its size (3,) in its own units; `SegError` where its hash is not `sha256`"
    try:
        import trimesh
    except ImportError:
        raise SegError("models need the package trimesh; install it with: pip install trimesh") from None
    if read_gltf(Path(path)).sha256 != sha256:
        raise SegError(f"{path} has changed meanwhile; run the command again")
    return _load(trimesh, path, up, sha256)


@lru_cache(maxsize=256)
def _load(trimesh, path: str, up: str, sha256: str) -> tuple[Mesh, np.ndarray]:
    try:
        scene = trimesh.load_scene(path, process=False)
        pieces = [piece for piece in scene.dump() if isinstance(piece, trimesh.Trimesh) and len(piece.faces)]
        return _mesh(pieces, np.array(UP[up]))
    except SegError:
        raise
    except Exception as e:  # trimesh and Pillow raise many kinds for one damaged file
        raise _no_model(e) from None


def _mesh(pieces: list, axes: np.ndarray) -> tuple[Mesh, np.ndarray]:
    "Pieces of a model as one mesh in the unit cube, and its size (3,) after turning by `axes` (3, 3)"
    _check_triangles(pieces)
    position, normal, faces, tint = _joined(pieces)
    position, normal = position @ axes.T, normal @ axes.T
    size = np.ptp(position, axis=0)
    _check_extent(size)
    unit = (position - position.min(0) - size / 2) / np.maximum(size, 1e-9)
    return as_mesh(unit, normal, np.zeros((len(unit), 2)), faces, tint=tint), size


def _check_triangles(pieces: list) -> None:
    "`SegError` where there are no triangles, or too many"
    triangles = sum(len(piece.faces) for piece in pieces)
    if not 0 < triangles <= MAX_TRIANGLES:
        raise SegError(f"it has {triangles:,} triangles, not 1 to {MAX_TRIANGLES:,}")


def _check_extent(size: np.ndarray) -> None:
    "`SegError` unless a size (3,) is that of a solid or of a plate"
    if not (np.isfinite(size).all() and (size > 0).sum() >= 2):
        raise SegError("it has no extent")


def _joined(pieces: list) -> list[np.ndarray]:
    "Positions (n, 3), normals (n, 3), triangles (t, 3) and tints (n, 3) of all pieces together"
    positions, normals, faces, tints, first = [], [], [], [], 0
    for piece in pieces:
        position, normal, corners = _corners(piece)
        positions.append(position)
        normals.append(normal)
        faces.append(corners + first)
        tints.append(_tint(piece, len(position)))
        first += len(position)
    return [np.concatenate(rows) for rows in (positions, normals, faces, tints)]


def _corners(piece) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Positions (n, 3), normals (n, 3) and triangles (t, 3) of a piece; flat triangles where the file gives no normals"
    if "vertex_normals" in piece._cache:
        return piece.vertices, piece.vertex_normals, piece.faces
    position = piece.triangles.reshape(-1, 3)
    return position, np.repeat(piece.face_normals, 3, 0), np.arange(len(position)).reshape(-1, 3)


def _tint(piece, n: int) -> np.ndarray:
    "sRGB colors (n, 3), 0..1, of a piece's vertices; glTF's colors are linear"
    visual = piece.visual
    if visual.kind == "vertex" and n == len(piece.vertices):
        linear = visual.vertex_colors[:, :3] / 255
    elif visual.kind in ("vertex", "face"):
        linear = np.repeat(visual.face_colors[:, :3] / 255, 3, 0)
    else:
        linear = _material_color(getattr(visual, "material", None))
    return np.broadcast_to(linear.clip(0, 1) ** (1 / GAMMA), (n, 3))


def _material_color(material) -> np.ndarray:
    "Linear color (3,) of a material: its base color times the mean of its texture, which is sRGB"
    factor, texture = getattr(material, "baseColorFactor", None), getattr(material, "baseColorTexture", None)
    linear = np.ones(3) if factor is None else _base_color(np.asarray(factor))
    if texture is None:
        return linear
    return linear * _mean_color(texture)


def _base_color(factor: np.ndarray) -> np.ndarray:
    "A material's color (3,), 0..1, of bytes or of floats"
    return factor[:3] / (255 if factor.dtype == np.uint8 else 1)


def _mean_color(texture) -> np.ndarray:
    "Linear mean (3,) of a texture. `SegError` where it is too large"
    if texture.width * texture.height > MAX_TEXTURE:
        raise SegError(f"its texture has {texture.width} x {texture.height} pixels; a texture may have {MAX_TEXTURE:,}")
    small = np.asarray(texture.convert("RGB").resize((32, 32))) / 255
    return (small ** GAMMA).mean((0, 1))


# --- in rooms -----------------------------------------------------------------------------------------------------

def stand_in(model: Model, asset: Asset) -> Model:
    "The asset in place of a model of its label: upright, never larger than it, objects on top where it is level"
    mesh, size = load(asset.path, asset.up, asset.sha256)
    largest = (np.maximum(model.size, THINNEST) / np.maximum(size, 1e-9)).min()
    scale = min(asset.scale or largest, largest)
    width, depth, height = np.maximum(size * scale, .002).tolist()
    whole = Primitive(asset.shape, (width, depth, height), (0.0, 0.0, height / 2))
    supports = (_upper_side(width, depth, height),) if model.supports and level(mesh) else ()
    return Model(model.label, model.kind, (width, depth, height), (whole,), supports)


def _upper_side(width: float, depth: float, height: float) -> SupportSurface:
    "What small objects may stand on: the upper side, but for a margin"
    x, y = width / 2 - MARGIN, depth / 2 - MARGIN
    return SupportSurface(-x, -y, x, y, height)


def level(mesh: Mesh) -> bool:
    "Is most of the footprint covered by triangles at the very top?"
    corners = mesh.unit[mesh.triangles]
    high = corners[corners[..., 2].min(1) > .48]
    a = high[:, 1, :2] - high[:, 0, :2]
    b = high[:, 2, :2] - high[:, 0, :2]
    areas = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).clip(0) / 2
    return bool(areas.sum() >= LEVEL_SHARE)


def record(assets: tuple[Asset, ...]) -> dict[str, dict]:
    "What a folder of pairs remembers of the models in it, by file name and the beginning of the hash"
    rows = {}
    for asset in assets:
        row = asdict(asset)
        del row["path"]
        rows[f"{Path(asset.path).name} {asset.sha256[:8]}"] = row
    return rows
