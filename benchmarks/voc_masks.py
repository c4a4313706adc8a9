"""Masks to colors and back, against loops over the pixels: `python benchmarks/voc_masks.py [pairs] [height] [width]`.

All ways are timed in turns in one run, and every result is compared with what it must be.
"""
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from nbs_lib.labels import IGNORE, VOID_COLOR
from nbs_lib.layouts import VOC
from nbs_lib.masks import decode_mask, mask_image
from nbs_lib.show import paint

COLORS = {color: value for value, color in enumerate(VOC.colors)} | {VOID_COLOR: IGNORE}
BLOCK = 25  # side of a block of one label, in pixels


def decode_loop(rgb: np.ndarray) -> np.ndarray:
    "A dictionary look-up a pixel, over Python's own numbers: the fastest loop we could write."
    rows = []
    for row in rgb.tolist():
        rows.append([COLORS[tuple(pixel)] for pixel in row])
    return np.array(rows, np.uint8)


def decode_compare(rgb: np.ndarray) -> np.ndarray:
    "The usual loop: each pixel compared with each color."
    mask = np.zeros(rgb.shape[:2], np.uint8)
    table, values = np.array(list(COLORS)), list(COLORS.values())
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            same = (table == rgb[y, x]).all(1)
            mask[y, x] = values[int(same.argmax())]
    return mask


def encode_loop(mask: np.ndarray) -> np.ndarray:
    "From labels to colors, a pixel at a time."
    rgb = np.zeros((*mask.shape, 3), np.uint8)
    for y, row in enumerate(mask.tolist()):
        for x, value in enumerate(row):
            rgb[y, x] = VOC.palette[value]
    return rgb


@dataclass
class Way:
    "One way to convert, and how long it took each time."
    name: str
    convert: Callable[[np.ndarray], np.ndarray]
    reads: str  # "mask" or "colors"
    makes: str  # "mask" or "colors"
    is_loop: bool = False
    seconds: list[float] = field(default_factory=list)

    def run(self, arrays: dict[str, np.ndarray]) -> None:
        "Convert, five times unless it is a slow loop, and compare with what must come out."
        for _ in range(1 if self.is_loop else 5):
            start = time.perf_counter()
            result = self.convert(arrays[self.reads])
            self.seconds.append(time.perf_counter() - start)
            np.testing.assert_array_equal(result, arrays[self.makes])

    @property
    def best(self) -> float:
        return min(self.seconds)


def decode_colors(rgb: np.ndarray) -> np.ndarray:
    "Our decoder of color masks."
    return decode_mask(Image.fromarray(rgb), VOC)


def decode_palette(mask: np.ndarray) -> np.ndarray:
    "A mask to a palette image and back by its values."
    return decode_mask(mask_image(mask, VOC), VOC, "value")


def encode_colors(mask: np.ndarray) -> np.ndarray:
    "Our way to an RGB image."
    return np.asarray(paint(mask, VOC))


def encode_palette(mask: np.ndarray) -> np.ndarray:
    "Our way to a palette image, shown in its colors."
    return np.asarray(mask_image(mask, VOC).convert("RGB"))


def all_ways() -> list[Way]:
    "Every way that is compared."
    return [
        Way("decode colors", decode_colors, "colors", "mask"),
        Way("decode a palette image", decode_palette, "mask", "mask"),
        Way("decode, loop with a dictionary", decode_loop, "colors", "mask", is_loop=True),
        Way("decode, loop that compares colors", decode_compare, "colors", "mask", is_loop=True),
        Way("encode to colors", encode_colors, "mask", "colors"),
        Way("encode to a palette image", encode_palette, "mask", "colors"),
        Way("encode, loop", encode_loop, "mask", "colors", is_loop=True),
    ]


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    "Blocks of random labels and void."
    shape = (-(-height // BLOCK), -(-width // BLOCK))
    blocks = rng.choice([*range(VOC.n_classes), IGNORE], shape).astype(np.uint8)
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[:height, :width]


def comparison(way: Way, ways: list[Way]) -> str:
    "How much faster a way is than each loop that does the same."
    loops = [other for other in ways if other.is_loop and other.makes == way.makes]
    if way.is_loop:
        return ""
    return "  ".join(f"{loop.best / way.best:7.0f} × faster than {loop.name.split(', ')[1]}" for loop in loops)


def main(pairs: int = 10, height: int = 375, width: int = 500) -> None:
    rng, ways = np.random.default_rng(0), all_ways()
    decode_colors(np.zeros((8, 8, 3), np.uint8))  # the look-up table is built once a process
    for _ in range(pairs):
        mask = random_mask(rng, height, width)
        arrays = {"mask": mask, "colors": encode_colors(mask)}
        for way in ways:
            way.run(arrays)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    print(f"{pairs} masks of {height}×{width}, all equal; best of {pairs}, {cores} cores, {versions}, load {load:.1f}")
    for way in ways:
        print(f"{way.name:36}{1000 * way.best:9.2f} ms   {comparison(way, ways)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
