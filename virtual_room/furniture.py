"""Parametric furniture and small things: each builder draws one model of its label from a random generator and a style.

Must not know where a model will stand, how it is lit or drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import Callable

import numpy as np

from virtual_room.assets import Asset, stand_in
from virtual_room.scene import Model, Part, Top, Vec
from virtual_room.textures import hsv, pick

Rng = np.random.Generator


@dataclass(frozen=True)
class Material:
    colour: Vec
    texture: str = "plain"
    tile: float = 1.0


@dataclass(frozen=True)
class Style:
    "What the furniture of one room has in common"
    wood: Material
    front: Material
    metal: Material
    textiles: tuple[Material, ...]
    assets: tuple[Asset, ...] = ()  # models of one's own, and the share of things that they stand in for
    share: float = 0.0

    def textile(self, rng: Rng) -> Material: return self.textiles[int(rng.integers(len(self.textiles)))]


def replaceable(make: Callable[..., Model]) -> Callable[..., Model]:
    "A builder whose model may give way to one of its label of one's own"
    @wraps(make)
    def made(rng: Rng, style: Style, *args, **kwargs) -> Model:
        model = make(rng, style, *args, **kwargs)
        own = [a for a in style.assets if a.label == model.label]
        return stand_in(model, own[int(rng.integers(len(own)))]) if own and rng.random() < style.share else model
    return made


def draw_style(rng: Rng, assets: tuple[Asset, ...] = (), share: float = 0.0) -> Style:
    wood = draw_wood(rng)
    front = wood if rng.random() < .6 else draw_wood(rng)
    shine = rng.uniform(.1, .8)
    metal = Material((shine, shine, shine) if rng.random() < .7 else hsv(.12, .45, rng.uniform(.5, .85)))
    return Style(wood, front, metal, tuple(draw_textile(rng) for _ in range(4)), assets, share)


def draw_wood(rng: Rng) -> Material:
    "Stained wood, or painted white, grey, black or a colour"
    kind = rng.random()
    if kind < .6: return Material(hsv(rng.uniform(.04, .11), rng.uniform(.3, .7), rng.uniform(.3, 1)), pick(rng, "wood"), .5)
    if kind < .92: return Material(hsv(rng.uniform(.05, .6), rng.uniform(0, .08), rng.choice([.95, .9, .6, .25, .12])))
    return Material(hsv(rng.random(), rng.uniform(.1, .45), rng.uniform(.3, .9)))


def draw_textile(rng: Rng) -> Material:
    saturation = rng.choice([.03, .06, .1, .18, .3, .5])
    return Material(hsv(rng.random(), saturation, rng.choice([1, .9, .75, .5, .3]) - .25 * saturation), pick(rng, "fabric"), float(rng.uniform(.25, .6)))


def box(m: Material, x: float, y: float, z: float, w: float, d: float, h: float, r: float = 0.0, turn: Vec = (0, 0, 0)) -> Part:
    "A box over the point (x, y), its bottom at z; r cuts the edges"
    r = min(r, .45 * min(w, d, h))
    return Part(("bevel", round(r, 3)) if r >= .002 else ("box",), (w, d, h), (x, y, z + h / 2), m.colour, m.texture, m.tile, turn)


def soft(m: Material, x: float, y: float, z: float, w: float, d: float, h: float, power: float = 1.0, turn: Vec = (0, 0, 0)) -> Part:
    return Part(("soft", power), (w, d, h), (x, y, z + h / 2), m.colour, m.texture, m.tile, turn)


def turned_part(m: Material, profile: tuple, z: float, w: float, h: float, x: float = 0, y: float = 0, glow: float = 0) -> Part:
    return Part(("lathe", profile), (w, w, h), (x, y, z + h / 2), m.colour, m.texture, m.tile, glow=glow)


ROD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def rod(m: Material, x: float, y: float, z: float, w: float, h: float) -> Part: return turned_part(m, ROD, z, w, h, x, y)


def picture(texture: str, x: float, y: float, z: float, w: float, h: float, glow: float = 0, colour: Vec = (1, 1, 1), turn: Vec = (0, 0, 0)) -> Part:
    "A flat picture that looks along +y, its middle at (x, y, z)"
    return Part(("panel", 1, 1), (w, 1, h), (x, y, z), colour, texture, 0, turn, glow)


def legs(rng: Rng, m: Material, w: float, d: float, h: float) -> list[Part]:
    "Four legs under a box of that base"
    t = rng.uniform(.03, .06)
    make = rod if rng.random() < .5 else lambda m, x, y, z, t, h: box(m, x, y, z, t, t, h)
    return [make(m, x * (w / 2 - t), y * (d / 2 - t), 0, t, h) for x in (-1, 1) for y in (-1, 1)]


def handle(rng_kind: float, m: Material, x: float, y: float, z: float, w: float) -> Part:
    "A knob or a bar in front of a drawer"
    if rng_kind < .5: return soft(m, x, y, z - .018, .036, .036, .036)
    return box(m, x, y, z - .008, min(.16, w * .5), .025, .016)


def cabinet(rng: Rng, style: Style, w: float, d: float, h: float, columns: int, rows: int, doors: bool = False) -> tuple[Part, ...]:
    "A carcass on legs or a plinth with drawer fronts (or doors) and handles"
    foot = rng.choice([.02, .06, .14]) if h > .3 else .03
    body, front = style.wood, style.front
    parts = legs(rng, body, w, d - .02, foot) if foot > .1 else [box(body, 0, -.01, 0, w - .04, d - .06, foot)]
    parts.append(box(body, 0, -.01, foot, w, d - .02, h - foot - .025, .006))
    parts.append(box(body if rng.random() < .7 else front, 0, 0, h - .025, w, d, .025, .006))
    kind, cw, ch = rng.random(), (w - .03) / columns, (h - foot - .045) / rows
    for i in range(columns * rows):
        x, z = -w / 2 + .015 + cw * (i % columns + .5), foot + .01 + ch * (i // columns)
        parts.append(box(front, x, d / 2 - .012, z, cw - .012, .02, ch - .012, .004))
        at = x + (cw / 2 - .05) * (1 if i % columns < columns / 2 else -1) if doors else x
        parts.append(handle(0 if doors else kind, style.metal, at, d / 2 + .005, z + ch * (.6 if doors else .55), cw))
    return tuple(parts)


def top_of(w: float, d: float, h: float, headroom: float = 10.0) -> tuple[Top, ...]:
    return (Top(-w / 2 + .03, -d / 2 + .03, w / 2 - .03, d / 2 - .03, h, headroom),)


@replaceable
def double_bed(rng: Rng, style: Style) -> Model:
    w, d = rng.uniform(1.4, 1.95), rng.uniform(2.0, 2.2)
    base, thick, head = rng.uniform(.15, .35), rng.uniform(.16, .26), rng.uniform(.75, 1.25)
    sheet, cover, pillow = Material((.97, .97, .95), "fabric:2" if rng.random() < .2 else "plain", .4), style.textile(rng), style.textile(rng)
    back = style.textile(rng) if rng.random() < .4 else style.wood
    top = base + thick
    parts = [box(style.wood, 0, 0, .06, w, d - .04, base - .04, .015), *legs(rng, style.wood, w, d - .1, .07)]
    parts += [*_bed_head(rng, back, w, -d / 2 + .04, head), box(sheet, 0, .03, base, w - .06, d - .12, thick, .06)]
    if rng.random() < .35: parts.append(box(style.wood, 0, d / 2 - .03, .05, w, .06, rng.uniform(base, .75), .015))
    parts += _bedding(rng, cover, pillow if rng.random() < .6 else sheet, w, d, top, thick)
    return Model("furniture_doubleBed", "double bed", (w, d, max(head, top + .3)), tuple(parts))


def _bed_head(rng: Rng, m: Material, w: float, y: float, h: float) -> list[Part]:
    "A board, upholstered fields, or posts and bars"
    kind = rng.random()
    if kind < .45: return [box(m, 0, y, .1, w, .08, h - .1, .03)]
    if kind < .75:
        n = int(rng.integers(2, 6))
        return [box(m, 0, y - .015, .1, w, .05, h - .1, .01), *(box(m, w * ((i + .5) / n - .5), y + .015, .35, w / n - .012, .05, h - .37, .022) for i in range(n))]
    n, rail = int(rng.integers(6, 13)), .07
    posts = [box(m, x * (w / 2 - .03), y, 0, .06, .06, h, .012) for x in (-1, 1)]
    return posts + [box(m, 0, y, z, w - .1, .035, rail, .01) for z in (.3, h - rail - .03)] + [rod(m, (w - .14) * (i / n - .5), y, .33, .022, h - .43) for i in range(n + 1)]


def _bedding(rng: Rng, cover: Material, pillow: Material, w: float, d: float, top: float, thick: float) -> list[Part]:
    "A blanket that hangs over the sides, pillows and perhaps cushions and a throw"
    length = rng.uniform(.55, .78) * d
    parts = [box(cover, 0, d / 2 - .07 - length / 2, top - thick * .75, w - .01, length, thick * .75 + rng.uniform(.03, .07), .045)]
    if rng.random() < .4: parts.append(box(draw_textile(rng), 0, d / 2 - .07 - .25, top - thick * .7, w - .004, rng.uniform(.3, .5), thick * .7 + .085, .03))
    lean = rng.uniform(0, 50)
    for x in (-1, 1):
        turn = (-lean, 0, rng.uniform(-6, 6))
        parts.append(soft(pillow, x * w / 4, -d / 2 + .3, top + .02 + .0022 * lean, min(.68, w / 2 - .05), .42, .17, .45, turn))
    for i in range(int(rng.integers(0, 4))):
        parts.append(soft(draw_textile(rng), rng.uniform(-.3, .3) * w, -d / 2 + .52, top + .1, .4, .36, .15, .5, (-rng.uniform(40, 60), 0, rng.uniform(-15, 15))))
    return parts


@replaceable
def armchair(rng: Rng, style: Style) -> Model:
    w, d, seat, back = rng.uniform(.7, .95), rng.uniform(.72, .92), rng.uniform(.3, .36), rng.uniform(.75, 1.05)
    m, arm, foot = draw_textile(rng), rng.uniform(.1, .18), rng.choice([.03, .1, .16])
    if rng.random() < .3: m = Material(hsv(rng.uniform(.02, .09), rng.uniform(.2, .7), rng.uniform(.2, .6)))
    low = seat - foot
    parts = [*legs(rng, style.wood, w, d, foot), box(m, 0, 0, foot, w, d, low, .04)]
    parts += [box(m, x * (w - arm) / 2, .02, foot, arm, d - .04, rng.uniform(.5, .62) - foot, .05) for x in (-1, 1)]
    parts += [box(m, 0, -d / 2 + .13, foot, w - arm * .6, .18, back - foot - .04, .07, (6, 0, 0))]
    if rng.random() < .5: parts += [soft(m, 0, .07, seat - .03, w - 2 * arm + .02, d - .18, .2, .4), soft(m, 0, -d / 2 + .26, seat + .08, w - 2 * arm + .02, .2, back - seat - .1, .4, (8, 0, 0))]
    else:
        parts += [box(m, 0, .06, seat - .02, w - 2 * arm, d - .2, .15, .05)]
        if rng.random() < .6: parts.append(soft(draw_textile(rng), rng.uniform(-.08, .08), -d / 2 + .3, seat + .22, .42, .38, .14, .5, (-62, 0, rng.uniform(-15, 15))))
    return Model("furniture_armchair", "armchair", (w, d, back), tuple(parts))


@replaceable
def night_table(rng: Rng, style: Style) -> Model:
    w, d, h = rng.uniform(.38, .55), rng.uniform(.34, .44), rng.uniform(.42, .62)
    if rng.random() < .25:
        parts = (*legs(rng, style.wood, w, d, h - .02), box(style.wood, 0, 0, h - .03, w, d, .03, .005),
                 box(style.wood, 0, 0, h * .3, w - .06, d - .06, .02), box(style.front, 0, .01, h - .16, w - .08, d - .04, .13, .004),
                 handle(0, style.metal, 0, d / 2 - .005, h - .09, w))
    else: parts = cabinet(rng, style, w, d, h, 1, int(rng.integers(1, 4)))
    return Model("furniture_nightTable", "night table", (w, d, h), parts, top_of(w, d, h))


@replaceable
def tv_stand(rng: Rng, style: Style) -> Model:
    "A low board: open bays, some of them with a drawer"
    w, d, h = rng.uniform(1.1, 1.8), rng.uniform(.36, .46), rng.uniform(.36, .56)
    foot, bays = rng.choice([.03, .1, .14]), int(rng.integers(2, 4))
    m, t, bay = style.wood, .025, (w - .025) / bays
    parts = [*legs(rng, m, w, d, foot), box(m, 0, 0, foot, w, d, t), box(m, 0, 0, h - t, w, d, t, .005), box(m, 0, -d / 2 + .01, foot, w, .02, h - foot - t)]
    parts += [box(m, -w / 2 + t / 2 + bay * i, 0, foot, t, d - .01, h - foot - t) for i in range(bays + 1)]
    for i in range(bays):
        x = -w / 2 + t / 2 + bay * (i + .5)
        if rng.random() < .5:
            parts.append(box(style.front, x, d / 2 - .02, foot + t, bay - t - .006, .02, h - foot - 2 * t - .006, .004))
            parts.append(handle(rng.random(), style.metal, x, d / 2 - .002, (foot + h) / 2, bay))
        else: parts.append(box(m, x, -.01, foot + (h - foot) * .5, bay - t, d - .03, .018))
    return Model("furniture_tvStand", "tv stand", (w, d, h), tuple(parts), top_of(w, d, h))


@replaceable
def shelf(rng: Rng, style: Style) -> Model:
    "An open bookcase with books, boxes and free boards"
    w, d, h = rng.uniform(.6, 1.2), rng.uniform(.26, .36), rng.uniform(1.2, 2.1)
    boards, t, m = int(rng.integers(3, 6)), .024, style.wood
    step = (h - .06 - t) / boards
    parts = [box(m, x * (w - t) / 2, 0, 0, t, d, h) for x in (-1, 1)] + [box(m, 0, 0, .05 + step * i, w - 2 * t, d - .01, t) for i in range(boards + 1)]
    if rng.random() < .75: parts.append(box(m if rng.random() < .6 else style.front, 0, -d / 2 + .006, .05, w, .012, h - .06))
    tops = []
    for i in range(boards):
        z, fill = .05 + step * i + t, rng.random()
        end = _books(rng, parts, w, d, z, step - t) if fill < .75 else -w / 2 + t
        if w / 2 - end > .2: tops.append(Top(end + .02, -d / 2 + .05, w / 2 - t - .02, d / 2 - .03, z, step - t - .02))
    return Model("furniture_shelf", "bookcase", (w, d, h), tuple(parts), tuple(tops))


def _books(rng: Rng, parts: list[Part], w: float, d: float, z: float, room: float) -> float:
    "A row of books from the left; where it ends"
    x, end, tone = -w / 2 + .03, rng.uniform(-.2, .5) * w - .03, rng.random()
    while x < end:
        b, h = rng.uniform(.03, .075), min(room - .03, rng.uniform(.17, .3))
        m = Material(hsv(tone + rng.choice([0, .1, .5, rng.random()]), rng.uniform(0, .8), rng.uniform(.2, .95)))
        parts.append(box(m, x + b / 2, rng.uniform(-.02, .02), z, b - .003, d * .62, h))
        x += b
    return x


@replaceable
def wall_shelf(rng: Rng, style: Style) -> Model:
    "Boards on brackets"
    w, d, h = rng.uniform(.6, 1.1), rng.uniform(.2, .26), rng.uniform(.28, .5)
    parts = [box(style.wood, 0, 0, z, w, d, .028) for z in (.06, h)] + [box(style.metal, x * w * .35, -d / 2 + .01, 0, .03, .02, h + .05) for x in (-1, 1)]
    end = _books(rng, parts, w, d, .088, h - .12)
    tops = (Top(-w / 2 + .03, -d / 2 + .03, w / 2 - .03, d / 2 - .02, h + .028, .35), Top(end + .02, -d / 2 + .03, w / 2 - .03, d / 2 - .02, .088, h - .1))
    return Model("furniture_shelf", "wall shelf", (w, d, h + .06), tuple(parts), tops)


@replaceable
def commode(rng: Rng, style: Style) -> Model:
    "Wide and waist-high: drawers or doors in two or three columns"
    w, d, h = rng.uniform(1.0, 1.6), rng.uniform(.4, .52), rng.uniform(.7, .95)
    doors = rng.random() < .35
    parts = cabinet(rng, style, w, d, h, int(rng.integers(2, 4)), 1 if doors else int(rng.integers(2, 4)), doors)
    return Model("furniture_commode", "commode", (w, d, h), parts, top_of(w, d, h))


@replaceable
def drawer(rng: Rng, style: Style) -> Model:
    "A narrow, tall chest: one column of drawers"
    w, d, h = rng.uniform(.45, .8), rng.uniform(.38, .48), rng.uniform(.85, 1.35)
    return Model("furniture_drawer", "chest of drawers", (w, d, h), cabinet(rng, style, w, d, h, 1, int(rng.integers(4, 7))), top_of(w, d, h))


@replaceable
def rug(rng: Rng, style: Style) -> Model:
    w, d = rng.uniform(1.2, 2.4), rng.uniform(.8, 1.7)
    flat = Part(("panel", 10, 8), (w, 1, d), (0, 0, .012), (1, 1, 1), pick(rng, "rug"), 0, (90, 0, 0))
    return Model("furniture_rug", "rug", (w, d, .012), (box(Material((.5, .47, .42)), 0, 0, 0, w, d, .005), flat))


@replaceable
def painting(rng: Rng, style: Style) -> Model:
    w, h = sorted(rng.uniform(.3, 1.05, 2), reverse=rng.random() < .6)
    border, depth = rng.uniform(.015, .06), rng.uniform(.02, .04)
    frame = rng.choice([style.wood, style.metal, Material((.08, .08, .08)), Material((.95, .95, .93))])
    parts = [box(frame, 0, 0, 0, w, depth, h, .006)]
    if rng.random() < .4:
        parts.append(picture("plain", 0, depth / 2 + .003, h / 2, w - 2 * border, h - 2 * border, colour=(.96, .95, .92)))
        border += rng.uniform(.04, .09)
    parts.append(picture(pick(rng, "painting"), 0, depth / 2 + .006, h / 2, w - 2 * border, h - 2 * border))
    return Model("furniture_painting", "painting", (w, depth, h), tuple(parts))


@replaceable
def clock(rng: Rng, style: Style) -> Model:
    w = rng.uniform(.26, .46)
    rim = rng.choice([style.wood, style.metal, Material((.1, .1, .1)), Material((.9, .9, .9))])
    dial = pick(rng, "clock")
    if rng.random() < .75:
        body = Part(("lathe", ((0, 0), (1, 0), (1, .7), (.97, 1), (.88, 1), (.86, .8), (0, .8)), 24), (w, w, .045), (0, 0, w / 2), rim.colour, rim.texture, rim.tile, (-90, 0, 0))
        disc = Part(("lathe", ((0, 0), (1, .0), (1, 1), (0, 1)), 24), (w * .88, w * .88, .002), (0, .0145, w / 2), (.96, .96, .94), turn=(-90, 0, 0))
        parts = (body, disc, picture(dial, 0, .0195, w / 2, w * .61, w * .61))
    else: parts = (box(rim, 0, 0, 0, w, .04, w, .01), picture(dial, 0, .022, w / 2, w * .86, w * .86))
    return Model("furniture_clock", "clock", (w, .045, w), parts)


SHADES = (((1, 0), (.6, 1), (.58, 1), (.98, 0)), ((1, 0), (1, 1), (.97, 1), (.97, 0)), ((1, 0), (.35, 1), (.33, 1), (.98, 0)), ((.2, 0), (.8, .15), (1, .5), (.8, .85), (.2, 1)))


def _shade(rng: Rng, z: float, w: float, h: float, lit: bool) -> Part:
    profile = SHADES[int(rng.integers(len(SHADES)))]
    colour = hsv(rng.uniform(.05, .15), rng.choice([.05, .2]), .97) if rng.random() < .75 else hsv(rng.random(), .5, .7)
    return turned_part(Material(colour), profile, z, w, h, glow=.9 if lit else 0)


@replaceable
def floor_lamp(rng: Rng, style: Style, lit: bool = False) -> Model:
    h, w, base = rng.uniform(1.35, 1.8), rng.uniform(.28, .5), rng.uniform(.22, .32)
    stem = style.metal if rng.random() < .6 else style.wood
    sh = rng.uniform(.2, .35)
    if rng.random() < .7: foot = [turned_part(stem, ((0, 0), (1, 0), (1, .5), (.2, 1), (0, 1)), 0, base, .05), rod(stem, 0, 0, .03, .03, h - .1)]
    else: foot = [box(stem, x * .09, y * .09, 0, .022, .022, h * .75, 0, (-y * 8, x * 8, 0)) for x, y in ((-1, -1), (1, -1), (0, 1))] + [rod(stem, 0, 0, h * .65, .03, h * .25)]
    return Model("furniture_floor_lamp", "floor lamp", (max(w, base, .36), max(w, base, .36), h), (*foot, _shade(rng, h - sh, w, sh, lit)))


@replaceable
def night_lamp(rng: Rng, style: Style, lit: bool = False) -> Model:
    h, w = rng.uniform(.3, .48), rng.uniform(.18, .28)
    base = VASES[int(rng.integers(len(VASES)))]
    m = rng.choice([style.metal, style.wood, _glaze(rng)])
    foot = h * rng.uniform(.45, .6)
    parts = (turned_part(m, base, 0, w * rng.uniform(.35, .65), foot), rod(style.metal, 0, 0, foot - .01, .02, h * .15), _shade(rng, foot + .01, w, h - foot - .01, lit))
    return Model("items_nightLamp", "night lamp", (w, w, h), parts)


VASES = (((0, 0), (.5, 0), (.9, .2), (1, .4), (.7, .7), (.35, .85), (.5, 1), (.42, 1), (.25, .8), (0, .5)),
         ((0, 0), (.6, 0), (.7, .5), (1, 1), (.92, 1), (.6, .5), (0, .1)),
         ((0, 0), (.8, 0), (1, .25), (.9, .5), (.3, .65), (.25, .9), (.4, 1), (.3, 1), (.15, .8), (0, .6)),
         ((0, 0), (.9, 0), (1, .1), (1, .95), (.95, 1), (.85, 1), (.85, .3), (0, .3)),
         ((0, 0), (.4, 0), (.6, .1), (1, .55), (.95, .75), (.6, .92), (.65, 1), (.55, 1), (.5, .9), (0, .5)))
BOWLS = (((0, 0), (.4, 0), (.42, .1), (.75, .45), (1, 1), (.95, 1), (.7, .5), (.3, .18), (0, .15)),
         ((0, 0), (.5, 0), (.85, .3), (1, .7), (1, 1), (.94, 1), (.92, .7), (.75, .35), (0, .15)))
MUGS = (((0, 0), (.9, 0), (1, .06), (1, 1), (.9, 1), (.9, .12), (0, .1)), ((0, 0), (.6, 0), (.8, .2), (1, 1), (.9, 1), (.7, .25), (0, .1)),
        ((0, 0), (.6, 0), (1, .3), (1, .6), (.9, 1), (.8, 1), (.85, .6), (.6, .2), (0, .1)))
PLATE = ((0, 0), (.55, 0), (.62, .15), (1, .85), (1, 1), (.62, .4), (.5, .25), (0, .25))


def _glaze(rng: Rng) -> Material:
    "Ceramic or glass of a clear colour"
    return Material(hsv(rng.random(), rng.choice([.03, .3, .6, .85]), rng.choice([.95, .8, .55, .3])))


@replaceable
def vase(rng: Rng, style: Style) -> Model:
    w, h = rng.uniform(.11, .2), rng.uniform(.2, .38)
    parts = [turned_part(_glaze(rng), VASES[int(rng.integers(len(VASES)))], 0, w, h)]
    return Model("items_vase", "vase", (w, w, h), tuple(parts))


@replaceable
def bowl(rng: Rng, style: Style) -> Model:
    w = rng.uniform(.17, .3)
    return Model("items_bowl", "bowl", (w, w, w * .42), (turned_part(_glaze(rng), BOWLS[int(rng.integers(2))], 0, w, w * rng.uniform(.3, .42)),))


@replaceable
def mug(rng: Rng, style: Style) -> Model:
    w, h, m = rng.uniform(.075, .1), rng.uniform(.085, .12), _glaze(rng)
    grip = Part(("ring", .22), (h * .65, .014, h * .65), (w * .62, 0, h * .5), m.colour)
    return Model("items_mug", "mug", (w * 1.7, w * 1.7, h), (turned_part(m, MUGS[int(rng.integers(3))], 0, w, h), grip))


@replaceable
def plate(rng: Rng, style: Style) -> Model:
    "Flat on a table, or leaning on its own stand for show"
    w, m = rng.uniform(.2, .29), _glaze(rng)
    if rng.random() < .6: return Model("items_plate", "plate", (w, w, .03), (turned_part(m, PLATE, 0, w, .03),))
    disc = Part(("lathe", PLATE, 18), (w, w, .03), (0, 0, w / 2 - .005), m.colour, turn=(-78, 0, 0))
    return Model("items_plate", "plate on a stand", (w, .12, w), (disc, box(style.wood, 0, -.01, 0, w * .5, .1, .02)))


@replaceable
def tv(rng: Rng, style: Style, width: float = 1.0) -> Model:
    w = min(width, rng.uniform(.8, 1.3))
    h, m = w * .58, Material((rng.uniform(.03, .12),) * 3)
    screen = pick(rng, "screen")
    parts = [box(m, 0, 0, .06, w, .05, h, .008), picture(screen, 0, .026, .06 + h / 2 + .005, w - .03, h - .035, glow=.75)]
    if rng.random() < .5: parts += [box(m, 0, 0, 0, w * .35, .2, .015, .004), box(m, 0, -.01, .01, .06, .03, .07)]
    else: parts += [box(m, x * w * .33, 0, 0, .03, .2, .06, 0) for x in (-1, 1)]
    return Model("items_tv", "television", (w, .2, h + .06), tuple(parts))


@replaceable
def phone(rng: Rng, style: Style) -> Model:
    "A mobile lying flat, a mobile in a cradle, or an old desk telephone"
    kind, case = rng.random(), Material(hsv(rng.random(), rng.choice([0, .6]), rng.choice([.08, .9, .5])))
    face = pick(rng, "phone")
    if kind < .4:
        lying = Part(("panel", 1, 1), (.07, 1, .145), (0, 0, .0105), (1, 1, 1), face, 0, (90, 0, 180), .6)
        return Model("items_phone", "mobile phone", (.078, .16, .011), (box(case, 0, 0, 0, .078, .16, .01, .003), lying))
    if kind < .65:
        parts = (box(case, 0, 0, 0, .09, .08, .02, .004), box(case, 0, 0, .012, .08, .012, .16, .004, (12, 0, 0)), picture(face, 0, .0085, .094, .07, .14, .7, turn=(12, 0, 0)))
        return Model("items_phone", "phone in a cradle", (.09, .09, .18), parts)
    return Model("items_phone", "desk telephone", (.22, .2, .13), _desk_phone(case))


def _desk_phone(m: Material) -> tuple[Part, ...]:
    keys = [box(Material((.92, .92, .9)), x * .032, .035 - .028 * y, .052, .022, .018, .012) for x in (-1, 0, 1) for y in range(3)]
    ends = [soft(m, x * .085, -.035, .075, .055, .07, .055, .6) for x in (-1, 1)]
    return (box(m, 0, 0, 0, .2, .19, .055, .012), box(m, 0, -.04, .05, .12, .05, .03, .006), box(m, 0, -.035, .1, .17, .04, .03, .012), *ends, *keys)


@replaceable
def dog(rng: Rng, style: Style) -> Model:
    "Standing, sitting or lying; of any size and coat"
    s = rng.uniform(.75, 1.35)
    colour = hsv(rng.uniform(.06, .11), rng.uniform(0, .55), rng.choice([.1, .25, .45, .7, .92]))
    k = rng.uniform(.5, 1.6)
    coat, second = Material(colour, pick(rng, "fur"), .3), Material(tuple(min(1.0, c * k) for c in colour), pick(rng, "fur"), .3)
    pose = [_standing, _sitting, _lying][int(rng.integers(3))]
    parts, size = pose(rng, coat, second if rng.random() < .5 else coat)
    scaled = tuple(Part(p.shape, tuple(v * s for v in p.size), tuple(v * s for v in p.at), p.colour, p.texture, p.tile, p.turn) for p in parts)
    return Model("live_dog", "dog", tuple(v * s for v in size), scaled)


def _head(rng: Rng, m: Material, second: Material, y: float, z: float) -> list[Part]:
    "A head whose middle is at (0, y, z), looking along +y"
    dark = Material((.04, .04, .04))
    drop = rng.random() < .6
    ear = [soft(second, x * (.075 if drop else .05), y - .02, z - (.06 if drop else -.02), .03 if drop else .05, .07, .13, 1, (0, x * (15 if drop else -8), 0)) for x in (-1, 1)]
    eyes = [soft(dark, x * .038, y + .068, z + .012, .022, .02, .022) for x in (-1, 1)]
    return [soft(m, 0, y, z - .075, .15, .18, .15), soft(second, 0, y + .1, z - .07, .08, .15, .075, .8), soft(dark, 0, y + .165, z - .025, .035, .03, .028), *ear, *eyes]


def _leg(m: Material, x: float, y: float, h: float) -> list[Part]:
    return [turned_part(m, ((0, 0), (.7, 0), (.7, .5), (1, 1), (0, 1)), 0, .075, h, x, y), soft(m, x, y + .02, 0, .07, .11, .05, .8)]


def _standing(rng: Rng, m: Material, second: Material) -> tuple[list[Part], Vec]:
    parts = [soft(m, 0, -.05, .24, .2, .52, .22, .8), soft(m, 0, .14, .23, .22, .26, .26, .85), soft(m, 0, .25, .36, .12, .16, .26, .9, (-30, 0, 0))]
    parts += [p for x in (-1, 1) for y in (-.22, .18) for p in _leg(second if y > 0 else m, x * .065, y, .32)]
    parts += [soft(m, 0, -.36, .36, .05, .06, .28, .9, (rng.uniform(20, 60), 0, 0)), *_head(rng, m, second, .33, .58)]
    return parts, (.26, .98, .68)


def _sitting(rng: Rng, m: Material, second: Material) -> tuple[list[Part], Vec]:
    parts = [soft(m, 0, -.12, .0, .28, .34, .3, .85), soft(m, 0, -.01, .05, .21, .24, .5, .8, (18, 0, 0)), soft(m, 0, .08, .38, .12, .14, .22, .9)]
    parts += [p for x in (-1, 1) for p in _leg(second, x * .06, .12, .32)] + [soft(m, x * .12, .0, 0, .1, .26, .1, .8) for x in (-1, 1)]
    parts += [soft(m, .05, -.32, .0, .06, .24, .06, .9, (0, 0, 20)), *_head(rng, m, second, .14, .64)]
    return parts, (.36, .92, .74)


def _lying(rng: Rng, m: Material, second: Material) -> tuple[list[Part], Vec]:
    parts = [soft(m, 0, -.05, 0, .26, .58, .22, .75), soft(m, 0, .18, .0, .24, .26, .25, .8), soft(m, 0, .27, .12, .13, .16, .22, .9, (-20, 0, 0))]
    parts += [box(second, x * .1, .33, 0, .06, .26, .055, .02) for x in (-1, 1)] + [soft(m, x * .13, -.2, 0, .1, .28, .15, .85) for x in (-1, 1)]
    parts += [soft(m, .06, -.42, 0, .05, .3, .05, .9, (0, 0, 25)), *_head(rng, m, second, .36, .34)]
    return parts, (.38, 1.14, .44)


def plant(rng: Rng, style: Style) -> Model:
    "A pot of leaves; unlabelled"
    w, h, pot = rng.uniform(.25, .4), rng.uniform(.6, 1.2), rng.uniform(.2, .32)
    leaf = Material(hsv(rng.uniform(.22, .38), rng.uniform(.4, .7), rng.uniform(.25, .6)))
    parts = [turned_part(_glaze(rng), VASES[3], 0, w * .8, pot)]
    for i in range(14):
        turn, z = i * 137.5, pot + (h - pot) * rng.uniform(.1, .62)
        a, reach = np.radians(turn), w * rng.uniform(.1, .32)
        parts.append(Part(("soft", 1.0, 6, 4), (w * .3, w * .07, (h - pot) * .5), (-np.sin(a) * reach, np.cos(a) * reach, z), leaf.colour, turn=(-rng.uniform(15, 40), 0, turn)))
    return Model("empty", "plant", (w, w, h), tuple(parts))


def side_table(rng: Rng, style: Style) -> Model:
    "A small round table; unlabelled, but things stand on it"
    w, h = rng.uniform(.42, .65), rng.uniform(.42, .6)
    m = draw_wood(rng)
    parts = (turned_part(m, ((0, 0), (1, 0), (1, 1), (0, 1)), h - .03, w, .03), rod(style.metal, 0, 0, .02, .05, h - .04), turned_part(style.metal, ROD, 0, w * .6, .02))
    return Model("empty", "side table", (w, w, h), parts, (Top(-w * .3, -w * .3, w * .3, w * .3, h),))


def basket(rng: Rng, style: Style) -> Model:
    w, h = rng.uniform(.24, .4), rng.uniform(.26, .42)
    m = Material(hsv(rng.uniform(.05, .12), rng.uniform(.1, .5), rng.uniform(.4, .9)), "carpet:1", .2)
    return Model("empty", "basket", (w, w, h), (turned_part(m, ((0, 0), (.8, 0), (1, 1), (.95, 1), (.75, .08), (0, .08)), 0, w, h),))


def book_stack(rng: Rng, style: Style) -> Model:
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        h = rng.uniform(.015, .04)
        parts.append(box(Material(hsv(rng.random(), rng.uniform(.1, .7), rng.uniform(.2, .9))), 0, 0, z, .15, .2, h, 0, (0, 0, rng.uniform(-10, 10))))
        z += h
    return Model("empty", "books", (.2, .24, z), tuple(parts))


def parcel(rng: Rng, style: Style) -> Model:
    "A cardboard box, open or taped; unlabelled"
    w, d, h = rng.uniform(.2, .45), rng.uniform(.18, .35), rng.uniform(.12, .32)
    m = Material(hsv(.08, rng.uniform(.3, .5), rng.uniform(.55, .8)))
    if rng.random() < .5: more = [box(Material((.85, .8, .68)), 0, 0, h, .05, d, .002)]
    else: more = [box(m, 0, y * (d / 2 - .045), h - .02, w - .01, .004, .1, 0, (-y * 65, 0, 0)) for y in (-1, 1)]
    return Model("empty", "parcel", (w + .02, d + .02, h + .08), (box(m, 0, 0, 0, w, d, h), *more))


def ball(rng: Rng, style: Style) -> Model:
    w = rng.uniform(.12, .26)
    return Model("empty", "ball", (w, w, w), (soft(draw_textile(rng), 0, 0, 0, w, w, w),))


def slippers(rng: Rng, style: Style) -> Model:
    m, sole = draw_textile(rng), Material((.2, .18, .16))
    parts = [p for x in (-1, 1) for turn in [(0, 0, rng.uniform(-12, 12))]
             for p in (box(sole, x * .07, 0, 0, .09, .26, .02, .008, turn), soft(m, x * .07, .05, .0, .1, .17, .09, .8, turn))]
    return Model("empty", "slippers", (.28, .3, .09), tuple(parts))


def clothes(rng: Rng, style: Style) -> Model:
    "A heap of what somebody took off"
    parts = [soft(draw_textile(rng), rng.uniform(-.08, .08), rng.uniform(-.08, .08), .0, rng.uniform(.25, .4), rng.uniform(.2, .35), rng.uniform(.06, .13), .8, (0, 0, rng.uniform(0, 180))) for _ in range(3)]
    return Model("empty", "clothes", (.56, .56, .13), tuple(parts))


def floor_cushion(rng: Rng, style: Style) -> Model:
    w, h = rng.uniform(.38, .6), rng.uniform(.12, .2)
    return Model("empty", "cushion", (w, w, h), (soft(draw_textile(rng), 0, 0, 0, w, w, h, .5),))


CLUTTER: tuple[Callable[[Rng, Style], Model], ...] = (parcel, ball, slippers, clothes, floor_cushion, book_stack)
SMALL: dict[str, Callable[[Rng, Style], Model]] = dict(mug=mug, bowl=bowl, plate=plate, vase=vase, phone=phone, books=book_stack)
