"Beds"

from __future__ import annotations

from dataclasses import dataclass

from virtual_room.furniture.draws import draw_int, draw_sizes
from virtual_room.furniture.materials import Material, Rng, Style, draw_textile
from virtual_room.furniture.primitives import SIDES, box, legs, model_of, rod, soft
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import AgainstWall, Chance, Turn
from virtual_room.scene import Model, Primitive

MOSTLY = Chance("furniture", factor=.6, least=.4)


@dataclass(frozen=True)
class _Size:
    "Of a bed, in meters"
    w: float
    d: float
    base: float  # height of the frame
    thick: float  # of the mattress
    head: float  # height of the head

    @property
    def top(self) -> float:
        "Height of the mattress' upper side"
        return self.base + self.thick


@furniture(label="furniture_doubleBed", place=AgainstWall(turn=Turn.BED, chance=MOSTLY, tries=60, centered=.5))
def double_bed(rng: Rng, style: Style) -> Model:
    "A frame with a head, a mattress, a blanket and pillows"
    size = _Size(*draw_sizes(rng, (1.4, 1.95), (2.0, 2.2), (.15, .35), (.16, .26), (.75, 1.25)))
    sheet = _sheet(rng)
    cover, pillow = style.textile(rng), style.textile(rng)
    parts = _bedstead(rng, style, sheet, size)
    pillowcase = pillow if rng.random() < .6 else sheet
    parts += _blankets(rng, cover, size.w, size.d, size.top, size.thick)
    parts += _pillows(rng, pillowcase, size.w, size.d, size.top)
    return model_of("double bed", (size.w, size.d, max(size.head, size.top + .3)), parts)


def _bedstead(rng: Rng, style: Style, sheet: Material, size: _Size) -> list[Primitive]:
    "A frame, its head, the mattress, and perhaps a board at the foot"
    w, d, base = size.w, size.d, size.base
    back = style.textile(rng) if rng.random() < .4 else style.wood
    parts = _frame(rng, style.wood, w, d, base)
    parts += _head(rng, back, w, -d / 2 + .04, size.head)
    parts.append(_mattress(sheet, w, d, base, size.thick))
    if rng.random() < .35:
        parts.append(_foot_board(rng, style.wood, w, d, base))
    return parts


def _sheet(rng: Rng) -> Material:
    "White, now and then with stripes"
    texture = "fabric:2" if rng.random() < .2 else "plain"
    return Material((.97, .97, .95), texture, .4)


def _mattress(m: Material, w: float, d: float, base: float, thick: float) -> Primitive:
    return box(m, 0, .03, base, w - .06, d - .12, thick, .06)


def _frame(rng: Rng, m: Material, w: float, d: float, base: float) -> list[Primitive]:
    return [box(m, 0, 0, .06, w, d - .04, base - .04, .015), *legs(rng, m, w, d - .1, .07)]


def _foot_board(rng: Rng, m: Material, w: float, d: float, base: float) -> Primitive:
    return box(m, 0, d / 2 - .03, .05, w, .06, rng.uniform(base, .75), .015)


def _head(rng: Rng, m: Material, w: float, y: float, h: float) -> list[Primitive]:
    "A board, upholstered fields, or posts and bars"
    kind = rng.random()
    if kind < .45:
        return [box(m, 0, y, .1, w, .08, h - .1, .03)]
    if kind < .75:
        return _upholstered_head(m, w, y, h, fields=draw_int(rng, 2, 5))
    return _barred_head(m, w, y, h, bars=draw_int(rng, 6, 12))


def _upholstered_head(m: Material, w: float, y: float, h: float, fields: int) -> list[Primitive]:
    parts = [box(m, 0, y - .015, .1, w, .05, h - .1, .01)]
    for i in range(fields):
        x = w * ((i + .5) / fields - .5)
        parts.append(box(m, x, y + .015, .35, w / fields - .012, .05, h - .37, .022))
    return parts


def _barred_head(m: Material, w: float, y: float, h: float, bars: int) -> list[Primitive]:
    rail = .07
    parts = [box(m, x * (w / 2 - .03), y, 0, .06, .06, h, .012) for x in SIDES]
    parts += [box(m, 0, y, z, w - .1, .035, rail, .01) for z in (.3, h - rail - .03)]
    parts += [rod(m, (w - .14) * (i / bars - .5), y, .33, .022, h - .43) for i in range(bars + 1)]
    return parts


def _blankets(rng: Rng, cover: Material, w: float, d: float, top: float, thick: float) -> list[Primitive]:
    "A blanket that hangs over the sides and perhaps a throw"
    length, foot = rng.uniform(.55, .78) * d, d / 2 - .07
    height = thick * .75 + rng.uniform(.03, .07)
    parts = [box(cover, 0, foot - length / 2, top - thick * .75, w - .01, length, height, .045)]
    if rng.random() < .4:
        parts.append(_throw(rng, w, foot - .25, top, thick))
    return parts


def _throw(rng: Rng, w: float, y: float, top: float, thick: float) -> Primitive:
    "A second blanket across the bed"
    m, length = draw_textile(rng), rng.uniform(.3, .5)
    return box(m, 0, y, top - thick * .7, w - .004, length, thick * .7 + .085, .03)


def _pillows(rng: Rng, pillow: Material, w: float, d: float, top: float) -> list[Primitive]:
    "Two pillows and up to three cushions"
    parts = _two_pillows(rng, pillow, w, -d / 2 + .3, top)
    n_cushions = draw_int(rng, 0, 3)
    return parts + [_cushion(rng, w, -d / 2 + .52, top + .1) for _ in range(n_cushions)]


def _two_pillows(rng: Rng, pillow: Material, w: float, y: float, top: float) -> list[Primitive]:
    "Side by side, flat or leaning; the more they lean the higher they are"
    lean = rng.uniform(0, 50)
    width, z = min(.68, w / 2 - .05), top + .02 + .0022 * lean
    parts = []
    for x in SIDES:
        turn = (-lean, 0, rng.uniform(-6, 6))
        parts.append(soft(pillow, x * w / 4, y, z, width, .42, .17, .45, turn))
    return parts


def _cushion(rng: Rng, w: float, y: float, z: float) -> Primitive:
    m = draw_textile(rng)
    x, lean, turn = draw_sizes(rng, (-.3, .3), (40, 60), (-15, 15))
    return soft(m, x * w, y, z, .4, .36, .15, .5, (-lean, 0, turn))
