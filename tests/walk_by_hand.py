"""Presses every key of a walk for real and looks at what each changes. The engine wants one window a process.

A function a group of keys; each yields pairs of what it tried and whether that did what the help says.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import numpy as np

from nbs_lib.labels import ROOM_LABELS
from virtual_room import RoomConfig

VALUES = [0, *(ROOM_LABELS[name] for name in ("building_wall", "furniture_doubleBed", "items_tv", "live_dog"))]
PALETTE = ROOM_LABELS.palette[VALUES].astype(int)
SIZE, ROW = 512, 400  # of the window; a row of pixels where no text is
Seen = Iterator[tuple[str, bool]]


def until(true: Callable[[], bool], seconds: float = 15.0, step: Callable[[], None] = lambda: time.sleep(.005)) -> bool:
    "Wait for something, doing `step` again and again; did it come true?"
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        step()
    return bool(true())


class Hands:
    "A walk, and the hands on its keyboard and mouse"

    def __init__(self, url: str) -> None:
        from virtual_room.walk.session import Walk
        self.walk = Walk(url, 3, SIZE, 20.0, RoomConfig())

    def tool(self, *words) -> None:
        "Do something with keyboard or mouse"
        subprocess.run(["xdotool", *map(str, words)], check=True)

    def frames(self, true: Callable[[], bool], seconds: float = 10.0) -> bool:
        "Let frames pass until something is true; is it?"
        return until(true, seconds, self.frame)

    def frame(self) -> None:
        self.walk.frame(.02)
        time.sleep(.005)

    def rest(self, seconds: float = .2) -> None:
        "Let frames pass"
        self.frames(lambda: False, seconds)

    def key(self, name: str, true: Callable[[], bool]) -> bool:
        "Press a key; does it come true?"
        self.tool("key", name)
        return self.frames(true)

    def stripes(self) -> np.ndarray:
        "Colors (5, 3) in the five stripes that the server answers"
        self.rest(.1)
        return self.walk.window.pixels()[ROW, 51::102][:5].astype(int)


def walk_about(hands: Hands) -> Seen:
    "Each letter walks while it is held, and no longer"
    walk = hands.walk
    for letter in "wasd":
        start = walk.viewpoint.at
        hands.tool("keydown", letter)
        moved = hands.frames(lambda start=start: walk.viewpoint.at != start, 3)
        hands.tool("keyup", letter)
        hands.rest()
        stopped = walk.viewpoint.at
        hands.rest()
        yield letter, moved and walk.viewpoint.at == stopped


def drag(hands: Hands) -> Seen:
    "The mouse turns the view while its button is down"
    walk = hands.walk
    before = walk.viewpoint
    hands.tool("mousedown", 1)
    hands.rest()
    hands.tool("mousemove_relative", "--", 80, 40)
    yield "drag", hands.frames(lambda: walk.viewpoint.yaw != before.yaw and walk.viewpoint.pitch < before.pitch)
    hands.tool("mouseup", 1)
    hands.rest()
    before = walk.viewpoint
    hands.tool("mousemove_relative", "--", -60, 0)
    hands.rest(.3)
    yield "no drag", walk.viewpoint == before


def labels_once(hands: Hands, bare: np.ndarray) -> Seen:
    "E asks for labels once, and clears them"
    walk = hands.walk
    yield "e", hands.key("e", lambda: walk.shown is not None)
    changed = (hands.stripes() != bare).any(1)
    yield "e shows all", changed.tolist() == [False, True, True, True, True]
    yield "e asks once", not walk.live.running
    yield "e again", hands.key("e", lambda: walk.shown is None)
    yield "e clears", (hands.stripes() == bare).all()


def labels_live(hands: Hands, bare: np.ndarray) -> Seen:
    "Space asks again and again; F1 to F4 show one group each"
    walk = hands.walk
    yield "space", hands.key("space", lambda: walk.live.answers > 4)
    for group in range(4):
        name = f"F{group + 1}"
        yield name, hands.key(name, lambda group=group: walk.overlay.group == group)
        changed = (hands.stripes() != bare).any(1)
        yield f"{name} shows", np.flatnonzero(changed).tolist() == [group + 1]
        yield f"{name} again", hands.key(name, lambda: walk.overlay.group is None)


def opacity(hands: Hands) -> Seen:
    "+ and - make labels more and less opaque, Q hides the room behind them"
    walk = hands.walk
    half = hands.stripes()
    yield "plus", hands.key("plus", lambda: walk.overlay.opacity > .55)
    off, off_half = (np.abs(colors - PALETTE)[1:].sum() for colors in (hands.stripes(), half))
    yield "more opaque", off < off_half
    yield "minus", hands.key("minus", lambda: abs(walk.overlay.opacity - .5) < .01)
    yield "q", hands.key("q", lambda: walk.overlay.alone)
    yield "labels alone", np.abs(hands.stripes() - PALETTE).max() <= 8
    yield "q again", hands.key("q", lambda: not walk.overlay.alone)


def the_rest(hands: Hands) -> Seen:
    "Help, the next room, the end"
    walk = hands.walk
    yield "h", hands.key("h", lambda: walk.help)
    yield "help", len(walk.window.lines["middle"]) > 5
    room = walk.room
    yield "n", hands.key("n", lambda: walk.room != room)
    yield "figures", "frame" in walk.figures() and "answer" in walk.figures()
    yield "Escape", hands.key("Escape", lambda: walk.over)


def press_every_key(display: str, url: str) -> dict[str, bool]:
    "What was tried with each key, and whether it did what the help says"
    os.environ["DISPLAY"] = display
    hands = Hands(url)
    hands.tool("mousemove", 256, 256)
    hands.rest(.5)
    seen = dict(walk_about(hands)) | dict(drag(hands))
    bare = hands.stripes()
    seen |= dict(labels_once(hands, bare)) | dict(labels_live(hands, bare))
    seen |= dict(opacity(hands)) | dict(the_rest(hands))
    hands.walk.close()
    return seen


def colors_of_an_overlay(display: str) -> int:
    "Colors in a window that lays one color, half transparent, over nothing"
    os.environ["DISPLAY"] = display
    from virtual_room.walk.window import Window
    window = Window(256, "one color")
    window.lay_over(np.full((64, 64, 4), (200, 100, 50, 128), np.uint8))
    window.draw()
    colors = np.unique(window.pixels().reshape(-1, 3), axis=0)
    window.close()
    return len(colors)
