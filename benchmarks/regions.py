"""Hierarchies of regions scored as BSDS500 does: `python benchmarks/regions.py BSDS500 OUT [STEPS] [METHOD]...`

All methods, or those that are named. W-Net is trained for STEPS (1500) on the training images first, or goes on from
its checkpoint in OUT; `W-Net:1` is one with seed 1. Thresholds are chosen on the training images. What regions are
joined by is worked out once an image and is the same for all methods, except for the classes of W-Net.

Then all images are judged, each at the thresholds of the other four fifths: the mean and its standard error, and by
how much a method differs from the first one on the same images. W-Net has seen the training images, without labels.
"""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import sem

from nbs_lib.experiments.cues import Cues, graph_regions, image_cues, join_by_cues, watershed_regions
from nbs_lib.experiments.hierarchy import (
    Hierarchy,
    best_thresholds,
    common_thresholds,
    ods,
    ois,
    scores_of_folds,
    set_scores,
)
from nbs_lib.experiments.one_image import cluster_responses, fit_clusters
from nbs_lib.experiments.regions import kmeans_regions, read_annotators, read_bsds, resize_regions, slic_regions
from nbs_lib.experiments.wnet import WNet, mean_classes, resized, train_wnet
from nbs_lib.masks import read_image

SIZE = 240  # shorter side at which images are cut into regions
CLUSTERED = 64  # shorter side at which one network is fitted to one image
VIEWS = (96, 160)  # shorter sides at which W-Net looks at them
NETWORK = dict(n_classes=16, width=16, depth=3, dropout=0.1, stride=2)
TRAINING = dict(size=96, bs=8, lr=3e-3)
W_NET = "W-Net"


def by_image(segment, image: Image.Image, cues: Cues) -> Hierarchy:
    "The finest regions of a method that learns nothing, joined"
    return join_by_cues(cues, segment(image))


def by_boundaries(image: Image.Image, cues: Cues) -> Hierarchy:
    "The basins of the image's own boundaries, joined"
    return join_by_cues(cues, watershed_regions(cues.strength))


def cluster_regions(image: Image.Image) -> np.ndarray:
    "The regions of one small network, fitted to this image alone, made smaller first"
    small = resized(image, CLUSTERED)
    classes = cluster_responses(fit_clusters(small), small).argmax(0)
    return resize_regions(classes, (image.height, image.width))


def by_wnet(model: WNet, image: Image.Image, cues: Cues) -> Hierarchy:
    "The basins of the image's own boundaries, joined by the classes of W-Net, too"
    return join_by_cues(cues, watershed_regions(cues.strength), mean_classes(model, image, VIEWS))


def trained_wnet(files: list[Path], out: Path, steps: int, seed: int) -> WNet:
    "W-Net after so many steps on these images; goes on where an interrupted run stopped"
    torch.manual_seed(seed)
    model = WNet(**NETWORK).to(memory_format=torch.channels_last)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / f"wnet_{steps}_{seed}.checkpoint"
    start = time.perf_counter()
    history = train_wnet(model, files, steps, **TRAINING, seed=seed, checkpoint=checkpoint, resume=True)
    seconds = time.perf_counter() - start
    last = history[-1]
    losses = f"cut {last['ncut']:.3f}, reconstruction {last['mse']:.4f}"
    print(f"{W_NET}, seed {seed}: {losses}, {seconds:.0f} s", flush=True)
    return model


def scores_line(scores: np.ndarray, best: np.ndarray) -> str:
    "ODS and OIS, each covering, PRI and VI"
    numbers = [*ods(scores, best).values(), *ois(scores).values()]
    return "  ".join(f"{number:.3f}" for number in numbers)


def join_all(methods: dict, pairs: list) -> dict[str, list[Hierarchy]]:
    "The hierarchies of these images by each method"
    trees = {name: [] for name in methods}
    for pair in pairs:
        image = resized(read_image(pair.image), SIZE)
        cues = image_cues(image)
        for name, method in methods.items():
            trees[name].append(method(image, cues))
    return trees


def score(name: str, trees: dict[str, list[Hierarchy]], annotators: dict[str, list]) -> np.ndarray:
    "Print a line for the training images and one for the others; returns the scores, (images, thresholds, 3)"
    thresholds = common_thresholds(trees["train"])
    scores = {side: set_scores(trees[side], annotators[side], thresholds) for side in trees}
    best = best_thresholds(scores["train"])
    for side in scores:
        print(f"{name:12} {side:6} {scores_line(scores[side], best)}", flush=True)
    return np.concatenate(list(scores.values()))


def with_error(values: np.ndarray) -> str:
    "Mean and standard error of covering, PRI and VI, (images, 3)"
    columns = zip(values.mean(0), sem(values), strict=True)
    return "  ".join(f"{mean:6.3f} ± {error:.3f}" for mean, error in columns)


def print_folds(judged: dict[str, np.ndarray]) -> None:
    "A line a method: its scores over all images, and by how much they differ from the first method's"
    first, *others = judged
    images = len(judged[first])
    print(f"\n{images} images in folds: covering, PRI, VI\n{first:12} {with_error(judged[first])}")
    for name in others:
        print(f"{name:12} {with_error(judged[name])}   against {first}: {with_error(judged[name] - judged[first])}")


METHODS = {
    "k-means": partial(by_image, partial(kmeans_regions, k=16)),
    "SLIC": partial(by_image, partial(slic_regions, n=400)),
    "graph-based": partial(by_image, graph_regions),
    "one image": partial(by_image, cluster_regions),
    "boundaries": by_boundaries,
}  # those that need no training


def seed_of(name: str) -> int | None:
    "The seed in `W-Net:1`, 0 in `W-Net`; None in any other name"
    method, _, seed = name.partition(":")
    if method != W_NET or not (seed or "0").isdigit():
        return None
    return int(seed or 0)


def check_methods(names: tuple[str, ...]) -> None:
    "End with a sentence if there is no method of such a name"
    for name in names:
        if name not in METHODS and seed_of(name) is None:
            sys.exit(f"{name!r} is no method; give some of {', '.join(METHODS)}, {W_NET} and {W_NET}:SEED")


def wanted_methods(names: tuple[str, ...], files: list[Path], out: Path, steps: int) -> dict:
    "The methods of these names, or all; W-Net is trained on the files where it is wanted"
    check_methods(names)
    wanted = {}
    for name in names or (*METHODS, W_NET):
        if name in METHODS:
            wanted[name] = METHODS[name]
        else:
            wanted[name] = partial(by_wnet, trained_wnet(files, out, steps, seed_of(name)))
    return wanted


def main(root: str, out: str, steps: str = "1500", *wanted: str) -> None:
    pairs = read_bsds(root)
    sides = {side: [pair for pair in pairs if pair.split == side] for side in ("train", "valid")}
    methods = wanted_methods(wanted, [pair.image for pair in sides["train"]], Path(out), int(steps))
    start = time.perf_counter()
    trees = {side: join_all(methods, chosen) for side, chosen in sides.items()}
    seconds = (time.perf_counter() - start) / len(pairs)
    print(f"{seconds:.1f} s an image for all methods\n{'':19} ODS: covering, PRI, VI;  OIS: covering, PRI, VI")
    annotators = {side: [read_annotators(pair.mask) for pair in chosen] for side, chosen in sides.items()}
    scores = {name: score(name, {side: trees[side][name] for side in sides}, annotators) for name in methods}
    print_folds({name: scores_of_folds(found) for name, found in scores.items()})


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
