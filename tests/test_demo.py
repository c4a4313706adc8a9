"The page at /demo, in a real browser: a photo is dropped, the camera runs, nothing from outside is loaded, nothing is complained about"

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
connect = pytest.importorskip("websockets.sync.client").connect
from echo import echo_model
from serving import app_client, listening, slow_predictor

from nbs_lib.labels import ROOM_LABELS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian: apt install chromium")


class Page:
    "A browser's page over the DevTools protocol, and what it said and asked for meanwhile."

    def __init__(self, socket) -> None:
        self.socket, self.numbers, self.events = socket, count(1), []
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps(dict(id=number, method=method, params=params)))
        while (message := json.loads(self.socket.recv(20))).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def js(self, expression: str):
        result = self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, f"{expression} did not come true; the page says {self.js('document.body.innerText')!r}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        self.do("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.getElementById('model')?.textContent.length > 5")

    def drop(self, path: Path) -> None:
        x, y = self.js("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.getElementById('drop').getBoundingClientRect())")
        for kind in ("dragEnter", "dragOver", "drop"):
            self.do("Input.dispatchDragEvent", type=kind, x=x, y=y, data=dict(items=[], files=[str(path)], dragOperationsMask=1))

    def pixel(self, x: int, y: int) -> list[int]:
        return self.js(f"[...document.getElementById('view').getContext('2d').getImageData({x}, {y}, 1, 1).data.slice(0, 3)]")

    def complaints(self) -> list:
        self.js("0")
        bad = lambda e: (e["method"] == "Runtime.exceptionThrown" or e["method"] == "Runtime.consoleAPICalled" and e["params"]["type"] == "error"
                         or e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error")
        return [e["params"] for e in self.events if bad(e)]

    def hosts(self) -> set[str]:
        urls = [urlsplit(e["params"]["request"]["url"]) for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return {u.netloc for u in urls if u.scheme not in ("data", "blob")}


@contextmanager
def browser(width=1000, height=700):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen([CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", f"--user-data-dir={home}",
                                    "--remote-debugging-port=0", f"--window-size={width},{height}", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "about:blank"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told, end = Path(home) / "DevToolsActivePort", time.monotonic() + 30
            while not told.exists() or not told.read_text().strip():
                assert time.monotonic() < end and process.poll() is None, "chromium did not start"
                time.sleep(0.05)
            port = told.read_text().split()[0]
            tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
            with connect(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"), max_size=None, compression=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return echo_model(tmp_path_factory.mktemp("served") / "echo.onnx")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    "The echo sees a dog on the left and a wall on the right of it; below nothing."
    image = np.zeros((64, 64, 3), np.uint8)  # the model's size: nothing is scaled
    image[:32, :32, 0], image[:32, 32:, 0] = ROOM_LABELS["live_dog"], ROOM_LABELS["building_wall"]
    image[..., 2] = 200
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(image).save(path)
    return path


def near(a, b) -> bool:
    return np.abs(np.array(a, float) - b).max() <= 2


def test_a_dropped_photo(model, photo):
    with listening(model) as url, browser() as page:
        page.open(f"{url}/demo")
        page.drop(photo)
        page.wait("document.querySelectorAll('#legend li').length === 3")
        assert set(page.js("[...document.querySelectorAll('#legend span')].map(e => e.textContent)")) == {"empty", "live_dog", "building_wall"}
        bare, dog = np.array([ROOM_LABELS["live_dog"], 0, 200.0]), np.array([255, 221, 0.0])
        assert near(page.pixel(20, 20), bare * 0.45 + dog * 0.55), "the overlay is on the picture"
        assert near(page.pixel(20, 50), [0, 0, 200]), "what has no label stays bare"
        assert "ms in all" in page.js("document.getElementById('times').textContent")

        page.js(f"document.querySelector('#legend input[data-value=\"{ROOM_LABELS['live_dog']}\"]').click()")
        assert near(page.pixel(20, 20), bare), "a label can be switched off"
        assert not near(page.pixel(50, 20), [1, 0, 200])
        page.js("document.getElementById('all').click(); opacity.value = 100; opacity.dispatchEvent(new Event('input'))")
        assert near(page.pixel(20, 20), dog), "and be opaque"
        assert page.js("document.getElementById('error').textContent") == ""
        assert page.complaints() == [] and page.hosts() == {urlsplit(url).netloc}


def test_what_the_server_would_refuse_is_scaled_down_or_explained(model, tmp_path):
    large, text = tmp_path / "large.bmp", tmp_path / "notes.txt"
    Image.new("RGB", (4500, 100), (1, 2, 3)).save(large)
    text.write_text("no picture")
    with listening(model) as url, browser() as page:
        page.open(f"{url}/demo")
        page.drop(large)
        page.wait("document.querySelectorAll('#legend li').length > 0")
        assert page.js("document.getElementById('view').width") == 4096
        page.drop(text)
        page.wait("document.getElementById('error').textContent.includes('cannot read that file')")
        assert page.complaints() == []


def test_camera(model):
    with listening(slow_predictor(model, 0.2)) as url, browser() as page:
        page.open(f"{url}/demo")
        page.js("document.getElementById('camera').click()")
        page.wait("document.getElementById('times').textContent.includes('skipped')")
        page.wait("answer && answer.frame > 8")
        assert page.js("document.getElementById('view').width") == 640
        page.js("document.getElementById('camera').click()")
        page.wait("document.getElementById('camera').textContent === 'Camera'")
        assert page.js("document.getElementById('error').textContent") == "" and page.complaints() == []


def test_token_is_asked_for(model, photo):
    with listening(model, token="sesame") as url, browser() as page:
        page.do("Page.navigate", url=f"{url}/demo")
        page.wait("document.getElementById('ask')?.hidden === false && document.getElementById('error').textContent.includes('token')")
        page.js("token.value = 'sesame'; token.dispatchEvent(new Event('change'))")
        page.wait("document.getElementById('model').textContent.includes('echo.onnx')")
        page.drop(photo)
        page.wait("document.querySelectorAll('#legend li').length === 3")


def test_page_is_served_with_a_policy(model):
    with app_client(model) as client:
        answer = client.get("/demo")
        assert answer.headers["content-type"].startswith("text/html") and "default-src 'none'" in answer.headers["content-security-policy"]


def screenshot(model: str, photo: str, out: str) -> None:
    "The picture of the page in the README."
    import base64
    import io
    with listening(model) as url, browser(1000, 900) as page:
        page.open(f"{url}/demo")
        page.drop(Path(photo).resolve())
        page.wait("document.querySelectorAll('#legend li').length > 0")
        time.sleep(0.5)
        height = page.js("document.documentElement.scrollHeight")
        png = base64.b64decode(page.do("Page.captureScreenshot", format="png", clip=dict(x=0, y=0, width=1000, height=height, scale=0.8), captureBeyondViewport=True)["data"])
        Image.open(io.BytesIO(png)).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT).save(out, optimize=True)


if __name__ == "__main__":
    import sys
    screenshot(*sys.argv[1:])
