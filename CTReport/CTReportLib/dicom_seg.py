"""Segments of a report as a DICOM segmentation on the slices of the series that the image came from (highdicom).

Every segment is whole: segments may overlap, as each has frames of its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from highdicom import UID, AlgorithmIdentificationSequence, ContentQualificationValues
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes

from CTReportLib.dicom_codes import (
    MANUFACTURER,
    MODEL,
    SERIES_NUMBERS,
    SHORT_USE,
    any_patient_name,
    coding_schemes,
    is_computed,
    segment_codes,
    short,
    side_code,
)
from CTReportLib.dicom_source import UNICODE, SourceSeries
from CTReportLib.measurement import Measurement
from CTReportLib.request import MEASUREMENT_TAG, RESEARCH_USE, ReportResult
from MedAILib import __version__
from MedAILib.errors import InputError
from MedAILib.volume import LabelMap, SegmentInfo

if TYPE_CHECKING:
    from pydicom import Dataset

_LONGEST_TEXT = 1024
_CHEST_RULE, _SOMEBODY = "Found by thresholds and shape.", "Who drew it, and how well, is not known here."


def seg_bytes(result: ReportResult, source: SourceSeries) -> bytes:
    """The DICOM segmentation as a file.

    Raises
    ------
    InputError
        The report has no segments.
    """
    stream = io.BytesIO()
    with any_patient_name():
        segmentation(result, source).save_as(stream)
    return stream.getvalue()


def segmentation(result: ReportResult, source: SourceSeries) -> Segmentation:
    """The segments that are not empty, on the series' slices.

    Parameters
    ----------
    result : ReportResult
    source : SourceSeries
        Of `CTReportLib.dicom_source.source_series`, with the masks of the same report.
    """
    masks = None if result.masks is None else source.on_slices(result.masks)
    slices = {} if masks is None else {info.id: masks.mask(info.id).any(axis=(1, 2)) for info in masks.segments}
    if masks is None or not any(drawn.any() for drawn in slices.values()):
        raise InputError("There is no segment to write.", why="Nothing was localised in this image.")
    measured = {one.name: one for one in result.measurements}
    shown = tuple(info for info in masks.segments if slices[info.id].any())
    images, planes = _planes(source, masks, shown, np.logical_or.reduce([slices[info.id] for info in shown]))
    made = Segmentation(
        source_images=images,
        pixel_array=planes,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(n, info, measured) for n, info in enumerate(shown, start=1)],
        series_instance_uid=UID(),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label="CT_FINDINGS",
        content_description=SHORT_USE,
        content_creator_name=f"{MODEL}^",
        content_qualification=ContentQualificationValues.RESEARCH,
        series_description=short(f"{MODEL}, research use only"),
        coding_schemes=coding_schemes(),
    )
    made.SpecificCharacterSet = UNICODE  # highdicom before 0.28 writes Latin-1 whatever the source has
    return made


def _planes(
    source: SourceSeries, masks: LabelMap, shown: Sequence[SegmentInfo], drawn: np.ndarray
) -> tuple[Sequence[Dataset], np.ndarray]:
    """The files that are referred to, and what is drawn on their slices: shape (slice, row, column, segment).

    Of single files those from the first to the last slice on which something is drawn; a multi-frame file is whole.
    """
    if source.multi_frame:
        slices, images = slice(None), source.datasets
        indices, frames = np.asarray(source.frames), int(source.datasets[0].NumberOfFrames)
    else:
        first, last = np.flatnonzero(drawn)[[0, -1]]
        slices = slice(int(first), int(last) + 1)
        images = source.datasets[slices]
        indices, frames = np.arange(len(images)), len(images)
    planes = np.zeros((frames, *masks.geometry.shape_kji[1:], len(shown)), np.uint8)
    for number, info in enumerate(shown):
        planes[indices, :, :, number] = masks.mask(info.id)[slices]
    return images, planes


def _described(number: int, info: SegmentInfo, measured: Mapping[str, Measurement]) -> SegmentDescription:
    """What DICOM says of a segment: what it is, where, and who drew it."""
    measurement = measured.get(info.tags.get(MEASUREMENT_TAG, ""))
    category, kind, site, side = segment_codes(info)
    side = side or (measurement.side if measurement else "")
    if side:
        kind.SegmentedPropertyTypeModifierCodeSequence = [side_code(side)]
    computed = is_computed(info)
    described = SegmentDescription(
        segment_number=number,
        segment_label=short(info.name) or short(info.id),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC if computed else SegmentAlgorithmTypeValues.MANUAL,
        algorithm_identification=_algorithm(measurement) if computed else None,
        anatomic_regions=[site] if site is not None else None,
        display_color=CIELabColor.from_rgb(*(255 * part for part in info.color_rgb)),
    )
    described.SegmentedPropertyTypeCodeSequence = [kind]
    unmeasured = _CHEST_RULE if computed else _SOMEBODY
    rule = f"{measurement.rule} {measurement.limits}" if measurement else unmeasured
    described.SegmentDescription = short(f"{RESEARCH_USE} {rule}", _LONGEST_TEXT)
    return described


def _algorithm(measurement: Measurement | None) -> AlgorithmIdentificationSequence:
    model = measurement.model if measurement else ""
    family = codes.cid7162.ArtificialIntelligence if model else codes.cid7162.MorphologicalOperations
    name = f"model {model}" if model else f"rule: {measurement.name}" if measurement else "thresholds and shape"
    return AlgorithmIdentificationSequence(name=short(name), family=family, version=__version__, source=MODEL)
