"""One hierarchy of errors: what happened, why probably, what you can do.

Every error the user may meet derives from `MedAIError`. It carries a stable ``code`` (for scripts
and for the worker's messages) and the command line's ``exit_status``; `MedAIError.text` is the
paragraph shown in a window or printed by the command line.
"""

from __future__ import annotations

from typing import ClassVar


class MedAIError(Exception):
    """Something the user can be told about.

    Parameters
    ----------
    what : str
        What happened, one sentence.
    why : str
        The probable cause, one sentence; may be empty.
    todo : str
        What the user can do about it; may be empty.

    Attributes
    ----------
    details : str
        For whoever repairs it, not for the user: the last lines of a traceback or of a worker's
        output; empty where there is nothing to add. Set by the runners.
    """

    code: ClassVar[str] = "MEDAI_ERROR"
    exit_status: ClassVar[int] = 1
    details: str = ""

    def __init__(self, what: str, *, why: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.todo = todo

    @property
    def text(self) -> str:
        """The whole message as one paragraph."""
        return " ".join(part for part in (self.what, self.why, self.todo) if part)

    def __str__(self) -> str:
        return self.text


class InputError(MedAIError):
    """The request or a file it names cannot be used as it is."""

    code = "INVALID_INPUT"
    exit_status = 2


class FileMissing(InputError):
    code = "FILE_NOT_FOUND"


class UnreadableFile(InputError):
    """A file exists and is not what its name says, is damaged, or is of a format we do not read."""

    code = "INVALID_FORMAT"


class DicomError(UnreadableFile):
    """A DICOM folder or file holds no image that can be read, or not the series that was asked for."""

    code = "DICOM_ERROR"


class ConfigError(InputError):
    """Settings, or a combination of them, that cannot be run."""

    code = "CONFIG_ERROR"


class GeometryMismatch(InputError):
    """Two images that must share a voxel grid do not."""

    code = "GEOMETRY_MISMATCH"


class NothingDrawn(InputError):
    """A propagation was asked for and no slice holds a drawing."""

    code = "NOTHING_DRAWN"


class Incomplete(MedAIError):
    """Part of the work is done and saved; the rest is not."""

    code = "INCOMPLETE"
    exit_status = 3


class OutputError(MedAIError):
    """A result could not be written; nothing half-written was left behind."""

    code = "OUTPUT_NOT_WRITTEN"
    exit_status = 4


class JobError(MedAIError):
    """The work itself failed, in this process or in a worker."""

    code = "JOB_FAILED"
    exit_status = 5


class WorkerDied(JobError):
    """The worker process ended before it answered."""

    code = "WORKER_DIED"


class OutOfMemory(JobError):
    code = "OUT_OF_MEMORY"


class NotEnoughMemory(OutOfMemory):
    """Refused before anything was loaded, because it is known not to fit."""

    code = "NOT_ENOUGH_MEMORY"


class MissingPackage(JobError):
    """A Python package that this task needs is not installed."""

    code = "MISSING_PACKAGE"
    exit_status = 6


class ModelNotInstalled(MedAIError):
    """A model is known and its weights are not on this machine."""

    code = "MODEL_NOT_INSTALLED"
    exit_status = 7


class InvalidWeights(MedAIError):
    """A weight file, or the description beside it, is damaged, unsafe or not what it should be."""

    code = "INVALID_WEIGHTS"
    exit_status = 8


class ConfigMismatch(InvalidWeights):
    """A model's description and its weight file contradict each other."""

    code = "CONFIG_MISMATCH"

    @property
    def text(self) -> str:
        """Three lines: the first difference, what the file looks like, the command that mends it."""
        return "\n".join(part for part in (self.what, self.why, self.todo) if part)


class LicenceNotAccepted(MedAIError):
    """The model's licence must be accepted before its weights are fetched or used.

    Attributes
    ----------
    model_id, licence_text : str
        Which licence, and what to show before it is accepted; empty once the error has crossed a process border.
    """

    code = "LICENCE_NOT_ACCEPTED"
    exit_status = 9
    model_id: str = ""
    licence_text: str = ""


class DownloadFailed(MedAIError):
    """Weights could not be fetched; what arrived so far is kept and the next try goes on from there."""

    code = "DOWNLOAD_FAILED"
    exit_status = 10


class InUse(MedAIError):
    """Another process is working on the same file or folder."""

    code = "IN_USE"
    exit_status = 11


class Cancelled(MedAIError):
    code = "CANCELLED"
    exit_status = 130


def error_types() -> dict[str, type[MedAIError]]:
    """Every error class by its code, so that an error can cross a process border and keep its kind."""
    found: dict[str, type[MedAIError]] = {}
    waiting: list[type[MedAIError]] = [MedAIError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    return found
