"""What the server does with one model, without the web: images in, answers out; and a model that may be replaced.

Must not know of requests, headers or sockets.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np

from model_server.answer import Region, regions
from model_server.batching import with_batches
from model_server.errors import APIError
from model_server.images import decode_base64, decode_image
from model_server.messages import Labelled, LabelRegion
from model_server.palettes import Palettes
from model_server.settings import Settings
from model_server.telemetry import Telemetry, log
from model_server.work_queue import WorkQueue
from nbs_lib.core import SegError
from nbs_lib.predict import Prediction, Predictor, count_windows, resize_mode

T = TypeVar("T")
Status = Literal["warming up", "ready", "failed"]
POLL_SECONDS = 0.5     # between looks at what the other workers did
RETRY_SECONDS = 5.0    # until a model that could not be loaded is tried again
WARM_UP_SIZE = (64, 64)


@dataclass(frozen=True)
class Answer(Generic[T]):
    "What was made of a prediction, the model that made it, and the milliseconds of each stage."

    value: T
    predictor: Predictor
    ms: dict[str, float]


class Shared:
    """What the models of one server have in common: limits, metrics, one queue, the clients' colors.

    Workers are processes of their own that share the folder `runtime`.
    """

    def __init__(self, settings: Settings, runtime: Path) -> None:
        self.settings = settings
        self.runtime = runtime
        self.telemetry = Telemetry()
        self.queue = WorkQueue(settings, self.telemetry.set_waiting)
        self.palettes = Palettes(runtime / "palettes")
        self.network_runs = threading.Lock()  # held while a batch is in a network


def model_name(predictor: Predictor) -> str:
    "The model file's name without `.onnx` or `.onnx.gz`."
    return predictor.path.name.removesuffix(".gz").removesuffix(".onnx")


class Service:
    "One model, its work and its replacement."

    def __init__(self, predictor: Predictor, shared: Shared, load: Callable[[], Predictor] | None = None) -> None:
        self.name = model_name(predictor)
        self.shared = shared
        self.settings = shared.settings
        self.telemetry = shared.telemetry
        self.queue = shared.queue
        self.palettes = shared.palettes
        self.load = load
        self.predictor = self._batching(predictor)
        self.status: Status = "warming up"
        self._stamp = shared.runtime / f"reload-{self.name}"
        self._seen = self._stamped()
        self._loading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        "Has the model run?"
        return self.status == "ready"

    # images

    async def label(self, data: bytes | str, fit: str, make: Callable[[Prediction, Predictor], T]) -> Answer[T]:
        "Decode (a text is base64), predict and make an answer, in the queue's thread. `APIError` where it cannot."
        return await self.take_turn(lambda predictor: self._label(predictor, data, fit, make))

    async def take_turn(self, work: Callable[[Predictor], Answer[T]]) -> Answer[T]:
        """Do work with the model in the queue's thread, and note how long each stage took.

        `APIError` 503 while the model warms up, or where the queue is full or the deadline passes.
        """
        self._check_ready()
        answer, queued = await self.queue.run(lambda: work(self.predictor))  # a model that comes now is for the next
        ms = {"queue": 1000 * queued, **answer.ms}
        self.telemetry.add_stage_times(self.name, ms)
        rounded = {stage: round(time_taken, 2) for stage, time_taken in ms.items()}
        return Answer(answer.value, answer.predictor, rounded)

    def _label(
        self, predictor: Predictor, data: bytes | str, fit: str, make: Callable[[Prediction, Predictor], T]
    ) -> Answer[T]:
        start = time.perf_counter()
        image = decode_image(decode_base64(data) if isinstance(data, str) else data, self.settings)
        check_tiles(image.size, predictor.size, fit, self.settings)
        decoded = time.perf_counter()
        prediction = predictor(image, fit)
        predicted = time.perf_counter()
        value = make(prediction, predictor)
        done = time.perf_counter()
        seconds = dict(decode=decoded - start, predict=predicted - decoded, answer=done - predicted)
        return Answer(value, predictor, {stage: 1000 * s for stage, s in seconds.items()})

    def _check_ready(self) -> None:
        if self.status == "failed":
            raise APIError(503, "the model cannot run, the server's log says why; try again in 30 s", "failed", 30)
        if not self.ready:
            raise APIError(503, "the model is warming up; try again in 2 s", "warming", 2)

    # the model

    async def warm_up(self) -> None:
        "Run the model once on a small image: that proves it runs, and takes as long for a model of any size."
        try:
            await asyncio.to_thread(try_out, self.predictor, WARM_UP_SIZE)
        except Exception as error:  # whatever a runtime raises
            self.status = "failed"
            log("warm-up failed", model=self.predictor.sha256[:12], error=f"{type(error).__name__}: {error}")
            return
        self.status = "ready"
        log("ready", name=self.name, model=self.predictor.sha256[:12], provider=self.predictor.provider)

    async def reload(self) -> Predictor:
        """Load the model file again and serve it from the next image on, in all workers.

        `APIError` 409 if it is not fit.
        """
        predictor = await self._replace()
        self._stamp.write_text(predictor.sha256, encoding="utf-8")
        self._seen = self._stamped()
        return predictor

    async def _replace(self) -> Predictor:
        if self.load is None:
            raise APIError(409, "this server was not started from a file, there is nothing to load again", "reload")
        async with self._loading:
            try:
                predictor = await asyncio.to_thread(self._load_and_try)
            except Exception as error:  # a file may be wrong in ways that nobody thought of
                self.telemetry.reloads.labels("refused", self.name).inc()
                raise APIError(409, f"{_sentence(error)}; the model loaded before goes on serving", "reload") from None
            self.predictor = predictor
            self.status = "ready"
        self.telemetry.reloads.labels("loaded", self.name).inc()
        log("reloaded", name=self.name, model=predictor.sha256[:12])
        return predictor

    def _load_and_try(self) -> Predictor:
        predictor = self.load()
        try_out(predictor, predictor.size)
        return self._batching(predictor)

    def _batching(self, predictor: Predictor) -> Predictor:
        on_batch = self.telemetry.batches.labels(self.name).observe
        return with_batches(predictor, self.settings, self.shared.network_runs, on_batch)

    async def follow(self) -> None:
        "Load the model again whenever another worker has, and again until it succeeds."
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._follow_once()
            except Exception as error:  # else this worker would serve the old model for good
                log("reload failed", error=_sentence(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow_once(self) -> None:
        stamp = self._stamped()
        if stamp == self._seen:
            return
        await self._replace()
        self._seen = stamp

    def _stamped(self) -> int:
        "When a worker last loaded the model, in nanoseconds; 0: never."
        try:
            return os.stat(self._stamp).st_mtime_ns
        except FileNotFoundError:
            return 0


def _sentence(error: Exception) -> str:
    "What an exception says, with its kind where it is not meant for a reader."
    if isinstance(error, (SegError, OSError, APIError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def try_out(predictor: Predictor, size: tuple[int, int]) -> None:
    "Run a model on a gray image of this (height, width); raises what it raises."
    predictor.run(np.full((1, *size, 3), 128, np.uint8))


def check_tiles(image_size: tuple[int, int], model_size: tuple[int, int], fit: str, settings: Settings) -> None:
    "`APIError` 413 where a sliding window would run the model too often for an image of this (width, height)."
    if resize_mode(fit) != "sliding_window":
        return
    width, height = image_size
    tiles = count_windows(image_size, model_size)
    if tiles > settings.max_tiles:
        sentence = (f"a photo of {width}×{height} takes {tiles} tiles of {model_size[1]}×{model_size[0]}, "
                    f"at most {settings.max_tiles} are allowed; scale it down or ask for fit=letterbox")
        raise APIError(413, sentence, "tiles")


def describe(prediction: Prediction, predictor: Predictor) -> Labelled:
    "Everything about a prediction but its pixels; times are filled in by who knows them."
    height, width = prediction.mask.shape
    names = predictor.labels.codes

    def row(region: Region) -> LabelRegion:
        "One label of the answer."
        share = region.pixels / prediction.mask.size
        return LabelRegion(value=region.value, name=names[region.value], share=share, x=region.x, y=region.y,
                           confidence=region.confidence)

    largest_first = sorted(regions(prediction.mask, prediction.confidence), key=lambda region: -region.pixels)
    return Labelled(width=width, height=height, labels=list(map(row, largest_first)), ms={}, model=predictor.sha256)
