"""Procedural textures: `texture("wood:3")` is always the same (H, W, 3) uint8 image, bright, for a color to tint.

Must not know which object wears a texture, nor the engine. A kind of texture is a function `(rng) -> (H, W)` or
`(H, W, 3)` in about 0..1 with the decorator `kind`, which says how many variants there are.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Draw = Callable[[Rng], np.ndarray]
BLOB_LEVELS = (-1.2, -.5, 0, .5, 1.2)
VARIANTS: dict[str, int] = {}
FITTED: list[str] = []  # kinds that are drawn once over a shape, edges not wrapped
_KINDS: dict[str, Draw] = {}


def kind(name: str, variants: int, fitted: bool = False) -> Callable[[Draw], Draw]:
    "Decorate a function that draws textures of a kind"
    def register(draw: Draw) -> Draw:
        _KINDS[name] = draw
        VARIANTS[name] = variants
        if fitted:
            FITTED.append(name)
        return draw
    return register


@cache
def texture(name: str) -> np.ndarray:
    "The image (H, W, 3) uint8 called `kind:variant`"
    family, _, variant = name.partition(":")
    rng = np.random.default_rng([zlib.crc32(family.encode()), int(variant or 0)])
    values = _KINDS[family](rng)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def pick(rng: Rng, name: str) -> str:
    "A random variant of a kind, by name"
    return f"{name}:{rng.integers(VARIANTS[name])}"


def hsv(h: float, s: float, v: float) -> tuple[float, float, float]:
    "sRGB of hue, saturation and value, each 0..1; a hue may be any number"
    return colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0), 1))


def noise(rng: Rng, size: int = 128, fx: float = 8, fy: float = 8, slope: float = 2.0) -> np.ndarray:
    "Tileable noise (size, size) of mean 0 and deviation 1; power falls beyond `fx` and `fy` cycles a tile"
    frequency = np.fft.fftfreq(size, 1 / size)
    power = 1 / (1 + np.hypot(frequency[None] / fx, frequency[:, None] / fy) ** slope)
    power[0, 0] = 0
    values = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * power).real
    return values / values.std()


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    "x and y (size, size) of the pixels' centers, 0..1"
    line = (np.arange(size) + .5) / size
    return np.meshgrid(line, line)


def _two_tone(rng: Rng, mask: np.ndarray, contrast: float) -> np.ndarray:
    "White where the mask is 0, a darker, slightly colored tone where it is 1"
    tone = np.array(hsv(rng.random(), rng.uniform(0, .35), 1 - contrast))
    return 1 + mask[..., None] * (tone - 1)


def _halved(mask: np.ndarray) -> np.ndarray:
    "Half the size, each pixel the mean of four: edges that do not look cut out with scissors"
    m = np.asarray(mask, float)
    return (m[::2, ::2] + m[1::2, ::2] + m[::2, 1::2] + m[1::2, 1::2]) / 4


def _colors(rng: Rng, n: int, saturation: float = .6) -> np.ndarray:
    "`n` colors (n, 3) that go together"
    base, colors = rng.random(), []
    for _ in range(n):
        hue = base + rng.choice([0, .06, .5, .56, -.08])
        colors.append(hsv(hue, rng.uniform(.05, saturation), rng.uniform(.25, .95)))
    return np.array(colors)


def _canvas(size: int, color: np.ndarray, brightness: float = 255) -> Image.Image:
    return Image.new("RGB", (size, size), tuple(int(brightness * v) for v in color))


@kind("plain", variants=1)
def _plain(rng: Rng) -> np.ndarray:
    return np.ones((8, 8))


@kind("plaster", variants=4)
def _plaster(rng: Rng) -> np.ndarray:
    fine = .95 + .012 * noise(rng, fx=30, fy=30, slope=1)
    return fine + .012 * noise(rng, fx=3, fy=3)


@kind("paper", variants=14)
def _paper(rng: Rng) -> np.ndarray:
    "Wallpaper: a regular pattern in two tones"
    x, y = _axes(512)
    n, style = int(rng.integers(2, 6)), int(rng.integers(5))
    mask = _halved(_paper_pattern(rng, style, x, y, n))
    pattern = _two_tone(rng, mask, rng.uniform(.05, .22))
    return pattern * (1 + .01 * noise(rng, 256, fx=80, fy=80)[..., None])


def _paper_pattern(rng: Rng, style: int, x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    "True where the second tone is: stripes, spots, a lattice, shifted dots or a grid, `n` a side"
    u, v = x * n, y * n
    wave = np.sin(2 * np.pi * n * x) * np.sin(2 * np.pi * n * y)
    if style == 0:
        return u % 1 < rng.uniform(.2, .6)
    if style == 1:
        return wave > .6
    if style == 2:
        return (np.abs(wave) > .45) ^ (_from_cell_middle(u, v) < .18)
    if style == 3:
        return _shifted_dots(u, v)
    return (u % 1 < .06) | (v % 1 < .06)


def _from_cell_middle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    "Distance of each place from the middle of its cell, in cells"
    return np.hypot(u % 1 - .5, v % 1 - .5)


def _shifted_dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    "Dots in the middle of the cells, every row half a cell further"
    across = (u + .5 * np.floor(v)) % 1 - .5
    upright = v % 1 - .5
    return across ** 2 + upright ** 2 < .05


@kind("wood", variants=6)
def _wood(rng: Rng, size: int = 128) -> np.ndarray:
    grain = noise(rng, size, rng.uniform(1, 2.5), rng.uniform(10, 24))
    fine = noise(rng, size, 4, 60, 1)
    rings = np.sin(3 * grain + noise(rng, size, 1, 3))
    return .84 + .07 * rings + .035 * fine


@kind("planks", variants=8)
def _planks(rng: Rng) -> np.ndarray:
    "Boards along x, each of its own tone, with dark joints"
    size, rows = 256, int(rng.integers(4, 9))
    x, y = _axes(size)
    row = np.floor(y * rows).astype(int)
    along = (x + rng.random(rows)[row]) % 1 * 2  # two boards a row, which begin anywhere
    board = row * 2 + along.astype(int)
    tone = 1 + rng.uniform(.03, .1) * rng.standard_normal(rows * 2)
    wood = _two_woods(rng, row)
    joint = (y * rows % 1 < .03 * rows / 5) | (along % 1 < .006)
    return wood * tone[board] * np.where(joint, .55, 1)


def _two_woods(rng: Rng, row: np.ndarray) -> np.ndarray:
    "Wood (size, size) for pixels in these rows of boards, another for every second row"
    size = len(row)
    shifts = rng.integers(0, size, 2)
    woods = np.stack([np.roll(_wood(rng, size), int(shift), 1) for shift in shifts])
    pixels = np.arange(size)
    return woods[row % 2, pixels[:, None], pixels]


@kind("tiles", variants=5)
def _tiles(rng: Rng) -> np.ndarray:
    "Square tiles, sometimes a chessboard"
    n, size = int(rng.integers(2, 4)), 256
    x, y = _axes(size)
    column, row = np.floor(x * n).astype(int), np.floor(y * n).astype(int)
    tone = _tile_tones(rng, n)
    is_grout = (x * n % 1 < .025) | (y * n % 1 < .025)
    grout = rng.uniform(.5, .75)
    tiles = tone[column + n * row] + .02 * noise(rng, size, 6, 6)
    return np.where(is_grout, grout, tiles)


def _tile_tones(rng: Rng, n: int) -> np.ndarray:
    "The tone of each of n x n tiles (n * n,), about 0.92; 0.25 less for the dark ones of a chessboard"
    tone = .92 + rng.uniform(.01, .06) * rng.standard_normal(n * n)
    if rng.random() < .3:
        tone = tone - .25 * _is_dark_field(n)
    return tone


def _is_dark_field(n: int) -> np.ndarray:
    "1 for the dark ones of n x n tiles (n * n,) laid as a chessboard; an odd n has none, for it would not repeat"
    if n % 2:
        return np.zeros(n * n, int)
    number = np.arange(n * n)
    return (number % n + number // n) % 2


@kind("carpet", variants=5)
def _carpet(rng: Rng) -> np.ndarray:
    fine = .9 + .03 * noise(rng, fx=50, fy=50, slope=1)
    return fine + .015 * noise(rng, fx=4, fy=4)


@kind("fabric", variants=12)
def _fabric(rng: Rng) -> np.ndarray:
    "A weave, plain or with stripes, checks, dots or waves"
    x, y = _axes(512)
    weave = .94 + .04 * noise(rng, 256, fx=120, fy=120, slope=1)
    n, style = int(rng.integers(2, 8)), int(rng.integers(6))
    mask = _halved(_fabric_pattern(style, x, y, n))
    return _two_tone(rng, mask, rng.uniform(.15, .6)) * weave[..., None]


def _fabric_pattern(style: int, x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    "Share of the second tone, 0..1: none, stripes, checks, dots or waves, `n` a side"
    u, v = x * n, y * n
    if style == 2:
        return u % 1 < .4
    if style == 3:
        return ((u % 1 < .5).astype(float) + (v % 1 < .5)) / 2
    if style == 4:
        return _from_cell_middle(u, v) < .25
    if style == 5:
        bend = np.sin(2 * np.pi * y * 2) / 3
        return np.sin(2 * np.pi * (n * x + bend)) > .3
    return 0 * x


@kind("rug", variants=16, fitted=True)
def _rug(rng: Rng) -> np.ndarray:
    "A carpet with a border and a field of its own pattern"
    x, y = _axes(256)
    palette = _colors(rng, 5)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    n = int(rng.integers(3, 9))
    field = _rug_field(rng, x, y, n)
    width = rng.choice([0, .04, .08])
    which = np.where(edge < width, 3, np.where(edge < width * 1.5, 4, field))
    return palette[which] * (.93 + .07 * noise(rng, 256, 70, 70, 1))[..., None]


def _rug_field(rng: Rng, x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    "The number of a color, 0 to 3, for each pixel: plain, diamonds, stripes, rings or spots"
    spots = (noise(rng, 256, 4, 4) > .5) * 1  # drawn whether it is used or not
    style = int(rng.integers(5))
    if style == 0:
        return np.zeros(x.shape, int)
    if style == 1:
        return _diamonds(x * n, y * n)
    if style == 2:
        return ((y * n * 2) % 1 < .5).astype(int)
    if style == 3:
        return _rings(x, y)
    return spots


def _diamonds(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    "Diamonds: 0 around them, 1 at their border, 3 in their middle"
    diamond = np.abs(u % 1 - .5) + np.abs(v % 1 - .5)
    return (diamond < .3) + 2 * (diamond < .14)


def _rings(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    "Rings around the middle, 0, 1 and 2 in turn"
    radius = np.hypot(x - .5, y - .5)
    return (np.floor(4 * radius * 2) % 3).astype(int)


@kind("fur", variants=3)
def _fur(rng: Rng) -> np.ndarray:
    long = .8 + .1 * noise(rng, fx=10, fy=40)
    return long + .1 * noise(rng, fx=3, fy=3)


@kind("painting", variants=40, fitted=True)
def _painting(rng: Rng) -> np.ndarray:
    motifs = (_landscape, _abstract, _abstract, _blobs, _portrait, _photo)
    return motifs[int(rng.integers(6))](rng)


def _landscape(rng: Rng, size: int = 128) -> np.ndarray:
    "A sky over three hills"
    x, y = _axes(size)
    out = _evening_sky(rng, y)
    hills = [_hill_color(rng, value) for value in (.75, .55, .38)]
    for i, color in enumerate(hills):
        line = .6 - .17 * i + _hill_line(rng, x, size)
        out = np.where((y > 1 - line)[..., None], color, out)
    return out * (1 + .04 * noise(rng, size, 20, 20)[..., None])


def _evening_sky(rng: Rng, y: np.ndarray) -> np.ndarray:
    high = np.array(hsv(rng.uniform(.5, .65), rng.uniform(.1, .5), .95))
    low = np.array(hsv(rng.choice([.08, .58]), rng.uniform(.05, .5), 1))
    return high + (low - high) * y[..., None]


def _hill_line(rng: Rng, x: np.ndarray, size: int) -> np.ndarray:
    wave = np.sin(2 * np.pi * (x * rng.uniform(.5, 2) + rng.random()))
    return .12 * wave + .01 * noise(rng, size, 9, 9)


def _hill_color(rng: Rng, value: float) -> np.ndarray:
    is_green = rng.random() < .75
    hue = rng.uniform(.1, .4) if is_green else .6
    return np.array(hsv(hue, rng.uniform(.15, .5), value))


def _abstract(rng: Rng, size: int = 128) -> np.ndarray:
    "Rectangles and ellipses"
    image = _canvas(size, _colors(rng, 1)[0])
    draw = ImageDraw.Draw(image)
    shapes = (draw.rectangle, draw.ellipse, draw.rectangle)
    for color in (_colors(rng, 9, .9) * 255).astype(int):
        box = _random_box(rng, size)
        draw_shape = shapes[int(rng.integers(3))]
        draw_shape(box, fill=tuple(color.tolist()))
    return np.asarray(image) / 255 * (1 + .03 * noise(rng, size, 20, 20)[..., None])


def _random_box(rng: Rng, size: int) -> tuple[float, float, float, float]:
    "Left, upper, right and lower edge of a box with its middle in the image, at least 16 pixels wide and high"
    x, y, w, h = (rng.random(4) * size * [1, 1, .5, .5] + [0, 0, 8, 8]).tolist()
    return x - w, y - h, x + w, y + h


def _blobs(rng: Rng, size: int = 128) -> np.ndarray:
    palette = _colors(rng, 6, .9)
    level = np.digitize(noise(rng, size, 2, 2), BLOB_LEVELS)
    return palette[level] * (1 + .05 * noise(rng, size, 30, 30)[..., None])


def _portrait(rng: Rng, size: int = 128) -> np.ndarray:
    "A head and shoulders of ellipses"
    x, y = _axes(size)
    ground, coat = _colors(rng, 2, .5)
    skin = np.array(hsv(.07, rng.uniform(.3, .6), rng.uniform(.35, .95)))
    hair = np.array(hsv(.08, .5, rng.uniform(.1, .6)))
    shoulders = _ellipse(x, y, .5, 1.05, .42, .4)
    head = _ellipse(x, y, .5, .4, .21, .25)
    face = _ellipse(x, y, .5, .45, .16, .21)
    out = ground * (.8 + .4 * x[..., None])
    for where, color in ((shoulders, coat), (head, hair), (face, skin)):
        out = np.where(where, color, out)
    return out * (1 + .04 * noise(rng, size)[..., None])


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    "Which pixels (H, W, 1) are inside"
    return (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)[..., None]


def _photo(rng: Rng, size: int = 128) -> np.ndarray:
    "A black-and-white photograph with a wide white mat"
    x, y = _axes(size)
    inner = (np.abs(x - .5) < .3) & (np.abs(y - .5) < .3)
    gray = .5 + .2 * noise(rng, size, 2, 2)
    return np.where(inner, gray + .1 * noise(rng, size, 12, 12), .95)


@kind("screen", variants=14, fitted=True)
def _screen(rng: Rng, size: int = 128) -> np.ndarray:
    "Mostly off, else a broadcast"
    x, y = _axes(size)
    glare = np.clip(1 - np.hypot(x - rng.random(), y - rng.random()) * 1.5, 0, 1)
    off = .05 + .08 * glare
    if rng.random() < .6:
        return np.stack([off, off * 1.05, off * 1.15], 2)
    return (_landscape, _abstract, _blobs)[int(rng.integers(3))](rng) * 1.1


@kind("clock", variants=8, fitted=True)
def _clock(rng: Rng, size: int = 128) -> np.ndarray:
    "A dial with ticks and hands"
    is_dark = rng.random() < .25
    ground, ink = (30, 235) if is_dark else (245, 25)
    image = Image.new("L", (size, size), ground)
    draw = ImageDraw.Draw(image)
    _draw_ticks(draw, size, ink)
    time = rng.uniform(0, 12)
    hour_hand = _spoke(size, time * np.pi / 6, 0, .5)
    minute_hand = _spoke(size, time % 1 * 2 * np.pi, 0, .76)
    draw.line(hour_hand, fill=ink, width=7)
    draw.line(minute_hand, fill=ink, width=4)
    return np.asarray(image) / 255


def _draw_ticks(draw: ImageDraw.ImageDraw, size: int, ink: int) -> None:
    "A tick an hour, a longer one every three hours"
    for hour in range(12):
        start, width = (.76, 3) if hour % 3 else (.68, 6)
        draw.line(_spoke(size, hour * np.pi / 6, start, .88), fill=ink, width=width)


def _spoke(size: int, turn: float, *radii: float) -> list[tuple[float, float]]:
    "Points of a dial in one direction, at shares of its radius"
    half = size / 2
    return [(half + half * r * np.sin(turn), half - half * r * np.cos(turn)) for r in radii]


@kind("phone", variants=5, fitted=True)
def _phone(rng: Rng, size: int = 64) -> np.ndarray:
    "Off, or a page of icons"
    image = _canvas(size, _colors(rng, 1)[0], brightness=120)
    draw = ImageDraw.Draw(image)
    if rng.random() < .5:
        return np.full((size, size), .05)
    for i, color in enumerate((_colors(rng, 12, .9) * 255).astype(int)):
        x, y = 6 + 20 * (i % 3), 8 + 14 * (i // 3)
        draw.rectangle((x, y, x + 11, y + 8), fill=tuple(color.tolist()))
    return np.asarray(image) / 255


@kind("view", variants=12, fitted=True)
def _view(rng: Rng, size: int = 128) -> np.ndarray:
    "What one sees through a window: sky, and trees or houses"
    x, y = _axes(size)
    sky = _sky(rng, y)
    line, ground = _trees(rng, size)
    if rng.random() < .4:
        line, ground = _houses(rng, x, y)
    return np.where((y > line[None])[..., None], ground, sky)


def _sky(rng: Rng, y: np.ndarray) -> np.ndarray:
    "Paler towards the horizon"
    blue = np.array(hsv(.58, rng.uniform(.05, .5), 1.0)) * np.ones((*y.shape, 1))
    return 1 - (1 - blue) * (1.1 - y)[..., None]


def _trees(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    "Where the sky ends (size,), and what is below (size, size, 3)"
    line = rng.uniform(.35, .7) + .05 * noise(rng, size, 3, 3)[0]
    green = np.array(hsv(rng.uniform(.2, .33), rng.uniform(.2, .5), rng.uniform(.3, .6)))
    return line, green * (1 + .25 * noise(rng, size, 12, 12)[..., None])


def _houses(rng: Rng, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Where the sky ends (size,), and what is below (size, size, 3)"
    line = np.repeat(rng.uniform(.2, .7, 8), len(x) // 8)
    is_window = ((x * 32 % 2 < 1) & (y * 32 % 2 < 1))[..., None]
    wall = .75 * np.array(hsv(rng.uniform(0, .1), .2, .9))
    return line, np.where(is_window, .35, wall)
