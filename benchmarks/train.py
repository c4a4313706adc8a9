"""Training speed at one size, each way against stock fastai in the same run: `python benchmarks/train.py [DATA] [SIZE]`.

Stock is fastai as its tutorials write it: a DataBlock that decodes every file each epoch, `aug_transforms`, `unet_learner`, Adam, float32. The others are `seg_learner`. What is timed is
batches as `fit` runs them, with everything in them; runs take turns, the median of the rounds counts.
"""
import statistics, sys, time

import torch
from fastai.callback.core import Callback, CancelTrainException, CancelValidException
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.transforms import IndexSplitter, IntToFloatTensor, Normalize
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import Resize, aug_transforms, resnet34, unet_learner

from nbs_lib.dataloaders import OpenImage, OpenMask, seg_dataloaders
from nbs_lib.layouts import find_pairs
from nbs_lib.callbacks import Guard
from nbs_lib.learner import seg_learner

DATA, SIZE, BATCHES, BS, ROUNDS = (sys.argv[1:2] or ['Assets/Data~'])[0], int((sys.argv[2:3] or [64])[0]), 5, 32, 3
STATS = [.5]*3, [.25]*3


def stock(data):
    block = DataBlock((TransformBlock(OpenImage(), batch_tfms=IntToFloatTensor()), TransformBlock(OpenMask(data.labels), batch_tfms=IntToFloatTensor())), splitter=IndexSplitter([0]),
                      item_tfms=Resize((SIZE, SIZE), method='squish'), batch_tfms=[*aug_transforms(), Normalize.from_stats(*STATS)])
    dls = block.dataloaders(data.pairs, bs=BS, num_workers=0)
    return unet_learner(dls, resnet34, n_out=data.labels.n_classes, pretrained=False, loss_func=CrossEntropyLossFlat(axis=1, ignore_index=255))


def ours(data, **kw): return seg_learner(seg_dataloaders(data, SIZE, BS, stats=STATS), **kw)


class Clock(Callback):
    "Times a few batches of training as `fit` runs them, and the part of it that passes between batches"
    order = 1000
    def before_train(self): self.data, self.start, self.last = 0., time.perf_counter(), time.perf_counter()
    def before_batch(self): self.data += time.perf_counter() - self.last
    def after_batch(self):
        self.last = time.perf_counter()
        if self.iter + 1 >= BATCHES: raise CancelTrainException()
    def after_cancel_train(self): self.took = time.perf_counter() - self.start
    def before_validate(self): raise CancelValidException()


def one_round(learn) -> tuple[float, float]:
    "Pictures a second with everything in them, and the share of the time that the data took"
    clock = Clock()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=[clock, *([Guard()] if hasattr(learn, 'precision') else [])])  # as `nbs_lib.fit.fit` does
    return BATCHES*BS/clock.took, clock.data/clock.took


def main():
    data = find_pairs(DATA)
    ways = {'stock fastai, float32': stock(data), 'ours, float32': ours(data, bf16=False), 'ours (default)': ours(data), 'light:resnet34': ours(data, arch='light:resnet34'),
            'unet:resnet34': ours(data, arch='unet:resnet34'), 'segformer:mit_b0': ours(data, arch='segformer:mit_b0')}
    print(f"{SIZE} px, {BS} pictures a batch, {torch.get_num_threads()} threads, torch {torch.__version__}, {'bfloat16' if ways['ours (default)'].precision == 'bfloat16' else 'float32'} by default")
    results = {name: [] for name in ways}
    for learn in ways.values(): one_round(learn)  # warm up
    for _ in range(ROUNDS):
        for name, learn in ways.items(): results[name].append(one_round(learn))
    speed = {name: statistics.median(r[0] for r in rows) for name, rows in results.items()}
    for name, rows in results.items():
        print(f"{name:24} {speed[name]:7.1f} pictures/s  {speed[name]/speed['stock fastai, float32']:5.2f}×   data {statistics.median(r[1] for r in rows):6.1%} of the time")


if __name__ == '__main__': main()
