"""What decoding an image file would cost, read from its parts before anything is decoded.

A JPEG is a row of segments, a PNG a row of chunks. A progressive JPEG may hold any number of scans, and each is a pass
over the whole image: 120 kB can ask for a thousand passes over eight million pixels. Must not know of Pillow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from model_server.errors import APIError

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = 0xDA
END_OF_IMAGE = 0xD9
# Markers that begin a segment with a length, or end the image. Between them decoders skip whatever else there is:
# fill bytes (ff), stuffed bytes (00), restarts (d0 to d7), a second start (d8) and what is reserved (01 to bf).
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")


def jpeg_segments(data: bytes) -> Iterator[int]:
    "The markers of a JPEG's segments up to its end, as a decoder meets them."
    position = 2
    while found := MARKER.search(data, position):
        marker = data[found.end() - 1]
        if marker == END_OF_IMAGE:
            return
        yield marker
        length = int.from_bytes(data[found.end():found.end() + 2], "big")
        position = found.end() + max(2, length)


def png_chunks(data: bytes) -> Iterator[bytes]:
    "The kinds of a PNG's chunks."
    position = len(PNG_START)
    while position + 8 <= len(data):
        yield data[position + 4:position + 8]
        length = int.from_bytes(data[position:position + 4], "big")
        position += 12 + length


def count_scans(data: bytes, max_parts: int) -> int:
    """How many passes a decoder makes over the image: 1 unless it is a JPEG of several scans.

    `APIError` 413 for too many parts.
    """
    if data.startswith(PNG_START):
        _check_count(png_chunks(data), max_parts)
        return 1
    if not data.startswith(JPEG_START):
        return 1
    segments = _check_count(jpeg_segments(data), max_parts)
    return max(1, segments.count(START_OF_SCAN))


def _check_count(parts: Iterator, max_parts: int) -> list:
    found = []
    for part in parts:
        found.append(part)
        if len(found) > max_parts:
            sentence = f"the image has more than {max_parts} parts; save it again with another program"
            raise APIError(413, sentence, "parts")
    return found
