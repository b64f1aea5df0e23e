"""Python files read without running them."""

from __future__ import annotations

import ast
from pathlib import Path

FRAMEWORKS = {"torch", "tensorflow", "keras", "transformers"}
"""Deep learning frameworks: seconds to import, and not installed where no network is used."""


def parse(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_at_file_scope(tree: ast.Module) -> set[str]:
    """Top-level packages that come in with the file, also from within `if` and `try`; not for type checking only."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    return names
