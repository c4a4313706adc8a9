"Lamps: on the floor, on tables and from the ceiling"

from __future__ import annotations

from dataclasses import replace

from virtual_room.furniture.draws import draw_sizes, one_of
from virtual_room.furniture.materials import Material, Rng, Style, draw_ceramic
from virtual_room.furniture.primitives import box, lathe, model_of, rod
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import ITEM_WANTED, WANTED, FromCeiling, OnEach, OnFloor, Turn
from virtual_room.scene import Model, Primitive, Vec
from virtual_room.textures import hsv

STRENGTH = {"floor lamp": .9, "night lamp": .35, "ceiling lamp": 1.6}  # of the light, by kind
EMISSION = .9  # of a shade whose lamp is on
SHADES = (
    ((1, 0), (.6, 1), (.58, 1), (.98, 0)),
    ((1, 0), (1, 1), (.97, 1), (.97, 0)),
    ((1, 0), (.35, 1), (.33, 1), (.98, 0)),
    ((.2, 0), (.8, .15), (1, .5), (.8, .85), (.2, 1)),
)
FEET = (
    ((0, 0), (.5, 0), (.9, .2), (1, .4), (.7, .7), (.35, .85), (.5, 1), (.42, 1), (.25, .8), (0, .5)),
    ((0, 0), (.6, 0), (.7, .5), (1, 1), (.92, 1), (.6, .5), (0, .1)),
    ((0, 0), (.8, 0), (1, .25), (.9, .5), (.3, .65), (.25, .9), (.4, 1), (.3, 1), (.15, .8), (0, .6)),
    ((0, 0), (.9, 0), (1, .1), (1, .95), (.95, 1), (.85, 1), (.85, .3), (0, .3)),
    ((0, 0), (.4, 0), (.6, .1), (1, .55), (.95, .75), (.6, .92), (.65, 1), (.55, 1), (.5, .9), (0, .5)),
)
ROUND_BASE = ((0, 0), (1, 0), (1, .5), (.2, 1), (0, 1))


def switched_on(model: Model) -> Model:
    "A lamp whose shade gives light"
    parts = [replace(p, emission=EMISSION) if _is_shade(p) else p for p in model.primitives]
    return replace(model, primitives=tuple(parts))


def _is_shade(p: Primitive) -> bool:
    return p.shape[0] == "lathe" and p.shape[1] in SHADES


def _shade(rng: Rng, z: float, w: float, h: float) -> Primitive:
    "Mostly white or cream, sometimes of a color"
    profile = one_of(rng, SHADES)
    return lathe(Material(_shade_color(rng)), profile, z, w, h)


def _shade_color(rng: Rng) -> Vec:
    if rng.random() < .75:
        return hsv(rng.uniform(.05, .15), rng.choice([.05, .2]), .97)
    return hsv(rng.random(), .5, .7)


@furniture(label="furniture_floor_lamp", place=OnFloor(turn=Turn.FLOOR_LAMP, chance=WANTED, gap=.03, near_wall=1.0))
def floor_lamp(rng: Rng, style: Style) -> Model:
    "A shade on a stem with a round base or three legs"
    h, w, base = draw_sizes(rng, (1.35, 1.8), (.28, .5), (.22, .32))
    stem = style.metal if rng.random() < .6 else style.wood
    shade_height = rng.uniform(.2, .35)
    if rng.random() < .7:
        foot = [lathe(stem, ROUND_BASE, 0, base, .05), rod(stem, 0, 0, .03, .03, h - .1)]
    else:
        foot = _tripod(stem, h)
    shade = _shade(rng, h - shade_height, w, shade_height)
    side = max(w, base, .36)
    return model_of("floor lamp", (side, side, h), [*foot, shade])


def _tripod(m: Material, h: float) -> list[Primitive]:
    parts = []
    for x, y in ((-1, -1), (1, -1), (0, 1)):
        parts.append(box(m, x * .09, y * .09, 0, .022, .022, h * .75, 0, (-y * 8, x * 8, 0)))
    return [*parts, rod(m, 0, 0, h * .65, .03, h * .25)]


@furniture(label="items_nightLamp", place=OnEach(turn=Turn.TABLE_LAMP, chance=ITEM_WANTED, carrier="night_table"))
def night_lamp(rng: Rng, style: Style) -> Model:
    "A small shade on a turned foot"
    h, w = draw_sizes(rng, (.3, .48), (.18, .28))
    profile = one_of(rng, FEET)
    m = rng.choice([style.metal, style.wood, draw_ceramic(rng)])
    foot = h * rng.uniform(.45, .6)
    parts = [lathe(m, profile, 0, w * rng.uniform(.35, .65), foot)]
    parts.append(rod(style.metal, 0, 0, foot - .01, .02, h * .15))
    parts.append(_shade(rng, foot + .01, w, h - foot - .01))
    return model_of("night lamp", (w, w, h), parts)


@furniture(label="empty", place=FromCeiling(turn=Turn.CEILING_LAMP))
def ceiling_lamp(rng: Rng, style: Style) -> Model:
    "A shade on a cable; unlabelled"
    size, drop = draw_sizes(rng, (.25, .45), (.12, .5))
    rng.random(6)  # taken and not used since the first version: without it every seed would give other rooms
    shade = _shade(rng, 0, size, .15)
    cable = rod(style.metal, 0, 0, .12, .02, drop - .12)
    return model_of("ceiling lamp", (size, size, drop), [shade, cable])
