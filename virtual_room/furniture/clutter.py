"What lies about on the floor; all of it is unlabelled"

from __future__ import annotations

from virtual_room.furniture.draws import draw_sizes
from virtual_room.furniture.materials import Material, Rng, Style, draw_textile
from virtual_room.furniture.primitives import SIDES, box, model_of, soft
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import CLUTTER
from virtual_room.scene import Model, Primitive
from virtual_room.textures import hsv


@furniture(label="empty", place=CLUTTER)
def parcel(rng: Rng, style: Style) -> Model:
    "A cardboard box, open or taped"
    w, d, h = draw_sizes(rng, (.2, .45), (.18, .35), (.12, .32))
    m = Material(hsv(.08, rng.uniform(.3, .5), rng.uniform(.55, .8)))
    parts = [box(m, 0, 0, 0, w, d, h)]
    if rng.random() < .5:
        parts.append(_tape(d, h))
    else:
        parts += [_flap(m, y, w, d, h) for y in SIDES]
    return model_of("parcel", (w + .02, d + .02, h + .08), parts)


def _tape(d: float, h: float) -> Primitive:
    "A strip along the middle of the upper side"
    return box(Material((.85, .8, .68)), 0, 0, h, .05, d, .002)


def _flap(m: Material, side: int, w: float, d: float, h: float) -> Primitive:
    "One half of the lid, turned outwards"
    return box(m, 0, side * (d / 2 - .045), h - .02, w - .01, .004, .1, 0, (-side * 65, 0, 0))


@furniture(label="empty", place=CLUTTER)
def ball(rng: Rng, style: Style) -> Model:
    "A ball to play with"
    w = rng.uniform(.12, .26)
    return model_of("ball", (w, w, w), [soft(draw_textile(rng), 0, 0, 0, w, w, w)])


@furniture(label="empty", place=CLUTTER)
def slippers(rng: Rng, style: Style) -> Model:
    "A pair"
    m, sole = draw_textile(rng), Material((.2, .18, .16))
    parts = []
    for x in SIDES:
        turn = (0, 0, rng.uniform(-12, 12))
        parts.append(box(sole, x * .07, 0, 0, .09, .26, .02, .008, turn))
        parts.append(soft(m, x * .07, .05, .0, .1, .17, .09, .8, turn))
    return model_of("slippers", (.28, .3, .09), parts)


@furniture(label="empty", place=CLUTTER)
def clothes(rng: Rng, style: Style) -> Model:
    "A heap of what somebody took off"
    parts = []
    for _ in range(3):
        m = draw_textile(rng)
        x, y = draw_sizes(rng, (-.08, .08), (-.08, .08))
        w, d, h = draw_sizes(rng, (.25, .4), (.2, .35), (.06, .13))
        parts.append(soft(m, x, y, .0, w, d, h, .8, (0, 0, rng.uniform(0, 180))))
    return model_of("clothes", (.56, .56, .13), parts)


@furniture(label="empty", place=CLUTTER)
def floor_cushion(rng: Rng, style: Style) -> Model:
    "A thick cushion"
    w, h = draw_sizes(rng, (.38, .6), (.12, .2))
    return model_of("cushion", (w, w, h), [soft(draw_textile(rng), 0, 0, 0, w, w, h, .5)])
