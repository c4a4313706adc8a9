"""Frames of one client, answered one after another; a newer frame replaces the one that waits.

So a client may send as fast as it likes: what it gets is never older than one answer. Must not know of the socket.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass

from model_server.answer import value_png
from model_server.errors import APIError
from model_server.messages import Frame, FrameRefused, Labelled
from model_server.service import Service, describe
from nbs_lib.predict import Prediction, Predictor

RETRY_SECONDS = 0.05  # until the next look at a full queue


@dataclass(frozen=True)
class Sent:
    "One message of a client."

    number: int         # among those it sent, from 0
    data: bytes | str


class SilentStream(Exception):
    "Raised where a client sends nothing for too long."


class LatestFrame:
    "Room for one frame."

    def __init__(self) -> None:
        self.sent = 0
        self.skipped = 0
        self.closed = False
        self._frame: Sent | None = None
        self._changed = asyncio.Event()

    def put(self, data: bytes | str) -> bool:
        "Leave a frame, in place of one that nobody has taken yet; True if there was one."
        replaced = self._frame is not None
        self.skipped += replaced
        self._frame = Sent(self.sent, data)
        self.sent += 1
        self._changed.set()
        return replaced

    def put_back(self, frame: Sent) -> None:
        "Return a frame that could not be worked on yet; a newer one that came meanwhile stays."
        if self._frame is None:
            self._frame = frame
            self._changed.set()
        else:
            self.skipped += 1

    def close(self) -> None:
        "Say that the client is gone."
        self.closed = True
        self._changed.set()

    async def take(self, patience: float | None = None) -> Sent | None:
        "The frame, as soon as there is one; None when the client is gone. `SilentStream` after so many seconds."
        try:
            async with asyncio.timeout(patience):
                await self._changed.wait()
        except TimeoutError:
            raise SilentStream(f"no frame came for {patience:g} s; open another stream") from None
        self._changed.clear()
        frame, self._frame = self._frame, None
        return None if self.closed else frame


def describe_with_mask(prediction: Prediction, predictor: Predictor) -> Labelled:
    "A prediction described, its pixels included."
    described = describe(prediction, predictor)
    described.mask64 = base64.b64encode(value_png(prediction.mask)).decode()
    return described


async def answers(frames: LatestFrame, service: Service, fit: str) -> AsyncIterator[Frame | FrameRefused]:
    """One answer for each frame that was not replaced, until the client is gone.

    `SilentStream` where it sends nothing for longer than a request may take to begin and to be answered.
    """
    patience = service.settings.idle + service.settings.deadline
    while (frame := await frames.take(patience)) is not None:
        try:
            answer = await answer_frame(frame, frames, service, fit)
        except APIError as error:
            if error.reason in ("queue", "warming"):  # the frame waits here, where a newer one may replace it
                frames.put_back(frame)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            answer = FrameRefused(frame=frame.number, skipped=frames.skipped, status=error.status, error=error.sentence)
        result = "refused" if isinstance(answer, FrameRefused) else "answered"
        service.telemetry.frames.labels(result).inc()
        yield answer


async def answer_frame(frame: Sent, frames: LatestFrame, service: Service, fit: str) -> Frame:
    "The answer to one frame; `APIError` where there is none."
    if isinstance(frame.data, str):
        raise APIError(415, "a frame is a binary message that holds a PNG, JPEG or WebP file", "format")
    answer = await service.label(frame.data, fit, describe_with_mask)
    fields = dict(answer.value) | dict(ms=answer.ms, frame=frame.number, skipped=frames.skipped)
    return Frame(**fields)
