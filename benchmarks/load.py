"""Clients that never rest against `seg_serve`: is a request lost, does memory grow, how soon is a killed server back?

    python benchmarks/load.py --model MODEL.onnx --seconds 600 --clients 8
    python benchmarks/load.py --model MODEL.onnx --seconds 60 --fps 20      # one stream that sends faster than the model answers
"""

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
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import psutil

from model_server import Client
from model_server.client import encoded
from nbs_lib.export import synthetic_pictures

SIZES = [(256, 256), (640, 480), (200, 90), (1024, 768)]


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def start(model: Path, port: int) -> tuple[subprocess.Popen, float]:
    "A server and the seconds until it was ready."
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "model_server.app", "--model", str(model), "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while get(port, "/health/ready")[0] != 200:
        if process.poll() is not None or time.monotonic() - begin > 60:
            sys.exit("the server did not start; run seg_serve to see why")
        time.sleep(0.02)
    return process, time.monotonic() - begin


@contextmanager
def watching(process: subprocess.Popen, port: int, every: float = 0.1):
    "Yields lists that fill up: the server's memory in MiB, milliseconds of a health request, photos waiting."
    memory: list[float] = []
    health: list[float] = []
    over = threading.Event()

    def watch() -> None:
        server = psutil.Process(process.pid)
        while not over.wait(every):
            memory.append(server.memory_info().rss / 2**20)
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


def ask_on(port: int, until: float, pictures: list[bytes], count: Counter) -> None:
    "One client: the next picture as soon as the last is answered, again after Retry-After where the server is full."
    i = 0
    while time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/v1/predict", pictures[i % len(pictures)])
            response = connection.getresponse()
            body = response.read()
            connection.close()
        except OSError:
            count["lost"] += 1
            continue
        count[response.status] += 1
        if response.status == 503:
            time.sleep(min(1.0, float(response.headers["Retry-After"])))
        else:
            count["without a mask"] += response.status == 200 and not body.startswith(b"\x89PNG")
            i += 1


def load(port: int, seconds: float, clients: int) -> Counter:
    pictures = [encoded(im.resize(size)) for size, im in zip(SIZES, synthetic_pictures(len(SIZES)))]
    count: Counter = Counter()
    threads = [threading.Thread(target=ask_on, args=(port, time.monotonic() + seconds, pictures, count)) for _ in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return count


def stream(port: int, seconds: float, fps: float) -> Counter:
    picture, count, until = encoded(synthetic_pictures(1)[0]), Counter(), time.monotonic() + seconds
    with Client(f"http://127.0.0.1:{port}").stream() as open_stream:
        while time.monotonic() < until:
            open_stream.send(picture)
            count["sent"] += 1
            next_frame = time.monotonic() + 1 / fps
            while (left := next_frame - time.monotonic()) > 0:
                if (seen := open_stream.receive(left)) is not None:
                    count["answered"] += 1
                    count["skipped"] = seen.info["skipped"]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--fps", type=float, help="one stream at this rate instead of the clients")
    a = parser.parse_args()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process, seconds = start(a.model, port)
    print(f"{a.model.name}, {psutil.cpu_count()} processors, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}; ready {seconds:.1f} s after the start")
    try:
        with watching(process, port) as (memory, health):
            count = stream(port, a.seconds, a.fps) if a.fps else load(port, a.seconds, a.clients)
        waited = get(port, "/metrics")[1].split("\nseg_waiting_max ")[1].split()[0]
    finally:
        process.kill()
        process.wait()
    third = max(1, len(memory) // 3)
    print(f"{a.seconds:g} s: {dict(count)}")
    print(f"memory of the server, MiB: first third {statistics.mean(memory[:third]):.0f}, last third {statistics.mean(memory[-third:]):.0f}, most {max(memory):.0f}")
    print(f"health meanwhile, ms: median {statistics.median(health):.1f}, most {max(health):.1f}; most photos waiting at one time: {float(waited):g}")
    process, seconds = start(a.model, port)
    print(f"killed (-9) and started again: ready after {seconds:.1f} s")
    process.terminate()
    process.wait()


if __name__ == "__main__":
    main()
