"""What `deploy/` hands to other systems, read by whatever can read it here.

Triton's own description of its configuration reads `config.pbtxt`. A container is not built and KServe is not run:
the tests look at what both would stumble over.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

DEPLOY = ROOT / "deploy"
OPTIONAL = {"logits"}  # outputs of the graph that Triton need not give


# --- the container ------------------------------------------------------------------------------------------------

def instructions() -> list[tuple[str, str]]:
    "(instruction, its words) of the Containerfile, continued lines joined."
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def words_of(name: str) -> list[str]:
    "What follows each instruction of this name."
    return [words for instruction, words in instructions() if instruction == name]


def test_the_container_copies_only_what_is_there_and_needed():
    copied = [shlex.split(words)[:-1] for words in words_of("COPY")]
    sources = [source for words in copied for source in words if not words[0].startswith("--from")]
    assert all((ROOT / source).exists() for source in sources), sources
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert {f"{source}*" for source in sources} >= set(packages["find"]["include"])
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(sources), "the build reads them"


def test_the_container_installs_extras_that_exist():
    found = re.search(r'"\.\[\$\{RUNTIME\},(\w+)\]"', " ".join(words_of("RUN")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert found[1] == "serve" and {"cpu", "gpu", "serve"} <= set(extras)
    assert "ARG RUNTIME=cpu" in (DEPLOY / "Containerfile").read_text(encoding="utf-8")


def test_the_container_runs_without_rights_and_holds_no_secret():
    names = [name for name, _ in instructions()]
    assert words_of("USER") == ["10001"] and names.index("USER") > max(i for i, n in enumerate(names) if n == "RUN")
    assert not [words for words in words_of("ENV") + words_of("ARG") if re.search("TOKEN|PASSWORD|SECRET", words)]
    entry = words_of("ENTRYPOINT")[0]
    assert entry.startswith('["seg_serve", "--host", "0.0.0.0"') and "token" not in entry.lower()
    assert "ADD" not in names, "nothing is fetched but the packages"


def test_the_container_asks_the_server_for_its_health():
    check = words_of("HEALTHCHECK")[0]
    assert "/health/ready" in check and f":{words_of('EXPOSE')[0]}/" in check
    program = re.search(r'"-c", "(.*)"\]', check)[1]
    compile(program, "HEALTHCHECK", "exec")


# --- KServe -------------------------------------------------------------------------------------------------------

@pytest.fixture
def service() -> dict:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((DEPLOY / "kserve.yaml").read_text(encoding="utf-8"))


def test_kserve_finds_its_fields(service):
    "Written by hand from the schema of `InferenceService`."
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert set(service) == {"apiVersion", "kind", "metadata", "spec"} and set(service["spec"]) == {"predictor"}
    assert re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"])
    predictor = service["spec"]["predictor"]
    assert set(predictor) == {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "containers", "volumes"}
    assert 0 <= predictor["minReplicas"] <= predictor["maxReplicas"]
    assert predictor["scaleMetric"] in ("concurrency", "rps", "cpu", "memory")
    (container,) = predictor["containers"]
    known = {"name", "image", "args", "env", "ports", "livenessProbe", "readinessProbe", "resources", "securityContext",
             "volumeMounts"}
    assert set(container) == known and container["name"] == "kserve-container"


def test_kserve_starts_the_server_with_options_that_it_has(service):
    pytest.importorskip("fastapi")
    from model_server.command import Options, seg_serve
    from nbs_lib.core import command_options, command_parser
    (container,) = service["spec"]["predictor"]["containers"]
    given = Options(**vars(command_parser(seg_serve, command_options(seg_serve)).parse_args(container["args"])))
    assert given.model == ("/mnt/models",) and given.port == container["ports"][0]["containerPort"]
    assert [entry["name"] for entry in container["env"]] == ["STORAGE_URI", "SEG_SERVE_TOKEN"]
    assert set(container["env"][1]) == {"name", "valueFrom"}, "a token is never written here"


def test_kserve_asks_paths_that_need_no_token(service):
    pytest.importorskip("fastapi")
    from model_server import v2
    (container,) = service["spec"]["predictor"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in v2.OPEN and asked["port"] == container["ports"][0]["containerPort"]


def test_kserve_takes_the_rights_away(service):
    predictor = service["spec"]["predictor"]
    (container,) = predictor["containers"]
    context = container["securityContext"]
    assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert str(context["runAsUser"]) in words_of("USER")
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"]: "/tmp" for volume in predictor["volumes"]}, "seg_serve writes there, only there"


# --- Triton -------------------------------------------------------------------------------------------------------

def triton_descriptions() -> ModuleType:
    """The module with Triton's description of its configuration.

    It lies beside Triton's gRPC client, which needs packages of its own; the description needs only protobuf.
    """
    pytest.importorskip("google.protobuf")
    client = pytest.importorskip("tritonclient")
    path = Path(client.__file__).parent / "grpc" / "model_config_pb2.py"
    found = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def config():
    module = triton_descriptions()
    from google.protobuf import text_format
    text = (DEPLOY / "triton" / "rooms" / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, module.ModelConfig())


def test_triton_reads_its_configuration(config):
    assert (config.name, config.backend) == ("rooms", "onnxruntime")
    assert (DEPLOY / "triton" / config.name).is_dir(), "Triton wants the folder to have the model's name"
    assert config.max_batch_size == 8 and config.dynamic_batching.max_queue_delay_microseconds == 5000


def test_triton_gives_the_tensors_of_the_file(config):
    "Names, types and shapes, the batch's dimension in front."
    onnx = pytest.importorskip("onnx")
    from nbs_lib.predict import read_model, starter_model
    data, _ = read_model(starter_model())
    graph = onnx.load_from_string(data).graph
    assert described(config.input) == of_graph(graph.input)
    outputs = of_graph(graph.output)
    assert described(config.output) == {name: tensor for name, tensor in outputs.items() if name not in OPTIONAL}


def described(tensors) -> dict[str, tuple]:
    "{name: (type, shape)} of Triton's tensors, -1 for any length."
    names = triton_descriptions().DataType.Name
    return {tensor.name: (names(tensor.data_type), (-1, *tensor.dims)) for tensor in tensors}


def of_graph(tensors) -> dict[str, tuple]:
    "The same of an ONNX graph's."
    from onnx import TensorProto
    names = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}
    found = {}
    for tensor in tensors:
        kind = tensor.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        found[tensor.name] = names[kind.elem_type], shape
    return found
