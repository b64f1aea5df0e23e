"""The graph of layers that a Keras file describes, as values.

Both spellings are read: Keras 2's lists (``["name", node, tensor, {}]``) and Keras 3's histories
(``keras_history``). `KneeAnalysisLib.kerasnet` makes a network of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from MedAILib.errors import InvalidWeights

GRAPHS = ("Functional", "Model")
INPUT = "InputLayer"


@dataclass(frozen=True, order=True)
class TensorId:
    """A tensor of the graph: what the call with that number of a layer answers."""

    layer: str
    node: int


@dataclass(frozen=True)
class LayerSpec:
    """A layer of the graph.

    Attributes
    ----------
    name, kind : str
    config : mapping
    calls : tuple of tuple of TensorId
        The tensors of each of its calls; an input has none.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    calls: tuple[tuple[TensorId, ...], ...]


@dataclass(frozen=True)
class GraphSpec:
    """The layers, the tensors that come in and those that go out."""

    layers: tuple[LayerSpec, ...]
    inputs: tuple[TensorId, ...]
    outputs: tuple[TensorId, ...]

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of the first input, without the batch; None for what is left open."""
        config = next(layer.config for layer in self.layers if layer.name == self.inputs[0].layer)
        shape = config.get("batch_input_shape") or config.get("batch_shape") or ()
        return tuple(shape[1:])


def read_graph(config: Mapping[str, Any]) -> GraphSpec:
    """The graph that a ``model_config`` describes; raises `InvalidWeights` where it is not understood."""
    kind, inner = config.get("class_name"), config["config"]
    try:
        if kind == "Sequential":
            return _sequential(inner)
        if kind in GRAPHS:
            layers = tuple(_layer(layer) for layer in inner["layers"])
            ends = [tuple(_tensors(inner[key])) for key in ("input_layers", "output_layers")]
            spec = GraphSpec(layers, ends[0], ends[1])
            _check(spec)
            return spec
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise graph_error(f"its description is not understood ({type(error).__name__}: {error})") from error
    raise graph_error(f"a model of the class '{kind}' has no graph of layers")


def _layer(entry: Mapping[str, Any]) -> LayerSpec:
    config = entry["config"]
    name = entry.get("name") or config["name"]
    calls = tuple(tuple(_tensors(node)) for node in entry.get("inbound_nodes") or ())
    return LayerSpec(name, entry["class_name"], config, calls or ((),))


def _tensors(value: Any) -> Iterator[TensorId]:
    """Every tensor that a piece of the description refers to, in order."""
    if isinstance(value, Mapping):
        is_tensor = value.get("class_name") == "__keras_tensor__"
        history = value["config"].get("keras_history") if is_tensor else None
        if history is not None:
            yield _tensor(*history)
        else:
            for item in (value.get("args", ()), value.get("kwargs", {})) if "args" in value else value.values():
                yield from _tensors(item)
    elif isinstance(value, list | tuple):
        if len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int):
            yield _tensor(*value[:3])
            for more in value[3:]:
                yield from _tensors(more)
        else:
            for item in value:
                yield from _tensors(item)


def _tensor(layer: str, node: int, index: int) -> TensorId:
    if index:
        raise graph_error(f"layer '{layer}' answers several tensors, which no layer known here does")
    return TensorId(layer, node)


def _sequential(config: Any) -> GraphSpec:
    entries = config["layers"] if isinstance(config, Mapping) else config
    first = entries[0]
    if first["class_name"] != INPUT:
        shape = first["config"].get("batch_input_shape") or first["config"].get("batch_shape")
        entries = [{"class_name": INPUT, "config": {"name": "input", "batch_input_shape": shape}}, *entries]
    layers: list[LayerSpec] = []
    for entry in entries:
        before = (TensorId(layers[-1].name, 0),) if layers else ()
        layers.append(LayerSpec(entry["config"]["name"], entry["class_name"], entry["config"], (before,)))
    return GraphSpec(tuple(layers), (TensorId(layers[0].name, 0),), (TensorId(layers[-1].name, 0),))


def _check(spec: GraphSpec) -> None:
    """Every tensor that is used must be there."""
    there = {TensorId(layer.name, node) for layer in spec.layers for node in range(len(layer.calls))}
    used = {tensor for layer in spec.layers for call in layer.calls for tensor in call}
    missing = sorted({*used, *spec.inputs, *spec.outputs} - there)
    if missing or len(spec.inputs) != 1 or not spec.outputs:
        problem = f"nothing computes the input of '{missing[0].layer}'" if missing else "it needs one input"
        raise graph_error(f"{problem}, so that its layers form no graph from one image to an answer")
    stated = {TensorId(layer.name, 0) for layer in spec.layers if layer.kind == INPUT}
    if stated != set(spec.inputs):
        raise graph_error(f"it has {len(stated)} inputs, one image is given")


def graph_error(why: str) -> InvalidWeights:
    """The error for a description that is not understood."""
    return InvalidWeights(
        "The network in the Keras file cannot be built.",
        why=f"{why[0].upper()}{why[1:]}.",
        todo="Use the file as its authors published it; if it is that, please report it.",
    )
