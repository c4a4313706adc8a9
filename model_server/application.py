"""The web application around one model: routes, errors, middleware and what runs beside them."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from model_server import routes, v2
from model_server.connections import Connections
from model_server.error_handlers import add_error_handlers
from model_server.middleware import RequestMiddleware
from model_server.service import Service
from model_server.settings import DEFAULTS, Settings
from model_server.uvicorn_protocols import CONNECTIONS
from nbs_lib.predict import Predictor

ROUTERS = (routes.router, v2.router)
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]

ALLOWED_HEADERS = ["Authorization", "Content-Type", v2.HEADER_LENGTH]
EXPOSED_HEADERS = ["Server-Timing", "X-Model", "X-Mask-Width", "X-Mask-Height", "Retry-After", v2.HEADER_LENGTH]


def make_app(
    model: str | Path | Predictor,
    settings: Settings = DEFAULTS,
    runtime: str | Path | None = None,
    provider: str = "cpu",
    threads: int | None = None,
) -> FastAPI:
    """The application around a model file, or around a predictor that is there already.

    Workers share the folder `runtime`; None makes one that is removed at the end.
    """
    temporary = None if runtime else tempfile.TemporaryDirectory(prefix="seg_serve-")
    folder = Path(runtime or temporary.name)
    service = make_service(model, settings, folder, provider, threads)
    title = "SegmentationLearner model server"
    app = FastAPI(title=title, version="1", lifespan=make_lifespan(service, temporary), docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.streams = Counter()  # open streams of each address
    for router in ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    add_middleware(app, service)
    return app


def make_lifespan(service: Service, temporary: tempfile.TemporaryDirectory | None) -> Lifespan:
    "What starts and ends with the application; `temporary` is removed at the end."
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        "What runs beside the requests."
        connections = Connections(service.settings)
        tasks = [asyncio.create_task(work) for work in (service.warm_up(), service.follow(), connections.watch())]
        yield {CONNECTIONS: connections}
        for task in tasks:
            task.cancel()
        service.queue.close()
        if temporary:
            temporary.cleanup()

    return lifespan


def make_service(
    model: str | Path | Predictor, settings: Settings, runtime: Path, provider: str, threads: int | None
) -> Service:
    "The service of a model file, which can be loaded again, or of a predictor."
    if not isinstance(model, (str, Path)):
        return Service(model, settings, runtime)

    def load() -> Predictor:
        "Read the file again."
        return Predictor(model, provider, threads)

    return Service(load(), settings, runtime, load)


def add_middleware(app: FastAPI, service: Service) -> None:
    "Who may enter; and which pages of other origins."
    settings = service.settings
    all_routes = [route for router in ROUTERS for route in router.routes]
    paths = routes.paths(all_routes, routes.OPEN | v2.OPEN)
    app.add_middleware(RequestMiddleware, settings=settings, telemetry=service.telemetry, paths=paths)
    app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST", "PUT"],
                       allow_headers=ALLOWED_HEADERS, expose_headers=EXPOSED_HEADERS)
