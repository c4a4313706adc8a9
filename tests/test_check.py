"""Label debugging on whole folders: every planted fault is found, nothing is invented, odd data sets are read and trained on by one call."""
import hashlib, json, shutil
from dataclasses import replace
from pathlib import Path

import numpy as np, pytest
from conftest import run_command
from PIL import Image, ImageEnhance

from nbs_lib.tools.report import check_dataset
from nbs_lib.core import SegError
from nbs_lib.layouts import find_pairs
from nbs_lib.datasets import split_pairs
from nbs_lib.tools.fix import seg_fix
from nbs_lib.labels import ROOM_LABELS

SHARED = Path(__file__).parent.parent.parent/'shared/data'
shared = pytest.mark.skipif(not SHARED.is_dir(), reason='the data sets beside the project are not here')


def array(f): return np.array(Image.open(f))
def save(a, f, **kwargs): Image.fromarray(a).save(f, **kwargs)
def rewrite(change): return lambda image, mask: save(change(array(mask)), mask)


def off_colour(m):
    rgb = ROOM_LABELS.palette[m]
    rgb[10:20, 10:20] = 250, 1, 2
    return rgb


def bad_value(m):
    m[5:9, 5:9] = 77
    return m


def half(m): return np.asarray(Image.fromarray(m).resize((m.shape[1]//2, m.shape[0]//2), Image.Resampling.NEAREST))
def scaled(m): return np.asarray(Image.fromarray(half(m)).resize(m.shape[::-1], Image.Resampling.BILINEAR))
def cut(f): f.write_bytes(f.read_bytes()[:300])


# fault: (what is done to picture and mask, kind of finding)
FAULTS = dict(
    no_mask=(lambda i, m: m.unlink(), 'missing partner'),
    no_picture=(lambda i, m: i.unlink(), 'missing partner'),
    suffix=(lambda i, m: m.rename(m.with_stem(m.stem + '_mask')), 'missing partner'),
    extension=(lambda i, m: m.rename(m.with_suffix('.npy')), 'missing partner'),
    other_size=(rewrite(half), 'sizes differ'),
    cut_picture=(lambda i, m: cut(i), 'unreadable'),
    cut_mask=(lambda i, m: cut(m), 'unreadable'),
    text=(lambda i, m: i.write_text('not a picture'), 'unreadable'),
    jpeg_named_png=(lambda i, m: Image.open(i).convert('RGB').save(i, format='JPEG'), 'file type'),
    bad_value=(rewrite(bad_value), 'unknown value'),
    bad_colour=(rewrite(off_colour), 'unknown value'),
    red_channel=(rewrite(lambda m: np.stack([m, m*0, m*0], 2)), 'other decoder'),
    spaced_greys=(rewrite(lambda m: m*11), 'other decoder'),
    zero_255=(rewrite(lambda m: ((m == m.max())*255).astype(np.uint8)), 'other decoder'),
    sixteen_bit=(rewrite(lambda m: m.astype(np.uint16)*257), 'other decoder'),
    instances=(rewrite(lambda m: m.astype(np.uint16)*1000 + (m > 3).astype(np.uint16)*7), 'other decoder'),
    jpeg_mask=(lambda i, m: save(array(m), m, format='JPEG', quality=90), 'invented values'),
    scaled_mask=(rewrite(scaled), 'invented values'),
    one_label=(rewrite(lambda m: m*0 + 2), 'one label'),
    shifted=(rewrite(lambda m: np.roll(m, m.shape[1]//8, 1)), 'shifted mask'),
    mirrored=(rewrite(lambda m: m[:, ::-1]), 'mirrored mask'),
    upside_down=(rewrite(lambda m: m[::-1]), 'mirrored mask'),
    black=(lambda i, m: save(array(i)*0, i), 'one colour'),
)
ALL = [*FAULTS, 'duplicate', 'near duplicate']


def plant(root: Path, n: int, faults=(), seed: int = 0) -> dict[str, tuple[str, str]]:
    "Plant `n` faults in a clean set, of these kinds or of all in turn; {stem: (fault, kind of finding)}."
    stems = sorted(p.stem for p in (root/'labels').iterdir() if p.suffix == '.png')
    faults = faults or ALL
    chosen = dict(zip(np.random.default_rng(seed).permutation(stems).tolist(), [faults[i % len(faults)] for i in range(n)]))
    planted = {}
    for stem, fault in chosen.items():
        if fault not in FAULTS: continue
        FAULTS[fault][0](root/f'screenshots/{stem}.png', root/f'labels/{stem}.png')
        planted[stem] = fault, FAULTS[fault][1]
    data = find_pairs(root, strict=False)  # the split is drawn over the pairs that are left
    train, valid = ([data.pairs[i] for i in side if data.pairs[i].name not in chosen] for side in split_pairs(data))
    for fault in (f for f in chosen.values() if f not in FAULTS):
        source, target = train.pop(), valid.pop()
        shutil.copy(source.mask, target.mask)
        if fault == 'duplicate': shutil.copy(source.image, target.image)
        else: ImageEnhance.Brightness(Image.open(source.image).convert('RGB')).enhance(1.05).save(target.image, format='PNG')
        planted[target.name] = fault, fault
    return planted


def judge(root: Path, n: int, faults=()) -> tuple[dict, dict, list]:
    "(planted, missed, invented) after planting `n` faults."
    planted = plant(root, n, faults)
    report = check_dataset(root)
    about = {}  # kinds said about each stem
    for f in report.findings:
        for o in f.files[:1]: about.setdefault(Path(o).stem.removesuffix('_mask'), set()).add(f.kind)
    missed = {s: (fault, kind, about.get(s)) for s, (fault, kind) in planted.items() if kind not in about.get(s, ())}
    return planted, missed, [f for f in report.findings if f.files and Path(f.files[0]).stem.removesuffix('_mask') not in planted]


@pytest.fixture(scope='session')
def clean(tmp_path_factory):
    pytest.importorskip('panda3d', reason='rooms cannot be drawn without panda3d')
    from virtual_room import Plan, generate
    out = tmp_path_factory.mktemp('clean')
    generate(60, out, Plan(size=128, seed=7), workers=1)
    return out


def test_nothing_is_invented(clean):
    report = check_dataset(clean)
    assert not report.errors and {f.kind for f in report.findings} <= {'rare label'}
    counts = sum(np.bincount(array(p.mask).ravel(), minlength=256) > 0 for p in report.data.pairs)
    assert {f.what.split()[0] for f in report.findings} == {c for c, n in zip(ROOM_LABELS.codes, counts) if n < 3}


def test_every_fault_is_found(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path/'faulty'))
    planted, missed, invented = judge(root, len(ALL))
    assert {fault for fault, _ in planted.values()} == set(ALL)
    assert not missed and not invented


def test_rooms_and_labels_over_the_whole_set(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path/'x'))
    (root/'generation.json').write_text(json.dumps(dict(rooms={p.stem: int(p.stem)//2 for p in (root/'labels').iterdir()})))
    (root/'labels.csv').write_text((root/'labels.csv').read_text() + 'items_piano,1,2,3\n')
    report = check_dataset(root, names=['000001', '000003'])
    assert [f for f in report.findings if f.kind == 'room on both sides'] and any('items_piano appears in none' in f.what for f in report.findings)
    assert not [f for f in check_dataset(root).findings if f.kind == 'room on both sides']


def test_exit_status_and_report(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path/'x'))
    Image.open(root/'screenshots/000001.png').convert('RGB').save(root/'screenshots/000001.png', format='JPEG')
    done = run_command('seg_check', root, '--report', tmp_path/'r')
    assert done.returncode == 0 and 'warning: file type' in done.stdout
    (root/'labels/000002.png').unlink()
    done = run_command('seg_check', root, '--report', tmp_path/'r')
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert json.loads((tmp_path/'r/report.json').read_text())['errors'] == 1 and 'data:image/jpeg;base64,' in (tmp_path/'r/report.html').read_text()


def test_mending_a_folder_and_taking_it_back(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path/'x'))
    plant(root, len(ALL))
    digest = lambda: {p.relative_to(root): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob('*') if p.is_file() and '.seg_fix' not in p.parts}
    before = digest()
    seg_fix(str(root))
    assert digest() == before
    seg_fix(str(root), apply=True, quarantine='errors')
    assert not check_dataset(root).errors and len(find_pairs(root)) > 45
    seg_fix(str(root), undo=True)
    assert digest() == before


ODD = dict(unity_solo=('solo', 'color', 5, ()), carla_red_channel=('plain', 'red', 13, ()), zero_255=('plain', 'value', 2, (0, 255)),
           spaced_greys=('plain', 'value', 5, (0, 64, 128, 191, 255)), tif_gif_names_differ=('plain', 'value', 2, (0, 255)))


@shared
@pytest.mark.parametrize('name', ODD)
def test_odd_masks_are_read_and_trained_on(name, tmp_path):
    torch = pytest.importorskip('torch')
    from nbs_lib.dataloaders import seg_dataloaders
    from nbs_lib.learner import fit
    from nbs_lib.learner import seg_learner, valid_matrix
    data = find_pairs(SHARED/'odd_masks'/name)
    assert (data.layout, data.decoder, data.labels.n_classes, data.labels.values) == ODD[name]
    if len(data) == 1: data = replace(data, pairs=data.pairs*2)  # one frame, to train on and to validate on
    data = replace(data, pairs=tuple(replace(p, group=None) for p in data.pairs))
    learn = seg_learner(seg_dataloaders(data, 64, 1), 'resnet18', False, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): fit(learn, 1, 1e-3)
    assert np.asarray(valid_matrix(learn)).shape == (data.labels.n_classes,)*2 and np.asarray(valid_matrix(learn)).sum() > 0
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


@shared
@pytest.mark.parametrize('name, layout, errors, warnings', [
    ('camvid', 'camvid', 0, {'room on both sides'}), ('facesynthetics', 'faces', 0, {'rare label'}), ('odd_masks/zero_255', 'plain', 0, set()),
    ('odd_masks/carla_red_channel', 'plain', 1, set()),  # one pair cannot be split
])
def test_findings_on_real_data_are_true(name, layout, errors, warnings):
    report = check_dataset(SHARED/name)
    assert (report.data.layout, len(report.errors), {f.kind for f in report.findings if f.severity == 'warning'}) == (layout, errors, warnings)


@shared
@pytest.mark.parametrize('name, says', [('rooms', '37 images but no masks'), ('bsds500', r'no masks; its \.mat files number regions'), ('odd_masks', 'holds carla_red_channel, spaced_greys')])
def test_folders_without_masks_say_so(name, says):
    with pytest.raises(SegError, match=says): find_pairs(SHARED/name)
