"""What the tests of the model server share: a running server, images to send, and answers to read."""

from __future__ import annotations

import base64
import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import uvicorn
from echo import N_CLASSES, SIZE
from fastapi.testclient import TestClient
from PIL import Image

from model_server import Settings
from model_server.application import make_app
from model_server.models import Source
from model_server.uvicorn_protocols import server_options
from nbs_lib.predict import Predictor

ROOT = Path(__file__).resolve().parent.parent


class SlowPredictor(Predictor):
    "A predictor that takes its time."

    seconds = 0.2

    def __call__(self, image: Any, fit: str = "square") -> Any:
        time.sleep(self.seconds)
        return super().__call__(image, fit)


def slow_predictor(model: Path, seconds: float) -> SlowPredictor:
    "A predictor that needs this many seconds for each image."
    predictor = SlowPredictor(model)
    predictor.seconds = seconds
    return predictor


# --- servers ------------------------------------------------------------------------------------------------------

def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    "Return as soon as the condition holds; fail where it does not within `seconds`."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


@contextmanager
def app_client(model: Source | list[Source], **settings: Any) -> Iterator[TestClient]:
    "A client that calls the application directly, without a socket."
    with TestClient(make_app(model, Settings(**settings)), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


def free_port() -> int:
    "A port of this machine that nobody listens on."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def server_of(model: Source | list[Source], port: int, settings: Settings) -> uvicorn.Server:
    "A server with the limits that `seg_serve` gives it."
    config = uvicorn.Config(make_app(model, settings), port=port, log_level="error", **server_options(settings))
    return uvicorn.Server(config)


@contextmanager
def listening(model: Source | list[Source], **settings: Any) -> Iterator[str]:
    "A server on a real socket, in a thread of this process; yields its address."
    port = free_port()
    server = server_of(model, port, Settings(**settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: get(url + "/health/ready").status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(model: Path, *args: Any, **env: str) -> Iterator[tuple[str, subprocess.Popen, Path]]:
    "`seg_serve` as a program; yields its address, its process and the file of its log."
    port = free_port()
    log = model.parent / f"log-{port}"
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = start_program(out, "--model", model, "--port", port, *args, **env)
        try:
            wait_until(lambda: get(url + "/health/ready").status_code == 200, 60)
            yield url, process, log
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


PROGRAM = (sys.executable, "-m", "model_server.command")


def start_program(out: Any, *args: Any, **env: str) -> subprocess.Popen:
    "Start `seg_serve` with its output in the file `out`."
    command = [*PROGRAM, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=os.environ | env, start_new_session=True)


def run_program(*args: Any) -> subprocess.CompletedProcess:
    "Run `seg_serve` to its end."
    command = [*PROGRAM, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def get(url: str) -> httpx.Response:
    "The answer; status 599 where there is none."
    try:
        return httpx.get(url)
    except httpx.TransportError:
        return httpx.Response(599)


def nobody_listens(url: str) -> bool:
    "Have all workers ended? The first one that ends breaks off answers, too, while others still accept connections."
    place = urlsplit(url)
    with socket.socket() as s:
        return s.connect_ex((place.hostname, place.port)) == errno.ECONNREFUSED


def post_image(url: str, data: bytes, **options: Any) -> httpx.Response:
    "The answer of `/v1/predict` as JSON."
    return httpx.post(f"{url}/v1/predict?format=json", content=data, timeout=30, **options)


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    "A bare TCP connection to a server, from this address."
    place = urlsplit(url)
    s = socket.socket()
    s.bind((source, 0))
    s.connect((place.hostname, place.port))
    s.settimeout(20)
    return s


def send_all(s: socket.socket, chunk: bytes, times: int) -> int:
    "How many bytes could be sent before the other side closed."
    sent = 0
    try:
        for _ in range(times):
            s.sendall(chunk)
            sent += len(chunk)
    except OSError:
        pass
    return sent


def read_to_end(s: socket.socket) -> bytes:
    "All that comes until the other side closes; what came so far where it breaks off."
    data = b""
    try:
        while chunk := s.recv(65536):
            data += chunk
    except ConnectionError:
        pass
    return data


# --- images -------------------------------------------------------------------------------------------------------

def noise(width: int = SIZE, height: int = SIZE, seed: int = 0) -> Image.Image:
    "An image in which every label occurs."
    rng = np.random.default_rng(seed)
    red = rng.integers(0, N_CLASSES, (height, width))
    green = rng.integers(0, 256, (height, width))
    channels = np.stack([red, green, np.zeros((height, width))], 2)
    return Image.fromarray(channels.astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    "The image as the bytes of a file."
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decode(data: bytes, mode: str | None = "RGBA") -> np.ndarray:
    "The pixels of an encoded image; `mode` None: as they are stored."
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert(mode) if mode else image)


def image_text(image: Image.Image | bytes) -> dict[str, str]:
    "The body of `PUT /predict_image_text`."
    data = image if isinstance(image, bytes) else encode(image)
    return dict(mime="image/png", image64=base64.b64encode(data).decode())


def wanted_colors(colors: dict[int, Any]) -> dict[str, Any]:
    "The body of `PUT /set_label_colors`, from {label: (r, g, b, a)}."
    rows = [dict(zip("rgba", color)) for color in colors.values()]
    return dict(mime="application/json", labels=list(colors), colors=rows)
