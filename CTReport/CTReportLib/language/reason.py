"""NV-Reason-CT: the features of its encoder, with their places in space, as a part of the prompt. Needs torch.

The encoder (Primus) is loaded and asked as any other, with `CTReportLib.nets.encoders.load_encoder` from the weight
file that holds ``model.vision3d.sub_vision.``; here are its merger and the places of its tokens. The language model
within is transformers' own Qwen3.5. No program code of the model's folder is run. See
`CTReportLib.language.reasonfolder` for what is known and what must be stated.

Never run with the published weights: only with small networks of the same names and forms.
"""

from __future__ import annotations

import torch
from torch import nn

from CTReportLib.language.basefolder import BaseFolder
from CTReportLib.language.reasonfolder import MERGER, merger_shapes
from CTReportLib.nets.features import Features
from MedAILib.errors import ConfigMismatch
from MedAILib.models.exact import require_exact, require_finite, shapes_of
from MedAILib.models.torchmodel import read_weights

EPSILON = 1e-6


class Merger(nn.Module):
    """Each patch's features as a token of the language model: LayerNorm, Linear, GELU, Linear."""

    def __init__(self, vision_dim: int = 864, llm_dim: int = 2560) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_dim, eps=EPSILON)
        self.linear_fc1 = nn.Linear(vision_dim, vision_dim)
        self.linear_fc2 = nn.Linear(vision_dim, llm_dim)

    def forward(self, features: Features) -> torch.Tensor:
        """Tokens of shape (batch, patches, llm_dim), in the order of the patches.

        Raises
        ------
        ConfigMismatch
            The features have another width.
        """
        width = self.linear_fc1.in_features
        if features.patches.shape[-1] != width:
            raise ConfigMismatch(
                "The language model does not fit the encoder.",
                why=f"It reads features of {width} numbers; the encoder answers features of "
                f"{features.patches.shape[-1]}.",
                todo="Give the encoder that lies within the same model.",
            )
        hidden = nn.functional.gelu(self.linear_fc1(self.norm(features.patches.to(self.norm.weight.dtype))))
        return self.linear_fc2(hidden)


def load_merger(base: BaseFolder, device: str = "cpu") -> Merger:
    """Load the merger from the files around a language model.

    Raises
    ------
    InvalidWeights
        Not exactly its tensors, or values that are no numbers.
    """
    shapes = merger_shapes(base)
    llm_dim, vision_dim = shapes["linear_fc2.weight"]
    merger = Merger(vision_dim, llm_dim)
    require_exact(shapes_of(merger.state_dict()), shapes, base.path.name, "the merger of NV-Reason-CT")
    state: dict[str, torch.Tensor] = {}
    for file in base.weights:
        if any(name.startswith(MERGER) for name in file.tensors):
            found = read_weights(file)[0]
            state |= {name.removeprefix(MERGER): t.float() for name, t in found.items() if name.startswith(MERGER)}
    require_finite(state, base.path.name)
    merger.load_state_dict(state)
    return merger.to(device).eval().requires_grad_(False)


def grid_positions(before: int, grid: tuple[int, int, int], after: int, device: torch.device | str) -> torch.Tensor:
    """Places of the tokens of a prompt with a volume in it, as Qwen3.5 counts those of a picture.

    Parameters
    ----------
    before, after : int
        Tokens of text before and after the volume.
    grid : tuple of int
        Patches along slices, rows and columns; their tokens come in that order, columns fastest.

    Returns
    -------
    torch.Tensor
        int64, shape (3, 1, tokens): places along slices, rows, columns. Text has the same three.
    """
    text = torch.arange(before)
    volume = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")).flatten(1) + before
    rest = torch.arange(after) + before + max(grid[1:])
    parts = (text.expand(3, -1), volume, rest.expand(3, -1))
    return torch.cat(parts, dim=1)[:, None].to(device)
