"""Parametric furniture and small items: each function draws one model from a random generator and a style.

How to add a piece, in one file:
1. Choose the module it belongs to (`beds`, `storage`, `lamps`, `tableware`, ...).
2. Write a function `(rng, style) -> Model` there that builds it of primitives (see `primitives`), front towards +y.
3. Decorate it: `@furniture(label="furniture_bench", place=OnFloor(chance=WANTED))`; label "empty" is unlabelled.
4. `place` says where, how often and after what it comes into a room; all rules are in `rules`.
5. A new label needs its row in labels.csv (and `nbs_lib.labels.ROOM_LABELS`); raise `VERSION` of the generator.
   Nothing else.

A module of this folder registers its pieces when it is imported; all of them are imported below, by themselves.
Must not know how a model is lit or drawn.
"""

from importlib import import_module
from pkgutil import iter_modules

from virtual_room.furniture.materials import Material, Style, draw_style
from virtual_room.furniture.registry import furniture, registered, schedule
from virtual_room.furniture.rules import Piece

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Material", "Piece", "Style", "draw_style", "furniture", "registered", "schedule"]
