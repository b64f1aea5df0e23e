"""The routing task for files: it reads them where it runs, a few at a time, so that no face waits for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from MedAILib.jobs.task import Context, Progress
from MedMNISTRouterLib.inputs import Reading, found_files, read_batches
from MedMNISTRouterLib.request import Answer, CacheStats, RouteRequest, RouteResult
from MedMNISTRouterLib.task import RouteTask

TASK = "MedMNISTRouterLib.files_task:RouteFilesTask"
"""Name of the task that all faces use: with one task in a runner every model is loaded once."""


@dataclass(frozen=True, eq=False)
class FilesRequest:
    """Route the pictures in files.

    Attributes
    ----------
    paths : tuple of Path
        Files, folders and patterns, see `MedMNISTRouterLib.inputs.found_files`; absolute.
    reading : Reading
    how : RouteRequest
        Everything but the pictures.
    """

    paths: tuple[Path, ...]
    reading: Reading = field(default_factory=Reading)
    how: RouteRequest = field(default_factory=lambda: RouteRequest(()))


class RouteFilesTask(RouteTask):
    """Answers `FilesRequest`, and `RouteRequest` as `RouteTask` does; models stay loaded from one to the next."""

    def run(self, request: RouteRequest | FilesRequest, context: Context) -> RouteResult:
        """Route pictures.

        Returns
        -------
        RouteResult
            Of files: an answer for every picture, and one with an error for every file that cannot be read.

        Raises
        ------
        FileMissing
            A folder without pictures, or a pattern that nothing matches.
        InputError
            The request cannot be understood.
        Cancelled
        """
        if isinstance(request, RouteRequest):
            return super().run(request, context)
        context.progress("Looking for files", 0.0)
        files, remarks = found_files(request.paths)
        answers: list[Answer] = []
        warnings, cache, done = [*remarks], CacheStats(), 0
        for batch, count in read_batches(files, request.reading):
            context.progress("Reading files", done / len(files), f"{done + count} of {len(files)}")
            if batch.images:
                part = _part(context, done / len(files), count / len(files))
                result = super().run(replace(request.how, images=batch.images), part)
                warnings += result.warnings
                cache = result.cache
                answers += batch.merged(result.answers)
            else:
                answers += batch.merged(())
            done += count
        return RouteResult(tuple(answers), cache, tuple(dict.fromkeys(warnings)))


def _part(context: Context, start: float, share: float) -> Context:
    """A context whose whole is a part of another one's."""

    def tell(progress: Progress) -> None:
        context.progress(progress.stage, start + share * progress.fraction, progress.detail)

    return replace(context, on_progress=tell, stages={})
