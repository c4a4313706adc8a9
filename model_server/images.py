"""From bytes that a stranger sent to an image: judged by its header first, decoded after.

Must not know of models or the web.
"""

from __future__ import annotations

import binascii
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model_server.errors import APIError
from model_server.image_parts import count_scans
from model_server.settings import DEFAULTS, Settings

FORMATS = ("PNG", "JPEG", "WEBP")
LEAST_SCAN_PIXELS = 4096  # a scan of a smaller image costs as much as one of so many pixels


def decode_base64(text: str) -> bytes:
    "Standard base64 with its padding and nothing else in it; `APIError` 400 otherwise."
    try:
        if len(text) % 4 or text.endswith("==="):  # which strict_mode lets pass
            raise ValueError
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        sentence = ("image64 is not strict base64; send the image's bytes in standard base64 with padding, "
                    "without line breaks or a data: prefix")
        raise APIError(400, sentence, "base64") from None


def decode_image(data: bytes, settings: Settings = DEFAULTS) -> Image.Image:
    """RGB image, upright.

    `APIError` 413 for one that is too large or takes too long, 415 for another format, 400 for a damaged one.
    """
    if not data:
        raise APIError(400, "the image is empty; send the bytes of a PNG, JPEG or WebP file", "empty")
    scans = count_scans(data, settings.max_parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the stricter limit
        image = _open(data)
        _check_size(image.size, settings)
        _check_scans(image.size, scans, settings)
        return _decode(image)


def _open(data: bytes) -> Image.Image:
    "The image's header; no pixel is decoded."
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise APIError(415, "the image is not PNG, JPEG or WebP, or its header is damaged", "format") from None
    except Image.DecompressionBombError:
        raise APIError(413, "the image has far too many pixels; scale it down", "pixels") from None
    except Exception as error:  # Pillow's readers raise whatever the damage makes them stumble over
        raise _damaged(error) from None


def _check_size(size: tuple[int, int], settings: Settings) -> None:
    width, height = size
    named = f"the image is {width}×{height}"
    if min(size) < 1:
        raise APIError(400, f"{named} pixels; send one that has some", "damaged")
    if max(size) > settings.max_side:
        raise APIError(413, f"{named}, the longest side allowed is {settings.max_side}; scale it down", "side")
    if width * height > settings.max_pixels:
        raise APIError(413, f"{named}, at most {settings.max_pixels} pixels are allowed; scale it down", "pixels")


def _check_scans(size: tuple[int, int], scans: int, settings: Settings) -> None:
    width, height = size
    allowed = settings.max_scan_pixels // max(LEAST_SCAN_PIXELS, width * height)
    if scans > allowed:
        sentence = f"the image is {width}×{height} in {scans} scans, {allowed} are allowed at this size"
        raise APIError(413, f"{sentence}; save it as a baseline JPEG", "scans")


def _decode(image: Image.Image) -> Image.Image:
    try:
        image.load()
        if image.mode.startswith("I"):  # 16 bits a pixel: converting would clip, not scale
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.getexif():
            image = ImageOps.exif_transpose(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> APIError:
    return APIError(400, f"the image is damaged ({type(error).__name__}); send it again", "damaged")
