"""A pair as the bytes of its files: written to a folder, put into a shard, or sent from one machine to another.

Must not know where they go.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from virtual_room.pairs import PairMaker, count_labels

Annotations = dict[str, np.ndarray | list]  # by kind


@dataclass(frozen=True)
class EncodedPair:
    "The files of a pair by kind, the mask last"
    index: int
    room: int
    files: dict[str, bytes]
    pixels: np.ndarray  # of each label, (n_classes,)


def encode(
    index: int, room: int, image: np.ndarray, mask: np.ndarray, annotations: Annotations | None = None
) -> EncodedPair:
    "The files of an image (H, W, 3), its mask (H, W) and what else there is, arrays as PNG, lists as JSON"
    contents = dict(screenshots=image, **(annotations or {}), labels=mask)
    files = {kind: _as_bytes(content) for kind, content in contents.items()}
    return EncodedPair(index, room, files, count_labels(mask))


def make_encoded(maker: PairMaker, index: int) -> EncodedPair:
    "Draw a pair; its files"
    image, mask = maker.pair(index)
    return encode(index, maker.plan.room_of(index), image, mask, maker.annotations())


def _as_bytes(content: np.ndarray | list) -> bytes:
    if isinstance(content, list):
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
    buffer = io.BytesIO()
    Image.fromarray(content).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
