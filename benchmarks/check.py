"""What checking a data set costs: `python benchmarks/check.py [pairs] [size]`, in turns with decoding alone and with np.unique a mask"""

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

from nbs_lib.tools.report import check_dataset
from nbs_lib.layouts import find_pairs
from nbs_lib.labels import ROOM_LABELS, write_labels
from nbs_lib.masks import mask_image


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


def main(pairs: int = 5000, size: int = 512, parts: int = 10) -> None:
    cores, rows = len(os.sched_getaffinity(0)), {}

    def timed(name: str, work) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        rows[name] = [a + b for a, b in zip(rows.get(name, (0, 0)), (time.perf_counter() - wall, time.process_time() - cpu))]

    with tempfile.TemporaryDirectory() as d:
        root = Path(d)
        for part in ("screenshots", "labels"): (root / part).mkdir()
        write_labels(ROOM_LABELS, root / "labels.csv")
        with ProcessPoolExecutor(cores) as pool: list(pool.map(draw, [root] * pairs, range(pairs), [size] * pairs, chunksize=50))
        data = find_pairs(root)
        for p in data.pairs: p.mask.read_bytes(), p.image.read_bytes()  # all from the page cache
        print(f"{pairs} pairs of {size} px, {cores} cores, Python {platform.python_version()}, numpy {np.__version__}, Pillow {PIL.__version__}, load before {os.getloadavg()[0]:.1f}")
        with ThreadPoolExecutor(cores) as pool:
            for k in range(parts):  # in turns, so that what else the machine does weighs on all alike
                part = replace(data, pairs=data.pairs[k * pairs // parts:(k + 1) * pairs // parts])
                masks, images = [p.mask for p in part.pairs], [p.image for p in part.pairs]
                timed("decode masks, threads", lambda: list(pool.map(decode, masks)))
                timed("decode pictures and masks, threads", lambda: list(pool.map(decode, masks + images)))
                timed("check_dataset on the same", lambda: check_dataset(part))
                timed("the original's way: np.unique, a mask at a time", lambda: [np.unique(np.asarray(Image.open(f))) for f in masks])
        timed("check_dataset on all at once", lambda: check_dataset(data))
    wall, cpu = rows["decode pictures and masks, threads"]
    print(f"{'':48}   wall      a pair           cpu")
    for name, (w, c) in rows.items(): print(f"{name:48}{w:7.1f} s{1000 * w / pairs:8.2f} ms{w / wall:6.2f} ×{c:8.1f} s{c / cpu:6.2f} ×")


if __name__ == "__main__": main(*map(int, sys.argv[1:]))
