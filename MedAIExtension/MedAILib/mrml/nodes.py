"""What all nodes share: where they stand in the world, attributes, and changes that are whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import vtk

from MedAILib.errors import InputError

RUN_ID_ATTRIBUTE = "MedAI.RunId"


@contextmanager
def modifying(node: Any) -> Iterator[None]:
    """Hold the node's Modified events back until the block ends, also when it ends in an error."""
    was_modifying = node.StartModify()
    try:
        yield
    finally:
        node.EndModify(was_modifying)


@contextmanager
def new_node(scene: Any, class_name: str, name: str) -> Iterator[Any]:
    """A node added to the scene, filled in the block, and taken out again where the block fails."""
    node = scene.AddNewNodeByClass(class_name, name)
    if node is None:
        raise InputError(f"The scene cannot create a node of class {class_name}.")
    try:
        with modifying(node):
            yield node
    except BaseException:
        scene.RemoveNode(node)
        raise


@contextmanager
def node_to_write(scene: Any, node: Any, class_name: str, name: str) -> Iterator[Any]:
    """The given node, or a new one where it is None, held for writing."""
    if node is None:
        with new_node(scene, class_name, name) as created:
            yield created
        return
    if not node.IsA(class_name):
        raise InputError(f"'{node.GetName()}' is a {node.GetClassName()}; a {class_name} is needed.")
    with modifying(node):
        yield node


def node_to_world(node: Any) -> np.ndarray:
    """The parent transforms of a node as one matrix.

    Returns
    -------
    ndarray, shape (4, 4), float64
        From the node's own RAS millimetres to world RAS millimetres; identity without a transform.

    Raises
    ------
    InputError
        Where a parent transform is not linear.
    """
    parent = node.GetParentTransformNode()
    matrix = vtk.vtkMatrix4x4()
    if parent is not None:
        if not parent.IsTransformToWorldLinear():
            raise InputError(
                f"'{node.GetName()}' lies under the transform '{parent.GetName()}', which is not linear.",
                why="Warping moves voxels off any regular grid.",
                todo="Harden the transform on the node (Transforms module), or take the node out of it.",
            )
        parent.GetMatrixTransformToWorld(matrix)
    return array_from_matrix(matrix)


def array_from_matrix(matrix: Any) -> np.ndarray:
    """A vtkMatrix4x4 as an array, shape (4, 4), float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)], dtype=np.float64)


def matrix_from_array(array: np.ndarray) -> Any:
    """An array of shape (4, 4) as a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(value) for value in np.asarray(array).ravel()])
    return matrix


def set_run_id(node: Any, run_id: str) -> None:
    """Mark a node as the result of a run, so that its run report can be found again."""
    node.SetAttribute(RUN_ID_ATTRIBUTE, run_id)


def run_id(node: Any) -> str | None:
    """The run that made this node; None where no run did."""
    return node.GetAttribute(RUN_ID_ATTRIBUTE)
