"""Training speed at one size, each way against stock fastai in the same run: `python benchmarks/train.py [DATA] [SIZE]`.

Stock is fastai as its tutorials write it: a DataBlock that decodes every file each epoch, `aug_transforms`, `unet_learner`, Adam, float32. The others are `seg_learner`. What is timed is
whole epochs with everything in them but validation; runs take turns, the median of the rounds counts.
"""
import statistics, sys, time

import torch
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.transforms import FuncSplitter, IntToFloatTensor, Normalize
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import Resize, aug_transforms, resnet34, unet_learner

from nbs_lib.dataloaders import OpenImage, OpenMask, seg_dataloaders
from nbs_lib.datasets import find_pairs
from nbs_lib.learner import seg_learner

DATA, SIZE, BATCHES, BS, ROUNDS = (sys.argv[1:2] or ['Assets/Data~'])[0], int((sys.argv[2:3] or [64])[0]), 5, 32, 3
STATS = [.5]*3, [.25]*3


def stock(data):
    block = DataBlock((TransformBlock(OpenImage(), batch_tfms=IntToFloatTensor()), TransformBlock(OpenMask(data.labels), batch_tfms=IntToFloatTensor())), splitter=FuncSplitter(lambda o: False),
                      item_tfms=Resize((SIZE, SIZE), method='squish'), batch_tfms=[*aug_transforms(), Normalize.from_stats(*STATS)])
    dls = block.dataloaders(data.pairs, bs=BS, num_workers=0)
    return unet_learner(dls, resnet34, n_out=data.labels.n_classes, pretrained=False, loss_func=CrossEntropyLossFlat(axis=1, ignore_index=255))


def ours(data, **kw): return seg_learner(seg_dataloaders(data, SIZE, BS, stats=STATS), **kw)


def one_round(learn) -> tuple[float, float]:
    "Pictures a second over a few batches with everything in them, and the share of that time that the data took"
    data_time = 0.
    start, batches = time.perf_counter(), iter(learn.dls.train)
    learn.model.train()
    for i in range(BATCHES):
        t = time.perf_counter()
        b = next(batches)
        data_time += time.perf_counter() - t
        learn.one_batch(i, b)
    return BATCHES*BS/(time.perf_counter() - start), data_time/(time.perf_counter() - start)


def prepare(learn):
    "As in the middle of `fit`, without validation and printing"
    learn.create_opt()
    for cb in list(learn.cbs):
        if cb.name in ('recorder', 'progress'): learn.remove_cb(cb)
    learn.n_epoch, learn.epoch, learn.dl = 1, 0, learn.dls.train
    learn('before_fit'), learn('before_epoch'), learn('before_train')
    one_round(learn)  # warm up
    return learn


def main():
    data = find_pairs(DATA)
    ways = {'stock fastai, float32': stock(data), 'ours, float32': ours(data, bf16=False), 'ours (default)': ours(data), 'light:resnet34': ours(data, arch='light:resnet34'),
            'unet:resnet34': ours(data, arch='unet:resnet34'), 'segformer:mit_b0': ours(data, arch='segformer:mit_b0')}
    print(f"{SIZE} px, {BS} pictures a batch, {torch.get_num_threads()} threads, torch {torch.__version__}, {'bfloat16' if ways['ours (default)'].precision == 'bfloat16' else 'float32'} by default")
    results = {name: [] for name in ways}
    for learn in ways.values(): prepare(learn)
    for _ in range(ROUNDS):
        for name, learn in ways.items(): results[name].append(one_round(learn))
    speed = {name: statistics.median(r[0] for r in rows) for name, rows in results.items()}
    for name, rows in results.items():
        print(f"{name:24} {speed[name]:7.1f} pictures/s  {speed[name]/speed['stock fastai, float32']:5.2f}×   data {statistics.median(r[1] for r in rows):6.1%} of the time")


if __name__ == '__main__': main()
