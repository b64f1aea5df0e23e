"""Body, airways, and the left and right lung of a chest CT by thresholds and shape, without weights.

The lungs are the large bodies of air that the body encloses, less the airways; vessels, nodules and
shallow dense borders are taken in by closing. What is as dense as tissue and lies at the edge
(a large effusion, a collapsed lobe, a tumour at the chest wall) is not: the mask is of aerated lung.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CTReportLib.workgrid import WorkGrid

TISSUE_HU = -300.0
LUNG_HU = -400.0
"""Upper bound of lung and airways before closing."""
BONE_HU = 200.0
_SPINE_HU = 130.0
GAS_HU = -955.0
"""Air outside the patient and in the bowel is below this on average, lung above."""
CUT_LUNG_HU = -930.0
"""The same bound for what has tissue on one side only: the foam of a table is below it."""
CLOSING_MM = 8.0
SMALLEST_LUNG_ML = 100.0
SMALLEST_PIECE_ML = 2.0
_AIRWAY_HU = (-880.0, -910.0, -930.0, -950.0, -970.0)
_MOST_AIRWAY_ML = 130.0
_FACE = np.array([[[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool)
"""Neighbours within an axial slice."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """Masks on the working grid, shape (k, j, i), bool.

    Attributes
    ----------
    body : ndarray
        The patient with everything enclosed, lungs included.
    airways : ndarray
        Trachea and main bronchi; may be empty.
    left, right : ndarray
        The patient's left and right lung; empty where there is none.
    carina_k : int or None
        The lowest slice in which the trachea is one round hole; None where no trachea was found.
    middle_i : float or None
        The column of the patient's middle: of the trachea, else of the spine, else of a body that is wholly inside;
        None where none of them is in the image.
    """

    body: np.ndarray
    airways: np.ndarray
    left: np.ndarray
    right: np.ndarray
    carina_k: int | None = None
    middle_i: float | None = None

    @property
    def sides_known(self) -> bool:
        """Whether the middle was found: else `left` and `right` are halves of the image, and no side may be named."""
        return self.middle_i is not None

    @property
    def both(self) -> np.ndarray:
        return self.left | self.right


def find_lungs(grid: WorkGrid) -> Lungs:
    """The lungs of a CT on the working grid; empty masks where there are none."""
    from scipy import ndimage

    tissue = _largest(ndimage.binary_opening(grid.hu > TISSUE_HU, iterations=1))
    gas = (grid.hu < LUNG_HU) & grid.inside
    gas &= ~_outside(grid, gas, tissue)
    trachea = _trachea(grid, gas & (grid.hu < -700))
    airways = grown_airways(grid, gas, trachea)
    aerated = gas & ~ndimage.binary_dilation(airways, iterations=1)
    middle = _midline(grid, tissue, airways)
    left, right = _sides(grid, aerated, grid.hu.shape[2] / 2 if middle is None else middle)
    left, right = _closed(grid, left, airways | right), _closed(grid, right, airways | left)
    both = left & right
    right &= ~both
    body = _filled(tissue | left | right | airways)
    slices = np.flatnonzero(trachea.any(axis=(1, 2)))
    return Lungs(body, airways, left, right, int(slices[0]) if slices.size else None, middle)


def grown_airways(grid: WorkGrid, enclosed_gas: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Trachea and main bronchi: what grows out of the trachea at the highest threshold that does not leak into lung.

    Parameters
    ----------
    grid : WorkGrid
    enclosed_gas : ndarray, shape (k, j, i), bool
        Gas within the body.
    seeds : ndarray, shape (k, j, i), bool
        The trachea.
    """
    from scipy import ndimage

    if not seeds.any():
        return seeds
    for threshold in _AIRWAY_HU:
        candidates = seeds | (enclosed_gas & (grid.hu < threshold))
        labels, _ = ndimage.label(candidates)
        grown = np.isin(labels, np.unique(labels[seeds]))
        if (grown.sum() - seeds.sum()) * grid.voxel_ml < _MOST_AIRWAY_ML / 2 and _is_slim(grid, grown, seeds):
            return grown
    return seeds


def _is_slim(grid: WorkGrid, grown: np.ndarray, seeds: np.ndarray) -> bool:
    """Whether nothing thicker than a main bronchus was reached: a leak into lung is."""
    from scipy import ndimage

    thick = ndimage.binary_erosion(grown & ~seeds, iterations=max(1, round(9.0 / grid.spacing_mm)))
    return not thick.any()


def _trachea(grid: WorkGrid, gas: np.ndarray) -> np.ndarray:
    """The longest chain of overlapping round holes, one a slice, of a trachea's size."""
    from scipy import ndimage

    labels, count = ndimage.label(gas, structure=_FACE)
    found = np.zeros_like(gas)
    if count == 0:
        return found
    pixel_mm2 = grid.spacing_mm**2
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel_mm2
    chains: list[list[int]] = []
    open_chains: dict[int, list[tuple[int, float, float, list[int]]]] = {}
    order = sorted(range(count), key=lambda n: -boxes[n][0].start)
    for n in order:
        k, rows, columns = boxes[n][0].start, boxes[n][1], boxes[n][2]
        height, width = (rows.stop - rows.start), (columns.stop - columns.start)
        if not 50 <= areas[n] <= 700 or max(height, width) > 2.6 * min(height, width):
            continue
        if areas[n] < 0.5 * height * width * pixel_mm2:
            continue
        y, x = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
        reach = 8.0 / grid.spacing_mm
        above = [
            c
            for c in open_chains.get(k + 1, [])
            if abs(c[1] - y) < reach and abs(c[2] - x) < reach and areas[n] > 0.55 * np.median(areas[c[3]])
        ]
        chain = max(above, key=lambda c: len(c[3]))[3] if above else []
        if not above:
            chains.append(chain)
        chain.append(n)
        open_chains.setdefault(k, []).append((n, y, x, chain))
    if not chains:
        return found
    best = max(chains, key=len)
    if len(best) * grid.spacing_mm < 24.0:
        return found
    for n in best:
        found[boxes[n]] |= labels[boxes[n]] == n + 1
    return found


def _outside(grid: WorkGrid, gas: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Gas around the patient: in each axial slice what reaches the edge of the image and is air, not lung.

    A lung that a narrow field of view cuts reaches the edge too; it is told from air, and from the foam of a
    table, by its mean value and by tissue in front of or behind it.
    """
    from scipy import ndimage

    labels, count = ndimage.label(gas | ~grid.inside, structure=_FACE)
    if count == 0:
        return ~grid.inside
    within = grid.inside & gas
    sizes = np.bincount(labels[within], minlength=count + 1)
    sums = np.bincount(labels[within], weights=grid.hu[within], minlength=count + 1)
    means = np.divide(sums, sizes, out=np.full(count + 1, -1000.0), where=sizes > 0)
    in_front, behind = _beyond(tissue, 1)
    at_right, at_left = _beyond(tissue, 2)

    def share(near: np.ndarray) -> np.ndarray:
        return np.divide(np.bincount(labels[within], weights=near[within], minlength=count + 1), np.maximum(sizes, 1))

    between = share(in_front & behind)
    touches_back, touches_front = _present(labels[:, 0], count), _present(labels[:, -1], count)
    at_edge = touches_back | touches_front
    for face in (labels[:, :, 0], labels[:, :, -1], labels[~grid.inside]):
        at_edge |= _present(face, count)
    open_side = (touches_front & (share(behind) > 0.5)) | (touches_back & (share(in_front) > 0.5))
    lung_like = (means > GAS_HU) & (between > 0.5)
    cut_lung = (means > CUT_LUNG_HU) & open_side & (share(at_right | at_left) > 0.6)
    is_outside = np.where(at_edge, ~(lung_like | cut_lung), between < 0.2)
    is_outside[0] = False
    return is_outside[labels] | ~grid.inside


def _beyond(tissue: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """For each voxel whether there is tissue further up an axis, and whether there is further down."""
    further_up = np.flip(np.maximum.accumulate(np.flip(tissue, axis), axis=axis), axis)
    return further_up, np.maximum.accumulate(tissue, axis=axis)


def _present(labels: np.ndarray, count: int) -> np.ndarray:
    """For each label whether it occurs."""
    present = np.zeros(count + 1, dtype=bool)
    present[np.unique(labels)] = True
    return present


def _midline(grid: WorkGrid, tissue: np.ndarray, airways: np.ndarray) -> float | None:
    """The index i of the patient's middle: of the trachea, else of the spine, else of a body that is wholly inside.

    None where none of them is in the image: a crop beside the middle does not tell its side.
    """
    if airways.any():
        return float(np.flatnonzero(airways.any(axis=(0, 1))).mean())
    spine = _spine_middle(grid, tissue)
    if spine is not None:
        return spine
    where = np.flatnonzero(tissue.any(axis=(0, 1)))
    if where.size == 0 or tissue[:, :, [0, -1]].any():
        return None
    return float(where.mean())


def _spine_middle(grid: WorkGrid, tissue: np.ndarray) -> float | None:
    """The index i of the middle of a tall bone too thick for ribs, in the back half; None where there is none."""
    from scipy import ndimage

    rows = np.flatnonzero(tissue.any(axis=(0, 2)))
    if rows.size == 0:
        return None
    back = (grid.hu > _SPINE_HU) & tissue
    back[:, (rows[0] + rows[-1]) // 2 :] = False
    steps = max(1, round(5.0 / grid.spacing_mm))
    thick = ndimage.binary_erosion(back, iterations=steps)
    column = ndimage.binary_dilation(thick, iterations=steps) & back
    if not column.any():
        return None
    spine = _largest(column)
    slices = np.flatnonzero(spine.any(axis=(1, 2)))
    if slices.size < 0.5 * grid.hu.shape[0] or spine.sum() * grid.voxel_ml < 20.0:
        return None
    return float(np.average(np.arange(spine.shape[2]), weights=spine.sum(axis=(0, 1))))


def _sides(grid: WorkGrid, aerated: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """Aerated lung of the left and of the right side, before closing."""
    from scipy import ndimage

    labels, count = ndimage.label(aerated)
    left, right = np.zeros_like(aerated), np.zeros_like(aerated)
    if count == 0:
        return left, right
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    numbers = np.arange(1, count + 1)
    large = [n for n in numbers if sizes[n] * grid.voxel_ml >= SMALLEST_LUNG_ML]
    large = [n for n in large if np.median(grid.hu[labels == n]) > GAS_HU]
    if not large:
        return left, right
    k_range = _lung_range(labels, large, sizes)
    for n in large:
        part = labels == n
        rows = np.flatnonzero(part.any(axis=(1, 2)))
        if rows[-1] < k_range[0] or rows[0] > k_range[1]:
            continue
        of_left, of_right = _split(grid, part, middle)
        left |= of_left
        right |= of_right
    _take_pieces(grid, labels, sizes, large, left, right)
    return left, right


def _lung_range(labels: np.ndarray, large: list[int], sizes: np.ndarray) -> tuple[int, int]:
    """First and last slice of the largest lung: bowel with gas lies below it."""
    rows = np.flatnonzero((labels == max(large, key=lambda n: sizes[n])).any(axis=(1, 2)))
    return int(rows[0]), int(rows[-1])


def _take_pieces(
    grid: WorkGrid, labels: np.ndarray, sizes: np.ndarray, large: list[int], left: np.ndarray, right: np.ndarray
) -> None:
    """Add smaller pieces of aerated lung to the lung they lie beside."""
    from scipy import ndimage

    steps = max(1, round(6.0 / grid.spacing_mm))
    pieces = [n for n in np.flatnonzero(sizes * grid.voxel_ml >= SMALLEST_PIECE_ML) if n and n not in large]
    if not pieces:
        return
    near_left, near_right = (ndimage.binary_dilation(side, iterations=steps) for side in (left, right))
    for n in pieces:
        part = labels == n
        if np.median(grid.hu[part]) <= GAS_HU:
            continue
        touch_left, touch_right = int((part & near_left).sum()), int((part & near_right).sum())
        if max(touch_left, touch_right) > 0.2 * sizes[n]:
            (left if touch_left >= touch_right else right)[part] = True


def _split(grid: WorkGrid, part: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """One body of air as its left and right lung: as it is where it lies on one side, else cut where it is thinnest."""
    columns = np.arange(part.shape[2])
    share_right = part.sum(axis=(0, 1))[columns > middle].sum() / part.sum()
    nothing = np.zeros_like(part)
    if share_right > 0.85:
        return nothing, part
    if share_right < 0.15:
        return part, nothing
    from scipy import ndimage

    depth = _distance_mm(grid, part)
    for millimetres in (2.5, 4.0, 6.0, 8.0, 11.0, 14.0):
        labels, count = ndimage.label(depth > millimetres)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        sizes[0] = 0
        if count < 2:
            continue
        first, second = np.argsort(sizes)[-2:]
        centres = [float(np.nonzero(labels == n)[2].mean()) for n in (first, second)]
        if sizes[first] > 0.15 * sizes[second] and min(centres) < middle < max(centres):
            markers = np.where(labels == first, 1, 0) + np.where(labels == second, 2, 0)
            grown = _watershed(depth, markers, part)
            one, two = grown == 1, grown == 2
            return (one, two) if centres[0] < centres[1] else (two, one)
    is_right = np.broadcast_to(columns > middle, part.shape)
    return part & ~is_right, part & is_right


def _watershed(depth: np.ndarray, markers: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Each voxel of `part` to the marker from whose side it is reached through the widest way."""
    import SimpleITK

    flooded = SimpleITK.MorphologicalWatershedFromMarkers(
        SimpleITK.GetImageFromArray(-depth),
        SimpleITK.GetImageFromArray(markers.astype(np.uint8)),
        markWatershedLine=False,
        fullyConnected=False,
    )
    return SimpleITK.GetArrayFromImage(flooded) * part


def _closed(grid: WorkGrid, lung: np.ndarray, never: np.ndarray) -> np.ndarray:
    """A lung with its vessels and notches filled (closing), except where something else is."""
    from scipy import ndimage

    from MedAILib.grids import bounding_box

    box = bounding_box(lung)
    if box is None:
        return lung.copy()
    steps = round(CLOSING_MM / grid.spacing_mm) + 1
    block = np.pad(lung[box.slices], steps)
    wide = _distance_mm(grid, ~block) <= CLOSING_MM
    closed = (_distance_mm(grid, np.pad(wide, 1, constant_values=False))[1:-1, 1:-1, 1:-1] > CLOSING_MM) | block
    for plane in closed:
        ndimage.binary_fill_holes(plane, output=plane)
    inner = closed[steps:-steps, steps:-steps, steps:-steps]
    whole = np.zeros_like(lung)
    whole[box.slices] = (inner & ~never[box.slices] & grid.inside[box.slices]) | lung[box.slices]
    return whole


def _distance_mm(grid: WorkGrid, mask: np.ndarray) -> np.ndarray:
    """Distance of each voxel of a mask to the nearest voxel outside it; 0 outside."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8))
    image.SetSpacing([grid.spacing_mm] * 3)
    distance = SimpleITK.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    # Maurer's map is zero on the mask's own border voxels; measured to the next voxel outside it is one spacing more
    return np.where(mask, SimpleITK.GetArrayViewFromImage(distance) + grid.spacing_mm, 0).astype(np.float32)


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _filled(mask: np.ndarray) -> np.ndarray:
    """A mask with the holes of each axial slice filled."""
    from scipy import ndimage

    filled = mask.copy()
    for plane in filled:
        ndimage.binary_fill_holes(plane, output=plane)
    return filled
