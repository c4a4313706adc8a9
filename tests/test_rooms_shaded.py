"The shaded profile: the same labels as the fast one, to the ray, and light that falls as light does"

import ctypes
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from test_rooms import _box_room, _ray_cast, digest, run
from virtual_room import Camera, Plan, RoomConfig, generate, make_camera, make_room, render
from virtual_room.generate import TRUTHS, Studio, chosen
from virtual_room.occupancy import CELL, occupied, origin


@pytest.fixture(scope="module", autouse=True)
def shaded():
    from virtual_room import shaded
    try: shaded.driver()
    except SegError as e: pytest.skip(str(e))
    return shaded


VIEWS = (Camera((3.4, .5, 1.6), (1.5, 2.5, .5), 75), Camera((.6, .5, 1.3), (2.6, 2.4, .8), 60), Camera((3.5, 3.6, 1.7), (1.0, 1.0, .2), 45))


def edges(numbers: np.ndarray) -> np.ndarray:
    "Pixels with a neighbour of another number"
    size = len(numbers)
    near = np.stack([np.pad(numbers, 1, "edge")[y:y + size, x:x + size] for y in range(3) for x in range(3)])
    return (near != numbers).any(0)


def test_labels_depth_and_normals_agree_with_rays(shaded):
    room, stage = _box_room(), shaded.Stage(128, geometry=True)
    stage.show(room)
    for camera in VIEWS:
        truth, distance = _ray_cast(room, camera, 128, distances=True)
        got, (depth, normals) = stage.instances(camera) - 1, stage.geometry(camera)
        assert (got != truth).mean() < 1e-3 and (got == truth)[~edges(truth)].all()
        same = got == truth
        assert np.abs(depth - distance)[same].max() < 1e-3 and np.allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-3)
        floor = same & (truth == 0)
        assert floor.any() and np.allclose(normals[floor], render._axes(camera)[:, 2], atol=1e-3)


def test_labels_are_those_of_the_fast_profile_but_for_edges(shaded):
    fast, other, differ = render.Stage(96), shaded.Stage(96), []
    for i in range(12):
        room = make_room([41, i])
        camera = make_camera(room, np.random.default_rng(i))
        fast.show(room), other.show(room)
        a, b = fast.mask(camera), other.mask(camera)
        assert b.max() < ROOM_LABELS.n_classes and ((a == b) | edges(a) | edges(b)).all()
        differ.append((a != b).mean())
    assert np.mean(differ) < .01


def test_things_throw_shadows_and_corners_are_darker(shaded):
    room, below = _box_room(), Camera((2.0, .3, 1.9), (2.0, 2.2, .0), 80, exposure=.3)
    stage, lamp = shaded.Stage(96), replace(_box_room().lights[0], at=(1.1, 2.1, .9), color=(6, 6, 6))
    def floor(room):
        stage.show(room)
        seen = stage.instances(below) == 1
        return stage.picture(below).mean(2), seen
    room = replace(room, ambient=(.1, .1, .1))
    bare, empty = floor(replace(room, objects=room.objects[:6], lights=(lamp,)))
    full, seen = floor(replace(room, lights=(lamp,)))
    both = empty & seen
    ratio = full[both] / bare[both]
    assert (ratio < .8).mean() > .04 and (ratio > .97).mean() > .5
    even, corner = floor(replace(room, objects=room.objects[:6], lights=(), ambient=(.5, .5, .5)))
    wall = edges(corner) & corner
    assert even[wall].mean() < .9 * np.median(even[corner])


def test_cells_are_filled_where_things_are():
    room = _box_room()
    cells = occupied(room) > 0
    at = lambda x, y, z: cells[tuple(((np.array([x, y, z]) - origin(room)) / CELL).astype(int)[::-1])]
    assert at(2.0, 3.0, .25) and at(.5, 1.2, .8) and not at(2.0, 3.0, .7) and not at(3.0, 3.0, .2) and at(-.1, 1, 1) and at(1, 1, -.1) and at(1, 1, 2.6)


def test_bytes_do_not_depend_on_workers_nor_on_more_truth(tmp_path):
    plan = Plan(seed=3, size=48, images_per_room=2, renderer="shaded")
    generate(12, tmp_path / "fast", replace(plan, renderer="fast"))  # the other renderer, in the same process, leaves no trace
    generate(12, tmp_path / "one", plan), generate(12, tmp_path / "two", plan, workers=2), generate(12, tmp_path / "told", replace(plan, truth=TRUTHS))
    one, two, told = (digest(tmp_path / n) for n in ("one", "two", "told"))
    assert one == two and all(told[k] == v for k, v in one.items() if k != "generation.json")
    for i in range(12):
        mask, numbered, depth = (np.asarray(Image.open(tmp_path / "told" / kind / f"{i:06d}.png")).astype(int) for kind in ("labels", "instances", "depth"))
        objects = {o["id"]: o for o in json.loads((tmp_path / "told" / "objects" / f"{i:06d}.json").read_text())}
        assert mask.max() < 24 and ((depth > 0) == (numbered > 0)).all() and all(0 < o["visible"] <= 1 for o in objects.values())
        assert all((mask[numbered == n] == ROOM_LABELS[objects[n]["label"]]).all() for n in np.unique(numbered) if n)


def test_a_folder_keeps_its_renderer(shaded, tmp_path):
    manifest = generate(1, tmp_path, Plan(size=32, renderer="shaded"))
    assert manifest["renderer"] == "shaded"
    assert manifest["driver"] == shaded.driver() != render.driver()
    with pytest.raises(SegError, match=r"another renderer \(shaded, now fast\).*--out"): generate(1, tmp_path, Plan(size=32))
    with pytest.raises(SegError, match="'glossy'; give auto, fast or shaded"): Plan(renderer="glossy")


def test_auto_takes_shaded_for_a_gpu_only(shaded, monkeypatch, tmp_path):
    assert chosen("fast") == "fast" and chosen("auto") == ("shaded" if shaded.hardware() else "fast")
    monkeypatch.setattr(shaded, "driver", lambda: "Panda3D 1.10 NVIDIA H200/PCIe/SSE2, 4.6.0")
    assert chosen("auto") == "shaded"
    monkeypatch.setattr(shaded, "driver", lambda: "Panda3D 1.10 llvmpipe (LLVM 15), 4.5 Mesa")
    assert chosen("auto") == "fast"
    done = run(1, "--out", tmp_path, "--size", 32, "--workers", 1, "--renderer", "shaded")
    assert done.returncode == 0 and ", shaded," in done.stdout and not done.stderr


def test_missing_opengl_is_one_sentence(shaded, monkeypatch):
    def missing(name): raise OSError(name)
    monkeypatch.setattr(shaded, "_host", shaded._host.__wrapped__)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SegError, match="libegl1, libgl1 and libgl1-mesa-dri"): shaded.driver()
    assert chosen("auto") == "fast"


def test_memory_stays_flat_in_the_shaded_profile():
    import psutil
    studio, used = Studio(Plan(seed=9, size=32, renderer="shaded", config=RoomConfig(close_up=0))), []
    for i in range(80):
        studio.pair(i)
        if i in (49, 79): used.append(psutil.Process().memory_info().rss)
    assert used[1] < used[0] * 1.05 + 4e6


def test_the_sun_shines_in_at_a_window_only(shaded):
    stage, patches = shaded.Stage(64), 0
    for i in range(8):
        room = make_room([61, i], RoomConfig(sun=1.0, night=0.0, l_shape=0.0))
        camera = make_camera(room, np.random.default_rng(i), RoomConfig(close_up=0.0, exposure=(.4, .4)))
        stage.show(room)
        sunny, labels = stage.picture(camera).mean(2), stage.mask(camera)
        stage.show(replace(room, lights=tuple(l for l in room.lights if l.area)))
        brighter = sunny - stage.picture(camera).mean(2)
        lit = (brighter > 25) & (labels != 0)
        assert (stage.mask(camera) == labels).all() and lit.mean() < .4
        ceiling = labels == ROOM_LABELS["building_ceiling"]
        if ceiling.any(): assert brighter[ceiling & ~edges(labels)].max(initial=0) < 25
        patches += lit.mean() > .01
    assert patches >= 3


def test_no_image_is_badly_overexposed():
    "Pair 27 was half white: a close-up of a sunlit wall with a long exposure"
    studio = Studio(Plan(seed=0, size=64, renderer="shaded", config=RoomConfig(effects=0.0)))
    for image in range(20, 32):
        picture, _ = studio.pair(image)
        white = (picture.min(axis=2) >= 250).mean()
        assert white < .15, f"image {image}: {white:.0%} of it is white"
