"""One queue in front of the model: so many at work, so few waiting, the next one told when to come back.

Must not know what the work is.
"""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

from model_server.limits import Refusal

T = TypeVar("T")


class Gate:
    "Runs work in threads of its own, so that the event loop stays free to say that it is alive."

    def __init__(self, at_once: int, waiting: int, deadline: float, tell: Callable[[int], None] = lambda waiting: None) -> None:
        self.limit, self.deadline, self._tell = waiting, deadline, tell
        self.waiting = 0
        self.usual = 1.0  # seconds a piece of work takes, a running mean
        self._places = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, "model")

    async def run(self, work: Callable[[], T]) -> tuple[T, float]:
        "The work's result and the seconds it waited. `Refusal` 503 when the queue is full or the deadline passes."
        start = time.perf_counter()
        await self._enter()
        queued = time.perf_counter() - start
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(lambda f: self._leave(f, time.perf_counter() - start - queued))
        try:  # a thread cannot be stopped: past the deadline it keeps its place until it is done, and only the client goes
            return await asyncio.wait_for(asyncio.shield(future), self.deadline - queued), queued
        except asyncio.TimeoutError:
            raise self._refusal(f"the answer took longer than {self.deadline:g} s", "deadline") from None

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # at once: nobody else has a turn in between
        elif self.waiting >= self.limit:
            raise self._refusal(f"{self.limit} photos are waiting already", "queue")
        else:
            await self._wait()

    async def _wait(self) -> None:
        self._count(1)
        try:
            await asyncio.wait_for(self._places.acquire(), self.deadline)
        except asyncio.TimeoutError:
            raise self._refusal(f"the answer took longer than {self.deadline:g} s", "deadline") from None
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.waiting += change
        self._tell(self.waiting)

    def _leave(self, work: asyncio.Future, seconds: float) -> None:
        if not work.cancelled():
            work.exception()  # nobody may be left to hear it
        self.usual += 0.2 * (seconds - self.usual)
        self._places.release()

    def _refusal(self, what: str, reason: str) -> Refusal:
        wait = max(1, math.ceil((self.waiting + 1) * self.usual))
        return Refusal(503, f"{what}; try again in {wait} s", reason, wait)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
