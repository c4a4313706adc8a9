"""What checking a data set costs: `python benchmarks/check.py [pairs] [size]`, against decoding alone and against np.unique a file"""

import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw

from nbs_lib.check import check_dataset
from nbs_lib.datasets import find_pairs
from nbs_lib.labels import ROOM_LABELS, mask_image, write_labels


def draw(root: Path, i: int, size: int) -> None:
    "One pair: forty rectangles and ellipses, the picture in their colours with noise"
    rng, mask = np.random.default_rng(i), Image.new("L", (size, size), 1)
    for shape in rng.integers(0, 2, 40):
        x, y, w, h = rng.integers(0, size, 4) // (1, 1, 3, 3)
        (ImageDraw.Draw(mask).rectangle if shape else ImageDraw.Draw(mask).ellipse)((x, y, x + w + 8, y + h + 8), fill=int(rng.integers(0, 24)))
    m = np.asarray(mask)
    noise = rng.integers(0, 24, (size // 4, size // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    mask_image(m, ROOM_LABELS).save(root / f"labels/{i:06}.png", compress_level=1)
    Image.fromarray((ROOM_LABELS.palette[m] // 2 + 40 + noise)).save(root / f"screenshots/{i:06}.png", compress_level=1)


def decode(path: Path) -> None: Image.open(path).load()


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(pairs: int = 5000, size: int = 512) -> None:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as d:
        root = Path(d)
        for part in ("screenshots", "labels"): (root / part).mkdir()
        write_labels(ROOM_LABELS, root / "labels.csv")
        with ProcessPoolExecutor(cores) as pool: list(pool.map(draw, [root] * pairs, range(pairs), [size] * pairs, chunksize=50))
        data = find_pairs(root)
        masks, images = [p.mask for p in data.pairs], [p.image for p in data.pairs]
        print(f"{pairs} pairs of {size} px, {cores} cores, Python {platform.python_version()}, numpy {np.__version__}, Pillow {PIL.__version__}, load before {os.getloadavg()[0]:.1f}")
        with ThreadPoolExecutor(cores) as pool:
            for f in masks + images: f.read_bytes()  # all from the page cache
            rows = {"decode masks, threads": timed(lambda: list(pool.map(decode, masks))),
                    "decode pictures and masks, threads": timed(lambda: list(pool.map(decode, masks + images))),
                    "check_dataset, everything": timed(lambda: check_dataset(data)),
                    "the original's way, np.unique a mask": timed(lambda: [np.unique(np.asarray(Image.open(f))) for f in masks]),
                    "decode pictures and masks, again": timed(lambda: list(pool.map(decode, masks + images)))}
        base = (rows["decode pictures and masks, threads"] + rows["decode pictures and masks, again"]) / 2
        for name, s in rows.items(): print(f"{name:40}{s:8.1f} s{1000 * s / pairs:8.2f} ms a pair{s / base:8.2f} × decoding")


if __name__ == "__main__": main(*map(int, sys.argv[1:]))
