"""Layers of Keras as modules of torch, exact in what they compute: one builder per class of layer.

Tensors keep Keras's axes throughout, (batch, rows, columns, channels) for ``channels_last`` and (batch,
channels, rows, columns) for ``channels_first``, so that axis numbers in a layer's configuration mean what
they say. Spatial layers look at a ``channels_last`` tensor through a transposed view, which copies nothing.

What TensorFlow computes, for the places where torch differs: padding ``same`` puts the odd row or column at
the end; max pooling pads with minus infinity and average pooling does not count the padding; a transposed
convolution cuts what the matching convolution would have padded; ``softmax`` runs over the last axis unless
the layer says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the field's name of this module

from MedAILib.errors import InvalidWeights


class LayerSource:
    """Configuration and weights of one layer, read so that nothing is overlooked.

    Parameters
    ----------
    name : str
    kind : str
        Keras's class name.
    config : mapping
    weights : mapping of str to ndarray
    """

    def __init__(self, name: str, kind: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
        self.name = name
        self.kind = kind
        self.config = config
        self._left = dict(weights)

    def take(self, key: str) -> Tensor:
        """A weight that the layer needs; each can be taken once."""
        if key not in self._left:
            raise self.error(f"its weight '{key}' is not in the file; there are {self._listed()}")
        return torch.from_numpy(np.ascontiguousarray(self._left.pop(key)))

    def check_all_taken(self) -> None:
        if self._left:
            raise self.error(f"the file holds weights that the layer does not use: {self._listed()}")

    def pair(self, key: str, default: int | tuple[int, int] | None = None) -> tuple[int, int]:
        """Two numbers, for rows and columns; one number stands for both."""
        value = self.config.get(key, default)
        numbers = [value, value] if isinstance(value, int) else list(value or ())
        if len(numbers) != 2 or not all(isinstance(n, int) and n > 0 for n in numbers):
            raise self.error(f"its {key} is {value!r}")
        return numbers[0], numbers[1]

    def choice(self, key: str, *choices: str) -> str:
        value = self.config.get(key, choices[0])
        if value not in choices:
            raise self.error(f"its {key} is {value!r}; known are {', '.join(choices)}")
        return str(value)

    @property
    def is_channels_first(self) -> bool:
        value = self.config.get("data_format")
        if value not in ("channels_first", "channels_last"):
            raise self.error(f"its data_format is {value!r}, which leaves open where its channels are")
        return bool(value == "channels_first")

    def refuse(self, **plain: Any) -> None:
        """Refuse any value of a setting but the one that is supported; a setting that is not there is fine."""
        for key, value in plain.items():
            if self.config.get(key, value) not in (value, None):
                raise self.error(f"its {key} is {self.config[key]!r}, which is not supported")

    def error(self, why: str) -> InvalidWeights:
        return InvalidWeights(
            f"The network cannot be built: layer '{self.name}' ({self.kind}).",
            why=f"{why[0].upper()}{why[1:]}.",
            todo="Use the file as its authors published it; if it is that, please report the layer.",
        )

    def _listed(self) -> str:
        return ", ".join(f"{key} {tuple(array.shape)}" for key, array in self._left.items()) or "none"


class _Spatial(nn.Module):
    """A layer that works on (batch, channels, rows, columns), whatever the order of the axes outside."""

    def __init__(self, is_channels_first: bool) -> None:
        super().__init__()
        self._is_channels_first = is_channels_first

    def forward(self, x: Tensor) -> Tensor:
        if self._is_channels_first:
            return self.compute(x)
        return self.compute(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def compute(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Rows before and after that padding ``same`` adds to that many rows."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _padded(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float, dilation: int = 1) -> Tensor:
    rows, columns = (same_padding(x.shape[2 + axis], kernel[axis], stride[axis], dilation) for axis in (0, 1))
    return F.pad(x, (*columns, *rows), value=value) if any((*rows, *columns)) else x


class Convolution(_Spatial):
    def __init__(self, source: LayerSource) -> None:
        super().__init__(source.is_channels_first)
        self._kernel, self._stride = source.pair("kernel_size"), source.pair("strides", 1)
        rows, columns = source.pair("dilation_rate", 1)
        if rows != columns:
            raise source.error("its dilation differs between rows and columns")
        self._dilation = rows
        self._groups = int(source.config.get("groups", 1) or 1)
        self._is_same = source.choice("padding", "valid", "same") == "same"
        self.weight = nn.Parameter(source.take("kernel").permute(3, 2, 0, 1).contiguous(), requires_grad=False)
        expected = (int(source.config["filters"]), *self._kernel)
        if (self.weight.shape[0], *self.weight.shape[2:]) != expected:
            raise source.error(f"its kernel is {tuple(self.weight.shape)}, its settings say {expected}")
        self.bias = _bias(source)

    def compute(self, x: Tensor) -> Tensor:
        if self._is_same:
            x = _padded(x, self._kernel, self._stride, 0.0, self._dilation)
        return F.conv2d(x, self.weight, self.bias, self._stride, 0, self._dilation, self._groups)


class TransposedConvolution(_Spatial):
    def __init__(self, source: LayerSource) -> None:
        super().__init__(source.is_channels_first)
        source.refuse(output_padding=None)
        if source.pair("dilation_rate", 1) != (1, 1):
            raise source.error("it is dilated, which is not supported")
        self._kernel, self._stride = source.pair("kernel_size"), source.pair("strides", 1)
        self._is_same = source.choice("padding", "valid", "same") == "same"
        self.weight = nn.Parameter(source.take("kernel").permute(3, 2, 0, 1).contiguous(), requires_grad=False)
        expected = (int(source.config["filters"]), *self._kernel)
        if tuple(self.weight.shape[1:]) != expected:
            raise source.error(f"its kernel is {tuple(self.weight.shape)}, its settings say {expected}")
        self.bias = _bias(source)

    def compute(self, x: Tensor) -> Tensor:
        whole = F.conv_transpose2d(x, self.weight, None, self._stride)
        edges = []
        for axis in (1, 0):  # F.pad begins with the last axis
            kernel, stride, size = self._kernel[axis], self._stride[axis], x.shape[2 + axis]
            wanted = size * stride + (0 if self._is_same else max(kernel - stride, 0))
            before = max(kernel - stride, 0) // 2 if self._is_same else 0
            edges += [-before, wanted + before - whole.shape[2 + axis]]
        found = F.pad(whole, edges) if any(edges) else whole
        return found if self.bias is None else found + self.bias.view(1, -1, 1, 1)


class MaxPooling(_Spatial):
    def __init__(self, source: LayerSource) -> None:
        super().__init__(source.is_channels_first)
        self._kernel = source.pair("pool_size", 2)
        self._stride = source.pair("strides") if source.config.get("strides") else self._kernel
        self._is_same = source.choice("padding", "valid", "same") == "same"

    def compute(self, x: Tensor) -> Tensor:
        if self._is_same:
            x = _padded(x, self._kernel, self._stride, float("-inf"))
        return F.max_pool2d(x, self._kernel, self._stride)


class AveragePooling(MaxPooling):
    def compute(self, x: Tensor) -> Tensor:
        if not self._is_same:
            return F.avg_pool2d(x, self._kernel, self._stride)
        ones = _padded(torch.ones_like(x[:1, :1]), self._kernel, self._stride, 0.0)
        sums = F.avg_pool2d(_padded(x, self._kernel, self._stride, 0.0), self._kernel, self._stride)
        return sums / F.avg_pool2d(ones, self._kernel, self._stride)


class UpSampling(_Spatial):
    def __init__(self, source: LayerSource) -> None:
        super().__init__(source.is_channels_first)
        self._size = source.pair("size", 2)
        self._mode = source.choice("interpolation", "nearest", "bilinear")

    def compute(self, x: Tensor) -> Tensor:
        size = (x.shape[2] * self._size[0], x.shape[3] * self._size[1])
        if self._mode == "nearest":
            return F.interpolate(x, size, mode="nearest")
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


class ZeroPadding(_Spatial):
    def __init__(self, source: LayerSource) -> None:
        super().__init__(source.is_channels_first)
        value = source.config.get("padding", 1)
        rows, columns = (value, value) if isinstance(value, int) else value
        self._edges = [*_both_ends(columns), *_both_ends(rows)]

    def compute(self, x: Tensor) -> Tensor:
        return F.pad(x, self._edges)


def _both_ends(value: int | list[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class BatchNormalization(nn.Module):
    """With the statistics of the training, hence one multiplication and one addition."""

    scale: Tensor
    shift: Tensor

    def __init__(self, source: LayerSource) -> None:
        super().__init__()
        axis = source.config.get("axis", -1)
        if isinstance(axis, list) and len(axis) == 1:
            axis = axis[0]
        if not isinstance(axis, int):
            raise source.error(f"its axis is {axis!r}")
        self._axis = axis
        scale = torch.rsqrt(source.take("moving_variance").double() + float(source.config.get("epsilon", 1e-3)))
        if source.config.get("scale", True):
            scale = scale * source.take("gamma").double()
        shift = -scale * source.take("moving_mean").double()
        if source.config.get("center", True):
            shift = shift + source.take("beta").double()
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", shift.float())

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.ndim
        shape[self._axis] = -1
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape))


class ParametricReLU(nn.Module):
    """``alpha`` has the shape of the input without the batch, 1 along shared axes."""

    def __init__(self, source: LayerSource) -> None:
        super().__init__()
        self.alpha = nn.Parameter(source.take("alpha"), requires_grad=False)
        for axis in source.config.get("shared_axes") or ():
            if not 1 <= axis <= self.alpha.ndim or self.alpha.shape[axis - 1] != 1:
                raise source.error(f"its weight 'alpha' {tuple(self.alpha.shape)} is not shared along axis {axis}")

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.alpha)


class Softmax(nn.Module):
    def __init__(self, source: LayerSource) -> None:
        super().__init__()
        axis = source.config.get("axis", -1)
        if isinstance(axis, list) and len(axis) == 1:
            axis = axis[0]
        if not isinstance(axis, int):
            raise source.error(f"its axis is {axis!r}")
        self._axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, dim=self._axis)


class Function(nn.Module):
    """A function of one tensor, without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


class Sum(nn.Module):
    def forward(self, *tensors: Tensor) -> Tensor:
        found = tensors[0]
        for tensor in tensors[1:]:
            found = found + tensor
        return found


class Product(nn.Module):
    def forward(self, *tensors: Tensor) -> Tensor:
        found = tensors[0]
        for tensor in tensors[1:]:
            found = found * tensor
        return found


class Concatenation(nn.Module):
    def __init__(self, source: LayerSource) -> None:
        super().__init__()
        self._axis = int(source.config.get("axis", -1))

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim=self._axis)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "swish": F.silu,
    "silu": F.silu,
    "softmax": lambda x: torch.softmax(x, dim=-1),
}


def _activation(source: LayerSource) -> nn.Module | None:
    """What follows the layer itself; None for nothing."""
    name = source.config.get("activation", "linear") or "linear"
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise source.error(f"its activation {name!r} is not known here")
    return None if name == "linear" else Function(ACTIVATIONS[name])


def _bias(source: LayerSource) -> nn.Parameter | None:
    return nn.Parameter(source.take("bias"), requires_grad=False) if source.config.get("use_bias", True) else None


def _with_activation(source: LayerSource, layer: nn.Module) -> nn.Module:
    activation = _activation(source)
    return layer if activation is None else nn.Sequential(layer, activation)


def _relu(source: LayerSource) -> nn.Module:
    source.refuse(threshold=0)
    slope, highest = float(source.config.get("negative_slope") or 0.0), source.config.get("max_value")

    def function(x: Tensor) -> Tensor:
        x = F.leaky_relu(x, slope) if slope else torch.relu(x)
        return x if highest is None else x.clamp(max=float(highest))

    return Function(function)


def _leaky_relu(source: LayerSource) -> nn.Module:
    slope = float(source.config.get("negative_slope", source.config.get("alpha", 0.3)))
    return Function(lambda x: F.leaky_relu(x, slope))


def _nothing(source: LayerSource) -> nn.Module:
    return nn.Identity()


LAYERS: Mapping[str, Callable[[LayerSource], nn.Module]] = {
    "Conv2D": lambda source: _with_activation(source, Convolution(source)),
    "Conv2DTranspose": lambda source: _with_activation(source, TransposedConvolution(source)),
    "BatchNormalization": BatchNormalization,
    "PReLU": ParametricReLU,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "Activation": lambda source: _activation(source) or nn.Identity(),
    "Softmax": Softmax,
    "Dropout": _nothing,
    "SpatialDropout2D": _nothing,
    "GaussianNoise": _nothing,
    "Add": lambda source: Sum(),
    "Multiply": lambda source: Product(),
    "Concatenate": Concatenation,
    "MaxPooling2D": MaxPooling,
    "AveragePooling2D": AveragePooling,
    "UpSampling2D": UpSampling,
    "ZeroPadding2D": ZeroPadding,
}
"""Builders by Keras's class name. Layers that only act in training become nothing."""


def build_layer(source: LayerSource) -> nn.Module:
    """The layer of torch, all weights of the file used.

    Raises
    ------
    InvalidWeights
        A kind or setting of layer that is not known here, a weight that is missing, of another shape, or not used.
    """
    maker = LAYERS.get(source.kind)
    if maker is None:
        raise source.error("layers of this kind are not known here")
    try:
        layer = maker(source)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise source.error(f"its settings are not understood ({type(error).__name__}: {error})") from error
    source.check_all_taken()
    return layer
