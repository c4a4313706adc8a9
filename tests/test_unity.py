"Unity's own reader takes our SOLO folders. It pins packages of 2022, so that it is installed aside: `make test-unity`"

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pysolotools.consumers", reason="Unity's pysolotools is not installed; run `make test-unity`")
pytest.importorskip("panda3d")

import pysolotools.consumers as reader
import pysolotools.core.models as models

from nbs_lib.labels import ROOM_LABELS
from virtual_room import Plan, generate
from virtual_room.export import seg_convert


def read_ids(path: Path) -> np.ndarray:
    "An image of numbers or colors, as int"
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("count", [8, 7])
def test_unitys_reader_reads_our_solo(count, tmp_path):
    rooms, out = tmp_path / "rooms", tmp_path / "solo"
    generate(count, rooms, Plan(seed=6, size=96, images_per_room=2, annotations=("instances",)))
    seg_convert(str(rooms), "solo", str(out))
    solo = reader.Solo(str(out))
    assert solo.categories() == dict(enumerate(ROOM_LABELS.codes[1:], 1))
    assert len(solo.frames()) == count
    for number, frame in enumerate(solo.frames()):
        check_frame(frame, number, rooms, out)


def check_frame(frame, number: int, rooms: Path, out: Path) -> None:
    "What Unity's reader says of a frame is what we wrote"
    assert frame.frame == number
    assert (out / frame.get_file_path(models.RGBCameraCapture)).exists()
    semantic, instance, boxes = frame.captures[0].annotations
    assert isinstance(semantic, models.SemanticSegmentationAnnotation)
    assert isinstance(instance, models.InstanceSegmentationAnnotation)
    assert isinstance(boxes, models.BoundingBox2DAnnotation)
    painted = read_ids(out / f"sequence.{frame.sequence}" / instance.filename)
    expected = read_ids(rooms / "instances" / f"{number:06d}.png")
    for row in instance.instances:
        found = (painted == row.color).all(2)
        assert (found == (expected == row.instanceId)).all()
    assert {box.labelName for box in boxes.values} == {row.labelName for row in semantic.instances}
