"""log p(x | parameters), in nats, one value per pixel.

A likelihood returns a tensor of the shape of `x`; `sum_pixels` adds the pixels of each image, and
`bits_per_dim` changes the unit. The three costs of the lecture (MSE, MAE, BCE) are three of them.
"""

import math

import torch
import torch.nn.functional as F

LARGEST_LOG_SCALE = 80.0  # of a law integrated over bins: e^90 and its inverse leave float32


def bernoulli(x, logits):
    """Binary pixels: p(x=1) = sigmoid(logits). Its negative is the binary cross-entropy (BCE).

    Args:
        x: any shape, values exactly 0 or 1.
        logits: log-odds, same shape.

    Returns:
        log p(x | logits) in nats, same shape.

    Raises:
        ValueError: a pixel is neither 0 nor 1 (on greys, the BCE is a cost but no likelihood:
            it does not integrate to one), or the shapes differ.
    """
    _same_shape(x, "logits", logits)
    if not ((x == 0) | (x == 1)).all():
        raise ValueError(
            "bernoulli: expected pixels 0 or 1, got other values: on grey levels the BCE is not a "
            "log-likelihood. Binarise (load(…, levels=2)) or use gaussian, laplace or categorical"
        )
    # log sigmoid(s) = −softplus(−s), with s = logits where x = 1 and −logits where x = 0
    return -F.softplus((1 - 2 * x.to(logits.dtype)) * logits)


def gaussian(x, mu, logvar):
    """Density of N(mu, exp(logvar)). Its negative is (x − mu)² / 2σ² + constant: the MSE, weighted.

    Args:
        x, mu: same shape.
        logvar: log σ², any shape that broadcasts to `x` (a number is enough).

    Returns:
        log p(x | mu, logvar) in nats (of a density: it can be positive), shape of `x`.
    """
    _same_shape(x, "mu", mu)
    logvar = torch.as_tensor(logvar, dtype=mu.dtype, device=mu.device)
    return -0.5 * (math.log(2 * math.pi) + logvar + (x - mu) ** 2 * torch.exp(-logvar))


def laplace(x, mu, log_scale):
    """Density of Laplace(mu, b = exp(log_scale)). Its negative is |x − mu| / b + constant: the MAE.

    Args:
        x, mu: same shape.
        log_scale: log b, any shape that broadcasts to `x` (a number is enough).

    Returns:
        log p(x | mu, log_scale) in nats (of a density: it can be positive), shape of `x`.
    """
    _same_shape(x, "mu", mu)
    log_scale = torch.as_tensor(log_scale, dtype=mu.dtype, device=mu.device)
    return -math.log(2) - log_scale - (x - mu).abs() * torch.exp(-log_scale)


def categorical(x, logits):
    """Integer pixels with one free probability per level (softmax).

    Args:
        x: `(B, …)`, integers in {0, …, levels − 1}.
        logits: `(B, levels, …)`, unnormalised log-probabilities.

    Returns:
        log p(x | logits) in nats, shape of `x`.

    Raises:
        ValueError: a pixel is outside of the levels, or the shapes do not fit.
    """
    levels = logits.shape[1]
    _same_shape(x, "logits", logits[:, 0])
    _integers(x, levels)
    return -F.cross_entropy(logits, x.long(), reduction="none")


def discretized_gaussian(x, mu, log_sigma, levels):
    """Integer pixels: N(mu, σ²), integrated over the bin of each level.

    On a pixel rescaled to [0, 1], level k has the bin of width 1 / (levels − 1) around
    k / (levels − 1); the first and the last bins extend to −∞ and +∞: the levels' probabilities sum
    to one. It is the law of a Gaussian draw, rounded to the nearest level.

    Args:
        x: `(B, …)`, integers in {0, …, levels − 1}.
        mu, log_sigma: same shape, in the units of [0, 1].
        levels: number of values of a pixel.

    Returns:
        log p(x | mu, log_sigma) in nats, shape of `x`.
    """
    _same_shape(x, "mu", mu)
    _same_shape(x, "log_sigma", log_sigma)
    _integers(x, levels)
    bin_ = 1 / (levels - 1)
    sigma = torch.exp(log_sigma.clamp(max=LARGEST_LOG_SCALE))
    upper = (bin_ * (x.to(mu.dtype) + 0.5) - mu) / sigma
    lower = upper - bin_ / sigma
    # Φ(u) − Φ(l), on the side of the bell where both are small: exact far in the tails too
    flip = lower > 0
    low, high = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    log_low, log_high = _log_ndtr(low), _log_ndtr(high)
    # a bin much narrower than the bell: the difference is lost in rounding, the density is not
    middle, width = (low + high) / 2, bin_ / sigma
    density = -0.5 * middle**2 - 0.5 * math.log(2 * math.pi) + torch.log(width)
    narrow = width < 1e-3
    # so far that both logarithms round to the same number, the tail falls as the density does
    gap = torch.where(high < -50, width * middle, log_low - log_high)
    gap = torch.where(narrow, -1.0, gap)  # no gradient of a lost difference
    inside = torch.where(narrow, density, log_high + torch.log(-torch.expm1(gap)))
    first, last = _log_ndtr(upper), _log_ndtr(-lower)
    return torch.where(x == 0, first, torch.where(x == levels - 1, last, inside))


def _log_ndtr(x):
    """log Φ(x). That of torch is the same, but its derivative is lost some 500 deviations away."""
    t = x.clamp(max=-1) / math.sqrt(2)
    tail = torch.log(torch.special.erfcx(-t) / 2) - t**2
    return torch.where(x < -1, tail, torch.special.log_ndtr(x.clamp(min=-1)))


def discretized_logistic_mixture(x, logit_weights, mu, log_scale, levels):
    """Integer pixels: a mixture of logistic laws, integrated over the bin of each level.

    On a pixel rescaled to [−1, 1], level k has the bin of width 2 / (levels − 1) around it; the
    first and the last bins extend to −∞ and +∞, so that the levels' probabilities sum to one.
    Source: Salimans et al. 2017 (PixelCNN++), eq. 2.

    Args:
        x: `(B, …)`, integers in {0, …, levels − 1}.
        logit_weights, mu, log_scale: `(B, M, …)`, the M components; mu and the scale are in the
            units of [−1, 1].
        levels: number of values of a pixel.

    Returns:
        log p(x | parameters) in nats, shape of `x`.
    """
    for name, parameter in (("logit_weights", logit_weights), ("mu", mu), ("log_scale", log_scale)):
        _same_shape(x, name, parameter[:, 0])
    _integers(x, levels)
    x = x.unsqueeze(1).to(mu.dtype)  # (B, 1, …)
    half_bin = 1 / (levels - 1)
    centred = 2 * half_bin * x - 1 - mu  # (B, M, …)
    inverse_scale = torch.exp(-log_scale.clamp(max=LARGEST_LOG_SCALE))
    upper = inverse_scale * (centred + half_bin)
    lower = inverse_scale * (centred - half_bin)

    # log[σ(u) − σ(l)] = logσ(u) + logσ(−l) + log(1 − e^(l − u)): exact far in the tails too.
    width = 2 * half_bin * inverse_scale  # u − l
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
    log_prob = torch.where(
        x == 0, F.logsigmoid(upper), torch.where(x == levels - 1, F.logsigmoid(-lower), inside)
    )
    return torch.logsumexp(F.log_softmax(logit_weights, dim=1) + log_prob, dim=1)


# ---------------------------------------------------------------------------------------------
# Units
# ---------------------------------------------------------------------------------------------


def sum_pixels(log_prob):
    """Add the pixels of each image: `(B, …)` -> `(B,)`, nats per image.

    Always a sum, never a mean: the logarithm of a product of pixels is a sum over pixels.
    """
    return log_prob.flatten(1).sum(1)


def bits_per_dim(nats, dims):
    """Negative log-likelihood in nats per image, −log p(x) -> bits per dimension, of C·H·W."""
    if dims < 1:
        raise ValueError(f"dims={dims}: expected the number of dimensions C·H·W of one image")
    return nats / dims / math.log(2)


# ---------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------


def _same_shape(x, name, value):
    if x.shape != value.shape:
        raise ValueError(
            f"x has the shape {tuple(x.shape)} but {name} describes {tuple(value.shape)}: "
            "expected one parameter per pixel"
        )


def _integers(x, levels):
    if x.is_floating_point():
        raise ValueError(f"expected integer pixels in {{0, …, {levels - 1}}}, got {x.dtype}")
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= levels):
        raise ValueError(
            f"expected pixels in {{0, …, {levels - 1}}}, got [{int(x.min())}, {int(x.max())}]: "
            "quantise with course_utils.data.quantize"
        )
