"""The engine ``llm``: a language model writes the report from the finding table and from what an encoder saw.

What it writes is a draft. Nobody sees it before `CTReportLib.guard.guard_generated` has held every sentence against the
table. Needs torch and transformers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING

from CTReportLib.language.answer import read_answer
from MedAILib.jobs.task import Context
from MedAILib.models.torchuse import exact_arithmetic, torch_threads

if TYPE_CHECKING:
    from CTReportLib.language.decode import Written
    from CTReportLib.language.loading import LanguageModel
    from CTReportLib.measurement import Measurement
    from CTReportLib.nets.features import Features
    from CTReportLib.report import Facts
    from CTReportLib.request import FindingRow

LOADING, WRITING = "Loading the language model", "Writing the report"


@dataclass(frozen=True)
class Draft:
    """What a language model wrote; to be guarded before it is shown.

    Attributes
    ----------
    text : str
        The report, without the model's thoughts and without its list of labels.
    complete : bool
        False where it was stopped at the limit, or left something open.
    tokens : int
        Written ones, those of thoughts included.
    seconds : float
        From the first to the last token.
    prompt : str
        What it was asked.
    models : tuple of str
        Names and hashes of everything the text rests on.
    labels : tuple of str
        As the model listed them by itself; empty where it does not.
    """

    text: str
    complete: bool
    tokens: int
    seconds: float
    prompt: str
    models: tuple[str, ...]
    labels: tuple[str, ...] = ()


def write_report(
    folder: Path,
    table: Sequence[FindingRow],
    measurements: Sequence[Measurement],
    facts: Facts,
    features: Features | None,
    context: Context,
    max_new_tokens: int | None = None,
    *,
    encoder_sha256: str = "",
    fractions: tuple[float, float] = (0.9, 1.0),
) -> Draft:
    """Let a language model write the report; it is loaded for this and let go of afterwards, whatever happens.

    Parameters
    ----------
    folder : Path
        See `CTReportLib.language.folder`.
    table : sequence of FindingRow
    measurements : sequence of Measurement
    facts : Facts
        Neither is told to the model: its prompt is the published one, of the table alone.
    features : Features or None
        What an encoder saw, of one volume; used where the model has a projector for it.
    context : Context
        Is told the tokens and how many of them a second; cancels between two tokens.
    max_new_tokens : int, optional
        Default: as many as the model's reports usually need at most.
    encoder_sha256 : str
        Of the encoder that saw the features, where it is known.
    fractions : tuple of float
        Which part of the whole run this is.

    Raises
    ------
    NotEnoughMemory
        The model would not fit; nothing was loaded.
    ConfigError, ConfigMismatch, InvalidWeights, FileMissing, MissingPackage
        See `CTReportLib.language.loading.load_language_model`.
    Cancelled
    """
    with torch_threads(context.threads), using(folder, context, fractions[0]) as model:
        return draft_report(
            model, table, features, context, max_new_tokens, encoder_sha256=encoder_sha256, fractions=fractions
        )


@contextmanager
def using(folder: Path, context: Context, fraction: float = 0.0) -> Iterator[LanguageModel]:
    """A loaded language model within a block; at its end its memory is given back."""
    from CTReportLib.language.loading import load_language_model, release_memory

    context.progress(LOADING, fraction)
    model: LanguageModel | None = None
    try:
        model = load_language_model(folder, context.device, check=context.check)
        yield model
    except BaseException as error:
        clear_frames(error.__traceback__)  # they would hold the network for as long as somebody looks at the error
        raise
    finally:
        if model is not None:
            model.close()
        else:
            release_memory()


def draft_report(
    model: LanguageModel,
    table: Sequence[FindingRow],
    features: Features | None,
    context: Context,
    max_new_tokens: int | None = None,
    *,
    encoder_sha256: str = "",
    fractions: tuple[float, float] = (0.9, 1.0),
) -> Draft:
    """Let a loaded language model write; parameters and errors as `write_report`."""
    from CTReportLib.language.asking import ask
    from CTReportLib.language.decode import greedy

    limit = model.folder.new_tokens if max_new_tokens is None else max_new_tokens
    with exact_arithmetic():
        asked = ask(model, table, features, limit, context, encoder_sha256)
        clock = _Clock(context, limit, fractions)
        written = greedy(model.network, asked.batch, model.tokens.stop_ids, limit, clock.told, asked.positions)
    used = [one for one in model.used if asked.picture or not one[0].endswith("/projector")]
    for name, sha256 in used:
        context.used_weights(name, sha256)
    return _draft(
        model, written, asked.prompt, clock.seconds, tuple(f"{name} sha256:{sha256}" for name, sha256 in used)
    )


class _Clock:
    """Tells the context how the writing goes."""

    def __init__(self, context: Context, limit: int, fractions: tuple[float, float]) -> None:
        self._context, self._limit, self._fractions = context, limit, fractions
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the writing began."""
        return time.perf_counter() - self._started

    def told(self, count: int) -> None:
        start, end = self._fractions
        rate = count / max(self.seconds, 1e-6)
        detail = f"{count} tokens, {rate:.1f} tokens/s" if count else "reading the findings"
        left_s = (self._limit - count) / rate if count else None
        self._context.progress(WRITING, start + (end - start) * count / max(self._limit, 1), detail, left_s)


def _draft(model: LanguageModel, written: Written, prompt: str, seconds: float, used: tuple[str, ...]) -> Draft:
    answer = read_answer(model.tokens.decode(written.ids), prompt)
    complete = written.finished and answer.complete
    return Draft(answer.report, complete, len(written.ids), seconds, prompt, used, answer.labels)
