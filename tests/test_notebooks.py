"""The four root notebooks: their form, and a whole run in order on tiny data."""
import shutil
from pathlib import Path

import nbformat, pytest
from conftest import ROOT

from nbs_lib.core import SegError
from nbs_lib.tools.series import SERIES, execute


@pytest.mark.parametrize('name', SERIES)
def test_form(name):
    nb = nbformat.read(ROOT/f'{name}.ipynb', 4)
    code = [c for c in nb.cells if c.cell_type == 'code']
    assert code[0].metadata.get('tags') == ['parameters']
    assert len(code) <= 22
    assert not any(line.startswith(('class ', '%env', '/')) for c in code for line in c.source.splitlines())
    assert sum(c.cell_type == 'markdown' for c in nb.cells) >= len(code)/2
    assert not any(o.output_type == 'error' or o.get('name') == 'stderr' for c in code for o in c.outputs)
    assert (ROOT/f'{name}.ipynb').stat().st_size < 1_500_000


@pytest.mark.parametrize('name', SERIES)
def test_is_committed_with_its_outputs(name):
    "People read the notebooks without running them."
    code = [c for c in nbformat.read(ROOT/f'{name}.ipynb', 4).cells if c.cell_type == 'code']
    assert sum(bool(c.outputs) for c in code) >= len(code)/2
    assert any('image/png' in o.get('data', {}) for c in code for o in c.outputs)


def test_the_series_runs(rooms, tmp_path, monkeypatch):
    "All four, in order, on 24 small rooms: the smallest run that touches every cell."
    monkeypatch.chdir(ROOT)
    data = tmp_path/'Data with a space'
    shutil.copytree(rooms, data)
    out, quiet = str(data/'models'), dict(progress=lambda s: None)
    common = dict(DATA=str(data), MODELS=out, ARCH='resnet18')
    execute('SegmentationLearner.ipynb', dict(common, SIZE=32, EPOCHS=1, BS=8), tmp_path/'1.ipynb', **quiet)
    execute('GoBig.ipynb', dict(common, FROM=32, SIZES=[64], EPOCHS=[1], BS=8), tmp_path/'2.ipynb', **quiet)
    assert {p.suffix for p in Path(out).glob('unet_resnet18_32.*')} >= {'.safetensors', '.json', '.pkl', '.onnx'}
    execute('ONNX.ipynb', dict(DATA=str(data), MODELS=out, MODEL='unet_resnet18_64', REPEATS=2), tmp_path/'3.ipynb', **quiet)
    execute('RealImagePred.ipynb', dict(MODELS=out, MODEL='unet_resnet18_64', PHOTOS=str(data/'test'), LABELLED=str(data), MAPPING='', ONLY=''), tmp_path/'4.ipynb', **quiet)
    ladder = (Path(out)/'ladder.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in ladder] == ['model', 'unet_resnet18_32', 'unet_resnet18_64']
    assert not list(Path(out).glob('*.checkpoint')), 'a finished run leaves no checkpoint'


@pytest.mark.parametrize('name, values, says', [
    ('SegmentationLearner', dict(DATA='no such folder'), 'the folder no such folder does not exist'),
    ('SegmentationLearner', dict(SIZE=256), "above the pictures' own"),
    ('GoBig', dict(FROM=96), 'run SegmentationLearner.ipynb first'),
    ('GoBig', dict(SIZES=[512]), "above the pictures' own"),
])
def test_bad_parameters_are_one_sentence(name, values, says, rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SegError, match=says): execute(f'{name}.ipynb', dict(DATA=str(rooms), MODELS=str(tmp_path)) | values, tmp_path/'x.ipynb', progress=lambda s: None)
    assert not (tmp_path/'x.ipynb').exists()
