"Dogs"

from __future__ import annotations

from dataclasses import dataclass, replace

from virtual_room.furniture.draws import one_of
from virtual_room.furniture.materials import Material, Rng, Style
from virtual_room.furniture.primitives import SIDES, box, lathe, model_of, soft
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import Chance, OnFloor, Turn
from virtual_room.scene import Model, Primitive, Vec
from virtual_room.textures import hsv, pick

LEG = ((0, 0), (.7, 0), (.7, .5), (1, 1), (0, 1))
DARK = Material((.04, .04, .04))


@dataclass(frozen=True)
class Coat:
    "Two kinds of fur, often the same"
    main: Material
    second: Material


@furniture(label="live_dog", place=OnFloor(turn=Turn.PET, chance=Chance("dog"), gap=.05))
def dog(rng: Rng, style: Style) -> Model:
    "Standing, sitting or lying; of any size and coat"
    scale = rng.uniform(.75, 1.35)
    color = hsv(rng.uniform(.06, .11), rng.uniform(0, .55), rng.choice([.1, .25, .45, .7, .92]))
    shade = rng.uniform(.5, 1.6)
    main = Material(color, pick(rng, "fur"), .3)
    second = Material(tuple(min(1.0, c * shade) for c in color), pick(rng, "fur"), .3)
    pose = one_of(rng, (_standing, _sitting, _lying))
    coat = Coat(main, second if rng.random() < .5 else main)
    parts, size = pose(rng, coat)
    return model_of("dog", _scaled(size, scale), [_scaled_primitive(p, scale) for p in parts])


def _scaled(values: Vec, scale: float) -> Vec:
    return tuple(v * scale for v in values)


def _scaled_primitive(p: Primitive, scale: float) -> Primitive:
    return replace(p, size=_scaled(p.size, scale), center=_scaled(p.center, scale))


def _head(rng: Rng, coat: Coat, y: float, z: float) -> list[Primitive]:
    "A head whose middle is at (0, y, z), looking along +y"
    skull = soft(coat.main, 0, y, z - .075, .15, .18, .15)
    snout = soft(coat.second, 0, y + .1, z - .07, .08, .15, .075, .8)
    nose = soft(DARK, 0, y + .165, z - .025, .035, .03, .028)
    ears = _hanging_ears(coat, y, z) if rng.random() < .6 else _pricked_ears(coat, y, z)
    eyes = [soft(DARK, x * .038, y + .068, z + .012, .022, .02, .022) for x in SIDES]
    return [skull, snout, nose, *ears, *eyes]


def _hanging_ears(coat: Coat, y: float, z: float) -> list[Primitive]:
    return [soft(coat.second, x * .075, y - .02, z - .06, .03, .07, .13, 1, (0, x * 15, 0)) for x in SIDES]


def _pricked_ears(coat: Coat, y: float, z: float) -> list[Primitive]:
    return [soft(coat.second, x * .05, y - .02, z + .02, .05, .07, .13, 1, (0, x * -8, 0)) for x in SIDES]


def _leg(m: Material, x: float, y: float, h: float) -> list[Primitive]:
    return [lathe(m, LEG, 0, .075, h, x, y), soft(m, x, y + .02, 0, .07, .11, .05, .8)]


def _standing(rng: Rng, coat: Coat) -> tuple[list[Primitive], Vec]:
    m = coat.main
    parts = [soft(m, 0, -.05, .24, .2, .52, .22, .8)]
    parts.append(soft(m, 0, .14, .23, .22, .26, .26, .85))
    parts.append(soft(m, 0, .25, .36, .12, .16, .26, .9, (-30, 0, 0)))
    for x in SIDES:
        parts += _leg(m, x * .065, -.22, .32) + _leg(coat.second, x * .065, .18, .32)
    parts.append(soft(m, 0, -.36, .36, .05, .06, .28, .9, (rng.uniform(20, 60), 0, 0)))
    return parts + _head(rng, coat, .33, .58), (.26, .98, .68)


def _sitting(rng: Rng, coat: Coat) -> tuple[list[Primitive], Vec]:
    m = coat.main
    parts = [soft(m, 0, -.12, .0, .28, .34, .3, .85)]
    parts.append(soft(m, 0, -.01, .05, .21, .24, .5, .8, (18, 0, 0)))
    parts.append(soft(m, 0, .08, .38, .12, .14, .22, .9))
    for x in SIDES:
        parts += _leg(coat.second, x * .06, .12, .32)
    parts += [soft(m, x * .12, .0, 0, .1, .26, .1, .8) for x in SIDES]
    parts.append(soft(m, .05, -.32, .0, .06, .24, .06, .9, (0, 0, 20)))
    return parts + _head(rng, coat, .14, .64), (.36, .92, .74)


def _lying(rng: Rng, coat: Coat) -> tuple[list[Primitive], Vec]:
    m = coat.main
    parts = [soft(m, 0, -.05, 0, .26, .58, .22, .75)]
    parts.append(soft(m, 0, .18, .0, .24, .26, .25, .8))
    parts.append(soft(m, 0, .27, .12, .13, .16, .22, .9, (-20, 0, 0)))
    parts += [box(coat.second, x * .1, .33, 0, .06, .26, .055, .02) for x in SIDES]
    parts += [soft(m, x * .13, -.2, 0, .1, .28, .15, .85) for x in SIDES]
    parts.append(soft(m, .06, -.42, 0, .05, .3, .05, .9, (0, 0, 25)))
    return parts + _head(rng, coat, .36, .34), (.38, 1.14, .44)
