"""A headless browser for tests: a page over the DevTools protocol, and what it said and asked for meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

connect = pytest.importorskip("websockets.sync.client").connect

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-port=0",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian: apt install chromium")


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


def wait_for_port(told: Path, seconds: float = 30) -> None:
    "Until a browser has told its port in this file."
    end = time.monotonic() + seconds
    while not (told.exists() and told.read_text().strip()):
        assert time.monotonic() < end, "the browser does not start"
        time.sleep(0.02)


@contextmanager
def browser(width: int = 1000, height: int = 700) -> Iterator[Page]:
    "A browser with an empty page."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={home}", f"--window-size={width},{height}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(home) / "DevToolsActivePort"
            wait_for_port(told)
            with connect(debugging_url(told), max_size=None, compression=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(10)
