"""Pairs of our own in the layouts of PASCAL VOC and FaceSynthetics, so that the notebooks here can be run, and shown, without pictures that may not be passed on

    python own_data.py voc ROOMS OUT [N]  # rooms in JPEGImages/, SegmentationClass/ and lists: cut to mixed sizes, borders between labels 255
    python own_data.py faces OUT [N]      # drawn faces with the 19 labels, {id}.png and {id}_seg.png, ragged hair 255
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nbs_lib.tools.report import boundaries
from nbs_lib.layouts import FACES, find_pairs
from nbs_lib.labels import IGNORE
from nbs_lib.masks import mask_image


def voc(rooms: str, out: str, n: int = 300) -> None:
    "One in five is for validation"
    data, root, rng, lists = find_pairs(rooms), Path(out), np.random.default_rng(0), {"train": [], "val": []}
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"): (root / part).mkdir(parents=True)
    for k, i in enumerate(np.linspace(0, len(data) - 1, min(n, len(data))).astype(int)):
        image, mask = data.read(i)
        w, h = (int(rng.integers(side * 9 // 16, side + 1)) for side in image.size)
        x, y = int(rng.integers(0, image.width - w + 1)), int(rng.integers(0, image.height - h + 1))
        mask, name = mask[y:y + h, x:x + w], f"2012_{k:06}"
        mask_image(np.where(boundaries(mask), IGNORE, mask), data.labels).save(root / f"SegmentationClass/{name}.png")
        image.crop((x, y, x + w, y + h)).save(root / f"JPEGImages/{name}.jpg", quality=95)
        lists["val" if k % 5 == 4 else "train"].append(name)
    for part, names in lists.items(): (root / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(names))
    (root / "labelmap.txt").write_text("".join(f"{c}:{r},{g},{b}::\n" for c, (r, g, b) in zip(data.labels.codes, data.labels.colors)))


def draw_face(rng: np.random.Generator, size: int = 128) -> tuple[Image.Image, np.ndarray]:
    "A face of ellipses: picture and mask of the 19 labels, what is drawn later lies in front"
    picture, mask = Image.new("RGB", (size, size)), Image.new("L", (size, size), 0)
    color = lambda low=30, high=226: tuple(int(v) for v in rng.integers(low, high, 3))
    skin, hair = np.array([224, 172, 140]) * rng.uniform(0.35, 1.1), color(10, 180)
    shade = lambda f: tuple(int(v) for v in np.clip(skin * f, 0, 255))
    cx, cy, r = size * rng.uniform(0.4, 0.6), size * rng.uniform(0.42, 0.52), size * rng.uniform(0.2, 0.28)

    def put(label: str, x: float, y: float, w: float, h: float, fill: tuple, shape: str = "ellipse") -> None:
        box = [cx + (x - w) * r, cy + (y - h) * r, cx + (x + w) * r, cy + (y + h) * r]
        for canvas, value in ((picture, fill), (mask, FACES[label])): getattr(ImageDraw.Draw(canvas), shape)(box, fill=value)

    picture.paste(color(), (0, 0, size, size))
    put("hair", 0, -0.2, 1.15, rng.uniform(1.3, 1.9), hair)
    put("clothing", 0, 3.1, 2.2, 1.5, color())
    put("neck", 0, 1.3, 0.45, 0.7, shade(0.85), "rectangle")
    for side, name in ((-1, "right"), (1, "left")): put(f"{name}_ear", side, 0, 0.2, 0.3, shade(0.9))
    put("skin", 0, 0, 1, 1.3, shade(1))
    if rng.random() < 0.3: put("beard", 0, 0.85, 0.7, 0.45, hair)
    for side, name in ((-1, "right"), (1, "left")):
        put(f"{name}_eye", side * 0.4, -0.2, 0.18, 0.1, (240, 240, 240))
        put(f"{name}_brow", side * 0.4, -0.5, 0.24, 0.06, hair)
    put("nose", 0, 0.15, 0.15, 0.3, shade(0.92))
    put("top_lip", 0, 0.65, 0.36, 0.1, (170, 60, 70))
    put("bottom_lip", 0, 0.78, 0.32, 0.12, (190, 80, 90))
    if rng.random() < 0.4: put("mouth_interior", 0, 0.71, 0.26, 0.06, (60, 10, 20))
    if rng.random() < 0.3:
        for side in (-1, 1): put("glasses", side * 0.4, -0.2, 0.3, 0.2, (30, 30, 40))
    if rng.random() < 0.3: put("headwear", 0, -1.05, 1.1, 0.5, color())
    if rng.random() < 0.1: put("facewear", 0, 0.7, 0.8, 0.45, (200, 220, 230))
    noise = rng.normal(0, 8, (size, size, 1)) + np.linspace(-25, 25, size)[None, :, None] * rng.uniform(-1, 1)
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)), np.asarray(mask)


def faces(out: str, n: int = 150) -> None:
    "Every one is another's"
    root = Path(out)
    root.mkdir(parents=True)
    for i in range(n):
        image, mask = draw_face(np.random.default_rng(i))
        image.save(root / f"{i:06}.png")
        Image.fromarray(np.where(boundaries(mask) & (mask == FACES["hair"]), IGNORE, mask).astype(np.uint8)).save(root / f"{i:06}_seg.png")


if __name__ == "__main__":
    commands = dict(voc=voc, faces=faces)
    if len(sys.argv) < 3 or sys.argv[1] not in commands: sys.exit(__doc__)
    commands[sys.argv[1]](*(int(a) if a.isdecimal() else a for a in sys.argv[2:]))
