"""The shell of a room: its outline, floor, ceiling, walls, door and windows, and the daylight that comes in.

Must not know furniture nor how anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from virtual_room.floorplan import CEILING, FLOOR, Wall, cells
from virtual_room.furniture.draws import ANY_HUE, draw_color, draw_int
from virtual_room.furniture.materials import Material, Rng, draw_textile, draw_wood
from virtual_room.furniture.primitives import ROD, SIDES, box, picture
from virtual_room.placement import Layout
from virtual_room.scene import Light, Model, Outline, Primitive, RoomConfig, SceneObject, Vec, rotation_2d
from virtual_room.textures import hsv, pick

CELL = .22  # meters between the points at which light on walls and floors is computed
SEAM = .008  # meters by which neighboring panels overlap, so that no gap shows between them
LEAST_WALL = 1.9  # meters: shorter walls have no opening
LEAST_L = 3.6  # meters: a shorter side lacks no corner
WHITE = Material(hsv(.1, .03, .95))
STEEL = Material((.6, .6, .58))


@dataclass(frozen=True)
class Opening:
    "A hole in a wall, in meters from the wall's start and from the floor"
    kind: str  # door or window
    s0: float
    s1: float
    z0: float
    z1: float

    @property
    def width(self) -> float:
        "Meters along the wall"
        return self.s1 - self.s0

    @property
    def height(self) -> float:
        "Meters from its lower to its upper edge"
        return self.z1 - self.z0

    @property
    def middle(self) -> float:
        "Meters from the wall's start"
        return (self.s0 + self.s1) / 2


def draw_outline(rng: Rng, config: RoomConfig) -> Outline:
    "A rectangle, or one that lacks a corner"
    w, d = (float(rng.uniform(*limits)) for limits in (config.width, config.depth))
    if rng.random() >= config.l_shape or min(w, d) < LEAST_L:
        return (0.0, 0.0), (w, 0.0), (w, d), (0.0, d)
    return _l_shape(rng, w, d, config)


def _l_shape(rng: Rng, w: float, d: float, config: RoomConfig) -> Outline:
    "A rectangle that lacks one of its four corners"
    x, y = (_corner_start(rng, side, config) for side in (w, d))
    corners = [(0.0, 0.0), (w, 0.0), (w, y), (x, y), (x, d), (0.0, d)]
    for axis, side in enumerate((w, d)):
        if rng.random() < .5:
            corners = [_mirrored(corner, axis, side) for corner in corners[::-1]]
    return tuple(corners)


def _corner_start(rng: Rng, side: float, config: RoomConfig) -> float:
    "Where the missing corner begins"
    limits = np.clip(np.multiply(side, config.corner), 1.0, side - 2.4)
    return side - float(rng.uniform(*limits))


def _mirrored(corner: tuple[float, float], axis: int, side: float) -> tuple[float, float]:
    return tuple(side - v if i == axis else v for i, v in enumerate(corner))


def build_shell(layout: Layout, night: bool) -> list[Light]:
    "Add floor, ceiling and walls with their door and windows; the lights of the windows"
    rng = layout.rng
    floor, ceiling = _floor_material(rng), _ceiling_material(rng)
    layout.add(_level(layout, "building_floor", floor, 0.0))
    layout.add(_level(layout, "building_ceiling", ceiling, layout.height))
    openings = _draw_openings(layout)
    materials = _wall_materials(rng)
    skirting = WHITE if rng.random() < .7 else draw_wood(rng)
    for wall, holes in zip(layout.walls, openings):
        layout.add(_wall_object(wall, layout.height, materials[wall.index % 2], skirting, holes))
    return _fill_openings(layout, openings, night)


def _ceiling_material(rng: Rng) -> Material:
    "Plaster, nearly white"
    color = hsv(.1, rng.uniform(0, .05), rng.uniform(.88, 1))
    return Material(color, pick(rng, "plaster"), 1.5)


def _panel(m: Material, x: float, z: float, w: float, h: float) -> Primitive:
    "A piece of a wall in cells over which light can vary, its middle at (x, z)"
    return Primitive(("panel", _cells(w), _cells(h)), (w + SEAM, 1, h + SEAM), (x, 0, z), m.color, m.texture, m.tile)


def _cells(meters: float) -> int:
    return max(1, round(meters / CELL))


def _level(layout: Layout, label: str, m: Material, z: float) -> SceneObject:
    "A floor, or a ceiling that looks down, of one panel a rectangle"
    middle, size = layout.high / 2, layout.high
    rotation = (-90 if z else 90, 0, 0)
    panels = [_level_panel(m, rectangle, size, rotation) for rectangle in cells(layout.outline)[0].tolist()]
    model = Model(label, label.split("_")[1], (*size.tolist(), 0), tuple(panels))
    return SceneObject(model, (*middle.tolist(), z), 0, CEILING if z else FLOOR)


def _level_panel(m: Material, rectangle: list[float], size: np.ndarray, rotation: Vec) -> Primitive:
    "The panel of one rectangle of a floor or a ceiling of that size"
    x0, y0, x1, y1 = rectangle
    center = ((x0 + x1 - size[0]) / 2, (y0 + y1 - size[1]) / 2, 0)
    return replace(_panel(m, 0, 0, x1 - x0, y1 - y0), center=center, rotation=rotation)


def _floor_material(rng: Rng) -> Material:
    "Planks, carpet or tiles"
    kind = rng.random()
    if kind < .6:
        stain = draw_color(rng, (.04, .11), (.15, .6), (.4, 1))
        return Material(stain, pick(rng, "planks"), rng.uniform(.8, 1.4))
    if kind < .85:
        hue = rng.random() if rng.random() < .25 else .09
        color = hsv(hue, rng.uniform(.02, .3), rng.uniform(.4, .95))
        return Material(color, pick(rng, "carpet"), 1.0)
    color = hsv(.08, rng.uniform(0, .25), rng.uniform(.5, 1))
    return Material(color, pick(rng, "tiles"), rng.uniform(.6, 1.1))


def _wall_materials(rng: Rng) -> tuple[Material, Material]:
    "For all walls, or another for every second one"
    first = _main_wall_material(rng)
    if rng.random() < .6:
        return first, first
    color = draw_color(rng, ANY_HUE, (.03, .35), (.4, .95))
    kind = "plaster" if rng.random() < .6 else "paper"
    return first, Material(color, pick(rng, kind), .8)


def _main_wall_material(rng: Rng) -> Material:
    "Plaster or paper, mostly in a warm and light tone"
    hue = rng.random() if rng.random() < .4 else rng.uniform(.08, .14)
    tone = hsv(hue, rng.choice([.02, .04, .07, .12, .2, .3]), rng.uniform(.75, 1))
    texture = pick(rng, "plaster") if rng.random() < .75 else pick(rng, "paper")
    tile = 1.5 if texture.startswith("plaster") else rng.uniform(.4, .9)
    return Material(tone, texture, tile)


def _draw_openings(layout: Layout) -> list[list[Opening]]:
    "For each wall its openings: one door and up to two windows, each in a wall of its own"
    rng, openings = layout.rng, [[] for _ in layout.walls]
    order = rng.permutation([i for i, wall in enumerate(layout.walls) if wall.length > LEAST_WALL])
    chosen = order[: 1 + draw_int(rng, 1, 2)]
    for n, i in enumerate(chosen):
        draw = _draw_window if n else _draw_door
        openings[i].append(draw(rng, layout.walls[i].length, layout.height))
    return openings


def _draw_door(rng: Rng, length: float, height: float) -> Opening:
    w = rng.uniform(.78, .95)
    s = rng.uniform(.15, length - w - .15)
    return Opening("door", s, s + w, 0.0, rng.uniform(1.98, 2.08))


def _draw_window(rng: Rng, length: float, height: float) -> Opening:
    w = min(rng.uniform(.9, 2.2), length - .9)
    s, sill = rng.uniform(.4, length - w - .4), rng.choice([.35, .8, .95])
    return Opening("window", s, s + w, sill, min(height - .25, sill + rng.uniform(1.1, 1.7)))


def _wall_object(wall: Wall, height: float, m: Material, skirting: Material, holes: list[Opening]) -> SceneObject:
    "Panels around the holes, and a skirting board"
    length, parts, s = wall.length, [], 0.0
    for hole in holes:
        parts += _piece_between(m, skirting, length, s, hole.s0, height)
        parts += _pieces_at(m, skirting, length, hole, height)
        s = hole.s1
    parts += _piece_between(m, skirting, length, s, length, height)
    x, y = (wall.a + wall.b) / 2
    model = Model("building_wall", "wall", (length, 0, height), tuple(parts))
    return SceneObject(model, (float(x), float(y), 0), wall.heading, FLOOR)


def _piece_between(
    m: Material, skirting: Material, length: float, s0: float, s1: float, height: float
) -> list[Primitive]:
    "The whole wall from `s0` to `s1`; nothing where there is no wall between"
    if s1 <= s0:
        return []
    return _standing_piece(m, skirting, (s0 + s1 - length) / 2, s1 - s0, height)


def _pieces_at(m: Material, skirting: Material, length: float, hole: Opening, height: float) -> list[Primitive]:
    "What there is of a wall under and over a hole"
    parts, middle = [], (hole.s0 + hole.s1 - length) / 2
    if hole.z0 > 0:
        parts += _standing_piece(m, skirting, middle, hole.width, hole.z0)
    if hole.z1 < height:
        parts.append(_panel(m, middle, (hole.z1 + height) / 2, hole.width, height - hole.z1))
    return parts


def _standing_piece(m: Material, skirting: Material, x: float, w: float, h: float) -> list[Primitive]:
    "A piece of a wall that stands on the floor, with its skirting board"
    return [_panel(m, x, h / 2, w, h), _skirting_board(skirting, x, w)]


def _skirting_board(m: Material, x: float, w: float) -> Primitive:
    return box(m, x, .006, 0, w, .012, .08)


def _fill_openings(layout: Layout, openings: list[list[Opening]], night: bool) -> list[Light]:
    "Put doors and windows into their holes; the lights of the windows"
    lights = []
    for wall, holes in zip(layout.walls, openings):
        for hole in holes:
            if hole.kind == "door":
                _add_door(layout, wall, hole)
            else:
                lights.append(_add_window(layout, wall, hole, night))
    return lights


def _add_door(layout: Layout, wall: Wall, hole: Opening) -> None:
    "The door, and the floor before it that stays free"
    model = _door(layout.rng, hole.width, hole.height)
    x, y = wall.point(hole.middle, model.size[1] / 2)
    door = SceneObject(model, (float(x), float(y), 0.0), wall.heading, wall.index)
    layout.add(door)
    x, y = wall.point(hole.middle, .45)
    way_in = Model("empty", "way in", (model.size[0], .9, 2.0), ())
    layout.keep_free.append(replace(door, model=way_in, at=(float(x), float(y), 0.0)))


def _add_window(layout: Layout, wall: Wall, hole: Opening, night: bool) -> Light:
    model = _window(layout.rng, hole.width, hole.height, night)
    x, y = wall.point(hole.middle, model.size[1] / 2)
    layout.add(SceneObject(model, (float(x), float(y), hole.z0), wall.heading, wall.index))
    return _daylight(layout.rng, wall, hole, night)


def _door(rng: Rng, w: float, h: float) -> Model:
    "A leaf with fields, a frame and a handle"
    m = draw_wood(rng)
    frame = WHITE if rng.random() < .6 else draw_wood(rng)
    parts = [box(m, 0, -.02, 0, w, .04, h), *_door_frame(frame, w, h)]
    if rng.random() < .75:
        parts += _door_fields(m, w, h, rows=draw_int(rng, 1, 2))
    parts += _door_handle(w * .42 * rng.choice([-1, 1]))
    return Model("building_door", "door", (w + .12, .06, h + .06), _moved_back(parts, .01))


def _door_frame(m: Material, w: float, h: float) -> list[Primitive]:
    sides = [box(m, x * (w / 2 + .02), 0, 0, .08, .05, h + .06, .004) for x in SIDES]
    return [*sides, box(m, 0, 0, h - .02, w, .05, .08, .004)]


def _door_fields(m: Material, w: float, h: float, rows: int) -> list[Primitive]:
    step, parts = (h - .3) / rows, []
    for x in SIDES:
        parts += [box(m, x * w * .2, .002, .12 + step * row, w * .32, .01, step - .08, .004) for row in range(rows)]
    return parts


def _door_handle(x: float) -> list[Primitive]:
    plate = box(STEEL, x, .005, 1.0, .035, .015, .16)
    lever = box(STEEL, x * .86, .045, 1.07, .12, .018, .02, .004)
    return [plate, lever, box(STEEL, x, .025, 1.07, .02, .045, .02)]


def _moved_back(parts: list[Primitive], meters: float) -> tuple[Primitive, ...]:
    "The same primitives, further from the room"
    moved = []
    for p in parts:
        x, y, z = p.center
        moved.append(replace(p, center=(x, y - meters, z)))
    return tuple(moved)


def _window(rng: Rng, w: float, h: float, night: bool) -> Model:
    "A view, a frame with bars, a sill and perhaps curtains; unlabelled"
    m = Material(hsv(.1, .04, .95)) if rng.random() < .75 else draw_wood(rng)
    parts = [_outside(rng, w, h, night)]
    parts += _window_frame(m, w, h, panes=draw_int(rng, 1, 3))
    has_curtains = rng.random() < .65
    if has_curtains:
        parts += _curtains(rng, w, h)
    width = w + (.5 if has_curtains else .14)
    return Model("empty", "window", (width, .14, h + .08), _moved_back(parts, .07))


def _outside(rng: Rng, w: float, h: float, night: bool) -> Primitive:
    "A picture behind the window, larger than the hole"
    tint, emission = ((.05, .06, .12), .9) if night else ((1.0, 1.0, 1.0), 1.5)
    return picture(pick(rng, "view"), 0, -.06, h / 2, w + .4, h + .4, emission, tint)


def _window_frame(m: Material, w: float, h: float, panes: int) -> list[Primitive]:
    "The frame in the hole, bars between the panes, a border around the hole and a sill"
    posts = [box(m, x * (w - .06) / 2, -.03, 0, .06, .06, h) for x in SIDES]
    rails = [box(m, 0, -.03, z, w, .06, .06) for z in (0, h - .06)]
    bars = [box(m, w * (i / panes - .5), -.03, 0, .05, .05, h) for i in range(1, panes)]
    sill = box(m, 0, 0, -.03, w + .14, .14, .042, .005)
    return [*posts, *rails, *bars, *_window_border(m, w, h), sill]


def _window_border(m: Material, w: float, h: float) -> list[Primitive]:
    "Boards on the wall, at both sides of the hole and over it"
    sides = [box(m, x * (w + .046) / 2, .004, 0, .07, .02, h + .058, .004) for x in SIDES]
    return [*sides, box(m, 0, .004, h - .012, w, .02, .07, .004)]


def _curtains(rng: Rng, w: float, h: float) -> list[Primitive]:
    "Two gathered lengths of cloth on a rod"
    m, width = draw_textile(rng), rng.uniform(.15, .4)
    folds = max(2, round(width / .07))
    parts = [box(Material((.4, .4, .4)), 0, .085, h + .035, w + .45, .025, .025, .008)]
    for side in SIDES:
        outer = w / 2 + .18
        places = [side * (outer - (i + .5) * width / folds) for i in range(folds)]
        parts += [_fold(m, x, width / folds * 1.15, h) for x in places]
    return parts


def _fold(m: Material, x: float, width: float, h: float) -> Primitive:
    "An upright roll of cloth from the floor of a window to over its rod"
    size, center = (width, .07, h + .06), (x, .085, (h + .02) / 2)
    return Primitive(("lathe", ROD, 8), size, center, m.color, m.texture, m.tile)


def _daylight(rng: Rng, wall: Wall, hole: Opening, night: bool) -> Light:
    "The light of a window"
    warm = rng.uniform(-.12, .25)
    strength = rng.uniform(.02, .06) if night else rng.uniform(3, 7)
    x, y = wall.point(hole.middle, .05)
    color = strength * np.array([1 + warm, 1, 1 - warm])
    at = (float(x), float(y), (hole.z0 + hole.z1) / 2)
    return Light(at, (*wall.inward.tolist(), 0.0), tuple(color), hole.width * hole.height)


def draw_sun(rng: Rng, window: Light) -> Light:
    "Rays that fall in at a window, more or less from the side and from above"
    across, down = np.radians((rng.uniform(-50, 50), rng.uniform(18, 50)))
    warm = rng.uniform(0, .3)
    ray = rotation_2d(np.degrees(across)) @ window.normal[:2] * np.cos(down)
    color = rng.uniform(2, 5) * np.array([1 + warm, 1, 1 - warm])
    return Light(window.at, (*ray.tolist(), -float(np.sin(down))), tuple(color.tolist()), 0.0)
