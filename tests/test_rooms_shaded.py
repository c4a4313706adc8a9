"The shaded renderer: the same labels as the fast one, to the ray, and light that falls as light does"

import ctypes
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from generated import digest, run
from test_rooms import VIEWS, _box_room, _ray_cast, edges

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Camera, Plan, RoomConfig, generate, make_camera, make_room, render
from virtual_room.occupancy import CELL, occupied, origin
from virtual_room.pairs import PairMaker, choose_renderer
from virtual_room.plan import ANNOTATIONS
from virtual_room.renderer import Renderer, meter


@pytest.fixture(scope="module", autouse=True)
def shaded():
    from virtual_room import shaded
    try:
        shaded.driver()
    except SegError as e:
        pytest.skip(str(e))
    return shaded


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_both_renderers_keep_the_protocol(shaded):
    for renderer in (render.FastRenderer(32), shaded.ShadedRenderer(32)):
        assert isinstance(renderer, Renderer) and renderer.size == 32


def test_labels_depth_and_normals_agree_with_rays(shaded):
    room, renderer = _box_room(), shaded.ShadedRenderer(128, geometry=True)
    renderer.show(room)
    for camera in VIEWS:
        expected, distance = _ray_cast(room, camera, 128, distances=True)
        got, (depth, normals) = renderer.instances(camera) - 1, renderer.geometry(camera)
        same = got == expected
        assert (~same).mean() < 1e-3 and same[~edges(expected)].all()
        assert np.abs(depth - distance)[same].max() < 1e-3
        assert np.allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-3)
        floor, down = same & (expected == 0), render.camera_axes(camera)[:, 2]
        assert floor.any() and np.allclose(normals[floor], down, atol=1e-3)


def test_labels_are_those_of_the_fast_renderer_but_for_edges(shaded):
    fast, other, shares = render.FastRenderer(96), shaded.ShadedRenderer(96), []
    for i in range(12):
        room = make_room([41, i])
        camera = make_camera(room, np.random.default_rng(i))
        masks = []
        for renderer in (fast, other):
            renderer.show(room)
            masks.append(renderer.mask(camera))
        differ = masks[0] != masks[1]
        assert masks[1].max() < ROOM_LABELS.n_classes
        assert not (differ & ~edges(masks[0]) & ~edges(masks[1])).any()
        shares.append(differ.mean())
    assert np.mean(shares) < .01


BELOW = Camera((2.0, .3, 1.9), (2.0, 2.2, .0), 80, exposure=.3)


def _floor(renderer, room) -> tuple[np.ndarray, np.ndarray]:
    "Brightness (H, W) of a view downwards, and which pixels are floor"
    renderer.show(room)
    return renderer.image(BELOW).mean(2), renderer.instances(BELOW) == 1


def test_objects_throw_shadows(shaded):
    renderer, room = shaded.ShadedRenderer(96), _box_room()
    lamp = replace(room.lights[0], at=(1.1, 2.1, .9), color=(6, 6, 6))
    full = replace(room, ambient=(.1, .1, .1), lights=(lamp,))
    bare, empty = _floor(renderer, replace(full, objects=room.objects[:6]))
    shown, seen = _floor(renderer, full)
    ratio = shown[empty & seen] / bare[empty & seen]
    assert (ratio < .8).mean() > .04 and (ratio > .97).mean() > .5


def test_corners_are_darker(shaded):
    room = _box_room()
    even = replace(room, objects=room.objects[:6], lights=(), ambient=(.5, .5, .5))
    brightness, floor = _floor(shaded.ShadedRenderer(96), even)
    border = edges(floor) & floor
    assert brightness[border].mean() < .9 * np.median(brightness[floor])


def test_cells_are_occupied_where_objects_are():
    room = _box_room()
    cells = occupied(room) > 0

    def is_occupied(x: float, y: float, z: float) -> bool:
        column, row, level = ((np.array([x, y, z]) - origin(room)) / CELL).astype(int)
        return bool(cells[level, row, column])

    for inside in ((2.0, 3.0, .25), (.5, 1.2, .8), (-.1, 1, 1), (1, 1, -.1), (1, 1, 2.6)):
        assert is_occupied(*inside), inside
    for free in ((2.0, 3.0, .7), (3.0, 3.0, .2)):
        assert not is_occupied(*free), free


def test_bytes_do_not_depend_on_workers_nor_on_more_annotations(tmp_path):
    plan = Plan(seed=3, size=48, images_per_room=2, renderer="shaded")
    generate(12, tmp_path / "fast", replace(plan, renderer="fast"))  # in the same process; it leaves no trace
    generate(12, tmp_path / "one", plan)
    generate(12, tmp_path / "two", plan, workers=2)
    generate(12, tmp_path / "more", replace(plan, annotations=ANNOTATIONS))
    one, two, more = (digest(tmp_path / name) for name in ("one", "two", "more"))
    assert one == two
    del one["generation.json"]
    assert one == {name: more[name] for name in one}
    for i in range(12):
        _check_annotations(tmp_path / "more", f"{i:06d}")


def _check_annotations(folder, name: str) -> None:
    "Mask, instances, depth and objects of an image agree"
    mask, numbered, depth = (read(folder / kind / f"{name}.png") for kind in ("labels", "instances", "depth"))
    objects = {o["id"]: o for o in json.loads((folder / "objects" / f"{name}.json").read_text())}
    assert mask.max() < 24 and ((depth > 0) == (numbered > 0)).all()
    assert all(0 < o["visible"] <= 1 for o in objects.values())
    for n in np.unique(numbered[numbered > 0]):
        assert (mask[numbered == n] == ROOM_LABELS[objects[n]["label"]]).all()


def test_a_folder_keeps_its_renderer(shaded, tmp_path):
    manifest = generate(1, tmp_path, Plan(size=32, renderer="shaded"))
    assert manifest["renderer"] == "shaded"
    assert manifest["driver"] == shaded.driver() != render.driver()
    with pytest.raises(SegError, match=r"another renderer \(shaded, now fast\).*--out"):
        generate(1, tmp_path, Plan(size=32, renderer="fast"))
    with pytest.raises(SegError, match="'glossy'; give auto, fast or shaded"):
        Plan(renderer="glossy")


def test_auto_takes_shaded_for_a_gpu_only(shaded, monkeypatch, tmp_path):
    assert choose_renderer("fast") == "fast"
    assert choose_renderer("auto") == ("shaded" if shaded.hardware() else "fast")
    monkeypatch.setattr(shaded, "driver", lambda: "Panda3D 1.10 NVIDIA H200/PCIe/SSE2, 4.6.0")
    assert choose_renderer("auto") == "shaded"
    monkeypatch.setattr(shaded, "driver", lambda: "Panda3D 1.10 llvmpipe (LLVM 15), 4.5 Mesa")
    assert choose_renderer("auto") == "fast"
    done = run(1, "--out", tmp_path, "--size", 32, "--workers", 1, "--renderer", "shaded")
    assert done.returncode == 0 and ", shaded," in done.stdout and not done.stderr


def test_missing_opengl_is_one_sentence(shaded, monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(shaded, "_host", shaded._host.__wrapped__)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SegError, match="libegl1, libgl1 and libgl1-mesa-dri"):
        shaded.driver()
    assert choose_renderer("auto") == "fast"


def test_memory_stays_flat_in_the_shaded_renderer():
    import psutil
    maker, used = PairMaker(Plan(seed=9, size=32, renderer="shaded", config=RoomConfig(close_up=0))), []
    for i in range(80):
        maker.pair(i)
        if i in (49, 79):
            used.append(psutil.Process().memory_info().rss)
    assert used[1] < used[0] * 1.05 + 4e6


SUNNY = RoomConfig(sun=1.0, night=0.0, l_shape=0.0)
DARK_VIEW = RoomConfig(close_up=0.0, exposure=(.4, .4))


def test_the_sun_shines_in_at_a_window_only(shaded):
    renderer, patches = shaded.ShadedRenderer(64), 0
    for i in range(8):
        room = make_room([61, i], SUNNY)
        camera = make_camera(room, np.random.default_rng(i), DARK_VIEW)
        renderer.show(room)
        sunny, labels = renderer.image(camera).mean(2), renderer.mask(camera)
        renderer.show(replace(room, lights=tuple(light for light in room.lights if light.area)))
        brighter = sunny - renderer.image(camera).mean(2)
        lit = (brighter > 25) & (labels != 0)
        assert (renderer.mask(camera) == labels).all() and lit.mean() < .4
        ceiling = (labels == ROOM_LABELS["building_ceiling"]) & ~edges(labels)
        assert brighter[ceiling].max(initial=0) < 25
        patches += lit.mean() > .01
    assert patches >= 3


def test_no_image_is_badly_overexposed():
    "Pair 27 was half white: a close-up of a sunlit wall with a long exposure"
    maker = PairMaker(Plan(seed=0, size=64, renderer="shaded", config=RoomConfig(effects=0.0)))
    for i in range(20, 32):
        image, _ = maker.pair(i)
        white = (image.min(axis=2) >= 250).mean()
        assert white < .15, f"image {i}: {white:.0%} of it is white"


def test_an_image_as_bright_as_it_should_be_is_not_darkened(shaded):
    camera = VIEWS[0]
    dim, bright = np.full((8, 8), .4), np.full((8, 8), 1.0)
    assert meter(camera, dim) == 1
    assert meter(camera, bright) < .5
    assert meter(replace(camera, exposure=2.0), bright) == pytest.approx(meter(camera, bright) / 2)
