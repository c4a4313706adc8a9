"""The open connections of a server: how many there may be, and which of them give way.

A connection is idle until a request has come whole. When there is no room for a new one, the idle one that has waited
longest is closed, first among those that never had an answer. Must not know of HTTP or of sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_address
from typing import Protocol

from model_server.settings import Settings
from model_server.telemetry import log

LOOK_SECONDS = 0.5  # between two looks at all connections


class Connection(Protocol):
    "What is needed of a connection."

    network: str    # where it comes from
    since: float    # when it began to do what it does, in seconds of `time.monotonic`
    answered: bool  # has it had an answer?

    def is_busy(self) -> bool:
        "Is a whole request being answered?"

    def expire(self, now: float) -> None:
        "Close if a limit on time has passed."

    def abort(self) -> None:
        "Close at once."

    def unsent(self) -> int:
        "Bytes of answers that the client has not read."


def network_of(address: str) -> str:
    "What counts as one client: an IPv4 address, or the /64 network of an IPv6 address."
    try:
        parsed = ip_address(address.split("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(IPv6Network((parsed, 64), strict=False))


class Connections:
    "All connections of one server process."

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.open: set[Connection] = set()

    def admit(self, connection: Connection) -> bool:
        "Take a connection in, closing an idle one where there is no room; False where all others are busy."
        same = [other for other in self.open if other.network == connection.network]
        if len(same) >= self.settings.max_per_address and not self._close_idle(same):
            return False
        if len(self.open) >= self.settings.max_connections and not self._close_idle(self.open):
            return False
        self.open.add(connection)
        return True

    def discard(self, connection: Connection) -> None:
        "Forget a connection that is gone."
        self.open.discard(connection)

    async def watch(self) -> None:
        "Close what has taken too long, for as long as the server runs."
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.expire(time.monotonic())
            except Exception as error:  # one odd connection must not end the watch over all others
                log("broken", path="connections", error=f"{type(error).__name__}: {error}")

    def expire(self, now: float) -> None:
        "Close the connections whose time has passed."
        for connection in list(self.open):
            connection.expire(now)

    def drop_unsent(self) -> None:
        "Close the connections that have left their answers unread longest, until the limit on all holds."
        waiting = sorted((c for c in self.open if c.unsent()), key=lambda c: c.since)
        total = sum(c.unsent() for c in waiting)
        for connection in waiting:
            if total <= self.settings.max_unsent:
                return
            total -= connection.unsent()
            self._close(connection)

    def _close_idle(self, connections: Iterable[Connection]) -> bool:
        "Close the connection that can best be spared; False where there is none."
        idle = [connection for connection in connections if not connection.is_busy()]
        if not idle:
            return False
        self._close(min(idle, key=lambda connection: (connection.answered, connection.since)))
        return True

    def _close(self, connection: Connection) -> None:
        self.open.discard(connection)
        connection.abort()
