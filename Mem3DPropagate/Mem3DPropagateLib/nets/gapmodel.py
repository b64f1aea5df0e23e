"""Our network with its description: written by the training, loaded for propagation. torch is loaded when it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.errors import MissingPackage
from MedAILib.models.checkpoint import load_model_with_config, save_model_with_config
from MedAILib.models.config import Architecture, Licence, ModelConfig, Provenance
from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask, Input

if TYPE_CHECKING:
    from Mem3DPropagateLib.nets.gapnet import GapNet

ARCHITECTURE = "medai_gapnet"
MODEL_ID = "medai-propagate-s"
EMBEDDED = Path(__file__).resolve().parents[1] / "Resources" / "Models" / MODEL_ID / "model.safetensors"
"""The network that comes with the module."""


@dataclass(frozen=True, eq=False)
class LoadedGapNet:
    """A network ready to propagate.

    Attributes
    ----------
    network : GapNet
        In evaluation mode, on ``device``.
    name, sha256, licence : str
        The id of the model, of its weight file, and its terms.
    device : str
    """

    network: GapNet
    name: str
    sha256: str
    licence: str
    device: str


def save_gap_model(
    network: GapNet,
    path: Path,
    parameters: Mapping[str, Any],
    training: Mapping[str, Any],
    trained_on: str = "",
    licence: Licence | None = None,
) -> None:
    """Write a network in half precision with its description.

    Parameters
    ----------
    network : GapNet
    path : Path
        Of the ``.safetensors`` file.
    parameters : mapping
        Arguments of `GapNet`.
    training : mapping
        How it was trained and judged.
    trained_on : str
    licence : Licence, optional
        Of the weights; default: not stated, it depends on the data.

    Raises
    ------
    OutputError
    MissingPackage
    """
    config = ModelConfig(
        id=MODEL_ID,
        family="propagation",
        architecture=Architecture(ARCHITECTURE, dict(parameters)),
        title="MedAI propagation network, small",
        version="1",
        description="Corrects the geometric propagation of a drawn structure by what the image shows.",
        intended_use="Research only. Not for clinical use; no diagnosis may rest on it.",
        inputs=(Input(name="slices around the structure", channels=("slice", "before", "after", "likelihood")),),
        heads=(
            Head(
                "level",
                HeadTask.SEGMENTATION,
                (ClassInfo(0, "structure"),),
                Activation.SIGMOID,
                threshold=0.5,
            ),
        ),
        licence=licence or Licence(),
        provenance=Provenance(
            trained_on=trained_on, training=dict(training), date=datetime.now(UTC).date().isoformat()
        ),
        requirements={"torch": ">=2.10"},
    )
    save_model_with_config(network.half(), path, config)
    network.float()


def load_gap_model(path: Path = EMBEDDED, device: str = "cpu") -> LoadedGapNet:
    """The network in a file, or the one that comes with the module.

    Raises
    ------
    InvalidWeights, FileMissing
    MissingPackage
        PyTorch or safetensors is not installed.
    """
    try:
        from Mem3DPropagateLib.nets.gapnet import GapNet
    except ImportError as error:
        raise MissingPackage(
            "The propagation network needs PyTorch, which cannot be imported.",
            why=f"{error}.",
            todo="In Slicer install the extension PyTorch, elsewhere: pip install torch safetensors; or use geometry.",
        ) from error
    network, config, checkpoint = load_model_with_config(path, GapNet, device)
    assert isinstance(network, GapNet)
    return LoadedGapNet(network, config.id, checkpoint.weights.sha256, config.licence.spdx, device)
