"""The chain of steps: in order, once, under a limit, kept, resumed; and the task in runners."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from knee_cases import a_label_map, a_request, some_echoes
from knee_phantoms import without

from KneeAnalysisLib import chain as chain_module
from KneeAnalysisLib import steps as step_functions
from KneeAnalysisLib.chain import NO_ECHOES, KneeChain, with_resume_advice
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.measures import ThicknessMethod, ThicknessOptions
from KneeAnalysisLib.meshes import MeshOptions
from KneeAnalysisLib.request import ALL_STEPS, KneeRequest, Step, steps_named, with_needs
from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.segmentation import EngineName, TimedOut
from KneeAnalysisLib.stepstore import FOLDER, StepStore, fingerprint, read_state
from KneeAnalysisLib.task import KneeTask
from MedAILib.errors import Cancelled, ConfigError, InputError, OutOfMemory, OutputError, WorkerDied
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.jobs.task import Context, Progress
from MedAILib.jobs.worker_runner import WorkerRunner


def analyzed(request: KneeRequest, context: Context | None = None) -> KneeResult:
    return KneeChain(request, context).run()


def means(result: KneeResult) -> dict[str, float]:
    assert result.statistics is not None
    return {row.key: row.mean_mm for row in result.statistics.thickness}


def state(result: KneeResult) -> dict[str, str]:
    return {one.step: "skipped" if one.skipped else "reused" if one.reused else "done" for one in result.steps}


# Steps


def test_the_whole_chain_measures_the_thickness_that_the_phantom_has() -> None:
    result = analyzed(a_request())
    found = means(result)
    assert found["med_tib_cart"] == pytest.approx(1.5, abs=0.25)
    assert found["lat_tib_cart"] == pytest.approx(2.5, abs=0.25)
    assert found["pat_cart"] == pytest.approx(2.0, abs=0.25)
    assert result.side == "right" and result.missing == ()
    assert state(result)["t2"] == "skipped" and result.steps[4].skipped == NO_ECHOES


def test_a_step_by_itself_brings_what_it_needs_and_no_more() -> None:
    chain = KneeChain(a_request(steps=(Step.SEGMENT,)))
    assert chain.value(Step.MESHES).of(Tissue.FEMUR) is not None
    assert list(state(chain.result())) == ["segment", "meshes"]
    assert chain.value(Step.THICKNESS).bones
    assert list(state(chain.result())) == ["segment", "meshes", "thickness"]


def test_steps_named_in_text_come_in_their_order_with_what_they_need() -> None:
    assert steps_named(" thickness, segment") == (Step.SEGMENT, Step.THICKNESS)
    assert steps_named("all") == ALL_STEPS
    assert with_needs((Step.THICKNESS,)) == (Step.SEGMENT, Step.MESHES, Step.THICKNESS)
    with pytest.raises(ConfigError, match="shine"):
        steps_named("segment,shine")
    with pytest.raises(ConfigError):
        steps_named("")


def test_without_sub_regions_whole_cartilages_are_measured() -> None:
    result = analyzed(a_request(steps=(Step.STATISTICS,)))
    assert set(means(result)) == {"pat_cart", "fem_cart", "med_tib_cart", "lat_tib_cart"}
    assert result.regions is None


def test_t2_is_given_by_region_and_by_half() -> None:
    label_map = a_label_map()
    result = analyzed(a_request(label_map=label_map, echoes=some_echoes(label_map)))
    t2 = {one.key: one for one in result.statistics.t2}
    assert t2["med_tib_cart"].mean_ms == pytest.approx(40.0, abs=0.5)
    assert t2["lat_tib_cart_deep"].mean_ms == pytest.approx(40.0, abs=0.5)
    assert t2["lat_tib_cart_superficial"].used > 0
    assert result.depth is not None and {"lat_tib_cart_deep"} <= {info.id for info in result.depth.segments}
    assert result.t2.method == "non_linear" and "8 echoes" in result.t2.stated


def test_finer_regions_come_beside_the_others() -> None:
    result = analyzed(a_request(finer=True))
    assert result.finer_regions is not None
    assert any(row.key == "cent_lat_tib_cart" for row in result.statistics.finer)
    assert set(means(result)) >= {"lat_tib_cart"}


def test_options_are_really_read() -> None:
    plain = analyzed(a_request(steps=(Step.STATISTICS,)))
    mesh = MeshOptions(cartilage_variance_mm2=0.6)
    other = analyzed(
        a_request(steps=(Step.STATISTICS,), thickness=ThicknessOptions(mesh, ThicknessMethod.TWO_SURFACES))
    )
    assert means(plain)["med_tib_cart"] - means(other)["med_tib_cart"] > 0.02


def test_results_lie_on_the_grid_of_the_input() -> None:
    from MedAILib.grids import reoriented

    turned = reoriented(a_label_map(), "LIP")
    result = analyzed(a_request(label_map=turned))
    assert result.segmented.labels.geometry.same_grid_as(turned.geometry)
    assert result.regions.geometry.same_grid_as(turned.geometry)
    np.testing.assert_array_equal(result.segmented.labels.layers[0], turned.layers[0])


# Missing tissues


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ((Tissue.PATELLA,), {"fem_cart", "med_tib_cart", "lat_tib_cart"}),
        ((Tissue.PATELLAR_CARTILAGE, Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS), {"fem_cart", "med_tib_cart"}),
        ((Tissue.FEMUR,), {"pat_cart", "med_tib_cart", "lat_tib_cart"}),
        ((Tissue.MEDIAL_TIBIAL_CARTILAGE,), {"pat_cart", "fem_cart", "lat_tib_cart"}),
    ],
    ids=["no patella", "no menisci", "no femur", "one tibial cartilage"],
)
def test_missing_tissues_leave_the_other_regions_and_are_named(gone: tuple[Tissue, ...], expected: set[str]) -> None:
    result = analyzed(a_request(label_map=without(a_label_map(), *gone)))
    assert expected <= set(means(result))
    assert set(gone) <= set(result.missing)
    assert any(gone[0].title.lower() in note for note in result.notes)
    assert result.missing_regions or Tissue.MEDIAL_MENISCUS in gone


def test_menisci_alone_give_an_empty_table_and_say_so() -> None:
    rest = [t for t in Tissue if t not in (Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS)]
    result = analyzed(a_request(label_map=without(a_label_map(), *rest)))
    assert means(result) == {} and len(result.missing_regions) == 9


def test_a_knee_without_a_side_gets_no_sub_regions_and_says_why_unless_told() -> None:
    sided = (
        Tissue.MEDIAL_TIBIAL_CARTILAGE,
        Tissue.LATERAL_TIBIAL_CARTILAGE,
        Tissue.MEDIAL_MENISCUS,
        Tissue.LATERAL_MENISCUS,
    )
    one = without(a_label_map(), *sided)
    result = analyzed(a_request(label_map=one))
    assert result.regions is None and "fem_cart" in means(result)
    assert any("No sub-regions" in note for note in result.notes)
    assert analyzed(a_request(label_map=one, side="left")).side == "left"


# Requests


def test_all_problems_of_a_request_are_said_at_once() -> None:
    request = KneeRequest(side="up", steps=(), name="a/b", resume=True, timeouts_s={"dream": 1.0, "t2": -1.0})
    with pytest.raises(ConfigError) as caught:
        request.validate()
    text = caught.value.text
    for part in ("label map", "native", "'up'", "no step", "'a/b'", "resume", "'dream'", "-1.0"):
        assert part in text
    assert caught.value.code == "CONFIG_ERROR"


def test_a_network_needs_an_image_and_weights() -> None:
    with pytest.raises(ConfigError, match=r"needs an image.*no weights"):
        KneeRequest(engine=EngineName.NNUNET_FULLRES).validate()


def test_labels_of_another_scheme_are_refused_not_guessed() -> None:
    with pytest.raises(InputError, match="native"):
        analyzed(a_request(labels="native"))


# Kept steps


def test_a_second_run_takes_every_step_from_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "Ordner ü"
    first = analyzed(a_request(out))
    assert set(read_state(out)) == {"segment", "meshes", "thickness", "subregions", "statistics"}
    second = analyzed(a_request(out, resume=True))
    assert set(state(second).values()) == {"reused", "skipped"}
    assert means(second) == means(first)
    np.testing.assert_array_equal(second.bones[0].labels, first.bones[0].labels)
    assert set(state(analyzed(a_request(out))).values()) == {"done", "skipped"}


def test_only_what_depends_on_a_changed_option_is_computed_anew(tmp_path: Path) -> None:
    analyzed(a_request(tmp_path))
    changed = a_request(tmp_path, resume=True, thickness=ThicknessOptions(rim_mm=0.3))
    assert state(analyzed(changed)) == {
        "segment": "reused",
        "meshes": "reused",
        "thickness": "done",
        "subregions": "reused",
        "t2": "skipped",
        "statistics": "done",
    }


def test_another_input_takes_nothing(tmp_path: Path) -> None:
    analyzed(a_request(tmp_path))
    other = without(a_label_map(), Tissue.PATELLA)
    assert "reused" not in state(analyzed(a_request(tmp_path, label_map=other, resume=True))).values()


def test_a_damaged_step_is_computed_anew(tmp_path: Path) -> None:
    analyzed(a_request(tmp_path))
    (tmp_path / FOLDER / "meshes" / "value.json").write_text("{", encoding="ascii")
    assert state(analyzed(a_request(tmp_path, resume=True)))["meshes"] == "done"
    (tmp_path / FOLDER / "state.json").write_text("?", encoding="ascii")
    assert state(analyzed(a_request(tmp_path, resume=True)))["segment"] == "done"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(OutputError):
        analyzed(a_request(tmp_path / "file"))


def test_fingerprints_tell_values_apart(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"1")
    values = [1, 1.0, "1", True, None, np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), (1,), {"a": 1}, file]
    assert len({fingerprint(value) for value in values}) == len(values)
    before = fingerprint(tmp_path)
    file.write_bytes(b"12")
    assert fingerprint(tmp_path) != before


# Ends before the end


def test_cancelling_keeps_the_finished_steps_and_says_how_to_go_on(tmp_path: Path) -> None:
    seen: list[str] = []
    context = Context(on_progress=lambda p: seen.append(p.stage), is_cancelled=lambda: "Thickness" in seen)
    with pytest.raises(Cancelled) as caught:
        analyzed(a_request(tmp_path), context)
    assert "segment, meshes" in caught.value.todo and str(tmp_path) in caught.value.todo
    again = state(analyzed(a_request(tmp_path, resume=True)))
    assert (again["meshes"], again["thickness"]) == ("reused", "done")


def test_a_step_that_takes_too_long_is_ended_and_named(tmp_path: Path) -> None:
    with pytest.raises(TimedOut, match="'thickness'") as caught:
        analyzed(a_request(tmp_path, timeouts_s={"thickness": 1e-6}))
    assert caught.value.code == "TIMEOUT" and "segment, meshes" in caught.value.todo
    assert state(analyzed(a_request(tmp_path, resume=True)))["meshes"] == "reused"


def test_no_limit_is_no_limit() -> None:
    assert a_request(timeouts_s={"t2": 0.0}).timeout_s(Step.T2) is None
    assert a_request().timeout_s(Step.SEGMENT) == 1800


def test_too_little_memory_keeps_the_finished_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_arguments: Any) -> None:
        raise MemoryError("cannot allocate 90 GiB")

    monkeypatch.setattr(step_functions, "measure", too_large)
    with pytest.raises(OutOfMemory, match="90 GiB") as caught:
        analyzed(a_request(tmp_path))
    assert "segment, meshes" in caught.value.todo
    monkeypatch.undo()
    assert state(analyzed(a_request(tmp_path, resume=True)))["meshes"] == "reused"


def test_a_worker_that_is_killed_leaves_the_finished_steps(tmp_path: Path) -> None:
    request = a_request(tmp_path)
    with WorkerRunner(threads=1) as runner:
        job = runner.start(KneeTask, request)
        while "meshes" not in read_state(tmp_path):
            job.poll()
            time.sleep(0.005)
        os.kill(runner.process_id, signal.SIGKILL)
        job.wait(10)
        with pytest.raises(WorkerDied) as caught:
            job.outcome()
        assert "meshes" in with_resume_advice(caught.value, tmp_path).todo
        outcome = runner.run(KneeTask, replace(request, resume=True))
    assert state(outcome.result)["meshes"] == "reused"


# Progress and runners


def test_progress_rises_through_all_steps_with_an_estimate() -> None:
    seen: list[Progress] = []
    analyzed(a_request(), Context(on_progress=seen.append))
    fractions = [one.fraction for one in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and 0.5 < fractions[-1] <= 1.0
    assert list(dict.fromkeys(one.stage for one in seen)) == [
        "Segmentation", "Surfaces", "Thickness", "Sub-regions", "Statistics",
    ]  # fmt: skip


def test_the_worker_gives_the_same_result_as_this_process(tmp_path: Path) -> None:
    request = a_request(tmp_path, labels={tissue.key: [int(tissue)] for tissue in Tissue})
    here = InProcessRunner().run(KneeTask, replace(request, out=None)).result
    with WorkerRunner(threads=1) as runner:
        there = runner.run(KneeTask, request).result
    assert means(here) == means(there)
    for one, other in zip(here.bones, there.bones, strict=True):
        np.testing.assert_array_equal(one.thickness_mm, other.thickness_mm)
        np.testing.assert_array_equal(one.mesh.points_ras_mm, other.mesh.points_ras_mm)
    assert (tmp_path / "results.json").is_file()


def test_ten_jobs_in_a_row_leave_the_worker_s_memory_flat() -> None:
    request = a_request(steps=(Step.STATISTICS,))
    with WorkerRunner(threads=1) as runner:
        sizes = []
        for _ in range(10):
            runner.run(KneeTask, request)
            sizes.append(_resident_mb(runner.process_id))
    assert max(sizes[3:]) - sizes[2] < 30, sizes
    assert threading.active_count() < 8


def _resident_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_network_s_labels_go_through_the_chain(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
    pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")
    from dosma_files import save_classifiers
    from synthetic_knees import synthetic_volume

    volume, _ = synthetic_volume("LPS")
    request = KneeRequest(
        image=volume,
        engine=EngineName.DOSMA_SAGITTAL,
        weights=(save_classifiers(tmp_path / "weights"),),
        steps=(Step.STATISTICS,),
        out=tmp_path / "out",
    )
    with WorkerRunner(threads=1) as runner:
        result = runner.run(KneeTask, request).result
        again = runner.run(KneeTask, replace(request, resume=True)).result
    assert means(result)["med_tib_cart"] == pytest.approx(2.4, abs=0.3)  # four voxels of 0.6 mm
    assert result.segmented.engine == "dosma-sagittal" and result.segmented.weights[0].sha256
    assert state(again)["segment"] == "reused"


def test_the_real_knee_agrees_with_the_reference(shared_data) -> None:
    import json

    from MedAILib.imageio import read_label_map

    label_map = read_label_map(shared_data("knee/SAG_3D_DESS_RIGHT_label.nrrd"))
    scheme = str(shared_data("knee/dess_labels.json"))
    reference = json.loads(shared_data("knee_reference/ref_0.1.22.json").read_text(encoding="utf-8"))
    result = analyzed(a_request(label_map=label_map, labels=scheme))
    found = {row.key: row.two_surfaces_mean_mm for row in result.statistics.thickness}
    regions = {key: region for key, region in reference["regions"].items() if not key.endswith("_all_gt0")}
    assert len(regions) == 8
    for key, region in regions.items():
        mean = region["mean"]
        assert abs(found[key] - mean) <= max(0.05, 0.02 * mean), (key, found[key], mean)
    assert all(math.isfinite(value) for value in found.values())


def test_the_store_keeps_a_value_whole_or_not_at_all(tmp_path: Path) -> None:
    store = StepStore(tmp_path)
    store.save("segment", "k", {"a": np.arange(3)}, 1.0)
    np.testing.assert_array_equal(store.load("segment")["a"], np.arange(3))
    assert store.kept("segment", "other") is None and store.kept("segment", "k") is not None
    store.save("segment", "k2", {"a": np.arange(4)}, 1.0)
    assert len(StepStore(tmp_path).load("segment")["a"]) == 4
    assert sorted(file.name for file in (tmp_path / FOLDER).iterdir()) == ["segment", "state.json"]
    assert chain_module.VERSION == 1
