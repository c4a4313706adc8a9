"""Pairs of our own in the layouts of PASCAL VOC and FaceSynthetics

So that the notebooks here can be run, and shown, without images that may not be passed on.

    python own_data.py voc ROOMS OUT [N]  # rooms in VOC's folders and lists: cut to mixed sizes, borders of labels 255
    python own_data.py faces OUT [N]      # drawn faces with the 19 labels, {id}.png and {id}_seg.png, ragged hair 255
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nbs_lib.alignment import boundaries
from nbs_lib.labels import IGNORE, LabelSet
from nbs_lib.layouts import FACES, find_pairs
from nbs_lib.masks import mask_image

Color = tuple[int, int, int]


def random_crop(rng: np.random.Generator, image: Image.Image, mask: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    "A part of image and mask, each side 9/16 of the whole or more"
    width, height = (int(rng.integers(side * 9 // 16, side + 1)) for side in image.size)
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    part = image.crop((left, top, left + width, top + height))
    return part, mask[top:top + height, left:left + width]


def labelmap(labels: LabelSet) -> str:
    "The table as CVAT's labelmap.txt"
    lines = []
    for name, (red, green, blue) in zip(labels.codes, labels.colors, strict=True):
        lines.append(f"{name}:{red},{green},{blue}::\n")
    return "".join(lines)


def voc(rooms: str, out: str, n: int = 300) -> None:
    "Write rooms in VOC's layout; one in five is for validation"
    data, root = find_pairs(rooms), Path(out)
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for k, i in enumerate(np.linspace(0, len(data) - 1, min(n, len(data))).astype(int)):
        image, mask = random_crop(rng, *data.read(i))
        name = f"2012_{k:06}"
        bordered = np.where(boundaries(mask), IGNORE, mask)
        mask_image(bordered, data.labels).save(root / f"SegmentationClass/{name}.png")
        image.save(root / f"JPEGImages/{name}.jpg", quality=95)
        lists["val" if k % 5 == 4 else "train"].append(name)
    for part, names in lists.items():
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(names))
    (root / "labelmap.txt").write_text(labelmap(data.labels))


class Face:
    "An image and its mask, drawn together: what is drawn later lies in front"

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.image = Image.new("RGB", (size, size))
        self.mask = Image.new("L", (size, size), 0)
        self.skin = np.array([224, 172, 140]) * rng.uniform(0.35, 1.1)
        self.hair = self.random_color(10, 180)
        self.center_x, self.center_y = size * rng.uniform(0.4, 0.6), size * rng.uniform(0.42, 0.52)
        self.radius = size * rng.uniform(0.2, 0.28)
        self.image.paste(self.random_color(), (0, 0, size, size))

    def random_color(self, low: int = 30, high: int = 226) -> Color:
        red, green, blue = (int(v) for v in self.rng.integers(low, high, 3))
        return red, green, blue

    def shade(self, factor: float) -> Color:
        "The skin's color, darker or lighter"
        red, green, blue = (int(v) for v in np.clip(self.skin * factor, 0, 255))
        return red, green, blue

    def happens(self, probability: float) -> bool:
        return self.rng.random() < probability

    def put(self, label: str, x: float, y: float, w: float, h: float, fill: Color, shape: str = "ellipse") -> None:
        "Draw a label around (x, y), `w` and `h` to each side, all in radii from the face's center"
        left, right = self.center_x + (x - w) * self.radius, self.center_x + (x + w) * self.radius
        top, bottom = self.center_y + (y - h) * self.radius, self.center_y + (y + h) * self.radius
        for canvas, value in ((self.image, fill), (self.mask, FACES[label])):
            draw = getattr(ImageDraw.Draw(canvas), shape)
            draw([left, top, right, bottom], fill=value)


def draw_head(face: Face) -> None:
    "Hair, clothing, neck, ears, skin and sometimes a beard"
    face.put("hair", 0, -0.2, 1.15, face.rng.uniform(1.3, 1.9), face.hair)
    face.put("clothing", 0, 3.1, 2.2, 1.5, face.random_color())
    face.put("neck", 0, 1.3, 0.45, 0.7, face.shade(0.85), "rectangle")
    for side, name in ((-1, "right"), (1, "left")):
        face.put(f"{name}_ear", side, 0, 0.2, 0.3, face.shade(0.9))
    face.put("skin", 0, 0, 1, 1.3, face.shade(1))
    if face.happens(0.3):
        face.put("beard", 0, 0.85, 0.7, 0.45, face.hair)


def draw_features(face: Face) -> None:
    "Eyes, brows, nose and mouth"
    for side, name in ((-1, "right"), (1, "left")):
        face.put(f"{name}_eye", side * 0.4, -0.2, 0.18, 0.1, (240, 240, 240))
        face.put(f"{name}_brow", side * 0.4, -0.5, 0.24, 0.06, face.hair)
    face.put("nose", 0, 0.15, 0.15, 0.3, face.shade(0.92))
    face.put("top_lip", 0, 0.65, 0.36, 0.1, (170, 60, 70))
    face.put("bottom_lip", 0, 0.78, 0.32, 0.12, (190, 80, 90))
    if face.happens(0.4):
        face.put("mouth_interior", 0, 0.71, 0.26, 0.06, (60, 10, 20))


def draw_things_worn(face: Face) -> None:
    "Sometimes glasses, headwear, facewear"
    if face.happens(0.3):
        for side in (-1, 1):
            face.put("glasses", side * 0.4, -0.2, 0.3, 0.2, (30, 30, 40))
    if face.happens(0.3):
        face.put("headwear", 0, -1.05, 1.1, 0.5, face.random_color())
    if face.happens(0.1):
        face.put("facewear", 0, 0.7, 0.8, 0.45, (200, 220, 230))


def draw_face(rng: np.random.Generator, size: int = 128) -> tuple[Image.Image, np.ndarray]:
    "A face of ellipses: image and mask of the 19 labels"
    face = Face(rng, size)
    draw_head(face)
    draw_features(face)
    draw_things_worn(face)
    noise = rng.normal(0, 8, (size, size, 1))
    light_from_one_side = np.linspace(-25, 25, size)[None, :, None] * rng.uniform(-1, 1)
    pixels = np.asarray(face.image) + noise + light_from_one_side
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), np.asarray(face.mask)


def faces(out: str, n: int = 150) -> None:
    "Write drawn faces; every one is another person's"
    root = Path(out)
    root.mkdir(parents=True)
    for i in range(n):
        image, mask = draw_face(np.random.default_rng(i))
        ragged = boundaries(mask) & (mask == FACES["hair"])
        image.save(root / f"{i:06}.png")
        Image.fromarray(np.where(ragged, IGNORE, mask).astype(np.uint8)).save(root / f"{i:06}_seg.png")


if __name__ == "__main__":
    commands = dict(voc=voc, faces=faces)
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*(int(a) if a.isdecimal() else a for a in sys.argv[2:]))
