"More annotations than masks, the layouts of others, previews, and drawing on a cluster"

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.layouts import find_pairs
from nbs_lib.shards import find_data
from virtual_room import Camera, Plan, RoomConfig, generate, make_room
from virtual_room.export import run_lengths, seg_convert, to_coco
from virtual_room.generate import Change, generate_shards, seg_generate
from virtual_room.lens import through_lens
from virtual_room.pairs import PairMaker
from virtual_room.placement import cells, find_faults
from virtual_room.plan import ANNOTATIONS
from virtual_room.scene import override

ALL = Plan(seed=6, size=96, images_per_room=2, annotations=ANNOTATIONS)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Path:
    "Eight pairs of 96 px with all annotations"
    out = tmp_path_factory.mktemp("annotated") / "rooms"
    generate(8, out, ALL)
    return out


def files(out: Path) -> dict[str, bytes]:
    "The bytes of each file below a folder, by its path"
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def read_pixels(path: Path) -> np.ndarray:
    "An image file as int"
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def read_kind(out: Path, kind: str, index: int) -> np.ndarray:
    "One annotation of an image, as int"
    return read_pixels(out / kind / f"{index:06d}.png")


# --- rooms --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def angled() -> list:
    "80 rooms, most of which lack a corner"
    return [make_room([31, i], RoomConfig(l_shape=1.0, clutter=1.0)) for i in range(80)]


def test_rooms_that_lack_a_corner_have_no_fault(angled):
    faults = {i: find_faults(room) for i, room in enumerate(angled)}
    assert {i: found for i, found in faults.items() if found} == {}
    assert sum(len(room.outline) == 6 for room in angled) > 40


def test_cells_cover_a_room_that_lacks_a_corner(angled):
    for room in angled:
        if len(room.outline) != 6:
            continue
        inside, outside = cells(room.outline)
        covered = ((inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])).sum()
        x, y = np.array(room.outline).T
        area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2  # the shoelace formula
        assert len(outside) == 1
        assert np.isclose(covered, area)


def test_unlabelled_objects_stay_rare():
    maker = PairMaker(Plan(seed=17, size=64, config=RoomConfig(clutter=1.0)))
    empty = [(maker.pair(i)[1] == 0).mean() for i in range(60)]
    assert 0 < np.mean(empty) < .1


# --- ranges and lens ----------------------------------------------------------------------------------------------

def test_ranges_can_be_given_on_the_command_line():
    assert override(RoomConfig(), "night=0.5 width=3,4") == RoomConfig(night=.5, width=(3.0, 4.0))
    assert override(RoomConfig(), "") == RoomConfig()


@pytest.mark.parametrize("text, says", [
    ("nite=1", "nite.*known are"),
    ("night=dark", "sets nothing"),
    ("night=2", "night"),
    ("width=5,4", "width"),
    ("jpeg=0,50", "jpeg"),
])
def test_a_bad_range_is_named(text, says):
    with pytest.raises(SegError, match=says):
        override(RoomConfig(), text)


HALVES = np.full((64, 64, 3), 128, np.uint8)  # gray, lighter on the right
HALVES[:, 32:] = 200


def look(**effects) -> np.ndarray:
    "The halves through a lens with some effects, the noise always the same"
    camera = replace(Camera((0, 0, 1), (1, 0, 1), 60), **effects)
    return through_lens(HALVES, camera, np.random.default_rng(3)).astype(float)


def test_a_plain_lens_changes_nothing():
    assert (look() == HALVES).all()


def test_blur_softens_edges():
    steps = np.diff(look(blur=8.0)[32, :, 0])
    assert np.abs(steps).max() < 45


def test_a_vignette_darkens_corners():
    dark = look(vignette=.3)
    assert (dark[0, 0] < 100).all() and (dark[32, 31] > 125).all()


def test_noise_is_as_strong_as_asked_for_and_repeatable():
    noise = look(noise=4.0) - HALVES
    assert 3 < noise.std() < 5 and abs(noise.mean()) < .3
    assert (noise == look(noise=4.0) - HALVES).all()


def test_compression_changes_little():
    change = np.abs(look(jpeg=20.0) - HALVES)
    assert change.any() and change.mean() < 4


# --- annotations --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("index", range(8))
def test_objects_agree_with_instances_and_masks(annotated, index):
    mask, numbers = read_kind(annotated, "labels", index), read_kind(annotated, "instances", index)
    objects = json.loads((annotated / "objects" / f"{index:06d}.json").read_text())
    assert {row["id"] for row in objects} == set(np.unique(numbers)) - {0}
    assert any(row["visible"] < 1 for row in objects)
    assert (mask[numbers == 0] == 0).all()
    for row in objects:
        found = numbers == row["id"]
        assert (mask[found] == ROOM_LABELS[row["label"]]).all()
        assert found.sum() == row["pixels"]
        assert 0 < row["visible"] <= 1
        check_box(found, row["box"])


def check_box(found: np.ndarray, box: list[int]) -> None:
    "All pixels are in the box, and some at each of its sides"
    x, y, width, height = box
    inside = found[y:y + height, x:x + width]
    assert inside.shape == (height, width) and inside.sum() == found.sum()
    assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_what_is_seen_alone_is_seen_whole():
    maker = PairMaker(Plan(seed=6, size=96))
    maker.pair(0)
    before = maker.renderer.instances(maker.camera)
    numbers = np.unique(before[before > 0])
    totals = maker.renderer.uncovered(maker.camera, (numbers - 1).tolist())
    for number, total in zip(numbers, totals, strict=True):
        assert total >= (before == number).sum()
    assert (maker.renderer.instances(maker.camera) == before).all()


def test_a_wall_seen_by_its_seal_alone_is_visible(monkeypatch):
    "Its own pixels are then none, whatever stands before it"
    maker = PairMaker(Plan(seed=6, size=64, annotations=("visible",)))
    maker.pair(0)
    monkeypatch.setattr(maker.renderer, "uncovered", lambda camera, objects: [0] * len(objects))
    assert {row["visible"] for row in maker.annotations()["objects"]} == {1.0}


def test_more_annotations_change_no_pair(annotated, tmp_path):
    generate(8, tmp_path, replace(ALL, annotations=()))
    more, less = files(annotated), files(tmp_path)
    for name, content in less.items():
        assert name == "generation.json" or more[name] == content
    assert not any(name.startswith(("instances", "objects", "depth", "normals")) for name in less)


def test_other_annotations_are_refused(annotated):
    with pytest.raises(SegError, match="--truth.*'size'"):
        Plan(annotations=("size",))
    with pytest.raises(SegError, match="another truth"):
        generate(8, annotated, replace(ALL, annotations=("boxes",)))


CAMERAS = (Camera((3.4, .5, 1.6), (1.5, 2.5, .5), 75), Camera((.6, .5, 1.3), (2.6, 2.4, .8), 60))


@pytest.mark.parametrize("camera", CAMERAS)
def test_depth_and_normals_agree_with_rays(camera):
    from test_rooms import _box_room, _ray_cast

    from virtual_room.render import FastRenderer, camera_axes
    room, renderer = _box_room(), FastRenderer(96)
    renderer.show(room)
    seen, distance = _ray_cast(room, camera, 96, distances=True)
    depth, normals = renderer.geometry(camera)
    same = renderer.instances(camera) - 1 == seen
    off = np.abs(depth - distance)[same]  # where two faces of an object meet, the neighbor's plane may be taken
    assert same.mean() > .99
    assert (off < 1e-4).mean() > .99 and off.max() < .15
    assert np.allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-4)
    floor = same & (seen == 0)
    assert floor.any()
    assert np.allclose(normals[floor], camera_axes(camera)[:, 2], atol=1e-3)


@pytest.mark.parametrize("index", range(8))
def test_depth_covers_what_is_seen(annotated, index):
    depth, normals, numbers = (read_kind(annotated, kind, index) for kind in ("depth", "normals", "instances"))
    assert ((depth > 0) == (numbers > 0)).mean() > .999
    assert 80 < depth[depth > 0].min() and depth.max() < 30000
    lengths = np.linalg.norm(normals / 127.5 - 1, axis=2)
    assert np.median(np.abs(lengths - 1)) < .02


# --- files and shards ---------------------------------------------------------------------------------------------

def test_overwriting_shards_with_files_leaves_no_shard(tmp_path):
    pytest.importorskip("fsspec")
    generate_shards(4, tmp_path, Plan(seed=1, size=48), 2)
    generate(3, tmp_path, Plan(seed=2, size=48), overwrite=True)
    assert not list(tmp_path.glob("pairs-*"))
    assert len(find_data(tmp_path)) == 3


def test_overwriting_files_with_shards_leaves_no_file(tmp_path):
    pytest.importorskip("fsspec")
    generate(4, tmp_path, Plan(seed=1, size=48, annotations=("boxes",)))
    (tmp_path / "labels" / "mine.png").write_bytes(b"kept")
    generate_shards(2, tmp_path, Plan(seed=2, size=48), 2, change=Change(overwrite=True))
    assert [path.name for path in tmp_path.rglob("*.png")] == ["mine.png"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["labels"]
    assert len(find_data(tmp_path)) == 2


# --- layouts of others --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mask, counts", [
    ([[0, 1], [1, 1]], [1, 3]),
    ([[1, 0], [1, 0]], [0, 2, 2]),
    ([[0, 0], [0, 0]], [4]),
])
def test_run_lengths_go_down_the_columns(mask, counts):
    assert run_lengths(np.array(mask, bool)) == counts


def coco_file(root: Path, path: Path):
    "The COCO file of a folder, as COCO's own reader understands it"
    COCO = pytest.importorskip("pycocotools.coco").COCO
    path.write_text(json.dumps(to_coco(find_pairs(root))))
    return COCO(path)


def check_coco(coco, root: Path) -> None:
    "The segments painted are the masks, each pixel painted once"
    assert [row["name"] for row in coco.loadCats(coco.getCatIds())] == list(ROOM_LABELS.codes[1:])
    for image in coco.loadImgs(coco.getImgIds()):
        assert Image.open(root / image["file_name"]).size == (image["width"], image["height"])
        mask = read_pixels(root / "labels" / Path(image["file_name"]).name)
        painted = np.zeros_like(mask)
        for row in coco.loadAnns(coco.getAnnIds(image["id"])):
            pixels = coco.annToMask(row).astype(bool)
            assert pixels.sum() == row["area"] and not painted[pixels].any()
            painted[pixels] = row["category_id"]
        assert (painted == mask).all()


def test_coco_gives_the_same_masks_again(annotated, tmp_path):
    check_coco(coco_file(annotated, tmp_path / "coco.json"), annotated)


def test_coco_needs_no_instances(tmp_path):
    generate(4, tmp_path / "plain", Plan(seed=6, size=96))
    check_coco(coco_file(tmp_path / "plain", tmp_path / "coco.json"), tmp_path / "plain")


def test_the_command_writes_coco(annotated, tmp_path):
    seg_convert(str(annotated), out=str(tmp_path / "coco.json"))
    assert json.loads((tmp_path / "coco.json").read_text()) == to_coco(find_pairs(annotated))


def test_solo_has_unitys_layout_and_the_same_masks(annotated, tmp_path):
    seg_convert(str(annotated), "solo", str(tmp_path / "solo"))
    frames = sorted((tmp_path / "solo").glob("sequence.*/step*.frame_data.json"))
    assert len(frames) == 8
    assert len(list((tmp_path / "solo").glob("sequence.*"))) == 4
    for path in frames:
        check_solo_frame(path, annotated)


def check_solo_frame(path: Path, root: Path) -> None:
    "A frame's files have their sizes, and its colors are the mask"
    frame = json.loads(path.read_text())
    capture = frame["captures"][0]
    semantic, _, boxes = capture["annotations"]
    assert Image.open(path.parent / capture["filename"]).size == tuple(capture["dimension"])
    painted = read_pixels(path.parent / semantic["filename"])
    mask = read_kind(root, "labels", frame["frame"])
    again = np.zeros_like(mask)
    for row in semantic["instances"]:
        again[(painted == row["pixelValue"]).all(2)] = ROOM_LABELS[row["labelName"]]
    assert (again == mask).all()
    assert {row["labelName"] for row in boxes["values"]} == {row["labelName"] for row in semantic["instances"]}


def test_an_interrupted_solo_is_no_data_set(annotated, tmp_path, monkeypatch):
    "Nothing lies where the whole would be, and the same command goes on"
    def interrupted(*args):
        raise KeyboardInterrupt

    out = tmp_path / "solo"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("virtual_room.solo._metadata", interrupted)
        seg_convert(str(annotated), "solo", str(out))
    assert list(tmp_path.iterdir()) == []
    killed = tmp_path / ".solo.unfinished"
    killed.mkdir()
    (killed / "metadata.json").write_text("half")
    seg_convert(str(annotated), "solo", str(out))
    assert list(tmp_path.iterdir()) == [out] and len(find_pairs(out)) == 8


def test_bad_conversions_are_one_sentence(annotated, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(SegError, match="not empty"):
        seg_convert(str(annotated), "solo", str(tmp_path))
    with pytest.raises(SegError, match="coco or solo"):
        seg_convert(str(annotated), "voc")


@pytest.fixture
def void(annotated, tmp_path) -> Path:
    "The annotated rooms, with a stripe of each mask that nobody knows"
    out = Path(shutil.copytree(annotated, tmp_path / "void"))
    shutil.rmtree(out / "instances")
    for path in (out / "labels").iterdir():
        mask = np.array(Image.open(path))
        mask[:, 40:50] = 255
        Image.fromarray(mask).save(path)
    return out


def test_void_pixels_are_in_no_coco_segment(void):
    coco = to_coco(find_pairs(void))
    categories = {row["id"] for row in coco["categories"]}
    assert all(row["category_id"] in categories for row in coco["annotations"])
    for image in coco["images"]:
        mask = np.asarray(Image.open(void / "labels" / Path(image["file_name"]).name))
        area = sum(row["area"] for row in coco["annotations"] if row["image_id"] == image["id"])
        assert area == ((mask > 0) & (mask < 255)).sum()


def test_void_pixels_are_black_in_solo(void, tmp_path):
    seg_convert(str(void), "solo", str(tmp_path / "solo"))
    again, before = find_pairs(tmp_path / "solo"), find_pairs(void)
    for i in range(len(before)):
        mask, read = before.read(i)[1], again.read(i)[1]
        expected = np.where(mask == 255, 0, mask)
        names = np.array(again.labels.codes)[read]
        assert (names == np.array(before.labels.codes)[expected]).all()


def test_a_table_without_a_background_keeps_its_first_label(tmp_path):
    for kind in ("train", "trainannot"):
        (tmp_path / kind).mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 3
    mask[7:] = 11
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "0_1.png")
    Image.fromarray(mask).save(tmp_path / "trainannot" / "0_1.png")
    annotations = to_coco(find_pairs(tmp_path))["annotations"]
    areas = {row["category_id"]: row["area"] for row in annotations}
    assert areas == {0: 32, 3: 24}
    seg_convert(str(tmp_path), "solo", str(tmp_path / "solo"))
    frame, = (tmp_path / "solo").glob("*/*.frame_data.json")
    semantic = json.loads(frame.read_text())["captures"][0]["annotations"][0]
    assert [row["labelName"] for row in semantic["instances"]] == ["Sky", "Road"]


def test_our_reader_reads_our_solo(annotated, tmp_path):
    seg_convert(str(annotated), "solo", str(tmp_path / "solo"))
    again, before = find_pairs(tmp_path / "solo"), find_pairs(annotated)
    assert again.layout == "solo" and len(again) == len(before) == 8
    assert len({p.group for p in again.pairs}) == len({p.group for p in before.pairs}) == 4
    for i in range(8):
        image, mask = again.read(i)
        image_before, mask_before = before.read(i)
        assert (np.asarray(image) == np.asarray(image_before)).all()
        assert (np.array(again.labels.codes)[mask] == np.array(before.labels.codes)[mask_before]).all()


# --- look before you wait -----------------------------------------------------------------------------------------

def test_a_preview_writes_one_image(tmp_path, capsys):
    seg_generate(5, str(tmp_path), size=64, preview=True)
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]
    assert "5 pairs" in capsys.readouterr().out
    sheet = read_pixels(tmp_path / "preview.png")
    walls = (sheet == ROOM_LABELS.palette[1]).all(2)
    assert sheet.shape[1] > 8 * 176 and walls.mean() > .01


def test_a_preview_shows_few_pairs(tmp_path):
    with pytest.raises(SegError, match="1 to 48"):
        seg_generate(49, str(tmp_path), preview=True)
