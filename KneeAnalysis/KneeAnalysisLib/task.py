"""The analysis as a task that any runner runs; networks stay loaded between runs."""

from __future__ import annotations

from contextlib import nullcontext

from KneeAnalysisLib.chain import KneeChain
from KneeAnalysisLib.engines import SegmentTask
from KneeAnalysisLib.exports import write_results
from KneeAnalysisLib.request import KneeRequest
from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.stepstore import reserved
from MedAILib.jobs.task import Context


class KneeTask:
    """Analyses a knee and, where the request names a folder, writes the result files."""

    def __init__(self) -> None:
        self._segmenter = SegmentTask()

    def run(self, request: KneeRequest, context: Context) -> KneeResult:
        """Run the request.

        Raises
        ------
        ConfigError
            The request cannot be run; all problems at once.
        TimedOut, Cancelled, OutOfMemory, GpuOutOfMemory, SegmentationFailed, InputError
            Steps finished before are kept in the request's folder.
        OutputError
            A result file could not be written.
        InUse
            Another analysis is writing to the request's folder.
        """
        with nullcontext() if request.out is None else reserved(request.out):
            result = KneeChain(request, context, self._segmenter).run()
            for note in result.notes:
                context.warn(note)
            if request.out is not None:
                context.progress("Writing files", 0.99)
                write_results(result, request.out)
        return result
