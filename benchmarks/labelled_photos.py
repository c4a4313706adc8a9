"""How many labelled photos is a training on rendered rooms worth?

    python benchmarks/labelled_photos.py PHOTOS WEIGHTS OUT ["0 10 25 50"] [IMAGES] [SIZE] [SEEDS] [MAPPING] [ONLY]

PHOTOS is a data set of photos with masks, WEIGHTS a model that was trained on rooms. For each number of photos one
network is trained on them from scratch, and one from WEIGHTS, both under the rooms' labels and both with the same
budget: IMAGES shown at SIZE pixels. Photos to judge on are of other scenes: whole groups where the data set knows them,
else the last ones by name, with a gap before them, since neighbors in a film show one scene. They are scored at their
own size; ONLY scores those that show this label.

Each run adds a row to OUT/labelled_photos.csv, and rows that are there are not run again; a run that was cut goes on
from its last checkpoint. Other photos or another MAPPING need another OUT. Seeds are the outer loop; a larger number
of photos holds those of a smaller one.
"""
import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common import identity, keep_settings, mapping_identity
from rows import read_rows

from nbs_lib.callbacks import write_csv
from nbs_lib.checkpoint import load_weights, model_files
from nbs_lib.datasets import SegData, split_pairs
from nbs_lib.evaluate import choose_scoring, evaluate, summarize
from nbs_lib.export import export_onnx
from nbs_lib.labels import LabelSet
from nbs_lib.layouts import find_pairs
from nbs_lib.mixing import SAME, MixedData, Source, mask_reader, mix
from nbs_lib.predict import Predictor
from nbs_lib.train import TrainSettings, is_done, model_name, parse_size, train_model, training_recipe

STARTS = ("scratch", "renders")
JUDGED = 0.3       # share of the photos
GAP = 20           # photos between those to train on and those to judge on, where their scenes are not known
EPOCH_IMAGES = 200 # an epoch shows at least so many, few photos several times: it ends with a checkpoint


@dataclass(frozen=True)
class Plan:
    "What is the same for all runs."
    photos: SegData
    weights: str    # of the model that was trained on rooms
    out: Path
    images: int     # shown in a training
    size: str       # pixels
    mapping: str    # of the photos' labels to the model's; `SAME`: they have the same names
    only: str       # score only photos that show this label; empty: all

    @property
    def description(self) -> dict:
        "The JSON of the model that was trained on rooms."
        return load_weights(self.weights)[1]

    @property
    def scored_by(self) -> str:
        "The mapping to score by; empty where the labels have the same names."
        return "" if self.mapping == SAME else self.mapping

    @property
    def settings(self) -> dict:
        "What the results depend on and `name` does not say."
        train, judged = split_pairs(self.photos, JUDGED)
        return dict(mapping=mapping_identity(self.scored_by), **identity(self.photos, train, judged))

    @property
    def name(self) -> str:
        "As in the table: runs of another plan are other rows."
        scored = f" with {self.only}" if self.only else ""
        model = self.description["sha256"][:8]
        return f"{self.size} px, {self.images} images, model {model}, {len(self.photos)} photos{scored}"


@dataclass(frozen=True)
class Row:
    "One run."
    plan: str
    photos: int
    start: str  # one of `STARTS`
    seed: int
    miou: float
    foreground_accuracy: float
    judged: int      # photos
    seconds: float   # of training


def split_by_scene(photos: SegData) -> tuple[list[int], list[int]]:
    "Indices of photos to train on and of those to judge on, which show other scenes."
    train, judged = split_pairs(photos, JUDGED)
    known = photos.pairs[0].group is not None or photos.pairs[judged[0]].split is not None
    if known:
        return train, judged
    return [i for i in train if i < judged[0] - min(GAP, len(photos) // 10)], judged


def chosen_photos(plan: Plan, n: int, seed: int) -> list[int]:
    "`n` of the photos to train on, drawn by a seed; those of a smaller number are among them."
    train, _ = split_by_scene(plan.photos)
    if n > len(train):
        raise SystemExit(f"{n} photos are wanted, but only {len(train)} are there to train on")
    return random.Random(seed).sample(train, len(train))[:n]


def training_photos(plan: Plan, n: int, seed: int) -> MixedData:
    "The chosen photos, several times where they are few, and those to judge on, under the labels of the rooms."
    chosen, (_, judged) = chosen_photos(plan, n, seed), split_by_scene(plan.photos)
    pairs = [replace(plan.photos.pairs[i], split="train") for i in chosen] * math.ceil(EPOCH_IMAGES / n)
    pairs += [replace(plan.photos.pairs[i], split="valid") for i in judged]
    labels = LabelSet.from_dict(plan.description["labels"])
    source = Source(replace(plan.photos, pairs=tuple(pairs)), mask_reader(plan.photos, labels, plan.mapping))
    return mix([source], labels)


def settings_of(plan: Plan, n: int, start: str, seed: int) -> TrainSettings:
    "How one network is trained; it is validated only at its end, and the last epoch's weights are taken."
    epoch = n * math.ceil(EPOCH_IMAGES / n)
    out = plan.out / f"{start}_{n}_{seed}"
    weights = plan.weights if start == "renders" else ""
    return TrainSettings(
        size=plan.size, arch=plan.description["arch"], weights=weights, out=str(out), seed=seed, valid_every=0,
        epochs=max(1, round(plan.images / epoch)), resume=True)


def trained_model(plan: Plan, n: int, start: str, seed: int) -> Path:
    "The file of weights of a run, trained now; without photos it is the model of the rooms."
    if n == 0:
        return model_files(plan.weights)[0]
    settings, data = settings_of(plan, n, start, seed), training_photos(plan, n, seed)
    path = Path(settings.out) / model_name(settings.arch, parse_size(settings.size))
    if not is_done(path, training_recipe(data, settings)):  # it was cut before its row was written
        train_model(data, settings, bar=False)
    return model_files(path)[0]


def score(plan: Plan, weights: Path, out: Path) -> tuple[dict, int]:
    "Scores on the photos to judge on, at their own size, and how many they are."
    predictor = Predictor(export_onnx(weights, out))
    scoring = choose_scoring(predictor, plan.photos, plan.scored_by)
    _, judged = split_by_scene(plan.photos)
    matrix, n = evaluate(predictor, plan.photos, scoring, judged, plan.only or None)
    return summarize(matrix, scoring)[0], n


def run(plan: Plan, n: int, start: str, seed: int) -> Row:
    "Train and score one network."
    began = time.monotonic()
    weights = trained_model(plan, n, start, seed)
    seconds = time.monotonic() - began
    out = plan.out / f"{start}_{n}_{seed}"
    out.mkdir(parents=True, exist_ok=True)
    scores, judged = score(plan, weights, out)
    return Row(plan.name, n, start, seed, scores["miou"], scores["foreground_accuracy"], judged, seconds)


def wanted_runs(numbers: list[int], seeds: int) -> list[tuple[int, str, int]]:
    "(photos, start, seed) of all runs: without photos there is only the model of the rooms, once."
    runs = [(0, "renders", 0)] if 0 in numbers else []
    for seed in range(seeds):
        for n in filter(None, numbers):
            runs += [(n, start, seed) for start in STARTS]
    return runs


def run_missing(plan: Plan, runs: list[tuple[int, str, int]]) -> list[Row]:
    "Do the runs that are not in the table; returns the rows of the plan."
    path = plan.out / "labelled_photos.csv"
    keep_settings(plan.out, plan.settings, path.name)
    for wanted in runs:
        rows = read_rows(path, Row)
        done = {(row.photos, row.start, row.seed) for row in rows if row.plan == plan.name}
        if wanted not in done:
            row = run(plan, *wanted)
            write_csv(path, [asdict(one) for one in [*rows, row]])
            print(f"{row.photos} photos, {row.start}, seed {row.seed}: mIoU {row.miou:.4f}", flush=True)
    return [row for row in read_rows(path, Row) if row.plan == plan.name]


def mean_of(rows: list[Row], n: int, start: str) -> float:
    "Mean IoU over the seeds; not a number where there is no run."
    found = [row.miou for row in rows if (row.photos, row.start) == (n, start)]
    return statistics.mean(found) if found else math.nan


def spread_text(rows: list[Row], n: int, start: str) -> str:
    "The mean over the seeds and their standard deviation, as text; a dash where there is no run."
    found = [row.miou for row in rows if (row.photos, row.start) == (n, start)]
    if not found:
        return "-"
    spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.3f}{spread}"


def print_table(plan: Plan, rows: list[Row]) -> None:
    "A line for each number of photos."
    print(f"\nmIoU on {rows[0].judged} photos of other scenes; {plan.name}")
    print(f"{'photos':>8}{'from scratch':>18}{'after renders':>18}{'gain':>8}")
    for n in sorted({row.photos for row in rows}):
        gain = mean_of(rows, n, "renders") - mean_of(rows, n, "scratch")
        gain_text = "-" if math.isnan(gain) else f"{gain:+.3f}"
        print(f"{n:>8}{spread_text(rows, n, 'scratch'):>18}{spread_text(rows, n, 'renders'):>18}{gain_text:>8}")


def main(photos: str, weights: str, out: str, numbers: str = "0 10 25 50 100 200 400", images: str = "8000",
         size: str = "128", seeds: str = "1", mapping: str = "nyuv2", only: str = "") -> None:
    plan = Plan(find_pairs(photos), weights, Path(out), int(images), size, mapping, only)
    plan.out.mkdir(parents=True, exist_ok=True)
    runs = wanted_runs([int(word) for word in numbers.split()], int(seeds))
    print_table(plan, run_missing(plan, runs))


if __name__ == "__main__":
    main(*sys.argv[1:])
