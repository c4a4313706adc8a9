"Small items that stand on furniture, and books that lie anywhere"

from __future__ import annotations

from virtual_room.furniture.draws import ANY_HUE, draw_color, draw_int, one_of
from virtual_room.furniture.materials import Material, Rng, Style, draw_ceramic
from virtual_room.furniture.primitives import SIDES, box, lathe, model_of, picture, soft
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import CLUTTER, ITEM, ITEM_WANTED, OnAnySurface, Turn
from virtual_room.scene import Model, Primitive
from virtual_room.textures import hsv, pick

VASES = (
    ((0, 0), (.5, 0), (.9, .2), (1, .4), (.7, .7), (.35, .85), (.5, 1), (.42, 1), (.25, .8), (0, .5)),
    ((0, 0), (.6, 0), (.7, .5), (1, 1), (.92, 1), (.6, .5), (0, .1)),
    ((0, 0), (.8, 0), (1, .25), (.9, .5), (.3, .65), (.25, .9), (.4, 1), (.3, 1), (.15, .8), (0, .6)),
    ((0, 0), (.9, 0), (1, .1), (1, .95), (.95, 1), (.85, 1), (.85, .3), (0, .3)),
    ((0, 0), (.4, 0), (.6, .1), (1, .55), (.95, .75), (.6, .92), (.65, 1), (.55, 1), (.5, .9), (0, .5)),
)
BOWLS = (
    ((0, 0), (.4, 0), (.42, .1), (.75, .45), (1, 1), (.95, 1), (.7, .5), (.3, .18), (0, .15)),
    ((0, 0), (.5, 0), (.85, .3), (1, .7), (1, 1), (.94, 1), (.92, .7), (.75, .35), (0, .15)),
)
MUGS = (
    ((0, 0), (.9, 0), (1, .06), (1, 1), (.9, 1), (.9, .12), (0, .1)),
    ((0, 0), (.6, 0), (.8, .2), (1, 1), (.9, 1), (.7, .25), (0, .1)),
    ((0, 0), (.6, 0), (1, .3), (1, .6), (.9, 1), (.8, 1), (.85, .6), (.6, .2), (0, .1)),
)
LEANING, FACE_UP = (12, 0, 0), (90, 0, 180)  # rotations of phones
PLATE = ((0, 0), (.55, 0), (.62, .15), (1, .85), (1, 1), (.62, .4), (.5, .25), (0, .25))
FACING = dict(turn=Turn.ITEM, chance=ITEM_WANTED, facing=35)  # for what has a front


@furniture(label="items_mug", place=ITEM)
def mug(rng: Rng, style: Style) -> Model:
    "With a handle"
    w, h, m = rng.uniform(.075, .1), rng.uniform(.085, .12), draw_ceramic(rng)
    grip = Primitive(("ring", .22), (h * .65, .014, h * .65), (w * .62, 0, h * .5), m.color)
    profile = one_of(rng, MUGS)
    return model_of("mug", (w * 1.7, w * 1.7, h), [lathe(m, profile, 0, w, h), grip])


@furniture(label="items_bowl", place=ITEM)
def bowl(rng: Rng, style: Style) -> Model:
    "Deep or flat"
    w, m = rng.uniform(.17, .3), draw_ceramic(rng)
    profile = one_of(rng, BOWLS)
    return model_of("bowl", (w, w, w * .42), [lathe(m, profile, 0, w, w * rng.uniform(.3, .42))])


@furniture(label="items_plate", place=OnAnySurface(**FACING))
def plate(rng: Rng, style: Style) -> Model:
    "Flat on a table, or leaning on its own stand for show"
    w, m = rng.uniform(.2, .29), draw_ceramic(rng)
    if rng.random() < .6:
        return model_of("plate", (w, w, .03), [lathe(m, PLATE, 0, w, .03)])
    disc = Primitive(("lathe", PLATE, 18), (w, w, .03), (0, 0, w / 2 - .005), m.color, rotation=(-78, 0, 0))
    stand = box(style.wood, 0, -.01, 0, w * .5, .1, .02)
    return model_of("plate on a stand", (w, .12, w), [disc, stand])


@furniture(label="items_vase", place=OnAnySurface(turn=Turn.ITEM, chance=ITEM_WANTED))
def vase(rng: Rng, style: Style) -> Model:
    "Of any shape, without flowers"
    w, h, m = rng.uniform(.11, .2), rng.uniform(.2, .38), draw_ceramic(rng)
    profile = one_of(rng, VASES)
    return model_of("vase", (w, w, h), [lathe(m, profile, 0, w, h)])


@furniture(label="items_phone", place=OnAnySurface(**FACING))
def phone(rng: Rng, style: Style) -> Model:
    "A mobile lying flat, a mobile in a cradle, or an old desk telephone"
    kind = rng.random()
    case = Material(hsv(rng.random(), rng.choice([0, .6]), rng.choice([.08, .9, .5])))
    face = pick(rng, "phone")
    if kind < .4:
        return model_of("mobile phone", (.078, .16, .011), _lying_phone(case, face))
    if kind < .65:
        return model_of("phone in a cradle", (.09, .09, .18), _standing_phone(case, face))
    return model_of("desk telephone", (.22, .2, .13), _desk_phone(case))


def _lying_phone(m: Material, face: str) -> list[Primitive]:
    size, center = (.07, 1, .145), (0, 0, .0105)
    screen = Primitive(("panel", 1, 1), size, center, texture=face, tile=0, rotation=FACE_UP, emission=.6)
    return [box(m, 0, 0, 0, .078, .16, .01, .003), screen]


def _standing_phone(m: Material, face: str) -> list[Primitive]:
    cradle = box(m, 0, 0, 0, .09, .08, .02, .004)
    body = box(m, 0, 0, .012, .08, .012, .16, .004, LEANING)
    return [cradle, body, picture(face, 0, .0085, .094, .07, .14, .7, turn=LEANING)]


def _desk_phone(m: Material) -> list[Primitive]:
    "A body with keys, and a receiver across it"
    body = [box(m, 0, 0, 0, .2, .19, .055, .012), box(m, 0, -.04, .05, .12, .05, .03, .006)]
    receiver = [box(m, 0, -.035, .1, .17, .04, .03, .012)]
    receiver += [soft(m, x * .085, -.035, .075, .055, .07, .055, .6) for x in SIDES]
    keys = []
    for x in (-1, 0, 1):
        keys += [_key(x * .032, .035 - .028 * row) for row in range(3)]
    return body + receiver + keys


def _key(x: float, y: float) -> Primitive:
    "A key of the desk telephone"
    return box(Material((.92, .92, .9)), x, y, .052, .022, .018, .012)


@furniture(label="empty", place=(CLUTTER, OnAnySurface(**FACING)))
def book_stack(rng: Rng, style: Style) -> Model:
    "One to three books; unlabelled"
    parts, z = [], 0.0
    for _ in range(draw_int(rng, 1, 3)):
        h = rng.uniform(.015, .04)
        m = Material(draw_color(rng, ANY_HUE, (.1, .7), (.2, .9)))
        parts.append(box(m, 0, 0, z, .15, .2, h, 0, (0, 0, rng.uniform(-10, 10))))
        z += h
    return model_of("books", (.2, .24, z), parts)
