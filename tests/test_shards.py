"Pairs in shards: the same bytes however they are made, read by others, and learnt from as from files"

import json
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("panda3d")
pytest.importorskip("fsspec")

from generated import digest, object_store

from nbs_lib.core import SegError
from nbs_lib.datasets import split_pairs
from nbs_lib.labels import ROOM_LABELS
from nbs_lib.layouts import find_pairs
from nbs_lib.shards import Store, open_shards
from virtual_room import Plan, RoomConfig, generate
from virtual_room.generate import Change, generate_shards, seg_generate
from virtual_room.shards import Shards, shard_batches
from virtual_room.workers import ensure

PLAN = Plan(seed=5, size=48, images_per_room=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "Ten pairs as files"
    out = tmp_path_factory.mktemp("files")
    generate(10, out, PLAN)
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    "The same pairs as shards of four: 4, 4, 2"
    out = tmp_path_factory.mktemp("shards") / "a folder with spaces"
    generate_shards(10, out, PLAN, 4)
    return out


@pytest.fixture(scope="module")
def bucket():
    "The URL of an empty place on an S3-compatible server"
    with object_store() as url:
        yield url


def digest_at(url: str) -> dict[str, bytes]:
    "{name: bytes} of all files at a URL"
    store = Store(url)
    return {name: store.read(name) for name in store.sizes()}


class NoiseMaker:
    "Stands for a `PairMaker`: pairs of noise in no time"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        noise = np.random.default_rng(index)
        size = (self.plan.size, self.plan.size)
        return noise.integers(0, 256, (*size, 3), np.uint8), noise.integers(0, ROOM_LABELS.n_classes, size, np.uint8)

    def annotations(self) -> dict:
        return {}


# --- writing ------------------------------------------------------------------------------------------------------

def test_a_shard_holds_the_bytes_of_the_files(shards, folder):
    found = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    assert len(found) == 30
    for i in range(10):
        assert found[f"{i:06d}.image.png"] == (folder / "screenshots" / f"{i:06d}.png").read_bytes()
        assert found[f"{i:06d}.mask.png"] == (folder / "labels" / f"{i:06d}.png").read_bytes()
        assert json.loads(found[f"{i:06d}.json"]) == dict(room=i // 2)


def test_webdataset_reads_them(shards):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("image.png", "mask.png"))
    assert len(samples) == 10
    assert samples[0][0].size == (48, 48)


def test_the_manifest_comes_in_pieces(shards, folder):
    whole, files = (json.loads((out / "generation.json").read_text()) for out in (shards, folder))
    assert whole["complete"] and whole["count"] == 10 and whole["shards"] == 4
    assert whole["label_counts"] == files["label_counts"]
    assert "rooms" not in whole
    pieces = [json.loads(path.read_text()) for path in sorted(shards.glob("pairs-*.json"))]
    assert [piece["rooms"] for piece in pieces] == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4]]
    assert [piece["bytes"] for piece in pieces] == [path.stat().st_size for path in sorted(shards.glob("*.tar"))]


def test_parts_make_the_same_bytes(shards, tmp_path):
    assert not generate_shards(10, tmp_path, PLAN, 4, part="2/2")["complete"]
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["pairs-000001.tar", "pairs-000002.tar"]
    assert generate_shards(10, tmp_path, PLAN, 4, part="1/2")["complete"]
    assert digest(tmp_path) == digest(shards)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_disjoint_and_together_all(parts):
    made = [batch for i in range(1, parts + 1) for batch in shard_batches(21, 5, f"{i}/{parts}")]
    assert sum(made, []) == list(range(21))


def test_an_interrupted_run_goes_on_with_what_is_missing(shards, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(shards, out)
    (out / "pairs-000001.json").unlink()
    (out / "pairs-000002.tar").write_bytes(b"cut short")
    (out / ".pairs-000001-x1.tmp.tar").write_bytes(b"half")
    kept = (out / "pairs-000000.tar").stat().st_mtime_ns
    generate_shards(10, out, PLAN, 4)
    assert (out / "pairs-000000.tar").stat().st_mtime_ns == kept
    assert digest(out) == digest(shards)


def test_more_can_be_asked_for_and_fewer_change_nothing(shards, tmp_path):
    said = []
    generate_shards(6, tmp_path, PLAN, 4)
    generate_shards(10, tmp_path, PLAN, 4)
    assert digest(tmp_path) == digest(shards)
    assert generate_shards(2, tmp_path, PLAN, 4, say=said.append)["count"] == 10
    assert "10 pairs" in said[0] and "--shrink" in said[0]
    assert digest(tmp_path) == digest(shards)
    assert generate_shards(6, tmp_path, PLAN, 4, change=Change(shrink=True))["count"] == 6
    assert [len(shard) for shard in open_shards(tmp_path).shards] == [4, 2]


@pytest.mark.parametrize("call, says", [
    (lambda out: generate_shards(4, out, PLAN, 3), "a multiple of --images_per_room"),
    (lambda out: generate_shards(4, out, PLAN, 4, part="3/2"), "--part is '3/2'"),
    (lambda out: generate_shards(4, out, PLAN, 4, part="1/2", change=Change(overwrite=True)), "without it"),
    (lambda out: generate_shards(4, "nowhere://x", PLAN, 4), "no URL that can be opened"),
    (lambda out: generate_shards(4, out / "file" / "below", PLAN, 4), "cannot make"),
    (lambda out: open_shards(out), "there are no shards"),
])
def test_bad_settings_are_named(call, says, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegError, match=says):
        call(tmp_path)


def test_shards_of_other_settings_are_refused(shards, folder):
    with pytest.raises(SegError, match="another shards .4, now 2.*--out"):
        generate_shards(10, shards, PLAN, 2)
    with pytest.raises(SegError, match="another config .dog."):
        generate_shards(10, shards, Plan(seed=5, size=48, images_per_room=2, config=RoomConfig(dog=0)), 4)
    with pytest.raises(SegError, match="another shards"):
        generate(10, shards, PLAN)
    with pytest.raises(SegError, match="another shards"):
        generate_shards(10, folder, PLAN, 4)


def test_memory_does_not_grow_with_the_set(tmp_path):
    "One shard is 250 kB; ten times as many shards take no more than two of them"
    maker, peaks = NoiseMaker(Plan(size=128)), []
    for name, count in (("few", 12), ("many", 120)):
        target = Shards(Store(str(tmp_path / name)), 4)
        tracemalloc.start()
        for batch in shard_batches(count, 4):
            ensure(target, maker, batch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sum(path.stat().st_size for path in (tmp_path / "many").glob("*.tar")) > 7e6
    assert peaks[1] < peaks[0] + 5e5


def test_the_command_says_what_is_next(tmp_path, capsys):
    seg_generate(2, str(tmp_path), size=32, renderer="fast", workers=1, shards=2)
    assert f'seg_train --data "{tmp_path}"' in capsys.readouterr().out


# --- an object store ----------------------------------------------------------------------------------------------

def test_an_object_store_gets_the_same_bytes(shards, bucket):
    url = f"{bucket}/same"
    assert generate_shards(10, url, PLAN, 4)["complete"]
    assert digest_at(url) == digest_at(str(shards))
    store = Store(url)
    store.remove(["pairs-000001.json"])
    generate_shards(10, url, PLAN, 4)
    assert digest_at(url) == digest_at(str(shards))


def test_a_missing_bucket_is_one_sentence(bucket):
    with pytest.raises(SegError, match="s3://no-such-bucket/x cannot be used .*bucket.*credentials"):
        generate_shards(4, "s3://no-such-bucket/x", PLAN, 4)


# --- reading ------------------------------------------------------------------------------------------------------

def test_rooms_are_held_out_as_in_a_folder(shards, folder):
    data, files = open_shards(shards), find_pairs(folder)
    assert [(pair.name, pair.group) for pair in data.pairs] == [(pair.name, pair.group) for pair in files.pairs]
    for seed in range(3):
        assert split_pairs(data, seed=seed) == split_pairs(files, seed=seed)
    for i in (0, 5, 9):
        (image, mask), (image_file, mask_file) = data.read(i), files.read(i)
        assert image.tobytes() == image_file.tobytes() and (mask == mask_file).all()


def test_a_damaged_pair_is_named(tmp_path):
    target = Shards(Store(str(tmp_path)), 2)
    ensure(target, NoiseMaker(Plan(size=32)), [0, 1])
    Store(str(tmp_path)).write("generation.json", json.dumps(Plan().settings("x")).encode())
    tar = tmp_path / "pairs-000000.tar"
    content = bytearray(tar.read_bytes())
    content[600:700] = bytes(100)
    tar.write_bytes(content)
    with pytest.raises(SegError, match="image.png of pair 000000 in pairs-000000.tar is"):
        open_shards(tmp_path).read(0)


def test_a_streamed_training_scores_as_one_from_files(bucket, tmp_path, monkeypatch):
    "The same network, bit by bit: one window holds these shards"
    from nbs_lib.train import TrainSettings, train_model
    monkeypatch.setattr("nbs_lib.learner.bf16_gain", lambda device: 1.0)
    generate(24, tmp_path / "files", PLAN)
    generate_shards(24, f"{bucket}/train", PLAN, 8)
    sources = dict(files=find_pairs(tmp_path / "files"), stream=open_shards(f"{bucket}/train"))
    scores = {}
    for name, data in sources.items():
        settings = TrainSettings(size="32", epochs=1, arch="unet:tu-test_resnet", bs=4, out=str(tmp_path / name))
        learn, _ = train_model(data, settings, bar=False)
        scores[name] = learn.recorder.values[0]
    assert np.allclose(scores["files"], scores["stream"], rtol=1e-3)
