"""What checking a data set costs: `python benchmarks/check.py [pairs] [size]`.

In turns with decoding alone and with np.unique a mask."""
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw

from nbs_lib.datasets import SegData
from nbs_lib.labels import ROOM_LABELS, write_labels
from nbs_lib.layouts import find_pairs
from nbs_lib.masks import mask_image
from nbs_lib.tools.report import check_dataset

DECODING = "decode images and masks, threads"  # what the others are compared with


def draw_mask(rng: np.random.Generator, size: int) -> np.ndarray:
    "Forty rectangles and ellipses, uint8 (size, size)."
    mask = Image.new("L", (size, size), 1)
    pen = ImageDraw.Draw(mask)
    for is_rectangle in rng.integers(0, 2, 40):
        x, y, width, height = rng.integers(0, size, 4) // (1, 1, 3, 3)
        shape = pen.rectangle if is_rectangle else pen.ellipse
        shape((x, y, x + width + 8, y + height + 8), fill=int(rng.integers(0, 24)))
    return np.asarray(mask)


def draw_pair(root: Path, i: int, size: int) -> None:
    "Write one pair: the image is the mask in its colors, with noise."
    rng = np.random.default_rng(i)
    mask = draw_mask(rng, size)
    noise = rng.integers(0, 24, (size // 4, size // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    image = Image.fromarray(ROOM_LABELS.palette[mask] // 2 + 40 + noise)
    mask_image(mask, ROOM_LABELS).save(root / f"labels/{i:06}.png", compress_level=1)
    image.save(root / f"screenshots/{i:06}.png", compress_level=1)


def draw_set(root: Path, pairs: int, size: int, cores: int) -> SegData:
    "Write a data set, and read all of it once, so that it comes from the page cache."
    for part in ("screenshots", "labels"):
        (root / part).mkdir()
    write_labels(ROOM_LABELS, root / "labels.csv")
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(draw_pair, [root] * pairs, range(pairs), [size] * pairs, chunksize=50))
    data = find_pairs(root)
    for pair in data.pairs:
        pair.mask.read_bytes()
        pair.image.read_bytes()
    return data


def decode(path: Path) -> None:
    "Decode one image."
    Image.open(path).load()


def count_values(path: Path) -> np.ndarray:
    "The original's way."
    return np.unique(np.asarray(Image.open(path)))


class Timer:
    "Wall and CPU seconds, summed by name."

    def __init__(self) -> None:
        self.seconds = {}

    def run(self, name: str, work, *args) -> None:
        "Do the work and add its time."
        wall, cpu = time.perf_counter(), time.process_time()
        work(*args)
        before = self.seconds.get(name, (0, 0))
        self.seconds[name] = before[0] + time.perf_counter() - wall, before[1] + time.process_time() - cpu

    def show(self, pairs: int) -> None:
        "Print a table."
        wall, cpu = self.seconds[DECODING]
        print(f"{'':48}   wall      a pair           cpu")
        for name, (w, c) in self.seconds.items():
            print(f"{name:48}{w:7.1f} s{1000 * w / pairs:8.2f} ms{w / wall:6.2f} ×{c:8.1f} s{c / cpu:6.2f} ×")


def measure_part(part: SegData, timer: Timer, pool: ThreadPoolExecutor) -> None:
    "Each way once over some pairs."
    masks, images = [pair.mask for pair in part.pairs], [pair.image for pair in part.pairs]
    timer.run("decode masks, threads", lambda: list(pool.map(decode, masks)))
    timer.run(DECODING, lambda: list(pool.map(decode, masks + images)))
    timer.run("check_dataset on the same", check_dataset, part)
    timer.run("the original's way: np.unique, a mask at a time", lambda: [count_values(file) for file in masks])


def main(pairs: int = 5000, size: int = 512, parts: int = 10) -> None:
    "In turns, so that what else the machine does weighs on all alike."
    cores, timer = len(os.sched_getaffinity(0)), Timer()
    with tempfile.TemporaryDirectory() as folder:
        data = draw_set(Path(folder), pairs, size, cores)
        print(f"{pairs} pairs of {size} px, {cores} cores, Python {platform.python_version()}, numpy {np.__version__}, "
              f"Pillow {PIL.__version__}, load before {os.getloadavg()[0]:.1f}")
        with ThreadPoolExecutor(cores) as pool:
            for k in range(parts):
                chosen = data.pairs[k * pairs // parts:(k + 1) * pairs // parts]
                measure_part(replace(data, pairs=chosen), timer, pool)
        timer.run("check_dataset on all at once", check_dataset, data)
    timer.show(pairs)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
