"Materials, and the style that the furniture of one room has in common"

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from virtual_room.assets import Asset
from virtual_room.furniture.draws import ANY_HUE, draw_color, one_of
from virtual_room.scene import Vec
from virtual_room.textures import hsv, pick

Rng = np.random.Generator


TEXTILE_SATURATIONS = (.03, .06, .1, .18, .3, .5)
TEXTILE_VALUES = (1, .9, .75, .5, .3)


@dataclass(frozen=True)
class Material:
    "A color, a texture that it tints, and how large the texture is"
    color: Vec
    texture: str = "plain"
    tile: float = 1.0  # meters per repeat


@dataclass(frozen=True)
class Style:
    "What the furniture of one room has in common"
    wood: Material
    front: Material
    metal: Material
    textiles: tuple[Material, ...]
    assets: tuple[Asset, ...] = ()  # models of one's own
    asset_share: float = 0.0  # of the objects for which there is one

    def assets_of(self, label: str) -> list[Asset]:
        "The models of one's own of a label"
        return [asset for asset in self.assets if asset.label == label]

    def textile(self, rng: Rng) -> Material:
        "One of the room's fabrics"
        return one_of(rng, self.textiles)


def draw_style(rng: Rng, assets: tuple[Asset, ...] = (), asset_share: float = 0.0) -> Style:
    "The style of a room"
    wood = draw_wood(rng)
    front = wood if rng.random() < .6 else draw_wood(rng)
    metal = draw_metal(rng)
    textiles = tuple(draw_textile(rng) for _ in range(4))
    return Style(wood, front, metal, textiles, assets, asset_share)


def draw_metal(rng: Rng) -> Material:
    "Steel of any brightness, or brass"
    shine = rng.uniform(.1, .8)
    if rng.random() < .7:
        return Material((shine, shine, shine))
    return Material(hsv(.12, .45, rng.uniform(.5, .85)))


def draw_wood(rng: Rng) -> Material:
    "Stained wood, or painted white, gray, black or a color"
    kind = rng.random()
    if kind < .6:
        stain = draw_color(rng, (.04, .11), (.3, .7), (.3, 1))
        return Material(stain, pick(rng, "wood"), .5)
    if kind < .92:
        return Material(hsv(rng.uniform(.05, .6), rng.uniform(0, .08), rng.choice([.95, .9, .6, .25, .12])))
    return Material(draw_color(rng, ANY_HUE, (.1, .45), (.3, .9)))


def draw_textile(rng: Rng) -> Material:
    "A fabric, rather pale than strong in color"
    saturation = rng.choice(TEXTILE_SATURATIONS)
    hue = rng.random()
    value = rng.choice(TEXTILE_VALUES) - .25 * saturation
    return Material(hsv(hue, saturation, value), pick(rng, "fabric"), float(rng.uniform(.25, .6)))


def draw_ceramic(rng: Rng) -> Material:
    "Ceramic or glass of a clear color"
    return Material(hsv(rng.random(), rng.choice([.03, .3, .6, .85]), rng.choice([.95, .8, .55, .3])))
