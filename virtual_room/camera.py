"""A person's view of a room: from the walkable floor to the middle, or close to an object.

Must not know how rooms are made nor how anything is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from virtual_room.floorplan import OVERHEAD, walkable
from virtual_room.scene import DEFAULT_CONFIG, Camera, Range, Room, RoomConfig, SceneObject, Vec

Rng = np.random.Generator
RARE = (
    "furniture_clock",
    "furniture_floor_lamp",
    "furniture_nightTable",
    "furniture_drawer",
    "furniture_armchair",
)
CLOSE_UP_GROUPS = ("items_", "live_")
FLAT = ("furniture_clock", "furniture_painting", "building_door")  # on walls, to be seen from the front
NEAR = .6, 2.2  # meters from the middle of a small object in a close-up
FARTHER = .4, 2.0  # meters from the outside of a large one
PART_OF_IMAGE = .45, .85  # of the angle of view: how much of it a large object takes
SPAN = .2  # meters: smaller objects get the narrower half of the angles for close-ups
SPOTS = 96  # places on the floor that are tried
FLOOR_GAPS = ((.3, .28), (.15, .05), (.09, .09))  # meters to walls and objects: from comfortable to just possible
EFFECTS = ("blur", "vignette", "noise", "jpeg")


def make_camera(room: Room, rng: Rng, config: RoomConfig = DEFAULT_CONFIG) -> Camera:
    "A person's view from the walkable floor: of the room's middle with a deviation, or of an object near by"
    development = _development(rng, config)
    subject = _subject(room, rng, config)
    headroom = max(OVERHEAD, config.camera_height[1] + .1)
    spot = _standing_point(room, rng, subject, headroom)
    eye = np.array([*spot, rng.uniform(*config.camera_height)])
    if subject is None:
        target = _toward_middle(room, rng, eye, config.yaw_deviation)
        fov = rng.uniform(*config.fov)
    else:
        target = _near(rng, subject, .12)
        fov = rng.uniform(*_close_up_fov(config, subject, eye))
    return Camera(tuple(eye.tolist()), target, float(fov), **development)


def _subject(room: Room, rng: Rng, config: RoomConfig) -> SceneObject | None:
    "The object of a close-up; None for a view of the room"
    focused = _focused_subject(room, rng, config)
    if focused is not None:
        return focused
    candidates = [o for o in room.objects if _is_small(o)]
    if candidates and rng.random() < config.close_up:
        return candidates[int(rng.integers(len(candidates)))]
    return None


def _is_small(o: SceneObject) -> bool:
    "Is it of the labels that are small in views of a room?"
    return o.label.startswith(CLOSE_UP_GROUPS) or o.label in RARE


def _focused_subject(room: Room, rng: Rng, config: RoomConfig) -> SceneObject | None:
    "For some of the poses an object of a label to show more of: a label by its weight, then any object of it"
    there = {o.label for o in room.objects}
    wanted = [(label, weight) for label, weight in config.focus if label in there]
    if not wanted or rng.random() >= config.focus_close_up:
        return None
    labels, weights = zip(*wanted)
    label = labels[int(rng.choice(len(labels), p=np.divide(weights, sum(weights))))]
    candidates = [o for o in room.objects if o.label == label]
    return candidates[int(rng.integers(len(candidates)))]


def _development(rng: Rng, config: RoomConfig) -> dict[str, Any]:
    "How the image is developed, and the effects of the lens on some of the images"
    exposure = float(rng.uniform(*config.exposure))
    contrast = float(rng.uniform(*config.contrast))
    balance = 1 + config.white_balance * rng.uniform(-1, 1, 3) * [1, .3, 1]
    development = dict(exposure=exposure, contrast=contrast, balance=tuple(balance.tolist()))
    if rng.random() < config.effects:
        for name in EFFECTS:
            development[name] = float(rng.uniform(*getattr(config, name)))
    return development


def _toward_middle(room: Room, rng: Rng, eye: np.ndarray, deviation: float) -> Vec:
    "A point in the direction of the room's middle, turned by at most `deviation` degrees"
    x, y, z = np.array([*room.middle, rng.uniform(.6, 1.3)]) - eye
    turn = np.radians(rng.uniform(-deviation, deviation))
    cos, sin = np.cos(turn), np.sin(turn)
    target = eye + np.array([cos * x - sin * y, sin * x + cos * y, z])
    return tuple(target.tolist())


def _close_up_fov(config: RoomConfig, subject: SceneObject, eye: np.ndarray) -> Range:
    "The range of angles for a close-up, so that a mug or a phone fills more than a few pixels, and a bed not all"
    low, high = config.close_up_fov
    if not _is_small(subject):
        widest = max(high, config.fov[1])
        distance = np.linalg.norm(eye[:2] - subject.spot)
        angle = 2 * np.degrees(np.arctan2(max(subject.size) / 2, distance))
        return tuple(np.clip(np.divide(angle, PART_OF_IMAGE[::-1]), low, widest).tolist())
    is_small = max(subject.size) < SPAN
    return (low, (low + high) / 2) if is_small else (low, high)


def _near(rng: Rng, subject: SceneObject, spread: float) -> Vec:
    "A point near an object, rather at its upper half: that is where lamps and dogs are told apart"
    height = subject.bottom + subject.size[2] * rng.uniform(.4, .9)
    middle = np.array([*subject.spot, height])
    return tuple((middle + rng.uniform(-spread, spread, 3)).tolist())


def _standing_point(room: Room, rng: Rng, subject: SceneObject | None, headroom: float) -> tuple[float, float]:
    "A free place on the floor: from afar of the middle, or within reach of the subject"
    points = rng.uniform(room.low, room.high, (SPOTS, 2))
    goal = np.asarray(room.middle if subject is None else subject.at[:2])
    distance = np.linalg.norm(points - goal, axis=1)
    free = _free_points(room, points, headroom)
    best = free & _good_view(points, distance, subject)
    for choice in (best, free, distance == distance.max()):
        if choice.any():
            break
    indices = np.flatnonzero(choice)
    x, y = points[indices[int(rng.integers(len(indices)))]]
    return float(x), float(y)


def _good_view(points: np.ndarray, distance: np.ndarray, subject: SceneObject | None) -> np.ndarray:
    "From which points (N, 2) the room's middle is far enough, or the subject near enough (N,)"
    if subject is None:
        return distance > 1.0
    low, high = _reach(subject)
    return (distance > low) & (distance < high) & _sees_front(points, subject)


def _reach(subject: SceneObject) -> Range:
    "The least and the greatest distance (meters) from the middle of the subject of a close-up"
    if _is_small(subject):
        return NEAR
    radius = max(subject.size) / 2
    return radius + FARTHER[0], radius + FARTHER[1]


def _free_points(room: Room, points: np.ndarray, headroom: float) -> np.ndarray:
    "On which points (N, 2) a person can stand (N,), with smaller gaps where there is no other place"
    for wall_gap, object_gap in FLOOR_GAPS:
        free = walkable(room, points, wall_gap, object_gap, headroom)
        if free.any():
            break
    return free


def _sees_front(points: np.ndarray, subject: SceneObject) -> np.ndarray:
    "Which points (N, 2) see what is flat on a wall from its front (N,); all of them for other objects"
    if subject.label not in FLAT:
        return np.ones(len(points), bool)
    angle = np.radians(subject.heading)
    front = np.array([-np.sin(angle), np.cos(angle)])
    away = points - np.asarray(subject.at[:2])
    return away @ front > .5 * np.linalg.norm(away, axis=1)
