"""Trainings that are killed within an epoch, on files and on shards: they go on at the batch after the last one."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from forked import call_in_fork

from nbs_lib.tools.examples import example_rooms

ARCH, NAME = "unet:tu-test_resnet", "smp_unet_tu-test_resnet_32"  # the smallest network
EACH_BATCH = 1e-9  # minutes between two checkpoints


def files_in(folder: Path) -> Path:
    "48 drawn rooms as files"
    return Path(example_rooms(folder, 48, 32).root)


def shards_in(folder: Path) -> Path:
    "48 rooms in twelve shards, of which a training mixes four at a time"
    pytest.importorskip("panda3d")
    pytest.importorskip("fsspec")
    from virtual_room import Plan
    from virtual_room.generate import generate_shards

    generate_shards(48, folder, Plan(size=32, seed=2), 4)
    return folder


@pytest.fixture(scope="module", params=[files_in, shards_in])
def data(request, tmp_path_factory) -> Path:
    return request.param(tmp_path_factory.mktemp("data"))


def train(data: Path, out: Path, minutes: float, deadly: int) -> None:
    "`seg_train`, which notes the images of each batch, and kills itself before its `deadly`-th one; 0: it lives."
    from fastai.callback.core import Callback

    from nbs_lib import train as module

    new_learner = module.seg_learner
    out.mkdir(exist_ok=True)

    class NoteOrDie(Callback):
        order = 60  # before `Checkpoint`
        batches = 0

        def before_batch(self):
            if self.training and self.batches + 1 == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        def after_batch(self):
            if self.training:
                self.batches += 1
                with open(out / "batches", "a") as file:
                    print(self.epoch, *self.dl.batch, file=file)

    module.seg_learner = lambda *args, **kw: new_learner(*args, **kw).add_cb(NoteOrDie())
    options = ["--data", data, "--out", out, "--size", 32, "--arch", ARCH, "--bs", 4, "--precision", "fp32",
               "--epochs", 2, "--checkpoint_minutes", minutes, "--resume"]
    module.seg_train.main([str(option) for option in options])


def result(out: Path) -> tuple[list[list[float]], dict]:
    "The history and the weights of a saved model"
    from nbs_lib.checkpoint import load_weights

    weights, description = load_weights(out / NAME)
    return [list(row.values()) for row in description["history"]], weights


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    "The folder of a training that was left alone"
    out = tmp_path_factory.mktemp("whole")
    assert call_in_fork(train, data, out, 0, 0).returncode == 0
    return out


def kill(data: Path, out: Path, minutes: float, deadly: int) -> None:
    "Train until before the `deadly`-th batch"
    done = call_in_fork(train, data, out, minutes, deadly)
    assert done.returncode == -signal.SIGKILL, done.stderr


def check_alike(whole: Path, cut: Path) -> None:
    "Both trainings ended alike"
    (rows, weights), (other_rows, other_weights) = result(whole), result(cut)
    np.testing.assert_allclose(rows, other_rows, atol=1e-4)
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, other_weights[name], atol=1e-4, err_msg=name)


def test_killed_in_the_middle_of_epochs(data, whole, tmp_path):
    "Thrice: no batch is trained on twice, none is left out, and history and weights are the same."
    batches = (whole / "batches").read_text()
    assert len(batches.splitlines()) == 2 * 9
    for deadly in (4, 3, 8):  # in the first epoch, in the first again, in the second
        kill(data, tmp_path, EACH_BATCH, deadly)
    assert call_in_fork(train, data, tmp_path, EACH_BATCH, 0).returncode == 0
    assert (tmp_path / "batches").read_text() == batches
    check_alike(whole, tmp_path)


def test_without_checkpoints_within_an_epoch_the_epoch_begins_anew(data, whole, tmp_path):
    "So it is in a short epoch, too: ten minutes are not over."
    kill(data, tmp_path, 10, 13)
    assert call_in_fork(train, data, tmp_path, 10, 0).returncode == 0
    lines = (tmp_path / "batches").read_text().splitlines()
    assert lines[:9] + lines[12:] == (whole / "batches").read_text().splitlines()
    assert lines[9:12] == lines[12:15]
    check_alike(whole, tmp_path)


def train_until_validation(data: Path, out: Path) -> None:
    "`train`, killed when the first epoch is about to be validated."
    from nbs_lib.callbacks import EMA

    def die(average):
        os.kill(os.getpid(), signal.SIGKILL)

    EMA.before_validate = die
    train(data, out, EACH_BATCH, 0)


def test_killed_in_the_validation(data, whole, tmp_path):
    "Nothing is trained again."
    assert call_in_fork(train_until_validation, data, tmp_path).returncode == -signal.SIGKILL
    assert call_in_fork(train, data, tmp_path, 0, 0).returncode == 0
    assert (tmp_path / "batches").read_text() == (whole / "batches").read_text()
    check_alike(whole, tmp_path)
