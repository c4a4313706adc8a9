"""What decides the bytes of every pair, as plain data.

Must not know how rooms are made or drawn, nor files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.assets import Asset, record
from virtual_room.scene import DEFAULT_CONFIG, RoomConfig

VERSION = 4  # of the rooms: raise it when the same seed gives other bytes
RENDERERS = ("fast", "shaded")
ANNOTATIONS = ("instances", "boxes", "visible", "depth", "normals")  # what can be written besides masks
SMALLEST, LARGEST = 32, 2048  # pixels


@dataclass(frozen=True)
class Plan:
    "The settings from which each pair of a folder follows by its number; `SegError` where one is out of range"
    seed: int = 0
    size: int = 256  # width and height in pixels
    images_per_room: int = 1
    config: RoomConfig = DEFAULT_CONFIG
    annotations: tuple[str, ...] = ()  # some of ANNOTATIONS
    renderer: str = "fast"  # one of RENDERERS
    assets: tuple[Asset, ...] = ()  # models of one's own
    one_room: int | None = None  # the seed of the only room, as for `seg_walk --seed`; None: ever other rooms

    def __post_init__(self) -> None:
        if self.renderer not in RENDERERS:
            raise SegError(f"--renderer is '{self.renderer}'; give auto, {' or '.join(RENDERERS)}")
        if not SMALLEST <= self.size <= LARGEST:
            raise SegError(f"--size is {self.size}; give {SMALLEST} to {LARGEST} pixels")
        if self.seed < 0:
            raise SegError(f"--seed is {self.seed}; give 0 or more")
        for name in self.annotations:
            if name not in ANNOTATIONS:
                raise SegError(f"--truth has '{name}'; give some of {', '.join(ANNOTATIONS)}, or nothing")
        if self.images_per_room < 1:
            raise SegError(f"--images_per_room is {self.images_per_room}; give 1 or more")
        if self.one_room is not None:
            self._check_one_room()

    def _check_one_room(self) -> None:
        if self.one_room < 0:
            raise SegError(f"--one_room is {self.one_room}; give the seed of a room, 0 or more")
        if self.images_per_room > 1:
            raise SegError("--one_room puts all images into one room; leave --images_per_room out")

    def room_of(self, index: int) -> int:
        "The number of an image's room; in one room its seed"
        if self.one_room is not None:
            return self.one_room
        return index // self.images_per_room

    def room_seed(self, index: int, attempt: int) -> int | list[int]:
        "What an image's room is made from, at the first and at further attempts"
        if self.one_room is not None:
            return self.one_room
        return [self.seed, self.room_of(index), attempt]

    def pose_seed(self, index: int, attempt: int, pose: int) -> list[int]:
        "What the camera of an image is drawn from"
        return [self.seed, self.room_of(index), attempt, index, pose]

    def settings(self, driver: str) -> dict[str, Any]:
        "What must be the same for a folder of pairs to go on with, as JSON knows it. Another driver draws other bytes"
        return dict(
            version=VERSION,
            seed=self.seed,
            size=self.size,
            images_per_room=self.images_per_room,
            truth=list(self.annotations),
            renderer=self.renderer,
            driver=driver,
            one_room=self.one_room,
            assets=record(self.assets),
            config=_as_json(self.config),
            labels=list(ROOM_LABELS.codes[1:]),
            label_colors=[list(color) for color in ROOM_LABELS.colors[1:]],
        )


def _as_json(config: RoomConfig) -> dict[str, Any]:
    "The ranges as JSON knows them and `load_config` reads them; without a focus as they were before there was one"
    values = asdict(config)
    if config.focus:
        values["focus"] = dict(config.focus)
    else:
        del values["focus"], values["focus_close_up"]
    return json.loads(json.dumps(values))
