"""What several test files need: a tiny data set of rendered rooms, made once, and the commands run as a user runs them."""
import os, subprocess, sys, tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp()  # decoded pixels of tests go with the tests


def run_command(name: str, *args, cwd=None) -> subprocess.CompletedProcess:
    "Run one of the `seg_*` commands of this environment."
    return subprocess.run([Path(sys.executable).with_name(name), *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=600)


@pytest.fixture(scope='session')
def rooms(tmp_path_factory) -> Path:
    "24 rendered pairs of 128 px, two pictures a room, in a folder with a space in its name. Read only."
    folder = tmp_path_factory.mktemp('rendered')/'some rooms'
    done = run_command('seg_generate', 24, '--out', folder, '--size', 128, '--images_per_room', 2, '--seed', 5)
    assert done.returncode == 0, done.stderr
    return folder
