"""A real window on a room, with labels laid over it and lines of text; keys and mouse come back as names and numbers.

The walkable counterpart of `render.Stage`. Must not know what keys mean, nor servers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from panda3d import core as p3
from PIL import Image

from nbs_lib.core import SegError, atomic_path
from virtual_room.light import Surfaces
from virtual_room.render import FAR, NEAR, assembled, curves, draw, software_pipe, vertex_colours
from virtual_room.scene import Camera

LAYER = 512  # side of the texture that carries the labels: the software renderer wants powers of two
LETTER = 13  # height of a line of text in pixels
GREY = (.05, .05, .05, .62)


class Window:
    "Square, of a fixed size; `close` it, or the engine fails when Python ends"

    def __init__(self, size: int, title: str) -> None:
        self.size, self.engine = size, p3.GraphicsEngine()
        pipe = software_pipe()
        properties = p3.FrameBufferProperties()
        properties.setRgbColor(True), properties.setDepthBits(1)
        frame = p3.WindowProperties.size(size, size)
        frame.setTitle(title), frame.setFixedSize(True)
        self.window = self.engine.makeOutput(pipe, title, 0, properties, frame, p3.GraphicsPipe.BFRequireWindow)
        if self.window is None: raise SegError("no window can be opened; is there a screen (DISPLAY)? Without one, put `xvfb-run -a` before the command")
        self._room(), self._front(), self._input()

    def _room(self) -> None:
        self.root = p3.NodePath("rooms")
        self.root.setBin("unsorted", 0)
        self.shown = self.root.attachNewNode("room")
        camera = p3.Camera("eye", p3.PerspectiveLens())
        camera.getLens().setNearFar(NEAR, FAR)
        camera.setInitialState(vertex_colours())
        self.eye = self.root.attachNewNode(camera)
        self.window.makeDisplayRegion().setCamera(self.eye)

    def _front(self) -> None:
        "What lies over the room, in pixels from the upper left corner"
        self.front = p3.NodePath("front")
        self.front.setDepthTest(False), self.front.setDepthWrite(False), self.front.setTwoSided(True)
        self.front.setBin("unsorted", 0), self.front.setTransparency(p3.TransparencyAttrib.MAlpha)
        lens = p3.OrthographicLens()
        lens.setFilmSize(self.size, self.size), lens.setFilmOffset(self.size / 2, -self.size / 2), lens.setNearFar(-10, 10)
        region = self.window.makeDisplayRegion()
        region.setSort(10), region.setClearDepthActive(True)
        region.setCamera(self.front.attachNewNode(p3.Camera("front", lens)))
        self.layer = p3.Texture("labels")
        self.layer.setup2dTexture(LAYER, LAYER, p3.Texture.TUnsignedByte, p3.Texture.FRgba)
        self.layer.setMagfilter(p3.SamplerState.FTNearest), self.layer.setMinfilter(p3.SamplerState.FTNearest)
        card = p3.CardMaker("labels")
        card.setFrame(0, self.size, -self.size, 0)
        self.card = self.front.attachNewNode(card.generate())
        self.card.setTexture(self.layer), self.card.hide()
        self.card.setDepthTest(True), self.card.setDepthWrite(True)  # else the pixels its two triangles share are blended twice
        self.words = self.front.attachNewNode("words")
        self.lines: dict[str, tuple[tuple, p3.NodePath]] = {}

    def _input(self) -> None:
        "A watcher for what is held, a thrower for what is pressed"
        source = p3.NodePath(p3.MouseAndKeyboard(self.window, 0, "input"))
        self.watcher, self.source = p3.MouseWatcher("watcher"), source
        source.attachNewNode(self.watcher).attachNewNode(p3.ButtonThrower("thrower"))
        self.traverser, self.queue = p3.DataGraphTraverser(), p3.EventQueue.getGlobalEventQueue()
        self.draw()
        grab = p3.WindowProperties()
        grab.setMouseMode(p3.WindowProperties.M_relative)
        self.window.requestProperties(grab)
        self.draw()
        self.grabbed = self.window.getProperties().getMouseMode() == p3.WindowProperties.M_relative
        self.pointer = self._pointer()

    @property
    def open(self) -> bool: return not self.window.isClosed()

    def show(self, lit: Surfaces, camera: Camera) -> None:
        "Another room, developed as the camera develops its pictures"
        self.shown.removeNode()
        developed = np.stack([c[lit.colour[:, i]] for i, c in enumerate(curves(camera, 255))], 1)
        self.shown = assembled(replace(lit, colour=developed))
        self.shown.reparentTo(self.root)

    def look(self, camera: Camera) -> None:
        self.eye.setPos(*camera.at), self.eye.lookAt(p3.Point3(*camera.target))
        self.eye.node().getLens().setFov(camera.fov)

    def lay_over(self, colours: np.ndarray | None) -> None:
        "Lay (H, W, 4) uint8 colours over the room, or nothing"
        if colours is None: return self.card.hide()
        rows, columns = ((np.arange(LAYER) * n) // LAYER for n in colours.shape[:2])
        self.layer.setRamImage(np.ascontiguousarray(colours[rows[::-1]][:, columns][..., [2, 1, 0, 3]]).tobytes())
        self.card.show()

    def name(self, names: list[tuple[str, float, float]]) -> None:
        "Write names, each with its middle at (x, y), 0..1 from the upper left corner"
        self.words.removeNode()
        self.words = self.front.attachNewNode("words")
        for text, x, y in names: self._text(text, x * self.size, y * self.size, p3.TextNode.ACenter).reparentTo(self.words)

    def write(self, place: str, lines: list[str]) -> None:
        "Replace the lines at the 'top', in the 'middle' or at the 'bottom'"
        before, node = self.lines.get(place, ((), None))
        if before == tuple(lines): return
        if node: node.removeNode()
        y = dict(top=LETTER, middle=self.size * .2, bottom=self.size - LETTER * 1.3 * len(lines))[place]
        node = self._text("\n".join(lines), LETTER * .6, y, p3.TextNode.ALeft) if lines else None
        if node: node.reparentTo(self.front)
        self.lines[place] = tuple(lines), node

    def _text(self, text: str, x: float, y: float, align: int) -> p3.NodePath:
        node = p3.TextNode("text")
        node.setText(text), node.setAlign(align), node.setTextColor(1, 1, 1, 1)
        node.setCardColor(*GREY), node.setCardAsMargin(.3, .3, .12, .12), node.setCardDecal(False)
        path = p3.NodePath(node.generate())
        path.setScale(LETTER), path.setPos(x, 0, -y - LETTER * .3)
        return path

    def draw(self) -> None: draw(self.engine)

    def pressed(self) -> list[str]:
        "Keys that went down since the last call, by Panda3D's names"
        self.traverser.traverse(self.source.node())
        names = []
        while not self.queue.isQueueEmpty(): names.append(self.queue.dequeueEvent().getName())
        return names

    def held(self, key: str) -> bool:
        "Is a letter held down while the window has the focus?"
        return self.window.getProperties().getForeground() and self.watcher.isButtonDown(p3.KeyboardButton.asciiKey(key))

    def turned(self) -> tuple[float, float]:
        "Pixels (right, down) by which the mouse has turned the view since the last call: all of them where it is grabbed, else those of dragging"
        before, self.pointer = self.pointer, self._pointer()
        if not (self.grabbed or self.watcher.isButtonDown(p3.MouseButton.one())): return 0.0, 0.0
        return self.pointer[0] - before[0], self.pointer[1] - before[1]

    def _pointer(self) -> tuple[float, float]:
        p = self.window.getPointer(0)
        return p.getX(), p.getY()

    def pixels(self) -> np.ndarray:
        "What the window shows, (H, W, 3) uint8"
        shot = self.window.getScreenshot()
        raw = np.frombuffer(shot.getRamImageAs("RGB"), np.uint8)
        return raw.reshape(shot.getYSize(), shot.getXSize(), 3)[::-1]

    def save(self, path: str | Path) -> None:
        with atomic_path(path) as tmp: Image.fromarray(np.ascontiguousarray(self.pixels())).save(tmp)

    def close(self) -> None: self.engine.removeAllWindows()
