"""Honest clients beside all that we know a stranger may send: are they answered, how soon is health, does memory grow?

    python benchmarks/attack.py --model MODEL.onnx --seconds 600

Starts `seg_serve` on this machine and attacks nothing else. Each attack gets its share of the seconds, in processes of
its own and from the addresses 127.0.0.2 to 127.0.0.9 (127.0.0.1 where the system has no others). Two honest clients
and one that asks for health go on all the time. The first row is the same without an attack: compare with that.
The column "sent" says how many times the attackers sent what they send on a new connection. The column "control" is
the slowest answer of a second server that does nothing and that nobody attacks: as much may be the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import math
import multiprocessing
import random
import socket
import statistics
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import psutil
from common import HOST, free_port, start_server
from PIL import Image

MIB = 2**20
SOURCES = [f"127.0.0.{i}" for i in range(2, 10)]
PROCESSES = 2        # for each attack


# --- what is sent -------------------------------------------------------------------------------------------------

def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    "The image as the bytes of a file."
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg_of_scans(extra: int, size: tuple[int, int] = (4096, 2048)) -> bytes:
    "A progressive JPEG whose last scan is repeated."
    jpeg = encode(Image.new("L", size, 90), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda"):-2]
    return jpeg[:-2] + scan * extra + jpeg[-2:]


def noisy_jpeg() -> bytes:
    "The slowest image that the limits let pass, or nearly: large, noisy and progressive."
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((4096, 2048))
    return encode(image, "JPEG", progressive=True, quality=60)


def png_of_chunks(n: int) -> bytes:
    "A PNG with very many empty chunks."
    png = encode(Image.new("L", (8, 8)), "PNG")
    empty = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    return png[:33] + empty * n + png[33:]


def request(method: str, path: str, body: bytes) -> bytes:
    "A whole HTTP request."
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def unfinished(path: str, sent: int) -> bytes:
    "A request whose body is promised larger than it is."
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n".encode() + bytes(sent)


HANDSHAKE = (b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
TINY_FRAME = b"\x82\x81\0\0\0\0a"
LARGE_FRAME = b"\x82\xff" + struct.pack(">Q", 4 * MIB) + bytes(4) + bytes(4 * MIB)
CHUNKED = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


# --- attacks ------------------------------------------------------------------------------------------------------

def connect(port: int) -> socket.socket:
    "A connection from one of the attackers' addresses."
    s = socket.socket()
    try:
        s.bind((random.choice(SOURCES), 0))
    except OSError:  # this system has no other address than 127.0.0.1
        pass
    s.settimeout(5)
    s.connect((HOST, port))
    return s


def count_one(sent: Synchronized) -> None:
    "One more attack was sent, by one of several processes."
    with sent.get_lock():
        sent.value += 1


def send_again_and_again(port: int, until: float, sent: Synchronized, first: bytes, rest: bytes = b"") -> None:
    "Send `first`, then `rest` until the server closes, or read its answer where there is no rest; and again."
    while time.monotonic() < until:
        try:
            with connect(port) as s:
                s.sendall(first)
                count_one(sent)
                while rest and time.monotonic() < until:
                    s.sendall(rest)
                s.recv(65536)
        except OSError:
            time.sleep(0.01)


def hold(port: int, until: float, sent: Synchronized, n: int, first: bytes) -> None:
    "Keep `n` connections open that have sent `first`; those that are closed are opened again."
    held: list[socket.socket] = []
    while time.monotonic() < until:
        held = [s for s in held if not is_closed(s)]
        while len(held) < n and time.monotonic() < until:
            try:
                s = connect(port)
                held.append(s)
                s.sendall(first)
                count_one(sent)
            except OSError:
                time.sleep(0.01)
        time.sleep(0.2)
    for s in held:
        s.close()


def is_closed(s: socket.socket) -> bool:
    "Has the other side closed? What it sent is left unread."
    try:
        s.setblocking(False)
        return s.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        s.settimeout(5)


@dataclass(frozen=True)
class Attack:
    "What each attacking process does, again and again."

    first: Callable[[], bytes]  # makes what it sends on a new connection
    rest: bytes = b""           # what it sends then, until the server closes
    held: int = 0               # connections that it keeps open; 0: one after another


def predict_request(image: bytes, query: str = "") -> bytes:
    "A request for a prediction."
    return request("POST", "/v1/predict" + query, image)


def many_scans() -> bytes:
    "It would decode for seconds."
    return predict_request(jpeg_of_scans(1000))


def slowest_image() -> bytes:
    "It is allowed."
    return predict_request(noisy_jpeg())


def many_chunks() -> bytes:
    "Its reader would look at each chunk."
    return predict_request(png_of_chunks(500_000))


def many_values() -> bytes:
    "Nothing else would run while it is parsed."
    return request("PUT", "/set_label_colors", b'{"labels": [' + b"{}," * (2 * MIB) + b"{}]}")


def large_answer() -> bytes:
    "A small request with an answer of 8 MB."
    return predict_request(encode(Image.new("L", (4000, 2000)), "PNG"), "?format=raw")


def slow_body() -> bytes:
    "It would hold a place among the bodies."
    return unfinished("/v1/predict", 1000)


def slow_open_body() -> bytes:
    "The same where no token is needed."
    return unfinished("/", 1000)


def large_body() -> bytes:
    "It would hold 7 MiB."
    return unfinished("/v1/predict", 7 * MIB)


def as_is(data: bytes) -> Callable[[], bytes]:
    "Always the same bytes."
    return partial(bytes, data)


ATTACKS: dict[str, Attack | None] = {
    "none": None,
    "JPEG of 1,000 scans": Attack(many_scans),
    "slowest JPEG allowed": Attack(slowest_image),
    "PNG of 500,000 chunks": Attack(many_chunks),
    "JSON of 2 million values": Attack(many_values),
    "one endless header": Attack(as_is(b"GET / HTTP/1.1\r\nX: "), b"a" * 65536),
    "endless headers": Attack(as_is(b"GET / HTTP/1.1\r\n"), b"X: value\r\n" * 4096),
    "endless trailers": Attack(as_is(CHUNKED), b"X: value\r\n" * 4096),
    "300 idle connections": Attack(as_is(b""), held=150),
    "300 half requests": Attack(as_is(b"GET / HTTP/1.1\r\nX: "), held=150),
    "60 slow bodies": Attack(slow_body, held=30),
    "60 slow bodies to open paths": Attack(slow_open_body, held=30),
    "30 bodies of 7 MiB, never whole": Attack(large_body, held=15),
    "40 answers that are not read": Attack(large_answer, held=20),
    "streams of tiny frames": Attack(as_is(HANDSHAKE), TINY_FRAME * 9000),
    "streams of frames of 4 MiB": Attack(as_is(HANDSHAKE), LARGE_FRAME),
    "connections opened and closed": Attack(as_is(b"GET /health/live HTTP/1.1\r\nConnection: close\r\n\r\n")),
}


def run_attack(name: str, port: int, until: float, sent: Synchronized) -> None:
    "One attacking process, until the time is up; `sent` counts what all of them sent."
    attack = ATTACKS[name]
    if attack is None:
        return
    first = attack.first()
    if attack.held:
        hold(port, until, sent, attack.held, first)
    else:
        send_again_and_again(port, until, sent, first, attack.rest)


# --- honest clients -----------------------------------------------------------------------------------------------

@dataclass
class Seen:
    "What the honest clients saw during one attack, and how often it was sent."

    sent: int = 0
    answers: Counter = field(default_factory=Counter)   # 200, 503, and what should not be
    health: list[float] = field(default_factory=list)   # milliseconds, where it was answered
    control: list[float] = field(default_factory=list)  # milliseconds of the server that does nothing
    memory: list[float] = field(default_factory=list)   # MiB of the server and its workers


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str | None]:
    "The status and Retry-After; status 0 where there is no answer."
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["Retry-After"]
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def predict(port: int, until: float, image: bytes, seen: Seen) -> None:
    "An honest client: asks, and comes back later where it is told to."
    while time.monotonic() < until:
        status, retry_after = ask(port, "POST", "/v1/predict?format=json", image)
        if status == 200:
            seen.answers["200"] += 1
        elif status == 503 and retry_after:
            seen.answers["503"] += 1
            time.sleep(min(1.0, float(retry_after)))
        else:
            seen.answers[f"lost ({status})"] += 1
        time.sleep(0.05)


def timed(port: int, path: str) -> tuple[int, float]:
    "The status, and the milliseconds that it took."
    start = time.perf_counter()
    status, _ = ask(port, "GET", path)
    return status, 1000 * (time.perf_counter() - start)


def watch_health(port: int, control_port: int, until: float, seen: Seen) -> None:
    "Ask for health ten times a second, and the control server beside it."
    while time.monotonic() < until:
        status, milliseconds = timed(port, "/health/live")
        if status == 200:
            seen.health.append(milliseconds)
        else:
            seen.answers[f"health lost ({status})"] += 1
        seen.control.append(timed(control_port, "/")[1])
        time.sleep(0.1)


async def answer_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    "Answer a request with nothing."
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


def serve_nothing(port: int) -> None:
    "The control server."
    async def serve() -> None:
        server = await asyncio.start_server(answer_nothing, HOST, port)
        await server.serve_forever()
    asyncio.run(serve())


def watch_memory(server: psutil.Process, until: float, seen: Seen) -> None:
    "Note the memory of the server twenty times a second."
    while time.monotonic() < until:
        seen.memory.append(server.memory_info().rss / MIB)
        time.sleep(0.05)


def new_attackers(name: str, port: int, until: float) -> tuple[list[SpawnProcess], Synchronized]:
    "The attacking processes, not started yet, and the count of what they send."
    context = multiprocessing.get_context("spawn")
    sent = context.Value("L", 0)
    arguments = (name, port, until, sent)
    return [context.Process(target=run_attack, args=arguments, daemon=True) for _ in range(PROCESSES)], sent


def end_attackers(name: str, attackers: list[SpawnProcess]) -> None:
    "Wait for the attackers, whose time is up; end with a sentence where one had failed: nobody attacked then."
    for attacker in attackers:
        attacker.join(10)
    codes = [attacker.exitcode for attacker in attackers]  # None: it still waits for the server
    for attacker in attackers:
        attacker.kill()
    failed = [code for code in codes if code]
    if failed:
        sys.exit(f"an attacker of {name!r} ended with code {failed[0]}; see its error above")


def run(name: str, port: int, control_port: int, seconds: float, server: psutil.Process) -> Seen:
    "One attack, and what honest clients saw meanwhile."
    seen, until = Seen(), time.monotonic() + seconds
    image = encode(Image.effect_noise((640, 480), 60).convert("RGB"), "JPEG")
    attackers, sent = new_attackers(name, port, until)
    watchers = [
        threading.Thread(target=predict, args=(port, until, image, seen)),
        threading.Thread(target=predict, args=(port, until, image, seen)),
        threading.Thread(target=watch_health, args=(port, control_port, until, seen)),
        threading.Thread(target=watch_memory, args=(server, until, seen)),
    ]
    for worker in (*attackers, *watchers):
        worker.start()
    for watcher in watchers:
        watcher.join()
    end_attackers(name, attackers)
    seen.sent = sent.value
    return seen


def memory_in_use(port: int, server: psutil.Process) -> float:
    "MiB that the server takes at most while it answers the largest images that it allows, one after another."
    seen = Seen()
    watcher = threading.Thread(target=watch_memory, args=(server, time.monotonic() + 5, seen))
    watcher.start()
    while watcher.is_alive():
        ask(port, "POST", "/v1/predict?format=raw", noisy_jpeg())
    return max(seen.memory)


def print_row(name: str, seen: Seen, base: float) -> None:
    "One attack of the table."
    lost = sum(n for what, n in seen.answers.items() if "lost" in what)
    health = sorted(seen.health) or [math.nan]
    nearly_worst = health[int(0.99 * len(health))]
    growth = max(seen.memory) - base
    counts = f"{seen.sent:8}{seen.answers['200']:8}{seen.answers['503']:8}{lost:6}"
    print(f"{name:34}{counts}{statistics.median(health):10.1f}"
          f"{nearly_worst:10.1f}{health[-1]:10.1f}{max(seen.control):10.1f}{growth:12.0f}", flush=True)


@contextmanager
def control_server() -> Iterator[int]:
    "The port of a server that does nothing, as long as it is needed."
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve_nothing, args=(port,), daemon=True)
    process.start()
    try:
        yield port
    finally:
        process.kill()
        process.join()


@contextmanager
def attacked_server(model: Path, port: int) -> Iterator[psutil.Process]:
    "The process of `seg_serve`, as long as it is needed."
    process, _ = start_server(model, port)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def print_head(model: Path, base: float) -> None:
    "What was measured on what, and the names of the columns."
    print(f"{model.name}, {psutil.cpu_count()} processors, load {psutil.getloadavg()[0]:.1f}, "
          f"the server takes up to {base:.0f} MiB for one image; health in ms, growth in MiB")
    columns = (("sent", 8), ("200", 8), ("503", 8), ("lost", 6), ("median", 10), ("99 %", 10), ("worst", 10),
               ("control", 10), ("growth", 12))
    print(f"{'attack':34}" + "".join(name.rjust(width) for name, width in columns), flush=True)


def check_names(names: list[str]) -> None:
    "End with a sentence where there is no attack of a name."
    for name in names:
        if name not in ATTACKS:
            sys.exit(f"there is no attack {name!r}; take some of: {', '.join(map(repr, ATTACKS))}")


def parse_arguments() -> argparse.Namespace:
    "What the user asks for."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60, help="for all attacks together")
    parser.add_argument("--only", nargs="+", default=list(ATTACKS), metavar="NAME", help="names of attacks")
    arguments = parser.parse_args()
    check_names(arguments.only)
    return arguments


def main() -> None:
    "Run all attacks and print the table."
    arguments = parse_arguments()
    seconds = arguments.seconds / len(arguments.only)
    port = free_port()
    with attacked_server(arguments.model, port) as server, control_server() as control_port:
        base = memory_in_use(port, server)
        print_head(arguments.model, base)
        for name in arguments.only:
            print_row(name, run(name, port, control_port, seconds, server), base)
    print(f"load at the end {psutil.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
