"""Clients that never rest against `seg_serve`: is a request lost, does memory grow, how soon is a killed server back?

    python benchmarks/load.py --model MODEL.onnx --seconds 600 --clients 32 --workers 2
    python benchmarks/load.py --model MODEL.onnx --seconds 60 --fps 20      # one stream, faster than the model

And how much does it answer how fast, with 1, 8 and 32 clients, without and with batches? Here nobody is told to come
back: as many may wait as ask.

    python benchmarks/load.py --model MODEL.onnx --table --seconds 60 --workers 2 --batch 8

Clients and server share the processors. Without --model: the starter model.
"""

from __future__ import annotations

import argparse
import http.client
import math
import platform
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
from common import HOST, free_port, get, start_server

from model_server import Client
from model_server.client import encoded
from nbs_lib.predict import starter_model

SIZES = [(256, 256), (640, 480), (200, 90), (1024, 768)]
MIB = 2**20
CLIENTS = (1, 8, 32)  # the rows of the table
WARM_UP_SECONDS = 1.0


# --- a server -----------------------------------------------------------------------------------------------------

def stop(process: subprocess.Popen, number: signal.Signals = signal.SIGTERM) -> None:
    "End a server by a signal, and wait until its workers have ended too: they keep the port."
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.wait()
    psutil.wait_procs(workers, timeout=30)


def memory_of(server: psutil.Process) -> float:
    "MiB of a server with its workers; what they share counts several times."
    family = [server, *server.children(recursive=True)]
    return sum(process.memory_info().rss for process in family) / MIB


@dataclass
class Watched:
    "What was seen of a server under load."

    memory: list[float] = field(default_factory=list)   # MiB
    health: list[float] = field(default_factory=list)   # milliseconds of the health requests that were answered
    unhealthy: int = 0                                  # health requests that were not answered with 200


def ask_health(port: int, seen: Watched) -> None:
    "Ask for health once, and note how long the answer took, or that it failed."
    begin = time.perf_counter()
    status, _ = get(port, "/health/live")
    milliseconds = 1000 * (time.perf_counter() - begin)
    if status == 200:
        seen.health.append(milliseconds)
    else:
        seen.unhealthy += 1


@contextmanager
def watching(process: subprocess.Popen, port: int, every: float = 0.1) -> Iterator[Watched]:
    "Yields what fills up as long as the server is watched."
    seen, over = Watched(), threading.Event()

    def watch() -> None:
        server = psutil.Process(process.pid)
        while not over.wait(every):
            seen.memory.append(memory_of(server))
            ask_health(port, seen)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


# --- clients ------------------------------------------------------------------------------------------------------

def predict(port: int, image: bytes) -> tuple[int, float, bytes]:
    "The status, the seconds of Retry-After and the body of one prediction."
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request("POST", "/v1/predict", image)
        response = connection.getresponse()
        return response.status, float(response.headers.get("Retry-After", 0)), response.read()
    finally:
        connection.close()


@dataclass
class Answers:
    "What all clients together were answered."

    count: Counter = field(default_factory=Counter)           # {status, "lost" or "without a mask": how often}
    seconds: list[float] = field(default_factory=list)        # from each request to its mask


def never_rest(port: int, until: float, images: list[bytes], answers: Answers) -> None:
    "One client: the next image as soon as the last is answered, again after Retry-After where the server is full."
    answered = 0
    while time.monotonic() < until:
        begin = time.perf_counter()
        try:
            status, retry_after, body = predict(port, images[answered % len(images)])
        except (OSError, http.client.HTTPException):  # such as half an answer
            answers.count["lost"] += 1
            continue
        answers.count[status] += 1
        if status == 503:
            time.sleep(min(1.0, retry_after))
            continue
        answers.seconds.append(time.perf_counter() - begin)
        answers.count["without a mask"] += status == 200 and not body.startswith(b"\x89PNG")
        answered += 1


def load(port: int, seconds: float, clients: int) -> Answers:
    "What so many clients were answered in this time."
    from nbs_lib.export import synthetic_images
    images = [encoded(image.resize(size)) for size, image in zip(SIZES, synthetic_images(len(SIZES)))]
    answers = Answers()
    arguments = (port, time.monotonic() + seconds, images, answers)
    threads = [threading.Thread(target=never_rest, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def stream(port: int, seconds: float, fps: float) -> Counter:
    "How many frames were sent, answered and skipped."
    from nbs_lib.export import synthetic_images
    image = encoded(synthetic_images(1)[0])
    count: Counter = Counter()
    until = time.monotonic() + seconds
    with Client(f"http://{HOST}:{port}").stream() as open_stream:
        while time.monotonic() < until:
            open_stream.send(image)
            count["sent"] += 1
            next_frame = time.monotonic() + 1 / fps
            while (left := next_frame - time.monotonic()) > 0:
                seen = open_stream.receive(left)
                if seen is not None:
                    count["answered"] += 1
                    count["skipped"] = seen.info["skipped"]
    return count


# --- the report ---------------------------------------------------------------------------------------------------

def print_memory(memory: list[float]) -> None:
    "Does it grow?"
    third = max(1, len(memory) // 3)
    first, last = statistics.mean(memory[:third]), statistics.mean(memory[-third:])
    print(f"memory of the server, MiB: first third {first:.0f}, last third {last:.0f}, most {max(memory):.0f}")


def print_health(seen: Watched, port: int) -> None:
    "How soon was it answered, and how often was it not?"
    waited = get(port, "/metrics")[1].split("\nseg_waiting_max ")[1].split()[0]
    health = seen.health or [math.nan]
    print(f"health meanwhile, ms: median {statistics.median(health):.1f}, most {max(health):.1f}, "
          f"failed {seen.unhealthy}; most photos waiting at one time: {float(waited):g}")


def print_restart(model: Path, port: int) -> None:
    "How soon is a killed server back?"
    process, seconds = start_server(model, port)
    print(f"killed (-9) and started again: ready after {seconds:.1f} s")
    process.terminate()
    process.wait()


# --- the table ----------------------------------------------------------------------------------------------------

def print_table(a: argparse.Namespace) -> None:
    "A row for each number of clients, without batches and, where they are asked for, with."
    print("| workers | batch | clients | answers a second | median ms | 95 % within ms | images in a batch | other |")
    print("|---|---|---|---|---|---|---|---|")
    for batch in sorted({1, a.batch}):
        for clients in CLIENTS:
            print_row(a, batch, clients)


def print_row(a: argparse.Namespace, batch: int, clients: int) -> None:
    "One server of its own, and what so many clients get from it."
    port = free_port()
    options = dict(workers=a.workers, waiting=max(CLIENTS), batch=batch, batch_wait_ms=a.batch_wait_ms)
    process, _ = start_server(a.model, port, **options)
    try:
        load(port, WARM_UP_SECONDS, clients)
        begin = time.monotonic()
        answers = load(port, a.seconds, clients)
        rate = answers.count[200] / (time.monotonic() - begin)
        images = mean_batch(get(port, "/metrics")[1])
    finally:
        stop(process)
    median, most = 1000 * np.percentile(answers.seconds, [50, 95])
    other = {what: n for what, n in answers.count.items() if what != 200 and n}
    row = [a.workers, batch, clients, f"{rate:.1f}", f"{median:.0f}", f"{most:.0f}", images, other or "none"]
    print(f"| {' | '.join(map(str, row))} |", flush=True)


def mean_batch(metrics: str) -> str:
    "Images in a batch, from the server's metrics; a dash where it makes none."
    lines = [line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("seg_batch_images_")]
    sums = {name.split("{")[0].removeprefix("seg_batch_images_"): float(value) for name, value in lines}
    if not sums.get("count"):
        return "–"
    mean = sums["sum"] / sums["count"]
    return f"{mean:.1f}"


# --- the program --------------------------------------------------------------------------------------------------

def parse() -> argparse.Namespace:
    "The options."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=starter_model())
    parser.add_argument("--seconds", type=float, default=60, help="of the load; with --table, of each row")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--fps", type=float, help="one stream at this rate instead of the clients")
    parser.add_argument("--table", action="store_true", help=f"answers a second and their times with {CLIENTS} clients")
    parser.add_argument("--batch", type=int, default=1, help="largest batch")
    parser.add_argument("--batch_wait_ms", type=float, default=5)
    return parser.parse_args()


def print_machine(a: argparse.Namespace) -> None:
    "What is measured on what."
    print(f"{a.model.name}, {psutil.cpu_count()} processors, Python {platform.python_version()}, "
          f"onnxruntime {onnxruntime.__version__}")


def print_load(a: argparse.Namespace) -> None:
    "One long load, or one stream; then a kill."
    port = free_port()
    process, seconds = start_server(a.model, port, workers=a.workers, batch=a.batch, batch_wait_ms=a.batch_wait_ms)
    print(f"ready {seconds:.1f} s after the start")
    try:
        with watching(process, port) as seen:
            count = stream(port, a.seconds, a.fps) if a.fps else load(port, a.seconds, a.clients).count
        print(f"{a.seconds:g} s: {dict(count)}")
        print_memory(seen.memory)
        print_health(seen, port)
    finally:
        stop(process, signal.SIGKILL)
    print_restart(a.model, port)


def main() -> None:
    "Run and print."
    a = parse()
    print_machine(a)
    if a.table:
        print_table(a)
    else:
        print_load(a)


if __name__ == "__main__":
    main()
