"Rooms: what is drawn is plausible, and masks are exact"

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("panda3d")

from generated import REPO, digest, run  # noqa: F401 (digest and run for test_rooms_shaded)
from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Camera, Light, Model, Part, Room, RoomConfig, Thing, find_faults, load_config, make_camera, make_room
from virtual_room.placement import edge_distance, separation, walkable
from virtual_room.shapes import mesh
from virtual_room.textures import VARIANTS, texture


# --- plain data ---------------------------------------------------------------------------------------------------

def test_rooms_follow_from_their_seed():
    assert make_room([1, 2]) == make_room([1, 2]) != make_room([1, 3])
    json.dumps(make_room([1, 2]).asdict(), default=float)


def test_no_room_has_a_fault_and_all_labels_are_built():
    rooms = [make_room([11, i]) for i in range(200)]
    assert [(i, f) for i, r in enumerate(rooms) for f in find_faults(r)] == []
    built = [{t.label for t in r.things} for r in rooms]
    rare = {c: sum(c in b for b in built) for c in ROOM_LABELS.codes if sum(c in b for b in built) < 60}
    assert not rare


def _move(room: Room, kind: str, by: tuple[float, float, float]) -> Room:
    things = list(room.things)
    i = next(i for i, t in enumerate(things) if t.model.kind == kind)
    things[i] = replace(things[i], at=tuple(np.add(things[i].at, by)))
    return replace(room, things=tuple(things))


@pytest.mark.parametrize("kind, by, fault", [
    ("mug", (0, 0, .03), "mug .* floats"), ("painting", (0, 0, 5), "through the ceiling"), ("double bed", (0, 0, .1), "double bed .* floats"),
    ("armchair", (9, 0, 0), "armchair .* sticks out"), ("ceiling lamp", (0, 0, -.1), "ceiling lamp .* floats")])
def test_the_checker_finds_planted_faults(kind, by, fault):
    room = next(r for r in (make_room([12, i]) for i in range(50)) if any(t.model.kind == kind for t in r.things))
    assert find_faults(room) == []
    assert any(re.search(fault, f) for f in find_faults(_move(room, kind, by)))


def test_the_checker_finds_things_inside_each_other():
    room = next(r for r in (make_room([13, i]) for i in range(50)) if {"double bed", "armchair"} <= {t.model.kind for t in r.things})
    bed, chair = (next(t for t in room.things if t.model.kind == k) for k in ("double bed", "armchair"))
    assert any("overlaps" in f for f in find_faults(_move(room, "armchair", np.subtract(bed.at, chair.at))))


def test_separation_agrees_with_sampled_points():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-.5, .5, 40)] * 2), -1).reshape(-1, 2)
    for _ in range(200):
        a, b = (Thing(Model("empty", "box", (*rng.uniform(.3, 2, 2), 1), ()), (*rng.uniform(-1, 1, 2), 0), rng.uniform(0, 360), 0) for _ in range(2))
        inside = edge_distance(grid * a.model.size[:2] @ _turn(a.heading).T + a.at[:2], b.footprint) > 0
        gap = separation(a.footprint, b.footprint)
        if abs(gap) > .08: assert inside.any() == (gap < 0)


def _turn(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


def test_people_stand_on_free_floor_at_their_height():
    config = RoomConfig()
    for i in range(60):
        room = make_room([14, i])
        eye = np.array(make_camera(room, np.random.default_rng(i)).at)
        assert config.camera_height[0] <= eye[2] <= config.camera_height[1]
        assert walkable(room, eye[None, :2], .15, .05).all()


@pytest.mark.parametrize("shape", [("box",), ("bevel", .02), ("soft", .5), ("lathe", ((0, 0), (1, 0), (1, 1), (0, 1))), ("ring", .2)])
def test_meshes_are_closed_and_face_outwards(shape):
    m = mesh(shape)
    p = m.unit * 1.0 + m.inset
    a, b, c = (p[m.tris[:, i]] for i in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0  # six times the volume
    assert np.abs(np.cross(b - a, c - a).sum(0)).max() < 1e-4


def test_textures_are_the_same_each_time():
    for kind in VARIANTS:
        first = texture(f"{kind}:0").copy()
        texture.cache_clear()
        assert (texture(f"{kind}:0") == first).all() and first.dtype == np.uint8 and first.ndim == 3


# --- exact truth --------------------------------------------------------------------------------------------------

BOXES = [("furniture_doubleBed", (1.5, 2.0, .5), (2.0, 3.0), 0), ("furniture_commode", (.8, .4, .9), (.5, 1.2), 90), ("furniture_armchair", (.7, .7, .8), (3.2, 1.6), 33),
         ("items_vase", (.15, .15, .3), (1.3, 1.1), 20)]


def _box_room() -> Room:
    "A closed shell of slabs with a few boxes: simple enough for rays on paper"
    shell = [("building_floor", (4, 4, .1), (2, 2, -.1)), ("building_ceiling", (4, 4, .1), (2, 2, 2.5)), ("building_wall", (4, .1, 2.5), (2, -.05, 0)), ("building_wall", (4, .1, 2.5), (2, 4.05, 0)),
             ("building_door", (.1, 4, 2.5), (-.05, 2, 0)), ("building_wall", (.1, 4, 2.5), (4.05, 2, 0))]
    solid = lambda label, size, at, turn: Thing(Model(label, label.split("_")[1], size, (Part(("box",), size, (0, 0, size[2] / 2)),)), at, turn, 0)
    things = [solid(label, size, at, 0) for label, size, at in shell] + [solid(label, size, (*at, 0.0), turn) for label, size, at, turn in BOXES]
    return Room(((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0)), 2.5, tuple(things), (Light((2, 2, 2), (0, 0, 0), (1, 1, 1), 1),), (1, 1, 1))


def _ray_cast(room: Room, camera: Camera, size: int, distances: bool = False):
    "The thing (size, size) that the ray through each pixel's centre meets first, and perhaps how far ahead"
    eye = np.array(camera.at)
    forward = np.array(camera.target) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    x = ((np.arange(size) + .5) / size * 2 - 1) * np.tan(np.radians(camera.fov / 2))
    ways = forward + x[None, :, None] * right - x[:, None, None] * up
    nearest, seen = np.full((size, size), np.inf), np.full((size, size), -1)
    for i, t in enumerate(room.things):
        turn = np.eye(3)
        turn[:2, :2] = _turn(t.heading)
        start, way = (eye - t.at - [0, 0, t.model.size[2] / 2]) @ turn, ways @ turn
        half = np.array(t.model.size) / 2
        with np.errstate(divide="ignore"): a, b = (-half - start) / way, (half - start) / way
        enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        hit = (enter < leave) & (enter > 0) & (enter < nearest)
        nearest[hit], seen[hit] = enter[hit], i
    return (seen, nearest) if distances else seen


def test_masks_agree_with_rays_through_pixel_centres():
    from virtual_room.render import Stage
    room, size = _box_room(), 128
    stage = Stage(size)
    stage.show(room)
    wrong = 0
    for at, target, fov in [((3.4, .5, 1.6), (1.5, 2.5, .5), 75), ((.6, .5, 1.3), (2.6, 2.4, .8), 60), ((3.5, 3.6, 1.7), (1.0, 1.0, .2), 45)]:
        truth = _ray_cast(room, Camera(at, target, fov), size)
        got = stage.instances(Camera(at, target, fov)) - 1
        near = np.stack([np.pad(truth, 1, "edge")[y:y + size, x:x + size] for y in range(3) for x in range(3)])
        edge = (near != truth).any(0)
        assert (got == truth)[~edge].all() and (truth >= 0).all()
        wrong += (got != truth).sum()
        codes = np.array([ROOM_LABELS.codes.index(t.label) for t in room.things])
        assert (stage.mask(Camera(at, target, fov)) == codes[got]).all()
    assert wrong < .004 * 3 * size * size  # a sixth of a pixel along the edges


# --- bad input ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, words", [('{"wdth": [3, 4]}', "wdth"), ("[]", "no JSON object"), ("{", "cannot read"), ('{"height": [2.5, 9]}', "height"), ('{"dog": true}', "dog")])
def test_bad_room_settings_are_named(text, words, tmp_path):
    (tmp_path / "room.json").write_text(text)
    with pytest.raises(SegError, match=words): load_config(tmp_path / "room.json")


def test_importing_the_package_loads_no_engine():
    code = "import sys, virtual_room; sys.exit(any(m in sys.modules for m in ('panda3d', 'torch', 'fastai')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
