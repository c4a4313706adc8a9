"""The starter model: made from nothing at toy scale, used when no other is named, and the shipped one, where it is."""
import gzip
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from echo import echo_model

import nbs_lib.predict
from nbs_lib.core import SegError, read_json, write_json
from nbs_lib.evaluate import evaluate, plain_scoring, summarize
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.layouts import find_pairs
from nbs_lib.predict import Predictor, manifest_path, read_model, seg_predict
from nbs_lib.tools.examples import example_rooms

SHIPPED = nbs_lib.predict.STARTER
FILES = ["MODEL_CARD.md", "starter.manifest.json", "starter.onnx.gz"]
needs_shipped = pytest.mark.skipif(not SHIPPED.is_file(), reason="the starter model is not built yet")


# made from nothing

def draw_rooms(rooms, deadline: float) -> None:
    "Drawn pairs in the place of rendered ones, with what `seg_generate` writes about its own."
    example_rooms(rooms.folder, rooms.n, rooms.size, seed=rooms.seed)
    path = rooms.folder / "generation.json"
    told = dict(version=0, seed=rooms.seed, size=rooms.size, renderer="drawn", driver="", config=dict(width=[3, 5]))
    write_json(path, read_json(path, "") | told)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    "Settings of a starter model that is trained in a second; it may differ in 8 bits as it likes."
    from nbs_lib.tools.starter import StarterSettings
    tmp = tmp_path_factory.mktemp("starter")
    return StarterSettings(work=str(tmp / "work"), out=str(tmp / "package"), ladder="32:1", rooms=8, held_out=4,
                           unseen=4, images=4, accept_loss=True)


def make(settings, out):
    "All jobs with drawn rooms."
    from nbs_lib.tools import night, starter
    jobs = starter.starter_jobs(settings, draw_rooms)
    return night.run_jobs(jobs, out, report=lambda line: None)


@pytest.fixture(scope="module")
def package(toy):
    "The folder of a starter model made from nothing."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nbs_lib.learner.bf16_gain", lambda device: 1.0)
        results = make(toy, toy.work)
    assert [(r.job, r.status, r.note) for r in results if r.status != "done"] == []
    return Path(toy.out)


def test_a_model_from_nothing(package, toy):
    "Three files that say the same, the scores of the unseen rooms, no path of this machine; and again: nothing to do"
    assert sorted(path.name for path in package.iterdir()) == FILES
    model, manifest = package / "starter.onnx.gz", json.loads((package / "starter.manifest.json").read_text())
    assert model.stat().st_size == manifest["bytes"] <= 8_000_000
    assert (manifest["file"], manifest["precision"], manifest["size"]) == ("starter.onnx.gz", "int8", [32, 32])
    unseen = find_pairs(Path(toy.work) / "rooms_32" / "unseen")
    matrix, n = evaluate(Predictor(model), unseen)
    summary, _ = summarize(matrix, plain_scoring(ROOM_LABELS, ROOM_LABELS))
    assert (manifest["unseen"]["images"], manifest["unseen"]["scores"]) == (n, summary)
    card = (package / "MODEL_CARD.md").read_text()
    assert manifest["sha256"] in card and f"Dice {summary['dice']:.3f}" in card
    assert "8 rendered images to train on and 4 to validate on" in card
    for text in (card, json.dumps(manifest), read_model(model)[0].decode("latin1")):
        assert str(ROOT) not in text and toy.work not in text
    stamps = [path.stat().st_mtime_ns for path in sorted(package.iterdir())]
    assert {r.status for r in make(toy, toy.work)} == {"done"}
    assert [path.stat().st_mtime_ns for path in sorted(package.iterdir())] == stamps


def test_no_room_twice(package, toy):
    "Training, validation and scores have no image in common"
    folder = Path(toy.work) / "rooms_32"
    images = {name: {path.read_bytes() for path in (folder / name / "screenshots").iterdir()}
              for name in ("train", "held_out", "unseen")}
    assert [len(found) for found in images.values()] == [8, 4, 4]
    assert len(set.union(*images.values())) == 16


def test_a_trained_model_is_packed_alone(package, toy, tmp_path):
    "The same file again, without a training; a report of seg_eval is quoted; one about another model is refused"
    report = dict(data=dict(root="somewhere/bedrooms", pictures=7), scored=12,
                  scores=dict(miou=0.2, dice=0.3), model=dict(sha256=Predictor(package / "starter.onnx.gz").sha256))
    write_json(tmp_path / "photos.json", report)
    [trained] = (Path(toy.work) / "starter").glob("*_32.safetensors")
    settings = replace(toy, model=str(trained), out=str(tmp_path / "out"), reports=str(tmp_path / "photos.json"),
                       data=str(Path(toy.work) / "rooms_32" / "train"))
    results = make(settings, tmp_path / "table")
    assert [(r.job, r.status, r.note) for r in results if r.status != "done"] == []
    assert [r.job for r in results] == ["held_out", "unseen", "package"]
    assert (tmp_path / "out" / "starter.onnx.gz").read_bytes() == (package / "starter.onnx.gz").read_bytes()
    assert "7 images of bedrooms, scored on 12 labels: mIoU 0.200" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    from nbs_lib.tools.starter import check_quoted
    manifest = json.loads((tmp_path / "out" / "starter.manifest.json").read_text())
    with pytest.raises(SegError, match="bedrooms is of another model"):
        check_quoted(manifest | dict(sha256="another"))


def test_a_model_that_is_not_free_is_refused(tmp_path):
    from nbs_lib.tools.starter import check_bytes, check_free
    with pytest.raises(SegError, match="from scratch"):
        check_free(dict(arch="unet:resnet18", recipe=dict(pretrained=True)))
    (tmp_path / "large.onnx").write_bytes(bytes(9_000_000))
    with pytest.raises(SegError, match="more than 8"):
        check_bytes(tmp_path / "large.onnx", "unet:resnet18")


# used when no other is named

@pytest.fixture
def starter(tmp_path, monkeypatch) -> Path:
    "A model by hand in the place of the starter model."
    path = tmp_path / "starter" / "starter.onnx"
    path.parent.mkdir()
    monkeypatch.setattr(nbs_lib.predict, "STARTER", echo_model(path))
    return path


@pytest.fixture
def no_starter(tmp_path, monkeypatch) -> None:
    "A checkout without the starter model."
    monkeypatch.setattr(nbs_lib.predict, "STARTER", tmp_path / "starter.onnx")


@pytest.fixture
def photo(tmp_path) -> Path:
    example_rooms(tmp_path / "rooms", 1, 64)
    return tmp_path / "rooms" / "screenshots" / "000000.png"


def test_predictor_without_a_path(starter, photo):
    expected = Predictor(starter)(photo)
    found = Predictor()(photo)
    assert (found.mask == expected.mask).all() and (found.confidence == expected.confidence).all()


def test_a_damaged_starter_model_is_one_sentence(starter, tmp_path):
    "Cut short, or no gzip file at all"
    packed = gzip.compress(starter.read_bytes())
    for wrong in (packed[:-9], b"no model"):
        (tmp_path / "cut.onnx.gz").write_bytes(wrong)
        with pytest.raises(SegError, match="cut.onnx.gz is damaged .* copy it again"):
            Predictor(tmp_path / "cut.onnx.gz")


def test_a_missing_model_is_one_sentence(no_starter, tmp_path, capsys):
    with pytest.raises(SegError, match="build it with `seg_starter`"):
        Predictor()
    with pytest.raises(SegError, match="none.onnx is missing; .* the starter model"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(SystemExit):
        seg_predict.main(["photo.jpg"])
    assert capsys.readouterr().err.count("\n") == 1


def test_seg_predict_says_which_model_it_uses(starter, photo, tmp_path, capsys):
    seg_predict.main([str(photo), "--out", str(tmp_path / "out")])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("starter.onnx, the starter model: 24 labels")
    assert (tmp_path / "out" / "mask" / photo.name).exists()
    seg_predict.main([str(echo_model(tmp_path / "own.onnx")), str(photo), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.startswith("own.onnx: 24 labels")


def test_seg_serve_takes_it(starter, monkeypatch):
    pytest.importorskip("fastapi")
    from model_server import command
    given = []
    monkeypatch.setenv(command.ENVIRONMENT, "")
    monkeypatch.setattr(command, "checked_app", lambda: given.append(json.loads(command.os.environ["SEG_SERVE"])))
    monkeypatch.setattr(command, "say_where", lambda *about: None)
    monkeypatch.setattr(command, "run_server", lambda *args, **options: None)
    monkeypatch.setattr(command, "exit_on_signals", lambda: None)
    command.seg_serve(command.Options(port=45_871))
    assert given[0]["model"] == [str(starter)]


def test_the_demo_page_names_it(starter):
    pytest.importorskip("fastapi")
    from serving import app_client
    with app_client(starter) as client:
        assert client.get("/v1/model").json()["name"] == "starter.onnx"


def test_seg_walk_labels_without_a_server(starter, monkeypatch):
    from virtual_room.walk.live import connected
    image = np.zeros((64, 96, 3), np.uint8)
    with connected("") as (labels, stream):
        stream.send(image)
        answer = stream.receive(0.2)
    assert labels == ROOM_LABELS
    assert (answer.mask == Predictor()(image).mask).all()
    assert sum(row["share"] for row in answer.info["labels"]) == pytest.approx(1)


@pytest.mark.parametrize("server, model, says", [
    ("http://127.0.0.1:1", "a.onnx", "give one of them"), ("127.0.0.1:1", "", "give an address")])
def test_seg_walk_wants_one_source(server, model, says):
    pytest.importorskip("panda3d")
    from virtual_room.walk.command import source_of
    with pytest.raises(SegError, match=says):
        source_of(server, model)


# shipped

def build_wheel(source: Path, out: Path) -> list[str]:
    "The names in a wheel built from a folder, without a network."
    command = [sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "--no-index",
               "--wheel-dir", out, "--quiet"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_a_wheel_carries_it(tmp_path):
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml asks for")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "starter.onnx.gz", "MODEL_CARD.md", "starter.manifest.json")
    for name in ("nbs_lib", "virtual_room", "model_server"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    folder = source / "nbs_lib" / "starter"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text("here")
    names = build_wheel(source, tmp_path / "wheels")
    assert {f"nbs_lib/starter/{name}" for name in FILES} <= set(names)


@needs_shipped
def test_the_shipped_files_belong_together():
    manifest = json.loads(manifest_path(SHIPPED).read_text())
    assert SHIPPED.stat().st_size == manifest["bytes"] <= 8_000_000
    assert sorted(path.name for path in SHIPPED.parent.iterdir()) == FILES
    assert read_model(SHIPPED)[1] == manifest["sha256"]
    assert manifest["sha256"] in (SHIPPED.parent / "MODEL_CARD.md").read_text()
    assert manifest["unseen"]["images"] >= 400
    texts = [read_model(SHIPPED)[0], *(path.read_bytes() for path in SHIPPED.parent.iterdir())]
    assert not any(re.search(rb"/(home|root|work|tmp)/", text) for text in texts), "a file holds a path"


@needs_shipped
def test_the_shipped_model_knows_more_than_walls(tmp_path):
    "On rooms of a seed that its training never saw, beside an answer of walls only"
    pytest.importorskip("panda3d")
    from virtual_room import Plan, generate
    predictor = Predictor()
    generate(4, tmp_path, Plan(seed=3_000_000, size=predictor.size[0]))
    data = find_pairs(tmp_path)
    summary, _ = summarize(evaluate(predictor, data)[0], plain_scoring(ROOM_LABELS, ROOM_LABELS))
    masks = np.stack([data.read(i)[1] for i in range(len(data))])
    walls = (masks == ROOM_LABELS["building_wall"]).sum() / (masks != 0).sum()
    assert summary["foreground_accuracy"] > walls + 0.1
    assert summary["dice"] > 0.2
