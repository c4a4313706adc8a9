"""An ONNX file that needs no training: its label is the image's red channel, its confidence the green one."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from nbs_lib.labels import ROOM_LABELS

SIZE = 64
N_CLASSES = ROOM_LABELS.n_classes
STATS = "[[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]"


def echo_graph(
    mask_name: str = "mask", image_type: int = TensorProto.UINT8, largest: int = N_CLASSES - 1
) -> onnx.GraphProto:
    "mask = red, at most `largest`; confidence = green. uint8 (n, h, w, 3) to two of uint8 (n, h, w)."
    def scalar(name: str, kind: int, value: int) -> onnx.TensorProto:
        return helper.make_tensor(name, kind, [], [value])

    def tensor(name: str, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, image_type, shape)

    nodes = [
        helper.make_node("Gather", ["picture", "zero"], ["red"], axis=3),
        helper.make_node("Min", ["red", "last"], [mask_name]),
        helper.make_node("Gather", ["picture", "one"], ["confidence"], axis=3),
    ]
    constants = [
        scalar("zero", TensorProto.INT64, 0),
        scalar("one", TensorProto.INT64, 1),
        scalar("last", image_type, largest),
    ]
    outputs = [tensor(mask_name, "n", "h", "w"), tensor("confidence", "n", "h", "w")]
    return helper.make_graph(nodes, "echo", [tensor("picture", "n", "h", "w", 3)], outputs, constants)


def echo_model(path: Path, graph: onnx.GraphProto | None = None, **props: str) -> Path:
    "Write the file; `props` overwrite what it says about itself."
    model = helper.make_model(graph or echo_graph(), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    labels = json.dumps(ROOM_LABELS.to_dict())
    said = dict(format="1", labels=labels, stats=STATS, size=f"[{SIZE}, {SIZE}]", arch="echo")
    helper.set_model_props(model, said | props)
    onnx.save(model, path)
    return path
