"""The page at /demo in a real browser.

A photo is dropped, the camera runs, nothing from outside is loaded, nothing is complained about.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("onnx")
pytest.importorskip("websockets.sync.client")

from browser import browser, needs_browser  # noqa: E402
from echo import echo_model  # noqa: E402
from serving import app_client, listening, slow_predictor  # noqa: E402

from nbs_lib.labels import ROOM_LABELS  # noqa: E402

DOG = ROOM_LABELS["live_dog"]
DOG_COLOR = np.array([255, 221, 0.0])
WALL = ROOM_LABELS["building_wall"]
pytestmark = needs_browser


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
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_files_of_the_page_need_no_token_and_are_the_only_ones(model):
    with app_client(model, token="sesame") as client:
        kinds = {"page.js": "text/javascript", "page.css": "text/css", "room-1.jpg": "image/jpeg"}
        for name, kind in kinds.items():
            answer = client.get(f"/demo/{name}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
        for name in ("nothing.js", "..%2Froutes.py", "%2Fetc%2Fpasswd"):
            assert client.get(f"/demo/{name}").status_code in (401, 404)


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
