"""Images of several requests, shown to the network together where they have one size.

`BatchingSession` stands in for a predictor's session: whoever runs it gets the answer for its own images, and need not
know of the others. Must not know of requests, models or the web.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from model_server.settings import Settings
from nbs_lib.predict import Predictor

Arrays = list[np.ndarray]
Key = tuple[tuple[str, ...], tuple[int, ...]]  # the outputs wanted, and the shape of one image


class Batch:
    "Requests that want the same outputs for images of one shape. Who opened it runs the network for all."

    def __init__(self, most: int) -> None:
        self.most = most  # images
        self.size = 0     # images
        self.images: list[np.ndarray] = []   # uint8 (n, height, width, 3), one array a request
        self.answers: list[Future[Arrays]] = []
        self.full = threading.Event()

    def has_room(self, n: int) -> bool:
        "May so many more images come?"
        return self.size + n <= self.most

    def add(self, images: np.ndarray) -> Future[Arrays]:
        "Let a request in; returns where its answer will be."
        answer: Future[Arrays] = Future()
        self.images.append(images)
        self.answers.append(answer)
        self.size += len(images)
        if self.size >= self.most:
            self.full.set()
        return answer


class BatchingSession:
    """A session that may be run from many threads, and runs the network for several of them at one time.

    The first request of a batch waits `batch_wait` seconds for others, and for the batch before it. A request of more
    images than a batch takes runs alone.
    """

    def __init__(
        self,
        session: Any,
        settings: Settings,
        most_pixels: int,
        running: threading.Lock,
        on_batch: Callable[[int], None] = lambda images: None,
    ) -> None:
        self.session = session
        self.settings = settings
        self.most_pixels = most_pixels  # images × height × width that a batch may have
        self._running = running  # held while a network runs
        self._on_batch = on_batch
        self._joining = threading.Lock()
        self._open: dict[Key, Batch] = {}

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> Arrays:
        "The named outputs for these images; raises what the network raises for them."
        images = inputs["picture"]
        key = tuple(outputs), images.shape[1:]
        batch, answer, is_first = self._join(key, images)
        if is_first:
            self._run_when_due(key, batch)
        return answer.result()

    def get_providers(self) -> list[str]:
        "Where the network runs."
        return self.session.get_providers()

    def _join(self, key: Key, images: np.ndarray) -> tuple[Batch, Future[Arrays], bool]:
        "The batch of these images, where their answer will be, and whether they opened it."
        with self._joining:
            batch = self._open.get(key)
            is_first = batch is None or not batch.has_room(len(images))
            if is_first:
                if batch is not None:
                    batch.full.set()
                batch = self._open[key] = Batch(self._most_images(key))
            return batch, batch.add(images), is_first

    def _most_images(self, key: Key) -> int:
        "How many images of this shape a batch takes."
        height, width = key[1][:2]
        return min(self.settings.batch, max(1, self.most_pixels // (height * width)))

    def _run_when_due(self, key: Key, batch: Batch) -> None:
        batch.full.wait(self.settings.batch_wait)
        with self._running:
            with self._joining:
                if self._open.get(key) is batch:
                    del self._open[key]
            self._on_batch(batch.size)
            self._answer(list(key[0]), batch)

    def _answer(self, outputs: list[str], batch: Batch) -> None:
        "Run all together where that works, otherwise each alone: an error belongs to the request that causes it."
        if len(batch.answers) == 1:
            self._answer_each(outputs, batch)
            return
        try:
            answers = self._run_together(outputs, batch)
        except Exception:  # each runtime has errors of its own, without a common class
            self._answer_each(outputs, batch)
            return
        for answer, arrays in zip(batch.answers, answers):
            answer.set_result(arrays)

    def _run_together(self, outputs: list[str], batch: Batch) -> list[Arrays]:
        "The arrays of each request."
        found = self.session.run(outputs, {"picture": np.concatenate(batch.images)})
        if any(len(array) != batch.size for array in found):
            raise ValueError("the network answers for another number of images")
        ends = np.cumsum([len(images) for images in batch.images])
        parts = [np.split(array, ends[:-1]) for array in found]
        return [list(arrays) for arrays in zip(*parts)]

    def _answer_each(self, outputs: list[str], batch: Batch) -> None:
        for images, answer in zip(batch.images, batch.answers):
            try:
                answer.set_result(self.session.run(outputs, {"picture": images}))
            except Exception as error:
                answer.set_exception(error)


def with_batches(
    predictor: Predictor, settings: Settings, running: threading.Lock, on_batch: Callable[[int], None]
) -> Predictor:
    "The predictor, or, where the settings ask for batches, one like it whose images go to the network together."
    if settings.batch == 1:
        return predictor
    batching = copy.copy(predictor)
    height, width = predictor.size
    most_pixels = max(settings.max_tensor_pixels, settings.batch * height * width)
    batching.session = BatchingSession(predictor.session, settings, most_pixels, running, on_batch)
    return batching
