"""From seeds to rooms and poses: `make_room` builds and furnishes, `make_camera` takes a person's view of it.

Must not know how anything is drawn or written.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from virtual_room import furniture as f
from virtual_room.assets import Asset
from virtual_room.placement import CEILING, FLOOR, Layout, Wall, cells, edge_distance, overhang, walkable
from virtual_room.scene import Camera, Light, Model, Part, Room, RoomConfig, Thing, Vec, turned
from virtual_room.textures import hsv, pick

Rng = np.random.Generator
CELL = .22  # metres between the points at which light on walls and floors is computed
SEAM = .008  # metres by which neighbouring panels overlap, so that no gap shows between them


def make_room(seed: int | list[int], config: RoomConfig = RoomConfig(), assets: tuple[Asset, ...] = ()) -> Room:
    "The room of a seed; the same seed, ranges and models of one's own give the same room"
    rng = np.random.default_rng(seed)
    layout = Layout(_outline(rng, config), float(rng.uniform(*config.height)), rng)
    night = bool(rng.random() < config.night)
    lights = _build(layout, night)
    _furnish(layout, config, f.draw_style(rng, assets, config.own_models))
    lights += _switch_on(layout, night)
    tone = rng.uniform(.15, .45) * sum((np.array(l.colour) * l.area for l in lights), np.zeros(3)) / np.prod(layout.high)
    if not night and rng.random() < config.sun: lights.append(_sun(rng, lights[0]))
    return Room(layout.outline, layout.height, tuple(layout.things), tuple(lights), tuple(tone.tolist()))


def _outline(rng: Rng, config: RoomConfig) -> tuple:
    "A rectangle, or one that lacks a corner"
    w, d = (float(rng.uniform(*r)) for r in (config.width, config.depth))
    if rng.random() >= config.l_shape or min(w, d) < 3.6: return (0.0, 0.0), (w, 0.0), (w, d), (0.0, d)
    x, y = (side - float(rng.uniform(*np.clip(np.multiply(side, config.corner), 1.0, side - 2.4))) for side in (w, d))
    corners = [(0.0, 0.0), (w, 0.0), (w, y), (x, y), (x, d), (0.0, d)]
    for i, side in enumerate((w, d)):
        if rng.random() < .5: corners = [tuple(side - v if k == i else v for k, v in enumerate(c)) for c in corners[::-1]]
    return tuple(corners)


def _panel(m: f.Material, x: float, z: float, w: float, h: float) -> Part:
    cells = ("panel", max(1, round(w / CELL)), max(1, round(h / CELL)))
    return Part(cells, (w + SEAM, 1, h + SEAM), (x, 0, z), m.colour, m.texture, m.tile)


def _flat(layout: Layout, label: str, m: f.Material, z: float) -> Thing:
    "A floor, or a ceiling that looks down, of one panel a rectangle"
    middle, size = layout.high / 2, layout.high
    turn = (-90 if z else 90, 0, 0)
    parts = tuple(replace(_panel(m, 0, 0, x1 - x0, y1 - y0), at=((x0 + x1 - size[0]) / 2, (y0 + y1 - size[1]) / 2, 0), turn=turn) for x0, y0, x1, y1 in cells(layout.outline)[0].tolist())
    return Thing(Model(label, label.split("_")[1], (*size.tolist(), 0), parts), (*middle.tolist(), z), 0, CEILING if z else FLOOR)


def _build(layout: Layout, night: bool) -> list[Light]:
    "Floor, ceiling, walls with their door and windows"
    rng = layout.rng
    floor, ceiling = _floor_material(rng), f.Material(hsv(.1, rng.uniform(0, .05), rng.uniform(.88, 1)), pick(rng, "plaster"), 1.5)
    layout.add(_flat(layout, "building_floor", floor, 0.0)), layout.add(_flat(layout, "building_ceiling", ceiling, layout.height))
    plans = _openings(layout)
    materials = _wall_materials(rng)
    skirting = f.Material(hsv(.1, .03, .95)) if rng.random() < .7 else f.draw_wood(rng)
    for wall, holes in zip(layout.walls, plans):
        layout.add(_wall(wall, layout.height, materials[wall.index % 2], skirting, holes))
    return _fill_openings(layout, plans, night)


def _floor_material(rng: Rng) -> f.Material:
    kind = rng.random()
    if kind < .6: return f.Material(hsv(rng.uniform(.04, .11), rng.uniform(.15, .6), rng.uniform(.4, 1)), pick(rng, "planks"), rng.uniform(.8, 1.4))
    if kind < .85: return f.Material(hsv(rng.random() if rng.random() < .25 else .09, rng.uniform(.02, .3), rng.uniform(.4, .95)), pick(rng, "carpet"), 1.0)
    return f.Material(hsv(.08, rng.uniform(0, .25), rng.uniform(.5, 1)), pick(rng, "tiles"), rng.uniform(.6, 1.1))


def _wall_materials(rng: Rng) -> tuple[f.Material, f.Material]:
    "For all walls, or another for every second one"
    tone = hsv(rng.random() if rng.random() < .4 else rng.uniform(.08, .14), rng.choice([.02, .04, .07, .12, .2, .3]), rng.uniform(.75, 1))
    texture = pick(rng, "plaster") if rng.random() < .75 else pick(rng, "paper")
    plain = f.Material(tone, texture, 1.5 if texture.startswith("plaster") else rng.uniform(.4, .9))
    if rng.random() < .6: return plain, plain
    return plain, f.Material(hsv(rng.random(), rng.uniform(.03, .35), rng.uniform(.4, .95)), pick(rng, "plaster" if rng.random() < .6 else "paper"), .8)


def _openings(layout: Layout) -> list[list[tuple]]:
    "For each wall its holes (kind, s0, s1, z0, z1), from the wall's start"
    rng, plans = layout.rng, [[] for _ in layout.walls]
    order = rng.permutation([i for i, w in enumerate(layout.walls) if w.length > 1.9])
    for n, i in enumerate(order[: 1 + int(rng.integers(1, 3))]):
        length = layout.walls[i].length
        if n == 0:
            w = rng.uniform(.78, .95)
            s = rng.uniform(.15, length - w - .15)
            plans[i].append(("door", s, s + w, 0.0, rng.uniform(1.98, 2.08)))
        else:
            w = min(rng.uniform(.9, 2.2), length - .9)
            s, sill = rng.uniform(.4, length - w - .4), rng.choice([.35, .8, .95])
            plans[i].append(("window", s, s + w, sill, min(layout.height - .25, sill + rng.uniform(1.1, 1.7))))
    return plans


def _wall(wall: Wall, height: float, m: f.Material, skirting: f.Material, holes: list[tuple]) -> Thing:
    "Panels around the holes, and a skirting board"
    length, parts, s = wall.length, [], 0.0
    for _, s0, s1, z0, z1 in [*holes, (None, wall.length, wall.length, 0, 0)]:
        if s0 > s:
            parts.append(_panel(m, (s + s0 - length) / 2, height / 2, s0 - s, height))
            parts.append(f.box(skirting, (s + s0 - length) / 2, .006, 0, s0 - s, .012, .08))
        if z0 > 0:
            parts.append(_panel(m, (s0 + s1 - length) / 2, z0 / 2, s1 - s0, z0))
            parts.append(f.box(skirting, (s0 + s1 - length) / 2, .006, 0, s1 - s0, .012, .08))
        if 0 < z1 < height: parts.append(_panel(m, (s0 + s1 - length) / 2, (z1 + height) / 2, s1 - s0, height - z1))
        s = s1
    x, y = (wall.a + wall.b) / 2
    return Thing(Model("building_wall", "wall", (length, 0, height), tuple(parts)), (float(x), float(y), 0), wall.heading, FLOOR)


def _fill_openings(layout: Layout, plans: list[list[tuple]], night: bool) -> list[Light]:
    lights = []
    for wall, holes in zip(layout.walls, plans):
        for kind, s0, s1, z0, z1 in holes:
            make = _door if kind == "door" else _window
            model = make(layout.rng, s1 - s0, z1 - z0, night, z0)
            x, y = wall.point((s0 + s1) / 2, model.size[1] / 2)
            thing = Thing(model, (float(x), float(y), z0 if kind == "window" else 0.0), wall.heading, wall.index)
            layout.add(thing)
            if kind == "door": layout.keep_free.append(_before(thing, wall, (s0 + s1) / 2))
            else: lights.append(_daylight(layout.rng, wall, (s0 + s1) / 2, (z0 + z1) / 2, s1 - s0, z1 - z0, night))
    return lights


def _before(door: Thing, wall: Wall, s: float) -> Thing:
    x, y = wall.point(s, .45)
    return replace(door, model=Model("empty", "way in", (door.model.size[0], .9, 2.0), ()), at=(float(x), float(y), 0.0))


def _door(rng: Rng, w: float, h: float, night: bool, z: float) -> Model:
    "A leaf with fields, a frame and a handle"
    m, frame = f.draw_wood(rng), f.Material(hsv(.1, .03, .95)) if rng.random() < .6 else f.draw_wood(rng)
    metal = f.Material((.6, .6, .58))
    parts = [f.box(m, 0, -.02, 0, w, .04, h), *(f.box(frame, x * (w / 2 + .02), 0, 0, .08, .05, h + .06, .004) for x in (-1, 1)), f.box(frame, 0, 0, h - .02, w, .05, .08, .004)]
    if rng.random() < .75:
        rows = int(rng.integers(1, 3))
        parts += [f.box(m, x * w * .2, .002, .12 + (h - .3) / rows * r, w * .32, .01, (h - .3) / rows - .08, .004) for x in (-1, 1) for r in range(rows)]
    x = w * .42 * rng.choice([-1, 1])
    parts += [f.box(metal, x, .005, 1.0, .035, .015, .16), f.box(metal, x * .86, .045, 1.07, .12, .018, .02, .004), f.box(metal, x, .025, 1.07, .02, .045, .02)]
    return Model("building_door", "door", (w + .12, .06, h + .06), tuple(replace(p, at=(p.at[0], p.at[1] - .01, p.at[2])) for p in parts))


def _window(rng: Rng, w: float, h: float, night: bool, z: float) -> Model:
    "A view, a frame with bars, a sill and perhaps curtains; unlabelled"
    frame = f.Material(hsv(.1, .04, .95)) if rng.random() < .75 else f.draw_wood(rng)
    shade = (.05, .06, .12) if night else (1.0, 1.0, 1.0)
    parts = [f.picture(pick(rng, "view"), 0, -.06, h / 2, w + .4, h + .4, .9 if night else 1.5, shade)]
    parts += [f.box(frame, x * (w - .06) / 2, -.03, 0, .06, .06, h) for x in (-1, 1)] + [f.box(frame, 0, -.03, y, w, .06, .06) for y in (0, h - .06)]
    parts += [f.box(frame, w * (i / n - .5), -.03, 0, .05, .05, h) for n in [int(rng.integers(1, 4))] for i in range(1, n)]
    parts += [f.box(frame, x * (w + .046) / 2, .004, 0, .07, .02, h + .058, .004) for x in (-1, 1)] + [f.box(frame, 0, .004, h - .012, w, .02, .07, .004)]
    parts.append(f.box(frame, 0, 0, -.03, w + .14, .14, .042, .005))
    curtains = rng.random() < .65
    if curtains: parts += _curtains(rng, w, h)
    return Model("empty", "window", (w + (.5 if curtains else .14), .14, h + .08), tuple(replace(p, at=(p.at[0], p.at[1] - .07, p.at[2])) for p in parts))


def _curtains(rng: Rng, w: float, h: float) -> list[Part]:
    "Two gathered lengths of cloth on a rod"
    m, metal, width = f.draw_textile(rng), f.Material((.4, .4, .4)), rng.uniform(.15, .4)
    parts = [f.box(metal, 0, .085, h + .035, w + .45, .025, .025, .008)]
    for side in (-1, 1):
        for i in range(n := max(2, round(width / .07))):
            x = side * (w / 2 + .18 - (i + .5) * width / n)
            parts.append(Part(("lathe", f.ROD, 8), (width / n * 1.15, .07, h + .06), (x, .085, (h + .02) / 2), m.colour, m.texture, m.tile))
    return parts


def _daylight(rng: Rng, wall: Wall, s: float, z: float, w: float, h: float, night: bool) -> Light:
    warm = rng.uniform(-.12, .25)
    strength = rng.uniform(.02, .06) if night else rng.uniform(3, 7)
    x, y = wall.point(s, .05)
    return Light((float(x), float(y), z), (*wall.inward.tolist(), 0.0), tuple(strength * np.array([1 + warm, 1, 1 - warm])), w * h)


def _sun(rng: Rng, window: Light) -> Light:
    "Rays that fall in at a window, more or less from the side and from above"
    across, down, warm = *np.radians((rng.uniform(-50, 50), rng.uniform(18, 50))), rng.uniform(0, .3)
    ray = turned(np.degrees(across)) @ window.normal[:2] * np.cos(down)
    return Light(window.at, (*ray.tolist(), -float(np.sin(down))), tuple((rng.uniform(2, 5) * np.array([1 + warm, 1, 1 - warm])).tolist()), 0.0)


def _furnish(layout: Layout, config: RoomConfig, style: f.Style) -> None:
    "The bed first, then what belongs to it, then the rest by size"
    rng, wanted = layout.rng, lambda: layout.rng.random() < config.furniture
    bed = layout.against_wall(f.double_bed(rng, style), tries=60, centred=bool(rng.random() < .5)) if rng.random() < .4 + .6 * config.furniture else None
    tables = _night_tables(layout, style, bed) if wanted() else []
    stand = _television(layout, style, bed) if wanted() else None
    if wanted(): layout.on_floor(f.armchair(rng, style), gap=.04, near_wall=bool(rng.random() < .8), face_middle=True, tries=80)
    bases = [i for make in rng.permutation([f.commode, f.drawer, f.shelf]) if wanted() for i in [layout.against_wall(make(rng, style))]]
    if wanted(): layout.on_floor(f.floor_lamp(rng, style), gap=.03, near_wall=True)
    if rng.random() < config.distractors: bases.append(layout.on_floor(f.side_table(rng, style), gap=.08))
    if rng.random() < config.dog: layout.on_floor(f.dog(rng, style), gap=.05)
    for _ in range(int(rng.integers(1, 6)) if rng.random() < config.clutter else 0):
        layout.on_floor(f.CLUTTER[int(rng.integers(len(f.CLUTTER)))](rng, style), gap=.03)
    for make in (f.plant, f.basket):
        if rng.random() < config.distractors * .6: layout.on_floor(make(rng, style), gap=.04, near_wall=True)
    if wanted(): _rug(layout, style)
    _on_walls(layout, config, style, bases)
    _ceiling_lamp(layout, style)
    _small_things(layout, config, style, tables, [i for i in (*bases, stand) if i is not None])


def _night_tables(layout: Layout, style: f.Style, bed: int | None) -> list[int]:
    "One on each side of the bed where there is room, else one by a wall"
    model = f.night_table(layout.rng, style)
    if bed is None: return [i for i in [layout.against_wall(model)] if i is not None]
    gap = float(layout.rng.uniform(.04, .12))
    return [i for side in (-1, 1) for i in [layout.beside(model, bed, side, gap)] if i is not None]


def _television(layout: Layout, style: f.Style, bed: int | None) -> int | None:
    "The stand, across from the bed where possible, and the television on it"
    rng, walls = layout.rng, None
    if bed is not None: walls = [w for w in layout.walls if abs((w.heading - layout.things[bed].heading) % 360 - 180) < 1]
    model = f.tv_stand(rng, style)
    stand = layout.against_wall(model, walls=walls, centred=True, above=.8) if walls else None
    if stand is None: stand = layout.against_wall(model, above=.8)
    if stand is not None: layout.on_top(f.tv(rng, style, model.size[0] * .9), stand, heading=0.0, back=True)
    return stand


def _rug(layout: Layout, style: f.Style) -> None:
    "Flat in the middle; furniture may stand on it"
    rng, (x0, y0, x1, y1) = layout.rng, layout.main
    model = f.rug(rng, style)
    turn = float(rng.choice([0, 90])) if rng.random() < .7 else float(rng.uniform(0, 180))
    for _ in range(12):
        x, y = x0 + rng.uniform(.25, .75) * (x1 - x0), y0 + rng.uniform(.25, .75) * (y1 - y0)
        rug = Thing(model, (float(x), float(y), 0.0), turn, FLOOR)
        if overhang(rug, layout.outline) < -.08:
            layout.add(rug)
            return


def _on_walls(layout: Layout, config: RoomConfig, style: f.Style, bases: list) -> None:
    rng = layout.rng
    if rng.random() < config.small_things: layout.against_wall(f.clock(rng, style), z=float(rng.uniform(1.5, 1.85)), gap=.08, off=.002)
    if rng.random() < config.furniture * .4: bases.append(layout.against_wall(f.wall_shelf(rng, style), z=float(rng.uniform(1.2, 1.5)), off=.002))
    for _ in range(int(rng.integers(1, 5))):
        model = f.painting(rng, style)
        layout.against_wall(model, z=float(rng.uniform(1.5, 1.7) - model.size[2] / 2), gap=.08, off=.002)


def _ceiling_lamp(layout: Layout, style: f.Style) -> None:
    "Hangs in the middle; unlabelled"
    rng, (x0, y0, x1, y1) = layout.rng, layout.main
    size, drop = rng.uniform(.25, .45), rng.uniform(.12, .5)
    shade = replace(f.floor_lamp.__wrapped__(rng, style).parts[-1], size=(size, size, .15), at=(0, 0, .075))
    model = Model("empty", "ceiling lamp", (size, size, drop), (shade, f.rod(style.metal, 0, 0, .12, .02, drop - .12)))
    layout.add(Thing(model, ((x0 + x1) / 2, (y0 + y1) / 2, layout.height - drop), 0.0, CEILING))


def _small_things(layout: Layout, config: RoomConfig, style: f.Style, tables: list[int], bases: list[int]) -> None:
    "A lamp on each night table, then mugs, bowls, plates, vases, phones wherever there is a top"
    rng = layout.rng
    for i in tables:
        if rng.random() < config.small_things: layout.on_top(f.night_lamp(rng, style), i, back=True)
    if not tables and bases: layout.on_top(f.night_lamp(rng, style), bases[0])
    tops = tables + bases
    if not tops: return
    for name, make in f.SMALL.items():
        for _ in range(int(rng.integers(1, 4))):
            if rng.random() < config.small_things: _on_any(layout, make(rng, style), tops, _facing(rng, name))


def _on_any(layout: Layout, model: Model, tops: list[int], heading: float | None) -> None:
    for i in layout.rng.permutation(tops)[:3]:
        if layout.on_top(model, int(i), heading) is not None: return


def _facing(rng: Rng, name: str) -> float | None:
    "Phones and plates look to the front; the rest stands any way round"
    return float(rng.uniform(-35, 35)) if name in ("phone", "plate", "books") else None


LAMPS = ("floor lamp", "night lamp", "ceiling lamp")


def _switch_on(layout: Layout, night: bool) -> list[Light]:
    "Light the lamps: most of them at night, few by day; the lit ones glow"
    rng, lights = layout.rng, []
    for i, t in enumerate(layout.things):
        if t.model.kind not in LAMPS or rng.random() > (.85 if night else .2): continue
        parts = tuple(replace(p, glow=.9) if p.shape[0] == "lathe" and p.shape[1] in f.SHADES else p for p in t.model.parts)
        layout.things[i] = replace(t, model=replace(t.model, parts=parts))
        x, y, z = t.at
        z += .05 if t.support == CEILING else t.model.size[2] * .8
        warm, strength = rng.uniform(.05, .35), dict(zip(LAMPS, (.9, .35, 1.6)))[t.model.kind] * rng.uniform(.7, 1.4)
        lights.append(Light((x, y, z), (0, 0, 0), tuple((strength * np.array([1 + warm, 1, 1 - warm])).tolist()), 1.0))
    return lights


def make_camera(room: Room, rng: Rng, config: RoomConfig = RoomConfig()) -> Camera:
    "A person's view from the walkable floor: of the room's middle with a deviation, or of a small thing near by"
    develop = dict(exposure=float(rng.uniform(*config.exposure)), contrast=float(rng.uniform(*config.contrast)), balance=tuple((1 + config.white_balance * rng.uniform(-1, 1, 3) * [1, .3, 1]).tolist()))
    if rng.random() < config.effects: develop |= {k: float(rng.uniform(*getattr(config, k))) for k in ("blur", "vignette", "noise", "jpeg")}
    small = [t for t in room.things if t.label.startswith(("items_", "live_")) or t.label in RARE]
    close = bool(small) and rng.random() < config.close_up
    spot = _stand(room, rng, small[int(rng.integers(len(small)))] if close else None, max(1.9, config.camera_height[1] + .1))
    eye = np.array([*spot[:2], rng.uniform(*config.camera_height)])
    if close: return Camera(tuple(eye.tolist()), _near(rng, spot[2], .12), float(rng.uniform(*_close_up_fov(config, spot[2]))), **develop)
    aim = np.array([*room.middle, rng.uniform(.6, 1.3)]) - eye
    turn = np.radians(rng.uniform(-config.yaw_deviation, config.yaw_deviation))
    c, s = np.cos(turn), np.sin(turn)
    target = eye + np.array([c * aim[0] - s * aim[1], s * aim[0] + c * aim[1], aim[2]])
    return Camera(tuple(eye.tolist()), tuple(target.tolist()), float(rng.uniform(*config.fov)), **develop)


def _close_up_fov(config: RoomConfig, thing: Thing) -> tuple[float, float]:
    "The range of angles for a close-up: the narrower half of it for what is smaller than a hand's span, so that it fills more than a few pixels"
    low, high = config.close_up_fov
    return (low, (low + high) / 2) if max(thing.model.size) < SPAN else (low, high)


SPAN = .2  # metres
RARE = ("furniture_clock", "furniture_floor_lamp", "furniture_nightTable", "furniture_drawer", "furniture_armchair")


def _near(rng: Rng, thing: Thing, spread: float) -> Vec:
    "A point near a thing, rather at its upper half: that is where lamps and dogs are told apart"
    middle = np.array([*thing.at[:2], thing.at[2] + thing.model.size[2] * rng.uniform(.4, .9)])
    return tuple((middle + rng.uniform(-spread, spread, 3)).tolist())


def _stand(room: Room, rng: Rng, thing: Thing | None, headroom: float) -> tuple[float, float, Thing | None]:
    "A free place on the floor: from afar of the middle, or within reach of a thing"
    corners = np.asarray(room.outline)
    points = rng.uniform(corners.min(0), corners.max(0), (96, 2))
    goal = np.asarray(room.middle if thing is None else thing.at[:2])
    distance = np.linalg.norm(points - goal, axis=1)
    free = walkable(room, points, headroom=headroom)
    if not free.any(): free = walkable(room, points, .15, .05, headroom)
    if not free.any(): free = walkable(room, points, .09, .09, headroom)
    best = free & ((distance > 1.0) if thing is None else (distance > .6) & (distance < 2.2) & _before_it(points, thing))
    choice = np.flatnonzero(best if best.any() else free if free.any() else distance == distance.max())
    i = choice[int(rng.integers(len(choice)))]
    return float(points[i][0]), float(points[i][1]), thing


def _before_it(points: np.ndarray, thing: Thing) -> np.ndarray:
    "Which points see a thing on a wall from its front; all of them for others"
    if thing.label != "furniture_clock": return np.ones(len(points), bool)
    a = np.radians(thing.heading)
    away = points - np.asarray(thing.at[:2])
    return away @ np.array([-np.sin(a), np.cos(a)]) > .5 * np.linalg.norm(away, axis=1)
