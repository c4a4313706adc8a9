"""The colours each client of the original protocol has chosen.

That protocol names no client, so a palette is found in two ways, in this order:

1. The cookie that the answer to `PUT /set_label_colors` sets. It holds the palette itself, so any worker, and the server
   after a restart, colours alike. It is no secret and is checked like any other input.
2. The client's address, for clients that keep no cookies, in a folder that all workers share. Two of these behind one
   address share a palette. Once a client shows its cookie, what its address remembers of that same choice is dropped, so
   that a client with cookies never colours the pictures of its neighbour without.

Must not know of the web framework.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from pathlib import Path

import numpy as np

from model_server.answer import table_palette
from nbs_lib.core import atomic_path
from nbs_lib.labels import LabelSet

COOKIE = "seg_palette"
KEPT = 1000  # addresses


def pack(colors: dict[int, tuple[int, int, int, int]]) -> str:
    "{mask value: (r, g, b, a)} as a cookie's text; every call gives another, so that equal choices can be told apart."
    rows = bytes(v for value, rgba in colors.items() for v in (value, *rgba))
    return secrets.token_hex(8) + "." + base64.urlsafe_b64encode(rows).decode().rstrip("=")


def unpack(text: str) -> dict[int, tuple[int, ...]]:
    "What `pack` was given; empty where the text is not one of its own."
    try:
        body = text.split(".")[1]
        rows = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return {rows[i]: tuple(rows[i + 1:i + 5]) for i in range(0, len(rows) - 4, 5)}


def paint(labels: LabelSet, colors: dict[int, tuple[int, ...]]) -> np.ndarray:
    "uint8 (n_classes, 4): the table's colours with a client's own laid over them."
    palette = table_palette(labels)
    for value, rgba in colors.items():
        if value < labels.n_classes:
            palette[value] = rgba
    return palette


class Palettes:
    "Who wants which colours."

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def choose(self, address: str, colors: dict[int, tuple[int, int, int, int]]) -> str:
        "Remember a client's colours; returns the cookie to set."
        text = pack(colors)
        files = sorted(self.folder.glob("*.palette"), key=_age)
        for old in files[:max(0, len(files) - KEPT + 1)]:
            old.unlink(missing_ok=True)
        with atomic_path(self._file(address)) as tmp:
            tmp.write_text(text)
        return text

    def find(self, address: str, cookie: str | None) -> dict[int, tuple[int, ...]]:
        "The colours a client chose; empty where it chose none."
        remembered = self._read(address)
        if cookie is None or not (chosen := unpack(cookie)):
            return unpack(remembered)
        if remembered == cookie:
            self._file(address).unlink(missing_ok=True)
        return chosen

    def _read(self, address: str) -> str:
        try:
            return self._file(address).read_text()
        except FileNotFoundError:
            return ""

    def _file(self, address: str) -> Path:
        return self.folder / (hashlib.sha256(address.encode()).hexdigest()[:32] + ".palette")


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
