"""The fast renderer: images and exact instance masks by Panda3D's software renderer, without a GPU or a screen.

Only this module, `shaded`, `panda` and `window` know Panda3D. It must not know seeds, files or where rooms come from.
"""

from __future__ import annotations

import ctypes.util
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from panda3d import core as p3

from nbs_lib.core import SegError
from virtual_room.light import Surfaces, surfaces
from virtual_room.panda import draw, look_through, textured, triangles, vertex_layout, vertex_table
from virtual_room.renderer import MAX_OBJECTS, NEAR, develop, label_table
from virtual_room.scene import Camera, Room

SUPERSAMPLING = 2
MASK_SAMPLING = 3  # the renderer rounds corners to whole pixels: masks are drawn finer, and the middle pixel is taken
LARGEST = 4096  # pixels of a buffer's side: larger masks are drawn in tiles
FAR = 30.0
SHADOW = .5  # share of light that a contact shadow takes where it is darkest
QUAD = np.array([[0, 1, 2], [0, 2, 3]])  # its triangles
ANNOTATIONS = p3.BitMask32.bit(1)  # what only images show is hidden from cameras with this bit
FACETS = p3.BitMask32.bit(2)  # of the camera that sees triangles, each in a color of its own

_SETTINGS = """load-display p3tinydisplay
aux-display
window-type offscreen
audio-library-name null
notify-level-x11display fatal
notify-level-device fatal
"""


@dataclass(frozen=True)
class View:
    "An off-screen buffer, the camera that it shows, and the texture that it is written to"
    buffer: p3.GraphicsOutput
    camera: p3.Camera
    target: p3.Texture

    def pixels(self) -> np.ndarray:
        "What was drawn last, (H, W, 3) uint8; the next drawing replaces it"
        raw = np.frombuffer(self.target.getRamImage(), np.uint8)
        return raw.reshape(self.target.getYSize(), self.target.getXSize(), -1)[::-1, :, 2::-1]


class FastRenderer:
    "A `Renderer` of off-screen buffers that share one scene"

    def __init__(self, size: int, supersampling: int = SUPERSAMPLING) -> None:
        self.size, self.supersampling = size, supersampling
        self.tiles = -(-size * MASK_SAMPLING // LARGEST)  # of a side
        self.tile = -(-size // self.tiles)  # pixels of a tile's side
        self.engine = p3.GraphicsEngine()
        self.pipe = offscreen_pipe()
        self.root = _scene_root("rooms")
        self.room = self.root.attachNewNode("room")
        self.color: View | None = None
        self.color = self.open_view("color", size * supersampling, vertex_colors())
        self.color.camera.setCameraMask(p3.BitMask32.bit(0))
        self.numbers = self._open_numbers()
        self.labels = np.zeros(1, np.uint8)
        self.surfaces: Surfaces | None = None
        self.facets = FacetScene(self)

    def _open_numbers(self) -> View:
        "The view that shows each object in the color of its number"
        view = self.open_view("numbers", self.tile * MASK_SAMPLING, p3.RenderState.makeEmpty())
        view.camera.setCameraMask(ANNOTATIONS)
        view.camera.setTagStateKey("instance")
        for i in range(MAX_OBJECTS):
            view.camera.setTagState(str(i), _instance_state(i))
        return view

    def open_view(self, name: str, side: int, state: p3.RenderState) -> View:
        "A view of the scene, square, with `side` pixels a side"
        buffer = self._open_buffer(name, side)
        target = p3.Texture()
        buffer.addRenderTexture(target, p3.GraphicsOutput.RTMCopyRam)
        camera = p3.Camera(name, p3.PerspectiveLens())
        camera.getLens().setNearFar(NEAR, FAR)
        camera.setInitialState(state)
        buffer.makeDisplayRegion().setCamera(self.root.attachNewNode(camera))
        return View(buffer, camera, target)

    def _open_buffer(self, name: str, side: int) -> p3.GraphicsOutput:
        "A black buffer; all but the first share its graphics state. Raises `SegError` where it is too large"
        properties = p3.FrameBufferProperties()
        properties.setRgbColor(True)
        properties.setDepthBits(1)
        first = self.color
        sharing = (first.buffer.getGsg(), first.buffer) if first else ()
        window = p3.WindowProperties.size(side, side)
        no_window = p3.GraphicsPipe.BFRefuseWindow
        buffer = self.engine.makeOutput(self.pipe, name, 0, properties, window, no_window, *sharing)
        if buffer is None:
            raise SegError(f"the renderer gives no image of {side} px; choose a smaller --size")
        buffer.setClearColor((0, 0, 0, 1))
        return buffer

    def show(self, room: Room) -> None:
        "Replace the room that is drawn"
        self.load(room, surfaces(room))

    def load(self, room: Room, lit: Surfaces) -> None:
        "Replace the room that is drawn by one that is lit already"
        self.labels = label_table(room)
        self.room.removeNode()
        self.room = assembled(lit)
        self.room.reparentTo(self.root)
        self.surfaces = lit
        self.facets.clear()

    def look(self, view: View, camera: Camera, tile: tuple[int, int] | None = None) -> np.ndarray:
        "Draw one of the views alone, or a tile (x, y) of it; (H, W, 3) uint8"
        for other in filter(None, (self.color, self.numbers, self.facets.view)):
            other.buffer.setActive(other is view)
        look_through(p3.NodePath(view.camera), camera.at, camera.target)
        lens = view.camera.getLens()
        if tile is None:
            lens.setFov(camera.fov)
        else:
            self._crop(lens, camera.fov, tile)
        draw(self.engine)
        return view.pixels()

    def _crop(self, lens: p3.Lens, fov: float, tile: tuple[int, int]) -> None:
        "Let a lens see one tile only; the whole image is a film of side 1"
        share = self.tile / self.size
        right, down = (share * (n + .5) - .5 for n in tile)
        lens.setFilmSize(share, share)
        lens.setFocalLength(.5 / np.tan(np.radians(fov / 2)))
        lens.setFilmOffset(right, -down)

    def at_centers(self, view: View, camera: Camera) -> np.ndarray:
        "What a view for annotations shows at each pixel's center, (H, W, 3) int32"
        middle = slice(MASK_SAMPLING // 2, None, MASK_SAMPLING)
        if self.tiles == 1:
            return self.look(view, camera)[middle, middle].astype(np.int32)
        rows = []
        for y in range(self.tiles):
            row = [self.look(view, camera, (x, y))[middle, middle].astype(np.int32) for x in range(self.tiles)]
            rows.append(np.concatenate(row, axis=1))
        return np.concatenate(rows)[:self.size, :self.size]

    def instances(self, camera: Camera) -> np.ndarray:
        "For each pixel's center 1 + the index of the object seen there, 0 for nothing; (H, W) int32"
        seen = self.at_centers(self.numbers, camera)
        return seen[..., 0] + 256 * seen[..., 1]

    def mask(self, camera: Camera) -> np.ndarray:
        "The label of each pixel, (H, W) uint8"
        return self.labels[self.instances(camera)]

    def image(self, camera: Camera) -> np.ndarray:
        "The developed image, (H, W, 3) uint8"
        n = self.supersampling
        fine = self.look(self.color, camera).astype(np.uint16)
        sums = 0
        for i in range(n):
            sums = sums + sum(fine[i::n, j::n] for j in range(n))
        return develop(camera, sums, 255 * n * n)

    def geometry(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        "Depth (H, W) and facet normals (H, W, 3) at each pixel's center, see `Renderer`"
        self.facets.fill(self.surfaces)
        facet = _numbers_of(self.at_centers(self.facets.view, camera)) - 1
        corners = (self.facets.corners - np.asarray(camera.at)) @ camera_axes(camera).T
        normal = _facing_camera(corners)[facet]
        depth = _depth_on_planes(normal, corners[facet], camera.fov)
        nothing = facet < 0
        depth = np.where(nothing, 0, depth).astype(np.float32)
        return depth, np.where(nothing[..., None], 0, normal).astype(np.float32)

    def uncovered(self, camera: Camera, objects: list[int]) -> list[int]:
        "Pixels that each of the objects would have if nothing stood before it"
        nodes = [n for n in self.room.getChildren() if n.node().hasTag("instance")]  # objects and seals
        for node in nodes:
            node.hide(ANNOTATIONS)
        pixels = [self._uncovered(camera, self.room.find(str(i))) for i in objects]
        for node in nodes:
            node.show(ANNOTATIONS)
        return pixels

    def _uncovered(self, camera: Camera, node: p3.NodePath) -> int:
        "Pixels of a hidden object, shown alone"
        node.show(ANNOTATIONS)
        pixels = int((self.instances(camera) > 0).sum())
        node.hide(ANNOTATIONS)
        return pixels


class FacetScene:
    "The triangles of a room, each in the color of its number, before a camera of their own; made when first asked for"

    def __init__(self, renderer: FastRenderer) -> None:
        self.renderer = renderer
        self.view: View | None = None
        self.corners: np.ndarray | None = None  # (T, 3, 3)

    def clear(self) -> None:
        "Forget the triangles of the last room"
        self.corners = None

    def fill(self, lit: Surfaces) -> None:
        "Show a room's triangles unless they are shown already"
        if self.corners is not None:
            return
        if self.view is None:
            self._open()
        indices = np.concatenate([t for _, _, t in lit.runs])
        seals = [quad[QUAD] for _, quad in lit.seals]
        self.corners = np.concatenate([lit.position[indices], *seals]).astype(float)
        self.root.getChildren().detach()
        self.root.attachNewNode(_numbered_triangles(self.corners))

    def _open(self) -> None:
        side = self.renderer.tile * MASK_SAMPLING
        self.view = self.renderer.open_view("facets", side, vertex_colors())
        self.view.camera.setCameraMask(FACETS)
        self.root = _scene_root("facets")
        self.view.camera.setScene(self.root)


def _scene_root(name: str) -> p3.NodePath:
    "A root whose nodes are drawn in their order: else equal depths are settled by memory addresses"
    root = p3.NodePath(name)
    root.setBin("unsorted", 0)
    return root


def _software_pipe() -> p3.GraphicsPipe:
    "A pipe of the software renderer. Raises `SegError` where it does not load"
    p3.loadPrcFileData("virtual_room", _SETTINGS)
    pipe = p3.GraphicsPipeSelection.getGlobalPtr().makeModulePipe("p3tinydisplay")
    if pipe:
        return pipe
    if sys.platform == "linux" and ctypes.util.find_library("X11") is None:
        remedy = "install the Debian package libx11-6"
        raise SegError(f"the software renderer needs libX11.so.6, which is missing; {remedy}")
    remedy = "install panda3d anew (pip install panda3d)"
    raise SegError(f"Panda3D's software renderer p3tinydisplay does not load; {remedy}")


@lru_cache(maxsize=1)
def offscreen_pipe() -> p3.GraphicsPipe:
    """The software renderer without a screen, loaded once a process. Raises `SegError` where it does not load.

    Panda3D connects to any screen that it finds, and ends the process when that screen goes away.
    """
    page = p3.loadPrcFileData("no screen", "display none")
    try:
        return _software_pipe()
    finally:
        p3.unloadPrcFile(page)


@lru_cache(maxsize=1)
def window_pipe() -> p3.GraphicsPipe:
    "The software renderer on the screen of DISPLAY; once a process, for it must outlive its windows."
    return _software_pipe()


def driver() -> str:
    "What draws: the same bytes come from the same driver only"
    return f"Panda3D {p3.PandaSystem.getVersionString()} {offscreen_pipe().getInterfaceName()}"


def vertex_colors() -> p3.RenderState:
    "The state in which every vertex has its own color"
    smooth = p3.ShadeModelAttrib.make(p3.ShadeModelAttrib.MSmooth)
    return p3.RenderState.make(p3.ColorAttrib.makeVertex(), smooth)


def _instance_state(i: int) -> p3.RenderState:
    "One flat color and nothing else; the half keeps the software renderer's rounding exact"
    value = i + 1
    color = p3.LVecBase4((value % 256 + .5) / 256, (value // 256 + .5) / 256, .5 / 256, 1)
    attributes = (
        p3.ColorAttrib.makeFlat(color),
        p3.TextureAttrib.makeAllOff(),
        p3.LightAttrib.makeAllOff(),
        p3.ShadeModelAttrib.make(p3.ShadeModelAttrib.MFlat),
        p3.FogAttrib.makeOff(),
        p3.TransparencyAttrib.make(p3.TransparencyAttrib.MNone),
        p3.AntialiasAttrib.make(p3.AntialiasAttrib.MNone),
    )
    plain = p3.NodePath("plain")
    for attribute in attributes:
        plain.setAttrib(attribute, 100)
    return plain.getState()


def assembled(lit: Surfaces) -> p3.NodePath:
    "A node for the room, and in it one for each object, tagged with its number"
    room = p3.NodePath("room")
    vertices = _colored_vertices(lit.position, lit.color, lit.uv)
    nodes: dict[int, p3.GeomNode] = {}
    for i, name, indices in lit.runs:
        if i not in nodes:
            nodes[i] = _instance_node(str(i), i)
            room.attachNewNode(nodes[i])
        nodes[i].addGeom(triangles(vertices, indices), textured(name))
    for i, quad in lit.seals:
        room.attachNewNode(_seal(i, quad, lit))
    room.attachNewNode(_shadows(lit.shadows)).hide(ANNOTATIONS)
    return room


def _instance_node(name: str, i: int) -> p3.GeomNode:
    node = p3.GeomNode(name)
    node.setTag("instance", str(i))
    return node


def _seal(i: int, quad: np.ndarray, lit: Surfaces) -> p3.GeomNode:
    "A strip of the mean color of the wall, floor or ceiling that it seals"
    indices = [indices.ravel() for owner, _, indices in lit.runs if owner == i]
    color = lit.color[np.unique(np.concatenate(indices))].mean(0).round().astype(np.uint8)
    node = _instance_node(f"seal {i}", i)
    vertices = _colored_vertices(quad, np.tile(color, (4, 1)), np.zeros((4, 2), np.float32))
    node.addGeom(triangles(vertices, QUAD), p3.RenderState.makeEmpty())
    return node


def _shadows(quads: np.ndarray) -> p3.GeomNode:
    "Contact shadows, drawn last and never in annotations"
    n = len(quads)
    node = p3.GeomNode("shadows")
    if n:
        uv = np.tile(np.float32([[0, 0], [1, 0], [1, 1], [0, 1]]), (n, 1))
        vertices = _colored_vertices(quads.reshape(-1, 3), np.zeros((4 * n, 3), np.uint8), uv)
        indices = (np.arange(n)[:, None, None] * 4 + QUAD).reshape(-1, 3)
        node.addGeom(triangles(vertices, indices), _shadow_state())
    return node


@lru_cache(maxsize=1)
def _shadow_state() -> p3.RenderState:
    "Dark in the middle and clear at the border, blended"
    pixels = _shadow_pixels(64)
    soft = p3.Texture("shadow")
    soft.setup2dTexture(*pixels.shape[:2], p3.Texture.TUnsignedByte, p3.Texture.FRgba)
    soft.setRamImage(pixels.tobytes())
    soft.setWrapU(p3.SamplerState.WMClamp)
    soft.setWrapV(p3.SamplerState.WMClamp)
    blended = p3.TransparencyAttrib.make(p3.TransparencyAttrib.MAlpha)
    no_depth = p3.DepthWriteAttrib.make(p3.DepthWriteAttrib.MOff)
    return p3.RenderState.make(p3.TextureAttrib.make(soft), blended, no_depth)


def _shadow_pixels(side: int) -> np.ndarray:
    "Black (side, side, 4) uint8 whose opacity falls smoothly from the middle of a rounded square"
    x = np.abs((np.arange(side) + .5) / side * 2 - 1)
    ramp = ((1 - (x[:, None] ** 3.5 + x ** 3.5) ** (1 / 3.5)) / .45).clip(0, 1)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., 3] = (SHADOW * 255 * ramp * ramp * (3 - 2 * ramp)).round()
    return pixels


def _colored_vertices(position: np.ndarray, color: np.ndarray, uv: np.ndarray) -> p3.GeomVertexData:
    "One vertex table of positions (V, 3), colors (V, 3) uint8 and texture coordinates (V, 2)"
    rows = np.zeros(len(position), [("position", "f4", 3), ("color", "u1", 4), ("uv", "f4", 2)])
    rows["position"] = position
    rows["color"][:, :3] = color
    rows["color"][:, 3] = 255
    rows["uv"] = uv
    return vertex_table("room", rows, p3.GeomVertexFormat.getV3c4t2())


def camera_axes(camera: Camera) -> np.ndarray:
    "Rows right, down and ahead of a camera (3, 3)"
    ahead = _unit(np.subtract(camera.target, camera.at))
    right = _unit(np.cross(ahead, (0, 0, 1.0)))
    return np.stack([right, np.cross(ahead, right), ahead])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _facing_camera(corners: np.ndarray) -> np.ndarray:
    "The normal (T, 3) of each triangle (T, 3, 3) in the camera's frame, towards the camera"
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
    normal *= -np.sign((normal * corners[:, 0]).sum(1, keepdims=True))
    return normal


def _depth_on_planes(normal: np.ndarray, corners: np.ndarray, fov: float) -> np.ndarray:
    "Where the ray of each pixel meets its triangle's plane: meters along the view (H, W), within the triangle's depths"
    x = _rays(len(normal), fov)
    along = normal[..., 0] * x + normal[..., 1] * x[:, None] + normal[..., 2]
    to_plane = (normal * corners[..., 0, :]).sum(2)
    depth = to_plane / np.where(along > -1e-9, -1e-9, along)
    depths = corners[..., 2]
    return depth.clip(depths.min(2), depths.max(2))


def _rays(size: int, fov: float) -> np.ndarray:
    "How far (size,) the rays of the pixels of a row go to the right, a meter ahead"
    return ((np.arange(size) + .5) / size * 2 - 1) * np.tan(np.radians(fov / 2))


def _numbers_of(colors: np.ndarray) -> np.ndarray:
    "The numbers (H, W) that colors (H, W, 3) stand for, the lowest digit in red"
    return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]


def _number_colors(n: int) -> np.ndarray:
    "Colors (n, 3), 0..1, of the numbers 1 to n; the half keeps the software renderer's rounding exact"
    number = np.arange(1, n + 1)
    digits = np.stack([number // 256 ** channel % 256 for channel in range(3)], 1)
    return (digits + .5) / 256


def _numbered_triangles(corners: np.ndarray) -> p3.GeomNode:
    "Triangles (T, 3, 3), the i-th in the color of the number i + 1; floats, since bytes come out one off"
    n = len(corners)
    rows = np.ones((n, 3, 7), np.float32)
    rows[..., :3] = corners
    rows[..., 3:6] = _number_colors(n)[:, None]
    position = (p3.InternalName.getVertex(), 3, p3.Geom.CPoint)
    color = (p3.InternalName.getColor(), 4, p3.Geom.CColor)
    vertices = vertex_table("facets", rows.reshape(-1, 7), vertex_layout(position, color))
    flat = p3.RenderState.make(p3.ShadeModelAttrib.make(p3.ShadeModelAttrib.MFlat), 100)
    node = p3.GeomNode("facets")
    node.addGeom(triangles(vertices, np.arange(n * 3).reshape(-1, 3)), flat)
    return node
