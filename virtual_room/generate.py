"""Pairs on disk: `seg_generate` draws rooms in worker processes and writes what `nbs_lib.datasets` reads.

Every pair depends on the plan and its own number only, so that workers, order and interruptions change no byte.
Must not know how rooms are made or drawn beyond `make_room`, `make_camera` and the stage.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from nbs_lib.core import SegError, atomic_path, seg_command, write_json
from nbs_lib.labels import ROOM_LABELS, write_labels
from virtual_room.lens import through_lens
from virtual_room.rooms import make_camera, make_room
from virtual_room.scene import RoomConfig, load_config, override

VERSION = 2  # of the rooms: raise it when the same seed gives other bytes
MANIFEST = "generation.json"
POSES, ROOMS = 8, 50  # poses tried in a room, and rooms tried for a pair
MIN_LABELS, MAX_SHARE, MAX_EMPTY = 3, .85, .3
DEFAULT_OUT = "Assets/Data~"


@dataclass(frozen=True)
class Plan:
    "What decides the bytes of every pair"
    seed: int = 0
    size: int = 256
    images_per_room: int = 1
    config: RoomConfig = RoomConfig()

    def __post_init__(self) -> None:
        if not 32 <= self.size <= 2048: raise SegError(f"--size is {self.size}; give 32 to 2048 pixels")
        if self.seed < 0: raise SegError(f"--seed is {self.seed}; give 0 or more")
        if self.images_per_room < 1: raise SegError(f"--images_per_room is {self.images_per_room}; give 1 or more")

    def room_of(self, image: int) -> int: return image // self.images_per_room


class Studio:
    "Draws the pairs of a plan, one after the other, on one stage"

    def __init__(self, plan: Plan) -> None:
        from virtual_room.render import Stage
        self.plan, self.stage, self.shown, self.room = plan, Stage(plan.size), None, None

    def pair(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        "Picture and mask of an image's number: the first pose, then the first room, that shows enough"
        for attempt in range(ROOMS):
            self._enter([self.plan.seed, self.plan.room_of(image), attempt])
            for pose in range(POSES):
                rng = np.random.default_rng([*self.shown, image, pose])
                camera = make_camera(self.room, rng, self.plan.config)
                mask = self.stage.mask(camera)
                if worth_learning(mask): return through_lens(self.stage.picture(camera), camera, rng), mask
        raise SegError(f"no view of {ROOMS} rooms shows {MIN_LABELS} labels for image {image}; widen the ranges of the room settings")

    def _enter(self, seed: list[int]) -> None:
        if self.shown == seed: return
        self.room, self.shown = make_room(seed, self.plan.config), seed
        self.stage.show(self.room)


def count(mask: np.ndarray) -> np.ndarray:
    "Pixels (n_classes,) of each label"
    return np.bincount(mask.ravel(), minlength=ROOM_LABELS.n_classes)


def worth_learning(mask: np.ndarray) -> bool:
    "At least three labels, none over 85 % of the picture, and little that is empty"
    n = count(mask)
    return bool((n[1:] > 0).sum() >= MIN_LABELS and n.max() <= MAX_SHARE * mask.size and n[0] <= MAX_EMPTY * mask.size)


@dataclass(frozen=True)
class Folder:
    "Where the pairs are"
    out: Path

    def paths(self, image: int) -> tuple[Path, Path]:
        return self.out / "screenshots" / f"{image:06d}.png", self.out / "labels" / f"{image:06d}.png"

    def finished(self, image: int, size: int) -> np.ndarray | None:
        "Label counts of a pair that is whole on disk, else None"
        try:
            with Image.open(self.paths(image)[0]) as picture, Image.open(self.paths(image)[1]) as mask:
                picture.load()
                whole = picture.size == mask.size == (size, size) and mask.mode == "L"
                n = count(np.asarray(mask)) if whole else []
            return n if len(n) == ROOM_LABELS.n_classes else None
        except (OSError, SyntaxError): return None

    def write(self, image: int, picture: np.ndarray, mask: np.ndarray) -> None:
        "The mask last: where it is, the pair is whole"
        for path, pixels in zip(self.paths(image), (picture, mask)):
            try:
                with atomic_path(path) as tmp: Image.fromarray(pixels).save(tmp, "PNG", compress_level=1)
            except OSError as e: raise SegError(f"cannot write {path} ({e.strerror or e}); make room there or give another --out: the same command goes on") from None

    def clear(self, keep: int | None) -> None:
        "Remove what an interrupted run left half written, and pairs from number `keep` on"
        for kind in ("screenshots", "labels"):
            folder = self.out / kind
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                ours = path.suffix == ".png" and path.stem.isdigit() and len(path.stem) == 6
                if path.match(".[0-9]*-*.tmp.png") or ours and keep is not None and int(path.stem) >= keep: path.unlink()


# One studio a worker process
_worker: tuple[Studio, Folder] | None = None


def _start_worker(plan: Plan, out: Path) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent: threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _worker = Studio(plan), Folder(out)


def _pairs(images: list[int]) -> list[np.ndarray]:
    return [_pair(*_worker, image) for image in images]


def _pair(studio: Studio, folder: Folder, image: int) -> np.ndarray:
    "Make one pair unless it is there; its label counts"
    n = folder.finished(image, studio.plan.size)
    if n is not None: return n
    picture, mask = studio.pair(image)
    folder.write(image, picture, mask)
    return count(mask)


def _batches(plan: Plan, total: int) -> Iterator[list[int]]:
    "The images of a room together"
    for first in range(0, total, plan.images_per_room): yield list(range(first, min(total, first + plan.images_per_room)))


@contextmanager
def _pool(plan: Plan, out: Path, workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (plan, out))
    try: yield pool
    except BrokenProcessPool: raise SegError("a worker process ended unexpectedly, perhaps for want of memory; give fewer --workers: the same command goes on") from None
    finally: pool.shutdown(wait=True, cancel_futures=True)


def _made(plan: Plan, out: Path, total: int, workers: int) -> Iterator[list[np.ndarray]]:
    "Label counts of the batches, as they get ready"
    batches = _batches(plan, total)
    if workers == 1:
        studio, folder = Studio(plan), Folder(out)
        yield from ([_pair(studio, folder, i) for i in batch] for batch in batches)
        return
    with _pool(plan, out, workers) as pool:
        waiting: set[Future] = set()
        while True:
            waiting |= {pool.submit(_pairs, b) for b in islice(batches, 4 * workers - len(waiting))}
            if not waiting: return
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready: yield future.result()


def _progress(batches: Iterable[list[np.ndarray]], total: int, say: Callable[[str], None]) -> Iterator[np.ndarray]:
    "Pass the pairs on and say, now and then, how far, how fast and how long"
    start, done, told = time.perf_counter(), 0, 0.0
    live = sys.stdout.isatty()
    for batch in batches:
        yield from batch
        done, now = done + len(batch), time.perf_counter() - start
        if now - told < (.5 if live else 15) and done < total: continue
        told = now
        line = f"{done}/{total} pairs, {done / now:.1f}/s, {(total - done) * now / done:.0f} s left"
        say(f"\r{line}   " if live else f"{line}\n")
    if live: say("\n")


def _quiet(text: str) -> None: pass


def _tell(text: str) -> None: print(text, end="", flush=True)


def _settings(plan: Plan, renderer: str) -> dict:
    "What must be the same for a folder to go on with"
    return dict(version=VERSION, seed=plan.seed, size=plan.size, images_per_room=plan.images_per_room, renderer=renderer, config=json.loads(json.dumps(asdict(plan.config))))


def _manifest(plan: Plan, settings: dict, total: int, complete: bool, pixels: np.ndarray, images: np.ndarray) -> dict:
    labels = {c: dict(pixels=int(p), images=int(i)) for c, p, i in zip(ROOM_LABELS.codes, pixels, images)}
    return dict(**settings, count=total, complete=complete, labels=labels, rooms={f"{i:06d}": plan.room_of(i) for i in range(total)})


def _prepare(folder: Folder, settings: dict, count: int, overwrite: bool) -> int:
    "Check that the folder may be written and gone on with; how many pairs it shall hold"
    try: folder.out.mkdir(parents=True, exist_ok=True)
    except OSError as e: raise SegError(f"cannot make the folder {folder.out} ({e.strerror}); give another --out") from None
    if not os.access(folder.out, os.W_OK): raise SegError(f"the folder {folder.out} is not writable; give another --out")
    before = _before(folder, settings) if not overwrite else None
    total = max(count, before["count"]) if before and before["complete"] else count
    try: folder.clear(total if before else 0 if overwrite else None)
    except OSError as e: raise SegError(f"cannot write in {folder.out} ({e.strerror}); give another --out") from None
    return total


def _before(folder: Folder, settings: dict) -> dict | None:
    "The folder's manifest, None for a new folder; a folder of anything else is refused"
    path, remedy = folder.out / MANIFEST, "give another --out, or --overwrite to replace its pairs"
    if not path.exists():
        if any((folder.out / "labels").glob("*.png")): raise SegError(f"{folder.out} holds pairs that seg_generate did not make; {remedy}")
        return None
    try: manifest = json.loads(path.read_text())
    except ValueError: raise SegError(f"{path} is not readable as JSON; {remedy}") from None
    changed = [k for k, v in settings.items() if manifest.get(k) != v]
    if not changed: return manifest
    k = changed[0]
    if k == "config": detail = ", ".join(n for n, v in settings[k].items() if (manifest.get(k) or {}).get(n) != v)
    else: detail = f"{manifest.get(k)}, now {settings[k]}"
    raise SegError(f"{folder.out} was made with another {k} ({detail}); {remedy}")


def renderer_name() -> str:
    "The driver that will draw, or a `SegError` that says what is missing"
    from virtual_room.render import driver
    return driver()


def generate(count: int, out: str | Path = DEFAULT_OUT, plan: Plan = Plan(), workers: int = 1, overwrite: bool = False, say: Callable[[str], None] = _quiet) -> dict:
    "Bring the folder `out` to `count` pairs of `plan`, going on with what is there; its manifest"
    if count < 1: raise SegError(f"{count} pairs are asked for; give 1 or more")
    if workers < 1: raise SegError(f"--workers is {workers}; give 1 or more")
    folder, settings = Folder(Path(out)), _settings(plan, renderer_name())
    total = _prepare(folder, settings, count, overwrite)
    pixels, images = (np.zeros(ROOM_LABELS.n_classes, np.int64) for _ in range(2))
    write_labels(ROOM_LABELS, folder.out / "labels.csv")
    write_json(folder.out / MANIFEST, _manifest(plan, settings, total, False, pixels, images))
    for n in _progress(_made(plan, folder.out, total, min(workers, total)), total, say):
        pixels += n
        images += n > 0
    manifest = _manifest(plan, settings, total, True, pixels, images)
    write_json(folder.out / MANIFEST, manifest)
    return manifest


@seg_command
def seg_generate(
    n: int,  # How many pairs the folder shall hold
    out: str = DEFAULT_OUT,  # Folder for screenshots/, labels/, labels.csv and generation.json
    size: int = 256,  # Width and height in pixels, 32 to 2048
    workers: int = 2,  # Processes that draw
    seed: int = 0,  # Another seed, other rooms
    images_per_room: int = 1,  # Views of each room
    config: str = "",  # A JSON file with ranges of the rooms, see RoomConfig
    ranges: str = "",  # Some of these ranges, such as "night=0.5 width=3,4"
    overwrite: bool = False,  # Replace the pairs of a folder made with other settings?
):
    "Draw `n` pairs of a room's picture and its exact label mask; run again to go on or to get more."
    plan = Plan(seed, size, images_per_room, override(load_config(config) if config else RoomConfig(), ranges))
    start = time.perf_counter()
    manifest = generate(n, out, plan, workers, overwrite, _tell)
    took = time.perf_counter() - start
    missing = [c for c, v in manifest["labels"].items() if not v["images"] and c != ROOM_LABELS.codes[0]]
    print(f"{manifest['count']} pairs of {size} px in {out}, {took:.0f} s, {manifest['count'] / took:.1f} pairs/s" + (f"; never seen: {', '.join(missing)}" if missing else ""))
    print(f"Next: seg_check \"{out}\", then open SegmentationLearner.ipynb")
