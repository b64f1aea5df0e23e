"""The report as a task that any runner runs: check, find the chest, measure, decide, write, hold against the table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from CTReportLib.anatomy import Anatomy, find_anatomy
from CTReportLib.checks import Notice, check_anatomy, check_volume
from CTReportLib.guard import guard_template
from CTReportLib.keyimages import key_images
from CTReportLib.localised import localisation, measured_segments
from CTReportLib.measurement import Measurement
from CTReportLib.measures import measure
from CTReportLib.report import Facts, template_report
from CTReportLib.request import ReportRequest, ReportResult, ReportSection
from CTReportLib.table import finding_table
from MedAILib import __version__
from MedAILib.jobs.task import Context
from MedAILib.volume import Volume

TASK = "CTReportLib.task:ReportTask"
FIELD_OF_VIEW_CODES = frozenset({"lungs-cut", "lung-missing"})
"""Notices after which part of the chest was not seen."""


class ReportTask:
    """Reports one chest CT from what can be measured in it; no weights."""

    def run(self, request: ReportRequest, context: Context) -> ReportResult:
        """Run the request.

        Raises
        ------
        ConfigError
            The request cannot be run; all problems at once.
        InputError
            Not a CT, not a chest, empty, 2D, or too few slices.
        Cancelled
        """
        request.validate()
        context.progress("Checking the image", 0.0)
        notices = check_volume(request.volume, request.modality)
        context.progress("Finding the lungs", 0.05)
        anatomy = find_anatomy(request.volume)
        notices += check_anatomy(anatomy)
        context.progress("Measuring", 0.4)
        given, remarks = _given(request, anatomy)
        measurements = (*given, *measure(request.volume, anatomy))
        context.progress("Writing the report", 0.9)
        table = finding_table(measurements)
        sections: tuple[ReportSection, ...] = ()
        if not request.findings_only:
            drafted = template_report(table, measurements, facts_of(request, notices))
            sections = guard_template(drafted, table).sections
        masks = localisation(request.volume.geometry, anatomy, measurements)
        pictures = () if request.findings_only else key_images(request.volume, masks, request.window_hu)
        warnings = (*(notice.text for notice in notices), *remarks)
        for text in warnings:
            context.warn(text)
        context.progress("Writing the report", 1.0)
        return ReportResult(
            name=request.name,
            table=table,
            sections=sections,
            measurements=measurements,
            warnings=warnings,
            masks=masks,
            pictures=pictures,
            provenance=_provenance(request),
        )


def facts_of(request: ReportRequest, notices: Sequence[Notice]) -> Facts:
    """What the report says of the examination itself."""
    geometry = request.volume.geometry
    size = " x ".join(str(n) for n in reversed(geometry.shape_kji))
    spacing = " x ".join(f"{mm:.2f}" for mm in geometry.spacing_ijk_mm)
    seen = tuple(notice.text for notice in notices if notice.code in FIELD_OF_VIEW_CODES)
    other = tuple(notice.text for notice in notices if notice.code not in FIELD_OF_VIEW_CODES)
    return Facts((f"CT of the chest, {size} voxels of {spacing} mm.", *other), seen)


def volume_sha256(volume: Volume) -> str:
    """Of an image's voxels and matrix: the same image gives the same, whatever file it came in."""
    digest = hashlib.sha256(repr((volume.array.dtype.str, volume.array.shape)).encode("ascii"))
    digest.update(np.ascontiguousarray(volume.ijk_to_ras).tobytes())
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()


def _given(request: ReportRequest, anatomy: Anatomy) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """What the segments of the request show, and what to say of those that show no finding."""
    if request.masks is None:
        return (), ()
    found, unknown = measured_segments(request.masks, anatomy)
    text = f"Segments that bear no finding's name were left out: {', '.join(unknown)}."
    return found, (text,) if unknown else ()


def _provenance(request: ReportRequest) -> dict[str, str]:
    return {
        "medai": __version__,
        "engine": request.engine,
        "image_sha256": volume_sha256(request.volume),
        "file_sha256": request.input_sha256,
        "modality": request.modality or "not said",
        "models": "none",
        "prompt": "none",
    }
