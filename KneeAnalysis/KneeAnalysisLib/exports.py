"""Result files in a folder: label maps, surfaces, T2, tables, a summary, a report, and all of it in one archive.

Names and keys of ``{name}_results.json``, the label maps, meshes and T2 map are those of the reference pipeline.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from KneeAnalysisLib.labels import CARTILAGES_OF
from KneeAnalysisLib.meshes import SurfaceMesh, polydata
from KneeAnalysisLib.report import html_report
from KneeAnalysisLib.results import RESEARCH_USE, KneeResult
from KneeAnalysisLib.stepstore import FOLDER as STEPS_FOLDER
from KneeAnalysisLib.table import Row, csv_text, heading, rows, upstream_values
from MedAILib import __version__
from MedAILib.atomic import output_error, replacing, write_text
from MedAILib.imageio import write_label_map, write_volume

if TYPE_CHECKING:
    from MedAILib.jobs.execute import Outcome

SUMMARY_FILE = "results.json"
RUN_REPORT_FILE = "run_report.json"
REPORT_FILE = "report.html"
SUMMARY_SCHEMA = 1

_QUICK = 1
"""Compression of meshes: a third of the time of the usual one, a tenth larger."""
_COMPRESSED = frozenset({".nrrd", ".html"})
"""Files whose content is compressed already."""


def write_results(result: KneeResult, out: Path) -> tuple[Path, ...]:
    """Write the files of all that was found into a folder, which is made where it does not exist.

    Raises
    ------
    OutputError
        Nothing can be written there; no file is left half-written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    written = [*_write_images(result, out), *_write_meshes(result, out), *_write_tables(result, out)]
    if result.report is not None:
        written.append(out / REPORT_FILE)
        write_text(written[-1], html_report(result))
    return tuple(written)


def finish_output(outcome: Outcome[KneeResult], out: Path) -> Path:
    """Write the run report beside the result files, and all files of the folder into ``{name}_results.zip``.

    Returns
    -------
    Path
        Of the archive.
    """
    outcome.report.write(out / RUN_REPORT_FILE)
    archive = out / f"{outcome.result.name}_results.zip"
    with replacing(archive) as partial, zipfile.ZipFile(partial, "w", compresslevel=_QUICK) as packed:
        for file in sorted(_result_files(outcome.result, out)):
            how = zipfile.ZIP_STORED if file.suffix in _COMPRESSED else zipfile.ZIP_DEFLATED
            packed.write(file, file.relative_to(out).as_posix(), how)
    return archive


def summary(result: KneeResult) -> dict[str, Any]:
    """Everything but the voxels and points, as plain JSON values."""
    segmented, statistics = result.segmented, result.statistics
    return {
        "schema": SUMMARY_SCHEMA,
        "medai": __version__,
        "name": result.name,
        "research_use": RESEARCH_USE,
        "side": segmented.side or None,
        "segmentation": {
            "engine": segmented.engine,
            "device": segmented.device,
            "weights": [{"file": used.path.name, "sha256": used.sha256} for used in segmented.weights],
            "volumes_mm3": {} if statistics is None else dict(statistics.tissue_volumes_mm3),
        },
        "missing_tissues": [tissue.key for tissue in result.missing],
        "missing_regions": [region.key for region in result.missing_regions] if statistics is not None else [],
        "definitions": DEFINITIONS,
        "regions": [_plain(asdict(row)) for row in rows(result)],
        "t2": None
        if result.t2 is None
        else {
            "method": result.t2.method,
            "stated": result.t2.stated,
            "regions": [] if statistics is None else [_plain(asdict(one)) for one in statistics.t2],
        },
        "notes": list(result.notes),
        "steps": [_plain(asdict(step)) for step in result.steps],
    }


DEFINITIONS: Mapping[str, str] = {
    "mean_mm": "distance from the bone's surface to the outer surface of bone and cartilage along the bone's normal, "
    "mean over the region's area on the bone, denuded bone counted as zero",
    "covered_mean_mm": "the same over the covered part of the area",
    "two_surfaces_mean_mm": "distance between the two crossings of the normal with the cartilage's surface, mean over "
    "the area where there are exactly two; the definition behind the keys of the reference pipeline",
    "denuded_percent": "share of the region's area on the bone without cartilage",
    "volume_mm3": "of the cartilage's voxels",
}


def write_mesh(path: Path, mesh: SurfaceMesh, arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a binary legacy VTK file in LPS, which its first line says, as Slicer's files do.

    Raises
    ------
    OutputError
    """
    from vtkmodules.vtkIOLegacy import vtkPolyDataWriter

    flipped = SurfaceMesh(mesh.points_ras_mm * np.array([-1, -1, 1], np.float32), mesh.triangles)
    writer = vtkPolyDataWriter()
    writer.SetInputData(polydata(flipped, arrays))
    writer.SetHeader("MedAI output. SPACE=LPS")
    writer.SetFileTypeToBinary()
    with replacing(path) as partial:
        writer.SetFileName(str(partial))
        writer.Write()


def safe_name(text: str) -> str:
    """A text as the start of file names: letters of any alphabet, digits, dots, dashes."""
    return re.sub(r"[^\w.\-]+", "_", text).strip("._") or "knee"


def _write_images(result: KneeResult, out: Path) -> list[Path]:
    name = result.name
    maps = {
        "all-labels": result.segmented.labels,
        "subregions-labels": result.regions,
        "finer-subregions-labels": result.finer_regions,
        "depth_seg": result.depth,
    }
    written = []
    for what, label_map in maps.items():
        if label_map is not None:
            written.append(out / f"{name}_{what}.nrrd")
            write_label_map(label_map, written[-1])
    if result.t2 is not None:
        volumes = {"t2map": result.t2.t2_ms, "t2r2": result.t2.r2}
        for what, volume in volumes.items():
            if volume is not None:
                written.append(out / f"{name}_{what}.nrrd")
                write_volume(volume, written[-1])
    return written


def _write_meshes(result: KneeResult, out: Path) -> list[Path]:
    written = []
    measured = {bone.bone: bone for bone in result.bones}
    for surface in result.surfaces.bones if result.surfaces else ():
        bone = measured.get(surface.tissue)
        written.append(out / f"{surface.tissue.key}_mesh.vtk")
        write_mesh(written[-1], surface.mesh, None if bone is None else bone.arrays)
    for owner, cartilages in CARTILAGES_OF.items():
        for number, tissue in enumerate(cartilages):
            mesh = None if result.surfaces is None else result.surfaces.of(tissue)
            if mesh is not None:
                written.append(out / f"{owner.key}_cart_{number}_mesh.vtk")
                write_mesh(written[-1], mesh)
    return written


def _write_tables(result: KneeResult, out: Path) -> list[Path]:
    written = [out / SUMMARY_FILE]
    write_text(written[-1], _json(summary(result)))
    if result.statistics is None:
        return written
    values = upstream_values(result)
    names = [field.name for field in fields(Row)]
    texts = {
        f"{result.name}_results.json": _json(values),
        f"{result.name}_results.csv": csv_text(list(values), [["" if v is None else v for v in values.values()]]),
        f"{result.name}_regions.csv": csv_text(
            [heading(name) for name in names], [[getattr(row, name) for name in names] for row in rows(result)]
        ),
    }
    for file, text in texts.items():
        written.append(out / file)
        write_text(written[-1], text)
    return written


def _result_files(result: KneeResult, out: Path) -> list[Path]:
    """Files of the folder that belong into the archive: not the steps, not archives, nothing hidden."""
    return [
        file
        for file in out.iterdir()
        if file.is_file() and not file.name.startswith(".") and file.suffix != ".zip" and file.name != STEPS_FOLDER
    ]


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
