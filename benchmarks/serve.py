"""A whole request to this server beside one to the original's way, with one model, one machine, one run.

The original's way is rebuilt from its description: an `async def` handler that resizes, runs the model, paints with
`np.where` label by label into one array, writes an RGBA PNG and takes the mean of `np.where` for each label's place,
on the int64 that an argmax gives. Every request is timed from outside; the time inside `session.run` is measured
within the same request, so that the rest is not lost in the noise of inference. The rest holds decoding the sent
picture, which is the same work for both; `answer` is the way from mask to answer alone.

    python benchmarks/serve.py --model MODEL.onnx --int8 MODEL.int8.onnx
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastapi
import numpy as np
import onnx
import onnxruntime
import uvicorn
from common import HOST, free_port
from fastapi import FastAPI, Request
from PIL import Image

from model_server.answer import palette_png, regions, table_palette
from model_server.application import make_app
from model_server.settings import Settings
from model_server.uvicorn_protocols import server_options
from nbs_lib.core import usable_threads
from nbs_lib.export import median_ms, synthetic_images
from nbs_lib.predict import Predictor
from nbs_lib.tools.starter import processor

ORIGINAL = "original's way"
OURS = "this server"
WARM_UP = 2  # requests that are not counted
PATIENCE = 600  # seconds that a connection may rest: the other server's turn may take long


class TimedSession:
    "A session that remembers how long it ran."

    def __init__(self, session: Any) -> None:
        self.session = session
        self.ms = 0.0

    def run(self, *args: Any) -> list[np.ndarray]:
        "Run the model."
        start = time.perf_counter()
        out = self.session.run(*args)
        self.ms = 1000 * (time.perf_counter() - start)
        return out


@dataclass
class Measured:
    "One server in one comparison; medians in milliseconds."

    requests: list[tuple[float, float]] = field(default_factory=list)  # whole request, session.run within it
    answer: float = 0.0       # from mask to answer alone
    wrong_pixels: float = 0.0  # share

    @property
    def whole(self) -> float:
        "The whole request."
        return statistics.median(whole for whole, _ in self.requests)

    @property
    def run(self) -> float:
        "Inference."
        return statistics.median(run for _, run in self.requests)

    @property
    def rest(self) -> float:
        "All but inference."
        return statistics.median(whole - run for whole, run in self.requests)


def at_size(path: Path, size: int, folder: Path) -> Path:
    "The same net, said to be of another size."
    proto = onnx.load(path)
    for entry in proto.metadata_props:
        if entry.key == "size":
            entry.value = json.dumps([size, size])
    out = folder / f"{path.stem}-{size}.onnx"
    onnx.save(proto, out)
    return out


# --- both ways from mask to answer --------------------------------------------------------------------------------

def original_answer(mask: np.ndarray, palette: list[list[int]]) -> dict[str, Any]:
    "The original's way, as described: `np.where` for each label and channel."
    painted, places = np.stack([mask] * 4, 2), []
    for value, color in enumerate(palette):
        for channel in range(4):
            layer = painted[..., channel]
            painted[..., channel] = np.where(layer == value, color[channel], layer)
        y, x = np.where(mask == value)
        if len(x):
            places.append(dict(label=value - 1, labelPositionX=float(np.mean(x)), labelPositionY=float(np.mean(y))))
    out = io.BytesIO()
    Image.fromarray(painted.astype(np.uint8), "RGBA").save(out, "PNG")
    return dict(mime="image/png", labels=places, image64=base64.b64encode(out.getvalue()).decode())


def our_answer(mask: np.ndarray, palette: np.ndarray) -> dict[str, Any]:
    "What the server's route does."
    places = [dict(label=r.value - 1, labelPositionX=r.x, labelPositionY=r.y) for r in regions(mask)]
    image64 = base64.b64encode(palette_png(mask, palette)).decode()
    return dict(mime="image/png", labels=places, image64=image64)


def original_app(predictor: Predictor) -> FastAPI:
    "The original's server, as described."
    app = FastAPI()
    palette = table_palette(predictor.labels).tolist()

    @app.put("/predict_image_text")
    async def predict_image_text(request: Request) -> dict:
        "Label an image, within the event loop."
        body = await request.json()
        image = Image.open(io.BytesIO(base64.b64decode(body["image64"]))).convert("RGB")
        image = image.resize(predictor.size[::-1], Image.Resampling.BILINEAR)
        masks, _ = predictor.session.run(["mask", "confidence"], {"picture": np.asarray(image)[None]})
        return original_answer(masks[0].astype(np.int64), palette)

    return app


# --- asking -------------------------------------------------------------------------------------------------------

@contextmanager
def listening(app: FastAPI, **options: Any) -> Iterator[http.client.HTTPConnection]:
    "The app on a port of its own, with these options of uvicorn; yields a connection that is kept open."
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="error", timeout_keep_alive=PATIENCE, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield http.client.HTTPConnection(HOST, port)
    finally:
        server.should_exit = True
        thread.join()


def our_server(predictor: Predictor) -> AbstractContextManager[http.client.HTTPConnection]:
    "This server with the protocols and limits of `seg_serve`, but for the time that a connection may rest."
    settings = Settings(idle=PATIENCE)
    return listening(make_app(predictor, settings), **server_options(settings))


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, dict[str, Any]]:
    "Milliseconds of one whole request, and what it answered; asks again while the model warms up."
    while True:
        start = time.perf_counter()
        connection.request("PUT", "/predict_image_text", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        ms = 1000 * (time.perf_counter() - start)
        if response.status == 200:
            return ms, json.loads(answer)
        time.sleep(0.2)


def wrong_pixels(answer: dict[str, Any], mask: np.ndarray, palette: np.ndarray) -> float:
    "Share of the pixels that are not painted in their label's color."
    painted = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image64"]))).convert("RGBA"))
    return float((painted != palette[mask]).any(2).mean())


def image_body(image: Image.Image, kind: str) -> bytes:
    "The body of a request."
    out = io.BytesIO()
    image.save(out, kind)
    image64 = base64.b64encode(out.getvalue()).decode()
    return json.dumps(dict(mime=f"image/{kind.lower()}", image64=image64)).encode()


def compare(path: Path, image: Image.Image, kind: str, repeats: int) -> dict[str, Measured]:
    "Both servers in turn."
    predictor = Predictor(path)
    body = image_body(image, kind)
    sent = Image.open(io.BytesIO(base64.b64decode(json.loads(body)["image64"]))).convert("RGB")
    palette, mask = table_palette(predictor.labels), predictor(sent).mask
    session = predictor.session = TimedSession(predictor.session)
    found = {ORIGINAL: Measured(), OURS: Measured()}
    with listening(original_app(predictor)) as theirs, our_server(predictor) as ours:
        for i in range(repeats + WARM_UP):
            for name, connection in ((ORIGINAL, theirs), (OURS, ours)):
                ms, answer = ask(connection, body)
                found[name].wrong_pixels = wrong_pixels(answer, mask, palette)
                if i >= WARM_UP:
                    found[name].requests.append((ms, session.ms))
    found[ORIGINAL].answer = median_ms(lambda: original_answer(mask.astype(np.int64), palette.tolist()))
    found[OURS].answer = median_ms(lambda: our_answer(mask, palette))
    return found


# --- the report ---------------------------------------------------------------------------------------------------

def print_head(model: Path, repeats: int) -> None:
    "What was measured, with what."
    versions = (f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, "
                f"fastapi {fastapi.__version__}, numpy {np.__version__}")
    print(f"{model.name} on {processor()}, {usable_threads()} threads; {versions}; medians of {repeats}")
    print(f"{'':34}{'whole ms':>10}{'run ms':>9}{'rest ms':>9}{'answer ms':>11}{'rest/run':>10}{'wrong pixels':>14}")


def print_rows(title: str, found: dict[str, Measured]) -> None:
    "One comparison."
    for name, m in found.items():
        times = f"{m.whole:10.1f}{m.run:9.1f}{m.rest:9.2f}{m.answer:11.2f}"
        shares = f"{m.rest / m.run:10.1%}{m.wrong_pixels:14.2%}"
        print(f"{title}, {name}".ljust(34) + times + shares)
    theirs, ours = found[ORIGINAL], found[OURS]
    print(f"{'':34}faster: rest {theirs.rest / ours.rest:.1f} times, answer {theirs.answer / ours.answer:.0f} times",
          flush=True)


def main() -> None:
    "Compare at each size, for PNG and JPEG."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--int8", type=Path, help="the same model in int8")
    parser.add_argument("--photo", type=Path, help="an image to send; default: a drawn one")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=9)
    a = parser.parse_args()
    print_head(a.model, a.repeats)
    image = Image.open(a.photo).convert("RGB") if a.photo else synthetic_images(1)[0]
    models = {"": a.model, "int8 ": a.int8} if a.int8 else {"": a.model}
    with tempfile.TemporaryDirectory() as folder:
        for prefix, model in models.items():
            for size in a.sizes:
                named = at_size(model, size, Path(folder))
                sent = image.resize((size, size), Image.Resampling.BILINEAR)
                for kind in ("PNG", "JPEG"):
                    print_rows(f"{prefix}{size} px {kind}", compare(named, sent, kind, a.repeats))


if __name__ == "__main__":
    main()
