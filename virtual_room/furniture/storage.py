"Tables, cabinets and shelves: what things are kept in and stand on"

from __future__ import annotations

from virtual_room.furniture.draws import draw_int, draw_sizes
from virtual_room.furniture.materials import Material, Rng, Style, draw_wood
from virtual_room.furniture.primitives import (
    ROD,
    SIDES,
    Fronts,
    box,
    cabinet,
    handle,
    lathe,
    legs,
    model_of,
    rod,
    top_of,
)
from virtual_room.furniture.registry import furniture
from virtual_room.furniture.rules import STORAGE, WANTED, Beside, Chance, OnFloor, OnWall, Opposite, Turn
from virtual_room.scene import Model, Primitive, SupportSurface, Vec
from virtual_room.textures import hsv

BOARD = .024  # meters: thickness of the boards of a bookcase
STAND_BOARD = .025  # meters: the same of a tv stand


@furniture(
    label="furniture_nightTable",
    place=Beside(turn=Turn.BEDSIDE, chance=WANTED, neighbor="double_bed", carrier_rank=0),
)
def night_table(rng: Rng, style: Style) -> Model:
    "A small cabinet, or a table with a drawer and a board below"
    w, d, h = draw_sizes(rng, (.38, .55), (.34, .44), (.42, .62))
    if rng.random() < .25:
        parts = _small_table(rng, style, w, d, h)
    else:
        parts = cabinet(rng, style, w, d, h, Fronts(1, draw_int(rng, 1, 3)))
    return model_of("night table", (w, d, h), parts, top_of(w, d, h))


def _small_table(rng: Rng, style: Style, w: float, d: float, h: float) -> list[Primitive]:
    return [
        *legs(rng, style.wood, w, d, h - .02),
        box(style.wood, 0, 0, h - .03, w, d, .03, .005),
        box(style.wood, 0, 0, h * .3, w - .06, d - .06, .02),
        box(style.front, 0, .01, h - .16, w - .08, d - .04, .13, .004),
        handle(style.metal, 0, d / 2 - .005, h - .09, w, is_knob=True),
    ]


@furniture(
    label="furniture_tvStand",
    place=Opposite(turn=Turn.TELEVISION_STAND, chance=WANTED, neighbor="double_bed", above=.8, carrier_rank=2),
)
def tv_stand(rng: Rng, style: Style) -> Model:
    "A low board: open bays, some of them with a drawer"
    w, d, h = draw_sizes(rng, (1.1, 1.8), (.36, .46), (.36, .56))
    foot, bays = rng.choice([.03, .1, .14]), draw_int(rng, 2, 3)
    parts = legs(rng, style.wood, w, d, foot)
    parts += _stand_carcass(style.wood, w, d, h, foot)
    parts += _stand_bays(rng, style, (w, d, h), foot, bays)
    return model_of("tv stand", (w, d, h), parts, top_of(w, d, h))


def _stand_carcass(m: Material, w: float, d: float, h: float, foot: float) -> list[Primitive]:
    "Floor, top and back"
    return [
        box(m, 0, 0, foot, w, d, STAND_BOARD),
        box(m, 0, 0, h - STAND_BOARD, w, d, STAND_BOARD, .005),
        box(m, 0, -d / 2 + .01, foot, w, .02, h - foot - STAND_BOARD),
    ]


def _stand_bays(rng: Rng, style: Style, size: Vec, foot: float, bays: int) -> list[Primitive]:
    "The walls of all bays, then what is in each"
    w, d, h = size
    bay = (w - STAND_BOARD) / bays
    left = -w / 2 + STAND_BOARD / 2
    parts = [_stand_wall(style.wood, left + bay * i, d, h, foot) for i in range(bays + 1)]
    for i in range(bays):
        middle = left + bay * (i + .5)
        parts += _stand_bay(rng, style, middle, d, h, foot, bay)
    return parts


def _stand_wall(m: Material, x: float, d: float, h: float, foot: float) -> Primitive:
    "A side of a bay"
    return box(m, x, 0, foot, STAND_BOARD, d - .01, h - foot - STAND_BOARD)


def _stand_bay(rng: Rng, style: Style, x: float, d: float, h: float, foot: float, bay: float) -> list[Primitive]:
    "A drawer or a board in the middle of a bay"
    inner = bay - STAND_BOARD
    if rng.random() >= .5:
        return [box(style.wood, x, -.01, foot + (h - foot) * .5, inner, d - .03, .018)]
    front = _stand_drawer(style.front, x, d, h, foot, inner - .006)
    is_knob = rng.random() < .5
    return [front, handle(style.metal, x, d / 2 - .002, (foot + h) / 2, bay, is_knob)]


def _stand_drawer(m: Material, x: float, d: float, h: float, foot: float, width: float) -> Primitive:
    return box(m, x, d / 2 - .02, foot + STAND_BOARD, width, .02, h - foot - 2 * STAND_BOARD - .006, .004)


@furniture(label="furniture_commode", place=STORAGE)
def commode(rng: Rng, style: Style) -> Model:
    "Wide and waist-high: drawers or doors in two or three columns"
    w, d, h = draw_sizes(rng, (1.0, 1.6), (.4, .52), (.7, .95))
    are_doors = rng.random() < .35
    columns = draw_int(rng, 2, 3)
    rows = 1 if are_doors else draw_int(rng, 2, 3)
    parts = cabinet(rng, style, w, d, h, Fronts(columns, rows, are_doors))
    return model_of("commode", (w, d, h), parts, top_of(w, d, h))


@furniture(label="furniture_drawer", place=STORAGE)
def drawer(rng: Rng, style: Style) -> Model:
    "A narrow, tall chest: one column of drawers"
    w, d, h = draw_sizes(rng, (.45, .8), (.38, .48), (.85, 1.35))
    parts = cabinet(rng, style, w, d, h, Fronts(1, draw_int(rng, 4, 6)))
    return model_of("chest of drawers", (w, d, h), parts, top_of(w, d, h))


@furniture(label="furniture_shelf", place=STORAGE)
def shelf(rng: Rng, style: Style) -> Model:
    "An open bookcase with books and free boards"
    w, d, h = draw_sizes(rng, (.6, 1.2), (.26, .36), (1.2, 2.1))
    boards = draw_int(rng, 3, 5)
    step = (h - .06 - BOARD) / boards
    heights = [.05 + step * i for i in range(boards + 1)]
    parts = _bookcase_sides(style.wood, w, d, h)
    parts += [_bookcase_board(style.wood, w, d, z) for z in heights]
    if rng.random() < .75:
        parts.append(_bookcase_back(rng, style, w, d, h))
    surfaces = []
    for z in heights[:-1]:
        surfaces += _fill_board(rng, parts, w, d, z + BOARD, step - BOARD)
    return model_of("bookcase", (w, d, h), parts, surfaces)


def _fill_board(
    rng: Rng, parts: list[Primitive], w: float, d: float, z: float, height: float
) -> list[SupportSurface]:
    "Add books to a board, or none; what they leave free, where that is enough for an object"
    has_books = rng.random() < .75
    end = _books(rng, parts, w, d, z, height) if has_books else -w / 2 + BOARD
    if w / 2 - end <= .2:
        return []
    return [_free_board(end, w / 2 - BOARD, d, z, height)]


def _bookcase_sides(m: Material, w: float, d: float, h: float) -> list[Primitive]:
    return [box(m, x * (w - BOARD) / 2, 0, 0, BOARD, d, h) for x in SIDES]


def _bookcase_board(m: Material, w: float, d: float, z: float) -> Primitive:
    return box(m, 0, 0, z, w - 2 * BOARD, d - .01, BOARD)


def _bookcase_back(rng: Rng, style: Style, w: float, d: float, h: float) -> Primitive:
    m = style.wood if rng.random() < .6 else style.front
    return box(m, 0, -d / 2 + .006, .05, w, .012, h - .06)


def _free_board(end: float, side: float, d: float, z: float, height: float) -> SupportSurface:
    "What the books leave of a board"
    return SupportSurface(end + .02, -d / 2 + .05, side - .02, d / 2 - .03, z, height - .02)


def _books(rng: Rng, parts: list[Primitive], w: float, d: float, z: float, height: float) -> float:
    "Add a row of books from the left; where it ends"
    x, end = -w / 2 + .03, rng.uniform(-.2, .5) * w - .03
    tone = rng.random()
    while x < end:
        thick, tall = rng.uniform(.03, .075), min(height - .03, rng.uniform(.17, .3))
        m = _book_cover(rng, tone)
        parts.append(box(m, x + thick / 2, rng.uniform(-.02, .02), z, thick - .003, d * .62, tall))
        x += thick
    return x


def _book_cover(rng: Rng, tone: float) -> Material:
    "Of the row's own hue, or of another"
    hue = tone + rng.choice([0, .1, .5, rng.random()])
    return Material(hsv(hue, rng.uniform(0, .8), rng.uniform(.2, .95)))


@furniture(
    label="furniture_shelf",
    place=OnWall(turn=Turn.WALL_SHELF, chance=Chance("furniture", .4), height=(1.2, 1.5), carrier_rank=1),
)
def wall_shelf(rng: Rng, style: Style) -> Model:
    "Boards on brackets"
    w, d, h = draw_sizes(rng, (.6, 1.1), (.2, .26), (.28, .5))
    parts = [box(style.wood, 0, 0, z, w, d, .028) for z in (.06, h)]
    parts += [_bracket(style.metal, x * w * .35, d, h) for x in SIDES]
    end = _books(rng, parts, w, d, .088, h - .12)
    upper = _wall_shelf_surface(-w / 2 + .03, w, d, h + .028, .35)
    lower = _wall_shelf_surface(end + .02, w, d, .088, h - .1)
    return model_of("wall shelf", (w, d, h + .06), parts, (upper, lower))


def _bracket(m: Material, x: float, d: float, h: float) -> Primitive:
    return box(m, x, -d / 2 + .01, 0, .03, .02, h + .05)


def _wall_shelf_surface(left: float, w: float, d: float, z: float, headroom: float) -> SupportSurface:
    "The free part of a board, from `left` on"
    return SupportSurface(left, -d / 2 + .03, w / 2 - .03, d / 2 - .02, z, headroom)


@furniture(
    label="empty",
    place=OnFloor(turn=Turn.SIDE_TABLE, chance=Chance("distractors"), gap=.08, carrier_rank=1),
)
def side_table(rng: Rng, style: Style) -> Model:
    "A small round table; unlabelled, but things stand on it"
    w, h = draw_sizes(rng, (.42, .65), (.42, .6))
    m = draw_wood(rng)
    parts = [lathe(m, ((0, 0), (1, 0), (1, 1), (0, 1)), h - .03, w, .03)]
    parts.append(rod(style.metal, 0, 0, .02, .05, h - .04))
    parts.append(lathe(style.metal, ROD, 0, w * .6, .02))
    reach = w * .3
    return model_of("side table", (w, w, h), parts, (SupportSurface(-reach, -reach, reach, reach, h),))
