"""The shaded renderer: one pass of own shaders draws color, instance numbers and, when asked, depth and normals.

OpenGL (a GPU, or Mesa in software) without a screen. Only this module, `render`, `panda` and `window` know Panda3D.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from panda3d import core as p3

from nbs_lib.core import SegError
from virtual_room.floorplan import is_architecture
from virtual_room.light import HEADROOM, gain
from virtual_room.meshes import RoomMesh, build_mesh
from virtual_room.occupancy import CELL, grid_of, occupied, origin
from virtual_room.panda import draw, look_through, textured, triangles, vertex_layout, vertex_table
from virtual_room.renderer import NEAR, develop, label_table, meter
from virtual_room.scene import Camera, Light, Room

LIGHTS = 6  # the strongest ones of a room
DEEPEST = 30.0  # meters: the largest depth
SHADOW_SIDE = 1024
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
LIBRARIES = ("libEGL.so.1", "libGL.so.1")
PACKAGES = "libegl1, libgl1 and libgl1-mesa-dri"
GLOSS = dict(planks=.35, tiles=.6, wood=.3, plain=.35, painting=.25, screen=.9, clock=.6, phone=.9)
LAMP, SUN = (.02, .09), (.002, .03)  # blur of shadows, see `soft` in the shaders
BRIGHTNESS = 1.2  # of rooms, beside those of the fast renderer
TENT = np.array([1, 2, 1])  # weights of the samples at half a pixel left, in the middle and right

_COLOR = (p3.GraphicsOutput.RTPColor, p3.GraphicsOutput.RTPAuxRgba0)  # planes: color, numbers
_GEOMETRY = (p3.GraphicsOutput.RTPAuxRgba1, p3.GraphicsOutput.RTPAuxRgba2)  # planes: depth, normals
_DEPTH = (p3.GraphicsOutput.RTPDepth,)
_SETTINGS = """window-type offscreen
audio-library-name null
notify-level-egldisplay fatal
notify-level-display fatal
notify-level-device fatal
"""


@dataclass(frozen=True)
class View:
    "An off-screen buffer, the camera that it shows, and the textures that its planes are written to"
    buffer: p3.GraphicsOutput
    camera: p3.NodePath
    targets: list[p3.Texture]


class ShadedRenderer:
    "A `Renderer` whose images and annotations of a camera come from one drawing; the last one is kept"

    def __init__(self, size: int, geometry: bool = False) -> None:
        self.size, self.fine = size, 2 * size + 1
        self.host, self.engine = _host()
        self.root = p3.NodePath("rooms")
        self.root.setBin("unsorted", 0)
        self.room = self.root.attachNewNode("room")
        planes = _COLOR + _GEOMETRY if geometry else _COLOR
        self.eye = self._view("room", self.fine, planes, _shader("room"))
        self.lamp = self._view("shadow", SHADOW_SIDE, _DEPTH, _shader("depth"))
        self.shadow = _shadow_map(self.lamp)
        self.labels = np.zeros(1, np.uint8)
        self.last: tuple[Camera | None, list[np.ndarray]] = (None, [])

    def _view(self, name: str, side: int, planes: tuple[int, ...], shader: p3.Shader) -> View:
        "A view that is drawn when it is asked for only"
        is_depth = planes == _DEPTH
        buffer = self._buffer(name, side, 0 if is_depth else len(planes) - 1, has_color=not is_depth)
        targets = _add_planes(buffer, name, planes)
        weakref.finalize(self, self.engine.removeWindow, buffer)
        buffer.setActive(False)
        camera = p3.Camera(name, p3.PerspectiveLens())
        camera.setInitialState(_drawing_state(shader, both_sides=is_depth))
        path = self.root.attachNewNode(camera)
        buffer.makeDisplayRegion().setCamera(path)
        return View(buffer, path, targets)

    def _buffer(self, name: str, side: int, more_planes: int, has_color: bool) -> p3.GraphicsOutput:
        properties = p3.FrameBufferProperties()
        properties.setDepthBits(24)
        if has_color:
            properties.setRgbaBits(8, 8, 8, 8)
            properties.setAuxRgba(more_planes)
        window = p3.WindowProperties.size(side, side)
        pipe, sharing = self.host.getPipe(), (self.host.getGsg(), self.host)
        no_window = p3.GraphicsPipe.BFRefuseWindow
        buffer = self.engine.makeOutput(pipe, name, 0, properties, window, no_window, *sharing)
        if buffer is None:
            raise SegError(f"OpenGL gives no image of {side} px; choose a smaller --size, or --renderer fast")
        return buffer

    def show(self, room: Room) -> None:
        "Replace the room that is drawn"
        self.labels = label_table(room)
        self.room.removeNode()
        m = build_mesh(room)
        shell = {i for i, o in enumerate(room.objects) if is_architecture(o)}
        self.room = assembled(m, shell)
        self.room.reparentTo(self.root)
        self._forget()
        self._set_inputs(light_inputs(room, BRIGHTNESS * gain(room, m)))
        self._set_inputs(air_inputs(room, len(shell)))
        self._set_inputs(self._shadow_inputs(room))
        self._draw(self.lamp)

    def _set_inputs(self, inputs: dict[str, Any]) -> None:
        for name, value in inputs.items():
            self.room.setShaderInput(name, value)

    def _shadow_inputs(self, room: Room) -> dict[str, Any]:
        "The shadow map of the strongest light"
        if room.lights:
            _aim(self.lamp.camera, strongest(room)[0], room)
        to_lens = self.lamp.camera.node().getLens().getProjectionMat()
        to_lamp = self.root.getMat(self.lamp.camera) * to_lens
        return dict(to_lamp=to_lamp, shadow=self.shadow, only=0.0)

    def _forget(self) -> None:
        "The next image or annotation is drawn anew"
        self.last = (None, [])

    def _draw(self, view: View) -> None:
        view.buffer.setActive(True)
        draw(self.engine)
        view.buffer.setActive(False)

    def planes(self, camera: Camera) -> list[np.ndarray]:
        "All planes (F, F, 4) uint8, blue first, one row and column of samples beyond the pixels on each side"
        if self.last[0] == camera:
            return self.last[1]
        look_through(self.eye.camera, camera.at, camera.target)
        wider = self.fine / (self.fine - 1)
        half = np.arctan(np.tan(np.radians(camera.fov / 2)) * wider)
        lens = self.eye.camera.node().getLens()
        lens.setNearFar(NEAR, DEEPEST)
        lens.setFov(float(2 * np.degrees(half)))
        self._draw(self.eye)
        self.last = camera, [self._plane(target) for target in self.eye.targets]
        return self.last[1]

    def _plane(self, target: p3.Texture) -> np.ndarray:
        raw = np.frombuffer(target.getRamImage(), np.uint8)
        return raw.reshape(self.fine, self.fine, 4)[::-1]

    def instances(self, camera: Camera) -> np.ndarray:
        "For each pixel's center 1 + the index of the object seen there, 0 for nothing; (H, W) int32"
        seen = self.planes(camera)[1][1::2, 1::2].astype(np.int32)
        return seen[..., 2] + 256 * seen[..., 1]

    def mask(self, camera: Camera) -> np.ndarray:
        "The label of each pixel, (H, W) uint8"
        return self.labels[self.instances(camera)]

    def geometry(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        "Depth (H, W) and facet normals (H, W, 3) at each pixel's center, see `Renderer`"
        in_order = [2, 1, 0, 3]  # red first
        deep, flat = (plane[1::2, 1::2, in_order].astype(np.float32) for plane in self.planes(camera)[2:])
        depth = _decoded_depth(deep)
        normal = _decoded_normals(flat, is_ahead=deep[..., 3] > 0)
        return depth, np.where(depth[..., None] > 0, normal, 0).astype(np.float32)

    def uncovered(self, camera: Camera, objects: list[int]) -> list[int]:
        "Pixels that each of the objects would have if nothing stood before it"
        pixels = []
        for i in objects:
            self._show_only(i + 1.0)
            pixels.append(int((self.instances(camera) > 0).sum()))
        self._show_only(0.0)
        return pixels

    def _show_only(self, number: float) -> None:
        "Draw one object alone, or all with number 0"
        self.room.setShaderInput("only", number)
        self._forget()

    def image(self, camera: Camera) -> np.ndarray:
        "The developed image (H, W, 3) uint8: each pixel from the nine samples around its center"
        fine = self.planes(camera)[0].astype(np.uint16)
        rows = sum(w * fine[i:i + 2 * self.size:2] for i, w in enumerate(TENT))
        sums = sum(w * rows[:, i:i + 2 * self.size:2] for i, w in enumerate(TENT))
        light, top = sums[..., 2::-1], 255 * TENT.sum() ** 2
        return develop(camera, light, top, meter(camera, light.max(axis=2) / top))


def _shadow_map(lamp: View) -> p3.Texture:
    "What the lamp sees, as a texture that shaders ask whether a place is in the shadow"
    shadow, = lamp.targets
    shadow.setMinfilter(p3.SamplerState.FTShadow)
    shadow.setMagfilter(p3.SamplerState.FTShadow)
    return shadow


def _add_planes(buffer: p3.GraphicsOutput, name: str, planes: tuple[int, ...]) -> list[p3.Texture]:
    "Let a buffer write its planes to textures, each cleared before; color planes are copied to the main memory"
    is_depth = planes == _DEPTH
    mode = p3.GraphicsOutput.RTMBindOrCopy if is_depth else p3.GraphicsOutput.RTMCopyRam
    nothing = (1, 1, 1, 1) if is_depth else (0, 0, 0, 0)
    targets = [p3.Texture(name) for _ in planes]
    for target, plane in zip(targets, planes):
        buffer.addRenderTexture(target, mode, plane)
        buffer.setClearActive(plane, True)
        buffer.setClearValue(plane, nothing)
    return targets


def _drawing_state(shader: p3.Shader, both_sides: bool) -> p3.RenderState:
    "The state in which a camera draws: by a shader, triangles from one side or from both"
    attributes = [p3.ShaderAttrib.make(shader)]
    if both_sides:
        attributes.append(p3.CullFaceAttrib.make(p3.CullFaceAttrib.MCullNone))
    return p3.RenderState.make(*attributes)


def _decoded_depth(deep: np.ndarray) -> np.ndarray:
    "Meters (H, W) of a plane (H, W, 4) that holds 24 bits in red, green and blue"
    return (deep[..., :3] @ np.float32([65536, 256, 1])) * (DEEPEST / 2 ** 24)


def _decoded_normals(flat: np.ndarray, is_ahead: np.ndarray) -> np.ndarray:
    "Unit vectors (H, W, 3) of a plane (H, W, 4) that holds x and y in 16 bits each; the sign of z is given apart"
    x, y = (flat[..., i:i + 2] @ np.float32([256, 1]) / 32767 - 1 for i in (0, 2))
    z = np.sqrt((1 - x * x - y * y).clip(0)) * np.where(is_ahead, 1, -1)
    return np.stack([x, y, z], 2)


def strongest(room: Room) -> list[Light]:
    "The lights that are drawn, the strongest first: the sun, then by color and area"
    return sorted(room.lights, key=_strength, reverse=True)[:LIGHTS]


def _strength(light: Light) -> float:
    if not light.area:
        return np.inf
    is_window = any(light.normal)
    return max(light.color) * light.area * (1 if is_window else .25)


def light_inputs(room: Room, scale: float) -> dict[str, Any]:
    "What the shaders must know of the lights"
    lights = strongest(room)
    none = Light((0, 0, 0), (0, 0, 0), (0, 0, 0), 1.0)
    padded = lights + [none] * (LIGHTS - len(lights))
    sun_shines = bool(lights) and not lights[0].area
    return dict(
        light_at=_vectors([light.at for light in padded]),
        light_normal=_vectors([light.normal for light in padded]),
        light_color=_vectors([light.color for light in padded]),
        light_area=p3.PTAFloat([float(light.area) for light in padded]),
        lights=len(lights),
        ambient=_vector(room.ambient),
        scale=p3.LVecBase2f(scale, 1 / HEADROOM),
        soft=p3.LVecBase2f(*(SUN if sun_shines else LAMP)),
    )


def air_inputs(room: Room, shell: int) -> dict[str, Any]:
    "What the shaders must know of the room's air and of its `shell` first objects"
    size = np.array(grid_of(room)[::-1]) * CELL
    return dict(
        shell=p3.LVecBase4f(*_middle(room), shell),
        grid=_volume(occupied(room)),
        grid_origin=_vector(origin(room)),
        grid_size=_vector(size),
    )


def _vector(values: Any) -> p3.LVecBase3f:
    return p3.LVecBase3f(*map(float, values))


def _vectors(rows: list[Any]) -> p3.PTALVecBase3f:
    return p3.PTALVecBase3f([_vector(row) for row in rows])


def _middle(room: Room) -> list[float]:
    "Of the room's bounding box"
    return [*(room.low + room.high) / 2, room.height / 2]


def _aim(lamp: p3.NodePath, light: Light, room: Room) -> None:
    "Let a camera look from a light: in at a window, down from a ceiling, else to the floor; from the sun at all"
    ahead = _light_direction(light, room)
    if light.area:
        lens, at = _lamp_lens(light), np.array(light.at)
    else:
        reach = float(np.linalg.norm([*np.ptp(room.outline, axis=0), room.height])) / 2
        lens, at = _sun_lens(reach), np.array(_middle(room)) - (reach + 1) * ahead
    lamp.node().setLens(lens)
    position, target = map(float, at), at + ahead
    look_through(lamp, tuple(position), tuple(target))


def _lamp_lens(light: Light) -> p3.Lens:
    "A wide lens; that of a lamp begins behind its own shade"
    is_window = any(light.normal)
    lens = p3.PerspectiveLens()
    lens.setFov(140)
    lens.setNearFar(.1 if is_window else .4, 15)
    return lens


def _sun_lens(reach: float) -> p3.Lens:
    "Parallel rays over a ball of a radius of `reach` meters, from a meter before it"
    lens = p3.OrthographicLens()
    lens.setFilmSize(2 * reach, 2 * reach)
    lens.setNearFar(.1, 2 * reach + 2)
    return lens


def _light_direction(light: Light, room: Room) -> np.ndarray:
    "Into the room, down from a ceiling lamp, or from a lamp to the middle of the floor"
    if any(light.normal):
        return np.array(light.normal)
    if light.at[2] > 1.95:
        return np.array((0, .01, -1))
    return np.array([*room.middle, .3]) - light.at


def _volume(cells: np.ndarray) -> p3.Texture:
    "A grid (Z, Y, X) uint8 as a texture"
    volume = p3.Texture("occupied")
    volume.setup3dTexture(*cells.shape[::-1], p3.Texture.TUnsignedByte, p3.Texture.FLuminance)
    volume.setRamImage(cells.tobytes())
    volume.setMinfilter(p3.SamplerState.FTLinearMipmapNearest)
    volume.setMagfilter(p3.SamplerState.FTLinear)
    for set_wrap in (volume.setWrapU, volume.setWrapV, volume.setWrapW):
        set_wrap(p3.SamplerState.WMClamp)
    return volume


def assembled(m: RoomMesh, shell: set[int]) -> p3.NodePath:
    """A node of all triangles; each vertex knows its object, emission and gloss.

    The objects in `shell` come last, since most of their pixels are hidden.
    """
    extra = np.column_stack([m.owner + 1, m.emission, _gloss(m)])
    rows = np.hstack([m.position, m.normal, m.tint, m.uv, extra]).astype(np.float32)
    vertices = vertex_table("room", rows, _layout())
    node = p3.GeomNode("room")
    for _, name, indices in sorted(m.runs, key=lambda run: run[0] in shell):
        node.addGeom(triangles(vertices, indices), textured(name, "shaded"))
    return p3.NodePath(node)


def _gloss(m: RoomMesh) -> np.ndarray:
    "How much each vertex (V,) shines, by the kind of its texture"
    gloss = np.zeros(len(m.position), np.float32)
    for _, name, indices in m.runs:
        gloss[indices] = GLOSS.get(name.partition(":")[0], 0)
    return gloss


@lru_cache(maxsize=1)
def _layout() -> p3.GeomVertexFormat:
    "Position, normal, color, texture coordinates; number, emission and gloss"
    return vertex_layout(
        (p3.InternalName.getVertex(), 3, p3.Geom.CPoint),
        (p3.InternalName.getNormal(), 3, p3.Geom.CNormal),
        ("tint", 3, p3.Geom.COther),
        (p3.InternalName.getTexcoord(), 2, p3.Geom.CTexcoord),
        ("extra", 3, p3.Geom.COther),
    )


def _shader(name: str) -> p3.Shader:
    "The shader of `shaders/NAME.vert` and `shaders/NAME.frag`"
    folder = files("virtual_room") / "shaders"
    sources = [(folder / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("vert", "frag")]
    return p3.Shader.make(p3.Shader.SL_GLSL, *map(_with_constants, sources))


def _with_constants(source: str) -> str:
    "GLSL wants its version in the first line"
    version, rest = source.split("\n", 1)
    return f"{version}\n#define LIGHTS {LIGHTS}\n#define DEEPEST {DEEPEST}\n{rest}"


@lru_cache(maxsize=1)
def _host() -> tuple[p3.GraphicsOutput, p3.GraphicsEngine]:
    "What holds the one OpenGL context of the process"
    if sys.platform != "linux":
        raise SegError("the shaded renderer draws without a screen on Linux only (EGL); give --renderer fast")
    remedy = f"install the Debian packages {PACKAGES}, or give --renderer fast"
    for library in LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            raise SegError(f"the shaded renderer needs {library}, which is missing; {remedy}") from None
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa in software: workers share the cores, not threads
    p3.loadPrcFileData("virtual_room", _SETTINGS)
    pipe = p3.GraphicsPipeSelection.getGlobalPtr().makeModulePipe("p3headlessgl")
    engine = p3.GraphicsEngine()
    host = pipe and _small_buffer(pipe, engine)
    if not host:
        raise SegError(f"OpenGL does not start without a screen (EGL); {remedy}")
    draw(engine)
    return host, engine


def _small_buffer(pipe: p3.GraphicsPipe, engine: p3.GraphicsEngine) -> p3.GraphicsOutput | None:
    properties = p3.FrameBufferProperties()
    properties.setRgbaBits(8, 8, 8, 8)
    window = p3.WindowProperties.size(1, 1)
    return engine.makeOutput(pipe, "host", 0, properties, window, p3.GraphicsPipe.BFRefuseWindow)


def driver() -> str:
    "What draws: the same bytes come from the same driver only. Raises `SegError` where OpenGL does not start"
    gsg = _host()[0].getGsg()
    version = p3.PandaSystem.getVersionString()
    return f"Panda3D {version} {gsg.getDriverRenderer()}, {gsg.getDriverVersion()}"


def hardware() -> bool:
    "Is there an OpenGL that is not software?"
    try:
        name = driver().lower()
    except SegError:
        return False
    return not any(word in name for word in SOFTWARE)
