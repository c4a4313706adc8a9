"""Clients that never rest against `seg_serve`: is a request lost, does memory grow, how soon is a killed server back?

    python benchmarks/load.py --model MODEL.onnx --seconds 600 --clients 8
    python benchmarks/load.py --model MODEL.onnx --seconds 60 --fps 20      # one stream, faster than the model
"""

from __future__ import annotations

import argparse
import http.client
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import psutil

from model_server import Client
from model_server.client import encoded

SIZES = [(256, 256), (640, 480), (200, 90), (1024, 768)]
HOST = "127.0.0.1"
MIB = 2**20


# --- a server -----------------------------------------------------------------------------------------------------

def free_port() -> int:
    "A port of this machine that nobody listens on."
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    "The status and the text of an answer; status 0 where there is none."
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def start_server(model: Path, port: int) -> tuple[subprocess.Popen, float]:
    "A server and the seconds until it was ready."
    begin = time.monotonic()
    command = [sys.executable, "-m", "model_server.command", "--model", str(model), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while get(port, "/health/ready")[0] != 200:
        if process.poll() is not None or time.monotonic() - begin > 60:
            sys.exit("the server did not start; run seg_serve to see why")
        time.sleep(0.02)
    return process, time.monotonic() - begin


@contextmanager
def watching(process: subprocess.Popen, port: int, every: float = 0.1) -> Iterator[tuple[list[float], list[float]]]:
    "Yields lists that fill up: the server's memory in MiB, milliseconds of a health request."
    memory: list[float] = []
    health: list[float] = []
    over = threading.Event()

    def watch() -> None:
        server = psutil.Process(process.pid)
        while not over.wait(every):
            memory.append(server.memory_info().rss / MIB)
            begin = time.perf_counter()
            get(port, "/health/live")
            health.append(1000 * (time.perf_counter() - begin))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory, health
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


def never_rest(port: int, until: float, images: list[bytes], count: Counter) -> None:
    "One client: the next image as soon as the last is answered, again after Retry-After where the server is full."
    answered = 0
    while time.monotonic() < until:
        try:
            status, retry_after, body = predict(port, images[answered % len(images)])
        except OSError:
            count["lost"] += 1
            continue
        count[status] += 1
        if status == 503:
            time.sleep(min(1.0, retry_after))
            continue
        count["without a mask"] += status == 200 and not body.startswith(b"\x89PNG")
        answered += 1


def load(port: int, seconds: float, clients: int) -> Counter:
    "How often which status was answered."
    from nbs_lib.export import synthetic_images
    images = [encoded(image.resize(size)) for size, image in zip(SIZES, synthetic_images(len(SIZES)))]
    count: Counter = Counter()
    arguments = (port, time.monotonic() + seconds, images, count)
    threads = [threading.Thread(target=never_rest, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count


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


def print_health(health: list[float], port: int) -> None:
    "How soon was it answered?"
    waited = get(port, "/metrics")[1].split("\nseg_waiting_max ")[1].split()[0]
    print(f"health meanwhile, ms: median {statistics.median(health):.1f}, most {max(health):.1f}; "
          f"most photos waiting at one time: {float(waited):g}")


def print_restart(model: Path, port: int) -> None:
    "How soon is a killed server back?"
    process, seconds = start_server(model, port)
    print(f"killed (-9) and started again: ready after {seconds:.1f} s")
    process.terminate()
    process.wait()


def main() -> None:
    "Run and print."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--fps", type=float, help="one stream at this rate instead of the clients")
    a = parser.parse_args()
    port = free_port()
    process, seconds = start_server(a.model, port)
    print(f"{a.model.name}, {psutil.cpu_count()} processors, Python {platform.python_version()}, "
          f"onnxruntime {onnxruntime.__version__}; ready {seconds:.1f} s after the start")
    try:
        with watching(process, port) as (memory, health):
            count = stream(port, a.seconds, a.fps) if a.fps else load(port, a.seconds, a.clients)
        print(f"{a.seconds:g} s: {dict(count)}")
        print_memory(memory)
        print_health(health, port)
    finally:
        process.kill()
        process.wait()
    print_restart(a.model, port)


if __name__ == "__main__":
    main()
