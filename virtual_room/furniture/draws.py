"What builders draw from a random generator: sizes, colors, one of several"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from virtual_room.scene import Range, Vec
from virtual_room.textures import hsv

Rng = np.random.Generator
ANY_HUE = (0, 1)


def draw_sizes(rng: Rng, *ranges: Range) -> list[float]:
    "A number from each range"
    return [rng.uniform(*limits) for limits in ranges]


def draw_color(rng: Rng, hue: Range, saturation: Range, value: Range) -> Vec:
    "An sRGB color, 0..1, with hue, saturation and value from three ranges"
    return hsv(*draw_sizes(rng, hue, saturation, value))


def draw_int(rng: Rng, first: int, last: int) -> int:
    "A whole number from the first to the last"
    return int(rng.integers(first, last + 1))


def one_of(rng: Rng, options: Sequence[Any]) -> Any:
    "One of several, all as probable"
    return options[int(rng.integers(len(options)))]
