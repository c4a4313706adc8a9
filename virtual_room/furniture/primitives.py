"Primitives in the material of a piece: boxes, cushions, turned shapes, pictures, legs, handles and whole cabinets"

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from virtual_room.furniture.materials import Material, Rng, Style
from virtual_room.scene import Model, Primitive, SupportSurface, Vec

SIDES = (-1, 1)
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
ROD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))  # the profile of a cylinder
BOARD = .025  # meters: thickness of a cabinet's upper board
LEAST_BEVEL = .002  # meters: thinner cuts are not seen


def model_of(
    kind: str, size: Vec, primitives: Iterable[Primitive], supports: Iterable[SupportSurface] = ()
) -> Model:
    "A model that gets its label from the register of furniture"
    return Model("", kind, size, tuple(primitives), tuple(supports))


def box(
    m: Material, x: float, y: float, z: float, w: float, d: float, h: float, r: float = 0.0, turn: Vec = (0, 0, 0)
) -> Primitive:
    "A box over the point (x, y), its bottom at z; r cuts the edges"
    r = min(r, .45 * min(w, d, h))
    shape = ("bevel", round(r, 3)) if r >= LEAST_BEVEL else ("box",)
    return Primitive(shape, (w, d, h), (x, y, z + h / 2), m.color, m.texture, m.tile, turn)


def soft(
    m: Material, x: float, y: float, z: float, w: float, d: float, h: float, power: float = 1.0, turn: Vec = (0, 0, 0)
) -> Primitive:
    "A ball (power 1) or, with smaller powers, a cushion; over the point (x, y), its bottom at z"
    return Primitive(("soft", power), (w, d, h), (x, y, z + h / 2), m.color, m.texture, m.tile, turn)


def lathe(m: Material, profile: tuple, z: float, w: float, h: float, x: float = 0, y: float = 0) -> Primitive:
    "A profile turned about the upright axis over (x, y), `w` meters wide, its bottom at z"
    return Primitive(("lathe", profile), (w, w, h), (x, y, z + h / 2), m.color, m.texture, m.tile)


def rod(m: Material, x: float, y: float, z: float, w: float, h: float) -> Primitive:
    "An upright cylinder"
    return lathe(m, ROD, z, w, h, x, y)


def picture(
    texture: str, x: float, y: float, z: float, w: float, h: float,
    emission: float = 0, color: Vec = (1, 1, 1), turn: Vec = (0, 0, 0),
) -> Primitive:
    "A flat picture that looks along +y, its middle at (x, y, z)"
    return Primitive(("panel", 1, 1), (w, 1, h), (x, y, z), color, texture, 0, turn, emission)


def legs(rng: Rng, m: Material, w: float, d: float, h: float) -> list[Primitive]:
    "Four legs under a box of that base"
    t = rng.uniform(.03, .06)
    is_round = rng.random() < .5
    spots = [(x * (w / 2 - t), y * (d / 2 - t)) for x, y in CORNERS]
    if is_round:
        return [rod(m, x, y, 0, t, h) for x, y in spots]
    return [box(m, x, y, 0, t, t, h) for x, y in spots]


def handle(m: Material, x: float, y: float, z: float, w: float, is_knob: bool) -> Primitive:
    "A knob or a bar in front of a drawer of width `w`"
    if is_knob:
        return soft(m, x, y, z - .018, .036, .036, .036)
    return box(m, x, y, z - .008, min(.16, w * .5), .025, .016)


@dataclass(frozen=True)
class Fronts:
    "How the front of a cabinet is divided"
    columns: int
    rows: int
    are_doors: bool = False


def cabinet(rng: Rng, style: Style, w: float, d: float, h: float, fronts: Fronts) -> tuple[Primitive, ...]:
    "A carcass on legs or a plinth with drawer fronts (or doors) and handles"
    foot = rng.choice([.02, .06, .14]) if h > .3 else .03
    parts = _cabinet_foot(rng, style.wood, w, d, foot)
    parts += _carcass(rng, style, (w, d, h), foot)
    has_knobs = rng.random() < .5
    fields = _fields_of(w, h, foot, fronts)
    return (*parts, *_cabinet_fronts(style, d, fields, fronts, has_knobs))


def _cabinet_foot(rng: Rng, m: Material, w: float, d: float, foot: float) -> list[Primitive]:
    "Legs where they are long enough to be seen, else a plinth"
    if foot > .1:
        return legs(rng, m, w, d - .02, foot)
    return [box(m, 0, -.01, 0, w - .04, d - .06, foot)]


def _carcass(rng: Rng, style: Style, size: Vec, foot: float) -> list[Primitive]:
    "The body of a cabinet and the board on it, mostly of the same wood"
    w, d, h = size
    body = box(style.wood, 0, -.01, foot, w, d - .02, h - foot - BOARD, .006)
    m = style.wood if rng.random() < .7 else style.front
    return [body, box(m, 0, 0, h - BOARD, w, d, BOARD, .006)]


@dataclass(frozen=True)
class Fields:
    "The fields of a cabinet's front, in meters"
    left: float
    bottom: float
    w: float  # of one field
    h: float


def _fields_of(w: float, h: float, foot: float, fronts: Fronts) -> Fields:
    "The fields of a cabinet that is `w` wide and `h` high"
    width = (w - .03) / fronts.columns
    height = (h - foot - .045) / fronts.rows
    return Fields(-w / 2 + .015, foot + .01, width, height)


def _cabinet_fronts(style: Style, d: float, fields: Fields, fronts: Fronts, has_knobs: bool) -> list[Primitive]:
    "A front and a handle for each field, from the lower left to the upper right"
    parts = []
    for row in range(fronts.rows):
        for column in range(fronts.columns):
            x = fields.left + fields.w * (column + .5)
            z = fields.bottom + fields.h * row
            parts.append(_front(style.front, x, d, z, fields.w, fields.h))
            if fronts.are_doors:
                is_left = column < fronts.columns / 2
                parts.append(_door_knob(style.metal, x, d, z, fields, is_left))
            else:
                parts.append(handle(style.metal, x, d / 2 + .005, z + fields.h * .55, fields.w, has_knobs))
    return parts


def _door_knob(m: Material, x: float, d: float, z: float, fields: Fields, is_left: bool) -> Primitive:
    "At the side of a cabinet's door that is nearer to the middle of the cabinet"
    inward = 1 if is_left else -1
    at = x + (fields.w / 2 - .05) * inward
    return handle(m, at, d / 2 + .005, z + fields.h * .6, fields.w, is_knob=True)


def _front(m: Material, x: float, d: float, z: float, w: float, h: float) -> Primitive:
    "The front of a drawer or a door, a little smaller than its field"
    return box(m, x, d / 2 - .012, z, w - .012, .02, h - .012, .004)


def top_of(w: float, d: float, h: float, headroom: float = 10.0) -> tuple[SupportSurface, ...]:
    "The upper side of a box of that size, but for its border"
    return (SupportSurface(-w / 2 + .03, -d / 2 + .03, w / 2 - .03, d / 2 - .03, h, headroom),)
