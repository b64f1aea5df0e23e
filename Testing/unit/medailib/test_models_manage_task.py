"""Actions on models as a task: the same in this process and in a worker, with bytes, cancel and licences."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import model_catalogues as make
import pytest
import weight_files
from weight_servers import WeightServer, loopback, sha256_of

from MedAILib.errors import Cancelled, InputError, InvalidWeights
from MedAILib.jobs.runner import InProcessRunner, JobState
from MedAILib.jobs.task import Progress
from MedAILib.jobs.worker_runner import WorkerRunner
from MedAILib.models.catalogue import Catalogue
from MedAILib.models.manage_task import TASK, Action, ManageRequest, ManageResult
from MedAILib.models.manager import Manager
from MedAILib.models.states import State

BIG = weight_files.safetensors_bytes({"origin": "x" * 400_000})
STRICT = {"name": "A Strict Licence", "url": "https://example.org/l", "must_be_accepted": True}


class Place:
    """A store with a catalogue of its own, and a runner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "Größe store"
        self.catalogue = folder / "catalogue.json"
        self.runner = InProcessRunner()

    def write(self, *entries: dict[str, Any]) -> None:
        make.write(self.catalogue, *entries)

    def request(self, action: Action, *model_ids: str, **others: Any) -> ManageRequest:
        return ManageRequest(
            action, model_ids, home=self.home, catalogues=(self.catalogue,), network=loopback(), **others
        )

    def run(self, action: Action, *model_ids: str, **others: Any) -> ManageResult:
        result: ManageResult = self.runner.run(TASK, self.request(action, *model_ids, **others)).result
        return result

    def state(self, model_id: str = "trial") -> State:
        return Manager(self.home, shared=(), catalogue=Catalogue([self.catalogue])).state(model_id).state


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.write(make.entry())
    return found


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "some name.bin"
    path.write_bytes(make.WEIGHTS)
    return path


def _served(server: WeightServer, content: bytes = BIG, **how: Any) -> dict[str, Any]:
    url = server.add("model.safetensors", content, **how)
    return make.file(size=len(content), sha256=sha256_of(content), sources=[{"url": url}])


def test_a_model_goes_its_whole_way(place: Place, weights: Path, tmp_path: Path) -> None:
    assert place.run(Action.IMPORT, path=weights).model_ids == ("trial",)
    assert place.state() is State.INSTALLED
    assert place.run(Action.VERIFY, "trial").model_ids == ("trial",)
    bundle = tmp_path / "out ü.zip"
    assert place.run(Action.EXPORT, "trial", path=bundle).path == bundle
    assert place.run(Action.REMOVE, "trial").freed_bytes > len(make.WEIGHTS)
    assert place.state() is State.NOT_INSTALLED
    assert place.run(Action.IMPORT, path=bundle).model_ids == ("trial",)
    assert place.state() is State.INSTALLED


def test_a_download_in_a_worker_tells_its_bytes_and_the_hash_it_recorded(place: Place) -> None:
    with WeightServer() as server, WorkerRunner(threads=1) as runner:
        file = {**_served(server, pause_s=0.01), "sha256": None}
        place.write(make.entry("trial", {key: value for key, value in file.items() if value is not None}))
        seen: list[Progress] = []
        outcome = runner.run(TASK, place.request(Action.GET, "trial"), seen.append)
    assert outcome.result.first_uses == (f"model.safetensors {sha256_of(BIG)}",)
    assert place.state() is State.INSTALLED
    assert any(one.detail.endswith(" of 400 kB") and one.stage == "Downloading trial" for one in seen), seen
    assert next(iter(outcome.report.stages)) == "Downloading trial" and len(outcome.report.stages) <= 2


def test_a_cancelled_download_goes_on_where_it_stopped(place: Place) -> None:
    with WeightServer() as server, WorkerRunner(threads=1) as runner:
        place.write(make.entry("trial", _served(server, pause_s=0.05)))
        fractions: list[float] = []
        job = runner.start(TASK, place.request(Action.GET, "trial"), lambda one: fractions.append(one.fraction))
        end = time.monotonic() + 20
        while max(fractions, default=0) < 0.3 and time.monotonic() < end:
            job.poll()
        job.cancel()
        assert job.state is JobState.CANCELLED and place.state() is State.PARTIAL
        with pytest.raises(Cancelled):
            job.outcome()
        runner.run(TASK, place.request(Action.GET, "trial"))
        assert place.state() is State.INSTALLED
        assert server.bodies()[-1].sent < len(BIG)


@pytest.mark.parametrize("action", [Action.GET, Action.IMPORT])
def test_a_licence_comes_back_as_a_question_and_is_recorded_when_accepted(
    place: Place, weights: Path, action: Action
) -> None:
    with WeightServer() as server:
        place.write(make.entry("trial", _served(server, make.WEIGHTS), licence=STRICT, terms="Be kind."))
        ids, path = (("trial",), None) if action is Action.GET else ((), weights)
        asked = place.run(action, *ids, path=path)
        assert asked.question is not None and asked.question.model_id == "trial"
        assert "A Strict Licence" in asked.question.text and "Be kind." in asked.question.text
        assert asked.model_ids == () and server.seen == [] and place.state() is State.NOT_INSTALLED
        assert place.run(action, *ids, path=path, accepted=("trial",)).model_ids == ("trial",)
    assert place.state() is State.INSTALLED
    assert '"A Strict Licence"' in (place.home / "licences.json").read_text(encoding="utf-8")


def test_a_bundle_with_a_licence_nobody_here_knows_asks_too(place: Place, weights: Path, tmp_path: Path) -> None:
    place.write(make.entry(licence=STRICT))
    place.run(Action.IMPORT, path=weights, accepted=("trial",))
    bundle = place.run(Action.EXPORT, "trial", path=tmp_path / "b.zip").path
    other = Place(tmp_path / "another machine")
    other.write(make.entry("other"))
    question = other.run(Action.IMPORT, path=bundle).question
    assert question is not None and question.model_id == "trial" and "A Strict Licence" in question.text
    assert other.run(Action.IMPORT, path=bundle, accepted=("trial",)).model_ids == ("trial",)


def test_a_damaged_model_is_named_by_verify(place: Place, weights: Path) -> None:
    place.run(Action.IMPORT, path=weights)
    stored = place.home / "models" / "trial" / "model.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    with pytest.raises(InvalidWeights, match="not the file it should be"):
        place.run(Action.VERIFY, "trial")


def test_what_is_not_taken_is_said(place: Place, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(make.WEIGHTS)
    (folder / "read me.txt").write_text("hello")
    found = place.run(Action.IMPORT, path=folder)
    assert found.model_ids == ("trial",) and len(found.unknown) == 1 and found.unknown[0].startswith("read me.txt: ")


@pytest.mark.parametrize(
    ("action", "ids", "others"),
    [
        (Action.VERIFY, ("trial", "no-such"), {}),
        (Action.IMPORT, (), {}),
        (Action.EXPORT, ("trial",), {}),
        (Action.IMPORT, ("trial", "trial"), {"path": Path("x")}),
        (Action.IMPORT, (), {"path": Path("no such file")}),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(place: Place, action: Action, ids: Any, others: Any) -> None:
    with pytest.raises(InputError):
        place.run(action, *ids, **others)
    assert not (place.home / "models").exists() or not list((place.home / "models").glob("*/*"))


def test_no_token_fits_into_a_request() -> None:
    assert not [name for name in ManageRequest.__dataclass_fields__ if "token" in name]
