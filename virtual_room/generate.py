"""Pairs on disk: `seg_generate` draws rooms in worker processes and writes what `nbs_lib.datasets` reads.

Every pair follows from the plan and its own number only, so that workers, order and interruptions change no byte.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nbs_lib.core import SegError, atomic_path, seg_command
from nbs_lib.labels import ROOM_LABELS, write_labels
from virtual_room.assets import read_assets
from virtual_room.lock import folder_lock
from virtual_room.pairs import PairMaker, choose_renderer, driver_of
from virtual_room.plan import Plan
from virtual_room.scene import DEFAULT_CONFIG, load_config, override
from virtual_room.writer import Folder, Manifest, Tally, ensure_pair, read_manifest, write_manifest

DEFAULT_OUT = "Assets/Data~"
DEFAULT_PLAN = Plan()
MAX_PREVIEW = 48
BATCHES_AHEAD = 4  # that wait for each worker
WORKER_LOST = (
    "a worker process ended unexpectedly, perhaps for want of memory; "
    "give fewer --workers: the same command goes on"
)
LOG_SECONDS, TERMINAL_SECONDS = 15, .5  # between two lines of progress

Say = Callable[[str], None]


# --- workers ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Worker:
    "What a worker process keeps between its pairs"
    maker: PairMaker
    folder: Folder

    def make(self, batch: list[int]) -> list[np.ndarray]:
        "The label counts of the pairs of a batch, each made unless it is there"
        return [ensure_pair(self.folder, self.maker, index) for index in batch]


_worker: Worker | None = None  # of this process


def _start_worker(plan: Plan, out: Path) -> None:
    "The first call in a worker process: interruptions are the parent's, and without a parent there is no work"
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker = Worker(PairMaker(plan), Folder(out))


def _end_with(parent) -> None:
    parent.join()
    os._exit(1)


def _make(batch: list[int]) -> list[np.ndarray]:
    return _worker.make(batch)


@contextmanager
def _pool(plan: Plan, out: Path, workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (plan, out))
    try:
        yield pool
    except BrokenProcessPool:
        raise SegError(WORKER_LOST) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _made_by_pool(plan: Plan, out: Path, batches: Iterator[list[int]], workers: int) -> Iterator[list[np.ndarray]]:
    "Label counts of the batches, as worker processes get them ready"
    with _pool(plan, out, workers) as pool:
        waiting: set[Future] = set()
        while True:
            free = BATCHES_AHEAD * workers - len(waiting)
            waiting |= {pool.submit(_make, batch) for batch in islice(batches, free)}
            if not waiting:
                return
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()


def _made_here(plan: Plan, out: Path, batches: Iterator[list[int]]) -> Iterator[list[np.ndarray]]:
    "Label counts of the batches, made in this process"
    worker = Worker(PairMaker(plan), Folder(out))
    for batch in batches:
        yield worker.make(batch)


def _batches(plan: Plan, total: int) -> Iterator[list[int]]:
    "The images of a room together"
    for first in range(0, total, plan.images_per_room):
        last = min(total, first + plan.images_per_room)
        yield list(range(first, last))


# --- what is said -------------------------------------------------------------------------------------------------

def _quiet(text: str) -> None:
    pass


def _tell(text: str) -> None:
    print(text, end="", flush=True)


def _progress(batches: Iterable[list[np.ndarray]], total: int, say: Say) -> Iterator[np.ndarray]:
    "Pass the label counts on and say, now and then, how far, how fast and how long"
    is_terminal = sys.stdout.isatty()
    pause = TERMINAL_SECONDS if is_terminal else LOG_SECONDS
    start, done, told = time.perf_counter(), 0, 0.0
    for batch in batches:
        yield from batch
        done += len(batch)
        spent = time.perf_counter() - start
        if spent - told >= pause or done >= total:
            told = spent
            line = _progress_line(done, total, spent)
            say(f"\r{line}   " if is_terminal else f"{line}\n")
    if is_terminal:
        say("\n")


def _progress_line(done: int, total: int, seconds: float) -> str:
    "How far one is after so many seconds, how fast, and how long it will take"
    left = (total - done) * seconds / done
    return f"{done}/{total} pairs, {done / seconds:.1f}/s, {left:.0f} s left"


def _summary(manifest: Manifest, plan: Plan, out: str, seconds: float) -> str:
    "What a finished run says"
    count = manifest["count"]
    text = f"{count} pairs of {plan.size} px in {out}, {plan.renderer}, {seconds:.0f} s, {count / seconds:.1f} pairs/s"
    missing = [name for name in ROOM_LABELS.codes[1:] if not manifest["label_counts"][name]["images"]]
    if missing:
        text += f"; never seen: {', '.join(missing)}"
    return f'{text}\nNext: seg_check "{out}", then open SegmentationLearner.ipynb'


# --- generating ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Change:
    "What may happen to the pairs that a folder holds; by default none is removed"
    overwrite: bool = False  # all go, whatever made them
    shrink: bool = False  # those go that are more than was asked for


def generate(
    count: int,
    out: str | Path = DEFAULT_OUT,
    plan: Plan = DEFAULT_PLAN,
    workers: int = 1,
    overwrite: bool = False,
    dask: str = "",
    say: Say = _quiet,
    shrink: bool = False,
) -> Manifest:
    """Bring the folder `out` to `count` pairs of `plan`, going on with what is there; its manifest.

    `SegError` where the folder cannot be written, holds something else, or is being written by another process.
    Whole pairs are removed only by `overwrite` (all of them) and `shrink` (those from number `count` on).
    """
    if count < 1:
        raise SegError(f"{count} pairs are asked for; give 1 or more")
    if workers < 1:
        raise SegError(f"--workers is {workers}; give 1 or more")
    folder, settings = Folder(Path(out)), plan.settings(driver_of(plan.renderer))
    folder.check_writable()
    with folder_lock(folder.out):
        total = _prepare(folder, settings, count, Change(overwrite, shrink), say)
        write_labels(ROOM_LABELS, folder.out / "labels.csv")
        write_manifest(folder, plan, settings, total, None)
        tally = Tally()
        for pixels in _progress(_made(folder, plan, total, workers, dask, settings["driver"]), total, say):
            tally.add(pixels)
        return write_manifest(folder, plan, settings, total, tally)


def _prepare(folder: Folder, settings: dict[str, Any], count: int, change: Change, say: Say) -> int:
    "Take half-written pairs away, and whole ones where that is asked; how many pairs the folder shall hold"
    if change.overwrite:
        folder.clear(0)
        return count
    before = read_manifest(folder, settings)
    if before is None:
        folder.clear(None)
        return count
    total = count if change.shrink else _total(folder, before, count, say)
    folder.clear(total)
    return total


def _total(folder: Folder, before: Manifest, count: int, say: Say) -> int:
    "How many pairs a folder shall hold where `count` are asked for and none may go"
    whole = folder.whole()
    total = max(count, whole[-1] + 1 if whole else 0)
    if before["complete"]:
        total = max(total, before["count"])
    if total > count:
        say(f"{folder.out} holds {len(whole)} whole pairs, which stay; --shrink removes those from number {count} on\n")
    return total


def _made(folder: Folder, plan: Plan, total: int, workers: int, dask: str, driver: str) -> Iterator[list[np.ndarray]]:
    "Label counts of all pairs in batches, as they get ready"
    batches, workers = _batches(plan, total), min(workers, total)
    if dask:
        from virtual_room.cluster import made_by_dask
        return made_by_dask(dask, plan, folder.out, batches, driver)
    if workers == 1:
        return _made_here(plan, folder.out, batches)
    return _made_by_pool(plan, folder.out, batches, workers)


def _preview(plan: Plan, n: int, path: Path) -> None:
    "Draw the first pairs of a plan into one image"
    from virtual_room.preview import contact_sheet
    if not 1 <= n <= MAX_PREVIEW:
        raise SegError(f"{n} pairs are asked for; a preview shows 1 to {MAX_PREVIEW}")
    start, driver = time.perf_counter(), driver_of(plan.renderer)
    with atomic_path(path) as tmp:
        contact_sheet(plan, n).save(tmp)
    print(f"{path}: {n} pairs as `seg_generate` will draw them, {time.perf_counter() - start:.1f} s, {driver}")


@seg_command(settings="")  # config is a file of ranges
def seg_generate(
    n: int,  # How many pairs the folder shall hold
    out: str = DEFAULT_OUT,  # Folder for screenshots/, labels/, labels.csv and generation.json
    size: int = 256,  # Width and height in pixels, 32 to 2048
    workers: int = 2,  # Processes that draw
    seed: int = 0,  # Another seed, other rooms
    images_per_room: int = 1,  # Views of each room
    one_room: int = None,  # Only the room of this seed, from ever other poses: the room that `seg_walk --seed` shows
    config: str = "",  # A JSON file with ranges of the rooms, see RoomConfig
    ranges: str = "",  # Some of these ranges, such as "night=0.5 width=3,4"
    truth: str = "",  # More than masks, some of: instances boxes visible depth normals
    renderer: str = "auto",  # fast (software), shaded (OpenGL, with shadows), or auto: shaded where there is a GPU
    assets: str = "",  # A folder of glTF models with assets.csv (file, label, scale, up, licence) to use
    dask: str = "",  # Address of a Dask scheduler whose workers draw instead, on a file system shared with them
    preview: bool = False,  # Only draw a contact sheet of `n` pairs (48 at most), OUT/preview.png?
    overwrite: bool = False,  # Replace the pairs of a folder made with other settings?
    shrink: bool = False,  # Remove pairs from number `n` on, where the folder holds more?
):
    "Draw `n` pairs of a room's image and its exact label mask; run again to go on or to get more."
    room_config = override(load_config(config) if config else DEFAULT_CONFIG, ranges)
    plan = Plan(
        seed, size, images_per_room, room_config,
        annotations=tuple(truth.replace(",", " ").split()),
        renderer=choose_renderer(renderer),
        assets=read_assets(assets, _tell) if assets else (),
        one_room=one_room,
    )
    if preview:
        _preview(plan, n, Path(out) / "preview.png")
        return
    start = time.perf_counter()
    manifest = generate(n, out, plan, workers, overwrite, dask, _tell, shrink)
    print(_summary(manifest, plan, out, time.perf_counter() - start))
