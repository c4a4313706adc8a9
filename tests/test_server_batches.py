"Batches: the same answers as alone, each error with its own request, deadlines kept, and nothing of it by default"

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnx")

import httpx
from echo import N_CLASSES, echo_model
from serving import app_client, encode, listening, noise, wait_until

from model_server import Client, Settings
from model_server.batching import BatchingSession
from model_server.command import Options, limits
from model_server.service import Service, Shared
from nbs_lib.predict import Predictor, starter_model

OUTPUTS = ["mask", "confidence"]
FAULTY = 200  # a red value that the network below cannot take


class Network:
    "A session that gives the red and the green channel, and remembers the shapes it was run on."

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.shapes: list[tuple[int, ...]] = []
        self.at_once = 0

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        "mask and confidence."
        images = inputs["picture"]
        self.at_once += 1
        assert self.at_once == 1, "one run at a time"
        try:
            time.sleep(self.seconds)
            self.shapes.append(images.shape)
            if (images[..., 0] == FAULTY).any():
                raise RuntimeError("a value that no network likes")
            found = dict(mask=np.minimum(images[..., 0], N_CLASSES - 1), confidence=images[..., 1])
            return [found[name] for name in outputs]
        finally:
            self.at_once -= 1

    def get_providers(self) -> list[str]:
        "Where it runs."
        return ["NoExecutionProvider"]


def batching(network: Any, batch: int = 8, batch_wait: float = 0.2, most_pixels: int = 2**20) -> BatchingSession:
    "A session that makes batches for this network."
    settings = Settings(batch=batch, batch_wait=batch_wait)
    return BatchingSession(network, settings, most_pixels, threading.Lock())


def images(seed: int, n: int = 1, height: int = 32, width: int = 64) -> np.ndarray:
    "uint8 noise (n, height, width, 3), each label in its red channel."
    found = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    found[..., 0] %= N_CLASSES
    return found


def run_all(session: BatchingSession, arrays: list[np.ndarray], outputs: list[str] = OUTPUTS) -> list[Any]:
    "What a thread each gets: a list of arrays, or the exception."
    def run(array: np.ndarray) -> Any:
        try:
            return session.run(outputs, {"picture": array})
        except RuntimeError as error:
            return error
    with ThreadPoolExecutor(len(arrays)) as pool:
        return list(pool.map(run, arrays))


def check_answers(arrays: list[np.ndarray], answers: list[Any]) -> None:
    "Each has its own."
    for array, (mask, confidence) in zip(arrays, answers):
        np.testing.assert_array_equal(mask, array[..., 0])
        np.testing.assert_array_equal(confidence, array[..., 1])


# --- the session --------------------------------------------------------------------------------------------------

def test_each_gets_its_own_answer():
    network = Network()
    arrays = [images(seed) for seed in range(8)]
    check_answers(arrays, run_all(batching(network, batch_wait=5), arrays))
    assert network.shapes == [(8, 32, 64, 3)]


def test_many_rounds_lose_and_mix_nothing():
    "Of several sizes and numbers of images, from 16 threads."
    network = Network()
    session = batching(network, batch=4, batch_wait=0.002)
    shapes = [(1, 32, 64), (1, 64, 32), (2, 32, 64), (1, 32, 32), (5, 32, 64)]
    arrays = [images(seed, *shapes[seed % len(shapes)]) for seed in range(200)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda array: session.run(OUTPUTS, {"picture": array}), arrays))
    check_answers(arrays, answers)
    assert sum(shape[0] for shape in network.shapes) == sum(len(array) for array in arrays)
    assert max(shape[0] for shape in network.shapes if shape[1:3] == (32, 32)) <= 4
    assert session._open == {}


def test_a_full_batch_waits_for_nobody():
    network = Network()
    start = time.monotonic()
    run_all(batching(network, batch=2, batch_wait=30), [images(0), images(1)])
    assert time.monotonic() - start < 10 and network.shapes == [(2, 32, 64, 3)]


def test_one_alone_waits_no_longer_than_it_must():
    network = Network()
    start = time.monotonic()
    run_all(batching(network, batch_wait=0.1), [images(0)])
    assert 0.1 <= time.monotonic() - start < 5 and network.shapes == [(1, 32, 64, 3)]


class HeldNetwork(Network):
    "One that runs when it is let go."

    def __init__(self) -> None:
        super().__init__()
        self.running, self.go = threading.Event(), threading.Event()

    def run(self, *args: Any) -> Any:
        self.running.set()
        assert self.go.wait(20)
        return super().run(*args)


def test_the_next_batch_fills_while_the_network_runs():
    "Three come during the run of the first, and go together, though the wait is much shorter."
    network = HeldNetwork()
    session = batching(network, batch_wait=0.01)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(session.run, OUTPUTS, {"picture": images(0)})
        assert network.running.wait(20)
        others = [pool.submit(session.run, OUTPUTS, {"picture": images(seed)}) for seed in (1, 2, 3)]
        wait_until(lambda: sum(batch.size for batch in session._open.values()) == 3)
        network.go.set()
        check_answers([images(seed) for seed in range(4)], [first.result(), *[other.result() for other in others]])
    assert [shape[0] for shape in network.shapes] == [1, 3]


def test_sizes_and_outputs_do_not_mix():
    network = Network()
    session = batching(network)
    with ThreadPoolExecutor(3) as pool:
        wide = pool.submit(session.run, OUTPUTS, {"picture": images(0)})
        high = pool.submit(session.run, OUTPUTS, {"picture": images(1, 1, 64, 32)})
        less = pool.submit(session.run, ["mask"], {"picture": images(2)})
        assert [len(wide.result()), len(high.result()), len(less.result())] == [2, 2, 1]
    assert sorted(shape[:3] for shape in network.shapes) == [(1, 32, 64), (1, 32, 64), (1, 64, 32)]


def test_what_is_too_large_for_a_batch_runs_alone():
    network = Network()
    arrays = [images(seed, 3) for seed in range(4)]
    check_answers(arrays, run_all(batching(network, batch=2), arrays))
    assert network.shapes == [(3, 32, 64, 3)] * 4


def test_pixels_are_bounded():
    "As the largest tensor is: a stranger may choose the size."
    network = Network()
    arrays = [images(seed) for seed in range(6)]
    check_answers(arrays, run_all(batching(network, most_pixels=2 * 32 * 64), arrays))
    assert max(shape[0] for shape in network.shapes) == 2


def test_an_error_stays_with_its_request():
    network = Network()
    arrays = [images(seed) for seed in range(6)]
    arrays[2][0, 5, 5, 0] = FAULTY
    answers = run_all(batching(network, batch=6, batch_wait=5), arrays)
    assert isinstance(answers.pop(2), RuntimeError)
    arrays.pop(2)
    check_answers(arrays, answers)
    assert network.shapes == [(6, 32, 64, 3), *[(1, 32, 64, 3)] * 6]


def test_a_faulty_request_alone_runs_once():
    network = Network()
    faulty = images(0)
    faulty[0, 0, 0, 0] = FAULTY
    assert isinstance(run_all(batching(network, batch_wait=0), [faulty])[0], RuntimeError)
    assert len(network.shapes) == 1


class Forgetful(Network):
    "A network that answers for one image, however many come."

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        "Of the first image."
        return [array[:1] for array in super().run(outputs, inputs)]


def test_a_network_of_one_image_still_answers_all():
    arrays = [images(seed) for seed in range(3)]
    check_answers(arrays, run_all(batching(Forgetful(), batch=3, batch_wait=5), arrays))


def test_a_trained_model_answers_alike_in_batches():
    "Masks and confidences are equal, and so are the scores but for rounding."
    predictor = Predictor(starter_model(), threads=1)
    arrays = [images(seed, 1, 96, 128) for seed in range(3)]
    names = [*OUTPUTS, "logits"]
    alone = [predictor.session.run(names, {"picture": array}) for array in arrays]
    together = run_all(batching(predictor.session, batch=3, batch_wait=5), arrays, names)
    for expected, found in zip(alone, together):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[2], expected[2], rtol=0, atol=1e-3)


# --- the server ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return echo_model(tmp_path_factory.mktemp("served") / "echo.onnx")


def with_network(model: Path, network: Any) -> Predictor:
    "A predictor of this file that runs another network."
    predictor = Predictor(model)
    predictor.session = network
    return predictor


def batch_sizes(text: str) -> tuple[int, int]:
    "Batches and images, from the metrics."
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("seg_batch_images_"))
    count, total = (lines[f'seg_batch_images_{what}{{model="echo"}}'] for what in ("count", "sum"))
    return int(float(count)), int(float(total))


def test_off_by_default(model, tmp_path):
    predictor = Predictor(model)
    assert Service(predictor, Shared(Settings(), tmp_path)).predictor is predictor
    assert Settings().places == 1
    assert Settings(batch=8).places == 16, "one batch is decoded and answered while the other is in the network"


def test_all_who_may_wait_have_room_for_their_photos():
    assert limits(Options())["max_bodies"] == Settings().max_bodies
    assert limits(Options(batch=8, waiting=32))["max_bodies"] == 16 + 32


def test_answers_through_the_server_are_the_unbatched(model):
    "32 photos of several sizes and two damaged ones, by 8 clients, with and without."
    sizes = [(64, 64), (200, 90), (31, 77), (1, 1)]
    photos = [encode(noise(*sizes[seed % 4], seed)) for seed in range(32)]
    photos[5] = photos[20] = b"\x89PNG damaged"
    found = {}
    for batch in (1, 8):
        network = Predictor(model).session
        with listening(with_network(model, network), batch=batch, batch_wait=0.05, waiting=32) as url:
            def ask(photo: bytes, url: str = url) -> tuple[int, bytes]:
                answer = httpx.post(f"{url}/v1/predict?format=raw", content=photo, timeout=30)
                return answer.status_code, answer.content
            with ThreadPoolExecutor(8) as pool:
                found[batch] = list(pool.map(ask, photos))
            metrics = httpx.get(f"{url}/metrics").text
    assert found[1] == found[8]
    assert sorted({status for status, _ in found[8]}) == [200, 415]
    batches, seen = batch_sizes(metrics)
    assert seen == 30 + 1 and batches < seen, "photos went together; one image warmed it up"


@pytest.mark.clock
def test_batches_hold_nobody_past_its_deadline(model):
    "The network takes four seconds; who waits is told at its own deadline, and the server goes on."
    network = Network(0)
    with listening(with_network(model, network), batch=4, batch_wait=0.02, deadline=0.4, max_stuck=8, waiting=8) as url:
        network.seconds = 4.0
        start = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            options = dict(content=encode(noise()), timeout=30)
            asked = [pool.submit(httpx.post, f"{url}/v1/predict", **options) for _ in range(6)]
            answers = [answer.result() for answer in asked]
        assert time.monotonic() - start < 4.0
        assert {answer.status_code for answer in answers} == {503} and "retry-after" in answers[0].headers
        network.seconds = 0.0
        wait_until(lambda: httpx.post(f"{url}/v1/predict", content=encode(noise()), timeout=30).status_code == 200)


def test_a_new_model_is_batched_too(tmp_path):
    path = echo_model(tmp_path / "echo.onnx")
    with app_client(path, token="t", batch=4) as client:
        client.headers["Authorization"] = "Bearer t"
        echo_model(path, arch="another")
        assert client.post("/v1/reload").json()["arch"] == "another"
        service = client.app.state.models.default
        assert isinstance(service.predictor.session, BatchingSession)
        assert client.get("/v1/model").json()["provider"] == "CPUExecutionProvider"
        assert client.post("/v1/predict", content=encode(noise())).status_code == 200


def test_two_models_do_not_run_at_one_time(tmp_path):
    "Each uses all processors. `Network` fails where it is run twice at one time."
    network = Network(0.02)
    predictors = [with_network(echo_model(tmp_path / f"{name}.onnx"), network) for name in ("echo", "other")]
    with listening(predictors, batch=2, batch_wait=0.001, waiting=32) as url:
        with ThreadPoolExecutor(8) as pool:
            clients = [Client(url, model=name) for name in ("echo", "other")]
            seen = list(pool.map(lambda i: clients[i % 2].predict(encode(noise())), range(24)))
    for answer in seen:
        np.testing.assert_array_equal(answer.mask, np.asarray(noise())[..., 0])
