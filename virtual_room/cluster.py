"""Pairs drawn by the workers of a Dask cluster: the same numbers, the same bytes, more machines.

Workers need this package, and no disk in common: they send back what they drew, or write it to the URL of the shards.
A worker that is lost costs what it was drawing, and one that comes later gets its share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import PIL

from nbs_lib.core import SegError
from virtual_room.drawing import call_beside
from virtual_room.pairs import PairMaker, driver_of
from virtual_room.plan import VERSION, Plan
from virtual_room.workers import Target, ensure
from virtual_room.writer import Tally

RETRIES = 5  # deaths of workers that one batch survives
BATCHES_AHEAD = 2  # for each thread of the cluster
TIMEOUT = 10  # seconds until a scheduler answers


def environment(plan: Plan) -> str:
    "What must be the same on all machines for the same bytes"
    return f"{driver_of(plan.renderer)}, Pillow {PIL.__version__}, rooms of version {VERSION}"


def _check_environment(plan: Plan, wanted: str) -> None:
    here = environment(plan)
    if here != wanted:
        raise SegError(f"a Dask worker draws with {here}, not with {wanted}; install the same versions there")


def _draw(maker: PairMaker, target: Target, missing: list[int], wanted: str) -> list[Any]:
    "In a drawing process: what is to be written of some pairs"
    _check_environment(maker.plan, wanted)
    return list(target.make(maker, missing))


def _draw_and_write(maker: PairMaker, target: Target, missing: list[int], wanted: str) -> Tally:
    "In a drawing process: draw some pairs and write them where every machine can; their tally"
    _check_environment(maker.plan, wanted)
    return ensure(target, maker, missing)


def draw(plan: Plan, target: Target, missing: list[int], wanted: str) -> list[Any]:
    "On a worker: what is to be written of some pairs. `SegError` where it would draw with other versions"
    return call_beside(_draw, plan, target, missing, wanted)


def draw_and_write(plan: Plan, target: Target, missing: list[int], wanted: str) -> Tally:
    "On a worker: draw some pairs and write them; their tally. `SegError` where it would draw with other versions"
    return call_beside(_draw_and_write, plan, target, missing, wanted)


def made_by_dask(address: str, target: Target, plan: Plan, batches: Iterator[list[int]]) -> Iterator[Tally]:
    "Tallies of the batches, as they get ready. `SegError` where no scheduler answers"
    try:
        from distributed import as_completed
    except ImportError:
        raise SegError("--dask needs the package distributed; install it with: pip install distributed") from None
    with _connect(address) as client:
        work = Work(client, target, plan)
        running = as_completed([])
        work.start_more(running, batches)
        yield work.take_found()
        for future in running:
            yield work.written(future.result())
            work.start_more(running, batches)
            yield work.take_found()


class Work:
    "What the workers of a cluster are asked for"

    def __init__(self, client, target: Target, plan: Plan) -> None:
        self.client, self.target, self.plan = client, target, plan
        self.environment = environment(plan)
        self.function = draw_and_write if target.is_everywhere else draw
        self.found = Tally()  # pairs that were there already

    def start_more(self, running, batches: Iterator[list[int]]) -> None:
        "Keep every thread of the cluster busy, as many as there are now"
        at_once = BATCHES_AHEAD * max(1, sum(self.client.nthreads().values()))
        while running.count() < at_once:
            batch = next(batches, None)
            if batch is None:
                return
            tally, missing = self.target.there(self.plan, batch)
            self.found.merge(tally)
            if missing:
                running.add(self.submit(missing))

    def submit(self, missing: list[int]):
        "The future of some pairs"
        args = (self.plan, self.target, missing, self.environment)
        return self.client.submit(self.function, *args, pure=False, retries=RETRIES)

    def written(self, result: Any) -> Tally:
        "The tally of what a worker has written, or of what it has drawn and is written here"
        if isinstance(result, Tally):
            return result
        tally = Tally()
        for piece in result:
            tally.merge(self.target.write(piece))
        return tally

    def take_found(self) -> Tally:
        "The tally of the pairs that were found since the last call"
        found, self.found = self.found, Tally()
        return found


def _connect(address: str):
    "A client of the scheduler"
    from distributed import Client
    try:
        return Client(address, timeout=TIMEOUT)
    except (OSError, ValueError, TimeoutError) as e:
        raise SegError(f"no Dask scheduler answers at {address} ({e}); start one with: dask scheduler") from None
