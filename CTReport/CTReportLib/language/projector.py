"""An encoder's features as tokens that a language model reads beside its words. Needs torch.

Source: ReCT-VLM (NEWMES-AI, 2025), re-implemented: 256 learned queries, three blocks of cross-attention of twelve
heads, then Linear, GELU, Linear, LayerNorm to the language model's width. Names of the tensors are the published ones
as far as these are known: ``visual_queries``, ``cross_attn_layers.<n>.``, ``projector.0``, ``.2``, ``.3``. What a
block's own tensors are called is not; the names here are ours, so a published file with other ones is refused, not
guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from CTReportLib.nets.features import Features
from CTReportLib.nets.loaded import load_described
from MedAILib.errors import ConfigMismatch, InvalidWeights
from MedAILib.models.checkpoint import save_model_with_config
from MedAILib.models.config import Architecture, ModelConfig, Provenance
from MedAILib.models.resolve import resolve
from MedAILib.models.tensors import WeightFile, inspect_tensors

ARCHITECTURE, FAMILY = "ct_visual_projector", "chest-ct-language"
ENCODER_KEY = "encoder_sha256"
"""Among what the description says of the training."""
SMALL = 0.02
"""Standard deviation of learned queries before training."""


class CrossAttention(nn.Module):
    """Queries look at an encoder's patches, then each is changed by itself; both parts add to what was there."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, queries: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Queries (batch, queries, width) after they looked at patches (batch, patches, width)."""
        seen, _ = self.cross_attn(self.norm1(queries), patches, patches, need_weights=False)
        queries = queries + seen
        return queries + self.mlp(self.norm2(queries))


class VisualProjector(nn.Module):
    """Features of a volume as a fixed number of tokens.

    Parameters
    ----------
    vision_dim : int
        Width of the encoder's patches; a multiple of ``heads``.
    llm_dim : int
        Width of the language model's tokens.
    queries, depth, heads : int
    """

    def __init__(
        self, vision_dim: int = 768, llm_dim: int = 4096, queries: int = 256, depth: int = 3, heads: int = 12
    ) -> None:
        super().__init__()
        self.vision_dim, self.llm_dim = vision_dim, llm_dim
        self.visual_queries = nn.Parameter(torch.randn(queries, vision_dim) * SMALL)
        self.cross_attn_layers = nn.ModuleList(CrossAttention(vision_dim, heads) for _ in range(depth))
        self.projector = nn.Sequential(
            nn.Linear(vision_dim, llm_dim), nn.GELU(), nn.Linear(llm_dim, llm_dim), nn.LayerNorm(llm_dim)
        )

    @property
    def tokens(self) -> int:
        """How many tokens a volume becomes."""
        return len(self.visual_queries)

    def forward(self, features: Features) -> torch.Tensor:
        """Tokens of shape (batch, queries, llm_dim).

        Raises
        ------
        ConfigMismatch
            The features have another width.
        """
        require_vision_width(self.vision_dim, features.patches.shape[-1])
        queries = self.visual_queries.expand(len(features.patches), -1, -1)
        patches = features.patches.to(queries.dtype)
        for layer in self.cross_attn_layers:
            queries = layer(queries, patches)
        return self.projector(queries)


@dataclass(frozen=True, eq=False)
class LoadedProjector:
    """A projector all of whose tensors come from a file.

    Attributes
    ----------
    network : VisualProjector
        In evaluation mode, without gradients.
    config : ModelConfig
    weights : WeightFile
    """

    network: VisualProjector
    config: ModelConfig
    weights: WeightFile

    @property
    def encoder_sha256(self) -> str:
        """Of the encoder's weights whose features it was trained on; empty where that is not stated."""
        training = self.config.provenance.training
        return str(training.get(ENCODER_KEY, "")) if isinstance(training, Mapping) else ""


def require_vision_width(projector: int, features: int) -> None:
    """Raise `ConfigMismatch` where an encoder's features are not those a projector reads."""
    if projector != features:
        raise ConfigMismatch(
            "The projector does not fit the encoder.",
            why=f"It reads features of {projector} numbers; the encoder answers features of {features}.",
            todo="Give the encoder that the projector was trained with, or train a projector for this one.",
        )


def describe_projector(name: str, projector: VisualProjector, *, encoder_sha256: str = "") -> ModelConfig:
    """Its description.

    Parameters
    ----------
    name : str
        The model's id.
    projector : VisualProjector
    encoder_sha256 : str
        Of the encoder's weights: on the features of another one its tokens mean nothing.
    """
    layer = cast(CrossAttention, projector.cross_attn_layers[0])
    parameters = {
        "vision_dim": projector.vision_dim,
        "llm_dim": projector.llm_dim,
        "queries": projector.tokens,
        "depth": len(projector.cross_attn_layers),
        "heads": layer.cross_attn.num_heads,
    }
    return ModelConfig(
        id=name,
        family=FAMILY,
        architecture=Architecture(ARCHITECTURE, parameters),
        intended_use="Research use only. Not for diagnosis.",
        provenance=Provenance(training={ENCODER_KEY: encoder_sha256} if encoder_sha256 else None),
    )


def save_projector(projector: VisualProjector, path: str | Path, config: ModelConfig) -> ModelConfig:
    """Write a projector and its description; errors as `MedAILib.models.checkpoint.save_model_with_config`."""
    return save_model_with_config(projector, path, config)


def load_projector(path: str | Path, device: str | torch.device = "cpu") -> LoadedProjector:
    """Load a projector from its file, whole or not at all.

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, described by nothing, or not exactly the tensors of a projector, each of which is named.
    ConfigMismatch
        Its description is of another network.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    name = weights.path.name
    config = resolve(weights).config
    if config.architecture.name != ARCHITECTURE:
        raise InvalidWeights(
            f"'{name}' is no visual projector.",
            why=f"Its description says '{config.architecture.name}'.",
            todo="Give the file that was saved with the projector.",
        )
    _require_buildable(config)
    loaded = load_described(weights, config, VisualProjector, device)
    return LoadedProjector(loaded.network, loaded.config or config, loaded.weights)


def _require_buildable(config: ModelConfig) -> None:
    try:
        with torch.device("meta"):
            VisualProjector(**config.get_model_params())
    except (TypeError, AssertionError, RuntimeError, IndexError) as error:
        raise InvalidWeights(
            f"The description of the projector '{config.id}' cannot be built.",
            why=f"{error}.",
            todo="Its parameters are vision_dim, llm_dim, queries, depth and heads; heads divide vision_dim.",
        ) from error
