"The generator: pairs are whole, the same seed gives the same bytes however it is run, bad input is one sentence"

import json
import signal
import socket
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")

from generated import COMMAND, REPO, digest, run

from nbs_lib.core import SegError
from nbs_lib.datasets import split_pairs
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.layouts import find_pairs
from virtual_room import Plan, RoomConfig, generate, make_room
from virtual_room.lock import folder_lock
from virtual_room.pairs import PairMaker, bounding_box, worth_learning
from virtual_room.workers import interrupts_wait


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    "160 pairs of 64 px, two of each room"
    out = tmp_path_factory.mktemp("sample") / "rooms"
    generate(160, out, Plan(seed=3, size=64, images_per_room=2), workers=2)
    return out


def names(out: Path) -> list[str]:
    "Numbers of the masks in a folder"
    return sorted(path.stem for path in (out / "labels").glob("[0-9]*.png"))


def write_times(out: Path) -> dict[str, int]:
    "When each mask of a folder was written"
    return {path.name: path.stat().st_mtime_ns for path in (out / "labels").glob("[0-9]*.png")}


def read_manifest(out: Path) -> dict:
    "The manifest of a folder"
    return json.loads((out / "generation.json").read_text())


def start(*words) -> subprocess.Popen:
    "Start `seg_generate` and leave it running"
    command = [*COMMAND, *map(str, words)]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_pairs(process: subprocess.Popen, out: Path, count: int) -> None:
    "Wait until a running command has written so many pairs"
    while len(names(out)) < count and process.poll() is None:
        time.sleep(.05)


def kill(process: subprocess.Popen) -> None:
    "Kill a running command, and give its workers the time to see that they are orphans"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1.5)


# --- pairs on disk ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def masks(sample) -> np.ndarray:
    "The masks (160, 64, 64) of the sample"
    return np.stack([np.asarray(Image.open(sample / "labels" / f"{i:06d}.png")) for i in range(160)])


def test_every_pair_is_well_formed(sample):
    for i in range(160):
        image, mask = (Image.open(sample / kind / f"{i:06d}.png") for kind in ("screenshots", "labels"))
        assert image.mode == "RGB" and mask.mode == "L"
        assert image.size == mask.size == (64, 64)
        assert np.asarray(image).std() > 5


def test_every_mask_is_worth_learning(masks):
    assert masks.max() < ROOM_LABELS.n_classes
    assert all(worth_learning(mask) for mask in masks)
    assert (masks == 0).mean() < .1


@pytest.mark.parametrize("pixels, worth", [
    ([0, 40, 40, 20], True),
    ([0, 60, 40, 0], False),  # two labels only
    ([30, 40, 20, 10], True),
    ([31, 39, 20, 10], False),  # too much is empty
    ([0, 85, 10, 5], True),
    ([0, 86, 10, 4], False),  # one label is nearly all there is
])
def test_what_is_worth_learning(pixels, worth):
    mask = np.repeat(np.arange(4, dtype=np.uint8), pixels).reshape(10, 10)
    assert worth_learning(mask) == worth


def test_a_bounding_box_is_left_top_width_height():
    found = np.zeros((6, 8), bool)
    found[2, 3] = found[4, 6] = True
    assert bounding_box(found) == [3, 2, 4, 3]


def test_the_manifest_counts_labels(sample, masks):
    counts = list(read_manifest(sample)["label_counts"].values())
    for value in range(ROOM_LABELS.n_classes):
        found = masks == value
        assert counts[value] == dict(pixels=found.sum(), images=found.any((1, 2)).sum())
        assert found.any() or value == 0


def test_the_manifest_names_the_rooms(sample):
    rooms = read_manifest(sample)["rooms"]
    assert len(rooms) == 160
    assert rooms["000000"] == rooms["000001"] != rooms["000002"]
    assert (sample / "labels.csv").read_text().count("\n") == 24


def test_one_worker_writes_the_same_bytes_as_two(sample, tmp_path):
    generate(24, tmp_path / "one", Plan(seed=3, size=64, images_per_room=2), workers=1)
    one, two = digest(tmp_path / "one"), digest(sample)
    del one["generation.json"]
    assert {name: two[name] for name in one} == one


def test_a_killed_run_goes_on(tmp_path):
    out, words = tmp_path / "a folder with spaces", ["--size", 48, "--seed", 5, "--renderer", "fast"]
    process = start(60, "--out", out, *words)
    wait_for_pairs(process, out, 8)
    kill(process)
    before = write_times(out)
    assert 8 <= len(before) < 60
    assert not read_manifest(out)["complete"]
    (out / "labels" / ".000059-x1.tmp.png").write_bytes(b"half")
    (out / "screenshots" / "000001.png").write_bytes(b"cut short")
    assert run(60, "--out", out, *words).returncode == 0
    after = write_times(out)
    assert len(after) == 60
    assert [name for name in before if before[name] != after[name]] == ["000001.png"]
    generate(60, tmp_path / "whole", Plan(seed=5, size=48))
    assert digest(out) == digest(tmp_path / "whole")
    assert not list(out.rglob(".*"))


def test_more_can_be_asked_for_and_fewer_change_nothing(tmp_path):
    plan = Plan(seed=5, size=48)
    generate(4, tmp_path, plan)
    assert generate(6, tmp_path, plan)["count"] == 6
    before = write_times(tmp_path)
    assert generate(3, tmp_path, plan)["count"] == 6
    assert write_times(tmp_path) == before


def test_an_interrupted_run_says_so_and_leaves_no_halves(tmp_path):
    process = start(400, "--out", tmp_path, "--size", 48)
    wait_for_pairs(process, tmp_path, 4)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert "interrupted" in error and process.returncode == 130
    masks, images = ({path.name for path in (tmp_path / kind).iterdir()} for kind in ("labels", "screenshots"))
    assert masks == images
    assert not (tmp_path / "generation.lock").exists()


def test_an_interrupt_waits_until_the_pool_is_left():
    before, left_whole = signal.getsignal(signal.SIGINT), False
    with pytest.raises(KeyboardInterrupt):
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            left_whole = True
    assert left_whole and signal.getsignal(signal.SIGINT) is before


def test_the_pool_is_only_used_where_interrupts_wait(tmp_path, monkeypatch):
    def submit_interrupted(pool, *call):
        signal.raise_signal(signal.SIGINT)  # as if Ctrl-C came while the pool holds its locks
        submitted.append(call)
        return submit(pool, *call)

    submit, submitted = ProcessPoolExecutor.submit, []
    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit_interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(100, tmp_path, Plan(size=32), workers=2)
    assert len(submitted) == 1


def test_memory_stays_flat():
    import psutil
    maker, used = PairMaker(Plan(seed=9, size=64)), []
    for i in range(180):
        maker.pair(i)
        if i in (119, 179):
            used.append(psutil.Process().memory_info().rss)
    assert used[1] < used[0] * 1.05 + 4e6


# --- bad input ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("call, says", [
    (lambda out: generate(0, out), "0 pairs"),
    (lambda out: generate(1, out, workers=0), "workers"),
    (lambda out: generate(1, out / "file" / "below"), "cannot make"),
    (lambda out: Plan(size=16), "size"),
    (lambda out: Plan(size=4096), "size"),
    (lambda out: Plan(seed=-1), "seed"),
    (lambda out: Plan(images_per_room=0), "images_per_room"),
    (lambda out: Plan(renderer="slow"), "renderer"),
    (lambda out: RoomConfig(width=(5, 4)), "width"),
    (lambda out: RoomConfig(night=1.5), "night"),
    (lambda out: RoomConfig(fov="wide"), "fov"),
])
def test_bad_settings_are_named(call, says, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegError, match=says):
        call(tmp_path)


@pytest.mark.parametrize("plan, name", [
    (Plan(seed=4, size=64, images_per_room=2), "seed"),
    (Plan(seed=3, size=32, images_per_room=2), "size"),
    (Plan(seed=3, size=64, images_per_room=1), "images_per_room"),
    (Plan(seed=3, size=64, images_per_room=2, config=RoomConfig(dog=0)), "dog"),
])
def test_a_folder_of_other_settings_is_refused(plan, name, sample):
    with pytest.raises(SegError, match=rf"another .*{name}.*--out"):
        generate(1, sample, plan)


def test_a_folder_of_other_images_is_refused(tmp_path):
    (tmp_path / "labels").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "labels" / "frame.png")
    with pytest.raises(SegError, match="did not make"):
        generate(1, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "5"])
def test_a_damaged_manifest_is_one_sentence(text, tmp_path):
    (tmp_path / "generation.json").write_text(text)
    with pytest.raises(SegError, match="not readable as JSON; .*--overwrite"):
        generate(1, tmp_path, Plan(size=32))


def test_overwrite_replaces_pairs_only(tmp_path):
    generate(3, tmp_path, Plan(seed=1, size=32))
    (tmp_path / "labels" / "mine.png").write_bytes(b"kept")
    assert generate(2, tmp_path, Plan(seed=2, size=32), overwrite=True)["count"] == 2
    found = sorted(path.name for path in (tmp_path / "labels").iterdir())
    assert found == ["000000.png", "000001.png", "mine.png"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("virtual_room.writer._write", full)
    with pytest.raises(SegError, match="No space left.*same command"):
        generate(1, tmp_path, Plan(size=32))


def test_the_command_ends_as_commands_do(tmp_path):
    done = run(2, "--out", tmp_path / "data", "--size", 32, "--workers", 1)
    assert done.returncode == 0 and not done.stderr
    assert "pairs/s" in done.stdout and "seg_check" in done.stdout
    assert run("--help").returncode == 0
    assert run("many").returncode == 2


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
    words = ["--size", 32, "--workers", 1, "--config", ranges, "--ranges", "dog=0"]
    done = run(2, "--out", tmp_path / "rooms", *words)
    assert done.returncode == 0, done.stderr
    config = read_manifest(tmp_path / "rooms")["config"]
    assert (config["night"], config["width"], config["dog"]) == (1.0, [3.0, 3.5], 0.0)
    ranges.write_text('{"wdth": [3, 4]}')
    done = run(2, "--out", tmp_path / "bad", "--config", ranges)
    assert done.returncode == 1
    assert "unknown room setting 'wdth'" in done.stderr


def test_a_lost_worker_is_one_sentence(tmp_path):
    import psutil
    process = start(900, "--out", tmp_path, "--size", 48)
    wait_for_pairs(process, tmp_path, 4)
    children = psutil.Process(process.pid).children()
    worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "worker process ended" in error and "Traceback" not in error


# --- nothing is lost ----------------------------------------------------------------------------------------------

def interrupted(out: Path, plan: Plan, whole: int, wanted: int) -> None:
    "A folder as a run leaves it that was stopped after `whole` of `wanted` pairs"
    generate(whole, out, plan)
    manifest = read_manifest(out) | dict(complete=False, count=wanted)
    (out / "generation.json").write_text(json.dumps(manifest))


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
    process = start(2000, "--out", tmp_path, "--size", 32)
    wait_for_pairs(process, tmp_path, 4)
    unfinished = tmp_path / "labels" / ".000999-x.tmp.png"
    unfinished.write_bytes(b"of the first generator")
    done = run(4, "--out", tmp_path, "--size", 32)
    kept = unfinished.exists()
    kill(process)
    assert kept
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"process {process.pid} on {socket.gethostname()} since" in done.stderr


def test_what_a_dead_process_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / "generation.lock").write_text(json.dumps(dict(host="elsewhere", pid=1, since="long ago")))
    assert generate(1, tmp_path, Plan(size=32))["complete"]
    assert not (tmp_path / "generation.lock").exists()


def test_two_in_one_process_cannot_hold_a_folder(tmp_path):
    with folder_lock(tmp_path):
        with pytest.raises(SegError, match="is being written by process"):
            generate(1, tmp_path, Plan(size=32))
    generate(1, tmp_path, Plan(size=32))


# --- the label table ----------------------------------------------------------------------------------------------

def test_the_manifest_holds_the_label_table(sample):
    manifest = read_manifest(sample)
    assert manifest["labels"] == list(ROOM_LABELS.codes[1:])
    assert manifest["label_colors"] == [list(c) for c in ROOM_LABELS.colors[1:]]


def test_a_folder_of_another_label_table_is_refused(tmp_path):
    plan = Plan(seed=5, size=32)
    generate(2, tmp_path, plan)
    manifest = read_manifest(tmp_path)
    changed = manifest | dict(labels=["new", *manifest["labels"]])
    (tmp_path / "generation.json").write_text(json.dumps(changed))
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
    manifest = generate(12, tmp_path, replace(ONE_ROOM, annotations=("boxes",)))
    assert set(manifest["rooms"].values()) == {7} and manifest["one_room"] == 7
    assert len(set(digest(tmp_path / "labels").values())) == 12
    room = make_room(7)
    for path in (tmp_path / "objects").iterdir():
        for row in json.loads(path.read_text()):
            assert room.objects[row["id"] - 1].label == row["label"]


def test_one_room_is_split_by_image(tmp_path):
    generate(10, tmp_path, ONE_ROOM)
    train, valid = split_pairs(find_pairs(tmp_path))
    assert (train, valid) == (list(range(8)), [8, 9])


def test_one_room_gives_the_same_bytes_however_it_is_run(tmp_path):
    generate(9, tmp_path / "whole", ONE_ROOM)
    generate(4, tmp_path / "parts", ONE_ROOM)
    generate(9, tmp_path / "parts", ONE_ROOM, workers=2)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    words = ["--size", 48, "--seed", 2, "--one_room", 7, "--renderer", "fast", "--workers", 1]
    done = run(9, "--out", tmp_path / "command", *words)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "command") == digest(tmp_path / "whole")
    other = generate(9, tmp_path / "other", replace(ONE_ROOM, seed=3))
    assert other["rooms"] == read_manifest(tmp_path / "whole")["rooms"]
    masks, others = (set(digest(tmp_path / name / "labels").values()) for name in ("whole", "other"))
    assert not masks & others


def test_one_room_and_many_are_not_mixed(tmp_path):
    generate(2, tmp_path, ONE_ROOM)
    with pytest.raises(SegError, match="another one_room .*--out"):
        generate(3, tmp_path, replace(ONE_ROOM, one_room=None))
    with pytest.raises(SegError, match="--one_room is -1"):
        replace(ONE_ROOM, one_room=-1)
    with pytest.raises(SegError, match="leave --images_per_room out"):
        replace(ONE_ROOM, images_per_room=2)
