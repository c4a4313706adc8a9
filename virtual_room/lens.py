"""What a camera does to a picture after the light: blur, vignette, noise and compression. Masks stay as they are.

Pure numpy and Pillow; must not know rooms or the engine.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from virtual_room.scene import Camera

GRAIN = 1024  # side of the noise that pictures take their pieces from


def through_lens(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    "The picture (H, W, 3) uint8 with the camera's effects; the same generator gives the same noise"
    if camera.blur > .1:
        blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(camera.blur * picture.shape[1] / 256))
        picture = np.asarray(blurred)
    if camera.vignette or camera.noise: picture = _lit(picture, camera, rng)
    return picture if camera.jpeg >= 98 else _compressed(picture, round(camera.jpeg))


def _lit(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    out = picture * (1 - np.float32(camera.vignette) * _corners(height, width))
    grain, (y, x) = _grain(), rng.integers(0, GRAIN, 2)
    rows, columns = (np.arange(n) + o for n, o in ((height, y), (width, x)))
    out += np.float32(camera.noise) * grain.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")
    return out.clip(0, 255).round().astype(np.uint8)


def _compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@lru_cache(maxsize=4)
def _corners(height: int, width: int) -> np.ndarray:
    "0 in the middle, 1 in the corners, (H, W, 1)"
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    return (((x * x + y * y) / 2) ** 1.5)[..., None].astype(np.float32)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    "Noise (GRAIN, GRAIN, 3) of mean 0 and deviation 1: mostly of brightness, a little of colour"
    rng = np.random.default_rng(7)
    return (.9 * rng.standard_normal((GRAIN, GRAIN, 1), np.float32) + .45 * rng.standard_normal((GRAIN, GRAIN, 3), np.float32))
