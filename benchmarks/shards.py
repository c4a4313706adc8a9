"""Shards beside files: pairs a second into them, samples a second out of them, and the memory that takes.

    python benchmarks/shards.py rates [pairs] [pixels on disk] [pixels in training] [rounds]
    python benchmarks/shards.py large FOLDER [pairs] [pixels on disk] [pairs a shard] [pairs a room]

`rates` writes and reads the same pairs in several ways, one after the other and round after round, so that what else
the machine does falls on all ways alike. A row says how many times the rate of the first way of its round a way
has; the last rows are the medians of all rounds. Starting worker processes is a part of writing.

`large` lets two Dask workers, separate processes without a folder in common, draw many small pairs, which are sent
back as shards. It notes the memory of all processes in FOLDER/memory.csv, then draws some of the shards here and
compares their hashes. Stopped, it goes on with the same command. Furnishing a room takes ten times as
long as a small image of it, so many pairs a room save much time; a shard must hold whole rooms.

The S3-compatible server is moto's on this machine (`pip install ".[dev]"`), a process of its own: it shares the
processors with what is measured, and has no network in between.
"""

import csv
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from common import free_port
from generated import Cluster, new_bucket, wait_until

from nbs_lib.dataloaders import seg_dataloaders
from nbs_lib.layouts import find_pairs
from nbs_lib.learner import peak_memory, reset_peak_memory
from nbs_lib.shards import Store, open_shards
from nbs_lib.streaming import stream_dataloaders
from virtual_room import Plan, generate
from virtual_room.generate import generate_shards
from virtual_room.pairs import PairMaker
from virtual_room.shards import Shards

PAIRS_EACH = 25  # in a shard of `rates`
SAMPLE = 10  # shards of `large` that are drawn again
SECONDS = 15  # between two looks at the memory
MIB = 2**20


# --- processes beside this one ------------------------------------------------------------------------------------

def is_open(port: int) -> bool:
    "Does a server answer at this port?"
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def server_beside() -> Iterator[str]:
    "The URL of a bucket of an S3-compatible server that runs in a process of its own"
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_open(port))
        with new_bucket("127.0.0.1", port) as url:
            yield url
    finally:
        server.kill()
        server.wait()


@contextmanager
def cluster_beside(folder: Path) -> Iterator[Cluster]:
    "A Dask scheduler and two workers of one thread, each a process with a folder of its own"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cluster = Cluster(folder)
    try:
        cluster.add_worker()
        cluster.add_worker()
        yield cluster
    finally:
        cluster.stop()


# --- rates --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Way:
    "One of several ways to do the same thing"
    name: str
    run: Callable[[], float]  # do it once; how many a second


def seconds_of(work: Callable[[], object]) -> float:
    "How long a call takes"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(round_name: str, name: str, rate: float, unit: str, ratio: float, rest: str = "") -> None:
    "A row of the table"
    print(f"{round_name:>6s}  {name:40s} {rate:8.1f} {unit}/s {ratio:6.2f} times{rest}", flush=True)


def compare(ways: list[Way], rounds: int, unit: str) -> None:
    "Go all ways, round after round; a row for each, and the medians"
    rates, ratios = defaultdict(list), defaultdict(list)
    for i in range(1, rounds + 1):
        for way in ways:
            reset_peak_memory()
            rates[way.name].append(way.run())
            ratios[way.name].append(rates[way.name][-1] / rates[ways[0].name][-1])
            peak = f", peak of this process {peak_memory() * 1024:5.0f} MiB"
            report(str(i), way.name, rates[way.name][-1], unit, ratios[way.name][-1], peak)
    for name in rates:
        report("median", name, median(rates[name]), unit, median(ratios[name]))


@dataclass(frozen=True)
class Writing:
    "Writes the same pairs again and again, each time to a new place"
    pairs: int
    plan: Plan

    def rate(self, write: Callable[[str], object], places: Iterator[str]) -> float:
        "Pairs a second of a call that writes to the next place"
        place = next(places)
        seconds = seconds_of(partial(write, place))
        shutil.rmtree(place, ignore_errors=True)  # a URL is no folder, and stays
        return self.pairs / seconds

    def files(self, place: str) -> None:
        "One process, a file an image"
        generate(self.pairs, place, self.plan)

    def shards(self, place: str, **options) -> None:
        "Shards, by one process or as the options say"
        generate_shards(self.pairs, place, self.plan, PAIRS_EACH, **options)

    def ways(self, root: Path, url: str, address: str) -> list[Way]:
        "All ways; the workers that the last two have are those of a Dask cluster"
        by_dask = partial(self.shards, dask=address)
        here = (str(root / f"written {i}") for i in count())
        there = (f"{url}/written-{i}" for i in count())
        return [
            Way("one process, files", partial(self.rate, self.files, here)),
            Way("one process, shards", partial(self.rate, self.shards, here)),
            Way("two processes, shards", partial(self.rate, partial(self.shards, workers=2), here)),
            Way("two Dask workers, shards sent back", partial(self.rate, by_dask, here)),
            Way("two Dask workers, shards to the server", partial(self.rate, by_dask, there)),
        ]


def check_same(places: list[str]) -> None:
    "The same shards are at all places, byte for byte"
    first, *others = (Store(place) for place in places)
    tars = [name for name in first.sizes() if name.endswith(".tar")]
    for name in tars:
        content = first.read(name)
        for other in others:
            assert other.read(name) == content, f"{name} at {other.url} is another than at {first.url}"
    print(f"the {len(tars)} shards are the same at {len(places)} places", flush=True)


def samples_a_second(loader) -> float:
    "Training samples a second in one epoch, augmented and normalized"
    seconds = seconds_of(lambda: list(map(len, loader)))
    return len(loader) * loader.bs / seconds


def reading_ways(files: str, shards: str, url: str, size: int) -> list[Way]:
    "Epochs from all places"
    options = dict(size=size, bs=16)
    data = find_pairs(files)
    loaders = {
        "files, decoded once and kept": seg_dataloaders(data, **options),
        "files, decoded in each epoch": seg_dataloaders(data, **options, cache=False),
        "shards in a folder": stream_dataloaders(open_shards(shards), **options),
        "shards on an S3-compatible server": stream_dataloaders(open_shards(url), **options),
    }
    return [Way(name, partial(samples_a_second, dls.train)) for name, dls in loaders.items()]


def rates(pairs: int = 400, pixels: int = 256, size: int = 64, rounds: int = 3) -> None:
    "Write pairs, then read them"
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{pairs} pairs of {pixels} px, trained at {size} px; {cores} cores, load before {load:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder, server_beside() as url:
        os.environ["XDG_CACHE_HOME"] = folder
        root, writing = Path(folder), Writing(pairs, Plan(size=pixels))
        with cluster_beside(root / "cluster") as cluster:
            by_dask = partial(writing.shards, dask=cluster.address)
            by_dask(str(root / "shards"))  # the workers start what they draw with
            by_dask(f"{url}/shards")
            compare(writing.ways(root, url, cluster.address), rounds, "pairs")
        writing.files(str(root / "files"))
        writing.shards(str(root / "one process"))
        check_same([str(root / "one process"), str(root / "shards"), f"{url}/shards"])
        compare(reading_ways(str(root / "files"), str(root / "shards"), f"{url}/shards", size), rounds, "samples")


# --- a large set --------------------------------------------------------------------------------------------------

def resident(pid: int) -> float:
    "MiB of memory that a process and its children hold; 0 where it has ended"
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / MIB
    except psutil.NoSuchProcess:
        return 0.0


class MemoryLog:
    "A row every few seconds: how many shards there are, and what memory each process holds, in MiB"

    def __init__(self, path: Path, shards: Path, cluster: Cluster) -> None:
        self.path, self.shards, self.cluster = path, shards, cluster
        self.rows, self.start, self.ended = [], time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def row(self) -> dict[str, float]:
        "What is so now. `resident` would count the cluster with this process, whose children they are"
        own = psutil.Process().memory_info().rss / MIB
        workers = {f"worker {i}": resident(process.pid) for i, process in enumerate(self.cluster.workers, 1)}
        shards = sum(1 for _ in self.shards.glob("*.tar"))
        seconds = time.monotonic() - self.start
        values = dict(seconds=seconds, shards=shards, client=own, scheduler=resident(self.cluster.scheduler.pid))
        return {name: round(value, 1) for name, value in (values | workers).items()}

    def run(self) -> None:
        "Write and print rows until the end"
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.row())
            if not file.tell():
                writer.writeheader()
            while not self.ended.wait(SECONDS):
                self.rows.append(self.row())
                writer.writerow(self.rows[-1])
                file.flush()
                print(", ".join(f"{name} {value:g}" for name, value in self.rows[-1].items()), flush=True)

    def __enter__(self) -> "MemoryLog":
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.thread.join()

    def report(self) -> None:
        "The peak of each process in the second and in the last quarter of the time, after all have started"
        quarter = len(self.rows) // 4
        if not quarter:
            print("too short to say whether memory stays flat")
            return
        names = [name for name in self.rows[0] if name not in ("seconds", "shards")]
        for name in names:
            early = max(row[name] for row in self.rows[quarter:2 * quarter])
            late = max(row[name] for row in self.rows[-quarter:])
            print(f"{name:10s} peak {early:6.0f} MiB in the second quarter, {late:6.0f} MiB in the last, "
                  f"{late / early:.2f} times")


def sampled(n: int) -> list[int]:
    "Numbers of some of `n` shards, evenly spread from the first to the last"
    k = min(SAMPLE, n)
    return sorted({round(i * (n - 1) / max(1, k - 1)) for i in range(k)})


def check_hashes(target: Shards, plan: Plan, pairs: int) -> None:
    "Draw some shards in this process: they must be those that the workers drew"
    maker, numbers = PairMaker(plan), sampled(-(-pairs // target.size))
    shards = open_shards(target.store.url).shards
    for number in numbers:
        first = number * target.size
        packed, = target.make(maker, list(range(first, min(pairs, first + target.size))))
        there = target.store.read(packed.shard.name)
        assert there == packed.content, f"{packed.shard.name} is not what one process draws"
        assert shards[number].sha256 == packed.shard.sha256, f"{packed.shard.name}: another hash is noted"
        print(f"{packed.shard.name} {packed.shard.sha256[:16]} as one process draws it", flush=True)


def large(folder: str, pairs: int = 100_000, pixels: int = 32, each: int = 500, a_room: int = 1) -> None:
    "Many small pairs through Dask: rate, memory, and the same bytes as from one process"
    root, plan = Path(folder).absolute(), Plan(size=pixels, images_per_room=a_room)
    target = Shards(Store(str(root / "shards")), each)
    before = target.end()
    with cluster_beside(root / "cluster") as cluster:
        with MemoryLog(root / "memory.csv", root / "shards", cluster) as memory:
            write = partial(generate_shards, pairs, root / "shards", plan, each, dask=cluster.address)
            seconds = seconds_of(write)
    new = pairs - before
    print(f"{new} pairs of {pixels} px in {seconds:.0f} s, {new / seconds:.1f} pairs/s ({before} were there)")
    memory.report()
    check_hashes(target, plan, pairs)


def main(what: str = "rates", *words: str) -> None:
    "One of the two, with its arguments"
    if what == "large":
        folder, *numbers = words
        large(folder, *map(int, numbers))
    elif what == "rates":
        rates(*map(int, words))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
