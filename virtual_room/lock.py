"""One writer a folder: a lock file says who holds it.

The operating system keeps the lock (`flock`): a process that has died holds nothing, whatever file it left behind.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbs_lib.core import SegError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None

LOCK = "generation.lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    "Hold a folder alone while the block runs; `SegError` says which process holds it already"
    path = folder / LOCK
    descriptor = _take(path)
    try:
        _sign(descriptor)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int:
    "An open, locked file at `path`"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(descriptor):
            os.close(descriptor)
            raise SegError(f"{path.parent} is being written by {_holder(path)}; wait for it, or give another --out")
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its holder removed it between the two calls: there is a new file, or none


def _lock(descriptor: int) -> bool:
    "Was the lock free? A file system without locks counts as free"
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    "Is the open file still the one that lies at `path`?"
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    "Write who holds the lock"
    holder = dict(host=socket.gethostname(), pid=os.getpid(), since=time.strftime("%Y-%m-%d %H:%M:%S"))
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(holder).encode())


def _holder(path: Path) -> str:
    "Who holds a lock, in words"
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
