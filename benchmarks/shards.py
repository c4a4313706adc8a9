"""Samples a second from shards beside the cached path, and pairs a second into them.

    python benchmarks/shards.py [pairs] [pixels on disk] [pixels in training]

The S3-compatible server is moto's on this machine (`pip install ".[dev]"`): it shares the processors with what is
measured, and has no network in between. It runs in this process and keeps all it is given, so that the peak of memory
is what streaming takes, and all the shards.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from generated import Cluster, object_store

from nbs_lib.dataloaders import seg_dataloaders
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import peak_memory, reset_peak_memory
from nbs_lib.shards import Store, open_shards
from nbs_lib.streaming import stream_dataloaders
from virtual_room import Plan, generate
from virtual_room.generate import generate_shards

PAIRS_EACH, EPOCHS = 25, 3


def seconds_of(work) -> float:
    "How long a call takes"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def samples_a_second(dls) -> float:
    "Training samples a second in the fastest of some epochs, augmented and normalized"
    loader = dls.train
    seconds = min(seconds_of(lambda: list(map(len, loader))) for _ in range(EPOCHS))
    return len(loader) * loader.bs / seconds


def copy_shards(source: Store, target: Store) -> None:
    "Put the same shards elsewhere"
    for name in source.sizes():
        target.write(name, source.read(name))


def report(name: str, value: float, unit: str) -> None:
    "One line of the table"
    print(f"{name:44s} {value:8.1f} {unit}", flush=True)


def time_writing(plan: Plan, root: Path, pairs: int) -> None:
    "Pairs a second as files and as shards"
    report("one process, files", pairs / seconds_of(lambda: generate(pairs, root / "files", plan)), "pairs/s")
    shards = seconds_of(lambda: generate_shards(pairs, root / "shards", plan, PAIRS_EACH))
    report("one process, shards", pairs / shards, "pairs/s")


def time_dask(plan: Plan, root: Path, url: str, pairs: int) -> None:
    "Pairs a second of two worker processes, the shards sent back here or written to the server by the workers"
    (root / "cluster").mkdir()
    cluster = Cluster(root / "cluster")
    try:
        cluster.add_worker()
        cluster.add_worker()
        for name, place in (("sent back", str(root / "dask")), ("written to the server", url)):
            reset_peak_memory()
            seconds = seconds_of(partial(generate_shards, pairs, place, plan, PAIRS_EACH, dask=cluster.address))
            report(f"Dask, two workers, shards {name}", pairs / seconds, "pairs/s")
            report("  peak memory of the process", peak_memory() * 1024, "MiB")
            same = Store(place).read("pairs-000000.tar") == (root / "shards" / "pairs-000000.tar").read_bytes()
            assert same, "the workers drew other bytes"
    finally:
        cluster.stop()


def time_reading(root: Path, url: str, size: int) -> None:
    "Samples a second from all places"
    options = dict(size=size, bs=16)
    for name, cache in (("files, decoded once and kept", True), ("files, decoded in each epoch", False)):
        dls = seg_dataloaders(find_pairs(root / "files"), **options, cache=cache)
        report(name, samples_a_second(dls), "samples/s")
    for name, place in (("shards in a folder", str(root / "shards")), ("shards on an S3-compatible server", url)):
        reset_peak_memory()
        report(name, samples_a_second(stream_dataloaders(open_shards(place), **options)), "samples/s")
        report("  peak memory of the process", peak_memory() * 1024, "MiB")


def main(pairs: int = 400, pixels: int = 256, size: int = 64) -> None:
    "Write pairs, then read them"
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{pairs} pairs of {pixels} px, trained at {size} px; {cores} cores, load before {load:.1f}")
    with tempfile.TemporaryDirectory() as folder, object_store() as bucket:
        os.environ["XDG_CACHE_HOME"] = folder
        root = Path(folder)
        time_writing(Plan(size=pixels), root, pairs)
        time_dask(Plan(size=pixels), root, f"{bucket}/dask", pairs)
        copy_shards(Store(str(root / "shards")), Store(f"{bucket}/shards"))
        time_reading(root, f"{bucket}/shards", size)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
