"""The Open Inference Protocol's tensors: from the bytes of a request to an array, and from arrays to an answer.

A message is JSON. With the binary tensor data extension, bytes of tensors follow it, and a header says where it ends.
Every size is judged before an array of that size is made. Must not know of the web framework.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from pydantic import ValidationError

from model_server.errors import APIError
from model_server.json_size import check_tensor_size
from model_server.messages import (
    InferRequest,
    InferResponse,
    InputTensor,
    OutputSize,
    OutputTensor,
    RequestedOutput,
    TensorMetadata,
    describe_fault,
)
from model_server.settings import DEFAULTS, Settings

DATATYPE = "UINT8"
PICTURE = TensorMetadata(name="picture", datatype=DATATYPE, shape=[-1, -1, -1, 3])
OUTPUTS = {name: TensorMetadata(name=name, datatype=DATATYPE, shape=[-1, -1, -1]) for name in ("mask", "confidence")}
SIDE_STEP = 32  # pixels; the network's sides are multiples of it


@dataclass(frozen=True)
class Asked:
    "What a client asks for."

    picture: np.ndarray      # uint8 (n, height, width, 3)
    outputs: dict[str, bool]  # {name: does it come as bytes behind the JSON?}, in the order of the answer
    id: str | None           # the client's own, given back


@dataclass(frozen=True)
class Message:
    "The body of an answer."

    content: bytes
    header_length: int | None  # bytes of its JSON; None where nothing follows it


# --- what comes in ------------------------------------------------------------------------------------------------

def read_request(body: bytes, header_length: str | None, settings: Settings = DEFAULTS) -> Asked:
    "The image tensor and the outputs asked for; `APIError` 400 for what is wrong, 413 for what is too large."
    text, binary = split_message(body, header_length)
    request = parse_request(text, settings)
    outputs = choose_outputs(request)
    picture = read_picture(request, binary, settings)
    check_answer_size(picture, outputs, settings)
    return Asked(picture, outputs, request.id)


def split_message(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    "The JSON and the bytes behind it; without a length all of it is JSON. `APIError` 400 for a wrong length."
    if header_length is None:
        return body, memoryview(b"")
    length = parse_length(header_length)
    if length > len(body):
        raise refuse(f"Inference-Header-Content-Length is {length}, but the body has {len(body)} bytes")
    return body[:length], memoryview(body)[length:]


def parse_length(text: str) -> int:
    "The number of bytes in a header; `APIError` 400 where it is no number of at most 10 digits."
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise refuse("Inference-Header-Content-Length is not the number of bytes of the JSON")
    return int(text)


def parse_request(text: bytes, settings: Settings) -> InferRequest:
    "The JSON as a message. `APIError` 413 for too many values, 400 for what is no JSON or has wrong fields."
    check_tensor_size(text, settings.max_tensor_values)
    try:
        return InferRequest.model_validate_json(text)
    except ValidationError as error:
        raise refuse_fields(error) from None


def refuse_fields(error: ValidationError) -> APIError:
    "The first thing that is wrong in a message, in words."
    first = error.errors(include_input=False, include_url=False)[0]
    if first["type"] == "json_invalid":
        return APIError(400, "the body is not JSON", "json")
    return refuse(describe_fault(first["loc"], first["msg"]))


def read_picture(request: InferRequest, binary: memoryview, settings: Settings) -> np.ndarray:
    "uint8 (n, height, width, 3)."
    tensor = find_picture(request.inputs)
    check_shape(tensor.shape, settings)
    values = read_values(tensor, binary)
    expected = math.prod(tensor.shape)
    if len(values) != expected:
        raise refuse(f"{PICTURE.name} of shape {tensor.shape} has {expected} values, but {len(values)} were sent")
    return np.frombuffer(values, np.uint8).reshape(tensor.shape)


def find_picture(inputs: list[InputTensor]) -> InputTensor:
    "The model's one input; `APIError` 400 for another name or type, or another number of them."
    if [tensor.name for tensor in inputs] != [PICTURE.name]:
        raise refuse(f"the model takes one input, {PICTURE.name}; send exactly that")
    if inputs[0].datatype != DATATYPE:
        raise refuse(f"{PICTURE.name} has another datatype than the model takes; send {DATATYPE}")
    return inputs[0]


def check_shape(shape: list[int], settings: Settings) -> None:
    "`APIError` 400 unless this is a shape that the network takes, 413 where it holds too many pixels."
    if len(shape) != 4 or shape[3] != 3:
        raise refuse(f"{PICTURE.name} has shape {shape}; send [images, height, width, 3]")
    if shape[1] % SIDE_STEP or shape[2] % SIDE_STEP:
        raise refuse(f"{PICTURE.name} has shape {shape}; height and width must be multiples of {SIDE_STEP}")
    if math.prod(shape[:3]) > settings.max_tensor_pixels:
        most = f"at most {settings.max_tensor_pixels} pixels are allowed in all images together"
        raise APIError(413, f"{PICTURE.name} has shape {shape}, {most}; send fewer or smaller ones", "pixels")


def read_values(tensor: InputTensor, binary: memoryview) -> bytes | memoryview:
    "The tensor's values, a byte each, from its `data` or from behind the JSON."
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise refuse(f"{PICTURE.name} needs either data or the parameter binary_data_size")
    if len(binary) != (size or 0):
        sentence = f"{len(binary)} bytes follow the JSON, but binary_data_size is {size or 0}"
        raise refuse(f"{sentence}; the header Inference-Header-Content-Length says where the JSON ends")
    return binary if tensor.data is None else read_json_values(tensor.data)


def read_json_values(data: Any) -> bytes:
    "A byte a value; `APIError` 400 unless they are whole numbers from 0 to 255."
    try:
        values = flatten(data)
        if not set(map(type, values)) <= {int}:
            raise TypeError
        return bytes(values)
    except (TypeError, ValueError):
        raise refuse(f"{PICTURE.name} has data that are not whole numbers from 0 to 255") from None


def flatten(data: Any) -> list[Any]:
    "The values of a list, or of lists in lists, in their order; `TypeError` for anything else."
    if not isinstance(data, list):
        raise TypeError
    while data and isinstance(data[0], list):
        data = list(chain.from_iterable(data))
    return data


def choose_outputs(request: InferRequest) -> dict[str, bool]:
    "{name: does it come as bytes?} of the outputs asked for, or of all; `APIError` 400 for names that are unknown."
    wanted = request.outputs or [RequestedOutput(name=name) for name in OUTPUTS]
    names = [output.name for output in wanted]
    if not set(names) <= set(OUTPUTS) or len(set(names)) < len(names):
        raise refuse(f"the model's outputs are {' and '.join(OUTPUTS)}; ask for each once at most")
    default = request.parameters.binary_data_output
    return {output.name: is_binary(output, default) for output in wanted}


def check_answer_size(picture: np.ndarray, outputs: dict[str, bool], settings: Settings) -> None:
    "`APIError` 413 where the answer would have more values in JSON than a request may have."
    as_json = [name for name, binary in outputs.items() if not binary]
    pixels = picture.size // 3
    if pixels * len(as_json) > settings.max_tensor_values:
        sentence = f"the answer would have more than {settings.max_tensor_values} JSON values"
        raise APIError(413, f"{sentence}; ask for binary_data", "json")


def is_binary(output: RequestedOutput, default: bool) -> bool:
    "Is this output wanted as bytes? Where it does not say, the request does."
    chosen = output.parameters.binary_data
    return default if chosen is None else chosen


def refuse(sentence: str) -> APIError:
    "What is wrong with a request."
    return APIError(400, sentence, "tensor")


# --- what goes out ------------------------------------------------------------------------------------------------

def write_answer(asked: Asked, arrays: dict[str, np.ndarray], model: str, version: str) -> Message:
    "The answer with the outputs asked for, from {name: uint8 array} of all."
    outputs = [describe_output(name, arrays[name], binary) for name, binary in asked.outputs.items()]
    response = InferResponse(model_name=model, model_version=version, id=asked.id, outputs=outputs)
    text = response.model_dump_json(exclude_none=True).encode()
    binary_parts = [arrays[name].tobytes() for name, binary in asked.outputs.items() if binary]
    return Message(b"".join([text, *binary_parts]), len(text) if binary_parts else None)


def describe_output(name: str, array: np.ndarray, binary: bool) -> OutputTensor:
    "An output in JSON: its values, or how many bytes they take behind it."
    tensor = OutputTensor(name=name, datatype=DATATYPE, shape=list(array.shape))
    if binary:
        tensor.parameters = OutputSize(binary_data_size=array.nbytes)
    else:
        tensor.data = array.ravel().tolist()
    return tensor
