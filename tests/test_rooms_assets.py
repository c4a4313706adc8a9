"Models of one's own: read, refused in a line, fitted into rooms, the same bytes each time"

import json
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
