"""Pairs drawn by the workers of a Dask cluster: the same numbers, the same bytes, more machines.

Workers need this package and the folder under the same path. A worker that is lost costs what it was drawing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from nbs_lib.core import SegError
from virtual_room.pairs import PairMaker, driver_of
from virtual_room.plan import Plan
from virtual_room.writer import Folder, ensure_pair

RETRIES = 5  # deaths of workers that one batch survives
BATCHES_AHEAD = 4  # that wait for each thread of the cluster
TIMEOUT = 10  # seconds until a scheduler answers
Batches = Iterator[list[int]]
_one_at_a_time = threading.Lock()  # the engine draws in one thread of a process


@lru_cache(maxsize=1)
def _maker(plan: Plan) -> PairMaker:
    return PairMaker(plan)


def draw(plan: Plan, out: str, driver: str, batch: list[int]) -> list[np.ndarray]:
    "On a worker: the label counts of some pairs. `SegError` where it would draw with another driver"
    with _one_at_a_time:
        here = driver_of(plan.renderer)
        if here != driver:
            raise SegError(f"a Dask worker draws with {here}, not {driver}; install the same panda3d there")
        folder, maker = Folder(Path(out)), _maker(plan)
        return [ensure_pair(folder, maker, index) for index in batch]


def made_by_dask(address: str, plan: Plan, out: Path, batches: Batches, driver: str) -> Iterator[list[np.ndarray]]:
    "Label counts of the batches, as they get ready. `SegError` where no scheduler answers"
    try:
        from distributed import as_completed
    except ImportError:
        raise SegError("--dask needs the package distributed; install it with: pip install distributed") from None
    with _connect(address) as client:
        def submit(batch: list[int]):
            return client.submit(draw, plan, str(out.resolve()), driver, batch, pure=False, retries=RETRIES)

        at_once = BATCHES_AHEAD * max(1, sum(client.nthreads().values()))
        running = as_completed([submit(batch) for batch in islice(batches, at_once)])
        for future in running:
            yield future.result()
            for batch in islice(batches, 1):
                running.add(submit(batch))


def _connect(address: str):
    "A client of the scheduler"
    from distributed import Client
    try:
        return Client(address, timeout=TIMEOUT)
    except (OSError, ValueError, TimeoutError) as e:
        raise SegError(f"no Dask scheduler answers at {address} ({e}); start one with: dask scheduler") from None
