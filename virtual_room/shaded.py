"""The `shaded` profile: one pass of own shaders draws colour, instance numbers and, when asked, depth and normals at once.

The counterpart of `render.Stage` on OpenGL (a GPU, or Mesa in software), without a screen. Only this module, `render` and `window` know Panda3D.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from functools import lru_cache

import numpy as np
from panda3d import core as p3

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room.light import HEADROOM, Shape, gain, shape_of
from virtual_room.openness import CELL, filled, grid_of, origin
from virtual_room.placement import ARCHITECTURE
from virtual_room.render import MAX_THINGS, NEAR, curves, draw, meter, textured, triangles
from virtual_room.scene import Camera, Light, Room
from virtual_room.shaders import DEEPEST, DEPTH, LIGHTS, ROOM

SHADOW_SIDE = 1024
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
PACKAGES = "libegl1, libgl1 and libgl1-mesa-dri"
GLOSS = dict(planks=.35, tiles=.6, wood=.3, plain=.35, painting=.25, screen=.9, clock=.6, phone=.9)
LAMP, SUN = (.02, .09), (.002, .03)  # blur of shadows, see `soft` in the shaders
TENT = np.array([1, 2, 1])  # weights of the samples at half a pixel left, in the middle and right

_SETTINGS = "window-type offscreen\naudio-library-name null\nnotify-level-egldisplay fatal\nnotify-level-display fatal\nnotify-level-device fatal\n"


class Stage:
    "`show` puts a room on it; pictures and truths of a camera come from one drawing, and the last one is kept"

    def __init__(self, size: int, geometry: bool = False) -> None:
        self.size, self.fine = size, 2 * size + 1
        self.host, self.engine = _host()
        self.root = p3.NodePath("rooms")
        self.root.setBin("unsorted", 0)
        self.room = self.root.attachNewNode("room")
        planes = [p3.GraphicsOutput.RTPColor, p3.GraphicsOutput.RTPAuxRgba0, p3.GraphicsOutput.RTPAuxRgba1, p3.GraphicsOutput.RTPAuxRgba2]
        self.buffer, self.eye, self.targets = self._camera("room", self.fine, planes if geometry else planes[:2], ROOM)
        self.dark, self.lamp, (self.shadow,) = self._camera("shadow", SHADOW_SIDE, [p3.GraphicsOutput.RTPDepth], DEPTH)
        self.shadow.setMinfilter(p3.SamplerState.FTShadow), self.shadow.setMagfilter(p3.SamplerState.FTShadow)
        self.lut = np.zeros(MAX_THINGS + 1, np.uint8)
        self.seen: tuple = None, []

    def _camera(self, name: str, side: int, planes: list[int], shader: tuple[str, str]) -> tuple:
        "A buffer, its camera and the textures that its planes are written to"
        properties = p3.FrameBufferProperties()
        properties.setDepthBits(24)
        if p3.GraphicsOutput.RTPColor in planes: properties.setRgbaBits(8, 8, 8, 8), properties.setAuxRgba(len(planes) - 1)
        buffer = self.engine.makeOutput(self.host.getPipe(), name, 0, properties, p3.WindowProperties.size(side, side), p3.GraphicsPipe.BFRefuseWindow, self.host.getGsg(), self.host)
        if buffer is None: raise SegError(f"OpenGL gives no picture of {side} px; choose a smaller --size, or --renderer fast")
        depth_only = p3.GraphicsOutput.RTPDepth in planes
        targets = [p3.Texture(name) for _ in planes]
        for target, plane in zip(targets, planes): buffer.addRenderTexture(target, p3.GraphicsOutput.RTMBindOrCopy if depth_only else p3.GraphicsOutput.RTMCopyRam, plane)
        weakref.finalize(self, self.engine.removeWindow, buffer)
        buffer.setActive(False)
        for plane in planes: buffer.setClearActive(plane, True), buffer.setClearValue(plane, (1, 1, 1, 1) if depth_only else (0, 0, 0, 0))
        camera = p3.Camera(name, p3.PerspectiveLens())
        camera.setInitialState(p3.RenderState.make(p3.ShaderAttrib.make(p3.Shader.make(p3.Shader.SL_GLSL, *shader)), *([p3.CullFaceAttrib.make(p3.CullFaceAttrib.MCullNone)] if depth_only else [])))
        path = self.root.attachNewNode(camera)
        buffer.makeDisplayRegion().setCamera(path)
        return buffer, path, targets

    def show(self, room: Room) -> None:
        "Replace what is on the stage"
        if len(room.things) > MAX_THINGS: raise SegError(f"a room of {len(room.things)} things is more than {MAX_THINGS}; lower the room settings")
        self.room.removeNode()
        shape = shape_of(room)
        self.room = assembled(shape, {i for i, t in enumerate(room.things) if t.model.kind in ARCHITECTURE})
        self.room.reparentTo(self.root)
        self.lut[1:len(room.things) + 1] = [ROOM_LABELS.codes.index(t.label) for t in room.things]
        self.seen = None, []
        self._light(room, 1.2 * gain(room, shape))
        self._draw(self.dark)

    def _light(self, room: Room, scale: float) -> None:
        "Tell the shaders the lights, the strongest of them first, and how open the air is"
        tell, vec = self.room.setShaderInput, lambda v: p3.LVecBase3f(*map(float, v))
        lights = sorted(room.lights, key=_strength, reverse=True)[:LIGHTS]
        more = [Light((0, 0, 0), (0, 0, 0), (0, 0, 0), 1.0)] * (LIGHTS - len(lights))
        for name in ("at", "normal", "colour"): tell(f"light_{name}", p3.PTALVecBase3f([vec(getattr(l, name)) for l in lights + more]))
        tell("light_area", p3.PTAFloat([float(l.area) for l in lights + more])), tell("lights", len(lights))
        tell("ambient", vec(room.ambient)), tell("scale", p3.LVecBase2f(scale, 1 / HEADROOM)), tell("only", 0.0)
        tell("soft", p3.LVecBase2f(*(SUN if lights and not lights[0].area else LAMP)))
        middle = [*(np.min(room.outline, axis=0) + np.max(room.outline, axis=0)) / 2, room.height / 2]
        tell("shell", p3.LVecBase4f(*middle, sum(t.model.kind in ARCHITECTURE for t in room.things)))
        tell("grid", _volume(filled(room))), tell("grid_origin", vec(origin(room))), tell("grid_size", vec(np.array(grid_of(room)[::-1]) * CELL))
        if lights: _aim(self.lamp, lights[0], room, middle)
        tell("to_lamp", self.root.getMat(self.lamp) * self.lamp.node().getLens().getProjectionMat()), tell("shadow", self.shadow)

    def _draw(self, buffer: p3.GraphicsOutput) -> None:
        buffer.setActive(True)
        draw(self.engine)
        buffer.setActive(False)

    def _look(self, camera: Camera) -> list[np.ndarray]:
        "All planes (F, F, 4), one row and column of samples beyond the pixels on each side"
        if self.seen[0] == camera: return self.seen[1]
        self.eye.setPos(*camera.at), self.eye.lookAt(p3.Point3(*camera.target))
        lens, wider = self.eye.node().getLens(), self.fine / (self.fine - 1)
        lens.setNearFar(NEAR, DEEPEST), lens.setFov(float(2 * np.degrees(np.arctan(np.tan(np.radians(camera.fov / 2)) * wider))))
        self._draw(self.buffer)
        self.seen = camera, [np.frombuffer(t.getRamImage(), np.uint8).reshape(self.fine, self.fine, 4)[::-1] for t in self.targets]
        return self.seen[1]

    def instances(self, camera: Camera) -> np.ndarray:
        "For each pixel's centre 1 + the index of the thing seen there, 0 for nothing; (H, W) int"
        seen = self._look(camera)[1][1::2, 1::2].astype(np.int32)
        return seen[..., 2] + 256 * seen[..., 1]

    def mask(self, camera: Camera) -> np.ndarray:
        "Labels (H, W) uint8 from the instances"
        return self.lut[self.instances(camera)]

    def geometry(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        "At each pixel's centre the depth along the view in metres, (H, W) float32, and the facet's normal, (H, W, 3) float32, x right, y down, z ahead; 0 for nothing"
        deep, flat = (plane[1::2, 1::2, [2, 1, 0, 3]].astype(np.float32) for plane in self._look(camera)[2:])
        depth = (deep[..., :3] @ np.float32([65536, 256, 1])) * (DEEPEST / 2 ** 24)
        x, y = (flat[..., i:i + 2] @ np.float32([256, 1]) / 32767 - 1 for i in (0, 2))
        z = np.sqrt((1 - x * x - y * y).clip(0)) * np.where(deep[..., 3] > 0, 1, -1)
        return depth, np.where(depth[..., None] > 0, np.stack([x, y, z], 2), 0).astype(np.float32)

    def uncovered(self, camera: Camera, things: list[int]) -> list[int]:
        "Pixels that each of the things would have if nothing stood before it"
        pixels = []
        for i in [*things, -1]:
            self.room.setShaderInput("only", i + 1.0)
            self.seen = None, []
            if i >= 0: pixels.append(int((self.instances(camera) > 0).sum()))
        return pixels

    def picture(self, camera: Camera) -> np.ndarray:
        "The developed picture (H, W, 3) uint8: each pixel from the nine samples around its centre"
        fine = self._look(camera)[0].astype(np.uint16)
        rows = sum(w * fine[i:i + 2 * self.size:2] for i, w in enumerate(TENT))
        sums = sum(w * rows[:, i:i + 2 * self.size:2] for i, w in enumerate(TENT))
        top = 255 * TENT.sum() ** 2
        metered = meter(camera, sums[..., :3].max(axis=2) / top)
        return np.stack([curve[sums[..., 2 - i]] for i, curve in enumerate(curves(camera, top, metered))], axis=2)


def _strength(light: Light) -> float: return np.inf if not light.area else max(light.colour) * light.area * (1 if any(light.normal) else .25)


def _aim(lamp: p3.NodePath, light: Light, room: Room, middle: list[float]) -> None:
    "Look from a light: in at a window, down from a ceiling, else to the middle of the floor; from the sun at the whole room"
    ahead = np.array(light.normal) if any(light.normal) else (0, .01, -1) if light.at[2] > 1.95 else np.array([*room.middle, .3]) - light.at
    at, lens = np.array(light.at), p3.PerspectiveLens() if light.area else p3.OrthographicLens()
    if light.area: lens.setFov(140), lens.setNearFar(.1 if any(light.normal) else .4, 15)
    else:
        reach = float(np.linalg.norm([*np.ptp(room.outline, axis=0), room.height])) / 2
        at = np.array(middle) - (reach + 1) * ahead
        lens.setFilmSize(2 * reach, 2 * reach), lens.setNearFar(.1, 2 * reach + 2)
    lamp.node().setLens(lens)
    lamp.setPos(*map(float, at)), lamp.lookAt(p3.Point3(*(at + ahead)))


def _volume(cells: np.ndarray) -> p3.Texture:
    volume = p3.Texture("filled")
    volume.setup3dTexture(*cells.shape[::-1], p3.Texture.TUnsignedByte, p3.Texture.FLuminance)
    volume.setRamImage(cells.tobytes())
    volume.setMinfilter(p3.SamplerState.FTLinearMipmapNearest), volume.setMagfilter(p3.SamplerState.FTLinear)
    for wrap in (volume.setWrapU, volume.setWrapV, volume.setWrapW): wrap(p3.SamplerState.WMClamp)
    return volume


def assembled(shape: Shape, shell: set[int]) -> p3.NodePath:
    "A node of all triangles, those of the things in `shell` last, since most of them are hidden; each vertex knows its thing, glow and gloss"
    gloss = np.zeros(len(shape.position), np.float32)
    for _, name, tris in shape.runs: gloss[tris] = GLOSS.get(name.partition(":")[0], 0)
    rows = np.zeros(len(gloss), [("position", "f4", 3), ("normal", "f4", 3), ("tint", "f4", 3), ("uv", "f4", 2), ("extra", "f4", 3)])
    rows["position"], rows["normal"], rows["tint"], rows["uv"] = shape.position, shape.normal, shape.tint, shape.uv
    rows["extra"] = np.column_stack([shape.owner + 1, shape.glow, gloss])
    data = p3.GeomVertexData("room", _layout(), p3.Geom.UHStatic)
    data.uncleanSetNumRows(len(rows))
    memoryview(data.modifyArray(0)).cast("B")[:] = rows.tobytes()
    node = p3.GeomNode("room")
    for _, name, tris in sorted(shape.runs, key=lambda run: run[0] in shell): node.addGeom(triangles(data, tris), textured(name, "shaded"))
    return p3.NodePath(node)


@lru_cache(maxsize=1)
def _layout() -> p3.GeomVertexFormat:
    layout = p3.GeomVertexArrayFormat()
    layout.addColumn(p3.InternalName.getVertex(), 3, p3.Geom.NTFloat32, p3.Geom.CPoint), layout.addColumn(p3.InternalName.getNormal(), 3, p3.Geom.NTFloat32, p3.Geom.CNormal)
    layout.addColumn("tint", 3, p3.Geom.NTFloat32, p3.Geom.COther), layout.addColumn(p3.InternalName.getTexcoord(), 2, p3.Geom.NTFloat32, p3.Geom.CTexcoord)
    layout.addColumn("extra", 3, p3.Geom.NTFloat32, p3.Geom.COther)
    return p3.GeomVertexFormat.registerFormat(p3.GeomVertexFormat(layout))


@lru_cache(maxsize=1)
def _host() -> tuple[p3.GraphicsOutput, p3.GraphicsEngine]:
    "What holds the one OpenGL context of the process"
    for library in ("libEGL.so.1", "libGL.so.1"):
        try: ctypes.CDLL(library)
        except OSError: raise SegError(f"the shaded renderer needs {library}, which is missing; install the Debian packages {PACKAGES}, or give --renderer fast") from None
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa in software: workers share the cores, not threads
    p3.loadPrcFileData("virtual_room", _SETTINGS)
    pipe, properties, engine = p3.GraphicsPipeSelection.getGlobalPtr().makeModulePipe("p3headlessgl"), p3.FrameBufferProperties(), p3.GraphicsEngine()
    properties.setRgbaBits(8, 8, 8, 8)
    host = pipe and engine.makeOutput(pipe, "host", 0, properties, p3.WindowProperties.size(1, 1), p3.GraphicsPipe.BFRefuseWindow)
    if not host: raise SegError(f"OpenGL does not start without a screen (EGL); install the Debian packages {PACKAGES}, or give --renderer fast")
    draw(engine)
    return host, engine


def driver() -> str:
    "What draws: the same bytes come from the same driver only"
    gsg = _host()[0].getGsg()
    return f"Panda3D {p3.PandaSystem.getVersionString()} {gsg.getDriverRenderer()}, {gsg.getDriverVersion()}"


def hardware() -> bool:
    "Is there an OpenGL that is not software?"
    try: return not any(word in driver().lower() for word in SOFTWARE)
    except SegError: return False
