"""Where a person stands and looks, and where they may walk. Pure numbers; must not know windows or servers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from virtual_room.placement import walkable
from virtual_room.scene import Camera, Room

SPEED = 1.6  # meters a second
LONGEST_STEP = .1  # seconds
STEEPEST = 75.0  # degrees up or down
TO_WALLS, TO_FURNITURE = .25, .15  # meters that a person keeps


@dataclass(frozen=True)
class Viewpoint:
    "A person's eyes: where they are in meters, and where they look in degrees, yaw counter-clockwise from +x"
    at: tuple[float, float, float]
    yaw: float
    pitch: float

    @property
    def target(self) -> tuple[float, float, float]:
        "A point a meter ahead"
        yaw, pitch = np.radians((self.yaw, self.pitch))
        ahead = [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)]
        return tuple((np.asarray(self.at) + ahead).tolist())

    def turn(self, right: float, down: float) -> Viewpoint:
        "Look further to the right and down, in degrees; never steeper than STEEPEST"
        pitch = np.clip(self.pitch - down, -STEEPEST, STEEPEST)
        return replace(self, yaw=(self.yaw - right) % 360, pitch=float(pitch))

    def walk(self, directions: list[tuple[int, int]], seconds: float, room: Room) -> Viewpoint:
        "A step along the sum of `directions` (right, forward), or along the obstacle that is in the way"
        right, forward = np.sum(directions, axis=0) if directions else (0, 0)
        if not (right or forward):
            return self
        spots = self._spots(self._step(right, forward, seconds))
        free = walkable(room, spots, TO_WALLS, TO_FURNITURE)
        if not free[3]:
            free[0] = True  # whoever stands too close already may walk away
        if not free.any():
            return self
        x, y = spots[int(np.argmax(free))].tolist()
        return replace(self, at=(x, y, self.at[2]))

    def _spots(self, step: np.ndarray) -> np.ndarray:
        "Where one stands (4, 2) after a step, after its part along x, after its part along y, and without it"
        ways = [step, step * (1, 0), step * (0, 1), (0, 0)]
        return np.array(self.at[:2]) + ways

    def _step(self, right: float, forward: float, seconds: float) -> np.ndarray:
        "The way (2,) in meters that is walked in so many seconds"
        yaw = np.radians(self.yaw)
        axes = np.array([[np.sin(yaw), np.cos(yaw)], [-np.cos(yaw), np.sin(yaw)]])
        step = axes @ (right, forward)
        return step * (SPEED * min(seconds, LONGEST_STEP) / np.linalg.norm(step))


def viewpoint_of(camera: Camera) -> Viewpoint:
    "The viewpoint from which a camera looks"
    x, y, z = np.subtract(camera.target, camera.at)
    yaw, pitch = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    return Viewpoint(camera.at, float(yaw) % 360, float(pitch))
