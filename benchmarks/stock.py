"fastai as its tutorials write it, for the benchmarks that compare with it."

from fastai.callback.training import GradientClip
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.transforms import IndexSplitter, IntToFloatTensor, Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import Resize, aug_transforms, resnet34, unet_learner

from nbs_lib.dataloaders import OpenImage, OpenMask
from nbs_lib.datasets import SegData, split_pairs

BATCH_SIZE, LR = 16, 1e-3


def stock_learner(data: SegData, size: int, stats) -> Learner:
    "`unet_learner` with resnet34 from scratch; `stats` are the (mean, std) of the images."
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
