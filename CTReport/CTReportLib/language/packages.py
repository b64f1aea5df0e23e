"""The packages that language models need, imported when a function is called."""

from __future__ import annotations

from types import ModuleType

from MedAILib.errors import MissingPackage
from MedAILib.models.torchmodel import import_torch

INSTALL = "pip install slicer-medai[ct-language]"


def import_transformers() -> ModuleType:
    """The module transformers, silent and without progress bars of its own, or `MissingPackage`."""
    import_torch()
    try:
        import transformers
    except (ImportError, RuntimeError) as error:
        raise _missing("transformers", error) from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def import_peft() -> ModuleType:
    """The module peft, or `MissingPackage`."""
    import_transformers()
    try:
        import peft
    except (ImportError, RuntimeError) as error:
        raise _missing("peft", error) from error
    return peft


def _missing(name: str, error: Exception) -> MissingPackage:
    why = f"{str(error).splitlines()[0] if str(error) else type(error).__name__}."
    if "torchvision" in str(error):
        why += " torchvision does not fit the installed PyTorch; it is not needed here and may be uninstalled."
    return MissingPackage(f"Language models need the package {name}, which cannot be imported.", why=why, todo=INSTALL)
