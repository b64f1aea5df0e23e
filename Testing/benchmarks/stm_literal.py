"""Space-time memory networks written out from their formulas, slow and plain: what the engine is held against.

Nothing here is shared with ``Mem3DPropagateLib.nets``: functions of the state dict, every slice looked at anew, every
object decoded by itself with all that belongs to the image, the whole table of affinities at once, normalisations not
folded. `propagate` goes through slices in any order with any memory; `interleaved` is the published order.

Sources: Oh et al., ICCV 2019, arXiv 1904.00607; Zhou et al., Medical Image Analysis 83 (2023) 102599.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]
Step = tuple[int, tuple[int, ...]]
"""A slice, and the slices that it remembers."""

_BLOCKS = {"res2": (3, 1), "res3": (4, 2), "res4": (6, 2), "res5": (3, 2)}


class LiteralStm:
    """The network on a state dict.

    Parameters
    ----------
    state : mapping of str to Tensor
        With published names.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.is_official = "Encoder_M.conv1_o.weight" in state

    def query(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Key, value, and features at 1/16, 1/8 and 1/4 of a frame, shape (1, 3, rows, columns)."""
        deep, middle, shallow = self._encoded("Encoder_Q", self._stem("Encoder_Q", frame))
        return self._conv(deep, "KV_Q_r4.Key"), self._conv(deep, "KV_Q_r4.Value"), deep, middle, shallow

    def memorised(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value of a frame with its masks, shape (objects, rows, columns)."""
        keys, values = [], []
        for number, mask in enumerate(masks):
            others = [other for place, other in enumerate(masks) if place != number]
            second = sum(others, torch.zeros_like(mask)) if self.is_official else 1 - mask
            second = second.clamp(0, 1)
            stem = self._stem("Encoder_M", frame) + self._conv(mask[None, None], "Encoder_M.conv1_m", 2)
            stem = stem + self._conv(second[None, None], f"Encoder_M.conv1_{'o' if self.is_official else 'bg'}", 2)
            deep, _, _ = self._encoded("Encoder_M", stem)
            keys.append(self._conv(deep, "KV_M_r4.Key"))
            values.append(self._conv(deep, "KV_M_r4.Value"))
        return torch.cat(keys), torch.cat(values)

    def segmented(self, frame: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Probabilities of background and objects, shape (1 + objects, rows, columns), and features at 1/16."""
        key, value, deep, middle, shallow = self.query(frame)
        objects = keys[0].shape[0]
        rows, columns = key.shape[2:]
        memory_keys = torch.stack(list(keys), 2).flatten(2)  # objects, keydim, slices * positions
        memory_values = torch.stack(list(values), 2).flatten(2)
        asked = key.expand(objects, -1, -1, -1).flatten(2)
        affinity = memory_keys.transpose(1, 2) @ asked / math.sqrt(key.shape[1])
        found = memory_values @ affinity.softmax(1)
        found = found.view(objects, -1, rows, columns)
        joined = torch.cat((found, value.expand(objects, -1, -1, -1)), 1)
        shape = (objects, -1, -1, -1)
        logits = self._decoded(joined, middle.expand(shape), shallow.expand(shape), (frame.shape[2], frame.shape[3]))
        alone = logits.softmax(1)[:, 1]
        together = torch.cat(((1 - alone).prod(0, keepdim=True), alone)).clamp(1e-7, 1 - 1e-7)
        return torch.log(together / (1 - together)).softmax(0), deep

    def quality(self, deep: Tensor, probabilities: Tensor) -> Tensor:
        """Expected overlap of the one object; frames must be 512 x 512."""
        planes = [probabilities.argmax(0).float(), probabilities.amax(0)]
        planes = [functional.interpolate(plane[None, None], (32, 32), mode="bilinear") for plane in planes]
        features = self._conv(torch.cat((deep, *planes), 1), "conv1")
        features = functional.avg_pool2d(self._stage(features, "res5"), 16).flatten(1)
        hidden = functional.linear(features, self.state["fc.weight"], self.state["fc.bias"]).relu()
        return functional.linear(hidden, self.state["fc2.weight"], self.state["fc2.bias"]).sigmoid()[0, 0]

    def _stem(self, part: str, frame: Tensor) -> Tensor:
        if self.is_official:
            frame = (frame - self.state[f"{part}.mean"]) / self.state[f"{part}.std"]
        return self._conv(frame, f"{part}.conv1", 2)

    def _encoded(self, part: str, stem: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = self._norm(stem, f"{part}.bn1").relu()
        shallow = self._stage(functional.max_pool2d(stem, 3, 2, 1), f"{part}.res2")
        middle = self._stage(shallow, f"{part}.res3")
        return self._stage(middle, f"{part}.res4"), middle, shallow

    def _stage(self, features: Tensor, name: str) -> Tensor:
        blocks, first_stride = _BLOCKS[name.rpartition(".")[2]]
        for block in range(blocks):
            path, stride = f"{name}.{block}", first_stride if block == 0 else 1
            inner = self._norm(self._conv(features, f"{path}.conv1"), f"{path}.bn1").relu()
            inner = self._norm(self._conv(inner, f"{path}.conv2", stride), f"{path}.bn2").relu()
            inner = self._norm(self._conv(inner, f"{path}.conv3"), f"{path}.bn3")
            if block == 0:
                features = self._norm(self._conv(features, f"{path}.downsample.0", stride), f"{path}.downsample.1")
            features = (inner + features).relu()
        return features

    def _decoded(self, joined: Tensor, middle: Tensor, shallow: Tensor, size: tuple[int, int]) -> Tensor:
        if "Decoder.convFM.weight" in self.state:
            features = self._conv(joined, "Decoder.convFM")
        else:
            features = self._pyramid(joined)
        features = self._residual(features, "Decoder.ResMM")
        for part, skip in (("Decoder.RF3", middle), ("Decoder.RF2", shallow)):
            beside = self._residual(self._conv(skip, f"{part}.convFS"), f"{part}.ResFS")
            below = functional.interpolate(features, beside.shape[2:], mode="bilinear", align_corners=False)
            features = self._residual(beside + below, f"{part}.ResMM")
        answer = self._conv(features.relu(), "Decoder.pred2")
        return functional.interpolate(answer, size, mode="bilinear", align_corners=False)

    def _pyramid(self, features: Tensor) -> Tensor:
        path = "Decoder.layer5"
        mean = features.mean((2, 3), keepdim=True)
        mean = self._norm(self._conv(mean, f"{path}.conv"), f"{path}.bn_x").relu()
        branches = [functional.interpolate(mean, features.shape[2:], mode="nearest")]
        for branch, dilation in enumerate((1, 2, 4, 8)):
            found = self._conv(features, f"{path}.conv2d_{branch}", dilation=dilation)
            branches.append(self._norm(found, f"{path}.bn_{branch}").relu())
        return self._conv(torch.cat(branches, 1), f"{path}.bottleneck")

    def _residual(self, features: Tensor, name: str) -> Tensor:
        inner = self._conv(features.relu(), f"{name}.conv1")
        return features + self._conv(inner.relu(), f"{name}.conv2")

    def _conv(self, features: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return functional.conv2d(features, weight, self.state.get(f"{name}.bias"), stride, padding, dilation)

    def _norm(self, features: Tensor, name: str) -> Tensor:
        parts = [self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(features, *parts)


def propagate(
    network: LiteralStm, frames: Sequence[Tensor], references: Mapping[int, Tensor], steps: Sequence[Step]
) -> Iterator[tuple[int, Tensor]]:
    """Slices one after the other, with the probabilities of background and objects.

    Parameters
    ----------
    network : LiteralStm
    frames : sequence of Tensor
        Each of shape (1, 3, rows, columns).
    references : mapping of int to Tensor
        Masks, shape (objects, rows, columns), float32.
    steps : sequence of Step
        Memories are references, or slices predicted before.
    """
    masks = dict(references)
    remembered: dict[int, tuple[Tensor, Tensor]] = {}
    for index, memory in steps:
        for at in memory:
            if at not in remembered:
                remembered[at] = network.memorised(frames[at], masks[at])
        keys, values = zip(*(remembered[at] for at in memory), strict=True)
        probabilities, _ = network.segmented(frames[index], keys, values)
        masks[index] = probabilities[1:]
        yield index, probabilities


def interleaved(reference: int, count: int, save_every: int = 5) -> Iterator[Step]:
    """The published order: one slice before and one after the reference in turn, and the memory that goes with it.

    Each slice remembers the slice before it in this order, which lies on the other side of the reference, and every
    fifth one; all slices of the volume are visited.
    """
    order = [reference]
    for distance in range(1, count):
        order += [at for at in (reference - distance, reference + distance) if 0 <= at < count]
    saved = [reference]
    for place in range(1, len(order)):
        before = order[place - 1]
        yield order[place], tuple(dict.fromkeys((*saved, before)))
        if (place - 1) % save_every == 0 and before not in saved:
            saved.append(before)
