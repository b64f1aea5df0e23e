"""Space-time memory networks as published: STM, and the volumetric memory network (VMN) built on it. Needs torch.

A *query* is a slice without a mask, a *memory* is a slice with the masks of its objects. Both become keys and values
at 1/16 of the resolution; the query reads, at each position, the values of those memory positions whose keys are like
its own; the decoder turns what was read into the objects' probabilities.

Tensors have the names and shapes of published weights, in three variants and two families of mask input, see
`MedAILib.models.stm_inference`. Frames, masks and features are batches with channels first.

Sources: Oh et al., "Video Object Segmentation Using Space-Time Memory Networks", ICCV 2019, arXiv 1904.00607;
Zhou et al., "Volumetric memory network for interactive medical image segmentation", Medical Image Analysis 83 (2023)
102599. Written anew from the papers and from what is known of the files; no code of theirs is in it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from MedAILib.models.stm_inference import (
    BACKGROUND,
    IMAGENET_MEAN,
    IMAGENET_STD,
    OTHER_OBJECTS,
    PLAIN,
    QUALITY,
)
from Mem3DPropagateLib.nets.resnet import EXPANSION, Bottleneck, fold_pair, fold_sum, stage
from Mem3DPropagateLib.nets.stm_memory import Memory, Query, read

STRIDE = 16
"""Rows and columns of a frame should be multiples of it: that of keys and values."""
EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1."""
_SECOND_MASK = {BACKGROUND: "conv1_bg", OTHER_OBJECTS: "conv1_o"}


class STM(nn.Module):
    """The network.

    Parameters
    ----------
    variant : str
        ``plain``, ``aspp`` or ``quality``.
    mask_input : str
        ``background`` or ``other-objects``.
    keydim, valdim : int
        Channels of keys and values.
    width : int
        Channels of the stem: 64 in all published weights; narrow ones are for tests.
    """

    def __init__(
        self,
        variant: str = PLAIN,
        mask_input: str = BACKGROUND,
        keydim: int = 128,
        valdim: int = 512,
        width: int = 64,
    ) -> None:
        super().__init__()
        deepest = 4 * width * EXPANSION
        self.variant, self.mask_input = variant, mask_input
        self.Encoder_M = MemoryEncoder(width, mask_input)
        self.Encoder_Q = ImageEncoder(width, normalises=mask_input == OTHER_OBJECTS)
        self.KV_M_r4 = KeyValue(deepest, keydim, valdim)
        self.KV_Q_r4 = KeyValue(deepest, keydim, valdim)
        self.Decoder = Decoder(2 * valdim, width, has_pyramid=variant != PLAIN)
        if variant == QUALITY:
            pooled = 8 * width * EXPANSION
            self.conv1 = nn.Conv2d(deepest + 2, deepest, 3, padding=1, bias=False)
            self.res5 = stage(deepest, 8 * width, 3, 2)
            self.fc = nn.Linear(pooled, 1000)
            self.fc2 = nn.Linear(1000, 1)

    @property
    def takes_unit_range(self) -> bool:
        """Whether frames come as 0..1 (the network normalises them); else they come normalised."""
        return self.mask_input == OTHER_OBJECTS

    @property
    def has_quality_head(self) -> bool:
        return self.variant == QUALITY

    def query(self, frame: Tensor) -> Query:
        """Look at a slice.

        Parameters
        ----------
        frame : Tensor, shape (1, 3, rows, columns)
        """
        deep, middle, shallow = self.Encoder_Q(frame)
        key, value = self.KV_Q_r4(deep)
        return Query(
            key=key.flatten(2).transpose(1, 2).float(),
            value=value,
            fine=self.Decoder.RF3.skip(middle),
            finer=self.Decoder.RF2.skip(shallow),
            deep=deep if self.has_quality_head else None,
        )

    def memorise(self, frame: Tensor, masks: Tensor) -> Memory:
        """Remember a slice with its objects.

        Parameters
        ----------
        frame : Tensor, shape (1, 3, rows, columns)
        masks : Tensor, shape (objects, rows, columns)
            Probabilities, or 0 and 1.
        """
        if self.mask_input == BACKGROUND:
            second = (1 - masks).clamp(0, 1)
        else:
            second = (masks.sum(0, keepdim=True) - masks).clamp(0, 1)
        key, value = self.KV_M_r4(self.Encoder_M(frame, masks[:, None], second[:, None]))
        return Memory(key.flatten(2).transpose(1, 2).float(), value.flatten(2).transpose(1, 2).float())

    def segment(self, query: Query, memory: Memory, size: tuple[int, int]) -> Tensor:
        """Each object's own probability, as if the others were not there.

        Parameters
        ----------
        query : Query
        memory : Memory
        size : tuple of int
            Rows and columns of the frame.

        Returns
        -------
        Tensor, shape (objects, rows, columns), float32
        """
        rows, columns = query.value.shape[2:]
        found = read(memory, query.key).transpose(1, 2).unflatten(2, (rows, columns)).to(query.value.dtype)
        joined = torch.cat((found, query.value.expand(len(found), -1, -1, -1)), 1)
        answer = self.Decoder(joined, query.fine, query.finer)
        answer = functional.interpolate(answer.float(), size, mode="bilinear", align_corners=False)
        return answer.softmax(1)[:, 1]

    def assess(self, query: Query, masks: Tensor, certainty: Tensor) -> Tensor:
        """Expected overlap (intersection over union) of masks with the truth, 0..1; only of the variant ``quality``.

        The published network assesses frames of 512 x 512 pixels; there this is the same, elsewhere its
        likeness: masks come to the size of the features, and the mean is over all of them.

        Parameters
        ----------
        query : Query
        masks : Tensor, shape (objects, rows, columns)
            0 and 1.
        certainty : Tensor, shape (rows, columns)
            The highest of all probabilities, background's among them.

        Returns
        -------
        Tensor, shape (objects,)
        """
        deep = query.deep
        assert deep is not None
        planes = torch.stack((masks.float(), certainty.float().expand_as(masks)), 1)
        planes = functional.interpolate(planes, deep.shape[2:], mode="bilinear", align_corners=False)
        features = torch.cat((deep.expand(len(masks), -1, -1, -1), planes.to(deep.dtype)), 1)
        pooled = self.res5(self.conv1(features)).mean((2, 3))
        return self.fc2(functional.relu(self.fc(pooled))).sigmoid()[:, 0].float()


class ImageEncoder(nn.Module):
    """ResNet-50 down to 1/16."""

    def __init__(self, width: int, *, normalises: bool) -> None:
        super().__init__()
        self.normalises = normalises
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self._mask_inputs(width)
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.res2 = stage(width, width, 3, 1)
        self.res3 = stage(width * EXPANSION, 2 * width, 4, 2)
        self.res4 = stage(2 * width * EXPANSION, 4 * width, 6, 2)

    def _mask_inputs(self, width: int) -> None:
        """Convolutions of further inputs, which come before the others in published files."""

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at 1/16, 1/8 and 1/4."""
        return self.deeper(self.conv1(self.normalised(frame)))

    def normalised(self, frame: Tensor) -> Tensor:
        return (frame - self.mean) / self.std if self.normalises else frame

    def deeper(self, stem: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = functional.relu(self.bn1(stem))
        shallow = self.res2(functional.max_pool2d(stem, 3, 2, padding=1))
        middle = self.res3(shallow)
        return self.res4(middle), middle, shallow

    def fold(self) -> None:
        fold_pair(self, "conv1", "bn1")


class MemoryEncoder(ImageEncoder):
    """The same with two masks beside the image: that of the object, and that of what is not the object."""

    def __init__(self, width: int, mask_input: str) -> None:
        self._second = _SECOND_MASK[mask_input]
        super().__init__(width, normalises=mask_input == OTHER_OBJECTS)

    def _mask_inputs(self, width: int) -> None:
        for name in ("conv1_m", self._second):
            self.add_module(name, nn.Conv2d(1, width, 7, 2, padding=3, bias=False))

    def forward(self, frame: Tensor, masks: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
        """Features at 1/16, one of the batch for each mask; ``frame`` is one."""
        stem = self.conv1(self.normalised(frame)) + self.conv1_m(masks) + self.get_submodule(self._second)(second)
        return self.deeper(stem)[0]

    def fold(self) -> None:
        fold_sum(self, ["conv1", "conv1_m", self._second], "bn1")


class KeyValue(nn.Module):
    """Features to keys and values."""

    def __init__(self, before: int, keydim: int, valdim: int) -> None:
        super().__init__()
        self.Key = nn.Conv2d(before, keydim, 3, padding=1)
        self.Value = nn.Conv2d(before, valdim, 3, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.Key(features), self.Value(features)


class Residual(nn.Module):
    """Two convolutions beside what comes in, each after a rectifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv2(functional.relu(self.conv1(functional.relu(features))))


class Refine(nn.Module):
    """One step up: what the image shows at the finer resolution, and what came from below."""

    def __init__(self, skip: int, width: int) -> None:
        super().__init__()
        self.convFS = nn.Conv2d(skip, width, 3, padding=1)
        self.ResFS = Residual(width)
        self.ResMM = Residual(width)

    def skip(self, features: Tensor) -> Tensor:
        """The image's part, which depends on no mask: it is kept with the query."""
        return self.ResFS(self.convFS(features))

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        up = functional.interpolate(below, skip.shape[2:], mode="bilinear", align_corners=False)
        return self.ResMM(skip + up)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: the mean of all, a point, and 3 x 3 with dilations 2, 4 and 8.

    Source: Chen et al., arXiv 1706.05587.
    """

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 1)
        self.bn_x = nn.BatchNorm2d(width)
        for branch, dilation in enumerate((0, 2, 4, 8)):
            shape = {"kernel_size": 3, "padding": dilation, "dilation": dilation} if dilation else {"kernel_size": 1}
            self.add_module(f"conv2d_{branch}", nn.Conv2d(before, width, **shape))
            self.add_module(f"bn_{branch}", nn.BatchNorm2d(width))
        self.bottleneck = nn.Conv2d(5 * width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        mean = functional.relu(self.bn_x(self.conv(features.mean((2, 3), keepdim=True))))
        branches = [mean.expand(-1, -1, *features.shape[2:])]
        for branch in range(4):
            convolution, norm = self.get_submodule(f"conv2d_{branch}"), self.get_submodule(f"bn_{branch}")
            branches.append(functional.relu(norm(convolution(features))))
        return self.bottleneck(torch.cat(branches, 1))

    def fold(self) -> None:
        fold_pair(self, "conv", "bn_x")
        for branch in range(4):
            fold_pair(self, f"conv2d_{branch}", f"bn_{branch}")


class Decoder(nn.Module):
    """What was read, with the image's finer features, to two numbers a pixel at 1/4: background and object."""

    def __init__(self, before: int, width: int, *, has_pyramid: bool) -> None:
        super().__init__()
        inner = 4 * width
        self._first = "layer5" if has_pyramid else "convFM"
        self.add_module(self._first, Pyramid(before, inner) if has_pyramid else nn.Conv2d(before, inner, 3, padding=1))
        self.ResMM = Residual(inner)
        self.RF3 = Refine(2 * width * EXPANSION, inner)
        self.RF2 = Refine(width * EXPANSION, inner)
        self.pred2 = nn.Conv2d(inner, 2, 3, padding=1)

    def forward(self, found: Tensor, fine: Tensor, finer: Tensor) -> Tensor:
        features = self.ResMM(self.get_submodule(self._first)(found))
        features = self.RF2(finer, self.RF3(fine, features))
        return self.pred2(functional.relu(features))


def aggregated(probabilities: Tensor) -> Tensor:
    """Objects' own probabilities to logits of background and objects, which compete for each pixel.

    The background is where no object is: its probability is the product of ``1 - p``. A softmax over the first axis
    gives the probabilities that are remembered.

    Parameters
    ----------
    probabilities : Tensor, shape (objects, rows, columns)

    Returns
    -------
    Tensor, shape (1 + objects, rows, columns)
        Background first.
    """
    background = (1 - probabilities).prod(0, keepdim=True)
    return torch.cat((background, probabilities)).clamp(EPSILON, 1 - EPSILON).logit()


def parameter_count(network: nn.Module) -> int:
    """Trained numbers, buffers not among them."""
    return sum(parameter.numel() for parameter in network.parameters())


def folded(network: STM) -> STM:
    """A copy for inference with every normalisation folded into the convolution before it.

    It answers the same up to rounding, faster. Its state dict has other keys: it is never saved.
    """
    fast = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(fast.modules()):
        if isinstance(module, Bottleneck | ImageEncoder | Pyramid):
            module.fold()
    return fast
