"""A contact sheet of rooms: what a training set will look like, before it is drawn.

Must not know files.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nbs_lib.labels import ROOM_LABELS
from nbs_lib.show import legend, paint, panel
from virtual_room.pairs import PairMaker
from virtual_room.plan import Plan

COLUMNS, SIDE = 4, 176  # pairs in a row, and the height of an image
GAP, MARGIN, LETTER = 4, 60, 11  # pixels: beside the sheet, for the lines under the legend, and of a letter


def contact_sheet(plan: Plan, n: int) -> Image.Image:
    "The first `n` pairs of a plan with their masks, the share of each label, and what all of them have in common"
    maker = PairMaker(plan)
    pairs = [maker.pair(i) for i in range(n)]
    sheet = panel(_rows(pairs), height=SIDE)
    names = legend(np.stack([mask for _, mask in pairs]), ROOM_LABELS)
    left, height = sheet.width + GAP, max(sheet.height, names.height + MARGIN)
    out = Image.new("RGB", (left + names.width, height), "white")
    out.paste(sheet, (0, 0))
    out.paste(names, (left, 0))
    _write_below(out, figures(pairs), left + 4, names.height + 6)
    return out


def _write_below(image: Image.Image, text: str, x: int, y: int) -> None:
    "Write lines of text into an image, their upper left corner at (x, y)"
    font = ImageFont.load_default(LETTER)
    ImageDraw.Draw(image).multiline_text((x, y), text, fill="black", font=font)


def _rows(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[list[Image.Image]]:
    "Images beside their masks in colors, the last row filled up with white"
    cells = []
    for image, mask in pairs:
        cells += [Image.fromarray(image), paint(mask, ROOM_LABELS)]
    per_row = 2 * min(COLUMNS, len(pairs))
    cells += [Image.new("RGB", cells[0].size, "white")] * (-len(cells) % per_row)
    return [cells[i:i + per_row] for i in range(0, len(cells), per_row)]


def figures(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    "Lines about a few pairs: how many labels an image shows, and how bright images are, 0 to 1"
    labels = np.mean([np.count_nonzero(np.bincount(mask.ravel())[1:]) for _, mask in pairs])
    light = [image.mean() / 255 for image, _ in pairs]
    brightness = f"brightness {np.mean(light):.2f},\nfrom {min(light):.2f} to {max(light):.2f}"
    return f"{len(pairs)} pairs, {labels:.1f} labels an image\n{brightness}"
