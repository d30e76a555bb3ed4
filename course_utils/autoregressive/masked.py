"""Masked convolutions (van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv:1601.06759).

The pixels are visited row by row; the output at a pixel may read the rows above and, in its own
row, what is on the left. A 3×3 kernel keeps five taps (mask B), or four (mask A), out of nine:

        1 1 1          1 1 1
        1 0 0          1 1 0
        0 0 0          0 0 0
       mask A         mask B

Mask A, for the first layer, hides the pixel itself, whose value is to be guessed. Mask B, for the
others, does not: the features at a pixel know only the pixels before it already.

In colour, R comes before V and V before B. The features are split in as many groups; at the pixel
itself, mask A lets a group read the earlier groups, mask B the earlier groups and its own.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def channel_mask(kind, out_features, in_features, groups):
    """What the features at a pixel may read of the features at the same pixel.

    Args:
        kind: `"A"` or `"B"`.
        out_features, in_features: multiples of `groups`; group 0 comes first, and so on.
        groups: number of colour groups; 1 when the channels do not see each other.

    Returns:
        `(out_features, in_features)`, 1 where a weight is kept.
    """
    if kind not in ("A", "B"):
        raise ValueError(f"mask {kind!r}: expected 'A' or 'B'")
    for name, features in (("out_features", out_features), ("in_features", in_features)):
        if features < 1 or features % groups:
            raise ValueError(
                f"{name}={features}: expected a multiple of {groups}, as many features per colour"
            )
    out_group = torch.arange(out_features)[:, None] * groups // out_features
    in_group = torch.arange(in_features)[None, :] * groups // in_features
    return (out_group > in_group if kind == "A" else out_group >= in_group).float()


class MaskedConv2d(nn.Module):
    """A convolution that reads only what comes before: rows above, then pixels on the left.

    The rows below are not stored: the kernel has `rows_above + 1` rows. With `rows_above=0` it
    looks along its row only, and the columns on the right are not stored either. The mask is
    applied to the weights at each call; the weights themselves are never changed.

    Args:
        kind: mask `"A"` or `"B"`; see `channel_mask`.
        in_features, out_features: maps `(B, in_features, H, W)` -> `(B, out_features, H, W)`.
        kernel_size: odd; the kernel reaches `kernel_size // 2` pixels on each side.
        rows_above: `kernel_size // 2` by default.
        groups: number of colour groups.
        repeats: the outputs are `repeats` blocks of `out_features` (the gates of one layer).
    """

    def __init__(
        self, kind, in_features, out_features, kernel_size, *, rows_above=None, groups=1, repeats=1
    ):
        super().__init__()
        check_kernel_size(kernel_size)
        reach = kernel_size // 2
        rows_above = reach if rows_above is None else rows_above
        columns = kernel_size if rows_above else reach + 1
        self.padding = (reach, columns - 1 - reach, rows_above, 0)  # left, right, top, bottom

        centre = channel_mask(kind, out_features, in_features, groups).repeat(repeats, 1)
        mask = torch.ones(*centre.shape, rows_above + 1, columns)
        mask[:, :, -1, reach] = centre
        mask[:, :, -1, reach + 1 :] = 0
        self.register_buffer("mask", mask, persistent=False)
        self.weight = nn.Parameter(torch.empty_like(mask))
        inputs = mask[0].numel()  # taps × features
        nn.init.uniform_(self.weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def masked_weight(self):
        """`(repeats · out_features, in_features, rows_above + 1, columns)`, zeros where cut."""
        return self.weight * self.mask

    def forward(self, x):
        return F.conv2d(F.pad(x, self.padding), self.masked_weight())


def check_kernel_size(kernel_size, at_least=1):
    """Raise unless a kernel has a centre."""
    if kernel_size < at_least or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size}: expected an odd number, at least {at_least}")


# ---------------------------------------------------------------------------------------------
# Sampling: a masked convolution, pixel by pixel
# ---------------------------------------------------------------------------------------------


class RowsAbove:
    """What a kernel owes to the rows that are complete: a product for each of its columns.

    The maps are kept with the features first and the images last, `(rows, features, W + 2·reach,
    n)`, zeros around: what a column of the kernel reads is then a mere slice, nothing is copied.

    Args:
        weight: `(out, features, rows, 2·reach + 1)`.
        n, width: number of images, and of pixels in a row.
        bias: to add, `(out, 1, n or 1)`; none by default.
    """

    def __init__(self, weight, n, width, bias=None):
        out, features, rows, columns = weight.shape
        reach = columns // 2
        maps = weight.new_zeros(rows, features, (width + 2 * reach) * n)
        self.maps = maps
        self.nearest = maps[-1, :, reach * n : (reach + width) * n].unflatten(1, (width, n))
        self.taps = [
            (
                weight[..., column].transpose(1, 2).flatten(1),
                maps.flatten(0, 1)[:, column * n : (column + width) * n],
            )
            for column in range(columns)
        ]
        bias = weight.new_zeros(out, 1, 1) if bias is None else bias
        self.bias = bias.expand(out, width, n).flatten(1)
        self.sums = weight.new_empty(out, width * n)
        self.row = self.sums.unflatten(1, (width, n))

    def push(self, row):
        """`(features, W, n)` becomes the nearest row; the farthest is forgotten."""
        for nearer in range(1, len(self.maps)):
            self.maps[nearer - 1] = self.maps[nearer]
        self.nearest.copy_(row)

    def convolve(self):
        """The kernel at each pixel of the next row -> `(out, W, n)`, always the same tensor."""
        sums = self.bias
        for weight, window in self.taps:
            sums = torch.addmm(sums, weight, window, out=self.sums)
        return self.row


class ConvCache:
    """A `MaskedConv2d` along the current row, what it owes to the rows above being added up.

    The share of the rows above is computed once per row, for all its pixels. What is left for each
    pixel is one product, written into a tensor made in advance: at this size, preparing a tensor
    takes as long as computing what it holds.

    Args:
        conv: the `MaskedConv2d`.
        biases: list of H rows `(W or 1, out, n or 1)` to add.
        n, width: number of images, and of pixels in a row.
        scale: `(out, 1)`, to multiply the outputs by (those of `biases` are not).

    Attributes:
        row: inputs of the current row, `(W, in_features, n)`, to be written from left to right.
        new: what `pixel` returns, always the same tensor.
    """

    def __init__(self, conv, biases, n, width, *, scale=1):
        weight = conv.masked_weight()
        out, features, rows, _ = weight.shape
        reach = conv.padding[0]
        self.biases = biases
        # (out, taps · features)
        self.weight = weight[:, :, -1, : reach + 1].transpose(1, 2).flatten(1) * scale

        padded = weight.new_zeros(reach + width, features, n)
        self.row = padded[reach:]
        self.windows = [  # the pixel and those on its left: W views (taps · features, n)
            padded[column : column + reach + 1].flatten(0, 1) for column in range(width)
        ]
        self.above = None
        if rows > 1:
            self.above = RowsAbove(weight[:, :, :-1], n, width)
        self.sums = weight.new_empty(width, out, n)  # the share of the rows above
        self.new = weight.new_empty(out, n)

    def start_row(self, row, above=None):
        """The row before is complete; `above` `(out, W, n)` is added to the new one's outputs."""
        if self.above is not None:
            if row > 0:
                self.above.push(self.row.transpose(0, 1))
            share = self.above.convolve()
            above = share if above is None else share.add_(above)
        torch.add(above.transpose(0, 1), self.biases[row], out=self.sums)

    def pixel(self, column):
        """Output `(out, n)` at a pixel, its inputs and those on its left being known."""
        return torch.addmm(self.sums[column], self.weight, self.windows[column], out=self.new)
