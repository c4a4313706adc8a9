"""Labels from a model server while a person walks: a thread asks and waits, the window never does.

Knows the server by its protocol only, through `model_server.client`. Must not know the engine.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import LabelSet

RETRY = 1.0  # seconds between two tries to reach the server
PATIENCE = 20.0  # seconds until a silent server counts as gone


@dataclass(frozen=True)
class Answer:
    mask: np.ndarray  # uint8 (height, width)
    labels: LabelSet  # what its values mean
    regions: tuple[tuple[int, float, float, float], ...]  # value, share, and the middle (x, y) as shares of width and height
    ms: float  # from sending to receiving


class Live:
    "Asks for labels at a target rate while `running`, or for one answer after `ask_once`"

    def __init__(self, url: str, rate: float) -> None:
        self.url, self.period = url, 1 / rate
        self.running = self.once = False
        self.trouble, self.answer, self.answers, self.frames = "", None, 0, queue.Queue(1)
        self._over, self._due, self._waiting, self._connected = threading.Event(), 0.0, False, False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def wanted(self) -> bool: return self.running or self.once

    @property
    def ready(self) -> bool:
        "Should the next picture be handed to `send`?"
        return self.wanted and self._connected and not self._waiting and time.monotonic() >= self._due

    def send(self, picture: np.ndarray) -> None:
        self._due, self._waiting = max(self._due + self.period, time.monotonic()), True
        self.frames.put(picture)

    def close(self) -> None:
        self._over.set()
        self._thread.join(2)

    def _work(self) -> None:
        while not self._over.is_set():
            if not self.wanted:
                self._over.wait(.02)
                continue
            try: self._converse()
            except (SegError, OSError) as e: self.trouble = str(e)
            self._connected = self._waiting = False
            while not self.frames.empty(): self.frames.get()
            self._over.wait(RETRY)

    def _converse(self) -> None:
        "Answer after answer over one connection"
        with connected(self.url) as (labels, stream):
            self._connected, self.trouble = True, ""
            while not self._over.is_set():
                try: picture = self.frames.get(timeout=.1)
                except queue.Empty: continue
                start = time.perf_counter()
                stream.send(picture)
                self.answer = _read(self._receive(stream, start), labels, start)
                self.answers, self.once, self._waiting = self.answers + 1, False, False

    def _receive(self, stream: Any, start: float) -> Any:
        while (seen := stream.receive(.2)) is None:
            if self._over.is_set() or time.perf_counter() - start > PATIENCE: raise SegError(f"{self.url} has not answered for {PATIENCE:.0f} s")
        return seen


def _read(seen: Any, labels: LabelSet, start: float) -> Answer:
    height, width = seen.mask.shape
    regions = tuple((r["value"], r["share"], r["x"] / width, r["y"] / height) for r in seen.info["labels"])
    return Answer(seen.mask, labels, regions, (time.perf_counter() - start) * 1000)


@contextmanager
def connected(url: str) -> Iterator[tuple[LabelSet, Any]]:
    "The server's label table and an open stream; whatever goes wrong is a `SegError` or an `OSError`"
    try:
        from websockets.exceptions import WebSocketException
        from model_server.client import Client
    except ImportError as e: raise SegError(f"live labels need the package {e.name}; install it with: pip install 'segmentation-learner[serve]'") from None
    client = Client(url, patience=5)
    labels = client.labels()
    with client.stream() as stream:
        try: yield labels, stream
        except WebSocketException as e: raise SegError(f"the stream from {url} has ended ({e})") from None
