"""The files of a language model's folder with their hashes, which bind its description to them. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from CTReportLib.language import adapterfolder, basefolder
from CTReportLib.language.folder import LanguageFolder
from CTReportLib.language.identity import sha256_of
from MedAILib.errors import ConfigMismatch
from MedAILib.models.config import CONFIG_FILE, FileEntry, FileRole, FileType

_BESIDE = (basefolder.CONFIG, basefolder.GENERATION_CONFIG, basefolder.TOKENIZER, basefolder.WEIGHTS_INDEX)


def files_of(found: LanguageFolder) -> tuple[FileEntry, ...]:
    """Everything in the folder that its texts rest on, for ``ModelConfig.files``; parts that lie elsewhere are left."""
    weights = [file.path for file in found.base.weights]
    others = [found.base.path / name for name in _BESIDE]
    if found.adapter:
        weights.append(found.adapter.weights.path)
        others.append(found.adapter.path / adapterfolder.CONFIG)
    if found.projector:
        weights.append(found.projector.path)
        others.append(found.projector.path.parent / CONFIG_FILE)
    entries = [_entry(path, found.path, FileRole.WEIGHTS, FileType.SAFETENSORS) for path in weights]
    entries += [_entry(path, found.path, FileRole.OTHER, FileType.OTHER) for path in others if path.is_file()]
    return tuple(entry for entry in entries if entry is not None)


def require_bound(found: LanguageFolder) -> None:
    """Refuse files that are not those the description was written for.

    Raises
    ------
    ConfigMismatch
        One has another hash.
    """
    for entry in found.config.files if found.config else ():
        if sha256_of([found.path / entry.path]) != entry.sha256:
            raise ConfigMismatch(
                f"'{found.path / entry.path}' is not the file that the description was written for.",
                why="It has the right size and another SHA-256.",
                todo="Get the model again.",
            )


def _entry(path: Path, folder: Path, role: FileRole, kind: FileType) -> FileEntry | None:
    file, root = path.resolve(), folder.resolve()
    if not file.is_relative_to(root):
        return None
    return FileEntry(file.relative_to(root).as_posix(), role, kind, file.stat().st_size, sha256_of([file]))
