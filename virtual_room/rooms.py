"""From seeds to rooms: `make_room` builds the shell, furnishes it and switches the lights on.

Must not know how anything is drawn or written.
"""

from __future__ import annotations

import numpy as np

from virtual_room.assets import Asset
from virtual_room.furnishing import furnish, switch_on_lamps
from virtual_room.furniture import draw_style
from virtual_room.placement import Layout
from virtual_room.scene import DEFAULT_CONFIG, Light, Room, RoomConfig, Vec
from virtual_room.shell import build_shell, draw_outline, draw_sun


def make_room(seed: int | list[int], config: RoomConfig = DEFAULT_CONFIG, assets: tuple[Asset, ...] = ()) -> Room:
    "The room of a seed; the same seed, ranges and models of one's own give the same room"
    rng = np.random.default_rng(seed)
    outline = draw_outline(rng, config)
    layout = Layout(outline, float(rng.uniform(*config.height)), rng)
    night = bool(rng.random() < config.night)
    lights = build_shell(layout, night)
    furnish(layout, config, draw_style(rng, assets, config.own_models))
    lights += switch_on_lamps(layout, night)
    ambient = _ambient(layout, lights)
    if not night and rng.random() < config.sun:
        lights.append(draw_sun(rng, lights[0]))
    return Room(layout.outline, layout.height, tuple(layout.objects), tuple(lights), ambient)


def _ambient(layout: Layout, lights: list[Light]) -> Vec:
    "Light from everywhere: a share of what all lights give, spread over the floor"
    share = layout.rng.uniform(.15, .45)
    total = sum((np.array(light.color) * light.area for light in lights), np.zeros(3))
    return tuple((share * total / np.prod(layout.high)).tolist())
