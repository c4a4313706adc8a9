"Rooms: what is drawn is plausible, and masks are exact"

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("panda3d")

from generated import REPO

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room import (
    Camera,
    Light,
    Model,
    Primitive,
    Room,
    RoomConfig,
    SceneObject,
    find_faults,
    load_config,
    make_camera,
    make_room,
)
from virtual_room.floorplan import ARCHITECTURE, box_distance, edge_distance, separation, walkable
from virtual_room.furniture import draw_style, registered
from virtual_room.scene import rotation_2d
from virtual_room.shapes import mesh
from virtual_room.textures import VARIANTS, texture

# --- plain data ---------------------------------------------------------------------------------------------------

def test_rooms_follow_from_their_seed():
    assert make_room([1, 2]) == make_room([1, 2]) != make_room([1, 3])
    json.dumps(make_room([1, 2]).asdict(), default=float)


def test_no_room_has_a_fault_and_all_labels_are_built():
    rooms = [make_room([11, i]) for i in range(200)]
    faults = {i: find_faults(room) for i, room in enumerate(rooms)}
    assert not {i: found for i, found in faults.items() if found}
    built = Counter()
    for room in rooms:
        built.update({o.label for o in room.objects})
    assert not {code: built[code] for code in ROOM_LABELS.codes if built[code] < 60}


def _first_room_with(seed: int, *kinds: str) -> Room:
    "The first of 50 rooms that has an object of each kind"
    for i in range(50):
        room = make_room([seed, i])
        if set(kinds) <= {o.model.kind for o in room.objects}:
            return room
    raise AssertionError(f"no room has {kinds}")


def _moved(room: Room, kind: str, by: tuple[float, float, float]) -> Room:
    "The room with its first object of a kind moved"
    objects = list(room.objects)
    i = next(i for i, o in enumerate(objects) if o.model.kind == kind)
    objects[i] = replace(objects[i], at=tuple(np.add(objects[i].at, by)))
    return replace(room, objects=tuple(objects))


PLANTED = [
    ("mug", (0, 0, .03), "mug .* floats"),
    ("painting", (0, 0, 5), "through the ceiling"),
    ("double bed", (0, 0, .1), "double bed .* floats"),
    ("armchair", (9, 0, 0), "armchair .* sticks out"),
    ("ceiling lamp", (0, 0, -.1), "ceiling lamp .* floats"),
]


@pytest.mark.parametrize("kind, by, fault", PLANTED)
def test_the_checker_finds_planted_faults(kind, by, fault):
    room = _first_room_with(12, kind)
    assert find_faults(room) == []
    assert any(re.search(fault, found) for found in find_faults(_moved(room, kind, by)))


def test_the_checker_finds_objects_inside_each_other():
    room = _first_room_with(13, "double bed", "armchair")
    places = {o.model.kind: o.at for o in room.objects}
    onto_the_bed = np.subtract(places["double bed"], places["armchair"])
    assert any("overlaps" in fault for fault in find_faults(_moved(room, "armchair", onto_the_bed)))


def _random_box(rng: np.random.Generator) -> SceneObject:
    model = Model("empty", "box", (*rng.uniform(.3, 2, 2), 1), ())
    return SceneObject(model, (*rng.uniform(-1, 1, 2), 0), rng.uniform(0, 360), 0)


def test_separation_agrees_with_sampled_points():
    rng = np.random.default_rng(0)
    line = np.linspace(-.5, .5, 40)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    for _ in range(200):
        a, b = _random_box(rng), _random_box(rng)
        points_of_a = grid * a.model.size[:2] @ rotation_2d(a.heading).T + a.at[:2]
        inside = edge_distance(points_of_a, b.footprint) > 0
        gap = separation(a.footprint, b.footprint)
        if abs(gap) > .08:
            assert inside.any() == (gap < 0)


def test_people_stand_on_free_floor_at_their_height():
    config = RoomConfig()
    for i in range(60):
        room = make_room([14, i])
        eye = np.array(make_camera(room, np.random.default_rng(i)).at)
        assert config.camera_height[0] <= eye[2] <= config.camera_height[1]
        assert walkable(room, eye[None, :2], .15, .05).all()


def test_no_camera_stands_inside_an_object_even_in_low_rooms():
    "A tall person under a low ceiling walks around the lamp"
    low = RoomConfig(height=(2.2, 2.2), camera_height=(2.0, 2.0))
    for i in range(120):
        room = make_room([15, i], low)
        eye = np.array(make_camera(room, np.random.default_rng(i), low).at)
        gaps = [float(box_distance(eye[None, :2], o)[0]) for o in room.objects if _reaches(o, eye[2])]
        assert min(gaps, default=1.0) > .05, f"room {i}"


def _reaches(o: SceneObject, z: float) -> bool:
    "Is some of the object at a height, or a hand's breadth from it?"
    bottom, top = o.at[2] - .08, o.at[2] + o.model.size[2] + .08
    return o.model.kind not in ARCHITECTURE and bottom < z < top


SHAPES = [("box",), ("bevel", .02), ("soft", .5), ("lathe", ((0, 0), (1, 0), (1, 1), (0, 1))), ("ring", .2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_meshes_are_closed_and_face_outwards(shape):
    m = mesh(shape)
    a, b, c = ((m.unit + m.inset)[m.triangles[:, i]] for i in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0  # six times the volume
    assert np.abs(np.cross(b - a, c - a).sum(0)).max() < 1e-4


def test_textures_are_the_same_each_time():
    for kind in VARIANTS:
        first = texture(f"{kind}:0").copy()
        texture.cache_clear()
        assert (texture(f"{kind}:0") == first).all()
        assert first.dtype == np.uint8 and first.ndim == 3


# --- furniture ----------------------------------------------------------------------------------------------------

def test_a_new_piece_needs_one_function_and_its_decorator(monkeypatch):
    from virtual_room.furniture import registry
    from virtual_room.furniture.primitives import box, model_of
    from virtual_room.furniture.rules import OnFloor
    monkeypatch.setattr(registry, "_PIECES", list(registry._PIECES))

    @registry.furniture(label="furniture_commode", place=OnFloor(near_wall=1.0))
    def bench(rng, style):
        return model_of("bench", (1.0, .4, .45), [box(style.wood, 0, 0, 0, 1.0, .4, .45)])

    rooms = [make_room([20, i]) for i in range(12)]
    benches = [o for room in rooms for o in room.objects if o.model.kind == "bench"]
    assert len(benches) > 4 and {o.label for o in benches} == {"furniture_commode"}
    assert not any(find_faults(room) for room in rooms)


def test_every_piece_fits_its_own_size():
    "Nothing of a model is far outside the box that it occupies"
    style = draw_style(np.random.default_rng(0))
    for piece in registered():
        rng = np.random.default_rng(len(piece.name))
        for _ in range(20):
            model = piece.draw(rng, style)
            assert model.label == piece.label in ROOM_LABELS.codes
            for p in model.primitives:
                reach = np.abs(p.center[:2]) - np.array(model.size[:2]) / 2
                assert reach.max() < .05 and -.01 < p.center[2] < model.size[2] + .05, piece.name


def test_no_module_imports_in_a_circle():
    imports = {}
    for path in sorted((REPO / "virtual_room").rglob("*.py")):
        name = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
        found = re.findall(r"^(?:from|import) (virtual_room[\w.]*)", path.read_text(), re.M)
        imports[name] = set(found) - {name}
    del imports["virtual_room"]  # the package's own page imports nearly all of them
    while imports:
        free = [name for name, found in imports.items() if not found & set(imports)]
        assert free, f"a circle among {sorted(imports)}"
        for name in free:
            del imports[name]


# --- exact annotations --------------------------------------------------------------------------------------------

SLABS = [
    ("building_floor", (4, 4, .1), (2, 2, -.1)),
    ("building_ceiling", (4, 4, .1), (2, 2, 2.5)),
    ("building_wall", (4, .1, 2.5), (2, -.05, 0)),
    ("building_wall", (4, .1, 2.5), (2, 4.05, 0)),
    ("building_door", (.1, 4, 2.5), (-.05, 2, 0)),
    ("building_wall", (.1, 4, 2.5), (4.05, 2, 0)),
]
BOXES = [
    ("furniture_doubleBed", (1.5, 2.0, .5), (2.0, 3.0), 0),
    ("furniture_commode", (.8, .4, .9), (.5, 1.2), 90),
    ("furniture_armchair", (.7, .7, .8), (3.2, 1.6), 33),
    ("items_vase", (.15, .15, .3), (1.3, 1.1), 20),
]
OUTLINE = ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0))
VIEWS = (
    Camera((3.4, .5, 1.6), (1.5, 2.5, .5), 75),
    Camera((.6, .5, 1.3), (2.6, 2.4, .8), 60),
    Camera((3.5, 3.6, 1.7), (1.0, 1.0, .2), 45),
)


def _solid(label: str, size: tuple, at: tuple, heading: float) -> SceneObject:
    "One box"
    box = Primitive(("box",), size, (0, 0, size[2] / 2))
    return SceneObject(Model(label, label.split("_")[1], size, (box,)), at, heading, 0)


def _box_room() -> Room:
    "A closed shell of slabs with a few boxes: simple enough for rays on paper"
    shell = [_solid(label, size, at, 0) for label, size, at in SLABS]
    boxes = [_solid(label, size, (*at, 0.0), heading) for label, size, at, heading in BOXES]
    light = Light((2, 2, 2), (0, 0, 0), (1, 1, 1), 1)
    return Room(OUTLINE, 2.5, (*shell, *boxes), (light,), (1, 1, 1))


def _rays(camera: Camera, size: int) -> np.ndarray:
    "The direction (size, size, 3) through each pixel's center, one meter deep"
    forward = np.subtract(camera.target, camera.at)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    x = ((np.arange(size) + .5) / size * 2 - 1) * np.tan(np.radians(camera.fov / 2))
    return forward + x[None, :, None] * right - x[:, None, None] * up


def _ray_cast(room: Room, camera: Camera, size: int, distances: bool = False):
    "The object (size, size) that the ray through each pixel's center meets first, and perhaps how far ahead"
    rays = _rays(camera, size)
    nearest, seen = np.full((size, size), np.inf), np.full((size, size), -1)
    for i, o in enumerate(room.objects):
        turn = np.eye(3)
        turn[:2, :2] = rotation_2d(o.heading)
        start = (np.array(camera.at) - o.at - [0, 0, o.model.size[2] / 2]) @ turn
        way, half = rays @ turn, np.array(o.model.size) / 2
        with np.errstate(divide="ignore"):
            a, b = (-half - start) / way, (half - start) / way
        enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest)
        nearest[hit], seen[hit] = enter[hit], i
    return (seen, nearest) if distances else seen


def edges(numbers: np.ndarray) -> np.ndarray:
    "Pixels (H, W) with a neighbor of another number"
    size = len(numbers)
    padded = np.pad(numbers, 1, "edge")
    shifts = [(y, x) for y in range(3) for x in range(3)]
    return np.any([padded[y:y + size, x:x + size] != numbers for y, x in shifts], axis=0)


def test_masks_agree_with_rays_through_pixel_centers():
    from virtual_room.render import FastRenderer
    room, size, wrong = _box_room(), 128, 0
    codes = np.array([ROOM_LABELS.codes.index(o.label) for o in room.objects])
    renderer = FastRenderer(size)
    renderer.show(room)
    for camera in VIEWS:
        expected, got = _ray_cast(room, camera, size), renderer.instances(camera) - 1
        assert (expected >= 0).all() and (got == expected)[~edges(expected)].all()
        assert (renderer.mask(camera) == codes[got]).all()
        wrong += (got != expected).sum()
    assert wrong < .004 * len(VIEWS) * size * size  # a sixth of a pixel along the edges


def test_no_pixel_is_left_empty_between_walls_floor_and_ceiling():
    from virtual_room.render import FastRenderer
    renderer, config = FastRenderer(128), RoomConfig(close_up=0.0)
    for i in range(40):
        room = make_room([16, i])
        renderer.show(room)
        for view in range(3):
            camera = make_camera(room, np.random.default_rng([i, view]), config)
            depth, _ = renderer.geometry(camera)
            assert (renderer.instances(camera) > 0).all(), f"room {i}, view {view}"
            assert (depth > 0).all(), f"room {i}, view {view}"


@pytest.mark.parametrize("largest", [200, 150])
def test_large_images_are_as_exact_as_small_ones(monkeypatch, largest):
    "Beyond the largest buffer a mask is drawn in two by two or three by three tiles, at the same sampling"
    from virtual_room import render
    monkeypatch.setattr(render, "LARGEST", largest)
    room, size, wrong = _box_room(), 127, 0
    renderer = render.FastRenderer(size, supersampling=1)
    renderer.show(room)
    for camera in VIEWS:
        expected, distance = _ray_cast(room, camera, size, distances=True)
        depth, _ = renderer.geometry(camera)
        same = renderer.instances(camera) - 1 == expected
        wrong += (~same).sum()
        assert (np.abs(depth - distance)[same] < 1e-4).mean() > .99
    assert wrong < .004 * len(VIEWS) * size * size


def test_close_ups_of_small_items_are_taken_from_the_narrow_half_of_the_angles():
    config = RoomConfig(close_up=1.0, close_up_fov=(30.0, 50.0))
    angles = {True: [], False: []}
    for i in range(150):
        room = make_room([19, i])
        camera = make_camera(room, np.random.default_rng(i), config)
        distances = [np.linalg.norm(np.subtract(camera.target, o.at)) for o in room.objects]
        subject = room.objects[int(np.argmin(distances))]
        if subject.label in ("items_mug", "items_phone", "furniture_clock", "furniture_armchair"):
            angles[max(subject.model.size) < .2].append(camera.fov)
    narrow = np.array(angles[True]) <= 40
    assert len(narrow) > 10 and narrow.mean() > .75  # the nearest object is not always the subject
    assert max(angles[False]) > 45


# --- bad input ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, words", [
    ('{"wdth": [3, 4]}', "wdth"),
    ("[]", "no JSON object"),
    ("{", "cannot read"),
    ('{"height": [2.5, 9]}', "height"),
    ('{"dog": true}', "dog"),
])
def test_bad_room_settings_are_named(text, words, tmp_path):
    (tmp_path / "room.json").write_text(text)
    with pytest.raises(SegError, match=words):
        load_config(tmp_path / "room.json")


def test_importing_the_package_loads_no_engine():
    code = "import sys, virtual_room; sys.exit(any(m in sys.modules for m in ('panda3d', 'torch', 'fastai')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
