"Rooms for a report: the labels that a model is worst at come more often and closer, and default rooms stay as they are"

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("panda3d")

from generated import digest, run

from nbs_lib.core import SegError, write_json
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.predict import ConfidenceTally, Prediction
from virtual_room import Plan, RoomConfig, find_faults, generate, load_config, make_camera, make_room
from virtual_room.focus import choose_focus
from virtual_room.scene import FOCUS_LABELS, override

ROOMS = 40
WORDS = ["--size", 32, "--seed", 5, "--renderer", "fast", "--workers", 1]
SCORES = {
    "building_wall": .1,  # low, but every room is full of it
    "empty": 0.0,
    "furniture_doubleBed": .8,
    "furniture_rug": .6,
    "furniture_clock": .3,
    "items_vase": .2,
    "items_mug": .5,
    "items_phone": .05,
}


def write_report(path: Path, scores: dict = SCORES, measure: str = "iou", pixels: int = 1000) -> Path:
    "A report with these scores, each label of so many pixels"
    rows = [{"label": label, measure: score, "pixels": pixels} for label, score in scores.items()]
    write_json(path, dict(classes=rows))
    return path


@pytest.fixture
def report(tmp_path) -> Path:
    "A report of which items_phone and items_vase are the worst labels"
    return write_report(tmp_path / "scores.json")


# --- what a report asks for ---------------------------------------------------------------------------------------

def test_the_worst_third_is_chosen(report):
    choice = choose_focus(report)
    assert choice.weights == dict(items_phone=.95, items_vase=.8)
    says = "for scores.json, more of the labels of the lowest IoU, and close-ups of them: "
    assert str(choice) == says + "items_phone 0.05, items_vase 0.20"


def test_the_confidence_chooses_where_there_are_no_annotations(tmp_path):
    tally = ConfidenceTally(ROOM_LABELS)
    mask = np.repeat(np.uint8([ROOM_LABELS["items_mug"], ROOM_LABELS["items_tv"], ROOM_LABELS["live_dog"]]), 8)[None]
    confidence = np.repeat(np.uint8([204, 51, 255]), 8)[None]
    tally.add(Prediction(mask, confidence))
    write_json(tmp_path / "sure.json", dict(classes=tally.classes()))
    choice = choose_focus(tmp_path / "sure.json")
    assert choice.weights == dict(items_tv=.8)
    assert "lowest mean confidence" in str(choice)


def test_labels_with_few_pixels_or_no_score_are_not_judged(tmp_path):
    path = write_report(tmp_path / "scores.json", dict(items_mug=.5, items_bowl=None, items_vase=.4), pixels=4000)
    report = json.loads(path.read_text())
    report["classes"] += [dict(label="items_phone", iou=0.0, pixels=5), dict(label="live_dog", iou=0.0, pixels=0)]
    write_json(path, report)
    assert choose_focus(path).weights == dict(items_vase=.6)


def test_labels_that_were_scored_as_one_are_chosen_together(tmp_path):
    lamps = "furniture_floor_lamp + items_nightLamp"
    path = write_report(tmp_path / "scores.json", {lamps: .1, "building_door": .3, "items_tv": .4})
    assert choose_focus(path).weights == dict(furniture_floor_lamp=.9, items_nightLamp=.9)


@pytest.mark.parametrize("text, says", [
    ("{", "cannot read the report"),
    ("[]", "is no report"),
    ('{"labels": ["items_mug"]}', "is no report"),
    ('{"classes": ["items_mug"]}', "is no report"),
    ('{"classes": [{"label": "items_mug", "dice": 0.5, "pixels": 9}]}', "is no report"),
    ('{"classes": [{"label": "items_mug", "iou": "bad", "pixels": 9}]}', "is no report"),
    ('{"classes": [{"label": "items_mug", "iou": 0.5}]}', "is no report"),
    ('{"classes": []}', "is empty"),
    ('{"classes": [{"label": "sky", "iou": 0.5, "pixels": 9}]}', "other labels .* 'sky'"),
    ('{"classes": [{"label": "items_mug", "iou": 1.0, "pixels": 9}]}', "nothing bad"),
    ('{"classes": [{"label": "building_wall", "iou": 0.1, "pixels": 9}]}', "nothing bad"),
])
def test_what_is_no_report_is_one_sentence(text, says, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(SegError, match=says):
        choose_focus(tmp_path / "report.json")


def test_a_missing_report_is_one_sentence(tmp_path):
    done = run(2, "--out", tmp_path / "rooms", "--for", tmp_path / "none.json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cannot read the report" in done.stderr and "seg_eval --report" in done.stderr
    assert not (tmp_path / "rooms").exists()


# --- the range --------------------------------------------------------------------------------------------------

def test_a_focus_can_be_given_as_a_range(tmp_path):
    config = override(RoomConfig(), "focus=items_tv:1,items_mug:0.5,items_vase:0 focus_close_up=0.5")
    assert config == RoomConfig(focus=dict(items_mug=.5, items_tv=1), focus_close_up=.5)
    assert override(config, "focus=").focus == ()
    assert hash(config) == hash(override(config, ""))
    (tmp_path / "ranges.json").write_text('{"focus": {"items_tv": 1, "items_mug": 0.5}, "focus_close_up": 0.5}')
    assert load_config(tmp_path / "ranges.json") == config


@pytest.mark.parametrize("text, says", [
    ("focus=items_cup:1", "items_cup"),
    ("focus=building_wall:1", "building_wall"),
    ("focus=items_mug:2", "weight 2"),
    ("focus=items_mug", "sets nothing"),
    ("focus=items_mug:much", "sets nothing"),
    ("focus_close_up=2", "focus_close_up"),
])
def test_a_bad_focus_is_named(text, says):
    with pytest.raises(SegError, match=says):
        override(RoomConfig(), text)


@pytest.mark.parametrize("value", [5, "items_mug", ["items_mug"], {"items_mug": "much"}])
def test_a_focus_of_another_form_is_named(value):
    with pytest.raises(SegError, match="'focus'"):
        RoomConfig(focus=value)


# --- the rooms --------------------------------------------------------------------------------------------------

def rounded(numbers: tuple[float, ...]) -> str:
    "Numbers as text, to thousandths"
    return " ".join(f"{number + 0.0:.3f}" for number in np.round(numbers, 3))


def fingerprint(seeds: range) -> str:
    "The SHA-256 of what stands where in the rooms of these seeds, and of what one sees from where; to millimeters"
    lines = []
    for seed in seeds:
        room = make_room(seed)
        camera = make_camera(room, np.random.default_rng(seed))
        lines += [f"{o.label} {rounded(o.at)}" for o in room.objects]
        lines.append(rounded((*camera.at, *camera.target, camera.fov)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_default_rooms_are_what_they_were_before_there_was_a_focus():
    assert fingerprint(range(30)) == "d7d0a2eaf111d52f5cb4a6245c19bd5e155bf1b3dc71acdf772bbad3fcd915cb"


def test_without_a_focus_no_byte_changes(tmp_path):
    generate(6, tmp_path / "default", Plan(seed=5, size=32))
    generate(6, tmp_path / "none", Plan(seed=5, size=32, config=RoomConfig(focus={"live_dog": 0}, focus_close_up=1.0)))
    assert digest(tmp_path / "default") == digest(tmp_path / "none")
    config = json.loads((tmp_path / "default" / "generation.json").read_text())["config"]
    assert not [name for name in config if name.startswith("focus")]


def count_labels(config: RoomConfig, rooms: int) -> Counter:
    "How many objects of each label stand in some rooms"
    return Counter(o.label for i in range(rooms) for o in make_room([61, i], config).objects)


@pytest.fixture(scope="module")
def default_counts() -> Counter:
    "Objects of each label in 16 default rooms"
    return count_labels(RoomConfig(), 16)


@pytest.mark.parametrize("label", [name for name in FOCUS_LABELS if name != "building_door"])
def test_there_is_more_of_each_label(label, default_counts):
    counts = count_labels(RoomConfig(focus={label: 1.0}), 16)
    assert counts[label] > default_counts[label]
    assert counts.total() > .85 * default_counts.total()  # the room is no store of one thing


def test_rooms_with_more_of_everything_have_no_faults():
    config = RoomConfig(focus=dict.fromkeys(FOCUS_LABELS, 1.0))
    for i in range(12):
        assert find_faults(make_room([62, i], config)) == []


def label_counts(out: Path, config: RoomConfig) -> dict[str, dict[str, int]]:
    "Pixels of each label in pairs of some rooms, and pairs that show it"
    return generate(ROOMS, out, Plan(seed=8, size=48, config=config), workers=2)["label_counts"]


def test_pairs_show_more_of_the_chosen_labels(tmp_path):
    chosen = ("building_door", "furniture_floor_lamp", "furniture_painting", "items_phone", "live_dog")
    before = label_counts(tmp_path / "default", RoomConfig())
    after = label_counts(tmp_path / "for", RoomConfig(focus=dict.fromkeys(chosen, .9)))
    for label in set(chosen) - {"items_phone"}:
        assert after[label]["pixels"] > 1.5 * before[label]["pixels"], label
    assert after["items_phone"]["images"] > 1.2 * before["items_phone"]["images"]  # often a few pixels only
    assert after["building_wall"]["pixels"] > .8 * before["building_wall"]["pixels"]


def test_close_ups_show_what_was_chosen():
    "From where it is seen as a whole: neither as a spot nor as all of the image"
    from virtual_room.pairs import PairMaker
    value, shares = ROOM_LABELS["furniture_doubleBed"], []
    maker = PairMaker(Plan(seed=8, size=48, config=RoomConfig(focus={"furniture_doubleBed": 1.0}, focus_close_up=1.0)))
    for i in range(16):
        _, mask = maker.pair(i)
        shares.append((mask == value).mean())
    assert .15 < np.median(shares) < .7


# --- the command ------------------------------------------------------------------------------------------------

def test_a_run_for_a_report_goes_on_with_the_same_command(report, tmp_path):
    out = tmp_path / "rooms"
    done = run(3, "--out", out, *WORDS, "--for", report)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(choose_focus(report))
    focus = json.loads((out / "generation.json").read_text())["config"]["focus"]
    assert focus == dict(items_phone=.95, items_vase=.8)
    before = digest(out / "labels")
    assert run(5, "--out", out, *WORDS, "--for", report).returncode == 0
    after = digest(out / "labels")
    assert len(after) == 5 and before.items() <= after.items()
    generate(5, tmp_path / "whole", Plan(seed=5, size=32, config=RoomConfig(focus=focus)), workers=2)
    assert digest(out) == digest(tmp_path / "whole")


def test_rooms_for_another_report_are_not_mixed(report, tmp_path):
    out = tmp_path / "rooms"
    generate(2, out, Plan(seed=5, size=32))
    done = run(3, "--out", out, *WORDS, "--for", report)
    assert done.returncode == 1 and "another config (focus, focus_close_up)" in done.stderr
    generate(2, out, Plan(seed=5, size=32, config=RoomConfig(focus={"items_mug": 1})), overwrite=True)
    done = run(3, "--out", out, *WORDS, "--for", report)
    assert done.returncode == 1 and "another config (focus)" in done.stderr


def test_ranges_have_the_last_word(report, tmp_path):
    words = [*WORDS, "--for", report, "--ranges", "focus_close_up=0.1"]
    assert run(1, "--out", tmp_path / "rooms", *words).returncode == 0
    config = json.loads((tmp_path / "rooms" / "generation.json").read_text())["config"]
    assert config["focus_close_up"] == .1 and "items_phone" in config["focus"]
