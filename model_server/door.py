"""The door every HTTP request comes through: who may enter, how much may be carried, and a line in the log.

Plain ASGI, so that it holds for unknown paths too. Must not know of models or pictures.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from typing import Any, Awaitable, Callable

from model_server.limits import Refusal, Settings
from model_server.telemetry import Telemetry, log

OPEN = ("/", "/demo", "/health/live", "/health/ready")  # these say nothing that needs a token
JSON_PATHS = ("/set_label_colors", "/predict_image_text")  # the original's clients do not all say that they send JSON
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def authorise(authorization: str, token: str) -> None:
    "`Refusal` 401 unless the header carries the token."
    if token and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise Refusal(401, "this server asks for a token; send the header Authorization: Bearer TOKEN", "token")


class Door:
    "ASGI middleware."

    def __init__(self, app: Any, settings: Settings, telemetry: Telemetry, paths: frozenset[str]) -> None:
        self.app, self.settings, self.telemetry, self.paths = app, settings, telemetry, paths
        self.bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 500

        async def watched(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.bodies += 1
        size = 0
        try:
            if scope["path"] not in OPEN:
                authorise(_header(scope, b"authorization"), self.settings.token)
            body = await self._body(receive)
            size = len(body)
            if scope["path"] in JSON_PATHS:
                scope = scope | {"headers": [h for h in scope["headers"] if h[0] != b"content-type"] + [(b"content-type", b"application/json")]}
            await self.app(scope, _replay(body, receive), watched)
        except Refusal as e:
            self.telemetry.rejected.labels(e.reason).inc()
            await _refuse(e, watched)
        except ConnectionError:
            status = 499  # the client left before its request was whole
        finally:
            self.bodies -= 1
            self._note(scope, status, start, size)

    async def _body(self, receive: Receive) -> bytes:
        "The whole body. One that is too large is read on for a while, unkept: a client still sending would not hear why it is refused."
        chunks: list[bytes] = []
        size, crowd = 0, self.bodies > self.settings.max_bodies
        try:
            async with asyncio.timeout(self.settings.upload):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > self.settings.max_body or crowd:
                        chunks.clear()
                    else:
                        chunks.append(chunk)
                    if not message.get("more_body") or size > 4 * self.settings.max_body:
                        break
        except TimeoutError:
            raise Refusal(408, f"the request did not arrive within {self.settings.upload:g} s", "upload") from None
        if size > self.settings.max_body:
            raise Refusal(413, f"the request has more than the {self.settings.max_body} bytes allowed; send a smaller picture", "body")
        if crowd and size:
            raise Refusal(503, "too many requests are being sent; try again in 1 s", "crowd", 1)
        return b"".join(chunks)

    def _note(self, scope: Scope, status: int, start: float, size: int) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        self.telemetry.requests.labels(path, str(status)).inc()
        log("request", method=scope["method"], path=path, status=status, ms=round(1000 * (time.perf_counter() - start), 1), bytes_in=size, peer=(scope.get("client") or ["?"])[0])


def _header(scope: Scope, name: bytes) -> str:
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == name), "")


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [dict(type="http.request", body=body, more_body=False)]

    async def again() -> dict[str, Any]:
        return waiting.pop() if waiting else await receive()
    return again


async def _refuse(e: Refusal, send: Send) -> None:
    headers = {"Content-Type": "application/json", **e.headers}
    if e.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    await send(dict(type="http.response.start", status=e.status, headers=[(k.lower().encode(), v.encode()) for k, v in headers.items()]))
    await send(dict(type="http.response.body", body=json.dumps({"error": e.sentence}, ensure_ascii=False).encode()))
