"""The stages of a ResNet-50, with the names of tensors that published weights use. Needs torch.

Source: He et al., CVPR 2016, arXiv 1512.03385; the stride is in the 3 x 3 convolution, as in the usual weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

EXPANSION = 4
"""A block's output is this many times as wide as its 3 x 3 convolution."""


class Bottleneck(nn.Module):
    """A residual block of three convolutions: narrower, 3 x 3, wider."""

    def __init__(self, before: int, inner: int, stride: int, *, changes_shape: bool) -> None:
        super().__init__()
        after = inner * EXPANSION
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Sequential | None = None
        if changes_shape:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, image: Tensor) -> Tensor:
        around = image if self.downsample is None else self.downsample(image)
        inner = functional.relu(self.bn1(self.conv1(image)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + around)

    def fold(self) -> None:
        """Fold every normalisation into the convolution before it, for inference."""
        for number in (1, 2, 3):
            fold_pair(self, f"conv{number}", f"bn{number}")
        if self.downsample is not None:
            fold_pair(self.downsample, "0", "1")


def stage(before: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks in a row; the first one changes width and resolution.

    Parameters
    ----------
    before : int
        Channels that come in; ``inner * EXPANSION`` go out.
    inner : int
    blocks : int
    stride : int
        Of the first block.
    """
    first = Bottleneck(before, inner, stride, changes_shape=True)
    rest = (Bottleneck(inner * EXPANSION, inner, 1, changes_shape=False) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def fold_pair(owner: nn.Module, convolution: str, norm: str) -> None:
    """Replace a convolution and the normalisation after it, by their names, by one convolution and nothing."""
    modules = owner._modules
    modules[convolution] = fuse_conv_bn_eval(modules[convolution], modules[norm])
    modules[norm] = nn.Identity()


def fold_sum(owner: nn.Module, convolutions: list[str], norm: str) -> None:
    """The same for several convolutions whose sum is normalised."""
    modules = owner._modules
    after: nn.BatchNorm2d = modules[norm]
    scale = after.weight / torch.sqrt(after.running_var + after.eps)
    for name in convolutions:
        convolution: nn.Conv2d = modules[name]
        convolution.weight = nn.Parameter(convolution.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
    modules[convolutions[0]].bias = nn.Parameter(after.bias - after.running_mean * scale, requires_grad=False)
    modules[norm] = nn.Identity()
