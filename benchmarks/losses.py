"""Losses of overlap against segmentation_models_pytorch: `python benchmarks/losses.py [n] [classes] [size] [rounds]`.

A step is the loss and its gradient. Both are timed in turns in the same run, in seconds of one busy thread,
so that the ratio does not depend on what else the machine does.
"""
import os
import sys
import time

import torch
from segmentation_models_pytorch import losses as smp

from nbs_lib.labels import IGNORE
from nbs_lib.losses import DiceLoss, JaccardLoss, PowerJaccardLoss, TverskyLoss, seg_loss

OPTIONS = {"mode": "multiclass", "ignore_index": IGNORE}
PAIRS = {  # name: (ours, the library's; None where it has none)
    "cross_entropy": (seg_loss("cross_entropy"), torch.nn.CrossEntropyLoss(ignore_index=IGNORE)),
    "dice": (DiceLoss(), smp.DiceLoss(**OPTIONS)),
    "jaccard": (JaccardLoss(), smp.JaccardLoss(**OPTIONS)),
    "tversky": (TverskyLoss(), smp.TverskyLoss(**OPTIONS, alpha=0.3, beta=0.7)),
    "power_jaccard": (PowerJaccardLoss(), None),
    "cross_entropy+0.5*dice": (seg_loss("cross_entropy+0.5*dice"), None),
}


def make_batch(images: int, classes: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    "Random logits in the memory order networks give them, and a target of blocks of 8 pixels with some unlabeled rows."
    torch.manual_seed(0)
    logits = torch.randn(images, classes, size, size).to(memory_format=torch.channels_last)
    blocks = torch.randint(0, classes, (images, size // 8, size // 8))
    target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    target[:, :4] = IGNORE
    return logits, target


def step_ms(loss, logits: torch.Tensor, target: torch.Tensor) -> float:
    "Milliseconds of one loss and its gradient."
    x = logits.detach().requires_grad_()
    start = time.thread_time()
    loss(x, target).backward()
    return 1000 * (time.thread_time() - start)


def compare(ours, theirs, logits: torch.Tensor, target: torch.Tensor, rounds: int) -> tuple[float, float | None]:
    "The best of `rounds` steps of each, taken in turns."
    own, other = [], []
    for _ in range(rounds):
        own.append(step_ms(ours, logits, target))
        if theirs:
            other.append(step_ms(theirs, logits, target))
    return min(own), min(other, default=None)


def main(images: int = 16, classes: int = 24, size: int = 128, rounds: int = 7) -> None:
    torch.set_num_threads(1)
    logits, target = make_batch(images, classes, size)
    cores = len(os.sched_getaffinity(0))
    print(f"{images} × {classes} × {size} × {size}, best of {rounds}, one of {cores} cores, torch {torch.__version__}")
    print(f"{'loss':24}{'ours, ms':>10}{'library, ms':>13}{'ratio':>8}")
    for name, (ours, theirs) in PAIRS.items():
        own, other = compare(ours, theirs, logits, target, rounds)
        comparison = f"{other:13.1f}{other / own:8.1f}" if other else f"{'-':>13}{'-':>8}"
        print(f"{name:24}{own:10.1f}{comparison}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
