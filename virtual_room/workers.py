"""Who draws: this process, or a pool of processes of this machine. `virtual_room.cluster` has those of other machines.

Must not know what a command is, nor where pairs go: that is the business of a `Target`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol

from nbs_lib.core import SegError
from virtual_room.pairs import PairMaker
from virtual_room.plan import Plan
from virtual_room.writer import Tally

BATCHES_AHEAD = 4  # that wait for each worker
WORKER_LOST = (
    "a worker process ended unexpectedly, perhaps for want of memory; "
    "give fewer --workers: the same command goes on"
)


class Target(Protocol):
    "Where pairs go: a folder of files, or shards"
    is_everywhere: bool  # Can every machine write there?

    def there(self, plan: Plan, batch: list[int]) -> tuple[Tally, list[int]]:
        "The tally of those pairs of a batch that are whole, and the numbers of the others"

    def make(self, maker: PairMaker, missing: list[int]) -> Iterator[Any]:
        "Draw pairs; what is to be written, in pieces"

    def write(self, piece: Any) -> Tally:
        "Write a piece; the tally of its pairs"


def ensure(target: Target, maker: PairMaker, batch: list[int]) -> Tally:
    "Make and write those pairs of a batch that are not there; the tally of the whole batch"
    tally, missing = target.there(maker.plan, batch)
    for piece in target.make(maker, missing):
        tally.merge(target.write(piece))
    return tally


def made_here(target: Target, plan: Plan, batches: Iterator[list[int]]) -> Iterator[Tally]:
    "Tallies of the batches, made in this process"
    maker = PairMaker(plan)
    for batch in batches:
        yield ensure(target, maker, batch)


# --- a pool -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Worker:
    "What a worker process keeps between its batches"
    target: Target
    maker: PairMaker


_worker: Worker | None = None  # of this process


def _start_worker(target: Target, plan: Plan) -> None:
    "The first call in a worker process: interruptions are the parent's, and without a parent there is no work"
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker = Worker(target, PairMaker(plan))


def _end_with(parent) -> None:
    parent.join()
    os._exit(1)


def _make(batch: list[int]) -> Tally:
    return ensure(_worker.target, _worker.maker, batch)


@contextmanager
def _pool(target: Target, plan: Plan, workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (target, plan))
    try:
        yield pool
    except BrokenProcessPool:
        raise SegError(WORKER_LOST) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """A `with` inside which Ctrl-C has to wait: it is raised afterwards.

    `concurrent.futures` takes its locks in Python. An interrupt between taking a lock and entering its `with` would
    leave the lock taken, and the pool would never end.
    """
    interrupted = threading.Event()
    handler = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not callable(handler):
        yield  # nothing is raised here
        return
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupted.is_set():
        handler(signal.SIGINT, None)


def made_by_pool(target: Target, plan: Plan, batches: Iterator[list[int]], workers: int) -> Iterator[Tally]:
    """Tallies of the batches, as worker processes get them ready.

    Batches that are ready come through a queue, which may be interrupted; `concurrent.futures` may not.
    """
    with _pool(target, plan, workers) as pool:
        ready: SimpleQueue[Future] = SimpleQueue()
        waiting = 0
        while True:
            for batch in islice(batches, BATCHES_AHEAD * workers - waiting):
                with interrupts_wait():
                    pool.submit(_make, batch).add_done_callback(ready.put)
                waiting += 1
            if not waiting:
                return
            done = ready.get()
            with interrupts_wait():
                tally = done.result()
            yield tally
            waiting -= 1
