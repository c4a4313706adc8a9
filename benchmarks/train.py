"""Training speed at one size, each way against stock fastai in the same run.

    python benchmarks/train.py [DATA] [SIZE]

Stock is fastai as its tutorials have it (see stock.py). The others are `seg_learner`. What is timed is batches as `fit`
runs them, with everything in them; runs take turns, and the median of the rounds counts.
"""
import statistics
import sys
import time
from collections.abc import Callable

import torch
from fastai.callback.core import Callback, CancelTrainException, CancelValidException
from fastai.learner import Learner
from stock import stock_learner

from nbs_lib.callbacks import GradientClip, TerminateOnNaN
from nbs_lib.dataloaders import seg_dataloaders
from nbs_lib.datasets import SegData
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import seg_learner

DATA, SIZE = "Assets/Data~", 64
BATCHES, BATCH_SIZE, ROUNDS = 5, 32, 3
STATS = [0.5] * 3, [0.25] * 3
STOCK = "stock fastai, float32"


def our_learner(data: SegData, size: int, **settings) -> Learner:
    return seg_learner(seg_dataloaders(data, size, BATCH_SIZE, stats=STATS), **settings)


class Clock(Callback):
    "Times a few batches of training, and the part of it that passes between batches."
    order = 1000

    def before_train(self):
        self.data_seconds = 0.0
        self.start = self.last = time.perf_counter()

    def before_batch(self):
        self.data_seconds += time.perf_counter() - self.last

    def after_batch(self):
        self.last = time.perf_counter()
        if self.iter + 1 >= BATCHES:
            raise CancelTrainException()

    def after_cancel_train(self):
        self.seconds = time.perf_counter() - self.start

    def before_validate(self):
        raise CancelValidException()


def one_round(learn: Learner) -> tuple[float, float]:
    "Images a second with everything in them, and the share of the time that the data took."
    clock = Clock()
    callbacks = [clock]
    if hasattr(learn, "precision"):
        callbacks += [GradientClip(), TerminateOnNaN()]  # as `nbs_lib.learner.fit` does
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=callbacks)
    return BATCHES * BATCH_SIZE / clock.seconds, clock.data_seconds / clock.seconds


def learners(data: SegData, size: int) -> dict[str, Learner]:
    "What is compared."
    ways: dict[str, Callable[[], Learner]] = {
        STOCK: lambda: stock_learner(data, size, STATS, BATCH_SIZE),
        "ours, float32": lambda: our_learner(data, size, bf16=False),
        "ours (default)": lambda: our_learner(data, size),
    }
    found = {name: make() for name, make in ways.items()}
    for arch in ("narrow:resnet34", "light:resnet34", "unet:resnet34", "segformer:mit_b0"):
        found[arch] = our_learner(data, size, arch=arch)
    return found


def main(folder: str = DATA, size: str = str(SIZE)) -> None:
    compared = learners(find_pairs(folder), int(size))
    precision = compared["ours (default)"].precision
    print(f"{size} px, {BATCH_SIZE} images a batch, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"{precision} by default")
    for learn in compared.values():
        one_round(learn)  # warm up
    results = {name: [] for name in compared}
    for _ in range(ROUNDS):
        for name, learn in compared.items():
            results[name].append(one_round(learn))
    stock_speed = statistics.median(speed for speed, _ in results[STOCK])
    for name, rounds in results.items():
        speed = statistics.median(speed for speed, _ in rounds)
        data_share = statistics.median(share for _, share in rounds)
        print(f"{name:24} {speed:7.1f} images/s  {speed / stock_speed:5.2f}×   data {data_share:6.1%} of the time")


if __name__ == "__main__":
    main(*sys.argv[1:])
