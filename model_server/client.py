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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.labels import LabelSet

DEFAULT_WAIT = 2  # seconds until the next try, where a server does not say a number


@dataclass(frozen=True)
class Seen:
    "One answer: the mask and what the server says about it (`labels`, `ms`, and `frame`, `skipped` in a stream)."

    mask: np.ndarray      # uint8 (height, width), label numbers
    info: dict[str, Any]


class Client:
    "`Client('http://127.0.0.1:4200').predict('photo.jpg').mask`"

    def __init__(
        self, url: str = "http://127.0.0.1:4200", token: str = "", patience: float = 60.0, model: str = ""
    ) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.patience = patience  # seconds
        self.name = model         # of the model; empty: the server's default

    def model(self) -> dict[str, Any]:
        "What is served: name, size, labels with their colors, limits."
        answer = self._ask(self._path("/v1/model"))
        with _understood(self.url):
            return json.loads(answer)

    def labels(self) -> LabelSet:
        "The model's label table."
        card = self.model()
        with _understood(self.url):
            names = tuple(row["name"] for row in card["labels"])
            colors = tuple(tuple(row["color"]) for row in card["labels"])
            return LabelSet(names, colors, background=card["background"])

    def predict(self, photo: Any, fit: str = "stretch") -> Seen:
        """Label a photo: a path, encoded bytes, a Pillow image or a uint8 array.

        Waits and asks again while the server is full.
        """
        path = self._path("/v1/predict", format="json", mask="true", fit=fit)
        return _seen(self._ask(path, encoded(photo)), self.url)

    @contextmanager
    def stream(self, fit: str = "stretch") -> Iterator[Stream]:
        "An open `Stream`; only the newest frame sent is worked on."
        from websockets.sync.client import connect
        url = f"ws{self.url.removeprefix('http')}{self._path('/v1/stream', fit=fit)}"
        try:
            socket = connect(url, additional_headers=self._authorization(), max_size=None, compression=None)
        except Exception as error:  # of many kinds
            raise SegError(f"{self.url} gives no stream ({error}); is the server running there?") from None
        with socket:
            yield Stream(socket, self.url)

    def _path(self, path: str, **fields: str) -> str:
        "The path of a request with its fields, and with the model's name where there is one."
        named = {"model": self.name} if self.name else {}
        query = urlencode(fields | named)
        return f"{path}?{query}" if query else path

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        "The body of an answer; asks again where the server says when, until the patience is over."
        headers = {"Content-Type": "application/octet-stream", **self._authorization()}
        request = urllib.request.Request(self.url + path, body, headers)
        until = time.monotonic() + self.patience
        while True:
            try:
                with urllib.request.urlopen(request, timeout=self.patience) as response:
                    return response.read()
            except urllib.error.HTTPError as error:
                time.sleep(self._seconds_to_wait(error, until))
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                advice = "start a server with `seg_serve`"
                raise SegError(f"{self.url} does not answer ({reason}); {advice}") from None

    def _seconds_to_wait(self, error: urllib.error.HTTPError, until: float) -> int:
        "When to ask again; `SegError` where that helps nothing or comes too late."
        seconds = _retry_after(error)
        if error.code != 503 or not seconds or time.monotonic() + seconds > until:
            raise SegError(f"{self.url} refused ({error.code}): {_sentence(error)}") from None
        return seconds


class Stream:
    "Send images as they come, receive answers as they are ready; both may happen in threads of their own."

    def __init__(self, socket: Any, url: str) -> None:
        self.socket = socket
        self.url = url

    def send(self, photo: Any) -> None:
        "Send an image, as `Client.predict` takes it."
        self.socket.send(encoded(photo))

    def receive(self, timeout: float | None = None) -> Seen | None:
        """The next answer; None when there is none within `timeout` seconds.

        `SegError` where an image was refused or the stream has ended.
        """
        try:
            text = self.socket.recv(timeout)
        except TimeoutError:
            return None
        except Exception as error:  # of many kinds
            raise SegError(f"the stream has ended ({error}); open another") from None
        return _seen(text, self.url)


def encoded(photo: Any) -> bytes:
    "A photo as bytes to send; arrays and Pillow images become JPEG."
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, np.ndarray):
        photo = Image.fromarray(photo)
    if isinstance(photo, Image.Image):
        return _as_jpeg(photo)
    with open(photo, "rb") as file:
        return file.read()


def _as_jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=92)
    return out.getvalue()


@contextmanager
def _understood(url: str) -> Iterator[None]:
    "`SegError` where an answer is none that a server of ours gives."
    try:
        yield
    except SegError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError):  # OSError: Pillow's for what is no image
        raise SegError(f"{url} does not answer as seg_serve does; give the address of a `seg_serve`") from None


def _seen(text: bytes | str, url: str) -> Seen:
    with _understood(url):
        info = json.loads(text)
        if "error" in info:
            raise SegError(f"the server refused frame {info['frame']} ({info['status']}): {info['error']}")
        mask = Image.open(io.BytesIO(base64.b64decode(info.pop("mask64"))))
        return Seen(np.asarray(mask), info)


def _retry_after(error: urllib.error.HTTPError) -> int:
    "Seconds that a refusal says to wait; 0 where it says nothing. Proxies may write a date, which is not read."
    text = error.headers.get("Retry-After", "0").strip()
    return int(text) if text.isascii() and text.isdigit() else DEFAULT_WAIT


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError):
        return error.reason
