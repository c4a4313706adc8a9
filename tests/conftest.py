"""What several test files need: a tiny set of rendered rooms, made once, and the commands run as a user runs them."""
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # decoded pixels of tests go with the tests
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared by processes, not by threads
# What a shell starts in the background ignores Ctrl-C, and so would what the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW_FIXTURES = {"rooms", "clean"}  # rendered rooms
# The longest first, so that two workers that take a file each end at about the same time
SLOW_FILES = ("test_train", "test_experiments", "test_predict", "test_notebooks", "test_commands", "test_night",
              "test_nodes", "test_starter", "test_benchmarks", "test_resume", "test_mixing", "test_self_training",
              "test_rooms_truth", "test_rooms_shaded", "test_server",
              "test_walk", "test_demo", "test_platforms", "test_formats", "test_segformer", "test_server_v2",
              "test_server_attacks", "test_server_models", "test_server_batches", "test_generate", "test_generate_for",
              "test_shards", "test_dask", "test_train_devices", "test_runtimes")


def by_length(item) -> int:
    "Where a test comes in the order of files, the longest first."
    return SLOW_FILES.index(item.path.stem) if item.path.stem in SLOW_FILES else len(SLOW_FILES)


def pytest_collection_modifyitems(items) -> None:
    "Mark as slow what renders rooms, trains, or starts programs; `make quick` leaves it out."
    for item in items:
        if item.path.stem in SLOW_FILES or SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    items.sort(key=by_length)


def run_command(name: str, *args, cwd=None) -> subprocess.CompletedProcess:
    "Run one of the `seg_*` commands of this environment."
    command = [Path(sys.executable).with_name(name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600)


def run_cells(path, values) -> None:
    "Run the code of a notebook in this process, with other parameters; a kernel would import fastai once more."
    import nbformat

    from nbs_lib.tools.series import set_parameters

    notebook = set_parameters(nbformat.read(path, 4), values)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    exec("\n".join(code), {})


def digest(folder) -> dict[str, str]:
    "{relative path: SHA-256} of all files in a folder, but for what `seg_fix` put aside."
    files = [path for path in Path(folder).rglob("*") if path.is_file() and ".seg_fix" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def rooms(tmp_path_factory) -> Path:
    "24 rendered pairs of 128 px, two images a room, in a folder with a space in its name. Read only."
    folder = tmp_path_factory.mktemp("rendered") / "some rooms"
    options = ("--out", folder, "--size", 128, "--images_per_room", 2, "--seed", 5)
    done = run_command("seg_generate", 24, *options)
    assert done.returncode == 0, done.stderr
    return folder
