"""A walk: a window on a room, a person in it, and labels over it.

Must not know the engine (that is `window`) nor the protocol (that is `live`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from textwrap import wrap

import numpy as np

from nbs_lib.labels import ROOM_LABELS
from virtual_room.camera import make_camera
from virtual_room.light import surfaces
from virtual_room.rooms import make_room
from virtual_room.scene import RoomConfig
from virtual_room.walk.live import LiveLabels, Prediction
from virtual_room.walk.overlay import Overlay, groups_of
from virtual_room.walk.viewpoint import viewpoint_of

TITLE = "SegmentationLearner: a room to walk through"
DEGREES = .22  # that a pixel of the mouse turns
FASTEST = 60  # frames a second: what is left belongs to the server
DIRECTIONS = dict(w=(0, 1), s=(0, -1), a=(-1, 0), d=(1, 0))  # right, forward
GROUP_KEYS = ("f1", "f2", "f3", "f4")
OPACITY_STEP, MIN_OPACITY = .1, .1
RECENT, REFRESH = 60, 15  # frames that a mean is taken of, and after which it is written anew
LINE = 76  # letters
HELP = [
    "W A S D   walk",
    "drag   look around",
    "Space   labels live, on and off",
    "E   labels once, or clear them",
    "F1 to F4   only one group of labels, again: all",
    "+ -   opacity",
    "Q   hide the room behind the labels",
    "N   next room",
    "H   this help",
    "Esc   quit",
]


class Walk:
    "One person's walk; `close` it, or the engine fails when Python ends"

    def __init__(
        self, source: str, seed: int, size: int, rate: float, config: RoomConfig, token: str = ""
    ) -> None:
        from virtual_room.render import FastRenderer
        from virtual_room.walk.window import Window
        self.config = config
        self.overlay = Overlay()
        self.shown: Prediction | None = None
        self.help = False  # is it shown?
        self.over = False
        self.held_keys: set[str] = set()  # by a script, besides those of the keyboard
        self.seconds: list[float] = []  # that each frame took
        self.window = Window(size, TITLE)
        self.renderer = FastRenderer(size, supersampling=1)
        self.live = LiveLabels(source, rate, token)
        self._actions = self._keys()
        try:
            self.enter(seed)
        except BaseException:
            self.close()
            raise

    def enter(self, seed: int) -> None:
        "Go into the room of a seed"
        self.seed = seed
        self.room = make_room(seed, self.config)
        straight = replace(self.config, close_up=0.0, focus_close_up=0.0, yaw_deviation=0.0)
        self.camera = make_camera(self.room, np.random.default_rng([seed, 0]), straight)
        self.viewpoint = viewpoint_of(self.camera)
        lit = surfaces(self.room)
        self.renderer.load(self.room, lit)
        self.window.show(lit, self.camera)

    def close(self) -> None:
        "End the connection and the window"
        self.live.close()
        self.window.close()

    # --- keys

    def _keys(self) -> dict[str, Callable[[], None]]:
        "What each key does"
        more, less = partial(self._change_opacity, OPACITY_STEP), partial(self._change_opacity, -OPACITY_STEP)
        actions = {
            "space": self._toggle_live, "e": self._ask_once, "q": self._toggle_room, "h": self._toggle_help,
            "n": self._next_room, "escape": self._leave, "+": more, "=": more, "-": less,
        }
        for i, key in enumerate(GROUP_KEYS):
            actions[key] = partial(self._toggle_group, i)
        return actions

    def press(self, key: str) -> None:
        "Do what a key asks for; the main keyboard's + arrives as shift-="
        action = self._actions.get(key.removeprefix("shift-"))
        if action:
            action()

    def _toggle_live(self) -> None:
        self.live.running = not self.live.running
        self.live.once = False

    def _ask_once(self) -> None:
        "Ask for labels, or clear those that are shown"
        if self.shown or self.live.wanted:
            self.live.running = self.live.once = False
            self.live.prediction = None
        else:
            self.live.once = True

    def _change_overlay(self, **changes) -> None:
        self.overlay = replace(self.overlay, **changes)
        self.shown = None

    def _change_opacity(self, step: float) -> None:
        self._change_overlay(opacity=float(np.clip(self.overlay.opacity + step, MIN_OPACITY, 1)))

    def _toggle_group(self, group: int) -> None:
        self._change_overlay(group=None if self.overlay.group == group else group)

    def _toggle_room(self) -> None:
        self._change_overlay(alone=not self.overlay.alone)

    def _toggle_help(self) -> None:
        self.help = not self.help

    def _next_room(self) -> None:
        self.enter(self.seed + 1)

    def _leave(self) -> None:
        self.over = True

    # --- frames

    def frame(self, seconds: float) -> None:
        "Draw one frame, `seconds` after the last: keys, a step, labels, text"
        for key in self.window.pressed():
            self.press(key)
        self._move(seconds)
        if self.live.ready:
            self.live.send(self.renderer.image(self.camera))
        if self.live.prediction is not self.shown:
            self._show(self.live.prediction)
        self._write()
        self.window.draw()

    def _move(self, seconds: float) -> None:
        "Turn and walk as mouse and keys ask for"
        right, down = self.window.turned()
        directions = [way for key, way in DIRECTIONS.items() if key in self.held_keys or self.window.held(key)]
        turned = self.viewpoint.turn(right * DEGREES, down * DEGREES)
        self.viewpoint = turned.walk(directions, seconds, self.room)
        self.camera = replace(self.camera, at=self.viewpoint.at, target=self.viewpoint.target)
        self.window.look(self.camera)

    def _show(self, prediction: Prediction | None) -> None:
        "Lay a prediction over the room, or nothing"
        self.shown = prediction
        if prediction is None:
            self.window.lay_over(None)
            self.window.name([])
            return
        self.window.lay_over(self.overlay.colors(prediction.labels)[prediction.mask])
        self.window.name(self.overlay.names(prediction))

    def _write(self) -> None:
        "Write the lines of text"
        self.window.write("middle", HELP if self.help else [])
        self.window.write("top", self._top())
        if len(self.seconds) % REFRESH == 1:
            self.window.write("bottom", [self.figures()])

    def _top(self) -> list[str]:
        if self.live.wanted and self.live.trouble:
            return wrap(f"{self.live.trouble}. Trying again ...", LINE)
        return [] if self.help else ["H: help"]

    def figures(self) -> str:
        "How fast frames and predictions are, and what is shown, in a line"
        recent = np.mean(self.seconds[-RECENT:] or [0.0])
        parts, labels = [f"frame {1000 * recent:.1f} ms"], ROOM_LABELS
        if self.live.prediction:
            parts.append(f"answer {self.live.prediction.ms:.0f} ms")
            labels = self.live.prediction.labels
        groups, only = groups_of(labels), self.overlay.group
        if only is not None and only < len(groups):
            parts.append(f"only {groups[only][0]}")
        parts.append("live" if self.live.running else "not live")
        return ", ".join(parts)


def run(walk: Walk, script: Iterator[None] | None) -> None:
    "Frame after frame until the person leaves or the script ends"
    last = time.perf_counter()
    while not walk.over and walk.window.open:
        start = time.perf_counter()
        walk.seconds.append(start - last)
        walk.frame(start - last)
        last = start
        if script is not None and next(script, walk) is walk:
            return
        left = 1 / FASTEST - (time.perf_counter() - start)
        time.sleep(max(0.0, left))
