"The register of furniture: a function becomes a piece by its decorator"

from __future__ import annotations

from collections.abc import Callable

from virtual_room.furniture.rules import Piece, Rule
from virtual_room.scene import Model

Make = Callable[..., Model]
_PIECES: list[Piece] = []


def furniture(label: str, place: Rule | tuple[Rule, ...]) -> Callable[[Make], Make]:
    """Decorate a function `(rng, style) -> Model` that makes furniture of a label ("empty": unlabelled).

    `place` is a rule, or several, of `virtual_room.furniture.rules`.
    """
    def register(make: Make) -> Make:
        rules = place if isinstance(place, tuple) else (place,)
        _PIECES.append(Piece(make.__name__, label, make, rules))
        return make
    return register


def registered() -> tuple[Piece, ...]:
    "All pieces"
    return tuple(_PIECES)


def schedule() -> list[tuple[Rule, list[Piece]]]:
    "The rules in the order of their turns, each with the pieces that share it"
    shared: dict[int, tuple[Rule, list[Piece]]] = {}
    for piece in _PIECES:
        for rule in piece.rules:
            shared.setdefault(id(rule), (rule, []))[1].append(piece)
    return sorted(shared.values(), key=lambda pair: pair[0].turn)
