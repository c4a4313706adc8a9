"""Mending a folder: exactly the files that a finding is about, both of a pair, and all of it can be taken back."""
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import digest
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.datasets import SegData
from nbs_lib.labels import bit_colors
from nbs_lib.tools.examples import example_rooms
from nbs_lib.tools.fix import apply_fixes, seg_fix, undo_fixes


def cut_short(path: Path) -> None:
    "Leave the first 60 bytes of a file."
    path.write_bytes(path.read_bytes()[:60])


def images_below(folder: Path) -> list[str]:
    "The PNG and JPEG files that a training would see, by relative path."
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*.[pj][np]g"))]
    return [path.as_posix() for path in files if ".seg_fix" not in path.parts]


@pytest.fixture
def drawn(tmp_path) -> SegData:
    "Six pairs to build other layouts from."
    return example_rooms(tmp_path / "drawn")


@pytest.fixture
def faces(drawn, tmp_path) -> Path:
    "Six pairs in the layout of FaceSynthetics: the mask is called as its image, with `_seg` after it."
    folder = tmp_path / "faces"
    folder.mkdir()
    for pair in drawn.pairs:
        mask = np.array(Image.open(pair.mask)) % 19
        shutil.copy(pair.image, folder / pair.image.name)
        Image.fromarray(mask).save(folder / f"{pair.name}_seg.png")
    return folder


@pytest.fixture
def parted(drawn, tmp_path) -> Path:
    "A training and a validation folder that both call their files 001.png, 002.png, 003.png."
    folder = tmp_path / "parted"
    for i, pair in enumerate(drawn.pairs):
        part = ("train", "val")[i // 3]
        for kind, source in (("images", pair.image), ("masks", pair.mask)):
            target = folder / kind / part / f"{i % 3 + 1:03}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shutil.copy(drawn.root / "labels.csv", folder / "labels.csv")
    return folder


@pytest.fixture
def nested_voc(drawn, tmp_path) -> Path:
    "A folder that holds a PASCAL VOC data set in VOCdevkit/VOC2012."
    inner = tmp_path / "download/VOCdevkit/VOC2012"
    for part in ("JPEGImages", "SegmentationClass"):
        (inner / part).mkdir(parents=True)
    for pair in drawn.pairs:
        mask = Image.fromarray(np.array(Image.open(pair.mask)) % 21)
        mask.putpalette(np.array(bit_colors(256), np.uint8).tobytes())
        mask.save(inner / f"SegmentationClass/{pair.name}.png")
        Image.open(pair.image).save(inner / f"JPEGImages/{pair.name}.jpg")
    return tmp_path / "download"


def test_quarantine_takes_both_files_of_a_face(faces):
    cut_short(faces / "000002_seg.png")
    seg_fix(str(faces), apply=True, quarantine="errors")
    left = images_below(faces)
    assert "000002.png" not in left and "000002_seg.png" not in left
    assert len(left) == 10


def test_quarantine_takes_a_face_by_its_name(faces):
    seg_fix(str(faces), apply=True, quarantine="000002")
    assert len(images_below(faces)) == 10


def test_quarantine_takes_what_is_left_of_a_pair(faces):
    (faces / "000002.png").unlink()
    (faces / "000004_seg.png").unlink()
    before = images_below(faces)
    seg_fix(str(faces), apply=True, quarantine="errors")
    assert sorted(set(before) - set(images_below(faces))) == ["000002_seg.png", "000004.png"]


def test_quarantine_leaves_a_sound_pair_of_the_same_name(parted):
    cut_short(parted / "masks/val/001.png")
    before = images_below(parted)
    seg_fix(str(parted), apply=True, quarantine="errors")
    assert sorted(set(before) - set(images_below(parted))) == ["images/val/001.png", "masks/val/001.png"]


def test_a_name_of_two_pairs_has_to_be_a_path(parted):
    with pytest.raises(SegError, match="images/train/001.png.*images/val/001.png"):
        seg_fix(str(parted), apply=True, quarantine="001")
    before = images_below(parted)
    seg_fix(str(parted), apply=True, quarantine="masks/val/001.png")
    assert sorted(set(before) - set(images_below(parted))) == ["images/val/001.png", "masks/val/001.png"]


def test_undo_in_a_nested_folder(nested_voc):
    before = digest(nested_voc)
    cut_short(nested_voc / "VOCdevkit/VOC2012/SegmentationClass/000003.png")
    broken = digest(nested_voc)
    seg_fix(str(nested_voc), apply=True, quarantine="errors")
    moved = digest(nested_voc)
    assert len(moved) == len(before) - 2
    seg_fix(str(nested_voc), undo=True)
    assert digest(nested_voc) == broken
    with pytest.raises(SegError, match="nothing to undo"):
        undo_fixes(nested_voc)


def test_two_repairs_of_a_nested_folder_are_undone_one_by_one(nested_voc):
    before = digest(nested_voc)
    seg_fix(str(nested_voc), apply=True, quarantine="000001")
    once = digest(nested_voc)
    seg_fix(str(nested_voc), apply=True, quarantine="000002")
    seg_fix(str(nested_voc), undo=True)
    assert digest(nested_voc) == once
    seg_fix(str(nested_voc / "VOCdevkit/VOC2012"), undo=True)
    assert digest(nested_voc) == before


def test_undo_does_not_overwrite_what_has_taken_the_place(drawn):
    "A new mask was drawn while the broken one lay in the quarantine: it stays, and so does the broken one."
    mask = drawn.pairs[2].mask
    cut_short(mask)
    broken = mask.read_bytes()
    seg_fix(str(drawn.root), apply=True, quarantine="errors")
    mask.write_bytes(b"new work")
    seg_fix(str(drawn.root), undo=True)
    assert mask.read_bytes() == b"new work"
    aside, = drawn.root.glob(f".seg_fix/*/quarantine/labels/{mask.name}")
    assert aside.read_bytes() == broken


def test_a_repair_does_not_overwrite_a_file_that_came_meanwhile(drawn):
    before = digest(drawn.root)
    steps = [{"move": "labels/000001.png", "to": "labels/000002.png"}]
    with pytest.raises(SegError, match="000002.png exists and is not overwritten"):
        apply_fixes(drawn, steps)
    assert digest(drawn.root) == before
