"Data sets: folders of every layout, remembered splits, files that are whole, commands described by a dataclass."
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbs_lib.core import SegError, atomic_path
from nbs_lib.datasets import (
    Pair,
    SegData,
    channel_stats,
    held_out,
    same_pairs,
    split_pairs,
    split_record,
    split_rule,
)
from nbs_lib.labels import ROOM_LABELS, LabelSet, bit_colors, read_labels, table_change, write_labels
from nbs_lib.layouts import find_pairs
from nbs_lib.masks import decode_mask
from nbs_lib.tools.examples import example_rooms
from nbs_lib.tools.report import check_dataset, seg_check


def test_a_new_file_does_not_loosen_the_permissions_of_others(tmp_path, monkeypatch):
    "While one thread writes a file, files of other threads get the permissions that the user asked for."
    change = os.umask

    def slow_change(mask):
        before = change(mask)
        time.sleep(0.2)
        return before

    def write():
        with atomic_path(tmp_path/"ours.txt") as temporary:
            temporary.write_text("x")

    before = change(0o077)
    monkeypatch.setattr(os, "umask", slow_change)
    try:
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.1)
        (tmp_path/"theirs.txt").touch()
        writer.join()
    finally:
        change(before)
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ours.txt": "-rw-------", "theirs.txt": "-rw-------"}


RECIPE = '''
from dataclasses import dataclass
from nbs_lib.core import seg_command

@dataclass
class Data:
    "Which data."
    data: str = "rooms"     # Folder of the data set

@dataclass
class Recipe(Data):
    "How to train."
    size: str = "64"        # Pixels, 100 % of them
    lr: float | None = None # Highest learning rate
    ema: bool = False       # Average the weights?

@seg_command
def seg_recipe(recipe: Recipe):
    "Train."
    print(recipe)
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    "A command whose options are the fields of a dataclass, in a module of its own."
    (tmp_path/"recipe_module.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    import recipe_module
    yield recipe_module
    del sys.modules["recipe_module"]


def test_the_fields_of_a_dataclass_are_the_options_of_a_command(recipe, capsys):
    recipe.seg_recipe.main(["--size", "128", "--lr", "1e-3", "--ema"])
    assert capsys.readouterr().out.strip() == str(recipe.Recipe("rooms", "128", 0.001, True))
    with pytest.raises(SystemExit):
        recipe.seg_recipe.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for text in ("Folder of the data set (default: rooms)", "100 % of them", "Average the weights?", "--config"):
        assert text in said


def test_the_fields_of_a_dataclass_are_the_keys_of_a_file(recipe, tmp_path, capsys):
    settings = tmp_path/"settings.yaml"
    settings.write_text("size: 96\nlr: 1e-4\ndata: faces\n")
    recipe.seg_recipe.main(["--config", str(settings), "--data", "streets"])
    assert capsys.readouterr().out.strip() == str(recipe.Recipe("streets", "96", 1e-4, False))
    for text, says in (("sise: 96", "'sise'"), ("lr: fast", "no float"), ("config: a.yaml", "'config'")):
        settings.write_text(text)
        with pytest.raises(SystemExit):
            recipe.seg_recipe.main(["--config", str(settings)])
        assert says in capsys.readouterr().err


# Label tables


def test_a_table_has_at_most_254_labels():
    "255 means void in every mask, so no label may come near it."
    def table(n):
        return LabelSet(tuple(f"label {i}" for i in range(n)), bit_colors(n))

    assert table(254).n_classes == 254
    with pytest.raises(SegError, match="1 to 254 labels, this one has 255"):
        table(255)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    "Spreadsheets put a mark of three bytes before UTF-8."
    table = tmp_path/"labels.csv"
    write_labels(ROOM_LABELS, table)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert read_labels(table) == ROOM_LABELS


def test_of_two_labels_of_one_color_the_first_is_read():
    twins = LabelSet(("a", "b", "c"), ((0, 0, 0), (9, 0, 9), (9, 0, 9)))
    painted = Image.new("RGB", (2, 1), (9, 0, 9))
    assert decode_mask(painted, twins).tolist() == [[1, 1]]


# Folders of every layout


def write_pairs(root, images, masks, names, mask=None):
    "Small images and masks of these names in two folders."
    for folder in (images, masks):
        (root/folder).mkdir(parents=True, exist_ok=True)
    mask = np.array([[0, 1], [1, 2]], np.uint8) if mask is None else mask
    for name in names:
        Image.new("RGB", mask.shape[1::-1], (90, 120, 60)).save(root/images/f"{name}.jpg")
        suffix = "tif" if mask.dtype.kind == "f" or mask.dtype == np.int32 else "png"
        Image.fromarray(mask).save(root/masks/f"{name}.{suffix}")
    return root


def write_voc(root, **lists):
    "A VOC folder with these lists, and an image and a mask for each name."
    names = [name for part in lists.values() for name in part]
    write_pairs(root, "JPEGImages", "SegmentationClass", names)
    folder = root/"ImageSets"/"Segmentation"
    folder.mkdir(parents=True)
    for part, members in lists.items():
        (folder/f"{part}.txt").write_text("\n".join(members))
    return root


def names_by_split(data):
    "{split: names} of a data set."
    found = {}
    for pair in data.pairs:
        found.setdefault(pair.split, []).append(pair.name)
    return found


def test_names_with_spaces_are_read_from_lists(tmp_path):
    root = write_voc(tmp_path/"voc", train=["a", "b 1", "my dog"], val=["c", "d 2"])
    assert names_by_split(find_pairs(root)) == {"train": ["a", "b 1", "my dog"], "valid": ["c", "d 2"]}
    names = tmp_path/"names.txt"
    names.write_text("b 1\nmy dog\n")
    data = find_pairs(root)
    assert [data.pairs[i].name for i in split_pairs(data, names=names)[1]] == ["b 1", "my dog"]


def test_a_listed_image_without_a_mask_is_a_finding(tmp_path):
    root = write_voc(tmp_path/"voc", train=["a", "b"], val=["c"])
    (root/"SegmentationClass"/"b.png").unlink()
    with pytest.raises(SegError, match="b.jpg has no mask"):
        find_pairs(root)


def test_two_images_for_one_mask_are_named(tmp_path):
    root = write_pairs(tmp_path, "screenshots", "labels", ["000000", "000001", "000002"])
    Image.new("RGB", (2, 2)).save(root/"screenshots"/"000001.png")
    with pytest.raises(SegError, match="000001.jpg and .*000001.png"):
        find_pairs(root)
    assert len(find_pairs(root, strict=False)) == 3
    finding = next(f for f in check_dataset(root).findings if f.kind == "missing partner")
    assert finding.severity == "error"
    assert {Path(name).name for name in finding.files} == {"000001.jpg", "000001.png"}
    assert "probably meant" not in finding.what


def test_a_folder_with_only_a_training_part_can_be_trained(tmp_path):
    camvid = tmp_path/"camvid"
    write_pairs(camvid, "train", "trainannot", [f"{i//2:04}TP_{i}" for i in range(10)])
    voc = write_voc(tmp_path/"voc", train=[f"v{i}" for i in range(10)])
    for root in (camvid, voc):
        data = find_pairs(root)
        assert len(split_pairs(data)[1]) == 2
        assert len(split_pairs(data, valid=0.4)[1]) == 4


JUDGED = {
    "camvid": lambda root: write_pairs(root, "test", "testannot", ["0001TP_1", "0001TP_2"]),
    "camvid/test": lambda root: write_pairs(root.parent, "test", "testannot", ["0001TP_1", "0001TP_2"]),
    "voc": lambda root: write_voc(root, val=["a", "b", "c"]),
    "nyu": lambda root: nyu_test(root),
    "plain": lambda root: write_pairs(root, "test/images", "test/masks", ["a", "b", "c"]),
}


def nyu_test(root):
    "NYUv2 with its test folder only."
    write_pairs(root, "test/images", "test/labels", ["0001", "0002"])
    (root/"classes.txt").write_text("wall\nfloor\nbed\n")
    return root


@pytest.mark.parametrize("name", JUDGED)
def test_sets_that_are_only_for_judging_can_be_read_and_checked(name, tmp_path):
    root = tmp_path/name
    JUDGED[name](root)
    data = find_pairs(root)
    assert len(data) >= 2
    assert data.read(0)[1].max() == 2
    with pytest.raises(SegError, match="only pairs to judge"):
        split_pairs(data)
    report = check_dataset(root)
    assert not report.errors
    assert "only for judging" in {finding.kind for finding in report.findings}


def test_checking_a_set_for_judging_does_not_promise_a_training(tmp_path, capsys):
    write_voc(tmp_path/"voc", val=["a", "b", "c"])
    seg_check(str(tmp_path/"voc"))
    said = capsys.readouterr().out
    assert "a training will not fail" not in said
    assert "can be scored" in said


NO_LABELS = {
    "void": (np.full((4, 4), 255, np.uint8), "every pixel .* is 255"),
    "fractions": (np.full((4, 4), 0.25, np.float32), "fractions"),
    "infinite": (np.full((4, 4), np.nan, np.float32), "fractions"),
    "large": (np.array([[0, 70000], [140000, 3]], np.int32), "65,535"),
    "negative": (np.array([[0, -3]], np.int32), "negative number -3"),
}


@pytest.mark.parametrize("name", NO_LABELS)
def test_masks_that_hold_no_labels_are_one_sentence(name, tmp_path):
    mask, says = NO_LABELS[name]
    root = write_pairs(tmp_path, "images", "masks", ["a", "b", "c"], mask)
    with pytest.raises(SegError, match=says):
        find_pairs(root)
    report = check_dataset(root)
    assert [finding.severity for finding in report.findings] == ["error"]
    with pytest.raises(SegError):
        decode_mask(next((root/"masks").iterdir()), LabelSet(("a", "b"), ((0, 0, 0), (9, 9, 9)), void=()))


def test_whole_numbers_in_a_tiff_of_floats_are_labels(tmp_path):
    root = write_pairs(tmp_path, "images", "masks", ["a", "b"], np.array([[0, 1], [2, 2]], np.float32))
    assert find_pairs(root).read(0)[1].tolist() == [[0, 1], [2, 2]]


def test_a_test_part_stays_out_of_a_plain_folder(tmp_path):
    for part in ("train", "test"):
        write_pairs(tmp_path, f"{part}/images", f"{part}/masks", [f"{part} 1", f"{part} 2"])
    assert names_by_split(find_pairs(tmp_path)) == {"train": ["train 1", "train 2"]}


def test_one_spoiled_mask_does_not_decide_what_the_labels_are(tmp_path):
    "Its 100 values are far more than those of most masks, so they are no labels."
    root = write_pairs(tmp_path, "images", "masks", ["a", "b", "c"])
    spoiled = np.arange(100, dtype=np.uint8).reshape(10, 10)
    Image.fromarray(spoiled).save(root/"masks"/"b.png")
    assert find_pairs(root).labels.n_classes == 3


def write_annotations(root, kind):
    "An annotation file as a tool writes it, beside an image."
    (root/"images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root/"images"/"1.jpg")
    coco = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    if kind == "COCO":
        (root/"annotations").mkdir()
        (root/"annotations"/"instances_default.json").write_text(json.dumps(coco))
    if kind == "labelme":
        shapes = {"version": "5", "shapes": [{"label": "cat", "points": []}], "imagePath": "1.jpg"}
        (root/"images"/"1.json").write_text(json.dumps(shapes))
    if kind == "CVAT":
        image = '<image id="0" name="1.jpg"></image>'
        (root/"annotations.xml").write_text(f'<?xml version="1.0"?>\n<annotations>\n{image}</annotations>')
    if kind == "COCO panoptic":
        coco["annotations"] = [{"image_id": 1, "segments_info": [{"id": 263, "category_id": 1}]}]
        (root/"panoptic.json").write_text(json.dumps(coco))
        (root/"masks").mkdir()
        Image.fromarray(np.array([[[7, 1, 0], [9, 2, 0]]], np.uint8)).resize((4, 4), 0).save(root/"masks"/"1.png")


@pytest.mark.parametrize("kind", ["COCO", "labelme", "CVAT", "COCO panoptic"])
def test_annotations_of_other_formats_are_named_with_what_brings_them_in(kind, tmp_path):
    write_annotations(tmp_path/"set", kind)
    with pytest.raises(SegError, match=f"format of {kind};.*import_dataset"):
        find_pairs(tmp_path/"set")


def test_a_row_inserted_into_the_label_table_is_seen(tmp_path):
    root = tmp_path/"rooms"
    example_rooms(root, 6)
    generation = json.loads((root/"generation.json").read_text())
    names = generation.pop("labels")
    assert names == list(ROOM_LABELS.codes[1:])
    (root/"generation.json").write_text(json.dumps(generation))
    table = (root/"labels.csv").read_text()
    inserted = table.replace("items_vase", "items_piano,1,2,3\nitems_vase")
    appended = table + "items_piano,1,2,3\n"

    (root/"labels.csv").write_text(inserted)
    assert len(find_pairs(root)) == 6  # an old manifest says nothing, so there is nothing to compare with
    (root/"generation.json").write_text(json.dumps(generation | {"labels": names}))
    with pytest.raises(SegError, match="mask value 17 meant 'items_vase' and means 'items_piano' now"):
        find_pairs(root)
    with pytest.raises(SystemExit) as stopped:
        seg_check.main([str(root)])
    assert stopped.value.code == 1

    counts = {name: {"pixels": 1} for name in ROOM_LABELS.codes}  # what older generators wrote, `empty` first
    (root/"generation.json").write_text(json.dumps(generation | {"labels": counts}))
    with pytest.raises(SegError, match="mask value 17"):
        find_pairs(root)

    (root/"labels.csv").write_text(appended)
    data = find_pairs(root)
    assert data.drawn_with == tuple(names)
    assert table_change(data.drawn_with, data.labels) == ""
    assert find_pairs(root, labels=ROOM_LABELS).labels == ROOM_LABELS


# Splits, and what is remembered of them


def test_a_test_part_is_never_trained_on():
    splits = ("train", "valid", "test", "train")
    pairs = tuple(Pair(Path(f"{i}.png"), Path(f"{i}.png"), split=split) for i, split in enumerate(splits))
    data = SegData(Path("x"), "voc", ROOM_LABELS, pairs)
    assert split_pairs(data) == ([0, 3], [1])
    assert split_pairs(data, names=["0"]) == ([1, 3], [0])


def test_a_room_is_left_to_train_on_whatever_share_is_asked_for(tmp_path):
    data = example_rooms(tmp_path, 6, size=8, images_per_room=2)
    train, valid = split_pairs(data, valid=1.0)
    assert (len(train), len(valid)) == (2, 4)


def test_statistics_are_of_images_from_the_whole_set(tmp_path):
    "Where only some are measured: the first ones may all be of one dark room."
    files = []
    for i in range(10):
        files.append(tmp_path/f"{i}.png")
        Image.new("L", (8, 8), 0 if i < 5 else 255).save(files[-1])
    mean, _ = channel_stats(files, size=8, most=2)
    assert mean == [0.5, 0.5, 0.5]


def test_what_was_held_out_is_remembered_when_the_rooms_grow(tmp_path):
    "A new drawing by the same seed would call rooms unseen that were trained on."
    data = example_rooms(tmp_path, 20, size=8)
    train, valid = split_pairs(data)
    record = json.loads(json.dumps(split_record(data, valid, split_rule(data))))
    assert record["rule"] == "group"
    grown = example_rooms(tmp_path, 30, size=8)
    trained = {data.pairs[i].name for i in train}
    drawn_again = {grown.pairs[i].name for i in split_pairs(grown)[1]}
    assert drawn_again & trained, "the test shows nothing unless drawing again goes wrong"
    assert [grown.pairs[i].name for i in held_out(grown, record)] == [data.pairs[i].name for i in valid]
    assert same_pairs(data, record) and not same_pairs(grown, record)


def test_what_was_held_out_is_not_guessed(tmp_path):
    data = example_rooms(tmp_path, 10, size=8)
    record = split_record(data, split_pairs(data)[1], "group")
    (tmp_path/"screenshots"/f"{record['names'][0]}.png").unlink()
    with pytest.raises(SegError, match="cannot be known"):
        held_out(find_pairs(tmp_path, strict=False), record)
    with pytest.raises(SegError, match="does not say"):
        held_out(data, {"valid": 0.2, "seed": 0})


def test_names_that_repeat_are_told_apart_by_their_folders(tmp_path):
    for part in ("train", "val"):
        write_pairs(tmp_path, f"{part}/images", f"{part}/masks", ["001", "002"])
    data = find_pairs(tmp_path)
    record = split_record(data, split_pairs(data)[1], split_rule(data))
    assert record["rule"] == "data set"
    assert record["names"] == ["val/images/001.jpg", "val/images/002.jpg"]
    assert held_out(data, record) == [2, 3]
    with pytest.raises(SegError, match="train/images/001.jpg and val/images/001.jpg"):
        split_pairs(data, names=["001"])
    assert split_pairs(data, names=["train/images/001.jpg"])[1] == [0]


# What the bare package may import


def test_data_sets_need_neither_fastai_nor_torch():
    modules = ("core", "labels", "masks", "datasets", "layouts", "show", "predict")
    imports = "\n".join(f"import nbs_lib.{module}" for module in modules)
    code = f"import sys\n{imports}\nprint([name for name in ('torch', 'fastai') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
