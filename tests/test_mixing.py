"""Several data sets in one training, a new last layer for other labels, and learning rates by depth."""
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nbs_lib.core import SegError
from nbs_lib.labels import IGNORE, ROOM_LABELS, LabelSet, write_labels
from nbs_lib.layouts import find_pairs
from nbs_lib.tools.examples import example_rooms

SETTINGS = dict(size="32", epochs=1, arch="unet:tu-test_resnet", precision="fp32", bs=4)
MAPPING = """data_label,model_label
wall,building_wall
floor,building_floor
doubleBed,furniture_doubleBed
rug,furniture_rug
"""


def example_photos(folder: Path, n: int, seed: int = 1):
    "Pairs whose labels have other names than those of the rooms, in another order; of the layout of NYUv2."
    rooms = example_rooms(folder / "drawn", n, seed=seed)
    names = [code.split("_")[-1] for code in ROOM_LABELS.codes[1:]]
    for part in ("images", "labels"):
        (folder / part).mkdir()
    (folder / "classes.txt").write_text("\n".join(names[::-1]), encoding="utf-8")
    from PIL import Image
    for i, pair in enumerate(rooms.pairs):
        mask = rooms.read(i)[1]
        os.replace(pair.image, folder / "images" / f"{i}.png")
        turned = np.where(mask == 0, IGNORE, len(names) - mask).astype(np.uint8)
        Image.fromarray(turned).save(folder / "labels" / f"{i}.png")
    return find_pairs(folder, "nyuv2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    "rooms: 10 pairs in 5 rooms; photos: 4 pairs with other labels; photos.csv, their mapping. Read only."
    root = tmp_path_factory.mktemp("mixed")
    example_rooms(root / "rooms", 10, images_per_room=2)
    example_photos(root / "photos", 4)
    (root / "photos.csv").write_text(MAPPING, encoding="utf-8")
    return root


def mixed(root: Path, weights: str = "1 4", mapping: str = "photos.csv"):
    "The rooms and the photos of `folders` as one data set."
    from nbs_lib.mixing import find_training_data
    return find_training_data([root / "rooms", root / "photos"], "auto", weights, [str(root / mapping)])


def test_photos_become_masks_of_the_rooms_labels(folders):
    data, photos = mixed(folders), find_pairs(folders / "photos")
    known = {"wall", "floor", "doubleBed", "rug"}
    for i in range(4):
        own, ours = photos.read(i)[1], data.read(10 + i)[1]
        names = np.array([*photos.labels.codes, *["void"] * 256])[own]
        ours_names = np.array([*ROOM_LABELS.codes, *["void"] * 256])[ours]
        assert (np.isin(names, list(known)) == (ours != IGNORE)).all()
        assert all(a.endswith(b) for a, b in zip(ours_names[ours != IGNORE], names[ours != IGNORE], strict=True))


def test_labels_with_equal_names_need_no_mapping_whatever_their_order(tmp_path):
    from nbs_lib.mixing import find_training_data
    example_rooms(tmp_path / "a", 4)
    example_rooms(tmp_path / "b", 4, seed=3)
    (tmp_path / "b" / "generation.json").unlink()
    before = find_pairs(tmp_path / "b").read(0)[1]
    names, colors = ROOM_LABELS.codes[1:][::-1], ROOM_LABELS.colors[1:][::-1]
    write_labels(LabelSet(("empty", *names), ((0, 0, 0), *colors)), tmp_path / "b" / "labels.csv")
    own = find_pairs(tmp_path / "b").read(0)[1]  # by the colors of its palette
    assert (own == np.where(before > 0, 24 - before, 0)).all()
    data = find_training_data([tmp_path / "a", tmp_path / "b"], "auto")
    assert (data.read(4)[1] == before).all()


def test_validation_is_that_of_the_first_data_set_alone(folders):
    from nbs_lib.datasets import held_out, same_pairs, split_pairs
    from nbs_lib.mixing import training_dataloaders
    data, rooms = mixed(folders), find_pairs(folders / "rooms")
    dls = training_dataloaders(data, 32, 4, cache=False)
    alone = training_dataloaders(rooms, 32, 4, cache=False)
    assert dls.split == alone.split
    assert held_out(rooms, dls.split) == split_pairs(rooms)[1]
    assert same_pairs(rooms, dls.split)  # so that `seg_eval --valid_only` knows them
    assert {pair.source for pair in dls.valid_ds.items} == {0}


def test_what_another_set_keeps_for_itself_is_not_trained_on(folders):
    from nbs_lib.mixing import Source, mask_reader, mix, training_dataloaders
    rooms, photos = find_pairs(folders / "rooms"), find_pairs(folders / "photos")
    pairs = tuple(replace(pair, split=split) for pair, split in zip(photos.pairs, ("train", "valid", "test", None)))
    sources = [Source(rooms, mask_reader(rooms, rooms.labels)),
               Source(replace(photos, pairs=pairs), mask_reader(photos, rooms.labels, folders / "photos.csv"))]
    trained = [data.image for data in mix(sources, rooms.labels).pairs if data.split == "train" and data.source == 1]
    assert trained == [pairs[0].image, pairs[3].image]
    dls = training_dataloaders(mix(sources, rooms.labels), 32, 4, cache=False, rare_sampling=0.5)
    assert {item.split for item in dls.train_ds.items} == {"train"}
    assert len(dls.train.sample_weights) == len(dls.train_ds)
    judged = tuple(replace(pair, split="test") for pair in photos.pairs)
    sources[1] = replace(sources[1], data=replace(photos, pairs=judged))
    with pytest.raises(SegError, match="only pairs to judge"):
        mix(sources, rooms.labels)


@pytest.mark.parametrize(("weights", "shares"), [("1 1", (2 / 3, 1 / 3)), ("1 4", (1 / 3, 2 / 3)), ("0 1", (0, 1))])
def test_images_are_shown_as_often_as_the_weights_say(folders, weights, shares):
    from nbs_lib.mixing import images_shown, training_dataloaders
    data = mixed(folders, weights)
    dls = training_dataloaders(data, 32, 4, cache=False)
    dls.train.epoch_size = 6
    shown = [dls.train_ds.items[i].source for _ in range(200) for i in dls.train.get_idxs()]
    assert np.allclose([shown.count(0) / 1200, shown.count(1) / 1200], shares, atol=0.05)
    assert np.allclose(images_shown(data, 6), np.array(shares) * 6)


def test_weights_and_rare_labels_go_together(folders):
    from nbs_lib.mixing import training_counts, training_dataloaders
    data = mixed(folders, "1 0")
    dls = training_dataloaders(data, 32, 4, cache=False, rare_sampling=1.0, counts=training_counts(data))
    weights = dls.train.sample_weights
    assert not weights[-4:].any() and len(set(weights[:-4].round(6))) > 1


def test_masks_of_all_sets_are_checked_first(folders, tmp_path):
    import shutil

    from PIL import Image

    from nbs_lib.mixing import training_counts
    for name in ("rooms", "photos"):
        shutil.copytree(folders / name, tmp_path / name)
    shutil.copy(folders / "photos.csv", tmp_path)
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(tmp_path / "photos" / "labels" / "2.png")
    with pytest.raises(SegError, match=r"photos.*2\.png: value 77"):
        training_counts(mixed(tmp_path))


def test_a_set_without_a_label_of_the_model_is_refused(folders, tmp_path):
    from nbs_lib.mixing import training_counts
    (tmp_path / "only.csv").write_text("data_label,model_label\nplate,items_plate\n", encoding="utf-8")
    with pytest.raises(SegError, match="no pixel of .*photos has a label of the model"):
        training_counts(mixed(folders, mapping=tmp_path / "only.csv"))


def test_what_does_not_fit_is_one_sentence(folders):
    from nbs_lib.mixing import find_training_data
    both = [folders / "rooms", folders / "photos"]
    mapping = [str(folders / "photos.csv")]
    for arguments, sentence in (
        (dict(), "photos has the labels dog, phone.*name its --mapping: nyuv2"),
        (dict(weights="1", mappings=mapping), "2 data sets and 1 weights"),
        (dict(weights="1 two", mappings=mapping), "'two' is no weight"),
        (dict(weights="0 0", mappings=mapping), "all data sets have weight 0"),
        (dict(mappings=mapping * 2), "given 2 times"),
        (dict(mappings=["nowhere"]), "no mapping 'nowhere'"),
        (dict(mappings=["nyuv2"]), "no label is called"),
    ):
        with pytest.raises(SegError, match=sentence):
            find_training_data(both, "auto", **arguments)
    with pytest.raises(SegError, match="for several data sets"):
        find_training_data(both[:1], "auto", mappings=mapping)
    with pytest.raises(SegError, match="held out in one data set"):
        find_training_data([both[0], both[0]], "auto")


def test_shards_are_refused_among_several(folders, tmp_path, monkeypatch):
    import nbs_lib.mixing as mixing
    from nbs_lib.shards import ShardData
    monkeypatch.setattr(mixing, "find_data", lambda folder, layout: ShardData(folder, "shards", ROOM_LABELS, ()))
    with pytest.raises(SegError, match="photos holds shards, which are streamed"):
        mixing.find_training_data([folders / "photos", folders / "rooms"], "auto")


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    "(folder, what the command said) of a model trained on both sets."
    out = tmp_path_factory.mktemp("models")
    return out, train(folders, out)


def options(settings: dict) -> list[str]:
    "Settings as words of a command line."
    words = []
    for name, value in settings.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def seg_train(*words: str) -> str:
    "What the command says, run in this process."
    import contextlib
    import io

    from nbs_lib.train import seg_train
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            seg_train.main([*words])
        except SystemExit as end:
            assert end.code in (1, 130)
    return said.getvalue()


def train(root: Path, out: Path, weights: str = "1 4", mapping: str = "photos.csv", **more) -> str:
    "What `seg_train` says with both sets."
    both = ["--data", str(root / "rooms"), "--data", str(root / "photos")]
    mixing = ["--data_weights", weights, "--mapping", str(root / mapping)]
    return seg_train(*both, *mixing, *options(SETTINGS | dict(out=out) | more))


NAME = "smp_unet_tu-test_resnet_32"


def test_the_command_trains_on_both_and_says_so(trained, folders):
    from nbs_lib.checkpoint import load_model
    out, said = trained
    lines = said.splitlines()
    assert lines[0].endswith("rooms: 8 images to train on, 2 to validate on; weight 1, so about 4 shown in an epoch")
    assert "photos: 4 images to train on, 0 to validate on; weight 4, so about 8 shown in an epoch" in said
    assert "; 19 of its 23 labels are void: dog, phone" in lines[1]
    meta = load_model(out / NAME)[1]
    assert tuple(meta["labels"]["codes"]) == ROOM_LABELS.codes
    assert [source["weight"] for source in meta["recipe"]["mixing"]] == [1, 4]
    assert meta["split"]["rule"] == "group"


def test_the_recipe_knows_all_sets(trained, folders, tmp_path):
    import shutil

    from nbs_lib.checkpoint import load_model
    from nbs_lib.train import TrainSettings, is_done, training_recipe
    out, _ = trained
    saved, settings = load_model(out / NAME)[1]["recipe"], TrainSettings(**SETTINGS, out=str(out))
    assert is_done(out / NAME, training_recipe(mixed(folders), settings))
    assert not is_done(out / NAME, training_recipe(mixed(folders, "1 3"), settings))
    assert not is_done(out / NAME, training_recipe(find_pairs(folders / "rooms"), settings))
    for name in ("rooms", "photos", "photos.csv"):
        copy = shutil.copytree if (folders / name).is_dir() else shutil.copy
        copy(folders / name, tmp_path / name)
    assert training_recipe(mixed(tmp_path), settings)["data"] == saved["data"]
    shutil.copy(tmp_path / "photos" / "labels" / "1.png", tmp_path / "photos" / "labels" / "3.png")
    assert training_recipe(mixed(tmp_path), settings)["data"] != saved["data"]


def test_an_interrupted_mixed_training_goes_on_with_the_same_mixture_only(folders, tmp_path):
    from nbs_lib.callbacks import Checkpoint
    from nbs_lib.checkpoint import load_model

    def stop_after_first(self, *args):
        save(self, *args)
        if self.learn.epoch == 0:
            raise KeyboardInterrupt

    save = Checkpoint.after_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "after_epoch", stop_after_first)
        assert "interrupted" in train(folders, tmp_path, epochs=2)
    assert (tmp_path / f"{NAME}.checkpoint").exists()
    said = train(folders, tmp_path, weights="1 2", epochs=2, resume=True)
    assert "the data sets are not the same, or are weighted or mapped otherwise" in said
    train(folders, tmp_path, epochs=2, resume=True)
    assert [row["epoch"] for row in load_model(tmp_path / NAME)[1]["history"]] == [0, 1]


def test_a_model_of_other_labels_is_refused_and_the_flag_is_named(trained, folders, tmp_path):
    weights = trained[0] / f"{NAME}.safetensors"
    said = seg_train("--data", str(folders / "photos"), *options(SETTINGS | dict(out=tmp_path, weights=weights)))
    assert "was trained for 24 labels that are not the 23 of these data" in said and "--new_head" in said


def head_of(path: Path) -> np.ndarray:
    "The rows of a saved model's last layer, (n_classes, ...)."
    from nbs_lib.checkpoint import load_weights
    return load_weights(path)[0]["segmentation_head.0.weight"].numpy()


def test_a_new_head_keeps_encoder_decoder_and_the_rows_of_known_labels(trained, folders, tmp_path):
    from nbs_lib.checkpoint import load_weights
    from nbs_lib.train import TrainSettings, prepare_training
    weights, photos = trained[0] / f"{NAME}.safetensors", find_pairs(folders / "photos")
    settings = TrainSettings(**SETTINGS, out=str(tmp_path), weights=str(weights), new_head=True,
                             head_mapping=str(folders / "photos.csv"))
    learn = prepare_training(photos, settings)
    state, old = learn.model.state_dict(), load_weights(weights)[0]
    different = {name for name in state if not np.array_equal(state[name].cpu(), old[name])}
    assert different == {"segmentation_head.0.weight", "segmentation_head.0.bias"}
    head, old_head = state["segmentation_head.0.weight"].cpu().numpy(), head_of(weights)
    assert len(head) == 23
    for name, room_name in (line.split(",") for line in MAPPING.split()[1:]):
        assert np.array_equal(head[photos.labels[name]], old_head[ROOM_LABELS[room_name]])
    assert not np.array_equal(head[photos.labels["plate"]], old_head[ROOM_LABELS["items_plate"]])


def test_a_new_head_is_trained_saved_resumed_and_loaded(trained, folders, tmp_path):
    from nbs_lib.checkpoint import load_model
    weights, photos = trained[0] / f"{NAME}.safetensors", find_pairs(folders / "photos")
    more = dict(out=tmp_path, weights=weights, new_head=True, head_mapping=folders / "photos.csv")
    said = seg_train("--data", str(folders / "photos"), *options(SETTINGS | more))
    assert f"new last layer for 23 labels; all else is from {weights.name}, also the rows of 4 labels: " in said
    meta = load_model(tmp_path / NAME)[1]
    assert tuple(meta["labels"]["codes"]) == photos.labels.codes
    assert len(meta["recipe"]["head_mapping"]) == 4
    said = seg_train("--data", str(folders / "photos"), *options(SETTINGS | dict(ladder="32:1 64:1") | more),
                     "--resume")  # the second size goes on from the first, whose labels are the same
    assert "was trained for" not in said and (tmp_path / "smp_unet_tu-test_resnet_64.json").exists()


FAMILIES = ["unet:tu-resnet10t", "narrow:resnet18", "resnet18", "fpn:resnet18", "linknet:resnet18"]


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_head_is_found_in_every_family(arch):
    from nbs_lib.checkpoint import head_tensors
    from nbs_lib.models import build_model
    model = build_model(arch, 5, 32)
    state, names = model.state_dict(), head_tensors(model, arch, 5, (32, 32))
    last = [name for name in state if not name.endswith("num_batches_tracked")]
    assert names == last[-len(names):]
    assert {len(state[name]) for name in names} == {5}


def test_older_models_are_done_still(folders):
    "Settings that were not there before are in no recipe where they are not used."
    from nbs_lib.train import TrainSettings, training_recipe
    recipe = training_recipe(find_pairs(folders / "rooms"), TrainSettings(**SETTINGS))
    assert not {"new_head", "head_mapping", "mixing"} & set(recipe)
    assert recipe["encoder_rate"] is None  # counts as missing


@pytest.mark.parametrize(("rate", "share"), [(None, 0.5), (0.1, 0.1), (1.0, 1)])
def test_the_encoder_learns_at_its_own_rate_with_own_weights(trained, folders, tmp_path, rate, share):
    from fastai.callback.core import Callback

    import nbs_lib.train as module
    from nbs_lib.train import TrainSettings, train_model

    class Rates(Callback):
        shares = []

        def before_step(self):
            rates = [group["lr"] for group in self.opt.hypers]
            self.shares.append(rates[0] / rates[-1])

    weights = str(trained[0] / f"{NAME}.safetensors")
    settings = TrainSettings(**SETTINGS, out=str(tmp_path), weights=weights, encoder_rate=rate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "training_callbacks", lambda settings: [Rates()])
        train_model(find_pairs(folders / "rooms"), settings, bar=False)
    assert Rates.shares and np.allclose(Rates.shares, share)


def test_rates_that_are_no_share_are_refused():
    from nbs_lib.train import TrainSettings, check_settings
    for rate in (0.0, -0.1, 1.5):
        with pytest.raises(SegError, match="no share"):
            check_settings(TrainSettings(encoder_rate=rate))


def test_one_image_by_heart_needs_one_data_set(folders):
    said = seg_train("--data", str(folders / "rooms"), "--data", str(folders / "photos"), "--mapping",
                     str(folders / "photos.csv"), "--overfit", "000001")
    assert "give one folder" in said
