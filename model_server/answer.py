"""From a mask to what a client gets: an image in its colors, and where each label lies.

Pure numpy and Pillow; must not know of requests, clients or models.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from zlib import Z_RLE

import numpy as np
from PIL import Image

from nbs_lib.labels import LabelSet


@dataclass(frozen=True)
class Region:
    "One label of a mask: where its pixels lie and how sure the model is of them."

    value: int         # the mask's number for it
    pixels: int
    x: float           # mean of its pixels' columns, 0 = left
    y: float           # mean of its pixels' rows, 0 = top
    confidence: float  # mean, 0 to 1


def table_palette(labels: LabelSet) -> np.ndarray:
    "uint8 (n_classes, 4), red green blue alpha: the table's colors, and nothing where nothing is labelled."
    palette = np.full((labels.n_classes, 4), 255, np.uint8)
    palette[:, :3] = labels.colors
    if labels.background is not None:
        palette[labels.background] = 0
    return palette


def palette_png(mask: np.ndarray, palette: np.ndarray) -> bytes:
    "PNG of a uint8 mask whose pixel values are the mask's; `palette` is uint8 (n, 4) with n above the largest value."
    image = Image.fromarray(mask, mode="L")
    image.putpalette(palette[:, :3].tobytes())
    return _png(image, transparency=palette[:, 3].tobytes())


def value_png(mask: np.ndarray) -> bytes:
    "PNG of a uint8 mask as gray levels: level = value."
    return _png(Image.fromarray(mask, mode="L"))


def _png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1, compress_type=Z_RLE, **options)  # masks are runs
    return out.getvalue()


def regions(mask: np.ndarray, confidence: np.ndarray | None = None) -> list[Region]:
    "The labels in a uint8 mask, lowest value first. Without `confidence` (uint8, 255 = certain) it is given as 1."
    begin, length = _runs(mask)
    value = mask.ravel()[begin]
    y, x = np.divmod(begin, mask.shape[1])
    pixels = _sum_by_value(value, length)
    sum_x = _sum_by_value(value, length * (x + (length - 1) / 2))
    sum_y = _sum_by_value(value, length * y)
    sum_sure = pixels
    if confidence is not None:
        sum_sure = _sum_by_value(value, _sum_of_runs(confidence, begin)) / 255
    return [_region(v, pixels[v], sum_x[v], sum_y[v], sum_sure[v]) for v in np.flatnonzero(pixels)]


def _sum_by_value(value: np.ndarray, of_run: np.ndarray) -> np.ndarray:
    "The sums, for each of the 256 values, of a number of each run; `value` is each run's."
    return np.bincount(value, of_run, 256)


def _sum_of_runs(image: np.ndarray, begin: np.ndarray) -> np.ndarray:
    "int64 (runs,): the sum of the pixels of each run."
    return np.add.reduceat(image.ravel(), begin, dtype=np.int64)


def _region(value: int, pixels: float, sum_x: float, sum_y: float, sum_sure: float) -> Region:
    "What the sums over the pixels of a value say about it."
    return Region(int(value), int(pixels), float(sum_x / pixels), float(sum_y / pixels), float(sum_sure / pixels))


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Where in the flattened mask each run of one value in one row begins, and how long it is: far fewer than pixels."
    fresh = np.ones(mask.shape, bool)
    np.not_equal(mask[:, 1:], mask[:, :-1], out=fresh[:, 1:])
    begin = np.flatnonzero(fresh)
    return begin, np.diff(begin, append=mask.size)
