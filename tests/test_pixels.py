"""PixelCNN and PixelRNN: the networks by hand, their masks, what they read, what a pixel costs."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from autoregressive_models import (
    CLASSES,
    PIXEL_CASES,
    PIXEL_KINDS,
    build,
    labels,
    random_images,
    seeded,
)
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils.autoregressive.masked import MaskedConv2d, RowsAbove
from course_utils.autoregressive.pixelrnn import skew, unskew
from course_utils.evaluation import measured_dependencies

# ---- the networks by hand, in double precision ------------------------------------------------


def full_kernel(weight, kind, reach, groups, blocks=1):
    """The k×k kernel of the lecture: the weights where the mask is 1, zeros elsewhere."""
    out, features, rows, columns = weight.shape
    kernel = torch.zeros(out, features, 2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    kernel[:, :, reach + 1 - rows : reach + 1, :columns] = weight
    kernel[:, :, reach + 1 :] = 0
    kernel[:, :, reach, reach + 1 :] = 0
    for o, i in itertools.product(range(out), range(features)):
        group_out = o % (out // blocks) // (out // blocks // groups)
        group_in = i // (features // groups)
        if group_in > group_out or (kind == "A" and group_in == group_out):
            kernel[o, i, reach, reach] = 0
    return kernel


class ByHand:
    """The definition of a model, from its weights; maps are `(B, features, H, W)`."""

    def __init__(self, model, classes):
        self.model, self.classes = model, None if classes is None else classes.double()
        self.weights = {name: value.detach().double() for name, value in model.state_dict().items()}

    def conv(self, x, name, kind="B", reach=0, blocks=1):
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(
            x, full_kernel(weight, kind, reach, self.model.groups, blocks), padding=reach
        )

    def bias(self, name):
        bias = self.weights[f"{name}.map"][None]
        if self.classes is not None:
            bias = bias + torch.einsum(
                "bk,khwf->bhwf", self.classes, self.weights[f"{name}.of_class"]
            )
        return bias.movedim(3, 1)

    def inputs(self, x):
        if self.model.one_hot:
            table = torch.eye(self.model.levels, dtype=torch.float64)
        elif "embedding" in self.weights:
            table = self.weights["embedding"]
        else:
            return x.double() / (self.model.levels - 1)
        return table[x.long()].movedim(4, 2).flatten(1, 2)

    def plain(self, x, name, reach, first):
        new = self.conv(x if first else torch.relu(x), f"{name}.conv", "A" if first else "B", reach)
        new = new + self.bias(f"{name}.bias")
        return new if first else x + new

    def gated(self, v, h, name, first):
        """At row r, `v` is what the vertical stack knows: the rows above r only."""
        vertical, link = (self.weights[f"{name}.{part}.weight"] for part in ("vertical", "link"))
        reach = vertical.shape[-1] // 2
        kernel = F.pad(vertical, (0, 0, 0, reach))  # zeros below
        above = F.conv2d(v, kernel, padding=reach) + self.bias(f"{name}.vertical_bias")
        along = self.conv(h, f"{name}.horizontal", "A" if first else "B", reach, blocks=2)
        gates = along + F.conv2d(above, link) + self.bias(f"{name}.horizontal_bias")
        new = self.conv(gated_unit(gates), f"{name}.residual")
        return gated_unit(above), new if first else h + new

    def row(self, x, name):
        """The state of a pixel: from the three pixels above, and from the memory above."""
        gates = self.conv(x, f"{name}.input_to_state", reach=1, blocks=4) + self.bias(
            f"{name}.bias"
        )
        taps = self.weights[f"{name}.state_to_state.weight"].unbind(2)
        h, memory, zero = {}, {}, torch.zeros_like(x[:, :, 0, 0])
        for r, c in pixels(x):
            total = gates[:, :, r, c]
            for tap, weight in enumerate(taps):
                total = total + h.get((r - 1, c + tap - 1), zero) @ weight.T
            h[r, c], memory[r, c] = lstm(total, memory.get((r - 1, c), zero))
        return x + self.conv(as_map(h, x), f"{name}.out")

    def diagonal(self, x, name):
        """Without skewing. The state of a pixel: from the one above and the one beside."""
        zero, states = torch.zeros_like(x[:, :, 0, 0]), []
        for scan, step in ((0, 1), (1, -1)):
            part = f"{name}.scans.{scan}"
            bias = self.bias(f"{part}.bias")
            bias = bias if step == 1 else bias.flip(3)  # its map of biases is mirrored
            gates = self.conv(x, f"{part}.input_to_state", blocks=4) + bias
            from_above, from_beside = self.weights[f"{part}.state_to_state.weight"].unbind(2)
            h, memory = {}, {}
            for r, c in pixels(x, step):
                total = gates[:, :, r, c] + h.get((r - 1, c), zero) @ from_above.T
                total = total + h.get((r, c - step), zero) @ from_beside.T
                h[r, c], memory[r, c] = lstm(total, memory.get((r, c - step), zero))
            states.append(h)
        left, right = states
        both = {(r, c): left[r, c] + right.get((r - 1, c), zero) for r, c in left}
        return x + self.conv(as_map(both, x), f"{name}.out")

    def features(self, kind, x):
        x, model = self.inputs(x), self.model
        if kind == "gated":
            v = F.pad(x, (0, 0, 1, 0))[:, :, :-1]
            for number in range(len(model.layers)):
                v, x = self.gated(v, x, f"layers.{number}", number == 0)
        elif kind == "plain":
            for number, layer in enumerate(model.layers):
                x = self.plain(x, f"layers.{number}", layer.conv.padding[0], number == 0)
        else:
            x = self.plain(x, "first", model.first.conv.padding[0], True)
            for number in range(len(model.layers)):
                x = getattr(self, kind)(x, f"layers.{number}")
        return x

    def parameters(self, features):
        """`(B, P, C, H, W)`: the outputs come channel by channel."""
        bias = self.weights["hidden_bias"][:, None, None]
        hidden = torch.relu(self.conv(torch.relu(features), "hidden") + bias)
        out = self.conv(hidden, "out").unflatten(1, (-1, self.model.num_outputs))
        return out.transpose(1, 2) + self.weights["b"]


def gated_unit(x):
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


def lstm(gates, memory):
    """Output, forget, input and content gates, in this order."""
    o, f, i, g = gates.chunk(4, 1)
    memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(memory), memory


def pixels(x, step=1):
    """Row by row; from the right for a step of −1."""
    return itertools.product(range(x.shape[2]), range(x.shape[3])[::step])


def as_map(cells, x):
    """The features of each pixel as a map of the form of `x`."""
    out = torch.empty_like(x)
    for (r, c), cell in cells.items():
        out[:, :, r, c] = cell
    return out


def check_by_hand(model, kind, n):
    x, y = random_images(model, n), labels(model, n)
    by_hand = ByHand(model, model.condition(y, n))
    with torch.no_grad():
        expected = by_hand.features(kind.split(":")[0], x)
        features, logits = model.feature_maps(x.float(), y), model.logits(x, y)
    torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-5)
    expected = by_hand.parameters(expected).view_as(logits)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "num_classes"), PIXEL_CASES)
def test_the_network_by_hand(kind, num_classes):
    check_by_hand(build(kind, num_classes), kind, 3)


@pytest.mark.parametrize("kind", PIXEL_KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (4, 2)])
def test_thin_images(kind, size):
    """Kernels larger than the image: by hand, and the sampler."""
    model = build(f"{kind}: colour", size=size, first_kernel_size=7)
    check_by_hand(model, kind, 2)
    naive = model.sample(8, generator=seeded(), naive=True)
    assert torch.equal(model.sample(8, generator=seeded()), naive)


# ---- the masks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "kernel_size", "options", "expected"),
    [
        ("A", 3, {}, [[1, 1, 1], [1, 0, 0]]),
        ("B", 3, {}, [[1, 1, 1], [1, 1, 0]]),
        ("A", 5, {}, [[1] * 5, [1] * 5, [1, 1, 0, 0, 0]]),
        ("B", 5, {"rows_above": 1}, [[1] * 5, [1, 1, 1, 0, 0]]),
        # along the row: nothing on the right is stored
        ("A", 5, {"rows_above": 0}, [[1, 1, 0]]),
        ("B", 3, {"rows_above": 0}, [[1, 1]]),
        ("B", 1, {}, [[1]]),
    ],
)
def test_the_masks_of_the_docstring(kind, kernel_size, options, expected):
    """Rows above, then the row itself."""
    assert MaskedConv2d(kind, 1, 1, kernel_size, **options).mask[0, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("more", [{}, {"rows_above": 0}, {"repeats": 2}])
def test_a_masked_convolution_is_one_with_zeros_in_its_kernel(kind, kernel_size, groups, more):
    torch.manual_seed(0)
    conv = MaskedConv2d(kind, 6, 3, kernel_size, groups=groups, **more)
    x = torch.randn(2, 6, 4, 5, generator=seeded())
    before = conv.weight.detach().clone()
    found = conv(x)
    found.sum().backward()
    assert torch.equal(conv.weight, before) and list(conv.state_dict()) == ["weight"]
    assert torch.equal(conv.weight.grad != 0, conv.mask == 1)
    reach = kernel_size // 2
    kernel = full_kernel(before, kind, reach, groups, more.get("repeats", 1))
    expected = F.conv2d(x.double(), kernel, padding=reach)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "groups", "message"),
    [
        (("C", 1, 1, 3), 1, "mask 'C': expected 'A' or 'B'"),
        (("A", 1, 1, 2), 1, "kernel_size=2: expected an odd number, at least 1"),
        (("A", 1, 1, -1), 1, "kernel_size=-1"),
        (("A", 4, 3, 3), 3, "in_features=4: expected a multiple of 3"),
        (("A", 3, 4, 3), 3, "out_features=4: expected a multiple of 3"),
    ],
)
def test_wrong_convolutions(arguments, groups, message):
    with pytest.raises(ValueError, match=message):
        MaskedConv2d(*arguments, groups=groups)


def test_the_weights_start_uniform_in_the_scale_of_what_is_stored():
    """Bound 1 / √(taps × features), the usual one of torch."""
    torch.manual_seed(0)
    weight = MaskedConv2d("B", 20, 30, 5).weight.detach()
    bound = (20 * 3 * 5) ** -0.5
    assert 0.99 * bound < weight.max() <= bound and -bound <= weight.min() < -0.99 * bound
    assert weight.mean().abs() < 0.03 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


# ---- skewing ----------------------------------------------------------------------------------


def test_skew_moves_row_r_by_r_pixels():
    """`unskew` drops the cells that no pixel fills, whatever they hold."""
    x = torch.arange(1, 13).view(1, 1, 3, 4)
    skewed = torch.tensor([[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]])
    assert torch.equal(skew(x)[0, 0], skewed)
    assert torch.equal(unskew(torch.where(skewed == 0, 5, skewed)[None, None]), x)
    for size in ((1, 1), (1, 4), (4, 1), (5, 2)):
        x = torch.randn(2, 3, *size, generator=seeded())
        assert torch.equal(unskew(skew(x)), x)


# ---- inputs, biases, dropout ------------------------------------------------------------------


def test_an_embedding_travels_with_the_weights_and_is_not_trained():
    model = build("gated: embedding")
    assert "embedding" in model.state_dict() and "embedding" not in dict(model.named_parameters())
    assert "embedding" not in build("gated: one-hot").state_dict()  # the identity: no need
    other = build("gated: embedding")
    other.embedding.zero_()
    other.load_state_dict(model.state_dict())
    x = random_images(model)
    assert torch.equal(other.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize(("kind", "num_classes"), [case for case in PIXEL_CASES if case[1]])
def test_the_maps_of_positions(kind, num_classes):
    """One bias per position, of each class if asked; one for all in the vertical stack."""
    for name, weight in build(kind, num_classes).named_parameters():
        everywhere = "no map" in kind or "vertical" in name
        if name.endswith(".map"):
            assert tuple(weight.shape[:2]) == ((1, 1) if everywhere else (3, 4))
        if name.endswith(".of_class"):
            of_position = "class map" in kind and not everywhere
            assert tuple(weight.shape[1:3]) == ((3, 4) if of_position else (1, 1))


@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_dropout_only_in_training(kind):
    model, without = build(f"{kind}: binary", dropout=0.5), build(f"{kind}: binary")
    x = random_images(model)
    assert torch.equal(model.logits(x), without.logits(x))
    assert not torch.equal(model.train().logits(x), model.logits(x))

    def same_draws(x):
        torch.manual_seed(1)
        return model.logits(x)

    found = measured_dependencies(same_draws, model.shape, num_images=16)
    assert not found.triu().any()  # never across the mask
    assert torch.equal(model.eval().logits(x), without.logits(x))


# ---- the cost of a pixel that is drawn --------------------------------------------------------


class Counter(TorchDispatchMode):
    """Counts the operations of torch."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **kwargs or {})


def cost(kind, num_classes, height, width, **options):
    model = build(kind, num_classes, size=(height, width))
    with Counter() as preparation:
        with torch.no_grad():
            model._stepper(model.condition(labels(model, 2), 2), 2, model.ordering)
    with Counter() as counter:
        model.sample(2, labels(model, 2), generator=seeded(), **options)
    return counter.count - preparation.count


@pytest.mark.parametrize("kind", PIXEL_KINDS)
@pytest.mark.parametrize(
    ("variant", "num_classes"), [("binary", None), ("softmax in colour", CLASSES)]
)
def test_a_pixel_costs_the_same_whatever_the_size_of_the_image(kind, variant, num_classes):
    """Operations: so many per row, so many per pixel. (The first row has none above.)"""
    case = f"{kind}: {variant}", num_classes
    narrow, wide, wider = (cost(*case, 3, width) for width in (2, 4, 6))
    assert wider - wide == wide - narrow
    low, high, higher = (cost(*case, height, 3) for height in (2, 3, 4))
    assert higher - high == high - low
    naive = cost(*case, 3, 6, naive=True)
    assert naive > (1.2 if kind == "diagonal" else 1) * wider


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_the_rows_above_are_read_once_per_layer_and_per_row(monkeypatch, kind):
    """Plain: the rows above; gated: the vertical stack; Row LSTM: the states above."""
    calls, convolve = [], RowsAbove.convolve
    monkeypatch.setattr(RowsAbove, "convolve", lambda self: calls.append(0) or convolve(self))
    per_row = {"plain": 3, "gated": 3, "row": 1 + 2, "diagonal": 1}[kind]
    for variant, height, width in (("binary", 3, 4), ("binary", 5, 4), ("colour", 3, 9)):
        calls.clear()
        build(f"{kind}: {variant}", size=(height, width)).sample(2)
        assert len(calls) == per_row * height


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_unlinked_channels_share_one_computation(kind):
    assert cost(f"{kind}: unlinked", None, 3, 4) < cost(f"{kind}: colour", None, 3, 4)
