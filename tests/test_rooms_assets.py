"Models of one's own: read, refused in a line, fitted into rooms, the same bytes each time"

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")
trimesh = pytest.importorskip("trimesh")

from generated import digest, run
from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Plan, RoomConfig, find_faults, generate, make_room
from virtual_room.assets import level, load, read_assets
from virtual_room.generate import Studio
from virtual_room.shapes import mesh


def save(path: Path, *boxes: tuple, **visual) -> None:
    "A model of boxes (size, middle, colour), y up"
    scene = trimesh.Scene()
    for size, middle, colour in boxes:
        piece = trimesh.creation.box(size)
        piece.apply_translation(middle)
        if isinstance(colour, trimesh.visual.TextureVisuals): piece.visual = colour
        else: piece.visual.vertex_colors = [*colour, 255]
        scene.add_geometry(piece)
    path.write_bytes(scene.export(file_type="glb"))


TABLE = (((.5, .05, .4), (0, .475, 0), (255, 0, 0)), ((.1, .45, .1), (0, .225, 0), (255, 0, 0)))
BED = (((1.6, .5, 2.0), (0, .25, 0), (0, 255, 0)), ((1.6, 1.0, .1), (0, .5, -.95), (0, 0, 255)))  # its head at the back, -z


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "Two good models and one of each way to be useless"
    out = tmp_path_factory.mktemp("my models")
    save(out / "table.glb", *TABLE), save(out / "bed.glb", *BED)
    for name in ("stranger", "chair", "free", "sideways", "size"): save(out / f"{name}.glb", *TABLE)
    (out / "broken.glb").write_bytes((out / "table.glb").read_bytes()[:200])
    rows = ["file,label,scale,up,licence", "table.glb,furniture_nightTable,1,y,CC0", "bed.glb,furniture_doubleBed,,,CC-BY 4.0", "chair.glb,furniture_chair,1,y,CC0", "free.glb,furniture_rug,1,y,",
            "sideways.glb,furniture_rug,1,x,CC0", "size.glb,furniture_rug,big,y,CC0", "broken.glb,furniture_rug,1,y,CC0", "none.glb,furniture_rug,1,y,CC0"]
    (out / "assets.csv").write_text("\n".join(rows))
    return out


@pytest.fixture(scope="module")
def own(folder): return read_assets(folder, lambda text: None)


def test_useless_models_are_said_in_a_line_each(folder):
    said = []
    assert {Path(a.path).name for a in read_assets(folder, said.append)} == {"table.glb", "bed.glb"}
    for name, words in dict(stranger="0 rows", chair="furniture_chair", free="no licence", sideways="up axis", size="scale is 'big'", broken="no glTF model", none="cannot be read").items():
        line, = [s for s in said if s.startswith(f"{name}.glb:")]
        assert words in line and line.endswith("; skipped\n") and line.count("\n") == 1
    assert len(said) == 8 and said[-1].startswith("2 models")
    with pytest.raises(SegError, match="no assets.csv"): read_assets(folder / "nothing", said.append)


def test_a_mapping_may_be_json(folder, tmp_path):
    save(tmp_path / "table.glb", *TABLE)
    (tmp_path / "assets.json").write_text(json.dumps([dict(file="table.glb", label="furniture_nightTable", scale=1, up="y", licence="CC0")]))
    assert len(read_assets(tmp_path, lambda text: None)) == 1
    (tmp_path / "assets.json").write_text("{")
    with pytest.raises(SegError, match="no mapping"): read_assets(tmp_path, lambda text: None)


def test_models_stand_upright_with_their_backs_to_the_wall(own):
    bed = next(a for a in own if "Bed" in a.label)
    m, size = load(bed.path, bed.up, bed.sha256)
    assert np.allclose(size, (1.6, 2.0, 1.0)) and np.abs(m.unit).max() <= .5 + 1e-6
    head = m.unit[(m.tint[:, 2] == 1) & (m.tint[:, 1] == 0)]
    assert head[:, 1].max() < 0 and head[:, 2].max() > .49  # +y is the front
    assert not level(m) and level(load(*next(a.shape[1:] for a in own if "Table" in a.label))[0])


def test_colours_come_from_vertices_factors_and_textures(tmp_path):
    paint = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 255, 0, 255], baseColorTexture=Image.new("RGB", (4, 4), (100, 200, 50))))
    save(tmp_path / "a.glb", ((1, 1, 1), (0, 0, 0), paint), ((1, 1, 1), (3, 0, 0), (0, 0, 255)))
    (tmp_path / "assets.csv").write_text("file,label,scale,up,licence\na.glb,items_vase,1,y,CC0")
    tint = mesh(read_assets(tmp_path, lambda text: None)[0].shape).tint
    assert {tuple((255 * t).round().astype(int)) for t in tint} == {(100, 200, 0), (0, 0, 255)}


def test_rooms_use_them_and_stay_sound(own):
    rooms = [make_room([51, i], RoomConfig(own_models=1.0), own) for i in range(60)]
    assert [(i, f) for i, r in enumerate(rooms) for f in find_faults(r)] == [] and rooms[0] == make_room([51, 0], RoomConfig(own_models=1.0), own)
    things = [t for r in rooms for t in r.things]
    for label, most in (("furniture_nightTable", (.55, .44, .62)), ("furniture_doubleBed", (1.95, 2.2, 1.25))):
        mine = [t for t in things if t.label == label]
        assert mine and all(t.model.parts[0].shape[0] == "asset" and (np.array(t.model.size) <= np.array(most) + 1e-6).all() for t in mine)
    tables = {(i, n) for i, r in enumerate(rooms) for n, t in enumerate(r.things) if t.label == "furniture_nightTable"}
    assert any((i, t.support) in tables for i, r in enumerate(rooms) for t in r.things)
    assert all(p.shape[0] != "asset" for r in [make_room([51, i], RoomConfig(own_models=0.0), own) for i in range(5)] for t in r.things for p in t.model.parts)


@pytest.mark.parametrize("renderer", ["fast", "shaded"])
def test_both_renderers_draw_them(own, renderer):
    try: studio = Studio(Plan(seed=52, size=96, config=RoomConfig(own_models=1.0, close_up=0.0, effects=0.0), renderer=renderer, assets=own))
    except SegError as e: pytest.skip(str(e))
    green = 0
    for i in range(12):
        picture, mask = studio.pair(i)
        bed = picture[mask == ROOM_LABELS["furniture_doubleBed"]].astype(int)
        if len(bed) > 200: green += (bed[:, 1] > 1.5 * bed[:, 0] + 10).mean() > .2
    assert green >= 3


def test_the_same_models_give_the_same_bytes_and_others_are_refused(folder, own, tmp_path):
    plan = Plan(seed=53, size=48, assets=own)
    generate(6, tmp_path / "one", plan), generate(6, tmp_path / "two", plan, workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert {v["licence"] for v in json.loads((tmp_path / "one" / "generation.json").read_text())["assets"].values()} == {"CC0", "CC-BY 4.0"}
    with pytest.raises(SegError, match=r"another assets \(bed.glb .*--out"): generate(6, tmp_path / "one", Plan(seed=53, size=48, assets=own[1:]))
    done = run(2, "--out", tmp_path / "three", "--size", 32, "--workers", 1, "--assets", folder)
    assert done.returncode == 0 and done.stdout.count("skipped") == 7 and not done.stderr


# --- models that would do harm ------------------------------------------------------------------------------------

CSV_HEADER = "file,label,scale,up,licence"


def write_gltf(folder: Path, name: str = "table") -> dict:
    "A .gltf with its numbers in a .bin beside it; its JSON"
    scene = trimesh.Scene(trimesh.creation.box((.5, .6, .4)))
    files = scene.export(file_type="gltf", embed_buffers=False)
    document = json.loads(files.pop("model.gltf"))
    document["buffers"] = [dict(uri=f"{name}.bin", byteLength=sum(map(len, files.values())))]
    starts = np.cumsum([0, *map(len, files.values())]).tolist()
    for view, start in zip(document["bufferViews"], starts):
        view.update(buffer=0, byteOffset=start)
    (folder / f"{name}.bin").write_bytes(b"".join(files.values()))
    write_document(folder, document, name)
    return document


def write_document(folder: Path, document: dict, name: str = "table") -> None:
    "A .gltf and the one row of assets.csv that names it"
    (folder / f"{name}.gltf").write_text(json.dumps(document))
    (folder / "assets.csv").write_text(f"{CSV_HEADER}\n{name}.gltf,furniture_nightTable,1,y,CC0")


def left_out(folder: Path) -> str:
    "What is said about the only model of a folder, which is not taken"
    said = []
    assert read_assets(folder, said.append) == ()
    line, = [s for s in said if s.endswith("; skipped\n")]
    assert line.count("\n") == 1
    return line


def test_an_edited_bin_is_another_model(tmp_path):
    write_gltf(tmp_path)
    asset, = read_assets(tmp_path, lambda text: None)
    plan = Plan(seed=53, size=32, assets=(asset,))
    generate(1, tmp_path / "rooms", plan)
    content = bytearray((tmp_path / "table.bin").read_bytes())
    floats = np.frombuffer(content, np.float32)
    edited = np.where(np.abs(floats) < 10, floats * 2, floats).astype(np.float32)
    (tmp_path / "table.bin").write_bytes(edited.tobytes())
    with pytest.raises(SegError, match="has changed meanwhile"):
        load(asset.path, asset.up, asset.sha256)
    (tmp_path / "table.bin").write_bytes(bytes(content))
    load(asset.path, asset.up, asset.sha256)


def test_an_edited_texture_is_another_model(tmp_path):
    document = write_gltf(tmp_path)
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red paint.png")
    write_document(tmp_path, document | dict(images=[dict(uri="red%20paint.png")]))
    asset, = read_assets(tmp_path, lambda text: None)
    Image.new("RGB", (4, 4), (0, 255, 0)).save(tmp_path / "red paint.png")
    again, = read_assets(tmp_path, lambda text: None)
    assert again.sha256 != asset.sha256


def test_a_model_in_one_file_keeps_the_hash_of_the_file(own):
    for asset in own:
        assert asset.sha256 == hashlib.sha256(Path(asset.path).read_bytes()).hexdigest()


def harm_count(document): document["accessors"][0]["count"] = 300_000_000
def harm_empty_accessor(document): document["accessors"].append(dict(componentType=5126, type="VEC3", count=300_000_000))
def harm_view(document): document["bufferViews"][0]["byteLength"] = 1 << 40
def harm_offset(document): document["bufferViews"][1]["byteOffset"] = -4
def harm_buffer(document): document["buffers"][0]["byteLength"] = 1 << 40
def harm_absolute(document): document["buffers"][0]["uri"] = "/etc/hostname"
def harm_parent(document): document["buffers"][0]["uri"] = "../table.bin"
def harm_hidden_parent(document): document["buffers"][0]["uri"] = "%2e%2e/table.bin"
def harm_address(document): document["buffers"][0]["uri"] = "http://127.0.0.1/table.bin"
def harm_missing(document): document["buffers"][0]["uri"] = "none.bin"
def harm_copies(document): document["nodes"] = [dict(mesh=0)] * 100_000
def harm_circle(document): document["nodes"] = [dict(mesh=0, children=[1]), dict(mesh=0, children=[0])]
def harm_type(document): document["accessors"] = 5


@pytest.mark.parametrize("harm, says", [
    (harm_count, "accessor 0 needs"), (harm_empty_accessor, "accessor 2 needs"), (harm_view, "buffer view 0"), (harm_offset, "buffer view 1"), (harm_buffer, "buffer 0"),
    (harm_absolute, "'/etc/hostname'"), (harm_parent, "'../table.bin'"), (harm_hidden_parent, "'../table.bin'"), (harm_address, "http"), (harm_missing, "none.bin"),
    (harm_copies, "triangles"), (harm_circle, "no tree"), (harm_type, "no glTF model"),
])
def test_a_harmful_model_is_said_in_a_line_and_left_out(harm, says, tmp_path):
    document = write_gltf(tmp_path)
    harm(document)
    write_document(tmp_path, document)
    start = time.perf_counter()
    assert says in left_out(tmp_path)
    assert time.perf_counter() - start < 5


def test_an_index_beyond_the_vertices_is_said_in_a_line(tmp_path):
    document = write_gltf(tmp_path)
    indices = document["meshes"][0]["primitives"][0]["indices"]
    view = document["bufferViews"][document["accessors"][indices]["bufferView"]]
    content = bytearray((tmp_path / "table.bin").read_bytes())
    content[view["byteOffset"]:view["byteOffset"] + 4] = (70_000).to_bytes(4, "little")
    (tmp_path / "table.bin").write_bytes(content)
    assert "vertex" in left_out(tmp_path)


@pytest.mark.parametrize("name", ["/tmp/table.gltf", "../table.gltf", "C:\\table.gltf", "nul\0.gltf"])
def test_a_path_that_leaves_the_folder_is_said_in_a_line(name, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_gltf(tmp_path)
    (folder / "assets.json").write_text(json.dumps([dict(file=name, label="furniture_nightTable", scale=1, up="y", licence="CC0")]))
    assert "inside the folder" in left_out(folder)


def test_a_run_goes_on_without_harmful_models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    save(folder / "good.glb", *TABLE)
    document = write_gltf(folder, "bad")
    harm_count(document)
    write_document(folder, document, "bad")
    rows = [CSV_HEADER, "good.glb,furniture_nightTable,1,y,CC0", "bad.gltf,furniture_rug,1,y,CC0", "/etc/passwd,furniture_rug,1,y,CC0"]
    (folder / "assets.csv").write_text("\n".join(rows))
    done = run(1, "--out", tmp_path / "rooms", "--size", 32, "--workers", 1, "--assets", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped") == 2 and "1 models" in done.stdout
