"""Masks go out in other formats and come back the same; most of it needs the extra `formats`."""
import json
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS, write_labels
from nbs_lib.layouts import find_pairs
from nbs_lib.masks import mask_image
from nbs_lib.tools.formats import _import_item, export_dataset, import_dataset

REASON = "datumaro is not installed: pip install segmentation-learner[formats]"
needs_datumaro = pytest.mark.skipif(find_spec("datumaro") is None, reason=REASON)


def test_an_imported_image_keeps_its_shape_and_its_colors(tmp_path):
    "datumaro's images are blue, green, red. A stand-in for its items, so that this is tested without it."
    red = np.zeros((3, 5, 3), np.uint8)
    red[..., 2] = 200
    corner = np.zeros((3, 5), bool)
    corner[2, 4] = True
    annotation = SimpleNamespace(type=SimpleNamespace(name="mask"), z_order=0, label=0, image=corner)
    item = SimpleNamespace(media=SimpleNamespace(data=red), annotations=[annotation])
    _import_item(item, "1", [7], ROOM_LABELS, tmp_path)
    image, mask = find_pairs(tmp_path).read(0)
    assert np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist() == [[200, 0, 0]]
    np.testing.assert_array_equal(mask, corner * 7)


@pytest.fixture
def rooms(tmp_path):
    "Three pairs: overlapping boxes, rings with something inside, and noise, with single pixels."
    root, rng = tmp_path / "rooms", np.random.default_rng(0)
    for part in ("screenshots", "labels"):
        (root / part).mkdir(parents=True)
    write_labels(ROOM_LABELS, root / "labels.csv")
    masks = np.zeros((3, 48, 64), np.uint8)
    masks[0, 4:30, 8:40], masks[0, 20:44, 30:60] = 1, 23
    masks[1, 2:40, 3:50], masks[1, 8:30, 9:40], masks[1, 14:20, 15:30], masks[1, 16:18, 20:25] = 2, 0, 5, 7
    masks[2] = rng.choice([0, 0, 0, 1, 4, 9], (48, 64))
    for i, mask in enumerate(masks):
        mask_image(mask, ROOM_LABELS).save(root / f"labels/{i}.png")
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(root / f"screenshots/{i}.png")
    return find_pairs(root)


def names(data, i):
    "The names of the labels of a mask, pixel by pixel."
    return np.array(data.labels.codes)[data.read(i)[1]]


@needs_datumaro
@pytest.mark.parametrize("format", ["coco", "voc", "label_me", "cityscapes", "cvat", "camvid", "datumaro"])
def test_round_trip_keeps_every_pixel(rooms, tmp_path, format):
    "Tolerance 0, for CVAT's polygons as well: they are drawn as `outlines` foresees."
    export_dataset(rooms, format, tmp_path / "out")
    back = import_dataset(tmp_path / "out", format, tmp_path / "back")
    assert len(back) == len(rooms)
    for i, pair in enumerate(rooms.pairs):
        k = next(k for k, p in enumerate(back.pairs) if p.name.split("_")[-1] == pair.name)
        np.testing.assert_array_equal(names(back, k), names(rooms, i))
        if format != "voc":  # VOC's images are JPEG
            np.testing.assert_array_equal(np.asarray(back.read(k)[0]), np.asarray(rooms.read(i)[0]))


@needs_datumaro
def test_parts_with_the_same_names_stay_apart(rooms, tmp_path):
    "0.png of training and 0.png of validation are two images, and both come in with their own mask."
    first, second = (replace(pair, split=split) for pair, split in zip(rooms.pairs, ("train", "val")))
    other = tmp_path / "other"
    for part, file in (("screenshots", second.image), ("labels", second.mask)):
        (other / part).mkdir(parents=True)
        (other / part / "0.png").write_bytes(file.read_bytes())
    second = replace(second, image=other / "screenshots/0.png", mask=other / "labels/0.png")
    both = replace(rooms, pairs=(first, second))
    export_dataset(both, "coco", tmp_path / "out")
    back = import_dataset(tmp_path / "out", "coco", tmp_path / "back")
    assert len(back) == 2
    masks = [names(back, i).tobytes() for i in range(2)]
    assert set(masks) == {names(rooms, i).tobytes() for i in range(2)}


@needs_datumaro
def test_folders_and_underscores_stay_apart(tmp_path):
    "COCO names files in folders: a/b.png and a_b.png are two images."
    images = tmp_path / "coco/images/train"
    (images / "a").mkdir(parents=True)
    (tmp_path / "coco/annotations").mkdir()
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    for i, (name, gray) in enumerate([("a/b.png", 50), ("a_b.png", 200)], 1):
        Image.new("RGB", (32, 32), (gray,) * 3).save(images / name)
        coco["images"].append({"id": i, "file_name": name, "width": 32, "height": 32})
        box = [4 * i, 4, 20, 4, 20, 20, 4 * i, 20]
        coco["annotations"].append({"id": i, "image_id": i, "category_id": 1, "segmentation": [box], "area": 9,
                                    "bbox": [4, 4, 16, 16], "iscrowd": 0})
    (tmp_path / "coco/annotations/instances_train.json").write_text(json.dumps(coco))
    back = import_dataset(tmp_path / "coco", "coco", tmp_path / "back")
    grays = [np.asarray(back.read(i)[0])[0, 0, 0] for i in range(len(back))]
    assert sorted(grays) == [50, 200]


@needs_datumaro
def test_coco_numbers_its_annotations_through(rooms, tmp_path):
    export_dataset(rooms, "coco", tmp_path / "out")
    file, = (tmp_path / "out").rglob("instances_*.json")
    annotations = json.loads(file.read_text())["annotations"]
    assert len({a["id"] for a in annotations}) == len(annotations) == 2 + 3 + 3
    assert annotations[0]["area"] == (rooms.read(0)[1] == annotations[0]["category_id"]).sum()


@needs_datumaro
def test_an_unknown_format_is_one_sentence(rooms, tmp_path):
    with pytest.raises(SegError, match="cannot be read as 'supervisely'"):  # datumaro has its point clouds only
        import_dataset(rooms.root, "supervisely", tmp_path / "in")
    with pytest.raises(SegError, match="cannot write 'no such format'"):
        export_dataset(rooms, "no such format", tmp_path / "out")
