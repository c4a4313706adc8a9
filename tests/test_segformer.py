"""SegFormer from a free source: which files it is made of, where its weights come from, and all the ways it goes."""

import ast
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from nbs_lib.core import SegError
from nbs_lib.models import LicenseWarning, build_model, smp_package
from nbs_lib.tools.examples import example_rooms

transformers = pytest.importorskip("transformers", reason='needs pip install "segmentation-learner[segformer]"')
ARCH, NAME = "segformer:mit_b0", "segformer_mit_b0_32"

# --- which files are run ------------------------------------------------------------------------------------------

NOT_COMMERCIAL = re.compile(r"NVIDIA Source Code License|non-?commercial|\bCC[- ]BY[- ]NC\b", re.IGNORECASE)

# Files whose header has one of these words, that fastai and torchmetrics import by themselves, and why they may
KNOWN = {
    "timm/models/convnext.py": "the code is under the MIT license, only published weights are not free",
    "timm/models/gcvit.py": "the code is under the Apache license, only published weights are not free",
    "timm/models/convit.py": "Facebook's ConViT, imported with all of timm's networks; no network here is built of it",
    "torchmetrics/functional/text/eed.py": "a score of translations, imported with all of torchmetrics; not used here",
}

TRAIN_A_STEP = """
from nbs_lib.dataloaders import seg_dataloaders
from nbs_lib.learner import fit, seg_learner
from nbs_lib.layouts import find_pairs
learn = seg_learner(seg_dataloaders(find_pairs({data!r}), 32, 2, cache=False), {arch!r}, bf16=False)
with learn.no_bar(), learn.no_logging():
    fit(learn, 1, 1e-3)
say_files()
"""

BUILD = """
from nbs_lib.models import build_model
for arch in {archs!r}:
    build_model(arch, 3, 32)
    say_files()
"""

SAY_FILES = """
import json, sys
def say_files():
    files = [getattr(module, '__file__', None) for module in list(sys.modules.values())]
    print('FILES', json.dumps(sorted({file for file in files if file and file.endswith('.py')})))
"""


def imported_files(code: str) -> list[list[Path]]:
    "The source files of all modules that a fresh process has imported, each time that its code says them."
    done = subprocess.run([sys.executable, "-c", SAY_FILES + code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FILES ")]
    # modules that torch makes up name files that are not there
    return [[path for path in map(Path, files) if path.is_file()] for files in said]


def header(path: Path) -> str:
    "What a source file says before its first statement: comments and docstrings."
    text = path.read_text(encoding="utf-8", errors="replace")
    statements = [node for node in ast.parse(text).body if not is_text(node)]
    lines = text.splitlines()
    return "\n".join(lines[:statements[0].lineno - 1] if statements else lines)


def is_text(node: ast.stmt) -> bool:
    "Is this statement only a text, as a docstring is?"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def not_commercial(files: list[Path]) -> list[Path]:
    "The files whose header says that they, or something that belongs to them, are not for commercial use."
    suspects = [path for path in files if NOT_COMMERCIAL.search(path.read_text(encoding="utf-8", errors="replace"))]
    return [path for path in suspects if NOT_COMMERCIAL.search(header(path))]


def unknown(files: list[Path]) -> list[Path]:
    "Those that are not in `KNOWN`."
    return [path for path in files if not path.as_posix().endswith(tuple(KNOWN))]


def test_the_reader_of_headers_finds_the_file():
    "The tests below would pass as well if nothing was read."
    file = Path(smp_package().__file__).parent / "encoders/mix_transformer.py"
    assert not_commercial([file]) == [file] and unknown([file]) == [file]
    assert not_commercial([Path(__file__)]) == []


def test_segformer_is_built_and_trained_without_noncommercial_code(tmp_path):
    example_rooms(tmp_path, 6, 32)
    files, = imported_files(TRAIN_A_STEP.format(data=str(tmp_path), arch=ARCH))
    assert any(path.match("transformers/models/segformer/modeling_segformer.py") for path in files)
    assert not [path for path in files if "segmentation_models_pytorch" in path.parts]
    assert unknown(not_commercial(files)) == []


def test_other_networks_are_built_without_noncommercial_code():
    "One after another in one process: what the last one needs comes to what the others have imported."
    files = imported_files(BUILD.format(archs=["resnet18", "unet:resnet18", "deeplabv3plus:tu-resnet10t"]))
    with_smp = [any("segmentation_models_pytorch" in path.parts for path in imported) for imported in files]
    assert with_smp == [False, True, True]
    assert unknown(not_commercial(files[-1])) == []


def test_encoders_that_are_left_out_say_where_they_are():
    with pytest.raises(SegError, match="no encoder 'mit_b0'.*segformer:mit_b0"):
        build_model("unet:mit_b0", 3, 32)


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SegError, match=r'^SegFormer is built by .*segmentation-learner\[segformer\]"`$') as error:
        build_model(ARCH, 3, 32)
    assert len(str(error.value).splitlines()) == 1


# --- weights to begin with ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def donor():
    return build_model(ARCH, 5, 32)


def same_encoder(model, other) -> bool:
    pairs = zip(model.encoder.state_dict().values(), other.encoder.state_dict().values(), strict=True)
    return all((a == b).all() for a, b in pairs)


@pytest.mark.parametrize("kind", ["SegformerModel", "SegformerForImageClassification",
                                  "SegformerForSemanticSegmentation"])
def test_weights_from_a_folder(donor, tmp_path, kind):
    "Whatever network of `transformers` the folder holds, its encoder is taken; nothing is warned of."
    published = getattr(transformers, kind)(donor.encoder.config)
    encoder = getattr(published, "segformer", published)
    encoder.load_state_dict(donor.encoder.state_dict())
    published.save_pretrained(tmp_path / "mit")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LicenseWarning)
        model = build_model(ARCH, 24, 32, str(tmp_path / "mit"))
    assert same_encoder(model, donor)


def test_weights_from_a_folder_in_a_training(donor, tmp_path, capsys):
    from nbs_lib.train import seg_train

    donor.encoder.save_pretrained(tmp_path / "mit")
    example_rooms(tmp_path / "data", 6, 32)
    words = ["--data", tmp_path / "data", "--out", tmp_path, "--arch", ARCH, "--size", 32, "--epochs", 1, "--bs", 2]
    seg_train.main([*map(str, words), "--encoder_weights", str(tmp_path / "mit")])
    assert json.loads((tmp_path / f"{NAME}.json").read_text())["recipe"]["encoder_weights"] == str(tmp_path / "mit")


def test_weights_of_another_size_are_refused(donor, tmp_path):
    donor.encoder.save_pretrained(tmp_path)
    with pytest.raises(SegError, match=f"{re.escape(str(tmp_path))} is not of this encoder"):
        build_model("segformer:mit_b1", 5, 32, str(tmp_path))


def test_weights_that_lack_a_tensor_are_refused(donor, tmp_path):
    from safetensors.torch import load_file, save_file

    donor.encoder.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    state.pop(next(name for name in state if "layer_norm" in name))
    save_file(state, file, {"format": "pt"})
    with pytest.raises(SegError, match="lacks weights of a SegFormer encoder"):
        build_model(ARCH, 5, 32, str(tmp_path))


@pytest.mark.parametrize("asked", [True, "imagenet", "nvidia/mit-b0"])
def test_published_weights_warn_of_their_license(donor, monkeypatch, asked):
    "Fetching is played: there may be no network. What is asked for, and what is said, is not."
    names = []

    def fetched(name, **options):
        names.append(name)
        return donor.encoder, {"missing_keys": set()}

    monkeypatch.setattr(transformers.SegformerModel, "from_pretrained", fetched)
    with pytest.warns(LicenseWarning, match="nvidia/mit-b0 are under NVIDIA's license for non-commercial use"):
        model = build_model(ARCH, 5, 32, asked)
    assert names == ["nvidia/mit-b0"] and same_encoder(model, donor)


def test_random_weights_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", LicenseWarning)
        build_model(ARCH, 5, 32)


@pytest.mark.parametrize("name", ["./no_such_folder", "somebody/mit-b0"])
def test_weights_that_are_not_there(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SegError, match=f"{name}") as error:
        build_model(ARCH, 5, 32, name)
    assert len(str(error.value).splitlines()) == 1


# --- all the way --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    "A data set of drawn rooms, and the weights of a network trained on it for two epochs."
    from nbs_lib.train import seg_train

    folder = tmp_path_factory.mktemp("segformer")
    example_rooms(folder / "data", 12, 64)
    words = ["--data", folder / "data", "--out", folder, "--arch", ARCH, "--size", 32, "--epochs", 2, "--bs", 4]
    seg_train.main([str(word) for word in words])
    return folder / "data", folder / f"{NAME}.safetensors"


@pytest.mark.parametrize("encoder", [f"mit_b{i}" for i in range(6)])
def test_published_sizes(encoder):
    "Millions of weights with 150 labels, as the paper has them (Xie et al. 2021, table 1)."
    import torch

    published = dict(mit_b0=3.8, mit_b1=13.7, mit_b2=27.5, mit_b3=47.3, mit_b4=64.1, mit_b5=84.7)
    with torch.device("meta"):
        model = build_model(f"segformer:{encoder}", 150, 64)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert weights / 1e6 == pytest.approx(published[encoder], abs=0.15)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_logits_have_the_size_of_the_image(donor, size):
    import torch

    assert donor.eval()(torch.zeros(1, 3, *size)).shape == (1, 5, *size)


def test_weights_go_on_to_a_larger_size(trained, tmp_path):
    from nbs_lib.checkpoint import load_model
    from nbs_lib.train import seg_train

    data, weights = trained
    words = ["--data", data, "--out", tmp_path, "--arch", ARCH, "--size", 64, "--epochs", 1, "--bs", 4]
    seg_train.main([*map(str, words), "--weights", str(weights), "--lr", "1e-9"])
    small, _ = load_model(weights)
    large, meta = load_model(tmp_path / "segformer_mit_b0_64.safetensors")
    assert meta["size"] == [64, 64]
    for name, tensor in small.encoder.state_dict().items():
        np.testing.assert_allclose(large.encoder.state_dict()[name], tensor, atol=1e-4, err_msg=name)


def test_the_exported_file_is_served(trained, tmp_path):
    "ONNX, the predictor and the server give the labels of the network, at the image's own size; 8 bits nearly do."
    import torch
    from serving import app_client, encode

    from nbs_lib.checkpoint import load_model
    from nbs_lib.export import compare_models, export_onnx, quantize
    from nbs_lib.layouts import find_pairs
    from nbs_lib.predict import Predictor

    folder, weights = trained
    data, path = find_pairs(folder), export_onnx(weights, tmp_path)
    image = data.read(0)[0].resize((32, 32))
    model, meta = load_model(weights)
    mean, std = (np.array(values) for values in meta["stats"])
    pixels = (np.asarray(image) / 255 - mean) / std
    with torch.inference_mode():
        logits = model(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))
    answer = Predictor(path)(image)
    assert (answer.mask == logits[0].argmax(0).numpy()).mean() > 0.999
    assert Predictor(path)(data.read(0)[0]).mask.shape == (64, 64)
    with app_client(path) as client:
        sent = client.post("/v1/predict?format=json", content=encode(image))
        assert sent.status_code == 200, sent.text
    small = tmp_path / "small.onnx"
    quantize(path, [np.asarray(data.read(i)[0].resize((32, 32))) for i in range(4)], small)
    assert Predictor(small).meta["precision"] == "int8"
    assert compare_models(path, small, data, range(len(data)))["agreement"] > 0.9


def test_weights_of_an_older_version_are_refused(trained, tmp_path):
    "segmentation_models_pytorch's SegFormer has other tensors: said in one sentence, by what loads and by what exports"
    from safetensors.torch import load_file, save_file

    from nbs_lib.checkpoint import load_model, load_pretrained, sha256
    from nbs_lib.dataloaders import seg_dataloaders
    from nbs_lib.layouts import find_pairs
    from nbs_lib.learner import seg_learner

    folder, weights = trained
    old = {name.replace("stages", "block"): tensor for name, tensor in load_file(weights).items()}
    save_file(old, tmp_path / "old.safetensors")
    meta = json.loads(weights.with_suffix(".json").read_text()) | {"sha256": sha256(tmp_path / "old.safetensors")}
    (tmp_path / "old.json").write_text(json.dumps(meta))
    learn = seg_learner(seg_dataloaders(find_pairs(folder), 32, 2, cache=False), ARCH, bf16=False)
    for load in (load_model, lambda path: load_pretrained(learn, path)):
        with pytest.raises(SegError, match="old does not hold the weights of segformer:mit_b0 .* train it again"):
            load(tmp_path / "old")
