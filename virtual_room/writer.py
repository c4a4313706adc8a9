"""A folder of pairs on disk: what is in it, what is written into it, and the manifest that says how it was made.

`nbs_lib.datasets` reads what this writes. Must not know how pairs are made.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nbs_lib.core import SegError, atomic_path, write_json
from nbs_lib.labels import ROOM_LABELS
from virtual_room.pairs import PairMaker, count_labels
from virtual_room.plan import Plan

MANIFEST = "generation.json"
FOLDERS = dict(screenshots="png", labels="png", instances="png", objects="json", depth="png", normals="png")
NUMBER = "[0-9]" * 6  # how the stem of a file of ours looks
SAME_COMMAND = "make room there or give another --out: the same command goes on"
REMEDY = "give another --out, or --overwrite to replace its pairs"

Annotations = dict[str, np.ndarray | list]  # by folder
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    "Where the pairs are: a folder a kind of file, a file a pair"
    out: Path

    def path(self, kind: str, index: int) -> Path:
        "The file of a pair, `kind` being one of FOLDERS"
        return self.out / kind / f"{index:06d}.{FOLDERS[kind]}"

    def finished(self, index: int, size: int) -> np.ndarray | None:
        "Label counts (n_classes,) of a pair that is whole on disk, else None"
        try:
            with Image.open(self.path("screenshots", index)) as image, Image.open(self.path("labels", index)) as mask:
                image.load()
                if not image.size == mask.size == (size, size) or mask.mode != "L":
                    return None
                pixels = count_labels(np.asarray(mask))
        except (OSError, SyntaxError):
            return None
        return pixels if len(pixels) == ROOM_LABELS.n_classes else None

    def write(self, index: int, image: np.ndarray, mask: np.ndarray, annotations: Annotations | None = None) -> None:
        "Write a pair, the mask last: where it is, the pair is whole. `SegError` where the disk is full"
        contents = dict(screenshots=image, **(annotations or {}), labels=mask)
        for kind, content in contents.items():
            path = self.path(kind, index)
            try:
                _write(path, content)
            except OSError as e:
                raise SegError(f"cannot write {path} ({e.strerror or e}); {SAME_COMMAND}") from None

    def whole(self) -> list[int]:
        "Numbers of the pairs that have an image and a mask, ascending"
        numbers = [int(path.stem) for path in (self.out / "labels").glob(f"{NUMBER}.png")]
        return sorted(i for i in numbers if self.path("screenshots", i).exists())

    def clear(self, keep: int | None) -> None:
        """Remove what an interrupted run left half written, and pairs from number `keep` on; None keeps all.

        `SegError` where files cannot be removed.
        """
        try:
            self._clear(keep)
        except OSError as e:
            raise SegError(f"cannot write in {self.out} ({e.strerror}); give another --out") from None

    def _clear(self, keep: int | None) -> None:
        for kind in ("screenshots", "labels"):
            (self.out / kind).mkdir(parents=True, exist_ok=True)
        for kind, suffix in FOLDERS.items():
            folder = self.out / kind
            for path in folder.glob(f".[0-9]*-*.tmp.{suffix}"):
                path.unlink()
            for path in folder.glob(f"{NUMBER}.{suffix}"):
                if keep is not None and int(path.stem) >= keep:
                    path.unlink()

    def check_writable(self) -> None:
        "Make the folder; `SegError` where that cannot be, or nothing can be written there"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise SegError(f"cannot make the folder {self.out} ({e.strerror}); give another --out") from None
        if not os.access(self.out, os.W_OK):
            raise SegError(f"the folder {self.out} is not writable; give another --out")


def _write(path: Path, content: np.ndarray | list) -> None:
    "An array as PNG, a list as JSON"
    if isinstance(content, list):
        write_json(path, content)
        return
    with atomic_path(path) as tmp:
        Image.fromarray(content).save(tmp, "PNG", compress_level=1)


def ensure_pair(folder: Folder, maker: PairMaker, index: int) -> np.ndarray:
    "Make and write a pair unless it is there; its label counts (n_classes,)"
    pixels = folder.finished(index, maker.plan.size)
    if pixels is not None:
        return pixels
    image, mask = maker.pair(index)
    folder.write(index, image, mask, maker.annotations())
    return count_labels(mask)


# --- the manifest -------------------------------------------------------------------------------------------------

@dataclass
class Tally:
    "How much of each label there is: pixels, and images that show it"
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(ROOM_LABELS.n_classes, np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(ROOM_LABELS.n_classes, np.int64))

    def add(self, pixels: np.ndarray) -> None:
        "Count a mask by its label counts (n_classes,)"
        self.pixels += pixels
        self.images += pixels > 0

    def by_label(self) -> dict[str, dict[str, int]]:
        "Pixels and images of each label, value 0 first"
        rows = zip(ROOM_LABELS.codes, self.pixels.tolist(), self.images.tolist(), strict=True)
        return {name: dict(pixels=pixels, images=images) for name, pixels, images in rows}


def write_manifest(folder: Folder, plan: Plan, settings: dict[str, Any], total: int, tally: Tally | None) -> Manifest:
    "Write what a folder holds and how it was made, `tally` being None until it is complete; what was written"
    rooms = {f"{i:06d}": plan.room_of(i) for i in range(total)}
    counts = (tally or Tally()).by_label()
    manifest = dict(**settings, count=total, complete=tally is not None, label_counts=counts, rooms=rooms)
    write_json(folder.out / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Folder, settings: dict[str, Any]) -> Manifest | None:
    "The manifest of a folder that may be gone on with, None for a new folder; `SegError` for a folder of anything else"
    path = folder.out / MANIFEST
    if not path.exists():
        if any((folder.out / "labels").glob("*.png")):
            raise SegError(f"{folder.out} holds pairs that seg_generate did not make; {REMEDY}")
        return None
    manifest = _upgrade(_read_object(path), settings)
    for name, value in settings.items():
        if manifest.get(name) != value:
            difference = _difference(name, manifest.get(name), value)
            raise SegError(f"{folder.out} was made with another {name} ({difference}); {REMEDY}")
    return manifest


def _read_object(path: Path) -> dict[str, Any]:
    "A JSON file that holds an object"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SegError(f"{path} is not readable as JSON; {REMEDY}")
    return found


def _upgrade(manifest: Manifest, settings: dict[str, Any]) -> Manifest:
    "A manifest with what earlier versions did not write: the label table, whose names were those of the counts"
    upgraded = dict(label_colors=settings["label_colors"]) | manifest
    counts = manifest.get("labels")
    if isinstance(counts, dict):
        upgraded |= dict(labels=list(counts)[1:], label_counts=counts)
    return upgraded


def _difference(name: str, before: Any, now: Any) -> str:
    "In which way two values of a setting differ, in words"
    if isinstance(now, dict) and isinstance(before, dict):
        return ", ".join(sorted(key for key in {*now, *before} if before.get(key) != now.get(key)))
    if name == "labels" and isinstance(before, list):
        return ", ".join(sorted(set(before) ^ set(now))) or "in another order"
    return f"{before}, now {now}"
