"""From a saved model to masks of photographs, by the commands: what is said, written, and must not be needed."""
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_command
from echo import SIZE, echo_graph, echo_model
from forked import run_forked
from onnx import TensorProto, helper
from PIL import Image

from nbs_lib.core import SegError
from nbs_lib.datasets import split_pairs
from nbs_lib.evaluate import evaluate, find_mapping, mapped_scoring, seg_eval, summarize
from nbs_lib.labels import ROOM_LABELS, LabelSet, read_labels, write_labels
from nbs_lib.layouts import CAMVID, VOC, find_pairs
from nbs_lib.predict import (
    VIEW_SCALES,
    HeldOut,
    Predictor,
    held_out_pairs,
    letterbox,
    manifest_path,
    resize_scores,
    softmax,
    stretch,
    to_net_size,
    view_size,
)
from nbs_lib.tools.examples import example_rooms

NYUV2 = ROOT.parent/'shared'/'data'/'nyuv2'


ARCH, NAME = 'unet:tu-test_resnet', 'smp_unet_tu-test_resnet_32'  # the smallest network


@pytest.fixture(scope='session')
def model(rooms, tmp_path_factory) -> Path:
    "A hardly trained model, exported, in a folder with a space in its name. Read only."
    from nbs_lib.export import export_onnx
    from nbs_lib.train import TrainSettings, train_model
    folder = tmp_path_factory.mktemp('trained')/'the models'
    settings = TrainSettings(size='32', epochs=1, arch=ARCH, out=str(folder))
    train_model(find_pairs(rooms), settings, bar=False)
    return export_onnx(folder/f'{NAME}.safetensors')


@pytest.fixture(scope='session')
def photo(rooms) -> Path:
    return rooms/'screenshots'/'000000.png'


def says(done, status, text):
    "The exit status, and one line on stderr that holds `text`."
    assert done.returncode == status, done.stdout + done.stderr
    assert text in done.stderr and 'Traceback' not in done.stderr, done.stderr


# the exported file

def test_manifest(model):
    m = json.loads(manifest_path(model).read_text())
    assert m['sha256'] == hashlib.sha256(model.read_bytes()).hexdigest() and m['bytes'] == model.stat().st_size
    assert (m['file'], m['arch'], m['size'], m['precision']) == (model.name, ARCH, [32, 32], 'fp32')
    assert LabelSet.from_dict(m['labels']) == ROOM_LABELS
    assert set(m['provenance']['exported_with']) == {'torch', 'onnx', 'onnxscript', 'onnxruntime'}


def test_parity(model, rooms):
    "The labels of torch, at three sizes, alone and three at a time."
    from nbs_lib.checkpoint import load_model
    from nbs_lib.export import parity
    data = find_pairs(rooms)
    network, meta = load_model(model.with_suffix('.safetensors'))
    rows = parity(network, meta, model, [64, 128, (64, 96)], (1, 3), [data.read(i)[0] for i in range(3)])
    assert len(rows) == 6 and min(r['equal'] for r in rows) >= 0.999, rows


def test_the_file_names_nobody(model):
    content = model.read_bytes()
    assert not any(s in content for s in (b'site-packages', b'stack_trace', str(ROOT).encode()))


# what the predictor must not need

LIGHT = """
import sys, time
start = time.process_time()
import {module}
seconds = time.process_time() - start
if len(sys.argv) > 2:
    from nbs_lib.predict import Predictor
    assert Predictor(sys.argv[1])(sys.argv[2]).mask.any()
heavy = [m for m in ('torch', 'fastai', 'matplotlib', 'pandas', 'onnx', 'IPython') if m in sys.modules]
print(seconds, *heavy)
"""


@pytest.mark.parametrize('module', ['nbs_lib.predict', 'nbs_lib.evaluate'])
def test_light(module, model, photo):
    command = [sys.executable, '-c', LIGHT.format(module=module), model, photo]
    runs = [subprocess.run(command, capture_output=True, text=True) for _ in range(3)]
    assert all(r.returncode == 0 for r in runs), runs[0].stderr
    words = [r.stdout.split() for r in runs]
    assert words[0][1:] == [], f'{module} imports {words[0][1:]}'
    assert statistics.median(float(w[0]) for w in words) < 1


# seg_predict

def test_photos_from_two_folders(model, photo, tmp_path):
    "Photos of one name do not overwrite each other, and a broken one stops nothing."
    folders = [tmp_path/'some photos', tmp_path/'others']
    for f in folders:
        f.mkdir()
        shutil.copy(photo, f/'room.png')
    Image.new('RGB', (70, 50), 'gray').save(folders[1]/'room.jpg')
    (folders[0]/'broken.png').write_bytes(photo.read_bytes()[:500])
    (folders[0]/'text.jpg').write_text('not a picture')
    done = run_command('seg_predict', model, *folders, '--out', tmp_path/'the answers')
    says(done, 1, '2 of 5 photos could not be labelled')
    assert len(done.stderr.strip().splitlines()) == 3
    assert 'broken.png is damaged' in done.stderr and 'text.jpg is not an image' in done.stderr
    for kind, mode in (('mask', 'P'), ('overlay', 'RGB'), ('confidence', 'L')):
        files = sorted((tmp_path/'the answers'/kind).iterdir())
        assert [f.name for f in files] == ['room-2.png', 'room-3.png', 'room.png']
        assert {Image.open(f).mode for f in files} == {mode}
    masks = tmp_path/'the answers'/'mask'
    assert (masks/'room.png').read_bytes() == (masks/'room-3.png').read_bytes()
    assert Image.open(masks/'room-2.png').size == (70, 50)
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all('confidence 0.' in line and '%' in line for line in lines[1:])


def test_mask_file_is_the_prediction(model, photo, tmp_path):
    assert run_command('seg_predict', model, photo, '--out', tmp_path, '--fit', 'pad').returncode == 0
    mask, expected = Image.open(tmp_path/'mask'/photo.name), Predictor(model)(photo, 'pad')
    assert (np.asarray(mask) == expected.mask).all()
    assert (np.asarray(mask.convert('RGB')) == ROOM_LABELS.palette[expected.mask]).all()
    assert (np.asarray(Image.open(tmp_path/'confidence'/photo.name)) == expected.confidence).all()


def with_orientation(im, path):
    tag = Image.Exif()
    tag[0x112] = 6
    im.save(path, format='JPEG', exif=tag)


def sixteen_bits(im, path):
    Image.fromarray(np.asarray(im.convert('L')).astype(np.uint16)*257).save(path)


ODD = {
    'jpeg named.png': lambda im, p: im.save(p, format='JPEG'),
    'palette.png': lambda im, p: im.quantize(16).save(p),
    'transparent palette.png': lambda im, p: im.quantize(16).save(p, transparency=0),
    'alpha.png': lambda im, p: im.convert('RGBA').save(p),
    'grey alpha.png': lambda im, p: im.convert('LA').save(p),
    'grey.png': lambda im, p: im.convert('L').save(p),
    'bits.png': lambda im, p: im.convert('1').save(p),
    'deep.png': sixteen_bits,
    'cmyk.jpg': lambda im, p: im.convert('CMYK').save(p),
    'photo.webp': lambda im, p: im.save(p),
    'photo.gif': lambda im, p: im.save(p),
    'photo.bmp': lambda im, p: im.save(p),
    'one pixel.png': lambda im, p: im.resize((1, 1)).save(p),
    'wide.png': lambda im, p: im.resize((3000, 2)).save(p),
    'tall.png': lambda im, p: im.resize((2, 3000)).save(p),
}
NUMBERED = {'photo.bmp': 'photo', 'photo.gif': 'photo-2', 'photo.webp': 'photo-3'}  # of one name


@pytest.mark.parametrize('fit', ['stretch', 'letterbox'])
def test_any_photo(fit, model, photo, tmp_path):
    im = Image.open(photo).convert('RGB').resize((90, 60))
    for name, save in ODD.items():
        save(im, tmp_path/name)
    with_orientation(im, tmp_path/'turned.jpg')
    done = run_command('seg_predict', model, tmp_path, '--out', tmp_path/'out', '--fit', fit)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    for name in ODD:
        stem = NUMBERED.get(name, Path(name).stem)
        for kind in ('mask', 'confidence'):
            assert Image.open(tmp_path/'out'/kind/f'{stem}.png').size == Image.open(tmp_path/name).size, name
    assert Image.open(tmp_path/'out'/'mask'/'turned.png').size == (60, 90)


@pytest.mark.parametrize('old,new', [('square', 'stretch'), ('pad', 'letterbox'), ('tile', 'sliding_window')])
def test_older_names_of_resize_modes(old, new, tmp_path):
    "Scripts say them, and so does the server's protocol."
    predictor = Predictor(echo_model(tmp_path/'echo.onnx'))
    image = np.random.default_rng(0).integers(0, N, (70, 150, 3), dtype=np.uint8)
    assert (predictor(image, old).mask == predictor(image, new).mask).all()


def test_what_is_not_photo_has_the_mean_color_of_the_training(tmp_path):
    "0.5 in the model's statistics is 128 in an image; black would be an edge that no training has shown."
    predictor, seen = Predictor(echo_model(tmp_path/'echo.onnx')), []
    run = predictor.run

    def noting(images):
        seen.append(images)
        return run(images)

    predictor.run = noting
    predictor(np.zeros((16, 64, 3), np.uint8), 'letterbox')
    predictor(np.zeros((16, SIZE, 3), np.uint8), 'sliding_window')
    assert [images.shape for images in seen] == [(1, 32, 64, 3), (1, SIZE, SIZE, 3)]
    for images in seen:
        assert (images[:, :16] == 0).all() and (images[:, 16:] == 128).all()


def test_a_model_need_not_be_square(tmp_path):
    "Height first, width second, for the letterbox and for windows."
    photo = Image.new('RGB', (128, 64))
    assert letterbox(photo, (32, 64)).inside == (32, 64)
    assert letterbox(photo, (64, 32)).inside == (16, 32)
    predictor = Predictor(echo_model(tmp_path/'echo.onnx', size='[32, 64]'))
    image = np.random.default_rng(0).integers(0, N, (70, 150, 3), dtype=np.uint8)
    assert (predictor(image, 'sliding_window').mask == image[..., 0]).all()


def test_models_that_are_refused(model, photo, tmp_path):
    says(run_command('seg_predict', tmp_path/'none.onnx', photo), 1, 'none.onnx is missing; make it with')
    (tmp_path/'text.onnx').write_text('not a model')
    says(run_command('seg_predict', tmp_path/'text.onnx', photo), 1, 'text.onnx is not an ONNX model')
    for f in (model, manifest_path(model)):
        shutil.copy(f, tmp_path)
    content = bytearray(model.read_bytes())
    content[len(content)//2] ^= 1  # loads without a word and is wrong
    (tmp_path/model.name).write_bytes(content)
    done = run_command('seg_predict', tmp_path/model.name, photo, '--out', tmp_path/'out')
    says(done, 1, f'is not the file that {NAME}.manifest.json describes')
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path/'out').exists()


# what a file may claim about itself

def claimed_labels(**changes):
    "The table of the rooms as a file says it, with `changes`."
    return dict(labels=json.dumps(ROOM_LABELS.to_dict() | changes))


N = ROOM_LABELS.n_classes
GRAY = [128, 128, 128]
WRONG_CLAIMS = {
    'size is a number': (dict(size='64'), 'size'),
    'size is text': (dict(size='["a", "b"]'), 'size'),
    'size has three numbers': (dict(size='[64, 64, 64]'), 'size'),
    'size is no multiple of 32': (dict(size='[64, 65]'), 'size'),
    'size is negative': (dict(size='[-64, 64]'), 'size'),
    'size is true': (dict(size='[64, true]'), 'size'),
    'size is a fraction': (dict(size='[64.0, 64.5]'), 'size'),
    'size is huge': (dict(size='[64, 320000]'), 'size'),
    'a number of 5,000 digits': (dict(size=f'[{"6" * 5000}, 64]'), 'unreadable'),
    'nested too deeply': (dict(size='[' * 100_000), 'unreadable'),
    'stats are a number': (dict(stats='3'), 'stats'),
    'stats lack the deviation': (dict(stats='[[0.5, 0.5, 0.5]]'), 'stats'),
    'stats of two channels': (dict(stats='[[0.5, 0.5], [0.2, 0.2]]'), 'stats'),
    'stats are text': (dict(stats='[["a", 0, 0], [1, 1, 1]]'), 'stats'),
    'stats are not numbers': (dict(stats='[[NaN, 0.5, 0.5], [0.2, 0.2, 0.2]]'), 'stats'),
    'mean above 1': (dict(stats='[[123, 117, 104], [0.2, 0.2, 0.2]]'), 'stats'),
    'deviation 0': (dict(stats='[[0.5, 0.5, 0.5], [0, 0.2, 0.2]]'), 'stats'),
    'labels are a list': (dict(labels='[]'), 'label'),
    'labels lack colors': (dict(labels='{"codes": ["a"]}'), 'label'),
    'names are numbers': (claimed_labels(codes=list(range(N))), 'codes'),
    'names are one text': (claimed_labels(codes='a' * N), 'codes'),
    'an empty name': (claimed_labels(codes=['', *ROOM_LABELS.codes[1:]]), 'codes'),
    'a name that is not text': (claimed_labels(codes=['\ud800', *ROOM_LABELS.codes[1:]]), 'codes'),
    'a color is a fraction': (claimed_labels(colors=[[0.5, 0, 0]] + [GRAY] * (N - 1)), 'color'),
    'a color is text': (claimed_labels(colors=['abc'] + [GRAY] * (N - 1)), 'color'),
    'colors are numbers': (claimed_labels(colors=[5] * N), 'color'),
    'a color above 255': (claimed_labels(colors=[[256, 0, 0]] + [GRAY] * (N - 1)), 'color'),
    'background is text': (claimed_labels(background='empty'), 'background'),
    'background above the table': (claimed_labels(background=N), 'background'),
    'background is negative': (claimed_labels(background=-1), 'background'),
    'void is a number': (claimed_labels(void=255), 'void'),
    'void is text': (claimed_labels(void=['a']), 'void'),
    'stored values are text': (claimed_labels(values=['a'] * N), 'values'),
}


@pytest.mark.parametrize('props,word', WRONG_CLAIMS.values(), ids=WRONG_CLAIMS)
def test_wrong_claims_are_refused(props, word, tmp_path):
    "One sentence that names the file and what is wrong in it."
    path = echo_model(tmp_path/'echo.onnx', **props)
    with pytest.raises(SegError, match=word) as refused:
        Predictor(path)
    said = str(refused.value)
    assert 'echo.onnx' in said and 'seg_export' in said and len(said) < 400 + len(str(path)), said


WRONG_GRAPHS = {
    'an output of another name': (echo_graph(mask_name='labels'), 'mask'),
    'images of numbers with a point': (echo_graph(image_type=TensorProto.FLOAT), 'uint8'),
}


@pytest.mark.parametrize('graph,word', WRONG_GRAPHS.values(), ids=WRONG_GRAPHS)
def test_wrong_graphs_are_refused(graph, word, tmp_path):
    with pytest.raises(SegError, match=word):
        Predictor(echo_model(tmp_path/'echo.onnx', graph))


def test_values_above_the_table_are_refused(tmp_path):
    "A label without a name or a color never leaves the predictor."
    predictor = Predictor(echo_model(tmp_path/'echo.onnx', echo_graph(largest=255)))
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[3, 5, 0] = N - 1
    assert predictor(image).mask.max() == N - 1
    image[3, 5, 0] = N
    with pytest.raises(SegError, match=f'value {N}.*{N} labels'):
        predictor(image)


def flat_scores(path, n_classes=N) -> Path:
    "An echo model that also gives scores, all of them 0."
    graph = echo_graph()
    shape = helper.make_tensor('shape', TensorProto.INT64, [4], [1, n_classes, SIZE, SIZE])
    graph.initializer.append(shape)
    graph.node.append(helper.make_node('ConstantOfShape', ['shape'], ['logits']))
    graph.output.append(helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 'c', 'h', 'w']))
    return echo_model(path, graph)


def test_scores_of_another_number_of_labels_are_refused(tmp_path):
    predictor = Predictor(flat_scores(tmp_path/'echo.onnx', N - 1))
    with pytest.raises(SegError, match=f'answers scores .*{N - 1}, '):
        predictor(np.zeros((2*SIZE, 2*SIZE, 3), np.uint8))


# masks at the photo's own size

def test_an_old_file_without_scores_still_predicts(tmp_path):
    "By nearest neighbor: every pixel of the small mask becomes a square."
    predictor = Predictor(echo_model(tmp_path/'echo.onnx'))
    assert not predictor.smooth
    image = np.random.default_rng(0).integers(0, N, (4*SIZE, 4*SIZE, 3), dtype=np.uint8)
    mask = predictor(image).mask
    assert (mask == mask[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)).all()


@pytest.mark.parametrize('fit', ['stretch', 'letterbox'])
def test_masks_are_enlarged_by_scores(fit, model, photo):
    "The labels that torch finds where it enlarges all scores bilinearly, but for the few that win nowhere else."
    import torch
    predictor = Predictor(model)
    image = Image.open(photo).convert('RGB').resize((200, 120))
    net_image = to_net_size(image, predictor.size, fit, predictor.fill)
    logits = predictor.run_with_logits(net_image.pixels[None])[2]
    inside = torch.tensor(logits)[:, :, :net_image.inside[0], :net_image.inside[1]]
    enlarged = torch.nn.functional.interpolate(inside, size=(120, 200), mode='bilinear', align_corners=False)
    expected = enlarged.argmax(1)[0].numpy()
    stairs = Predictor(model, smooth=False)(image, fit).mask
    assert (predictor(image, fit).mask == expected).mean() > 0.99
    assert (stairs == expected).mean() < 0.99


def test_tta_is_the_mean_of_four_views(model, photo):
    "At two sizes in the photo's shape, each as it is and mirrored."
    image = Image.open(photo).convert('RGB').resize((200, 100))
    patient = Predictor(model, tta=True)
    sizes = [view_size(image.size, patient.size, scale) for scale in VIEW_SCALES]
    assert sizes == [(32, 32), (32, 64)]
    probabilities = []
    for size in sizes:
        view = stretch(image, size).pixels[None]
        plain, mirrored = patient.run_with_logits(view)[2], patient.run_with_logits(view[:, :, ::-1].copy())[2]
        probabilities += [softmax(plain[0]), softmax(mirrored[0])[:, :, ::-1]]
    mean = sum(resize_scores(scores, (100, 200)) for scores in probabilities)/4
    answer = patient(image)
    assert (answer.mask == mean.argmax(0)).mean() > 0.97  # the rest: enlarged at once here, in two steps there
    assert (answer.mask != Predictor(model)(image).mask).any()
    assert abs(int(answer.confidence.mean()) - 255*mean.max(0).mean()) < 5


def test_a_mask_of_the_networks_size_is_not_changed(model, photo):
    predictor = Predictor(model)
    image = Image.open(photo).convert('RGB').resize(predictor.size)
    assert (predictor(image).mask == predictor.run(np.asarray(image)[None])[0][0]).all()


def test_a_graph_of_another_size_is_refused(tmp_path):
    "What onnxruntime says about a graph that cannot take the claimed size becomes one sentence."
    graph = echo_graph()
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 96
    predictor = Predictor(echo_model(tmp_path/'echo.onnx', graph))
    with pytest.raises(SegError, match='could not be run'):
        predictor(np.zeros((SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize('text', ['[]', '3', 'null', '"text"'])
def test_a_manifest_that_is_no_object_is_refused(text, tmp_path):
    path = echo_model(tmp_path/'echo.onnx')
    manifest_path(path).write_text(text)
    with pytest.raises(SegError, match='echo.manifest.json'):
        Predictor(path)


def test_wrong_arguments(model, photo, tmp_path):
    says(run_command('seg_predict', model), 2, 'usage: seg_predict')
    says(run_command('seg_predict', model, photo, '--fit', 'crop', '--out', tmp_path/'out'), 1, "no fit 'crop'")
    windows = '--fit', 'sliding_window', '--tta'
    says(run_command('seg_predict', model, photo, *windows), 1, 'test-time augmentation shows the whole photo at once')
    done = run_command('seg_predict', model, photo, '--provider', 'cuda', '--out', tmp_path/'out')
    says(done, 1, "no execution provider 'cuda' here")
    says(run_command('seg_predict', model, tmp_path, '--out', tmp_path/'out'), 1, 'there are no pictures in')


def test_threads_get_the_serial_answers(model, rooms):
    predictor = Predictor(model)
    files = sorted((rooms/'screenshots').iterdir())[:8]
    photos = [Image.open(p).resize((40 + 17*i, 90 - 5*i)) for i, p in enumerate(files)]
    serial = [predictor(p).mask for p in photos]
    with ThreadPoolExecutor(4) as pool:
        parallel = [p.mask for p in pool.map(predictor, photos*4)]
    assert all((a == b).all() for a, b in zip(serial*4, parallel, strict=True))
    assert all((a == b.mask).all() for a, b in zip(serial, predictor.batch(photos), strict=True))


# seg_eval

def test_eval_report(model, rooms, tmp_path):
    done = run_command('seg_eval', model, '--data', rooms, '--report', tmp_path/'a report'/'all.json')
    assert done.returncode == 0 and 'scored on 23 of 23 labels' in done.stdout, done.stderr
    r, data = json.loads((tmp_path/'a report'/'all.json').read_text()), find_pairs(rooms)
    truth = np.bincount(np.concatenate([data.read(i)[1].ravel() for i in range(len(data))]), minlength=24)
    assert (np.sum(r['confusion'], 1) == truth).all(), 'truth is counted at its own size'
    assert r['data']['pictures'] == 24 and len(r['classes']) == 24 and 0 < r['scores']['accuracy'] < 1
    assert r['model']['sha256'] == hashlib.sha256(model.read_bytes()).hexdigest()
    predictor, (image, mask) = Predictor(model), data.read(0)
    assert (evaluate(predictor, data, indices=[0])[0].trace() == (predictor(image).mask == mask).sum())


def test_eval_parts(model, rooms, tmp_path):
    report = tmp_path/'r.json'
    split = ['--valid_only', '--valid', 0.25, '--seed', 0]
    assert run_command('seg_eval', model, '--data', rooms, *split, '--report', report).returncode == 0
    r = json.loads(report.read_text())
    assert 0 < r['data']['pictures'] < 24 and r['how']['part'] == 'validation'
    data, bed = find_pairs(rooms), ROOM_LABELS['furniture_doubleBed']
    shown = sum((data.read(i)[1] == bed).any() for i in range(len(data)))
    only = ['--only', 'furniture_doubleBed']
    assert run_command('seg_eval', model, '--data', rooms, *only, '--report', report).returncode == 0
    assert json.loads(report.read_text())['data']['pictures'] == shown
    says(run_command('seg_eval', model, '--data', rooms, '--only', 'bath'), 1, "no label is called 'bath'")


def test_eval_needs_the_models_labels(model, rooms, tmp_path):
    data = Path(shutil.copytree(rooms, tmp_path/'data'))
    labels = read_labels(data/'labels.csv')
    write_labels(LabelSet((*labels.codes[:-1], 'live_cat'), labels.colors), data/'labels.csv')
    (data/'generation.json').unlink()  # it knows the table that the masks were written with
    done = run_command('seg_eval', model, '--data', data, '--report', tmp_path/'r.json')
    ours = 'the model has live_dog, which the data do not have'
    theirs = 'the data have live_cat, which the model does not have'
    says(done, 1, f'{ours} and {theirs}')
    assert not (tmp_path/'r.json').exists()


@pytest.mark.skipif(not NYUV2.is_dir(), reason=f'needs NYUv2 in {NYUV2.name}')
def test_rooms_model_on_real_photographs(model):
    data, predictor = find_pairs(NYUV2), Predictor(model)
    scoring = mapped_scoring(predictor.labels, data.labels, find_mapping('nyuv2'))
    matrix, n = evaluate(predictor, data, scoring, indices=range(8))
    s, rows = summarize(matrix, scoring)
    assert n == 8 and len(rows) == len(scoring.names) == 12 and matrix.shape == (13, 13) and matrix[12].sum() == 0
    known = sum(np.isin(data.read(i)[1], [data.labels[name] for name in find_mapping('nyuv2')]).sum() for i in range(8))
    assert matrix.sum() == known


# eight bits

def test_eight_bits_only_where_good_enough(model, rooms, tmp_path):
    "Written with a manifest that says how it was judged, or not written and said so; the other file as always."
    from nbs_lib.export import seg_export
    weights = model.with_suffix('.safetensors')
    done = run_forked(seg_export, weights, '--out', tmp_path, '--data', rooms)
    assert done.returncode == 0, done.stderr
    first, said = done.stdout.splitlines()[-2:]
    assert 'the same label as torch on' in first
    assert (tmp_path/model.name).read_bytes() == model.read_bytes(), 'the same weights give the same bytes'
    small = tmp_path/f'{NAME}.int8.onnx'
    assert 'of the pixels of' in said and 'Dice' in said
    assert sorted(tmp_path.glob('*.int8.*')) == ([] if 'not written' in said else [manifest_path(small), small])
    if small.exists():
        judged = json.loads(manifest_path(small).read_text())['judged']
        assert judged['agreement'] >= 0.99 and judged['dice'][0] - judged['dice'][1] <= 0.005
        assert Predictor(small).meta['precision'] == 'int8' and small.stat().st_size < model.stat().st_size/3


def test_eight_bits_need_held_out_pictures(model, tmp_path):
    from nbs_lib.export import seg_export
    weights = model.with_suffix('.safetensors')
    says(run_forked(seg_export, weights, '--out', tmp_path, '--data', tmp_path/'nowhere'), 1, 'nowhere')
    assert not list(tmp_path.iterdir()), 'it is said before the export'


# what the model remembers as held out

def rooms_and_model(folder, n, split, **props):
    "`n` drawn rooms, and a model beside them that says that `split` was its training's."
    data = example_rooms(folder/'rooms', n, size=SIZE)
    model = echo_model(folder/'echo.onnx', split=json.dumps(split), **props)
    return data, model


REMEMBERED = dict(rule='groups', valid=0.2, seed=0, names=['000001', '000004'], train_sha256='0'*64)


def test_held_out_is_remembered(tmp_path):
    "Rooms were added after the training: a split drawn again would hold out some that were trained on."
    data, model = rooms_and_model(tmp_path, 10, REMEMBERED)
    expected = evaluate(Predictor(model), data, indices=[1, 4])[0]
    example_rooms(tmp_path/'rooms', 20, size=SIZE)
    done = run_command('seg_eval', model, '--data', tmp_path/'rooms', '--valid_only', '--report', tmp_path/'r.json')
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path/'r.json').read_text())
    assert report['data']['pictures'] == 2
    assert report['confusion'] == expected.tolist()
    assert report['how']['held_out'] == 'remembered'
    assert 'cannot be known' not in done.stdout + done.stderr


def test_a_split_that_is_asked_for_is_drawn(tmp_path):
    "--valid and --seed have the last word, whatever the model remembers."
    data = example_rooms(tmp_path, 10, size=8)
    asked = dict(valid=0.3, seed=5)
    assert held_out_pairs(data, REMEMBERED, **asked) == HeldOut(split_pairs(data, **asked)[1], False)
    assert not held_out_pairs(data, REMEMBERED, seed=5).remembered


def test_an_old_model_does_not_know(tmp_path):
    "It says only share and seed: the split is drawn again, and the doubt is said and written down."
    _, model = rooms_and_model(tmp_path, 10, dict(valid=0.2, seed=0))
    done = run_command('seg_eval', model, '--data', tmp_path/'rooms', '--valid_only', '--report', tmp_path/'r.json')
    assert done.returncode == 0, done.stderr
    assert 'cannot be known whether these images were trained on' in done.stderr
    report = json.loads((tmp_path/'r.json').read_text())
    assert report['data']['pictures'] == 2
    assert report['how']['held_out'] == 'drawn again'


def test_nothing_held_out_is_left(tmp_path):
    _, model = rooms_and_model(tmp_path, 10, dict(REMEMBERED, names=['000077']))
    says(run_command('seg_eval', model, '--data', tmp_path/'rooms', '--valid_only'), 1, 'held out')


def test_eight_bits_are_calibrated_on_images_of_the_whole_training():
    "The first ones may all be of one room."
    from nbs_lib.datasets import spread_evenly
    assert spread_evenly(list(range(100, 200)), 5) == [100, 124, 149, 174, 199]


def test_an_old_manifest_never_stands_beside_a_new_model(tmp_path, monkeypatch):
    "Interrupted before the new manifest is written, there is none; the old one would call the new file damaged."
    import torch

    from nbs_lib import export

    def interrupt(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, 'write_json', interrupt)
    path = tmp_path/'net.onnx'
    manifest_path(path).write_text('{"sha256": "of an older file"}')
    net = torch.nn.Conv2d(3, ROOM_LABELS.n_classes, 3, padding=1).eval()
    stats = [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]
    meta = dict(arch='conv', size=[SIZE, SIZE], labels=ROOM_LABELS.to_dict(), stats=stats)
    with pytest.raises(KeyboardInterrupt):
        export.write_onnx(net, meta, path)
    assert Predictor(path).size == (SIZE, SIZE)


def test_eight_bits_are_judged_on_what_was_held_out(tmp_path, monkeypatch):
    "Calibrated and judged on the images that the model remembers, whatever a new split would draw."
    from nbs_lib import export
    asked = []
    monkeypatch.setattr(export, 'write_int8', lambda path, data, train, valid: asked.append((train, valid)))
    _, model = rooms_and_model(tmp_path, 20, REMEMBERED)
    export.export_int8(model, find_pairs(tmp_path/'rooms'))
    train, valid = asked[0]
    assert list(valid) == [1, 4]
    assert not set(train) & set(valid)


# nothing of a mixed-precision training may leak into the file

def test_autocast_does_not_reach_the_export(tmp_path):
    "Left on by an interrupted training, it would write other numbers, or none."
    import torch

    from nbs_lib.export import write_onnx
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, ROOM_LABELS.n_classes, 3, padding=1).eval()
    stats = [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]
    meta = dict(arch='conv', size=[SIZE, SIZE], labels=ROOM_LABELS.to_dict(), stats=stats)
    write_onnx(net, meta, tmp_path/'calm.onnx')
    with torch.autocast('cpu', torch.bfloat16):
        manifest = write_onnx(net, meta, tmp_path/'leaked.onnx')
    assert (tmp_path/'leaked.onnx').read_bytes() == (tmp_path/'calm.onnx').read_bytes()
    assert manifest['parity'][0]['equal'] >= 0.999


# folders that are only for judging

def painted(folder, name, mask):
    "An image whose red channel is the mask, so that the echo model answers right."
    image = np.zeros((*mask.shape, 3), np.uint8)
    image[..., 0] = np.where(mask == 255, 0, mask)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder/f'{name}.png')


def judging_sets(folder):
    "Three data sets without anything to train on: {layout: (folder, label table)}."
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:SIZE//2] = 5
    names = ('0016E5_08159', '0016E5_08160')
    places = dict(
        camvid=('test', 'testannot'), voc=('JPEGImages', 'SegmentationClass'), nyuv2=('test/images', 'test/labels'))
    for layout, (images, masks) in places.items():
        for name in names:
            painted(folder/layout/images, name, mask)
            (folder/layout/masks).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder/layout/masks/f'{name}.png')
    lists = folder/'voc'/'ImageSets'/'Segmentation'
    lists.mkdir(parents=True)
    (lists/'val.txt').write_text('\n'.join(names))
    (folder/'nyuv2'/'classes.txt').write_text('\n'.join(ROOM_LABELS.codes))
    rooms = LabelSet(ROOM_LABELS.codes, ROOM_LABELS.colors, background=None)
    return dict(camvid=(folder/'camvid', CAMVID), voc=(folder/'voc', VOC), nyuv2=(folder/'nyuv2', rooms))


@pytest.mark.parametrize('given', ['auto', 'named'])
@pytest.mark.parametrize('layout', ['camvid', 'voc', 'nyuv2'])
def test_sets_only_for_judging_are_scored(layout, given, tmp_path):
    root, labels = judging_sets(tmp_path)[layout]
    model = echo_model(tmp_path/'echo.onnx', labels=json.dumps(labels.to_dict()))
    options = ['--layout', layout] if given == 'named' else []
    done = run_command('seg_eval', model, '--data', root, '--report', tmp_path/'r.json', *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path/'r.json').read_text())
    assert (report['data']['layout'], report['data']['pictures'], report['scores']['accuracy']) == (layout, 2, 1)


def test_nyuv2_under_any_name(tmp_path):
    "The folder with the images itself, not called train, is scored by its layout."
    root, labels = judging_sets(tmp_path)['nyuv2']
    (root/'test').rename(root/'other homes')
    model = echo_model(tmp_path/'echo.onnx', labels=json.dumps(labels.to_dict()))
    done = run_command('seg_eval', model, '--data', root/'other homes', '--layout', 'nyuv2')
    assert done.returncode == 0 and '2 images' in done.stdout, done.stdout + done.stderr


def test_the_resize_mode_that_is_asked_for_is_scored(tmp_path):
    "Window by window the echo sees every pixel; an image that is scaled down has lost some."
    mask = np.random.default_rng(0).integers(0, N, (96, 150), dtype=np.uint8)
    painted(tmp_path/'rooms'/'screenshots', '1', mask)
    (tmp_path/'rooms'/'labels').mkdir()
    Image.fromarray(mask).save(tmp_path/'rooms'/'labels'/'1.png')
    model, accuracy = echo_model(tmp_path/'echo.onnx'), {}
    for fit in ('stretch', 'sliding_window'):
        report = tmp_path/f'{fit}.json'
        seg_eval(model, tmp_path/'rooms', report, fit=fit)
        accuracy[fit] = json.loads(report.read_text())['scores']['accuracy']
    assert accuracy['sliding_window'] == 1
    assert accuracy['stretch'] < 0.9


# labels of other names

def test_mapping_from_a_file(tmp_path):
    "Two of the data's labels are one of the model's; what is not mapped is not scored, and said."
    data, model = rooms_and_model(tmp_path, 4, {})
    mapping = tmp_path/'my mapping.csv'
    mapping.write_text('data_label,model_label\nbuilding_wall,building_wall\nbuilding_floor,building_wall\n')
    done = run_command('seg_eval', model, '--data', data.root, '--mapping', mapping, '--report', tmp_path/'r.json')
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path/'r.json').read_text())
    masks = np.stack([data.read(i)[1] for i in range(4)])
    known = np.isin(masks, [ROOM_LABELS['building_wall'], ROOM_LABELS['building_floor']])
    assert np.sum(report['confusion']) == known.sum()
    assert (report['scored'], report['codes']) == (1, ['building_wall', '(other)'])
    assert 'not scored' in done.stdout and 'live_dog' in done.stdout
    assert report['how']['unmapped'] == [c for c in ROOM_LABELS.codes if c not in ('building_wall', 'building_floor')]


WRONG_MAPPINGS = {
    'another header': ('a,b\nx,y\n', 'data_label,model_label'),
    'three columns': ('data_label,model_label\na,b,c\n', 'line 2'),
    'an empty name': ('data_label,model_label\nbuilding_wall,\n', 'line 2'),
    'no rows': ('data_label,model_label\n', 'no rows'),
    'a label that the data lack': ('data_label,model_label\nbath,live_dog\n', "'bath'"),
    'a label that the model lacks': ('data_label,model_label\nlive_dog,live_cat\n', "'live_cat'"),
    'an answer of two classes': ('data_label,model_label\nlive_dog,live_dog\nitems_tv,live_dog\nitems_tv,items_tv\n',
                                 'two different classes'),
}


@pytest.mark.parametrize('text,word', WRONG_MAPPINGS.values(), ids=WRONG_MAPPINGS)
def test_wrong_mappings_are_refused(text, word, tmp_path):
    data, model = rooms_and_model(tmp_path, 2, {})
    (tmp_path/'m.csv').write_text(text)
    says(run_command('seg_eval', model, '--data', data.root, '--mapping', tmp_path/'m.csv'), 1, word)


def test_shipped_mapping(tmp_path):
    "By its name and by its older one, the same thirteen rows as before: twelve classes."
    assert find_mapping('nyuv2') == find_mapping('nyuv2_as_rooms')
    assert find_mapping('nyuv2')['lamp'] == {'furniture_floor_lamp', 'items_nightLamp'}
    assert len(find_mapping('nyuv2')) == 13 and len({frozenset(v) for v in find_mapping('nyuv2').values()}) == 12
    done = run_command('seg_eval', echo_model(tmp_path/'echo.onnx'), '--data', tmp_path, '--mapping', 'kitchens')
    says(done, 1, "no mapping 'kitchens'; take nyuv2")
