"""What a glTF file claims, checked before a loader trusts it: the files it needs, and that its numbers lie inside them.

Follows the glTF 2.0 specification (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html).
Must not know rooms, meshes or the engine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

import numpy as np

from nbs_lib.core import SegError

MAX_BYTES = 256 * 2**20  # of a model and its files together
MAX_NODES = 5_000
MAX_BARE_COUNT = 1_000_000  # elements of an accessor that no buffer holds: its numbers are zeros
GLB_MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
COMPONENT_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
ELEMENT_SIZES = dict(SCALAR=1, VEC2=2, VEC3=3, VEC4=4, MAT2=4, MAT3=9, MAT4=16)
TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = 4, 5, 6


@dataclass(frozen=True)
class Gltf:
    "A glTF file as it lies on the disk"
    document: dict
    binary: bytes  # the chunk of a .glb
    files: dict[str, bytes]  # buffers and textures in files of their own, by their names
    sha256: str  # of the file, and of those files where there are some


def is_inside(name: str) -> bool:
    "Is this a relative path that stays below its folder, on every system?"
    path = PureWindowsPath(name)  # splits at both kinds of slashes
    return bool(path.name) and not path.root and ".." not in path.parts and ":" not in name and "\0" not in name


def read_gltf(path: Path) -> Gltf:
    "A .gltf or .glb file and the files it names; `SegError`, or `ValueError` and the like where it is no glTF file"
    content = _read_bytes(path, 0)
    document, binary = _parse(content)
    total, files = len(content), {}
    for name in sorted(set(_external_names(document))):
        files[name] = _read_bytes(path.parent / name, total)
        total += len(files[name])
    return Gltf(document, binary, files, _hash(content, files))


def _read_bytes(path: Path, before: int) -> bytes:
    "A file's bytes, unless they and `before` bytes are too many"
    try:
        size = path.stat().st_size
        if before + size > MAX_BYTES:
            raise SegError(f"{path.name} has {size:,} bytes; a model may have {MAX_BYTES:,} in all")
        return path.read_bytes()
    except OSError as e:
        raise SegError(f"{path.name} cannot be read ({e.strerror})") from None


def _parse(content: bytes) -> tuple[dict, bytes]:
    "The JSON and the binary chunk of a file"
    if content[:4] != GLB_MAGIC:
        return json.loads(content), b""
    chunks, start = {}, 12
    while start < len(content):
        length, kind = struct.unpack_from("<II", content, start)
        chunks[kind] = content[start + 8:start + 8 + length]
        start += 8 + length
    return json.loads(chunks[JSON_CHUNK]), chunks.get(BINARY_CHUNK, b"")


def _external_names(document: dict) -> Iterator[str]:
    "Names of the files that hold buffers and textures"
    for item in [*document.get("buffers", []), *document.get("images", [])]:
        uri = item.get("uri", "data:")
        if uri.startswith("data:"):
            continue
        name = unquote(uri)
        if not is_inside(name):
            raise SegError(f"it needs the file '{name}', which is not inside the folder of the model")
        yield name


def _hash(content: bytes, files: dict[str, bytes]) -> str:
    "SHA-256 of a file; where it needs others, of all their names, lengths and bytes"
    digest = hashlib.sha256(content)
    for name, more in files.items():
        digest.update(f"\0{name}\0{len(more)}\0".encode())
        digest.update(more)
    return digest.hexdigest()


# --- checks -------------------------------------------------------------------------------------------------------

def check_gltf(gltf: Gltf, max_triangles: int) -> None:
    "Raise a `SegError` where the file claims more than it holds, or more triangles than `max_triangles`"
    buffers = [_buffer(gltf, i) for i in range(len(gltf.document.get("buffers", [])))]
    views = [_view(gltf.document, i, buffers) for i in range(len(gltf.document.get("bufferViews", [])))]
    for i in range(len(gltf.document.get("accessors", []))):
        _check_accessor(gltf.document, i, views)
    for mesh in gltf.document.get("meshes", []):
        for primitive in mesh["primitives"]:
            _check_indices(gltf.document, primitive, views)
    _check_nodes(gltf.document, max_triangles)


def _whole(value) -> int:
    "A count or an offset: a whole number, not negative"
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _buffer(gltf: Gltf, i: int) -> bytes:
    "The bytes of a buffer, as many as it claims"
    buffer = gltf.document["buffers"][i]
    claimed, uri = _whole(buffer["byteLength"]), buffer.get("uri")
    if uri is None:
        content = gltf.binary
    elif uri.startswith("data:"):
        content = base64.b64decode(uri.partition(",")[2])
    else:
        content = gltf.files[unquote(uri)]
    if claimed > len(content):
        raise SegError(f"buffer {i} has {len(content):,} bytes and claims {claimed:,}")
    return content[:claimed]


def _view(document: dict, i: int, buffers: list[bytes]) -> bytes:
    "The bytes of a buffer view"
    view = document["bufferViews"][i]
    start, length = view.get("byteOffset", 0), view["byteLength"]
    buffer = buffers[_whole(view["buffer"])]
    if min(start, length) < 0 or start + length > len(buffer):
        raise SegError(f"buffer view {i} reaches from {start:,} to {start + length:,} of {len(buffer):,} bytes")
    return buffer[start:start + length]


def _check_accessor(document: dict, i: int, views: list[bytes]) -> None:
    "An accessor's elements lie inside its view"
    accessor = document["accessors"][i]
    count = _whole(accessor["count"])
    width = np.dtype(COMPONENT_TYPES[accessor["componentType"]]).itemsize * ELEMENT_SIZES[accessor["type"]]
    if "bufferView" in accessor:
        stride = document["bufferViews"][accessor["bufferView"]].get("byteStride", width)
        _check_fits(i, accessor, views, count, width, _whole(stride))
    elif count > MAX_BARE_COUNT:
        raise SegError(f"accessor {i} needs {count * width:,} bytes that no buffer holds")
    if "sparse" in accessor:
        _check_sparse(i, accessor["sparse"], views, count, width)


def _check_sparse(i: int, sparse: dict, views: list[bytes], count: int, width: int) -> None:
    "The replaced elements of an accessor, and their numbers, lie inside their views"
    replaced, indices = _whole(sparse["count"]), sparse["indices"]
    if replaced > count:
        raise SegError(f"accessor {i} needs {replaced:,} elements and has {count:,}")
    index_width = np.dtype(COMPONENT_TYPES[indices["componentType"]]).itemsize
    _check_fits(i, indices, views, replaced, index_width, index_width)
    _check_fits(i, sparse["values"], views, replaced, width, width)


def _check_fits(i: int, part: dict, views: list[bytes], count: int, width: int, stride: int) -> None:
    "`count` elements of `width` bytes, every `stride` bytes, lie inside a part's view"
    start, held = _whole(part.get("byteOffset", 0)), len(views[_whole(part["bufferView"])])
    needed = start + stride * (count - 1) + width if count else start
    if needed > held:
        raise SegError(f"accessor {i} needs {needed:,} bytes and has {held:,}")


def _check_indices(document: dict, primitive: dict, views: list[bytes]) -> None:
    "Triangles name vertices that are there"
    if "indices" not in primitive:
        return
    accessor = document["accessors"][_whole(primitive["indices"])]
    if "bufferView" not in accessor or not accessor["count"]:
        return
    kind, start = COMPONENT_TYPES[accessor["componentType"]], accessor.get("byteOffset", 0)
    highest = np.frombuffer(views[accessor["bufferView"]], kind, accessor["count"], start).max()
    vertices = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
    if highest >= vertices:
        raise SegError(f"a triangle names vertex {highest:,}, and there are {vertices:,}")


def _check_nodes(document: dict, max_triangles: int) -> None:
    "The nodes are a tree (or several) of few enough triangles"
    nodes = document.get("nodes", [])
    triangles = sum(_triangles(document, node["mesh"]) for node in nodes if "mesh" in node)
    if triangles > max_triangles:
        raise SegError(f"it has {triangles:,} triangles, not 1 to {max_triangles:,}")
    if len(nodes) > MAX_NODES:
        raise SegError(f"it has {len(nodes):,} nodes; a model may have {MAX_NODES:,}")
    if not _is_forest(nodes):
        raise SegError("its nodes are no tree")


def _triangles(document: dict, mesh: int) -> int:
    "How many triangles a mesh has"
    total = 0
    for primitive in document["meshes"][mesh]["primitives"]:
        corners = primitive.get("indices", primitive["attributes"].get("POSITION"))
        count, mode = document["accessors"][corners]["count"], primitive.get("mode", TRIANGLES)
        if mode == TRIANGLES:
            total += count // 3
        elif mode in (TRIANGLE_STRIP, TRIANGLE_FAN):
            total += max(0, count - 2)
    return total


def _is_forest(nodes: list[dict]) -> bool:
    "Has each node at most one parent, and is each reached from one without a parent?"
    children = []
    for node in nodes:
        children += node.get("children", [])
    if len(children) > len(set(children)):
        return False
    waiting, reached = list(set(range(len(nodes))) - set(children)), 0
    while waiting:
        reached += 1
        waiting += nodes[waiting.pop()].get("children", [])
    return reached == len(nodes)
