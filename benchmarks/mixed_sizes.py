"""Photos at their own shapes against photos squeezed to squares, after equal minutes of training from scratch.

    python benchmarks/mixed_sizes.py DATA ["mixed:144 square:96 square:128"] [MINUTES] [ARCH] [SEEDS]

DATA is a data set whose images differ in size, such as VOC. `mixed:144` shrinks each photo until its longest side has
144 pixels and fills batches of like shapes up to a multiple of 32; `square:128` squeezes each one to 128×128. Loss,
augmentation, rates and batch are the same. Decoding is part of the time: squares are decoded once, mixed sizes in
every epoch. All are judged on the validation photos at their own sizes; masks are enlarged by nearest neighbor.
"""
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from PIL import Image

from nbs_lib.augment import Augment
from nbs_lib.callbacks import EMA, ValidateEvery
from nbs_lib.check import assert_trainable
from nbs_lib.dataloaders import normalize, seg_dataloaders
from nbs_lib.datasets import SegData, channel_stats, split_pairs
from nbs_lib.experiments.mixed_sizes import native_dataloaders, predict_native
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import discriminative_rates, epochs_in, fit, seg_learner
from nbs_lib.losses import class_weights
from nbs_lib.metrics import confusion_matrix, scores
from nbs_lib.tools.night import RECIPE
from nbs_lib.train import set_seed

AUGMENT = Augment(max_rotate=5, max_zoom=1.5, max_lighting=0.3, max_shift=1, photometric=0.2)
BATCH_SIZE = 8


@dataclass(frozen=True)
class Way:
    "How photos come to the network."
    kind: str  # mixed or square
    side: int  # longest side, or side of the square, in pixels

    def loaders(self, known: "Known") -> DataLoaders:
        "Batches of this kind; all ways and seeds hold out the same photos."
        options = dict(stats=known.stats, augment=AUGMENT)
        if self.kind == "mixed":
            return native_dataloaders(known.data, BATCH_SIZE, self.side, **options)
        return seg_dataloaders(known.data, self.side, BATCH_SIZE, **options)

    def predict(self, learn: Learner, image: Image.Image) -> np.ndarray:
        "uint8 mask (height, width) at the photo's own size."
        if self.kind == "mixed":
            return predict_native(learn, image, self.side)
        return predict_squeezed(learn, image, self.side)


@dataclass(frozen=True)
class Known:
    "What is found out once, and is the same for all trainings."
    data: SegData
    held_out: list[int]  # indices of the photos to judge on
    stats: tuple         # (mean, std) of the others
    weights: np.ndarray  # of the classes in the loss


def find_out(data: SegData) -> Known:
    "Check the masks and measure the photos."
    counts = assert_trainable(data)
    learn_on, held_out = split_pairs(data)
    stats = channel_stats([data.pairs[i].image for i in learn_on])
    return Known(data, held_out, stats, class_weights(counts, data.labels))


def parse_way(text: str) -> Way:
    "The way that `mixed:144` or `square:128` names."
    kind, _, side = text.partition(":")
    if kind not in ("mixed", "square") or not side.isdigit():
        sys.exit(f"{text!r} is no way; give mixed:PIXELS or square:PIXELS")
    return Way(kind, int(side))


def predict_squeezed(learn: Learner, image: Image.Image, side: int) -> np.ndarray:
    "uint8 mask (height, width) at the photo's own size, of a network that sees squares."
    pixels = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
    x = normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, learn.dls.stats)
    with torch.inference_mode():
        mask = learn.model.eval()(x.to(learn.dls.device)).argmax(1)[0]
    return np.array(Image.fromarray(mask.byte().cpu().numpy()).resize(image.size, Image.Resampling.NEAREST))


def train(way: Way, known: Known, minutes: float, arch: str, seed: int) -> Learner:
    "A network that was trained for so many minutes."
    set_seed(seed)
    learn = seg_learner(way.loaders(known), arch, loss=RECIPE["loss"], class_weights=known.weights)
    with learn.no_bar(), learn.no_logging():
        epochs = epochs_in(learn, minutes, valid_every=0)
        fit(learn, epochs, discriminative_rates(RECIPE["lr"]), cbs=[EMA(), ValidateEvery(0)])
    return learn


def judge(predict: Callable[[Image.Image], np.ndarray], data: SegData, indices: list[int]) -> float:
    "Mean IoU on these photos, at their own sizes."
    n = data.labels.n_classes
    matrix = np.zeros((n, n), np.int64)
    for i in indices:
        image, mask = data.read(i)
        matrix += confusion_matrix(predict(image), mask, n)
    return scores(matrix, data.labels.background)["miou"]


def run(way: Way, known: Known, minutes: float, arch: str, seeds: int) -> None:
    "Train and judge one way with each seed, and print a line for each."
    found = []
    for seed in range(seeds):
        start = time.perf_counter()
        learn = train(way, known, minutes, arch, seed)
        taken = (time.perf_counter() - start) / 60
        found.append(judge(partial(way.predict, learn), known.data, known.held_out))
        print(f"{way.kind} {way.side} px, seed {seed}: mean IoU {found[-1]:.4f} after {taken:.1f} minutes", flush=True)
    if seeds > 1:
        print(f"{way.kind} {way.side} px: {statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}", flush=True)


def main(folder: str, ways: str = "mixed:144 square:96 square:128", minutes: str = "10",
         arch: str = "unet:tu-resnet10t", seeds: str = "1") -> None:
    wanted = [parse_way(text) for text in ways.split()]
    known = find_out(find_pairs(folder))
    print(f"{len(known.data)} pairs, {arch}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for way in wanted:
        run(way, known, float(minutes), arch, int(seeds))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
