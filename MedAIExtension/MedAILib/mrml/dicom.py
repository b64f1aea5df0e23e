"""What Slicer remembers of the DICOM series that a volume node was loaded from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"


def dicom_modality(node: Any) -> str:
    """DICOM's word for a volume loaded from DICOM (``CT``, ``MR``); empty where the subject hierarchy does not say."""
    scene = node.GetScene()
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") if scene is not None else None
    if hierarchy is None:
        return ""
    item = hierarchy.GetItemByDataNode(node)
    return str(hierarchy.GetItemAttribute(item, "DICOM.Modality") or "") if item else ""


def dicom_instance_uids(node: Any) -> tuple[str, ...]:
    """SOP instance UIDs of the slices of a volume loaded from DICOM; none of others."""
    return tuple((node.GetAttribute(INSTANCES_ATTRIBUTE) or "").split())


def dicom_source_file(node: Any, database: Any) -> Path | None:
    """A file of the series that a volume was loaded from, where it is still there.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode
    database : ctkDICOMDatabase or None
        Slicer's (``slicer.dicomDatabase``).
    """
    if database is None:
        return None
    for uid in dicom_instance_uids(node):
        path = str(database.fileForInstance(uid) or "")
        if path and Path(path).is_file():
            return Path(path)
    return None
