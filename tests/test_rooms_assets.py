"Models of one's own: read, refused in a line, fitted into rooms, the same bytes each time"

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("panda3d")
pytest.importorskip("trimesh")

import trimesh
from generated import digest, run

from nbs_lib.core import SegError
from nbs_lib.labels import ROOM_LABELS
from virtual_room import Plan, RoomConfig, find_faults, generate, make_room
from virtual_room.assets import Asset, level, load, read_assets
from virtual_room.pairs import PairMaker
from virtual_room.shapes import mesh

TABLE = (((.5, .05, .4), (0, .475, 0), (255, 0, 0)), ((.1, .45, .1), (0, .225, 0), (255, 0, 0)))
BED = (((1.6, .5, 2.0), (0, .25, 0), (0, 255, 0)), ((1.6, 1.0, .1), (0, .5, -.95), (0, 0, 255)))  # its head at -z
CSV_HEADER = "file,label,scale,up,licence"
OWN_ONLY = RoomConfig(own_models=1.0)
FAULTS = dict(  # what is wrong with a model: its row, and what is said
    stranger=("", "0 rows"),
    chair=("furniture_chair,1,y,CC0", "furniture_chair"),
    free=("furniture_rug,1,y,", "no licence"),
    sideways=("furniture_rug,1,x,CC0", "up axis"),
    size=("furniture_rug,big,y,CC0", "scale is 'big'"),
    broken=("furniture_rug,1,y,CC0", "no glTF model"),
    none=("furniture_rug,1,y,CC0", "cannot be read"),
)


def quiet(text: str) -> None:
    "Say nothing"


def save(path: Path, *boxes: tuple) -> None:
    "A model of boxes (size, middle, color or visual), y up"
    scene = trimesh.Scene()
    for size, middle, color in boxes:
        piece = trimesh.creation.box(size)
        piece.apply_translation(middle)
        if isinstance(color, trimesh.visual.TextureVisuals):
            piece.visual = color
        else:
            piece.visual.vertex_colors = [*color, 255]
        scene.add_geometry(piece)
    path.write_bytes(scene.export(file_type="glb"))


def write_mapping(folder: Path, *rows: str) -> None:
    "The assets.csv of a folder"
    (folder / "assets.csv").write_text("\n".join([CSV_HEADER, *rows]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "Two good models and one of each way to be useless"
    out = tmp_path_factory.mktemp("my models")
    save(out / "table.glb", *TABLE)
    save(out / "bed.glb", *BED)
    rows = ["table.glb,furniture_nightTable,1,y,CC0", "bed.glb,furniture_doubleBed,,,CC-BY 4.0"]
    for name, (row, _) in FAULTS.items():
        save(out / f"{name}.glb", *TABLE)
        if row:
            rows.append(f"{name}.glb,{row}")
    (out / "broken.glb").write_bytes((out / "table.glb").read_bytes()[:200])
    (out / "none.glb").unlink()
    write_mapping(out, *rows)
    return out


@pytest.fixture(scope="module")
def own(folder) -> tuple[Asset, ...]:
    "The two good models"
    return read_assets(folder, quiet)


def of_label(own, label: str) -> Asset:
    "The model of a label"
    asset, = [asset for asset in own if asset.label == label]
    return asset


def test_useless_models_are_said_in_a_line_each(folder):
    said = []
    assert {Path(asset.path).name for asset in read_assets(folder, said.append)} == {"table.glb", "bed.glb"}
    assert len(said) == 8 and said[-1].startswith("2 models")
    for name, (_, words) in FAULTS.items():
        line, = [line for line in said if line.startswith(f"{name}.glb:")]
        assert words in line
        assert line.endswith("; skipped\n") and line.count("\n") == 1


def test_a_folder_without_a_mapping_is_refused(folder):
    with pytest.raises(SegError, match="no assets.csv"):
        read_assets(folder / "nothing", quiet)


def test_a_mapping_may_be_json(tmp_path):
    save(tmp_path / "table.glb", *TABLE)
    row = dict(file="table.glb", label="furniture_nightTable", scale=1, up="y", licence="CC0")
    (tmp_path / "assets.json").write_text(json.dumps([row]))
    assert len(read_assets(tmp_path, quiet)) == 1
    (tmp_path / "assets.json").write_text("{")
    with pytest.raises(SegError, match="no mapping"):
        read_assets(tmp_path, quiet)


def test_models_stand_upright_with_their_backs_to_the_wall(own):
    bed = of_label(own, "furniture_doubleBed")
    loaded, size = load(bed.path, bed.up, bed.sha256)
    assert np.allclose(size, (1.6, 2.0, 1.0))
    assert np.abs(loaded.unit).max() <= .5 + 1e-6
    blue = (loaded.tint[:, 2] == 1) & (loaded.tint[:, 1] == 0)
    head = loaded.unit[blue]
    assert head[:, 1].max() < 0 and head[:, 2].max() > .49  # +y is the front


def test_a_table_is_level_and_a_bed_with_a_head_is_not(own):
    loaded = {}
    for asset in own:
        loaded[asset.label], _ = load(asset.path, asset.up, asset.sha256)
    assert level(loaded["furniture_nightTable"])
    assert not level(loaded["furniture_doubleBed"])


def test_colors_come_from_vertices_factors_and_textures(tmp_path):
    texture = Image.new("RGB", (4, 4), (100, 200, 50))
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 255, 0, 255], baseColorTexture=texture)
    paint = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    save(tmp_path / "a.glb", ((1, 1, 1), (0, 0, 0), paint), ((1, 1, 1), (3, 0, 0), (0, 0, 255)))
    write_mapping(tmp_path, "a.glb,items_vase,1,y,CC0")
    asset, = read_assets(tmp_path, quiet)
    tint = mesh(asset.shape).tint
    colors = (255 * tint).round().astype(int)
    assert set(map(tuple, colors.tolist())) == {(100, 200, 0), (0, 0, 255)}


@pytest.fixture(scope="module")
def rooms(own) -> list:
    "60 rooms that use models of one's own wherever they can"
    return [make_room([51, i], OWN_ONLY, own) for i in range(60)]


def test_rooms_with_own_models_stay_sound(rooms, own):
    faults = {i: find_faults(room) for i, room in enumerate(rooms)}
    assert {i: found for i, found in faults.items() if found} == {}
    assert rooms[0] == make_room([51, 0], OWN_ONLY, own)


@pytest.mark.parametrize("label, largest", [
    ("furniture_nightTable", (.55, .44, .62)),
    ("furniture_doubleBed", (1.95, 2.2, 1.25)),
])
def test_own_models_fit_into_their_places(rooms, label, largest):
    models = []
    for room in rooms:
        models += [o.model for o in room.objects if o.label == label]
    assert models
    for model in models:
        assert model.primitives[0].shape[0] == "asset"
        assert (np.array(model.size) <= np.array(largest) + 1e-6).all()


def test_things_stand_on_own_tables(rooms):
    carried = 0
    for room in rooms:
        tables = {i for i, o in enumerate(room.objects) if o.label == "furniture_nightTable"}
        carried += sum(o.support in tables for o in room.objects)
    assert carried > 0


def test_own_models_can_be_left_out(own):
    for i in range(5):
        room = make_room([51, i], RoomConfig(own_models=0.0), own)
        for o in room.objects:
            assert all(p.shape[0] != "asset" for p in o.model.primitives)


@pytest.mark.parametrize("renderer", ["fast", "shaded"])
def test_both_renderers_draw_them(own, renderer):
    config = RoomConfig(own_models=1.0, close_up=0.0, effects=0.0)
    try:
        maker = PairMaker(Plan(seed=52, size=96, config=config, renderer=renderer, assets=own))
    except SegError as e:
        pytest.skip(str(e))
    green = 0
    for i in range(12):
        image, mask = maker.pair(i)
        bed = image[mask == ROOM_LABELS["furniture_doubleBed"]].astype(int)
        if len(bed) > 200:
            greenish = bed[:, 1] > 1.5 * bed[:, 0] + 10
            green += greenish.mean() > .2
    assert green >= 3


def test_the_same_models_give_the_same_bytes(own, tmp_path):
    plan = Plan(seed=53, size=48, assets=own)
    generate(6, tmp_path / "one", plan)
    generate(6, tmp_path / "two", plan, workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    manifest = json.loads((tmp_path / "one" / "generation.json").read_text())
    assert {row["licence"] for row in manifest["assets"].values()} == {"CC0", "CC-BY 4.0"}


def test_other_models_are_refused(own, tmp_path):
    plan = Plan(seed=53, size=48, assets=own)
    generate(1, tmp_path, plan)
    with pytest.raises(SegError, match=r"another assets \(bed.glb .*--out"):
        generate(1, tmp_path, replace(plan, assets=own[1:]))


def test_the_command_says_what_it_leaves_out(folder, tmp_path):
    done = run(2, "--out", tmp_path, "--size", 32, "--workers", 1, "--assets", folder)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.count("skipped") == 7


# --- models that would do harm ------------------------------------------------------------------------------------

def write_gltf(folder: Path, name: str = "table") -> dict:
    "A .gltf with its numbers in a .bin beside it; its JSON"
    scene = trimesh.Scene(trimesh.creation.box((.5, .6, .4)))
    files = scene.export(file_type="gltf", embed_buffers=False)
    document = json.loads(files.pop("model.gltf"))
    document["buffers"] = [dict(uri=f"{name}.bin", byteLength=sum(map(len, files.values())))]
    starts = np.cumsum([0, *map(len, files.values())]).tolist()
    for view, start in zip(document["bufferViews"], starts[:-1], strict=True):
        view.update(buffer=0, byteOffset=start)
    (folder / f"{name}.bin").write_bytes(b"".join(files.values()))
    write_document(folder, document, name)
    return document


def write_document(folder: Path, document: dict, name: str = "table") -> None:
    "A .gltf and the one row of assets.csv that names it"
    (folder / f"{name}.gltf").write_text(json.dumps(document))
    write_mapping(folder, f"{name}.gltf,furniture_nightTable,1,y,CC0")


def left_out(folder: Path) -> str:
    "What is said about the only model of a folder, which is not taken"
    said = []
    assert read_assets(folder, said.append) == ()
    line, = [s for s in said if s.endswith("; skipped\n")]
    assert line.count("\n") == 1
    return line


def test_an_edited_bin_is_another_model(tmp_path):
    write_gltf(tmp_path)
    asset, = read_assets(tmp_path, quiet)
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
    asset, = read_assets(tmp_path, quiet)
    Image.new("RGB", (4, 4), (0, 255, 0)).save(tmp_path / "red paint.png")
    again, = read_assets(tmp_path, quiet)
    assert again.sha256 != asset.sha256


def test_a_model_in_one_file_keeps_the_hash_of_the_file(own):
    for asset in own:
        assert asset.sha256 == hashlib.sha256(Path(asset.path).read_bytes()).hexdigest()


HARMS = {  # a path into the JSON, what is put there, and what is said
    "count": (("accessors", 0, "count"), 300_000_000, "accessor 0 needs"),
    "view": (("bufferViews", 0, "byteLength"), 1 << 40, "buffer view 0"),
    "offset": (("bufferViews", 1, "byteOffset"), -4, "buffer view 1"),
    "buffer": (("buffers", 0, "byteLength"), 1 << 40, "buffer 0"),
    "absolute path": (("buffers", 0, "uri"), "/etc/hostname", "'/etc/hostname'"),
    "parent": (("buffers", 0, "uri"), "../table.bin", "'../table.bin'"),
    "hidden parent": (("buffers", 0, "uri"), "%2e%2e/table.bin", "'../table.bin'"),
    "address": (("buffers", 0, "uri"), "http://127.0.0.1/table.bin", "http"),
    "missing file": (("buffers", 0, "uri"), "none.bin", "none.bin"),
    "copies": (("nodes",), [dict(mesh=0)] * 100_000, "triangles"),
    "circle": (("nodes",), [dict(mesh=0, children=[1]), dict(mesh=0, children=[0])], "no tree"),
    "type": (("accessors",), 5, "no glTF model"),
    "no numbers": (("accessors", 0, "count"), "many", "no glTF model"),
    "bare numbers": (("accessors", 0), dict(componentType=5126, type="VEC3", count=300_000_000), "accessor 0 needs"),
}


def put(document: dict, path: tuple, value) -> None:
    "Replace what lies at a path of keys"
    *above, last = path
    for key in above:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize("path, value, says", HARMS.values(), ids=HARMS)
def test_a_harmful_model_is_said_in_a_line_and_left_out(path, value, says, tmp_path):
    document = write_gltf(tmp_path)
    put(document, path, value)
    write_document(tmp_path, document)
    start = time.perf_counter()
    assert says in left_out(tmp_path)
    assert time.perf_counter() - start < 5


def test_an_index_beyond_the_vertices_is_said_in_a_line(tmp_path):
    document = write_gltf(tmp_path)
    indices = document["meshes"][0]["primitives"][0]["indices"]
    view = document["bufferViews"][document["accessors"][indices]["bufferView"]]
    content, start = bytearray((tmp_path / "table.bin").read_bytes()), view["byteOffset"]
    content[start:start + 4] = (70_000).to_bytes(4, "little")
    (tmp_path / "table.bin").write_bytes(content)
    assert "vertex" in left_out(tmp_path)


@pytest.mark.parametrize("name", ["/tmp/table.gltf", "../table.gltf", "C:\\table.gltf", "nul\0.gltf"])
def test_a_path_that_leaves_the_folder_is_said_in_a_line(name, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_gltf(tmp_path)
    row = dict(file=name, label="furniture_nightTable", scale=1, up="y", licence="CC0")
    (folder / "assets.json").write_text(json.dumps([row]))
    assert "inside the folder" in left_out(folder)


def test_a_run_goes_on_without_harmful_models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    save(folder / "good.glb", *TABLE)
    document = write_gltf(folder, "bad")
    put(document, *HARMS["count"][:2])
    write_document(folder, document, "bad")
    rug = "furniture_rug,1,y,CC0"
    write_mapping(folder, "good.glb,furniture_nightTable,1,y,CC0", f"bad.gltf,{rug}", f"/etc/passwd,{rug}")
    done = run(1, "--out", tmp_path / "rooms", "--size", 32, "--workers", 1, "--assets", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped") == 2 and "1 models" in done.stdout
