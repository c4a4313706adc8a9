"The Open Inference Protocol: its real client against a real server, and every wrong request with its own answer"

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("hypothesis")
pytest.importorskip("onnx")
pytest.importorskip("tritonclient.http")

import httpx
import tritonclient.http as triton
from echo import N_CLASSES, echo_model
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import ROOT, app_client, connect, get, listening, noise, read_to_end, wait_until
from tritonclient.utils import InferenceServerException

from model_server import Settings
from model_server.application import make_app
from model_server.errors import APIError
from model_server.tensors import read_request, write_answer
from nbs_lib.predict import Predictor, starter_model

INFER = "/v2/models/echo/infer"
LENGTH = "Inference-Header-Content-Length"
SHAPE = (2, 64, 96, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return echo_model(tmp_path_factory.mktemp("served") / "echo.onnx")


@pytest.fixture(scope="module")
def predictor(model) -> Predictor:
    return Predictor(model)


@pytest.fixture(scope="module")
def url(model):
    with listening(model) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with triton_client(url) as client:
        yield client


def triton_client(url: str) -> Any:
    "Triton's own client of a server."
    return triton.InferenceServerClient(url.removeprefix("http://"))


def images(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    "uint8 noise; every label occurs in its red channel."
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    noise[..., 0] %= N_CLASSES
    return noise


def picture(array: np.ndarray, binary: bool = True) -> Any:
    "The input tensor of Triton's client."
    tensor = triton.InferInput("picture", list(array.shape), "UINT8")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def outputs(**binary: bool) -> list[Any]:
    "The outputs that Triton's client asks for."
    return [triton.InferRequestedOutput(name, binary_data=is_binary) for name, is_binary in binary.items()]


# --- Triton's client ----------------------------------------------------------------------------------------------

def test_live_and_ready(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("echo") and client.is_model_ready("echo", "1")
    assert not client.is_model_ready("another") and not client.is_model_ready("echo", "2")


def test_metadata(client):
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    said = client.get_model_metadata("echo")
    assert (said["name"], said["versions"]) == ("echo", ["1"])
    assert said["inputs"] == [dict(name="picture", datatype="UINT8", shape=[-1, -1, -1, 3])]
    assert said["outputs"] == [dict(name=n, datatype="UINT8", shape=[-1, -1, -1]) for n in ("mask", "confidence")]
    assert client.get_model_metadata("echo", "1") == said


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_answers_are_the_predictors(client, predictor, binary_in, binary_out):
    array = images()
    wanted = outputs(mask=binary_out, confidence=binary_out)
    answer = client.infer("echo", [picture(array, binary_in)], outputs=wanted, request_id="seven")
    mask, confidence = predictor.run(array)
    assert len(np.unique(mask)) == N_CLASSES
    np.testing.assert_array_equal(answer.as_numpy("mask"), mask)
    np.testing.assert_array_equal(answer.as_numpy("confidence"), confidence)
    said = answer.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("echo", "1", "seven")


def test_a_trained_model_answers_the_same():
    array = images((2, 64, 96, 3), seed=1)
    predictor = Predictor(starter_model(), threads=1)
    with listening(predictor) as url, triton_client(url) as client:
        answer = client.infer("starter", [picture(array)])
    mask, confidence = predictor.run(array)
    np.testing.assert_array_equal(answer.as_numpy("mask"), mask)
    np.testing.assert_array_equal(answer.as_numpy("confidence"), confidence)


def test_only_what_is_asked_for_in_its_order(client, predictor):
    array = images()
    mask, confidence = predictor.run(array)
    answer = client.infer("echo", [picture(array)], "1", outputs(confidence=False, mask=True))
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["confidence", "mask"]
    np.testing.assert_array_equal(answer.as_numpy("mask"), mask)
    np.testing.assert_array_equal(answer.as_numpy("confidence"), confidence)
    answer = client.infer("echo", [picture(array)], outputs=outputs(confidence=True))
    assert answer.as_numpy("mask") is None
    np.testing.assert_array_equal(answer.as_numpy("confidence"), confidence)


def test_the_example_in_the_readme_works(tmp_path):
    "With a photo of our own, on a port of our own."
    text = (ROOT / "model_server" / "README.md").read_text(encoding="utf-8")
    code = next(block for block in text.split("```python\n") if "tritonclient" in block).split("```")[0]
    photo = tmp_path / "photo.jpg"
    noise(300, 200).save(photo)
    with listening(Predictor(starter_model(), threads=1)) as url:
        code = code.replace("127.0.0.1:4200", url.removeprefix("http://")).replace("photo.jpg", str(photo))
        found: dict[str, Any] = {}
        exec(code, found)
    assert found["mask"].shape == found["confidence"].shape == (1, 192, 256)
    found["client"].close()


def wrong_input(name: str = "picture", shape: tuple[int, ...] = SHAPE, datatype: str = "UINT8") -> Any:
    "An input of zeros."
    tensor = triton.InferInput(name, list(shape), datatype)
    tensor.set_data_from_numpy(np.zeros(shape, np.uint8 if datatype == "UINT8" else np.float32))
    return tensor


WRONG_INPUTS = {
    "name": (wrong_input(name="image"), "picture"),
    "datatype": (wrong_input(datatype="FP32"), "UINT8"),
    "three dimensions": (wrong_input(shape=(64, 96, 3)), "[images, height, width, 3]"),
    "four channels": (wrong_input(shape=(1, 64, 96, 4)), "[images, height, width, 3]"),
    "channels first": (wrong_input(shape=(1, 3, 64, 96)), "[images, height, width, 3]"),
    "height": (wrong_input(shape=(1, 63, 96, 3)), "multiples of 32"),
    "width": (wrong_input(shape=(1, 64, 1, 3)), "multiples of 32"),
}


@pytest.mark.parametrize("tensor,named", WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_inputs(client, tensor, named):
    with pytest.raises(InferenceServerException) as e:
        client.infer("echo", [tensor])
    assert e.value.status() == "400" and named in e.value.message()


def test_wrong_models_outputs_and_compression(client):
    array = images()
    top_three = [triton.InferRequestedOutput("mask", class_count=3)]
    asked = [
        (dict(model_name="another"), "404", "echo"),
        (dict(model_name="echo", model_version="2"), "404", "only 1"),
        (dict(model_name="echo", outputs=outputs(logits=True)), "400", "mask and confidence"),
        (dict(model_name="echo", outputs=outputs(mask=True) * 2), "400", "once"),
        (dict(model_name="echo", outputs=top_three), "400", "classification"),
        (dict(model_name="echo", request_compression_algorithm="gzip"), "415", "compressed"),
    ]
    for options, status, named in asked:
        with pytest.raises(InferenceServerException) as e:
            client.infer(inputs=[picture(array)], **options)
        assert e.value.status() == status and named in e.value.message()


def test_shared_memory_is_not_offered(client):
    tensor = triton.InferInput("picture", list(SHAPE), "UINT8")
    tensor.set_shared_memory("region", 36864)
    with pytest.raises(InferenceServerException) as e:
        client.infer("echo", [tensor])
    assert e.value.status() == "400" and "shared_memory_region" in e.value.message()


# --- requests by hand ---------------------------------------------------------------------------------------------

def tensor(shape: tuple[int, ...] = (1, 32, 32, 3), **fields: Any) -> dict[str, Any]:
    "An input as the protocol says it, without values."
    return dict(name="picture", shape=list(shape), datatype="UINT8") | fields


def request(**fields: Any) -> bytes:
    "The JSON of a request with one input."
    return json.dumps(dict(inputs=[tensor(**fields)])).encode()


def sized(size: Any, **fields: Any) -> bytes:
    "The JSON of a request whose values follow it."
    return request(parameters=dict(binary_data_size=size), **fields)


def post(url: str, body: bytes, length: Any = None) -> httpx.Response:
    "The answer to a request; `length` is what its header says of the JSON."
    headers = {} if length is None else {LENGTH: str(length)}
    return httpx.post(url + INFER, content=body, headers=headers, timeout=30)


def check_refused(answer: httpx.Response, status: int, named: str) -> None:
    "One clear sentence in the protocol's form."
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert named in answer.json()["error"] and len(answer.json()["error"]) < 250


ROW = list(range(96))
WHOLE = ROW * 32
BAD_BODIES = {
    "nothing": (b"", 400, "not JSON"),
    "garbage": (b"{]", 400, "not JSON"),
    "not utf-8": (b'{"id": "\xff"}', 400, "not JSON"),
    "utf-16": (request(data=WHOLE).decode().encode("utf-16"), 400, "not JSON"),
    "deep": (b"[" * 100_000, 400, "not JSON"),
    "a number of many digits": (b'{"inputs": ' + b"9" * 5000 + b"}", 400, "not JSON"),
    "a list": (b"[]", 400, "the body"),
    "null": (b"null", 400, "the body"),
    "no inputs": (b"{}", 400, "inputs"),
    "no input": (b'{"inputs": []}', 400, "one input"),
    "two inputs": (json.dumps(dict(inputs=[tensor(data=WHOLE)] * 2)).encode(), 400, "one input"),
    "a hundred inputs": (json.dumps(dict(inputs=[tensor()] * 99)).encode(), 400, "inputs"),
    "a thousand inputs": (json.dumps(dict(inputs=[tensor()] * 999)).encode(), 400, "100 JSON objects"),
    "a lone surrogate": (rb'{"id": "\ud800", "inputs": []}', 400, "not JSON"),
    "a long id": (json.dumps(dict(id="x" * 2000, inputs=[])).encode(), 400, "id"),
    "neither": (request(), 400, "either data or"),
    "both": (sized(3072, data=WHOLE), 400, "either data or"),
    "no length": (sized(3072) + bytes(3072), 400, "not JSON"),
    "no bytes": (sized(3072), 400, "0 bytes follow"),
    "one value missing": (request(data=WHOLE[1:]), 400, "3072 values, but 3071"),
    "one value more": (request(data=[*WHOLE, 1]), 400, "3072 values, but 3073"),
    "no values": (request(data=[]), 400, "but 0 were"),
    "256": (request(data=[256, *WHOLE[1:]]), 400, "from 0 to 255"),
    "-1": (request(data=[-1, *WHOLE[1:]]), 400, "from 0 to 255"),
    "far too large": (request(data=[2**70, *WHOLE[1:]]), 400, "from 0 to 255"),
    "a fraction": (request(data=[0.5, *WHOLE[1:]]), 400, "from 0 to 255"),
    "a float": (request(data=[1.0, *WHOLE[1:]]), 400, "from 0 to 255"),
    "true": (request(data=[True, *WHOLE[1:]]), 400, "from 0 to 255"),
    "nan": (request(data=[float("nan"), *WHOLE[1:]]), 400, "from 0 to 255"),
    "text in it": (request(data=["1", *WHOLE[1:]]), 400, "from 0 to 255"),
    "null in it": (request(data=[None, *WHOLE[1:]]), 400, "from 0 to 255"),
    "text": (request(data="7" * 3072), 400, "from 0 to 255"),
    "an object": (request(data={"0": 1}), 400, "from 0 to 255"),
    "a list among numbers": (request(data=[1, [2]]), 400, "from 0 to 255"),
    "a number among lists": (request(data=[[1], 2]), 400, "from 0 to 255"),
    "a length of zero": (request(shape=(0, 32, 32, 3), data=[]), 400, "shape"),
    "a negative length": (request(shape=(1, -32, -32, 3), data=WHOLE), 400, "shape"),
    "a length that is text": (request(shape=("1", 32, 32, 3), data=WHOLE), 400, "shape"),
    "a length of 20 digits": (request(shape=(1, 10**20, 32, 3), data=[]), 400, "shape"),
    "many dimensions": (request(shape=[1] * 99, data=[1]), 400, "shape"),
    "too many pixels": (request(shape=(1, 2**20, 2**20, 3), data=[]), 413, "pixels"),
    "too many images": (request(shape=(2**20, 32, 32, 3), data=[]), 413, "pixels"),
    "one row too many": (sized(1056 * 512 * 3, shape=(1, 512, 1056, 3)), 413, "pixels"),
    "too many values": (request(data=[0] * 300_001), 413, "values"),
    "too many lists": (request(data=[[]] * 150_001), 413, "values"),
    "a size that is text": (sized("3072"), 400, "binary_data_size"),
    "a negative size": (sized(-1), 400, "binary_data_size"),
    "yes in place of true": (b'{"inputs": [], "parameters": {"binary_data_output": "yes"}}', 400, "binary_data_output"),
}


@pytest.mark.parametrize("body,status,named", BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_bodies(url, body, status, named):
    check_refused(post(url, body), status, named)


JSON = sized(3072)
BAD_LENGTHS = {
    "beyond the body": (JSON, len(JSON) + 1, "the body has"),
    "negative": (JSON, -1, "not the number"),
    "a fraction": (JSON, "1.5", "not the number"),
    "text": (JSON, "many", "not the number"),
    "empty": (JSON, "", "not the number"),
    "signed": (JSON, f"+{len(JSON)}", "not the number"),
    "of many digits": (JSON, "9" * 5000, "not the number"),
    "zero": (JSON + bytes(3072), 0, "not JSON"),
    "one short": (JSON + bytes(3072), len(JSON) - 1, "not JSON"),
    "one long": (JSON + bytes(3072), len(JSON) + 1, "not JSON"),
    "one byte missing": (JSON + bytes(3071), len(JSON), "3071 bytes follow"),
    "one byte more": (JSON + bytes(3073), len(JSON), "3073 bytes follow"),
    "no bytes": (JSON, len(JSON), "0 bytes follow"),
    "bytes that nothing names": (request(data=WHOLE) + b"x", len(request(data=WHOLE)), "1 bytes follow"),
    "fewer than the shape": (sized(9) + bytes(9), len(sized(9)), "3072 values, but 9"),
}


@pytest.mark.parametrize("body,length,named", BAD_LENGTHS.values(), ids=BAD_LENGTHS)
def test_bad_lengths(url, body, length, named):
    check_refused(post(url, body, length), 400, named)


def test_a_body_above_the_limit(url):
    body = sized(9 * 2**20) + bytes(9 * 2**20)
    check_refused(post(url, body, len(sized(9 * 2**20))), 413, "bytes allowed")


def test_limits_are_not_a_pixel_too_low(client, predictor):
    "The most pixels as bytes, and the largest square in JSON that is documented."
    array = images((1, 512, 1024, 3))
    np.testing.assert_array_equal(client.infer("echo", [picture(array)]).as_numpy("mask"), predictor.run(array)[0])
    body = request(shape=(1, 256, 256, 3), data=images((1, 256, 256, 3)).tolist())
    assert read_request(body, None).picture.shape == (1, 256, 256, 3)


def test_a_large_answer_is_bytes(url):
    "JSON of so many values would stop everything else while it is written."
    text = sized(512 * 512 * 3, shape=(1, 512, 512, 3))
    check_refused(post(url, text + bytes(512 * 512 * 3), len(text)), 413, "binary_data")


def test_a_client_that_leaves_in_the_middle(url):
    "It is answered by nobody, and the next one is."
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{LENGTH}: {len(JSON)}\r\nContent-Length: {len(JSON) + 3072}\r\n\r\n"
    with connect(url) as s:
        s.sendall(head.encode() + JSON + bytes(100))
        s.shutdown(1)
        assert b" 200 " not in read_to_end(s)
    assert post(url, JSON + bytes(3072), len(JSON)).status_code == 200


def test_nested_and_flat_values(url, predictor):
    array = images((1, 32, 64, 3))
    expected = predictor.run(array)[0].ravel().tolist()
    for data in (array.tolist(), array.ravel().tolist(), array.reshape(-1, 3).tolist()):
        answer = post(url, request(shape=array.shape, data=data)).json()
        assert answer["outputs"][0]["data"] == expected
        assert answer["outputs"][0]["shape"] == [1, 32, 64] and "id" not in answer


def test_where_the_json_of_an_answer_ends(url):
    asked = dict(inputs=[tensor(data=WHOLE)], parameters=dict(binary_data_output=True))
    answer = post(url, json.dumps(asked).encode())
    length = int(answer.headers[LENGTH])
    said = json.loads(answer.content[:length])
    assert [output["parameters"] for output in said["outputs"]] == [dict(binary_data_size=1024)] * 2
    assert len(answer.content) == length + 2048
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "predict;dur=" in answer.headers["server-timing"]


VALID = JSON + bytes(3072)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(place=st.integers(0, len(JSON) + 2), junk=st.binary(max_size=8), length=st.integers(0, len(VALID) + 9))
def test_damaged_requests_are_refused_or_read(place, junk, length):
    "Whatever is written over a request, what comes of it is a tensor or `APIError`."
    damaged = VALID[:place] + junk + VALID[place + len(junk):]
    for header in (None, str(length), str(len(JSON))):
        try:
            assert read_request(damaged, header).picture.shape[3] == 3
        except APIError as error:
            assert error.status in (400, 413)


def test_an_answer_needs_no_web():
    "Read a request, write its answer."
    asked = read_request(VALID, str(len(JSON)))
    assert asked.picture.shape == (1, 32, 32, 3) and asked.outputs == dict(mask=False, confidence=False)
    arrays = dict(mask=np.ones((1, 2, 2), np.uint8), confidence=np.zeros((1, 2, 2), np.uint8))
    message = write_answer(asked, arrays, "echo", "1")
    assert message.header_length is None
    assert [output["data"] for output in json.loads(message.content)["outputs"]] == [[1] * 4, [0] * 4]


# --- what the server's other paths keep, too ----------------------------------------------------------------------

def test_health_needs_no_token_and_the_rest_does(model):
    with listening(model, token="secret") as url, triton_client(url) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert not client.is_model_ready("echo")
        with pytest.raises(InferenceServerException) as e:
            client.infer("echo", [picture(images())])
        assert e.value.status() == "401" and "token" in e.value.message()
        for path in ("/v2", "/v2/models/echo", "/v2/models/echo/versions/1/ready", "/v2/models/another"):
            assert get(url + path).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        assert client.is_model_ready("echo", headers=headers)
        assert client.infer("echo", [picture(images())], headers=headers).as_numpy("mask").shape == SHAPE[:3]


class SlowRun(Predictor):
    "A network that takes its time."

    def run(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(0.5)
        return super().run(pictures)


class HeldRun(Predictor):
    "A network that runs when it is let go, as it is at first."

    def __init__(self, model: Path) -> None:
        super().__init__(model)
        self.go = threading.Event()
        self.go.set()

    def run(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.go.wait(20)
        return super().run(pictures)


def test_busy_says_when_to_come_back(model):
    held = HeldRun(model)
    with listening(held, waiting=1) as url, ThreadPoolExecutor(6) as pool:
        held.go.clear()
        futures = [pool.submit(post, url, VALID, len(JSON)) for _ in range(6)]
        wait_until(lambda: sum(future.done() for future in futures) == 4)
        assert get(url + "/v2/health/live").json() == dict(live=True)
        held.go.set()
        answers = [future.result() for future in futures]
    busy = [answer for answer in answers if answer.status_code == 503]
    assert [answer.status_code for answer in answers].count(200) == 2 and len(busy) == 4
    for answer in busy:
        check_refused(answer, 503, "try again in")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_deadline_ends_it(model):
    with listening(SlowRun(model), deadline=0.1) as url:
        check_refused(post(url, VALID, len(JSON)), 503, "longer than 0.1 s")


def test_not_ready_before_the_model_has_run(model):
    from fastapi.testclient import TestClient
    client = TestClient(make_app(model))  # nothing warms it up here
    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/echo/ready"):
        answer = client.get(path)
        assert answer.status_code == 503 and answer.json()["ready"] is False
    answer = client.post(INFER, content=VALID, headers={LENGTH: str(len(JSON))})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "2"


def test_metrics_are_not_named_by_strangers(model):
    with app_client(model) as client:
        for name in ("a", "b", "a%2Fb", "%0A"):
            assert client.get(f"/v2/models/{name}").status_code == 404
        client.post(INFER, content=VALID, headers={LENGTH: str(len(JSON))})
        client.post(INFER, content=b"{")
        text = client.get("/metrics").text
    assert 'seg_requests_total{path="/v2/models/{name}",status="404"}' in text
    assert 'seg_requests_total{path="/v2/models/{name}/infer",status="200"} 1.0' in text
    assert 'seg_rejected_total{reason="json"} 1.0' in text
    assert 'seg_stage_seconds_count{model="echo",stage="predict"} 1.0' in text
    assert not [line for line in text.splitlines() if "/v2/models/a" in line or "/v2/models/b" in line]


def test_the_name_is_the_files(tmp_path):
    model = echo_model(tmp_path / "my rooms.v3.onnx")
    with listening(model) as url, triton_client(url) as client:
        assert client.get_model_metadata("my rooms.v3")["name"] == "my rooms.v3"
        assert client.infer("my rooms.v3", [picture(images())]).as_numpy("mask").shape == SHAPE[:3]


def test_an_operator_may_set_the_limits():
    "Of pixels, and of values in JSON."
    with pytest.raises(APIError, match="pixels"):
        read_request(VALID, str(len(JSON)), Settings(max_tensor_pixels=1023))
    with pytest.raises(APIError, match="values"):
        read_request(request(data=WHOLE), None, Settings(max_tensor_values=3000))
    assert read_request(VALID, str(len(JSON)), Settings(max_tensor_pixels=1024)).picture.size == 3072
