"""A folder of pairs on disk: what is in it, what is written into it, and the manifest that says how it was made.

`nbs_lib.datasets` reads what this writes. Must not know how pairs are made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from nbs_lib.core import SegError, atomic_path, write_json
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.layouts import GENERATION
from virtual_room.encode import EncodedPair, make_encoded
from virtual_room.pairs import PairMaker, count_labels
from virtual_room.plan import Plan

FOLDERS = dict(screenshots="png", labels="png", instances="png", objects="json", depth="png", normals="png")
SAME_COMMAND = "make room there or give another --out: the same command goes on"
REMEDY = "give another --out, or --overwrite to replace its pairs"

Manifest = dict[str, Any]


@dataclass
class Tally:
    "How many pairs there are, and how much of each label: pixels, and images that show it"
    pairs: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(ROOM_LABELS.n_classes, np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(ROOM_LABELS.n_classes, np.int64))

    def add(self, pixels: np.ndarray) -> None:
        "Count a mask by its label counts (n_classes,)"
        self.pairs += 1
        self.pixels += pixels
        self.images += pixels > 0

    def merge(self, other: Tally) -> None:
        "Count what another tally has counted"
        self.pairs += other.pairs
        self.pixels += other.pixels
        self.images += other.images

    def by_label(self) -> dict[str, dict[str, int]]:
        "Pixels and images of each label, value 0 first"
        rows = zip(ROOM_LABELS.codes, self.pixels.tolist(), self.images.tolist(), strict=True)
        return {name: dict(pixels=pixels, images=images) for name, pixels, images in rows}


@dataclass(frozen=True)
class Folder:
    "Where the pairs are: a folder a kind of file, a file a pair"
    out: Path
    is_everywhere: ClassVar[bool] = False  # other machines may have no such folder

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

    def there(self, plan: Plan, batch: list[int]) -> tuple[Tally, list[int]]:
        "The tally of those pairs of a batch that are whole, and the numbers of the others"
        tally, missing = Tally(), []
        for index in batch:
            pixels = self.finished(index, plan.size)
            if pixels is None:
                missing.append(index)
            else:
                tally.add(pixels)
        return tally, missing

    def make(self, maker: PairMaker, missing: list[int]) -> Iterator[EncodedPair]:
        "Draw pairs, one after the other"
        for index in missing:
            yield make_encoded(maker, index)

    def write(self, pair: EncodedPair) -> Tally:
        "Write a pair, the mask last: where it is, the pair is whole. Its tally; `SegError` where the disk is full"
        for kind, content in pair.files.items():
            path = self.path(kind, pair.index)
            try:
                _write(path, content)
            except OSError as e:
                raise SegError(f"cannot write {path} ({e.strerror or e}); {SAME_COMMAND}") from None
        tally = Tally()
        tally.add(pair.pixels)
        return tally

    def numbered(self, kind: str) -> list[Path]:
        "The files of ours in one folder, in any order"
        found = (self.out / kind).glob(f"[0-9]*.{FOLDERS[kind]}")
        return [path for path in found if path == self.path(kind, _number(path))]

    def whole(self) -> list[int]:
        "Numbers of the pairs that have an image and a mask, ascending"
        numbers = map(_number, self.numbered("labels"))
        return sorted(i for i in numbers if self.path("screenshots", i).exists())

    def clear(self, keep: int | None) -> None:
        """Remove what an interrupted run left half written, and pairs from number `keep` on; None keeps all.

        `SegError` where files cannot be removed.
        """
        with self._named_failures():
            for kind in ("screenshots", "labels"):
                (self.out / kind).mkdir(parents=True, exist_ok=True)
            self._remove(keep)

    def clear_all(self) -> None:
        "Remove all pairs, and their folders where nothing else is in them; `SegError` where that cannot be"
        with self._named_failures():
            self._remove(0)
            for kind in FOLDERS:
                folder = self.out / kind
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise SegError(f"cannot write in {self.out} ({e.strerror}); give another --out") from None

    def _remove(self, keep: int | None) -> None:
        for kind, suffix in FOLDERS.items():
            folder = self.out / kind
            for path in folder.glob(f".[0-9]*-*.tmp.{suffix}"):
                path.unlink()
            for path in self.numbered(kind):
                if keep is not None and _number(path) >= keep:
                    path.unlink()

    def check_writable(self) -> None:
        "Make the folder; `SegError` where that cannot be, or nothing can be written there"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise SegError(f"cannot make the folder {self.out} ({e.strerror}); give another --out") from None
        if not os.access(self.out, os.W_OK):
            raise SegError(f"the folder {self.out} is not writable; give another --out")


def _number(path: Path) -> int:
    "The number that a file's name is; -1 where it is none"
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as tmp:
        tmp.write_bytes(content)


# --- the manifest -------------------------------------------------------------------------------------------------

def write_manifest(folder: Folder, plan: Plan, settings: dict[str, Any], total: int, tally: Tally | None) -> Manifest:
    "Write what a folder holds and how it was made, `tally` being None until it is complete; what was written"
    rooms = {f"{i:06d}": plan.room_of(i) for i in range(total)}
    counts = (tally or Tally()).by_label()
    manifest = dict(**settings, count=total, complete=tally is not None, label_counts=counts, rooms=rooms)
    write_json(folder.out / GENERATION, manifest)
    return manifest


def read_manifest(folder: Folder, settings: dict[str, Any]) -> Manifest | None:
    "The manifest of a folder that may be gone on with, None for a new folder; `SegError` for a folder of anything else"
    path = folder.out / GENERATION
    if path.exists():
        return agreed_manifest(path.read_bytes(), settings, str(folder.out))
    if any((folder.out / "labels").glob("*.png")):
        raise SegError(f"{folder.out} holds pairs that seg_generate did not make; {REMEDY}")
    return None


def agreed_manifest(content: bytes, settings: dict[str, Any], place: str) -> Manifest:
    "The manifest in a file; `SegError` where it is damaged, or of other settings"
    manifest = _upgrade(_read_object(content, place), settings)
    for name, value in {**settings, "shards": settings.get("shards")}.items():
        if manifest.get(name) != value:
            difference = _difference(name, manifest.get(name), value)
            raise SegError(f"{place} was made with another {name} ({difference}); {REMEDY}")
    return manifest


def _read_object(content: bytes, place: str) -> dict[str, Any]:
    "The object in a JSON file"
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SegError(f"{place}/{GENERATION} is not readable as JSON; {REMEDY}")
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
