"""The page at /demo in a real browser.

A photo is dropped, the camera runs, nothing from outside is loaded, nothing is complained about.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("onnx")
connect = pytest.importorskip("websockets.sync.client").connect

from echo import echo_model  # noqa: E402
from serving import app_client, listening, slow_predictor, wait_until  # noqa: E402

from nbs_lib.labels import ROOM_LABELS  # noqa: E402

DOG = ROOM_LABELS["live_dog"]
DOG_COLOR = np.array([255, 221, 0.0])
WALL = ROOM_LABELS["building_wall"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-port=0",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian: apt install chromium")


# --- a browser ----------------------------------------------------------------------------------------------------

class Page:
    "A browser's page over the DevTools protocol, and what it said and asked for meanwhile."

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.numbers = count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        "Call a method of the protocol; what else comes meanwhile is an event."
        number = next(self.numbers)
        self.socket.send(json.dumps(dict(id=number, method=method, params=params)))
        while (message := json.loads(self.socket.recv(20))).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def js(self, expression: str) -> Any:
        "The value of an expression in the page."
        result = self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text_of(self, element: str) -> str:
        "The text of the element of this id."
        return self.js(f"document.getElementById('{element}').textContent")

    def wait(self, expression: str, seconds: float = 20) -> None:
        "Until the expression is true."
        end = time.monotonic() + seconds
        while not self.js(expression):
            if time.monotonic() > end:
                page = self.js("document.body?.innerText")
                pytest.fail(f"{expression} did not come true; the page says {page!r}")
            time.sleep(0.05)

    def open(self, url: str) -> None:
        "Load the page, until it names its model."
        self.do("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.getElementById('model')?.textContent.length > 5")

    def drop(self, path: Path) -> None:
        "Drop a file onto the field for photos."
        box = "document.getElementById('drop').getBoundingClientRect()"
        x, y = self.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({box})")
        data = dict(items=[], files=[str(path)], dragOperationsMask=1)
        for kind in ("dragEnter", "dragOver", "drop"):
            self.do("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def wait_for_labels(self, n: int) -> None:
        "Until the legend has at least this many rows."
        self.wait(f"document.querySelectorAll('#legend li').length >= {n}")

    def pixel(self, x: int, y: int) -> list[int]:
        "Red, green and blue of a pixel of the picture."
        context = "document.getElementById('view').getContext('2d')"
        return self.js(f"[...{context}.getImageData({x}, {y}, 1, 1).data.slice(0, 3)]")

    def complaints(self) -> list[Any]:
        "Exceptions and errors of the page."
        self.js("0")
        return [event["params"] for event in self.events if is_complaint(event)]

    def hosts(self) -> set[str]:
        "Which servers the page asked."
        asked = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [urlsplit(params["request"]["url"]) for params in asked]
        return {url.netloc for url in urls if url.scheme not in ("data", "blob")}


def is_complaint(event: dict[str, Any]) -> bool:
    "Is an event an exception or an error?"
    method, params = event["method"], event["params"]
    if method == "Runtime.consoleAPICalled":
        return params["type"] == "error"
    if method == "Log.entryAdded":
        return params["entry"]["level"] == "error"
    return method == "Runtime.exceptionThrown"


def debugging_url(told: Path) -> str:
    "Where the first page of a browser listens, from the file in which it tells its port."
    port = told.read_text().split()[0]
    tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


@contextmanager
def browser(width: int = 1000, height: int = 700) -> Iterator[Page]:
    "A browser with an empty page."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={home}", f"--window-size={width},{height}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(home) / "DevToolsActivePort"
            wait_until(lambda: told.exists() and told.read_text().strip() != "", 30)
            with connect(debugging_url(told), max_size=None, compression=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(10)


# --- what is shown ------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return echo_model(tmp_path_factory.mktemp("served") / "echo.onnx")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    "The echo sees a dog on the left and a wall on the right of it; below nothing."
    image = np.zeros((64, 64, 3), np.uint8)  # the model's size: nothing is scaled
    image[:32, :32, 0] = DOG
    image[:32, 32:, 0] = WALL
    image[..., 2] = 200
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(image).save(path)
    return path


def near(a: Any, b: Any) -> bool:
    "Are two colors equal but for rounding?"
    return np.abs(np.array(a, float) - b).max() <= 2


def test_a_dropped_photo(model, photo):
    bare = np.array([DOG, 0, 200.0])
    with listening(model) as url, browser() as page:
        page.open(f"{url}/demo")
        page.drop(photo)
        page.wait("document.querySelectorAll('#legend li').length === 3")
        names = page.js("[...document.querySelectorAll('#legend span')].map(e => e.textContent)")
        assert set(names) == {"empty", "live_dog", "building_wall"}
        assert near(page.pixel(20, 20), bare * 0.45 + DOG_COLOR * 0.55), "the overlay is on the image"
        assert near(page.pixel(20, 50), [0, 0, 200]), "what has no label stays bare"
        assert "ms in all" in page.text_of("times")

        page.js(f"document.querySelector('#legend input[data-value=\"{DOG}\"]').click()")
        assert near(page.pixel(20, 20), bare), "a label can be switched off"
        assert not near(page.pixel(50, 20), [1, 0, 200])
        page.js("document.getElementById('all').click()")
        page.js("opacity.value = 100; opacity.dispatchEvent(new Event('input'))")
        assert near(page.pixel(20, 20), DOG_COLOR), "and be opaque"
        assert page.text_of("error") == ""
        assert page.complaints() == []
        assert page.hosts() == {urlsplit(url).netloc}


def test_what_the_server_would_refuse_is_scaled_down_or_explained(model, tmp_path):
    large, text = tmp_path / "large.bmp", tmp_path / "notes.txt"
    Image.new("RGB", (4500, 100), (1, 2, 3)).save(large)
    text.write_text("no picture")
    with listening(model) as url, browser() as page:
        page.open(f"{url}/demo")
        page.drop(large)
        page.wait_for_labels(1)
        assert page.js("document.getElementById('view').width") == 4096
        page.drop(text)
        page.wait("document.getElementById('error').textContent.includes('cannot read that file')")
        assert page.complaints() == []


@pytest.mark.clock
def test_camera(model):
    with listening(slow_predictor(model, 0.2)) as url, browser() as page:
        page.open(f"{url}/demo")
        page.js("document.getElementById('camera').click()")
        page.wait("document.getElementById('times').textContent.includes('skipped')")
        page.wait("import('/demo/page.js').then(({shown}) => shown.answer?.frame > 8)")
        assert page.js("document.getElementById('view').width") == 640
        page.js("document.getElementById('camera').click()")
        page.wait("document.getElementById('camera').textContent === 'Camera'")
        assert page.text_of("error") == ""
        assert page.complaints() == []


def test_token_is_asked_for(model, photo):
    asked = "document.getElementById('ask')?.hidden === false"
    told = "document.getElementById('error').textContent.includes('token')"
    with listening(model, token="sesame") as url, browser() as page:
        page.do("Page.navigate", url=f"{url}/demo")
        page.wait(f"{asked} && {told}")
        page.js("token.value = 'sesame'; token.dispatchEvent(new Event('change'))")
        page.wait("document.getElementById('model').textContent.includes('echo.onnx')")
        page.drop(photo)
        page.wait("document.querySelectorAll('#legend li').length === 3")


def test_page_is_served_with_a_policy(model):
    with app_client(model) as client:
        answer = client.get("/demo")
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]


# --- the picture of the page in the README ------------------------------------------------------------------------

def screenshot(model: str, photo: str, out: str) -> None:
    "Write the page with a labelled photo as a PNG."
    with listening(model) as url, browser(1000, 900) as page:
        page.open(f"{url}/demo")
        page.drop(Path(photo).resolve())
        page.wait_for_labels(1)
        time.sleep(0.5)
        height = page.js("document.documentElement.scrollHeight")
        clip = dict(x=0, y=0, width=1000, height=height, scale=0.8)
        shot = page.do("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        image.quantize(256, Image.Quantize.MEDIANCUT).save(out, optimize=True)


if __name__ == "__main__":
    screenshot(*sys.argv[1:])
