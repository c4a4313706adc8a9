"""What each part of the recipe brings, over several seeds.

    python benchmarks/ablation.py DATA OUT [SIZE] [BUDGET] [SEEDS] ["LEVER; LEVER"]

A lever is one change. The first ones add up, from cross-entropy alone to the recipe; each of the others changes one
thing of the recipe; the first row is fastai as its tutorials write it. BUDGET is the same for all: minutes, like 3m,
or images, like 30000, which each epoch rounds down to whole batches. All runs share data and split. Each run adds a
row to OUT/ablation.csv, and rows that are there are not run again; other data needs another OUT. Seeds are the outer
loop, so that a machine that grows slower does so for all levers.
"""
import math
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import identity, keep_settings, spread
from fastai.data.load import DataLoader
from fastai.learner import Learner
from rows import read_rows
from stock import LR, stock_learner

from nbs_lib.callbacks import write_csv
from nbs_lib.datasets import SegData, channel_stats, split_pairs
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import epochs_in, valid_matrix
from nbs_lib.metrics import scores
from nbs_lib.tools.night import RECIPE, trained_figures
from nbs_lib.train import Step, TrainSettings, progressive_resizing, set_seed, train_model

STOCK, HALF_FIRST = "stock fastai, resnet34", "half the size first"
QUARTERS = 4  # of the budget; `HALF_FIRST` spends the first of them at half the size
PLAIN = RECIPE | dict(arch="unet:tu-resnet10t", loss="cross_entropy", weight_classes=0.0, ema_decay=0.0, bs=32)
ADDED = {  # each keeps the ones before
    "cross-entropy, batch 32": {},
    "+ weighted classes": dict(weight_classes=0.5),
    "+ half a Dice loss": dict(loss="cross_entropy+0.5*dice"),
    "+ averaged weights": dict(ema_decay=0.998),
    "+ batch 16 = the recipe": dict(bs=16),
}
CHANGED = {  # each is the recipe, but for this
    HALF_FIRST: {},
    "learning rate 1e-3": dict(lr=1e-3),
    "learning rate 4e-3": dict(lr=4e-3),
    "no augmentation": dict(no_aug=True),
    "mirrored and relit only": dict(max_rotate=0.0, max_zoom=1.0),
    "rare labels more often": dict(rare_sampling=0.5),
    "zooms to 2, anywhere": dict(max_zoom=2.0, max_shift=1.0, cache_size="128"),
    "narrow:resnet34": dict(arch="narrow:resnet34"),
    "unet:resnet18": dict(arch="unet:resnet18"),
    "unet:resnet34": dict(arch="unet:resnet34"),
    "light:resnet34": dict(arch="light:resnet34"),
    "resnet34": dict(arch="resnet34"),
}


@dataclass(frozen=True)
class Plan:
    "What is the same for all runs."
    data: SegData
    size: int = 64         # pixels
    minutes: float = 0.0   # of training, or:
    images: int = 0        # seen in training

    @property
    def name(self) -> str:
        "As in the table: runs of another plan are other rows."
        budget = f"{self.minutes:g} minutes" if self.minutes else f"{self.images} images"
        return f"{self.size} px, {budget}, {len(self.data)} pairs"

    @property
    def training_images(self) -> int:
        "How many there are."
        return len(split_pairs(self.data)[0])

    def epochs(self, parts: int = 1) -> int:
        "How many epochs see the images, where they are to fall into so many equal parts."
        return parts * max(1, math.ceil(self.images / (parts * self.training_images)))

    def epoch_size(self, epochs: int) -> int:
        "The images of each of so many epochs, at least 1."
        return max(1, self.images // epochs)


@dataclass(frozen=True)
class Row:
    "One run."
    lever: str
    plan: str
    seed: int
    dice: float
    foreground_accuracy: float
    seconds: float  # reading, training and validation


def with_fixed_split(data: SegData) -> SegData:
    "The same data, whose split is written down: the seed of a run would draw another."
    train = set(split_pairs(data)[0])
    pairs = [replace(pair, split="train" if i in train else "valid") for i, pair in enumerate(data.pairs)]
    return replace(data, pairs=tuple(pairs))


def levers() -> dict[str, dict]:
    "{lever: its settings}, in the order of the table; `STOCK` has none."
    found, settings = {STOCK: {}}, PLAIN
    for name, change in ADDED.items():
        settings = settings | change
        found[name] = settings
    for name, change in CHANGED.items():
        found[name] = settings | change
    return found


def limit_epoch(loader: DataLoader, images: int) -> None:
    "Let each epoch of a loader of fastai show so many images, drawn anew from all."
    everything = range(loader.n)
    loader.shuffle_fn = lambda idxs: loader.rng.sample(everything, len(idxs))
    loader.n = images
    loader.bs = min(loader.bs, images)


def stock_epochs(plan: Plan, learn: Learner) -> int:
    "How many epochs stock fastai trains; for a budget in images their length is set, too."
    if plan.minutes:
        return epochs_in(learn, plan.minutes)
    epochs = plan.epochs()
    limit_epoch(learn.dls.train, plan.epoch_size(epochs))
    return epochs


def train_stock(plan: Plan, seed: int) -> dict[str, float]:
    "Scores of stock fastai."
    set_seed(seed)
    train, _ = split_pairs(plan.data)
    stats = channel_stats([plan.data.pairs[i].image for i in train])
    learn = stock_learner(plan.data, plan.size, stats)
    epochs = stock_epochs(plan, learn)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, LR)
    return scores(valid_matrix(learn))


def length(plan: Plan, parts: int = 1) -> dict:
    "The settings that say how long to train, in so many equal parts."
    if plan.minutes:
        return dict(minutes=plan.minutes)
    epochs = plan.epochs(parts)
    return dict(epochs=epochs, epoch_size=plan.epoch_size(epochs))


def half_first(plan: Plan) -> list[Step]:
    "A quarter of the budget at half the size, the rest at the whole size."
    half = plan.size // 2
    if plan.minutes:
        quarter = plan.minutes / QUARTERS
        return [Step(half, minutes=quarter), Step(plan.size, minutes=plan.minutes - quarter)]
    epochs = plan.epochs(QUARTERS)
    quarter = epochs // QUARTERS
    return [Step(half, quarter), Step(plan.size, epochs - quarter)]


def train_ours(plan: Plan, lever: str, seed: int) -> dict[str, float]:
    "Scores of a training with a lever's settings."
    parts = QUARTERS if lever == HALF_FIRST else 1
    with tempfile.TemporaryDirectory() as out:
        settings = TrainSettings(size=str(plan.size), out=out, seed=seed, **length(plan, parts), **levers()[lever])
        if lever == HALF_FIRST:
            progressive_resizing(plan.data, half_first(plan), settings, bar=False)
        else:
            train_model(plan.data, settings, bar=False)
        return trained_figures(settings)


def run(plan: Plan, lever: str, seed: int) -> Row:
    "Train and score."
    start = time.perf_counter()
    found = train_stock(plan, seed) if lever == STOCK else train_ours(plan, lever, seed)
    seconds = time.perf_counter() - start
    return Row(lever, plan.name, seed, found["dice"], found["foreground_accuracy"], seconds)


def print_table(rows: list[Row], plan: Plan, names: list[str]) -> None:
    "A line a lever: the mean over its seeds."
    print(f"\n{plan.name}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'lever':26}{'seeds':>6}  {'Dice':17}{'foreground accuracy':21}{'seconds':>8}")
    for name in names:
        runs = [row for row in rows if (row.lever, row.plan) == (name, plan.name)]
        if runs:
            dice, accuracy = spread([row.dice for row in runs]), spread([row.foreground_accuracy for row in runs])
            seconds = statistics.mean([row.seconds for row in runs])
            print(f"{name:26}{len(runs):6}  {dice:17}{accuracy:21}{seconds:8.0f}", flush=True)


def chosen(text: str) -> list[str]:
    "Names of the levers to run."
    names = [name.strip() for name in text.split(";") if name.strip()] or list(levers())
    for name in names:
        if name not in levers():
            sys.exit(f"there is no lever {name!r}; take some of: {'; '.join(levers())}")
    return names


def main(folder: str, out: str, size: str = "64", budget: str = "3m", seeds: str = "3", wanted: str = "") -> None:
    budgets = dict(minutes=float(budget[:-1])) if budget.endswith("m") else dict(images=int(budget))
    plan = Plan(with_fixed_split(find_pairs(folder)), int(size), **budgets)
    path, names = Path(out) / "ablation.csv", chosen(wanted)
    keep_settings(out, identity(plan.data, *split_pairs(plan.data)), path.name)
    rows = read_rows(path, Row)
    done = {(row.lever, row.plan, row.seed) for row in rows}
    for seed in range(int(seeds)):
        for name in names:
            if (name, plan.name, seed) not in done:
                rows.append(run(plan, name, seed))
                write_csv(path, [asdict(row) for row in rows])
                print_table(rows, plan, names)
    print_table(rows, plan, names)


if __name__ == "__main__":
    main(*sys.argv[1:])
