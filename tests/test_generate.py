"The generator: what is written is whole, the same seed gives the same bytes however it is run, and bad input is one sentence"

import json
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from generated import COMMAND, REPO, digest, run
from nbs_lib.core import SegError
from nbs_lib.datasets import find_pairs, split_pairs
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Plan, RoomConfig, generate, make_room
from virtual_room.generate import Studio, worth_learning


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    "160 pairs of 64 px, two of each room"
    out = tmp_path_factory.mktemp("sample") / "rooms"
    generate(160, out, Plan(seed=3, size=64, images_per_room=2), workers=2)
    return out


# --- pairs on disk ------------------------------------------------------------------------------------------------

def test_every_pair_is_well_formed(sample):
    manifest = json.loads((sample / "generation.json").read_text())
    pixels, images = np.zeros(24, int), np.zeros(24, int)
    for i in range(160):
        with Image.open(sample / "screenshots" / f"{i:06d}.png") as p, Image.open(sample / "labels" / f"{i:06d}.png") as m:
            assert p.mode == "RGB" and m.mode == "L" and p.size == m.size == (64, 64)
            mask, picture = np.asarray(m), np.asarray(p)
        assert mask.max() < ROOM_LABELS.n_classes and worth_learning(mask) and picture.std() > 5
        n = np.bincount(mask.ravel(), minlength=24)
        pixels, images = pixels + n, images + (n > 0)
    assert [(v["pixels"], v["images"]) for v in manifest["label_counts"].values()] == list(zip(pixels.tolist(), images.tolist()))
    assert (images[1:] > 0).all() and pixels[0] < .1 * pixels.sum()
    assert manifest["rooms"]["000000"] == manifest["rooms"]["000001"] != manifest["rooms"]["000002"] and len(manifest["rooms"]) == 160
    assert (sample / "labels.csv").read_text().count("\n") == 24


def test_one_worker_writes_the_same_bytes_as_two(sample, tmp_path):
    generate(24, tmp_path / "one", Plan(seed=3, size=64, images_per_room=2), workers=1)
    one, two = digest(tmp_path / "one"), digest(sample)
    del one["generation.json"]
    assert {k: two[k] for k in one} == one


def test_a_killed_run_goes_on_and_more_can_be_asked_for(tmp_path):
    args = ["--size", 48, "--seed", 5]
    out = tmp_path / "a folder with spaces"
    process = subprocess.Popen([*COMMAND, "60", "--out", str(out), *map(str, args)], cwd=REPO, stdout=subprocess.DEVNULL)
    while len(list((out / "labels").glob("0*.png"))) < 8 and process.poll() is None: time.sleep(.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # the workers see that they are orphans
    early = {p.name: p.stat().st_mtime_ns for p in (out / "labels").glob("0*.png")}
    assert 8 <= len(early) < 60
    assert not json.loads((out / "generation.json").read_text())["complete"]
    (out / "labels" / ".000059-x1.tmp.png").write_bytes(b"half")
    (out / "screenshots" / "000001.png").write_bytes(b"cut short")
    assert run(60, "--out", out, *args).returncode == 0
    again = {p.name: p.stat().st_mtime_ns for p in (out / "labels").glob("0*.png")}
    assert len(again) == 60 and {k for k in early if early[k] != again[k]} == {"000001.png"}
    generate(60, tmp_path / "whole", Plan(seed=5, size=48), workers=1)
    assert digest(out) == digest(tmp_path / "whole")
    assert generate(62, out, Plan(seed=5, size=48))["count"] == 62 and generate(3, out, Plan(seed=5, size=48))["count"] == 62
    assert not list(out.rglob(".*"))


def test_an_interrupted_run_says_so_and_leaves_no_halves(tmp_path):
    process = subprocess.Popen([*COMMAND, "400", "--out", str(tmp_path), "--size", "48"], cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / "labels").glob("0*.png"))) < 4 and process.poll() is None: time.sleep(.05)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=30)[1] and process.returncode == 130
    assert {p.name for p in (tmp_path / "labels").iterdir()} == {p.name for p in (tmp_path / "screenshots").iterdir()}


def test_memory_stays_flat():
    import psutil
    studio, used = Studio(Plan(seed=9, size=64)), []
    for i in range(180):
        studio.pair(i)
        if i in (119, 179): used.append(psutil.Process().memory_info().rss)
    assert used[1] < used[0] * 1.05 + 4e6


# --- bad input ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("call, words", [
    (lambda out: generate(0, out), "0 pairs"), (lambda out: Plan(size=16), "size"), (lambda out: Plan(size=4096), "size"), (lambda out: Plan(seed=-1), "seed"),
    (lambda out: Plan(images_per_room=0), "images_per_room"), (lambda out: generate(1, out, workers=0), "workers"),
    (lambda out: RoomConfig(width=(5, 4)), "width"), (lambda out: RoomConfig(night=1.5), "night"), (lambda out: RoomConfig(fov="wide"), "fov"),
    (lambda out: generate(1, out / "file" / "below"), "cannot make")])
def test_bad_settings_are_named(call, words, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegError, match=words): call(tmp_path)



def test_a_folder_of_other_settings_is_refused(sample, tmp_path):
    for plan, word in [(Plan(seed=4, size=64, images_per_room=2), "seed"), (Plan(3, 32, 2), "size"), (Plan(3, 64, 1), "images_per_room"), (Plan(3, 64, 2, RoomConfig(dog=0)), "dog")]:
        with pytest.raises(SegError, match=rf"another .*{word}.*--out"): generate(1, sample, plan)
    (tmp_path / "labels").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "labels" / "frame.png")
    with pytest.raises(SegError, match="did not make"): generate(1, tmp_path)


def test_overwrite_replaces_pairs_only(tmp_path):
    generate(3, tmp_path, Plan(seed=1, size=32))
    (tmp_path / "labels" / "mine.png").write_bytes(b"kept")
    assert generate(2, tmp_path, Plan(seed=2, size=32), overwrite=True)["count"] == 2
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == ["000000.png", "000001.png", "mine.png"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, "No space left on device")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SegError, match="No space left.*same command"): generate(1, tmp_path, Plan(size=32))


def test_the_command_ends_as_commands_do(tmp_path):
    good = run(2, "--out", tmp_path / "data", "--size", 32, "--workers", 1)
    assert good.returncode == 0 and "pairs/s" in good.stdout and "seg_check" in good.stdout and not good.stderr
    assert run("--help").returncode == 0 and run("many").returncode == 2


@pytest.mark.parametrize("words, says", [
    ([0], "0 pairs are asked for"),
    ([1, "--size", 8], "--size is 8"),
    ([1, "--config", "none.json"], "cannot read the room settings none.json"),
])
def test_bad_input_is_one_sentence(words, says, tmp_path):
    done = run(*words, "--out", tmp_path / "bad")
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "bad").exists()


def test_a_file_of_ranges_changes_the_rooms(tmp_path):
    ranges = tmp_path / "ranges.json"
    ranges.write_text(json.dumps(dict(night=1.0, width=[3.0, 3.5])))
    done = run(2, "--out", tmp_path / "rooms", "--size", 32, "--workers", 1, "--config", ranges, "--ranges", "dog=0")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "rooms" / "generation.json").read_text())["config"]
    assert (config["night"], config["width"], config["dog"]) == (1.0, [3.0, 3.5], 0.0)
    ranges.write_text('{"wdth": [3, 4]}')
    done = run(2, "--out", tmp_path / "bad", "--config", ranges)
    assert done.returncode == 1
    assert "unknown room setting 'wdth'" in done.stderr


def test_a_lost_worker_is_one_sentence(tmp_path):
    import psutil
    process = subprocess.Popen([*COMMAND, "900", "--out", str(tmp_path), "--size", "48"], cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / "labels").glob("0*.png"))) < 4 and process.poll() is None: time.sleep(.05)
    worker = next(c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline()))
    worker.kill()
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "worker process ended" in error and "Traceback" not in error


# --- nothing is lost ----------------------------------------------------------------------------------------------

def names(out: Path) -> list[str]:
    "Numbers of the masks in a folder"
    return sorted(p.stem for p in (out / "labels").glob("*.png"))


def interrupted(out: Path, plan: Plan, whole: int, wanted: int) -> None:
    "A folder as a run leaves it that was stopped after `whole` of `wanted` pairs"
    generate(whole, out, plan)
    path = out / "generation.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | dict(complete=False, count=wanted)))


def test_fewer_pairs_after_an_interruption_remove_none(tmp_path):
    plan, said = Plan(seed=5, size=32), []
    interrupted(tmp_path, plan, whole=8, wanted=4000)
    before = digest(tmp_path / "labels")
    manifest = generate(3, tmp_path, plan, say=said.append)
    assert digest(tmp_path / "labels") == before
    assert manifest["count"] == 8 and manifest["complete"] and len(manifest["rooms"]) == 8
    assert "8 whole pairs" in said[0] and "--shrink" in said[0]


def test_pairs_are_removed_when_asked(tmp_path):
    plan = Plan(seed=5, size=32)
    interrupted(tmp_path, plan, whole=5, wanted=9)
    assert generate(4, tmp_path, plan, shrink=True)["count"] == 4
    assert names(tmp_path) == ["000000", "000001", "000002", "000003"]
    assert run(2, "--out", tmp_path, "--size", 32, "--seed", 5, "--renderer", "fast", "--shrink").returncode == 0
    assert names(tmp_path) == ["000000", "000001"]
    generate(2, tmp_path / "two", plan)
    assert digest(tmp_path / "labels") == digest(tmp_path / "two" / "labels")


def test_a_half_written_pair_is_no_whole_one(tmp_path):
    plan = Plan(seed=5, size=32)
    interrupted(tmp_path, plan, whole=4, wanted=9)
    (tmp_path / "screenshots" / "000003.png").unlink()
    (tmp_path / "screenshots" / "000007.png").write_bytes(b"cut short")
    assert generate(2, tmp_path, plan)["count"] == 3
    assert names(tmp_path) == ["000000", "000001", "000002"]
    assert not (tmp_path / "screenshots" / "000007.png").exists()


def test_a_second_generator_is_told_who_holds_the_folder(tmp_path):
    process = subprocess.Popen([*COMMAND, "2000", "--out", str(tmp_path), "--size", "32"], cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while len(names(tmp_path)) < 4 and process.poll() is None:
        time.sleep(.05)
    unfinished = tmp_path / "labels" / ".000999-x.tmp.png"
    unfinished.write_bytes(b"of the first generator")
    done = run(4, "--out", tmp_path, "--size", 32)
    kept = unfinished.exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1.5)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"process {process.pid} on {socket.gethostname()} since" in done.stderr
    assert kept
    assert run(4, "--out", tmp_path, "--size", 32).returncode == 0  # what a dead process left behind holds nobody up
    assert not (tmp_path / "generation.lock").exists()


# --- the label table ----------------------------------------------------------------------------------------------

def test_the_manifest_holds_the_label_table(sample):
    manifest = json.loads((sample / "generation.json").read_text())
    assert manifest["labels"] == list(ROOM_LABELS.codes[1:])
    assert manifest["label_colors"] == [list(c) for c in ROOM_LABELS.colors[1:]]


def test_a_folder_of_another_label_table_is_refused(tmp_path):
    plan = Plan(seed=5, size=32)
    generate(2, tmp_path, plan)
    path = tmp_path / "generation.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | dict(labels=["new", *manifest["labels"]])))
    with pytest.raises(SegError, match="another labels .*--out"):
        generate(3, tmp_path, plan)


def test_a_manifest_of_an_earlier_version_is_read(tmp_path):
    plan = Plan(seed=5, size=32)
    manifest = generate(2, tmp_path, plan)
    counts = manifest.pop("label_counts")
    del manifest["label_colors"]
    (tmp_path / "generation.json").write_text(json.dumps(manifest | dict(labels=counts)))
    assert generate(3, tmp_path, plan)["count"] == 3


# --- one room -----------------------------------------------------------------------------------------------------

ONE_ROOM = Plan(seed=2, size=48, one_room=7)


def test_one_room_gives_ever_other_views_of_the_same_objects(tmp_path):
    manifest = generate(12, tmp_path, replace(ONE_ROOM, truth=("boxes",)))
    assert set(manifest["rooms"].values()) == {7} and manifest["one_room"] == 7
    assert len(set(digest(tmp_path / "labels").values())) == 12
    room = make_room(7)
    for path in (tmp_path / "objects").iterdir():
        for row in json.loads(path.read_text()):
            assert room.things[row["id"] - 1].label == row["label"]


def test_one_room_is_split_by_image(tmp_path):
    generate(10, tmp_path, ONE_ROOM)
    train, valid = split_pairs(find_pairs(tmp_path))
    assert (train, valid) == (list(range(8)), [8, 9])


def test_one_room_gives_the_same_bytes_however_it_is_run(tmp_path):
    generate(9, tmp_path / "whole", ONE_ROOM)
    generate(4, tmp_path / "parts", ONE_ROOM)
    generate(9, tmp_path / "parts", ONE_ROOM, workers=2)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    words = ["--out", tmp_path / "command", "--size", 48, "--seed", 2, "--one_room", 7, "--renderer", "fast", "--workers", 1]
    done = run(9, *words)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "command") == digest(tmp_path / "whole")
    other = generate(9, tmp_path / "other", replace(ONE_ROOM, seed=3))
    assert other["rooms"] == json.loads((tmp_path / "whole" / "generation.json").read_text())["rooms"]
    assert not set(digest(tmp_path / "other" / "labels").values()) & set(digest(tmp_path / "whole" / "labels").values())


def test_one_room_and_many_are_not_mixed(tmp_path):
    generate(2, tmp_path, ONE_ROOM)
    with pytest.raises(SegError, match="another one_room .*--out"):
        generate(3, tmp_path, replace(ONE_ROOM, one_room=None))
    with pytest.raises(SegError, match="--one_room is -1"):
        replace(ONE_ROOM, one_room=-1)
    with pytest.raises(SegError, match="leave --images_per_room out"):
        replace(ONE_ROOM, images_per_room=2)
