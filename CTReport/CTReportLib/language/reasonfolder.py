"""The folder of NV-Reason-CT, an open vision-language model of 2026 for CT, as we read it. Needs no torch.

What is known of it here: its parts and the names and shapes of their tensors, its questions and the form of its answer.
What is not, and is therefore asked for in the description instead of guessed: the text around the picture in its
prompt (``before``, ``after``; they are in its own chat template and processor), and how the picture's tokens are
counted (``positions``). Where the description does not state them the model is refused.

    my-reason-ct/
        model_config.json       architecture nv_reason_ct, with the settings below
        config.json ...         the files as published

It was never run here with the published weights: only with small networks of the same names and forms.

Source: NV-Reason-CT (NVIDIA, 2026, arXiv 2609.27511), its published configuration and code, read for facts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from CTReportLib.language.basefolder import BaseFolder
from MedAILib.errors import ConfigError, InvalidWeights
from MedAILib.models.config import ModelConfig
from MedAILib.models.infer import shape_text

ARCHITECTURE, CLASS = "nv_reason_ct", "VLM3D_ForConditionalGeneration"
MERGER, ENCODER = "model.vision3d.merger.", "model.vision3d.sub_vision."
"""What the names of the tensors begin with that turn the encoder's features into tokens, and of the encoder itself."""
QUESTION, QUESTION_PLACE = "write a structured chest CT report", "{question}"
POSITIONS = ("grid",)
"""``grid``: as Qwen3.5 counts a picture: slices, rows and columns each from the place where the picture begins, and
the text after it on from the longer of rows and columns."""
_PARTS = (MERGER, ENCODER, "model.language_model.", "lm_head.", "model.visual.", "mtp.")
"""All that its files hold: the last two are not used here, a tower for photographs and a network for guessing ahead."""
_UNSTATED = ("before", "after", "positions")


@dataclass(frozen=True)
class ReasonSettings:
    """How NV-Reason-CT is asked; the parameters of its description.

    Attributes
    ----------
    before, after : str
        The prompt around the picture; ``{question}`` in ``after`` stands for the question.
    positions : str
        One of `POSITIONS`.
    question : str
    grid : tuple of int
        Patches along slices, rows and columns.
    dtype : str
        As `CTReportLib.language.folder.Settings.dtype`.
    new_tokens : int
        The most tokens of an answer, its thoughts included.
    """

    before: str
    after: str
    positions: str
    question: str = QUESTION
    grid: tuple[int, int, int] = (24, 24, 24)
    dtype: str = "auto"
    new_tokens: int = 2048

    @property
    def visual_tokens(self) -> int:
        """How many tokens a volume becomes."""
        return math.prod(self.grid)

    @property
    def encoder_tensors(self) -> str:
        """What the names of its encoder's tensors begin with."""
        return ENCODER

    @property
    def prompt(self) -> tuple[str, str]:
        """The text before and after the picture."""
        return self.before, self.after.replace(QUESTION_PLACE, self.question)


def is_reason(config: ModelConfig) -> bool:
    """Whether a description is of this model."""
    return config.architecture.name == ARCHITECTURE


def refuse_undescribed(folder: Path, stated: Mapping[str, Any]) -> None:
    """Say of the published folder by itself what is missing beside it.

    Raises
    ------
    ConfigError
        Where it is this model's.
    """
    if CLASS in (stated.get("architectures") or ()):
        raise ConfigError(
            f"'{folder.name}' is NV-Reason-CT, and nothing says how it is asked.",
            why=f"Its own program code is never run here, and {', '.join(_UNSTATED)} are not known without it.",
            todo=f"Write a model_config.json with the architecture {ARCHITECTURE} that states them.",
        )


def reason_settings_of(config: ModelConfig, folder: Path) -> ReasonSettings:
    """The settings a description states.

    Raises
    ------
    ConfigError
        One that is not known here is not stated, or one is wrong.
    """
    stated = config.get_model_params()
    known = {one.name for one in fields(ReasonSettings)}
    problems = [f"'{name}' is not stated, and is not guessed" for name in _UNSTATED if not stated.get(name)]
    problems += [f"the setting '{name}' is not known" for name in stated if name not in known]
    if stated.get("positions") not in (None, "", *POSITIONS):
        problems.append(f"positions '{stated['positions']}' are not known; {', '.join(POSITIONS)} are")
    if stated.get("after") and QUESTION_PLACE not in str(stated["after"]):
        problems.append(f"'after' has no {QUESTION_PLACE}")
    grid = stated.get("grid", [24, 24, 24])
    if not (isinstance(grid, list | tuple) and len(grid) == 3 and all(type(n) is int and n > 0 for n in grid)):
        problems.append(f"grid {grid} is not three numbers of patches")
    if problems:
        raise ConfigError(
            f"The description of NV-Reason-CT in '{folder.name}' does not say how it is asked.",
            why=f"The problem: {'; '.join(problems)}.",
            todo="Take them from the model's own chat template and processor.",
        )
    a, b, c = grid
    return ReasonSettings(**{**stated, "grid": (a, b, c)})


def check_parts(base: BaseFolder) -> None:
    """Check from the headers that the files hold this model, and that its merger fits the language model.

    Raises
    ------
    InvalidWeights
        The merger is not there, or its shapes do not fit each other or the language model; or there are tensors of
        which nothing is known.
    """
    unknown = [name for file in base.weights for name in file.shapes if not name.startswith(_PARTS)]
    if unknown:
        raise InvalidWeights(
            f"The weights in '{base.path.name}' are not those of NV-Reason-CT.",
            why=f"They hold {len(unknown)} tensors of which nothing is known, such as {unknown[0]}.",
            todo="Get the model as published.",
        )
    shapes = merger_shapes(base)
    width = next(iter(shapes.get("norm.weight", ())), 0)
    wanted = {
        "norm.weight": (width,),
        "norm.bias": (width,),
        "linear_fc1.weight": (width, width),
        "linear_fc1.bias": (width,),
        "linear_fc2.weight": (base.width, width),
        "linear_fc2.bias": (base.width,),
    }
    for name in sorted(wanted.keys() | shapes.keys()):
        if shapes.get(name) != wanted.get(name) or not width:
            has = f"has the shape {shape_text(shapes[name])}" if name in shapes else "is missing"
            raise InvalidWeights(
                f"The weights in '{base.path.name}' are not those of NV-Reason-CT.",
                why=f"'{MERGER}{name}' {has}; a merger to vectors of {base.width} is expected.",
                todo="Get the whole model.",
            )


def merger_shapes(base: BaseFolder) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the merger's tensors, without what its names begin with."""
    items = (item for file in base.weights for item in file.shapes.items())
    return {name.removeprefix(MERGER): shape for name, shape in items if name.startswith(MERGER)}
