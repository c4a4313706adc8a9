"""Rooms in the layouts of others: `seg_convert` writes COCO's annotations and, through `solo`, Unity's folders.

Reads files only; must not know how they were made.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from nbs_lib.core import SegError, atomic_path, seg_command
from nbs_lib.datasets import Pair, SegData
from nbs_lib.layouts import find_pairs
from virtual_room.pairs import bounding_box
from virtual_room.segments import Segment, label_names, read_segments
from virtual_room.solo import to_solo


def run_lengths(pixels: np.ndarray) -> list[int]:
    "COCO's uncompressed run lengths of a bool mask (H, W): down the columns, starting with those outside"
    flat = pixels.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def to_coco(data: SegData) -> dict:
    "The whole folder as one COCO object; its segments painted are the masks again, without void and background"
    images, annotations = [], []
    for image_id, pair in enumerate(data.pairs):
        images.append(_image(data, pair, image_id))
        for segment in read_segments(data, pair):
            annotations.append(_annotation(segment, len(annotations) + 1, image_id))
    info = dict(description="rooms")
    return dict(info=info, licenses=[], images=images, annotations=annotations, categories=_categories(data))


def _image(data: SegData, pair: Pair, image_id: int) -> dict:
    with Image.open(pair.mask) as mask:
        width, height = mask.size
    return dict(id=image_id, file_name=pair.image.relative_to(data.root).as_posix(), width=width, height=height)


def _annotation(segment: Segment, annotation_id: int, image_id: int) -> dict:
    pixels = segment.pixels
    segmentation = dict(size=list(pixels.shape), counts=run_lengths(pixels))
    return dict(
        id=annotation_id, image_id=image_id, category_id=segment.label, instance=segment.number, iscrowd=0,
        area=int(pixels.sum()), bbox=bounding_box(pixels), segmentation=segmentation,
    )


def _categories(data: SegData) -> list[dict]:
    "COCO's categories: id, name and the label's group"
    groups = {}
    for group, names in data.labels.groups.items():
        groups |= dict.fromkeys(names, group)
    return [dict(id=value, name=name, supercategory=groups[name]) for value, name in label_names(data.labels).items()]


@seg_command
def seg_convert(
    folder: str,  # What seg_generate wrote; with --truth instances every object is a segment of its own
    to: str = "coco",  # coco or solo
    out: str = "",  # FILE.json for COCO (default FOLDER/coco.json), a new folder for SOLO (default FOLDER/solo)
):
    "Write rooms as a COCO annotation file or in Unity's SOLO layout. Void pixels become unlabelled ones."
    data = find_pairs(folder)
    if to == "coco":
        path = Path(out or Path(folder) / "coco.json")
        with atomic_path(path) as tmp:
            tmp.write_text(json.dumps(to_coco(data)), encoding="utf-8")
    elif to == "solo":
        path = Path(out or Path(folder) / "solo")
        to_solo(data, path)
    else:
        raise SegError(f"--to is '{to}'; give coco or solo")
    print(f"{len(data)} images as {to}: {path}")
