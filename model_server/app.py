"""The web application: both protocols as routes, and `seg_serve`, which starts it.

Routes only say what goes in and what comes out; the work is in `service`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, AsyncIterator
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

from model_server.answer import palette_png, regions, table_palette
from model_server.door import Door, authorise
from model_server.limits import Refusal, Settings
from model_server.palettes import COOKIE, paint
from model_server.protocol import (MEDIA, ColorsSet, Error, Fit, Format, Greeting, Health, ImageText, Labelled, LabelPosition,
                                   ModelCard, PredictImageText, SetLabelColors, TableRow)
from model_server.service import LOOK, Service, describe
from model_server.stream import Latest, answers, with_mask
from model_server.telemetry import LOG, log
from nbs_lib.core import SegError, seg_command
from nbs_lib.predict import Predictor, usable_threads

PAGE = Path(__file__).with_name("page.html")
ENVIRONMENT = "SEG_SERVE"  # how seg_serve tells its worker processes what to serve
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; media-src blob:; connect-src 'self'"
BUSY = {503: dict(model=Error, description="Full, warming up or too slow; Retry-After says when to come back")}
REFUSED = {status: dict(model=Error) for status in (400, 401, 408, 413, 415, 422)}
PICTURE = {"requestBody": dict(required=True, content={t: dict(schema=dict(type="string", format="binary")) for t in ("image/png", "image/jpeg", "image/webp")})}

routes = APIRouter()


def service(request: Request | WebSocket) -> Service:
    return request.app.state.service


def address(request: Request) -> str:
    return request.client.host if request.client else ""


# --- the original's protocol --------------------------------------------------------------------------------------

@routes.get("/")
async def greet(request: Request) -> Greeting:
    return Greeting(name="SegmentationLearner model server", model=service(request).predictor.path.name, demo="/demo")


@routes.put("/set_label_colors", responses=REFUSED | BUSY)
def set_label_colors(wanted: SetLabelColors, request: Request, response: Response) -> ColorsSet:
    "Choose the colours of this client's pictures; labels that are not named keep the table's."
    n = service(request).predictor.labels.n_classes
    if unknown := [v for v in wanted.labels if not -1 <= v < n - 1]:
        raise Refusal(422, f"label {unknown[0]} is unknown, the model's labels are 0 to {n - 2} (-1: nothing labelled)", "label")
    colors = {v + 1: (c.r, c.g, c.b, c.a) for v, c in zip(wanted.labels, wanted.colors)}
    cookie = service(request).palettes.choose(address(request), colors)
    response.set_cookie(COOKIE, cookie, httponly=True, samesite="lax")
    return ColorsSet(labels=len(colors))


@routes.put("/predict_image_text", responses=REFUSED | BUSY)
async def predict_image_text(asked: PredictImageText, request: Request, response: Response) -> ImageText:
    "Label a picture: where each label lies, and the mask in this client's colours at the picture's size."
    colors = service(request).palettes.find(address(request), request.cookies.get(COOKIE))

    def make(prediction, predictor: Predictor) -> ImageText:
        found = [r for r in regions(prediction.mask) if r.value != predictor.labels.background]
        png = palette_png(prediction.mask, paint(predictor.labels, colors))
        return ImageText(labels=[LabelPosition(label=r.value - 1, labelPositionX=r.x, labelPositionY=r.y) for r in found], image64=base64.b64encode(png).decode())

    answer = await service(request).label(asked.image64, "square", make)
    response.headers["Server-Timing"] = timing(answer.ms)
    return answer.value


# --- our own ------------------------------------------------------------------------------------------------------

@routes.post("/v1/predict", openapi_extra=PICTURE, response_class=Response,
             responses=REFUSED | BUSY | {406: dict(model=Error), 200: dict(model=Labelled, content={t: dict(schema=dict(type="string", format="binary")) for t in ("image/png", "application/octet-stream")})})
async def predict(request: Request, fit: Fit = "square", format: Format | None = None,
                  mask: Annotated[bool, Query(description="should JSON hold the mask too?")] = False) -> Response:
    "Label the picture in the body. The answer is a palette PNG, raw labels (one byte a pixel, row by row) or JSON, as `format` or the Accept header say."
    kind = format or accepted(request.headers.get("accept", "*/*"))
    answer = await service(request).label(await request.body(), fit, MAKERS[kind, mask])
    headers = {"Server-Timing": timing(answer.ms), "X-Model": answer.predictor.sha256}
    if kind == "json":
        value = answer.value
        value.ms = answer.ms
        return Response(value.model_dump_json(exclude_none=True), media_type=MEDIA[kind], headers=headers)
    content, (height, width) = answer.value
    return Response(content, media_type=MEDIA[kind], headers=headers | {"X-Mask-Width": str(width), "X-Mask-Height": str(height)})


def _as_png(p, predictor):
    return palette_png(p.mask, table_palette(predictor.labels)), p.mask.shape


def _as_raw(p, predictor):
    return p.mask.tobytes(), p.mask.shape


MAKERS = {("png", False): _as_png, ("png", True): _as_png, ("raw", False): _as_raw, ("raw", True): _as_raw, ("json", False): describe, ("json", True): with_mask}


def accepted(header: str) -> str:
    "The format that an Accept header likes best; `Refusal` 406 where it wants none of ours."
    best, chosen = 0.0, ""
    for kind, media in MEDIA.items():
        for part in header.split(","):
            name, *options = (o.strip() for o in part.split(";"))
            if name in (media, media.split("/")[0] + "/*", "*/*") and (q := _quality(options)) > best:
                best, chosen = q, kind
    if not chosen:
        raise Refusal(406, f"the answer can be {', '.join(MEDIA.values())}; send one of them as Accept, or none", "accept")
    return chosen


def _quality(options: list[str]) -> float:
    try:
        return next((float(o[2:]) for o in options if o.startswith("q=")), 1.0)
    except ValueError:
        return 0.0


def timing(ms: dict[str, float]) -> str:
    "A Server-Timing header."
    return ", ".join(f"{stage};dur={t}" for stage, t in ms.items())


@routes.websocket("/v1/stream")
async def stream(socket: WebSocket, fit: Fit = "square") -> None:
    "Binary messages in, each a picture; text messages out, each the JSON of `Frame` or `FrameRefused`."
    try:
        enter(socket)
    except Refusal as e:
        service(socket).telemetry.rejected.labels(e.reason).inc()
        return await socket.send_denial_response(JSONResponse({"error": e.sentence}, e.status, e.headers))
    await socket.accept()
    frames, state = Latest(), socket.app.state
    state.streams += 1
    reader = asyncio.create_task(read_frames(socket, frames))
    try:
        async for answer in answers(frames, service(socket), fit):
            await socket.send_text(answer.model_dump_json())
    except (WebSocketDisconnect, RuntimeError, OSError):
        pass  # starlette and uvicorn say in many ways that the client is gone
    finally:
        state.streams -= 1
        reader.cancel()
        log("stream", sent=frames.sent, skipped=frames.skipped)


def enter(socket: WebSocket) -> None:
    "`Refusal` unless token, origin and number of streams are right. Browsers cannot send the token as a header, they give it as ?token=."
    s = service(socket).settings
    authorise(socket.headers.get("authorization") or f"Bearer {socket.query_params.get('token', '')}", s.token)
    origin = socket.headers.get("origin")
    if origin and urlsplit(origin).netloc != socket.headers.get("host") and origin not in s.origins and "*" not in s.origins:
        raise Refusal(403, f"pages of {origin} may not use this server; start it with --origins {origin}", "origin")
    if socket.app.state.streams >= s.max_streams:
        raise Refusal(503, f"{s.max_streams} streams are open already; try again in 5 s", "streams", 5)


async def read_frames(socket: WebSocket, frames: Latest) -> None:
    try:
        while (message := await socket.receive())["type"] == "websocket.receive":
            if frames.put(message.get("bytes") or message.get("text") or b""):
                service(socket).telemetry.frames.labels("replaced").inc()
    finally:
        frames.close()


@routes.get("/v1/model")
async def model(request: Request) -> ModelCard:
    "What is served: labels, colours, size, file, limits."
    p, s = service(request).predictor, service(request).settings
    rows = [TableRow(value=i, name=name, group=name.split("_")[0], color=tuple(p.labels.colors[i])) for i, name in enumerate(p.labels.codes)]
    limits = dict(body=s.max_body, side=s.max_side, pixels=s.max_pixels, waiting=s.waiting, deadline=s.deadline)
    return ModelCard(name=p.path.name, sha256=p.sha256, arch=p.meta.get("arch"), size=p.size, provider=p.provider, background=p.labels.background, labels=rows, limits=limits)


@routes.post("/v1/reload", responses={s: dict(model=Error) for s in (401, 403, 409)})
async def reload(request: Request) -> ModelCard:
    "Load the model file again. Off unless the server was started with a token."
    if not service(request).settings.token:
        raise Refusal(403, "reloading is off; start the server with --token to allow it", "reload")
    await service(request).reload()
    return await model(request)


@routes.get("/health/live")
async def live() -> Health:
    return Health(status="alive")


@routes.get("/health/ready", responses={503: dict(model=Health)})
async def ready(request: Request, response: Response) -> Health:
    response.status_code = 200 if service(request).ready else 503
    return Health(status="ready" if service(request).ready else "warming up")


@routes.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    return Response(service(request).telemetry.text(), media_type="text/plain; version=0.0.4")


@routes.get("/demo", include_in_schema=False)
async def demo() -> FileResponse:
    return FileResponse(PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})


# --- the application ----------------------------------------------------------------------------------------------

def make_app(model: str | Path | Predictor, settings: Settings = Settings(), runtime: str | Path | None = None, provider: str = "cpu", threads: int | None = None) -> FastAPI:
    "The application around a model file, or around a predictor that is there already. Workers share the folder `runtime`."
    def load() -> Predictor:
        return Predictor(model, provider, threads)

    from_file = isinstance(model, (str, Path))
    own = None if runtime else tempfile.TemporaryDirectory(prefix="seg_serve-")
    worker = Service(load() if from_file else model, settings, Path(runtime or own.name), load if from_file else None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(worker.warm_up()), asyncio.create_task(worker.follow())]
        yield
        for task in tasks:
            task.cancel()
        worker.gate.close()
        if own:
            own.cleanup()

    app = FastAPI(title="SegmentationLearner model server", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.streams = worker, 0
    app.include_router(routes)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(Door, settings=settings, telemetry=worker.telemetry, paths=frozenset(r.path for r in routes.routes))
    app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST", "PUT"], allow_headers=["Authorization", "Content-Type"],
                       expose_headers=["Server-Timing", "X-Model", "X-Mask-Width", "X-Mask-Height", "Retry-After"])
    return app


async def _refused(request: Request, e: Refusal) -> JSONResponse:
    service(request).telemetry.rejected.labels(e.reason).inc()
    return JSONResponse({"error": e.sentence}, e.status, e.headers)


async def _invalid(request: Request, e: RequestValidationError) -> JSONResponse:
    "The first thing that is wrong, in words, without the picture that came with it."
    first = e.errors()[0]
    broken = first["type"] == "json_invalid"
    where = ".".join(str(o) for o in first["loc"][1:] if not broken)
    service(request).telemetry.rejected.labels("json" if broken else "fields").inc()
    return JSONResponse({"error": "the body is not JSON" if broken else f"{where or 'the body'}: {first['msg'].removeprefix('Value error, ')}"}, 400 if broken else 422)


async def _http_error(request: Request, e: HTTPException) -> JSONResponse:
    return JSONResponse({"error": str(e.detail)}, e.status_code, e.headers)


async def _broken(request: Request, e: Exception) -> JSONResponse:
    log("broken", path=request.url.path, error=type(e).__name__)
    return JSONResponse({"error": "the server failed at this request, which is its fault and not yours"}, 500)


# --- the command --------------------------------------------------------------------------------------------------

def worker_app() -> FastAPI:
    "The application in a worker process, from what `seg_serve` wrote into the environment."
    listen()
    given = json.loads(os.environ[ENVIRONMENT])
    end_with(given.pop("parent"))
    settings = Settings(**given.pop("settings") | dict(origins=tuple(given.pop("origins"))))
    return make_app(settings=settings, **given)


def end_with(parent: int) -> None:
    "End this process when the one that started it is gone, killed for instance: a worker left behind would keep the port."
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)
    if os.getpid() != parent:
        threading.Thread(target=watch, daemon=True).start()


def listen() -> None:
    "Let the log's lines be seen on standard error."
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)


def newest_model(folder: str = "Assets/Data~/models") -> str:
    "The model file written last; `SegError` where there is none."
    files = sorted(Path(folder).glob("*.onnx"), key=lambda p: p.stat().st_mtime)
    if not files:
        raise SegError(f"there is no model in {folder}; name one with --model, or make one with ONNX.ipynb or `seg_export`")
    return str(files[-1])


def check_port(host: str, port: int) -> None:
    "`SegError` where the port is taken."
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((host, port))
    except OSError as e:
        raise SegError(f"cannot listen on {host}:{port} ({e.strerror}); stop what does, or take another with --port") from None


@seg_command
def seg_serve(
    model: str = "",          # ONNX file written by seg_export; empty: the newest in Assets/Data~/models
    host: str = "127.0.0.1",  # Address to listen on; 0.0.0.0 for all networks (then set a token)
    port: int = 4200,         # Port to listen on
    workers: int = 1,         # Processes; each loads the model and gets its share of the processors
    token: str = "",          # Bearer token that clients must send; also allows POST /v1/reload. Better given in SEG_SERVE_TOKEN
    origins: str = "",        # Web pages of other origins that may use the server, comma separated
    waiting: int = 2,         # Photos that may wait in a worker; the next is answered 503
    deadline: float = 30.0,   # Seconds until a request is given up
    provider: str = "cpu",    # Execution provider: cpu, cuda, openvino ...
):
    "Serve an exported model over HTTP: the original's protocol, /v1, and a page at /demo. Needs no torch."
    model = model or newest_model()
    token = token or os.environ.get("SEG_SERVE_TOKEN", "")
    check_port(host, port)
    threads = max(1, usable_threads() // workers)
    options: dict[str, Any] = dict(host=host, port=port, access_log=False, log_level="warning", server_header=False, ws_max_size=Settings.max_body, ws_max_queue=2,
                                   ws_per_message_deflate=False, limit_concurrency=256, timeout_graceful_shutdown=int(deadline) + 1)
    settings = dict(token=token, waiting=waiting, deadline=deadline)
    with tempfile.TemporaryDirectory(prefix="seg_serve-") as runtime:
        given = dict(model=model, settings=settings, origins=[o for o in origins.split(",") if o], runtime=runtime, provider=provider, threads=threads, parent=os.getpid())
        os.environ[ENVIRONMENT] = json.dumps(given)
        app = worker_app()  # with several workers a trial: a bad file is a sentence here, not a worker that dies again and again
        print(f"{app.state.service.predictor}\nhttp://{host}:{port}, page at http://{host}:{port}/demo, {workers} worker{'s' * (workers > 1)}", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1") and not token:
            print("seg_serve: anybody who reaches this address may use the server; set a token with --token", file=sys.stderr)
        if workers == 1:
            return uvicorn.run(app, **options)
        del app
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = runtime
        uvicorn.run("model_server.app:worker_app", factory=True, workers=workers, **options)


if __name__ == "__main__":
    seg_serve.main()
