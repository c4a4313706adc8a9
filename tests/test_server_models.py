"Several models in one server: found by name, loaded again one by one, counted by name, and unknown names refused"

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnx")
pytest.importorskip("tritonclient.http")

import httpx
import tritonclient.http as triton
from echo import N_CLASSES, SIZE, echo_graph, echo_model
from fastapi.testclient import TestClient
from serving import (
    app_client,
    encode,
    get,
    image_text,
    listening,
    noise,
    run_program,
    serving,
    wait_until,
    wanted_colors,
)
from starlette.websockets import WebSocketDisconnect
from tritonclient.utils import InferenceServerException

from model_server import Client, Settings
from model_server.application import make_app
from model_server.models import listed, model_files
from nbs_lib.core import SegError
from nbs_lib.predict import Predictor

LARGEST = 3  # label of the second model: what is above it in the first is this here


def two_models(folder: Path) -> list[Path]:
    "`first` gives the red channel as the mask, `second` at most `LARGEST`."
    first = echo_model(folder / "first.onnx", arch="one")
    return [first, echo_model(folder / "second.onnx", echo_graph(largest=LARGEST), arch="two")]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    return two_models(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(paths) -> Iterator[TestClient]:
    with app_client(paths) as client:
        yield client


MASK = np.asarray(noise())[..., 0]
MASKS = dict(first=MASK, second=np.minimum(MASK, LARGEST))


def predicted(client: TestClient, query: str = "") -> np.ndarray:
    "The mask of `/v1/predict` for `noise()`."
    raw = client.post(f"/v1/predict?format=raw{query}", content=encode(noise()))
    assert raw.status_code == 200, raw.text
    return np.frombuffer(raw.content, np.uint8).reshape(SIZE, SIZE)


# --- which model answers ------------------------------------------------------------------------------------------

def test_our_own_routes_take_a_name(client):
    np.testing.assert_array_equal(predicted(client), MASKS["first"])
    for name, mask in MASKS.items():
        np.testing.assert_array_equal(predicted(client, f"&model={name}"), mask)
    assert client.get("/v1/model").json()["arch"] == "one"
    assert client.get("/v1/model?model=second").json()["arch"] == "two"


def test_the_list_of_models(client):
    said = client.get("/v1/models").json()
    assert said["default"] == "first"
    rows = [(row["name"], row["file"], row["status"]) for row in said["models"]]
    assert rows == [("first", "first.onnx", "ready"), ("second", "second.onnx", "ready")]


def test_the_originals_routes_take_a_name(client):
    found = {}
    for name in ("", "?model=first", "?model=second"):
        said = client.put(f"/predict_image_text{name}", json=image_text(noise())).json()
        found[name] = {row["label"] for row in said["labels"]}
    assert found[""] == found["?model=first"] == set(range(N_CLASSES - 1))
    assert found["?model=second"] == set(range(LARGEST))


def test_a_stream_takes_a_name(client):
    for query, n_labels in (("", N_CLASSES), ("?model=second", LARGEST + 1)):
        with client.websocket_connect(f"/v1/stream{query}") as ws:
            ws.send_bytes(encode(noise()))
            assert len(ws.receive_json()["labels"]) == n_labels


def test_tritons_client_takes_a_name(paths):
    array = np.asarray(noise())[None]
    tensor = triton.InferInput("picture", list(array.shape), "UINT8")
    tensor.set_data_from_numpy(array)
    with listening(paths) as url, triton.InferenceServerClient(url.removeprefix("http://")) as client:
        for name, mask in MASKS.items():
            assert client.is_model_ready(name) and client.get_model_metadata(name)["name"] == name
            answer = client.infer(name, [tensor])
            np.testing.assert_array_equal(answer.as_numpy("mask")[0], mask)
            assert answer.get_response()["model_name"] == name
        with pytest.raises(InferenceServerException, match="only first and second"):
            client.infer("third", [tensor])


def test_our_client_takes_a_name(paths):
    with listening(paths) as url:
        np.testing.assert_array_equal(Client(url).predict(encode(noise())).mask, MASKS["first"])
        second = Client(url, model="second")
        assert second.model()["arch"] == "two"
        np.testing.assert_array_equal(second.predict(encode(noise())).mask, MASKS["second"])
        with second.stream() as stream:
            stream.send(encode(noise()))
            np.testing.assert_array_equal(stream.receive(5).mask, MASKS["second"])


# --- names that are none ------------------------------------------------------------------------------------------

UNKNOWN = {
    "predict": ("POST", "/v1/predict", dict(content=encode(noise()))),
    "original": ("PUT", "/predict_image_text", dict(json=image_text(noise()))),
    "colors": ("PUT", "/set_label_colors", dict(json=wanted_colors({0: (1, 2, 3, 4)}))),
    "card": ("GET", "/v1/model", {}),
}


@pytest.mark.parametrize("name", ["third", "", "first.onnx", "../first", "FIRST"])
@pytest.mark.parametrize("method,path,body", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_name_is_404_and_lists_those_there_are(client, method, path, body, name):
    answer = client.request(method, path, params=dict(model=name), **body)
    assert answer.status_code == 404
    assert answer.json()["error"] == "there is no such model here, only first and second"


def test_a_stream_of_an_unknown_name_is_refused(client):
    with pytest.raises(WebSocketDisconnect) as e, client.websocket_connect("/v1/stream?model=third"):
        pass
    assert e.value.status_code == 404 and "only first and second" in e.value.text


def test_names_are_told_to_nobody_without_the_token(paths):
    with app_client(paths, token="open sesame") as client:
        assert client.get("/v1/models").status_code == 401
        with pytest.raises(WebSocketDisconnect) as e, client.websocket_connect("/v1/stream?model=third"):
            pass
        assert e.value.status_code == 401 and "second" not in e.value.text


def test_lists_of_names():
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


# --- loaded again -------------------------------------------------------------------------------------------------

def architectures(client: TestClient) -> list[str]:
    "Of both models."
    return [client.get(f"/v1/model?model={name}").json()["arch"] for name in MASKS]


def test_each_is_loaded_again_by_itself(tmp_path):
    first, second = two_models(tmp_path)
    with app_client([first, second], token="t") as client:
        client.headers["Authorization"] = "Bearer t"
        echo_model(first, arch="new one")
        echo_model(second, arch="new two")
        assert client.post("/v1/reload?model=second").json()["arch"] == "new two"
        assert architectures(client) == ["one", "new two"]
        assert client.post("/v1/reload").json()["arch"] == "new one"
        assert architectures(client) == ["new one", "new two"]
        second.write_bytes(b"broken")
        assert client.post("/v1/reload?model=second").status_code == 409
        assert client.post("/v1/reload?model=third").status_code == 404
        assert architectures(client) == ["new one", "new two"]


def test_other_workers_follow_each(tmp_path, monkeypatch):
    "Two applications that share a folder stand for two workers."
    monkeypatch.setattr("model_server.service.POLL_SECONDS", 0.05)
    first, second = two_models(tmp_path)
    settings = Settings(token="t")
    headers = {"Authorization": "Bearer t"}
    apps = [make_app([first, second], settings, tmp_path / "runtime") for _ in range(2)]
    with TestClient(apps[0], headers=headers) as here, TestClient(apps[1], headers=headers) as there:
        echo_model(first, arch="new one")
        echo_model(second, arch="new two")
        assert here.post("/v1/reload?model=second").status_code == 200
        wait_until(lambda: architectures(there) == ["one", "new two"], 10)
        assert here.post("/v1/reload").status_code == 200
        wait_until(lambda: architectures(there) == ["new one", "new two"], 10)


# --- what the server says about them ------------------------------------------------------------------------------

def test_metrics_by_name(tmp_path):
    with app_client(two_models(tmp_path), token="t") as client:
        client.headers["Authorization"] = "Bearer t"
        for query in ("", "&model=second", "&model=second"):
            predicted(client, query)
        client.post("/v1/predict?model=stranger", content=encode(noise()))
        client.post("/v1/reload?model=second")
        text = client.get("/metrics").text
    assert 'seg_stage_seconds_count{model="first",stage="predict"} 1.0' in text
    assert 'seg_stage_seconds_count{model="second",stage="predict"} 2.0' in text
    assert 'seg_reloads_total{model="second",result="loaded"} 1.0' in text
    assert 'seg_rejected_total{reason="model"} 1.0' in text
    assert "stranger" not in text


class Broken(Predictor):
    "A model that loads and cannot run."

    def run(self, images):
        raise RuntimeError("no kernel for this graph")


def test_ready_means_all_of_them(paths):
    broken = Broken(paths[1])
    with TestClient(make_app([paths[0], broken])) as client:
        wait_until(lambda: client.get("/health/ready").json()["status"] == "failed", 5)
        assert client.get("/v2/health/ready").json() == dict(ready=False)
        assert client.get("/v2/models/second/ready").status_code == 503
        wait_until(lambda: client.get("/v2/models/first/ready").status_code == 200, 5)
        np.testing.assert_array_equal(predicted(client), MASKS["first"])
        assert client.post("/v1/predict?model=second", content=encode(noise())).status_code == 503


# --- the program --------------------------------------------------------------------------------------------------

def test_a_folder_of_models(tmp_path):
    two_models(tmp_path)
    (tmp_path / "first.manifest.txt").write_text("not a model", encoding="utf-8")
    assert [path.name for path in model_files(tmp_path)] == ["first.onnx", "second.onnx"]
    assert model_files(tmp_path / "first.onnx") == [tmp_path / "first.onnx"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegError, match="has no model in it"):
        model_files(tmp_path / "empty")


def test_two_models_of_one_name_are_refused(tmp_path, paths):
    (tmp_path / "other").mkdir()
    same = echo_model(tmp_path / "other" / "first.onnx")
    done = run_program("--model", paths[0], "--model", same)
    assert done.returncode == 1 and "are both named first; rename" in done.stderr and "Traceback" not in done.stderr


def ask_all(url: str, **ask: Any) -> dict[str, np.ndarray]:
    "{name: mask of noise()} of every model that a server lists."
    names = [row["name"] for row in httpx.get(f"{url}/v1/models", **ask).json()["models"]]
    raw = {n: httpx.post(f"{url}/v1/predict?format=raw&model={n}", content=encode(noise()), **ask) for n in names}
    return {name: np.frombuffer(answer.content, np.uint8).reshape(SIZE, SIZE) for name, answer in raw.items()}


def test_the_program_serves_several_with_several_workers(tmp_path):
    first, second = two_models(tmp_path)
    with serving(first, "--model", second, "--workers", 2, "--batch", 4) as (url, _, log):
        for _ in range(4):  # a connection each, so that both workers are asked
            found = ask_all(url)
            assert list(found) == list(MASKS)
            for name, mask in MASKS.items():
                np.testing.assert_array_equal(found[name], mask)
        assert 'seg_stage_seconds_count{model="second",stage="predict"} 4.0' in get(f"{url}/metrics").text
        lines = log.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("first and second; first where a request names none") for line in lines)
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert {event["name"] for event in events if event["event"] == "ready"} == set(MASKS)
