"How shapes come into a room, and when a pair on disk is whole: small exact tests"

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Model, Plan, Primitive, Room, SceneObject, make_room, writer
from virtual_room.encode import encode
from virtual_room.light import surfaces
from virtual_room.meshes import SLENDER, STRIP, build_mesh, contact_shadows, seals
from virtual_room.pairs import PairMaker
from virtual_room.scene import rotation_2d
from virtual_room.shapes import box_map, euler, mesh, place
from virtual_room.workers import ensure
from virtual_room.writer import Folder, Tally

NO_TURN = np.eye(3)[None]
NO_CUT = np.zeros(1)


# --- shapes -------------------------------------------------------------------------------------------------------

def turn_about(axis: int, degrees: float) -> np.ndarray:
    "The matrix (3, 3) that turns about one axis, counter-clockwise seen from its tip"
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[np.ix_([first, second], [first, second])] = rotation_2d(degrees)
    return turn


@pytest.mark.parametrize("degrees", [(30, 0, 0), (0, 40, 0), (0, 0, 50), (20, -35, 110)])
def test_primitives_turn_about_x_then_y_then_z(degrees):
    x, y, z = (turn_about(axis, angle) for axis, angle in enumerate(degrees))
    assert np.allclose(euler(np.array([degrees], float))[0], z @ y @ x)


def test_a_stretched_ball_has_the_normals_of_an_ellipsoid():
    size = np.array([[.4, 1.2, .2]])
    position, normal, _ = place(mesh(("soft", 1.0)), size, np.zeros((1, 3)), NO_TURN, NO_CUT)
    gradient = position[0] / size ** 2
    expected = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    assert np.allclose(normal[0], expected, atol=1e-3)


@pytest.mark.parametrize("size", [(1.0, .3, .1), (.1, .3, 1.0), (.3, 1.0, .2)])
def test_grain_runs_along_the_longer_side_of_each_face(size):
    box = mesh(("box",))
    size = np.array([size])
    _, _, local = place(box, size, np.zeros((1, 3)), NO_TURN, NO_CUT)
    uv = box_map(box, local, size, np.array([True]))[0]
    for first in range(0, 24, 4):
        u, v = np.ptp(uv[first:first + 4], axis=0)
        assert u > v


def test_a_primitive_lies_in_the_room_as_its_object_does():
    rotation, heading, center, at = (30.0, 0.0, 20.0), 70.0, (.2, -.1, .5), (1.0, 2.0, .3)
    primitive = Primitive(("box",), (.4, .2, .6), center, rotation=rotation)
    model = Model("furniture_shelf", "shelf", (1, 1, 1), (primitive,))
    room = Room(((0, 0), (4, 0), (4, 4), (0, 4)), 2.5, (SceneObject(model, at, heading, 0),), (), (1, 1, 1))
    corners = mesh(("box",)).unit * primitive.size @ euler(np.array([rotation]))[0].T + center
    expected = corners @ turn_about(2, heading).T + at
    assert np.allclose(build_mesh(room).position, expected, atol=1e-6)


# --- shadows and seals --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def room() -> Room:
    return make_room([61, 0])


def test_contact_shadows_lie_just_above_what_objects_stand_on(room):
    quads = contact_shadows(room)
    standing = [o for o in room.objects if room.objects[o.support].kind == "floor"]
    middles = {tuple(np.round(o.spot, 4)) for o in standing}
    heights = []
    for quad in quads:
        assert np.ptp(quad[:, 2]) == 0
        if tuple(np.round(quad[:, :2].mean(0, dtype=float), 4)) in middles:
            heights.append(quad[0, 2])
    assert len(heights) > 3 and 0 < min(heights) and max(heights) < .02
    assert all(min(abs(quad[0, 2] - o.bottom) for o in room.objects) < .02 for quad in quads)


def area(quad: np.ndarray) -> float:
    "Of a rectangle (4, 3)"
    return float(np.linalg.norm(quad[1] - quad[0]) * np.linalg.norm(quad[2] - quad[1]))


def test_contact_shadows_are_larger_than_footprints_but_for_slender_objects(room):
    for o in room.objects:
        if o.size[2] < .05 or room.objects[o.support].kind != "floor" or o.kind in ("door", "window"):
            continue
        alone = replace(room, objects=(room.objects[0], replace(o, support=0)))
        quads = contact_shadows(alone)
        footprint = o.size[0] * o.size[1]
        for quad in quads:
            assert (area(quad) < footprint) == (o.kind in SLENDER), o.kind


def test_seals_stand_behind_all_edges_of_a_room_and_of_its_openings(room):
    outside = [quad for _, quad in seals(room)]
    walls = [o for o in room.objects if o.kind == "wall"]
    joints = 0
    for wall in walls:
        joints += sum(p.shape[0] == "panel" and p.size[2] < room.height for p in wall.model.primitives)
    assert joints > 0
    assert len(outside) == len(walls) * (4 + 2) + 2 * joints
    for i, quad in seals(room):
        assert room.objects[i].kind in ("wall", "floor", "ceiling")
        assert quad[:, 2].min() >= -STRIP - 1e-6 and quad[:, 2].max() <= room.height + STRIP + 1e-6


def test_walls_are_darker_towards_floor_and_ceiling(room):
    even = replace(room, lights=(), ambient=(.5, .5, .5))
    lit, m = surfaces(even), build_mesh(even)
    walls = [i for i, o in enumerate(room.objects) if o.kind == "wall"]
    on_panel = np.isin(m.owner, walls) & (np.abs(m.normal[:, 2]) < .1)
    height = m.position[:, 2]
    light = lit.color.mean(1) / m.tint.mean(1)
    middle = light[on_panel & (np.abs(height - room.height / 2) < .4)].mean()
    for edge in (0, room.height):
        assert light[on_panel & (np.abs(height - edge) < .01)].mean() < .95 * middle


# --- annotations --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def maker() -> PairMaker:
    "A maker that has made a pair with all annotations"
    maker = PairMaker(Plan(seed=6, size=64, annotations=("boxes", "visible", "depth", "normals")))
    maker.pair(0)
    return maker


def test_depth_is_in_millimeters_and_normals_are_in_bytes(maker):
    found, (depth, normals) = maker.annotations(), maker.renderer.geometry(maker.camera)
    assert np.abs(found["depth"] / 1000 - depth).max() <= .0005001
    assert np.abs(found["normals"] / 127.5 - 1 - normals).max() <= .5001 / 127.5


def test_the_visible_share_is_of_the_object_itself(maker):
    shares = []
    for row in maker.annotations()["objects"]:
        total, = maker.renderer.uncovered(maker.camera, [row["id"] - 1])
        shares.append(row["visible"])
        assert row["visible"] == round(min(1, row["pixels"] / total), 4)
    assert min(shares) < 1


# --- files --------------------------------------------------------------------------------------------------------

def gray(size: int, value: int = 1) -> np.ndarray:
    "A mask of one label"
    return np.full((size, size), value, np.uint8)


def save_pair(out: Path, image: Image.Image, mask: Image.Image) -> Folder:
    "A folder with these two files as pair 0"
    folder = Folder(out)
    folder.clear(None)
    image.save(folder.path("screenshots", 0))
    mask.save(folder.path("labels", 0))
    return folder


IMAGE, MASK = Image.new("RGB", (32, 32)), Image.fromarray(gray(32))
NO_PAIRS = {
    "a colored mask": (IMAGE, Image.new("RGB", (32, 32))),
    "a mask with a palette": (IMAGE, Image.new("P", (32, 32))),
    "a smaller mask": (IMAGE, Image.fromarray(gray(16))),
    "both smaller": (Image.new("RGB", (16, 16)), Image.fromarray(gray(16))),
    "an unknown label": (IMAGE, Image.fromarray(gray(32, ROOM_LABELS.n_classes))),
}


def test_a_whole_pair_is_counted(tmp_path):
    counts = save_pair(tmp_path, IMAGE, MASK).finished(0, 32)
    assert counts.shape == (ROOM_LABELS.n_classes,)
    assert counts[1] == counts.sum() == 32 * 32


@pytest.mark.parametrize("image, mask", NO_PAIRS.values(), ids=NO_PAIRS)
def test_what_is_no_pair_of_the_plan_is_made_anew(image, mask, tmp_path):
    assert save_pair(tmp_path, image, mask).finished(0, 32) is None


@pytest.mark.parametrize("full", ["screenshots", "objects", "labels"])
def test_no_mask_is_left_of_a_pair_that_could_not_be_written_whole(full, tmp_path, monkeypatch):
    folder, write = Folder(tmp_path), writer._write
    folder.clear(None)

    def write_until_full(path: Path, content) -> None:
        if path.parent.name == full:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(writer, "_write", write_until_full)
    with pytest.raises(SegError, match="No space left"):
        folder.write(encode(0, 0, np.zeros((32, 32, 3), np.uint8), gray(32), dict(objects=[])))
    assert not folder.path("labels", 0).exists()
    assert folder.whole() == []


def test_a_whole_pair_is_not_made_again(tmp_path, maker):
    folder = save_pair(tmp_path, Image.new("RGB", (64, 64)), Image.fromarray(gray(64)))
    assert ensure(folder, maker, [0]).pixels[1] == 64 * 64
    folder.path("labels", 0).unlink()
    tally = ensure(folder, maker, [0])
    assert tally.pairs == 1 and (tally.pixels == folder.finished(0, 64)).all()


def test_names_grow_beyond_a_million(tmp_path):
    folder = save_pair(tmp_path, IMAGE, MASK)
    folder.write(encode(1_000_000, 0, np.zeros((32, 32, 3), np.uint8), gray(32)))
    (tmp_path / "labels" / "0000007.png").write_bytes(b"of somebody else")
    assert folder.whole() == [0, 1_000_000]
    folder.clear(1_000_000)
    assert folder.whole() == [0]
    assert (tmp_path / "labels" / "0000007.png").exists()


def test_an_image_that_shows_one_pixel_of_a_label_is_counted():
    tally, counts = Tally(), np.zeros(ROOM_LABELS.n_classes, np.int64)
    counts[3] = 1
    for _ in range(2):
        tally.add(counts)
    assert tally.by_label()[ROOM_LABELS.codes[3]] == dict(pixels=2, images=2)
    assert tally.by_label()[ROOM_LABELS.codes[4]] == dict(pixels=0, images=0)
