"""One queue in front of the model: so many at work, so few waiting, the next one told when to come back.

Must not know what the work is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from model_server.errors import APIError
from model_server.settings import Settings

T = TypeVar("T")


class WorkQueue:
    """Runs work in threads of its own, so that the event loop stays free to say that it is alive.

    A thread cannot be stopped. Work past its deadline loses its place at once and its result is thrown away; its thread
    counts as stuck until it ends, and while too many are stuck, nothing new is begun.
    """

    def __init__(self, settings: Settings, on_waiting: Callable[[int], None] = lambda waiting: None) -> None:
        self.settings = settings
        self.waiting = 0
        self.stuck = 0
        self.mean_seconds = 1.0  # a running mean of what one piece of work takes
        self._on_waiting = on_waiting
        self._places = asyncio.Semaphore(settings.places)
        self._threads = ThreadPoolExecutor(settings.places + settings.max_stuck, "model")

    async def run(self, work: Callable[[], T]) -> tuple[T, float]:
        "The work's result and the seconds it waited. `APIError` 503 when the queue is full or the deadline passes."
        start = time.perf_counter()
        await self._take_place()
        queued = time.perf_counter() - start
        try:
            result = await self._run_in_thread(work, self.settings.deadline - queued)
        finally:
            self._places.release()
            self._learn(time.perf_counter() - start - queued)
        return result, queued

    def close(self) -> None:
        "Begin nothing more."
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run_in_thread(self, work: Callable[[], T], seconds: float) -> T:
        if self.stuck >= self.settings.max_stuck:
            raise self._busy(f"{self.stuck} images are still being given up", "stuck")
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.wait_for(asyncio.shield(future), seconds)
        except TimeoutError:
            raise self._too_late() from None
        finally:
            if not future.done():
                self._give_up(future)

    def _give_up(self, future: asyncio.Future) -> None:
        self.stuck += 1
        future.add_done_callback(self._recover)

    def _recover(self, future: asyncio.Future) -> None:
        self.stuck -= 1
        if not future.cancelled():
            future.exception()  # nobody is left to hear it

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # at once: nobody else has a turn in between
        elif self.waiting >= self.settings.waiting:
            raise self._busy(f"{self.settings.waiting} photos are waiting already", "queue")
        else:
            await self._wait_for_place()

    async def _wait_for_place(self) -> None:
        self._count_waiting(1)
        try:
            await asyncio.wait_for(self._places.acquire(), self.settings.deadline)
        except TimeoutError:
            raise self._too_late() from None
        finally:
            self._count_waiting(-1)

    def _count_waiting(self, change: int) -> None:
        self.waiting += change
        self._on_waiting(self.waiting)

    def _learn(self, seconds: float) -> None:
        self.mean_seconds += 0.2 * (seconds - self.mean_seconds)

    def _too_late(self) -> APIError:
        return self._busy(f"the answer took longer than {self.settings.deadline:g} s", "deadline")

    def _busy(self, what: str, reason: str) -> APIError:
        rounds = (self.waiting + 1) / self.settings.places
        wait = max(1, math.ceil(rounds * self.mean_seconds))
        return APIError(503, f"{what}; try again in {wait} s", reason, wait)
