"""The web application around the models: routes, errors, middleware and what runs beside them."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from model_server import routes, v2
from model_server.connections import Connections
from model_server.error_handlers import add_error_handlers
from model_server.middleware import RequestMiddleware
from model_server.models import Models, Source, open_models
from model_server.service import Shared
from model_server.settings import DEFAULTS, Settings
from model_server.uvicorn_protocols import CONNECTIONS

ROUTERS = (routes.router, v2.router)
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]

ALLOWED_HEADERS = ["Authorization", "Content-Type", v2.HEADER_LENGTH]
EXPOSED_HEADERS = ["Server-Timing", "X-Model", "X-Mask-Width", "X-Mask-Height", "Retry-After", v2.HEADER_LENGTH]


def make_app(
    model: Source | Sequence[Source],
    settings: Settings = DEFAULTS,
    runtime: str | Path | None = None,
    provider: str = "cpu",
    threads: int | None = None,
) -> FastAPI:
    """The application around one or more model files, or predictors that are there already; the first is the default.

    Workers share the folder `runtime`; None makes one that is removed at the end.
    """
    temporary = None if runtime else tempfile.TemporaryDirectory(prefix="seg_serve-")
    folder = Path(runtime or temporary.name)
    models = open_models(as_list(model), Shared(settings, folder), provider, threads)
    title = "SegmentationLearner model server"
    app = FastAPI(title=title, version="1", lifespan=make_lifespan(models, temporary), docs_url=None, redoc_url=None)
    app.state.models = models
    app.state.streams = Counter()  # open streams of each network
    for router in ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    add_middleware(app, models.shared)
    return app


def as_list(model: Source | Sequence[Source]) -> list[Source]:
    "The models, of which there may be one."
    return list(model) if isinstance(model, (list, tuple)) else [model]


def make_lifespan(models: Models, temporary: tempfile.TemporaryDirectory | None) -> Lifespan:
    "What starts and ends with the application; `temporary` is removed at the end."
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        "What runs beside the requests."
        connections = Connections(models.shared.settings)
        tasks = [asyncio.create_task(work) for work in work_beside(models, connections)]
        yield {CONNECTIONS: connections}
        for task in tasks:
            task.cancel()
        models.shared.queue.close()
        if temporary:
            temporary.cleanup()

    return lifespan


def work_beside(models: Models, connections: Connections) -> list[Coroutine[Any, Any, None]]:
    "What runs beside the requests, until the end."
    warming = [service.warm_up() for service in models]
    following = [service.follow() for service in models]
    return [*warming, *following, connections.watch()]


def add_middleware(app: FastAPI, shared: Shared) -> None:
    "Who may enter; and which pages of other origins."
    settings = shared.settings
    all_routes = [route for router in ROUTERS for route in router.routes]
    paths = routes.paths(all_routes, routes.OPEN | v2.OPEN)
    app.add_middleware(RequestMiddleware, settings=settings, telemetry=shared.telemetry, paths=paths)
    app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST", "PUT"],
                       allow_headers=ALLOWED_HEADERS, expose_headers=EXPOSED_HEADERS)
