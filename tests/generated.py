"What the tests of the generator share: the command in a process of its own, what a folder holds, servers and clusters"

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

REPO = Path(__file__).parent.parent
PATIENCE = 120  # seconds
COMMAND = [sys.executable, "-c", "from virtual_room.generate import seg_generate; seg_generate.main()"]


def run(*args, **kwargs) -> subprocess.CompletedProcess:
    "Run `seg_generate` with these arguments"
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, **kwargs)


def digest(out: Path) -> dict[str, str]:
    "The SHA-256 of each file below a folder, by its path"
    files = [p for p in sorted(out.rglob("*")) if p.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def server_of_tests():
    "moto's module of servers; the test is skipped where packages are missing"
    pytest.importorskip("fsspec")
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    return pytest.importorskip("moto.server", reason="the S3 server is moto: pip install 'moto[s3]'")


@contextmanager
def object_store() -> Iterator[str]:
    "An S3-compatible server in this process, with one bucket; its URL. Child processes find it as well"
    server = server_of_tests().ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        with new_bucket(*server.get_host_and_port()) as url:
            yield url
    finally:
        server.stop()


@contextmanager
def new_bucket(host: str, port: int) -> Iterator[str]:
    """The URL of a new bucket of an S3-compatible server; inside, this process and its children find that server.

    The name of the bucket is new each time: what such servers hold outlives them, as long as the process does.
    """
    import fsspec

    settings = dict(AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test",
                    AWS_DEFAULT_REGION="us-east-1")
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        bucket = f"rooms-{uuid4().hex}"
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def start(program: str, folder: Path, *words) -> subprocess.Popen:
    "Start a program of Dask as a user does, in a folder of its own"
    folder.mkdir()
    command = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, words)]
    paths = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    log = open(folder / "log", "w", encoding="utf-8")
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | dict(PYTHONPATH=paths))


def wait_until(happened) -> None:
    "Wait until something is so"
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it took too long"
        time.sleep(.05)


class Cluster:
    "A scheduler and its workers, each a process"

    def __init__(self, root: Path) -> None:
        self.root, self.workers = root, []
        file = root / "scheduler.json"
        words = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file)
        self.scheduler = start("dask_scheduler", root / "scheduler", *words)
        wait_until(lambda: file.exists() and "address" in file.read_text(encoding="utf-8"))

        self.address = json.loads(file.read_text(encoding="utf-8"))["address"]

    def add_worker(self) -> subprocess.Popen:
        "One more worker of one thread, which nobody starts again"
        folder = self.root / f"worker {len(self.workers)}"
        words = (self.address, "--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", folder)
        self.workers.append(start("dask_worker", folder, *words))
        return self.workers[-1]

    def stop(self) -> None:
        "End all processes"
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
