"""Frames of one client, answered one after another; a newer frame replaces the one that waits.

So a client may send as fast as it likes: what it gets is never older than one answer. Must not know of the socket.
"""

from __future__ import annotations

import asyncio
import base64
from typing import AsyncIterator

from model_server.answer import value_png
from model_server.limits import Refusal
from model_server.protocol import Frame, FrameRefused, Labelled
from model_server.service import Service, describe
from nbs_lib.predict import Prediction, Predictor

BUSY = 0.05  # seconds until the next look at a full queue


class Latest:
    "Room for one frame."

    def __init__(self) -> None:
        self.sent = self.skipped = 0
        self._frame: tuple[int, bytes | str] | None = None
        self._news = asyncio.Event()
        self.over = False

    def put(self, frame: bytes | str) -> bool:
        "Leave a frame, in place of one that nobody has taken yet; True if there was one."
        replaced = self._frame is not None
        self.skipped += replaced
        self._frame = self.sent, frame
        self.sent += 1
        self._news.set()
        return replaced

    def put_back(self, frame: tuple[int, bytes | str]) -> None:
        "Return a frame that could not be worked on yet; a newer one that came meanwhile stays."
        if self._frame is None:
            self._frame = frame
            self._news.set()
        else:
            self.skipped += 1

    def close(self) -> None:
        self.over = True
        self._news.set()

    async def take(self) -> tuple[int, bytes | str] | None:
        "Its number and the frame; None when the client is gone."
        await self._news.wait()
        self._news.clear()
        frame, self._frame = self._frame, None
        return None if self.over else frame


def with_mask(prediction: Prediction, predictor: Predictor) -> Labelled:
    "A prediction described, its pixels included."
    out = describe(prediction, predictor)
    out.mask64 = base64.b64encode(value_png(prediction.mask)).decode()
    return out


async def answers(frames: Latest, service: Service, fit: str) -> AsyncIterator[Frame | FrameRefused]:
    "One answer for each frame that was not replaced, until the client is gone."
    while (item := await frames.take()) is not None:
        number, data = item
        try:
            if isinstance(data, str):
                raise Refusal(415, "a frame is a binary message that holds a PNG, JPEG or WebP file", "format")
            answer = await service.label(data, fit, with_mask)
        except Refusal as e:
            if e.status == 503 and e.reason in ("queue", "warming"):
                frames.put_back(item)
                await asyncio.sleep(BUSY)
                continue
            service.telemetry.frames.labels("refused").inc()
            yield FrameRefused(frame=number, skipped=frames.skipped, status=e.status, error=e.sentence)
            continue
        service.telemetry.frames.labels("answered").inc()
        yield Frame(**dict(answer.value) | dict(ms=answer.ms, frame=number, skipped=frames.skipped))
