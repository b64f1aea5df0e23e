"""All slices of a volume in one run: where a tumour is suspected, and how large it is.

    result = InProcessRunner(threads=2).run(TASK, VolumeRequest(volume, Path("model.safetensors"))).result

Slices are cut as the model's description says (axial where it says nothing), from any orientation of the
volume, and run a few at a time: memory does not grow with the number of slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.grids import axis_code, reoriented
from MedAILib.jobs.task import Context
from MedAILib.models.heads import ClassInfo
from MedAILib.multitask.planes import axes_of
from MedAILib.multitask.predictor import Asked, MultiTaskPredictor
from MedAILib.multitask.results import Prediction
from MedAILib.palette import default_color
from MedAILib.volume import LabelMap, SegmentInfo, Volume

TASK = "MedAILib.multitask.volume_task:VolumeTask"


@dataclass(frozen=True, eq=False)
class VolumeRequest:
    """Predict on all slices of a volume.

    Attributes
    ----------
    volume : Volume
        Stored values; one channel.
    checkpoint : Path
        The model's weights, or their folder.
    conditional : bool
        Segment only slices whose tumour probability reaches the threshold; else all.
    classification_threshold, segmentation_threshold : float or None
        None: those of the model's description.
    smallest_object_mm3 : float
        Connected parts of the mask that are smaller are removed.
    most_suspicious : int
        How many slices to name.
    batch_size : int or None
        Slices that run at once; None: what is fast on the device.
    """

    volume: Volume
    checkpoint: Path
    conditional: bool = True
    classification_threshold: float | None = None
    segmentation_threshold: float | None = None
    smallest_object_mm3: float = 0.0
    most_suspicious: int = 5
    batch_size: int | None = None


@dataclass(frozen=True)
class SliceFinding:
    """One slice.

    Attributes
    ----------
    index : int
        Along `VolumeResult.axis` of the volume as it was given.
    centre_ras_mm : tuple of float
        The slice's centre.
    tumor_probability : float
    suspicious : bool
        Whether the probability reaches the threshold.
    segmented : bool
    area_mm2 : float
        Of all segments of the mask on this slice, after small objects were removed.
    """

    index: int
    centre_ras_mm: tuple[float, float, float]
    tumor_probability: float
    suspicious: bool
    segmented: bool
    area_mm2: float


@dataclass(frozen=True, eq=False)
class VolumeResult:
    """What the model says of a volume. For research only; no diagnosis.

    Attributes
    ----------
    mask : LabelMap
        On the volume's own grid.
    axis : str
        ``i``, ``j`` or ``k``: the volume's axis across the slices.
    slices : tuple of SliceFinding
        By ascending index.
    most_suspicious : tuple of int
        Slice indices by falling tumour probability, larger areas first among equals.
    volume_mm3 : mapping of str to float
        By segment name.
    classification_threshold : float or None
    segmentation_threshold : float
    calibrated : bool
        False where thresholds or classes were assumed.
    model : mapping of str to Any
        See `MultiTaskPredictor.get_model_info`.
    warnings : tuple of str
    """

    mask: LabelMap
    axis: str
    slices: tuple[SliceFinding, ...]
    most_suspicious: tuple[int, ...]
    volume_mm3: Mapping[str, float]
    classification_threshold: float | None
    segmentation_threshold: float
    calibrated: bool
    model: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def tumor_probability(self) -> np.ndarray:
        """By slice, shape (slices,), float64."""
        return np.array([finding.tumor_probability for finding in self.slices])

    @property
    def has_tumor(self) -> bool:
        """Whether any slice reaches the threshold."""
        return any(finding.suspicious for finding in self.slices)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the mask's voxels."""
        return {
            "axis": self.axis,
            "num_slices": len(self.slices),
            "has_tumor": self.has_tumor,
            "affected_slices": [finding.index for finding in self.slices if finding.suspicious],
            "most_suspicious": list(self.most_suspicious),
            "tumor_volume_mm3": sum(self.volume_mm3.values()),
            "volume_mm3": dict(self.volume_mm3),
            "classification_threshold": self.classification_threshold,
            "segmentation_threshold": self.segmentation_threshold,
            "calibrated": self.calibrated,
            "slice_predictions": [
                {
                    "slice_index": finding.index,
                    "centre_ras_mm": list(finding.centre_ras_mm),
                    "tumor_probability": finding.tumor_probability,
                    "has_tumor": finding.suspicious,
                    "segmentation_computed": finding.segmented,
                    "tumor_area_mm2": finding.area_mm2,
                }
                for finding in self.slices
            ],
            "model": dict(self.model),
            "warnings": list(self.warnings),
        }


class VolumeTask:
    """Predicts on volumes; keeps the model loaded between runs."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._predictor: MultiTaskPredictor | None = None

    def run(self, request: VolumeRequest, context: Context) -> VolumeResult:
        """Run the request.

        Raises
        ------
        MedAIError
            As `MultiTaskPredictor`; `InputError` where the model takes several channels.
        Cancelled
        """
        context.progress("Loading the model", 0.0)
        predictor = self._predictor_for(request, context)
        if predictor.model.layout.in_channels != 1:
            raise InputError(
                f"The model '{predictor.config.id}' takes {predictor.model.layout.in_channels} channels, "
                "a volume has one.",
                todo="Choose a model of one channel.",
            )
        model = predictor.get_model_info()
        context.used_weights(model["model_id"], model["weights_sha256"])
        warnings = _warnings(predictor)
        for text in warnings:
            context.warn(text)
        original = request.volume
        oriented = reoriented(original, axes_of(predictor.input.orientation))
        labels = np.zeros(oriented.array.shape, np.uint8)
        predictions = _predict(predictor, oriented, labels, request.conditional, context)

        context.progress("Measuring", 0.96)
        _remove_small(labels, oriented, request.smallest_object_mm3)
        mask = _on_grid_of(original, LabelMap((labels,), oriented.ijk_to_ras, _segments(predictor), name="Tumour"))
        axis, findings = _findings(original, oriented, labels, predictions, predictor)
        ranked = sorted(findings, key=lambda finding: (-finding.tumor_probability, -finding.area_mm2, finding.index))
        return VolumeResult(
            mask=mask,
            axis=axis,
            slices=findings,
            most_suspicious=tuple(finding.index for finding in ranked[: max(request.most_suspicious, 0)]),
            volume_mm3=_volumes_mm3(mask),
            classification_threshold=predictor.classifying.head.threshold,
            segmentation_threshold=predictor.segmenting.threshold,
            calibrated=predictor.classifying.calibrated and predictor.segmenting.calibrated,
            model=model,
            warnings=warnings,
        )

    def _predictor_for(self, request: VolumeRequest, context: Context) -> MultiTaskPredictor:
        key = (*_identity(request.checkpoint), context.device, context.threads, request.batch_size)
        key = (*key, request.classification_threshold, request.segmentation_threshold)
        if self._predictor is None or key != self._key:
            self._predictor = None  # give its memory back first
            self._predictor = MultiTaskPredictor(
                request.checkpoint,
                context.device,
                classification_threshold=request.classification_threshold,
                segmentation_threshold=request.segmentation_threshold,
                threads=context.threads,
                batch_size=request.batch_size,
            )
            self._key = key
        return self._predictor


def _identity(checkpoint: Path) -> tuple[Any, ...]:
    """What changes when the weights or their description do: paths, sizes and times of their files."""
    files = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else sorted(checkpoint.parent.glob("*.json"))
    files += [] if checkpoint.is_dir() or not checkpoint.exists() else [checkpoint]
    facts = ((str(file), file.stat()) for file in files if file.is_file())
    return (str(checkpoint), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts))


def _warnings(predictor: MultiTaskPredictor) -> tuple[str, ...]:
    found = []
    if predictor.config.assumed:
        names = ", ".join(path.removeprefix("$.") for path in predictor.config.assumed)
        found.append(f"The model does not state these, so the published model's values are assumed: {names}.")
    return tuple(found)


def _predict(
    predictor: MultiTaskPredictor, oriented: Volume, labels: np.ndarray, conditional: bool, context: Context
) -> list[Prediction]:
    """Classify every slice and write its mask into ``labels``; what is kept of a prediction has no arrays."""
    count = len(oriented.array)
    pixel_mm = oriented.geometry.spacing_kji_mm[1:]
    kept: list[Prediction] = []
    answers = predictor.predictions(iter(oriented.array), Asked(conditional=conditional), pixel_mm)
    context.progress("Predicting", 0.05)
    for index, prediction in enumerate(answers):
        if prediction.segmentation is not None:
            labels[index] = prediction.segmentation.mask
        kept.append(replace(prediction, segmentation=None))
        context.progress("Predicting", 0.05 + 0.9 * (index + 1) / count)
    return kept


def _remove_small(labels: np.ndarray, oriented: Volume, smallest_mm3: float) -> None:
    if smallest_mm3 <= 0:
        return
    from scipy import ndimage

    parts, count = ndimage.label(labels > 0, structure=np.ones((3, 3, 3), bool))
    sizes_mm3 = np.bincount(parts.ravel(), minlength=count + 1) * _voxel_mm3(oriented)
    small = sizes_mm3 < smallest_mm3
    small[0] = False
    labels[small[parts]] = 0


def _voxel_mm3(image: Volume | LabelMap) -> float:
    return float(abs(np.linalg.det(image.ijk_to_ras[:3, :3])))


def _on_grid_of(volume: Volume, label_map: LabelMap) -> LabelMap:
    """The label map in the order of the volume's own voxels."""
    back = reoriented(label_map, axis_code(volume.geometry))
    return LabelMap((np.ascontiguousarray(back.layers[0]),), volume.ijk_to_ras, label_map.segments, label_map.name)


def _segments(predictor: MultiTaskPredictor) -> tuple[SegmentInfo, ...]:
    names = predictor.segmenting.segment_names
    classes = {item.name: item for item in predictor.segmenting.head.classes}
    return tuple(
        SegmentInfo(
            id=f"Segment_{label}",
            name=name,
            label_value=label,
            color_rgb=classes[name].color_rgb or default_color(label - 1),
            tags=_tags(classes[name]),
        )
        for label, name in enumerate(names, start=1)
    )


def _tags(info: ClassInfo) -> dict[str, str]:
    """The segment's term, as Slicer writes it: category and type; no anatomic region."""
    if info.terminology is None:
        return {}
    code = info.terminology
    category = "SCT^49755003^Morphologically Altered Structure"
    term = f"{code.scheme}^{code.value}^{code.meaning}"
    contexts = ("Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list")
    return {"TerminologyEntry": f"{contexts[0]}~{category}~{term}~^^~{contexts[1]}~^^~^^"}


def _findings(
    original: Volume, oriented: Volume, labels: np.ndarray, predictions: list[Prediction], predictor: MultiTaskPredictor
) -> tuple[str, tuple[SliceFinding, ...]]:
    """The volume's axis across the slices, and the slices by their index along it."""
    place, flipped = _slice_axis(original, oriented)
    matrix, (count, rows, columns) = oriented.ijk_to_ras, oriented.array.shape
    pixel_mm2 = float(np.linalg.norm(np.cross(matrix[:3, 0], matrix[:3, 1])))
    areas_mm2 = np.count_nonzero(labels, axis=(1, 2)) * pixel_mm2
    found = []
    for index, (prediction, area_mm2) in enumerate(zip(predictions, areas_mm2, strict=True)):
        answer = prediction.classification
        assert answer is not None
        x, y, z = (float(value) for value in (matrix @ [(columns - 1) / 2, (rows - 1) / 2, index, 1.0])[:3])
        found.append(
            SliceFinding(
                index=count - 1 - index if flipped else index,
                centre_ras_mm=(x, y, z),
                tumor_probability=answer.tumor_probability,
                suspicious=predictor.is_suspicious(prediction),
                segmented=prediction.segmentation_computed,
                area_mm2=float(area_mm2),
            )
        )
    return "ijk"[place], tuple(sorted(found, key=lambda finding: finding.index))


def _slice_axis(original: Volume, oriented: Volume) -> tuple[int, bool]:
    """Which voxel axis (0 i, 1 j, 2 k) of the original runs across the slices, and whether the other way."""
    across = axis_code(oriented.geometry)[2]
    pair = next(letters for letters in ("RL", "AP", "SI") if across in letters)
    code = axis_code(original.geometry)
    place = next(axis for axis, letter in enumerate(code) if letter in pair)
    return place, code[place] != across


def _volumes_mm3(mask: LabelMap) -> dict[str, float]:
    counts = np.bincount(mask.layers[0].ravel(), minlength=len(mask.segments) + 1)
    return {info.name: float(counts[info.label_value]) * _voxel_mm3(mask) for info in mask.segments}
