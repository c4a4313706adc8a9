"""uvicorn's protocols with the limits it does not have: on headers, on time, on connections and on frames.

With httptools uvicorn reads headers of any size, and waits for ever for a request to be whole; with its WebSocket
protocol it parses all frames of a chunk at one go. Both are subclassed here. The application gives them its
`Connections` through the state of its lifespan. Must not know of images or models.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from model_server.connections import Connections, network_of
from model_server.errors import APIError
from model_server.settings import KIB, Settings

CONNECTIONS = "connections"   # the name of `Connections` in the state of the lifespan
SMALLEST_SLICE = KIB          # bytes of a stream that are parsed in one turn of the event loop
WORKER_PATIENCE = 60          # seconds to start a worker in; uvicorn's 5 end in a circle of restarts on a busy machine
LARGEST_SLICE = 16 * KIB      # the same, while a large frame is being read
REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


def server_options(settings: Settings) -> dict[str, Any]:
    "The options of uvicorn that make a server keep its limits."
    return dict(
        http=BoundedHttpProtocol,
        ws=BoundedWebSocketProtocol,
        ws_max_size=settings.max_body,
        ws_per_message_deflate=False,
        lifespan="on",
        server_header=False,
        access_log=False,
        timeout_graceful_shutdown=int(settings.deadline) + 1,
        timeout_worker_healthcheck=WORKER_PATIENCE,
    )


def raw_answer(error: APIError) -> bytes:
    "An HTTP answer that says that the connection ends with it."
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(error.body)),
        "Connection": "close",
        **error.headers,
    }
    lines = [f"HTTP/1.1 {error.status} {REASONS[error.status]}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + error.body


class CountedConnection:
    """What both protocols do for `Connections`: they are in it while they are open, and can be closed by it.

    Comes before uvicorn's class among the bases.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.registry: Connections = self.app_state[CONNECTIONS]
        self.limits = self.registry.settings
        self.since = time.monotonic()
        self.answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        "Know where the connection comes from."
        super().connection_made(transport)
        self.network = network_of(self.client[0] if self.client else "")

    def connection_lost(self, error: Exception | None) -> None:
        "Forget the connection."
        self.registry.discard(self)
        super().connection_lost(error)

    def unsent(self) -> int:
        "Bytes of answers that the client has not read."
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        "Close at once."
        self.transport.abort()


class HeadTooLarge(Exception):
    "Raised within the parser, which ends the request."


class BoundedHttpProtocol(CountedConnection, HttpToolsProtocol):
    "One HTTP connection."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.begun = False         # has a request begun that is not whole?
        self.head_done = False     # have its headers come?
        self.unproductive = 0      # bytes since the parser last had something to give
        self.head_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        "Let a connection in, or say that the server is full."
        super().connection_made(transport)
        if not self.registry.admit(self):
            self.refuse(APIError(503, "too many connections are open; try again in 1 s", "connections", 1))

    # what `Connections` asks

    def is_busy(self) -> bool:
        "Is a whole request being answered?"
        return not self.begun and self.cycle is not None and not self.cycle.response_complete

    def expire(self, now: float) -> None:
        "Close if the client takes too long to begin, to send or to read."
        seconds = now - self.since
        if seconds > self._seconds_allowed():
            if self.begun and not self.head_done:
                self.refuse(APIError(408, f"the headers did not arrive within {self.limits.idle:g} s", "head"))
            else:
                self.abort()

    def _seconds_allowed(self) -> float:
        if self.is_busy():
            return self.limits.deadline + 2 * self.limits.upload
        if self.begun and self.head_done:
            return self.limits.upload + self.limits.idle
        if self.unsent():
            return self.limits.upload
        return self.limits.idle

    def refuse(self, error: APIError) -> None:
        "Answer without the application, and close; only close while another answer is being written."
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(raw_answer(error))
        self.transport.close()

    # what uvicorn and its parser call

    def data_received(self, data: bytes) -> None:
        "Parse what came, as long as the parser makes something of it."
        if self.transport.is_closing():
            return
        self.unproductive += len(data)
        super().data_received(data)
        if self.unproductive > self.limits.max_head:
            self.refuse(self._head_error())

    def send_400_response(self, message: str) -> None:
        "What uvicorn answers when its parser fails."
        if self.head_too_large:
            self.refuse(self._head_error())
        else:
            super().send_400_response(message)

    def on_message_begin(self) -> None:
        "A request begins."
        super().on_message_begin()
        self.head_size = 0
        self.begun = True
        self.head_done = False
        self.since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        "A part of the request line came."
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        "A header came, or a trailer behind a chunked body."
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        "The headers are there."
        self.head_done = True
        self.unproductive = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        "A part of the body came."
        self.unproductive = 0
        super().on_body(body)

    def on_chunk_header(self) -> None:
        "The length of a chunk of the body came."
        self.unproductive = 0

    def on_message_complete(self) -> None:
        "The request is whole."
        self.begun = False
        self.unproductive = 0
        self.since = time.monotonic()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        "The answer is written."
        self.answered = True
        if not self.begun:
            self.since = time.monotonic()
        super().on_response_complete()
        if self.unsent():
            self.registry.drop_unsent()

    def handle_websocket_upgrade(self) -> None:
        "Hand the connection over to a `BoundedWebSocketProtocol`."
        self.registry.discard(self)
        super().handle_websocket_upgrade()

    def _count_head(self, size: int) -> None:
        self.head_size += size
        if self.head_size > self.limits.max_head:
            self.head_too_large = True
            raise HeadTooLarge

    def _head_error(self) -> APIError:
        sentence = f"the request line and the headers have more than the {self.limits.max_head} bytes allowed"
        return APIError(431, f"{sentence}; send fewer or shorter ones", "head")


class RateLimit:
    "So many a second, and at most one second's worth at once."

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.left = rate
        self.last = time.monotonic()

    def spend(self, n: int) -> None:
        "Take `n`; more may be taken than is left."
        now = time.monotonic()
        self.left = min(self.rate, self.left + (now - self.last) * self.rate) - n
        self.last = now

    def wait(self) -> float:
        "Seconds until something is left."
        self.spend(0)
        return max(0.0, -self.left / self.rate)


class BoundedWebSocketProtocol(CountedConnection, WebSocketsSansIOProtocol):
    """One stream.

    What comes is parsed in slices, one in a turn of the event loop, and only while the application has taken the last
    message and the rate of frames allows. Meanwhile nothing is read from the socket, so that the sender has to wait.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answered = True  # the handshake's request was
        self.rate = RateLimit(self.limits.frame_rate)
        self.backlog = bytearray()
        self.slice = SMALLEST_SLICE
        self.turn: asyncio.Handle | None = None  # the next slice's

    def connection_made(self, transport: asyncio.Transport) -> None:
        "Take the connection over from HTTP."
        super().connection_made(transport)
        self.registry.admit(self)

    def connection_lost(self, error: Exception | None) -> None:
        "Forget what was not parsed."
        self.backlog.clear()
        if self.turn:
            self.turn.cancel()
        super().connection_lost(error)

    # what `Connections` asks

    def is_busy(self) -> bool:
        "An open stream never gives way; how many there may be is the application's to say."
        return True

    def expire(self, now: float) -> None:
        "Close where the handshake does not come to an end."
        if not self.handshake_complete and now - self.since > self.limits.idle:
            self.abort()

    # what uvicorn calls

    def data_received(self, data: bytes) -> None:
        "Keep what came, and read nothing more until it is parsed."
        self.backlog += data
        self._pause()
        if self.turn is None:
            self._parse_slice()

    async def receive(self) -> Any:
        "The next message for the application."
        message = await self.queue.get()
        if self.turn is None:
            self.turn = self.loop.call_soon(self._parse_slice)
        return message

    def handle_events(self) -> None:
        "Count the frames that a slice held."
        frames = len(self.conn.events)
        self.rate.spend(frames)
        self.slice = min(4 * self.slice, LARGEST_SLICE) if frames <= 1 else SMALLEST_SLICE
        super().handle_events()

    def _parse_slice(self) -> None:
        self.turn = None
        if self.transport.is_closing():
            self.backlog.clear()
        elif not self.backlog:
            self._resume()
        elif self.queue.empty():
            self._parse_or_wait()

    def _parse_or_wait(self) -> None:
        seconds = self.rate.wait()
        if seconds:
            self.turn = self.loop.call_later(seconds, self._parse_slice)
            return
        data = bytes(self.backlog[:self.slice])
        del self.backlog[:self.slice]
        self.turn = self.loop.call_soon(self._parse_slice)
        super().data_received(data)

    def _pause(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
