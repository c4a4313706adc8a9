"""The colors each client of the original protocol has chosen.

That protocol names no client, so a palette is found in two ways, in this order:

1. The cookie that the answer to `PUT /set_label_colors` sets. It holds the palette itself, so any worker, and the
   server after a restart, colors alike. It is no secret and is checked like any other input.
2. The client's address, for clients that keep no cookies, in a folder that all workers share. Two of these behind one
   address share a palette. Each choice is a file of its own: once a client shows its cookie, its own choice is removed,
   and that of a neighbor without cookies counts again. A client that shows a cookie while choosing leaves no file.

Must not know of the web framework.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import shutil
import time
from pathlib import Path

import numpy as np

from model_server.answer import table_palette
from nbs_lib.core import atomic_path
from nbs_lib.labels import LabelSet

COOKIE = "seg_palette"
KEPT_ADDRESSES = 1000
KEPT_CHOICES = 8  # of one address
COOKIE_TEXT = re.compile(r"([0-9a-f]{16})\.([A-Za-z0-9_-]*)", re.ASCII)
Colors = dict[int, tuple[int, ...]]  # {mask value: (red, green, blue, alpha)}, each 0 to 255


def pack(colors: Colors) -> str:
    "Colors as a cookie's text; every call gives another, so that equal choices can be told apart."
    rows = bytes(number for value, rgba in colors.items() for number in (value, *rgba))
    return secrets.token_hex(8) + "." + base64.urlsafe_b64encode(rows).decode().rstrip("=")


def unpack(text: str) -> Colors:
    "What `pack` was given; empty where the text is not one of its own."
    parts = COOKIE_TEXT.fullmatch(text)
    if not parts:
        return {}
    try:
        rows = base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4))
    except (ValueError, binascii.Error):
        return {}
    values = rows[::5]
    if len(rows) % 5 or len(set(values)) < len(values):
        return {}
    return {value: tuple(rows[5 * i + 1:5 * i + 5]) for i, value in enumerate(values)}


def client_palette(labels: LabelSet, colors: Colors) -> np.ndarray:
    "uint8 (n_classes, 4), red green blue alpha: the table's colors with a client's own in place of some."
    palette = table_palette(labels)
    for value, rgba in colors.items():
        if value < labels.n_classes:
            palette[value] = rgba
    return palette


class Palettes:
    "Who wants which colors."

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def choose(self, address: str, colors: Colors, cookie: str | None = None) -> str:
        "Remember a client's colors; returns the cookie to set. `cookie` is the one that it showed."
        text = pack(colors)
        if cookie is None or not unpack(cookie):
            self._remember(address, text)
        return text

    def find(self, address: str, cookie: str | None) -> Colors:
        "The colors a client chose; empty where it chose none."
        chosen = unpack(cookie) if cookie else {}
        if not chosen:
            return self._newest(address)
        for path in self._choices(address):
            if path.stem.endswith(_token(cookie)):
                path.unlink(missing_ok=True)
        return chosen

    def _remember(self, address: str, text: str) -> None:
        _remove_oldest(list(self.folder.iterdir()), KEPT_ADDRESSES - 1)
        _remove_oldest(self._choices(address), KEPT_CHOICES - 1)
        path = self._address_folder(address) / f"{time.time_ns():020d}-{_token(text)}.palette"
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _newest(self, address: str) -> Colors:
        for path in reversed(self._choices(address)):
            try:
                return unpack(path.read_text(encoding="utf-8"))
            except FileNotFoundError:  # another worker has just removed it
                continue
        return {}

    def _choices(self, address: str) -> list[Path]:
        "The files of an address, oldest first."
        return sorted(self._address_folder(address).glob("*.palette"))

    def _address_folder(self, address: str) -> Path:
        return self.folder / hashlib.sha256(address.encode()).hexdigest()[:32]


def _token(text: str) -> str:
    return text.split(".")[0]


def _remove_oldest(paths: list[Path], kept: int) -> None:
    "Remove files and folders until only `kept` are left."
    for path in sorted(paths, key=_age)[:max(0, len(paths) - kept)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
