"What the tests of the generator share: the command in a process of its own, and what a folder holds"

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from virtual_room.generate import seg_generate; seg_generate.main()"]


def run(*args, **kwargs) -> subprocess.CompletedProcess:
    "Run `seg_generate` with these arguments"
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, **kwargs)


def digest(out: Path) -> dict[str, str]:
    "The SHA-256 of each file below a folder, by its path"
    files = [p for p in sorted(out.rglob("*")) if p.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@contextmanager
def object_store() -> Iterator[str]:
    "An S3-compatible server with one bucket, over HTTP; its URL. Child processes find it as well"
    server_of = pytest.importorskip("moto.server", reason="the S3 server of the tests is moto: pip install 'moto[s3]'")
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = dict(AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test",
                    AWS_DEFAULT_REGION="us-east-1")
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("rooms")
        yield "s3://rooms"
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        fsspec.get_filesystem_class("s3").clear_instance_cache()
