"""What a renderer is, and what all of them share: numbers to labels, and light to the pixels of an image.

Plain numpy; must not know an engine.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.light import GAMMA, HEADROOM
from virtual_room.scene import Camera, Room

MAX_OBJECTS = 400
NEAR = .08  # meters from the camera to the first thing that it sees
HIGHLIGHTS, WHITE = .1, .8  # share of an image that may be lighter than this light
SHOULDER = .6  # light from which on the development bends softly towards white


@runtime_checkable
class Renderer(Protocol):
    "Draws rooms: `show` one, then ask for images and annotations of any camera; all arrays are (H, W, ...) of one size"

    size: int  # width and height in pixels

    def show(self, room: Room) -> None:
        "Replace the room that is drawn. Raises `SegError` where it has too many objects"

    def instances(self, camera: Camera) -> np.ndarray:
        "For each pixel's center 1 + the index of the object seen there, 0 for nothing; (H, W) int32"

    def mask(self, camera: Camera) -> np.ndarray:
        "The label of each pixel, (H, W) uint8"

    def image(self, camera: Camera) -> np.ndarray:
        "The developed image, (H, W, 3) uint8"

    def geometry(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Depth (H, W) float32 and normals (H, W, 3) float32 at each pixel's center; 0 for nothing.

        Depth is in meters along the view. A normal is that of the flat facet: x right, y down, z ahead.
        """

    def uncovered(self, camera: Camera, objects: list[int]) -> list[int]:
        "Pixels that each of the objects would have if nothing stood before it"


def label_table(room: Room) -> np.ndarray:
    "The label of each instance number, (objects + 1,) uint8; 0 is empty. Raises `SegError`"
    values = [0, *(ROOM_LABELS.codes.index(o.label) for o in room.objects)]
    if len(values) > MAX_OBJECTS + 1:
        n = len(room.objects)
        raise SegError(f"a room of {n} objects is more than {MAX_OBJECTS}; lower the room settings")
    return np.array(values, np.uint8)


def develop(camera: Camera, sums: np.ndarray, top: int, metered: float = 1.0) -> np.ndarray:
    "The image (H, W, 3) uint8 of light (H, W, 3) in 0..top, as the renderer encoded it"
    tables = curves(camera, top, metered)
    return np.stack([table[sums[..., i]] for i, table in enumerate(tables)], axis=2)


def curves(camera: Camera, top: int, metered: float = 1.0) -> list[np.ndarray]:
    "For each channel the table that develops 0..top to 0..255; `metered` is a factor on the exposure"
    return [_curve(metered * camera.exposure * b, camera.contrast, top) for b in camera.balance]


def _curve(gain: float, contrast: float, top: int) -> np.ndarray:
    "A table from 0..top to 0..255: exposure with a soft shoulder towards white, then contrast as an S curve"
    linear = (np.arange(top + 1) / top) ** GAMMA * HEADROOM * gain
    rest = 1 - SHOULDER
    soft = np.where(linear < SHOULDER, linear, 1 - rest * np.exp(-(linear - SHOULDER) / rest))
    shown = soft ** (1 / GAMMA)
    s_curve = 3 * shown ** 2 - 2 * shown ** 3 - shown
    return (255 * (shown + contrast * s_curve)).round().astype(np.uint8)


def meter(camera: Camera, brightness: np.ndarray) -> float:
    """The factor (at most 1) on the exposure that keeps all but the lightest tenth of an image under white.

    `brightness` holds the brightest channel of each pixel as the renderer encoded it, 0..1.
    """
    light = float(np.quantile(brightness, 1 - HIGHLIGHTS)) ** GAMMA * HEADROOM * camera.exposure
    return min(1.0, WHITE / max(light, 1e-6))
