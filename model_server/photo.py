"""From bytes that a stranger sent to a photo: judged by its header first, decoded after.

Must not know of models or the web.
"""

from __future__ import annotations

import binascii
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model_server.limits import Refusal, Settings

FORMATS = ("PNG", "JPEG", "WEBP")


def from_base64(text: str) -> bytes:
    "Standard base64 with its padding and nothing else in it; `Refusal` 400 otherwise."
    try:
        if len(text) % 4 or text.endswith("==="):  # which strict_mode lets pass
            raise ValueError
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        raise Refusal(400, "image64 is not strict base64; send the picture's bytes in standard base64 with padding, without line breaks or a data: prefix", "base64") from None


def read_photo(data: bytes, settings: Settings = Settings()) -> Image.Image:
    "RGB photo, upright. `Refusal` 413 for one that is too large, 415 for another format, 400 for a damaged one."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the stricter limit
        image = _open(data)
        _check_size(image.size, settings)
        return _decode(image)


def _open(data: bytes) -> Image.Image:
    "The picture's header; no pixel is decoded."
    if not data:
        raise Refusal(400, "the picture is empty; send the bytes of a PNG, JPEG or WebP file", "empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Refusal(415, "the picture is not PNG, JPEG or WebP, or its header is damaged", "format") from None
    except Image.DecompressionBombError:
        raise Refusal(413, "the picture has far too many pixels; scale it down", "pixels") from None
    except Exception as e:  # Pillow's readers raise whatever the damage makes them stumble over
        raise _damaged(e) from None


def _check_size(size: tuple[int, int], settings: Settings) -> None:
    width, height = size
    if min(size) < 1:
        raise Refusal(400, f"the picture is {width}×{height} pixels; send one that has some", "damaged")
    if max(size) > settings.max_side:
        raise Refusal(413, f"the picture is {width}×{height}, the longest side allowed is {settings.max_side}; scale it down", "side")
    if width * height > settings.max_pixels:
        raise Refusal(413, f"the picture is {width}×{height}, at most {settings.max_pixels} pixels are allowed; scale it down", "pixels")


def _decode(image: Image.Image) -> Image.Image:
    try:
        image.load()
        if image.mode.startswith("I"):  # 16 bits a pixel: converting would clip, not scale
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = ImageOps.exif_transpose(image) if image.getexif() else image
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as e:
        raise _damaged(e) from None


def _damaged(e: Exception) -> Refusal:
    return Refusal(400, f"the picture is damaged ({type(e).__name__}); send it again", "damaged")
