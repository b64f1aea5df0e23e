"""Commands of two words, such as ``medai train multitask``: groups that several parts may add to."""

from __future__ import annotations

from typing import Any


def command_group(commands: Any, name: str, summary: str) -> Any:
    """The sub-parsers of a group, which is made where it does not exist yet.

    Parameters
    ----------
    commands : sub-parsers of `argparse`
        Where the group belongs.
    name : str
        First word.
    summary : str
        One line for the help; of the first who asks for the group.
    """
    parser = commands.choices.get(name) or commands.add_parser(name, help=summary, description=f"{summary}.")
    members = getattr(parser, "members", None)
    if members is None:
        members = parser.add_subparsers(title="commands", metavar="COMMAND", dest=f"{name}_command", required=True)
        parser.members = members
    return members
