"""The command ``medai``: sub-commands of every feature, and a few of its own.

A feature adds commands through a function that gets the sub-parsers of `argparse`::

    def add_commands(commands):
        parser = commands.add_parser("propagate", help="...", description="...")
        parser.add_argument("--volume", type=Path, required=True)
        parser.set_defaults(run=propagate)

    def propagate(arguments: argparse.Namespace, console: Console) -> int | None: ...

``run`` imports what it needs when it is called, reports through the `Console`, raises `MedAIError`, and
answers an exit code or None for success. Every parser also takes the options ``--json``, ``--quiet``
and ``--debug``, which the console has already heeded.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from MedAILib import __version__
from MedAILib.cli.commands import add_own_commands
from MedAILib.cli.console import Console
from MedAILib.errors import Cancelled, InputError, MedAIError
from MedAILib.features import BrokenFeature, Discovery, broken_feature, discover_features
from MedAILib.jobs.process import PATIENT_THREADS

BROKEN_PIPE_STATUS = 141
EXIT_CODES = {
    0: "done",
    1: "an unexpected error",
    2: "the input or the options cannot be used",
    3: "done in part; what is done has been saved",
    4: "a result could not be written",
    5: "the work itself failed, for example for want of memory",
    6: "a Python package is missing",
    7: "a model is not installed",
    8: "a weight file or its description is damaged, unsafe or not what it should be",
    9: "a licence has not been accepted",
    10: "a download failed; the next try goes on from where it stopped",
    11: "another process is working on the same file or folder",
    130: "cancelled",
    BROKEN_PIPE_STATUS: "the reader of the output went away",
}


class CommandParser(argparse.ArgumentParser):
    """A parser with the options that all commands share, whose complaints are errors of our hierarchy."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)
        shared = self.add_argument_group("output")
        # No defaults here: those of a sub-command would undo what was given before its name.
        shared.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="write one JSON document to standard output",
        )
        shared.add_argument(
            "--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress and no remarks"
        )
        shared.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="log everything; show tracebacks"
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].upper()}{message[1:]}.", todo=f"See '{self.prog} --help'.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; default: ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code, see `EXIT_CODES`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for name, value in PATIENT_THREADS.items():  # heeded by libraries that are loaded from here on
        os.environ.setdefault(name, value)
    console = Console(json_output="--json" in argv, quiet="--quiet" in argv, debug="--debug" in argv)
    try:
        with _logging_to_stderr(console):
            status = _run(argv, console)
        console.finish()
    except BrokenPipeError:
        _discard_standard_output()
        return BROKEN_PIPE_STATUS
    return status


def _run(argv: list[str], console: Console) -> int:
    try:
        arguments = _parse(argv, console)
        return int(arguments.run(arguments, console) or 0)
    except MedAIError as error:
        console.error(error)
        return error.exit_status
    except SystemExit as leaving:  # --help and --version, through argparse
        return leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt:
        console.error(Cancelled("Interrupted."))
        return Cancelled.exit_status
    except BrokenPipeError:
        raise
    except Exception as error:  # the border of the program
        found = _unexpected(error, console.debug)
        console.error(found)
        return found.exit_status


def _parse(argv: list[str], console: Console) -> argparse.Namespace:
    parser, broken = build_parser(discover_features())
    try:
        return parser.parse_args(argv)
    except InputError:
        for item in broken:  # its command may be what was asked for
            console.warn(item.error.text)
        raise


def build_parser(discovery: Discovery) -> tuple[argparse.ArgumentParser, tuple[BrokenFeature, ...]]:
    """The parser with the commands of all features, and the features that have none because they are broken."""
    parser = CommandParser(prog="medai", description="MedAI: segmentation tools for medical images. Research use only.")
    parser.add_argument("--version", action="version", version=f"medai {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    broken = list(discovery.broken)
    for feature in discovery.features:
        try:
            add_commands = feature.load_commands()
            if add_commands is not None:
                add_commands(commands)
        except Exception as error:  # foreign code: the other features go on
            broken.append(broken_feature(feature.name, error))
    add_own_commands(commands)
    parser.epilog = _epilog(broken)
    return parser, tuple(broken)


def _epilog(broken: Sequence[BrokenFeature]) -> str:
    lines = ["exit codes:", *(f"  {status:>3}  {meaning}" for status, meaning in EXIT_CODES.items())]
    if broken:
        lines += ["", "not available:", *(f"  {item.name}: {item.error.text}" for item in broken)]
    return "\n".join(lines)


def _unexpected(error: Exception, debug: bool) -> MedAIError:
    """An error that names where its traceback is: on the screen with ``--debug``, else in a file."""
    details = "".join(traceback.format_exception(error))
    found = MedAIError(f"An unexpected error: {type(error).__name__}: {error}.", todo="Please report it.")
    if debug:
        found.details = details
    else:
        file = _write_log(details)
        where = f"The traceback is in '{file}'" if file else "Run the command with --debug for the traceback"
        found.todo = f"{where}; please report it."
    return found


def _write_log(details: str) -> Path | None:
    try:
        handle, name = tempfile.mkstemp(prefix="medai-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"medai {__version__}, Python {sys.version}\n{details}")
    except OSError:
        return None
    return Path(name)


@contextmanager
def _logging_to_stderr(console: Console) -> Iterator[None]:
    """Log to standard error while a command runs: warnings, with ``--debug`` everything of ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if console.debug else logging.ERROR if console.quiet else logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def _discard_standard_output() -> None:
    """Let Python's flush at exit go nowhere instead of complaining."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
