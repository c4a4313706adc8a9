"Decoded pixels on disk: complete or absent, never out of date; where there is no room, a training goes on without."
import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

import nbs_lib.core  # noqa: E402,F401  before fastai, whose import warns

# isort: split
import torch  # noqa: E402
from fastai.data.block import DataBlock, TransformBlock  # noqa: E402
from fastai.data.transforms import IndexSplitter, IntToFloatTensor  # noqa: E402
from fastai.vision.augment import Resize, ResizeMethod  # noqa: E402
from torch.nn.functional import affine_grid, grid_sample  # noqa: E402

from nbs_lib.augment import Augment  # noqa: E402
from nbs_lib.dataloaders import OpenImage, OpenMask, SegDL, cached, seg_dataloaders  # noqa: E402
from nbs_lib.pixel_cache import decoded  # noqa: E402
from nbs_lib.tools.cache import seg_cache  # noqa: E402
from nbs_lib.tools.examples import example_rooms  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def value_image(i):
    return np.full((64, 64, 4), i, np.uint8)


def test_disk_space_is_taken_before_the_first_image_is_decoded(tmp_path):
    taken = []

    def decode(i):
        file = next(tmp_path.glob(".k-*"))
        taken.append(file.stat().st_blocks * 512)
        return value_image(i)

    decoded("k", 32, (64, 64), decode, tmp_path)
    assert min(taken) >= 32 * 64 * 64 * 4


def test_disk_space_is_taken_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    test_disk_space_is_taken_before_the_first_image_is_decoded(tmp_path)
    pixels = decoded("k", 32, (64, 64), value_image, tmp_path)
    assert pixels[31, 5, 5, 2] == 31


def test_full_disk_while_decoding_kills_nobody(tmp_path):
    "On a file system of 4 MB that another process fills meanwhile: before, writing to the sparse map was a bus error."
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces to mount a small file system")
    code = """
import sys
from pathlib import Path
import numpy as np
from nbs_lib.pixel_cache import decoded
folder = Path(sys.argv[1])
def fill():
    try:
        (folder/"other").write_bytes(bytes(4_000_000))
    except OSError:
        pass
def decode(i):
    fill()
    return np.full((64, 64, 4), i, np.uint8)
print(decoded("k", 100, (64, 64), decode, folder)[99, 0, 0, 0])
"""
    folder = tmp_path / "small"
    folder.mkdir()
    script = f"mount -t tmpfs -o size=4m none '{folder}' && exec '{sys.executable}' -c \"$CODE\" '{folder}'"
    environment = os.environ | {"CODE": code}
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["99"]), done.stderr


def test_no_space_left_trains_without_cache(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    said = []
    assert decoded("k", 3, (64, 64), value_image, tmp_path, said.append) is None
    assert len(said) == 1 and "No space left" in said[0] and "each epoch" in said[0]
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made_trains_without_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    dls = seg_dataloaders(example_rooms(tmp_path / "rooms", 4), 64, 2)
    x, y = dls.train.one_batch()
    assert (x.shape, y.shape) == ((2, 3, 64, 64), (2, 64, 64))


def test_clearing_leaves_what_another_process_writes(tmp_path, capsys):
    def decode(i):
        if i == 0:
            seg_cache(clear=True, folder=str(tmp_path))
        return value_image(i)

    assert decoded("k", 3, (64, 64), decode, tmp_path) is not None
    assert "0 decoded data sets" in capsys.readouterr().out


def test_other_item_transforms_are_other_pixels(tmp_path):
    data = example_rooms(tmp_path / "rooms", 4, size=96)
    first = []
    for method in (ResizeMethod.Squish, ResizeMethod.Crop):
        blocks = (TransformBlock(type_tfms=OpenImage(), batch_tfms=IntToFloatTensor()),
                  TransformBlock(type_tfms=OpenMask(data.labels, data.decoder), batch_tfms=IntToFloatTensor()))
        block = DataBlock(blocks, splitter=IndexSplitter([3]), item_tfms=Resize((64, 32), method=method))
        dls = block.dataloaders(data.pairs, bs=1, num_workers=0)
        dls.size = (64, 32)
        stock = dls.valid.one_batch()
        fast = cached(dls).valid.one_batch()
        assert torch.equal(stock[0], fast[0]) and torch.equal(stock[1], fast[1]), method
        first.append(fast[0])
    assert not torch.equal(*first)


def test_rare_labels_are_counted_in_the_images_that_are_trained_on(tmp_path):
    data = example_rooms(tmp_path / "rooms", 6, size=32)
    counts = np.zeros((6, 256), int)
    counts[:, 1], counts[5, 9] = 9, 1
    dls = seg_dataloaders(data, 32, 2, rare_sampling=1.0, counts=counts, names=[data.pairs[0].name])
    often = dls.train.sample_weights.argmax()
    assert dls.train_ds.items[often] == data.pairs[5]


def lengths_of_shares(shuffle):
    "How many of seven items each of two processes serves."
    loader = SegDL(list(range(7)), bs=2, shuffle=shuffle)
    lengths = []
    for rank in range(2):
        loader.share(rank, 2)
        lengths.append(len(loader.get_idxs()))
    return lengths


def test_processes_train_on_equally_many_images_and_judge_all():
    "One image more in one of them, and it would wait for the other's gradients for ever."
    assert lengths_of_shares(shuffle=True) == [3, 3]
    assert lengths_of_shares(shuffle=False) == [4, 3]


def test_a_zoom_never_looks_beyond_the_edge_of_the_image():
    "Zoomed in twice, half of the image is seen, so the center of what is seen is at most half way to the edge."
    augment = Augment(max_rotate=0, min_zoom=2, max_zoom=2, max_shift=1)
    centers = augment.random_matrices(500, 1, "cpu")[:, :, 2]
    assert 0.4 < centers.abs().max() <= 0.5


def test_images_with_rare_labels_come_more_often_and_the_same_after_a_resume(tmp_path):
    data = example_rooms(tmp_path / "rooms", 12, size=32)
    counts = np.zeros((12, 256), int)
    counts[:, 1], counts[:2, 9] = 9, 1
    dls = seg_dataloaders(data, 32, 2, rare_sampling=0.5, counts=counts, names=[p.name for p in data.pairs[8:]])
    train = dls.train
    train.rng.seed(4)
    first = [list(train.get_idxs()) for _ in range(3)]
    state = train.rng.getstate()
    later = [list(train.get_idxs()) for _ in range(3)]
    train.rng.setstate(state)
    assert later == [list(train.get_idxs()) for _ in range(3)]
    shown = np.bincount(np.concatenate(first), minlength=8)
    assert shown[:2].min() >= 3 * 2 and shown[2:].max() <= 3 and shown.sum() == 3 * 8
    train.rng.setstate(state)
    shares = []
    for rank in range(2):
        train.rng.setstate(state)
        train.share(rank, 2)
        shares.append(train.get_idxs())
    assert sorted(shares[0] + shares[1]) == sorted(later[0])


def random_factors(n, limit):
    "Random factors (n,) around 1, at most `limit` above or below."
    return 1 + (torch.rand(n) * 2 - 1) * limit


def reference_matrices(n, aspect):
    "What `Augment` draws: a rotation of up to 5°, a zoom of up to 1.15, a flip; matrices (n, 2, 3)."
    angle = (torch.rand(n) * 2 - 1) * 5 * np.pi / 180
    scale = 1 / (1 + torch.rand(n) * 0.15)
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    a, b, zero = angle.cos() * scale, angle.sin() * scale, torch.zeros(n)
    rows = [flip * a, -b * aspect, zero, flip * b / aspect, a, zero]
    return torch.stack(rows, 1).view(n, 2, 3)


def reference_sample(x, grid, mode):
    "Images (n, channels, h, w) read where the grid says; their mirror image surrounds them."
    return grid_sample(x, grid, mode=mode, padding_mode="reflection", align_corners=False)


def reference_lighting(x):
    "Images (n, 3, h, w) with a random saturation, contrast, brightness and white balance."
    n = len(x)
    saturation, contrast, brightness = (random_factors(n, limit).view(n, 1, 1, 1) for limit in (0.4, 0.2, 0.2))
    white = random_factors(3 * n, 0.05).view(n, 3, 1, 1)
    gray, mean = x.mean(1, keepdim=True), x.mean((1, 2, 3), keepdim=True)
    x = gray + (x - gray) * saturation
    return ((mean + (x - mean) * contrast) * brightness * white).clamp(0, 1)


def test_default_augmentation_is_what_it_was():
    "The same seed gives the same batch as the formulas written out once more, so that older trainings can be repeated."
    images, masks = torch.rand(5, 3, 32, 64), torch.randint(0, 24, (5, 32, 64))
    torch.manual_seed(3)
    got_images, got_masks = Augment()((images, masks), split_idx=0)
    torch.manual_seed(3)
    grid = affine_grid(reference_matrices(5, 32 / 64), (5, 3, 32, 64), align_corners=False)
    moved = reference_sample(images, grid, "bilinear")
    moved_masks = reference_sample(masks[:, None].float(), grid, "nearest")[:, 0]
    assert torch.allclose(got_images.as_subclass(torch.Tensor), reference_lighting(moved), atol=1e-5)
    assert (got_masks.as_subclass(torch.Tensor) == moved_masks).float().mean() > 0.999
