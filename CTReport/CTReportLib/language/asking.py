"""The question to a loaded language model, with the picture where it reads one. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from CTReportLib.language.loading import LanguageModel
from CTReportLib.language.prompt import report_prompt
from CTReportLib.language.reason import grid_positions
from CTReportLib.language.reasonfolder import ENCODER, ReasonSettings
from CTReportLib.language.sequences import Reading, reading
from CTReportLib.nets.features import Features
from CTReportLib.request import FindingRow
from MedAILib.errors import ConfigError, ConfigMismatch
from MedAILib.jobs.task import Context


@dataclass(frozen=True, eq=False)
class Asked:
    """What a language model is about to read.

    Attributes
    ----------
    prompt : str
    batch : Reading
        Of one text.
    positions : torch.Tensor or None
        See `CTReportLib.language.decode.greedy`.
    picture : bool
        Whether the picture is part of it.
    """

    prompt: str
    batch: Reading
    positions: torch.Tensor | None
    picture: bool


def ask(
    model: LanguageModel,
    table: Sequence[FindingRow],
    features: Features | None,
    max_new_tokens: int,
    context: Context,
    encoder_sha256: str = "",
) -> Asked:
    """Put the question together; parameters and errors as `CTReportLib.language.engine.write_report`."""
    reason = model.folder.reason
    if reason is not None:
        return _ask_reason(model, reason, features, max_new_tokens, context, encoder_sha256)
    prompt = report_prompt(table)
    visual = _visual_tokens(model, features, encoder_sha256, context)
    ids = model.tokens.encode(prompt)
    longest = model.folder.settings.prompt_tokens
    if len(ids) > longest:
        context.warn(
            f"The findings make a prompt of {len(ids)} tokens; the language model was trained with up to {longest}."
        )
    _require_room(model, (0 if visual is None else visual.shape[1]) + len(ids), max_new_tokens)
    return Asked(prompt, reading(model.network, [ids], visual), None, visual is not None)


def _ask_reason(
    model: LanguageModel,
    settings: ReasonSettings,
    features: Features | None,
    max_new_tokens: int,
    context: Context,
    encoder_sha256: str,
) -> Asked:
    """NV-Reason-CT is told nothing of the table: it reads the picture, and the guard reads it."""
    if features is None or model.picture is None:
        raise ConfigError(
            "NV-Reason-CT writes from what its encoder sees, and none was asked.",
            todo=f"Give as encoder the file of the model that holds the tensors {ENCODER}*.",
        )
    if features.grid != settings.grid:
        raise ConfigMismatch(
            "The encoder's features do not have the grid that NV-Reason-CT reads.",
            why=f"They are {features.grid} patches; {settings.grid} are expected.",
            todo="Give the encoder that lies within the same model.",
        )
    if encoder_sha256 and encoder_sha256 not in model.file_hashes:
        context.warn("The encoder is in no file of the language model; whether it is the model's own was not checked.")
    before, after = settings.prompt
    ids = [model.tokens.encode(part, special=False) for part in (before, after)]
    _require_room(model, sum(map(len, ids)) + settings.visual_tokens, max_new_tokens)
    text = reading(model.network, [[*ids[0], *ids[1]]]).embeddings
    at = len(ids[0])
    visual = model.picture(features).to(text)
    embeddings = torch.cat([text[:, :at], visual, text[:, at:]], dim=1)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
    positions = grid_positions(at, settings.grid, len(ids[1]), embeddings.device)
    return Asked(f"{before}[picture]{after}", Reading(embeddings, mask, torch.zeros_like(mask)), positions, True)


def _visual_tokens(
    model: LanguageModel, features: Features | None, encoder_sha256: str, context: Context
) -> torch.Tensor | None:
    if model.picture is None:
        return None
    if features is None:
        context.warn(
            "The language model can read the image's features too, and got none: it writes from the table alone."
        )
        return None
    wanted = model.encoder_sha256
    if wanted and encoder_sha256 and wanted != encoder_sha256:
        raise ConfigMismatch(
            "The projector was trained with another encoder.",
            why=f"Its encoder's weights have the hash {wanted[:12]}..., those used here {encoder_sha256[:12]}...",
            todo="Choose the encoder that belongs to the language model.",
        )
    tokens: torch.Tensor = model.picture(features)
    return tokens


def _require_room(model: LanguageModel, read: int, max_new_tokens: int) -> None:
    if max_new_tokens < 1 or read + max_new_tokens > model.context_tokens:
        raise ConfigError(
            f"The language model cannot write {max_new_tokens} tokens.",
            why=f"With picture and prompt that makes {read + max_new_tokens}; it can read and write "
            f"{model.context_tokens} together.",
            todo="Ask for fewer, at least one.",
        )
