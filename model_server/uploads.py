"""The request bodies that are held at one time, bounded in number and in bytes.

A body that comes slowly holds its place for long. When the places or the bytes run out, the one that has taken longest
is given up, so that slow clients can never keep out those that send at once. Must not know of HTTP's headers or paths.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from model_server.errors import APIError
from model_server.settings import Settings

PATIENCE = 1.0  # seconds that every body may take, whoever else waits
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Upload:
    "One body: while it comes, and while its request is answered."

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.size = 0            # bytes that came
        self.chunks: list[bytes] = []
        self.kept = True         # False: it is read and thrown away, so that its client hears why
        self.timeout: asyncio.Timeout | None = None  # while it is being read

    @property
    def held(self) -> int:
        "Bytes in memory."
        return self.size if self.kept else 0

    def add(self, chunk: bytes) -> None:
        "Take what came."
        self.size += len(chunk)
        if self.kept:
            self.chunks.append(chunk)

    def drop(self) -> None:
        "Throw away what came, and what still comes."
        self.kept = False
        self.chunks.clear()

    def is_slow(self) -> bool:
        "Has it been coming for longer than every body may?"
        return self.kept and self.timeout is not None and time.monotonic() - self.begun > PATIENCE

    def give_up(self) -> None:
        "Stop reading it now."
        self.drop()
        self.timeout.reschedule(asyncio.get_running_loop().time())


class Uploads:
    "All bodies of a server."

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._active: list[Upload] = []

    @contextmanager
    def place(self) -> Iterator[Upload]:
        "A place for one body, until its request is answered."
        upload = Upload()
        self._active.append(upload)
        try:
            yield upload
        finally:
            self._active.remove(upload)

    async def read(self, upload: Upload, receive: Receive) -> bytes:
        """The whole body.

        `APIError` 408 when it takes too long, 413 when it is too large, 503 when there is no room for it. One that is
        refused is read on for a while, unkept: a client that is still sending would not hear why.
        """
        self._make_room(upload)
        try:
            async with asyncio.timeout(self.settings.upload) as upload.timeout:
                await self._read_chunks(upload, receive)
        except TimeoutError:
            if not upload.kept:
                raise _no_room() from None
            raise APIError(408, f"the request did not arrive within {self.settings.upload:g} s", "upload") from None
        finally:
            upload.timeout = None
        self._check(upload)
        return b"".join(upload.chunks)

    async def _read_chunks(self, upload: Upload, receive: Receive) -> None:
        more = True
        while more and upload.size <= 4 * self.settings.max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left before its request was whole")
            upload.add(message.get("body", b""))
            if upload.size > self.settings.max_body:
                upload.drop()
            self._make_room(upload)
            more = message.get("more_body", False)

    def _check(self, upload: Upload) -> None:
        if upload.size > self.settings.max_body:
            sentence = f"the request has more than the {self.settings.max_body} bytes allowed; send a smaller image"
            raise APIError(413, sentence, "body")
        if upload.size and not upload.kept:
            raise _no_room()

    def _make_room(self, newest: Upload) -> None:
        "Give up the slowest bodies until the limits hold; where none is slow, the newest is not kept."
        while newest.kept and self._is_full():
            slow = [upload for upload in self._active if upload is not newest and upload.is_slow()]
            if slow:
                slow[0].give_up()
            else:
                newest.drop()

    def _is_full(self) -> bool:
        kept = sum(upload.kept for upload in self._active)
        held = sum(upload.held for upload in self._active)
        return kept > self.settings.max_bodies or held > self.settings.max_held


def _no_room() -> APIError:
    return APIError(503, "too many requests are being sent; try again in 1 s", "crowd", 1)
