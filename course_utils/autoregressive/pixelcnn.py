"""PixelCNN, plain and gated (van den Oord et al. 2016, arXiv:1601.06759 and arXiv:1606.05328).

A stack of masked convolutions. Training needs one pass, for all the pixels at once; sampling visits
them one by one, and computes nothing twice.

The plain stack has a blind spot: pixels before the current one that no path of 3×3 kernels reaches.
The gated one has none: a vertical stack reads the rows above, a horizontal one the current row.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .masked import ConvCache, MaskedConv2d, RowsAbove, check_kernel_size
from .pixels import Bias, PixelModel


class PixelCNN(PixelModel):
    """PixelCNN; see `PixelModel` for the other arguments.

    Args:
        gated: True: gates and two stacks, no blind spot. False: the plain one, with residual links.
        layers: number of masked layers; the first has the mask A, the others the mask B.
        first_kernel_size, kernel_size: odd; of the first layer, and of the others.
        position_map: each layer learns a bias for each position.
        class_map: it does so for each class.
        dropout: probability that a feature is hidden from the next layer, in training.
    """

    def __init__(
        self,
        shape,
        *,
        gated=True,
        layers=7,
        kernel_size=3,
        first_kernel_size=7,
        position_map=True,
        class_map=False,
        dropout=0.0,
        **options,
    ):
        super().__init__(shape, **options)
        if layers < 1:
            raise ValueError(f"layers={layers}: expected at least one")
        check_kernel_size(kernel_size, at_least=3)
        check_kernel_size(first_kernel_size, at_least=3)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: expected a probability, 0 ≤ dropout < 1")
        self.gated, self.dropout = gated, dropout
        if class_map and not (position_map and self.num_classes):
            raise ValueError("class_map=True needs num_classes, and position_map=True")
        biases = {"position_map": position_map, "num_classes": self.num_classes}
        biases["class_map"] = class_map
        layer = GatedLayer if gated else PlainLayer
        first, *others = [first_kernel_size] + [kernel_size] * (layers - 1)
        sizes = [(self.in_features, first), *((self.features, size) for size in others)]
        self.layers = nn.ModuleList(
            layer(in_features, self.features, size, first=number == 0, groups=self.groups,
                  shape=self.shape, **biases)
            for number, (in_features, size) in enumerate(sizes)
        )  # fmt: skip

    def _features(self, x, classes):
        # one row down: at row r, the vertical stack starts from the row above
        vertical, horizontal = F.pad(x[:, :, :-1], (0, 0, 1, 0)), x
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, classes)
            if self.dropout:
                horizontal = F.dropout(horizontal, self.dropout, self.training)
        return horizontal

    def _cache(self, classes, n):
        return (_GatedCache if self.gated else _PlainCache)(self, classes, n)


class PlainLayer(nn.Module):
    """One masked convolution, after a ReLU and beside a residual link (none in the first layer)."""

    def __init__(self, in_features, features, kernel_size, *, first, groups, shape, **biases):
        super().__init__()
        self.first = first
        kind = "A" if first else "B"
        self.conv = MaskedConv2d(kind, in_features, features, kernel_size, groups=groups)
        self.bias = Bias(features, shape, **biases)

    def forward(self, _, x, classes):
        """`(B, in_features, H, W)` -> `(B, features, H, W)`, twice: there is but one stack."""
        new = self.conv(x if self.first else F.relu(x)) + self.bias(classes)
        new = new if self.first else x + new
        return new, new


class GatedLayer(nn.Module):
    """One layer of both stacks: tanh(a) · σ(b) in the place of a ReLU.

    The vertical stack, at row r, knows the rows above r and nothing else, whatever the column: its
    kernels need no mask. (It starts from the image moved down by one row; the paper moves each of
    its maps instead.) The horizontal stack reads the left of its row, and the vertical stack.
    """

    def __init__(self, in_features, features, kernel_size, *, first, groups, shape, **biases):
        super().__init__()
        self.first, reach = first, kernel_size // 2
        self.padding = (reach, reach, reach, 0)  # left, right, top, bottom
        self.vertical = nn.Conv2d(in_features, 2 * features, (reach + 1, kernel_size), bias=False)
        self.vertical_bias = Bias(2 * features, shape, **biases | {"position_map": False})
        self.link = nn.Conv2d(2 * features, 2 * features, 1, bias=False)
        kind = "A" if first else "B"
        self.horizontal = MaskedConv2d(
            kind, in_features, features, kernel_size, rows_above=0, groups=groups, repeats=2
        )
        self.horizontal_bias = Bias(2 * features, shape, **biases)
        self.residual = MaskedConv2d("B", features, features, 1, groups=groups)

    def forward(self, v, h, classes):
        """Both stacks `(B, in_features, H, W)` -> `(B, features, H, W)`."""
        above = self.vertical(F.pad(v, self.padding)) + self.vertical_bias(classes)  # (B, 2F, H, W)
        gates = self.horizontal(h) + self.link(above) + self.horizontal_bias(classes)
        new = self.residual(gate(gates))
        return gate(above), new if self.first else h + new


def gate(features, dim=1):
    """tanh(a) · σ(b), from a and b one after the other along a dimension."""
    a, b = features.chunk(2, dim)
    # tanh(a) = 2σ(2a) − 1: on a CPU, torch's sigmoid is several times faster than its tanh
    return (2 * torch.sigmoid(2 * a) - 1) * torch.sigmoid(b)


# ---------------------------------------------------------------------------------------------
# Sampling: all that the next pixels will read again, so that no feature is computed twice. At this
# size, looking a tensor up takes as long as computing what it holds: `plan` lists, column by
# column, what each layer reads and where it writes. With the features first and the images last,
# all that a pixel reads is in one piece, and so is what it writes.
# ---------------------------------------------------------------------------------------------


class _PlainCache:
    def __init__(self, model, classes, n):
        width = model.shape[2]
        convs = [
            ConvCache(layer.conv, layer.bias.rows(classes), n, width) for layer in model.layers
        ]
        self.convs, self.row = convs, convs[0].row
        self.last = model.b.new_empty(model.features, n)
        outs = [conv.row for conv in convs[1:]] + [[self.last] * width]
        self.plan = [
            [
                (conv.sums[column], conv.weight, conv.windows[column], conv.new, out[column])
                for conv, out in zip(convs, outs)
            ]
            for column in range(width)
        ]

    def start_row(self, row):
        for conv in self.convs:
            conv.start_row(row)

    def features(self, column):
        h = None
        for sums, weight, window, new, out in self.plan[column]:
            torch.addmm(sums, weight, window, out=new)
            h = new if h is None else new.add_(h)
            torch.clamp_min(h, 0, out=out)  # what the next layer reads
        return self.last


class _GatedCache:
    """The vertical stack advances row by row, the horizontal one pixel by pixel.

    With tanh(a) = 2σ(2a) − 1, one sigmoid makes both factors of a gate. In the vertical stack,

        tanh(a) σ(b) = 2 (σ(2a) − ½) σ(b),

    and in the horizontal one,

        residual · tanh(a) σ(b) = [2·residual, −residual] · [σ(2a) σ(b), σ(b)].

    The factors 2 are put into the weights once and for all.
    """

    def __init__(self, model, classes, n):
        width, features = model.shape[2], model.features
        self.layers = [_GatedLayerCache(layer, classes, n, width) for layer in model.layers]
        convs = [layer.conv for layer in self.layers]
        self.row = convs[0].row
        self.last = model.b.new_empty(features, n)
        zeros = torch.zeros_like(self.last)  # the first layer has no residual link
        outs = [conv.row for conv in convs[1:]] + [[self.last] * width]
        self.plan = [
            [
                (conv.sums[column], conv.weight, conv.windows[column], conv.new,
                 *conv.new.chunk(2), conv.row[column] if number else zeros, layer.residual,
                 out[column])
                for number, (layer, conv, out) in enumerate(zip(self.layers, convs, outs))
            ]
            for column in range(width)
        ]  # fmt: skip

    def start_row(self, row):
        # the vertical stack starts from the row above, which is complete; zeros above the image
        v = (self.row if row > 0 else torch.zeros_like(self.row)).transpose(0, 1)
        for layer in self.layers:
            v = layer.start_row(row, v)

    def features(self, column):
        for sums, weight, window, gates, product, sigmoid_b, h, residual, out in self.plan[column]:
            torch.addmm(sums, weight, window, out=gates).sigmoid_()
            product.mul_(sigmoid_b)
            torch.addmm(h, residual, gates, out=out)
        return self.last


class _GatedLayerCache:
    def __init__(self, layer, classes, n, width):
        features = len(layer.residual.weight)
        scale = layer.residual.weight.new_ones(2 * features, 1)
        scale[:features] = 2  # the a of a gate
        # the vertical stack; its gates are the halves of those of the layer before
        weight = layer.vertical.weight if layer.first else 2 * layer.vertical.weight
        bias = layer.vertical_bias.rows(classes)[0].transpose(0, 1)  # (2F, 1, n or 1)
        self.above = RowsAbove(weight * scale[..., None, None], n, width, bias * scale[..., None])
        self.a, self.b = self.above.row.chunk(2)
        # the horizontal stack
        biases = [bias * scale for bias in layer.horizontal_bias.rows(classes)]
        self.conv = ConvCache(layer.horizontal, biases, n, width, scale=scale)
        self.link = scale * layer.link.weight.flatten(1) / scale.T
        residual = layer.residual.masked_weight().flatten(1)  # (F, F)
        self.residual = torch.cat([2 * residual, -residual], 1)

    def start_row(self, row, v):
        """`v` `(features, W, n)`: this row of the vertical stack, before and after the layer."""
        self.above.push(v)
        above = self.above.convolve()  # (2F, W, n)
        self.conv.start_row(row, (self.link @ above.flatten(1)).view_as(above))
        above.sigmoid_()
        return self.a.sub_(0.5).mul_(self.b)
