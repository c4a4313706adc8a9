"""Two nodes that train together: separate folders for caches and results, and what happens when one is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from forked import call_on_ranks, ranks
from PIL import Image

from nbs_lib.callbacks import load_checkpoint

ARCH, NAME = "unet:tu-test_resnet", "smp_unet_tu-test_resnet_32"  # the smallest network
EPOCHS = 3


def on_node(folder: Path, name: str) -> Path:
    "A folder that only the node of this process has."
    return Path(folder) / f"node{os.environ['GROUP_RANK']}" / name


def train_on_node(data: Path, folder: Path, *more) -> None:
    "`seg_train` as one of the processes of a node, whose caches and results are in folders of its own."
    from nbs_lib.train import seg_train

    os.environ["XDG_CACHE_HOME"] = str(on_node(folder, "cache"))
    options = ["--data", data, "--out", on_node(folder, "out"), "--size", 32, "--arch", ARCH, "--bs", 8,
               "--epochs", EPOCHS, "--precision", "fp32", *more]
    seg_train.main([str(option) for option in options])


def say(line: str) -> None:
    "Print a line in one piece: several threads print."
    os.write(1, f"{line}\n".encode())


def watch_files() -> None:
    "Print each file that is hashed, and each mask that is checked."
    from nbs_lib import check, pixel_cache

    digest, count = pixel_cache._file_digest, check.value_counts

    def say_digest(path):
        say(f"HASHED {Path(path).name}")
        return digest(path)

    def say_count(mask):
        say("CHECKED")
        return count(mask)

    pixel_cache._file_digest, check.value_counts = say_digest, say_count


def train_and_say(data: Path, folder: Path) -> None:
    "Train, and print what is read."
    watch_files()
    train_on_node(data, folder)


def train_until(data: Path, folder: Path, rank: int, number: int) -> None:
    "Train with a checkpoint after each batch; one of the processes gets a signal in the middle of its second epoch."
    from fastai.callback.core import Callback

    from nbs_lib import callbacks, train

    callbacks.LOOK_EVERY = 1
    new_learner = train.seg_learner

    class SignalMyself(Callback):
        def before_batch(self):
            if self.training and (self.epoch, self.iter) == (1, 1) and int(os.environ["RANK"]) == rank:
                os.kill(os.getpid(), number)

    train.seg_learner = lambda *args, **kw: new_learner(*args, **kw).add_cb(SignalMyself())
    train_on_node(data, folder, "--checkpoint_minutes", 1e-9)


def result(folder: Path) -> dict:
    "What the first node saved."
    return json.loads((folder / "node0" / "out" / f"{NAME}.json").read_text())


def numbers(history: list[dict]) -> list[list[float]]:
    "A history without its words."
    return [list(row.values()) for row in history]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    "24 drawn rooms"
    from nbs_lib.tools.examples import example_rooms

    return Path(example_rooms(tmp_path_factory.mktemp("rooms"), 24, 32).root)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> tuple[Path, list[list[str]]]:
    "A training on two nodes of two processes each: its folder, and what each process printed."
    folder = tmp_path_factory.mktemp("whole")
    return folder, call_on_ranks(train_and_say, data, folder, n=4, per_node=2)


def test_each_node_decodes_once(whole):
    "The first process of each node decodes the training and the validation images; the other one finds them."
    folder, said = whole
    decoded = [sum("decoded once" in line for line in lines) for lines in said]
    assert decoded == [2, 0, 2, 0]
    for node in ("node0", "node1"):
        assert len(list((folder / node / "cache" / "nbs_lib").iterdir())) == 2


def test_files_are_read_by_shares(whole):
    "All together check each mask once, and hash each file twice: for the recipe and for the cache."
    _, said = whole
    checked = [lines.count("CHECKED") for lines in said]
    hashed = [sum(line.startswith("HASHED") for line in lines) for lines in said]
    assert checked == [6, 6, 6, 6]
    assert sum(hashed) == 2 * 24 * 2
    assert max(hashed) - min(hashed) <= 4


def test_only_the_first_node_writes_results(whole):
    folder, said = whole
    assert (folder / "node0" / "out" / f"{NAME}.safetensors").exists()
    assert not (folder / "node1" / "out").exists()


def test_two_nodes_score_as_one_process_does(whole):
    "The scores of four shares are those of the saved model, which the first process judged alone."
    saved = result(whole[0])
    for name in ("foreground_accuracy", "dice"):
        assert saved["scores"][name] == pytest.approx(saved["history"][-1][name], abs=1e-6)


def is_log(line: str) -> bool:
    "Did torch write this line to its log? When a connection times out it may or may not: that is a race."
    return "Warning" in line or "[c10d]" in line


def check_one_sentence(done, *words) -> None:
    "A process ended with an error and one sentence, which has these words; logs of torch may stand beside it."
    lines = [line for line in done.stderr.splitlines() if line and not is_log(line)]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory) -> Path:
    "A training whose last process was killed in its second epoch, while the others lived: its folder."
    folder = tmp_path_factory.mktemp("killed")
    with ranks(train_until, data, folder, 3, signal.SIGKILL, n=4, per_node=2) as started:
        assert started.join(3).returncode == -signal.SIGKILL
        others = [started.join(rank, 60) for rank in range(3)]
    for other in others:
        check_one_sentence(other, "process 3 on", "--resume")
    return folder


def test_a_killed_process_ends_the_others_and_a_resume_goes_on(data, whole, killed):
    "The second node never had the checkpoint, which is of a batch; the history is the one of a training left alone."
    assert not (killed / "node1" / "out").exists()
    checkpoint = load_checkpoint(killed / "node0" / "out" / f"{NAME}.checkpoint")
    assert (checkpoint["epoch"], checkpoint["images"]) == (1, 8)
    call_on_ranks(train_on_node, data, killed, "--resume", n=4, per_node=2)
    np.testing.assert_allclose(numbers(result(killed)["history"]), numbers(result(whole[0])["history"]), atol=1e-4)


def train_impatiently(data: Path, folder: Path, rank: int) -> None:
    "Train; one of the processes is stopped, like one whose node has lost its network, and the others wait six beats."
    from nbs_lib import processes

    processes.PATIENCE = 6
    train_until(data, folder, rank, signal.SIGSTOP)


def test_a_node_that_does_not_answer_ends_the_others(data, tmp_path):
    "The first node, which keeps what they tell each other: no connection breaks, and nobody answers."
    with ranks(train_impatiently, data, tmp_path, 0) as started:
        check_one_sentence(started.join(1), "process 0 on")


def train_on_other_data(data: Path, folder: Path) -> None:
    "Train; the second process has a copy of the data in which an image is larger."
    if os.environ["RANK"] == "1":
        data = Path(shutil.copytree(data, folder / "copy"))
        Image.new("RGB", (48, 48)).save(data / "screenshots" / "000003.png")
    train_on_node(data, folder)


def test_nodes_with_other_data_are_refused(data, tmp_path):
    with ranks(train_on_other_data, data, tmp_path, n=2, per_node=1) as started:
        for done in started.join_all():
            check_one_sentence(done, "files of", "process 1")


def test_a_ladder_needs_its_models_on_the_first_node_only(data, tmp_path):
    "The second step starts from weights that the second node does not have."
    call_on_ranks(train_on_node, data, tmp_path, "--ladder", "32:1 32:1", "--resume", per_node=1)
    assert len(result(tmp_path)["history"]) == 1
    assert result(tmp_path)["recipe"]["weights"]


def test_each_script_of_a_cluster_is_readable_and_asks_for_what_there_is():
    "The shell can read them, and the training names a configuration of ours."
    for path in (ROOT / "deploy").glob("*.sbatch"):
        subprocess.run(["bash", "-n", path], check=True)
    config = re.search(r"--config_file (\S+)", (ROOT / "deploy" / "train.sbatch").read_text()).group(1)
    assert yaml.safe_load((ROOT / config).read_text())["num_machines"] == 2
