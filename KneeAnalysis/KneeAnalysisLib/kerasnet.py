"""A Keras file as a network of torch, built from the file's own graph of layers.

No network is known beforehand: whatever the file's ``model_config`` says is built, layer by layer, or
refused by the name of the first layer that is not understood. This module loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from KneeAnalysisLib.kerasfile import KerasFile, read_keras_file
from KneeAnalysisLib.kerasgraph import INPUT, GraphSpec, TensorId, graph_error, read_graph
from KneeAnalysisLib.keraslayers import LayerSource, build_layer
from MedAILib.errors import InvalidWeights


def read_network(path: Path) -> KerasNet:
    """Build the network of a file.

    Raises
    ------
    FileMissing, UnreadableFile
    InvalidWeights
        The file is damaged or unsafe, a layer is not known here, or weights and layers do not match.
    MissingPackage
        h5py is not installed.
    """
    return build_network(read_keras_file(path))


def build_network(file: KerasFile) -> KerasNet:
    """The network of a file that was read; every weight in it is used, or `InvalidWeights` is raised."""
    spec = read_graph(file.config)
    known = {layer.name for layer in spec.layers}
    strange = [name for name in file.weights if name not in known]
    if strange:
        raise graph_error(f"it holds weights of layers that its network does not have: {', '.join(strange[:5])}")
    layers = {
        layer.name: build_layer(LayerSource(layer.name, layer.kind, layer.config, file.weights.get(layer.name, {})))
        for layer in spec.layers
        if layer.kind != INPUT
    }
    return KerasNet(spec, layers)


class KerasNet(nn.Module):
    """Runs the calls of a graph in order and lets go of every tensor after its last use.

    Input and outputs have the axes of the file: (batch, channels, rows, columns) for ``channels_first``.

    Parameters
    ----------
    spec : GraphSpec
    layers : mapping of str to Module
        Every layer but the inputs.
    outputs : tuple of TensorId, optional
        The tensors to answer, default all outputs; what only the others need is not computed.
    """

    def __init__(
        self, spec: GraphSpec, layers: Mapping[str, nn.Module], outputs: tuple[TensorId, ...] | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.outputs = spec.outputs if outputs is None else outputs
        self._by_name = dict(layers)
        self._calls = _ordered_calls(spec, self.outputs)
        self._last_use = _last_uses(self._calls, self.outputs)
        self.layers = nn.ModuleList(layers.values())
        self.eval()

    def only(self, output: int) -> KerasNet:
        """The same layers, computing one of the outputs alone."""
        return KerasNet(self.spec, self._by_name, (self.outputs[output],))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        tensors = {self.spec.inputs[0]: x}
        for number, (tensor, inputs) in enumerate(self._calls):
            tensors[tensor] = self._by_name[tensor.layer](*(tensors[name] for name in inputs))
            for name in self._last_use.get(number, ()):
                del tensors[name]
        return tuple(tensors[name] for name in self.outputs)

    def output_shapes(self, input_shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Shapes of the outputs for an input of that shape (batch included), without computing them.

        Raises
        ------
        InvalidWeights
            The layers do not fit each other for such an input.
        """
        there = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in there.items()}
        try:
            found = torch.func.functional_call(self, empty, (torch.empty(input_shape, device="meta"),))
        except (RuntimeError, IndexError) as error:
            raise InvalidWeights(
                f"The layers of the network do not fit each other for an input of shape {input_shape[1:]}.",
                why=f"{str(error).splitlines()[0]}.",
                todo="Use the file as its authors published it.",
            ) from error
        return tuple(tuple(tensor.shape) for tensor in found)


def _ordered_calls(spec: GraphSpec, outputs: tuple[TensorId, ...]) -> list[tuple[TensorId, tuple[TensorId, ...]]]:
    """The calls that the outputs need, each after those it needs itself."""
    inputs_of = {TensorId(layer.name, node): call for layer in spec.layers for node, call in enumerate(layer.calls)}
    sources = {TensorId(layer.name, 0) for layer in spec.layers if layer.kind == INPUT}
    calls: list[tuple[TensorId, tuple[TensorId, ...]]] = []
    done, under_way = set(sources), set()
    waiting = list(reversed(outputs))
    while waiting:
        tensor = waiting[-1]
        needed = [name for name in inputs_of[tensor] if name not in done]
        if tensor in done or not needed:
            waiting.pop()
            if tensor not in done:
                done.add(tensor)
                calls.append((tensor, inputs_of[tensor]))
        elif tensor in under_way:
            raise InvalidWeights(f"The layers of the network form a ring at '{tensor.layer}'.")
        else:
            under_way.add(tensor)
            waiting.extend(reversed(needed))
    return calls


def _last_uses(
    calls: list[tuple[TensorId, tuple[TensorId, ...]]], outputs: tuple[TensorId, ...]
) -> dict[int, list[TensorId]]:
    """By the number of a call, the tensors that nobody needs after it."""
    last: dict[TensorId, int] = {}
    for number, (tensor, inputs) in enumerate(calls):
        last[tensor] = number
        for name in inputs:
            last[name] = number
    freed: dict[int, list[TensorId]] = {}
    for tensor, number in last.items():
        if tensor not in outputs:
            freed.setdefault(number, []).append(tensor)
    return freed
