"""Procedural textures: `texture("wood:3")` is always the same (H, W, 3) uint8 picture, bright so that a colour can tint it.

Must not know which thing wears a texture, nor the engine. `VARIANTS` says how many of each kind there are.
"""

from __future__ import annotations

import colorsys
import zlib
from functools import lru_cache
from typing import Callable

import numpy as np
from PIL import Image, ImageDraw

VARIANTS = dict(plain=1, plaster=4, paper=14, wood=6, planks=8, tiles=5, carpet=5, fabric=12, rug=16, fur=3,
                painting=40, screen=14, clock=8, phone=5, view=12)
FITTED = ("rug", "painting", "screen", "clock", "phone", "view")  # drawn once over a shape, edges not wrapped


@lru_cache(maxsize=None)
def texture(name: str) -> np.ndarray:
    "The picture called `kind:variant`"
    kind, _, variant = name.partition(":")
    rng = np.random.default_rng([zlib.crc32(kind.encode()), int(variant or 0)])
    picture = _KINDS[kind](rng)
    if picture.ndim == 2: picture = np.repeat(picture[..., None], 3, axis=2)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def pick(rng: np.random.Generator, kind: str) -> str:
    "A random variant of a kind, by name"
    return f"{kind}:{rng.integers(VARIANTS[kind])}"


def hsv(h: float, s: float, v: float) -> tuple[float, float, float]:
    "sRGB of hue, saturation and value, each 0..1"
    return colorsys.hsv_to_rgb(h % 1, min(max(s, 0), 1), min(max(v, 0), 1))


def noise(rng: np.random.Generator, size: int = 128, fx: float = 8, fy: float = 8, slope: float = 2.0) -> np.ndarray:
    "Tileable noise of mean 0 and deviation 1; power falls beyond `fx` and `fy` cycles a tile"
    f = np.fft.fftfreq(size, 1 / size)
    power = 1 / (1 + np.hypot(f[None] / fx, f[:, None] / fy) ** slope)
    power[0, 0] = 0
    n = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * power).real
    return n / n.std()


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid((np.arange(size) + .5) / size, (np.arange(size) + .5) / size)


def _plain(rng): return np.ones((8, 8))


def _plaster(rng): return .95 + .012 * noise(rng, fx=30, fy=30, slope=1) + .012 * noise(rng, fx=3, fy=3)


def _two_tone(rng: np.random.Generator, mask: np.ndarray, contrast: float) -> np.ndarray:
    "White where the mask is 0, a darker, slightly coloured tone where it is 1"
    tone = np.array(hsv(rng.random(), rng.uniform(0, .35), 1 - contrast))
    return 1 + mask[..., None] * (tone - 1)


def _smooth(mask: np.ndarray) -> np.ndarray:
    "Half the size, each pixel the mean of four: edges that do not look cut out with scissors"
    m = np.asarray(mask, float)
    return (m[::2, ::2] + m[1::2, ::2] + m[::2, 1::2] + m[1::2, 1::2]) / 4


def _paper(rng):
    x, y = _axes(512)
    n = int(rng.integers(2, 6))
    style = int(rng.integers(5))
    wave = np.sin(2 * np.pi * n * x) * np.sin(2 * np.pi * n * y)
    mask = [lambda: x * n % 1 < rng.uniform(.2, .6), lambda: wave > .6, lambda: (np.abs(wave) > .45) ^ (np.hypot(x * n % 1 - .5, y * n % 1 - .5) < .18),
            lambda: ((x * n + .5 * np.floor(y * n)) % 1 - .5) ** 2 + (y * n % 1 - .5) ** 2 < .05, lambda: (x * n % 1 < .06) | (y * n % 1 < .06)][style]()
    return _two_tone(rng, _smooth(mask), rng.uniform(.05, .22)) * (1 + .01 * noise(rng, 256, fx=80, fy=80)[..., None])


def _wood(rng, size: int = 128):
    grain = noise(rng, size, rng.uniform(1, 2.5), rng.uniform(10, 24))
    fine = noise(rng, size, 4, 60, 1)
    rings = np.sin(3 * grain + noise(rng, size, 1, 3))
    return .84 + .07 * rings + .035 * fine


def _planks(rng):
    "Boards along x, each of its own tone, with dark joints"
    size, rows = 256, int(rng.integers(4, 9))
    x, y = _axes(size)
    row = np.floor(y * rows).astype(int)
    along = (x + rng.random(rows)[row]) % 1 * 2
    board = row * 2 + along.astype(int)
    tone = 1 + rng.uniform(.03, .1) * rng.standard_normal(rows * 2)
    shifted = np.stack([np.roll(_wood(rng, size), int(s), 1) for s in rng.integers(0, size, 2)])[row % 2, np.arange(size)[:, None], np.arange(size)]
    joint = (y * rows % 1 < .03 * rows / 5) | (along % 1 < .006)
    return shifted * tone[board] * np.where(joint, .55, 1)


def _tiles(rng):
    n, size = int(rng.integers(2, 4)), 256
    x, y = _axes(size)
    cell = np.floor(x * n).astype(int) + n * np.floor(y * n).astype(int)
    tone = .92 + rng.uniform(.01, .06) * rng.standard_normal(n * n)
    if rng.random() < .3: tone = tone - .25 * ((np.arange(n * n) % n + np.arange(n * n) // n) % 2) * (n % 2 == 0)
    grout = (x * n % 1 < .025) | (y * n % 1 < .025)
    return np.where(grout, rng.uniform(.5, .75), tone[cell] + .02 * noise(rng, size, 6, 6))


def _carpet(rng): return .9 + .03 * noise(rng, fx=50, fy=50, slope=1) + .015 * noise(rng, fx=4, fy=4)


def _fabric(rng):
    x, y = _axes(512)
    weave = .94 + .04 * noise(rng, 256, fx=120, fy=120, slope=1)
    n = int(rng.integers(2, 8))
    mask = [lambda: 0 * x, lambda: 0 * x, lambda: x * n % 1 < .4, lambda: ((x * n % 1 < .5).astype(float) + (y * n % 1 < .5)) / 2, lambda: np.hypot(x * n % 1 - .5, y * n % 1 - .5) < .25,
            lambda: np.sin(2 * np.pi * (n * x + np.sin(2 * np.pi * y * 2) / 3)) > .3][int(rng.integers(6))]()
    return _two_tone(rng, _smooth(mask), rng.uniform(.15, .6)) * weave[..., None]


def _fur(rng): return .8 + .1 * noise(rng, fx=10, fy=40) + .1 * noise(rng, fx=3, fy=3)


def _colours(rng: np.random.Generator, n: int, saturation: float = .6) -> np.ndarray:
    "`n` colours that go together"
    base = rng.random()
    return np.array([hsv(base + rng.choice([0, .06, .5, .56, -.08]), rng.uniform(.05, saturation), rng.uniform(.25, .95)) for _ in range(n)])


def _rug(rng):
    "A carpet with a border and a field of its own pattern"
    x, y = _axes(256)
    c = _colours(rng, 5)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    n = int(rng.integers(3, 9))
    diamond = np.abs((x * n) % 1 - .5) + np.abs((y * n) % 1 - .5)
    field = [0 * x, (diamond < .3) + 2 * (diamond < .14), (y * n * 2) % 1 < .5, np.floor(4 * np.hypot(x - .5, y - .5) * 2) % 3,
             (noise(rng, 256, 4, 4) > .5) * 1][int(rng.integers(5))].astype(int)
    width = rng.choice([0, .04, .08])
    which = np.where(edge < width, 3, np.where(edge < width * 1.5, 4, field))
    return c[which] * (.93 + .07 * noise(rng, 256, 70, 70, 1))[..., None]


def _painting(rng): return [_landscape, _abstract, _abstract, _blobs, _portrait, _photo][int(rng.integers(6))](rng)


def _landscape(rng, size: int = 128):
    x, y = _axes(size)
    high, low = (np.array(hsv(rng.uniform(.5, .65), rng.uniform(.1, .5), .95)), np.array(hsv(rng.choice([.08, .58]), rng.uniform(.05, .5), 1)))
    hills = [np.array(hsv(rng.uniform(.1, .4) if rng.random() < .75 else .6, rng.uniform(.15, .5), v)) for v in (.75, .55, .38)]
    out = high + (low - high) * y[..., None]
    for i, c in enumerate(hills):
        line = .6 - .17 * i + .12 * np.sin(2 * np.pi * (x * rng.uniform(.5, 2) + rng.random())) + .01 * noise(rng, size, 9, 9)
        out = np.where((y > 1 - line)[..., None], c, out)
    return out * (1 + .04 * noise(rng, size, 20, 20)[..., None])


def _abstract(rng, size: int = 128):
    image = Image.new("RGB", (size, size), tuple(int(255 * v) for v in _colours(rng, 1)[0]))
    draw = ImageDraw.Draw(image)
    for c in (_colours(rng, 9, .9) * 255).astype(int):
        x, y, w, h = (rng.random(4) * size * [1, 1, .5, .5] + [0, 0, 8, 8]).tolist()
        [draw.rectangle, draw.ellipse, draw.rectangle][int(rng.integers(3))]((x - w, y - h, x + w, y + h), fill=tuple(c.tolist()))
    return np.asarray(image) / 255 * (1 + .03 * noise(rng, size, 20, 20)[..., None])


def _blobs(rng, size: int = 128):
    c = _colours(rng, 6, .9)
    level = np.digitize(noise(rng, size, 2, 2), [-1.2, -.5, 0, .5, 1.2])
    return c[level] * (1 + .05 * noise(rng, size, 30, 30)[..., None])


def _portrait(rng, size: int = 128):
    x, y = _axes(size)
    ground, coat, skin, hair = *_colours(rng, 2, .5), np.array(hsv(.07, rng.uniform(.3, .6), rng.uniform(.35, .95))), np.array(hsv(.08, .5, rng.uniform(.1, .6)))
    inside = lambda cx, cy, rx, ry: (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)[..., None]
    out = np.where(inside(.5, 1.05, .42, .4), coat, ground * (.8 + .4 * x[..., None]))
    return np.where(inside(.5, .45, .16, .21), skin, np.where(inside(.5, .4, .21, .25), hair, out)) * (1 + .04 * noise(rng, size)[..., None])


def _photo(rng, size: int = 128):
    "A black-and-white photograph with a wide white mat"
    x, y = _axes(size)
    inner = (np.abs(x - .5) < .3) & (np.abs(y - .5) < .3)
    return np.where(inner, .5 + .2 * noise(rng, size, 2, 2) + .1 * noise(rng, size, 12, 12), .95)


def _screen(rng, size: int = 128):
    "Mostly off, else a programme"
    x, y = _axes(size)
    off = .05 + .08 * np.clip(1 - np.hypot(x - rng.random(), y - rng.random()) * 1.5, 0, 1)
    if rng.random() < .6: return np.stack([off, off * 1.05, off * 1.15], 2)
    return [_landscape, _abstract, _blobs][int(rng.integers(3))](rng) * 1.1


def _phone(rng, size: int = 64):
    image = Image.new("RGB", (size, size), tuple(int(v * 120) for v in _colours(rng, 1)[0]))
    draw = ImageDraw.Draw(image)
    if rng.random() < .5: return np.full((size, size), .05)
    for i, c in enumerate((_colours(rng, 12, .9) * 255).astype(int)):
        x, y = 6 + 20 * (i % 3), 8 + 14 * (i // 3)
        draw.rectangle((x, y, x + 11, y + 8), fill=tuple(c.tolist()))
    return np.asarray(image) / 255


def _clock(rng, size: int = 128):
    "A dial with ticks and hands"
    dark = rng.random() < .25
    ground, ink = (30, 235) if dark else (245, 25)
    image = Image.new("L", (size, size), ground)
    draw = ImageDraw.Draw(image)
    hand = lambda turn, r0, r1, width: draw.line([(size / 2 + size / 2 * r * np.sin(turn), size / 2 - size / 2 * r * np.cos(turn)) for r in (r0, r1)], fill=ink, width=width)
    for i in range(12): hand(i * np.pi / 6, .76 if i % 3 else .68, .88, 3 if i % 3 else 6)
    hour = rng.uniform(0, 12)
    hand(hour * np.pi / 6, 0, .5, 7), hand(hour % 1 * 2 * np.pi, 0, .76, 4)
    return np.asarray(image) / 255


def _view(rng, size: int = 128):
    "What one sees through a window: sky, and trees or houses"
    x, y = _axes(size)
    sky = np.array(hsv(.58, rng.uniform(.05, .5), 1.0)) * np.ones((size, size, 1))
    sky = 1 - (1 - sky) * (1.1 - y)[..., None]
    line = rng.uniform(.35, .7) + .05 * noise(rng, size, 3, 3)[0]
    green = np.array(hsv(rng.uniform(.2, .33), rng.uniform(.2, .5), rng.uniform(.3, .6)))
    ground = green * (1 + .25 * noise(rng, size, 12, 12)[..., None])
    if rng.random() < .4:
        line = np.repeat(rng.uniform(.2, .7, 8), size // 8)
        lit = ((x * 32 % 2 < 1) & (y * 32 % 2 < 1))[..., None]
        ground = np.where(lit, .35, .75 * np.array(hsv(rng.uniform(0, .1), .2, .9)))
    return np.where((y > line[None])[..., None], ground, sky)


_KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {k: globals()[f"_{k}"] for k in VARIANTS}
