"""Pictures of the bones, coloured by cartilage thickness, from six views.

Drawn by VTK without a window, in a process of its own: where a machine has no way to draw (no display, no EGL, no
OSMesa), VTK may end the process that asks it to.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from KneeAnalysisLib.meshes import polydata
from KneeAnalysisLib.results import Report, Thickness
from KneeAnalysisLib.thickness import BoneThickness
from MedAILib.jobs.codec import load, save
from MedAILib.jobs.process import worker_environment
from MedAILib.jobs.task import Context

logger = logging.getLogger(__name__)

LIMIT_S = 180.0
THICKEST_MM = 4.0
"""Upper end of the colours of all pictures, so that knees can be compared by eye."""
_PANEL_PX = 340
_BAR_PX = 110
_BARE = (0.87, 0.84, 0.78)
_DENUDED = (0.85, 0.33, 0.31)
_BACKGROUND = (1.0, 1.0, 1.0)
_CAPTION = (0.15, 0.17, 0.2)
_PACKAGES = frozenset({"KneeAnalysisLib", "MedAILib"})
_STOPS = ((0.0, "440154"), (0.25, "3b528b"), (0.5, "21918c"), (0.75, "5ec962"), (1.0, "fde725"))
"""Of a colour map that is even to the eye and safe for the colour-blind (viridis)."""


@dataclass(frozen=True)
class View:
    """A direction to look from: from where, and what is up, in RAS."""

    title: str
    from_ras: tuple[float, float, float]
    up_ras: tuple[float, float, float]


def views(side: str) -> tuple[View, ...]:
    """The six views of a knee of that side (``left``, ``right`` or empty: unknown)."""
    lateral = {"right": "Lateral", "left": "Medial"}.get(side, "Right")
    medial = {"right": "Medial", "left": "Lateral"}.get(side, "Left")
    return (
        View("Anterior", (0, 1, 0), (0, 0, 1)),
        View("Posterior", (0, -1, 0), (0, 0, 1)),
        View(lateral, (1, 0, 0), (0, 0, 1)),
        View(medial, (-1, 0, 0), (0, 0, 1)),
        View("Superior", (0, 0, 1), (0, 1, 0)),
        View("Inferior", (0, 0, -1), (0, 1, 0)),
    )


def draw_pictures(bones: tuple[BoneThickness, ...], side: str, context: Context) -> Report:
    """A picture of every bone from six views; without any, and with the reason, where this machine cannot draw."""
    if not bones:
        return Report(no_pictures="No bone with cartilage was measured.")
    context.progress("Pictures", 0.1)
    with tempfile.TemporaryDirectory(prefix="medai-knee-") as name:
        folder = Path(name)
        save(Thickness(bones), folder / "in")
        why = _draw_elsewhere(folder, side, context)
        files = [folder / f"{bone.bone.key}.png" for bone in bones]
        if why or not all(file.is_file() for file in files):
            why = why or "The drawing process left no pictures."
            logger.warning("no pictures: %s", why)
            return Report(no_pictures=why)
        pictures = tuple(np.frombuffer(file.read_bytes(), np.uint8) for file in files)
    return Report(tuple(bone.bone.title for bone in bones), pictures)


def _draw_elsewhere(folder: Path, side: str, context: Context) -> str:
    """Draw in a process of its own; answers why that failed, empty where it did not."""
    environment = worker_environment(os.environ, 1)
    here = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join((here, environment["PYTHONPATH"]))
    command = [sys.executable, "-P", "-m", "KneeAnalysisLib.pictures", str(folder), side]
    with (folder / "said.txt").open("w+b") as said:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            for _ in range(round(LIMIT_S / 0.1)):
                context.check()
                try:
                    status = process.wait(0.1)
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                return f"Drawing took longer than {LIMIT_S:g} s."
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        words = said.read().decode("utf-8", "replace").strip()
    if status:
        logger.info("the drawing process ended with %s:\n%s", status, words)
        last = words.splitlines()[-1][:200] if words else "no message"
        return f"This machine cannot draw without a window (status {status}: {last})."
    return ""


def draw_bone(bone: BoneThickness, side: str) -> np.ndarray:
    """The six views of a bone in a picture, and the legend: (rows, columns, 3), uint8, bottom row first."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(4)
    width, height = 3 * _PANEL_PX + _BAR_PX, 2 * _PANEL_PX
    window.SetSize(width, height)
    mapper = _mapper(bone)
    for number, view in enumerate(views(side)):
        column, row = number % 3, 1 - number // 3
        left, right = (one * _PANEL_PX / width for one in (column, column + 1))
        window.AddRenderer(_panel(mapper, bone, view, (left, row / 2, right, (row + 1) / 2)))
    window.AddRenderer(_legend(mapper, (3 * _PANEL_PX / width, 0.0, 1.0, 1.0)))
    window.Render()
    taken = vtk.vtkWindowToImageFilter()
    taken.SetInput(window)
    taken.ReadFrontBufferOff()
    taken.Update()
    image = taken.GetOutput()
    columns, rows, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[..., :3].copy()


def thickness_colors(thickest_mm: float = THICKEST_MM) -> Any:
    """The colours of thickness as a VTK lookup function; 0 and below is bare bone."""
    import vtk

    colors = vtk.vtkColorTransferFunction()
    for share, code in _STOPS:
        colors.AddRGBPoint(share * thickest_mm, *(int(code[place : place + 2], 16) / 255 for place in (0, 2, 4)))
    colors.SetClamping(True)
    return colors


def point_colors(bone: BoneThickness) -> np.ndarray:
    """The colour of every point: (N, 3), uint8; denuded bone red, bone without cartilage bone-coloured."""
    shares = np.clip(bone.thickness_mm / THICKEST_MM, 0, 1)
    stops = np.array([share for share, _ in _STOPS])
    codes = np.array([[int(code[place : place + 2], 16) for place in (0, 2, 4)] for _, code in _STOPS], dtype=float)
    colors = np.stack([np.interp(shares, stops, codes[:, channel]) for channel in range(3)], axis=1)
    colors[~bone.covered] = 255 * np.array(_BARE)
    colors[bone.denuded] = 255 * np.array(_DENUDED)
    return colors.round().astype(np.uint8)


def _mapper(bone: BoneThickness) -> Any:
    import vtk

    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputData(polydata(bone.mesh, {"color": point_colors(bone)}))
    mapper.SetColorModeToDirectScalars()
    mapper.ScalarVisibilityOn()
    return mapper


def _panel(mapper: Any, bone: BoneThickness, view: View, viewport: tuple[float, float, float, float]) -> Any:
    import vtk

    renderer = vtk.vtkRenderer()
    renderer.SetViewport(*viewport)
    renderer.SetBackground(*_BACKGROUND)
    actor = vtk.vtkActor()
    actor.SetMapper(mapper)
    actor.GetProperty().SetAmbient(0.25)
    actor.GetProperty().SetDiffuse(0.75)
    renderer.AddActor(actor)
    low, high = bone.mesh.points_ras_mm.min(axis=0), bone.mesh.points_ras_mm.max(axis=0)
    middle = (low + high) / 2
    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()
    camera.SetFocalPoint(*middle)
    camera.SetPosition(*(middle + 500 * np.array(view.from_ras)))
    camera.SetViewUp(*view.up_ras)
    camera.SetParallelScale(0.56 * float((high - low).max()))
    renderer.ResetCameraClippingRange()
    renderer.AddViewProp(_caption(view.title))
    return renderer


def _caption(text: str) -> Any:
    import vtk

    caption = vtk.vtkTextActor()
    caption.SetInput(text)
    caption.GetTextProperty().SetFontSize(17)
    caption.GetTextProperty().SetColor(*_CAPTION)
    caption.SetPosition(10, 8)
    return caption


def _legend(mapper: Any, viewport: tuple[float, float, float, float]) -> Any:
    import vtk

    renderer = vtk.vtkRenderer()
    renderer.SetViewport(*viewport)
    renderer.SetBackground(*_BACKGROUND)
    bar = vtk.vtkScalarBarActor()
    bar.SetLookupTable(thickness_colors())
    bar.SetTitle("mm")
    bar.SetNumberOfLabels(5)
    bar.SetLabelFormat("{:.0f}")
    bar.UnconstrainedFontSizeOn()
    for text in (bar.GetTitleTextProperty(), bar.GetLabelTextProperty()):
        text.SetColor(*_CAPTION)
        text.SetFontSize(16)
        text.ItalicOff()
        text.BoldOff()
        text.ShadowOff()
    bar.SetPosition(0.05, 0.2)
    bar.SetWidth(0.8)
    bar.SetHeight(0.65)
    renderer.AddViewProp(bar)
    denuded = _caption("denuded")
    denuded.GetTextProperty().SetColor(*_DENUDED)
    denuded.SetPosition(10, 40)
    renderer.AddViewProp(denuded)
    return renderer


def main(folder: Path, side: str) -> None:
    """Draw the bones saved in ``folder/in`` as ``folder/<bone>.png``."""
    from PIL import Image

    thickness = load(folder / "in", _PACKAGES)
    for bone in thickness.bones:
        Image.fromarray(np.ascontiguousarray(draw_bone(bone, side)[::-1])).save(folder / f"{bone.bone.key}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
