"""Is the fast path as good as the stock path? `python benchmarks/seeds.py DATA [SIZE] [EPOCHS]`

The same pairs, seeds and epochs, three times each. Stock is fastai as its tutorials write it (see train.py); ours is
`seg_learner` with everything on. Both are judged in float32 by the same confusion matrix.
"""
import statistics
import sys
import time

from fastai.callback.training import GradientClip
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.transforms import IndexSplitter, IntToFloatTensor, Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import Resize, aug_transforms, resnet34, unet_learner

from nbs_lib.dataloaders import OpenImage, OpenMask, seg_dataloaders
from nbs_lib.datasets import SegData, channel_stats, split_pairs
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import discriminative_rates, fit, seg_learner, valid_matrix
from nbs_lib.metrics import scores
from nbs_lib.train import set_seed

BATCH_SIZE, LR, SEEDS = 16, 1e-3, range(3)


def stock_learner(data: SegData, size: int, stats) -> Learner:
    "fastai as its tutorials write it."
    images = TransformBlock(OpenImage(), batch_tfms=IntToFloatTensor())
    masks = TransformBlock(OpenMask(data.labels), batch_tfms=IntToFloatTensor())
    augmentation = aug_transforms(max_rotate=5.0, max_warp=0.1)
    block = DataBlock((images, masks), splitter=IndexSplitter(split_pairs(data)[1]),
                      item_tfms=Resize((size, size), method="squish"),
                      batch_tfms=[*augmentation, Normalize.from_stats(*stats)])
    dls = block.dataloaders(data.pairs, bs=BATCH_SIZE, num_workers=0)
    dls.labels, dls.size, dls.stats = data.labels, (size, size), stats
    loss = CrossEntropyLossFlat(axis=1, ignore_index=255)
    return unet_learner(dls, resnet34, n_out=data.labels.n_classes, pretrained=False, loss_func=loss,
                        cbs=GradientClip(1.0))


def train_stock(data: SegData, size: int, stats, epochs: int) -> Learner:
    learn = stock_learner(data, size, stats)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, discriminative_rates(LR))
    return learn


def train_ours(data: SegData, size: int, stats, epochs: int) -> Learner:
    learn = seg_learner(seg_dataloaders(data, size, BATCH_SIZE, stats=stats))
    with learn.no_bar(), learn.no_logging():
        fit(learn, epochs, discriminative_rates(LR))
    return learn


def main(folder: str, size: str = "64", epochs: str = "3") -> None:
    data = find_pairs(folder)
    train, _ = split_pairs(data)
    stats = channel_stats([data.pairs[i].image for i in train])
    results = {"stock": [], "ours": []}
    for seed in SEEDS:
        for name, run in (("stock", train_stock), ("ours", train_ours)):
            set_seed(seed)
            start = time.perf_counter()
            learn = run(data, int(size), stats, int(epochs))
            seconds = time.perf_counter() - start
            dice = scores(valid_matrix(learn))["dice"]
            results[name].append((dice, seconds))
            print(f"seed {seed}  {name:6} Dice {dice:.4f}  {seconds:.0f} s", flush=True)
    for name, runs in results.items():
        dice, seconds = zip(*runs, strict=True)
        print(f"{name:6} Dice {statistics.mean(dice):.4f} ± {statistics.stdev(dice):.4f}, "
              f"{statistics.mean(seconds):.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
