"""Routing in the scene: pictures from volumes and slice views, answers as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.jobs.execute import Outcome
from MedAILib.mrml.dicom import dicom_modality
from MedAILib.mrml.nodes import array_from_matrix, set_run_id
from MedAILib.mrml.tables import write_records
from MedAILib.mrml.volumes import read_channels
from MedAILib.volume import Geometry, Volume
from MedMNISTRouterLib.files_task import FilesRequest
from MedMNISTRouterLib.inputs import ALL_SLICES, Batch, Reading, find_picture
from MedMNISTRouterLib.picture import Picture, grey_where_grey
from MedMNISTRouterLib.planes import AXES
from MedMNISTRouterLib.request import Answer, PlainImage, RouteRequest, RouteResult
from MedMNISTRouterLib.slices import Cut, all_cuts, cut_at, middle_cut, pictures_of, slice_count, voxel_axis
from MedMNISTRouterLib.summary import RESEARCH_USE
from MedMNISTRouterLib.table import UNITS, row_of

MODELS_ATTRIBUTE = "MedAI.Router.Models"
SOURCE_ATTRIBUTE = "MedAI.Router.Source"
NOTE_ATTRIBUTE = "MedAI.Note"
_COLOURS = 3


@dataclass(frozen=True)
class Options:
    """How to route.

    Attributes
    ----------
    expert : str
        Flag of a data set: skip the router. Empty: route.
    top : int
    models_folder : Path, optional
    without_gate : bool
        See `RouteRequest`.
    """

    expert: str = ""
    top: int = 3
    models_folder: Path | None = None
    without_gate: bool = False


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A request and where its pictures come from.

    Attributes
    ----------
    request : RouteRequest or FilesRequest
        For `MedMNISTRouterLib.files_task.RouteFilesTask`.
    batch : Batch
        The pictures of a volume; empty for files, which the task itself reads.
    source : str
        Id of the volume node, or the file or folder; for the table's attributes.
    name : str
        Start of the table's name.
    """

    request: RouteRequest | FilesRequest
    batch: Batch
    source: str
    name: str

    def answers(self, outcome: Outcome[RouteResult]) -> tuple[Answer, ...]:
        """One answer per picture and per file that could not be read."""
        found: tuple[Answer, ...] = outcome.result.answers
        return found if isinstance(self.request, FilesRequest) else self.batch.merged(found)

    def picture(self, name: str) -> PlainImage | None:
        """The picture of an answer; None of a file that cannot be read."""
        if isinstance(self.request, FilesRequest):
            return find_picture(self.request.paths, self.request.reading, name)
        return next((image for image in self.batch.images if image.name == name), None)


def plan_volume(
    node: Any, axis: str = "auto", index: int | None = None, view: Any = None, options: Options | None = None
) -> ScenePlan:
    """What to ask about slices of a volume node; nothing has run or changed yet.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode or vtkMRMLVectorVolumeNode
        Grey or colour, under any linear transform.
    axis : str
        One of `MedMNISTRouterLib.planes.AXES`; of no account where a view is given.
    index : int, optional
        Slice from 0; `ALL_SLICES`; default: the middle one.
    view : vtkMRMLSliceNode, optional
        Take the slice it shows; an oblique one is replaced by the nearest slice of the volume, with a note.
    options : Options, optional

    Raises
    ------
    InputError
        No voxels, a number of components that is no picture's, no such slice or axis, or a view elsewhere.
    """
    channels = read_channels(node)
    geometry = channels[0].geometry
    cuts = _cuts(geometry, axis, index, view)
    batch = Batch(_pictures(node, channels, cuts))
    return ScenePlan(_request(options, batch.images), batch, node.GetID() or "", node.GetName() or "volume")


def plan_files(paths: Iterable[Any], reading: Reading | None = None, options: Options | None = None) -> ScenePlan:
    """What to ask about files, folders and patterns; nothing is read yet.

    Raises
    ------
    InputError
        No path.
    """
    places = tuple(Path(path).expanduser().absolute() for path in paths)
    if not places:
        raise InputError("No file was named.", todo="Name image files, folders, or patterns such as '*.png'.")
    request = FilesRequest(places, reading or Reading(), _request(options))
    source = str(places[0]) if len(places) == 1 else f"{len(places)} files, {places[0]} first"
    return ScenePlan(request, Batch(()), source, places[0].stem if len(places) == 1 else f"{len(places)} files")


def view_node(scene: Any, view: Any) -> Any:
    """A slice view by its name (``Red``) or as a node.

    Raises
    ------
    InputError
        There is no such view.
    """
    if view is not None and not isinstance(view, str):
        return view
    found = views(scene)
    if view in found:
        return found[view]
    raise InputError(f"There is no slice view '{view}'.", todo=f"The views are: {', '.join(found) or 'none'}.")


def views(scene: Any) -> dict[str, Any]:
    """The slice nodes of a scene by their names."""
    nodes = [
        scene.GetNthNodeByClass(n, "vtkMRMLSliceNode") for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode"))
    ]
    return {node.GetLayoutName() or node.GetName(): node for node in nodes}


def volume_in_view(view: Any) -> Any:
    """The volume that a slice view shows: its background, else its foreground.

    Raises
    ------
    InputError
        It shows none.
    """
    scene, name = view.GetScene(), view.GetLayoutName()
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    for layers in (scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode") for n in range(count)):
        if layers.GetLayoutName() == name:
            for shown in (layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()):
                node = scene.GetNodeByID(shown) if shown else None
                if node is not None:
                    return node
    raise InputError(f"The view '{name}' shows no volume.", todo="Show a volume in it, or choose another view.")


def slice_range(node: Any, axis: str) -> tuple[str, int]:
    """The voxel axis behind a name, and how many slices a volume node has along it; (``k``, 0) without a volume."""
    try:
        geometry = read_channels(node)[0].geometry
    except InputError:
        return "k", 0
    along = voxel_axis(geometry, axis)
    return along, slice_count(geometry, along)


def slice_middle_ras_mm(node: Any, axis: str, index: int) -> tuple[float, float, float]:
    """The middle of a slice of a volume node, world RAS mm."""
    geometry = read_channels(node)[0].geometry
    middle_ijk = [(size - 1) / 2 for size in geometry.shape_kji[::-1]]
    middle_ijk["ijk".index(voxel_axis(geometry, axis))] = float(index)
    right, anterior, superior, _ = geometry.ijk_to_ras @ (*middle_ijk, 1.0)
    return float(right), float(anterior), float(superior)


def write_answers(
    scene: Any, answers: Sequence[Answer], *, name: str, run_id: str, source: str = "", node: Any = None
) -> Any:
    """Answers into a table node, one row per picture.

    Parameters
    ----------
    scene : vtkMRMLScene
    answers : sequence of Answer
        At least one.
    name : str
        Of a new node; a given one keeps its own.
    run_id : str
    source : str
        Where the pictures come from.
    node : vtkMRMLTableNode, optional
        Replaced whole.

    Returns
    -------
    vtkMRMLTableNode
        Its attributes say which run and which models (with SHA-256) made it.
    """
    title = name if node is None else node.GetName()
    table = write_records(scene, [row_of(answer) for answer in answers], name=title, units=UNITS, node=node)
    set_run_id(table, run_id)
    models = {f"{model.slot}={model.id} sha256:{model.sha256}" for answer in answers for model in answer.models}
    table.SetAttribute(MODELS_ATTRIBUTE, "; ".join(sorted(models)))
    table.SetAttribute(SOURCE_ATTRIBUTE, source)
    table.SetAttribute(NOTE_ATTRIBUTE, RESEARCH_USE)
    return table


def _request(options: Options | None, images: tuple[PlainImage, ...] = ()) -> RouteRequest:
    chosen = options or Options()
    return RouteRequest(
        images=images,
        expert=chosen.expert,
        top=chosen.top,
        models_folder=chosen.models_folder,
        without_gate=chosen.without_gate,
    )


def _cuts(geometry: Geometry, axis: str, index: int | None, view: Any) -> tuple[Cut, ...]:
    if view is not None:
        return (cut_at(geometry, array_from_matrix(view.GetSliceToRAS())),)
    if axis not in AXES:
        raise InputError(f"There is no axis '{axis}'.", todo=f"The names are: {', '.join(AXES)}.")
    along = voxel_axis(geometry, axis)
    if index == ALL_SLICES:
        return all_cuts(geometry, along)
    return (middle_cut(geometry, along) if index is None else Cut(along, index),)


def _pictures(node: Any, channels: Sequence[Volume], cuts: Sequence[Cut]) -> tuple[Picture, ...]:
    """Slices with the grey levels that Slicer shows, or in colour."""
    if len(channels) not in (1, _COLOURS, _COLOURS + 1):
        raise InputError(
            f"The volume '{node.GetName()}' has {len(channels)} values per voxel.",
            why="Pictures have one (grey) or three (colour).",
            todo="Take one component out of it first (Vector to Scalar Volume).",
        )
    modality = dicom_modality(node)
    if len(channels) == 1:
        window = _shown_window(node, channels[0].array.dtype)
        pictures = pictures_of(channels[0], cuts, window, modality)
        return tuple(_inverted(picture) for picture in pictures) if _is_inverted(node) else pictures
    each = [pictures_of(channel, cuts, modality=modality) for channel in channels[:_COLOURS]]
    return tuple(_in_colour(parts) for parts in zip(*each, strict=True))


def _in_colour(parts: Sequence[Picture]) -> Picture:
    pixels = np.dstack([part.image.pixels for part in parts])
    return replace(parts[0], image=replace(parts[0].image, pixels=grey_where_grey(pixels)))


def _shown_window(node: Any, kind: np.dtype) -> tuple[float, float] | None:
    """Values that Slicer shows as black and white; None where it shows none, or 8 bit of its own accord."""
    display = node.GetScalarVolumeDisplayNode()
    if display is None or display.GetWindow() <= 0 or (kind == np.uint8 and display.GetAutoWindowLevel()):
        return None
    half = display.GetWindow() / 2.0
    return display.GetLevel() - half, display.GetLevel() + half


def _is_inverted(node: Any) -> bool:
    """Whether Slicer shows large values dark, as of a MONOCHROME1 radiograph."""
    display = node.GetScalarVolumeDisplayNode()
    if display is None:
        return False
    return bool(display.GetInvertDisplayScalarRange()) != (
        display.GetColorNodeID() == "vtkMRMLColorTableNodeInvertedGrey"
    )


def _inverted(picture: Picture) -> Picture:
    image = replace(picture.image, pixels=np.uint8(255) - picture.image.pixels)
    return Picture(image, (*picture.notes, "Its grey levels were inverted, as Slicer shows it."))
