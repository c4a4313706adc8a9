"""The engine's rim: a `Stage` turns rooms and cameras into pictures and exact instance masks with Panda3D's software renderer.

Only this module, `shaded` and `window` know Panda3D. It must not know seeds, files or where rooms come from.
"""

from __future__ import annotations

import ctypes.util
from functools import lru_cache

import numpy as np
from panda3d import core as p3

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.light import GAMMA, HEADROOM, Surfaces, surfaces
from virtual_room.scene import Camera, Room
from virtual_room.textures import FITTED, texture

SUPERSAMPLING = 2
TRUTH_SAMPLING = 3  # the renderer rounds corners to whole pixels: truth is drawn finer, and its middle pixel taken
LARGEST = 4096
NEAR, FAR = .08, 30.0
MAX_THINGS = 400
HIGHLIGHTS, WHITE = .1, .8  # share of an image that may be lighter than this light
SHADOW = .5  # share of light that a contact shadow takes where it is darkest
TRUTH = p3.BitMask32.bit(1)  # what only pictures show is hidden from cameras with this bit
QUAD = np.array([[0, 1, 2], [0, 2, 3]])  # its triangles
FACETS = p3.BitMask32.bit(2)  # of the camera that sees triangles, each in a colour of its own

_SETTINGS = "load-display p3tinydisplay\naux-display\nwindow-type offscreen\naudio-library-name null\nnotify-level-x11display fatal\nnotify-level-device fatal\n"


class Stage:
    "Two off-screen buffers that share one scene; `show` puts a room on it, `mask` and `picture` look at it"

    def __init__(self, size: int, supersampling: int = SUPERSAMPLING) -> None:
        self.size, self.supersampling = size, supersampling
        self.engine = p3.GraphicsEngine()
        self.pipe = software_pipe()
        self.root = p3.NodePath("rooms")
        self.root.setBin("unsorted", 0)  # else equal depths are settled by memory addresses, another way each run
        self.room = self.root.attachNewNode("room")
        self.colour = self._camera("colour", size * supersampling, vertex_colours())
        self.tiles = -(-size * TRUTH_SAMPLING // LARGEST)  # of a side: larger masks are drawn in pieces
        self.tile = -(-size // self.tiles)
        self.truth = self._camera("truth", self.tile * TRUTH_SAMPLING, p3.RenderState.makeEmpty(), self.colour[0])
        self.colour[1].setCameraMask(p3.BitMask32.bit(0)), self.truth[1].setCameraMask(TRUTH)
        self.truth[1].setTagStateKey("instance")
        for i in range(MAX_THINGS): self.truth[1].setTagState(str(i), _instance_state(i))
        self.lut = np.zeros(MAX_THINGS + 1, np.uint8)
        self.facets = self.lit = self.facet_node = None

    def _camera(self, name: str, size: int, state: p3.RenderState, sharing=None) -> tuple:
        properties = p3.FrameBufferProperties()
        properties.setRgbColor(True), properties.setDepthBits(1)
        more = (sharing.getGsg(), sharing) if sharing else ()
        buffer = self.engine.makeOutput(self.pipe, name, 0, properties, p3.WindowProperties.size(size, size), p3.GraphicsPipe.BFRefuseWindow, *more)
        if buffer is None: raise SegError(f"the renderer gives no picture of {size} px; choose a smaller --size")
        buffer.setClearColor((0, 0, 0, 1))
        target = p3.Texture()
        buffer.addRenderTexture(target, p3.GraphicsOutput.RTMCopyRam)
        camera = p3.Camera(name, p3.PerspectiveLens())
        camera.getLens().setNearFar(NEAR, FAR)
        camera.setInitialState(state)
        buffer.makeDisplayRegion().setCamera(self.root.attachNewNode(camera))
        return buffer, camera, target

    def show(self, room: Room) -> None:
        "Replace what is on the stage"
        self.load(room, surfaces(room))

    def load(self, room: Room, lit: Surfaces) -> None:
        "Replace what is on the stage by surfaces that are lit already"
        if len(room.things) > MAX_THINGS: raise SegError(f"a room of {len(room.things)} things is more than {MAX_THINGS}; lower the room settings")
        self.room.removeNode()
        self.room = assembled(lit)
        self.room.reparentTo(self.root)
        self.lit, self.facet_node = lit, None
        codes = ROOM_LABELS.codes
        self.lut[:] = 0
        self.lut[1:len(room.things) + 1] = [codes.index(t.label) for t in room.things]

    def _look(self, which: tuple, camera: Camera, tile: tuple[int, int] | None = None) -> np.ndarray:
        "Draw one of the buffers alone, or a tile (x, y) of it; (H, W, 3) uint8"
        for buffer, node, _ in filter(None, (self.colour, self.truth, self.facets)): buffer.setActive(node is which[1])
        path = p3.NodePath(which[1])
        path.setPos(*camera.at), path.lookAt(p3.Point3(*camera.target))
        lens = which[1].getLens()
        if tile is None: lens.setFov(camera.fov)
        else:
            share = self.tile / self.size
            x, y = (share * (n + .5) - .5 for n in tile)
            lens.setFilmSize(share, share)
            lens.setFocalLength(.5 / np.tan(np.radians(camera.fov / 2)))
            lens.setFilmOffset(x, -y)
        draw(self.engine)
        target = which[2]
        raw = np.frombuffer(target.getRamImage(), np.uint8).reshape(target.getYSize(), target.getXSize(), -1)
        return raw[::-1, :, 2::-1]

    def _numbers(self, which: tuple, camera: Camera) -> np.ndarray:
        "What one of the truth's buffers shows at each pixel's center, (H, W, 3) int"
        middle = slice(TRUTH_SAMPLING // 2, None, TRUTH_SAMPLING)
        if self.tiles == 1: return self._look(which, camera)[middle, middle].astype(np.int32)
        rows = []
        for y in range(self.tiles):
            row = [self._look(which, camera, (x, y))[middle, middle].astype(np.int32) for x in range(self.tiles)]
            rows.append(np.concatenate(row, axis=1))
        return np.concatenate(rows)[:self.size, :self.size]

    def instances(self, camera: Camera) -> np.ndarray:
        "For each pixel's centre 1 + the index of the thing seen there, 0 for nothing; (H, W) int"
        seen = self._numbers(self.truth, camera)
        return seen[..., 0] + 256 * seen[..., 1]

    def geometry(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        "At each pixel's centre the depth along the view in metres, (H, W) float32, and the facet's normal, (H, W, 3) float32, x right, y down, z ahead; 0 for nothing"
        corners = self._show_facets()
        seen = self._numbers(self.facets, camera)
        which = seen[..., 0] + 256 * seen[..., 1] + 65536 * seen[..., 2] - 1
        axes = _axes(camera)
        own = (corners - np.asarray(camera.at)) @ axes.T
        normal = np.cross(own[:, 1] - own[:, 0], own[:, 2] - own[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
        normal *= -np.sign((normal * own[:, 0]).sum(1, keepdims=True))
        x = ((np.arange(self.size) + .5) / self.size * 2 - 1) * np.tan(np.radians(camera.fov / 2))
        n = normal[which]
        along = n[..., 0] * x + n[..., 1] * x[:, None] + n[..., 2]
        depth = (n * own[which, 0]).sum(2) / np.where(along > -1e-9, -1e-9, along)
        depth = depth.clip(own[which, :, 2].min(2), own[which, :, 2].max(2))
        return np.where(which < 0, 0, depth).astype(np.float32), np.where(which[..., None] < 0, 0, n).astype(np.float32)

    def _show_facets(self) -> np.ndarray:
        "Put the room's triangles before a camera of their own; their corners (T, 3, 3)"
        tris = np.concatenate([t for _, _, t in self.lit.runs])
        seals = [quad[QUAD] for _, quad in self.lit.seals]
        corners = np.concatenate([self.lit.position[tris], *seals]).astype(float)
        if self.facets is None:
            self.facets = self._camera("facets", self.tile * TRUTH_SAMPLING, p3.RenderState.makeEmpty(), self.colour[0])
            self.facets[1].setCameraMask(FACETS), self.facets[1].setInitialState(vertex_colours())
            self.facet_root = p3.NodePath("facets")
            self.facet_root.setBin("unsorted", 0)
            self.facets[1].setScene(self.facet_root)
        if self.facet_node is None:
            self.facet_root.getChildren().detach()
            self.facet_node = self.facet_root.attachNewNode(_facets(corners))
        return corners

    def uncovered(self, camera: Camera, things: list[int]) -> list[int]:
        "Pixels that each of the things would have if nothing stood before it"
        nodes = {int(n.getName()): n for n in self.room.getChildren() if n.getName().isdigit()}
        seals = self.room.findAllMatches("seal*")
        seals.hide(TRUTH)
        for node in nodes.values(): node.hide(TRUTH)
        pixels = []
        for i in things:
            nodes[i].show(TRUTH)
            pixels.append(int((self.instances(camera) > 0).sum()))
            nodes[i].hide(TRUTH)
        for node in nodes.values(): node.show(TRUTH)
        seals.show(TRUTH)
        return pixels

    def mask(self, camera: Camera) -> np.ndarray:
        "Labels (H, W) uint8 from the instances"
        return self.lut[self.instances(camera)]

    def picture(self, camera: Camera) -> np.ndarray:
        "The developed picture (H, W, 3) uint8"
        n = self.supersampling
        fine = self._look(self.colour, camera).astype(np.uint16)
        sums = sum(fine[i::n, j::n] for i in range(n) for j in range(n))
        return np.stack([curve[sums[..., i]] for i, curve in enumerate(curves(camera, 255 * n * n))], axis=2)


def curves(camera: Camera, top: int, metered: float = 1.0) -> list[np.ndarray]:
    "For each channel the table that develops 0..top to 0..255; `metered` is a factor on the exposure"
    return [_develop(metered * camera.exposure * b, camera.contrast, top) for b in camera.balance]


def meter(camera: Camera, encoded: np.ndarray) -> float:
    """The factor (at most 1) on the exposure that keeps all but the lightest tenth of an image under white.

    `encoded` holds the brightest channel of each pixel as the renderer wrote it, 0..1.
    """
    bright = float(np.quantile(encoded, 1 - HIGHLIGHTS)) ** GAMMA * HEADROOM * camera.exposure
    return min(1.0, WHITE / max(bright, 1e-6))


def _develop(gain: float, contrast: float, top: int) -> np.ndarray:
    "A table from 0..top to 0..255: exposure with a soft shoulder towards white, then contrast as an S curve"
    linear = (np.arange(top + 1) / top) ** GAMMA * HEADROOM * gain
    soft = np.where(linear < .6, linear, 1 - .4 * np.exp(-(linear - .6) / .4))
    shown = soft ** (1 / GAMMA)
    return (255 * (shown + contrast * (3 * shown ** 2 - 2 * shown ** 3 - shown))).round().astype(np.uint8)


def draw(engine: p3.GraphicsEngine) -> None:
    "One frame; states of earlier ones, which the engine keeps, are let go"
    engine.renderFrame()
    p3.TransformState.garbageCollect(), p3.RenderState.garbageCollect()


@lru_cache(maxsize=1)
def software_pipe() -> p3.GraphicsPipe:
    "The software renderer, loaded once a process"
    p3.loadPrcFileData("virtual_room", _SETTINGS)
    pipe = p3.GraphicsPipeSelection.getGlobalPtr().makeModulePipe("p3tinydisplay")
    if pipe: return pipe
    if ctypes.util.find_library("X11") is None:
        raise SegError("the software renderer needs libX11.so.6, which is missing; install the Debian package libx11-6")
    raise SegError("Panda3D's software renderer p3tinydisplay does not load; install panda3d anew (pip install panda3d)")


def driver() -> str:
    "What draws: the same bytes come from the same driver only"
    return f"Panda3D {p3.PandaSystem.getVersionString()} {software_pipe().getInterfaceName()}"


def vertex_colours() -> p3.RenderState:
    return p3.RenderState.make(p3.ColorAttrib.makeVertex(), p3.ShadeModelAttrib.make(p3.ShadeModelAttrib.MSmooth))


def _instance_state(i: int) -> p3.RenderState:
    "One flat colour and nothing else; the half keeps the software renderer's rounding exact"
    value = i + 1
    colour = p3.LVecBase4((value % 256 + .5) / 256, (value // 256 + .5) / 256, .5 / 256, 1)
    plain = p3.NodePath("plain")
    for attribute in (p3.ColorAttrib.makeFlat(colour), p3.TextureAttrib.makeAllOff(), p3.LightAttrib.makeAllOff(), p3.ShadeModelAttrib.make(p3.ShadeModelAttrib.MFlat),
                      p3.FogAttrib.makeOff(), p3.TransparencyAttrib.make(p3.TransparencyAttrib.MNone), p3.AntialiasAttrib.make(p3.AntialiasAttrib.MNone)):
        plain.setAttrib(attribute, 100)
    return plain.getState()


def assembled(lit: Surfaces) -> p3.NodePath:
    "A node for the room, and in it one for each thing, tagged with its number"
    room, vertices, nodes = p3.NodePath("room"), _vertices(lit), {}
    for i, name, tris in lit.runs:
        if i not in nodes:
            nodes[i] = p3.GeomNode(str(i))
            nodes[i].setTag("instance", str(i))
            room.attachNewNode(nodes[i])
        nodes[i].addGeom(triangles(vertices, tris), textured(name))
    for i, quad in lit.seals: room.attachNewNode(_seal(i, quad, lit))
    room.attachNewNode(_shadows(lit.shadows)).hide(TRUTH)
    return room


def _seal(i: int, quad: np.ndarray, lit: Surfaces) -> p3.GeomNode:
    "A strip of the mean color of the wall, floor or ceiling that it seals"
    own = np.unique(np.concatenate([tris.ravel() for owner, _, tris in lit.runs if owner == i]))
    color = lit.colour[own].mean(0).round().astype(np.uint8)
    node = p3.GeomNode(f"seal {i}")
    node.setTag("instance", str(i))
    plain = Surfaces(quad, np.tile(color, (4, 1)), np.zeros((4, 2), np.float32), [], quad[None], [])
    node.addGeom(triangles(_vertices(plain), QUAD), p3.RenderState.makeEmpty())
    return node


def _shadows(quads: np.ndarray) -> p3.GeomNode:
    "Contact shadows, drawn last and never in the truth"
    n = len(quads)
    uv = np.tile(np.float32([[0, 0], [1, 0], [1, 1], [0, 1]]), (n, 1))
    black = Surfaces(quads.reshape(-1, 3), np.zeros((4 * n, 3), np.uint8), uv, [], quads, [])
    node = p3.GeomNode("shadows")
    if n: node.addGeom(triangles(_vertices(black), (np.arange(n)[:, None, None] * 4 + [[0, 1, 2], [0, 2, 3]]).reshape(-1, 3)), _shadow_state())
    return node


@lru_cache(maxsize=1)
def _shadow_state() -> p3.RenderState:
    "Dark in the middle and clear at the border, blended"
    side = 64
    x = np.abs((np.arange(side) + .5) / side * 2 - 1)
    ramp = ((1 - (x[:, None] ** 3.5 + x ** 3.5) ** (1 / 3.5)) / .45).clip(0, 1)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., 3] = (SHADOW * 255 * ramp * ramp * (3 - 2 * ramp)).round()
    soft = p3.Texture("shadow")
    soft.setup2dTexture(side, side, p3.Texture.TUnsignedByte, p3.Texture.FRgba)
    soft.setRamImage(pixels.tobytes())
    soft.setWrapU(p3.SamplerState.WMClamp), soft.setWrapV(p3.SamplerState.WMClamp)
    return p3.RenderState.make(p3.TextureAttrib.make(soft), p3.TransparencyAttrib.make(p3.TransparencyAttrib.MAlpha), p3.DepthWriteAttrib.make(p3.DepthWriteAttrib.MOff))


def _vertices(lit: Surfaces) -> p3.GeomVertexData:
    "One vertex table for the room"
    rows = np.zeros(len(lit.position), [("position", "f4", 3), ("colour", "u1", 4), ("uv", "f4", 2)])
    rows["position"], rows["colour"][:, :3], rows["colour"][:, 3], rows["uv"] = lit.position, lit.colour, 255, lit.uv
    data = p3.GeomVertexData("room", p3.GeomVertexFormat.getV3c4t2(), p3.Geom.UHStatic)
    data.uncleanSetNumRows(len(rows))
    memoryview(data.modifyArray(0)).cast("B")[:] = rows.tobytes()
    return data


def _axes(camera: Camera) -> np.ndarray:
    "Rows right, down and ahead of a camera (3, 3)"
    ahead = np.subtract(camera.target, camera.at)
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(ahead, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(ahead, right), ahead])


def _facets(corners: np.ndarray) -> p3.GeomNode:
    "Triangles (T, 3, 3), the i-th in the colour of the number i + 1; floats, since bytes come out one off"
    number = np.arange(1, len(corners) + 1)
    layout = p3.GeomVertexArrayFormat()
    layout.addColumn(p3.InternalName.getVertex(), 3, p3.Geom.NTFloat32, p3.Geom.CPoint), layout.addColumn(p3.InternalName.getColor(), 4, p3.Geom.NTFloat32, p3.Geom.CColor)
    rows = np.ones((len(corners), 3, 7), np.float32)
    rows[..., :3] = corners
    for channel in range(3): rows[..., 3 + channel] = ((number // 256 ** channel % 256 + .5) / 256)[:, None]
    data = p3.GeomVertexData("facets", p3.GeomVertexFormat.registerFormat(p3.GeomVertexFormat(layout)), p3.Geom.UHStatic)
    data.uncleanSetNumRows(rows.shape[0] * 3)
    memoryview(data.modifyArray(0)).cast("B")[:] = rows.tobytes()
    node = p3.GeomNode("facets")
    node.addGeom(triangles(data, np.arange(rows.shape[0] * 3).reshape(-1, 3)), p3.RenderState.make(p3.ShadeModelAttrib.make(p3.ShadeModelAttrib.MFlat), 100))
    return node


def triangles(vertices: p3.GeomVertexData, tris: np.ndarray) -> p3.Geom:
    triangles = p3.GeomTriangles(p3.Geom.UHStatic)
    triangles.setIndexType(p3.Geom.NTUint32)
    index = triangles.modifyVertices()
    index.uncleanSetNumRows(tris.size)
    memoryview(index).cast("B")[:] = tris.astype(np.uint32).tobytes()
    geom = p3.Geom(vertices)
    geom.addPrimitive(triangles)
    return geom


@lru_cache(maxsize=None)
def textured(name: str, renderer: str = "fast") -> p3.RenderState:
    "The state that wears a texture; loaded once a process and renderer: the software one adds its own mipmaps to it, which OpenGL would take over"
    if name.startswith("plain"): return p3.RenderState.makeEmpty()
    picture = texture(name)
    loaded = p3.Texture(name)
    loaded.setup2dTexture(picture.shape[1], picture.shape[0], p3.Texture.TUnsignedByte, p3.Texture.FRgb)
    loaded.setRamImage(np.ascontiguousarray(picture[::-1, :, ::-1]).tobytes())
    wrap = p3.SamplerState.WMClamp if name.partition(":")[0] in FITTED else p3.SamplerState.WMRepeat
    loaded.setWrapU(wrap), loaded.setWrapV(wrap)
    loaded.setMinfilter(p3.SamplerState.FTLinearMipmapLinear), loaded.setMagfilter(p3.SamplerState.FTLinear)
    return p3.RenderState.make(p3.TextureAttrib.make(loaded))
