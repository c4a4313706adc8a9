"""What the server does, without the web: photos in, answers out, through one queue; and the model, which may be replaced.

Must not know of requests, headers or sockets.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Generic, TypeVar

import numpy as np

from model_server.answer import regions
from model_server.gate import Gate
from model_server.limits import Refusal, Settings
from model_server.palettes import Palettes
from model_server.photo import from_base64, read_photo
from model_server.protocol import Labelled, LabelRegion
from model_server.telemetry import Telemetry, log
from nbs_lib.core import SegError
from nbs_lib.predict import Prediction, Predictor, count_tiles

T = TypeVar("T")
LOOK = 0.5  # seconds between looks at what the other workers did


@dataclass(frozen=True)
class Answer(Generic[T]):
    "What was made of a prediction, the model that made it, and the milliseconds of each stage."

    value: T
    predictor: Predictor
    ms: dict[str, float]


class Service:
    "One model and its queue. Workers are services in processes of their own that share the folder `runtime`."

    def __init__(self, predictor: Predictor, settings: Settings, runtime: Path, load: Callable[[], Predictor] | None = None) -> None:
        self.predictor, self.settings, self.load = predictor, settings, load
        self.telemetry = Telemetry()
        self.gate = Gate(settings.at_once, settings.waiting, settings.deadline, self.telemetry.queue)
        self.palettes = Palettes(runtime / "palettes")
        self.ready = False
        self._stamp = runtime / "reload"
        self._seen = self._stamped()
        self._loading = asyncio.Lock()

    async def label(self, data: bytes | str, fit: str, make: Callable[[Prediction, Predictor], T]) -> Answer[T]:
        "Decode (a text is base64), predict and make an answer, in the queue's thread. `Refusal` where it cannot."
        if not self.ready:
            raise Refusal(503, "the model is warming up; try again in 2 s", "warming", 2)
        (value, predictor, ms), queued = await self.gate.run(lambda: self._label(data, fit, make))
        ms = {"queue": 1000 * queued, **ms}
        self.telemetry.stage_times(ms)
        return Answer(value, predictor, {k: round(t, 2) for k, t in ms.items()})

    def _label(self, data: bytes | str, fit: str, make: Callable[[Prediction, Predictor], T]) -> tuple[T, Predictor, dict[str, float]]:
        predictor, times = self.predictor, [time.perf_counter()]  # a model that comes now is for the next photo
        photo = read_photo(from_base64(data) if isinstance(data, str) else data, self.settings)
        _check_tiles(photo.size, predictor.size, fit, self.settings)
        times.append(time.perf_counter())
        prediction = predictor(photo, fit)
        times.append(time.perf_counter())
        value = make(prediction, predictor)
        times.append(time.perf_counter())
        return value, predictor, dict(zip(("decode", "predict", "answer"), (1000 * np.diff(times)).tolist()))

    async def warm_up(self) -> None:
        "Run the model once on a little picture: that proves it runs, and takes as long for a model of any size; then be ready."
        await asyncio.to_thread(_try_out, self.predictor, (64, 64))
        self.ready = True
        log("ready", model=self.predictor.sha256[:12], provider=self.predictor.provider)

    async def reload(self) -> Predictor:
        "Load the model file again and serve it from the next photo on, here and in the other workers. `Refusal` 409 if it is not fit."
        predictor = await self._replace()
        self._stamp.write_text(predictor.sha256)
        self._seen = self._stamped()
        return predictor

    async def _replace(self) -> Predictor:
        if self.load is None:
            raise Refusal(409, "this server was not started from a file, there is nothing to load again", "reload")
        async with self._loading:
            try:
                predictor = await asyncio.to_thread(self.load)
                await asyncio.to_thread(_try_out, predictor, predictor.size)
            except (SegError, OSError) as e:
                self.telemetry.reloads.labels("refused").inc()
                raise Refusal(409, f"{e}; the model loaded before goes on serving", "reload") from None
            self.predictor = predictor
        self.telemetry.reloads.labels("loaded").inc()
        log("reloaded", model=predictor.sha256[:12])
        return predictor

    async def follow(self) -> None:
        "Load the model again whenever another worker has."
        while True:
            await asyncio.sleep(LOOK)
            if (stamp := self._stamped()) != self._seen:
                self._seen = stamp
                try:
                    await self._replace()
                except Refusal as e:
                    log("reload refused", error=e.sentence)

    def _stamped(self) -> int:
        try:
            return os.stat(self._stamp).st_mtime_ns
        except FileNotFoundError:
            return 0


def _try_out(predictor: Predictor, size: tuple[int, int]) -> None:
    predictor.run(np.full((1, *size, 3), 128, np.uint8))


def _check_tiles(size: tuple[int, int], net: tuple[int, int], fit: str, settings: Settings) -> None:
    if fit == "tile" and (n := count_tiles(size, net)) > settings.max_tiles:
        raise Refusal(413, f"a photo of {size[0]}×{size[1]} takes {n} tiles of {net[1]}×{net[0]}, at most {settings.max_tiles} are allowed; scale it down or ask for fit=pad", "tiles")


def describe(prediction: Prediction, predictor: Predictor) -> Labelled:
    "Everything about a prediction but its pixels; times are filled in by who knows them."
    height, width = prediction.mask.shape
    found = sorted(regions(prediction.mask, prediction.confidence), key=lambda r: -r.pixels)
    rows = [LabelRegion(value=r.value, name=predictor.labels.codes[r.value], share=r.pixels / prediction.mask.size, x=r.x, y=r.y, confidence=r.confidence) for r in found]
    return Labelled(width=width, height=height, labels=rows, ms={}, model=predictor.sha256)


