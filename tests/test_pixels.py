"""PixelCNN and PixelRNN: what a pixel reads, exact probabilities, and the networks by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from pixel_models import (
    CASES,
    CLASS_CASES,
    CLASSES,
    KINDS,
    STATE_CASES,
    TRAINED_CASES,
    TINY,
    VARIANTS,
    build,
    conditions,
    labels,
    perturb,
    random_images,
    same_state,
    seeded,
    state_of,
    structured_images,
)

from course_utils.autoregressive import DiagonalBiLSTM, PixelCNN, RowLSTM
from course_utils.autoregressive.masked import ConvCache, MaskedConv2d, channel_mask
from course_utils.autoregressive.pixelrnn import skew, unskew
from course_utils.evaluation import measured_dependencies, receptive_field, total_probability
from course_utils.weights import load_weights, save_weights

# ---- what a pixel reads, by sets --------------------------------------------------------------
#
# A set of features is named (row, column, group); a group is a colour, or 0 if they are not linked.


def reads_of_conv(reach, groups, size, first):
    """`reads[feature]`: the features that a masked convolution lets it read, its own kernel's."""
    rows, columns = size
    reads = {}
    for r, c, g in itertools.product(range(rows), range(columns), range(groups)):
        found = set()
        for dr, dc in itertools.product(range(-reach, 1), range(-reach, reach + 1)):
            if not (0 <= r + dr and 0 <= c + dc < columns):
                continue
            if dr < 0 or dc < 0:
                found |= {(r + dr, c + dc, k) for k in range(groups)}
            elif dr == dc == 0:
                found |= {(r, c, k) for k in range(g if first else g + 1)}
        reads[r, c, g] = found
    return reads


def reads_of_row_lstm(groups, size):
    """The triangle: j rows above, from j + 1 pixels on the left to j on the right."""
    rows, columns = size
    reads = {}
    for r, c, g in itertools.product(range(rows), range(columns), range(groups)):
        found = {(r, c, k) for k in range(g + 1)}
        for j in range(r + 1):
            for at in range(max(0, c - j - 1), min(columns, c + j + 1)):
                if j > 0 or at < c:
                    found |= {(r - j, at, k) for k in range(groups)}
        reads[r, c, g] = found
    return reads


def reads_of_diagonal_lstm(groups, size):
    """All that comes before, and the pixel itself."""
    rows, columns = size
    reads = {}
    for r, c, g in itertools.product(range(rows), range(columns), range(groups)):
        reads[r, c, g] = {(r, c, k) for k in range(g + 1)} | {
            (row, column, k)
            for row, column, k in itertools.product(range(r + 1), range(columns), range(groups))
            if row < r or column < c
        }
    return reads


def composed(after, before):
    return {feature: set().union(*(before[k] for k in after[feature])) for feature in after}


def expected_reads(model, kind):
    """`(D, D)` booleans in the order of the visit: `[i, j]`, pixel i should read pixel j."""
    channels, *size = model.shape
    groups = model.groups
    if kind == "gated" and len(model.layers) > 1:  # no blind spot
        full = torch.ones(model.dims, model.dims).tril(-1)
        if groups == 1:
            full -= torch.block_diag(*[torch.ones(channels, channels).tril(-1)] * math.prod(size))
        return full.bool()
    convs = model.layers if kind in ("plain", "gated") else [model.first]
    reach = [
        getattr(layer, "horizontal" if kind == "gated" else "conv").padding[0] for layer in convs
    ]
    reads = reads_of_conv(reach[0], groups, size, first=True)
    if kind == "gated":  # one layer: its vertical kernel sees one row more than that of mask A
        for (r, c, _), found in reads.items():
            for row, column in itertools.product(range(r), range(size[1])):
                if r - 1 - row <= reach[0] and abs(column - c) <= reach[0]:
                    found |= {(row, column, k) for k in range(groups)}
    for one in reach[1:]:
        reads = composed(reads_of_conv(one, groups, size, first=False), reads)
    if kind in ("row", "diagonal"):
        layer = (reads_of_row_lstm if kind == "row" else reads_of_diagonal_lstm)(groups, size)
        for _ in model.layers:
            reads = composed(layer, reads)
    expected = torch.zeros(*size, channels, *size, channels, dtype=torch.bool)
    for (r, c, g), found in reads.items():
        for row, column, k in found:
            outputs = slice(None) if groups == 1 else g
            expected[r, c, outputs, row, column, slice(None) if groups == 1 else k] = True
    return expected.view(model.dims, model.dims)


@pytest.mark.parametrize(("kind", "variant", "state"), STATE_CASES)
def test_a_pixel_reads_those_that_it_should_and_no_other(kind, variant, state):
    """By perturbation, bit for bit. (A training may silence ReLUs: what is read is then less.)"""
    model = build(kind, variant, state=state)
    y = labels(model, 12)
    with torch.no_grad():
        found = measured_dependencies(
            lambda x: model.logits(x, y), model.shape, model.levels, num_images=12
        )
    found = found[model.ordering][:, model.ordering]
    assert not found.triu().any()
    assert model.groups == (1 if "unlinked" in variant else model.shape[0])
    expected = expected_reads(model, kind)
    if state == "random":
        assert torch.equal(found, expected)
    else:
        assert not (found & ~expected).any() and found.sum() > 0.6 * expected.sum()


@pytest.mark.parametrize(
    ("kind", "variant"), [c for c in CASES if c[1] not in ("one-hot", "embedding")]
)
def test_the_jacobian_is_strictly_triangular_in_the_order_of_the_visit(kind, variant):
    """`_logits` on numbers between 0 and levels − 1. R → V → B: see the blocks of the diagonal."""
    model = build(kind, variant)
    x = (model.levels - 1) * torch.rand(12, model.dims, generator=seeded())
    classes = model.condition(labels(model, 12), 12)
    weights = 0.5 + torch.rand(12, model.num_outputs, 1, generator=seeded(1))

    def summed(x):  # the images are independent: the sum separates their derivatives
        parameters = model._logits(x, classes, model.ordering).view(12, -1, model.dims)
        return (weights * parameters).sum((0, 1))

    jacobian = torch.autograd.functional.jacobian(summed, x)  # (D, B, D)
    read = (jacobian != 0).any(1)[model.ordering][:, model.ordering]
    assert torch.equal(read, expected_reads(model, kind))
    channels = model.shape[0]
    linked = torch.ones(channels, channels).tril(-1).bool() & (model.groups > 1)
    for block in (
        read.unflatten(0, (-1, channels))
        .unflatten(2, (-1, channels))
        .diagonal(0, 0, 2)
        .movedim(-1, 0)
    ):
        assert torch.equal(block, linked)


@pytest.mark.parametrize("kind", KINDS)
def test_the_channels_of_a_one_hot_model_in_colour(kind):
    """The Jacobian cannot tell: its inputs are rounded. The pixels of the row, one by one."""
    model = build(kind, "one-hot", size=(1, 3))
    found = measured_dependencies(model.logits, (2, 1, 3), 3, num_images=30)
    found = found[model.ordering][:, model.ordering]
    assert torch.equal(found, torch.ones(6, 6).tril(-1).bool())


FIELDS = {  # at the centre of 13×13, 84 pixels come before
    "plain": (lambda: PixelCNN((1, 13, 13), gated=False, layers=6, first_kernel_size=3), 69),
    "gated": (lambda: PixelCNN((1, 13, 13), gated=True, layers=6, first_kernel_size=3), 84),
    "row": (lambda: RowLSTM((1, 13, 13), layers=1, first_kernel_size=3), 59),
    "diagonal": (lambda: DiagonalBiLSTM((1, 13, 13), layers=1, first_kernel_size=3), 83),
}


@pytest.mark.parametrize("kind", FIELDS)
def test_the_receptive_field_of_the_lecture(kind):
    """The blind spot: 15 pixels on the right, that no path of 3×3 kernels reaches."""
    make, count = FIELDS[kind]
    torch.manual_seed(0)
    model = make()
    model = model.double()
    seen = receptive_field_in_double(model, (6, 6))
    assert torch.equal(seen.flatten(), expected_reads(model, kind)[6 * 13 + 6])
    assert seen.sum() == count
    if kind == "plain":  # all but a triangle on the right: 0 + 1 + … at each row above
        missing = ~seen[0, :6]
        assert [row.sum().item() for row in missing.flip(0)] == [5, 4, 3, 2, 1, 0]
        assert all(missing[row, 13 - missing[row].sum() :].all() for row in range(6))
    if kind == "diagonal":
        assert not seen[0, 5, 12]


def receptive_field_in_double(model, pixel):
    """In float32, the farthest pixels of an LSTM would weigh too little."""
    return receptive_field(lambda x: model.feature_maps(x.double()), model.shape, pixel)


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_outputs_are_two_products_of_the_feature_maps(kind, variant):
    model = build(kind, variant)
    x, y = random_images(model), labels(model, 10)
    with torch.no_grad():
        h = torch.relu(model.feature_maps(x.float(), y)).movedim(1, -1)  # (B, H, W, F)
        h = torch.relu(h @ model.hidden.masked_weight().flatten(1).T + model.hidden_bias)
        out = h @ model.out.masked_weight().flatten(1).T  # channel by channel
        out = out.unflatten(-1, (model.shape[0], -1)).permute(0, 4, 3, 1, 2) + model.b
        expected = model.logits(x, y)
    torch.testing.assert_close(out.view_as(expected), expected, rtol=1e-4, atol=1e-5)


def test_the_features_of_a_colour_at_the_pixel_itself():
    """Mask A, then B: the features of R know no channel of their pixel, those of B know R and V."""
    for kind in KINDS:
        model = build(kind, "colour")
        x = torch.rand(2, 3, 3, 4, generator=seeded()).requires_grad_()
        features = model._features(x, None)
        for group in range(3):
            own = features[:, 4 * group : 4 * group + 4, 1, 2].sum()
            (gradient,) = torch.autograd.grad(own, x, retain_graph=True)
            assert (gradient[:, :, 1, 2] != 0).any(0).tolist() == [k < group for k in range(3)]


# ---- probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "variant", "state"), STATE_CASES)
def test_the_probabilities_of_all_images_sum_to_one(kind, variant, state):
    model = build(kind, variant, size=(2, 1) if "classes" in variant else TINY, state=state)
    for y in conditions(model):
        total = total_probability(lambda x: model.log_prob(x, y), model.shape, model.levels)  # noqa: B023
        assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_likelihoods_agree(kind, variant):
    model = build(kind, variant)
    x, y = random_images(model), labels(model, 10)
    with torch.no_grad():
        logits, pixels = model.logits(x, y), model.pixel_log_prob(x, y)
        parameters = model.law.num_parameters
        assert logits.shape == ((10, parameters) if parameters else (10,)) + model.shape
        assert pixels.shape == x.shape and pixels.dtype == torch.float32
        torch.testing.assert_close(model.log_prob(x, y), pixels.flatten(1).sum(1))
        torch.testing.assert_close(pixels, model.law.log_prob(x, logits))
        torch.manual_seed(0)
        loss = model.loss(x, y)
        if "gaussian" in variant:  # trained on its density: a bound
            torch.manual_seed(0)
            bound = model.law.training_log_prob(x, logits).flatten(1).sum(1)
            torch.testing.assert_close(loss, -bound.mean())
            assert (bound != model.log_prob(x, y)).all()
        else:
            torch.testing.assert_close(loss, -model.log_prob(x, y).mean())


# ---- the networks by hand, pixel by pixel, in double precision --------------------------------


def as_double(model):
    return {name: value.detach().double() for name, value in model.state_dict().items()}


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


def slow_conv(x, kernel):
    """`x[r][c]` `(B, features)`: a sum over the taps that fall in the image."""
    height, width, reach = len(x), len(x[0]), kernel.shape[-1] // 2
    out = [[0.0] * width for _ in range(height)]
    for r, c in itertools.product(range(height), range(width)):
        for i, j in itertools.product(range(2 * reach + 1), repeat=2):
            if 0 <= r + i - reach < height and 0 <= c + j - reach < width:
                out[r][c] = out[r][c] + x[r + i - reach][c + j - reach] @ kernel[:, :, i, j].T
    return out


def bias_at(weights, name, classes, r, c):
    bias = weights[f"{name}.map"]
    bias = bias[r % len(bias), c % bias.shape[1]]
    if classes is None:
        return bias
    of_class = weights[f"{name}.of_class"]
    return bias + classes @ of_class[:, r % of_class.shape[1], c % of_class.shape[2]]


def each(function, *maps):
    """A function of the features of a pixel, for all the pixels."""
    return [[function(*cells) for cells in zip(*rows)] for rows in zip(*maps)]


def add_bias(maps, weights, name, classes):
    return [
        [cell + bias_at(weights, name, classes, r, c) for c, cell in enumerate(row)]
        for r, row in enumerate(maps)
    ]


def by_hand_plain(model, weights, x, classes, name="layers", number=0):
    layer = model.layers[number] if name == "layers" else model.first
    name = f"{name}.{number}" if name == "layers" else name
    kind = "A" if number == 0 else "B"
    kernel = full_kernel(weights[f"{name}.conv.weight"], kind, layer.conv.padding[0], model.groups)
    new = slow_conv(x if number == 0 else each(torch.relu, x), kernel)
    new = add_bias(new, weights, f"{name}.bias", classes)
    return new if number == 0 else each(torch.add, x, new)


def gated_unit(features):
    half = features.shape[-1] // 2
    return torch.tanh(features[:, :half]) * torch.sigmoid(features[:, half:])


def by_hand_gated(model, weights, v, h, classes, number):
    """`v[r]` is what the vertical stack knows at row r: the rows above r only."""
    name = f"layers.{number}"
    vertical, link = (weights[f"{name}.{part}.weight"] for part in ("vertical", "link"))
    reach = vertical.shape[-1] // 2
    kernel = torch.zeros(*vertical.shape[:2], 2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    kernel[:, :, : reach + 1] = vertical
    above = add_bias(slow_conv(v, kernel), weights, f"{name}.vertical_bias", classes)
    kind = "A" if number == 0 else "B"
    weight = weights[f"{name}.horizontal.weight"]
    along = slow_conv(h, full_kernel(weight, kind, reach, model.groups, blocks=2))
    along = add_bias(along, weights, f"{name}.horizontal_bias", classes)
    gates = each(lambda a, b: a + b @ link[:, :, 0, 0].T, along, above)
    residual = full_kernel(weights[f"{name}.residual.weight"], "B", 0, model.groups)
    new = slow_conv(each(gated_unit, gates), residual)
    return each(gated_unit, above), new if number == 0 else each(torch.add, h, new)


def lstm(gates, memory):
    """Output, forget, input and content gates, in this order."""
    o, f, i, g = gates.chunk(4, 1)
    memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(memory), memory


def by_hand_row(model, weights, x, classes, number):
    """hᵣ,c and its memory, from the three pixels above and from the memory above."""
    name, width = f"layers.{number}", len(x[0])
    weight = weights[f"{name}.input_to_state.weight"]
    gates = slow_conv(x, full_kernel(weight, "B", 1, model.groups, blocks=4))
    gates = add_bias(gates, weights, f"{name}.bias", classes)
    from_above = weights[f"{name}.state_to_state.weight"]
    zero = torch.zeros_like(x[0][0])
    h, memory = {}, {}
    for r, c in itertools.product(range(len(x)), range(width)):
        total = gates[r][c]
        for tap in range(3):
            total = total + h.get((r - 1, c + tap - 1), zero) @ from_above[:, :, tap].T
        h[r, c], memory[r, c] = lstm(total, memory.get((r - 1, c), zero))
    out = full_kernel(weights[f"{name}.out.weight"], "B", 0, model.groups)[:, :, 0, 0]
    return [[x[r][c] + h[r, c] @ out.T for c in range(width)] for r in range(len(x))]


def by_hand_diagonal(model, weights, x, classes, number):
    """Without skewing: hᵣ,c from the pixel above and the one beside, whose memory it takes."""
    name, height, width = f"layers.{number}", len(x), len(x[0])
    zero = torch.zeros_like(x[0][0])
    states = []
    for scan, step in ((0, 1), (1, -1)):
        part = f"{name}.scans.{scan}"
        weight = weights[f"{part}.input_to_state.weight"]
        gates = slow_conv(x, full_kernel(weight, "B", 0, model.groups, blocks=4))
        from_above, from_beside = weights[f"{part}.state_to_state.weight"].unbind(2)
        h, memory = {}, {}
        for r, c in itertools.product(range(height), range(width)[::step]):
            position = c if step == 1 else width - 1 - c  # its map of biases is mirrored
            total = gates[r][c] + bias_at(weights, f"{part}.bias", classes, r, position)
            total = total + h.get((r - 1, c), zero) @ from_above.T
            total = total + h.get((r, c - step), zero) @ from_beside.T
            h[r, c], memory[r, c] = lstm(total, memory.get((r, c - step), zero))
        states.append(h)
    left, right = states
    out = full_kernel(weights[f"{name}.out.weight"], "B", 0, model.groups)[:, :, 0, 0]
    return [
        [x[r][c] + (left[r, c] + right.get((r - 1, c), zero)) @ out.T for c in range(width)]
        for r in range(height)
    ]


def by_hand(model, kind, images, classes):
    """The parameters of every pixel, `(B, P, C, H, W)`, in double precision."""
    weights, groups = as_double(model), model.groups
    channels, height, width = model.shape
    classes = None if classes is None else classes.double()

    def encoded(r, c):
        values = images[:, :, r, c]
        if model.one_hot:
            return torch.eye(model.levels, dtype=torch.float64)[values.long()].flatten(1)
        if "embedding" in weights:
            return weights["embedding"][values.long()].flatten(1)
        return values.double() / (model.levels - 1)

    x = [[encoded(r, c) for c in range(width)] for r in range(height)]
    if kind == "plain":
        for number in range(len(model.layers)):
            x = by_hand_plain(model, weights, x, classes, number=number)
    elif kind == "gated":
        v = [[torch.zeros_like(cell) for cell in x[0]], *x[:-1]]
        for number in range(len(model.layers)):
            v, x = by_hand_gated(model, weights, v, x, classes, number)
    else:
        x = by_hand_plain(model, weights, x, classes, name="first")
        layer = by_hand_row if kind == "row" else by_hand_diagonal
        for number in range(len(model.layers)):
            x = layer(model, weights, x, classes, number)
    hidden, out = (full_kernel(weights[f"{n}.weight"], "B", 0, groups) for n in ("hidden", "out"))
    x = each(
        lambda cell: torch.relu(cell + weights["hidden_bias"]),
        slow_conv(each(torch.relu, x), hidden),
    )
    x = slow_conv(x, out)
    x = torch.stack([torch.stack(row, 2) for row in x], 2)  # (B, C·P, H, W)
    parameters = torch.stack([x[:, c :: model.num_outputs] for c in range(model.num_outputs)], 1)
    return parameters + weights["b"]


def law_by_hand(model, images, parameters):
    """p of each pixel, from the definition of its law."""
    top = model.levels - 1
    if model.levels == 2:
        return torch.where(images == 1, parameters[:, 0], -parameters[:, 0]).sigmoid()
    if model.law.num_parameters == model.levels:
        every = parameters.exp() / parameters.exp().sum(1, keepdim=True)
        return every.gather(1, images[:, None].long())[:, 0]
    high = torch.where(images == top, math.inf, (images.double() + 0.5) / top)
    low = torch.where(images == 0, -math.inf, (images.double() - 0.5) / top)
    if model.law.num_parameters == 2:
        mu, sigma = parameters[:, 0], parameters[:, 1].exp()
        return law_of_bin(normal_cdf, (low - mu) / sigma, (high - mu) / sigma)
    weights, mu, log_scale = parameters.chunk(3, 1)
    weights = weights.exp() / weights.exp().sum(1, keepdim=True)
    high, low = ((2 * edge[:, None] - 1 - mu) / log_scale.exp() for edge in (high, low))
    return (weights * law_of_bin(torch.sigmoid, low, high)).sum(1)


def normal_cdf(z):
    return torch.erfc(-z / math.sqrt(2)) / 2


def law_of_bin(cumulative, low, high):
    """Mass between two numbers of a symmetric law, on the side where it is small."""
    side = torch.where(low > 0, -1, 1)
    return side * (cumulative(side * high) - cumulative(side * low))


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_network_by_hand(kind, variant):
    model = build(kind, variant)
    x, y = random_images(model, 3), labels(model, 3)
    with torch.no_grad():
        expected = by_hand(model, kind, x, model.condition(y, 3))
        found = model.logits(x, y).double()
        torch.testing.assert_close(found.view_as(expected), expected, rtol=1e-4, atol=1e-5)
        expected = law_by_hand(model, x, expected).log()
        found = model.pixel_log_prob(x, y).double()
    # farther in the tails, double precision itself holds but a zero
    held = expected > -300
    assert held.float().mean() > 0.8 and (found[~held] < -250).all() and found.isfinite().all()
    torch.testing.assert_close(found[held], expected[held], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (4, 2)])
def test_thin_images_by_hand(kind, size):
    model = build(kind, "colour", size=size, first_kernel_size=5)
    x = random_images(model, 2)
    with torch.no_grad():
        found, expected = model.logits(x).double(), by_hand(model, kind, x, None)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# ---- the masks --------------------------------------------------------------------------------


def stored_mask(conv):
    """Rows above, then the row itself, of an output and an input of one group."""
    return conv.mask[0, 0].int().tolist()


def test_the_masks_of_the_docstring():
    assert stored_mask(MaskedConv2d("A", 1, 1, 3)) == [[1, 1, 1], [1, 0, 0]]
    assert stored_mask(MaskedConv2d("B", 1, 1, 3)) == [[1, 1, 1], [1, 1, 0]]
    assert stored_mask(MaskedConv2d("A", 1, 1, 5)) == [[1] * 5, [1] * 5, [1, 1, 0, 0, 0]]
    assert stored_mask(MaskedConv2d("B", 1, 1, 5)) == [[1] * 5, [1] * 5, [1, 1, 1, 0, 0]]
    assert stored_mask(MaskedConv2d("B", 1, 1, 5, rows_above=1)) == [[1] * 5, [1, 1, 1, 0, 0]]
    # along the row: nothing on the right is stored
    assert stored_mask(MaskedConv2d("A", 1, 1, 5, rows_above=0)) == [[1, 1, 0]]
    assert stored_mask(MaskedConv2d("B", 1, 1, 3, rows_above=0)) == [[1, 1]]
    assert stored_mask(MaskedConv2d("B", 1, 1, 1)) == [[1]]


@pytest.mark.parametrize(("kind", "own"), [("A", 0), ("B", 1)])
def test_the_channel_masks_of_three_groups(kind, own):
    assert channel_mask(kind, 3, 3, 3).tolist() == [[own, 0, 0], [1, own, 0], [1, 1, own]]
    red, green, blue = [own] * 2 + [0] * 4, [1] * 2 + [own] * 2 + [0] * 2, [1] * 4 + [own] * 2
    assert channel_mask(kind, 3, 6, 3).tolist() == [red, green, blue]
    assert channel_mask(kind, 6, 6, 3).tolist() == [red, red, green, green, blue, blue]
    assert channel_mask(kind, 6, 3, 3).tolist() == [
        [own, 0, 0], [own, 0, 0], [1, own, 0], [1, own, 0], [1, 1, own], [1, 1, own],
    ]  # fmt: skip
    assert channel_mask(kind, 2, 5, 1).tolist() == [[own] * 5] * 2


def test_each_block_of_gates_has_the_mask_of_one_layer():
    one = MaskedConv2d("A", 6, 3, 3, groups=3).mask
    four = MaskedConv2d("A", 6, 3, 3, groups=3, repeats=4).mask
    assert torch.equal(four, torch.cat([one] * 4))


MASKED = [
    dict(kind=kind, in_features=6, out_features=3, kernel_size=size, groups=groups, **more)
    for kind in "AB"
    for size in (1, 3, 5)
    for groups in (1, 3)
    for more in ({}, {"rows_above": 0}, {"repeats": 2})
]  # fmt: skip


@pytest.mark.parametrize("options", MASKED, ids=lambda o: "-".join(map(str, o.values())))
def test_a_masked_convolution_is_one_with_zeros_in_its_kernel(options):
    torch.manual_seed(0)
    conv = MaskedConv2d(**options)
    x = torch.randn(2, 6, 4, 5, generator=seeded())
    before = conv.weight.detach().clone()
    found = conv(x)
    found.sum().backward()
    assert torch.equal(conv.weight, before) and list(conv.state_dict()) == ["weight"]
    assert (conv.weight.grad[conv.mask == 0] == 0).all()
    assert (conv.weight.grad[conv.mask == 1] != 0).all()
    reach = options["kernel_size"] // 2
    kernel = full_kernel(
        conv.weight.detach(), options["kind"], reach, options["groups"], options.get("repeats", 1)
    )
    torch.testing.assert_close(
        found.double(), F.conv2d(x.double(), kernel, padding=reach), rtol=1e-5, atol=1e-5
    )


def test_the_weights_start_uniform_in_the_scale_of_what_is_stored():
    """Bound 1 / √(taps × features), the usual one of torch."""
    torch.manual_seed(0)
    weight = MaskedConv2d("B", 20, 30, 5).weight.detach()
    bound = (20 * 3 * 5) ** -0.5
    assert 0.99 * bound < weight.max() <= bound and -bound <= weight.min() < -0.99 * bound
    assert weight.mean().abs() < 0.03 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("rows_above", [0, 1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_masked_convolution_pixel_by_pixel(rows_above, scaled):
    """`ConvCache`: its scale multiplies the row's share, not the biases nor what is added."""
    torch.manual_seed(0)
    conv = MaskedConv2d("B", 2, 3, 5, rows_above=rows_above)
    x, more = torch.randn(4, 2, 3, 6), torch.randn(4, 3, 3, 6)
    biases = torch.randn(3, 6, 3, 1)  # rows `(W, out, n or 1)`
    scale = torch.tensor([[1.0], [2.0], [-3.0]]) if scaled and not rows_above else 1
    with torch.no_grad():
        cache = ConvCache(conv, biases.unbind(), 4, 6, scale=scale)
        out = torch.empty_like(more)
        for row in range(3):
            cache.start_row(row, more[:, :, row].permute(1, 2, 0))
            for column in range(6):
                cache.row[column] = x[:, :, row, column].T
                for _ in range(2):  # asking again changes nothing
                    out[:, :, row, column] = cache.pixel(column).T
        expected = conv(x) * torch.as_tensor(scale)[..., None]
        expected = expected + more + biases.permute(3, 2, 0, 1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_what_a_mask_cuts_may_hold_anything():
    model = build("plain", "colour")
    x = random_images(model)
    before = model.logits(x)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MaskedConv2d):
                module.weight += 1e3 * (1 - module.mask)
    assert torch.equal(model.logits(x), before)
    assert torch.equal(
        model.sample(4, generator=seeded()), build("plain", "colour").sample(4, generator=seeded())
    )


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_a_training_never_moves_the_weights_that_are_cut(kind, variant):
    model = build(kind, variant).train()
    x, y = structured_images(model.shape, model.levels)
    convs = [module for module in model.modules() if isinstance(module, MaskedConv2d)]
    before = [conv.weight.detach().clone() for conv in convs]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model.loss(x, y if model.num_classes else None).backward()
    optimizer.step()
    for conv, weight in zip(convs, before):
        cut = conv.mask == 0
        assert torch.equal(conv.weight[cut], weight[cut])
        assert (conv.weight != weight)[~cut].any()


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_loss_gives_a_gradient_to_every_parameter(kind, variant):
    model = build(kind, variant).train()
    x, y = structured_images(model.shape, model.levels)
    model.loss(x, y if model.num_classes else None).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


# ---- skewing ----------------------------------------------------------------------------------


def test_skew_moves_row_r_by_r_pixels():
    x = torch.arange(1, 13).view(1, 1, 3, 4)
    assert skew(x)[0, 0].tolist() == [
        [1, 2, 3, 4, 0, 0],
        [0, 5, 6, 7, 8, 0],
        [0, 0, 9, 10, 11, 12],
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (3, 4), (5, 2)])
def test_unskew_undoes_skew(size):
    x = torch.randn(2, 3, *size, generator=seeded())
    skewed = skew(x)
    assert skewed.shape == (2, 3, size[0], size[1] + size[0] - 1)
    assert skewed.abs().sum().item() == pytest.approx(x.abs().sum().item())
    assert torch.equal(unskew(skewed), x)
    # the cells that no pixel fills are dropped, whatever they hold
    outside = skew(torch.ones_like(x)) == 0
    assert torch.equal(unskew(skewed + 5.0 * outside), x)


# ---- inputs, biases, classes ------------------------------------------------------------------


def test_what_the_network_reads():
    grey, names = build("plain", "softmax"), build("plain", "one-hot")
    assert grey.encode(torch.tensor([0.0, 1.0, 3.0])).tolist() == [[0, pytest.approx(1 / 3), 1]]
    assert names.encode(torch.tensor([2.0, 0.0])).tolist() == [[0, 1], [0, 0], [1, 0]]
    x = torch.tensor([[2.0, 0.0, 1.0]])
    for model in (grey, names):
        out = torch.full_like(model.encode(x), -1)
        assert model.encode(x, out=out) is out and torch.equal(out, model.encode(x))
    assert (grey.in_features, names.in_features) == (1, 6)


def test_an_embedding_travels_with_the_weights_and_is_not_trained():
    model = build("gated", "embedding")
    assert "embedding" in model.state_dict() and "embedding" not in dict(model.named_parameters())
    assert "embedding" not in build("gated", "one-hot").state_dict()  # the identity: no need
    other = PixelCNN(
        model.shape, levels=3, features=12, layers=3, first_kernel_size=3,
        embedding=torch.zeros(3, 2),
    )  # fmt: skip
    other.load_state_dict(model.state_dict())
    x = random_images(model)
    assert torch.equal(other.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize("options", [{"embedding": torch.eye(4)}, {"embedding": torch.ones(3)}])
def test_an_embedding_has_a_row_per_level(options):
    with pytest.raises(ValueError, match="a row per level"):
        PixelCNN((1, 3, 3), levels=3, **options)
    with pytest.raises(ValueError, match="not both"):
        PixelCNN((1, 3, 3), levels=3, one_hot=True, **options)


@pytest.mark.parametrize("options", [{}, {"num_classes": 3, "position_map": False}])
def test_a_map_for_each_class_needs_classes_and_positions(options):
    with pytest.raises(ValueError, match="class_map=True needs"):
        PixelCNN((1, 3, 3), class_map=True, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_one_hot_model_can_take_the_levels_in_another_order(kind):
    """The inputs of two levels exchanged, and their outputs: the same law of exchanged images.

    An intensity would not allow it.
    """
    model, other = build(kind, "one-hot"), build(kind, "one-hot")
    swap = torch.tensor([2, 1, 0])
    with torch.no_grad():
        inputs = [n for n, w in other.named_parameters() if w.dim() == 4 and w.shape[1] == 6]
        assert len(inputs) == (2 if kind == "gated" else 1)
        for name in inputs:
            weight = other.get_parameter(name)
            weight.copy_(weight.unflatten(1, (2, 3))[:, :, swap].flatten(1, 2))
        other.out.weight.copy_(other.out.weight.unflatten(0, (2, 3))[:, swap].flatten(0, 1))
        other.b.copy_(other.b[swap])
        x = random_images(model)
        found, expected = other.log_prob(swap[x.long()]), model.log_prob(x)
        torch.testing.assert_close(found, expected)
        assert (other.log_prob(x) - expected).abs().min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_without_map_of_positions_a_network_is_the_same_everywhere(kind):
    """Far from the borders, moving the image moves the features. A map breaks this."""
    torch.manual_seed(0)
    x = torch.zeros(1, 1, 7, 9)
    x[0, 0, 2:4, 3:5] = torch.rand(2, 2, generator=seeded())
    moved = x.roll((1, 1), (2, 3))
    for position_map in (False, True):
        options = {"features": 8, "first_kernel_size": 3, "position_map": position_map}
        if kind == "diagonal":  # a second layer is told, by the first, how far the borders are
            options["layers"] = 1
        model = KINDS[kind]((1, 7, 9), **options)
        model = perturb(model).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():  # a silent border
                if name.endswith("map") and not position_map:
                    assert weight.shape[:2] == (1, 1)
                    weight.zero_()
            one, other = model._features(x, None), model._features(moved, None)
        same = torch.allclose(one[..., 2:5, 3:6], other[..., 3:6, 4:7], atol=1e-5)
        assert same == (not position_map)


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_of_positions_has_one_bias_per_position(kind):
    maps = {n: tuple(w.shape[:2]) for n, w in build(kind).named_parameters() if n.endswith("map")}
    expected = {n: (1, 1) if "vertical" in n else (3, 4) for n in maps}
    assert maps and maps == expected


@pytest.mark.parametrize(("kind", "variant"), CLASS_CASES)
def test_labels_weights_and_a_single_condition(kind, variant):
    model = build(kind, variant)
    x, y = random_images(model), labels(model, 10)
    by_label = model.logits(x, y)
    assert torch.equal(model.logits(x, torch.eye(CLASSES)[y]), by_label)
    single = model.logits(x, torch.tensor([2]))
    torch.testing.assert_close(single, model.logits(x, torch.full((10,), 2)))
    assert (single - model.logits(x, torch.tensor([1]))).abs().amin(0).max() > 0.01


@pytest.mark.parametrize(("kind", "variant"), CLASS_CASES)
def test_each_layer_is_told_the_class(kind, variant):
    model = build(kind, variant)
    x, y = random_images(model), labels(model, 10)
    names = [name for name, _ in model.named_parameters() if name.endswith("of_class")]
    layers = len(model.layers)
    expected = {"plain": layers, "gated": 2 * layers, "row": 1 + layers, "diagonal": 1 + 2 * layers}
    assert len(names) == expected[kind]
    before = model.logits(x, y)
    for name in names:
        other = build(kind, variant)
        with torch.no_grad():
            other.get_parameter(name)[1] += 1.0
        changed = (other.logits(x, y) != before).flatten(1).any(1)
        assert torch.equal(changed, y == 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_class_changes_nothing(kind):
    """The parameters of the classes start at zero: a conditional model starts as a plain one."""
    plain, conditional = build(kind, state="new"), build(kind, "classes", state="new")
    x = random_images(plain)
    torch.testing.assert_close(conditional.logits(x, labels(conditional, 10)), plain.logits(x))


# ---- starting, training -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "variant"), [c for c in CASES if "mixture" not in c[1]])
def test_start_from_gives_the_frequencies_of_the_images(kind, variant):
    """When the other weights of the head are zero: a model of independent pixels."""
    model = build(kind, variant)
    x, _ = structured_images(model.shape, model.levels)
    with torch.no_grad():
        model.out.weight.zero_()
    assert model.start_from(x) is model
    images = random_images(model)
    with torch.no_grad():
        found = model.pixel_log_prob(images, labels(model, 10)).exp()
    if "gaussian" in variant:
        top = model.levels - 1
        mean, deviation = x.double().mean(0) / top, (x.double() / top).std(0).clamp(min=1 / top)
        expected = law_by_hand(model, images, torch.stack([mean, deviation.log()])[None])
    else:
        counts = torch.stack([(x == image).sum(0) for image in images])
        expected = (counts + 0.5) / (len(x) + 0.5 * model.levels)
    torch.testing.assert_close(found, expected.float())


@pytest.mark.parametrize(("kind", "variant"), TRAINED_CASES)
def test_a_training_lowers_the_loss(kind, variant):
    model, new = build(kind, variant, state="trained"), build(kind, variant, state="new")
    x, y = structured_images(model.shape, model.levels)
    y = y if model.num_classes else None
    new.start_from(x)
    with torch.no_grad():
        gain = (model.log_prob(x, y) - new.log_prob(x, y)).mean() / model.dims
    assert gain > 0.003


def test_dropout_only_in_training():
    for kind in ("plain", "gated"):
        model, without = build(kind, dropout=0.5), build(kind)
        x = random_images(model)
        assert torch.equal(model.logits(x), without.logits(x))
        torch.manual_seed(0)
        first, second = model.train().logits(x), model.logits(x)
        assert not torch.equal(first, second)
        # and never across the mask
        found = measured_dependencies(lambda x: seeded_logits(model, x), model.shape, num_images=16)  # noqa: B023
        assert not found.triu().any()
        assert torch.equal(model.eval().logits(x), without.logits(x))


def seeded_logits(model, x):
    torch.manual_seed(1)
    return model.logits(x)


# ---- state ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_evaluating_and_sampling_change_no_state(kind, variant):
    model = build(kind, variant)
    x, y = random_images(model), labels(model, 10)
    before, images = state_of(model), x.clone()
    model.logits(x, y), model.log_prob(x, y), model.loss(x, y)
    for n in (1, 3):
        model.sample(n, labels(model, n), generator=seeded())
    assert same_state(state_of(model), before) and torch.equal(x, images)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_weights_round_trip(kind, variant, tmp_path):
    model, other = build(kind, variant), build(kind, variant, state="new")
    x, y = random_images(model), labels(model, 10)
    assert (model.log_prob(x, y) - other.log_prob(x, y)).abs().max() > 0.1
    save_weights(model, tmp_path / "model.safetensors", kind=kind)
    assert load_weights(other, tmp_path / "model.safetensors") == {"kind": kind}
    assert torch.equal(other.log_prob(x, y), model.log_prob(x, y))
    assert torch.equal(
        other.sample(4, labels(model, 4), generator=seeded()),
        model.sample(4, labels(model, 4), generator=seeded()),
    )
    assert not any("mask" in name for name in model.state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_visit_goes_row_by_row_and_colour_after_colour(variant):
    channels, height, width = shape = (VARIANTS[variant][0], 3, 4)
    visit = build("plain", variant).ordering.tolist()
    expected = itertools.product(range(height), range(width), range(channels))
    assert visit == [c * height * width + row * width + column for row, column, c in expected]
    assert build("plain", variant).shape == shape
