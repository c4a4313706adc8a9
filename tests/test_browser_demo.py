"""The demo without a server: the page of `make docs` in a real browser, beside the Python predictor."""

from __future__ import annotations

import gzip
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

onnx = pytest.importorskip("onnx")
pytest.importorskip("mkdocs", reason="needs pip install '.[docs]'")
sys.path.insert(0, str(ROOT / "docs"))

import browser_demo  # noqa: E402
from browser import Page, browser, needs_browser  # noqa: E402

from nbs_lib.predict import STARTER, Prediction, Predictor, enlarge_mask  # noqa: E402

pytestmark = [pytest.mark.slow, needs_browser]
AGREEMENT = 0.995  # of the pixels
ROOMS = [ROOT / f"model_server/demo/room-{i}.jpg" for i in (1, 2, 3)]
SHOWN = "import('/model_server/demo/page.js').then(({shown}) => %s)"
NO_WEBASSEMBLY = "delete globalThis.WebAssembly"
NO_CAMERA = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError') }"


def set_scores(graph: onnx.GraphProto, wanted: bool) -> None:
    "Let the graph give the scores of the labels as `logits`, or not."
    outputs = {output.name: output for output in graph.output}
    if wanted and "logits" not in outputs:
        argmax = next(node for node in graph.node if node.op_type == "ArgMax")
        graph.node.append(onnx.helper.make_node("Identity", [argmax.input[0]], ["logits"]))
        shape = ["n", "label", "h", "w"]
        graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape))
    if not wanted and "logits" in outputs:
        graph.output.remove(outputs["logits"])


def starter_file(folder: Path, scores: bool) -> Path:
    "The starter model with or without scores."
    model = onnx.load_model_from_string(gzip.decompress(STARTER.read_bytes()))
    set_scores(model.graph, scores)
    path = folder / "model.onnx.gz"
    path.write_bytes(gzip.compress(model.SerializeToString(), 1))
    return path


@pytest.fixture(scope="module")
def archive() -> Path:
    "The archive of onnxruntime-web."
    try:
        return browser_demo.package_archive()
    except browser_demo.FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=[False, True], ids=["labels", "scores"])
def model(request, tmp_path_factory) -> Path:
    return starter_file(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def site(archive, model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    browser_demo.write_demo(folder, browser_demo.demo_files(archive, model))
    return folder


@pytest.fixture(scope="module")
def starter_site(archive, tmp_path_factory) -> Path:
    "With the model that is shipped."
    folder = tmp_path_factory.mktemp("starter")
    browser_demo.write_demo(folder, browser_demo.demo_files(archive))
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    "What `python -m http.server` answers, without a log."

    def log_message(self, *args) -> None:
        "Nothing."


@contextmanager
def http_server(folder: Path) -> Iterator[str]:
    "The files of a folder over HTTP; yields the host."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def demo_page(site: Path, script: str = "") -> Iterator[tuple[Page, str]]:
    "The demo in a browser, before its model is loaded, and its host. `script` runs before the page's own."
    with http_server(site) as host, browser() as page:
        page.do("Page.addScriptToEvaluateOnNewDocument", source=script)
        page.open(f"http://{host}/model_server/demo.html")
        yield page, host


def wait_for_model(page: Page) -> None:
    "Until the model is loaded."
    page.wait("document.getElementById('model').textContent.includes('24 labels')", 60)


def wait_for_error(page: Page, words: str) -> None:
    "Until the page says this."
    page.wait(f"document.getElementById('error').textContent.includes({words!r})", 30)


def answer_after(page: Page, action: Callable[[], None]) -> Prediction:
    "What the page shows because of an action."
    page.js(SHOWN % "(window.earlier = shown.answer, 0)")
    action()
    page.wait(SHOWN % "shown.answer !== null && shown.answer !== window.earlier", 60)
    width, height = page.js(SHOWN % "[shown.answer.width, shown.answer.height]")
    arrays = [page.js(SHOWN % f"[...shown.answer.{name}]") for name in ("mask", "confidence")]
    return Prediction(*[np.array(array, np.uint8).reshape(height, width) for array in arrays])


def equal_share(found: Prediction, wanted: Prediction) -> float:
    "Share of pixels with the same label; the confidence is about the same."
    assert found.mask.shape == wanted.mask.shape
    difference = np.abs(found.confidence.astype(int) - wanted.confidence).mean()
    equal = (found.mask == wanted.mask).mean()
    print(f"{found.mask.shape}: {equal:.4%} of the labels equal, confidence differs by {difference:.3f} of 255")
    assert difference < 3
    return equal


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    "A tall image with the noise and the fine detail of a photo."
    rng = np.random.default_rng(0)
    room = Image.open(ROOT / "model_server/demo/room-2.jpg").crop((100, 0, 280, 240)).resize((453, 607))
    noisy = np.asarray(room) + rng.normal(0, 12, (607, 453, 3))
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return path


def test_rooms_and_photos_as_in_python(site, model, photo):
    """Of all pixels, 99.5 % have the same label.

    8-bit arithmetic differs from processor to processor: of one image, onnxruntime's own levels of optimization agree
    on 99.5 to 100 % of the pixels.
    """
    predictor = Predictor(model, threads=1)
    with demo_page(site) as (page, host):
        wait_for_model(page)
        shares = []
        for i, room in enumerate(ROOMS):
            found = answer_after(page, lambda i=i: page.js(f"document.querySelectorAll('#rooms button')[{i}].click()"))
            assert found.mask.shape == (240, 320)
            shares.append(equal_share(found, predictor(room)))
            print(page.text_of("times"))
        found = answer_after(page, lambda: page.drop(photo))
        shares.append(equal_share(found, predictor(photo)))
        page.js("document.getElementById('shape').click()")
        found = answer_after(page, lambda: page.drop(photo))
        shares.append(equal_share(found, predictor(photo, "letterbox")))
        assert min(shares) > 0.99
        assert np.mean(shares) >= AGREEMENT
        assert page.text_of("error") == ""
        assert page.complaints() == []
        assert page.hosts() == {host}


def module_result(page: Page, module: str, expression: str) -> list:
    "The value of an expression over a module of the page's."
    return page.js(f"import('/model_server/demo/{module}.js').then(module => {expression})")


@pytest.fixture(scope="module")
def bare_page(starter_site) -> Iterator[Page]:
    "A page whose modules can be tried."
    with demo_page(starter_site) as (page, _):
        yield page


def size_text(width: int, height: int) -> str:
    "A size in JavaScript."
    return f"{{width: {width}, height: {height}}}"


def array_text(values: np.ndarray) -> str:
    "A flat array in JavaScript."
    kind = {"uint8": "Uint8Array", "float32": "Float32Array"}[values.dtype.name]
    return f"{kind}.from({values.ravel().tolist()})"


@pytest.mark.parametrize("size", [(40, 30), (20, 90), (7, 5), (111, 53), (20, 30)])
def test_resizing_is_pillows(bare_page, size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (53, 40, 3)).astype(np.uint8)
    scores = rng.normal(0, 5, (53, 40)).astype(np.float32)
    sizes = f"{size_text(40, 53)}, {size_text(*size)}"
    calls = [
        (f"resize({array_text(pixels)}, 3, {sizes})", pixels, Image.Resampling.BILINEAR),
        (f"resizeNearest({array_text(pixels[..., 0])}, {sizes})", pixels[..., 0], Image.Resampling.NEAREST),
        (f"resizeFloats({array_text(scores)}, {sizes})", scores, Image.Resampling.BILINEAR),
    ]
    for call, values, resampling in calls:
        wanted = np.asarray(Image.fromarray(values).resize(size, resampling))
        found = module_result(bare_page, "resize", f"[...module.{call}]")
        assert np.abs(found - wanted.ravel()).max() < 1e-5  # exact for bytes


@pytest.mark.parametrize("size", [(100, 80), (32, 32), (1500, 1000), (20, 3000)])
def test_masks_are_enlarged_as_in_python(bare_page, size):
    rng = np.random.default_rng(1)
    coarse = rng.normal(0, 5, (4, 8, 8)).astype(np.float32)
    scores = np.stack([np.asarray(Image.fromarray(label).resize((32, 32))) for label in coarse])
    mask = scores.argmax(0).astype(np.uint8)
    for given in (None, scores):
        of_label = "null" if given is None else f"label => [{', '.join(map(array_text, scores))}][label]"
        call = f"enlargeMask({array_text(mask)}, {of_label}, {size_text(32, 32)}, {size_text(*size)})"
        found = module_result(bare_page, "enlarge", f"[...module.{call}]")
        wanted = enlarge_mask(mask, given, (32, 32), size)
        assert np.array_equal(np.array(found, np.uint8), wanted.ravel())


def test_times_confidence_and_legend(starter_site):
    with demo_page(starter_site) as (page, _):
        wait_for_model(page)
        page.js("document.querySelector('#rooms button').click()")
        page.wait_for_labels(3)
        assert "ms in all" in page.text_of("times") and "confidence 0." in page.text_of("times")
        names = page.js("[...document.querySelectorAll('#legend span')].map(e => e.textContent)")
        assert "building_wall" in names


def test_camera(starter_site):
    with demo_page(starter_site) as (page, host):
        wait_for_model(page)
        page.js("document.getElementById('camera').click()")
        page.wait(SHOWN % "shown.answer?.frame > 1", 60)
        page.js("document.getElementById('camera').click()")
        page.wait("document.getElementById('camera').textContent === 'Camera'")
        assert page.complaints() == []
        assert page.hosts() == {host}


def test_what_goes_wrong_is_said(starter_site, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    with demo_page(starter_site, NO_CAMERA) as (page, _):
        wait_for_model(page)
        page.drop(text)
        wait_for_error(page, "cannot read that file as an image")
        page.js("document.getElementById('camera').click()")
        wait_for_error(page, "the camera was refused")
        assert page.complaints() == []


def test_a_browser_without_webassembly(starter_site):
    with demo_page(starter_site, NO_WEBASSEMBLY) as (page, _):
        wait_for_error(page, "no WebAssembly")


@pytest.mark.parametrize("damage, words", [("missing", "could not be loaded"), ("cut", "could not be started")])
def test_a_model_that_cannot_be_loaded(starter_site, tmp_path, damage, words):
    site = tmp_path / "site"
    shutil.copytree(starter_site, site)
    file = site / "model_server/demo/starter.onnx.gz"
    data = gzip.decompress(file.read_bytes())
    file.unlink()
    if damage == "cut":
        file.write_bytes(gzip.compress(data[:100_000]))
    with demo_page(site) as (page, _):
        wait_for_error(page, words)


def test_the_policy_lets_nothing_out(starter_site):
    script = "fetch('http://127.0.0.2:1/').then(() => 'sent', () => 'refused')"
    with demo_page(starter_site) as (page, host):
        wait_for_model(page)
        assert page.js(script) == "refused"
        assert any("Content Security Policy" in str(complaint) for complaint in page.complaints())


def test_without_npm_one_line_and_a_page_that_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(browser_demo, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    pages = browser_demo.demo_pages()
    assert list(pages) == [browser_demo.PAGE]
    assert capsys.readouterr().out == "the demo in the browser is left out: npm is not installed\n"
