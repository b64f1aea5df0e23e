"""Small multi-task networks for the tests: random but fixed weights, a description that states everything."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the multi-task network needs torch")
pytest.importorskip("safetensors", reason="weights are written as safetensors")

from MedAILib.models.checkpoint import save_model_with_config  # noqa: E402
from MedAILib.models.config import Architecture, ModelConfig  # noqa: E402
from MedAILib.models.heads import (  # noqa: E402
    Activation,
    ClassInfo,
    Code,
    Head,
    HeadTask,
    Input,
    Normalisation,
    NormalisationKind,
    Resize,
)
from MedAILib.multitask.network import MultiTaskUNet, create_multi_task_model  # noqa: E402

SMALL = {
    "in_channels": 1, "seg_out_channels": 1, "cls_num_classes": 2,
    "base_filters": 4, "depth": 2, "bilinear": True, "cls_hidden_dim": 8,
}  # fmt: skip
Z_SCORE = Normalisation(NormalisationKind.Z_SCORE)

torch.set_num_threads(1)


def small_model(seed: int = 0, **changes: Any) -> MultiTaskUNet:
    """A new network; of equal arguments an equal one."""
    return copy.deepcopy(_made(seed, tuple(changes.items())))


@cache
def _made(seed: int, changes: tuple[tuple[str, Any], ...]) -> MultiTaskUNet:
    """A network whose answers vary: its batch normalisations have seen something, half of all pixels are a segment."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_multi_task_model(**{**SMALL, **dict(changes)})
        images = [_blurred(4, model.layout.in_channels) for _ in range(8)]
        model.train()
        with torch.no_grad():
            for batch in images:
                model(batch)
            answers = model.eval()(torch.cat(images))
            last_layers = (
                (model.seg_decoder.outc.conv, answers["seg"]),
                (model.cls_head.classifier[4], answers["cls"]),
            )
            for layer, logits in last_layers:
                layer.bias -= logits.transpose(0, 1).flatten(1).mean(dim=1)
                layer.weight *= 1.5 / logits.std(dim=0).mean()
                layer.bias *= 1.5 / logits.std(dim=0).mean()
    return model


def _blurred(count: int, channels: int) -> Any:
    """Normalised images of random blobs."""
    noise = torch.rand(count, channels, 4, 4) ** 4
    images = torch.nn.functional.interpolate(noise, (32, 32), mode="bicubic") + 0.05 * torch.randn(
        count, channels, 32, 32
    )
    deviation, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    return (images - mean) / deviation


def config_for(
    model: MultiTaskUNet,
    *,
    normalisation: Normalisation | None = Z_SCORE,
    size: tuple[int, ...] = (32, 32),
    threshold: float | None = 0.5,
    assumed: tuple[str, ...] = (),
    **changes: Any,
) -> ModelConfig:
    """A description of a network in the form of the published one."""
    layout = model.layout
    tumour = Code("SCT", "4147007", "Mass")
    classes = tuple(ClassInfo(index, f"Lesion {index}") for index in range(layout.seg_out_channels))
    seg = Head("seg", HeadTask.SEGMENTATION, classes, Activation.SIGMOID, threshold=0.5)
    if layout.seg_out_channels == 1:
        seg = replace(seg, classes=(ClassInfo(0, "Tumor", tumour, (1.0, 0.0, 0.0)),))
    names = ("No Tumor", "Tumor") if layout.cls_num_classes == 2 else tuple("ABCDEF"[: layout.cls_num_classes])
    cls = Head(
        "cls",
        HeadTask.BINARY if len(names) == 2 else HeadTask.MULTI_CLASS,
        tuple(ClassInfo(index, name) for index, name in enumerate(names)),
        Activation.SOFTMAX,
        threshold=threshold,
        positive_class=1 if len(names) == 2 else None,
    )
    image = Input(
        modality="MR",
        channels=tuple(f"channel {index}" for index in range(layout.in_channels)),
        size=size,
        resize=Resize.LINEAR,
        normalisation=normalisation,
    )
    config = ModelConfig(
        id="small",
        family="multitask-unet",
        architecture=Architecture("multitask_unet", {name: getattr(layout, name) for name in SMALL}),
        inputs=(image,),
        heads=(seg, cls),
        assumed=assumed,
    )
    return replace(config, **changes)


def saved(folder: Path, model: MultiTaskUNet, config: ModelConfig) -> Path:
    """The weights of a network and its description in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    save_model_with_config(model, path, config)
    return path


def state_hash(model: MultiTaskUNet) -> str:
    """Differs where any tensor of the network does."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
