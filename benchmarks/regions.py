"""Hierarchies of regions scored as BSDS500 does: `python benchmarks/regions.py BSDS500 OUT [STEPS] [METHOD]...`

All methods, or those that are named. W-Net is trained for STEPS (1500) on the training images first, or goes on from
its checkpoint in OUT. Thresholds are chosen on the training images.
"""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nbs_lib.experiments.cues import cue_hierarchy, graph_regions, half_disc_difference, watershed_regions
from nbs_lib.experiments.hierarchy import Hierarchy, best_thresholds, common_thresholds, ods, ois, set_scores
from nbs_lib.experiments.one_image import cluster_responses, fit_clusters
from nbs_lib.experiments.regions import kmeans_regions, read_annotators, read_bsds, resize_regions, slic_regions
from nbs_lib.experiments.wnet import WNet, mean_classes, resized, train_wnet
from nbs_lib.masks import read_image

SIZE = 160  # shorter side at which images are cut into regions
CLUSTERED = 64  # shorter side at which one network is fitted to one image
VIEWS = (96, 160)  # shorter sides at which W-Net looks at them
NETWORK = dict(n_classes=16, width=16, depth=3, dropout=0.1, stride=2)
TRAINING = dict(size=96, bs=8, lr=3e-3, seed=0)


def by_cues(segment, image: Image.Image) -> Hierarchy:
    "The finest regions of a method that learns nothing, joined"
    return cue_hierarchy(image, segment(image))


def cluster_regions(image: Image.Image) -> np.ndarray:
    "The regions of one small network, fitted to this image alone, made smaller first"
    small = resized(image, CLUSTERED)
    classes = cluster_responses(fit_clusters(small), small).argmax(0)
    return resize_regions(classes, (image.height, image.width))


def by_wnet(model: WNet, image: Image.Image) -> Hierarchy:
    "The classes of W-Net, and the basins of their boundaries"
    classes = mean_classes(model, image, VIEWS)
    learnt = half_disc_difference(np.moveaxis(classes, 0, -1), 4)
    return cue_hierarchy(image, watershed_regions(learnt), classes)


def trained_wnet(files: list[Path], out: Path, steps: int) -> WNet:
    "W-Net after so many steps on these images; goes on where an interrupted run stopped"
    torch.manual_seed(TRAINING["seed"])
    model = WNet(**NETWORK).to(memory_format=torch.channels_last)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    history = train_wnet(model, files, steps, **TRAINING, checkpoint=out / f"wnet_{steps}.checkpoint", resume=True)
    seconds = time.perf_counter() - start
    print(f"W-Net: cut {history[-1]['ncut']:.3f}, reconstruction {history[-1]['mse']:.4f}, {seconds:.0f} s", flush=True)
    return model


def scores_line(scores: np.ndarray, best: np.ndarray) -> str:
    "ODS and OIS, each covering, PRI and VI"
    numbers = [*ods(scores, best).values(), *ois(scores).values()]
    return "  ".join(f"{number:.3f}" for number in numbers)


def compare(name: str, method, sides: dict[str, list]) -> None:
    "Print a line for the training images and one for the others"
    start = time.perf_counter()
    trees = {side: [method(resized(read_image(pair.image), SIZE)) for pair in pairs] for side, pairs in sides.items()}
    seconds = (time.perf_counter() - start) / sum(map(len, sides.values()))
    thresholds = common_thresholds(trees["train"])
    best = None
    for side, pairs in sides.items():
        scores = set_scores(trees[side], [read_annotators(pair.mask) for pair in pairs], thresholds)
        best = best_thresholds(scores) if best is None else best
        print(f"{name:12} {side:6} {scores_line(scores, best)}  {seconds:.2f} s an image", flush=True)


def main(root: str, out: str, steps: str = "1500", *wanted: str) -> None:
    pairs = read_bsds(root)
    sides = {side: [pair for pair in pairs if pair.split == side] for side in ("train", "valid")}
    methods = {
        "k-means": partial(by_cues, partial(kmeans_regions, k=16)),
        "SLIC": partial(by_cues, partial(slic_regions, n=400)),
        "graph-based": partial(by_cues, graph_regions),
        "one image": partial(by_cues, cluster_regions),
    }
    if not wanted or "W-Net" in wanted:
        model = trained_wnet([pair.image for pair in sides["train"]], Path(out), int(steps))
        methods["W-Net"] = partial(by_wnet, model)
    print(f"{'':19} ODS: covering, PRI, VI;  OIS: covering, PRI, VI")
    for name in wanted or methods:
        compare(name, methods[name], sides)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
