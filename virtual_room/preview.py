"""A contact sheet of rooms: what a training set will look like, before it is drawn.

Must not know files.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nbs_lib.labels import ROOM_LABELS
from nbs_lib.show import legend, paint, panel
from virtual_room.generate import Plan, Studio

COLUMNS, SIDE = 4, 176  # pairs in a row, and the height of a picture


def contact_sheet(plan: Plan, n: int) -> Image.Image:
    "The first `n` pairs of a plan with their masks, the share of each label, and what all of them have in common"
    studio = Studio(plan)
    pairs = [studio.pair(i) for i in range(n)]
    cells = [Image.fromarray(x) if x is p else paint(x, ROOM_LABELS) for p, m in pairs for x in (p, m)]
    per_row = 2 * min(COLUMNS, n)
    cells += [Image.new("RGB", cells[0].size, "white")] * (-len(cells) % per_row)
    sheet = panel([cells[i:i + per_row] for i in range(0, len(cells), per_row)], height=SIDE)
    names = legend(np.stack([m for _, m in pairs]), ROOM_LABELS)
    out = Image.new("RGB", (sheet.width + names.width + 4, max(sheet.height, names.height + 60)), "white")
    out.paste(sheet, (0, 0)), out.paste(names, (sheet.width + 4, 0))
    ImageDraw.Draw(out).multiline_text((sheet.width + 8, names.height + 6), figures(pairs), fill="black", font=ImageFont.load_default(11))
    return out


def figures(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    "Lines about a few pairs"
    labels = [np.count_nonzero(np.bincount(m.ravel())[1:]) for _, m in pairs]
    light = [p.mean() / 255 for p, _ in pairs]
    return f"{len(pairs)} pairs, {np.mean(labels):.1f} labels a picture\nbrightness {np.mean(light):.2f},\nfrom {min(light):.2f} to {max(light):.2f}"
