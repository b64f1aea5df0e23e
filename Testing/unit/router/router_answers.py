"""Answers of every kind, as the engine gives them."""

from __future__ import annotations

from MedMNISTRouterLib.datasets import BY_FLAG, DatasetTask
from MedMNISTRouterLib.request import Answer, Engine, ModelUsed, Positive, Route, Stage

ROUTER = ModelUsed("router", "a-router", "ab" * 32, Engine.ONNX)
EXPERT = ModelUsed("pneumoniamnist", "an-expert", "cd" * 32, Engine.ONNX)
ROUTES = (
    Route("chest radiograph", "pneumoniamnist", 0.98, True),
    Route("hand radiograph", "", 0.015, False),
    Route("chestmnist", "chestmnist", 0.005, False),
)


def an_answer(flag: str, probabilities: tuple[float, ...], task: DatasetTask, **others: object) -> Answer:
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    facts = {
        "calibrated": True,
        "recognised": True,
        "distance": 6.25,
        "threshold": 11.5,
        "routes": ROUTES,
        "models": (ROUTER, EXPERT),
        "milliseconds": {"prepare": 0.5, "total": 2.25},
        "engine": Engine.ONNX,
        **others,
    }
    return Answer(
        "x.png", True, flag, 0.98, best, probabilities[best], probabilities, BY_FLAG[flag].class_names, task, **facts
    )  # type: ignore[arg-type]


PNEUMONIA = an_answer("pneumoniamnist", (0.027, 0.973), DatasetTask.BINARY)
FINDINGS = an_answer(
    "chestmnist",
    (0.62, 0.08, 0.55, *(0.01,) * 11),
    DatasetTask.MULTI_LABEL,
    positives=(Positive(0, "atelectasis", 0.62, 0.41), Positive(2, "effusion", 0.55, 0.38)),
)
NO_FINDING = an_answer("chestmnist", (0.1, *(0.01,) * 13), DatasetTask.MULTI_LABEL)
GRADE = an_answer("retinamnist", (0.05, 0.2, 0.5, 0.2, 0.05), DatasetTask.ORDINAL, expected_grade=2.0, calibrated=False)
TURNED_AWAY = Answer(
    "smear.png",
    distance=48.7,
    threshold=11.5,
    stage=Stage.ROUTER,
    reason="It is far away.",
    routes=ROUTES,
    models=(ROUTER,),
)
KIND_WITHOUT_EXPERT = Answer(
    "head.png",
    recognised=True,
    router_confidence=0.99,
    routes=(Route("head CT", "", 0.99, False),),
    error="None of the twelve data sets has such images.",
    error_code="NO_EXPERT",
)
NOT_INSTALLED = Answer(
    "cell.png",
    recognised=True,
    routed_dataset="bloodmnist",
    error="The weights are not installed.",
    error_code="MODEL_NOT_INSTALLED",
)
BROKEN = Answer("broken.png", error="It is an empty file.", error_code="INVALID_FORMAT")
ALL = (PNEUMONIA, FINDINGS, NO_FINDING, GRADE, TURNED_AWAY, KIND_WITHOUT_EXPERT, NOT_INSTALLED, BROKEN)
