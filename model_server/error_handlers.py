"""How exceptions become answers: always a status and `{"error": "one sentence"}`."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from model_server.errors import APIError
from model_server.messages import describe_fault
from model_server.telemetry import log


def add_error_handlers(app: FastAPI) -> None:
    "Let the application answer every exception of its routes."
    app.add_exception_handler(APIError, answer_api_error)
    app.add_exception_handler(RequestValidationError, answer_invalid_request)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, answer_unexpected)


def count_rejected(request: Request, reason: str) -> None:
    "Add one to the metric of refused requests."
    request.app.state.models.shared.telemetry.rejected.labels(reason).inc()


async def answer_api_error(request: Request, error: APIError) -> JSONResponse:
    "What was refused on purpose."
    count_rejected(request, error.reason)
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


async def answer_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    "The first thing that is wrong, in words, without the image that came with it."
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        count_rejected(request, "json")
        return JSONResponse({"error": "the body is not JSON"}, 400)
    count_rejected(request, "fields")
    return JSONResponse({"error": describe_fault(first["loc"][1:], first["msg"])}, 422)


async def answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
    "Unknown paths and methods."
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    "A fault of our own; the log says which."
    log("broken", path=request.url.path, error=type(error).__name__)
    return JSONResponse({"error": "the server failed at this request, which is its fault and not yours"}, 500)
