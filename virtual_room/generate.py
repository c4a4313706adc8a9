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
from virtual_room.assets import Asset, read_assets, record
from virtual_room.lens import through_lens
from virtual_room.rooms import make_camera, make_room
from virtual_room.scene import Room, RoomConfig, load_config, override

VERSION = 4  # of the rooms: raise it when the same seed gives other bytes
MANIFEST = "generation.json"
POSES, ROOMS = 8, 50  # poses tried in a room, and rooms tried for a pair
MIN_LABELS, MAX_SHARE, MAX_EMPTY = 3, .85, .3
RENDERERS = ("fast", "shaded")
TRUTHS = ("instances", "boxes", "visible", "depth", "normals")
FOLDERS = dict(screenshots="png", labels="png", instances="png", objects="json", depth="png", normals="png")
DEFAULT_OUT = "Assets/Data~"


@dataclass(frozen=True)
class Plan:
    "What decides the bytes of every pair"
    seed: int = 0
    size: int = 256
    images_per_room: int = 1
    config: RoomConfig = RoomConfig()
    truth: tuple[str, ...] = ()  # more than masks: see TRUTHS
    renderer: str = "fast"  # or shaded
    assets: tuple[Asset, ...] = ()  # models of one's own

    def __post_init__(self) -> None:
        if self.renderer not in RENDERERS: raise SegError(f"--renderer is '{self.renderer}'; give auto, {' or '.join(RENDERERS)}")
        if not 32 <= self.size <= 2048: raise SegError(f"--size is {self.size}; give 32 to 2048 pixels")
        if self.seed < 0: raise SegError(f"--seed is {self.seed}; give 0 or more")
        for name in self.truth:
            if name not in TRUTHS: raise SegError(f"--truth has '{name}'; give some of {', '.join(TRUTHS)}, or nothing")
        if self.images_per_room < 1: raise SegError(f"--images_per_room is {self.images_per_room}; give 1 or more")

    def room_of(self, image: int) -> int: return image // self.images_per_room


def stage_of(plan: Plan):
    "What draws a plan"
    if plan.renderer == "fast":
        from virtual_room.render import Stage
        return Stage(plan.size)
    from virtual_room.shaded import Stage
    return Stage(plan.size, geometry=bool({"depth", "normals"} & set(plan.truth)))


class Studio:
    "Draws the pairs of a plan, one after the other, on one stage"

    def __init__(self, plan: Plan) -> None:
        self.plan, self.stage, self.shown, self.room, self.camera = plan, stage_of(plan), None, None, None

    def pair(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        "Picture and mask of an image's number: the first pose, then the first room, that shows enough"
        for attempt in range(ROOMS):
            self._enter([self.plan.seed, self.plan.room_of(image), attempt])
            for pose in range(POSES):
                rng = np.random.default_rng([*self.shown, image, pose])
                camera = make_camera(self.room, rng, self.plan.config)
                mask = self.stage.mask(camera)
                self.camera = camera
                if worth_learning(mask): return through_lens(self.stage.picture(camera), camera, rng), mask
        raise SegError(f"no view of {ROOMS} rooms shows {MIN_LABELS} labels for image {image}; widen the ranges of the room settings")

    def truth(self) -> dict[str, np.ndarray | list]:
        "What the plan wants to know, besides the mask, of the pair made last, by folder: instances and depth in millimetres (H, W) uint16, objects, normals (H, W, 3) uint8"
        wanted, out = set(self.plan.truth), {}
        if wanted & {"instances", "boxes", "visible"}: out["instances"] = self.stage.instances(self.camera).astype(np.uint16)
        if wanted & {"boxes", "visible"}: out["objects"] = self._objects(out["instances"])
        if wanted & {"depth", "normals"}:
            depth, normals = self.stage.geometry(self.camera)
            if "depth" in wanted: out["depth"] = (depth * 1000).round().astype(np.uint16)
            if "normals" in wanted: out["normals"] = ((normals + 1) * 127.5).round().astype(np.uint8)
        return out

    def _objects(self, seen: np.ndarray) -> list[dict]:
        objects = described(seen, self.room, "boxes" in self.plan.truth)
        if "visible" in self.plan.truth:
            for o, whole in zip(objects, self.stage.uncovered(self.camera, [o["id"] - 1 for o in objects])): o["visible"] = round(min(1.0, o["pixels"] / whole), 4)
        return objects

    def _enter(self, seed: list[int]) -> None:
        if self.shown == seed: return
        self.room, self.shown = make_room(seed, self.plan.config, self.plan.assets), seed
        self.stage.show(self.room)


def described(seen: np.ndarray, room: Room, boxes: bool) -> list[dict]:
    "The things in an instance mask: number, label, kind, pixels and perhaps the box [x, y, width, height]"
    objects = []
    for i in np.flatnonzero(np.bincount(seen.ravel(), minlength=1)).tolist():
        if i == 0: continue
        thing = room.things[i - 1]
        objects.append(dict(id=i, label=thing.label, kind=thing.model.kind, pixels=int((seen == i).sum())))
        if boxes: objects[-1]["box"] = box_of(seen == i)
    return objects


def box_of(found: np.ndarray) -> list[int]:
    "[x, y, width, height] of the True pixels"
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


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

    def path(self, kind: str, image: int) -> Path: return self.out / kind / f"{image:06d}.{FOLDERS[kind]}"

    def finished(self, image: int, size: int) -> np.ndarray | None:
        "Label counts of a pair that is whole on disk, else None"
        try:
            with Image.open(self.path("screenshots", image)) as picture, Image.open(self.path("labels", image)) as mask:
                picture.load()
                whole = picture.size == mask.size == (size, size) and mask.mode == "L"
                n = count(np.asarray(mask)) if whole else []
            return n if len(n) == ROOM_LABELS.n_classes else None
        except (OSError, SyntaxError): return None

    def write(self, image: int, picture: np.ndarray, mask: np.ndarray, truth: dict[str, np.ndarray | list] = {}) -> None:
        "The mask last: where it is, the pair is whole"
        for kind, content in dict(screenshots=picture, **truth, labels=mask).items():
            path = self.path(kind, image)
            try:
                if isinstance(content, list): write_json(path, content)
                else:
                    with atomic_path(path) as tmp: Image.fromarray(content).save(tmp, "PNG", compress_level=1)
            except OSError as e: raise SegError(f"cannot write {path} ({e.strerror or e}); make room there or give another --out: the same command goes on") from None

    def clear(self, keep: int | None) -> None:
        "Remove what an interrupted run left half written, and pairs from number `keep` on"
        for kind, suffix in FOLDERS.items():
            folder = self.out / kind
            if kind in ("screenshots", "labels"): folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir() if folder.is_dir() else ():
                ours = path.suffix == f".{suffix}" and path.stem.isdigit() and len(path.stem) == 6
                if path.match(f".[0-9]*-*.tmp.{suffix}") or ours and keep is not None and int(path.stem) >= keep: path.unlink()


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
    folder.write(image, picture, mask, studio.truth())
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


def _made(plan: Plan, out: Path, total: int, workers: int, dask: str, driver: str) -> Iterator[list[np.ndarray]]:
    "Label counts of the batches, as they get ready"
    batches = _batches(plan, total)
    if dask:
        from virtual_room.cluster import made_by_dask
        yield from made_by_dask(dask, plan, out, batches, driver)
        return
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


def _preview(plan: Plan, n: int, path: Path) -> None:
    from virtual_room.preview import contact_sheet
    start, driver = time.perf_counter(), driver_of(plan.renderer)
    if not 1 <= n <= 48: raise SegError(f"{n} pairs are asked for; a preview shows 1 to 48")
    with atomic_path(path) as tmp: contact_sheet(plan, n).save(tmp)
    print(f"{path}: {n} pairs as `seg_generate` will draw them, {time.perf_counter() - start:.1f} s, {driver}")


def _settings(plan: Plan, driver: str) -> dict:
    "What must be the same for a folder to go on with"
    return dict(version=VERSION, seed=plan.seed, size=plan.size, images_per_room=plan.images_per_room, truth=list(plan.truth), renderer=plan.renderer, driver=driver, assets=record(plan.assets), config=json.loads(json.dumps(asdict(plan.config))))


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


def _items(settings: dict | None) -> set[tuple[str, str]]: return {(k, str(v)) for k, v in (settings or {}).items()}


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
    if isinstance(settings[k], dict): detail = ", ".join(sorted({n for n, _ in _items(manifest.get(k)) ^ _items(settings[k])}))
    else: detail = f"{manifest.get(k)}, now {settings[k]}"
    raise SegError(f"{folder.out} was made with another {k} ({detail}); {remedy}")


def driver_of(renderer: str) -> str:
    "The driver that will draw, or a `SegError` that says what is missing"
    if renderer == "fast": from virtual_room.render import driver
    else: from virtual_room.shaded import driver
    return driver()


def chosen(renderer: str) -> str:
    "`auto` is shaded where there is a GPU with OpenGL, else fast"
    if renderer != "auto": return renderer
    from virtual_room.shaded import hardware
    return "shaded" if hardware() else "fast"


def generate(count: int, out: str | Path = DEFAULT_OUT, plan: Plan = Plan(), workers: int = 1, overwrite: bool = False, dask: str = "", say: Callable[[str], None] = _quiet) -> dict:
    "Bring the folder `out` to `count` pairs of `plan`, going on with what is there; its manifest"
    if count < 1: raise SegError(f"{count} pairs are asked for; give 1 or more")
    if workers < 1: raise SegError(f"--workers is {workers}; give 1 or more")
    folder, settings = Folder(Path(out)), _settings(plan, driver_of(plan.renderer))
    total = _prepare(folder, settings, count, overwrite)
    pixels, images = (np.zeros(ROOM_LABELS.n_classes, np.int64) for _ in range(2))
    write_labels(ROOM_LABELS, folder.out / "labels.csv")
    write_json(folder.out / MANIFEST, _manifest(plan, settings, total, False, pixels, images))
    for n in _progress(_made(plan, folder.out, total, min(workers, total), dask, settings["driver"]), total, say):
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
    truth: str = "",  # More than masks, some of: instances boxes visible depth normals
    renderer: str = "auto",  # fast (software), shaded (OpenGL: shadows and ambient occlusion), or auto: shaded where there is a GPU
    assets: str = "",  # A folder of glTF models with assets.csv (file, label, scale, up, licence), used for some of the things
    dask: str = "",  # Address of a Dask scheduler whose workers draw instead, on a file system shared with them
    preview: bool = False,  # Only draw a contact sheet of `n` pairs (48 at most), OUT/preview.png?
    overwrite: bool = False,  # Replace the pairs of a folder made with other settings?
):
    "Draw `n` pairs of a room's picture and its exact label mask; run again to go on or to get more."
    plan = Plan(seed, size, images_per_room, override(load_config(config) if config else RoomConfig(), ranges), tuple(truth.replace(",", " ").split()), chosen(renderer), read_assets(assets, _tell) if assets else ())
    if preview: return _preview(plan, n, Path(out) / "preview.png")
    start = time.perf_counter()
    manifest = generate(n, out, plan, workers, overwrite, dask, _tell)
    took = time.perf_counter() - start
    missing = [c for c, v in manifest["labels"].items() if not v["images"] and c != ROOM_LABELS.codes[0]]
    print(f"{manifest['count']} pairs of {size} px in {out}, {plan.renderer}, {took:.0f} s, {manifest['count'] / took:.1f} pairs/s" + (f"; never seen: {', '.join(missing)}" if missing else ""))
    print(f"Next: seg_check \"{out}\", then open SegmentationLearner.ipynb")
