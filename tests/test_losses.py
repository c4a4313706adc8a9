"Batches without a labelled pixel, and losses against independent implementations."
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nbs_lib.core import SegError  # noqa: E402,F401  before fastai, whose import warns
from nbs_lib.labels import IGNORE  # noqa: E402
from nbs_lib.losses import LOSSES, seg_loss  # noqa: E402


@pytest.mark.parametrize("name", [*LOSSES, "cross_entropy+0.5*dice"])
def test_batch_without_a_labelled_pixel_is_loss_zero_with_a_gradient(name):
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss = seg_loss(name)(logits, torch.full((2, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_training_with_an_unlabelled_image_a_batch_goes_on(tmp_path, monkeypatch):
    from PIL import Image

    from nbs_lib.dataloaders import seg_dataloaders
    from nbs_lib.learner import fit, seg_learner
    from nbs_lib.tools.examples import example_rooms
    from nbs_lib.tools.report import check_dataset
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = example_rooms(tmp_path / "rooms", 5, size=64)
    for pair in data.pairs[::2]:
        Image.fromarray(np.full((64, 64), IGNORE, np.uint8)).save(pair.mask)
    assert not check_dataset(data.root).errors
    learn = seg_learner(seg_dataloaders(data, 64, 1), "unet:tu-resnet10t", bf16=False, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        fit(learn, 1, 1e-3)
    assert np.isfinite(learn.recorder.values[-1][0])
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_equal_the_library_at_the_size_of_a_batch(name):
    "With unlabeled pixels, rare and absent classes, on logits in either memory order."
    from segmentation_models_pytorch import losses as smp
    reference = {
        "cross_entropy": torch.nn.CrossEntropyLoss(ignore_index=IGNORE),
        "jaccard": smp.JaccardLoss("multiclass", ignore_index=IGNORE),
        "dice": smp.DiceLoss("multiclass", ignore_index=IGNORE),
        "lovasz": smp.LovaszLoss("multiclass", ignore_index=IGNORE),
        "tversky": smp.TverskyLoss("multiclass", ignore_index=IGNORE, alpha=0.3, beta=0.7)}
    if name not in reference:
        pytest.skip("the library has no such loss; the notebook compares with the formula")
    torch.manual_seed(0)
    target = torch.randint(0, 9, (4, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    target[:, :5], target[0, 20:22, 20:22] = IGNORE, 10
    logits = torch.randn(4, 12, 64, 64) * 3
    ours = LOSSES[name](present_only=False) if name in ("jaccard", "dice", "tversky") else LOSSES[name]()
    for order in (torch.contiguous_format, torch.channels_last):
        results = []
        for loss in (ours, reference[name]):
            x = logits.clone(memory_format=order).requires_grad_()
            value = loss(x, target)
            value.backward()
            results.append((value.detach(), x.grad * x.numel()))
        assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
        assert torch.allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


def test_unlabeled_pixels_have_no_part_in_a_weighted_loss():
    torch.manual_seed(0)
    logits, target, weights = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8)), torch.tensor([1., 5., 2., 1.])
    target[:, :3] = IGNORE
    expected = torch.nn.CrossEntropyLoss(weights, ignore_index=IGNORE)(logits, target)
    assert torch.allclose(seg_loss("cross_entropy", weights)(logits, target), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_taken_in_float32_under_autocast(name):
    torch.manual_seed(0)
    logits, target = (torch.randn(2, 6, 32, 32) * 4).bfloat16(), torch.randint(0, 6, (2, 32, 32))
    expected = seg_loss(name)(logits.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        got = seg_loss(name)(logits, target)
    assert got.dtype == torch.float32 and torch.allclose(got, expected, atol=1e-5)
