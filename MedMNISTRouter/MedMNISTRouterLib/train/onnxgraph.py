"""The network as an ONNX graph, written node by node: no tracing, an open batch, one input, two outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from MedAILib.errors import MissingPackage
from MedMNISTRouterLib.modelfolder import ANSWERS, FEATURES
from MedMNISTRouterLib.train.layout import FEATURE_EPSILON, Block, Layout

OPSET = 17
"""Known to every ONNX Runtime since 1.12 (2022)."""
IR_VERSION = 8
INPUT = "image"
_IMAGE_AXES = [2, 3]


def onnx_graph(layout: Layout, weights: Mapping[str, np.ndarray], *, producer: str = "MedAI") -> bytes:
    """The file's bytes.

    Parameters
    ----------
    layout : Layout
    weights : mapping of str to ndarray
        As of `MedMNISTRouterLib.train.folded.folded`.
    producer : str

    Raises
    ------
    MissingPackage
        The package onnx is not installed.
    """
    onnx = _import_onnx()
    graph = _Graph(onnx, weights)
    maps = [graph.convolution(INPUT, "stem", layout.stem_stride)]
    if layout.has_pooling:
        maps = [graph.node("MaxPool", [maps[0]], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])]
    for stage in layout.stages:
        x = maps[-1]
        for block in stage:
            x = _block(graph, x, block)
        maps.append(x)
    means = [graph.node("ReduceMean", [x], axes=_IMAGE_AXES, keepdims=1) for x in maps]
    flat = [graph.node("Flatten", [mean], axis=1) for mean in means]
    head = [graph.weight("head.weight"), graph.weight("head.bias")]
    graph.node("Gemm", [flat[-1], *head], ANSWERS, transB=1)
    epsilon = graph.constant("epsilon", np.array(FEATURE_EPSILON, np.float32))
    roots = [graph.node("Sqrt", [graph.node("Add", [item, epsilon])]) for item in flat]
    for x, mean in zip(maps, means, strict=True):
        offset = graph.node("Sub", [x, mean])
        variance = graph.node("ReduceMean", [graph.node("Mul", [offset, offset])], axes=_IMAGE_AXES, keepdims=0)
        roots.append(graph.node("Sqrt", [graph.node("Sqrt", [graph.node("Add", [variance, epsilon])])]))
    graph.node("Concat", roots, FEATURES, axis=1)
    return graph.to_bytes(layout, producer)


class _Graph:
    """Nodes and constants so far."""

    def __init__(self, onnx: Any, weights: Mapping[str, np.ndarray]) -> None:
        self._onnx, self._weights = onnx, weights
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self._constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def convolution(self, x: str, name: str, stride: int, *, relu: bool = True) -> str:
        weight = self._weights[f"{name}.weight"]
        border = weight.shape[2] // 2
        made = self.node(
            "Conv",
            [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")],
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            pads=[border] * 4,
        )
        return self.node("Relu", [made]) if relu else made

    def to_bytes(self, layout: Layout, producer: str) -> bytes:
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        shape = ["batch", layout.channels, layout.size, layout.size]
        graph = helper.make_graph(
            self._nodes,
            "residual-classifier",
            [helper.make_tensor_value_info(INPUT, kind, shape)],
            [
                helper.make_tensor_value_info(ANSWERS, kind, ["batch", layout.outputs]),
                helper.make_tensor_value_info(FEATURES, kind, ["batch", layout.feature_count]),
            ],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=producer
        )
        self._onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def _block(graph: _Graph, x: str, block: Block) -> str:
    inner = graph.convolution(x, f"{block.name}.conv1", block.stride)
    inner = graph.convolution(inner, f"{block.name}.conv2", 1, relu=False)
    beside = graph.convolution(x, f"{block.name}.conv3", block.stride, relu=False) if block.has_projection else x
    return graph.node("Relu", [graph.node("Add", [inner, beside])])


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingPackage(
            "The trained network cannot be written as an ONNX file.",
            why="The package onnx is not installed.",
            todo="pip install 'slicer-medai[router-train]'",
        ) from error
    return onnx
