"""A reported chest made by hand, small and with everything in it that a document can show."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from CTReportLib.keyimages import KeyImage
from CTReportLib.measurement import Measurement
from CTReportLib.report import IMPRESSION, Facts, template_report
from CTReportLib.request import (
    FINDING_TAG,
    GIVEN_SEGMENT,
    MEASUREMENT_TAG,
    Basis,
    Decision,
    Edit,
    FindingRow,
    ReportResult,
    ReportSection,
    Sentence,
    Verdict,
)
from CTReportLib.table import finding_table
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

FLUID, NODULE, OPACITY = "Fluid-like volume beside the left lung", "Nodule candidate 1", "Opacity drawn by a model"
GIVEN = f"Consolidation{GIVEN_SEGMENT}"
STRUCK = Sentence("The <b>liver</b> is bad.", verdict=Verdict.STRUCK, reason="no evidence speaks for it")
ADDED = Sentence("Cardiomegaly is not judged.", ("cardiomegaly",), verdict=Verdict.ADDED, reason="nothing said it")
EDITED = Sentence("A person wrote this & that.", ("emphysema",), verdict=Verdict.EDITED, reason="not judged")
EDIT = Edit("2026-11-21T10:00:00Z", "Dr. Ö", "Impression", "Before.", "A person wrote this & that.")
SHAPE = (6, 10, 12)


def some_measurements() -> tuple[Measurement, ...]:
    """By rule, of a given segment and on a model's; one could not be measured."""
    return (
        Measurement("pleural_effusion", FLUID, 120.5, "ml", "A rule of 20 ml.", "left", "lower third, left", True,
                    "It may be more."),
        Measurement("lung_nodule", NODULE, 8.1, "mm", "Round and dense.", "right", "middle third, right"),
        Measurement("lung_opacity", OPACITY, 33.0, "ml", "Drawn.", "right", "right lung", True, model="a network 1.0"),
        Measurement("consolidation", GIVEN, 12.0, "ml", "Volume of the segment.", "both", "both lungs", True),
        Measurement("emphysema", "Emphysema index LAA-950", None, "%", "Below -950 HU.", "both", "", None, "Cut."),
        Measurement("", "Mean lung density", -788.25, "HU", "A mean."),
        Measurement("", "Cardiothoracic ratio", 0.48, "", "A ratio."),
        Measurement("", "Calcium", 3010.0, "mm³", "Above 130 HU."),
    )  # fmt: skip


def some_masks(geometry: Geometry, seed: int = 0) -> LabelMap:
    """Lungs and airways in one layer, what overlaps them in layers of its own; one segment is empty."""
    chance = np.random.default_rng(seed)
    chest = chance.integers(0, 4, geometry.shape_kji).astype(np.uint8)
    layers = [chest, *((chance.random(geometry.shape_kji) < share).astype(np.uint8) for share in (0.3, 0.05, 0.2, 0.1))]
    layers += [np.zeros(geometry.shape_kji, np.uint8)]
    tagged = (
        ("pleural_effusion", FLUID, "Fluid, left"),
        ("lung_nodule", NODULE, "Nodule & candidate"),
        ("lung_opacity", OPACITY, "Opacity"),
        ("consolidation", GIVEN, "Consolidation, drawn by Dr. 漢 Ö"),
        ("emphysema", "Emphysema index LAA-950", "Low attenuation"),
    )
    segments = [SegmentInfo(key, key.replace("_", " ").capitalize(), n) for n, key in
                enumerate(("left_lung", "right_lung", "airways"), start=1)]  # fmt: skip
    for number, (finding, measurement, name) in enumerate(tagged, start=1):
        tags = {FINDING_TAG: finding, MEASUREMENT_TAG: measurement}
        segments.append(SegmentInfo(f"{finding}_{number}", name, 1, number, (0.9, 0.1 * number, 0.2), tags))
    return LabelMap(tuple(layers), geometry.ijk_to_ras, tuple(segments), "Localisation")


def a_picture(title: str = "Lungs, axial", size: tuple[int, int] = (40, 30), grey: int = 90) -> KeyImage:
    """A grey picture."""
    stream = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(stream, "PNG")
    return KeyImage(title, np.frombuffer(stream.getvalue(), np.uint8))


def a_written_result(geometry: Geometry | None = None, **changed: object) -> ReportResult:
    """A whole report; `changed` replaces its fields."""
    geometry = geometry or Geometry(SHAPE, np.diag([1.0, 1, 1, 1]))
    measured = some_measurements()
    table = tuple(_row(row) for row in finding_table(measured))
    sections = list(template_report(table, measured, Facts(("CT of the chest.",), ("The lungs are cut.",))))
    sections[-1] = replace(sections[-1], sentences=(*sections[-1].sentences, EDITED))
    sections.append(ReportSection("Findings", (ADDED, STRUCK)))
    result = ReportResult(
        name="Müller <1> 漢",
        table=table,
        sections=tuple(sections),
        measurements=measured,
        warnings=("A warning that no sentence says.", "CT of the chest."),
        masks=some_masks(geometry),
        pictures=(a_picture(), a_picture("Fluid & more", (30, 60)), a_picture("Nodule")),
        provenance={"medai": "9.9", "engine": "template", "image_sha256": "ab" * 32, "file_sha256": ""},
        edits=(EDIT,),
    )
    assert any(section.title == IMPRESSION for section in result.sections)
    return replace(result, **changed)


def _row(row: FindingRow) -> FindingRow:
    """Rows as models and rules leave them: with a probability, a threshold, a segment."""
    if row.finding == "lung_opacity":
        return replace(row, decision=Decision.PRESENT, basis=Basis.MODEL, probability=0.8312, calibrated=True,
                       threshold=0.4, segment="lung_opacity_3")  # fmt: skip
    if row.finding == "pleural_effusion":
        return replace(row, threshold=20.0, segment="pleural_effusion_1")
    if row.finding == "atelectasis":
        return replace(row, decision=Decision.ABSENT, basis=Basis.MODEL, probability=0.1, threshold=0.5)
    return row
