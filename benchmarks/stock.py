"""Stock fastai, for the benchmarks that compare with it.

A `DataBlock` that decodes every file each epoch, `aug_transforms`, `unet_learner` with resnet34, Adam, float32: as its
tutorials have it, but from random weights, with images squeezed to a square, and with void pixels left out of the loss.
"""

from fastai.data.block import DataBlock, TransformBlock
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import Resize, aug_transforms, resnet34, unet_learner

from nbs_lib.dataloaders import OpenImage, OpenMask
from nbs_lib.datasets import SegData, split_pairs

BATCH_SIZE = 16
LR = 1e-3  # fastai's default


def stock_learner(data: SegData, size: int, stats, batch_size: int = BATCH_SIZE) -> Learner:
    "`unet_learner` from random weights; `stats` are the (mean, std) of the images."
    images = TransformBlock(OpenImage(), batch_tfms=IntToFloatTensor())
    masks = TransformBlock(OpenMask(data.labels), batch_tfms=IntToFloatTensor())
    block = DataBlock((images, masks), splitter=lambda pairs: split_pairs(data),
                      item_tfms=Resize((size, size), method="squish"),
                      batch_tfms=[*aug_transforms(), Normalize.from_stats(*stats)])
    dls = block.dataloaders(data.pairs, bs=batch_size, num_workers=0)
    dls.labels, dls.size, dls.stats = data.labels, (size, size), stats
    loss = CrossEntropyLossFlat(axis=1, ignore_index=255)
    return unet_learner(dls, resnet34, n_out=data.labels.n_classes, pretrained=False, loss_func=loss)
