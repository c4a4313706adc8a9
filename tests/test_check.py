"""Label debugging on whole folders: every planted fault is found, nothing is invented, odd sets can be trained on."""
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, digest, run_command
from PIL import Image, ImageEnhance

from nbs_lib.check import debug_label, label_table, mask_check
from nbs_lib.core import SegError
from nbs_lib.datasets import split_pairs
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.layouts import find_pairs
from nbs_lib.tools.examples import example_rooms
from nbs_lib.tools.fix import seg_fix
from nbs_lib.tools.report import check_dataset

SHARED = Path(os.environ.get("SEG_SHARED_DATA", ROOT.parent / "shared/data"))
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets beside the project are not here")


def array(file):
    "The pixels of an image as it is stored."
    return np.array(Image.open(file))


def save(pixels, file, **options):
    "Write pixels to an image file."
    Image.fromarray(pixels).save(file, **options)


def rewrite(change):
    "A fault that changes the pixels of the mask."
    return lambda image, mask: save(change(array(mask)), mask)


def off_color(mask):
    "A painted mask with a color that no label has."
    rgb = ROOM_LABELS.palette[mask]
    rgb[10:20, 10:20] = 250, 1, 2
    return rgb


def bad_value(mask):
    "A mask with a value that no label has."
    mask[5:9, 5:9] = 77
    return mask


def half(mask):
    "A mask of half the size."
    return np.asarray(Image.fromarray(mask).resize((mask.shape[1] // 2, mask.shape[0] // 2), Image.Resampling.NEAREST))


def scaled(mask):
    "A mask scaled with interpolation."
    return np.asarray(Image.fromarray(half(mask)).resize(mask.shape[::-1], Image.Resampling.BILINEAR))


def cut(file):
    "Leave the first 300 bytes of a file."
    file.write_bytes(file.read_bytes()[:300])


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
    bad_colour=(rewrite(off_color), 'unknown value'),
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
    drawn = np.random.default_rng(seed).permutation(stems).tolist()
    chosen = {stem: faults[i % len(faults)] for i, stem in enumerate(drawn[:n])}
    planted = {}
    for stem, fault in chosen.items():
        if fault not in FAULTS:
            continue
        FAULTS[fault][0](root/f'screenshots/{stem}.png', root/f'labels/{stem}.png')
        planted[stem] = fault, FAULTS[fault][1]
    data = find_pairs(root, strict=False)  # the split is drawn over the pairs that are left
    train, valid = ([data.pairs[i] for i in side if data.pairs[i].name not in chosen] for side in split_pairs(data))
    for fault in (f for f in chosen.values() if f not in FAULTS):
        source, target = train.pop(), valid.pop()
        shutil.copy(source.mask, target.mask)
        if fault == 'duplicate':
            shutil.copy(source.image, target.image)
        else:
            image = Image.open(source.image).convert('RGB')
            ImageEnhance.Brightness(image).enhance(1.05).save(target.image, format='PNG')
        planted[target.name] = fault, fault
    return planted


def stem_of(finding) -> str:
    "The pair that a finding is about."
    return Path(finding.files[0]).stem.removesuffix('_mask')


def judge(root: Path, n: int, faults=()) -> tuple[dict, dict, list]:
    "(planted, missed, invented) after planting `n` faults."
    planted = plant(root, n, faults)
    findings = [finding for finding in check_dataset(root).findings if finding.files]
    said = {stem: {finding.kind for finding in findings if stem_of(finding) == stem} for stem in planted}
    missed = {stem: (fault, kind, said[stem]) for stem, (fault, kind) in planted.items() if kind not in said[stem]}
    return planted, missed, [finding for finding in findings if stem_of(finding) not in planted]


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
    rooms = {path.stem: int(path.stem)//2 for path in (root/'labels').iterdir()}
    (root/'generation.json').write_text(json.dumps({'rooms': rooms}))
    (root/'labels.csv').write_text((root/'labels.csv').read_text() + 'items_piano,1,2,3\n')
    report = check_dataset(root, names=['000001', '000003'])
    assert [f for f in report.findings if f.kind == 'room on both sides']
    assert [f for f in report.findings if 'items_piano appears in none' in f.what]
    assert not [f for f in check_dataset(root).findings if f.kind == 'room on both sides']


def test_exit_status_and_report(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path/'x'))
    Image.open(root/'screenshots/000001.png').convert('RGB').save(root/'screenshots/000001.png', format='JPEG')
    done = run_command('seg_check', root, '--report', tmp_path/'r')
    assert done.returncode == 0 and 'warning: file type' in done.stdout
    (root/'labels/000002.png').unlink()
    done = run_command('seg_check', root, '--report', tmp_path/'r')
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert json.loads((tmp_path/'r/report.json').read_text())['errors'] == 1
    assert 'data:image/jpeg;base64,' in (tmp_path/'r/report.html').read_text()


def test_mending_a_folder_and_taking_it_back(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path/'x'))
    plant(root, len(ALL))
    before = digest(root)
    seg_fix(str(root))
    assert digest(root) == before
    seg_fix(str(root), apply=True, quarantine='errors')
    assert not check_dataset(root).errors and len(find_pairs(root)) > 45
    seg_fix(str(root), undo=True)
    assert digest(root) == before


def test_a_row_inserted_in_the_table_is_found(tmp_path):
    "The masks were written with other numbers: a finding that makes a training fail; rows at the end are fine."
    data = example_rooms(tmp_path / "rooms")
    manifest, table = data.root / "generation.json", data.root / "labels.csv"
    written_with = {"labels": list(ROOM_LABELS.codes[1:])}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | written_with))
    table.write_text(table.read_text() + "items_piano,1,2,3\n")
    assert not check_dataset(data.root).errors
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines[:3], "building_window,9,9,9\n", *lines[3:]]))
    errors = check_dataset(data.root).errors
    assert len(errors) == 1 and "building_ceiling" in errors[0].what and "building_window" in errors[0].what
    done = run_command("seg_check", data.root)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("layout", ["rooms", "plain"])
def test_masks_that_are_all_void_are_said(layout, tmp_path):
    data = example_rooms(tmp_path / "rooms")
    for pair in data.pairs:
        save(np.full((64, 64), 255, np.uint8), pair.mask)
    if layout == "plain":
        (data.root / "labels.csv").unlink()
        (data.root / "screenshots").rename(data.root / "images")
        (data.root / "labels").rename(data.root / "masks")
    errors = check_dataset(data.root).errors
    assert len(errors) == 1 and "void" in errors[0].what


@pytest.mark.parametrize("name, change", [
    ("fractions", lambda mask: mask.astype(np.float32) / 3),
    ("not a number", lambda mask: np.where(mask > 2, np.nan, mask).astype(np.float32)),
    ("large numbers", lambda mask: mask.astype(np.int32) * 70_000 + 5),
])
def test_numbers_that_are_no_labels_are_said_plainly(name, change, tmp_path):
    "Float and 32-bit TIFF masks: one finding about this mask in words, whatever else is in the set."
    data = example_rooms(tmp_path / "rooms", n=4)
    bad = data.pairs[1].mask
    save(change(array(bad)), bad.with_suffix(".tif"))
    bad.unlink()
    errors = check_dataset(data.root).errors
    assert [(error.kind, error.files[0]) for error in errors] == [("unknown value", "labels/000001.tif")]
    assert "examined" not in errors[0].what and errors[0].what


def test_void_pixels_are_no_part_of_a_share():
    counts = np.zeros((1, 256), np.int64)
    counts[0, [1, 255]] = 30, 70
    assert label_table(counts, ROOM_LABELS)[-1] == ("building_wall", 30, 1.0, 1)


def test_the_images_with_most_of_a_label_are_shown_first(tmp_path):
    data = example_rooms(tmp_path, n=3)
    for pair, side in zip(data.pairs, (8, 24, 16)):
        save(np.zeros((side, side, 3), np.uint8), pair.image)
        save(np.full((side, side), ROOM_LABELS["live_dog"], np.uint8), pair.mask)
    counts, _ = mask_check(data)
    shown = debug_label(data, counts, "live_dog", n=2)
    assert [image.width for image in shown] == [24, 16]


# folder: (layout, decoder, number of labels, what stands in the files for them)
ODD = {
    'unity_solo': ('solo', 'color', 5, ()), 'carla_red_channel': ('plain', 'red', 13, ()),
    'zero_255': ('plain', 'value', 2, (0, 255)), 'spaced_greys': ('plain', 'value', 5, (0, 64, 128, 191, 255)),
    'tif_gif_names_differ': ('plain', 'value', 2, (0, 255)),
}


@shared
@pytest.mark.parametrize('name', ODD)
def test_odd_masks_are_read_and_trained_on(name, tmp_path):
    torch = pytest.importorskip('torch')
    from nbs_lib.dataloaders import seg_dataloaders
    from nbs_lib.learner import fit, seg_learner, valid_matrix
    data = find_pairs(SHARED/'odd_masks'/name)
    assert (data.layout, data.decoder, data.labels.n_classes, data.labels.values) == ODD[name]
    if len(data) == 1:
        data = replace(data, pairs=data.pairs*2)  # one frame, to train on and to validate on
    data = replace(data, pairs=tuple(replace(p, group=None) for p in data.pairs))
    learn = seg_learner(seg_dataloaders(data, 64, 1), 'resnet18', False, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        fit(learn, 1, 1e-3)
    matrix = np.asarray(valid_matrix(learn))
    assert matrix.shape == (data.labels.n_classes,)*2 and matrix.sum() > 0
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


@shared
@pytest.mark.parametrize('name, layout, errors, warnings', [
    ('camvid', 'camvid', 0, {'room on both sides'}), ('facesynthetics', 'faces', 0, {'rare label'}),
    ('odd_masks/zero_255', 'plain', 0, set()),
    ('odd_masks/carla_red_channel', 'plain', 1, set()),  # one pair cannot be split
])
def test_findings_on_real_data_are_true(name, layout, errors, warnings):
    report = check_dataset(SHARED/name)
    warned = {finding.kind for finding in report.findings if finding.severity == 'warning'}
    assert (report.data.layout, len(report.errors), warned) == (layout, errors, warnings)


@shared
@pytest.mark.parametrize('name, says', [
    ('rooms', '37 images but no masks'), ('bsds500', r'no masks; its \.mat files number regions'),
    ('odd_masks', 'holds carla_red_channel, spaced_greys'),
])
def test_folders_without_masks_say_so(name, says):
    with pytest.raises(SegError, match=says):
        find_pairs(SHARED/name)
