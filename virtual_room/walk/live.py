"""Predictions while a person walks, from a server or a model here: a thread asks and waits, the window never does.

Knows the server by its protocol only, through `model_server.client`. Must not know the engine.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import LabelSet

RETRY = 1.0  # seconds between two tries to reach the server
PATIENCE = 20.0  # seconds until a silent server counts as gone
POLL = .02  # seconds between two looks for something to do
REST = 20.0  # seconds until a connection that nobody uses is closed: a server closes it after 40
RECEIVE, HAND_OVER = .2, .1  # seconds to wait for an answer, and for an image, before looking whether all is over
STOP = 2.0  # seconds that a thread gets to end


@dataclass(frozen=True)
class Prediction:
    "What a server answers to an image"
    mask: np.ndarray  # uint8 (height, width)
    labels: LabelSet  # what its values mean
    regions: tuple[tuple[int, float, float, float], ...]  # value, share, and the middle (x, y), all shares 0..1
    ms: float  # from sending to receiving


class LiveLabels:
    "Asks for predictions at a target rate while `running`, or for one after `once` is set"

    def __init__(self, source: str, rate: float, token: str = "") -> None:
        "Labels come from the server at the address `source`, else from that model file; empty: the starter model"
        self.source, self.token, self.period = source, token, 1 / rate
        self.running = False
        self.once = False
        self.trouble = ""  # why there is no connection
        self.prediction: Prediction | None = None  # the last one
        self.answers = 0  # how many came so far
        self._images: queue.Queue[np.ndarray] = queue.Queue(1)
        self._over = threading.Event()
        self._due = 0.0  # when the next image may be sent
        self._waiting, self._connected = False, False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def wanted(self) -> bool:
        "Is a prediction asked for?"
        return self.running or self.once

    @property
    def ready(self) -> bool:
        "Should the next image be handed to `send`?"
        return self.wanted and self._connected and not self._waiting and time.monotonic() >= self._due

    def send(self, image: np.ndarray) -> None:
        "Hand over an image (H, W, 3) uint8; returns at once"
        self._due = max(self._due + self.period, time.monotonic())
        self._waiting = True
        self._images.put(image)

    def close(self) -> None:
        "End the connection and the thread"
        self._over.set()
        self._thread.join(STOP)

    def _work(self) -> None:
        while not self._over.is_set():
            if not self.wanted:
                self._over.wait(POLL)
                continue
            try:
                self._converse()
            except (SegError, OSError) as e:
                self.trouble = str(e)
            except Exception as e:  # whatever it is, the thread must live on and say it
                self.trouble = f"no labels from {self.source or 'the model'} ({type(e).__name__}: {e})"
            self._connected = self._waiting = False
            while not self._images.empty():
                self._images.get()
            self._over.wait(RETRY)

    def _converse(self) -> None:
        "Prediction after prediction over one connection, until nobody has wanted one for a while"
        with connected(self.source, self.token) as (labels, stream):
            self._connected, self.trouble = True, ""
            used = time.monotonic()
            while not self._over.is_set():
                try:
                    image = self._images.get(timeout=HAND_OVER)
                except queue.Empty:
                    if self._may_rest(used):
                        return
                    continue
                start = time.perf_counter()
                stream.send(image)
                self.prediction = _read(self._receive(stream, start), labels, start)
                self.answers += 1
                used = time.monotonic()
                self.once = self._waiting = False

    def _may_rest(self, used: float) -> bool:
        "Is this a connection to a server that nobody has used for long?"
        return is_address(self.source) and not self.wanted and time.monotonic() - used > REST

    def _receive(self, stream: Any, start: float) -> Any:
        "The next answer; `SegError` where the server stays silent"
        while True:
            answer = stream.receive(RECEIVE)
            if answer is not None:
                return answer
            if self._over.is_set() or time.perf_counter() - start > PATIENCE:
                raise SegError(f"{self.source} has not answered for {PATIENCE:.0f} s")


def _read(answer: Any, labels: LabelSet, start: float) -> Prediction:
    height, width = answer.mask.shape
    rows = answer.info["labels"]
    regions = tuple((row["value"], row["share"], row["x"] / width, row["y"] / height) for row in rows)
    return Prediction(answer.mask, labels, regions, (time.perf_counter() - start) * 1000)


def is_address(source: str) -> bool:
    "Is this the address of a server, and not a model file?"
    return source.startswith(("http://", "https://"))


@contextmanager
def connected(source: str, token: str = "") -> Iterator[tuple[LabelSet, Any]]:
    "A label table and an open stream; whatever goes wrong is a `SegError` or an `OSError`"
    if not is_address(source):
        from virtual_room.walk.local import LocalStream
        stream = LocalStream(source)
        yield stream.labels, stream
        return
    with connected_to_server(source, token) as found:
        yield found


@contextmanager
def connected_to_server(url: str, token: str) -> Iterator[tuple[LabelSet, Any]]:
    "The server's label table and an open stream"
    try:
        from websockets.exceptions import WebSocketException

        from model_server.client import Client
    except ImportError as e:
        install = 'pip install ".[serve]" in the folder of the sources'
        raise SegError(f"live labels need the package {e.name}; install it with: {install}") from None
    client = Client(url, token, patience=5)
    labels = client.labels()
    with client.stream() as stream:
        try:
            yield labels, stream
        except WebSocketException as e:
            raise SegError(f"the stream from {url} has ended ({e})") from None
