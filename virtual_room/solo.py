"""A folder in the SOLO layout of Unity's Perception: sequences of steps, a JSON file and three PNG files a step.

The format: https://docs.unity3d.com/Packages/com.unity.perception@1.0/manual/Schema/SoloSchema.html.
Reads files only; must not know how they were made.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nbs_lib.core import SegError, atomic_path, write_json
from nbs_lib.datasets import Pair, SegData
from nbs_lib.labels import IGNORE, LabelSet
from nbs_lib.masks import decode_mask
from virtual_room.pairs import bounding_box
from virtual_room.segments import Segment, label_names, read_segments

UNITY = "type.unity.com/unity.solo."
SEMANTIC, INSTANCE, BOXES = "semantic segmentation", "instance segmentation", "bounding box"
TYPES = {
    SEMANTIC: f"{UNITY}SemanticSegmentationAnnotation",
    INSTANCE: f"{UNITY}InstanceSegmentationAnnotation",
    BOXES: f"{UNITY}BoundingBox2DAnnotation",
}
ORIGIN, NO_ROTATION = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]
PINHOLE = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


@dataclass(frozen=True)
class Step:
    "Where a pair goes: its number in all, its sequence, and its place there"
    frame: int
    sequence: int
    step: int

    def name(self, ending: str) -> str:
        "The name of one of the step's files"
        return f"step{self.step}.{ending}"


def to_solo(data: SegData, out: Path) -> None:
    "Write a data set into the new folder `out`, void pixels as unlabelled ones; `SegError` where `out` holds something"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SegError(f"{out} is not empty; give another --out")
    with _new_folder(out) as folder:
        _write_all(data, folder)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    "A folder beside `out` that becomes `out` when the block succeeds; what an interrupted run left there goes first"
    out = out.absolute()
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if out.exists():
            out.rmdir()  # empty, as was checked; not every system renames onto it
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write_all(data: SegData, out: Path) -> None:
    "Write the frames of a data set, and what they share"
    steps = _steps(data)
    for pair, step in zip(data.pairs, steps, strict=True):
        _write_frame(data, pair, step, out / f"sequence.{step.sequence}")
    write_json(out / "annotation_definitions.json", dict(annotationDefinitions=_annotation_definitions(data.labels)))
    write_json(out / "sensor_definitions.json", dict(sensorDefinitions=[_sensor_definition()]))
    write_json(out / "metric_definitions.json", dict(metricDefinitions=[]))
    write_json(out / "metadata.json", _metadata(steps))


def _steps(data: SegData) -> list[Step]:
    "A sequence for each room; Unity's reader wants sequences of one length, else each image is a sequence"
    groups = [pair.group or pair.name for pair in data.pairs]
    if len(set(Counter(groups).values())) > 1:
        groups = [pair.name for pair in data.pairs]
    sequences, lengths, steps = {}, Counter(), []
    for frame, group in enumerate(groups):
        sequence = sequences.setdefault(group, len(sequences))
        steps.append(Step(frame, sequence, lengths[group]))
        lengths[group] += 1
    return steps


# --- what all frames share ----------------------------------------------------------------------------------------

def _annotation_definitions(labels: LabelSet) -> list[dict]:
    names = label_names(labels)
    spec = [dict(label_id=value, label_name=name) for value, name in names.items()]
    colors = [dict(label_name=name, pixel_value=_rgba(labels, value)) for value, name in names.items()]
    return [
        _definition(SEMANTIC, "A color for each label", colors),
        _definition(INSTANCE, "A color for each object", spec),
        _definition(BOXES, "Boxes around what is visible of each object", spec),
    ]


def _definition(name: str, description: str, spec: list[dict]) -> dict:
    return {"@type": TYPES[name], "id": name, "description": description, "spec": spec}


def _sensor_definition() -> dict:
    return {
        "@type": f"{UNITY}SensorDefinition",
        "id": "camera",
        "modality": "camera",
        "definition": "The main camera",
        "firstCaptureFrame": 0.0,
        "captureTriggerMode": "Scheduled",
        "simulationDeltaTime": 0.0166,
        "framesBetweenCaptures": 0,
        "manualSensorsAffectTiming": False,
    }


def _metadata(steps: list[Step]) -> dict:
    annotators = [dict(name=name, type=kind) for name, kind in TYPES.items()]
    sequences = {step.sequence for step in steps}
    return dict(
        unityVersion="", perceptionVersion="1.0.0", totalFrames=len(steps), totalSequences=len(sequences),
        sensors=["camera"], metricCollectors=[], simulationStartTime="", simulationEndTime="", renderPipeline="",
        scenarioRandomSeed=0.0,
        annotators=annotators,
    )


# --- a frame ------------------------------------------------------------------------------------------------------

def _write_frame(data: SegData, pair: Pair, step: Step, folder: Path) -> None:
    "The image, its two painted masks, and the JSON that describes them"
    segments = read_segments(data, pair)
    mask = decode_mask(pair.mask, data.labels)
    folder.mkdir(parents=True, exist_ok=True)
    _copy_image(pair.image, folder / step.name("camera.png"))
    _save(_paint_labels(mask, data.labels), folder / step.name(f"camera.{SEMANTIC}.png"))
    _save(_paint_numbers(segments, mask.shape), folder / step.name(f"camera.{INSTANCE}.png"))
    capture = _capture(segments, data.labels, step, mask.shape)
    frame = dict(frame=step.frame, sequence=step.sequence, step=step.step, captures=[capture], metrics=[])
    write_json(folder / step.name("frame_data.json"), frame)


def _copy_image(source: Path, target: Path) -> None:
    "An image as PNG, byte for byte where it is one"
    if source.suffix.lower() == ".png":
        shutil.copyfile(source, target)
        return
    with Image.open(source) as image:
        _save(np.asarray(image.convert("RGB")), target)


def _save(pixels: np.ndarray, path: Path) -> None:
    with atomic_path(path) as tmp:
        Image.fromarray(pixels).save(tmp)


def _paint_labels(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    "RGBA (H, W, 4) of a mask in the labels' colors; void is black like what has no label"
    palette = labels.palette.copy()
    palette[IGNORE] = 0
    opaque = np.full(mask.shape, 255, np.uint8)
    return np.dstack([palette[mask], opaque])


def _paint_numbers(segments: list[Segment], shape: tuple[int, int]) -> np.ndarray:
    "RGBA (H, W, 4) with a color for each object"
    painted = np.zeros((*shape, 4), np.uint8)
    for segment in segments:
        painted[segment.pixels] = _number_color(segment.number)
    return painted


def _capture(segments: list[Segment], labels: LabelSet, step: Step, shape: tuple[int, int]) -> dict:
    "What the camera saw, with its three annotations"
    height, width = shape
    size = [float(width), float(height)]
    return {
        "@type": f"{UNITY}RGBCamera",
        "id": "camera",
        "description": "The main camera",
        "position": ORIGIN,
        "rotation": NO_ROTATION,
        "velocity": ORIGIN,
        "acceleration": ORIGIN,
        "filename": step.name("camera.png"),
        "imageFormat": "PNG",
        "dimension": size,
        "projection": "Perspective",
        "matrix": PINHOLE,
        "annotations": [
            _painted(SEMANTIC, step, size) | dict(instances=_label_rows(segments, labels)),
            _painted(INSTANCE, step, size) | dict(instances=[_object_row(segment, labels) for segment in segments]),
            _annotation(BOXES) | dict(values=[_box_row(segment, labels) for segment in segments]),
        ],
    }


def _annotation(name: str) -> dict:
    return {"@type": TYPES[name], "id": name, "sensorId": "camera", "description": ""}


def _painted(name: str, step: Step, size: list[float]) -> dict:
    return _annotation(name) | dict(imageFormat="PNG", dimension=size, filename=step.name(f"camera.{name}.png"))


def _label_rows(segments: list[Segment], labels: LabelSet) -> list[dict]:
    "Name and color of each label in the image"
    found = sorted({segment.label for segment in segments})
    return [dict(labelName=labels.codes[label], pixelValue=_rgba(labels, label)) for label in found]


def _object_row(segment: Segment, labels: LabelSet) -> dict:
    name, color = labels.codes[segment.label], _number_color(segment.number)
    return dict(labelName=name, instanceId=segment.number, labelId=segment.label, color=color)


def _box_row(segment: Segment, labels: LabelSet) -> dict:
    x, y, width, height = bounding_box(segment.pixels)
    return dict(
        labelName=labels.codes[segment.label], instanceId=segment.number, labelId=segment.label,
        origin=[x, y], dimension=[width, height],
    )


def _number_color(number: int) -> list[int]:
    "The color of an object's number, RGBA"
    return [number % 256, number // 256, 128, 255]


def _rgba(labels: LabelSet, value: int) -> list[int]:
    "The color of a label, RGBA"
    return [*map(int, labels.colors[value]), 255]
