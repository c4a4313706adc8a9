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
