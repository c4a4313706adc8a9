"""The notebooks of experiments/: their form, and a whole run on tiny data. A new notebook is a line in `TINY`."""
import json
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT, run_cells
from forked import run_forked, run_notebook
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.layouts import FACES, find_pairs
from nbs_lib.train import TrainSettings, seg_train, train_model

TINY_ARCH = 'unet:tu-test_resnet'
TINY_VOC = dict(
    MODELS='{out}', ARCH='unet:resnet18', COMPARED=['jaccard'], LONGEST=64, BS=4, EPOCHS=1, EPOCHS_COMPARED=1)
TINY_WNET = dict(
    MODELS='{out}', SIZE=32, CLASSES=4, WIDTH=4, DEPTH=2, BS=2, STEPS_ONE=3, STEPS=4, PICTURES=8, JUDGED=2,
    SEGMENTED=48, VIEWS=[32])
# (notebook, its parameters at the smallest scale that touches every cell)
# {rooms}, {bsds}, {faces}, {voc} and {out} stand for folders
TINY = [
    ('WNet', dict(TINY_WNET, DATA='{rooms}')),
    ('WNet', dict(TINY_WNET, BSDS='{bsds}')),
    ('Overfit', dict(DATA='{rooms}', IMAGE='000003', ARCH=TINY_ARCH, STEPS=20, TIMES=32)),
    ('SegFormer', dict(SOURCE='{faces}', DATA='{out}/split', MODELS='{out}', EPOCHS=1)),
    ('PascalVOC', dict(TINY_VOC, SOURCE='{voc}')),
    ('RealPhotos', dict(DATA='{rooms}')),
]


def draw_own_data(*arguments) -> None:
    subprocess.run([sys.executable, ROOT/'experiments/own_data.py', *map(str, arguments)], check=True)


@pytest.fixture(scope='session')
def own(rooms, tmp_path_factory) -> Path:
    "Rooms in VOC's layout, as a folder and as a tar, and drawn faces. Read only."
    folder = tmp_path_factory.mktemp('own')
    draw_own_data('voc', rooms, folder/'voc')
    draw_own_data('faces', folder/'faces', 15)
    members = ['JPEGImages', 'SegmentationClass', 'ImageSets', 'labelmap.txt']
    inside = ['--transform', 's,^,VOCdevkit/VOC2012/,', '-C', folder/'voc']
    subprocess.run(['tar', 'cf', folder/'voc.tar', *inside, *members], check=True)
    return folder


def write_annotators(path: Path, annotators: list[np.ndarray]) -> None:
    "A .mat file as BSDS500 has them: a cell array with one `Segmentation` an annotator."
    from scipy.io import savemat
    cell = np.empty((1, len(annotators)), object)
    for i, regions in enumerate(annotators):
        cell[0, i] = np.array([[(regions,)]], dtype=[('Segmentation', 'O')])
    savemat(path, dict(groundTruth=cell))


@pytest.fixture(scope='session')
def bsds(rooms, tmp_path_factory) -> Path:
    "Rooms in the layout of BSDS500: two annotators, who see the mask whole and in halves. Read only."
    folder = tmp_path_factory.mktemp('regions')
    for n, image in enumerate(sorted((rooms/'screenshots').iterdir())[:8]):
        part = 'val' if n % 4 == 0 else 'train'
        for kind in ('images', 'groundTruth'):
            (folder/kind/part).mkdir(parents=True, exist_ok=True)
        Image.open(image).convert('RGB').save(folder/'images'/part/f'{image.stem}.jpg')
        whole = np.asarray(Image.open(rooms/'labels'/image.name)).astype(np.uint16) + 1
        right_half = (np.arange(whole.shape[1]) > 60).astype(np.uint16)
        write_annotators(folder/'groundTruth'/part/f'{image.stem}.mat', [whole, whole + 100*right_half])
    return folder


def test_own_data(own):
    "The stand-ins are read as what they stand in for, and hold what makes those hard: mixed sizes, pixels to ignore."
    voc, faces = find_pairs(own/'voc'), find_pairs(own/'faces')
    assert (voc.layout, len(voc), [p.split for p in voc.pairs].count('valid')) == ('voc', 24, 4)
    assert len({voc.read(i)[0].size for i in range(len(voc))}) > 10
    assert (faces.layout, len(faces), faces.labels) == ('faces', 15, FACES)
    for data in (voc, faces):
        assert any((data.read(i)[1] == 255).any() for i in range(len(data)))


@pytest.mark.parametrize('name, parameters', TINY)
def test_runs(name, parameters, rooms, own, bsds, tmp_path):
    folders = dict(rooms=rooms, bsds=bsds, faces=own/'faces', voc=own/'voc', out=tmp_path)
    values = {key: v.format(**folders) if isinstance(v, str) else v for key, v in parameters.items()}
    run_notebook(ROOT/'experiments'/f'{name}.ipynb', values)


def test_the_curve_of_photos_of_ones_own(rooms, tmp_path):
    "Rooms stand in for photos: both ways of training are run, scored and drawn."
    settings = TrainSettings(size='32', epochs=1, arch=TINY_ARCH, bs=4, out=str(tmp_path))
    train_model(find_pairs(rooms), settings, bar=False)
    values = dict(DATA=str(rooms), PHOTOS=str(rooms), WEIGHTS=f'{tmp_path}/smp_unet_tu-test_resnet_32.safetensors')
    values |= dict(MAPPING='same', NUMBERS='0 2', IMAGES=8, SIZE=32, OUT=f'{tmp_path}/curve')
    run_notebook(ROOT/'experiments/RealPhotos.ipynb', values)
    rows = (tmp_path/'curve/labelled_photos.csv').read_text().splitlines()
    assert len(rows) == 1 + 3  # a head; no photo after renders, two photos from scratch and after renders


def test_photos_without_a_model_of_rooms_are_refused(rooms, monkeypatch):
    monkeypatch.chdir(ROOT/'experiments')
    with pytest.raises(SegError, match='WEIGHTS is not'):
        run_cells('RealPhotos.ipynb', dict(DATA=str(rooms), PHOTOS=str(rooms), SIZE=32))


def test_a_tar_that_is_not_the_official_one_is_refused(own, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT/'experiments')
    values = dict(SOURCE=f'{own}/voc.tar', DATA=f'{tmp_path}/voc', MODELS=str(tmp_path))
    with pytest.raises(SegError, match='expected 6cd6e144'):
        run_cells('PascalVOC.ipynb', values)


BLOCK, HEAD = 32768, 7  # bytes of a block of LevelDB's log, and of what stands before a record
WHOLE, LAST = 1, 4      # kinds of a record; 2 and 3 are the first and the middle part of one


def wandb_records(path: Path):
    "What W&B wrote: LevelDB's log after a head of 7 bytes; before each record checksum (4), length (2) and kind (1)."
    from wandb.proto.wandb_internal_pb2 import Record
    raw, at, part = path.read_bytes(), 7, b''
    while at + HEAD <= len(raw):
        left_in_block = BLOCK - at % BLOCK
        if left_in_block < HEAD:
            at += left_in_block
            continue
        _, length, kind = struct.unpack('<IHB', raw[at:at + HEAD])
        at += HEAD
        part += raw[at:at + length]
        at += length
        if kind in (WHOLE, LAST):
            yield Record.FromString(part)
            part = b''


def records_of(run: Path) -> dict[str, list]:
    "{kind: records} of all that W&B wrote into the folder of a run."
    found = {}
    for record in wandb_records(next(run.glob('*.wandb'))):
        found.setdefault(record.WhichOneof('record_type'), []).append(record)
    return found


def flat_name(item) -> str:
    return '.'.join(item.nested_key)


def parameters_in(records: dict[str, list]) -> dict:
    "The parameters of a run."
    return {update.key: json.loads(update.value_json) for update in records['run'][0].run.config.update}


def rows_in(records: dict[str, list]) -> list[dict]:
    "What was logged in a run, a dictionary each time."
    histories = [record.history for record in records['history']]
    return [{flat_name(item): json.loads(item.value_json) for item in history.item} for history in histories]


def hardware_in(records: dict[str, list]) -> list[str]:
    "The names of what was measured of the machine."
    return [item.key or flat_name(item) for record in records['stats'] for item in record.stats.item]


def write_encoder(path: Path) -> Path:
    "Weights of an encoder, as a file."
    from safetensors.torch import save_file

    from nbs_lib.models import build_model
    save_file(build_model('segformer:mit_b0', 19, 64).encoder.state_dict(), path)
    return path


def write_settings(path: Path, **changes) -> Path:
    "The faces' file of settings with some of them changed."
    import yaml
    settings = yaml.safe_load((ROOT/'experiments/faces.yaml').read_text())
    path.write_text(yaml.safe_dump(settings | changes))
    return path


@pytest.fixture(scope='module')
def trained_faces(own, tmp_path_factory) -> tuple[Path, str]:
    "The folder of a training by the file of settings alone, and the encoder's file that it starts from. Read only."
    from nbs_lib.experiments.faces import split_faces
    folder = tmp_path_factory.mktemp('faces')
    split_faces(own/'faces', folder/'split')
    encoder = str(write_encoder(folder/'encoder.safetensors'))
    paths = dict(data=str(folder/'split'), out=str(folder/'m'), encoder_weights=encoder)
    settings = write_settings(folder/'faces.yaml', size=64, epochs=2, **paths)
    done = run_forked(seg_train, '--config', settings, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder/'m', encoder


def test_faces_by_settings(trained_faces):
    "The settings' file alone, with weights of an encoder from a file: what was trained is what it says."
    models, encoder = trained_faces
    run, = (models/'wandb').glob('offline-run-*')
    records = records_of(run)
    parameters = parameters_in(records)
    wanted = dict(loss='cross_entropy+power_jaccard', lr=1e-3, epochs=2, pairs=15, encoder_weights=encoder)
    assert {key: parameters[key] for key in wanted} == wanted
    saved = json.loads((models/'segformer_mit_b0_64.json').read_text())
    assert [row['dice'] for row in rows_in(records) if 'dice' in row] == [epoch['dice'] for epoch in saved['history']]


def test_the_folder_of_wandb_holds_hardware_and_masks(trained_faces):
    run, = (trained_faces[0]/'wandb').glob('offline-run-*')
    assert any('cpu' in name for name in hardware_in(records_of(run)))
    assert list(run.glob('files/media/images/predictions*.png'))
    assert list(run.glob('files/media/table/classes*.json'))


def test_settings_of_unknown_names(tmp_path):
    done = run_forked(seg_train, '--config', write_settings(tmp_path/'faces.yaml', los='dice'))
    assert done.returncode == 1 and "sets 'los', which seg_train does not know" in done.stderr


NOTEBOOKS = sorted(path.stem for path in (ROOT/'experiments').glob('*.ipynb'))


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_form(name):
    "Parameters first, and prose between; at least one test runs it."
    cells = nbformat.read(ROOT/'experiments'/f'{name}.ipynb', 4).cells
    code = [cell for cell in cells if cell.cell_type == 'code']
    assert name in {name for name, _ in TINY}, 'a notebook that no test runs'
    assert code[0].metadata.get('tags') == ['parameters']
    assert len(code) <= 20
    assert sum(cell.cell_type == 'markdown' for cell in cells) >= len(code)/2


def is_complaint(output) -> bool:
    "Is an output an error, or a warning?"
    return output.output_type == 'error' or output.get('name') == 'stderr'


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_is_committed_with_its_outputs(name):
    "The outputs of an honest run: pictures, and no complaints."
    path = ROOT/'experiments'/f'{name}.ipynb'
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == 'code']
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if is_complaint(output)]
    assert sum(bool(cell.outputs) for cell in code) >= len(code)/2
    assert any('image/png' in output.get('data', {}) for output in outputs)
    assert path.stat().st_size < 1_300_000
