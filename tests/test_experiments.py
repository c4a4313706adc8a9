"""The notebooks of experiments/: their form, and a whole run on tiny data. A new notebook is a line in `TINY`."""
import json, struct, subprocess, sys
from pathlib import Path

import nbformat, numpy as np, pytest
from conftest import ROOT, run_command
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.layouts import FACES, find_pairs
from nbs_lib.tools.series import execute

# (notebook, its parameters at the smallest scale that touches every cell); {rooms}, {bsds}, {faces}, {voc} and {out} stand for folders
TINY_VOC = dict(MODELS='{out}', ARCH='unet:resnet18', COMPARED=['jaccard'], LONGEST=64, BS=4, EPOCHS=1, EPOCHS_COMPARED=1)
TINY_WNET = dict(MODELS='{out}', SIZE=32, CLASSES=4, WIDTH=4, DEPTH=2, BS=2, STEPS_ONE=3, STEPS=4, PICTURES=8, JUDGED=2)
TINY = [
    ('WNet', dict(TINY_WNET, DATA='{rooms}')),
    ('WNet', dict(TINY_WNET, BSDS='{bsds}')),
    ('Overfit', dict(DATA='{rooms}', IMAGE='000003', TIMES=32)),
    ('SegFormer', dict(SOURCE='{faces}', DATA='{out}/split', MODELS='{out}', EPOCHS=1)),
    ('PascalVOC', dict(TINY_VOC, SOURCE='{voc}')),
    ('PascalVOC', dict(TINY_VOC, SOURCE='{voc}.tar', DATA='{out}/voc', TRACK='tensorboard')),
]


@pytest.fixture(scope='session')
def own(rooms, tmp_path_factory) -> Path:
    "Rooms in VOC's layout, as a folder and as a tar, and drawn faces. Read only."
    folder = tmp_path_factory.mktemp('own')
    for args in (('voc', rooms, folder/'voc'), ('faces', folder/'faces', 15)):
        subprocess.run([sys.executable, ROOT/'experiments/own_data.py', *map(str, args)], check=True)
    subprocess.run(['tar', 'cf', folder/'voc.tar', '--transform', 's,^,VOCdevkit/VOC2012/,', '-C', folder/'voc', 'JPEGImages', 'SegmentationClass', 'ImageSets', 'labelmap.txt'], check=True)
    return folder


@pytest.fixture(scope='session')
def bsds(rooms, tmp_path_factory) -> Path:
    "Rooms in the layout of BSDS500: two annotators, who see the mask whole and in halves. Read only."
    from scipy.io import savemat
    folder = tmp_path_factory.mktemp('regions')
    for n, image in enumerate(sorted((rooms/'screenshots').iterdir())[:8]):
        part = 'val' if n % 4 == 0 else 'train'
        mask = np.asarray(Image.open(rooms/'labels'/image.name)).astype(np.uint16) + 1
        cell = np.empty((1, 2), object)
        for i, regions in enumerate((mask, mask + 100*(np.arange(mask.shape[1]) > 60).astype(np.uint16))): cell[0, i] = np.array([[(regions,)]], dtype=[('Segmentation', 'O')])
        for kind in ('images', 'groundTruth'): (folder/kind/part).mkdir(parents=True, exist_ok=True)
        Image.open(image).convert('RGB').save(folder/'images'/part/f'{image.stem}.jpg')
        savemat(folder/'groundTruth'/part/f'{image.stem}.mat', dict(groundTruth=cell))
    return folder


def test_own_data(own):
    "The stand-ins are read as what they stand in for, and hold what makes those hard: mixed sizes, pixels to ignore."
    voc, faces = find_pairs(own/'voc'), find_pairs(own/'faces')
    assert (voc.layout, len(voc), [p.split for p in voc.pairs].count('valid')) == ('voc', 24, 4)
    assert len({voc.read(i)[0].size for i in range(len(voc))}) > 10
    assert (faces.layout, len(faces), faces.labels) == ('faces', 15, FACES)
    for data in (voc, faces): assert any((data.read(i)[1] == 255).any() for i in range(len(data)))


@pytest.mark.parametrize('name, parameters', TINY)
def test_runs(name, parameters, rooms, own, bsds, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT/'experiments')
    values = {k: v.format(rooms=rooms, bsds=bsds, faces=own/'faces', voc=own/'voc', out=tmp_path) if isinstance(v, str) else v for k, v in parameters.items()}
    if values.get('SOURCE', '').endswith('.tar'):
        with pytest.raises(SegError, match='expected 6cd6e144'): execute(f'{name}.ipynb', values, tmp_path/'out.ipynb', progress=lambda s: None)  # it is not the official one
        return
    nb = execute(f'{name}.ipynb', values, tmp_path/'out.ipynb', progress=lambda s: None)
    assert all(c.execution_count for c in nb.cells if c.cell_type == 'code')


def wandb_records(path: Path):
    "What W&B wrote: LevelDB's log after a head of 7 bytes, in blocks of 32 KiB, each record with checksum (4), length (2) and kind (1: whole, 2 to 4: first, middle, last)."
    from wandb.proto.wandb_internal_pb2 import Record
    raw, at, part = path.read_bytes(), 7, b''
    while at + 7 <= len(raw):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, n, kind = struct.unpack('<IHB', raw[at:at+7])
        part, at = part + raw[at+7:at+7+n], at + 7 + n
        if kind in (1, 4):
            yield Record.FromString(part)
            part = b''


def test_faces_by_settings(own, tmp_path):
    "The settings' file alone, with weights of an encoder from a file: what was trained is what it says, and W&B's folder holds parameters, scores, hardware and masks."
    import torch, yaml
    from safetensors.torch import save_file

    from nbs_lib.experiments.faces import split_faces
    from nbs_lib.models import build_model
    split_faces(own/'faces', tmp_path/'split')
    save_file(build_model('segformer:mit_b0', 19, 64).encoder.state_dict(), tmp_path/'encoder.safetensors')
    changes = dict(data=str(tmp_path/'split'), out=str(tmp_path/'m'), size=64, epochs=2, encoder_weights=str(tmp_path/'encoder.safetensors'))
    settings = yaml.safe_load((ROOT/'experiments/faces.yaml').read_text()) | changes
    (tmp_path/'faces.yaml').write_text(yaml.safe_dump(settings))
    done = run_command('seg_train', '--config', tmp_path/'faces.yaml', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path/'m/smp_segformer_mit_b0_64.json').read_text())
    run, = (tmp_path/'m/wandb').glob('offline-run-*')
    found = {}
    for r in wandb_records(next(run.glob('*.wandb'))): found.setdefault(r.WhichOneof('record_type'), []).append(r)
    config = {u.key: json.loads(u.value_json) for u in found['run'][0].run.config.update}
    assert (config['loss'], config['lr'], config['epochs'], config['pairs'], config['pretrained']) == ('power_jaccard', 1e-3, 2, 15, changes['encoder_weights'])
    rows = [{'.'.join(i.nested_key): json.loads(i.value_json) for i in h.history.item} for h in found['history']]
    assert [r['dice'] for r in rows if 'dice' in r] == [h['dice'] for h in saved['history']]
    assert any('cpu' in (i.key or '.'.join(i.nested_key)) for s in found['stats'] for i in s.stats.item)
    assert list(run.glob('files/media/images/predictions*.png')) and list(run.glob('files/media/table/classes*.json'))
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
