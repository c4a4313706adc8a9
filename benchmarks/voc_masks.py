"""Masks to colours and back, against loops over the pixels: `python benchmarks/voc_masks.py [pairs] [height] [width]`, in turns in one run"""

import os
import platform
import sys
import time

import numpy as np

from nbs_lib.layouts import VOC
from nbs_lib.masks import decode_mask, mask_image
from nbs_lib.show import paint
from PIL import Image

COLORS = {c: i for i, c in enumerate(VOC.colors)} | {(224, 224, 192): 255}


def decode_loop(rgb: np.ndarray) -> np.ndarray:
    "A dictionary look-up a pixel, over Python's own numbers: the fastest loop we could write"
    return np.array([[COLORS[tuple(pixel)] for pixel in row] for row in rgb.tolist()], np.uint8)


def decode_compare(rgb: np.ndarray) -> np.ndarray:
    "The usual loop: each pixel compared with each colour"
    mask, table = np.zeros(rgb.shape[:2], np.uint8), np.array(list(COLORS))
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            mask[y, x] = list(COLORS.values())[int((table == rgb[y, x]).all(1).argmax())]
    return mask


def encode_loop(mask: np.ndarray) -> np.ndarray:
    "The other way, a pixel at a time"
    rgb = np.zeros((*mask.shape, 3), np.uint8)
    for y, row in enumerate(mask.tolist()):
        for x, value in enumerate(row):
            rgb[y, x] = VOC.palette[value]
    return rgb


def main(pairs: int = 10, height: int = 375, width: int = 500) -> None:
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work):
        for _ in range(1 if "loop" in name else 5):
            start = time.perf_counter()
            out = work()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
        return out

    rng = np.random.default_rng(0)
    decode_mask(Image.new("RGB", (8, 8)), VOC)  # the table is built once a process
    for _ in range(pairs):
        blocks = rng.choice([*range(21), 255], (-(-height // 25), -(-width // 25))).astype(np.uint8)
        mask = blocks.repeat(25, 0).repeat(25, 1)[:height, :width]
        rgb = np.asarray(paint(mask, VOC))
        for name, work, truth in [("decode colours", lambda: decode_mask(Image.fromarray(rgb), VOC), mask), ("decode a palette picture", lambda: decode_mask(mask_image(mask, VOC), VOC, "value"), mask),
                                  ("decode, loop with a dictionary", lambda: decode_loop(rgb), mask), ("decode, loop that compares colours", lambda: decode_compare(rgb), mask),
                                  ("encode to colours", lambda: np.asarray(paint(mask, VOC)), rgb), ("encode to a palette picture", lambda: np.asarray(mask_image(mask, VOC).convert("RGB")), rgb),
                                  ("encode, loop", lambda: encode_loop(mask), rgb)]:
            np.testing.assert_array_equal(timed(name, work), truth)
    best = {name: min(s) for name, s in seconds.items()}
    print(f"{pairs} masks of {height}×{width}, all equal; best of {pairs}, one thread of {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, numpy {np.__version__}, load {os.getloadavg()[0]:.1f}")
    for name, s in best.items():
        loops = [f"{b / s:7.0f} × faster than {n.split(', ')[1]}" for n, b in best.items() if "loop" in n and n[:6] == name[:6] and "loop" not in name]
        print(f"{name:36}{1000 * s:9.2f} ms   {'  '.join(loops)}")


if __name__ == "__main__": main(*map(int, sys.argv[1:]))
