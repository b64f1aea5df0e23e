"""The routing task, as runners know it."""

from __future__ import annotations

from MedAILib.jobs.task import Context
from MedMNISTRouterLib.engine import RouteEngine
from MedMNISTRouterLib.request import RouteRequest, RouteResult


class RouteTask:
    """Answers `RouteRequest`; models stay loaded as long as the task lives, in a worker from job to job."""

    def __init__(self) -> None:
        self._engine: RouteEngine | None = None
        self._threads = 0

    def run(self, request: RouteRequest, context: Context) -> RouteResult:
        """Route the pictures and let the experts answer.

        Raises
        ------
        InputError
            The request cannot be understood. What is wrong with a picture or a model is said in its answer.
        Cancelled
        """
        if self._engine is None or self._threads != context.threads:
            self.clear()
            self._engine, self._threads = RouteEngine(context.threads), context.threads
        result = self._engine.route(request, context.progress)
        for used in dict.fromkeys(used for answer in result.answers for used in answer.models):
            context.used_weights(used.id, used.sha256)
        return result

    def clear(self) -> None:
        """Close every loaded model."""
        if self._engine is not None:
            self._engine.clear()
