"More truth than masks, the layouts of others, previews, and drawing on a cluster"

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from nbs_lib.core import SegError
from nbs_lib.datasets import find_pairs
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Camera, Plan, RoomConfig, generate, make_room
from virtual_room.export import run_lengths, seg_convert, to_coco
from virtual_room.generate import TRUTHS, Studio, seg_generate
from virtual_room.lens import through_lens
from virtual_room.placement import cells, find_faults
from virtual_room.scene import override


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    "Eight pairs of 96 px with all that can be known of them"
    out = tmp_path_factory.mktemp("told") / "rooms"
    generate(8, out, Plan(seed=6, size=96, images_per_room=2, truth=TRUTHS))
    return out


def files(out: Path) -> dict[str, bytes]: return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


# --- rooms --------------------------------------------------------------------------------------------------------

def test_rooms_may_lack_a_corner():
    rooms = [make_room([31, i], RoomConfig(l_shape=1.0, clutter=1.0)) for i in range(80)]
    assert [(i, f) for i, r in enumerate(rooms) for f in find_faults(r)] == []
    angled = [r for r in rooms if len(r.outline) == 6]
    assert len(angled) > 40
    for room in angled:
        inside, outside = cells(room.outline)
        area = lambda c: ((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1])).sum()
        x, y = np.array(room.outline).T
        assert len(outside) == 1 and np.isclose(area(inside), (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_unlabelled_things_stay_rare_and_edges_whole():
    studio, empty = Studio(Plan(seed=17, size=64, config=RoomConfig(clutter=1.0))), []
    for i in range(60): empty.append((studio.pair(i)[1] == 0).mean())
    assert np.mean(empty) < .1


# --- ranges and lens ----------------------------------------------------------------------------------------------

def test_every_range_can_be_given_on_the_command_line():
    assert override(RoomConfig(), "night=0.5 width=3,4") == RoomConfig(night=.5, width=(3.0, 4.0)) and override(RoomConfig(), "") == RoomConfig()
    for bad, words in (("nite=1", "nite.*known are"), ("night=dark", "sets nothing"), ("night=2", "night"), ("width=5,4", "width"), ("jpeg=0,50", "jpeg")):
        with pytest.raises(SegError, match=words): override(RoomConfig(), bad)


def test_each_effect_of_the_lens_does_what_it_says():
    rng, plain = lambda: np.random.default_rng(3), Camera((0, 0, 1), (1, 0, 1), 60)
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[:, 32:] = 200
    look = lambda **effects: through_lens(picture, replace(plain, **effects), rng()).astype(float)
    assert (look() == picture).all()
    blurred, dark, noisy, packed = look(blur=8.0), look(vignette=.3), look(noise=4.0), look(jpeg=20.0)
    assert np.abs(np.diff(blurred[32, :, 0])).max() < 45 and (dark[0, 0] < 100).all() and (dark[32, 31] > 125).all()
    assert 3 < (noisy - picture).std() < 5 and abs((noisy - picture).mean()) < .3 and (noisy == look(noise=4.0)).all()
    assert (packed != picture).any() and np.abs(packed - picture).mean() < 4


# --- truth --------------------------------------------------------------------------------------------------------

def test_objects_agree_with_instances_and_masks(told):
    for i in range(8):
        mask, numbered = (np.asarray(Image.open(told / kind / f"{i:06d}.png")).astype(int) for kind in ("labels", "instances"))
        objects = json.loads((told / "objects" / f"{i:06d}.json").read_text())
        assert {o["id"] for o in objects} == set(np.unique(numbered)) - {0}
        for o in objects:
            found = numbered == o["id"]
            x, y, w, h = o["box"]
            assert (mask[found] == ROOM_LABELS[o["label"]]).all() and found.sum() == o["pixels"] and 0 < o["visible"] <= 1
            assert found[y:y + h, x:x + w].sum() == o["pixels"] and found[y].any() and found[y + h - 1].any() and found[:, x].any() and found[:, x + w - 1].any()
        assert any(o["visible"] < 1 for o in objects) and (mask[numbered == 0] == 0).all()


def test_what_is_seen_alone_is_seen_whole():
    studio = Studio(Plan(seed=6, size=96))
    studio.pair(0)
    stage, seen = studio.stage, studio.stage.instances(studio.camera)
    ids = (np.unique(seen)[np.unique(seen) > 0] - 1).tolist()
    assert all(whole >= (seen == i + 1).sum() for i, whole in zip(ids, stage.uncovered(studio.camera, ids)))
    assert (stage.instances(studio.camera) == seen).all()


def test_more_truth_changes_no_pair(told, tmp_path):
    generate(8, tmp_path, Plan(seed=6, size=96, images_per_room=2))
    more, less = files(told), files(tmp_path)
    assert all(more[k] == v for k, v in less.items() if k != "generation.json") and not any(k.startswith(("instances", "objects")) for k in less)
    with pytest.raises(SegError, match="--truth.*'size'"): Plan(truth=("size",))
    with pytest.raises(SegError, match="another truth"): generate(8, tmp_path, Plan(seed=6, size=96, images_per_room=2, truth=("boxes",)))


def test_depth_and_normals_agree_with_rays():
    from test_rooms import _box_room, _ray_cast
    from virtual_room.render import Stage, _axes
    room, stage = _box_room(), Stage(96)
    stage.show(room)
    for camera in (Camera((3.4, .5, 1.6), (1.5, 2.5, .5), 75), Camera((.6, .5, 1.3), (2.6, 2.4, .8), 60)):
        (seen, truth), (depth, normals) = _ray_cast(room, camera, 96, distances=True), stage.geometry(camera)
        same = stage.instances(camera) - 1 == seen
        off = np.abs(depth - truth)[same]  # where two faces of a thing meet, the neighbour's plane may be taken
        assert same.mean() > .99 and (off < 1e-4).mean() > .99 and off.max() < .15
        assert np.allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-4)
        floor = same & (seen == 0)
        assert floor.any() and np.allclose(normals[floor], _axes(camera)[:, 2], atol=1e-3)


def test_depth_covers_what_is_seen(told):
    for i in range(8):
        depth, normals, numbered = (np.asarray(Image.open(told / kind / f"{i:06d}.png")).astype(int) for kind in ("depth", "normals", "instances"))
        assert ((depth > 0) == (numbered > 0)).mean() > .999 and 80 < depth[depth > 0].min() and depth.max() < 30000
        assert np.median(np.abs(np.linalg.norm(normals / 127.5 - 1, axis=2) - 1)) < .02


# --- layouts of others --------------------------------------------------------------------------------------------

def test_run_lengths_go_down_the_columns():
    assert run_lengths(np.array([[0, 1], [1, 1]], bool)) == [1, 3] and run_lengths(np.array([[1, 0], [1, 0]], bool)) == [0, 2, 2] and run_lengths(np.zeros((2, 2), bool)) == [4]


@pytest.mark.parametrize("instances", [True, False])
def test_coco_gives_the_same_masks_again(told, tmp_path, instances):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    if instances: seg_convert(str(told), out=str(tmp_path / "coco.json"))
    else:
        generate(4, tmp_path / "plain", Plan(seed=6, size=96))
        (tmp_path / "coco.json").write_text(json.dumps(to_coco(find_pairs(tmp_path / "plain"))))
    coco, root = COCO(tmp_path / "coco.json"), told if instances else tmp_path / "plain"
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(ROOM_LABELS.codes[1:])
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.asarray(Image.open(root / "labels" / Path(image["file_name"]).name))
        painted = np.zeros_like(mask)
        for a in coco.loadAnns(coco.getAnnIds(image["id"])):
            pixels = coco.annToMask(a).astype(bool)
            assert pixels.sum() == a["area"] and not painted[pixels].any()
            painted[pixels] = a["category_id"]
        assert (painted == mask).all() and Image.open(root / image["file_name"]).size == (image["width"], image["height"])


def test_solo_has_unitys_layout_and_the_same_masks(told, tmp_path):
    seg_convert(str(told), "solo", str(tmp_path / "solo"))
    frames = sorted((tmp_path / "solo").glob("sequence.*/step*.frame_data.json"))
    assert len(frames) == 8 and len(list((tmp_path / "solo").glob("sequence.*"))) == 4
    for path in frames:
        frame = json.loads(path.read_text())
        capture = frame["captures"][0]
        semantic, instance, boxes = capture["annotations"]
        assert Image.open(path.parent / capture["filename"]).size == tuple(capture["dimension"])
        painted = np.asarray(Image.open(path.parent / semantic["filename"])).astype(int)
        mask = np.asarray(Image.open(told / "labels" / f"{frame['frame']:06d}.png"))
        again = np.zeros_like(mask)
        for row in semantic["instances"]: again[(painted == row["pixelValue"]).all(2)] = ROOM_LABELS[row["labelName"]]
        assert (again == mask).all() and {b["labelName"] for b in boxes["values"]} == {r["labelName"] for r in semantic["instances"]}
    with pytest.raises(SegError, match="not empty"): seg_convert(str(told), "solo", str(tmp_path / "solo"))
    with pytest.raises(SegError, match="coco or solo"): seg_convert(str(told), "voc")


@pytest.mark.parametrize("pictures", [8, 7])
def test_unitys_reader_reads_our_solo(told, tmp_path, pictures):
    reader = pytest.importorskip("pysolotools.consumers", reason="pysolotools wants numpy 1.23; try it with pip install --no-deps pysolotools dataclasses-json~=0.5.7 marshmallow marshmallow-enum typing-inspect mypy-extensions")
    models = pytest.importorskip("pysolotools.core.models")
    generate(pictures, tmp_path / "rooms", Plan(seed=6, size=96, images_per_room=2, truth=("instances",)))
    seg_convert(str(tmp_path / "rooms"), "solo", str(tmp_path / "solo"))
    solo = reader.Solo(str(tmp_path / "solo"))
    assert solo.categories() == dict(enumerate(ROOM_LABELS.codes[1:], 1)) and len(solo.frames()) == pictures
    for number, frame in enumerate(solo.frames()):
        assert frame.frame == number and (tmp_path / "solo" / frame.get_file_path(models.RGBCameraCapture)).exists()
        semantic, instance, boxes = frame.captures[0].annotations
        assert isinstance(semantic, models.SemanticSegmentationAnnotation) and isinstance(instance, models.InstanceSegmentationAnnotation) and isinstance(boxes, models.BoundingBox2DAnnotation)
        numbered, truth = (np.asarray(Image.open(path)).astype(int) for path in (tmp_path / "solo" / f"sequence.{frame.sequence}" / instance.filename, tmp_path / "rooms" / "instances" / f"{number:06d}.png"))
        for row in instance.instances: assert ((numbered == row.color).all(2) == (truth == row.instanceId)).all()
        assert {b.labelName for b in boxes.values} == {i.labelName for i in semantic.instances}


# --- look before you wait -----------------------------------------------------------------------------------------

def test_a_preview_writes_one_picture(tmp_path, capsys):
    seg_generate(5, str(tmp_path / "new"), size=64, preview=True)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["preview.png"] and "5 pairs" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "new" / "preview.png"))
    assert sheet.shape[1] > 8 * 176 and (sheet == ROOM_LABELS.palette[1]).all(2).mean() > .01
    with pytest.raises(SegError, match="1 to 48"): seg_generate(49, str(tmp_path / "new"), preview=True)


# --- a cluster ----------------------------------------------------------------------------------------------------

def test_a_cluster_writes_the_same_bytes_and_outlives_a_worker(tmp_path):
    LocalCluster = pytest.importorskip("distributed").LocalCluster
    plan = Plan(seed=8, size=48, images_per_room=2)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        def kill():
            while len(list((tmp_path / "dask" / "labels").glob("0*.png"))) < 6: time.sleep(.02)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        killer = threading.Thread(target=kill)
        killer.start()
        generate(60, tmp_path / "dask", plan, dask=cluster.scheduler_address)
        killer.join()
    generate(60, tmp_path / "one", plan)
    assert files(tmp_path / "dask") == files(tmp_path / "one")


def test_a_missing_scheduler_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    with pytest.raises(SegError, match="no Dask scheduler answers at nowhere"): generate(1, tmp_path, Plan(size=32), dask="nowhere://x")
