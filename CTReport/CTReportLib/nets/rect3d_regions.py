"""Which share of every patch lies in which anatomical region. Needs torch."""

from __future__ import annotations

import torch

from MedAILib.errors import InputError

LEAST_SHARE = 1e-6
"""Added to every share before they are made to sum to 1: patches without any region look at all of them alike."""

Size = tuple[int, int, int]


def region_shares(labels: torch.Tensor, regions: int, patch: Size) -> torch.Tensor:
    """Shares of the regions in every patch, counted in one pass over the voxels.

    Parameters
    ----------
    labels : torch.Tensor
        Shape (batch, slices, rows, columns), whole numbers: 0 for no region, else 1 to ``regions``.
    regions : int
    patch : tuple of int
        Voxels of a patch along slices, rows and columns; the volume is whole patches.

    Returns
    -------
    torch.Tensor
        Shape (batch, patches, regions), float32, positive, of sum 1 for every patch; planes slowest.

    Raises
    ------
    InputError
        Labels are no whole numbers from 0 to ``regions``, or the volume is no whole patches.
    """
    _check(labels, regions, patch)
    shares = [_counts(one, regions, patch) for one in labels]
    voxels = patch[0] * patch[1] * patch[2]
    share = torch.stack(shares)[..., 1:].to(torch.float32) / voxels + LEAST_SHARE
    return share / share.sum(dim=-1, keepdim=True)


def _counts(labels: torch.Tensor, regions: int, patch: Size) -> torch.Tensor:
    """Voxels of every label in every patch, shape (patches, regions + 1), int64; one row of patches at a time."""
    bins = regions + 1
    planes, rows, columns = (length // side for length, side in zip(labels.shape, patch, strict=True))
    device = labels.device
    in_row = torch.arange(rows, device=device).repeat_interleave(patch[1])[:, None] * columns
    in_row = (in_row + torch.arange(columns, device=device).repeat_interleave(patch[2])) * bins
    counts = [
        torch.bincount((slab + in_row).flatten(), minlength=rows * columns * bins).view(rows * columns, bins)
        for slab in labels.view(planes, patch[0], *labels.shape[1:]).long().unbind()
    ]
    return torch.cat(counts)


def _check(labels: torch.Tensor, regions: int, patch: Size) -> None:
    if labels.dim() != 4 or labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"A label map of regions must be whole numbers of four axes, not {labels.dtype} of {labels.dim()}.",
            todo="Give it as (batch, slices, rows, columns), int16 for example.",
        )
    if any(length % side or not length for length, side in zip(labels.shape[1:], patch, strict=True)):
        raise InputError(
            f"A label map of {_times(labels.shape[1:])} voxels cannot be cut into patches of {_times(patch)}.",
            todo="Resample it to the grid of the image that the encoder gets.",
        )
    least, most = (int(bound) for bound in labels.aminmax())
    if least < 0 or most > regions:
        raise InputError(
            f"The label map of regions holds {least if least < 0 else most}; the encoder knows 0 to {regions}.",
            todo="Number the anatomical regions as the encoder was trained.",
        )


def _times(lengths: tuple[int, ...] | torch.Size) -> str:
    return " x ".join(str(length) for length in lengths)
