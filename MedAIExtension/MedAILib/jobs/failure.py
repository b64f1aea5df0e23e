"""Failures of a run as errors of our hierarchy: exceptions, errors from a worker, a worker's death."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from MedAILib.errors import JobError, MedAIError, MissingPackage, OutOfMemory, WorkerDied, error_types

TRACEBACK_LINES = 25
SIGKILL = 9
CRASH_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 10: "SIGBUS", 11: "SIGSEGV"}
"""Numbers of Linux and macOS, also where the `signal` module lacks them."""
_WINDOWS_CRASHES = {0xC0000005: 11, 0xC000001D: 4, 0xC0000409: 6, 0xC0000374: 6, 0xC0000094: 8}
_WINDOWS_OUT_OF_MEMORY = (0xC0000017, 0xC000012D)

_OUT_OF_MEMORY_TODO = "Close other programs, use a smaller region or fewer segments, or a machine with more memory."
_REPORT_TODO = "Run it again; if it happens again, please report it with the details in the log."


def as_medai_error(error: BaseException) -> MedAIError:
    """The error a user can be told about, for anything a task raised.

    A `MedAIError` is returned as it is; ``MemoryError`` becomes `OutOfMemory`, a package that cannot be
    imported `MissingPackage`, anything else `JobError` with the end of the traceback in ``details``.
    """
    if isinstance(error, MedAIError):
        return error
    found = _translate(error)
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    found.details = "\n".join(lines[-TRACEBACK_LINES:])
    found.__cause__ = error
    return found


def _translate(error: BaseException) -> MedAIError:
    if isinstance(error, MemoryError) or _ran_out_of_gpu_memory(error):
        return OutOfMemory("The run needed more memory than there is.", why=_sentence(error), todo=_OUT_OF_MEMORY_TODO)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package and package != __name__.partition(".")[0]:
        return MissingPackage(
            f"The Python package '{package}' is not installed.",
            why="This function needs it.",
            todo=f"Install it into the Python that runs the job, for example: pip install {package}",
        )
    if isinstance(error, ImportError) and package != __name__.partition(".")[0]:
        return MissingPackage(
            f"A Python package could not be loaded: {_sentence(error)}",
            why="It is damaged or does not fit the other packages.",
            todo="Install it again into the Python that runs the job.",
        )
    return JobError(
        "The run stopped on an unexpected error.", why=f"{type(error).__name__}: {_sentence(error)}", todo=_REPORT_TODO
    )


def _ran_out_of_gpu_memory(error: BaseException) -> bool:
    """True for torch's ``OutOfMemoryError``, told by its name because torch is not imported here."""
    return type(error).__name__ == "OutOfMemoryError" and type(error).__module__.startswith("torch")


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text[-1] in ".!?" else text + "."


def error_to_values(error: MedAIError) -> dict[str, str]:
    """An error as a JSON object: code, what, why, todo, details."""
    return {
        "code": error.code,
        "what": error.what,
        "why": error.why,
        "todo": error.todo,
        "details": error.details,
    }


def error_from_values(values: Mapping[str, Any]) -> MedAIError:
    """The error that `error_to_values` described, of its own class where this process knows that class."""
    kind = error_types().get(str(values.get("code", "")), JobError)
    error = kind.__new__(kind)
    what = str(values.get("what", "")) or "The run failed."
    MedAIError.__init__(error, what, why=str(values.get("why", "")), todo=str(values.get("todo", "")))
    error.details = str(values.get("details", ""))
    return error


def explain_death(exit_code: int | None, stderr_lines: Sequence[str]) -> WorkerDied:
    """Why a worker process ended before it answered, from its exit code and the end of its output.

    Parameters
    ----------
    exit_code : int or None
        As of `subprocess.Popen.returncode`: negative for a signal on POSIX; None where the process
        closed its channel and is still there.
    stderr_lines : sequence of str
        The last lines it wrote to standard error.
    """
    why, todo = _cause_of_death(exit_code, stderr_lines)
    error = WorkerDied("The worker process ended before the run was finished; nothing was changed.", why=why, todo=todo)
    error.details = "\n".join([f"exit code {exit_code}", *stderr_lines])
    return error


def _cause_of_death(exit_code: int | None, stderr_lines: Sequence[str]) -> tuple[str, str]:
    if exit_code is None:
        return "It closed its connection.", _REPORT_TODO
    number = _signal_number(exit_code)
    if number == SIGKILL:
        return "The system killed it, most likely because memory ran out.", _OUT_OF_MEMORY_TODO
    if number in CRASH_SIGNALS:
        return f"A native library crashed in it ({CRASH_SIGNALS[number]}).", _REPORT_TODO
    if number is not None:
        return f"It was ended by signal {_signal_name(number)}.", "Run it again."
    last = next((line.strip() for line in reversed(stderr_lines) if line.strip()), "")
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return f"It could not load what it needs: {last}.", "Install the missing package into the worker's Python."
    return f"It exited with code {exit_code}{': ' + last if last else ''}.", _REPORT_TODO


def _signal_number(exit_code: int) -> int | None:
    """The POSIX signal that an exit code tells of; Windows' crash codes are told by the like signal."""
    if -256 < exit_code < 0:
        return -exit_code
    unsigned = exit_code & 0xFFFFFFFF
    if unsigned in _WINDOWS_OUT_OF_MEMORY:
        return SIGKILL
    return _WINDOWS_CRASHES.get(unsigned)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
