"""Rules that say where, how often and after what a piece of furniture comes into a room.

Every rule is applied once a room, to all pieces that share it. Must not know any piece but by its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, auto

from virtual_room.assets import stand_in
from virtual_room.floorplan import CEILING, FLOOR, Wall, overhang
from virtual_room.furniture.draws import draw_int, one_of
from virtual_room.furniture.materials import Rng, Style
from virtual_room.placement import Layout
from virtual_room.scene import Focus, Model, Range, RoomConfig, SceneObject, Vec

TRIED_OBJECTS = 3  # for a small item, of those it may stand on
MIDDLE_TRIES = 12
SIDES = (-1, 1)


class Turn(IntEnum):
    "When a piece comes into a room: what comes first has the space"
    BED = auto()
    BEDSIDE = auto()
    TELEVISION_STAND = auto()
    TELEVISION = auto()
    SEAT = auto()
    STORAGE = auto()
    FLOOR_LAMP = auto()
    SIDE_TABLE = auto()
    PET = auto()
    CLUTTER = auto()
    DECORATION = auto()
    OTHER = auto()
    RUG = auto()
    CLOCK = auto()
    WALL_SHELF = auto()
    PAINTING = auto()
    CEILING_LAMP = auto()
    TABLE_LAMP = auto()
    ITEM = auto()


@dataclass(frozen=True)
class Piece:
    "A kind of furniture: what it is called, how it is made and where it goes"
    name: str
    label: str
    make: Callable[..., Model]  # (rng, style), and a width for what must fit on something
    rules: tuple[Rule, ...]

    def draw(self, rng: Rng, style: Style, **size: float) -> Model:
        "A model of it, or one of one's own of the same label"
        model = self.make(rng, style, **size).labeled(self.label)
        own = style.assets_of(self.label)
        if own and rng.random() < style.asset_share:
            return stand_in(model, one_of(rng, own))
        return model


@dataclass(frozen=True)
class Chance:
    "A probability: `least`, and `factor` times a share of the room settings"
    share: str
    factor: float = 1.0
    least: float = 0.0

    def draw(self, rng: Rng, config: RoomConfig, weight: float = 0.0) -> bool:
        "Does it happen this time? With a weight also in that share of the times when it would not"
        probability = self.least + self.factor * getattr(config, self.share)
        return rng.random() < probability + weight * (1 - probability)


@dataclass
class Site:
    "A room that is being furnished, and what stands in it already"
    layout: Layout
    config: RoomConfig
    style: Style
    placed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # by name of the piece
    ranked: list[tuple[int, int]] = field(default_factory=list)  # rank and index of what carries small items
    weights: dict[str, float] = field(default_factory=dict)  # by name of the piece: how much more of it, see `focus`

    @property
    def rng(self) -> Rng:
        "Where all chance comes from"
        return self.layout.rng

    @property
    def carriers(self) -> list[int]:
        "The objects on which small items may stand, by rank"
        return [index for _, index in sorted(self.ranked, key=lambda pair: pair[0])]

    def happens(self, probability: float) -> bool:
        "Does something happen this time? 0 and 1 take nothing from the generator"
        if probability in (0, 1):
            return bool(probability)
        return bool(self.rng.random() < probability)

    def weight(self, piece: Piece) -> float:
        "How much more of a piece there shall be than in other rooms, 0..1"
        return self.weights.get(piece.name, 0.0)

    def draw_extra(self, piece: Piece, most: int) -> int:
        "How many more of a piece there shall be, at most `most`"
        weight = self.weight(piece)
        return sum(self.happens(weight) for _ in range(most))

    def neighbor(self, name: str) -> int | None:
        "The first placed piece of a name"
        return next(iter(self.placed[name]), None)

    def draw(self, piece: Piece, **size: float) -> Model:
        "A model of a piece in the style of the room"
        return piece.draw(self.rng, self.style, **size)


@dataclass(frozen=True, kw_only=True)
class Rule:
    "What all rules have: a turn, a chance for each piece, and whether small items may stand on the piece"
    turn: Turn = Turn.OTHER
    chance: Chance | None = None  # None: always
    carrier_rank: int | None = None  # items try to stand on the lower ranks first; None: on nothing of this piece
    is_shuffled: bool = False  # do pieces that share the rule come in any order?
    extra: int = 0  # how many more of a piece there may be, at most, where rooms show more of it

    def apply(self, site: Site, pieces: list[Piece]) -> None:
        "Bring the pieces that share this rule into a room"
        order = site.rng.permutation(len(pieces)) if self.is_shuffled else range(len(pieces))
        for i in order:
            if self.happens(site, site.weight(pieces[i])):
                self.bring(site, pieces[i])

    def happens(self, site: Site, weight: float = 0.0) -> bool:
        "Does the room get a piece of this weight this time?"
        return self.chance is None or self.chance.draw(site.rng, site.config, weight)

    def bring(self, site: Site, piece: Piece) -> None:
        "Place a piece, and more of it where the rooms show more of it"
        for _ in range(1 + site.draw_extra(piece, self.extra)):
            self.record(site, piece, self.put(site, piece))

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "Place a piece (perhaps several times): indices, None where there was no room"
        raise NotImplementedError

    def record(self, site: Site, piece: Piece, indices: list[int | None]) -> None:
        "Remember what was placed"
        found = [i for i in indices if i is not None]
        site.placed[piece.name] += found
        if self.carrier_rank is not None:
            site.ranked += [(self.carrier_rank, i) for i in found]


@dataclass(frozen=True, kw_only=True)
class AgainstWall(Rule):
    "With its back to any wall"
    extra: int = 1
    tries: int = 24
    centered: float = 0.0  # probability that the middle of the wall is tried first

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece"
        model, centered = site.draw(piece), site.happens(self.centered)
        return [site.layout.against_wall(model, tries=self.tries, centered=centered)]


@dataclass(frozen=True, kw_only=True)
class Beside(Rule):
    "On both sides of another piece where there is room; without such a piece by a wall"
    neighbor: str

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "The same model twice, or once"
        model, neighbor = site.draw(piece), site.neighbor(self.neighbor)
        if neighbor is None:
            return [site.layout.against_wall(model)]
        gap = float(site.rng.uniform(.04, .12))
        return [site.layout.beside(model, neighbor, side, gap) for side in SIDES]


@dataclass(frozen=True, kw_only=True)
class Opposite(Rule):
    "At the wall that another piece looks at, else at any"
    neighbor: str
    above: float = 0.0  # meters that stay free over it

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece"
        walls, model = self._opposite_walls(site), site.draw(piece)
        if walls:
            found = site.layout.against_wall(model, walls=walls, centered=True, above=self.above)
            if found is not None:
                return [found]
        return [site.layout.against_wall(model, above=self.above)]

    def _opposite_walls(self, site: Site) -> list[Wall]:
        neighbor = site.neighbor(self.neighbor)
        if neighbor is None:
            return []
        return site.layout.walls_opposite(neighbor)


@dataclass(frozen=True, kw_only=True)
class Upon(Rule):
    "On every placed piece of a name, towards its back; the maker gets the `width` that it may have"
    carrier: str
    width_share: float = 1.0  # of the carrier's width

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece on each"
        return [self._put_on(site, piece, i) for i in site.placed[self.carrier]]

    def _put_on(self, site: Site, piece: Piece, carrier: int) -> int | None:
        width = site.layout.objects[carrier].size[0] * self.width_share
        model = site.draw(piece, width=width)
        return site.layout.on_top(model, carrier, heading=0.0, back=True)


@dataclass(frozen=True, kw_only=True)
class OnFloor(Rule):
    "On free floor"
    extra: int = 2
    gap: float = .04  # meters to everything else
    tries: int = 40
    near_wall: float = 0.0  # probability that it must be near a wall
    faces_middle: bool = False

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece"
        model, near_wall = site.draw(piece), site.happens(self.near_wall)
        return [site.layout.on_floor(model, self.gap, self.tries, near_wall, self.faces_middle)]


@dataclass(frozen=True, kw_only=True)
class Scattered(OnFloor):
    "Some of the pieces that share the rule, a few in all"
    count: tuple[int, int] = (1, 5)

    def apply(self, site: Site, pieces: list[Piece]) -> None:
        "Any piece, again and again"
        if not self.happens(site):
            return
        for _ in range(draw_int(site.rng, *self.count)):
            piece = one_of(site.rng, pieces)
            self.record(site, piece, self.put(site, piece))


@dataclass(frozen=True, kw_only=True)
class FlatInMiddle(Rule):
    "Flat around the middle of the floor; furniture may stand on it"

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece, square to the walls most of the time"
        model = site.draw(piece)
        turn = self._turn(site.rng)
        for _ in range(MIDDLE_TRIES):
            o = SceneObject(model, self._place(site), turn, FLOOR)
            if overhang(o, site.layout.outline) < -.08:
                return [site.layout.add(o)]
        return [None]

    def _turn(self, rng: Rng) -> float:
        is_square = rng.random() < .7
        return float(rng.choice([0, 90])) if is_square else float(rng.uniform(0, 180))

    def _place(self, site: Site) -> Vec:
        "A point in the middle half of the floor"
        x0, y0, x1, y1 = site.layout.main
        x = x0 + site.rng.uniform(.25, .75) * (x1 - x0)
        y = y0 + site.rng.uniform(.25, .75) * (y1 - y0)
        return float(x), float(y), 0.0


@dataclass(frozen=True, kw_only=True)
class OnWall(Rule):
    "Hung on walls"
    extra: int = 2
    height: Range  # of its lower edge, in meters
    is_height_of_middle: bool = False
    gap: float = .03
    count: tuple[int, int] | None = None  # None: one

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece or several"
        count = draw_int(site.rng, *self.count) if self.count else 1
        return [self._hang(site, piece) for _ in range(count)]

    def _hang(self, site: Site, piece: Piece) -> int | None:
        model = site.draw(piece)
        z = site.rng.uniform(*self.height)
        if self.is_height_of_middle:
            z = z - model.size[2] / 2
        return site.layout.against_wall(model, z=float(z), gap=self.gap, off=.002)


@dataclass(frozen=True, kw_only=True)
class FromCeiling(Rule):
    "Hung from the middle of the ceiling"

    def put(self, site: Site, piece: Piece) -> list[int | None]:
        "One piece"
        model = site.draw(piece)
        x0, y0, x1, y1 = site.layout.main
        at = ((x0 + x1) / 2, (y0 + y1) / 2, site.layout.height - model.size[2])
        return [site.layout.add(SceneObject(model, at, 0.0, CEILING))]


@dataclass(frozen=True, kw_only=True)
class OnEach(Rule):
    "On every placed piece of a name, by chance; without such a piece on the first thing that carries small items"
    carrier: str

    def apply(self, site: Site, pieces: list[Piece]) -> None:
        "One piece on each"
        for piece in pieces:
            carriers = site.placed[self.carrier]
            for i in carriers:
                if self.happens(site, site.weight(piece)):
                    site.layout.on_top(site.draw(piece), i, back=True)
            if not carriers and site.carriers:
                site.layout.on_top(site.draw(piece), site.carriers[0])


@dataclass(frozen=True, kw_only=True)
class OnAnySurface(Rule):
    "A few of each, wherever there is a surface"
    extra: int = 3
    count: tuple[int, int] = (1, 3)
    facing: float = 0.0  # degrees by which it may be turned from the front; 0: any way round

    def apply(self, site: Site, pieces: list[Piece]) -> None:
        "A few of each piece"
        if not site.carriers:
            return
        for piece in pieces:
            count = draw_int(site.rng, *self.count) + site.draw_extra(piece, self.extra)
            for _ in range(count):
                if self.happens(site, site.weight(piece)):
                    self._put_anywhere(site, piece)

    def _put_anywhere(self, site: Site, piece: Piece) -> None:
        model = site.draw(piece)
        heading = float(site.rng.uniform(-self.facing, self.facing)) if self.facing else None
        for i in site.rng.permutation(site.carriers)[:TRIED_OBJECTS]:
            if site.layout.on_top(model, int(i), heading) is not None:
                return


def piece_weights(pieces: tuple[Piece, ...], focus: Focus) -> dict[str, float]:
    "How much more of each piece there shall be, by its name: as its label asks for, or what stands on it does"
    wanted, weights = dict(focus), defaultdict(float)
    for piece in pieces:
        for name in (piece.name, *_carriers(piece)):
            weights[name] = max(weights[name], wanted.get(piece.label, 0.0))
    return dict(weights)


def _carriers(piece: Piece) -> list[str]:
    "Names of the pieces on which a piece stands, where it stands on nothing else"
    return [rule.carrier for rule in piece.rules if isinstance(rule, Upon | OnEach)]


WANTED = Chance("furniture")
ITEM_WANTED = Chance("small_things")
STORAGE = AgainstWall(turn=Turn.STORAGE, chance=WANTED, carrier_rank=1, is_shuffled=True)
CLUTTER = Scattered(turn=Turn.CLUTTER, chance=Chance("clutter"), gap=.03)
ITEM = OnAnySurface(turn=Turn.ITEM, chance=ITEM_WANTED)
