"""The self-checks accept right answers, however written, those of the package among them."""

import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercise_answers import accepted

from course_utils.autoregressive import PixelCNN
from course_utils.autoregressive.made import masks
from course_utils.autoregressive.masked import MaskedConv2d, channel_mask
from course_utils.autoregressive.pixelcnn import gate
from course_utils.cvae import visible_part
from course_utils.evaluation import enumerate_images, receptive_field
from course_utils.likelihoods import discretized_logistic_mixture
from course_utils.vae import reparameterize
from course_utils.vq import Quantize, VectorQuantizer, nearest_atoms


# ---- 01 -----------------------------------------------------------------------------------------


def kl_by_distributions(mu, logvar):
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    p = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return torch.distributions.kl_divergence(q, p).sum(-1)


def loss_by_sum_over_batch_size(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (bce - 0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp())) / len(x)


def aggregate_by_mixture(z, mu, logvar):
    parts = torch.distributions.Independent(torch.distributions.Normal(mu, (0.5 * logvar).exp()), 1)
    weights = torch.distributions.Categorical(logits=torch.zeros(len(mu), dtype=mu.dtype))
    return torch.distributions.MixtureSameFamily(weights, parts).log_prob(z)


def laplace_by_distributions(x, x_hat, b, mu, logvar):
    log_likelihood = torch.distributions.Laplace(x_hat, b).log_prob(x).sum(1)
    return log_likelihood - kl_by_distributions(mu, logvar)


# ---- 02 -----------------------------------------------------------------------------------------


def join_in_place(z, labels, num_classes):
    d = z.shape[1]
    result = torch.zeros(len(z), d + num_classes)
    result[:, :d] = z
    result[torch.arange(len(z)), d + labels] = 1
    return result


def elbo_by_distributions(q, prior, likelihood):
    q_z, p_z = torch.distributions.Categorical(q), torch.distributions.Categorical(prior)
    return q @ likelihood.log() - torch.distributions.kl_divergence(q_z, p_z)


def grid_cell_by_cell(model, z):
    page = torch.zeros(10 * len(z), *model.shape)
    for k in range(10):
        for j in range(len(z)):
            page[k * len(z) + j] = model.decode(z[j : j + 1], torch.tensor([k]))[0]
    return page


def complete_with_distributions(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c)
    z = torch.distributions.Normal(mu[0], torch.exp(0.5 * logvar[0])).sample((n,))
    pixels = torch.distributions.Bernoulli(decode(z, c)).sample()
    return mask * x + ~mask * pixels


def complete_one_by_one(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    images = [torch.bernoulli(decode(reparameterize(*prior(c)), c)) for _ in range(n)]
    return torch.where(mask, x, torch.cat(images))


def complete_with_names_after_a_try(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c=c)
    assert decode(mu, c=c).shape[2:] == mask.shape
    p = decode(c=c, z=reparameterize(mu.expand(n, -1), logvar.expand(n, -1)))
    return torch.where(mask, x.float(), torch.bernoulli(p))


def complete_with_repeated_conditions(x, mask, n, prior, decode):
    c = visible_part(x.repeat(n, 1, 1, 1), mask)
    return torch.where(mask, x, torch.bernoulli(decode(reparameterize(*prior(c)), c)))


def cvae_loss_by_distributions(x, c, encode, prior, decode):
    q, p = (
        torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        for mu, logvar in (encode(x, c), prior(c))
    )
    log_p = torch.distributions.Bernoulli(logits=decode(q.rsample(), c)).log_prob(x)
    return torch.distributions.kl_divergence(q, p).sum(1).mean() - log_p.sum((1, 2, 3)).mean()


def cvae_loss_image_by_image(x, c, encode, prior, decode):
    pairs = zip(x.split(1), c.split(1))
    costs = [cvae_loss_by_distributions(*pair, encode, prior, decode) for pair in pairs]
    return torch.stack(costs).mean()


# ---- 03a ----------------------------------------------------------------------------------------


def total_one_image_at_a_time(log_prob, shape):
    total = 0.0
    for bits in itertools.product((0, 1), repeat=math.prod(shape)):
        x = torch.tensor(bits, dtype=torch.uint8)
        total += log_prob(x.view(1, *shape)).exp().item()
    return total


def count_with_loops(D, H):
    fvsbn = sum((i - 1) + 1 for i in range(1, D + 1))
    unshared = sum(H * (i - 1) + H + H + 1 for i in range(1, D + 1))
    return fvsbn, unshared, 2 * D * H + D + H


def nade_in_place(x, W, V, b, c):
    a, logits = c.repeat(len(x), 1), b.repeat(len(x), 1)
    for i in range(x.shape[1]):
        logits[:, i] += torch.mv(a.sigmoid(), V[i])
        a += torch.outer(x[:, i], W[i])
    return logits


def nade_with_cumsum(x, W, V, b, c):
    added = x[:, :, None] * W  # (B, D, H)
    return (torch.sigmoid(c + added.cumsum(1) - added) * V).sum(2) + b


def masks_of_the_library(ordering, m):
    """As numbers."""
    (M_W,), M_V = masks(ordering, [m])
    return M_W.float(), M_V.int()


def ensemble_by_distributions(logits, x):
    orders = torch.distributions.Categorical(torch.ones(len(logits)))
    pixels = torch.distributions.Bernoulli(logits=logits.transpose(0, 1))
    images = torch.distributions.Independent(pixels, 1)
    return torch.distributions.MixtureSameFamily(orders, images).log_prob(x)


def encode_with_integers(bits, probabilities):
    """The interval in units so small that every bound is an integer."""
    low, width, unit = 0, 1, 1
    for bit, p in zip(bits, probabilities):
        ones, parts = p.as_integer_ratio()
        ones *= width
        low, width, unit = low * parts, width * parts, unit * parts
        low, width = (low, ones) if bit else (low + ones, width - ones)
    for length in itertools.count():
        step = Fraction(unit, 2**length)
        first = -(-low // step)
        if first * step < low + width:
            return bin(first)[2:].zfill(length) if length else ""


# ---- 03b ----------------------------------------------------------------------------------------


def mask_of_the_library(kind, k):
    return F.pad(MaskedConv2d(kind, 1, 1, k).mask[0, 0], (0, 0, 0, k // 2))


@torch.no_grad()
def causal_in_place_and_put_back(network, x):
    """The images are flipped where they are, and put back; 1 for True."""
    before, flat, causal = network(x).flatten(1), x.view(len(x), -1), 1
    for j in range(flat.shape[1]):
        flat[:, j] = 1 - flat[:, j]
        causal &= torch.equal(network(x).flatten(1)[:, : j + 1], before[:, : j + 1])
        flat[:, j] = 1 - flat[:, j]
    return causal


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


def field_by_gradients(layers, size, row, column):
    """The notebook's way, with weights of 1 and a first layer of mask A; numbers of paths."""
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    h = image
    for layer in range(layers):
        mask = torch.tensor([[1.0, 1, 1], [1, float(layer > 0), 0], [0, 0, 0]])
        h = F.conv2d(h, mask[None, None], padding=1)
    h[0, 0, row, column].backward()
    return image.grad[0, 0]


def field_of_the_library(layers, size, row, column):
    shape, options = (1, size, size), {"first_kernel_size": 3, "features": 8}
    with torch.random.fork_rng(devices=[]):
        model = PixelCNN(shape, gated=False, layers=layers, position_map=False, **options)
    for weight in model.parameters():
        torch.nn.init.constant_(weight, 0.1)  # no ReLU is ever off
    return receptive_field(model.feature_maps, shape, (row, column))[0]


def channels_of_the_library(kind, out_features, in_features):
    return channel_mask(kind, out_features, in_features, 3).bool()


def mixture_of_the_library(weights, mu, s, levels):
    """Its centres and scales are those of intensities in [−1, 1]."""
    unit = 2 / (levels - 1)
    parameters = (weights.log(), unit * mu - 1, (unit * s).log())
    every = (values.expand(levels, -1) for values in parameters)
    return discretized_logistic_mixture(torch.arange(levels), *every, levels).exp()


def stacks_that_shift_before_each_link(x, kernels):
    """The paper's way: the vertical stack reads its own row, its maps are moved for the link."""
    v, h = x, x
    for layer, (W_v, W_h, W_link) in enumerate(kernels):
        above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)
        W_h = W_h * torch.tensor([1.0, 0.0]) if layer == 0 else W_h
        moved = F.pad(above[:, :, :-1], (0, 0, 1, 0))
        gates = F.conv2d(F.pad(h, (1, 0)), W_h) + F.conv2d(moved, W_link)
        v = gate(above)
        h = gate(gates) if layer == 0 else h + gate(gates)
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


# ---- 04 -----------------------------------------------------------------------------------------


def nearest_of_the_library(z, codebook):
    return nearest_atoms(z[:, :, None, None], codebook).flatten()


class Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z_e, e):
        return e.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def loss_of_the_library(log_px, z_e, e, beta):
    codes = torch.arange(len(e)).view(-1, 1, 1)
    _, codebook, commitment = Quantize.apply(z_e[:, :, None, None], e, codes)
    return (codebook + beta * commitment - log_px).mean()


def kl_with_loops(q):
    K = q.shape[1]
    return sum(p * math.log(p * K) for p in q.flatten().tolist() if p > 0)


def kl_with_a_little_more(q):
    return (q * ((q + 1e-6) / (1 / q.shape[1])).log()).sum().item()


def revive_with_where(codebook, uses, z):
    return torch.where(uses[:, None] > 0, codebook, z[torch.randperm(len(z))[: len(codebook)]])


def revive_of_the_library(codebook, uses, z):
    quantizer = VectorQuantizer(*codebook.shape)
    quantizer.codebook.copy_(codebook)
    quantizer._move(uses == 0, z[:, :, None, None])
    return quantizer.codebook


def table_of_one_hot(codes, K):
    one_hot = F.one_hot(codes, K).float()
    counts = 0.5 + torch.einsum("nija,nijb->ab", one_hot[:, :, :-1], one_hot[:, :, 1:])
    return counts / counts.sum(1, keepdim=True)


RIGHT = [
    ("00.bits", lambda nats: np.float32(nats) / np.log(2)),
    ("01.kl", kl_by_distributions),
    ("01.sum_mean", functools.partial(loss_by_sum_over_batch_size)),  # no source to be read
    ("01.aggregate", aggregate_by_mixture),
    ("01.laplace", laplace_by_distributions),
    ("02.join", join_in_place),
    ("02.elbo", elbo_by_distributions),
    ("02.grid", grid_cell_by_cell),
    ("02.complete", complete_with_distributions),
    ("02.complete", complete_one_by_one),
    ("02.complete", complete_with_names_after_a_try),
    ("02.complete", complete_with_repeated_conditions),
    ("02.prior", cvae_loss_by_distributions),
    ("02.prior", cvae_loss_image_by_image),
    ("03a.total", total_one_image_at_a_time),
    ("03a.total", lambda log_prob, shape: log_prob(x=enumerate_images(shape)).exp().sum()),
    ("03a.count", count_with_loops),
    ("03a.recursion", nade_in_place),
    ("03a.recursion", nade_with_cumsum),
    ("03a.masks", masks_of_the_library),
    ("03a.ensemble", ensemble_by_distributions),
    ("03a.encode", encode_with_integers),
    ("03b.mask", mask_of_the_library),
    ("03b.causal", causal_in_place_and_put_back),
    ("03b.causal", causal_with_numpy),
    ("03b.causal", causal_in_one_batch),
    ("03b.causal", causal_one_image_beside_the_batch),
    ("03b.causal", causal_by_gradients),
    ("03b.field", field_by_gradients),
    ("03b.field", field_of_the_library),
    ("03b.channels", channels_of_the_library),
    ("03b.mixture", mixture_of_the_library),
    ("03b.stacks", stacks_that_shift_before_each_link),
    ("03b.stacks", stacks_of_the_library),
    ("04.nearest", lambda z, codebook: torch.min(torch.cdist(z, codebook), dim=1).indices),
    ("04.nearest", nearest_of_the_library),
    ("04.straight_through", Copy.apply),
    ("04.loss", loss_of_the_library),
    ("04.kl", kl_with_loops),
    ("04.kl", kl_with_a_little_more),
    ("04.revive", revive_with_where),
    ("04.revive", revive_of_the_library),
    ("04.prior", table_of_one_hot),
]


@pytest.mark.parametrize("key, answer", RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_are_accepted_and_returned(key, answer):
    torch.manual_seed(0)
    accepted(key, answer)
