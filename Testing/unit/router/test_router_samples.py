"""The pictures that come with the module, answered by the models that come with it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no model can run")

from MedAILib.jobs.runner import InProcessRunner
from MedMNISTRouterLib.files_task import TASK, FilesRequest
from MedMNISTRouterLib.request import ROUTER, Answer, RouteRequest
from MedMNISTRouterLib.slots import SlotKind, Slots
from MedMNISTRouterLib.summary import State, state_of


@pytest.fixture(scope="module")
def answers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """By the picture's name, with an empty store: only embedded models answer."""
    home = tmp_path_factory.mktemp("empty store")
    if Slots(home).find(ROUTER).kind is not SlotKind.EMBEDDED:
        pytest.skip("the embedded router is not in this tree")
    samples = repository / "MedMNISTRouter" / "Resources" / "SampleData"
    request = FilesRequest((samples / "*.png",), how=RouteRequest((), models_folder=home))
    found = InProcessRunner().run(TASK, request).result.answers
    return {answer.image.removeprefix("MedMNISTRouter").removesuffix(".png"): answer for answer in found}


def test_the_radiograph_and_the_tissue_section_reach_their_experts(answers: dict[str, Answer]) -> None:
    assert answers["ChestRadiograph"].routed_dataset == "pneumoniamnist"
    assert answers["ChestRadiograph"].predicted_class_name == "pneumonia"
    assert answers["TissueSection"].routed_dataset == "pathmnist"
    for name in ("ChestRadiograph", "TissueSection"):
        assert state_of(answers[name]) is State.ANSWERED and answers[name].calibrated


def test_a_head_ct_is_known_and_has_no_expert(answers: dict[str, Answer]) -> None:
    assert state_of(answers["HeadCT"]) is State.NO_EXPERT
    assert answers["HeadCT"].routes[0].name == "head CT"


def test_a_blood_smear_is_not_recognised(answers: dict[str, Answer]) -> None:
    answer = answers["BloodSmear"]
    assert state_of(answer) is State.NOT_RECOGNISED
    assert answer.distance is not None and answer.threshold is not None and answer.distance > answer.threshold
    assert answer.predicted_class_name == ""
