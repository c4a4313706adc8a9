"What makes a room pleasant: rugs, pictures, clocks, plants"

from __future__ import annotations

import numpy as np

from virtual_room.furniture.draws import draw_color, draw_sizes
from virtual_room.furniture.materials import Material, Rng, Style, draw_ceramic
from virtual_room.furniture.primitives import box, lathe, model_of, picture
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import ITEM_WANTED, WANTED, Chance, FlatInMiddle, OnFloor, OnWall, Turn
from virtual_room.scene import Model, Primitive, Vec
from virtual_room.textures import pick

BY_A_WALL = dict(turn=Turn.DECORATION, chance=Chance("distractors", .6), near_wall=1.0)
POT = ((0, 0), (.9, 0), (1, .1), (1, .95), (.95, 1), (.85, 1), (.85, .3), (0, .3))
BASKET = ((0, 0), (.8, 0), (1, 1), (.95, 1), (.75, .08), (0, .08))
CLOCK_CASE = ((0, 0), (1, 0), (1, .7), (.97, 1), (.88, 1), (.86, .8), (0, .8))
CLOCK_DISC = ((0, 0), (1, .0), (1, 1), (0, 1))
BLACK, OFF_WHITE = Material((.08, .08, .08)), Material((.95, .95, .93))
MAT = (.96, .95, .92)  # color of the paper around a picture
LEAVES = 14
GOLDEN_ANGLE = 137.5  # degrees from leaf to leaf


@furniture(label="furniture_rug", place=FlatInMiddle(turn=Turn.RUG, chance=WANTED))
def rug(rng: Rng, style: Style) -> Model:
    "A thin plate with a pattern on top"
    w, d = draw_sizes(rng, (1.2, 2.4), (.8, 1.7))
    pattern = pick(rng, "rug")
    top = Primitive(("panel", 10, 8), (w, 1, d), (0, 0, .012), (1, 1, 1), pattern, 0, (90, 0, 0))
    return model_of("rug", (w, d, .012), [box(Material((.5, .47, .42)), 0, 0, 0, w, d, .005), top])


@furniture(
    label="furniture_painting",
    place=OnWall(turn=Turn.PAINTING, height=(1.5, 1.7), is_height_of_middle=True, gap=.08, count=(1, 4)),
)
def painting(rng: Rng, style: Style) -> Model:
    "A picture in a frame, perhaps with a mat"
    w, h = _painting_size(rng)
    border, depth = draw_sizes(rng, (.015, .06), (.02, .04))
    frame = rng.choice([style.wood, style.metal, BLACK, OFF_WHITE])
    parts = [box(frame, 0, 0, 0, w, depth, h, .006)]
    if rng.random() < .4:
        parts.append(_inside_frame("plain", depth / 2 + .003, w, h, border, MAT))
        border += rng.uniform(.04, .09)
    parts.append(_inside_frame(pick(rng, "painting"), depth / 2 + .006, w, h, border))
    return model_of("painting", (w, depth, h), parts)


def _painting_size(rng: Rng) -> tuple[float, float]:
    "Width and height, more often wide than high"
    sides = rng.uniform(.3, 1.05, 2)
    is_wide = rng.random() < .6
    w, h = sorted(sides, reverse=is_wide)
    return w, h


def _inside_frame(texture: str, y: float, w: float, h: float, border: float, color: Vec = (1, 1, 1)) -> Primitive:
    "A picture that leaves a border"
    return picture(texture, 0, y, h / 2, w - 2 * border, h - 2 * border, color=color)


@furniture(
    label="furniture_clock",
    place=OnWall(turn=Turn.CLOCK, chance=ITEM_WANTED, height=(1.5, 1.85), gap=.08),
)
def clock(rng: Rng, style: Style) -> Model:
    "Round with a rim, or square"
    w = rng.uniform(.26, .46)
    rim = rng.choice([style.wood, style.metal, Material((.1, .1, .1)), Material((.9, .9, .9))])
    dial = pick(rng, "clock")
    if rng.random() < .75:
        parts = _round_clock(rim, dial, w)
    else:
        parts = [box(rim, 0, 0, 0, w, .04, w, .01), picture(dial, 0, .022, w / 2, w * .86, w * .86)]
    return model_of("clock", (w, .045, w), parts)


def _round_clock(rim: Material, dial: str, w: float) -> list[Primitive]:
    to_front = (-90, 0, 0)
    case, disc = ("lathe", CLOCK_CASE, 24), ("lathe", CLOCK_DISC, 24)
    return [
        Primitive(case, (w, w, .045), (0, 0, w / 2), rim.color, rim.texture, rim.tile, to_front),
        Primitive(disc, (w * .88, w * .88, .002), (0, .0145, w / 2), (.96, .96, .94), rotation=to_front),
        picture(dial, 0, .0195, w / 2, w * .61, w * .61),
    ]


@furniture(label="empty", place=OnFloor(**BY_A_WALL))
def plant(rng: Rng, style: Style) -> Model:
    "A pot of leaves; unlabelled"
    w, h, pot = draw_sizes(rng, (.25, .4), (.6, 1.2), (.2, .32))
    color = draw_color(rng, (.22, .38), (.4, .7), (.25, .6))
    parts = [lathe(draw_ceramic(rng), POT, 0, w * .8, pot)]
    parts += [_leaf(rng, color, i * GOLDEN_ANGLE, w, h, pot) for i in range(LEAVES)]
    return model_of("plant", (w, w, h), parts)


def _leaf(rng: Rng, color: tuple, turn: float, w: float, h: float, pot: float) -> Primitive:
    "A leaf that leans outwards"
    z = pot + (h - pot) * rng.uniform(.1, .62)
    angle, reach = np.radians(turn), w * rng.uniform(.1, .32)
    center = (-np.sin(angle) * reach, np.cos(angle) * reach, z)
    size = (w * .3, w * .07, (h - pot) * .5)
    return Primitive(("soft", 1.0, 6, 4), size, center, color, rotation=(-rng.uniform(15, 40), 0, turn))


@furniture(label="empty", place=OnFloor(**BY_A_WALL))
def basket(rng: Rng, style: Style) -> Model:
    "Woven and open; unlabelled"
    w, h = draw_sizes(rng, (.24, .4), (.26, .42))
    color = draw_color(rng, (.05, .12), (.1, .5), (.4, .9))
    return model_of("basket", (w, w, h), [lathe(Material(color, "carpet:1", .2), BASKET, 0, w, h)])
