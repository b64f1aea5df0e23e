"""The steps of an analysis as functions from values to values; `KneeAnalysisLib.chain` puts them together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from KneeAnalysisLib.depth import DEEP, SUPERFICIAL, depth_regions, depth_split
from KneeAnalysisLib.echoes import EchoSeries
from KneeAnalysisLib.engines import SegmentTask
from KneeAnalysisLib.finer import FINER_REGIONS, finer_subregions
from KneeAnalysisLib.knee import Knee, implausible, knee_from, read_labels
from KneeAnalysisLib.labels import BONES, CARTILAGES, REGIONS, Tissue
from KneeAnalysisLib.measures import ThicknessOptions
from KneeAnalysisLib.meshes import MeshOptions, SurfaceMesh, bone_mesh, cartilage_mesh
from KneeAnalysisLib.request import KneeRequest
from KneeAnalysisLib.results import (
    Divided,
    Segmented,
    Statistics,
    Surfaces,
    T2Found,
    Thickness,
    TissueSurface,
)
from KneeAnalysisLib.segmentation import EngineName, SegmentationFailed, SegmentRequest
from KneeAnalysisLib.statistics import RegionStatistics, region_statistics
from KneeAnalysisLib.subregions import region_label_map, subregions
from KneeAnalysisLib.t2 import T2Options, T2Statistics, t2_by_region, t2_map
from KneeAnalysisLib.thickness import BoneThickness, bone_thickness, with_regions
from MedAILib.errors import InputError
from MedAILib.jobs.task import Context
from MedAILib.volume import LabelMap


def segment(request: KneeRequest, context: Context, segmenter: SegmentTask) -> Segmented:
    """Tissues from a network, or from the label map that is there.

    Raises
    ------
    MedAIError
        Of the label map (`knee_from`) or of the network (`SegmentTask.run`).
    SegmentationFailed
        The network's labels are not those of a knee.
    """
    if request.engine is EngineName.NONE:
        assert request.label_map is not None
        scheme = request.scheme()
        assert scheme is not None
        knee = knee_from(request.label_map, scheme, side=request.side)
        return Segmented(knee.undone(knee.label_map()), _side(knee), notes=knee.notes)
    assert request.image is not None
    options = replace(request.engine_options, timeout_s=None)  # the chain's own limit holds
    asked = SegmentRequest(
        request.image, request.engine, request.weights, labels=_scheme_text(request), options=options
    )  # fmt: skip
    found = segmenter.run(asked, context)
    knee = read_labels(found.labels, side=request.side)
    problems = implausible(knee)
    if problems:
        raise SegmentationFailed(
            f"What the engine '{found.engine.value}' found cannot be a knee: {', and '.join(problems)}.",
            why="The image may show something else than what the network was trained with.",
            todo="Look at the image; choose another engine, or give a label map that you have.",
        )
    return Segmented(found.labels, _side(knee), found.engine.value, found.weights, found.device, knee.notes)


def knee_of(segmented: Segmented) -> Knee:
    """The segmented knee in canonical orientation."""
    knee = knee_from(segmented.labels, side=segmented.side or None)
    return replace(knee, notes=())  # they are among those of the segmentation


def make_surfaces(knee: Knee, options: MeshOptions, context: Context) -> Surfaces:
    """Surfaces of all bones and cartilages that are there."""
    found: dict[Tissue, SurfaceMesh] = {}
    notes = []
    wanted = [tissue for tissue in (*BONES, *CARTILAGES) if knee.voxels[tissue]]
    for number, tissue in enumerate(wanted):
        context.progress(tissue.title, number / len(wanted))
        try:
            found[tissue] = (bone_mesh if tissue in BONES else cartilage_mesh)(knee, tissue, options)
        except InputError as problem:
            notes.append(f"{problem.what} {problem.why}".strip())

    def those(group: tuple[Tissue, ...]) -> tuple[TissueSurface, ...]:
        return tuple(TissueSurface(tissue, found[tissue]) for tissue in group if tissue in found)

    return Surfaces(those(BONES), those(CARTILAGES), tuple(notes))


def measure(knee: Knee, surfaces: Surfaces, options: ThicknessOptions, context: Context) -> Thickness:
    """Thickness on every bone that has a surface and at least one cartilage."""
    measured = []
    bones = [surface for surface in surfaces.bones if surface.tissue in knee.measurable_bones]
    for number, surface in enumerate(bones):
        context.progress(surface.tissue.title, number / len(bones))
        measured.append(bone_thickness(knee, surface.tissue, None, options, surface.mesh))
    return Thickness(tuple(measured))


def divide(knee: Knee, finer: bool, context: Context) -> Divided:
    """Sub-regions; none, with a note, where the side of the knee is not known."""
    context.progress("Femoral axes", 0.0)
    try:
        base = subregions(knee)
    except InputError as problem:
        return Divided(None, notes=(f"No sub-regions: {problem.text}",))
    tilt_deg = None if base.frame is None else float(base.frame.tilt_deg)
    if not finer:
        return Divided(base.labels, None, tilt_deg, base.notes)
    context.progress("Finer regions", 0.6)
    split = finer_subregions(knee, base)
    return Divided(base.labels, split.labels, tilt_deg, (*base.notes, *split.notes))


def find_t2(knee: Knee, echoes: EchoSeries, options: T2Options, context: Context) -> T2Found:
    """The T2 map, and which cartilage voxels are deep and which superficial."""
    context.progress("T2 of every voxel", 0.0)
    tissues = knee.label_map()
    found = t2_map(echoes, options, tissues)
    context.progress("Deep and superficial halves", 0.7)
    split = depth_split(knee)
    known = np.isfinite(split.relative_depth)
    deep = split.labels(known.astype(np.uint8))  # 101 and 201: regions are added later
    depth = np.where(deep > SUPERFICIAL, np.uint8(SUPERFICIAL), np.where(deep > 0, np.uint8(DEEP), np.uint8(0)))
    notes = tuple(f"{tissue.title} has no bone under it, hence no depth." for tissue in split.missing)
    return T2Found(found, depth, notes)


def gather(
    knee: Knee,
    thickness: Thickness,
    divided: Divided | None,
    t2: T2Found | None,
    largest_hole_mm2: float,
    context: Context,
) -> Statistics:
    """The numbers of every region that is there."""
    context.progress("Thickness", 0.0)
    regions = None if divided is None else divided.labels
    bones = labelled(thickness.bones, knee, regions, largest_hole_mm2)
    finer_rows: tuple[RegionStatistics, ...] = ()
    if divided is not None and divided.finer is not None:
        context.progress("Finer regions", 0.4)
        finer_bones = labelled(thickness.bones, knee, divided.finer, largest_hole_mm2)
        finer_rows = region_statistics(finer_bones, knee, divided.finer, FINER_REGIONS)
    rows = region_statistics(bones, knee, regions)
    t2_rows: tuple[T2Statistics, ...] = ()
    if t2 is not None and t2.map is not None:
        context.progress("T2", 0.6)
        values = regions if regions is not None else knee.labels
        t2_rows = t2_by_region(t2.map, region_label_map(values, knee.geometry), REGIONS)
        if t2.depth is not None:
            halves = region_label_map(depth_values(values, t2.depth), knee.geometry)
            t2_rows += t2_by_region(t2.map, halves, depth_regions(REGIONS))
    voxel_mm3 = float(abs(np.linalg.det(knee.geometry.ijk_to_ras[:3, :3])))
    volumes = {tissue.key: knee.voxels[tissue] * voxel_mm3 for tissue in knee.present}
    return Statistics(rows, finer_rows, t2_rows, tuple(bone.labels for bone in bones), volumes)


def labelled(
    bones: tuple[BoneThickness, ...], knee: Knee, regions: np.ndarray | None, largest_hole_mm2: float
) -> tuple[BoneThickness, ...]:
    """The same thickness with the region of every point."""
    return tuple(with_regions(bone, knee, regions, largest_hole_mm2=largest_hole_mm2) for bone in bones)


def depth_values(regions: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Region values with 100 or 200 added, 0 where there is no depth: uint8."""
    return np.where((depth > 0) & (regions > 0), regions + depth, np.uint8(0)).astype(np.uint8)


def finer_label_map(finer: np.ndarray, knee: Knee) -> LabelMap:
    """Finer regions with their names, in canonical orientation."""
    return region_label_map(finer, knee.geometry, (*REGIONS, *FINER_REGIONS), knee.name)


def depth_label_map(values: np.ndarray, knee: Knee) -> LabelMap:
    """Halves of the regions with their names, in canonical orientation."""
    return region_label_map(values, knee.geometry, depth_regions(REGIONS), knee.name)


def _side(knee: Knee) -> str:
    return "" if knee.side is None else knee.side.value


def _scheme_text(request: KneeRequest) -> str:
    return request.labels if isinstance(request.labels, str) else ""
