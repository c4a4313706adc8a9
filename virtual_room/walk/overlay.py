"""How predicted labels are laid over the room: which groups, how opaque, and their names. Must not know the window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbs_lib.labels import LabelSet
from virtual_room.walk.live import Prediction

MIN_SHARE = .004  # of the image, from which on a label is named


@dataclass(frozen=True)
class Overlay:
    "What is shown of a prediction"
    group: int | None = None  # index of the only label group shown; None: all
    opacity: float = .5
    alone: bool = False  # is the room behind the labels hidden?

    def colors(self, labels: LabelSet) -> np.ndarray:
        "uint8 (256, 4): color and opacity of each mask value"
        table = np.zeros((256, 4), np.uint8)
        table[:, :3] = labels.palette
        for name in self.shown(labels):
            table[labels[name], 3] = round(255 * self.opacity)
        if not self.alone:
            return table
        hidden = table[:, 3] == 0
        table[hidden] = 0
        table[:, 3] = 255
        return table

    def shown(self, labels: LabelSet) -> list[str]:
        "Names of the labels that are shown"
        groups = groups_of(labels)
        if self.group is not None:
            groups = groups[self.group:self.group + 1]
        names = []
        for _, members in groups:
            names += members
        return names

    def names(self, prediction: Prediction) -> list[tuple[str, float, float]]:
        "What to write over the image: labels without their groups, and a place (x, y) of theirs, 0..1"
        shown, rows = self.shown(prediction.labels), []
        for value, share, x, y in prediction.regions:
            name = prediction.labels.codes[value]
            if share >= MIN_SHARE and name in shown:
                rows.append((name.partition("_")[2] or name, *place_inside(prediction.mask, value, (x, y))))
        return rows


def place_inside(mask: np.ndarray, value: int, middle: tuple[float, float]) -> tuple[float, float]:
    """A place (x, y), 0..1, where the mask shows this value: the middle of its pixels, unless that lies between them.

    Then it is the middle of the value's longest row of pixels, so that the name of two paintings is not on the wall.
    """
    height, width = mask.shape
    row, column = int(middle[1] * height), int(middle[0] * width)
    if mask[row, column] == value:
        return middle
    begins, ends = rows_of_pixels(mask == value)
    if not len(begins):
        return middle
    longest = (ends[:, 1] - begins[:, 1]).argmax()
    row, first = begins[longest]
    last = ends[longest, 1]
    return float((first + last) / 2 / width), float((row + .5) / height)


def rows_of_pixels(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Of a bool array (height, width): int arrays (n, 2), row and column where each run begins, and where it ended"
    edges = np.diff(np.pad(shown, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    return np.argwhere(edges == 1), np.argwhere(edges == -1)


def groups_of(labels: LabelSet) -> list[tuple[str, list[str]]]:
    "The groups that have a key, with their labels; the background is left out"
    background = None if labels.background is None else labels.codes[labels.background]
    groups = []
    for group, members in labels.groups.items():
        names = [name for name in members if name != background]
        if names:
            groups.append((group, names))
    return groups
