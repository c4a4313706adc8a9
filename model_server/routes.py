"""The endpoints: what goes in and what comes out. The work is in `service`.

A new endpoint is a function with a decorator, here and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse, JSONResponse
from starlette.routing import BaseRoute

from model_server.answer import palette_png, regions, table_palette
from model_server.connections import network_of
from model_server.errors import APIError
from model_server.messages import (
    MEDIA,
    ColorsSet,
    Error,
    Fit,
    Format,
    Greeting,
    Health,
    ImageText,
    Labelled,
    LabelPosition,
    ModelCard,
    ModelList,
    PredictImageText,
    ServedModel,
    SetLabelColors,
    TableRow,
)
from model_server.middleware import WRITING, Paths, authorize, check_caller
from model_server.models import Models
from model_server.negotiation import accepted_format
from model_server.palettes import COOKIE, Colors, client_palette
from model_server.service import Service, describe
from model_server.settings import Settings
from model_server.stream import LatestFrame, SilentStream, answers, describe_with_mask
from model_server.telemetry import log
from nbs_lib.predict import Prediction, Predictor

PAGE = Path(__file__).with_name("demo.html")
PAGE_FILES = {path.name: path for path in PAGE.with_name("demo").iterdir()}
PAGE_MEDIA = {".js": "text/javascript", ".css": "text/css", ".jpg": "image/jpeg"}  # not every system knows all three
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
          "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'")
# These need no token: they say nothing that needs one
OPEN = frozenset({"/", "/demo", "/demo/{name}", "/health/live", "/health/ready"})
TRY_AGAIN_LATER = 1013  # WebSocket's code for a server that closes a stream to have room
JSON = frozenset({"/set_label_colors", "/predict_image_text"})     # JSON, whatever type the client names

router = APIRouter()


# --- what the routes share ----------------------------------------------------------------------------------------

def get_models(connection: HTTPConnection) -> Models:
    "The models of this application."
    return connection.app.state.models


TheModels = Annotated[Models, Depends(get_models)]
ModelName = Annotated[str | None, Query(description="name of the model; the default model where none is given")]


def get_service(models: TheModels, model: ModelName = None) -> Service:
    "The model that a request asks for; `APIError` 404 where there is none of that name."
    return models.find(model)


def client_address(request: Request) -> str:
    "The client's address; empty where it is not known."
    return request.client.host if request.client else ""


def palette_cookie(request: Request) -> str | None:
    "The cookie in which a client keeps its colors."
    return request.cookies.get(COOKIE)


TheService = Annotated[Service, Depends(get_service)]
Address = Annotated[str, Depends(client_address)]
PaletteCookie = Annotated[str | None, Depends(palette_cookie)]

BINARY: dict[str, Any] = dict(schema=dict(type="string", format="binary"))
IMAGE_BODY = {"requestBody": dict(required=True, content={f"image/{kind}": BINARY for kind in ("png", "jpeg", "webp")})}
BUSY = {503: dict(model=Error, description="Full, warming up or too slow; Retry-After says when to come back")}
REFUSED = {status: dict(model=Error) for status in (400, 401, 403, 404, 408, 413, 415, 422)}
UNKNOWN = {status: dict(model=Error) for status in (401, 404)}
LABELLED = {200: dict(model=Labelled, content={"image/png": BINARY, "application/octet-stream": BINARY})}


def server_timing(ms: dict[str, float]) -> str:
    "A Server-Timing header."
    return ", ".join(f"{stage};dur={time_taken}" for stage, time_taken in ms.items())


# --- the original's protocol --------------------------------------------------------------------------------------

@router.get("/")
async def greet(models: TheModels) -> Greeting:
    "Who is there."
    name = models.default.predictor.path.name
    return Greeting(name="SegmentationLearner model server", model=name, demo="/demo")


@router.put("/set_label_colors", responses=REFUSED | BUSY)
def set_label_colors(
    wanted: SetLabelColors, service: TheService, address: Address, cookie: PaletteCookie, response: Response
) -> ColorsSet:
    "Choose the colors of this client's images; labels that are not named keep the table's."
    n_classes = service.predictor.labels.n_classes
    unknown = [label for label in wanted.labels if not -1 <= label < n_classes - 1]
    if unknown:
        known = f"the model's labels are 0 to {n_classes - 2} (-1: nothing labelled)"
        raise APIError(422, f"label {unknown[0]} is unknown, {known}", "label")
    colors = {label + 1: (c.r, c.g, c.b, c.a) for label, c in zip(wanted.labels, wanted.colors)}
    response.set_cookie(COOKIE, service.palettes.choose(address, colors, cookie), httponly=True, samesite="lax")
    return ColorsSet(labels=len(colors))


@router.put("/predict_image_text", responses=REFUSED | BUSY)
async def predict_image_text(
    asked: PredictImageText, service: TheService, address: Address, cookie: PaletteCookie, response: Response
) -> ImageText:
    "Label an image: where each label lies, and the mask in this client's colors at the image's size."
    colors = service.palettes.find(address, cookie)

    def make(prediction: Prediction, predictor: Predictor) -> ImageText:
        "In this client's colors."
        return image_text(prediction, predictor, colors)

    answer = await service.label(asked.image64, "stretch", make)
    response.headers["Server-Timing"] = server_timing(answer.ms)
    return answer.value


def image_text(prediction: Prediction, predictor: Predictor, colors: Colors) -> ImageText:
    "A prediction as the original's protocol says it: labels are mask values - 1."
    found = [region for region in regions(prediction.mask) if region.value != predictor.labels.background]
    positions = [LabelPosition(label=r.value - 1, labelPositionX=r.x, labelPositionY=r.y) for r in found]
    png = palette_png(prediction.mask, client_palette(predictor.labels, colors))
    return ImageText(labels=positions, image64=base64.b64encode(png).decode())


# --- our own ------------------------------------------------------------------------------------------------------

def answer_format(request: Request, format: Format | None = None) -> str:
    "The format that `format` or the Accept header asks for."
    return format or accepted_format(",".join(request.headers.getlist("accept")))


@router.post("/v1/predict", openapi_extra=IMAGE_BODY, response_class=Response,
             responses=REFUSED | BUSY | {406: dict(model=Error)} | LABELLED)
async def predict(
    request: Request, service: TheService, kind: Annotated[str, Depends(answer_format)], fit: Fit = "stretch",
    mask: Annotated[bool, Query(description="should JSON hold the mask too?")] = False,
) -> Response:
    """Label the image in the body.

    The answer is a palette PNG, raw labels (one byte a pixel, row by row) or JSON, as `format` or the Accept header
    say.
    """
    make = ANSWER_MAKERS[kind, mask]
    answer = await service.label(await request.body(), fit, make)
    headers = {"Server-Timing": server_timing(answer.ms), "X-Model": answer.predictor.sha256}
    if kind == "json":
        answer.value.ms = answer.ms
        return Response(answer.value.model_dump_json(exclude_none=True), media_type=MEDIA[kind], headers=headers)
    content, (height, width) = answer.value
    headers |= {"X-Mask-Width": str(width), "X-Mask-Height": str(height)}
    return Response(content, media_type=MEDIA[kind], headers=headers)


def as_png(prediction: Prediction, predictor: Predictor) -> tuple[bytes, tuple[int, int]]:
    "The mask as a palette PNG, and its (height, width)."
    return palette_png(prediction.mask, table_palette(predictor.labels)), prediction.mask.shape


def as_raw(prediction: Prediction, predictor: Predictor) -> tuple[bytes, tuple[int, int]]:
    "The mask as one byte a pixel, and its (height, width)."
    return prediction.mask.tobytes(), prediction.mask.shape


# {(format, is the mask wanted in JSON?): what makes that answer}
ANSWER_MAKERS: dict[tuple[str, bool], Callable[[Prediction, Predictor], Any]] = {
    ("png", False): as_png,
    ("png", True): as_png,
    ("raw", False): as_raw,
    ("raw", True): as_raw,
    ("json", False): describe,
    ("json", True): describe_with_mask,
}


@router.get("/v1/models")
async def list_models(models: TheModels) -> ModelList:
    "The models that are served, by the names that `?model=` and `/v2` take; the default first."
    rows = [ServedModel(name=s.name, file=s.predictor.path.name, status=s.status) for s in models]
    return ModelList(default=models.default.name, models=rows)


@router.get("/v1/model", responses=UNKNOWN)
async def model(service: TheService) -> ModelCard:
    "What is served: labels, colors, size, file, limits."
    return model_card(service)


def model_card(service: Service) -> ModelCard:
    "The card of the model that is served now."
    predictor, settings = service.predictor, service.settings
    labels = predictor.labels
    rows = [
        TableRow(value=value, name=name, group=name.split("_")[0], color=tuple(labels.colors[value]))
        for value, name in enumerate(labels.codes)
    ]
    limits = dict(body=settings.max_body, side=settings.max_side, pixels=settings.max_pixels, waiting=settings.waiting,
                  deadline=settings.deadline)
    return ModelCard(name=predictor.path.name, sha256=predictor.sha256, arch=predictor.meta.get("arch"),
                     size=predictor.size, provider=predictor.provider, background=labels.background, labels=rows,
                     limits=limits)


@router.post("/v1/reload", responses={status: dict(model=Error) for status in (401, 403, 404, 409)})
async def reload(service: TheService) -> ModelCard:
    "Load the model file again. Off unless the server was started with a token."
    if not service.settings.token:
        raise APIError(403, "reloading is off; start the server with --token to allow it", "reload")
    await service.reload()
    return model_card(service)


@router.get("/health/live")
async def live() -> Health:
    "The process runs."
    return Health(status="alive")


@router.get("/health/ready", responses={503: dict(model=Health)})
async def ready(models: TheModels, response: Response) -> Health:
    "All models have run; 503 before, and where one cannot."
    response.status_code = 200 if models.status == "ready" else 503
    return Health(status=models.status)


@router.get("/metrics", response_class=Response)
async def metrics(models: TheModels) -> Response:
    "Prometheus' text format."
    return Response(models.shared.telemetry.text(), media_type="text/plain; version=0.0.4")


@router.get("/demo", include_in_schema=False)
async def demo() -> FileResponse:
    "A page to try the model."
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return FileResponse(PAGE, media_type="text/html", headers=headers)


@router.get("/demo/{name}", include_in_schema=False)
async def demo_file(name: str) -> FileResponse:
    "A script, a style or an image of the page."
    path = PAGE_FILES.get(name)
    if path is None:
        raise APIError(404, "the page has no such file", "path")
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=PAGE_MEDIA[path.suffix], headers=headers)


# --- the stream ---------------------------------------------------------------------------------------------------

@router.websocket("/v1/stream")
async def stream(socket: WebSocket, models: TheModels, fit: Fit = "stretch", model: ModelName = None) -> None:
    "Binary messages in, each an image; text messages out, each the JSON of `Frame` or `FrameRefused`."
    try:
        check_stream(socket, models.shared.settings)
        service = models.find(model)
    except APIError as error:
        models.shared.telemetry.rejected.labels(error.reason).inc()
        await socket.send_denial_response(JSONResponse({"error": error.sentence}, error.status, error.headers))
        return
    network = client_network(socket)
    streams = socket.app.state.streams
    streams[network] += 1
    try:
        await answer_stream(socket, service, fit)
    finally:
        streams[network] -= 1
        streams += {}  # forget those that have none


async def answer_stream(socket: WebSocket, service: Service, fit: str) -> None:
    "Read and answer frames until the client is gone, or silent for too long."
    await socket.accept()
    frames = LatestFrame()
    reader = asyncio.create_task(read_frames(socket, service, frames))
    try:
        async for answer in answers(frames, service, fit):
            await socket.send_text(answer.model_dump_json())
    except SilentStream as silent:
        service.telemetry.rejected.labels("silent").inc()
        await close_stream(socket, str(silent))
    except (WebSocketDisconnect, RuntimeError, OSError):
        pass  # starlette and uvicorn say in many ways that the client is gone
    finally:
        reader.cancel()
        log("stream", sent=frames.sent, skipped=frames.skipped)


async def close_stream(socket: WebSocket, reason: str) -> None:
    "End a stream with a sentence (at most 123 bytes)."
    try:
        await socket.close(TRY_AGAIN_LATER, reason)
    except (WebSocketDisconnect, RuntimeError, OSError):
        pass  # the client was faster


async def read_frames(socket: WebSocket, service: Service, frames: LatestFrame) -> None:
    "Keep the newest frame until the client is gone."
    try:
        while (message := await socket.receive())["type"] == "websocket.receive":
            if frames.put(message.get("bytes") or message.get("text") or b""):
                service.telemetry.frames.labels("replaced").inc()
    finally:
        frames.close()


def check_stream(socket: WebSocket, settings: Settings) -> None:
    "`APIError` unless token, origin and number of streams are right."
    check_caller(socket.scope, settings)
    token = f"Bearer {socket.query_params.get('token', '')}"  # browsers cannot send it as a header
    authorize(socket.headers.get("authorization") or token, settings.token)
    streams = socket.app.state.streams
    if streams.total() >= settings.max_streams:
        raise APIError(503, f"{settings.max_streams} streams are open already; try again in 5 s", "streams", 5)
    share = max(1, settings.max_streams // 2)
    if streams[client_network(socket)] >= share:
        raise APIError(503, f"{share} streams of your address are open already; try again in 5 s", "streams", 5)


def client_network(socket: WebSocket) -> str:
    "What counts as one client; empty where its address is not known."
    return network_of(socket.client.host) if socket.client else ""


def paths(routes: Iterable[BaseRoute], open: frozenset[str]) -> Paths:
    "What the middleware must know about the routes; those in `open` need no token."
    known = {route.path: route.path_regex for route in routes}
    writing = [route for route in routes if WRITING & set(getattr(route, "methods", ()) or ())]
    return Paths(known=known, open=open, with_body=frozenset(route.path for route in writing), with_json=JSON)
