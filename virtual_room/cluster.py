"""Pairs drawn by the workers of a Dask cluster: the same numbers, the same bytes, more machines.

Workers need this package and the folder under the same path. A worker that is lost costs what it was drawing.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Iterator

import numpy as np

from nbs_lib.core import SegError
from virtual_room.generate import Folder, Plan, Studio, _pair, driver_of

RETRIES = 5  # deaths of workers that one batch survives
AHEAD = 4  # batches that wait for each thread of the cluster
_one_at_a_time = threading.Lock()  # the engine draws in one thread of a process


@lru_cache(maxsize=1)
def _studio(plan: Plan) -> Studio: return Studio(plan)


def draw(plan: Plan, out: str, driver: str, images: list[int]) -> list[np.ndarray]:
    "On a worker: the label counts of some pairs"
    with _one_at_a_time:
        if driver_of(plan.renderer) != driver: raise SegError(f"a Dask worker draws with {driver_of(plan.renderer)}, not {driver}; install the same panda3d there")
        return [_pair(_studio(plan), Folder(Path(out)), i) for i in images]


def made_by_dask(address: str, plan: Plan, out: Path, batches: Iterator[list[int]], driver: str) -> Iterator[list[np.ndarray]]:
    "Label counts of the batches, as they get ready"
    try: from distributed import Client, as_completed
    except ImportError: raise SegError("--dask needs the package distributed; install it with: pip install distributed") from None
    try: client = Client(address, timeout=10)
    except (OSError, ValueError, TimeoutError) as e: raise SegError(f"no Dask scheduler answers at {address} ({e}); start one with: dask scheduler") from None
    with client:
        submit = lambda batch: client.submit(draw, plan, str(out.resolve()), driver, batch, pure=False, retries=RETRIES)
        at_once = AHEAD * max(1, sum(client.nthreads().values()))
        running = as_completed([submit(b) for b in islice(batches, at_once)])
        for future in running:
            yield future.result()
            for batch in islice(batches, 1): running.add(submit(batch))
