"""What a camera does to an image after the light: blur, vignette, noise and compression. Masks stay as they are.

Pure numpy and Pillow; must not know rooms or the engine.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from virtual_room.scene import Camera

GRAIN = 1024  # side of the noise that images take their pieces from
LEAST_BLUR = .1  # deviations below this one change nothing
BEST_JPEG = 98  # from this quality on nothing is compressed


def through_lens(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    "The image (H, W, 3) uint8 with the camera's effects; the same generator gives the same noise"
    if camera.blur > LEAST_BLUR:
        deviation = camera.blur * image.shape[1] / 256
        image = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(deviation)))
    if camera.vignette or camera.noise:
        image = _with_vignette_and_noise(image, camera, rng)
    return image if camera.jpeg >= BEST_JPEG else _compressed(image, round(camera.jpeg))


def _with_vignette_and_noise(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    out = image * (1 - np.float32(camera.vignette) * _falloff(height, width))
    y, x = rng.integers(0, GRAIN, 2)
    piece = _grain().take(np.arange(height) + y, 0, mode="wrap").take(np.arange(width) + x, 1, mode="wrap")
    out += np.float32(camera.noise) * piece
    return out.clip(0, 255).round().astype(np.uint8)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@lru_cache(maxsize=4)
def _falloff(height: int, width: int) -> np.ndarray:
    "0 in the middle, 1 in the corners, (H, W, 1) float32"
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    return (((x * x + y * y) / 2) ** 1.5)[..., None].astype(np.float32)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    "Noise (GRAIN, GRAIN, 3) of mean 0 and deviation 1: mostly of brightness, a little of color"
    rng = np.random.default_rng(7)
    brightness = rng.standard_normal((GRAIN, GRAIN, 1), np.float32)
    color = rng.standard_normal((GRAIN, GRAIN, 3), np.float32)
    return .9 * brightness + .45 * color
