"""Minutes to a Dice: stock fastai and our recipe, with the same rooms, split and threads.

    python benchmarks/time_to_quality.py DATA [SIZE] ["STOCK MINUTES"] ["OUR MINUTES"] [ARCH]

Stock is fastai as its tutorials write it: `unet_learner` with resnet34, `fit_one_cycle`, from scratch (see stock.py).
Ours is the recipe of `seg_night`: a quarter of the time at half the size, the rest at SIZE. A cycle is as long as it
was planned, so several lengths can be given for each, and the earliest moment in any cycle counts. Both are scored by
the same confusion matrix after each epoch; only Dice at SIZE counts. The time is everything since the start of a
cycle, decoding included, without validation. A cycle that takes a fifth longer than planned is ended.
"""
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from fastai.callback.core import Callback, CancelFitException
from stock import LR, stock_learner

from nbs_lib.datasets import SegData, channel_stats, split_pairs
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import epochs_in, seg_metrics
from nbs_lib.tools.night import RECIPE, every_learner
from nbs_lib.train import Step, TrainSettings, progressive_resizing, set_seed

TARGETS = (0.30, 0.35)
SMALLEST = 32  # pixels
STOCK, OURS = "stock fastai, unet_learner resnet34", "ours, {arch}"


class Moment(NamedTuple):
    "A score and when it was reached."
    minutes: float
    dice: float


class Watch(Callback):
    "Dice after each epoch at `size` pixels, and the time until then; ends the training when the time is over."
    order = 90  # after the checkpoint

    def __init__(self, size: int, limit: float):
        self.size, self.limit, self.moments = size, limit * 60, []
        self.start, self.validation = time.perf_counter(), 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self.start - self.validation

    def before_validate(self):
        self.began = time.perf_counter()

    def after_validate(self):
        self.validation += time.perf_counter() - self.began

    def is_watched(self) -> bool:
        "Is this an epoch at the size, and none that is only there to measure the time?"
        if hasattr(self.learn, "batch_timer"):
            return False
        names = self.recorder.metric_names
        return tuple(self.dls.size) == (self.size, self.size) and len(self.recorder.values[-1]) == len(names) - 2

    def after_epoch(self):
        if self.recorder.values and self.is_watched():
            dice = float(self.recorder.values[-1][-1])
            self.moments.append(Moment(self.seconds() / 60, dice))
            print(f"  {self.seconds() / 60:6.2f} minutes  Dice {dice:.4f}", flush=True)
        if self.moments and self.seconds() > 1.2 * self.limit:
            raise CancelFitException


def watch_stock(data: SegData, size: int, minutes: float, arch: str) -> list[Moment]:
    "One cycle of stock fastai."
    set_seed(0)
    train, _ = split_pairs(data)
    stats = channel_stats([data.pairs[i].image for i in train])
    learn = stock_learner(data, size, stats)
    learn.metrics = seg_metrics(data.labels)
    epochs = epochs_in(learn, minutes)  # before the watch starts
    watch = Watch(size, minutes)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, LR, cbs=watch)
    return watch.moments


def our_steps(size: int, minutes: float) -> list[Step]:
    "A quarter of the time at half the size, where that is not too small."
    half = size // 64 * 32
    if half < SMALLEST:
        return [Step(size, minutes=minutes)]
    return [Step(half, minutes=minutes / 4), Step(size, minutes=minutes * 3 / 4)]


def watch_ours(data: SegData, size: int, minutes: float, arch: str) -> list[Moment]:
    "One cycle of our recipe at each size."
    watch = Watch(size, minutes)
    with tempfile.TemporaryDirectory() as folder, every_learner(watch):
        settings = TrainSettings(arch=arch, out=folder, bs=max(2, 2048 // size), **RECIPE)
        progressive_resizing(data, our_steps(size, minutes), settings, bar=False)
    return watch.moments


@dataclass(frozen=True)
class Way:
    "One of the two that are compared."

    name: str
    watch: Callable[[SegData, int, float, str], list[Moment]]
    cycles: str  # minutes of each cycle to try, separated by spaces


def earliest(moments: list[Moment], target: float) -> float:
    "Minutes until the Dice was reached; infinite where it was not."
    return min((moment.minutes for moment in moments if moment.dice >= target), default=math.inf)


def row(name: str, target: float, minutes: float, limit: str) -> str:
    "A line of the result."
    reached = f"{minutes:.2f} minutes" if math.isfinite(minutes) else f"not reached in {limit} minutes"
    return f"Dice {target:.2f}  {name:40} {reached}"


def run_cycles(way: Way, data: SegData, size: int, arch: str) -> list[Moment]:
    "All cycles of one way, one after another, each from the beginning."
    moments: list[Moment] = []
    for minutes in way.cycles.split():
        print(f"{way.name}: one cycle of {minutes} minutes", flush=True)
        moments += way.watch(data, size, float(minutes), arch)
    return moments


def factor_line(stock: list[Moment], ours: list[Moment], target: float) -> str:
    "How many times faster ours was, or at least was, where stock did not reach the Dice; empty where ours did not."
    our_minutes = earliest(ours, target)
    if not math.isfinite(our_minutes):
        return ""
    stock_minutes = earliest(stock, target)
    if math.isfinite(stock_minutes):
        return f"Dice {target:.2f}  ours is {stock_minutes / our_minutes:.1f} times as fast"
    last = max(moment.minutes for moment in stock)
    best = max(moment.dice for moment in stock)
    return (f"Dice {target:.2f}  ours is more than {last / our_minutes:.1f} times as fast: "
            f"stock had {best:.3f} at most in {last:.1f} minutes")


def print_target(target: float, stock: tuple[Way, list[Moment]], ours: tuple[Way, list[Moment]]) -> None:
    "When each way reached the Dice, and how many times faster ours was."
    for way, moments in (stock, ours):
        print(row(way.name, target, earliest(moments, target), way.cycles.replace(" ", " or ")))
    line = factor_line(stock[1], ours[1], target)
    if line:
        print(line)


def main(folder: str, size: str = "128", stock: str = "20 60", ours: str = "4 12", arch: str = "unet:resnet18") -> None:
    "Run both ways, and print when each reached what."
    data = find_pairs(folder)
    print(f"{len(data)} pairs, {size} px, {torch.get_num_threads()} threads, torch {torch.__version__}")
    ways = Way(STOCK, watch_stock, stock), Way(OURS.format(arch=arch), watch_ours, ours)
    found = [(way, run_cycles(way, data, int(size), arch)) for way in ways]
    for target in TARGETS:
        print_target(target, *found)


if __name__ == "__main__":
    main(*sys.argv[1:])
