"Which onnxruntime runs the models: none, one of the two wheels, or both by mistake"

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

ONE_SENTENCE = 'install it with `pip install ".[cpu]"`, or `pip install ".[gpu]"`'
HIDE = "import sys; sys.modules['onnxruntime'] = None; "  # as if neither wheel was installed


def write_wheel(folder: Path, name: str, version: str) -> None:
    "What pip leaves of an installed wheel for those who ask which are there."
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def run(code: str, path: Path | None = None) -> subprocess.CompletedProcess:
    "Python code in a process of its own, with a folder of further packages."
    places = [str(place) for place in (ROOT, path) if place]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


COMMANDS = {
    "seg_predict": "from nbs_lib.predict import seg_predict as command; arguments = ['photo.jpg']",
    "seg_serve": "from model_server.command import seg_serve as command; arguments = ['--port', '45872']",
}


@pytest.mark.parametrize("name,code", COMMANDS.items(), ids=COMMANDS)
def test_without_onnxruntime_there_is_one_clear_sentence(name, code, tmp_path):
    if name == "seg_serve":
        pytest.importorskip("fastapi")
    done = run(f"{HIDE}{code}; command.main(arguments)")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and ONE_SENTENCE in done.stderr


def test_an_export_says_it_before_the_work(monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    from nbs_lib.export import seg_export
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit):
        seg_export.main(["nowhere.safetensors"])
    said = capsys.readouterr().err
    assert ONE_SENTENCE in said and len(said.strip().splitlines()) == 1


def imported_at_once(path: Path) -> set[str]:
    "The packages that a module imports when it is imported itself."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_nothing_imports_it_before_it_is_needed():
    "An import at a module's beginning would end a command with a traceback."
    files = [path for package in ("nbs_lib", "model_server", "virtual_room") for path in (ROOT / package).rglob("*.py")]
    assert not [path for path in files if "onnxruntime" in imported_at_once(path)]


# Without PyTorch, whose import takes seconds
DOCTOR = """from nbs_lib.tools import doctor
doctor.gpu_name = lambda: None
doctor.seg_doctor.main(['--data', 'nothing here'])
"""


def test_the_doctor_without_onnxruntime():
    "The module is hidden, and so is what pip says about it."
    hidden = "from nbs_lib.tools import doctor; doctor.RUNTIMES.update(cpu='no-such-wheel', gpu='nor-this')\n"
    done = run(HIDE + hidden + DOCTOR)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime: onnxruntime cannot be imported, no model runs" in done.stdout
    assert 'pip install ".[cpu' in done.stdout.splitlines()[-1]


def test_the_doctor_says_which_is_active():
    done = run(DOCTOR)
    line = next(line for line in done.stdout.splitlines() if line.startswith("onnxruntime:"))
    assert "cpu" in line and "azure" not in line, line


def test_the_doctor_warns_of_both_wheels(tmp_path):
    write_wheel(tmp_path, "onnxruntime-gpu", "9.9.9")
    write_wheel(tmp_path, "onnxruntime", "9.9.9")
    done = run(DOCTOR, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime-gpu 9.9.9" in done.stdout
    warning = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"next: {warning}") and "pip uninstall -y onnxruntime onnxruntime-gpu" in last
    assert warning in next(line for line in done.stdout.splitlines() if line.startswith("onnxruntime:"))


def project() -> dict:
    "The table of pyproject.toml."
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_package_forces_neither_wheel():
    assert not [name for name in project()["dependencies"] if name.startswith("onnxruntime")]
    holding = {extra: [name for name in names if name.startswith("onnxruntime")]
               for extra, names in project()["optional-dependencies"].items()}
    assert {extra: names for extra, names in holding.items() if names} == {
        "cpu": ["onnxruntime>=1.20"], "gpu": ["onnxruntime-gpu>=1.20"]}


def test_what_the_readme_installs_predicts():
    "Its first command names one of the two extras."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = next(line for line in text.splitlines() if line.startswith("pip install"))
    assert command.startswith('pip install ".[cpu]"')
