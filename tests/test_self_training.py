"Learning from photos without labels: what the teacher says, what is mixed, and what a training keeps and refuses."
import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from nbs_lib.core import SegError  # noqa: E402  before fastai, whose import warns

# isort: split
from fastai.callback.core import Callback  # noqa: E402
from forked import be_command, call_on_ranks  # noqa: E402
from PIL import Image  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from nbs_lib.callbacks import EMA  # noqa: E402
from nbs_lib.checkpoint import load_weights, photos_seen, save_model  # noqa: E402
from nbs_lib.dataloaders import seg_dataloaders  # noqa: E402
from nbs_lib.labels import IGNORE, ROOM_LABELS  # noqa: E402
from nbs_lib.learner import fit, seg_learner  # noqa: E402
from nbs_lib.masks import read_image  # noqa: E402
from nbs_lib.self_training import (  # noqa: E402
    PixelWeightedLoss,
    PseudoLabels,
    SelfTraining,
    batch_statistics,
    class_mix,
    load_photos,
    pseudo_labels,
    self_training_recipe,
    teacher_logits,
)
from nbs_lib.tools.examples import example_rooms  # noqa: E402
from nbs_lib.train import TrainSettings, check_settings, seg_train, train_model, training_recipe  # noqa: E402

ARCH, NAME = "unet:tu-test_resnet", "smp_unet_tu-test_resnet_32"  # the smallest network
N = ROOM_LABELS.n_classes


@pytest.fixture
def data(tmp_path, monkeypatch):
    "Twelve drawn rooms."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return example_rooms(tmp_path / "rooms", 12, size=32)


def swap_colors(path: Path, out: Path) -> None:
    "Write the image with red and blue exchanged."
    red, green, blue = read_image(path).split()
    Image.merge("RGB", (blue, green, red)).save(out)


@pytest.fixture
def photos(data, tmp_path) -> Path:
    "Eight images that look different from the rooms, without labels."
    folder = tmp_path / "photos"
    folder.mkdir()
    for pair in data.pairs[:8]:
        swap_colors(pair.image, folder / f"{pair.name}.png")
    return folder


def new_learner(data, seed=0):
    "An untrained network, in batches of four rooms."
    torch.manual_seed(seed)
    dls = seg_dataloaders(data, 32, 4, augment=False)
    dls.train.rng.seed(seed)
    return seg_learner(dls, ARCH, bf16=False)


def train(learn, epochs, cbs, lr=1e-2, **options):
    "`fit` without a word."
    with learn.no_bar(), learn.no_logging():
        return fit(learn, epochs, lr, cbs=cbs, **options)


# the teacher


def averaged(network) -> dict:
    "An average that differs from the network's own weights."
    state = network.state_dict()
    return {name: tensor*0.5 for name, tensor in state.items() if tensor.is_floating_point()}


def plain_teacher(network, average, images):
    "The same by hand: a copy of the network with the averaged weights, its batch-norm layers in training mode."
    copy = deepcopy(network).eval()
    copy.load_state_dict(average, strict=False)
    for layer in copy.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.train()
    with torch.no_grad():
        return copy(images)


def test_the_teacher_has_the_averaged_weights_and_the_photos_statistics(data):
    network, images = new_learner(data).model, torch.randn(4, 3, 32, 32)
    average = averaged(network)
    found = teacher_logits(network, average, images)
    torch.testing.assert_close(found, plain_teacher(network, average, images))


def test_asking_the_teacher_changes_nothing(data):
    "Neither the network and what its batch normalization has noted, nor the average; and no gradient reaches it."
    network = new_learner(data).model.train()
    average, before = averaged(network), deepcopy(network.state_dict())
    kept = {name: tensor.clone() for name, tensor in average.items()}
    found = teacher_logits(network, average, torch.randn(4, 3, 32, 32))
    assert not found.requires_grad
    assert all(layer.training for layer in network.modules())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(average, kept, rtol=0, atol=0)


def test_dropout_rests_while_batch_normalization_uses_the_batch():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(), torch.nn.BatchNorm2d(3).eval())
    with pytest.raises(KeyError), batch_statistics(network):
        assert [layer.training for layer in network] == [True, False, True]
        raise KeyError("an error in between")
    assert [layer.training for layer in network] == [True, True, False]


# pseudo labels


def test_quality_is_the_share_of_sure_pixels_of_each_photo():
    probability = torch.zeros(2, 3, 2, 2)
    probability[0, 1], probability[0, 0] = 0.95, 0.05
    probability[1] = torch.tensor([[[0.2, 0.91], [0.5, 0.9]], [[0.6, 0.09], [0.3, 0.1]], [[0.2, 0.0], [0.2, 0.0]]])
    found = pseudo_labels(probability.log(), confidence=0.9)
    assert found.labels.tolist() == [[[1, 1], [1, 1]], [[1, 0], [0, 0]]]
    assert found.quality.tolist() == [1.0, 0.25], "0.9 is not above 0.9"


# ClassMix


def mixed_batch(seed: int):
    "Four labelled images, what they are mixed with, and the result; a pixel's color says where it comes from."
    torch.manual_seed(seed)
    target = torch.randint(6, (4, 8, 8))
    target[:, 0] = IGNORE
    images, photos = torch.rand(4, 3, 8, 8), 2 + torch.rand(4, 3, 8, 8)
    pseudo = PseudoLabels(torch.randint(6, 10, (4, 8, 8)), torch.tensor([0.0, 0.25, 0.5, 0.75]))
    return images, target, photos, pseudo, class_mix(images, target, photos, pseudo, 10)


@pytest.mark.parametrize("seed", range(5))
def test_labels_go_with_their_pixels(seed):
    images, target, photos, pseudo, mixed = mixed_batch(seed)
    pasted = mixed.images[:, 0] < 2
    everywhere = pasted[:, None].expand_as(images)
    assert torch.equal(mixed.images[everywhere], images[everywhere])
    assert torch.equal(mixed.images[~everywhere], photos[~everywhere])
    assert torch.equal(mixed.target[pasted], target[pasted])
    assert torch.equal(mixed.target[~pasted], pseudo.labels[~pasted])
    quality = pseudo.quality[:, None, None].expand_as(pasted)
    assert torch.equal(mixed.weights, quality.where(~pasted, 1.0))
    assert not pasted[:, 0].any(), "unlabelled pixels stay where they are"


@pytest.mark.parametrize("seed", range(5))
def test_whole_classes_are_pasted_and_half_of_them(seed):
    _, target, _, _, mixed = mixed_batch(seed)
    for mask, image in zip(target, mixed.images):
        pasted = image[0] < 2
        chosen = set(mask[pasted].tolist())
        assert len(chosen) == 3
        assert not chosen & set(mask[~pasted].tolist()), "no class is cut in two"


def test_a_room_without_labels_adds_nothing():
    target = torch.full((1, 4, 4), IGNORE)
    pseudo = PseudoLabels(torch.zeros(1, 4, 4, dtype=torch.int64), torch.ones(1))
    photo = torch.rand(1, 3, 4, 4)
    assert torch.equal(class_mix(torch.rand(1, 3, 4, 4), target, photo, pseudo, 3).images, photo)


# the loss


def test_a_pixel_counts_as_its_weight_says():
    "By hand: unlabelled pixels left out, the classes weighted as in the loss of rooms."
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 3, 3), torch.randint(4, (2, 3, 3))
    target[0, 0] = IGNORE
    weights, classes = torch.rand(2, 3, 3), torch.tensor([1.0, 2.0, 0.5, 3.0])
    total = count = 0.0
    for i, row, column in (target != IGNORE).nonzero().tolist():
        label = target[i, row, column]
        loss = cross_entropy(logits[i, :, row, column], label)
        total += loss*classes[label]*weights[i, row, column]
        count += classes[label]
    torch.testing.assert_close(PixelWeightedLoss(classes)(logits, target, weights), total/count)


class NotedLosses(Callback):
    "Notes the loss of the mixed images, how sure the teacher was, and the length of the batches."
    order = 63  # after `SelfTraining`

    def before_fit(self):
        self.of_photos, self.predicted, self.seen = [], [], []

    def after_pred(self):
        if self.training:
            self.predicted.append(len(self.learn.pred))
            self.seen.append(len(self.learn.x))

    def after_loss(self):
        if self.training:
            self.of_photos.append((self.learn.loss_grad - self.learn.loss).item())


@pytest.fixture
def taught(data):
    "A network that has learnt the rooms a little."
    learn = new_learner(data)
    train(learn, 20, [EMA(0.9)])
    return learn


def test_the_loss_on_photos_falls(taught, photos):
    noted = NotedLosses()
    train(taught, 20, [EMA(0.9), SelfTraining(load_photos(photos, 32), confidence=0.5), noted], lr=3e-3)
    first, last = noted.of_photos[:8], noted.of_photos[-8:]
    assert sum(last) < 0.8*sum(first)


def test_metrics_and_loss_of_the_table_are_those_of_the_rooms(taught, photos):
    noted = NotedLosses()
    train(taught, 1, [EMA(0.9), SelfTraining(load_photos(photos, 32)), noted])
    assert set(noted.predicted) == {4} and set(noted.seen) == {8}


def test_the_teacher_follows_the_network_only(taught, photos):
    "After each step the average is the one that the formula of `EMA` gives."
    class Follow(Callback):
        order = 64

        def before_step(self):
            self.before = {name: tensor.clone() for name, tensor in self.learn.ema.average.items()}

        def after_step(self):
            ema = self.learn.ema
            for name, weight in ema.weights().items():
                expected = self.before[name].lerp(weight, 1 - ema.current_decay())
                torch.testing.assert_close(ema.average[name], expected)
                assert not ema.average[name].requires_grad

    train(taught, 1, [EMA(0.9), SelfTraining(load_photos(photos, 32)), Follow()])


def test_without_a_teacher_nothing_is_learnt(taught, photos):
    with pytest.raises(SegError, match="needs a teacher: averaged weights"):
        train(taught, 1, [SelfTraining(load_photos(photos, 32))])


# going on


class PowerCut(Callback):
    "Ends the training after its second epoch."
    order = 100

    def after_epoch(self):
        if self.epoch == 1:
            raise KeyboardInterrupt


def test_a_resumed_training_ends_like_one_left_alone(data, photos, tmp_path):
    "Weights, teacher and history, to the last digit."
    def learning():
        return [EMA(0.9), SelfTraining(load_photos(photos, 32), confidence=0.2)]

    file, recipe = tmp_path / "checkpoint", dict(size=32)
    whole = train(new_learner(data), 4, learning(), recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        train(new_learner(data), 4, [*learning(), PowerCut()], checkpoint=file, recipe=recipe)
    torch.manual_seed(99)
    resumed = train(new_learner(data, seed=1), 4, learning(), checkpoint=file, resume=True, recipe=recipe)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    assert [row[:-1] for row in resumed.recorder.values] == [row[:-1] for row in whole.recorder.values]


# photos


def test_a_damaged_photo_is_named_and_left_out(photos, capsys):
    "Also when its pixels are kept from before."
    first = sorted(photos.iterdir())[0]
    first.write_bytes(first.read_bytes()[:200])
    (photos / "notes.png").write_text("no image")
    (photos / "readme.txt").write_text("not looked at")
    for _ in range(2):
        assert load_photos(photos, 32).shape == (7, 32, 32, 4)
        assert f"2 of 9 photos cannot be read and are left out: {first.name}, notes.png" in capsys.readouterr().out


def test_photos_of_any_shape_and_kind_are_taken(photos):
    Image.new("L", (300, 20), 100).save(photos / "wide gray.jpg")
    Image.new("RGBA", (10, 90), (10, 20, 30, 40)).save(photos / "high.webp")
    assert load_photos(photos, (32, 64)).shape == (10, 32, 64, 4)


def test_only_damaged_photos_are_an_error(photos):
    for file in photos.iterdir():
        file.write_bytes(b"")
    with pytest.raises(SegError, match="none of the 8 images in .*photos can be read"):
        load_photos(photos, 32)


# settings


def settings(photos, out, **changes) -> TrainSettings:
    "A short training with photos."
    some = dict(unlabelled=str(photos), weights="model", size="32", arch=ARCH, bs=4, epochs=1, precision="fp32",
                out=str(out), confidence=0.2, ema_decay=0.9)
    return TrainSettings(**some | changes)


@pytest.mark.parametrize("changes, says", [
    (dict(weights=""), "--unlabelled needs --weights: .* one from scratch knows nothing"),
    (dict(ema_decay=0.0), "needs averaged weights"),
    (dict(confidence=1.0), "the confidence 1 is no probability"),
    (dict(confidence=-0.1), "the confidence -0.1 is no probability"),
    (dict(unlabelled_weight=0.0), "the weight 0 teach nothing"),
    (dict(bs=0), "give a --bs above 0"),
    (dict(unlabelled="nowhere"), "the folder nowhere does not exist"),
])
def test_what_cannot_work_is_refused_at_once(photos, tmp_path, changes, says):
    with pytest.raises(SegError, match=says):
        check_settings(settings(photos, tmp_path, **changes))


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(SegError, match="there are no images in .*; name a folder of photos"):
        check_settings(settings(tmp_path, tmp_path))


@pytest.fixture
def start(data, tmp_path) -> Path:
    "A saved model to start from."
    return save_model(new_learner(data), tmp_path / "start")


def test_fewer_photos_than_a_batch_are_refused(data, photos, start, tmp_path):
    for file in sorted(photos.iterdir())[3:]:
        file.unlink()
    with pytest.raises(SegError, match="3 photos that can be read, fewer than the 4 images of a batch"):
        train_model(data, settings(photos, tmp_path / "out", weights=str(start)), bar=False)


def test_the_photos_belong_to_the_recipe_by_their_content(data, photos, start, tmp_path):
    one = settings(photos, tmp_path, weights=str(start))
    recipe = training_recipe(data, one)
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    assert self_training_recipe(settings(moved, tmp_path)) == self_training_recipe(one)
    next(iter(moved.iterdir())).unlink()
    assert self_training_recipe(settings(moved, tmp_path))["unlabelled"] != recipe["unlabelled"]
    without = training_recipe(data, settings("", tmp_path, weights=str(start)))
    assert set(recipe) - set(without) == {"unlabelled", "confidence", "unlabelled_weight"}


# a model says what it has seen


def test_a_model_and_its_successors_say_that_they_have_seen_photos(data, photos, start, tmp_path):
    "Also the model of the best epoch; and the starter model is not made of such a one."
    from nbs_lib.tools.starter import check_free

    out = tmp_path / "out"
    train_model(data, settings(photos, out, weights=str(start), epochs=2), bar=False)
    for file in out.glob("*.json"):
        assert json.loads(file.read_text())["unlabelled_photos"] == 8, file.name
    after = tmp_path / "after"
    train_model(data, settings("", after, weights=str(out / f"{NAME}.safetensors")), bar=False)
    meta = load_weights(after / NAME)[1]
    assert photos_seen(meta) == 8 and "unlabelled" not in meta["recipe"]
    with pytest.raises(SegError, match="8 unlabelled photos, .* pack one of rendered rooms only"):
        check_free(meta)


def test_a_model_without_photos_says_nothing_of_them(start):
    meta = load_weights(start)[1]
    assert "unlabelled_photos" not in meta and photos_seen(meta) == 0
    assert photos_seen(meta | dict(adapted_to=100)) == 100, "from seg_adapt"


# the command


def arguments(data, photos, start, out) -> list[str]:
    "What `seg_train` is told."
    words = ["--data", data.root, "--out", out, "--size", 32, "--arch", ARCH, "--epochs", 1, "--bs", 4, "--weights",
             start, "--unlabelled", photos, "--confidence", 0.2, "--precision", "fp32"]
    return [str(word) for word in words]


def test_minutes_count_the_photos(data, photos, start, tmp_path, capsys):
    seg_train.main([*arguments(data, photos, start, tmp_path / "out"), "--minutes", "0.01"])
    said = capsys.readouterr().out
    assert "0.01 minutes: " in said and said.count("photos: the teacher was surer than 0.2 of ") == 1


@pytest.mark.slow
def test_two_processes_learn_from_photos(data, photos, start, tmp_path):
    "Each draws its own; the model is saved once, and says what it has seen."
    said = call_on_ranks(be_command, seg_train, arguments(data, photos, start, tmp_path / "out"))
    assert [sum("photos: the teacher" in line for line in lines) for lines in said] == [1, 0]
    assert photos_seen(load_weights(tmp_path / "out" / NAME)[1]) == 8


