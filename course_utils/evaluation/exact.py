"""Exact sums on small models: all images of a tiny format, all codes of a latent plane."""

import math

import torch

from ..likelihoods import gaussian

MAX_ENUMERATION = 2**20
HALF_WIDTH, RESOLUTION = 4.0, 161  # of the grid over the latent plane


def enumerate_images(shape, levels=2):
    """All images of a tiny format, as `(levels^(C·H·W), C, H, W)` integers.

    Raises:
        ValueError: there are more than 2²⁰ of them.
    """
    dims = math.prod(shape)
    if levels**dims > MAX_ENUMERATION:
        raise ValueError(
            f"{levels}^{dims} images of shape {tuple(shape)}: too many to enumerate "
            f"(at most {MAX_ENUMERATION})"
        )
    values = torch.arange(levels, dtype=torch.uint8)
    return torch.cartesian_prod(*[values] * dims).view(-1, *shape)


@torch.no_grad()
def total_probability(log_prob, shape, levels=2):
    """Σ_x p(x) over all images of a tiny format: 1 for any normalised model.

    Args:
        log_prob: function `(B, C, H, W)` -> `(B,)` in nats, for instance `model.log_prob`.
    """
    batches = enumerate_images(shape, levels).split(4096)
    return sum(log_prob(x).double().exp().sum().item() for x in batches)


@torch.no_grad()
def measured_dependencies(parameters, shape, levels=2, *, num_images=8):
    """Which pixels each output reads: change one pixel, see which outputs are no longer the same.

    « The same » is meant bit for bit: a weight that a mask sets to zero contributes exactly zero.

    Args:
        parameters: function of integer images `(B, C, H, W)` giving the parameters of every pixel,
            `(B, …, C, H, W)`; for instance `model.logits`.
        shape: `(C, H, W)` of an image.
        levels: number of values of a pixel.
        num_images: random images on which each pixel is changed; one is enough to see a
            dependency, unless a unit happens to be silent on it.

    Returns:
        `(D, D)` booleans, pixels in the order of the image: `[i, j]` is True when changing pixel j
        was seen to change output i.
    """
    dims = math.prod(shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(levels, (num_images, *shape), generator=generator, dtype=torch.uint8)
    before = parameters(x).reshape(num_images, -1, dims)
    seen = torch.zeros(dims, dims, dtype=torch.bool)
    for j in range(dims):
        changed = x.clone().flatten(1)
        shift = torch.randint(1, levels, (num_images,), generator=generator)
        changed[:, j] = (changed[:, j] + shift) % levels
        # a batch of the same size: its rows are then computed in the same way
        after = parameters(changed.view_as(x)).reshape(num_images, -1, dims)
        seen[:, j] = (after != before).any(0).any(0).cpu()
    return seen


def receptive_field(network, shape, pixel, *, num_images=8):
    """Which pixels one output reads, measured with gradients.

    Args:
        network: function of float images `(B, C, H, W)` giving maps `(B, F, H, W)`; its maps at the
            pixel are differentiated with respect to the image.
        shape: `(C, H, W)` of an image.
        pixel: `(row, column)` of the output.
        num_images: random images in {0, 1}; one is enough to see a dependency, unless a unit
            happens to be silent on it.

    Returns:
        `(C, H, W)` booleans, True where the gradient is not zero for some image.
    """
    row, column = pixel
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (num_images, *shape), generator=generator).float().requires_grad_()
    outputs = network(x)[:, :, row, column]  # (B, F)
    # random weights: the gradients of two maps have no reason to cancel each other
    weights = torch.rand(outputs.shape, generator=generator) + 0.5
    (gradient,) = torch.autograd.grad((outputs * weights).sum(), x)
    return (gradient != 0).any(0)


@torch.no_grad()
def grid_posterior(model, x):
    """Exact posterior of a VAE with two latent dimensions, by summing over a grid.

    log p(x, z) is computed at every point of a square grid, over [−4, 4]²; its logsumexp, with the
    area of a cell, is log p(x) up to the (tiny) error of the quadrature.

    Args:
        model: a `VAE` with `z_dim=2`.
        x: one integer image `(C, H, W)`.

    Returns:
        axis `(R,)`, posterior density `(R, R)` at `z = (axis[j], axis[i])`, and log p(x), a float.
    """
    if model.z_dim != 2:
        raise ValueError(f"the grid needs 2 latent dimensions, the model has {model.z_dim}")
    if tuple(x.shape) != model.shape:
        raise ValueError(f"expected one image {model.shape}, got {tuple(x.shape)}")
    axis = torch.linspace(-HALF_WIDTH, HALF_WIDTH, RESOLUTION, device=x.device)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    z = torch.stack([z1.flatten(), z2.flatten()], 1)  # (R², 2)
    log_likelihood = torch.cat(
        [model.log_likelihood(x.expand(len(part), *x.shape), part) for part in z.split(4096)]
    )
    log_prior = gaussian(z, torch.zeros_like(z), 0.0).sum(1)
    log_joint = (log_likelihood + log_prior).cpu().double()
    log_cell = 2 * math.log(2 * HALF_WIDTH / (RESOLUTION - 1))
    log_evidence = torch.logsumexp(log_joint, 0) + log_cell
    density = torch.exp(log_joint - log_evidence).view(RESOLUTION, RESOLUTION)
    return axis.cpu(), density, log_evidence.item()


def best_diagonal_gaussian(axis, density, *, start=None):
    """The diagonal Gaussian nearest to a posterior known on a grid, in KL(q ‖ posterior).

    What separates it from the posterior is the limit of the Gaussian family; what separates the
    encoder's Gaussian from it is the price of amortisation (Cremer et al. 2018).

    It is the nearest around where one starts: a posterior of several bumps has several.

    Args:
        axis, density: from `grid_posterior`; the density may be known up to a factor.
        start: first mu; by default, the mean of the posterior.

    Returns:
        mu `(2,)`, logvar `(2,)`, and the remaining divergence in nats, a float.
    """
    density = density.double()  # 1e-300 below is zero in float32
    weights = density / density.sum()
    step = (axis[1] - axis[0]).item()
    log_posterior = (weights / step**2).clamp(min=1e-300).log()
    z2, z1 = torch.meshgrid(axis.double(), axis.double(), indexing="ij")
    z = torch.stack([z1, z2], -1)  # (R, R, 2)
    mu = (weights[..., None] * z).sum((0, 1))  # start: the moments of the posterior
    logvar = (weights[..., None] * (z - mu) ** 2).sum((0, 1)).log()
    if start is not None:
        mu, logvar = torch.tensor(start).to(mu), torch.full_like(logvar, math.log(0.25))
    mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
    optimizer = torch.optim.Adam([mu, logvar], lr=0.02)
    for _ in range(300):
        log_q = gaussian(z, mu.expand_as(z), logvar).sum(-1)
        q = log_q.flatten().softmax(0).view_as(log_q)  # its probabilities on the grid
        gap = (q * (log_q - log_posterior)).sum()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
    return mu.detach().float(), logvar.detach().float(), gap.item()
