"""Windows and macOS: modules, files and commands, as far as they can be tried on another system."""
import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from test_structure import PACKAGES, module_level, source_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run_script(script: str, *args, **options) -> subprocess.CompletedProcess:
    "Run Python code in a process of its own that finds the helpers of the tests."
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{script}"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600, **options)


def top_names(nodes) -> set[str]:
    "The packages that import statements name, relative imports aside."
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def foreign(names: set[str]) -> set[str]:
    "The names that belong neither to Python nor to us."
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


# --- imports ------------------------------------------------------------------------------------------------------

IMPORT_ALL = """
import importlib
import other_system

theirs, ours = (argument.split() for argument in sys.argv[1:])
for name in theirs:
    importlib.import_module(name)
other_system.become()
failed = {}
for name in ours:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = error
assert not failed, failed
"""


def test_all_modules_import_without_what_only_unix_has():
    files = source_files()
    theirs = set().union(*(foreign(top_names(module_level(tree_of(path)))) for path in files.values()))
    deeper = {"fastai.vision.all", "fastapi.testclient", "uvicorn.protocols.http.httptools_impl",
              "uvicorn.protocols.websockets.websockets_sansio_impl", "torch.utils.data"}
    done = run_script(IMPORT_ALL, " ".join(sorted(theirs | deeper)), " ".join(files))
    assert done.returncode == 0, done.stderr[-3000:]


# --- the light path: no torch -------------------------------------------------------------------------------------

LIGHT_PATH = """
import warnings
from pathlib import Path

import fastapi.testclient, httptools, onnxruntime, panda3d.core, PIL.Image, uvicorn
import other_system

out = Path(sys.argv[1])
other_system.hide(*other_system.HEAVY)
other_system.become()
warnings.filterwarnings("error", category=EncodingWarning, module="nbs_lib|virtual_room|model_server")
"""

GENERATE_CHECK_PREDICT = LIGHT_PATH + """
from nbs_lib.predict import seg_predict
from nbs_lib.tools.doctor import seg_doctor
from nbs_lib.tools.report import seg_check
from virtual_room.export import seg_convert
from virtual_room.generate import seg_generate

rooms = out / "rooms"
seg_generate(2, out=str(rooms), size=64, workers=1)
seg_generate(3, out=str(rooms), size=64, workers=1)
seg_convert(str(rooms))
seg_predict([str(rooms / "screenshots" / "000000.png")], out=str(out / "predictions"))
seg_doctor(str(rooms))
try:
    seg_check(str(rooms), report=str(out / "report"))
except SystemExit as end:
    assert not end.code
"""

SERVE = LIGHT_PATH + """
from model_server.application import make_app
from model_server.command import Options, seg_serve
from nbs_lib.core import SegError
from nbs_lib.predict import starter_model

photo = out / "photo.png"
PIL.Image.new("RGB", (64, 48), (90, 120, 150)).save(photo)
with fastapi.testclient.TestClient(make_app(starter_model())) as client:
    answer = client.post("/v1/predict", content=photo.read_bytes(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    assert client.get("/metrics").status_code == 200
try:
    seg_serve(Options(workers=2))
except SegError as error:
    print(error)
"""


def test_rooms_masks_and_reports_on_another_system(tmp_path):
    done = run_script(GENERATE_CHECK_PREDICT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    masks = list((tmp_path / "predictions").rglob("mask/*.png"))
    assert len(masks) == 1
    assert len(list((tmp_path / "rooms" / "labels").glob("*.png"))) == 3
    assert not (tmp_path / "rooms" / "generation.lock").exists()


def test_a_server_on_another_system(tmp_path):
    done = run_script(SERVE, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "--workers 1" in done.stdout, "several workers need Unix, which is said in a sentence"


# --- training and long runs ---------------------------------------------------------------------------------------

TRAINING = """
import warnings
from pathlib import Path

import fastai.vision.all
import other_system

other_system.become()
from nbs_lib.core import SegError
from nbs_lib.learner import peak_memory, reset_peak_memory
from nbs_lib.pixel_cache import decoded
from nbs_lib.tools.night import NightSettings, seg_night
from nbs_lib.train import training_lock

out = Path(sys.argv[1])
with training_lock(out, "net"):
    assert list(out.glob("*.lock"))
assert not list(out.glob(".*.lock"))
reset_peak_memory()
assert peak_memory() > 0
pixels = decoded("key", 3, (4, 4), lambda i: i, folder=out / "cache")
assert pixels.shape == (3, 4, 4, 4) and pixels[2].min() == 2
try:
    seg_night(NightSettings(out=str(out)))
except SegError as error:
    print(error)
"""


def test_training_and_its_memory_on_another_system(tmp_path):
    done = run_script(TRAINING, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "cannot be locked" in done.stdout
    assert "needs Linux or macOS" in done.stdout


DOCTOR = "from nbs_lib.tools.doctor import seg_doctor; seg_doctor.main(['--data', 'no such folder, 写真'])"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_a_pipe_cannot_write_ends_no_command(encoding):
    "Windows writes to pipes and files in 256 characters."
    done = run_script(DOCTOR, env={"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert r"no such folder, \u5199\u771f" in done.stdout


# --- what the sources must not hold -------------------------------------------------------------------------------

TEXT_METHODS = {"read_text", "write_text"}


def mode_of(call: ast.Call) -> str:
    "The mode that a file is opened in; 'rb' where it is computed, since only bytes are written in such a mode here."
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[1:2]
    if not modes:
        return "r"
    return modes[0].value if isinstance(modes[0], ast.Constant) else "rb"


def opens_text_without_encoding(call: ast.Call) -> bool:
    "Does it read or write text in the system's own encoding, which is not UTF-8 on Windows?"
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in TEXT_METHODS
    return isinstance(call.func, ast.Name) and call.func.id == "open" and "b" not in mode_of(call)


def test_text_files_name_their_encoding():
    "Without one, UTF-8 text is read as something else on Windows."
    wrong = []
    for name, path in source_files().items():
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        wrong += [f"{name}:{call.lineno}" for call in calls if opens_text_without_encoding(call)]
    assert not wrong, "write encoding='utf-8'"


def test_file_names_that_every_system_takes():
    from other_system import REFUSED_NAME

    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = listed.stdout.splitlines()
    refused = [name for name in names if any(REFUSED_NAME.search(part) for part in Path(name).parts)]
    assert not refused
    assert len({name.lower() for name in names}) == len(names), "two names differ in capitals only"


# --- what is imported is declared ---------------------------------------------------------------------------------

NOT_INSTALLED = {"cv2": "opencv-python"}  # distributions of modules that the tests do without


def plain(name: str) -> str:
    "A distribution's name as it is compared: Pillow and pillow, a-b and a_b are one."
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    "The distributions that pyproject.toml names, in the bare package and in all extras."
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return {plain(re.match(r"[\w.-]+", line)[0]) for line in lines}


def code_of(notebook: Path) -> str:
    "The code cells of a notebook, without lines for IPython alone."
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    lines = [line for cell in cells for line in cell.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def imported_in(tree: ast.Module) -> set[str]:
    "The packages of others that code imports, inside of functions as well."
    return foreign(top_names(list(ast.walk(tree))))


@pytest.mark.parametrize("of", ["packages", "notebooks"])
def test_what_is_imported_is_declared(of):
    "What comes along with something else may stay away one day."
    if of == "packages":
        trees = [tree_of(path) for path in source_files().values()]
    else:
        trees = [ast.parse(code_of(path)) for path in ROOT.glob("*.ipynb")]
    imported = set().union(*map(imported_in, trees))
    found = packages_distributions()
    names = {name: {plain(other) for other in found.get(name, [NOT_INSTALLED.get(name, name)])} for name in imported}
    assert not [name for name in names if not names[name] & declared()], "name them in pyproject.toml"
