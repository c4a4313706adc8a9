"Things to sit on"

from __future__ import annotations

from virtual_room.furniture.draws import draw_color, draw_sizes
from virtual_room.furniture.materials import Material, Rng, Style, draw_textile
from virtual_room.furniture.primitives import SIDES, box, legs, model_of, soft
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import WANTED, OnFloor, Turn
from virtual_room.scene import Model, Primitive


@furniture(
    label="furniture_armchair",
    place=OnFloor(turn=Turn.SEAT, chance=WANTED, near_wall=.8, faces_middle=True, tries=80),
)
def armchair(rng: Rng, style: Style) -> Model:
    "Upholstered, in fabric or leather, on feet of any height"
    w, d, seat, back = draw_sizes(rng, (.7, .95), (.72, .92), (.3, .36), (.75, 1.05))
    textile, arm, foot = draw_textile(rng), rng.uniform(.1, .18), rng.choice([.03, .1, .16])
    m = _leather(rng) if rng.random() < .3 else textile
    parts = [*legs(rng, style.wood, w, d, foot), _base(m, w, d, seat, foot)]
    parts += _arms(rng, m, w, d, arm, foot)
    parts.append(_back(m, w - arm * .6, d, foot, back))
    parts += _seat(rng, m, w - 2 * arm, d, seat, back)
    return model_of("armchair", (w, d, back), parts)


def _base(m: Material, w: float, d: float, seat: float, foot: float) -> Primitive:
    "The block between the feet and the seat"
    return box(m, 0, 0, foot, w, d, seat - foot, .04)


def _arms(rng: Rng, m: Material, w: float, d: float, arm: float, foot: float) -> list[Primitive]:
    "An arm at each side of a chair of width `w`"
    return [_arm(rng, m, x * (w - arm) / 2, arm, d, foot) for x in SIDES]


def _seat(rng: Rng, m: Material, between: float, d: float, seat: float, back: float) -> list[Primitive]:
    "Loose cushions or a firm seat in the space between the arms"
    if rng.random() < .5:
        return _loose_cushions(m, between, d, seat, back)
    return _firm_seat(rng, m, between, d, seat)


def _leather(rng: Rng) -> Material:
    return Material(draw_color(rng, (.02, .09), (.2, .7), (.2, .6)))


def _arm(rng: Rng, m: Material, x: float, w: float, d: float, foot: float) -> Primitive:
    return box(m, x, .02, foot, w, d - .04, rng.uniform(.5, .62) - foot, .05)


def _back(m: Material, w: float, d: float, foot: float, height: float) -> Primitive:
    return box(m, 0, -d / 2 + .13, foot, w, .18, height - foot - .04, .07, (6, 0, 0))


def _loose_cushions(m: Material, between: float, d: float, seat: float, back: float) -> list[Primitive]:
    "A soft seat and a soft back, a little wider than the space between the arms"
    w = between + .02
    return [
        soft(m, 0, .07, seat - .03, w, d - .18, .2, .4),
        soft(m, 0, -d / 2 + .26, seat + .08, w, .2, back - seat - .1, .4, (8, 0, 0)),
    ]


def _firm_seat(rng: Rng, m: Material, between: float, d: float, seat: float) -> list[Primitive]:
    "A firm seat and perhaps a cushion on it"
    parts = [box(m, 0, .06, seat - .02, between, d - .2, .15, .05)]
    if rng.random() < .6:
        parts.append(_cushion(rng, -d / 2 + .3, seat + .22))
    return parts


def _cushion(rng: Rng, y: float, z: float) -> Primitive:
    m, x = draw_textile(rng), rng.uniform(-.08, .08)
    return soft(m, x, y, z, .42, .38, .14, .5, (-62, 0, rng.uniform(-15, 15)))
