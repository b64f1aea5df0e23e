"""Files into and out of the scene without Slicer's Qt file manager: what ``slicer.util.load*`` and ``save*`` call.

The reading and writing itself is done by the real storage nodes.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

NODE_CLASS_OF_FILE_TYPE = {
    "VolumeFile": "vtkMRMLScalarVolumeNode",
    "SegmentationFile": "vtkMRMLSegmentationNode",
    "ModelFile": "vtkMRMLModelNode",
    "TableFile": "vtkMRMLTableNode",
    "TextFile": "vtkMRMLTextNode",
    "TransformFile": "vtkMRMLTransformNode",
    "ColorTableFile": "vtkMRMLColorTableNode",
}
FILE_TYPE_OF_ENDING = {
    ".seg.nrrd": "SegmentationFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".mha": "VolumeFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
    ".json": "TextFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".ctbl": "ColorTableFile",
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
}


class FileManager:
    """The part of ``qSlicerCoreIOManager`` that needs no Qt."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene

    def fileType(self, file_name: str) -> str:
        for ending, kind in FILE_TYPE_OF_ENDING.items():
            if str(file_name).lower().endswith(ending):
                return kind
        return "NoFile"

    def fileWriterFileType(self, node: Any) -> str:
        kinds = (kind for kind, name in NODE_CLASS_OF_FILE_TYPE.items() if node.IsA(name))
        return next(kinds, "NoFile")

    def loadNodes(self, kind: str, properties: dict, loaded: Any = None, messages: Any = None) -> bool:
        path = Path(properties["fileName"])
        if kind == "SceneFile":
            return load_scene(self._scene, path, clear=bool(properties.get("clear", False)))
        class_name = NODE_CLASS_OF_FILE_TYPE.get(kind)
        if class_name is None or not path.is_file():
            return False
        if properties.get("labelmap"):
            class_name = "vtkMRMLLabelMapVolumeNode"
        name = properties.get("name") or path.name.split(".")[0]
        node = self._scene.AddNewNodeByClass(class_name, self._scene.GenerateUniqueName(name))
        if not read_node(node, path):
            self._scene.RemoveNode(node)
            return False
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def saveNodes(self, kind: str, properties: dict, messages: Any = None) -> bool:
        path = Path(properties["fileName"])
        if kind == "SceneFile":
            return save_scene(self._scene, path)
        node = self._scene.GetNodeByID(properties["nodeID"])
        return node is not None and write_node(node, path)


def read_node(node: Any, path: Path) -> bool:
    """Read a file into a node that is in the scene, with the node's own storage."""
    storage = _storage(node)
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        return False
    if node.IsA("vtkMRMLDisplayableNode"):
        node.CreateDefaultDisplayNodes()
    return True


def write_node(node: Any, path: Path) -> bool:
    """Write a node with its own storage."""
    storage = _storage(node)
    storage.SetFileName(str(path))
    return bool(storage.WriteData(node))


def save_scene(scene: Any, path: Path) -> bool:
    """Save the scene and its data as ``.mrb``, or as ``.mrml`` with the data files beside it."""
    if path.suffix.lower() == ".mrb":
        return bool(scene.WriteToMRB(str(path)))
    scene.SetRootDirectory(str(path.parent))
    for node in _nodes(scene, "vtkMRMLStorableNode"):
        if node.GetSaveWithScene() and not node.GetHideFromEditors() and node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        if storage is None or not node.GetSaveWithScene():
            continue
        ending = storage.GetDefaultWriteFileExtension()
        if not write_node(node, path.parent / f"{node.GetID()}.{ending}"):
            return False
    scene.SetURL(str(path))
    return bool(scene.Commit(str(path)))


def load_scene(scene: Any, path: Path, *, clear: bool = True) -> bool:
    """Import a ``.mrml`` or ``.mrb`` file.

    The bundle is unpacked first: reading one in place needs the application's archive code.
    """
    if clear:
        scene.Clear(False)
    if path.suffix.lower() != ".mrb":
        return _import(scene, path)
    folder = Path(tempfile.mkdtemp(prefix="medai-mrb-"))
    try:
        with zipfile.ZipFile(path) as bundle:
            bundle.extractall(folder)
        scenes = sorted(folder.rglob("*.mrml"))
        return len(scenes) == 1 and _import(scene, scenes[0])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _import(scene: Any, path: Path) -> bool:
    scene.SetURL(str(path))
    scene.SetRootDirectory(str(path.parent))
    return bool(scene.Import())


def _storage(node: Any) -> Any:
    if node.GetStorageNode() is None:
        if node.IsA("vtkMRMLTextNode"):
            node.SetForceCreateStorageNode(node.CreateStorageNodeAlways)  # short texts live in the scene file itself
        node.AddDefaultStorageNode()
    return node.GetStorageNode()


def _nodes(scene: Any, class_name: str) -> list[Any]:
    found = scene.GetNodesByClass(class_name)
    found.UnRegister(None)  # the scene hands over a reference that Python does not know of
    return [found.GetItemAsObject(index) for index in range(found.GetNumberOfItems())]
