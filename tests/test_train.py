"""Trainings that are killed, shared between processes, or configured in a file: what only whole processes can show."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_command
from forked import call_on_ranks, run_forked, start_forked, start_in_fork

from nbs_lib.train import model_name, seg_train

ARCH, NAME = "unet:tu-test_resnet", "smp_unet_tu-test_resnet_32"  # the smallest network
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    "48 rooms of 32 px"
    folder = tmp_path_factory.mktemp("train") / "small rooms"
    assert run_command("seg_generate", 48, "--out", folder, "--size", 32, "--seed", 2).returncode == 0
    return folder


def arguments(data, out, *more):
    return ["--data", data, "--out", out, "--size", 32, "--arch", ARCH, "--bs", 4, "--precision", "fp32", *more]


def result(out) -> dict:
    return json.loads((Path(out) / f"{NAME}.json").read_text())


def launch(kind, *more) -> subprocess.CompletedProcess:
    "Run a module or script under accelerate, with one of the configurations of config/."
    accelerate = Path(sys.executable).with_name("accelerate")
    command = [accelerate, "launch", "--config_file", ROOT / "config" / f"{kind}.yaml", *more]
    done = subprocess.run(list(map(str, command)), env=ONE_THREAD, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def rows(history) -> list[list[float]]:
    "The numbers of a history."
    return [list(row.values()) for row in history]


def time_written(path) -> float:
    "When a file was written last; 0 where there is none."
    return path.stat().st_mtime if path.exists() else 0


def start_twelve_epochs(data, out):
    "A training of twelve epochs that goes on where it was stopped."
    return start_forked(seg_train, *arguments(data, out, "--epochs", 12, "--resume"))


def kill_after_an_epoch(data, out, delay: float) -> None:
    "Go on with the training, and kill it so many seconds after the next epoch."
    table = out / f"{NAME}.csv"
    before = time_written(table)
    process = start_twelve_epochs(data, out)
    while process.is_alive() and time_written(table) == before:
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.join()


def kill_again_and_again(data, out, most: int) -> int:
    "Kill the training at random moments until it is done, or so often; how often?"
    rng = np.random.default_rng(0)
    for kills in range(most):
        if (out / f"{NAME}.json").exists():
            return kills
        kill_after_an_epoch(data, out, rng.uniform(0, 0.4))
    return most


def visible_files(folder) -> set[str]:
    "Names of the files in a folder, without those that begin with a dot."
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_killed_ten_times(small, tmp_path):
    "kill -9 at random moments, in the middle of epochs: nothing corrupt, and the history of a training left alone"
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_forked(seg_train, *arguments(small, whole, "--epochs", 12, "--resume")).returncode == 0
    kills = kill_again_and_again(small, cut, most=10)
    done = run_forked(seg_train, *arguments(small, cut, "--epochs", 12, "--resume"))
    assert done.returncode == 0, done.stderr
    assert kills >= 5, "the machine was too fast for the test"
    assert len(result(cut)["history"]) == 12
    np.testing.assert_allclose(rows(result(cut)["history"]), rows(result(whole)["history"]), atol=1e-4)
    assert visible_files(cut) == {path.name for path in whole.iterdir()}


# several processes

@pytest.fixture(scope="module")
def one_and_two(small, tmp_path_factory) -> tuple[tuple[Path, str], tuple[Path, str]]:
    "(folder, output) of the same training on one process and on two, which share their gradients over gloo."
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    alone = run_forked(seg_train, *arguments(small, one, "--epochs", 3))
    assert alone.returncode == 0, alone.stderr
    shared = launch("multi_cpu", "-m", "nbs_lib.train", *arguments(small, two, "--epochs", 3))
    return (one, alone.stdout), (two, shared.stdout)


def better_epoch(history: list[dict]) -> dict | None:
    "The row of the best epoch, the later of two alike; None where that is the last one."
    best = max(reversed(history), key=lambda row: row["dice"])
    return None if best is history[-1] else best


def check_best_files(out) -> None:
    "The model of the best epoch is kept beside that of the last one if it is better, and only then."
    best = better_epoch(result(out)["history"])
    weights, description = (out / f"{NAME}.best.{ending}" for ending in ("safetensors", "json"))
    assert weights.exists() == description.exists() == (best is not None)
    if best:
        kept = json.loads(description.read_text())
        assert (kept["epoch"], kept["dice"]) == (best["epoch"], best["dice"])


def files_without_best(out) -> set[str]:
    "Names of what a training left, but for the model of its best epoch."
    return {path.name for path in out.iterdir() if ".best." not in path.name}


def test_two_processes_write_one_set_of_files(one_and_two):
    (one, _), (two, output) = one_and_two
    assert "on 2 processes" in output and output.count("saved") == 1
    assert files_without_best(one) == files_without_best(two)
    for out in (one, two):
        check_best_files(out)


def test_two_processes_judge_the_same_average(one_and_two):
    "Each process has its own averaged weights; the scores of both together are those of the model that is saved."
    two = result(one_and_two[1][0])
    assert two["recipe"]["ema_decay"] > 0
    for name in ("foreground_accuracy", "dice"):
        assert two["scores"][name] == pytest.approx(two["history"][-1][name], abs=1e-6)


def test_two_processes_learn_as_one_does(one_and_two):
    one, two = (result(out) for out, _ in one_and_two)
    assert abs(one["scores"]["dice"] - two["scores"]["dice"]) < 0.05
    pixels_of_one, pixels_of_two = (sum(row["pixels"] for row in found["classes"]) for found in (one, two))
    assert pixels_of_one == pixels_of_two, "no image scored twice"


# settings

def test_help_of_the_module_is_that_of_the_command():
    "`python -m nbs_lib.train`, which several processes start, knows the comments of its options, too."
    command = [sys.executable, "-m", "nbs_lib.train", "--help"]
    of_module = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--lr LR" in of_module and "Highest learning rate" in of_module
    assert of_module == run_forked(seg_train, "--help").stdout


def test_settings_from_a_file(small, tmp_path):
    config = tmp_path / "settings.yaml"
    settings = f"data: {small}\nsize: 32\narch: {ARCH}\nbs: 8\nepochs: 1\nlr: 1e-3\nout: {tmp_path}/out\n"
    config.write_text(settings + "loss: cross_entropy+power_jaccard\nweight_classes: 0.25\n")
    done = run_forked(seg_train, "--config", config)
    assert done.returncode == 0, done.stderr
    recipe = result(tmp_path / "out")["recipe"]
    assert (recipe["loss"], recipe["weight_classes"], recipe["bs"]) == ("cross_entropy+power_jaccard", 0.25, 8)
    config.write_text("sise: 32")
    done = run_forked(seg_train, "--config", config)
    assert done.returncode == 1
    assert "sets 'sise', which seg_train does not know" in done.stderr and "Traceback" not in done.stderr


def test_ladder_goes_on(small, tmp_path):
    "The second call of a finished ladder does nothing but show the table"
    command = [seg_train, "--data", small, "--out", tmp_path, "--arch", ARCH, "--bs", 4]
    command += ["--ladder", "32:1", "--resume"]
    assert run_forked(*command).returncode == 0
    before = (tmp_path / f"{NAME}.safetensors").stat().st_mtime_ns
    again = run_forked(*command)
    assert again.returncode == 0 and f"{NAME} is done" in again.stdout
    assert (tmp_path / f"{NAME}.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("arch", ["light:resnet18", "unet:tu-resnet10t"])
def test_every_architecture_goes_all_the_way(small, tmp_path, arch):
    "Trained, exported and used without torch, alike; test_segformer does so with SegFormer"
    from nbs_lib.evaluate import seg_eval
    from nbs_lib.export import seg_export

    model, report = tmp_path / model_name(arch, 32), tmp_path / "report.json"
    commands = [
        [seg_train, "--data", small, "--out", tmp_path, "--arch", arch, "--size", 32, "--epochs", 1, "--bs", 8],
        [seg_export, f"{model}.safetensors", "--out", tmp_path],
        [seg_eval, f"{model}.onnx", "--data", small, "--report", report, "--valid_only"],
    ]
    for command in commands:
        done = run_forked(*command)
        assert done.returncode == 0, done.stderr
    exported = json.loads(report.read_text())
    exported = exported.get("scores", exported)
    trained = json.loads(Path(f"{model}.json").read_text())["scores"]
    assert abs(exported["accuracy"] - trained["accuracy"]) < 0.02


# what was lost, mixed up or kept too long


def drawn(folder, n=12, size=32):
    "A small drawn data set."
    from nbs_lib.tools.examples import example_rooms

    return example_rooms(folder, n, size)


def train_here(data, out, *more) -> None:
    "`seg_train` in this process: one epoch of tiny pictures, unless `more` says otherwise."
    seg_train.main([str(a) for a in arguments(data, out, "--epochs", 1, *more)])


def small_learner(data, **kw):
    "A learner of the smallest network."
    from nbs_lib.dataloaders import seg_dataloaders
    from nbs_lib.learner import seg_learner

    return seg_learner(seg_dataloaders(data, 32, 4, cache=False), ARCH, **kw)


def weights_of(path) -> dict:
    from nbs_lib.checkpoint import load_weights

    return load_weights(path)[0]


def full_disk(*args, **kw):
    raise OSError(28, "No space left on device")


def cut_training(data, out, monkeypatch):
    "A training of two epochs that ends before it saves its model."
    with monkeypatch.context() as patch:
        patch.setattr("nbs_lib.train.save_model", full_disk)
        with pytest.raises(SystemExit):
            train_here(data, out, "--epochs", 2)


def test_nothing_is_lost_between_the_last_checkpoint_and_the_save(tmp_path, monkeypatch):
    "The disk is full when the model is to be saved: the next run saves what an uninterrupted training saves"
    data, whole, cut = drawn(tmp_path / "data").root, tmp_path / "whole", tmp_path / "cut"
    train_here(data, whole, "--epochs", 2)
    cut_training(data, cut, monkeypatch)
    assert (cut / f"{NAME}.checkpoint").exists()
    train_here(data, cut, "--epochs", 2, "--resume")
    saved = weights_of(cut / NAME)
    for name, weight in weights_of(whole / NAME).items():
        np.testing.assert_allclose(saved[name], weight, atol=1e-6, err_msg=name)
    assert result(cut)["history"] == result(whole)["history"]


def test_an_interrupt_leaves_no_autocast(tmp_path):
    "Stopped inside the forward pass: the next training in this kernel is a float32 one, the model is as it was"
    import torch

    from nbs_lib.learner import fit

    learn = small_learner(drawn(tmp_path / "data"), bf16=True)
    model, loss = learn.model, learn.loss_func

    def interrupt(*args):
        raise KeyboardInterrupt

    for part in (model, loss):
        hook = part.register_forward_pre_hook(interrupt)
        with learn.no_bar(), learn.no_logging(), pytest.raises(KeyboardInterrupt):
            fit(learn, 1, 1e-3)
        hook.remove()
        try:
            assert not torch.is_autocast_enabled("cpu")
        finally:
            torch.set_autocast_enabled("cpu", False)
        assert learn.model is model and learn.loss_func is loss


def change_a_mask(data) -> None:
    "Another content of one mask; the number of pairs stays."
    from nbs_lib.labels import ROOM_LABELS
    from nbs_lib.masks import mask_image

    mask_image(np.full((32, 32), 3, np.uint8), ROOM_LABELS).save(data / "labels" / "000003.png")


def test_done_means_the_same_data_and_the_same_recipe(tmp_path, capsys):
    drawn(tmp_path / "data")
    step = ("--ladder", "32:1", "--resume")

    def is_done(*more):
        train_here(tmp_path / "data", tmp_path / "out", *step, *more)
        return "is done" in capsys.readouterr().out

    assert not is_done() and is_done()
    changes = [("--ema_decay", 0), ("--no_aug",), ("--loss", "cross_entropy+dice"), ("--valid", 0.4), ("--seed", 1)]
    for change in changes:
        assert not is_done(*change), f"{change} is another training"
    assert is_done("--seed", 1)
    change_a_mask(tmp_path / "data")
    assert not is_done("--seed", 1), "other data, the same number of pairs"


def why_refused(data, out, capsys) -> str:
    "What is said when a training of two epochs may not go on."
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train_here(data, out, "--epochs", 2, "--resume")
    return capsys.readouterr().err


def test_resume_with_other_labels_is_refused_in_words(tmp_path, monkeypatch, capsys):
    data, out = drawn(tmp_path / "data").root, tmp_path / "out"
    cut_training(data, out, monkeypatch)
    table = data / "labels.csv"
    table.write_text(table.read_text() + "extra_thing,1,2,3\n")
    error = why_refused(data, out, capsys)
    assert "label table" in error and "Traceback" not in error, error


def test_resume_on_other_data_is_refused_in_words(tmp_path, monkeypatch, capsys):
    data, out = drawn(tmp_path / "data").root, tmp_path / "out"
    cut_training(data, out, monkeypatch)
    change_a_mask(data)
    error = why_refused(data, out, capsys)
    assert "data" in error and len(error.strip().splitlines()) == 1, error


def test_the_model_remembers_what_was_held_out(tmp_path):
    "Names and rule are saved, so that data which grew cannot pass for unseen"
    import hashlib

    from nbs_lib.checkpoint import save_model
    from nbs_lib.dataloaders import seg_dataloaders
    from nbs_lib.learner import seg_learner

    data = drawn(tmp_path / "data")
    train_here(tmp_path / "data", tmp_path / "out")
    split = result(tmp_path / "out")["split"]
    dls = seg_dataloaders(data, 32, 4, cache=False)
    assert split["names"] == [p.name for p in dls.valid_ds.items]
    names = [p.name for p in dls.train_ds.items]
    assert split["train_sha256"] == hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    assert (split["valid"], split["seed"]) == (0.2, 0)
    chosen = ["000001", "000004"]
    learn = seg_learner(seg_dataloaders(data, 32, 4, names=chosen, cache=False), ARCH)
    save_model(learn, tmp_path / "named")
    named = json.loads((tmp_path / "named.json").read_text())["split"]
    assert named["names"] == chosen and named["rule"] != split["rule"]


def test_a_batch_is_advised_after_the_memory_was_let_go(tmp_path, monkeypatch):
    "The failed step's tensors hang on its exception: they must be gone when the memory is measured"
    import weakref

    import torch
    from fastai.callback.core import Callback

    from nbs_lib.core import SegError
    from nbs_lib.learner import fit

    held = []

    class Hungry(Callback):
        def before_batch(self):
            big = torch.zeros(1000)
            held.append(weakref.ref(big))
            raise torch.OutOfMemoryError("CUDA out of memory")

    def measure(learn, *args, **kw):
        assert held[0]() is None, "the memory of the failed step is still held"
        return 3

    monkeypatch.setattr("nbs_lib.learner.largest_batch", measure)
    learn = small_learner(drawn(tmp_path / "data"), bf16=False, cbs=[Hungry()])
    with learn.no_bar(), learn.no_logging(), pytest.raises(SegError, match="2 should"):
        fit(learn, 1, 1e-3)


def test_a_checkpoint_of_two_gpus_goes_on_with_one(tmp_path, monkeypatch):
    import torch

    from nbs_lib.checkpoint import random_states, set_random_states

    learn = small_learner(drawn(tmp_path / "data"), bf16=False)
    states = random_states(learn.dls) | {"cuda": [torch.zeros(16, dtype=torch.uint8)] * 2}
    seen = []

    def set_state(state, device="cuda"):
        seen.append([0][getattr(device, "index", device)])

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for module in ("torch.cuda", "torch.cuda.random"):
        monkeypatch.setattr(f"{module}.set_rng_state", set_state)
    set_random_states(learn.dls, states)
    assert seen == [0]


def train_and_say_batches(data, out) -> None:
    "One of several processes, each of which sees other memory: prints its number and the size of each batch."
    from fastai.callback.core import Callback

    from nbs_lib import train

    rank = int(os.environ["RANK"])
    new_learner = train.seg_learner

    class SayBatch(Callback):
        run_valid = False

        def before_batch(self):
            print("BATCH", rank, len(self.x), flush=True)

    train.largest_batch = lambda learn: [4, 7][rank]
    train.seg_learner = lambda *args, **kw: new_learner(*args, **kw).add_cb(SayBatch())
    train_here(data, out, "--bs", 0)


def test_the_largest_batch_is_measured_by_one_process(tmp_path):
    "`--bs 0` on two processes that see different memory: both train with the batch that the first one found"
    data = drawn(tmp_path / "data", n=24).root
    lines = [line.split() for text in call_on_ranks(train_and_say_batches, data, tmp_path / "out") for line in text]
    said = [line for line in lines if line[:1] == ["BATCH"]]
    assert {rank for _, rank, _ in said} == {"0", "1"}
    assert {size for _, _, size in said} == {"4"}, lines


def test_peak_memory_starts_anew_with_each_step(tmp_path, monkeypatch):
    import torch

    from nbs_lib.learner import peak_memory, reset_peak_memory

    calls = []
    monkeypatch.setattr("nbs_lib.train.reset_peak_memory", calls.append)
    drawn(tmp_path / "data", size=64)
    train_here(tmp_path / "data", tmp_path / "out", "--ladder", "32:1 64:1")
    assert len(calls) == 2
    big = torch.ones(100_000_000)
    high = peak_memory("cpu")
    del big
    reset_peak_memory("cpu")
    assert peak_memory("cpu") < high - 0.2


def hold_lock(folder: Path) -> None:
    "Hold the lock of a training, and say so with a file."
    from nbs_lib.train import training_lock

    with training_lock(folder, NAME):
        (folder / "held").touch()
        time.sleep(600)


def test_two_trainings_of_one_name_do_not_share_a_folder(tmp_path, capsys):
    drawn(tmp_path / "data")
    out = tmp_path / "out"
    out.mkdir()
    other = start_in_fork(hold_lock, out)
    try:
        while other.is_alive() and not (out / "held").exists():
            time.sleep(0.01)
        with pytest.raises(SystemExit):
            train_here(tmp_path / "data", out)
        assert f"process {other.pid}" in capsys.readouterr().err
    finally:
        other.kill()
        other.join()
    train_here(tmp_path / "data", out)  # the lock of a killed training holds nobody up
    assert not list(out.glob(".*.lock"))


def test_a_model_of_other_data_is_set_aside_and_said(tmp_path, capsys):
    drawn(tmp_path / "a")
    drawn(tmp_path / "b", n=13)
    train_here(tmp_path / "a", tmp_path / "out")
    first = (tmp_path / "out" / f"{NAME}.safetensors").read_bytes()
    train_here(tmp_path / "a", tmp_path / "out")
    assert "other data" not in capsys.readouterr().out
    train_here(tmp_path / "b", tmp_path / "out")
    assert "other data" in capsys.readouterr().out
    assert (tmp_path / "out" / f"{NAME}.previous.safetensors").read_bytes() == first
    assert weights_of(tmp_path / "out" / f"{NAME}.previous")


def test_minutes_become_epochs_that_a_resume_keeps(tmp_path, monkeypatch, capsys):
    "The speed is measured once; whatever it is at a resume, the schedule stays that of the beginning"
    from nbs_lib import train

    drawn(tmp_path / "data")
    monkeypatch.setattr("nbs_lib.learner.epoch_seconds", lambda *args: (1, 15))  # two epochs in half a minute
    more = ("--ladder", "32:0.5m", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_model", full_disk)
        with pytest.raises(SystemExit):
            train_here(tmp_path / "data", tmp_path / "out", *more)
    monkeypatch.setattr("nbs_lib.learner.epoch_seconds", lambda *args: (1, 6))  # now it would be five
    train_here(tmp_path / "data", tmp_path / "out", *more)
    assert [row["epoch"] for row in result(tmp_path / "out")["history"]] == [0, 1]
    capsys.readouterr()
    train_here(tmp_path / "data", tmp_path / "out", *more)
    assert "is done" in capsys.readouterr().out


def interrupt_after(epoch: int, monkeypatch) -> None:
    "Let trainings be interrupted as soon as the checkpoint of this epoch is written."
    from nbs_lib.callbacks import Checkpoint

    save = Checkpoint.save_state

    def save_and_stop(self):
        save(self)
        if self.epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save_state", save_and_stop)


def test_validation_only_now_and_then(tmp_path, monkeypatch):
    "Rows for validated epochs only; cut and resumed, best epoch and patience as without a cut"
    data, whole, cut = drawn(tmp_path / "data").root, tmp_path / "whole", tmp_path / "cut"
    more = ("--epochs", 5, "--valid_every", 2, "--patience", 9)
    train_here(data, whole, *more)
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(SystemExit):
            train_here(data, cut, *more)
    train_here(data, cut, *more, "--resume")
    history_of_whole, history_of_cut = result(whole)["history"], result(cut)["history"]
    assert [row["epoch"] for row in history_of_whole] == [1, 3, 4]
    assert [row["epoch"] for row in history_of_cut] == [1, 3, 4]
    np.testing.assert_allclose(rows(history_of_cut), rows(history_of_whole), atol=1e-5)
    assert len((cut / f"{NAME}.csv").read_text().splitlines()) == 4


def test_settings_reach_the_optimizer_the_schedule_and_the_loaders(tmp_path):
    from nbs_lib.train import TrainSettings, prepare_training, schedule_of

    data = drawn(tmp_path / "data")
    optimizer = {"weight_decay": 0.03, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8}
    cycle = {"pct_start": 0.2, "div": 10.0, "div_final": 1e3}
    augmentation = {"max_rotate": 1.0, "max_zoom": 1.5}
    common = {"size": "32", "arch": ARCH, "out": str(tmp_path), "bs": 4, "precision": "fp32"}
    settings = TrainSettings(**common, **optimizer, **cycle, **augmentation)
    learn = prepare_training(data, settings)
    learn.create_opt()
    hypers = learn.opt.hypers[0]
    assert (hypers["wd"], hypers["mom"], hypers["sqr_mom"], hypers["eps"]) == (0.03, 0.9, 0.98, 1e-8)
    assert schedule_of(settings) == cycle | {"moms": (0.9, 0.9, 0.9)}
    augment = next(t for t in learn.dls.train.after_batch.fs if type(t).__name__ == "Augment")
    assert (augment.max_rotate, augment.max_zoom, augment.size) == (1.0, 1.5, (32, 32))
