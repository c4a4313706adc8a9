"What a stranger may send to the model server: nothing of it locks others out, fills the memory or stops the clock."

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("onnx")

import httpx
from echo import echo_graph, echo_model
from fastapi.testclient import TestClient
from forked import run_forked
from serving import (
    ROOT,
    app_client,
    connect,
    encode,
    get,
    listening,
    noise,
    post_image,
    read_to_end,
    run_program,
    send_all,
    serving,
    wait_until,
)
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from model_server import Client, Settings
from model_server.application import make_app
from model_server.command import Options, host_names, seg_serve
from model_server.connections import Connections, network_of
from model_server.errors import APIError
from model_server.work_queue import WorkQueue
from nbs_lib.core import SegError
from nbs_lib.predict import Predictor

MIB = 2**20


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return echo_model(tmp_path_factory.mktemp("served") / "echo.onnx")


@pytest.fixture(scope="module")
def client(model):
    with app_client(model) as client:
        yield client


# --- the work of decoding -----------------------------------------------------------------------------------------

def segments_of(jpeg: bytes, marker: bytes) -> int:
    "Where the last segment of this kind begins."
    return jpeg.rindex(b"\xff" + marker)


def many_scans(times: int, size: tuple[int, int] = (2048, 1024)) -> bytes:
    "A progressive JPEG whose last scan is repeated."
    jpeg = encode(Image.new("L", size, 90), "JPEG", progressive=True)
    start = segments_of(jpeg, b"\xda")
    scan = jpeg[start:-2]
    return jpeg[:-2] + scan * times + jpeg[-2:]


@pytest.mark.clock
def test_a_jpeg_of_many_scans_is_refused_undecoded(client):
    bomb = many_scans(1000, (4096, 2048))
    assert len(bomb) < 200_000
    start = time.perf_counter()
    answer = client.post("/v1/predict", content=bomb)
    assert answer.status_code == 413 and "scans" in answer.json()["error"]
    assert time.perf_counter() - start < 0.3


def test_usual_progressive_photos_pass(client):
    for mode in ("L", "RGB", "CMYK"):
        photo = encode(Image.new(mode, (4096, 2048)), "JPEG", progressive=True)
        assert client.post("/v1/predict?format=json", content=photo).status_code == 200, mode


def test_what_looks_like_a_scan_and_is_none_does_not_count(client):
    "A thumbnail within the header, and a film behind the picture, as telephones write them."
    photo = encode(noise(1024, 1024), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + b"\xff\xda" * 30_000
    assert client.post("/v1/predict", content=photo[:2] + comment + photo[2:] + b"\xff\xda" * MIB).status_code == 200


HIDING_PLACES = {
    "behind fill bytes": b"\xff\xff\xff",
    "behind a marker without a length": b"\xff\x01",
    "behind a restart": b"\xff\xd3",
    "behind a stuffed byte": b"\xff\x00",
    "behind a reserved marker": b"\xff\x02",
}


@pytest.mark.parametrize("before", HIDING_PLACES.values(), ids=HIDING_PLACES)
def test_scans_cannot_hide(client, before):
    jpeg = encode(Image.new("L", (4096, 2048), 90), "JPEG", progressive=True)
    scan = jpeg[segments_of(jpeg, b"\xda"):-2]
    answer = client.post("/v1/predict", content=jpeg[:-2] + (before + scan) * 400 + jpeg[-2:])
    assert answer.status_code == 413 and "scans" in answer.json()["error"], answer.text


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.clock
def test_a_picture_of_a_million_parts_is_refused(client):
    jpeg, png = encode(noise(), "JPEG"), encode(noise())
    comments = jpeg[:2] + b"\xff\xfe\x00\x02" * 1_500_000 + jpeg[2:]
    chunks = png[:33] + chunk(b"teSt", b"") * 500_000 + png[33:]
    for data in (comments, chunks):
        start = time.perf_counter()
        answer = client.post("/v1/predict", content=data)
        assert answer.status_code == 413 and "parts" in answer.json()["error"]
        assert time.perf_counter() - start < 0.5


@pytest.mark.clock
def test_no_place_is_kept_past_the_deadline():
    "Work that cannot be stopped goes on without its place: the next one need not wait for it."
    async def stuck_then_quick() -> tuple[Exception, float]:
        queue = WorkQueue(Settings(deadline=0.3))
        with pytest.raises(APIError) as refused:
            await queue.run(lambda: time.sleep(3))
        start = time.perf_counter()
        assert (await queue.run(lambda: "done"))[0] == "done"
        return refused.value, time.perf_counter() - start

    refused, seconds = asyncio.run(stuck_then_quick())
    assert refused.status == 503 and refused.retry_after >= 1
    assert seconds < 0.2


def test_stuck_work_is_bounded():
    "Threads that never end are counted; when there are too many, new work is told to come back."
    async def stuck() -> list:
        queue = WorkQueue(Settings(deadline=0.05))
        release = threading.Event()
        work = [asyncio.create_task(queue.run(lambda: release.wait(20))) for _ in range(2)]
        answers = await asyncio.gather(*work, return_exceptions=True)
        for _ in range(20):
            answers += await asyncio.gather(queue.run(lambda: release.wait(20)), return_exceptions=True)
        threads = threading.active_count()
        release.set()
        return answers, threads

    before = threading.active_count()
    answers, threads = asyncio.run(stuck())
    assert all(isinstance(a, APIError) and a.status == 503 and a.retry_after >= 1 for a in answers)
    assert threads - before <= 8


async def reason_of(work) -> str:
    "The word for why work is refused; `done` where it is not."
    try:
        await work
    except APIError as error:
        return error.reason
    return "done"


def test_nothing_is_begun_while_too_many_are_stuck():
    async def three() -> list[str]:
        release = threading.Event()
        queue = WorkQueue(Settings(deadline=0.1, max_stuck=2))
        reasons = [await reason_of(queue.run(lambda: release.wait(20))) for _ in range(3)]
        release.set()
        return reasons

    assert asyncio.run(three()) == ["deadline", "deadline", "stuck"]


def test_what_was_stuck_and_has_ended_no_longer_counts():
    "Else a server that was slow a few times would refuse everything from then on."
    async def slow_and_quick() -> list[str]:
        release = threading.Event()
        queue = WorkQueue(Settings(deadline=0.5, max_stuck=1))
        reasons = [await reason_of(queue.run(lambda: release.wait(20)))]
        release.set()
        async with asyncio.timeout(20):
            while queue.stuck:
                await asyncio.sleep(0.02)
        reasons.append(await reason_of(queue.run(lambda: None)))
        return reasons

    assert asyncio.run(slow_and_quick()) == ["deadline", "done"]


@pytest.mark.clock
def test_the_deadline_counts_the_wait_for_a_place():
    async def two() -> list[str]:
        queue = WorkQueue(Settings(deadline=1.0))
        work = [reason_of(queue.run(lambda: time.sleep(0.7))) for _ in range(2)]
        return await asyncio.gather(*work)

    assert asyncio.run(two()) == ["done", "deadline"]


# --- headers, bodies, connections -----------------------------------------------------------------------------------

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
ENDLESS = {
    "one header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a" * 65536),
    "the request line": (b"GET /", b"a" * 65536),
    "many headers": (b"GET / HTTP/1.1\r\n", b"X-Name: value\r\n" * 4096),
    "empty lines": (b"", b"\r\n" * 32768),
    "one trailer": (CHUNKED + b"X: ", b"a" * 65536),
    "many trailers": (CHUNKED, b"X: value\r\n" * 4096),
}


@pytest.mark.parametrize("begin,rest", ENDLESS.values(), ids=ENDLESS)
def test_headers_have_an_end(model, begin, rest):
    with listening(model, token="t") as url, connect(url) as s:
        s.sendall(begin)
        assert send_all(s, rest, 32 * MIB // len(rest)) < 16 * MIB, "the connection is closed while we send"


def test_long_headers_are_told_so(model):
    long = b"a" * 40_000
    requests = (b"GET /" + long + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + long + b"\r\n\r\n")
    with listening(model) as url:
        for request in requests:
            with connect(url) as s:
                s.sendall(request)
                answer = read_to_end(s)
            assert answer.startswith(b"HTTP/1.1 431 ") and b'{"error": "' in answer
        assert get(url + "/health/live?" + "a" * 8000).status_code == 200, "what browsers send passes"


def slow_body(url: str, path: str, **options) -> socket.socket:
    "A request whose body does not come."
    s = connect(url, **options)
    s.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".encode() + bytes(1000))
    return s


@pytest.mark.parametrize("path", ["/", "/demo", "/health/live", "/health/ready", "/v1/predict", "/nowhere"])
def test_anonymous_bodies_lock_nobody_out(model, path):
    "They have no token: whatever they send, who has one is served."
    with listening(model, token="t") as url, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(slow_body(url, path))
        time.sleep(0.3)
        answer = post_image(url, encode(noise()), headers={"Authorization": "Bearer t"})
        assert answer.status_code == 200, answer.text


@pytest.mark.clock
def test_slow_bodies_give_way(model):
    "Without a token everybody may send; the body that has taken longest gives its place to the next."
    with listening(model) as url, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(slow_body(url, "/v1/predict"))
        time.sleep(1.3)
        for _ in range(20):
            assert post_image(url, encode(noise())).status_code == 200


def test_bodies_held_are_bounded(model):
    "Thirty that are nearly whole, 210 MiB, do not fill the memory."
    with listening(model, max_held=16 * MIB) as url, ExitStack() as stack:
        before = memory()
        for _ in range(30):
            s = stack.enter_context(connect(url))
            s.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
            send_all(s, bytes(MIB), 7)
        assert memory() - before < 60 * MIB


def memory() -> int:
    "Bytes of this process, where `listening` runs its server."
    psutil = pytest.importorskip("psutil")
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_idle_connections_lock_nobody_out(model, source):
    with listening(model) as url, ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(url, source))
        for _ in range(3):
            assert get(url + "/health/live").status_code == 200
            assert post_image(url, encode(noise())).status_code == 200


def test_half_requests_lock_nobody_out(model):
    with listening(model) as url, ExitStack() as stack:
        for i in range(300):
            s = stack.enter_context(connect(url, f"127.0.0.{2 + i % 7}"))
            s.sendall(b"GET /health/live HTTP/1.1\r\n")
        for _ in range(3):
            assert get(url + "/health/live").status_code == 200


BEGINNINGS = {
    "nothing": b"", "half a line": b"GET /hea", "half the headers": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "half a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    "half a handshake": b"GET /v1/stream HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
}


@pytest.mark.clock
@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_request_that_is_never_whole_is_dropped(model, begin):
    with listening(model, upload=1.0, idle=1.0) as url, connect(url) as s:
        s.sendall(begin)
        start = time.monotonic()
        read_to_end(s)
        assert time.monotonic() - start < 6


@pytest.mark.clock
def test_bytes_now_and_then_do_not_keep_a_request_open(model):
    with listening(model, upload=1.0, idle=1.0) as url, connect(url) as s:
        s.sendall(b"GET / HTTP/1.1\r\nX: ")
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < 8:
                s.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() - start < 6


@pytest.mark.clock
def test_an_answer_that_nobody_reads_is_dropped(model):
    large = encode(noise(64, 64).resize((4000, 2000)), "JPEG")
    head = f"POST /v1/predict?format=raw HTTP/1.1\r\nHost: a\r\nContent-Length: {len(large)}\r\n\r\n".encode()
    with listening(model, upload=1.0, idle=1.0) as url, connect(url) as s:
        s.sendall(head + large)
        time.sleep(5)
        assert len(read_to_end(s)) < 4000 * 2000


@pytest.mark.clock
def test_answers_that_nobody_reads_do_not_fill_the_memory(model):
    "Above the limit a client is cut off, however patient the server is otherwise."
    large = encode(noise(64, 64).resize((4000, 2000)), "JPEG")
    head = f"POST /v1/predict?format=raw HTTP/1.1\r\nHost: a\r\nContent-Length: {len(large)}\r\n\r\n".encode()
    with listening(model, max_unsent=MIB, idle=1.0) as url, connect(url) as s:
        s.sendall(head + large)
        time.sleep(3)
        assert len(read_to_end(s)) < 4000 * 2000


@dataclass(eq=False)
class FakeConnection:
    "A connection as `Connections` sees it."

    network: str = "10.0.0.1"
    since: float = 0.0
    answered: bool = False
    bytes_unsent: int = 0
    aborted: bool = False

    def is_busy(self) -> bool:
        return False

    def unsent(self) -> int:
        return self.bytes_unsent

    def abort(self) -> None:
        self.aborted = True


def test_the_answers_left_unread_longest_are_dropped():
    connections = Connections(Settings(max_unsent=100))
    opened = [FakeConnection(since=since, bytes_unsent=60) for since in (3.0, 1.0, 2.0)]
    for connection in opened:
        assert connections.admit(connection)
    connections.drop_unsent()
    assert [connection.aborted for connection in opened] == [False, True, True]


def test_the_connection_that_gives_way_has_waited_longest_without_an_answer():
    connections = Connections(Settings(max_connections=3))
    served = FakeConnection(since=1.0, answered=True)
    longest, later = FakeConnection(since=2.0), FakeConnection(since=3.0)
    for connection in (served, later, longest, FakeConnection(since=4.0)):
        assert connections.admit(connection)
    assert [connection.aborted for connection in (served, longest, later)] == [False, True, False]


def test_an_ipv6_client_counts_by_its_network():
    "It has as many addresses as it likes, all within one /64."
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") == network_of("2001:db8::3%eth0")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("10.0.0.1") != network_of("10.0.0.2")


# --- streams ------------------------------------------------------------------------------------------------------

HANDSHAKE = (b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")


def ask_for_stream(url: str, source: str = "127.0.0.1") -> tuple[socket.socket, bytes]:
    "A WebSocket whose frames we write by hand, and the answer to its handshake."
    s = connect(url, source)
    s.sendall(HANDSHAKE)
    return s, s.recv(4096)


TINY_FRAMES = {
    "binary": b"\x82\x81\0\0\0\0a",
    "text": b"\x81\x81\0\0\0\0a",
    "ping": b"\x89\x81\0\0\0\0a",
    "fragments": b"\x00\x81\0\0\0\0a",
}


@pytest.mark.clock
@pytest.mark.parametrize("frame", TINY_FRAMES.values(), ids=TINY_FRAMES)
def test_a_flood_of_tiny_frames_stalls_nobody(model, frame):
    begin = b"\x02\x81\0\0\0\0a" if frame[0] == 0 else b""
    with listening(model) as url, ExitStack() as stack, httpx.Client() as http, ThreadPoolExecutor(4) as pool:
        streams = [stack.enter_context(ask_for_stream(url)[0]) for _ in range(4)]
        for s in streams:
            s.settimeout(4)
            s.sendall(begin)
        floods = [pool.submit(send_all, s, frame * 9000, 30) for s in streams]
        slowest, end = 0.0, time.monotonic() + 3
        while time.monotonic() < end:
            start = time.perf_counter()
            assert http.get(url + "/health/live").status_code == 200
            slowest = max(slowest, time.perf_counter() - start)
        assert slowest < 1, slowest
        for s in streams:
            s.shutdown(socket.SHUT_RDWR)
        assert all(f.result() > 0 for f in floods)


@pytest.mark.clock
def test_a_fast_stream_is_slowed_and_whole(model):
    "Frames above the rate wait in the sender; each is answered or replaced, none is lost."
    with listening(model, frame_rate=50) as url, Client(url).stream() as stream:
        photo = encode(noise())
        start = time.monotonic()
        for _ in range(200):
            stream.send(photo)
        last, answered = stream.receive(10), 1
        while last.info["frame"] < 199:
            last, answered = stream.receive(10), answered + 1
        assert time.monotonic() - start > 1.5
        assert answered + last.info["skipped"] == 200


def test_streams_of_all_addresses_together_are_bounded(model):
    with listening(model, max_streams=2) as url, ExitStack() as stack:
        answers = []
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            s, answer = ask_for_stream(url, source)
            stack.enter_context(s)
            answers.append(answer[9:12])
        assert answers == [b"101", b"101", b"503"]


def test_one_address_cannot_take_all_streams(model):
    with listening(model, max_streams=4) as url, ExitStack() as stack:
        mine = [ask_for_stream(url, "127.0.0.2") for _ in range(4)]
        for s, _ in mine:
            stack.enter_context(s)
        assert [answer[9:12] for _, answer in mine] == [b"101", b"101", b"503", b"503"]
        other, answer = ask_for_stream(url, "127.0.0.3")
        stack.enter_context(other)
        assert answer.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("address,status", [("2001:db8::2", 503), ("2001:db8:0:1::2", 101)])
def test_one_ipv6_network_cannot_take_all_streams(model, address, status):
    app = make_app(model, Settings(max_streams=2))
    with TestClient(app, client=("2001:db8::1", 1)) as first, first.websocket_connect("/v1/stream"):
        assert status_of_stream(TestClient(app, client=(address, 1))) == status


def status_of_stream(client: TestClient, **headers: str) -> int:
    "How the handshake of a stream is answered."
    try:
        with client.websocket_connect("/v1/stream", headers=headers):
            return 101
    except WebSocketDenialResponse as denial:
        return denial.status_code


def test_a_silent_stream_is_closed_with_a_reason(model):
    with listening(model, idle=0.2, deadline=2.0) as url, Client(url).stream() as stream:
        stream.send(encode(noise()))
        assert stream.receive(10).info["frame"] == 0
        with pytest.raises(SegError, match="no frame came for 2.2 s; open another"):
            stream.receive(20)
        assert 'seg_rejected_total{reason="silent"} 1.0' in get(url + "/metrics").text


# --- other web pages ----------------------------------------------------------------------------------------------

MINE, OTHER = "https://mine.example", "https://other.example"
CALLERS = {
    "a program": ({}, 200),
    "our page": ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}, 200),
    "our page behind a proxy": ({"Origin": OTHER, "Sec-Fetch-Site": "same-origin"}, 200),
    "our page in an old browser": ({"Origin": "http://testserver"}, 200),
    "an allowed page": ({"Origin": MINE, "Sec-Fetch-Site": "cross-site"}, 200),
    "another page": ({"Origin": OTHER, "Content-Type": "text/plain"}, 403),
    "a page of this machine": ({"Origin": "http://testserver:8888", "Sec-Fetch-Site": "same-site"}, 403),
    "a page in a frame": ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
    "a page that hides": ({"Sec-Fetch-Site": "cross-site"}, 403),
}


@pytest.mark.parametrize("headers,status", CALLERS.values(), ids=CALLERS)
def test_other_pages_cannot_let_the_model_work(model, headers, status):
    "Some requests need no preflight: the browser sends them first and hides the answer afterwards."
    app = make_app(model, Settings(origins=(MINE,)))
    app.state.models.default.status = "ready"
    client = TestClient(app)
    for method, path, body in (("POST", "/v1/predict", encode(noise())), ("PUT", "/set_label_colors", b"")):
        answer = client.request(method, path, content=body, headers=headers)
        assert (answer.status_code == 403) == (status == 403), answer.text
        assert status != 403 or "--origins" in answer.json()["error"]
    assert client.get("/v1/model", headers=headers).status_code == 200, "reading is the browser's to forbid"
    assert (status_of_stream(client, **headers) == 403) == (status == 403)


HOSTS = {
    "localhost": 200, "localhost:4200": 200, "LOCALHOST:1": 200, "127.0.0.1": 200, "127.1.2.3:80": 200,
    "[::1]:4200": 200, "rooms.example": 200, "rooms.example.:443": 200,
    "evil.example:4200": 403, "10.0.0.1": 403, "localhost.evil.example": 403, "[::2]:1": 403, "[": 403,
}


@pytest.mark.parametrize("host,status", HOSTS.items())
def test_a_server_answers_to_its_own_names_only(model, host, status):
    "Else a page could give its own name the address of this machine, and be taken for ours."
    client = TestClient(make_app(model, Settings(hosts=("rooms.example",))))
    for path in ("/", "/v1/model", "/health/live"):
        assert client.get(path, headers={"Host": host}).status_code == status
    assert (status_of_stream(client, Host=host) == 403) == (status == 403)


@pytest.mark.parametrize("options,names", [
    (Options(), []), (Options(host="localhost"), []), (Options(host="::1"), []), (Options(host="0.0.0.0"), ["*"]),
    (Options(hosts="Rooms.example, seg"), ["rooms.example", "seg"]), (Options(host="::", hosts="seg"), ["seg"]),
])
def test_the_address_says_which_names_are_ours(options, names):
    assert host_names(options) == names


# --- JSON ---------------------------------------------------------------------------------------------------------

JSON_FLOODS = {
    "objects": b'{"labels": [' + b"{}," * (2 * MIB) + b"{}]}",
    "numbers": b'{"labels": [' + b"0," * (3 * MIB) + b"0]}",
    "lists": b'{"labels": [' + b"[]," * (2 * MIB) + b"[]]}",
    "keys": b"{" + b'"":0,' * MIB + b'"":0}',
}


@pytest.mark.parametrize("path", ["/set_label_colors", "/predict_image_text"])
@pytest.mark.parametrize("body", JSON_FLOODS.values(), ids=JSON_FLOODS)
def test_json_of_a_million_values_is_refused_unparsed(client, path, body):
    "Parsing it would stop everything else: Python's parser does not let go of the interpreter."
    answer = client.put(path, content=body)
    assert answer.status_code == 400 and "JSON values" in answer.json()["error"]


def test_the_largest_color_table_passes(client):
    "A thousand labels with their colors are far below the limit."
    color = dict(r=1, g=2, b=3, a=4)
    body = dict(mime="application/json", labels=[1] * 1000, colors=[color] * 1000)
    assert client.put("/set_label_colors", json=body).status_code == 200


def test_a_garbage_collection_does_not_stop_requests(model, tmp_path):
    "A worker's modules and model are left out of every collection: looking at them takes 50 ms or more each time."
    code = """
        import gc, json, os, sys
        from model_server import command
        given = dict(model=sys.argv[1], runtime=sys.argv[2], settings={}, origins=[], hosts=[], parent=os.getpid())
        os.environ[command.ENVIRONMENT] = json.dumps(given)
        app = command.worker_app()
        print(gc.get_freeze_count(), len(gc.get_objects()))"""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(model), str(tmp_path)],
                          capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    left_out, looked_at = map(int, done.stdout.split())
    assert left_out > 10 * looked_at


# --- a new model --------------------------------------------------------------------------------------------------

def test_workers_follow_whatever_happens(model, tmp_path, monkeypatch, caplog):
    "An exception that nobody thought of is logged, and the model is loaded at the next look."
    from model_server import service as module
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    other = Predictor(echo_model(tmp_path / "other.onnx", arch="other"))
    loads = iter([RuntimeError("out of file handles"), MemoryError(), other])

    def load() -> Predictor:
        given = next(loads)
        if isinstance(given, BaseException):
            raise given
        return given

    async def follow() -> str:
        worker = module.Service(Predictor(model), module.Shared(Settings(), tmp_path / "runtime"), load)
        task = asyncio.create_task(worker.follow())
        (tmp_path / "runtime" / "reload-echo").write_text(other.sha256)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if worker.predictor is other:
                break
        task.cancel()
        return worker.predictor.meta["arch"]

    with caplog.at_level(logging.INFO, "model_server"):
        assert asyncio.run(follow()) == "other"
    assert "out of file handles" in caplog.text


def test_a_reload_of_a_model_that_cannot_run_is_refused(tmp_path):
    "It can be read, but takes no image of the size that it names."
    path = echo_model(tmp_path / "m.onnx")
    with app_client(path, token="t") as client:
        client.headers["Authorization"] = "Bearer t"
        graph = echo_graph()
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 96
        echo_model(path, graph)
        refused = client.post("/v1/reload")
        assert refused.status_code == 409 and "could not be run" in refused.json()["error"]
        assert client.post("/v1/predict", content=encode(noise())).status_code == 200


def test_a_reload_that_fails_is_409_whatever_the_reason(tmp_path, monkeypatch):
    path = echo_model(tmp_path / "m.onnx")
    with app_client(path, token="t") as client:
        client.headers["Authorization"] = "Bearer t"
        echo_model(path, echo_graph(mask_name="labels"))
        refused = client.post("/v1/reload")
        assert refused.status_code == 409 and "goes on serving" in refused.json()["error"]
        echo_model(path)
        monkeypatch.setattr(client.app.state.models.default, "load", lambda: 1 / 0)
        assert client.post("/v1/reload").status_code == 409
        assert client.post("/v1/predict", content=encode(noise())).status_code == 200


class Broken(Predictor):
    "A model that loads and cannot run."

    def run(self, pictures):
        raise RuntimeError("no kernel for this graph")


def test_a_model_that_cannot_run_says_so(model):
    with TestClient(make_app(Broken(model)), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").json()["status"] == "failed", 3)
        assert client.get("/health/ready").status_code == 503
        answer = client.post("/v1/predict", content=encode(noise()))
        assert answer.status_code == 503 and "cannot run" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) >= 1


def test_a_model_that_cannot_run_is_not_served(tmp_path):
    graph = echo_graph()
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 96
    done = run_program("--model", echo_model(tmp_path / "echo.onnx", graph))
    assert done.returncode == 1 and "could not be run" in done.stderr and "Traceback" not in done.stderr


# --- odd requests -------------------------------------------------------------------------------------------------

ACCEPT = [
    ("", "image/png"),
    ("IMAGE/PNG", "image/png"),
    ("Application/JSON", "application/json"),
    ("*/*", "image/png"),
    ("image/png;q=0, */*", "application/json"),
    ("image/png;Q=0.1, application/json", "application/json"),
    ("image/*;q=0.5, application/octet-stream;q=0.8", "application/octet-stream"),
    ("*/*;q=0.1, image/png;q=0.01", "application/json"),
    ("text/html,application/xhtml+xml,*/*;q=0.8", "image/png"),
    ("image/png ; q=0.5 , application/json ; q=0.4", "image/png"),
]


@pytest.mark.parametrize("accept,kind", ACCEPT)
def test_accept_headers(client, accept, kind):
    answer = client.post("/v1/predict", content=encode(noise()), headers={"accept": accept})
    assert answer.status_code == 200 and answer.headers["content-type"] == kind


@pytest.mark.parametrize("accept", ["image/gif", "*/*;q=0", "image/png;q=0", "image/png;q=none", "image/png;q=nan"])
def test_accept_headers_that_want_nothing_of_ours(client, accept):
    assert client.post("/v1/predict", content=encode(noise()), headers={"accept": accept}).status_code == 406


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "http://a]b", "//"])
def test_odd_origins_are_foreign(client, origin):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/stream", headers={"Origin": origin}):
        pass


# --- the program --------------------------------------------------------------------------------------------------

WRONG_STARTS = [
    ("--workers", 0),
    ("--workers", -1),
    ("--port", 99999),
    ("--port", -1),
    ("--deadline", "nan"),
    ("--deadline", "inf"),
    ("--deadline", 0),
    ("--waiting", -1),
    ("--batch", 0),
    ("--batch", 1000),
    ("--batch_wait_ms", -1),
    ("--batch_wait_ms", "nan"),
    ("--host", "a..b"),
    ("--host", "no such name"),
]


@pytest.mark.parametrize("name,value", WRONG_STARTS)
def test_wrong_numbers_are_one_sentence(model, name, value):
    done = run_forked(seg_serve, "--model", model, name, value)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("seg_serve: ") and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_no_temporary_folder_is_left(model, tmp_path, workers):
    with serving(model, "--workers", workers, TMPDIR=str(tmp_path)) as (url, process, _):
        assert list(tmp_path.glob("seg_serve-*"))
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert list(tmp_path.glob("seg_serve-*")) == []


KILLED_WORKER = """
import os, sys
from model_server.telemetry import Telemetry
if os.fork() == 0:
    Telemetry().set_waiting(2)
    os._exit(9)
os.wait()
here = Telemetry()
here.set_waiting(1)
print(*(line for line in here.text().decode().splitlines() if line.startswith('seg_waiting')))
"""


def test_a_killed_worker_no_longer_waits(tmp_path):
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", KILLED_WORKER]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "seg_waiting 1.0" in done.stdout and "seg_waiting_max 2.0" in done.stdout, done.stdout
