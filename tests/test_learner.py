"What a training keeps, refuses and shows: the smallest network on tiny rooms, or stand-ins for it."
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nbs_lib.core import SegError  # noqa: E402  before fastai, whose import warns

# isort: split
from fastai.callback.core import Callback, CancelFitException  # noqa: E402

from nbs_lib import callbacks, learner  # noqa: E402
from nbs_lib.callbacks import EMA, EarlyStopping, GradientClip  # noqa: E402
from nbs_lib.checkpoint import (  # noqa: E402
    data_recipe,
    load_model,
    load_pretrained,
    load_weights,
    recipe_differences,
    save_model,
)
from nbs_lib.dataloaders import seg_dataloaders  # noqa: E402
from nbs_lib.labels import IGNORE, ROOM_LABELS  # noqa: E402
from nbs_lib.learner import checkpointing, fit, seg_learner, valid_matrix  # noqa: E402
from nbs_lib.metrics import scores  # noqa: E402
from nbs_lib.tools.examples import example_rooms  # noqa: E402

ARCH = "unet:tu-resnet10t"
pytestmark = pytest.mark.slow  # it trains


@pytest.fixture
def data(tmp_path, monkeypatch):
    "Six drawn rooms: five to train on, one to validate on."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return example_rooms(tmp_path / "rooms", 6, size=32)


def new_learner(data, bf16=False, cbs=()):
    "A learner with an untrained network, in batches of two."
    torch.manual_seed(0)
    return seg_learner(seg_dataloaders(data, 32, 2), ARCH, bf16=bf16, cbs=cbs)


def train(learn, epochs, **options):
    "`fit` without a word, at a learning rate that changes much."
    with learn.no_bar(), learn.no_logging():
        fit(learn, epochs, 1e-2, **options)


# callbacks


def test_a_long_gradient_is_shortened():
    network = torch.nn.Linear(3, 1)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 10.0)
    clip = GradientClip(max_norm=1.0)
    clip.learn = SimpleNamespace(model=network)
    clip.before_step()
    gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    assert gradient.norm().item() == pytest.approx(1)
    assert clip.gradient_norm.item() == pytest.approx(20), "its length before"


class SpoilBatch(Callback):
    "Takes the numbers out of the second batch, and notes which images it is of."

    def before_batch(self):
        if self.training and self.iter == 1:
            self.learn.xb = (self.x * float("nan"),)
            self.names = [self.dls.train_ds.items[i].name for i in self.dl.batch]


def test_a_loss_that_is_no_number_stops_the_training_and_names_its_images(data):
    spoil = SpoilBatch()
    with pytest.raises(SegError, match="not a number any more: epoch 0, batch 1") as stopped:
        train(new_learner(data, cbs=[spoil]), 1)
    assert len(spoil.names) == 2
    assert f"(images {', '.join(spoil.names)})" in str(stopped.value)


def is_stopped(dice, monkeypatch):
    "Does a patience of two epochs end after epochs with these scores?"
    monkeypatch.setattr(callbacks, "dice_history", lambda learn: dict(enumerate(dice)))
    stopping = EarlyStopping(patience=2)
    stopping.learn = SimpleNamespace()
    try:
        stopping.before_train()
    except CancelFitException:
        return True
    return False


def test_early_stopping_waits_exactly_as_many_epochs_as_it_says(monkeypatch):
    assert not is_stopped([], monkeypatch)
    assert not is_stopped([0.1, 0.3, 0.2], monkeypatch)
    assert is_stopped([0.1, 0.3, 0.2, 0.25], monkeypatch)
    assert not is_stopped([0.1, 0.3, 0.2, 0.4], monkeypatch)


def test_a_second_training_averages_its_own_weights_only(data):
    ema = EMA()
    train(new_learner(data, cbs=[ema]), 1)
    ema.before_fit()
    for name, weight in ema.weights().items():
        assert torch.equal(ema.average[name], weight), name


def test_the_best_model_is_kept_with_the_weights_that_were_judged(data, tmp_path):
    "The averaged ones."
    learn = new_learner(data)
    train(learn, 2, checkpoint=tmp_path / "last", best=tmp_path / "best", cbs=[EMA()])
    judged = load_weights(tmp_path / "best")[1]["dice"]
    load_pretrained(learn, tmp_path / "best")
    assert scores(valid_matrix(learn))["dice"] == pytest.approx(judged, abs=1e-6)


@pytest.mark.parametrize("began, measured", [(False, True), (True, False)])
def test_a_training_goes_on_in_the_precision_that_it_began_in(began, measured, data, tmp_path):
    "Whatever a new measurement says is faster."
    path, recipe = tmp_path / "last", {"epochs": 1}
    learn = new_learner(data, bf16=began)
    first, _ = checkpointing(learn, path, recipe)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3, cbs=first)
    later = new_learner(data, bf16=measured)
    checkpointing(later, path, recipe, resume=True)
    assert hasattr(later, "autocast") == began


def test_the_gain_of_bfloat16_is_measured_once():
    "Two measurements are never equal to the last digit."
    assert learner.bf16_gain() == learner.bf16_gain()


@pytest.mark.parametrize("slow, steps", [(10.0, 4), (1.5, 14)])
def test_the_gain_of_bfloat16_is_measured_for_long_only_where_there_may_be_one(slow, steps, monkeypatch):
    "Without instructions for it a step takes so long that a few whole measurements would take a minute."
    measured = []

    def seconds(net, images, bf16, clock):
        measured.append(bf16)
        return slow if bf16 else 1.0

    monkeypatch.setattr(learner, "_convolution_seconds", seconds)
    assert learner.bf16_gain.__wrapped__("cpu") == pytest.approx(1/slow)
    assert len(measured) == steps


# saved models


def test_weights_of_another_architecture_are_refused_in_words(data, tmp_path):
    learn = new_learner(data)
    saved = save_model(learn, tmp_path / "net")
    learn.arch = "resnet34"
    with pytest.raises(SegError, match=f"is a {ARCH}, the learner a resnet34; use the same architecture"):
        load_pretrained(learn, saved)


def test_a_saved_model_of_a_later_format_is_refused(data, tmp_path):
    saved = save_model(new_learner(data), tmp_path / "net")
    description = saved.with_suffix(".json")
    description.write_text(json.dumps(json.loads(description.read_text()) | {"format": 2}))
    with pytest.raises(SegError, match="net.json has format 2, this version reads format 1"):
        load_model(saved)


def test_other_images_held_out_are_another_training(data):
    pairs = data.pairs
    first, second = data_recipe(data.labels, pairs[1:], pairs[:1]), data_recipe(data.labels, pairs[:5], pairs[5:])
    assert recipe_differences(first, second) == "other images are held out"


# what is shown


def shown_worst(target, predicted, monkeypatch):
    "uint8 (height, width, 3): `worst_results` with one row, for uint8 masks (n, 16, 16)."
    black = np.zeros((*target.shape, 3), np.uint8)
    monkeypatch.setattr(learner, "valid_batches", lambda learn: [(black, predicted, target)])
    learn = SimpleNamespace(dls=SimpleNamespace(labels=ROOM_LABELS))
    return np.asarray(learner.worst_results(learn, n=1, height=16))


def count_red(image):
    "How many pixels are of the color of wrong ones."
    return int((image == (220, 0, 0)).all(-1).sum())


def test_the_worst_image_is_shown_and_not_the_best(monkeypatch):
    target = np.full((3, 16, 16), 1, np.uint8)
    predicted = target.copy()
    predicted[1] = 2
    assert count_red(shown_worst(target, predicted, monkeypatch)) == 16 * 16


def test_an_unlabeled_pixel_is_not_shown_as_wrong(monkeypatch):
    target = np.full((1, 16, 16), IGNORE, np.uint8)
    target[:, :4] = 1
    predicted = np.full((1, 16, 16), 2, np.uint8)
    assert count_red(shown_worst(target, predicted, monkeypatch)) == 4 * 16
