"""The four root notebooks: their form, and a whole run in order on tiny data."""
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, run_cells
from forked import run_notebook

from nbs_lib.core import SegError
from nbs_lib.tools.series import SERIES, execute


def code_cells(name):
    "The code cells of a root notebook."
    return [cell for cell in nbformat.read(ROOT / f"{name}.ipynb", 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", SERIES)
def test_form(name):
    cells, code = nbformat.read(ROOT / f"{name}.ipynb", 4).cells, code_cells(name)
    assert code[0].metadata.get("tags") == ["parameters"]
    assert len(code) <= 22
    lines = [line for cell in code for line in cell.source.splitlines()]
    assert not [line for line in lines if line.startswith(("class ", "%env", "/"))]
    assert sum(cell.cell_type == "markdown" for cell in cells) >= len(code) / 2
    shown = [output for cell in code for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    assert (ROOT / f"{name}.ipynb").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", SERIES)
def test_is_committed_with_its_outputs(name):
    "People read the notebooks without running them."
    code = code_cells(name)
    assert sum(bool(cell.outputs) for cell in code) >= len(code) / 2
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


def run(name, **values) -> None:
    "Run a root notebook with other parameters."
    run_notebook(ROOT / f"{name}.ipynb", values)


def test_the_series_runs(rooms, tmp_path, monkeypatch):
    "All four, in order, on 24 small rooms: the smallest run that touches every cell. The first has a real kernel."
    monkeypatch.chdir(ROOT)
    data = tmp_path / "Data with a space"
    shutil.copytree(rooms, data)
    models = str(data / "models")
    common = {"DATA": str(data), "MODELS": models, "ARCH": "narrow:resnet18"}
    first = common | {"SIZE": 32, "EPOCHS": 1, "BS": 8, "VALID": 0.2}
    execute("SegmentationLearner.ipynb", first, tmp_path / "1.ipynb", progress=lambda line: None)
    run("GoBig", **common, FROM=32, SIZES=[64], EPOCHS=[1], BS=8, VALID=0.2)
    made = {path.suffix for path in Path(models).glob("narrow_resnet18_32.*")}
    assert made >= {".safetensors", ".json", ".pkl", ".onnx"}
    run("ONNX", DATA=str(data), MODELS=models, MODEL="narrow_resnet18_64", REPEATS=2)
    run("RealImagePred", MODELS=models, MODEL="narrow_resnet18_64", PHOTOS=str(data / "test"), LABELLED=str(data),
        MAPPING="", ONLY="")
    ladder = (Path(models) / "ladder.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in ladder] == ["model", "narrow_resnet18_32", "narrow_resnet18_64"]
    assert not list(Path(models).glob("*.checkpoint")), "a finished run leaves no checkpoint"


@pytest.mark.parametrize("name, values, says", [
    ("SegmentationLearner", {"DATA": "no such folder"}, "the folder no such folder does not exist"),
    ("SegmentationLearner", {"SIZE": 256}, "above the images' own"),
    ("GoBig", {"FROM": 96}, "run SegmentationLearner.ipynb first"),
    ("GoBig", {"SIZES": [512]}, "above the images' own"),
])
def test_bad_parameters_are_one_sentence(name, values, says, rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = {"DATA": str(rooms), "MODELS": str(tmp_path)} | values
    with pytest.raises(SegError, match=says):
        run_cells(f"{name}.ipynb", values)


def test_a_failing_notebook_is_not_written(tmp_path, monkeypatch):
    "In a real kernel: the cell's error is the error of the run."
    monkeypatch.chdir(ROOT)
    with pytest.raises(SegError, match="RealImagePred.ipynb failed: SegError: .*no such folder"):
        execute("RealImagePred.ipynb", {"MODELS": "no such folder"}, tmp_path / "x.ipynb", progress=lambda line: None)
    assert not (tmp_path / "x.ipynb").exists()
