"""Is the fast path as good as the stock path? `python benchmarks/seeds.py DATA [SIZE] [EPOCHS]`: the same pairs, seeds and epochs, three times each.

Stock is fastai as its tutorials write it (see train.py); ours is `seg_learner` with everything on. Both are judged in float32 by the same confusion matrix.
"""
import statistics, sys, time

import torch
from fastai.callback.training import GradientClip
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.transforms import IndexSplitter, IntToFloatTensor, Normalize
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import Resize, aug_transforms, resnet34, unet_learner

from nbs_lib.dataloaders import OpenImage, OpenMask, seg_dataloaders
from nbs_lib.datasets import channel_stats, split_pairs
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import fit, layer_rates
from nbs_lib.learner import seg_learner, valid_matrix
from nbs_lib.metrics import scores
from nbs_lib.train import set_seed

BS, LR = 16, 1e-3


def stock(data, size, stats):
    block = DataBlock((TransformBlock(OpenImage(), batch_tfms=IntToFloatTensor()), TransformBlock(OpenMask(data.labels), batch_tfms=IntToFloatTensor())), splitter=IndexSplitter(split_pairs(data)[1]),
                      item_tfms=Resize((size, size), method='squish'), batch_tfms=[*aug_transforms(max_rotate=5., max_warp=.1), Normalize.from_stats(*stats)])
    dls = block.dataloaders(data.pairs, bs=BS, num_workers=0)
    dls.labels, dls.size, dls.stats = data.labels, (size, size), stats
    return unet_learner(dls, resnet34, n_out=data.labels.n_classes, pretrained=False, loss_func=CrossEntropyLossFlat(axis=1, ignore_index=255), cbs=GradientClip(1.))


def main(data, size=64, epochs=3):
    data, size, epochs = find_pairs(data), int(size), int(epochs)
    stats = channel_stats([data.pairs[i].image for i in split_pairs(data)[0]])
    table = {'stock': [], 'ours': []}
    for seed in range(3):
        for name, rows in table.items():
            set_seed(seed)
            learn = stock(data, size, stats) if name == 'stock' else seg_learner(seg_dataloaders(data, size, BS, stats=stats))
            start = time.perf_counter()
            with learn.no_bar(), learn.no_logging():
                if name == 'stock': learn.fit_one_cycle(epochs, layer_rates(LR))
                else: fit(learn, epochs, layer_rates(LR))
            rows.append((scores(valid_matrix(learn))['dice'], time.perf_counter() - start))
            print(f"seed {seed}  {name:6} Dice {rows[-1][0]:.4f}  {rows[-1][1]:.0f} s", flush=True)
    for name, rows in table.items(): print(f"{name:6} Dice {statistics.mean(d for d, _ in rows):.4f} ± {statistics.stdev(d for d, _ in rows):.4f}, {statistics.mean(s for _, s in rows):.0f} s")


if __name__ == '__main__': main(*sys.argv[1:])
