"""Rooms to learn from: a room is plain data drawn from a seed, a renderer shows it, a generator writes pairs.

`import virtual_room` loads no engine; `virtual_room.render` does.
"""

from virtual_room.camera import make_camera
from virtual_room.generate import generate
from virtual_room.placement import find_faults
from virtual_room.plan import Plan
from virtual_room.rooms import make_room
from virtual_room.scene import (
    Camera,
    Light,
    Model,
    Primitive,
    Room,
    RoomConfig,
    SceneObject,
    SupportSurface,
    load_config,
)

__all__ = [
    "Camera",
    "Light",
    "Model",
    "Plan",
    "Primitive",
    "Room",
    "RoomConfig",
    "SceneObject",
    "SupportSurface",
    "find_faults",
    "generate",
    "load_config",
    "make_camera",
    "make_room",
]
