"""A room as plain data: objects made of primitives, lights, cameras, and the ranges they are drawn from.

Must not know how anything is drawn, placed or written: no engine, no random numbers, no files but a configuration.
Meters and degrees; z is up; headings turn counter-clockwise seen from above; colors are sRGB in 0..1.
An object's own frame has its origin in the middle of its footprint on its lowest plane, and its front looks along +y.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS

Vec = tuple[float, float, float]
Range = tuple[float, float]
Outline = tuple[tuple[float, float], ...]  # corners of a floor, counter-clockwise
Focus = tuple[tuple[str, float], ...]  # labels and weights, see `RoomConfig`

EVERYWHERE = ("building_wall", "building_floor", "building_ceiling")  # labels that every room shows enough of
FOCUS_LABELS = tuple(name for name in ROOM_LABELS.codes[1:] if name not in EVERYWHERE)


@dataclass(frozen=True)
class Primitive:
    "One simple shape of an object, in the object's frame"
    shape: tuple  # name and parameters, see `shapes.mesh`
    size: Vec
    center: Vec
    color: Vec = (1.0, 1.0, 1.0)  # multiplies the texture
    texture: str = "plain"
    tile: float = 1.0  # meters per repeat of the texture; 0 stretches it once over the shape
    rotation: Vec = (0.0, 0.0, 0.0)  # degrees about x, then y, then z
    emission: float = 0.0  # light of its own, as a share of full brightness


@dataclass(frozen=True)
class SupportSurface:
    "A level rectangle on which small objects may stand, in the frame of the object that offers it"
    x0: float
    y0: float
    x1: float
    y1: float
    z: float
    headroom: float = 10.0

    @property
    def low(self) -> np.ndarray:
        "Its least x and y, (2,)"
        return np.array([self.x0, self.y0])

    @property
    def high(self) -> np.ndarray:
        "Its greatest x and y, (2,)"
        return np.array([self.x1, self.y1])


@dataclass(frozen=True)
class Model:
    "An object before it has a place"
    label: str
    kind: str
    size: Vec
    primitives: tuple[Primitive, ...]
    supports: tuple[SupportSurface, ...] = ()

    def labeled(self, label: str) -> Model:
        "The same model with another label"
        return replace(self, label=label)



@dataclass(frozen=True)
class SceneObject:
    "A model with its place"
    model: Model
    at: Vec
    heading: float
    support: int  # index of the object it stands on or hangs from

    @property
    def label(self) -> str:
        "The name of its class in the label table"
        return self.model.label

    @property
    def kind(self) -> str:
        "What it is called among people"
        return self.model.kind

    @property
    def size(self) -> Vec:
        "Width, depth and height of the box that it occupies"
        return self.model.size

    @property
    def spot(self) -> np.ndarray:
        "The middle (2,) of its footprint"
        return np.asarray(self.at[:2])

    @property
    def bottom(self) -> float:
        "Height of its lowest plane"
        return self.at[2]

    @property
    def top(self) -> float:
        "Height of its highest plane"
        return self.at[2] + self.model.size[2]

    @cached_property
    def footprint(self) -> np.ndarray:
        "The four corners (4, 2) of its base in the room"
        w, d = self.size[:2]
        corners = np.array([[-w, -d], [w, -d], [w, d], [-w, d]]) / 2
        return corners @ rotation_2d(self.heading).T + self.spot

    def in_own_frame(self, points: np.ndarray) -> np.ndarray:
        "Points (N, 2) of the room in the frame of the object"
        return (points - self.spot) @ rotation_2d(self.heading)


@dataclass(frozen=True)
class Light:
    "A small bright area; `normal` (0, 0, 0) shines to all sides, and no area is the sun, whose rays are parallel"
    at: Vec
    normal: Vec
    color: Vec  # linear, times strength
    area: float


@dataclass(frozen=True)
class Camera:
    "Where from, where to, and how the image is developed"
    at: Vec
    target: Vec
    fov: float  # degrees, both ways: images are square
    exposure: float = 1.0
    contrast: float = 0.0  # 0 plain .. 1 strong
    balance: Vec = (1.0, 1.0, 1.0)
    blur: float = 0.0  # deviation in pixels of an image 256 pixels wide
    vignette: float = 0.0  # share of light that is missing in the corners
    noise: float = 0.0  # deviation in gray levels
    jpeg: float = 100.0  # quality; 100: never compressed


@dataclass(frozen=True)
class Room:
    "A furnished room; its first objects are the floor, the ceiling and a wall for each side of the outline"
    outline: Outline
    height: float
    objects: tuple[SceneObject, ...]
    lights: tuple[Light, ...]
    ambient: Vec  # linear

    @property
    def low(self) -> np.ndarray:
        "The least x and y (2,) of the outline"
        return np.min(self.outline, axis=0)

    @property
    def high(self) -> np.ndarray:
        "The greatest x and y (2,) of the outline"
        return np.max(self.outline, axis=0)

    @property
    def middle(self) -> tuple[float, float]:
        "The mean of the corners"
        return tuple(np.mean(self.outline, axis=0).tolist())

    def asdict(self) -> dict[str, Any]:
        "Nested dictionaries and tuples, ready for JSON"
        return asdict(self)


@dataclass(frozen=True)
class RoomConfig:
    "The ranges that rooms and poses are drawn from; shares are probabilities. Raises `SegError` for a bad value"
    width: Range = (3.4, 5.6)
    depth: Range = (3.2, 5.2)
    height: Range = (2.4, 2.9)
    l_shape: float = 0.25
    corner: Range = (0.3, 0.5)  # of an L: the share of each side that is missing
    night: float = 0.2
    sun: float = 0.45  # of the days; it shines in at a window, in the shaded renderer
    furniture: float = 0.8
    small_things: float = 0.8
    distractors: float = 0.5
    clutter: float = 0.35
    dog: float = 0.6
    own_models: float = 0.6  # of the objects for which there are models of one's own
    camera_height: Range = (1.2, 1.8)
    fov: Range = (52.0, 82.0)
    yaw_deviation: float = 35.0
    close_up: float = 0.33
    close_up_fov: Range = (26.0, 46.0)
    exposure: Range = (0.75, 1.5)
    contrast: Range = (0.2, 1.0)
    white_balance: float = 0.08
    effects: float = 0.5  # share of the images that have the following
    blur: Range = (0.0, 0.9)
    vignette: Range = (0.0, 0.3)
    noise: Range = (0.0, 5.0)
    jpeg: Range = (60.0, 100.0)
    focus: Focus = ()  # labels to show more of, as {label: weight}: 0 as ever .. 1 wherever there is a place
    focus_close_up: float = 0.5  # share of the poses that are close-ups of these labels, before `close_up`

    def __post_init__(self) -> None:
        object.__setattr__(self, "focus", _as_focus(self.focus))
        ranges = [field for field in fields(self) if field.name != "focus"]
        for field in ranges:
            limits = _LIMITS.get(field.name, (0.0, 1.0))
            _check(field.name, getattr(self, field.name), *limits)


_LIMITS = dict(
    width=(2.8, 12.0),
    depth=(2.8, 12.0),
    height=(2.2, 4.0),
    corner=(0.2, 0.6),
    camera_height=(0.8, 2.0),
    fov=(20.0, 110.0),
    close_up_fov=(15.0, 90.0),
    yaw_deviation=(0.0, 180.0),
    exposure=(0.2, 4.0),
    blur=(0.0, 8.0),
    noise=(0.0, 60.0),
    jpeg=(5.0, 100.0),
)


def _check(name: str, value: Any, low: float, high: float) -> None:
    "Refuse a value that is not a number (or an ascending pair) inside `low`..`high`"
    wants_pair = isinstance(getattr(RoomConfig, name), tuple)
    if wants_pair and _is_pair_in(value, low, high) or not wants_pair and _is_number_in(value, low, high):
        return
    form = "two ascending numbers" if wants_pair else "a number"
    raise SegError(f"the room setting '{name}' is {value!r}; give {form} between {low:g} and {high:g}.")


def _as_focus(value: Any) -> Focus:
    "Labels and weights in the order of the names, those of weight 0 left out; `SegError` for anything else"
    try:
        weights = dict(value)
    except (TypeError, ValueError):
        example = '{"items_mug": 0.5}'
        raise SegError(f"the room setting 'focus' is {value!r}; give labels and weights, such as {example}.") from None
    for label, weight in weights.items():
        _check_weight(label, weight)
    wanted = [(label, float(weight)) for label, weight in weights.items() if weight]
    return tuple(sorted(wanted))


def _check_weight(label: Any, weight: Any) -> None:
    if label not in FOCUS_LABELS:
        raise SegError(f"the room setting 'focus' names {label!r}; give some of {', '.join(FOCUS_LABELS)}.")
    if not _is_number_in(weight, 0.0, 1.0):
        raise SegError(f"the room setting 'focus' gives {label} the weight {weight!r}; give a number between 0 and 1.")


def _is_number_in(value: Any, low: float, high: float) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and low <= value <= high


def _is_pair_in(value: Any, low: float, high: float) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    return all(_is_number_in(v, low, high) for v in value) and value[0] <= value[1]


DEFAULT_CONFIG = RoomConfig()


def load_config(path: str | Path) -> RoomConfig:
    "Read a JSON object of settings; those it leaves out keep their defaults. Raises `SegError`"
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        remedy = "Give a JSON file with one object."
        raise SegError(f"cannot read the room settings {path}: {e}. {remedy}") from e
    if not isinstance(values, dict):
        example = '{"width": [3, 5]}'
        raise SegError(f"the room settings {path} hold no JSON object; write {example}, for example.")
    return _changed(DEFAULT_CONFIG, values, str(path))


def override(config: RoomConfig, text: str) -> RoomConfig:
    "Settings with some replaced, as in `night=0.5 width=3,4 focus=items_mug:0.5,items_tv:1`. Raises `SegError`"
    values = {}
    for word in text.split():
        name, _, value = word.partition("=")
        try:
            values[name] = _read_weights(value) if name == "focus" else _read_numbers(value)
        except ValueError:
            forms = "name=number, name=low,high or focus=label:weight,label:weight"
            raise SegError(f"'{word}' sets nothing; write {forms}.") from None
    return _changed(config, values, "--ranges")


def _read_numbers(text: str) -> float | list[float]:
    "One number, or several separated by commas; `ValueError` for anything else"
    numbers = [float(v) for v in text.split(",")]
    return numbers[0] if len(numbers) == 1 else numbers


def _read_weights(text: str) -> dict[str, float]:
    "`label:weight,label:weight` as a dictionary, empty for no text; `ValueError` for anything else"
    weights = {}
    for word in filter(None, text.split(",")):
        label, weight = word.split(":")
        weights[label] = float(weight)
    return weights


def _changed(config: RoomConfig, values: dict[str, Any], source: str) -> RoomConfig:
    "The settings with `values` in place; an unknown name is refused"
    known = [f.name for f in fields(RoomConfig)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        names = ", ".join(known)
        raise SegError(f"unknown room setting '{unknown[0]}' in {source}; known are {names}.")
    as_tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return replace(config, **as_tuples)


def rotation_2d(heading: float) -> np.ndarray:
    "The matrix (2, 2) that turns by `heading` degrees, counter-clockwise"
    angle = np.radians(heading)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
