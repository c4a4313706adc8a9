"""A training on a GPU that is not there: torch's fake tensors know shapes and devices, but hold no numbers.

A tensor left on the wrong device fails here as it would on a GPU. It is a program of its own, which ends at once
when all is traced: fake CUDA tensors can leave a process that crashes when it cleans up. `test_train_devices.py` runs
it.
"""

import copy
import os
import random
from types import SimpleNamespace

import pytest

from nbs_lib.core import SegError  # noqa: F401  before fastai, whose import warns

# isort: split
import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from nbs_lib import callbacks, learner
from nbs_lib.callbacks import EMA, Checkpoint, GradientClip, Resume, TerminateOnNaN
from nbs_lib.labels import ROOM_LABELS

GPU = torch.device("cuda:0")


class FakeNumbers(FakeTensorMode):
    "Fake tensors with a made-up answer where it depends on numbers: of the right shape, on the same device."

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            return 0.5 if args[0].dtype.is_floating_point else -1
        if func is aten.bincount.default:
            length = kwargs.get("minlength", args[-1])
            with self:
                return torch.zeros(length, dtype=torch.int64, device=args[0].device)
        is_mask = func is aten.index.Tensor and args[1][0].dtype == torch.bool
        if is_mask:  # as if all were chosen
            assert args[0].device == args[1][0].device
            return args[0].clone()
        return super().__torch_dispatch__(func, types, args, kwargs)


class Loader(list):
    "A list of batches with what a training asks of a loader."

    bs, rng, batch = 2, random.Random(0), ()


class Loaders:
    "What a learner asks of `DataLoaders`; its batches lie on the GPU."

    labels, size, stats, split = ROOM_LABELS, (32, 32), ([0.5] * 3, [0.25] * 3), {"valid": 0.2, "seed": 0}
    device, n_inp, path = GPU, 1, "."

    def __init__(self):
        images = torch.zeros(2, 3, 32, 32, device=GPU)
        masks = torch.zeros(2, 32, 32, dtype=torch.int64, device=GPU)
        self.train = self.valid = Loader([(images, masks)] * 2)
        self.train_ds = SimpleNamespace(items=[])

    def __getitem__(self, i):
        return self.train


def keep_in_memory(monkeypatch: pytest.MonkeyPatch) -> dict:
    "Checkpoints kept in memory, read back to the CPU; and stand-ins for what needs real numbers."
    files = {}

    def to_cpu(value):
        if isinstance(value, torch.Tensor):
            return value.cpu()
        if isinstance(value, dict):
            return {key: to_cpu(item) for key, item in value.items()}
        return [to_cpu(item) for item in value] if isinstance(value, list) else copy.copy(value)

    def keep_state(checkpoint):
        files["state"] = callbacks.training_state(checkpoint.learn, checkpoint.recipe)

    def numbers(metric):
        assert metric.matrix.compute().cpu().shape == (24, 24)
        return np.eye(24)

    monkeypatch.setattr(FakeTensor, "tolist", lambda tensor: [0.5] * tensor.numel(), raising=False)
    monkeypatch.setattr(Checkpoint, "save_state", keep_state)
    monkeypatch.setattr(callbacks, "load_checkpoint", lambda path: to_cpu(files["state"]))
    monkeypatch.setattr(callbacks, "random_states", lambda dls: None)
    monkeypatch.setattr(callbacks, "set_random_states", lambda dls, states: None)
    monkeypatch.setattr(learner.SharedScore, "numbers", numbers)
    monkeypatch.setattr(torch.nn.Module, "to", stay_or_move)
    monkeypatch.setattr(Learner, "_backward", make_up_gradients)
    return files


def make_up_gradients(learn):
    "torch's autograd engine asks for a GPU that is there, so the gradients are made up, each beside its weight."
    assert learn.loss_grad.device == GPU and learn.loss_grad.requires_grad
    for parameter in learn.model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def stay_or_move(module, *args, move=torch.nn.Module.to, **kw):
    "`Module.to`, which cannot exchange fake parameters, and need not where all are on the GPU already."
    tensors = [*module.parameters(), *module.buffers()]
    if tensors and all(tensor.device == GPU for tensor in tensors):
        return module
    return move(module, *args, **kw)


def new_learner():
    with GPU:
        learn = learner.seg_learner(
            Loaders(), "unet:resnet18", bf16=True, loss="cross_entropy+power_jaccard", class_weights=np.ones(24)
        )
    assert {p.device for p in learn.model.parameters()} == {GPU}
    return learn


class CheckAverage(Callback):
    "Operations on many tensors at once and copies do not mind two devices here, so the averages are looked at."

    order = 62

    def after_step(self):
        assert {tensor.device for tensor in self.learn.ema.average.values()} == {GPU}


def fit(learn, epochs, *cbs, **kw):
    common = [GradientClip(), TerminateOnNaN(every=1), EMA(), CheckAverage()]
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, slice(1e-4, 1e-3), cbs=[*common, *cbs], **kw)
    return learn


def trace_a_training(saved: dict) -> None:
    "Step, metrics, averages, checkpoint and resume: all of it stays on the GPU."
    with FakeNumbers(allow_non_fake_inputs=True):
        learn = fit(new_learner(), 1, Checkpoint("last.checkpoint", {"epochs": 2}))
        assert {row.keys() >= {"dice", "valid_loss"} for row in callbacks.history(learn)} == {True}
        assert {tensor.device for tensor in saved["state"]["model"].values()} == {GPU}
        resume = Resume("last.checkpoint", {"epochs": 2})
        assert {tensor.device.type for tensor in resume.state["ema"]["average"].values()} == {"cpu"}
        resumed = fit(new_learner(), 2, resume, start_epoch=resume.start)
        assert len(callbacks.history(resumed)) == 2
        assert {loss.device for loss in resumed.recorder.losses} == {GPU}
        assert resumed.recorder.smooth_loss.val.device == GPU


if __name__ == "__main__":
    trace_a_training(keep_in_memory(pytest.MonkeyPatch()))
    print("traced", flush=True)
    os._exit(0)
