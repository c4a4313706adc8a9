"""The objects of a labelled image as segments: what COCO and SOLO annotations are made from.

Reads files only; must not know how they were made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from nbs_lib.datasets import Pair, SegData
from nbs_lib.labels import IGNORE, LabelSet
from nbs_lib.masks import decode_mask


@dataclass(frozen=True)
class Segment:
    "One labelled object of an image, or all pixels of a label where nobody told objects apart"
    number: int  # of the object in its image
    label: int  # mask value
    pixels: np.ndarray  # bool (H, W), at least one True


def read_segments(data: SegData, pair: Pair) -> list[Segment]:
    "The segments of an image, by number. Pixels that are void or background are in none"
    mask = decode_mask(pair.mask, data.labels)
    labelled = mask != IGNORE
    if data.labels.background is not None:
        labelled &= mask != data.labels.background
    path = data.root / "instances" / pair.mask.name
    numbers = mask.astype(int)
    if path.exists():
        with Image.open(path) as image:
            numbers = np.asarray(image).astype(int)
    segments = []
    for number in np.unique(numbers[labelled]).tolist():
        pixels = (numbers == number) & labelled
        segments.append(Segment(number, int(mask[pixels][0]), pixels))
    return segments


def label_names(labels: LabelSet) -> dict[int, str]:
    "Mask value and name of each label but the background"
    return {value: name for value, name in enumerate(labels.codes) if value != labels.background}
