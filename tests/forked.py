"""Commands and notebooks in processes of their own that start at once, forked from one that has imported torch before.

`run_command` starts a command, and `execute` a kernel, as a user does: that takes ten seconds where fastai must be
imported.
"""

import multiprocessing
import os
import socket
import subprocess
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([
    "nbs_lib.train", "nbs_lib.export", "nbs_lib.evaluate", "nbs_lib.tools.series", "model_server.command",
    "fastai.vision.all", "pandas", "matplotlib.pyplot"])


def run_in_fork(function, args: tuple, cwd: str, files: tuple[Path, Path], environment: dict[str, str]) -> None:
    "In the new process: call a function, with the standard output and error streams in two files."
    for stream, file in zip((1, 2), files):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(cwd)
    os.environ.update(environment)
    function(*args)


def start_in_fork(function, *args, cwd=None, files=(os.devnull, os.devnull), environment=None) -> ForkServerProcess:
    "Call a function in a new process, and leave it running."
    around = str(cwd or os.getcwd()), files, environment or {}
    process = FORKS.Process(target=run_in_fork, args=(function, args, *around))
    process.start()
    return process


def call_in_fork(function, *args, cwd=None) -> subprocess.CompletedProcess:
    "Call a function in a new process, to its end."
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "stdout"), Path(folder, "stderr")
        process = start_in_fork(function, *args, cwd=cwd, files=files)
        process.join(600)
        assert process.exitcode is not None, f"{function.__name__} is not done after ten minutes"
        stdout, stderr = (file.read_text() for file in files)
    return subprocess.CompletedProcess([function.__name__, *args], process.exitcode, stdout, stderr)


def free_port() -> int:
    "A port that nobody uses now."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rank_environment(rank: int, n: int, port: int) -> dict[str, str]:
    "What `accelerate launch` tells each of `n` processes on a CPU."
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_PORT": port}
    texts = {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    return {name: str(value) for name, value in numbers.items()} | texts


def call_on_ranks(function, *args, n: int = 2) -> list[list[str]]:
    "Call a function in `n` processes that train together; the lines that each of them printed."
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder, f"{rank}.stdout"), Path(folder, f"{rank}.stderr")) for rank in range(n)]
        processes = [start_in_fork(function, *args, files=files[rank], environment=rank_environment(rank, n, port))
                     for rank in range(n)]
        for process, (_, stderr) in zip(processes, files):
            process.join(300)
            assert process.exitcode == 0, stderr.read_text()
        return [stdout.read_text().splitlines() for stdout, _ in files]


def be_command(command, words: list[str]) -> None:
    "Be one of our commands, given as its function like `seg_train`."
    command.main(words)


def start_forked(command, *args, **kw) -> ForkServerProcess:
    "Start a command, given as its function like `seg_train`, and leave it running."
    return start_in_fork(be_command, command, [str(arg) for arg in args], **kw)


def run_forked(command, *args, cwd=None) -> subprocess.CompletedProcess:
    "Run a command, given as its function like `seg_train`, to its end."
    return call_in_fork(be_command, command, [str(arg) for arg in args], cwd=cwd)


def be_kernel(path: Path, values: dict) -> None:
    "Run a notebook with other parameters, cell by cell, in the shell that nbdev runs notebooks in: all is displayed."
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell

    from nbs_lib.tools.series import set_parameters

    notebook = set_parameters(read_nb(path), values, path.name)
    CaptureShell(path).run_all(notebook, exc_stop=True)


def run_notebook(path: Path, values: dict) -> None:
    "Run a notebook in its own folder; an error in a cell is an error of the test."
    done = call_in_fork(be_kernel, Path(path).absolute(), values, cwd=Path(path).parent)
    assert done.returncode == 0, done.stderr[-4000:]
