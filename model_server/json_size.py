"""What parsing a JSON body would cost, judged by its bytes before it is parsed: nothing else runs meanwhile."""

from __future__ import annotations

from model_server.errors import APIError

MOST_OBJECTS = 100  # in a request of tensors; each takes far more memory than its text


def count_values(text: bytes) -> int:
    "About how many values, lists and objects parsing would make."
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def check_json_size(body: bytes, most: int) -> None:
    "`APIError` 400 where a body holds far more values than any message without tensors."
    if count_values(body) > most:
        sentence = f"the body has more than {most} JSON values; send one image, or one list of colors"
        raise APIError(400, sentence, "json")


def check_tensor_size(text: bytes, most: int) -> None:
    "`APIError` 413 where a request holds more values than a tensor may have, 400 for too many objects."
    if text.count(b"{") > MOST_OBJECTS:
        sentence = f"the body has more than {MOST_OBJECTS} JSON objects; send one input and at most two outputs"
        raise APIError(400, sentence, "json")
    if count_values(text) > most:
        sentence = f"the body has more than {most} JSON values; send the tensor as binary data"
        raise APIError(413, sentence, "json")
