"""A whole request to this server beside one to the original's way, with one model, one machine, one run.

The original's way is rebuilt from its description: an `async def` handler that resizes, runs the model, paints with
`np.where` label by label into one array, writes an RGBA PNG and takes the mean of `np.where` for each label's place,
on the int64 that an argmax gives. Every request is timed from outside; the time inside `session.run` is measured
within the same request, so that the rest is not lost in the noise of inference. The rest holds decoding the sent
picture, which is the same work for both; `answer` is the way from mask to answer alone.

    python benchmarks/serve.py --model MODEL.onnx --int8 MODEL.int8.onnx
"""

import argparse
import base64
import http.client
import io
import json
import platform
import socket
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import fastapi
import numpy as np
import onnx
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image

from model_server.answer import palette_png, regions, table_palette
from model_server.app import make_app
from nbs_lib.export import median_ms, synthetic_pictures
from nbs_lib.predict import Predictor, usable_threads


class Timed:
    "A session that remembers how long it ran."

    def __init__(self, session) -> None:
        self.session, self.ms = session, 0.0

    def run(self, *args):
        start = time.perf_counter()
        out = self.session.run(*args)
        self.ms = 1000 * (time.perf_counter() - start)
        return out


def at_size(path: Path, size: int, folder: Path) -> Path:
    "The same net, said to be of another size."
    proto = onnx.load(path)
    for p in proto.metadata_props:
        if p.key == "size":
            p.value = json.dumps([size, size])
    out = folder / f"{path.stem}-{size}.onnx"
    onnx.save(proto, out)
    return out


def original_answer(mask: np.ndarray, palette: list[list[int]]) -> dict:
    painted, places = np.stack([mask] * 4, 2), []
    for value, color in enumerate(palette):
        for channel in range(4):
            painted[..., channel] = np.where(painted[..., channel] == value, color[channel], painted[..., channel])
        y, x = np.where(mask == value)
        if len(x):
            places.append(dict(label=value - 1, labelPositionX=float(np.mean(x)), labelPositionY=float(np.mean(y))))
    out = io.BytesIO()
    Image.fromarray(painted.astype(np.uint8), "RGBA").save(out, "PNG")
    return dict(mime="image/png", labels=places, image64=base64.b64encode(out.getvalue()).decode())


def our_answer(mask: np.ndarray, palette: np.ndarray) -> dict:
    "What the server's route does."
    places = [dict(label=r.value - 1, labelPositionX=r.x, labelPositionY=r.y) for r in regions(mask)]
    return dict(mime="image/png", labels=places, image64=base64.b64encode(palette_png(mask, palette)).decode())


def original_app(predictor: Predictor) -> FastAPI:
    "The original's server, as described."
    app, palette = FastAPI(), table_palette(predictor.labels).tolist()

    @app.put("/predict_image_text")
    async def predict_image_text(request: Request) -> dict:
        said = await request.json()
        image = Image.open(io.BytesIO(base64.b64decode(said["image64"]))).convert("RGB").resize(predictor.size[::-1], Image.Resampling.BILINEAR)
        return original_answer(predictor.session.run(["mask", "confidence"], {"picture": np.asarray(image)[None]})[0][0].astype(np.int64), palette)
    return app


@contextmanager
def listening(app: FastAPI):
    "The app on a port of its own; yields a connection that is kept open."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_keep_alive=600))  # the other one's turn may take long
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield http.client.HTTPConnection("127.0.0.1", port)
    finally:
        server.should_exit = True
        thread.join()


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, dict]:
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


def wrong_pixels(answer: dict, mask: np.ndarray, palette: np.ndarray) -> float:
    painted = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["image64"]))).convert("RGBA"))
    return float((painted != palette[mask]).any(2).mean())


def compare(path: Path, image: Image.Image, kind: str, repeats: int) -> dict[str, dict[str, float]]:
    "Both ways in turn: medians of the whole request, of session.run within it, of the rest, and of the answer alone; share of wrong pixels."
    predictor = Predictor(path)
    out = io.BytesIO()
    image.save(out, kind)
    body = json.dumps(dict(mime=f"image/{kind.lower()}", image64=base64.b64encode(out.getvalue()).decode())).encode()
    palette, mask = table_palette(predictor.labels), predictor(Image.open(out).convert("RGB")).mask
    timed = predictor.session = Timed(predictor.session)
    rows: dict[str, dict[str, float]] = {}
    with listening(original_app(predictor)) as theirs, listening(make_app(predictor)) as ours:
        found: dict[str, list[tuple[float, float]]] = {"original's way": [], "this server": []}
        for i in range(repeats + 2):
            for name, connection in zip(found, (theirs, ours)):
                ms, answer = ask(connection, body)
                if i >= 2:
                    found[name].append((ms, timed.ms))
                rows[name] = dict(wrong=wrong_pixels(answer, mask, palette))
    rows["original's way"]["answer"] = median_ms(lambda: original_answer(mask.astype(np.int64), palette.tolist()))
    rows["this server"]["answer"] = median_ms(lambda: our_answer(mask, palette))
    for name, times in found.items():
        whole, run = zip(*times)
        rows[name] |= dict(whole=statistics.median(whole), run=statistics.median(run), rest=statistics.median(w - r for w, r in times))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--int8", type=Path, help="the same model in int8")
    parser.add_argument("--photo", type=Path, help="a picture to send; default: a drawn one")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=9)
    a = parser.parse_args()
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else platform.processor()
    print(f"{a.model.name} on {cpu}, {usable_threads()} threads; Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, fastapi {fastapi.__version__}, numpy {np.__version__}; medians of {a.repeats}")
    print(f"{'':34}{'whole ms':>10}{'run ms':>9}{'rest ms':>9}{'answer ms':>11}{'rest/run':>10}{'wrong pixels':>14}")
    with tempfile.TemporaryDirectory() as folder:
        image = Image.open(a.photo).convert("RGB") if a.photo else synthetic_pictures(1)[0]
        for model in filter(None, (a.model, a.int8)):
            for size in a.sizes:
                named, sent = at_size(model, size, Path(folder)), image.resize((size, size), Image.Resampling.BILINEAR)
                for kind in ("PNG", "JPEG"):
                    rows = compare(named, sent, kind, a.repeats)
                    for name, r in rows.items():
                        print(f"{'int8 ' if model is a.int8 else ''}{size} px {kind}, {name}".ljust(34) + f"{r['whole']:10.1f}{r['run']:9.1f}{r['rest']:9.2f}{r['answer']:11.2f}{r['rest'] / r['run']:10.1%}{r['wrong']:14.2%}")
                    theirs, ours = rows.values()
                    print(f"{'':34}faster: rest {theirs['rest'] / ours['rest']:.1f} times, answer {theirs['answer'] / ours['answer']:.0f} times", flush=True)


if __name__ == "__main__":
    main()
