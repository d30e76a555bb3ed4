"""Attributes of a digit measured on its image: how slanted, how thick."""

import math

import torch
import torch.nn.functional as F


def measure_attributes(intensity):
    """Slant and stroke thickness of digits, measured on the image, not learned.

    - slant, in degrees: the angle of the shear that makes the ink's covariance upright,
      arctan(−cov(row, column) / var(row)); positive when the top leans to the right;
    - thickness, in pixels: 2 × area / perimeter, the width of a long stroke. Area: the sum of the
      intensities; perimeter: their total variation, the length of the edges.

    Compare only what is of one kind: a thickness depends on how sharp the edges are, so grey and
    binary versions of one image do not measure the same.

    Args:
        intensity: `(B, 1, H, W)` in [0, 1], 1 for ink; grey or binary.

    Returns:
        `(B, 2)`: slant, thickness. NaN for an image without ink.
    """
    if intensity.dim() != 4 or intensity.shape[1] != 1 or not intensity.is_floating_point():
        raise ValueError(
            f"expected intensities (B, 1, H, W) in [0, 1], got {tuple(intensity.shape)} "
            f"{intensity.dtype}"
        )
    return torch.cat([_measure(part[:, 0]) for part in intensity.split(4096)])  # spare memory


def _measure(ink):
    """Ink `(B, H, W)` -> slant, thickness `(B, 2)`."""
    area = ink.sum((1, 2))
    row = torch.arange(ink.shape[1], dtype=ink.dtype, device=ink.device)[:, None]
    column = torch.arange(ink.shape[2], dtype=ink.dtype, device=ink.device)

    def mean(values):
        return (ink * values).sum((1, 2)) / area

    row = row - mean(row)[:, None, None]  # (B, H, 1), centred
    column = column - mean(column)[:, None, None]  # (B, 1, W)
    slant = torch.atan2(-mean(row * column), mean(row**2)) * 180 / math.pi

    padded = F.pad(ink, (1, 1, 1, 1))
    down, right = padded.diff(dim=1), padded.diff(dim=2)
    down = (down[:, :, 1:] + down[:, :, :-1]) / 2  # both at the corners of the pixels, so that
    right = (right[:, 1:] + right[:, :-1]) / 2  # an image and its mirror measure the same
    perimeter = torch.sqrt(down**2 + right**2).sum((1, 2))
    return torch.stack([slant, 2 * area / perimeter], 1)
