"""The seg_* commands as a person meets them: help, exit statuses, wrong input in one sentence, an interrupted run."""
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_command
from forked import call_in_fork, run_forked
from PIL import Image

from nbs_lib.export import seg_export
from nbs_lib.train import seg_train

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def be_script(name: str, target: str) -> None:
    "Do what the installed script of a command does, when it is asked for help."
    module, attributes = target.split(":")
    sys.argv = [name, "--help"]
    attrgetter(attributes)(import_module(module))()


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name):
    done = call_in_fork(be_script, name, SCRIPTS[name])
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {name} "), done.stderr
    assert Path(sys.executable).with_name(name).exists(), "it is installed"


def test_imports_are_quiet():
    "core silences a warning of fastai's import, so it comes first, in the sub-packages, too."
    modules = sorted((ROOT / "nbs_lib").rglob("*.py"))
    first = {path: re.findall(r"^(?:from|import) \.*(core|fastai)\b", path.read_text(), re.M)[:1] for path in modules}
    assert ["core"] in first.values()
    assert not [path for path, name in first.items() if name == ["fastai"]]


def copy(rooms, tmp_path) -> Path:
    "A copy of the rooms to spoil."
    return Path(shutil.copytree(rooms, tmp_path / "data"))


IMAGE, MASK = "screenshots/000003.png", "labels/000003.png"


def drop_mask(folder):
    (folder / MASK).unlink()


def drop_picture(folder):
    (folder / IMAGE).unlink()


def resize_mask(folder):
    Image.open(folder / MASK).resize((64, 64), Image.Resampling.NEAREST).save(folder / MASK)


def wrong_value(folder):
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(folder / MASK)


def wrong_color(folder):
    Image.new("RGB", (128, 128), (254, 1, 2)).save(folder / MASK)


def cut_picture(folder):
    (folder / IMAGE).write_bytes((folder / IMAGE).read_bytes()[:900])


def text_picture(folder):
    (folder / IMAGE).write_text("not a picture")


def nothing_left(folder):
    for part in ("screenshots", "labels"):
        for path in (folder / part).iterdir():
            path.unlink()


def broken_table(folder):
    (folder / "labels.csv").write_text("name;colour\n")


def call(capsys, command, *args) -> tuple[int, str]:
    "A command's exit status and what it wrote to stderr, run in this process because importing torch takes seconds."
    with pytest.raises(SystemExit) as stop:
        command.main([str(arg) for arg in args])
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("fault, says", [
    (drop_mask, "000003.png has no mask"), (drop_picture, "000003.png has no image"),
    (resize_mask, "64×64 but its image"), (wrong_value, "value 77"), (wrong_color, r"color (254, 1, 2)"),
    (cut_picture, "000003.png is damaged"), (text_picture, "000003.png is not an image"),
    (nothing_left, "holds no pairs"), (broken_table, "labels.csv"),
])
def test_bad_data_stop_a_training_before_it_starts(fault, says, rooms, tmp_path, capsys):
    data = copy(rooms, tmp_path)
    fault(data)
    status, err = call(capsys, seg_train, '--data', data, '--out', tmp_path / 'models')
    assert status == 1 and says in err and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path/'models').exists()


def test_jpeg_data_named_png_just_work(rooms, tmp_path):
    data = copy(rooms, tmp_path)
    im = Image.open(data/'screenshots/000003.png').convert('RGB')
    im.save(data/'screenshots/000003.png', format='JPEG')
    done = run_command('seg_check', data)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("args, status, says", [
    (("--size", 65), 1, "multiples of 32"), (("--epochs", 0), 1, "at least 1"),
    (("--arch", "vgg"), 1, "no encoder 'vgg'"),
    (("--weights", "none.safetensors"), 1, "none.json is missing"), (("--size", "big"), 1, "not readable"),
    (("--bs", "big"), 2, "invalid int"), (("--colour", "red"), 2, "unrecognized"),
    (("--size", 256), 1, "above the images' own"),
])
def test_wrong_arguments(args, status, says, rooms, tmp_path, capsys):
    got, err = call(capsys, seg_train, '--data', rooms, '--out', tmp_path, *args)
    assert (got, says in err) == (status, True), err


SMALL, NAME = ("--size", 32, "--arch", "unet:tu-test_resnet"), "smp_unet_tu-test_resnet_32"  # the smallest network


def test_weights_of_another_label_count(rooms, tmp_path):
    small, other = (*SMALL, "--epochs", 1, "--bs", 8), copy(rooms, tmp_path)
    assert run_forked(seg_train, "--data", rooms, "--out", tmp_path / "m", *small).returncode == 0
    table = other / "labels.csv"
    table.write_text(table.read_text().rstrip("\n") + "\nextra_thing,1,2,3\n")
    weights = ("--weights", tmp_path / f"m/{NAME}.safetensors")
    done = run_forked(seg_train, "--data", other, "--out", tmp_path / "m2", *weights, *small)
    assert done.returncode == 1 and "trained for 24 labels that are not the 25" in done.stderr, done.stderr


def test_from_rooms_to_scores(rooms, tmp_path):
    "Train, export, predict, evaluate, as commands."
    models, model = tmp_path / "my models", tmp_path / f"my models/{NAME}.onnx"
    done = run_command("seg_train", "--data", rooms, "--out", models, *SMALL, "--epochs", 1, "--bs", 8)
    assert done.returncode == 0, done.stderr
    assert run_forked(seg_export, model.with_suffix(".safetensors"), "--out", models).returncode == 0
    done = run_command("seg_predict", model, rooms / IMAGE, "--out", tmp_path / "p")
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(next((tmp_path / "p").rglob("mask/*.png"))))
    assert mask.shape == (128, 128) and mask.max() < 24
    done = run_command("seg_eval", model, "--data", rooms, "--report", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert "building_wall" in (tmp_path / "r.json").read_text()


def test_doctor_says_what_next(tmp_path):
    done = run_command("seg_doctor", "--data", tmp_path / "nothing here")
    assert done.returncode == 0 and "seg_generate" in done.stdout.splitlines()[-1]


IMPORT_LIGHT = """
import time, sys
start = time.process_time()
import nbs_lib.labels, nbs_lib.predict
print(time.process_time() - start, sorted({'torch', 'fastai', 'matplotlib', 'pandas'} & set(sys.modules)))
"""


@pytest.mark.clock
def test_light_modules_stay_light():
    "The label table and the predictor load in under a second of the processor, without torch, fastai or matplotlib."
    command = [sys.executable, "-c", IMPORT_LIGHT]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" ", 1) for _ in range(3)]
    assert all(loaded.strip() == "[]" for _, loaded in runs)
    assert min(float(seconds) for seconds, _ in runs) < 1
