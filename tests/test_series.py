"""`make run`: what is up to date is not done again, and what is not up to date is never called so."""
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from PIL import Image

import nbs_lib
from nbs_lib.core import SegError, write_json
from nbs_lib.tools import series
from nbs_lib.tools.examples import example_rooms

SAVES_A_MODEL = """\
from pathlib import Path
Path(MODELS).mkdir(exist_ok=True)
(Path(MODELS)/'NAME.safetensors').write_text('weights')
with open('runs.txt', 'a') as f: f.write('NAME\\n')"""


def small_notebook(name: str, parameters: str) -> nbformat.NotebookNode:
    "A notebook that 'trains' a model: it writes one file, and its own name to runs.txt."
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, SAVES_A_MODEL.replace("NAME", name))]
    cells[0].metadata.tags = ["parameters"]
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute_here(path, values, progress) -> None:
    "As `series.execute`, but without a kernel, which takes seconds to start."
    notebook = series.set_parameters(nbformat.read(path, 4), values)
    exec("\n".join(cell.source for cell in notebook.cells), {})
    nbformat.write(notebook, path)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    "A folder to run the series in: two notebooks of two cells, six pairs, no GPU, and rooms that are already there."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(series, "SERIES", ["First", "GoBig"])
    monkeypatch.setattr(series, "make_rooms", lambda *args: None)
    monkeypatch.setattr(series, "execute", execute_here)
    example_rooms(series.DATA)
    for name in series.SERIES:
        nbformat.write(small_notebook(name, f"MODELS = '{series.DATA}/models'"), f"{name}.ipynb")
    no_gpu(monkeypatch)
    monkeypatch.setattr(series, "CPU", {"pairs": 6, "size": 64, "parameters": {}})
    return tmp_path


def no_gpu(monkeypatch, gpu=None) -> None:
    "Let the series believe in this GPU, or in none."
    monkeypatch.setattr(series, "hardware", lambda: {"cores": 1, "memory_gb": 1, "gpu": gpu})


def runs_of(root: Path) -> list[str]:
    "Run the series; the notebooks that were run by this call."
    done = root / "runs.txt"
    done.write_text("")
    series.seg_series()
    return done.read_text().split()


def make_example_rooms(n, size, out) -> None:
    "As `series.make_rooms`, but without drawing."
    example_rooms(out, n, size)
    write_json(Path(out) / "generation.json", {"size": size})


def test_there_is_something_to_look_at_before_the_long_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(series, "make_rooms", make_example_rooms)
    series.show_first_rooms(64, series.DATA)
    with Image.open(series.FIRST_LOOK) as picture:
        assert picture.height > 3*160
    assert str(series.FIRST_LOOK) in capsys.readouterr().out
    series.show_first_rooms(64, series.DATA)
    assert not capsys.readouterr().out, "there are rooms now"


def test_what_is_up_to_date_is_not_run_again(root):
    assert runs_of(root) == ["First", "GoBig"]
    assert runs_of(root) == []


def test_a_deleted_model_is_made_again(root):
    runs_of(root)
    (root / series.DATA / "models/GoBig.safetensors").unlink()
    assert runs_of(root) == ["GoBig"]
    shutil.rmtree(root / series.DATA / "models")
    assert runs_of(root) == ["First", "GoBig"]
    assert runs_of(root) == []


def test_other_weights_are_not_up_to_date(root):
    runs_of(root)
    (root / series.DATA / "models/First.safetensors").write_text("another training's")
    assert runs_of(root) == ["First"]


def test_another_label_table_is_not_up_to_date(root):
    runs_of(root)
    table = root / series.DATA / "labels.csv"
    table.write_text(table.read_text().replace("live_dog,255,221,0", "live_dog,255,221,1"))
    assert runs_of(root) == ["First", "GoBig"]


@pytest.mark.parametrize("module", ["train.py", "tools/series.py", "experiments/wnet.py"])
def test_the_fingerprint_covers_the_whole_library(module, root, monkeypatch):
    "A change in the core, in a tool or in an experiment: each makes the notebooks run again."
    library = shutil.copytree(Path(nbs_lib.__file__).parent, root / "nbs_lib")
    monkeypatch.setattr(series, "LIBRARY", library)
    runs_of(root)
    with open(library / module, "a") as file:
        file.write("\n# changed\n")
    assert runs_of(root) == ["First", "GoBig"]


def parameters_of(name: str) -> str:
    "The first code cell of a notebook in the current folder."
    return nbformat.read(f"{name}.ipynb", 4).cells[0].source


def test_the_cpu_recipe_undoes_what_the_gpu_recipe_wrote(root, monkeypatch):
    source = f"MODELS = '{series.DATA}/models'\nSIZES = [128]\nEPOCHS = [3]  # epochs\nBS = 32"
    nbformat.write(small_notebook("GoBig", source), "GoBig.ipynb")
    recipe = {"SIZES": [128, 256], "EPOCHS": [9, 9], "BS": 256}
    monkeypatch.setattr(series, "GPU", {"pairs": 6, "size": 64, "parameters": {"GoBig": recipe}})
    monkeypatch.setattr(series, "CPU", {"pairs": 6, "size": 64, "parameters": {
        "GoBig": {"SIZES": [128], "EPOCHS": [3], "BS": 32}}})
    no_gpu(monkeypatch, "a GPU")
    runs_of(root)
    assert "SIZES = [128, 256]" in parameters_of("GoBig")
    no_gpu(monkeypatch)
    assert runs_of(root) == ["GoBig"]
    assert parameters_of("GoBig") == source


def test_the_cpu_recipe_leaves_values_of_your_own(root, monkeypatch):
    source = f"MODELS = '{series.DATA}/models'\nEPOCHS = [5]"
    nbformat.write(small_notebook("GoBig", source), "GoBig.ipynb")
    monkeypatch.setattr(series, "GPU", {"pairs": 6, "size": 64, "parameters": {"GoBig": {"EPOCHS": [9]}}})
    monkeypatch.setattr(series, "CPU", {"pairs": 6, "size": 64, "parameters": {"GoBig": {"EPOCHS": [3]}}})
    runs_of(root)
    assert parameters_of("GoBig") == source


def test_both_recipes_set_the_same_parameters_of_the_real_notebooks():
    "What stands in the committed notebooks is the CPU's recipe, so that a run there leaves them as they are."
    root = Path(__file__).parent.parent
    cpu, gpu = series.CPU["parameters"], series.GPU["parameters"]
    assert {name: set(values) for name, values in cpu.items()} == {name: set(values) for name, values in gpu.items()}
    for name, values in series.CPU["parameters"].items():
        committed = series.get_parameters(nbformat.read(root / f"{name}.ipynb", 4))
        assert {key: committed[key] for key in values} == values, name


def failing_generator(monkeypatch) -> list[list[str]]:
    "Let `seg_generate` fail; the commands that were called."
    calls = []

    def run(command, **kwargs):
        calls.append([str(part) for part in command])
        return SimpleNamespace(returncode=1)
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_rooms_of_another_size_are_refused_with_the_whole_command(tmp_path, monkeypatch):
    failing_generator(monkeypatch)
    example_rooms(tmp_path)
    write_json(tmp_path / "generation.json", {"size": 64, "rooms": {}})
    with pytest.raises(SegError, match=f"64 px.*seg_generate 10 --out {tmp_path} --size 512"):
        series.make_rooms(10, 512, tmp_path)


def test_a_failing_generator_is_named_with_the_whole_command(tmp_path, monkeypatch):
    failing_generator(monkeypatch)
    with pytest.raises(SegError, match=f"seg_generate 10 --out {tmp_path} --size 512"):
        series.make_rooms(10, 512, tmp_path)


def test_larger_rooms_do_as_well(tmp_path, monkeypatch):
    calls = failing_generator(monkeypatch)
    (tmp_path / "generation.json").write_text(json.dumps({"size": 512}))
    with pytest.raises(SegError):
        series.make_rooms(10, 256, tmp_path)
    assert calls[0][-2:] == ["--size", "512"]
