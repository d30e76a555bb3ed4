"""The self-checks of notebook 03b: right answers however written, typical mistakes, hints."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercise_answers import accepted, refused
from torch import nn

from course_utils import exercises
from course_utils.autoregressive import PixelCNN
from course_utils.autoregressive.masked import MaskedConv2d, channel_mask
from course_utils.autoregressive.pixelcnn import gate
from course_utils.evaluation import receptive_field
from course_utils.exercises import notebook_03b, verify
from course_utils.likelihoods import discretized_logistic_mixture

pytestmark = pytest.mark.usefixtures("no_hint_seen")
KEYS = [key for key in exercises.exercises() if key.startswith("03b.")]
MASK, CAUSAL, FIELD, CHANNELS, MIXTURE, STACKS = (
    exercises.exercises()[f"03b.{name}"].reference
    for name in ("mask", "causal", "field", "channels", "mixture", "stacks")
)


# ---- right answers: masks ----------------------------------------------------------------------


def mask_with_loops(kind, k):
    centre = k // 2
    rows = []
    for row in range(k):
        before = [row < centre or (row == centre and column < centre) for column in range(k)]
        rows.append([int(kept) for kept in before])
    rows[centre][centre] = int(kind == "B")
    return torch.tensor(rows)


def mask_by_raster_order(kind, k):
    return (torch.arange(k * k) < k * k // 2 + (kind == "B")).view(k, k)


def mask_with_numpy(kind, k):
    mask = np.ones((k, k), dtype=np.int64)
    mask[k // 2, k // 2 + (kind == "B") :] = 0
    mask[k // 2 + 1 :] = 0
    return torch.from_numpy(mask)


def mask_of_the_library(kind, k):
    return F.pad(MaskedConv2d(kind, 1, 1, k).mask[0, 0], (0, 0, 0, k // 2))


def mask_in_place_float64(kind, k):
    mask = torch.zeros(k, k, dtype=torch.float64)
    mask.view(-1)[: k * k // 2].fill_(1)
    mask[k // 2][k // 2] += kind != "A"
    return mask


# ---- right answers: causality ------------------------------------------------------------------


@torch.no_grad()
def causal_in_place_and_put_back(network, x):
    """The images are flipped where they are, and put back."""
    before, flat, causal = network(x).flatten(1), x.view(len(x), -1), True
    for j in range(flat.shape[1]):
        flat[:, j] = 1 - flat[:, j]
        causal &= torch.equal(network(x).flatten(1)[:, : j + 1], before[:, : j + 1])
        flat[:, j] = 1 - flat[:, j]
    return causal


def causal_with_rows_and_columns(network, x):
    """Numbers instead of truth values; a tensor of one element."""
    worst, (height, width) = torch.zeros(()), x.shape[2:]
    before = network(x)
    for row in range(height):
        for column in range(width):
            changed = x.clone()
            changed[:, :, row, column] = (changed[:, :, row, column] == 0).float()
            moved = (network(changed) - before).abs()
            worst = max(worst, moved[:, :, :row].sum(), moved[:, :, row, : column + 1].sum())
    return (worst == 0).int()


def causal_with_numpy(network, x):
    """A matrix of what moves what, and `numpy.bool_`."""
    dims = x[0].numel()
    moves = np.zeros((dims, dims), dtype=bool)  # output, input
    before = network(x).numpy().reshape(len(x), dims)
    for j in range(dims):
        changed = x.numpy().reshape(len(x), dims).copy()
        changed[:, j] = 1 - changed[:, j]
        after = network(torch.from_numpy(changed).view_as(x)).numpy().reshape(len(x), dims)
        moves[:, j] = (after != before).any(axis=0)
    return ~np.triu(moves).any()


def causal_one_image_at_a_time(network, x):
    def moved(image, j):
        changed = image.flatten().clone()
        changed[j] = 1 - changed[j]
        after, before = network(changed.view_as(image)), network(image)
        return (after != before).flatten()[: j + 1].any()

    return not any(moved(image[None], j) for image in x for j in range(image.numel()))


def causal_in_one_batch(network, x):
    """All the changed images at once, beside as many that are not: one batch of 2 · D · B."""
    n, dims = len(x), x[0].numel()
    same = x.flatten(1).repeat(dims, 1)  # for each pixel, all the images
    flips = torch.eye(dims).repeat_interleave(n, 0)
    logits = network(torch.cat([same, (same - flips).abs()]).view(-1, *x.shape[1:])).flatten(1)
    before, after = logits.chunk(2)
    return (before == after)[torch.ones(dims, dims).tril().repeat_interleave(n, 0) > 0].all()


def causal_one_image_beside_the_batch(network, x):
    """The outputs of a batch, and those of an image alone, at the bit."""
    before = network(x).flatten(1)
    for image, logits in zip(x, before):
        for j in range(image.numel()):
            changed = image[None].clone()
            changed.view(-1)[j] = 1 - changed.view(-1)[j]
            if (network(changed).flatten()[: j + 1] != logits[: j + 1]).any():
                return False
    return True


def causal_by_gradients(network, x):
    x = x.clone().requires_grad_()
    logits = network(x).flatten(1)
    for j in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, j].sum(), x, retain_graph=True)
        if gradient.flatten(1)[:, j:].any():
            return False
    return True


def causal_by_jacobians(network, x):
    dims = x[0].numel()
    jacobian = torch.autograd.functional.jacobian
    maps = [jacobian(network, image).view(dims, dims) for image in x.split(1)]
    return not torch.stack(maps).triu().any()


def causal_from_the_last_pixel(network, x):
    """All pixels from j on are changed together: the outputs 0, …, j must not move."""
    before, changed = network(x), x.clone()
    for j in reversed(range(x[0].numel())):
        changed.flatten(1)[:, j] = 1 - changed.flatten(1)[:, j]
        if not torch.equal(network(changed).flatten(1)[:, : j + 1], before.flatten(1)[:, : j + 1]):
            return 0
    return 1


# ---- right answers: receptive field ------------------------------------------------------------


def field_with_sets(layers, size, row, column):
    lit = {(row, column)}
    for layer in range(layers):
        reads = {(r - 1, c + step) for r, c in lit for step in (-1, 0, 1)}
        reads |= {(r, c - 1) for r, c in lit}
        if layer < layers - 1:
            reads |= lit
        lit = {(r, c) for r, c in reads if 0 <= r < size and 0 <= c < size}
    return [[(r, c) in lit for c in range(size)] for r in range(size)]


def field_by_formula(layers, size, row, column):
    """`up` rows above, as far as `layers` columns on the left, `up` on the right."""
    up = row - np.arange(size)[:, None]
    right = np.arange(size)[None, :] - column
    before = (up > 0) | ((up == 0) & (right < 0))
    return before & (up <= layers) & (right >= -layers) & (right <= up)


def field_by_gradients(layers, size, row, column):
    """The notebook's way, with weights of 1 and a first layer of mask A."""
    image = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    h = image
    for layer in range(layers):
        mask = torch.tensor([[1.0, 1, 1], [1, float(layer > 0), 0], [0, 0, 0]], dtype=h.dtype)
        h = F.conv2d(h, mask[None, None], padding=1)
    h[0, 0, row, column].backward()
    return image.grad[0, 0]  # numbers of paths


def field_from_the_mask_A_first(layers, size, row, column):
    """The order of the layers does not matter; shifts of a padded map instead of a convolution."""
    lit = np.zeros((size + 2, size + 2), dtype=bool)
    lit[row + 1, column + 1] = True
    for layer in range(layers):
        new = lit.copy() if layer else np.zeros_like(lit)
        for r, c in np.argwhere(lit[1:-1, 1:-1]) + 1:
            new[r - 1, c - 1 : c + 2] = new[r, c - 1] = True
        new[0] = new[:, 0] = new[:, -1] = False
        lit = new
    return torch.from_numpy(lit[1:-1, 1:-1]).to(torch.uint8)


def field_of_the_library(layers, size, row, column):
    shape, options = (1, size, size), {"first_kernel_size": 3, "features": 8}
    with torch.random.fork_rng(devices=[]):
        model = PixelCNN(shape, gated=False, layers=layers, position_map=False, **options)
    for weight in model.parameters():
        nn.init.constant_(weight, 0.1)  # no ReLU is ever off
    return receptive_field(model.feature_maps, shape, (row, column))[0]


# ---- right answers: colours --------------------------------------------------------------------


def channels_with_loops(kind, out_features, in_features):
    mask = torch.zeros(out_features, in_features)
    for i in range(out_features):
        for j in range(in_features):
            o, c = i * 3 // out_features, j * 3 // in_features
            if c < o or (kind == "B" and c == o):
                mask[i, j] = 1
    return mask


def channels_of_the_library(kind, out_features, in_features):
    return channel_mask(kind, out_features, in_features, 3).bool()


def channels_of_a_masked_convolution(kind, out_features, in_features):
    return MaskedConv2d(kind, in_features, out_features, 1, groups=3).mask[:, :, 0, 0].double()


def channels_by_blocks(kind, out_features, in_features):
    small = np.tril(np.ones((3, 3)), -1 if kind == "A" else 0)
    return np.kron(small, np.ones((out_features // 3, in_features // 3)))


def channels_in_place(kind, out_features, in_features):
    mask, o, c = torch.ones(out_features, in_features), out_features // 3, in_features // 3
    mask[:o, c:] = 0
    mask[: 2 * o, 2 * c :] = 0
    if kind == "A":
        for color in range(3):
            mask[color * o : (color + 1) * o, color * c : (color + 1) * c] = 0
    return mask


def channels_as_lists(kind, out_features, in_features):
    out_colors = [color for color in "abc" for _ in range(out_features // 3)]
    in_colors = [color for color in "abc" for _ in range(in_features // 3)]
    return [[c < o or (kind == "B" and c == o) for c in in_colors] for o in out_colors]


# ---- right answers: logistic laws --------------------------------------------------------------


def mixture_by_differences(weights, mu, s, levels):
    edges = torch.arange(1, levels) - 0.5
    below = torch.sigmoid((edges[:, None] - mu) / s) @ weights
    return torch.diff(torch.cat([torch.zeros(1), below, torch.ones(1)]))


def mixture_of_infinite_edges(weights, mu, s, levels):
    edges = torch.cat(
        [torch.tensor([-math.inf]), torch.arange(1, levels) - 0.5, torch.tensor([math.inf])]
    )
    cdf = ((edges[:, None] - mu) / s).sigmoid()
    return (cdf[1:] - cdf[:-1]).mul(weights).sum(1)


def mixture_with_numpy(weights, mu, s, levels):
    weights, mu, s = (values.numpy() for values in (weights, mu, s))
    k = np.arange(levels)[:, None]
    upper = 0.5 * (1 + np.tanh((k + 0.5 - mu) / (2 * s)))
    lower = np.vstack([np.zeros_like(upper[:1]), upper[:-1]])
    upper[-1] = 1
    return (upper - lower) @ weights


def mixture_as_a_list(weights, mu, s, levels):
    def below(x):
        return sum(w / (1 + math.exp(-(x - m) / t)) for w, m, t in zip(weights, mu, s))

    probabilities = [below(k + 0.5) - below(k - 0.5) for k in range(levels)]
    probabilities[0] += below(-0.5)
    probabilities[-1] += 1 - below(levels - 0.5)
    return probabilities


def mixture_that_gives_the_rest_back(weights, mu, s, levels):
    """The stub, then the mass that it loses on each side; float32, in place."""
    weights, mu, s = weights.float(), mu.float(), s.float()
    law = notebook_03b.broken_mixture_probabilities(weights, mu, s, levels)
    law[0] += (torch.sigmoid((-0.5 - mu) / s) * weights).sum()
    law[-1] += (torch.sigmoid((mu - levels + 0.5) / s) * weights).sum()
    return law


def mixture_of_the_library(weights, mu, s, levels):
    """Its centres and scales are those of intensities in [−1, 1]."""
    unit = 2 / (levels - 1)
    parameters = (weights.log(), unit * mu - 1, (unit * s).log())
    every = (values.expand(levels, -1) for values in parameters)
    return discretized_logistic_mixture(torch.arange(levels), *every, levels).exp()


# ---- right answers: two stacks -----------------------------------------------------------------


def layers_of(x, kernels, *, v, hide=True, shift=lambda above: above, residual=True):
    """The two stacks, from the vertical map `v`; `shift`: what the link reads of it."""
    h = x
    for layer, (W_v, W_h, W_link) in enumerate(kernels):
        if layer == 0 and hide:
            W_h = W_h * torch.tensor([1.0, 0.0])
        above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)
        gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(shift(above), W_link)
        v, new = gate(above), gate(gates)
        h = h + new if layer > 0 and residual else new
    return h


def down(x):
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def stacks_that_shift_before_each_link(x, kernels):
    """The paper's way: the vertical stack reads its own row, its maps are moved for the link."""
    return layers_of(x, kernels, v=x, shift=down)


def stacks_in_place(x, kernels):
    """The mask is put into the kernel; tanh · σ by hand; the shift by assignment."""
    v, h = torch.zeros_like(x), x
    v[:, :, 1:] = x[:, :, :-1]
    kernels[0][1][..., 1] = 0
    for layer, (W_v, W_h, W_link) in enumerate(kernels):
        above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)
        gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(above, W_link)
        half = gates.shape[1] // 2
        v = torch.tanh(above[:, :half]) * torch.sigmoid(above[:, half:])
        new = torch.tanh(gates[:, :half]) * torch.sigmoid(gates[:, half:])
        h = new if layer == 0 else new.add_(h)
    return h


def stacks_with_a_smaller_first_kernel(x, kernels):
    """The mask A leaves one tap: a 1×1 kernel on the left neighbour; one row cut, two padded."""
    W_v, W_h, W_link = kernels[0]
    above = F.conv2d(F.pad(x, (1, 1, 2, 0))[:, :, :-1], W_v)
    h = gate(F.conv2d(F.pad(x, (1, 0))[..., :-1], W_h[..., :1]) + F.conv2d(above, W_link))
    v = gate(above)
    for W_v, W_h, W_link in kernels[1:]:
        above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)
        new = F.conv2d(F.pad(h, (1, 0)), W_h) + torch.einsum(
            "oi,bihw->bohw", W_link[..., 0, 0], above
        )
        v, h = gate(above), h + gate(new)
    return h


def stacks_of_the_library(x, kernels):
    """The layers of a `PixelCNN` that hold these weights; its residual kernels, the identity."""
    features = len(kernels[0][0]) // 2
    with torch.random.fork_rng(devices=[]):
        model = PixelCNN(tuple(x.shape[1:]), features=features, layers=len(kernels),
                         first_kernel_size=3)  # fmt: skip
    for layer, (W_v, W_h, W_link) in zip(model.layers, kernels):
        layer.vertical.weight.data, layer.link.weight.data = W_v, W_link
        layer.horizontal.weight.data = W_h
        layer.residual.weight.data = torch.eye(features)[:, :, None, None]
    return model.feature_maps(x)


def stacks_in_float64(x, kernels):
    kernels = [[kernel.double() for kernel in layer] for layer in kernels]
    return layers_of(x.double(), kernels, v=down(x.double()))


RIGHT = [
    ("03b.mask", mask_with_loops),
    ("03b.mask", mask_by_raster_order),
    ("03b.mask", mask_with_numpy),
    ("03b.mask", mask_of_the_library),
    ("03b.causal", causal_in_place_and_put_back),
    ("03b.causal", causal_with_rows_and_columns),
    ("03b.causal", causal_with_numpy),
    ("03b.causal", causal_one_image_at_a_time),
    ("03b.causal", causal_in_one_batch),
    ("03b.causal", causal_one_image_beside_the_batch),
    ("03b.causal", causal_by_gradients),
    ("03b.causal", causal_by_jacobians),
    ("03b.causal", causal_from_the_last_pixel),
    ("03b.field", field_by_gradients),
    ("03b.field", field_from_the_mask_A_first),
    ("03b.field", field_of_the_library),
    ("03b.channels", channels_with_loops),
    ("03b.channels", channels_of_the_library),
    ("03b.channels", channels_in_place),
    ("03b.mixture", mixture_by_differences),
    ("03b.mixture", mixture_of_infinite_edges),
    ("03b.mixture", mixture_that_gives_the_rest_back),
    ("03b.mixture", mixture_of_the_library),
    ("03b.stacks", stacks_that_shift_before_each_link),
    ("03b.stacks", stacks_with_a_smaller_first_kernel),
    ("03b.stacks", stacks_of_the_library),
]


@pytest.mark.parametrize("key, answer", RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_are_accepted_and_returned(key, answer):
    accepted(key, answer)


# a check whose praise quotes numbers: they are those of the notebook
PRAISE = {
    "03b.mask": f"le masque A en garde {4}, le B {4 + 1}",
    "03b.field": f"{63 + 6} pixels lus sur les {6 * 13 + 6} d'avant",  # rows of 13, 12, …, 8; of 6
    "03b.stacks": "84 pixels lus sur 84",
    "03b.causal": "2 réseaux causaux acceptés, ",
}


@pytest.mark.parametrize("key", PRAISE)
def test_the_praise_quotes_right_numbers(key, capsys):
    verify(key, lambda *args: exercises.exercises()[key].reference(*args))
    assert PRAISE[key] in capsys.readouterr().out


# ---- wrong answers -----------------------------------------------------------------------------


def centre(c):
    return c


def trying(
    pixels=range,
    compared=lambda j: slice(j + 1),
    images=...,
    change=None,
    same=torch.equal,
):
    """An `is_causal` that changes the pixels `pixels(D)`, and compares some of the outputs."""

    def is_causal(network, x):
        before = network(x).flatten(1)[images]
        for j in pixels(before.shape[1]):
            changed = x.clone()
            value = changed.flatten(1)[:, j]
            changed.flatten(1)[:, j] = 1 - value if change is None else change(value)
            after = network(changed).flatten(1)[images]
            if not same(after[:, compared(j)], before[:, compared(j)]):
                return False
        return True

    return is_causal


def causal_that_spoils_x(network, x):
    before = network(x).flatten(1)
    for j in range(before.shape[1]):
        x.flatten(1)[:, j] = 1 - x.flatten(1)[:, j]
        if (network(x).flatten(1)[:, : j + 1] != before[:, : j + 1]).any():
            return False
    return True


def causal_by_rows(network, x):
    """A whole row is changed, the rows above are compared."""
    before = network(x)
    for row in range(x.shape[2]):
        changed = x.clone()
        changed[:, :, row] = 1 - changed[:, :, row]
        if not torch.equal(network(changed)[:, :, :row], before[:, :, :row]):
            return False
    return True


def random_pixel(dims):
    return torch.randint(dims - 1, (1,), generator=torch.Generator().manual_seed(0)).tolist()


def pixels_before(layers, size, row, column):
    return (torch.arange(size * size) < row * size + column).view(size, size)


def field_without_blind_spot(layers, size, row, column):
    i = torch.arange(size)
    near = ((i - row).abs() <= layers)[:, None] & ((i - column).abs() <= layers)
    return near & pixels_before(layers, size, row, column)


def field_of_a_symmetric_triangle(layers, size, row, column):
    up, right = row - torch.arange(size)[:, None], torch.arange(size) - column
    triangle = (up > 0) & (up <= layers) & (right.abs() <= up)
    return triangle | (up == 0) & (right < 0) & (right >= -layers)


def stacking(
    start=down,
    masked=lambda layer: layer == 0,
    again=None,
    add=lambda layer: layer > 0,
    out="h",
    taps=(1.0, 0.0),
):
    """A `two_stacks`: `masked`, `add`: the layers with the mask A, with a residual link."""

    def two_stacks(x, kernels):
        v, h = start(x), x
        for layer, (W_v, W_h, W_link) in enumerate(kernels):
            W_h = W_h * torch.tensor(taps) if masked(layer) else W_h
            v = again(v) if again and layer else v
            above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)
            gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(above, W_link)
            v = gate(above)
            h = h + gate(gates) if add(layer) else gate(gates)
        return {"h": h, "v": v, "both": (v, h)}[out]

    return two_stacks


def stacks_with_all_the_kernels_masked_in_place(x, kernels):
    for _, W_h, _ in kernels:
        W_h[..., 1] = 0
    return STACKS(x, kernels)


WRONG = [
    # its own pixel forgotten; the outputs after; all; itself only; the opposite
    (
        "03b.causal",
        trying(compared=lambda j: slice(j)),
        "un réseau dont chaque sortie lit son propre pixel n'est pas causal ; vous répondez True",
    ),
    (
        "03b.causal",
        trying(compared=lambda j: slice(j, None)),
        "un réseau de deux convolutions masquées est causal ; vous répondez False",
    ),
    (
        "03b.causal",
        trying(compared=lambda j: slice(j + 1, None)),
        "un réseau de deux convolutions masquées est",
    ),
    (
        "03b.causal",
        trying(compared=lambda j: slice(None)),
        "un réseau de deux convolutions masquées est causal",
    ),
    (
        "03b.causal",
        trying(compared=lambda j: slice(j, j + 1)),
        "le pixel de droite n'est pas causal ; vous répondez True",
    ),
    (
        "03b.causal",
        lambda *args: not CAUSAL(*args),
        "un réseau de deux convolutions masquées est causal ; vous",
    ),
    (
        "03b.causal",
        lambda network, x: torch.equal(network(x), network(1 - x)),
        "un réseau de deux convolutions masquées est causal ; vous répondez False",
    ),
    # one pixel: the first, any; all but the last; row by row; column by column
    ("03b.causal", trying(lambda dims: [0]), "n'est pas causal ; vous répondez True"),
    ("03b.causal", trying(random_pixel), "n'est pas causal ; vous répondez True"),
    ("03b.causal", trying(lambda dims: range(dims - 1)), "n'est pas causal ; vous répondez T"),
    ("03b.causal", causal_by_rows, "chaque sortie lit son propre pixel n'est pas causal"),
    ("03b.causal", lambda network, x: CAUSAL(lambda x: network(x.mT).mT, x.mT), "causal"),
    # one image, the first; a tolerance
    ("03b.causal", trying(images=slice(1)), "image"),
    (
        "03b.causal",
        trying(same=lambda a, b: torch.allclose(a, b, atol=1e-3)),
        "chaque pixel change à peine sa propre log-cote n'est pas causal",
    ),
    # the last pixel, the ends, all but the first, one in two; always zeros, or ones
    ("03b.causal", trying(lambda dims: [dims - 1]), "vous répondez True"),
    ("03b.causal", trying(lambda dims: [0, dims - 1]), "vous répondez True"),
    (
        "03b.causal",
        trying(lambda dims: range(1, dims)),
        "un réseau où seule la sortie (0, 0) lit le pixel (0, 0) n'est pas causal",
    ),
    (
        "03b.causal",
        trying(lambda dims: range(1, dims, 2)),
        "un réseau où seule la sortie (0, 0) lit le pixel (0, 0) n'est pas causal",
    ),
    (
        "03b.causal",
        trying(change=lambda v: 0 * v),
        "un réseau où seule la sortie (1, 2) lit le pixel (1, 2) n'est pas causal",
    ),
    (
        "03b.causal",
        trying(change=lambda v: 0 * v + 1),
        "un réseau où seule la sortie (3, 1) lit le pixel (3, 1) n'est pas causal",
    ),
    ("03b.causal", lambda network, x: CAUSAL(network, x[:1]), "que sur la dernière image"),
    (
        "03b.causal",
        lambda *args: (CAUSAL(*args), 0),
        "on attend True ou False, pour tout le réseau.",
    ),
    ("03b.causal", lambda *args: "oui", "on attend True ou False, pour tout le réseau."),
    (
        "03b.causal",
        lambda network, x: network(x) > 0,
        "on attend True ou False, pour tout le réseau.",
    ),
    # all the images but the first; a leak below the tolerance
    ("03b.causal", trying(images=slice(1, None)), "que sur la première image n'est pas causal"),
    ("03b.causal", trying(same=torch.allclose), "change à peine sa propre"),
    # always the same answer; nothing
    ("03b.causal", lambda network, x: True, "lit son propre pixel n'est pas causal"),
    (
        "03b.causal",
        lambda network, x: np.bool_(False),
        "un réseau de deux convolutions masquées est causal",
    ),
    ("03b.causal", lambda network, x: None, "avez-vous oublié `return`"),
    # x changed; changed by NaN, by a half, by noise; as integers; as arrays; flat; alone
    (
        "03b.causal",
        causal_that_spoils_x,
        "votre fonction change `x`, que la suite du notebook utilisera : travai",
    ),
    ("03b.causal", trying(change=lambda v: v * math.nan), "ni NaN, ni autre valeur"),
    ("03b.causal", trying(change=lambda v: v - 0.5), "attend des pixels 0. ou 1."),
    ("03b.causal", trying(change=lambda v: -v), "attend des pixels 0. ou 1."),
    ("03b.causal", lambda network, x: CAUSAL(lambda x: network(x.long()), x), "pixels 0. ou 1."),
    (
        "03b.causal",
        lambda network, x: network(x.numpy()),
        "network(x) : x doit être un tenseur, pas un objet de type ndarray.",
    ),
    ("03b.causal", lambda network, x: network(x.flatten(1)), "reçu : (4, 30)"),
    ("03b.causal", lambda network, x: network(x[0]), "reçu : (1, 5, 6)"),
    ("03b.causal", lambda network, x: network(x.mT.transpose(1, 2)), "reçu : (4, 6, 1, 5)"),
    # no blind spot; no limit at all; a triangle as wide on the left; a square
    (
        "03b.field",
        field_without_blind_spot,
        "2 couches, sortie (4, 3) d'une image 7×7 : le pixel (3, 5) n'est pas lu",
    ),
    ("03b.field", pixels_before, "le pixel (0, 0) n'est pas lu, vous le comptez"),
    ("03b.field", field_of_a_symmetric_triangle, "le pixel (3, 1) est lu, vous l'oubliez"),
    ("03b.field", lambda *args: ~FIELD(*args), "le pixel (0, 0) n'est pas lu, vous"),
    ("03b.field", lambda L, s, r, c: FIELD(L, s, c, r), "sortie (4, 3) d'une image 7×7"),
    ("03b.field", lambda L, s, r, c: FIELD(L, s, s // 2, s // 2), "sortie (4, 3) d'une"),
    ("03b.field", lambda *args: FIELD(*args).T, "le pixel (1, 3) est lu, vous l'oubliez"),
    ("03b.field", lambda *args: FIELD(*args).flip(0, 1), "le pixel (1, 1) est lu, vous"),
    ("03b.field", lambda *args: FIELD(*args).sum(), "de forme (5, 5) ; reçu : ()"),
    ("03b.field", lambda *args: FIELD(*args).flatten(), "une carte, de forme (5, 5) ; reçu"),
    (
        "03b.field",
        lambda *args: {(1, 1)},
        "on attend une carte, dans un tenseur de torch, pas un objet de type se",
    ),
    # no shift, or upwards: the row is read on the right; the mask A forgotten, on the other tap
    ("03b.stacks", stacking(start=lambda x: x), "), d'après."),
    ("03b.stacks", stacking(lambda x: F.pad(x[:, :, 1:], (0, 0, 0, 1))), "), d'après."),
    ("03b.stacks", stacking(lambda x: F.pad(x[..., :-1], (1, 0))), "), d'après."),
    ("03b.stacks", stacking(masked=lambda layer: False), "lit sa propre valeur"),
    ("03b.stacks", stacking(masked=lambda layer: layer > 0), "lit sa propre valeur"),
    ("03b.stacks", stacking(taps=(0.0, 1.0)), "lit sa propre valeur"),
    # rolled: the last row comes back on top
    ("03b.stacks", stacking(lambda x: x.roll(1, 2)), "la sortie (6, 6) lit le pixel (12,"),
    # only the first row cheats
    (
        "03b.stacks",
        stacking(lambda x: torch.cat([x[:, :, :1], x[:, :, :-1]], 2)),
        "la sortie (0, 2)",
    ),
    # the mask A everywhere; the residual link forgotten, in the first layer too
    ("03b.stacks", stacking(masked=lambda layer: True), "vous obtenez"),
    ("03b.stacks", stacking(add=lambda layer: False), "vous obtenez"),
    ("03b.stacks", stacking(add=lambda layer: True), "lit sa propre valeur"),
    (
        "03b.stacks",
        stacks_with_all_the_kernels_masked_in_place,
        "votre fonction change `kernels`, que la suite du notebook utilisera : ",
    ),
    # shifted at each layer, twice; h shifted as well; the vertical stack, both
    (
        "03b.stacks",
        stacking(again=down),
        "la sortie (6, 6) lit 69 des 84 pixels d'avant ; il manque (1, 12).",
    ),
    ("03b.stacks", stacking(lambda x: down(down(x))), "71 des 84 pixels d'avant ; il man"),
    ("03b.stacks", lambda x, kernels: STACKS(down(x), kernels), "il manque (5, 6)"),
    ("03b.stacks", stacking(out="v"), "lit 78 des 84 pixels d'avant ; il manque (6, 0)"),
    (
        "03b.stacks",
        stacking(out="both"),
        "pas 2 tenseurs",
    ),
    # without gradient, in two ways; another size
    ("03b.stacks", lambda *args: STACKS(*args).detach(), "Il n'en reçoit aucun"),
    ("03b.stacks", torch.no_grad()(STACKS), "Il n'en reçoit aucun"),
    ("03b.stacks", lambda *args: STACKS(*args)[:, :, 1:], "reçu : (170, 4, 12, 13)"),
    ("03b.stacks", stacking(lambda x: F.pad(x, (0, 0, 1, 0))), "RuntimeError"),
    # right, but what the next cells could not use, or would find changed
    ("03b.mask", mask_in_place_float64, "pas des torch.float64. `.float()` convertit"),
    ("03b.field", field_with_sets, "`torch.as_tensor` convertit"),
    ("03b.field", field_by_formula, "pas un objet de type ndarray"),
    ("03b.channels", channels_of_a_masked_convolution, "`.float()` convertit"),
    ("03b.channels", channels_by_blocks, "`torch.as_tensor` convertit"),
    ("03b.channels", channels_as_lists, "pas un objet de type list"),
    ("03b.mixture", mixture_with_numpy, "pas un objet de type ndarray"),
    ("03b.mixture", mixture_as_a_list, "pas 17 tenseurs"),
    ("03b.stacks", stacks_in_place, "votre fonction change `kernels`"),
    ("03b.stacks", stacks_in_float64, "`.float()` convertit"),
]


@pytest.mark.parametrize("key, answer, message", WRONG)
def test_wrong_answers_meet_a_counter_example(key, answer, message):
    refused(key, answer, message)


def test_the_references_agree_with_the_library():
    """Written for the eye in the exercise, used by the models in the library."""
    for kind in "AB":
        for k in (1, 3, 7):
            assert torch.equal(MASK(kind, k), mask_of_the_library(kind, k))
        assert torch.equal(CHANNELS(kind, 9, 6), channel_mask(kind, 9, 6, 3))
    assert FIELD(6, 13, 6, 6).sum() == 69
    for case in ((1, 4, 0, 0), (3, 7, 5, 1), (4, 5, 3, 2), (2, 6, 5, 5)):
        assert torch.equal(FIELD(*case), field_of_the_library(*case))
    weights, mu, s = torch.tensor([[0.3, 0.7], [2.0, 9.5], [0.4, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(
        MIXTURE(weights, mu, s, 9), mixture_of_the_library(weights, mu, s, 9)
    )
    kernels = notebook_03b._random_kernels(3)
    x = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(STACKS(x, kernels), stacks_of_the_library(x, kernels))
