"""A room as plain data: things made of parts, lights, cameras, and the ranges they are drawn from.

Must not know how anything is drawn, placed or written: no engine, no random numbers, no files but a configuration.
Metres and degrees; z is up; headings turn counter-clockwise seen from above; colours are sRGB in 0..1.
A thing's own frame has its origin in the middle of its footprint on its lowest plane, and its front looks along +y.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nbs_lib.core import SegError

Vec = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Part:
    "One simple shape of a thing, in the thing's frame"
    shape: tuple  # name and parameters, see `shapes.mesh`
    size: Vec
    at: Vec  # centre
    colour: Vec = (1.0, 1.0, 1.0)  # multiplies the texture
    texture: str = "plain"
    tile: float = 1.0  # metres per repeat of the texture; 0 stretches it once over the shape
    turn: Vec = (0.0, 0.0, 0.0)  # degrees about x, then y, then z
    glow: float = 0.0  # own light, as a share of full brightness


@dataclass(frozen=True)
class Top:
    "A rectangle on which small things may stand, in the frame of the thing that offers it"
    x0: float
    y0: float
    x1: float
    y1: float
    z: float
    headroom: float = 10.0


@dataclass(frozen=True)
class Model:
    "A thing before it has a place"
    label: str
    kind: str
    size: Vec
    parts: tuple[Part, ...]
    tops: tuple[Top, ...] = ()


@dataclass(frozen=True)
class Thing:
    "A model with its place"
    model: Model
    at: Vec
    heading: float
    support: int  # index of the thing it stands on or hangs from

    @property
    def label(self) -> str: return self.model.label

    @cached_property
    def footprint(self) -> np.ndarray:
        "The four corners (4, 2) of the base in the room"
        w, d = self.model.size[:2]
        return np.array([[-w, -d], [w, -d], [w, d], [-w, d]]) / 2 @ turned(self.heading).T + np.asarray(self.at[:2])


@dataclass(frozen=True)
class Light:
    "A small bright area; `normal` (0, 0, 0) shines to all sides, and no area is the sun, whose rays are parallel"
    at: Vec
    normal: Vec
    colour: Vec  # linear, times strength
    area: float


@dataclass(frozen=True)
class Camera:
    "Where from, where to, and how the picture is developed"
    at: Vec
    target: Vec
    fov: float  # degrees, both ways: pictures are square
    exposure: float = 1.0
    contrast: float = 0.0  # 0 plain .. 1 strong
    balance: Vec = (1.0, 1.0, 1.0)
    blur: float = 0.0  # deviation in pixels of a picture 256 pixels wide
    vignette: float = 0.0  # share of light that is missing in the corners
    noise: float = 0.0  # deviation in grey levels
    jpeg: float = 100.0  # quality; 100: never compressed


@dataclass(frozen=True)
class Room:
    outline: tuple[tuple[float, float], ...]  # corners, counter-clockwise
    height: float
    things: tuple[Thing, ...]
    lights: tuple[Light, ...]
    ambient: Vec  # linear

    @property
    def middle(self) -> tuple[float, float]:
        return tuple(np.mean(self.outline, axis=0).tolist())

    def asdict(self) -> dict[str, Any]: return asdict(self)


@dataclass(frozen=True)
class RoomConfig:
    "The ranges that rooms and poses are drawn from; shares are probabilities"
    width: Range = (3.4, 5.6)
    depth: Range = (3.2, 5.2)
    height: Range = (2.4, 2.9)
    l_shape: float = 0.25
    corner: Range = (0.3, 0.5)  # of an L: the share of each side that is missing
    night: float = 0.2
    sun: float = 0.45  # of the days; it shines in at a window, in the shaded profile
    furniture: float = 0.8
    small_things: float = 0.8
    distractors: float = 0.5
    clutter: float = 0.35
    dog: float = 0.6
    own_models: float = 0.6  # of the things for which there are models of one's own
    camera_height: Range = (1.2, 1.8)
    fov: Range = (52.0, 82.0)
    yaw_deviation: float = 35.0
    close_up: float = 0.33
    close_up_fov: Range = (26.0, 46.0)
    exposure: Range = (0.75, 1.5)
    contrast: Range = (0.2, 1.0)
    white_balance: float = 0.08
    effects: float = 0.5  # share of the pictures that have the following
    blur: Range = (0.0, 0.9)
    vignette: Range = (0.0, 0.3)
    noise: Range = (0.0, 5.0)
    jpeg: Range = (60.0, 100.0)

    def __post_init__(self) -> None:
        for f in fields(self): _check(f.name, getattr(self, f.name), *_LIMITS.get(f.name, (0.0, 1.0)))


_LIMITS = dict(width=(2.8, 12.0), depth=(2.8, 12.0), height=(2.2, 4.0), camera_height=(0.8, 2.0), fov=(20.0, 110.0),
               yaw_deviation=(0.0, 180.0), close_up_fov=(15.0, 90.0), exposure=(0.2, 4.0), blur=(0.0, 8.0), noise=(0.0, 60.0), jpeg=(5.0, 100.0), corner=(0.2, 0.6))


def _check(name: str, value: Any, low: float, high: float) -> None:
    "Refuse a value that is not a number (or an ascending pair) inside `low`..`high`"
    pair = isinstance(RoomConfig.__dataclass_fields__[name].default, tuple)
    numbers = list(value) if pair and isinstance(value, (list, tuple)) else [value]
    good = (len(numbers) == 2 if pair else True) and all(isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high for v in numbers)
    if good and numbers == sorted(numbers): return
    form = "two ascending numbers" if pair else "a number"
    raise SegError(f"the room setting '{name}' is {value!r}; give {form} between {low:g} and {high:g}.")


def load_config(path: str | Path) -> RoomConfig:
    "Read a JSON object of settings; those it leaves out keep their defaults"
    try: values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as e: raise SegError(f"cannot read the room settings {path}: {e}. Give a JSON file with one object.") from e
    if not isinstance(values, dict): raise SegError(f"the room settings {path} hold no JSON object; write {{\"width\": [3, 5]}}, for example.")
    return _changed(RoomConfig(), values, str(path))


def override(config: RoomConfig, text: str) -> RoomConfig:
    "Settings with some replaced, as in `night=0.5 width=3,4`"
    values = {}
    for word in text.split():
        name, _, value = word.partition("=")
        try: numbers = [float(v) for v in value.split(",")]
        except ValueError: raise SegError(f"'{word}' sets nothing; write name=number or name=low,high.") from None
        values[name] = numbers[0] if len(numbers) == 1 else numbers
    return _changed(config, values, "--ranges")


def _changed(config: RoomConfig, values: dict[str, Any], source: str) -> RoomConfig:
    known = [f.name for f in fields(RoomConfig)]
    unknown = sorted(set(values) - set(known))
    if unknown: raise SegError(f"unknown room setting '{unknown[0]}' in {source}; known are {', '.join(known)}.")
    return replace(config, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def turned(heading: float) -> np.ndarray:
    "2x2 rotation by `heading` degrees"
    a = np.radians(heading)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
