"""A small client of the server's own protocol, for scripts and for the walkable window.

Needs the standard library, numpy and Pillow; a stream also needs `websockets`. Must not import the server.
"""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.labels import LabelSet


@dataclass(frozen=True)
class Seen:
    "One answer: the mask and what the server says about it (`labels`, `ms`, and `frame`, `skipped` in a stream)."

    mask: np.ndarray      # uint8 (height, width), label numbers
    info: dict[str, Any]


class Client:
    "`Client('http://127.0.0.1:4200').predict('photo.jpg').mask`"

    def __init__(self, url: str = "http://127.0.0.1:4200", token: str = "", patience: float = 60.0) -> None:
        self.url, self.token, self.patience = url.rstrip("/"), token, patience

    def model(self) -> dict[str, Any]:
        "What is served: name, size, labels with their colours, limits."
        return json.loads(self._ask("/v1/model"))

    def labels(self) -> LabelSet:
        "The model's label table."
        card = self.model()
        return LabelSet(tuple(r["name"] for r in card["labels"]), tuple(tuple(r["color"]) for r in card["labels"]), background=card["background"])

    def predict(self, photo: Any, fit: str = "square") -> Seen:
        "Label a photo: a path, encoded bytes, a Pillow image or a uint8 array. Waits and asks again while the server is full."
        return _seen(self._ask(f"/v1/predict?format=json&mask=true&fit={fit}", encoded(photo)))

    @contextmanager
    def stream(self, fit: str = "square") -> Iterator[Stream]:
        "An open `Stream`; only the newest frame sent is worked on."
        from websockets.sync.client import connect
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            socket = connect(f"ws{self.url.removeprefix('http')}/v1/stream?fit={fit}", additional_headers=headers, max_size=None, compression=None)
        except Exception as e:
            raise SegError(f"{self.url} gives no stream ({e}); is the server running there?") from None
        with socket:
            yield Stream(socket)

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/octet-stream"})
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        until = time.monotonic() + self.patience
        while True:
            try:
                with urllib.request.urlopen(request, timeout=self.patience) as response:
                    return response.read()
            except urllib.error.HTTPError as e:
                wait = int(e.headers.get("Retry-After", 0))
                if e.code != 503 or not wait or time.monotonic() + wait > until:
                    raise SegError(f"{self.url} refused ({e.code}): {_sentence(e)}") from None
                time.sleep(wait)
            except OSError as e:
                raise SegError(f"{self.url} does not answer ({getattr(e, 'reason', e)}); start a server with `seg_serve --model MODEL.onnx`") from None


class Stream:
    "Send pictures as they come, receive answers as they are ready; both may happen in threads of their own."

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    def send(self, photo: Any) -> None:
        "Send a picture, as `Client.predict` takes it."
        self.socket.send(encoded(photo))

    def receive(self, timeout: float | None = None) -> Seen | None:
        "The next answer; None when there is none within `timeout` seconds. `SegError` where a picture was refused or the stream has ended."
        try:
            text = self.socket.recv(timeout)
        except TimeoutError:
            return None
        except Exception as e:
            raise SegError(f"the stream has ended ({e}); open another") from None
        return _seen(text)


def encoded(photo: Any) -> bytes:
    "A photo as bytes to send; arrays and Pillow images become JPEG."
    if isinstance(photo, bytes):
        return photo
    if not isinstance(photo, (Image.Image, np.ndarray)):
        with open(photo, "rb") as f:
            return f.read()
    out = io.BytesIO()
    (photo if isinstance(photo, Image.Image) else Image.fromarray(photo)).convert("RGB").save(out, "JPEG", quality=92)
    return out.getvalue()


def _seen(text: bytes | str) -> Seen:
    info = json.loads(text)
    if "error" in info:
        raise SegError(f"the server refused frame {info['frame']} ({info['status']}): {info['error']}")
    return Seen(np.asarray(Image.open(io.BytesIO(base64.b64decode(info.pop("mask64"))))), info)


def _sentence(e: urllib.error.HTTPError) -> str:
    try:
        return json.loads(e.read())["error"]
    except (ValueError, KeyError, TypeError):
        return e.reason
