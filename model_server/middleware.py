"""What every HTTP request passes: who may enter, how much may be carried, and a line in the log.

Plain ASGI, so that it holds for unknown paths too. Must not know of models or images.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from model_server.errors import APIError
from model_server.json_size import check_json_size
from model_server.pages import check_host, check_page
from model_server.settings import Settings
from model_server.telemetry import Telemetry, log
from model_server.uploads import Receive, Uploads

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
WRITING = frozenset({"POST", "PUT"})  # methods that make the server work
OTHER = "other"  # what an unknown path is called in the metrics and in the log


@dataclass(frozen=True)
class Paths:
    """What the middleware must know about the routes.

    A route is named by its template, like `/v2/models/{name}`: what a client writes in its place makes no new name.
    """

    known: dict[str, re.Pattern]  # all of them, and what matches their paths; any other path is `OTHER`
    open: frozenset[str]          # need no token: these say nothing that needs one
    with_body: frozenset[str]     # take a body; elsewhere none is read
    with_json: frozenset[str]     # take JSON, whatever type the client names: not all the original's clients name one

    def template(self, path: str) -> str:
        "The route that a path belongs to."
        found = (template for template, pattern in self.known.items() if pattern.fullmatch(path))
        return next(found, OTHER)


@dataclass
class Exchange:
    "One request and what becomes of it."

    scope: Scope
    route: str     # its template
    start: float = field(default_factory=time.perf_counter)
    status: int = 500
    size: int = 0  # bytes of the body


def authorize(authorization: str, token: str) -> None:
    "`APIError` 401 unless the header carries the token."
    expected = f"Bearer {token}".encode()
    if token and not hmac.compare_digest(authorization.encode(), expected):
        raise APIError(401, "this server asks for a token; send the header Authorization: Bearer TOKEN", "token")


def check_caller(scope: Scope, settings: Settings) -> None:
    """`APIError` 403 for a request to a name that is not the server's, or of a page that may not use it.

    A page of another origin may read, since its browser shows it nothing; it may not let the server work.
    """
    host = header(scope, b"host")
    check_host(host, settings.hosts)
    if scope["type"] == "websocket" or scope["method"] in WRITING:
        origin, site = header(scope, b"origin"), header(scope, b"sec-fetch-site")
        check_page(origin, site, host, settings.origins)


class RequestMiddleware:
    "ASGI middleware around the application."

    def __init__(self, app: Any, settings: Settings, telemetry: Telemetry, paths: Paths) -> None:
        self.app = app
        self.settings = settings
        self.telemetry = telemetry
        self.paths = paths
        self.uploads = Uploads(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        "Answer one request, or pass on what is not HTTP."
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, self.paths.template(scope["path"]))
        try:
            await self._answer(exchange, receive, _noting_status(exchange, send))
        finally:
            self._record(exchange)

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        try:
            check_caller(exchange.scope, self.settings)
            if exchange.route not in self.paths.open:
                authorize(header(exchange.scope, b"authorization"), self.settings.token)
            with self.uploads.place() as upload:
                body = b""
                if exchange.route in self.paths.with_body:
                    body = await self.uploads.read(upload, receive)
                exchange.size = len(body)
                await self.app(self._prepared(exchange, body), replay(body, receive), send)
        except APIError as error:
            self.telemetry.rejected.labels(error.reason).inc()
            await send_error(error, send)
        except ConnectionError:
            exchange.status = 499  # the client left before its request was whole

    def _prepared(self, exchange: Exchange, body: bytes) -> Scope:
        "The scope for the application, where JSON is called JSON."
        if exchange.route not in self.paths.with_json:
            return exchange.scope
        check_json_size(body, self.settings.max_json_values)
        others = [(name, value) for name, value in exchange.scope["headers"] if name != b"content-type"]
        return exchange.scope | {"headers": [*others, (b"content-type", b"application/json")]}

    def _record(self, exchange: Exchange) -> None:
        "The request in the metrics and in the log."
        self.telemetry.requests.labels(exchange.route, str(exchange.status)).inc()
        milliseconds = round(1000 * (time.perf_counter() - exchange.start), 1)
        peer = (exchange.scope.get("client") or ["?"])[0]
        log("request", method=exchange.scope["method"], path=exchange.route, status=exchange.status, ms=milliseconds,
            bytes_in=exchange.size, peer=peer)


def header(scope: Scope, name: bytes) -> str:
    "The first header of this name (in lower case); empty where there is none."
    found = (value for key, value in scope["headers"] if key == name)
    return next(found, b"").decode("latin-1")


def replay(body: bytes, receive: Receive) -> Receive:
    "A `receive` that gives a body that was read already."
    messages = [dict(type="http.request", body=body, more_body=False)]

    async def receive_again() -> dict[str, Any]:
        "First the body, then what else comes."
        return messages.pop() if messages else await receive()
    return receive_again


async def send_error(error: APIError, send: Send) -> None:
    "Answer without the web framework."
    headers = {"Content-Type": "application/json", **error.headers}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send(dict(type="http.response.start", status=error.status, headers=raw))
    await send(dict(type="http.response.body", body=error.body))


def _noting_status(exchange: Exchange, send: Send) -> Send:
    async def send_noting(message: dict[str, Any]) -> None:
        "Pass a message on."
        exchange.status = message.get("status", exchange.status)
        await send(message)
    return send_noting
