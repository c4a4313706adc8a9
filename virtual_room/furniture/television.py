"Televisions"

from __future__ import annotations

from virtual_room.furniture.materials import Material, Rng, Style
from virtual_room.furniture.primitives import SIDES, box, model_of, picture
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import Turn, Upon
from virtual_room.scene import Model, Primitive
from virtual_room.textures import pick


@furniture(label="items_tv", place=Upon(turn=Turn.TELEVISION, carrier="tv_stand", width_share=.9))
def tv(rng: Rng, style: Style, width: float = 1.0) -> Model:
    "A flat screen of at most `width` meters on one foot or two"
    w = min(width, rng.uniform(.8, 1.3))
    h, shade = w * .58, rng.uniform(.03, .12)
    m = Material((shade, shade, shade))
    parts = [*_screen(rng, m, w, h), *_stand(rng, m, w)]
    return model_of("television", (w, .2, h + .06), parts)


def _screen(rng: Rng, m: Material, w: float, h: float) -> list[Primitive]:
    "A case and what is shown on it"
    case = box(m, 0, 0, .06, w, .05, h, .008)
    shown = picture(pick(rng, "screen"), 0, .026, .06 + h / 2 + .005, w - .03, h - .035, emission=.75)
    return [case, shown]


def _stand(rng: Rng, m: Material, w: float) -> list[Primitive]:
    "A foot in the middle, or one at each side"
    if rng.random() < .5:
        return [box(m, 0, 0, 0, w * .35, .2, .015, .004), box(m, 0, -.01, .01, .06, .03, .07)]
    return [box(m, x * w * .33, 0, 0, .03, .2, .06, 0) for x in SIDES]
