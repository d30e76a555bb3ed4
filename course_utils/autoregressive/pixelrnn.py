"""PixelRNN: Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, arXiv:1601.06759, section 3).

An LSTM carries a memory from row to row, or from diagonal to diagonal: in one layer, a pixel may
depend on pixels as far above as there are. The price: rows, or diagonals, wait for each other.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .masked import ConvCache, MaskedConv2d, RowsAbove, check_kernel_size
from .pixelcnn import PlainLayer
from .pixels import Bias, PixelModel


class _PixelRNN(PixelModel):
    """A first convolution with the mask A, then layers of LSTM with residual links."""

    def __init__(self, shape, *, layers=2, first_kernel_size=7, position_map=True, **options):
        super().__init__(shape, **options)
        features = self.features
        if layers < 1:
            raise ValueError(f"layers={layers}: expected at least one")
        check_kernel_size(first_kernel_size, at_least=3)
        common = {
            "groups": self.groups, "shape": self.shape, "position_map": position_map,
            "num_classes": self.num_classes,
        }  # fmt: skip
        self.first = PlainLayer(self.in_features, features, first_kernel_size, first=True, **common)
        self.layers = nn.ModuleList(self._layer(features, **common) for _ in range(layers))

    def _features(self, x, classes):
        x, _ = self.first(None, x, classes)
        for layer in self.layers:
            x = layer(x, classes)
        return x

    def _cache(self, classes, n):
        return _Cache(self, classes, n)


class RowLSTM(_PixelRNN):
    """The memory goes down, row by row: a pixel sees a triangle above it, wider at each row.

    See `PixelModel` for the other arguments.

    Args:
        layers: number of LSTM layers, after the first convolution.
        first_kernel_size: odd; of the first convolution (mask A).
        position_map: each layer learns a bias for each position.
    """

    @staticmethod
    def _layer(features, **common):
        return RowLayer(features, **common)


class DiagonalBiLSTM(_PixelRNN):
    """The memory goes along the diagonals, from both sides: a pixel sees those before it.

    All but the last pixel of the row above, unless the first convolution reaches it.

    See `RowLSTM` for the arguments.
    """

    @staticmethod
    def _layer(features, **common):
        return DiagonalLayer(features, **common)


def lstm_cell(gates, c, dim=1):
    """One step (eq. 3 of the paper): gates and memory, 4F and F features at `dim` -> h, c."""
    o, f, i, g = gates.chunk(4, dim)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class RowLayer(nn.Module):
    """All the pixels of a row at once: gates = masked row of x + 1×3 kernel on the row above."""

    def __init__(self, features, *, groups, shape, **biases):
        super().__init__()
        self.input_to_state = MaskedConv2d(
            "B", features, features, 3, rows_above=0, groups=groups, repeats=4
        )
        self.state_to_state = nn.Conv1d(features, 4 * features, 3, padding=1, bias=False)
        self.bias = Bias(4 * features, shape, **biases)
        self.out = MaskedConv2d("B", features, features, 1, groups=groups)

    def forward(self, x, classes):
        """`(B, F, H, W)` -> `(B, F, H, W)`."""
        gates = self.input_to_state(x) + self.bias(classes)  # (B, 4F, H, W)
        h = c = torch.zeros_like(x[:, :, 0])  # (B, F, W)
        rows = []
        for row in gates.unbind(2):
            h, c = lstm_cell(row + self.state_to_state(h), c)
            rows.append(h)
        return x + self.out(torch.stack(rows, 2))

    def cache(self, classes, n, width):
        return _RowLayerCache(self, classes, n, width)


class DiagonalLayer(nn.Module):
    """Two LSTMs along the diagonals; each pixel reads its neighbour above, and the one beside it.

    The one from the left reads the left neighbour. The one from the right would read the future:
    its map is moved down by one row, and then only tells what the rows above know.
    """

    def __init__(self, features, *, groups, shape, **biases):
        super().__init__()
        self.scans = nn.ModuleList(
            DiagonalScan(features, groups=groups, shape=shape, **biases) for _ in range(2)
        )
        self.out = MaskedConv2d("B", features, features, 1, groups=groups)

    def forward(self, x, classes):
        """`(B, F, H, W)` -> `(B, F, H, W)`."""
        from_left, from_right = self.scans
        left = from_left(x, classes)
        right = from_right(x.flip(3), classes).flip(3)
        right = F.pad(right[:, :, :-1], (0, 0, 1, 0))  # down by one row
        return x + self.out(left + right)

    def cache(self, classes, n, width):
        return _DiagonalLayerCache(self, classes, n, width)


class DiagonalScan(nn.Module):
    """An LSTM from the left to the right, along the diagonals."""

    def __init__(self, features, *, groups, shape, **biases):
        super().__init__()
        self.input_to_state = MaskedConv2d("B", features, features, 1, groups=groups, repeats=4)
        # along a column of the skewed map: the cell above, then the cell itself
        self.state_to_state = nn.Conv1d(features, 4 * features, 2, bias=False)
        self.bias = Bias(4 * features, shape, **biases)

    def forward(self, x, classes):
        """`(B, F, H, W)` -> hidden states `(B, F, H, W)`."""
        # (B, 4F, H, W + H − 1), zeros outside of the image: before it, the states stay 0
        gates = skew(self.input_to_state(x) + self.bias(classes))
        h = c = torch.zeros_like(x[..., 0])  # (B, F, H)
        diagonals = []
        for diagonal in gates.unbind(3):
            # before this step, h is the column on the left of the skewed map: at row r, the
            # pixel on the left; at row r − 1, the pixel above
            h, c = lstm_cell(diagonal + self.state_to_state(F.pad(h, (1, 0))), c)
            diagonals.append(h)
        return unskew(torch.stack(diagonals, 3))


def skew(x):
    """Move row r of `(B, F, H, W)` by r pixels to the right: `(B, F, H, W + H − 1)`.

    The diagonals become columns: the neighbours above and on the left are in the column before.
    """
    height, width = x.shape[2:]
    # with H zeros after each row, the rows one after the other, cut every W + H − 1 pixels
    flat = F.pad(x, (0, height)).flatten(2)
    return flat[..., : height * (width + height - 1)].unflatten(2, (height, -1))


def unskew(x):
    """Undo `skew`: `(B, F, H, W + H − 1)` -> `(B, F, H, W)`."""
    height = x.shape[2]
    flat = F.pad(x.flatten(2), (0, height))
    return flat.unflatten(2, (height, -1))[..., : x.shape[3] - height + 1]


# ---------------------------------------------------------------------------------------------
# Sampling: see `pixels.PixelModel._cache`
# ---------------------------------------------------------------------------------------------


class _Cache:
    """The first convolution, then each layer, one pixel at a time."""

    def __init__(self, model, classes, n):
        width = model.shape[2]
        first = model.first
        self.first = ConvCache(first.conv, first.bias.rows(classes), n, width)
        self.layers = [layer.cache(classes, n, width) for layer in model.layers]
        self.row = self.first.row

    def start_row(self, row):
        self.first.start_row(row)
        for layer in self.layers:
            layer.start_row(row)

    def features(self, column):
        x = self.first.pixel(column)
        for layer in self.layers:
            x = layer.pixel(column, x)
        return x


class _RowLayerCache:
    def __init__(self, layer, classes, n, width):
        self.input = ConvCache(layer.input_to_state, layer.bias.rows(classes), n, width)
        self.state_to_state = RowsAbove(layer.state_to_state.weight[:, :, None], n, width)
        self.h = self.state_to_state.nearest  # (F, W, n), of the row being drawn
        self.c = torch.zeros_like(self.h)
        self.out = layer.out.masked_weight().flatten(1)

    def start_row(self, row):
        self.c_above = self.c.clone()
        self.input.start_row(row, self.state_to_state.convolve())

    def pixel(self, column, x):
        self.input.row[column] = x
        h, c = lstm_cell(self.input.pixel(column), self.c_above[:, column], dim=0)
        self.h[:, column], self.c[:, column] = h, c
        return torch.addmm(x, self.out, h)


class _DiagonalLayerCache:
    def __init__(self, layer, classes, n, width):
        self.left, self.right = (_ScanCache(scan, classes, n, width) for scan in layer.scans)
        self.out = layer.out.masked_weight().flatten(1)
        self.x = torch.zeros_like(self.left.h)  # the row being drawn, (W, F, n)

    def start_row(self, row):
        if row > 0:  # the row before is complete: it can be scanned from the right
            self.right.start_row(row - 1)
            for column, x in enumerate(self.x.flip(0)):
                self.right.pixel(column, x)
        self.left.start_row(row)
        self.from_right = self.right.h.flip(0)

    def pixel(self, column, x):
        self.x[column] = x
        h = self.left.pixel(column, x) + self.from_right[column]
        return torch.addmm(x, self.out, h)


class _ScanCache:
    """The states of one scan, along the current row and in the row above."""

    def __init__(self, scan, classes, n, width):
        self.weight = scan.input_to_state.masked_weight().flatten(1)
        self.from_above, self.from_left = scan.state_to_state.weight.unbind(2)
        self.biases = scan.bias.rows(classes)
        self.h = self.weight.new_zeros(width, self.weight.shape[1], n)
        self.c = torch.zeros_like(self.h)
        self.zeros = torch.zeros_like(self.h[0])

    def start_row(self, row):
        self.sums = self.from_above @ self.h + self.biases[row]  # (W, 4F, n)

    def pixel(self, column, x):
        left_h = self.h[column - 1] if column > 0 else self.zeros
        left_c = self.c[column - 1] if column > 0 else self.zeros
        gates = self.sums[column] + self.weight @ x + self.from_left @ left_h
        h, c = lstm_cell(gates, left_c, dim=0)
        self.h[column], self.c[column] = h, c
        return h
