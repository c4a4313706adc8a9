"""A real window on a room, with labels laid over it and lines of text; keys and mouse come back as names and numbers.

The walkable counterpart of `render.FastRenderer`. Must not know what keys mean, nor servers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from panda3d import core as p3
from PIL import Image

from nbs_lib.core import SegError, atomic_path
from virtual_room.light import Surfaces
from virtual_room.panda import draw
from virtual_room.render import FAR, assembled, vertex_colors, window_pipe
from virtual_room.renderer import NEAR, curves
from virtual_room.scene import Camera

LAYER = 512  # side of the texture that carries the labels: the software renderer wants powers of two
LETTER = 13  # height of a line of text in pixels
LINE_HEIGHT = 1.3  # in letters
BEHIND_TEXT = (.05, .05, .05, .62)  # RGBA
TEXT_MARGINS = (.3, .3, .12, .12)  # left, right, bottom and top, in letters
NO_SCREEN = "no window can be opened; is there a screen (DISPLAY)? Without one, put `xvfb-run -a` before the command"
MIDDLE = .2  # share of the height above the text in the middle


class Window:
    "Square, of a fixed size in pixels; `close` it, or the engine fails when Python ends. `SegError` without a screen"

    def __init__(self, size: int, title: str) -> None:
        self.size, self.engine = size, p3.GraphicsEngine()
        self.window = self._open(title)
        self._make_room()
        self._make_front()
        self._make_layer()
        self._make_input()

    def _open(self, title: str) -> p3.GraphicsWindow:
        properties = p3.FrameBufferProperties()
        properties.setRgbColor(True)
        properties.setDepthBits(1)
        frame = p3.WindowProperties.size(self.size, self.size)
        frame.setTitle(title)
        frame.setFixedSize(True)
        window = self.engine.makeOutput(window_pipe(), title, 0, properties, frame, p3.GraphicsPipe.BFRequireWindow)
        if window is None:
            raise SegError(NO_SCREEN)
        return window

    def _make_room(self) -> None:
        "The scene and its camera"
        self.root = p3.NodePath("rooms")
        self.root.setBin("unsorted", 0)
        self.shown = self.root.attachNewNode("room")
        camera = p3.Camera("eye", p3.PerspectiveLens())
        camera.getLens().setNearFar(NEAR, FAR)
        camera.setInitialState(vertex_colors())
        self.eye = self.root.attachNewNode(camera)
        self.window.makeDisplayRegion().setCamera(self.eye)

    def _make_front(self) -> None:
        "What lies over the room, in pixels from the upper left corner"
        self.front = p3.NodePath("front")
        self.front.setDepthTest(False)
        self.front.setDepthWrite(False)
        self.front.setTwoSided(True)
        self.front.setBin("unsorted", 0)
        self.front.setTransparency(p3.TransparencyAttrib.MAlpha)
        region = self.window.makeDisplayRegion()
        region.setSort(10)
        region.setClearDepthActive(True)
        region.setCamera(self.front.attachNewNode(p3.Camera("front", self._flat_lens())))
        self.words = p3.NodePath("words")
        self.lines: dict[str, tuple[str, ...]] = {}  # the text at each place
        self._line_nodes: dict[str, p3.NodePath] = {}

    def _flat_lens(self) -> p3.Lens:
        "A lens that sees a pixel as a unit, the upper left corner at (0, 0)"
        lens = p3.OrthographicLens()
        lens.setFilmSize(self.size, self.size)
        lens.setFilmOffset(self.size / 2, -self.size / 2)
        lens.setNearFar(-10, 10)
        return lens

    def _make_layer(self) -> None:
        "The card that carries the labels"
        self.layer = p3.Texture("labels")
        self.layer.setup2dTexture(LAYER, LAYER, p3.Texture.TUnsignedByte, p3.Texture.FRgba)
        self.layer.setMagfilter(p3.SamplerState.FTNearest)
        self.layer.setMinfilter(p3.SamplerState.FTNearest)
        card = p3.CardMaker("labels")
        card.setFrame(0, self.size, -self.size, 0)
        self.card = self.front.attachNewNode(card.generate())
        self.card.setTexture(self.layer)
        self.card.hide()
        self.card.setDepthTest(True)  # else the pixels its two triangles share are blended twice
        self.card.setDepthWrite(True)
        self.words.reparentTo(self.front)

    def _make_input(self) -> None:
        "A watcher for what is held, a thrower for what is pressed; the mouse is grabbed where the screen allows it"
        self.source = p3.NodePath(p3.MouseAndKeyboard(self.window, 0, "input"))
        self.watcher = p3.MouseWatcher("watcher")
        self.source.attachNewNode(self.watcher).attachNewNode(p3.ButtonThrower("thrower"))
        self.traverser, self.queue = p3.DataGraphTraverser(), p3.EventQueue.getGlobalEventQueue()
        self.draw()
        grab = p3.WindowProperties()
        grab.setMouseMode(p3.WindowProperties.M_relative)
        self.window.requestProperties(grab)
        self.draw()
        self.grabbed = self.window.getProperties().getMouseMode() == p3.WindowProperties.M_relative
        self.pointer = self._pointer()

    @property
    def open(self) -> bool:
        "Has nobody closed it?"
        return not self.window.isClosed()

    def close(self) -> None:
        "Close the window"
        self.engine.removeAllWindows()

    # --- what is shown

    def show(self, lit: Surfaces, camera: Camera) -> None:
        "Another room, its colors developed as the camera develops its images"
        self.shown.removeNode()
        channels = [curve[lit.color[:, i]] for i, curve in enumerate(curves(camera, 255))]
        self.shown = assembled(replace(lit, color=np.stack(channels, 1)))
        self.shown.reparentTo(self.root)

    def look(self, camera: Camera) -> None:
        "Look from another place"
        self.eye.setPos(*camera.at)
        self.eye.lookAt(p3.Point3(*camera.target))
        self.eye.node().getLens().setFov(camera.fov)

    def lay_over(self, colors: np.ndarray | None) -> None:
        "Lay RGBA colors (H, W, 4) uint8 over the room, or nothing"
        if colors is None:
            self.card.hide()
            return
        height, width = colors.shape[:2]
        rows = np.arange(LAYER)[::-1] * height // LAYER  # the engine begins at the bottom
        columns = np.arange(LAYER) * width // LAYER
        bgra = colors[rows][:, columns][..., [2, 1, 0, 3]]
        self.layer.setRamImage(np.ascontiguousarray(bgra).tobytes())
        self.card.show()

    def name(self, names: list[tuple[str, float, float]]) -> None:
        "Write names, each with its middle at (x, y), 0..1 from the upper left corner"
        self.words.removeNode()
        self.words = self.front.attachNewNode("words")
        for text, x, y in names:
            node = self._text(text, x * self.size, y * self.size, p3.TextNode.ACenter)
            node.reparentTo(self.words)

    def write(self, place: str, lines: list[str]) -> None:
        "Replace the lines at the 'top', in the 'middle' or at the 'bottom'"
        if self.lines.get(place, ()) == tuple(lines):
            return
        if place in self._line_nodes:
            self._line_nodes.pop(place).removeNode()
        self.lines[place] = tuple(lines)
        if not lines:
            return
        bottom = self.size - LETTER * LINE_HEIGHT * len(lines)
        y = dict(top=LETTER, middle=self.size * MIDDLE, bottom=bottom)[place]
        node = self._text("\n".join(lines), LETTER * .6, y, p3.TextNode.ALeft)
        node.reparentTo(self.front)
        self._line_nodes[place] = node

    def _text(self, text: str, x: float, y: float, align: int) -> p3.NodePath:
        "White text on dark, at pixels from the upper left corner"
        node = p3.TextNode("text")
        node.setText(text)
        node.setAlign(align)
        node.setTextColor(1, 1, 1, 1)
        node.setCardColor(*BEHIND_TEXT)
        node.setCardAsMargin(*TEXT_MARGINS)
        node.setCardDecal(False)
        path = p3.NodePath(node.generate())
        path.setScale(LETTER)
        path.setPos(x, 0, -y - LETTER * .3)
        return path

    def draw(self) -> None:
        "Draw a frame and take in what was pressed meanwhile"
        draw(self.engine)

    # --- what a person does

    def pressed(self) -> list[str]:
        "Keys that went down since the last call, by Panda3D's names"
        self.traverser.traverse(self.source.node())
        names = []
        while not self.queue.isQueueEmpty():
            names.append(self.queue.dequeueEvent().getName())
        return names

    def held(self, key: str) -> bool:
        "Is a letter held down while the window has the focus?"
        button = p3.KeyboardButton.asciiKey(key)
        return self.window.getProperties().getForeground() and self.watcher.isButtonDown(button)

    def turned(self) -> tuple[float, float]:
        "Pixels (right, down) of the mouse since the last call: all of them where it is grabbed, else those of dragging"
        before, self.pointer = self.pointer, self._pointer()
        if not (self.grabbed or self.watcher.isButtonDown(p3.MouseButton.one())):
            return 0.0, 0.0
        return self.pointer[0] - before[0], self.pointer[1] - before[1]

    def _pointer(self) -> tuple[float, float]:
        pointer = self.window.getPointer(0)
        return pointer.getX(), pointer.getY()

    # --- what is seen

    def pixels(self) -> np.ndarray:
        "What the window shows, (H, W, 3) uint8"
        shot = self.window.getScreenshot()
        raw = np.frombuffer(shot.getRamImageAs("RGB"), np.uint8)
        return raw.reshape(shot.getYSize(), shot.getXSize(), 3)[::-1]

    def save(self, path: str | Path) -> None:
        "Write what the window shows into an image file"
        image = Image.fromarray(np.ascontiguousarray(self.pixels()))
        with atomic_path(path) as tmp:
            image.save(tmp)
