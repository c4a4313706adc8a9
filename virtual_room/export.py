"""Rooms in the layouts of others: COCO's annotations and Unity's SOLO, from the folders that `seg_generate` writes.

Reads files only; must not know how they were made.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from nbs_lib.core import SegError, atomic_path, seg_command, write_json
from nbs_lib.datasets import Pair, SegData, find_pairs
from nbs_lib.labels import IGNORE, LabelSet, decode_mask
from virtual_room.generate import box_of

UNITY = "type.unity.com/unity.solo."
SEMANTIC, INSTANCE, BOXES = "semantic segmentation", "instance segmentation", "bounding box"
KINDS = {SEMANTIC: f"{UNITY}SemanticSegmentationAnnotation", INSTANCE: f"{UNITY}InstanceSegmentationAnnotation", BOXES: f"{UNITY}BoundingBox2DAnnotation"}


def segments(data: SegData, pair: Pair) -> list[tuple[int, int, np.ndarray]]:
    "Number, label and pixels (H, W) of each labelled thing in a picture; of each label where instances were not written. Void pixels are in none"
    mask = decode_mask(pair.mask, data.labels)
    numbered = data.root / "instances" / pair.mask.name
    things = np.asarray(Image.open(numbered)).astype(int) if numbered.exists() else mask.astype(int)
    labelled = mask != IGNORE
    if data.labels.background is not None: labelled &= mask != data.labels.background
    found = [(int(i), (things == i) & labelled) for i in np.unique(things[labelled])]
    return [(i, int(mask[pixels][0]), pixels) for i, pixels in found]


def run_lengths(pixels: np.ndarray) -> list[int]:
    "COCO's uncompressed run lengths: down the columns, starting with those outside"
    flat = pixels.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def to_coco(data: SegData) -> dict:
    "The whole folder as one COCO object; segments painted over each other give the masks again"
    images, annotations = [], []
    for number, pair in enumerate(data.pairs):
        found = segments(data, pair)
        width, height = Image.open(pair.mask).size
        images.append(dict(id=number, file_name=pair.image.relative_to(data.root).as_posix(), width=width, height=height))
        for i, label, pixels in found:
            annotations.append(dict(id=len(annotations) + 1, image_id=number, category_id=label, instance=i, iscrowd=0, area=int(pixels.sum()), bbox=box_of(pixels),
                                    segmentation=dict(size=[height, width], counts=run_lengths(pixels))))
    groups = {n: g for g, names in data.labels.groups.items() for n in names}
    categories = [dict(id=i, name=n, supercategory=groups[n]) for i, n in enumerate(data.labels.codes) if i != data.labels.background]
    return dict(info=dict(description="rooms"), licenses=[], images=images, annotations=annotations, categories=categories)


def to_solo(data: SegData, out: Path) -> None:
    "A folder as Unity's Perception writes it: a sequence for each room, a step for each picture; its reader wants sequences of one length, so that else each picture is one"
    if out.exists() and any(out.iterdir()): raise SegError(f"{out} is not empty; give another --out")
    groups = [p.group or p.name for p in data.pairs]
    if len(set(Counter(groups).values())) > 1: groups = [p.name for p in data.pairs]
    steps, sequences = Counter(), {g: i for i, g in enumerate(dict.fromkeys(groups))}
    for frame, (pair, group) in enumerate(zip(data.pairs, groups)):
        _solo_frame(data, pair, out / f"sequence.{sequences[group]}", frame, sequences[group], steps[group])
        steps[group] += 1
    spec = [dict(label_id=i, label_name=n) for i, n in enumerate(data.labels.codes) if i != data.labels.background]
    colours = [dict(label_name=n["label_name"], pixel_value=_rgba(data.labels, n["label_id"])) for n in spec]
    definitions = [{"@type": KINDS[SEMANTIC], "id": SEMANTIC, "description": "A colour for each label", "spec": colours},
                   {"@type": KINDS[INSTANCE], "id": INSTANCE, "description": "A colour for each thing", "spec": spec},
                   {"@type": KINDS[BOXES], "id": BOXES, "description": "Boxes around what is visible of each thing", "spec": spec}]
    write_json(out / "annotation_definitions.json", dict(annotationDefinitions=definitions))
    write_json(out / "sensor_definitions.json", dict(sensorDefinitions=[{"@type": f"{UNITY}SensorDefinition", "id": "camera", "modality": "camera", "definition": "The main camera",
        "firstCaptureFrame": 0.0, "captureTriggerMode": "Scheduled", "simulationDeltaTime": 0.0166, "framesBetweenCaptures": 0, "manualSensorsAffectTiming": False}]))
    write_json(out / "metric_definitions.json", dict(metricDefinitions=[]))
    write_json(out / "metadata.json", dict(unityVersion="", perceptionVersion="1.0.0", totalFrames=len(data.pairs), totalSequences=len(sequences), sensors=["camera"], metricCollectors=[],
                                           simulationStartTime="", simulationEndTime="", renderPipeline="", scenarioRandomSeed=0.0, annotators=[dict(name=n, type=k) for n, k in KINDS.items()]))


def _solo_frame(data: SegData, pair: Pair, folder: Path, frame: int, sequence: int, step: int) -> None:
    mask, found = decode_mask(pair.mask, data.labels), segments(data, pair)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pair.image, folder / f"step{step}.camera.png")
    common, size = dict(sensorId="camera", description=""), [float(n) for n in mask.shape[::-1]]
    numbered = np.zeros((*mask.shape, 4), np.uint8)
    for i, _, pixels in found: numbered[pixels] = _number(i)
    palette = data.labels.palette.copy()
    palette[IGNORE] = 0
    painted = {SEMANTIC: np.dstack([palette[mask], np.full(mask.shape, 255, np.uint8)]), INSTANCE: numbered}
    for name, picture in painted.items():
        with atomic_path(folder / f"step{step}.camera.{name}.png") as tmp: Image.fromarray(picture).save(tmp)
    picture = lambda name: {"@type": KINDS[name], "id": name, **common, "imageFormat": "PNG", "dimension": size, "filename": f"step{step}.camera.{name}.png"}
    name = lambda label: dict(labelName=data.labels.codes[label])
    semantic = picture(SEMANTIC) | dict(instances=[name(v) | dict(pixelValue=_rgba(data.labels, v)) for v in sorted({label for _, label, _ in found})])
    instance = picture(INSTANCE) | dict(instances=[name(label) | dict(instanceId=i, labelId=label, color=_number(i)) for i, label, _ in found])
    boxes = {"@type": KINDS[BOXES], "id": BOXES, **common, "values": [
        name(label) | dict(instanceId=i, labelId=label, origin=box_of(pixels)[:2], dimension=box_of(pixels)[2:]) for i, label, pixels in found]}
    zero, pinhole = [0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    capture = {"@type": f"{UNITY}RGBCamera", "id": "camera", "description": "The main camera", "position": zero, "rotation": [0.0, 0.0, 0.0, 1.0], "velocity": zero, "acceleration": zero,
               "filename": f"step{step}.camera.png", "imageFormat": "PNG", "dimension": size, "projection": "Perspective", "matrix": pinhole, "annotations": [semantic, instance, boxes]}
    write_json(folder / f"step{step}.frame_data.json", dict(frame=frame, sequence=sequence, step=step, captures=[capture], metrics=[]))


def _number(i: int) -> list[int]: return [i % 256, i // 256, 128, 255]


def _rgba(labels: LabelSet, value: int) -> list[int]: return [*map(int, labels.colors[value]), 255]


@seg_command
def seg_convert(
    folder: str,  # What seg_generate wrote; with --truth instances every thing is a segment of its own
    to: str = "coco",  # coco or solo
    out: str = "",  # FILE.json for COCO (default FOLDER/coco.json), a new folder for SOLO (default FOLDER/solo)
):
    "Write rooms as a COCO annotation file or in Unity's SOLO layout."
    data = find_pairs(folder)
    if to == "coco":
        path = Path(out or Path(folder) / "coco.json")
        with atomic_path(path) as tmp: tmp.write_text(json.dumps(to_coco(data)))
    elif to == "solo": to_solo(data, path := Path(out or Path(folder) / "solo"))
    else: raise SegError(f"--to is '{to}'; give coco or solo")
    print(f"{len(data)} pictures as {to}: {path}")
