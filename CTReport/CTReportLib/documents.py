"""A report as a file, in each of the formats: the one way out for the command line and for Slicer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from CTReportLib.document import document_of
from CTReportLib.exports import report_text, safe_name, summary_text
from CTReportLib.label_nifti import write_label_nifti
from CTReportLib.reporthtml import html_report
from CTReportLib.request import RESEARCH_USE, ReportResult
from MedAILib.atomic import write_bytes, write_text
from MedAILib.errors import InputError, MissingPackage

if TYPE_CHECKING:
    from CTReportLib.dicom_source import SourceSeries

EXTRA = "ct"
"""The extra of slicer-medai that brings the packages which some of the formats need."""
_OUR_OWN = ("", "CTReportLib", "MedAILib")


@dataclass(frozen=True)
class Kind:
    """A format of the report.

    Attributes
    ----------
    id : str
        As `export` and the command line name it.
    title : str
        For people.
    suffixes : tuple of str
        Ends of file names; the first one is the usual.
    ending : str
        What the usual file name has after the report's name.
    package : str
        The Python package that must be installed; empty where none must.
    needs_source : bool
        Whether it refers to the DICOM series that the image came from.
    """

    id: str
    title: str
    suffixes: tuple[str, ...]
    ending: str
    package: str = ""
    needs_source: bool = False


KINDS: Mapping[str, Kind] = {
    kind.id: kind
    for kind in (
        Kind("txt", "Text", (".txt",), "_report.txt"),
        Kind("json", "JSON, for programs", (".json",), "_summary.json"),
        Kind("html", "Web page with key images", (".html", ".htm"), "_report.html"),
        Kind("pdf", "PDF", (".pdf",), "_report.pdf", "reportlab"),
        Kind("docx", "Word document", (".docx",), "_report.docx", "python-docx"),
        Kind("sr", "DICOM structured report", (".dcm",), "_report_sr.dcm", "highdicom", needs_source=True),
        Kind("seg", "DICOM segmentation", (".dcm",), "_localization_seg.dcm", "highdicom", needs_source=True),
        Kind("nii", "NIfTI label map", (".nii.gz", ".nii"), "_localization.nii.gz"),
    )
}
"""All formats, by id."""


def export(result: ReportResult, kind: str, path: Path, *, source: Path | None = None) -> Path:
    """Write a report as a file.

    Parameters
    ----------
    result : ReportResult
        With the edits of people, where there are any.
    kind : str
        One of `KINDS`.
    path : Path
        The file; or an existing folder, in which it gets its usual name. A missing ending is added.
    source : Path, optional
        For ``sr`` and ``seg``: the folder of the DICOM series that the image was read from, or a file of it.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    InputError
        There is no such format, the source is missing or is not that of the image, or there is nothing to write.
    MissingPackage
        The package that the format needs is not installed.
    OutputError
        Nothing can be written there; no file is left half-written.
    """
    if kind not in KINDS:
        raise InputError(f"There is no format '{kind}'.", todo=f"The formats are: {', '.join(KINDS)}.")
    chosen = KINDS[kind]
    target = _target(chosen, path, result.name)
    if chosen.needs_source and source is None:
        raise InputError(
            f"A {chosen.title} cannot be written for this image.",
            why="It refers to the patient and the slices of a DICOM series, and none is known for this image.",
            todo="Read the CT from its DICOM series, or name the series; other formats need none.",
        )
    with _package(chosen):
        _WRITERS[kind](result, target, source)
    return target


def file_name(result: ReportResult, kind: str) -> str:
    """The usual name of a report's file in a format, safe on every system."""
    return safe_name(result.name) + KINDS[kind].ending


def _target(kind: Kind, path: Path, name: str) -> Path:
    if path.is_dir():
        return path / f"{safe_name(name)}{kind.ending}"
    if path.name.lower().endswith(kind.suffixes):
        return path
    return path.with_name(path.name + kind.suffixes[0])


@contextmanager
def _package(kind: Kind) -> Iterator[None]:
    """A format's package that cannot be imported, as an error with the way to get it."""
    try:
        yield
    except ImportError as error:
        if not kind.package or (error.name or "").partition(".")[0] in _OUR_OWN:
            raise
        raise MissingPackage(
            f"A {kind.title} needs the Python package {kind.package}, which cannot be imported.",
            why=f"{error}.",
            todo=f"Install it: pip install {kind.package}; or all at once: pip install slicer-medai[{EXTRA}]",
        ) from error


def _txt(result: ReportResult, path: Path, source: Path | None) -> None:
    write_text(path, report_text(result))


def _json(result: ReportResult, path: Path, source: Path | None) -> None:
    write_text(path, summary_text(result))


def _html(result: ReportResult, path: Path, source: Path | None) -> None:
    write_text(path, html_report(result))


def _pdf(result: ReportResult, path: Path, source: Path | None) -> None:
    from CTReportLib.document_pdf import pdf_bytes

    write_bytes(path, pdf_bytes(document_of(result)))


def _docx(result: ReportResult, path: Path, source: Path | None) -> None:
    from CTReportLib.document_docx import docx_bytes

    write_bytes(path, docx_bytes(document_of(result)))


def _sr(result: ReportResult, path: Path, source: Path | None) -> None:
    from CTReportLib.dicom_sr import sr_bytes

    write_bytes(path, sr_bytes(result, _source(result, source)))


def _seg(result: ReportResult, path: Path, source: Path | None) -> None:
    from CTReportLib.dicom_seg import seg_bytes

    write_bytes(path, seg_bytes(result, _source(result, source)))


def _source(result: ReportResult, path: Path | None) -> SourceSeries:
    from CTReportLib.dicom_source import source_series

    if result.masks is None or path is None:
        raise InputError("There is nothing to place on the DICOM series.", why="Nothing was localised in this image.")
    return source_series(path, result.masks)


def _nii(result: ReportResult, path: Path, source: Path | None) -> None:
    if result.masks is None or not result.masks.segments:
        raise InputError("There is nothing to write as a label map.", why="Nothing was localised in this image.")
    write_label_nifti(result.masks, path, RESEARCH_USE)


_WRITERS: Mapping[str, Callable[[ReportResult, Path, Path | None], None]] = {
    "txt": _txt,
    "json": _json,
    "html": _html,
    "pdf": _pdf,
    "docx": _docx,
    "sr": _sr,
    "seg": _seg,
    "nii": _nii,
}
