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
from typing import TextIO

from nbs_lib.core import SegError, delete_lock, lock_file

LOCK = "generation.lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    "Hold a folder alone while the block runs; `SegError` says which process holds it already"
    path = folder / LOCK
    file = _take(path)
    try:
        _sign(file)
        yield
    finally:
        delete_lock(file, path)


def _take(path: Path) -> TextIO:
    "An open, locked file at `path`"
    while True:
        file = open(path, "a+", encoding="utf-8")
        if not _lock(file):
            file.close()
            raise SegError(f"{path.parent} is being written by {_holder(path)}; wait for it, or give another --out")
        if _is_at(file, path):
            return file
        file.close()  # its holder removed it between the two calls: there is a new file, or none


def _lock(file: TextIO) -> bool:
    "Was the lock free? A file system or a system without locks counts as free"
    try:
        lock_file(file)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    "Is the open file still the one that lies at `path`?"
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: TextIO) -> None:
    "Write who holds the lock"
    holder = dict(host=socket.gethostname(), pid=os.getpid(), since=time.strftime("%Y-%m-%d %H:%M:%S"))
    file.truncate(0)
    file.write(json.dumps(holder))
    file.flush()


def _holder(path: Path) -> str:
    "Who holds a lock, in words"
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
