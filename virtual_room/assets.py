"""Models of one's own: a folder of glTF files and a mapping say what may stand in for the shapes of `furniture`.

`assets.csv` (or `assets.json`, a list of objects) has the columns file, label, scale, up and licence. Must not know rooms or the engine.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Callable

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.scene import Model, Part, Top
from virtual_room.shapes import Mesh, as_mesh

COLUMNS = ("file", "label", "scale", "up", "licence")
UP = dict(y=[[-1, 0, 0], [0, 0, 1], [0, 1, 0]], z=[[-1, 0, 0], [0, -1, 0], [0, 0, 1]])  # to our axes; glTF's front looks along +z, a z-up program's along -y
MOST = 20_000  # triangles of a model
SLIM = .1  # metres that a model may be thick in any case
LEVEL = .6  # share of its footprint that a top must have to carry things


@dataclass(frozen=True)
class Asset:
    path: str
    label: str
    scale: float  # metres a unit; 0: as large as its place allows
    up: str  # y or z
    licence: str
    sha256: str

    @property
    def shape(self) -> tuple: return "asset", self.path, self.up, self.sha256


def read_assets(folder: str | Path, say: Callable[[str], None]) -> tuple[Asset, ...]:
    "The usable models of a folder; each other one is said in a line"
    folder, found = Path(folder), []
    rows = _mapping(folder)
    for path in sorted({p for kind in ("*.glb", "*.gltf") for p in folder.rglob(kind)} | {folder / r["file"] for r in rows}):
        name = path.relative_to(folder).as_posix()
        try: found.append(_asset(path, [r for r in rows if r["file"] == name]))
        except SegError as e: say(f"{name}: {e}; skipped\n")
    say(f"{len(found)} models of {folder}\n")
    return tuple(found)


def _mapping(folder: Path) -> list[dict[str, str]]:
    path = next((p for p in (folder / "assets.csv", folder / "assets.json") if p.exists()), None)
    if not path: raise SegError(f"--assets {folder} holds no assets.csv; write one with the columns {', '.join(COLUMNS)}")
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())) if path.suffix == ".csv" else json.loads(path.read_text())
        return [{c: str(row.get(c) or "").strip() for c in COLUMNS} for row in rows if row.get("file")]
    except (OSError, ValueError, AttributeError, TypeError) as e: raise SegError(f"{path} is no mapping ({e}); write rows of {', '.join(COLUMNS)}") from None


def _asset(path: Path, rows: list[dict[str, str]]) -> Asset:
    "A model and its row, or a `SegError` that says what is wrong with them"
    if len(rows) != 1: raise SegError(f"{len(rows)} rows of the mapping name it, not one")
    row = rows[0]
    if row["label"] not in ROOM_LABELS.codes[1:] or row["label"].startswith("building_"): raise SegError(f"'{row['label']}' is no label of furniture, items or live")
    if not row["licence"]: raise SegError("it has no licence")
    if (row["up"] or "y") not in UP: raise SegError(f"its up axis is '{row['up']}', not y or z")
    try: scale = float(row["scale"] or 0)
    except ValueError: scale = -1.0
    if not 0 <= scale < np.inf: raise SegError(f"its scale is '{row['scale']}', not metres a unit")
    try: content = path.read_bytes()
    except OSError as e: raise SegError(f"it cannot be read ({e.strerror})") from None
    asset = Asset(str(path.resolve()), row["label"], scale, row["up"] or "y", row["licence"], hashlib.sha256(content).hexdigest())
    load(asset.path, asset.up, asset.sha256)
    return asset


def load(path: str, up: str, sha256: str) -> tuple[Mesh, np.ndarray]:
    "A model as a mesh in the unit cube, and its size (3,) in its own units"
    try: import trimesh
    except ImportError: raise SegError("models need the package trimesh; install it with: pip install trimesh") from None
    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != sha256: raise SegError(f"{path} has changed meanwhile; run the command again")
    return _load(trimesh, path, up, sha256)


@lru_cache(maxsize=256)
def _load(trimesh, path: str, up: str, sha256: str) -> tuple[Mesh, np.ndarray]:
    try: pieces = [p for p in trimesh.load_scene(path, process=False).dump() if isinstance(p, trimesh.Trimesh) and len(p.faces)]
    except Exception as e: raise SegError(f"it is no glTF model ({type(e).__name__}: {str(e)[:80]})".replace("\n", " ")) from None
    n = sum(len(p.faces) for p in pieces)
    if not 0 < n <= MOST: raise SegError(f"it has {n:,} triangles, not 1 to {MOST:,}")
    position, normal, tint, tris, first = [], [], [], [], 0
    for p in pieces:
        where, facing, faces = (p.vertices, p.vertex_normals, p.faces) if "vertex_normals" in p._cache else (p.triangles.reshape(-1, 3), np.repeat(p.face_normals, 3, 0), np.arange(3 * len(p.faces)).reshape(-1, 3))
        position.append(where), normal.append(facing), tris.append(faces + first), tint.append(_tint(p, len(where)))
        first += len(where)
    turn = np.array(UP[up])
    position, normal = np.concatenate(position) @ turn.T, np.concatenate(normal) @ turn.T
    size = np.ptp(position, axis=0)
    if not (np.isfinite(size).all() and (size > 0).sum() >= 2): raise SegError("it has no extent")
    unit = (position - position.min(0) - size / 2) / np.maximum(size, 1e-9)
    return as_mesh(unit, normal, np.zeros((first, 2)), np.concatenate(tris), tint=np.concatenate(tint)), size


def _tint(piece, n: int) -> np.ndarray:
    "sRGB colours (n, 3), 0..1, from vertices, or one from the base colour and its texture's mean; glTF's colours are linear, its textures sRGB"
    if piece.visual.kind == "vertex" and n == len(piece.vertices): linear = piece.visual.vertex_colors[:, :3] / 255
    elif piece.visual.kind in ("vertex", "face"): linear = np.repeat(piece.visual.face_colors[:, :3] / 255, 3, 0)
    else:
        material = getattr(piece.visual, "material", None)
        factor, picture = (getattr(material, k, None) for k in ("baseColorFactor", "baseColorTexture"))
        linear = np.ones(3) if factor is None else np.asarray(factor[:3]) / (255 if np.asarray(factor).dtype == np.uint8 else 1)
        if picture is not None: linear = linear * ((np.asarray(picture.convert("RGB").resize((32, 32))) / 255) ** 2.2).mean((0, 1))
    return np.broadcast_to(linear.clip(0, 1) ** (1 / 2.2), (n, 3))


def stand_in(model: Model, asset: Asset) -> Model:
    "The asset in place of a model of its label: upright, never larger than it, things on top where it is level"
    m, size = load(asset.path, asset.up, asset.sha256)
    room = np.maximum(model.size, SLIM) / np.maximum(size, 1e-9)
    w, d, h = size = np.maximum(size * (min(asset.scale, room.min()) if asset.scale else room.min()), .002)
    parts = (Part(asset.shape, tuple(size.tolist()), (0.0, 0.0, float(h / 2))),)
    tops = (Top(float(.03 - w / 2), float(.03 - d / 2), float(w / 2 - .03), float(d / 2 - .03), float(h)),) if model.tops and level(m) else ()
    return Model(model.label, model.kind, tuple(size.tolist()), parts, tops)


def level(m: Mesh) -> bool:
    "Is most of the footprint covered by triangles at the very top?"
    corners = m.unit[m.tris]
    high = corners[corners[..., 2].min(1) > .48]
    a, b = high[:, 1, :2] - high[:, 0, :2], high[:, 2, :2] - high[:, 0, :2]
    return bool((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).clip(0).sum() / 2 >= LEVEL)


def record(assets: tuple[Asset, ...]) -> dict[str, dict]:
    "What a folder of pairs remembers of the models in it, by file name"
    return {f"{Path(a.path).name} {a.sha256[:8]}": {k: v for k, v in asdict(a).items() if k != "path"} for a in assets}
