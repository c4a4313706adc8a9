"""Pairs on disk: `seg_generate` draws rooms in worker processes and writes what `nbs_lib.datasets` reads.

Every pair follows from the plan and its own number only, so that workers, order and interruptions change no byte.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbs_lib.core import SegError, atomic_path, seg_command
from nbs_lib.labels import ROOM_LABELS, write_labels
from nbs_lib.shards import Store
from virtual_room.assets import read_assets
from virtual_room.focus import choose_focus
from virtual_room.lock import folder_lock
from virtual_room.pairs import choose_renderer, driver_of
from virtual_room.plan import Plan
from virtual_room.scene import DEFAULT_CONFIG, RoomConfig, load_config, override
from virtual_room.shards import Shards, parse_part, read_generation, shard_batches, write_generation, write_table
from virtual_room.workers import Target, made_by_pool, made_here
from virtual_room.writer import Folder, Manifest, Tally, read_manifest, write_manifest

DEFAULT_OUT = "Assets/Data~"
DEFAULT_PLAN = Plan()
MAX_PREVIEW = 48
LOG_SECONDS, TERMINAL_SECONDS = 15, .5  # between two lines of progress

Say = Callable[[str], None]


# --- what is said -------------------------------------------------------------------------------------------------

def _quiet(text: str) -> None:
    pass


def _tell(text: str) -> None:
    print(text, end="", flush=True)


def _progress(batches: Iterable[Tally], total: int, say: Say) -> Iterator[Tally]:
    "Pass the tallies on and say, now and then, how far, how fast and how long"
    is_terminal = sys.stdout.isatty()
    pause = TERMINAL_SECONDS if is_terminal else LOG_SECONDS
    start, done, told = time.perf_counter(), 0, 0.0
    for batch in batches:
        yield batch
        done += batch.pairs
        spent = time.perf_counter() - start
        if done and (spent - told >= pause or done >= total):
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
    return text


def _next_step(manifest: Manifest, out: str) -> str:
    "What to do after a finished run"
    if "shards" not in manifest:
        return f'Next: seg_check "{out}", then open SegmentationLearner.ipynb'
    if not manifest["complete"]:
        return "Next: the other parts, with the same command and another --part"
    return f'Next: seg_train --data "{out}"'


# --- generating ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Change:
    "What may happen to the pairs that a folder holds; by default none is removed"
    overwrite: bool = False  # all go, whatever made them
    shrink: bool = False  # those go that are more than was asked for


NO_CHANGE = Change()


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
    _check_numbers(count, workers)
    folder, settings = Folder(Path(out)), plan.settings(driver_of(plan.renderer))
    folder.check_writable()
    with folder_lock(folder.out):
        total = _prepare(folder, settings, count, Change(overwrite, shrink), say)
        write_labels(ROOM_LABELS, folder.out / "labels.csv")
        write_manifest(folder, plan, settings, total, None)
        tally = Tally()
        made = _made(folder, plan, _batches(plan, total), min(workers, total), dask)
        for batch in _progress(made, total, say):
            tally.merge(batch)
        return write_manifest(folder, plan, settings, total, tally)


def _check_numbers(count: int, workers: int) -> None:
    if count < 1:
        raise SegError(f"{count} pairs are asked for; give 1 or more")
    if workers < 1:
        raise SegError(f"--workers is {workers}; give 1 or more")


def _prepare(folder: Folder, settings: dict[str, Any], count: int, change: Change, say: Say) -> int:
    "Take half-written pairs away, and whole ones where that is asked; how many pairs the folder shall hold"
    if change.overwrite:
        if any(folder.out.glob("*pairs-*")):
            Shards(Store(str(folder.out)), 1).clear(0)  # of any size
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


def _batches(plan: Plan, total: int) -> Iterator[list[int]]:
    "The images of a room together"
    for first in range(0, total, plan.images_per_room):
        last = min(total, first + plan.images_per_room)
        yield list(range(first, last))


def _made(target: Target, plan: Plan, batches: Iterator[list[int]], workers: int, dask: str) -> Iterator[Tally]:
    "Tallies of all batches, as they get ready"
    if dask:
        from virtual_room.cluster import made_by_dask
        return made_by_dask(dask, target, plan, batches)
    if workers == 1:
        return made_here(target, plan, batches)
    return made_by_pool(target, plan, batches, workers)


# --- shards -------------------------------------------------------------------------------------------------------

def generate_shards(
    count: int,
    out: str | Path,
    plan: Plan,
    size: int,
    part: str = "",
    workers: int = 1,
    change: Change = NO_CHANGE,
    dask: str = "",
    say: Say = _quiet,
) -> Manifest:
    """Bring the shards of `size` pairs each at a path or URL to `count` pairs of `plan`; their manifest.

    With a `part` such as '2/4' only the shards of the second of four ranges, for several machines without a scheduler.
    `SegError` where nothing can be written there, or something else lies there.
    """
    _check_numbers(count, workers)
    _check_shards(size, part, plan, change)
    shards = Shards(Store(str(out)), size)
    settings = plan.settings(driver_of(plan.renderer)) | dict(shards=size)
    with _shards_lock(shards, part):
        total = _total_of_shards(shards, settings, count, change, say)
        if not part:
            _clear_shards(shards, total, change)
        write_table(shards)
        write_generation(shards, settings, total)
        batches = list(shard_batches(total, size, part))
        made = _made(shards, plan, iter(batches), max(1, min(workers, len(batches))), dask)
        for _ in _progress(made, sum(map(len, batches)), say):
            pass
        return write_generation(shards, settings, total)


def _check_shards(size: int, part: str, plan: Plan, change: Change) -> None:
    if size < 1 or size % plan.images_per_room:
        raise SegError(f"--shards is {size}; give the pairs of a shard, a multiple of --images_per_room")
    if part:
        parse_part(part)
        if change.overwrite or change.shrink:
            raise SegError("--part is one of several runs; give --overwrite and --shrink to a run without it")


def _shards_lock(shards: Shards, part: str):
    "A folder has one writer, unless each writes its own part; a URL cannot be locked, and need not be"
    if part or shards.is_everywhere:
        return nullcontext()
    folder = Folder(Path(shards.store.folder))
    folder.check_writable()
    return folder_lock(folder.out)


def _clear_shards(shards: Shards, total: int, change: Change) -> None:
    "Take half-written shards away, and whole ones where that is asked; single files of pairs go with `overwrite`"
    if not change.overwrite:
        shards.clear(total)
        return
    shards.clear(0)
    if not shards.is_everywhere:
        Folder(Path(shards.store.folder)).clear_all()


def _total_of_shards(shards: Shards, settings: dict[str, Any], count: int, change: Change, say: Say) -> int:
    "How many pairs there shall be; `SegError` where shards of other settings lie there"
    if change.overwrite or read_generation(shards, settings) is None or change.shrink:
        return count
    end = shards.end()
    if end > count:
        say(f"{shards.store.url} holds {end} pairs, which stay; --shrink removes those from number {count} on\n")
    return max(count, end)


def _preview(plan: Plan, n: int, path: Path) -> None:
    "Draw the first pairs of a plan into one image"
    from virtual_room.preview import contact_sheet
    if not 1 <= n <= MAX_PREVIEW:
        raise SegError(f"{n} pairs are asked for; a preview shows 1 to {MAX_PREVIEW}")
    start, driver = time.perf_counter(), driver_of(plan.renderer)
    with atomic_path(path) as tmp:
        contact_sheet(plan, n).save(tmp)
    print(f"{path}: {n} pairs as `seg_generate` will draw them, {time.perf_counter() - start:.1f} s, {driver}")


def _room_config(config: str, report: str, ranges: str) -> RoomConfig:
    "The ranges of a file, then the labels that a report asks for, then single ranges; each may be empty"
    room_config = load_config(config) if config else DEFAULT_CONFIG
    if report:
        choice = choose_focus(report)
        _tell(f"{choice}\n")
        room_config = replace(room_config, focus=choice.weights)
    return override(room_config, ranges)


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
    for_: str = "",  # A report of seg_eval or seg_predict: more of the labels that are worst there
    truth: str = "",  # More than masks, some of: instances boxes visible depth normals
    renderer: str = "auto",  # fast (software), shaded (OpenGL, with shadows), or auto: shaded where there is a GPU
    assets: str = "",  # A folder of glTF models with assets.csv (file, label, scale, up, licence) to use
    dask: str = "",  # Address of a Dask scheduler whose workers draw instead
    shards: int = 0,  # Write tar files of so many pairs each (WebDataset); OUT may be a URL such as s3://bucket/rooms
    part: str = "",  # Write only a part of the shards, such as 1/4 on the first of four machines
    preview: bool = False,  # Only draw a contact sheet of `n` pairs (48 at most), OUT/preview.png?
    overwrite: bool = False,  # Replace the pairs of a folder made with other settings?
    shrink: bool = False,  # Remove pairs from number `n` on, where the folder holds more?
):
    "Draw `n` pairs of a room's image and its exact label mask; run again to go on or to get more."
    plan = Plan(
        seed, size, images_per_room, _room_config(config, for_, ranges),
        annotations=tuple(truth.replace(",", " ").split()),
        renderer=choose_renderer(renderer),
        assets=read_assets(assets, _tell) if assets else (),
        one_room=one_room,
    )
    if preview:
        _preview(plan, n, Path(out) / "preview.png")
        return
    start = time.perf_counter()
    if shards:
        manifest = generate_shards(n, out, plan, shards, part, workers, Change(overwrite, shrink), dask, _tell)
    else:
        manifest = generate(n, out, plan, workers, overwrite, dask, _tell, shrink)
    print(_summary(manifest, plan, out, time.perf_counter() - start))
    print(_next_step(manifest, out))
