"""Walk through a room and let the model look with you: `seg_walk` opens a window and sends what it shows to a model server.

Must not know the engine (that is `window`) nor the protocol (that is `live`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Callable, Iterator

import numpy as np

from nbs_lib.core import SegError, seg_command
from nbs_lib.labels import ROOM_LABELS, LabelSet
from virtual_room.light import surfaces
from virtual_room.live import Answer, Live
from virtual_room.placement import walkable
from virtual_room.rooms import make_camera, make_room
from virtual_room.scene import Camera, Room, RoomConfig, load_config

SPEED, TURN = 1.6, .22  # metres a second; degrees a pixel
FASTEST = 60  # frames a second: what is left belongs to the server
STEEPEST = 75.0  # degrees up or down
NAMED = .004  # share of the picture from which on a label is named
WAYS = dict(w=(0, 1), s=(0, -1), a=(-1, 0), d=(1, 0))
GROUP_KEYS = ("f1", "f2", "f3", "f4")
HELP = ["W A S D   walk", "drag   look around", "Space   labels live, on and off", "E   labels once, or clear them", "F1 to F4   only one group of labels, again: all",
        "+ -   opacity", "Q   hide the room behind the labels", "N   next room", "H   this help", "Esc   quit"]


@dataclass(frozen=True)
class Eye:
    "Where a person stands and looks; degrees, yaw counter-clockwise from +x"
    at: tuple[float, float, float]
    yaw: float
    pitch: float

    @property
    def target(self) -> tuple[float, float, float]:
        y, p = np.radians((self.yaw, self.pitch))
        return tuple((np.asarray(self.at) + [np.cos(y) * np.cos(p), np.sin(y) * np.cos(p), np.sin(p)]).tolist())

    def turn(self, right: float, down: float) -> Eye:
        return replace(self, yaw=(self.yaw - right) % 360, pitch=float(np.clip(self.pitch - down, -STEEPEST, STEEPEST)))

    def walk(self, ways: list[tuple[int, int]], seconds: float, room: Room) -> Eye:
        "A step along the sum of `ways` (right, forward), or along the obstacle that is in the way"
        right, forward = np.sum(ways, axis=0) if ways else (0, 0)
        if not (right or forward): return self
        a = np.radians(self.yaw)
        step = np.array([[np.sin(a), np.cos(a)], [-np.cos(a), np.sin(a)]]) @ (right, forward)
        step *= SPEED * min(seconds, .1) / np.linalg.norm(step)
        spots = np.array(self.at[:2]) + [step, step * (1, 0), step * (0, 1), (0, 0)]
        free = walkable(room, spots, .25, .15)
        if not free[3]: free[0] = True  # whoever stands too close already may walk away
        x, y = spots[int(np.argmax(free))] if free.any() else self.at[:2]
        return replace(self, at=(float(x), float(y), self.at[2]))


def eye_of(camera: Camera) -> Eye:
    x, y, z = np.subtract(camera.target, camera.at)
    return Eye(camera.at, float(np.degrees(np.arctan2(y, x))) % 360, float(np.degrees(np.arctan2(z, np.hypot(x, y)))))


@dataclass(frozen=True)
class Veil:
    "How labels are laid over the room"
    group: int | None = None  # of the label groups, None: all
    opacity: float = .5
    alone: bool = False  # is the room behind them hidden?

    def colours(self, labels: LabelSet) -> np.ndarray:
        "uint8 (256, 4): colour and opacity of each mask value"
        table = np.zeros((256, 4), np.uint8)
        table[:, :3] = labels.palette
        for name in self.shown(labels): table[labels[name], 3] = round(255 * self.opacity)
        if self.alone: table = np.where(table[:, 3:] > 0, table | np.uint8([0, 0, 0, 255]), np.uint8([0, 0, 0, 255]))
        return table

    def shown(self, labels: LabelSet) -> list[str]:
        "Names of the labels it shows"
        groups = groups_of(labels)
        return [n for i, (_, names) in enumerate(groups) for n in names if self.group is None or self.group == i]

    def names(self, answer: Answer) -> list[tuple[str, float, float]]:
        shown = self.shown(answer.labels)
        rows = [(answer.labels.codes[v], x, y) for v, share, x, y in answer.regions if share >= NAMED]
        return [(n.partition("_")[2] or n, x, y) for n, x, y in rows if n in shown]


def groups_of(labels: LabelSet) -> list[tuple[str, list[str]]]:
    "The groups that have a key, the background left out"
    bare = () if labels.background is None else (labels.codes[labels.background],)
    groups = [(g, [n for n in names if n not in bare]) for g, names in labels.groups.items()]
    return [(g, names) for g, names in groups if names]


class Walk:
    "A window on a room, a person in it, and labels over it"

    def __init__(self, url: str, seed: int, size: int, rate: float, config: RoomConfig) -> None:
        from virtual_room.render import Stage
        from virtual_room.window import Window
        self.seed, self.config, self.veil, self.help, self.over = seed, config, Veil(), False, False
        self.window, self.stage = Window(size, "SegmentationLearner: a room to walk through"), Stage(size, supersampling=1)
        self.live, self.shown, self.pushed = Live(url, rate), None, set()
        self.spent: list[float] = []
        self.enter(seed)

    def enter(self, seed: int) -> None:
        self.seed, self.room = seed, make_room(seed, self.config)
        self.camera = make_camera(self.room, np.random.default_rng([seed, 0]), replace(self.config, close_up=0.0, yaw_deviation=0.0))
        self.eye, lit = eye_of(self.camera), surfaces(self.room)
        self.stage.load(self.room, lit), self.window.show(lit, self.camera)

    def press(self, key: str) -> None:
        "Do what a key asks for"
        act = self.keys.get(key.removeprefix("shift-"))
        if act: act()

    @property
    def keys(self) -> dict[str, Callable[[], None]]:
        veil = lambda **change: lambda: self._veil(replace(self.veil, **change))
        more, less = (veil(opacity=float(np.clip(self.veil.opacity + d, .1, 1))) for d in (.1, -.1))
        groups = {k: veil(group=None if self.veil.group == i else i) for i, k in enumerate(GROUP_KEYS)}
        return {"space": self._run, "e": self._once, "q": veil(alone=not self.veil.alone), "h": lambda: setattr(self, "help", not self.help), "n": lambda: self.enter(self.seed + 1),
                "escape": lambda: setattr(self, "over", True), "+": more, "=": more, "-": less, **groups}

    def _run(self) -> None: self.live.running, self.live.once = not self.live.running, False

    def _once(self) -> None:
        "Ask for labels, or clear those that are shown"
        if self.shown or self.live.wanted: self.live.running, self.live.once, self.live.answer = False, False, None
        else: self.live.once = True

    def _veil(self, veil: Veil) -> None: self.veil, self.shown = veil, None

    def frame(self, seconds: float) -> None:
        "One picture: keys, a step, labels, text"
        for key in self.window.pressed(): self.press(key)
        right, down = self.window.turned()
        ways = [way for key, way in WAYS.items() if key in self.pushed or self.window.held(key)]
        self.eye = self.eye.turn(right * TURN, down * TURN).walk(ways, seconds, self.room)
        self.camera = replace(self.camera, at=self.eye.at, target=self.eye.target)
        self.window.look(self.camera)
        if self.live.ready: self.live.send(self.stage.picture(self.camera))
        if self.live.answer is not self.shown: self._show(self.live.answer)
        self._write()
        self.window.draw()

    def _show(self, answer: Answer | None) -> None:
        self.shown = answer
        self.window.lay_over(self.veil.colours(answer.labels)[answer.mask] if answer else None)
        self.window.name(self.veil.names(answer) if answer else [])

    def _write(self) -> None:
        self.window.write("middle", HELP if self.help else [])
        lost = self.live.trouble if self.live.wanted else ""
        self.window.write("top", wrap(f"{lost}. Trying again ...", 76) if lost else [] if self.help else ["H: help"])
        if len(self.spent) % 15 == 1: self.window.write("bottom", [self.figures()])

    def figures(self) -> str:
        last = np.array(self.spent[-60:] or [0.0])
        parts = [f"frame {1000 * last.mean():.1f} ms"]
        if self.live.answer: parts.append(f"answer {self.live.answer.ms:.0f} ms")
        labels = self.live.answer.labels if self.live.answer else ROOM_LABELS
        if self.veil.group is not None and self.veil.group < len(groups_of(labels)): parts.append(f"only {groups_of(labels)[self.veil.group][0]}")
        return ", ".join([*parts, "live" if self.live.running else "not live"])

    def close(self) -> None: self.live.close(), self.window.close()


SCRIPT = dict(wait=(float,), press=(str,), hold=(str, float), turn=(float, float), answer=(float,), shot=(str,))


def read_script(path: str | Path) -> list[tuple]:
    "Lines of `wait S`, `press KEY`, `hold KEY S`, `turn RIGHT DOWN` (degrees), `answer S` (wait for the next one, S seconds at most) and `shot FILE`"
    try: lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e: raise SegError(f"cannot read the script {path} ({e})") from None
    steps = []
    for number, line in enumerate(lines, 1):
        verb, *words = line.partition("#")[0].split() or [""]
        if not verb: continue
        try: steps.append((verb, *(kind(w) for kind, w in zip(SCRIPT[verb], words, strict=True))))
        except (KeyError, ValueError): raise SegError(f"{path}, line {number}: '{line.strip()}' is no step; write one of {', '.join(SCRIPT)} with what it needs") from None
    return steps


def play(walk: Walk, steps: list[tuple]) -> Iterator[None]:
    "Drive a walk; yields once a frame"
    for verb, *args in steps:
        until, before = time.monotonic() + (args[-1] if verb in ("wait", "hold", "answer") else 0), walk.live.answers
        if verb == "press": walk.press(args[0])
        if verb == "turn": walk.eye = walk.eye.turn(*args)
        if verb == "hold": walk.pushed.add(args[0])
        if verb == "shot": walk.window.save(args[0])
        yield
        while time.monotonic() < until and not (verb == "answer" and walk.live.answers > before): yield
        walk.pushed.clear()
    yield


def stroll(walk: Walk, script: Iterator[None] | None) -> None:
    "Frame after frame until the person leaves or the script ends"
    last = time.perf_counter()
    while not walk.over and walk.window.open:
        start = time.perf_counter()
        walk.spent.append(start - last)
        walk.frame(start - last)
        last = start
        if script is not None and next(script, walk) is walk: return
        time.sleep(max(0.0, 1 / FASTEST - (time.perf_counter() - start)))


@seg_command(settings="")  # config is a file of ranges
def seg_walk(
    server: str = "http://127.0.0.1:4200",  # Where seg_serve listens
    seed: int = 0,  # Another seed, another room
    size: int = 512,  # Width and height of the window in pixels, 128 to 1024
    rate: float = 5.0,  # Answers a second to ask for
    config: str = "",  # A JSON file with ranges of the rooms, see RoomConfig
    script: str = "",  # A file of steps that drive the walk instead of a person
    screenshot: str = "",  # Save the last picture here and end
):
    "Walk through a room and see it labelled by a model server. Press H in the window for the keys."
    if not 128 <= size <= 1024: raise SegError(f"--size is {size}; give 128 to 1024 pixels")
    if not .1 <= rate <= 60: raise SegError(f"--rate is {rate:g}; give 0.1 to 60 answers a second")
    steps = read_script(script) if script else [("wait", .3)] if screenshot else None
    walk = Walk(server, seed, size, rate, load_config(config) if config else RoomConfig())
    start = time.perf_counter()
    try:
        stroll(walk, play(walk, steps) if steps is not None else None)
        if screenshot: walk.window.save(screenshot)
    finally: walk.close()
    took, spent = time.perf_counter() - start, 1000 * np.array(walk.spent[1:] or [0.0])
    print(f"{len(spent) / took:.1f} frames/s (median {np.median(spent):.1f} ms, 99 % under {np.percentile(spent, 99):.1f} ms), {walk.live.answers} answers, {walk.live.answers / took:.1f}/s")
