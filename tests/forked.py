"""Commands and notebooks in processes of their own that start at once, forked from one that has imported torch before.

`run_command` starts a command, and `execute` a kernel, as a user does: that takes ten seconds where fastai must be
imported.
"""

import multiprocessing
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


def rank_environment(rank: int, n: int, port: int, per_node: int) -> dict[str, str]:
    "What `accelerate launch` tells each of `n` processes, `per_node` on each node, that compute on a CPU."
    node, local_rank = divmod(rank, per_node)
    numbers = {"RANK": rank, "WORLD_SIZE": n, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": per_node,
               "GROUP_RANK": node, "MASTER_PORT": port}
    texts = {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    return {name: str(value) for name, value in numbers.items()} | texts


class Ranks:
    "Processes that train together, each of which calls the same function; `join` waits for them."

    def __init__(self, function, *args, n: int = 2, per_node: int | None = None):
        port, self.folder = free_port(), tempfile.TemporaryDirectory()
        self.processes = [self.start(function, args, rank_environment(rank, n, port, per_node or n))
                          for rank in range(n)]

    def start(self, function, args: tuple, environment: dict[str, str]) -> ForkServerProcess:
        "The process of one rank."
        files = self.files(int(environment["RANK"]))
        return start_in_fork(function, *args, files=files, environment=environment)

    def files(self, rank: int) -> tuple[Path, Path]:
        "Where a rank's standard output and error streams go."
        return Path(self.folder.name, f"{rank}.stdout"), Path(self.folder.name, f"{rank}.stderr")

    def join(self, rank: int, seconds: float = 300) -> subprocess.CompletedProcess:
        "What became of a rank, which must end within so many seconds."
        process = self.processes[rank]
        process.join(seconds)
        stdout, stderr = (file.read_text() for file in self.files(rank))
        assert process.exitcode is not None, f"rank {rank} is not done after {seconds} s: {stderr}"
        return subprocess.CompletedProcess(["rank", rank], process.exitcode, stdout, stderr)

    def join_all(self) -> list[subprocess.CompletedProcess]:
        "What became of each rank."
        return [self.join(rank) for rank in range(len(self.processes))]

    def kill(self) -> None:
        "End what still runs."
        for process in self.processes:
            process.kill()
            process.join()
        self.folder.cleanup()


@contextmanager
def ranks(function, *args, **kw) -> Iterator[Ranks]:
    "A `with` inside which `Ranks` run; none is left behind."
    started = Ranks(function, *args, **kw)
    try:
        yield started
    finally:
        started.kill()


def call_on_ranks(function, *args, n: int = 2, per_node: int | None = None) -> list[list[str]]:
    "Call a function in `n` processes that train together, to their end; the lines that each of them printed."
    with ranks(function, *args, n=n, per_node=per_node) as started:
        all_done = started.join_all()
        for done in all_done:
            assert done.returncode == 0, done.stderr
        return [done.stdout.splitlines() for done in all_done]


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
