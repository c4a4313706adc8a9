"""One round of the loop: the labels that a model is worst at on photos choose the next rooms. What does that bring?

    python benchmarks/close_the_loop.py PHOTOS OUT [MAPPING] [ONLY] [ROOMS] [SIZE] [FIRST] [MORE] [SEEDS] [ARCH] [BY]

PHOTOS is a labelled set. The first half of it is only looked at to choose labels, the second half only to score.
1. A network is trained on ROOMS default rooms, for FIRST images; or FIRST is a saved model (.safetensors).
2. It is judged on the first half of the photos: BY is `score`, or `confidence`, which needs no annotations.
3. ROOMS new rooms are drawn by the default ranges, and as many for the report, as `seg_generate --for` does.
4. The network goes on for MORE images, once on the default rooms and once on those for the report, with SEEDS seeds.
5. All are scored on the other photos, and on held-out default rooms. MAPPING and ONLY are those of `seg_eval`.
What is in OUT is not made again, so an interrupted run goes on with the same command. Only SEEDS and BY may change;
anything else needs another OUT.
"""
import math
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from common import identity, keep_settings, mapping_identity, spread

from nbs_lib.checkpoint import load_weights
from nbs_lib.core import read_json, write_json
from nbs_lib.datasets import SegData
from nbs_lib.evaluate import choose_scoring, eval_report, evaluate
from nbs_lib.export import export_onnx
from nbs_lib.layouts import find_pairs
from nbs_lib.predict import ConfidenceTally, Predictor, confidence_report
from nbs_lib.tools.night import HELD_OUT_SEED, RECIPE, saved_model
from nbs_lib.train import TrainSettings, is_done, train_model, training_recipe
from virtual_room import Plan, RoomConfig, generate
from virtual_room.focus import TOGETHER, Choice, choose_focus
from virtual_room.plan import VERSION

START, DEFAULT, FOR = "before", "default rooms", "rooms for the report"
HELD_OUT, VALID = 8, .05  # one held-out room for so many others, and the share that a training validates on
AGAIN = "remove it and run again"


@dataclass(frozen=True)
class Loop:
    "What is the same for all trainings."
    photos: str
    out: str
    mapping: str = ""              # of `seg_eval`, where the photos have other labels
    only: str = ""                 # score only photos that show this label
    rooms: int = 4000              # to train on, one image each
    size: int = 128                # pixels
    first: str = "12000"            # images that the first training sees, or a saved model
    more: int = 6000               # images that the second one sees
    seeds: int = 3                 # of the second training
    arch: str = "unet:tu-resnet10t"
    by: str = "score"              # or confidence: what the labels are chosen by

    @property
    def starts_from_model(self) -> bool:
        "Is there a saved model already?"
        return self.first.endswith(".safetensors")

    @property
    def report(self) -> Path:
        "What is known of the first model."
        return Path(self.out) / f"report_{self.by}.json"

    def scores(self, way: str, seed: int) -> Path:
        "Where the scores of a training are written."
        by = f"_{self.by}" if way == FOR else ""
        return Path(self.out) / "scores" / f"{way.replace(' ', '_')}{by}_{seed}.json"


def settings_of(loop: Loop) -> dict:
    "What the results depend on and their names do not say."
    photos = find_pairs(loop.photos)
    first = load_weights(loop.first)[1]["sha256"][:8] if loop.starts_from_model else f"{loop.first} images"
    return dict(
        mapping=mapping_identity(loop.mapping), only=loop.only, rooms=loop.rooms, room_version=VERSION, size=loop.size,
        first=first, more=loop.more, arch=loop.arch, **identity(photos, *halves(photos)))


def draw_rooms(loop: Loop, name: str, count: int, seed: int, config: RoomConfig) -> SegData:
    "Rooms in a folder of that name, drawn where they are not there."
    folder = Path(loop.out) / "rooms" / name
    generate(count, folder, Plan(seed, loop.size, config=config), len(os.sched_getaffinity(0)))
    return find_pairs(folder)


def train(loop: Loop, name: str, data: SegData, images: int, seed: int, weights: str = "") -> Path:
    "The weights of a training that sees about so many images, from others or from nothing."
    length = images_in_epochs(images, len(data))
    recipe = {key: value for key, value in RECIPE.items() if key != "lr"}  # with weights it is half as high
    settings = TrainSettings(
        size=str(loop.size), out=str(Path(loop.out) / "models" / name), arch=loop.arch, seed=seed,
        weights=weights, valid=VALID, valid_every=0, **length, **recipe)
    path = saved_model(settings)
    if not is_done(path, training_recipe(data, settings)):
        train_model(data, settings, bar=False)
    return path.with_suffix(".safetensors")


def first_model(loop: Loop) -> Path:
    "The weights of the model that is judged and goes on."
    if loop.starts_from_model:
        return Path(loop.first)
    return train(loop, "first", draw_rooms(loop, "first", loop.rooms, 0, RoomConfig()), int(loop.first), 0)


def images_in_epochs(images: int, pairs: int) -> dict[str, int]:
    "The settings for a training that sees so many images."
    epochs = max(1, math.ceil(images / (pairs * (1 - VALID))))
    return dict(epochs=epochs, epoch_size=math.ceil(images / epochs))


# --- judging ------------------------------------------------------------------------------------------------------

def exported(loop: Loop, weights: Path) -> Predictor:
    "A saved model as users have it: an ONNX file."
    return Predictor(export_onnx(weights, Path(loop.out) / "onnx" / weights.parent.name))


def halves(data: SegData) -> tuple[list[int], list[int]]:
    "Indices of the photos to choose by, and of those to score on. Neighbors, often of one scene, stay together."
    middle = len(data) // 2
    return list(range(middle)), list(range(middle, len(data)))


def judge(predictor: Predictor, data: SegData, indices: list[int], mapping: str = "", only: str = "") -> dict:
    "The report of `seg_eval` on some images."
    scoring = choose_scoring(predictor, data, mapping)
    matrix, n = evaluate(predictor, data, scoring, indices, only or None)
    return eval_report(predictor, data, matrix, n, scoring)


def judge_by_confidence(predictor: Predictor, data: SegData, indices: list[int]) -> dict:
    "The report of `seg_predict` on some images, whose annotations are not looked at."
    tally = ConfidenceTally(predictor.labels)
    for i in indices:
        tally.add(predictor(data.pairs[i].image))
    return confidence_report(predictor, tally, "stretch")


def write_report(loop: Loop, weights: Path) -> Choice:
    "Judge the first model on the photos to choose by; what the report asks for."
    if not loop.report.exists():
        predictor, photos = exported(loop, weights), find_pairs(loop.photos)
        chosen_by = halves(photos)[0]
        if loop.by == "confidence":
            report = judge_by_confidence(predictor, photos, chosen_by)
        else:
            report = judge(predictor, photos, chosen_by, loop.mapping, loop.only)
        write_json(loop.report, report)
    return choose_focus(loop.report)


def score(loop: Loop, way: str, seed: int, weights: Path, held_out: SegData) -> dict[str, dict]:
    "The reports of a model on photos and on held-out rooms."
    path = loop.scores(way, seed)
    if not path.exists():
        predictor, photos = exported(loop, weights), find_pairs(loop.photos)
        on_photos = judge(predictor, photos, halves(photos)[1], loop.mapping, loop.only)
        on_rooms = judge(predictor, held_out, list(range(len(held_out))))
        write_json(path, dict(photos=on_photos, rooms=on_rooms))
    return read_json(path, AGAIN)


# --- the table ----------------------------------------------------------------------------------------------------

def chosen_iou(report: dict, labels: set[str]) -> float:
    "Mean IoU of the classes that hold a chosen label; not a number where none was scored."
    rows = [row for row in report["classes"] if labels & set(row["label"].split(TOGETHER))]
    found = [row["iou"] for row in rows if row["iou"] is not None]
    return statistics.mean(found) if found else math.nan


def figures(report: dict, labels: set[str]) -> list[float]:
    "Dice, mIoU, and the mean IoU of the chosen labels."
    return [report["scores"]["dice"], report["scores"]["miou"], chosen_iou(report, labels)]


def print_table(found: dict[str, list[dict[str, dict]]], labels: set[str]) -> None:
    "A line a way and a kind of image: the mean over its seeds."
    print(f"\n{'':32}{'Dice':18}{'mIoU':18}{'IoU of the chosen labels'}")
    for kind in ("photos", "rooms"):
        for way, runs in found.items():
            columns = zip(*(figures(run[kind], labels) for run in runs), strict=True)
            cells = "".join(f"{spread(list(column)):18}" for column in columns)
            print(f"{kind:8}{way:24}{cells}".rstrip())


def class_iou(runs: list[dict[str, dict]], kind: str) -> dict[str, float]:
    "Mean IoU over the seeds, by class."
    values: dict[str, list[float]] = {}
    for run in runs:
        for row in run[kind]["classes"]:
            if row["iou"] is not None:
                values.setdefault(row["label"], []).append(row["iou"])
    return {label: statistics.mean(found) for label, found in values.items()}


def print_labels(found: dict[str, list[dict[str, dict]]], labels: set[str]) -> None:
    "The IoU of each class on the photos; a star marks what was chosen."
    columns = {way: class_iou(runs, "photos") for way, runs in found.items()}
    print(f"\n{'IoU on photos':48}" + "".join(f"{way:>22}" for way in columns))
    for label in columns[START]:
        star = "*" if labels & set(label.split(TOGETHER)) else " "
        cells = "".join(f"{column.get(label, math.nan):22.4f}" for column in columns.values())
        print(f"{star} {label:46}{cells}")


def run(loop: Loop) -> None:
    "The whole round."
    keep_settings(loop.out, settings_of(loop), "report_*.json")
    first = first_model(loop)
    choice = write_report(loop, first)
    print(choice, flush=True)
    focused = RoomConfig(focus=choice.weights)
    held_out = draw_rooms(loop, "held_out", math.ceil(loop.rooms / HELD_OUT), HELD_OUT_SEED, RoomConfig())
    found = {START: [score(loop, START, 0, first, held_out)]}
    for way, name, config in ((DEFAULT, "default", RoomConfig()), (FOR, f"for_{loop.by}", focused)):
        data, found[way] = draw_rooms(loop, name, loop.rooms, 1, config), []
        for seed in range(loop.seeds):
            weights = train(loop, f"{name}_{seed}", data, loop.more, seed, str(first))
            found[way].append(score(loop, way, seed, weights, held_out))
    print(f"\nfirst {loop.first}, {loop.more} more images of {loop.size} px, {loop.rooms} rooms, {loop.seeds} seeds, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print_table(found, set(choice.weights))
    print_labels(found, set(choice.weights))


def main(photos: str, out: str, mapping: str = "", only: str = "", rooms: str = "4000", size: str = "128",
         first: str = "12000", more: str = "6000", seeds: str = "3", arch: str = Loop.arch, by: str = "score") -> None:
    if by not in ("score", "confidence"):
        sys.exit(f"BY is {by!r}; give score or confidence")
    run(Loop(photos, out, mapping, only, int(rooms), int(size), first, int(more), int(seeds), arch, by))


if __name__ == "__main__":
    main(*sys.argv[1:])
