"""The notebooks of experiments/: their form, and a whole run on tiny data. A new notebook is a line in `TINY`."""
import json
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT, run_command
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.layouts import FACES, find_pairs
from nbs_lib.tools.series import execute

TINY_VOC = dict(
    MODELS='{out}', ARCH='unet:resnet18', COMPARED=['jaccard'], LONGEST=64, BS=4, EPOCHS=1, EPOCHS_COMPARED=1)
TINY_WNET = dict(
    MODELS='{out}', SIZE=32, CLASSES=4, WIDTH=4, DEPTH=2, BS=2, STEPS_ONE=3, STEPS=4, PICTURES=8, JUDGED=2)
# (notebook, its parameters at the smallest scale that touches every cell)
# {rooms}, {bsds}, {faces}, {voc} and {out} stand for folders
TINY = [
    ('WNet', dict(TINY_WNET, DATA='{rooms}')),
    ('WNet', dict(TINY_WNET, BSDS='{bsds}')),
    ('Overfit', dict(DATA='{rooms}', IMAGE='000003', TIMES=32)),
    ('SegFormer', dict(SOURCE='{faces}', DATA='{out}/split', MODELS='{out}', EPOCHS=1)),
    ('PascalVOC', dict(TINY_VOC, SOURCE='{voc}')),
    ('PascalVOC', dict(TINY_VOC, SOURCE='{voc}.tar', DATA='{out}/voc', TRACK='tensorboard')),
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
def test_runs(name, parameters, rooms, own, bsds, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT/'experiments')
    folders = dict(rooms=rooms, bsds=bsds, faces=own/'faces', voc=own/'voc', out=tmp_path)
    values = {key: v.format(**folders) if isinstance(v, str) else v for key, v in parameters.items()}

    def run():
        return execute(f'{name}.ipynb', values, tmp_path/'out.ipynb', progress=lambda line: None)

    if values.get('SOURCE', '').endswith('.tar'):
        with pytest.raises(SegError, match='expected 6cd6e144'):
            run()  # it is not the official one
    else:
        assert all(cell.execution_count for cell in run().cells if cell.cell_type == 'code')


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


def flat_name(item) -> str:
    return '.'.join(item.nested_key)


def write_encoder(path: Path) -> Path:
    "Weights of an encoder, as a file."
    from safetensors.torch import save_file

    from nbs_lib.models import build_model
    save_file(build_model('segformer:mit_b0', 19, 64).encoder.state_dict(), path)
    return path


def test_faces_by_settings(own, tmp_path):
    """The settings' file alone, with weights of an encoder from a file: what was trained is what it says.

    W&B's folder holds parameters, scores, hardware and masks."""
    import yaml

    from nbs_lib.experiments.faces import split_faces
    split_faces(own/'faces', tmp_path/'split')
    encoder = write_encoder(tmp_path/'encoder.safetensors')
    changes = dict(
        data=str(tmp_path/'split'), out=str(tmp_path/'m'), size=64, epochs=2, encoder_weights=str(encoder))
    settings = yaml.safe_load((ROOT/'experiments/faces.yaml').read_text()) | changes
    (tmp_path/'faces.yaml').write_text(yaml.safe_dump(settings))
    done = run_command('seg_train', '--config', tmp_path/'faces.yaml', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path/'m/segformer_mit_b0_64.json').read_text())
    run, = (tmp_path/'m/wandb').glob('offline-run-*')
    found = {}
    for record in wandb_records(next(run.glob('*.wandb'))):
        found.setdefault(record.WhichOneof('record_type'), []).append(record)
    config = {update.key: json.loads(update.value_json) for update in found['run'][0].run.config.update}
    wanted = dict(loss='power_jaccard', lr=1e-3, epochs=2, pairs=15, encoder_weights=changes['encoder_weights'])
    assert {key: config[key] for key in wanted} == wanted
    rows = [{flat_name(i): json.loads(i.value_json) for i in r.history.item} for r in found['history']]
    assert [row['dice'] for row in rows if 'dice' in row] == [epoch['dice'] for epoch in saved['history']]
    hardware = [item.key or flat_name(item) for record in found['stats'] for item in record.stats.item]
    assert any('cpu' in name for name in hardware)
    assert list(run.glob('files/media/images/predictions*.png'))
    assert list(run.glob('files/media/table/classes*.json'))


def test_settings_of_unknown_names(tmp_path):
    import yaml
    settings = yaml.safe_load((ROOT/'experiments/faces.yaml').read_text())
    (tmp_path/'faces.yaml').write_text(yaml.safe_dump(settings | dict(los='dice')))
    done = run_command('seg_train', '--config', tmp_path/'faces.yaml')
    assert done.returncode == 1 and "sets 'los', which seg_train does not know" in done.stderr


@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT/'experiments').glob('*.ipynb')))
def test_form(name):
    "Parameters first, prose between, and the outputs of an honest run."
    path = ROOT/'experiments'/f'{name}.ipynb'
    nb = nbformat.read(path, 4)
    code = [c for c in nb.cells if c.cell_type == 'code']
    assert name in {n for n, _ in TINY}, 'a notebook that no test runs'
    assert code[0].metadata.get('tags') == ['parameters']
    assert len(code) <= 20 and sum(c.cell_type == 'markdown' for c in nb.cells) >= len(code)/2
    assert not any(o.output_type == 'error' or o.get('name') == 'stderr' for c in code for o in c.outputs)
    assert sum(bool(c.outputs) for c in code) >= len(code)/2
    assert any('image/png' in o.get('data', {}) for c in code for o in c.outputs)
    assert path.stat().st_size < 1_300_000
