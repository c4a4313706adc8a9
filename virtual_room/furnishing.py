"""Furnishing: all registered pieces come into a room by their rules, and lamps are switched on.

Must not know any piece by name; a new one is met through the register.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from virtual_room.floorplan import CEILING
from virtual_room.furniture import Style, registered, schedule
from virtual_room.furniture.lamps import STRENGTH, switched_on
from virtual_room.furniture.materials import Rng
from virtual_room.furniture.rules import Site, piece_weights
from virtual_room.placement import Layout
from virtual_room.scene import Light, RoomConfig, SceneObject

ON_AT_NIGHT, ON_BY_DAY = .85, .2  # shares of the lamps


def furnish(layout: Layout, config: RoomConfig, style: Style) -> None:
    "Bring furniture and items into a room, each piece in its turn"
    site = Site(layout, config, style, weights=piece_weights(registered(), config.focus))
    for rule, pieces in schedule():
        rule.apply(site, pieces)


def switch_on_lamps(layout: Layout, night: bool) -> list[Light]:
    "Switch on most lamps at night and few by day; their lights"
    rng, lights = layout.rng, []
    for i, o in enumerate(layout.objects):
        if o.kind not in STRENGTH or rng.random() > (ON_AT_NIGHT if night else ON_BY_DAY):
            continue
        layout.objects[i] = replace(o, model=switched_on(o.model))
        lights.append(_lamp_light(rng, o))
    return lights


def _lamp_light(rng: Rng, lamp: SceneObject) -> Light:
    "Warm light that shines to all sides"
    x, y, z = lamp.at
    z += .05 if lamp.support == CEILING else lamp.size[2] * .8
    warm = rng.uniform(.05, .35)
    strength = STRENGTH[lamp.kind] * rng.uniform(.7, 1.4)
    color = strength * np.array([1 + warm, 1, 1 - warm])
    return Light((x, y, z), (0, 0, 0), tuple(color.tolist()), 1.0)
