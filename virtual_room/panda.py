"What both renderers and the window ask of Panda3D: frames, vertex tables, triangles, textures"

from __future__ import annotations

from functools import cache

import numpy as np
from panda3d import core as p3

from virtual_room.textures import FITTED, texture


def draw(engine: p3.GraphicsEngine) -> None:
    "One frame; states of earlier ones, which the engine keeps, are let go"
    engine.renderFrame()
    p3.TransformState.garbageCollect()
    p3.RenderState.garbageCollect()


def vertex_table(name: str, rows: np.ndarray, layout: p3.GeomVertexFormat) -> p3.GeomVertexData:
    "Vertices of the engine from the rows of an array whose bytes have that layout"
    data = p3.GeomVertexData(name, layout, p3.Geom.UHStatic)
    data.uncleanSetNumRows(len(rows))
    memoryview(data.modifyArray(0)).cast("B")[:] = rows.tobytes()
    return data


def vertex_layout(*columns: tuple[object, int, int]) -> p3.GeomVertexFormat:
    "A layout of float32 columns: name, number of floats, contents"
    layout = p3.GeomVertexArrayFormat()
    for name, count, contents in columns:
        layout.addColumn(name, count, p3.Geom.NTFloat32, contents)
    return p3.GeomVertexFormat.registerFormat(p3.GeomVertexFormat(layout))


def triangles(vertices: p3.GeomVertexData, indices: np.ndarray) -> p3.Geom:
    "Geometry of the triangles (T, 3)"
    primitive = p3.GeomTriangles(p3.Geom.UHStatic)
    primitive.setIndexType(p3.Geom.NTUint32)
    table = primitive.modifyVertices()
    table.uncleanSetNumRows(indices.size)
    memoryview(table).cast("B")[:] = indices.astype(np.uint32).tobytes()
    geom = p3.Geom(vertices)
    geom.addPrimitive(primitive)
    return geom


@cache
def textured(name: str, renderer: str = "fast") -> p3.RenderState:
    """The state that wears a texture, loaded once a process and renderer.

    The software renderer adds its own mipmaps to it, which OpenGL would take over.
    """
    if name.startswith("plain"):
        return p3.RenderState.makeEmpty()
    loaded = _loaded(name)
    is_fitted = name.partition(":")[0] in FITTED
    wrap = p3.SamplerState.WMClamp if is_fitted else p3.SamplerState.WMRepeat
    loaded.setWrapU(wrap)
    loaded.setWrapV(wrap)
    loaded.setMinfilter(p3.SamplerState.FTLinearMipmapLinear)
    loaded.setMagfilter(p3.SamplerState.FTLinear)
    return p3.RenderState.make(p3.TextureAttrib.make(loaded))


def _loaded(name: str) -> p3.Texture:
    "The pixels of a texture in the engine, whose images begin with the lowest row and with blue"
    pixels = texture(name)
    height, width = pixels.shape[:2]
    loaded = p3.Texture(name)
    loaded.setup2dTexture(width, height, p3.Texture.TUnsignedByte, p3.Texture.FRgb)
    loaded.setRamImage(np.ascontiguousarray(pixels[::-1, :, ::-1]).tobytes())
    return loaded


def look_through(path: p3.NodePath, position: tuple, target: tuple) -> None:
    "Put a camera somewhere and turn it to a point"
    path.setPos(*position)
    path.lookAt(p3.Point3(*target))
