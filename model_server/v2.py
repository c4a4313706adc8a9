"""The endpoints of the Open Inference Protocol, version 2, which KServe, Triton and their clients speak.

Tensors go in and come out as the network has them: scaling images is the client's part. What their bytes mean is in
`tensors`.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from model_server.errors import APIError
from model_server.messages import (
    MEDIA,
    Error,
    InferResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from model_server.routes import BINARY, BUSY, UNKNOWN, TheModels, server_timing
from model_server.service import Answer, Service
from model_server.tensors import OUTPUTS, PICTURE, Message, read_request, write_answer
from nbs_lib import __version__
from nbs_lib.predict import Predictor

MODEL = "/v2/models/{name}"
VERSIONED_MODEL = MODEL + "/versions/{version}"
VERSION = "1"  # of the model: there is one
HEADER_LENGTH = "Inference-Header-Content-Length"
OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})  # need no token

REFUSED = {status: dict(model=Error) for status in (400, 401, 403, 404, 408, 413, 415)}
INFER_BODY = {"requestBody": dict(required=True, content={
    "application/json": dict(schema=dict(type="object")),
    "application/octet-stream": BINARY,
})}
INFERRED: dict[int, Any] = {200: dict(model=InferResponse, content={"application/octet-stream": BINARY})}

router = APIRouter()


# --- what the routes share ----------------------------------------------------------------------------------------

def served_model(name: str, request: Request, models: TheModels) -> Service:
    "The model in the path; `APIError` 404 where there is none of that name or version."
    service = models.find(name)
    if request.path_params.get("version", VERSION) != VERSION:
        raise APIError(404, f"there is no such version of {service.name} here, only {VERSION}", "model")
    return service


async def plain_body(request: Request) -> bytes:
    "The body; `APIError` 415 where it is compressed: what it unpacks to has no bound."
    if request.headers.get("content-encoding", "identity") != "identity":
        raise APIError(415, "the body is compressed; send it as it is", "encoding")
    return await request.body()


TheModel = Annotated[Service, Depends(served_model)]
Body = Annotated[bytes, Depends(plain_body)]


# --- the endpoints ------------------------------------------------------------------------------------------------

@router.get("/v2", responses={401: dict(model=Error)})
async def server_metadata() -> ServerMetadata:
    "Who is there, and what it speaks beyond the protocol's core."
    return ServerMetadata(name="SegmentationLearner", version=__version__, extensions=["binary_tensor_data"])


@router.get("/v2/health/live")
async def live() -> Live:
    "The process runs."
    return Live(live=True)


@router.get("/v2/health/ready", responses={503: dict(model=Ready)})
async def ready(models: TheModels, response: Response) -> Ready:
    "All models have run; 503 before, and where one cannot."
    is_ready = models.status == "ready"
    response.status_code = ready_status(is_ready)
    return Ready(ready=is_ready)


@router.get(VERSIONED_MODEL + "/ready", include_in_schema=False)
@router.get(MODEL + "/ready", responses=UNKNOWN | {503: dict(model=ModelReady)})
async def model_ready(model: TheModel, response: Response) -> ModelReady:
    "The same, for the model of this name."
    response.status_code = ready_status(model.ready)
    return ModelReady(name=model.name, ready=model.ready)


def ready_status(is_ready: bool) -> int:
    "The HTTP status that says so."
    return 200 if is_ready else 503


@router.get(VERSIONED_MODEL, include_in_schema=False)
@router.get(MODEL, responses=UNKNOWN)
async def model_metadata(model: TheModel) -> ModelMetadata:
    "The tensors that go in and come out."
    outputs = list(OUTPUTS.values())
    return ModelMetadata(name=model.name, versions=[VERSION], platform="onnx_onnxv1", inputs=[PICTURE], outputs=outputs)


@router.post(VERSIONED_MODEL + "/infer", include_in_schema=False)
@router.post(MODEL + "/infer", openapi_extra=INFER_BODY, response_class=Response, responses=INFERRED | REFUSED | BUSY)
async def infer(model: TheModel, body: Body, request: Request) -> Response:
    """Run the network on a tensor of images.

    The input and each output are JSON, or bytes behind it.
    """
    header_length = request.headers.get(HEADER_LENGTH)

    def work(predictor: Predictor) -> Answer[Message]:
        "In the queue's thread."
        return run_network(predictor, body, header_length, model)

    answer = await model.take_turn(work)
    headers = {"Server-Timing": server_timing(answer.ms), "X-Model": answer.predictor.sha256}
    return as_response(answer.value, headers)


def run_network(
    predictor: Predictor, body: bytes, header_length: str | None, model: Service
) -> Answer[Message]:
    "Read a request, run the network and write the answer."
    start = time.perf_counter()
    asked = read_request(body, header_length, model.settings)
    decoded = time.perf_counter()
    mask, confidence = predictor.run(asked.picture)
    predicted = time.perf_counter()
    message = write_answer(asked, dict(mask=mask, confidence=confidence), model.name, VERSION)
    done = time.perf_counter()
    seconds = dict(decode=decoded - start, predict=predicted - decoded, answer=done - predicted)
    return Answer(message, predictor, {stage: 1000 * s for stage, s in seconds.items()})


def as_response(message: Message, headers: dict[str, str]) -> Response:
    "The HTTP answer: JSON, or bytes whose header says where its JSON ends."
    if message.header_length is None:
        return Response(message.content, media_type=MEDIA["json"], headers=headers)
    headers = headers | {HEADER_LENGTH: str(message.header_length)}
    return Response(message.content, media_type=MEDIA["raw"], headers=headers)
