"""Commands in processes of their own that start at once, each forked from a process that has imported torch before.

`run_command` starts a command as a user does, which takes seconds where torch must be imported.
"""

import multiprocessing
import os
import subprocess
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["nbs_lib.train", "nbs_lib.export", "nbs_lib.evaluate", "model_server.command"])


def become(command, words: list[str], cwd: str, files: tuple[Path, Path]) -> None:
    "In the new process: be a command of ours, with the standard output and error streams in two files."
    for stream, file in zip((1, 2), files):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(cwd)
    command.main(words)


def start_forked(command, *args, cwd=None, files=(os.devnull, os.devnull)) -> ForkServerProcess:
    "Start a command, given as its function like `seg_train`, and leave it running."
    words = [str(arg) for arg in args]
    process = FORKS.Process(target=become, args=(command, words, str(cwd or os.getcwd()), files))
    process.start()
    return process


def run_forked(command, *args, cwd=None) -> subprocess.CompletedProcess:
    "Run a command, given as its function like `seg_train`, to its end."
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "stdout"), Path(folder, "stderr")
        process = start_forked(command, *args, cwd=cwd, files=files)
        process.join(600)
        assert process.exitcode is not None, f"{command.__name__} is not done after ten minutes"
        stdout, stderr = (file.read_text() for file in files)
    return subprocess.CompletedProcess([command.__name__, *args], process.exitcode, stdout, stderr)
