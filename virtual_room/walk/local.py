"""A model in this process that is asked as a server's stream is: an image is sent, then its answer received.

Must not know the engine.
"""

from __future__ import annotations

import numpy as np

from model_server.answer import Region, regions
from model_server.client import Seen
from nbs_lib.core import usable_threads
from nbs_lib.predict import Predictor


class LocalStream:
    "What `model_server.client.Stream` does, without a server"

    def __init__(self, model: str) -> None:
        "Load a model file; empty: the starter model. One core is left to the window"
        self.predictor = Predictor(model or None, threads=max(1, usable_threads() - 1))
        self.labels = self.predictor.labels

    def send(self, image: np.ndarray) -> None:
        "Hand over an image (H, W, 3) uint8"
        self._image = image

    def receive(self, timeout: float | None = None) -> Seen:
        "The answer to the image sent last, as long as it takes"
        prediction = self.predictor(self._image)
        rows = [_row(region, prediction.mask.size) for region in regions(prediction.mask)]
        return Seen(prediction.mask, {"labels": rows})


def _row(region: Region, pixels: int) -> dict[str, float]:
    "What a walk needs of a label: value, share of the image, and the middle in pixels"
    return dict(value=region.value, share=region.pixels / pixels, x=region.x, y=region.y)
