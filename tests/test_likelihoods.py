"""Log-probabilities of pixels, against torch.distributions and against their own total."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import distributions

from course_utils import likelihoods
from course_utils.likelihoods import (
    bernoulli,
    bits_per_dim,
    categorical,
    discretized_gaussian,
    discretized_logistic_mixture,
    gaussian,
    laplace,
    nats_per_image,
    sum_pixels,
)

SHAPE = (5, 2, 3, 3)


def noise(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- against torch.distributions, in float64 --------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_bernoulli(scale):
    logits = noise(*SHAPE, scale=scale)
    x = (noise(*SHAPE, seed=1) > 0).to(torch.uint8)
    expected = distributions.Bernoulli(logits=logits).log_prob(x.double())
    torch.testing.assert_close(bernoulli(x, logits), expected)


def test_gaussian():
    x, mu, logvar = noise(*SHAPE), noise(*SHAPE, seed=1), noise(*SHAPE, seed=2, scale=2.0)
    expected = distributions.Normal(mu, (logvar / 2).exp()).log_prob(x)
    torch.testing.assert_close(gaussian(x, mu, logvar), expected)


def test_laplace():
    x, mu, log_scale = noise(*SHAPE), noise(*SHAPE, seed=1), noise(*SHAPE, seed=2)
    expected = distributions.Laplace(mu, log_scale.exp()).log_prob(x)
    torch.testing.assert_close(laplace(x, mu, log_scale), expected)


@pytest.mark.parametrize("levels", [2, 17])
def test_categorical(levels):
    logits = noise(5, levels, 3, 4, scale=3.0)
    x = torch.arange(60).view(5, 3, 4) % levels
    expected = distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(x)
    torch.testing.assert_close(categorical(x, logits), expected)


def test_discretized_logistic_is_a_difference_of_cumulative_probabilities():
    """One component: σ((x⁺ − μ) / s) − σ((x⁻ − μ) / s), open at both ends."""
    levels, mu, log_scale = 5, 0.1, -1.0
    edges = torch.tensor([-math.inf, -0.75, -0.25, 0.25, 0.75, math.inf], dtype=torch.float64)
    cumulative = torch.sigmoid((edges - mu) * math.exp(1.0))
    parameter = torch.ones(levels, 1, dtype=torch.float64)
    found = discretized_logistic_mixture(
        torch.arange(levels), 0 * parameter, mu * parameter, log_scale * parameter, levels
    )
    torch.testing.assert_close(found.exp(), cumulative.diff())


def test_mixture_weights_are_a_softmax():
    x = torch.arange(4)
    mu, log_scale = noise(4, 3), noise(4, 3, seed=1)
    weights = noise(4, 3, seed=2)
    parts = [
        discretized_logistic_mixture(x, 0 * mu[:, :1], mu[:, k : k + 1], log_scale[:, k : k + 1], 4)
        for k in range(3)
    ]
    expected = (weights.softmax(1) * torch.stack(parts, 1).exp()).sum(1).log()
    found = discretized_logistic_mixture(x, weights, mu, log_scale, 4)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 255, 256])
def test_every_level_is_accepted_as_uint8(levels):
    """256 does not fit in uint8: comparing pixels with it must not wrap around."""
    x = torch.arange(levels).to(torch.uint8)
    logits = torch.zeros(levels, levels)
    assert torch.isfinite(categorical(x, logits)).all()
    parameter = torch.zeros(levels, 1)
    log_prob = discretized_logistic_mixture(x, parameter, parameter, parameter, levels)
    torch.testing.assert_close(log_prob.exp().sum().item(), 1.0, rtol=0, atol=1e-5)


# ---- the discretised logistic sums to one and never overflows ---------------------------------


def every_level(levels, mu, log_scale, dtype):
    """log p of each level under a mixture whose two components share mu and scale."""
    mu, log_scale = (torch.full((levels, 2), value, dtype=dtype) for value in (mu, log_scale))
    mu.requires_grad_(), log_scale.requires_grad_()
    weights = torch.tensor([[0.5, -1.0]], dtype=dtype).repeat(levels, 1).requires_grad_()
    log_prob = discretized_logistic_mixture(torch.arange(levels), weights, mu, log_scale, levels)
    return log_prob, (weights, mu, log_scale)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("mu", [0.0, 0.3, -1.0, 1.5, 50.0, -50.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 5.0])
def test_mixture_sums_to_one(levels, mu, log_scale):
    log_prob, _ = every_level(levels, mu, log_scale, torch.float64)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_mixture_is_exact_in_float64():
    """With float64 parameters the sum is 1 to float64's precision, not float32's."""
    log_prob, _ = every_level(256, 0.3, -7.0, torch.float64)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("mu", [0.0, 50.0, -1000.0, 1e6])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 15.0])
def test_mixture_is_finite_far_in_the_tails(levels, mu, log_scale):
    log_prob, parameters = every_level(levels, mu, log_scale, torch.float32)
    assert torch.isfinite(log_prob).all()
    log_prob.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters)


@pytest.mark.parametrize("law", [bernoulli, categorical])
def test_discrete_laws_are_finite_far_in_the_tails(law):
    logits = torch.tensor([[-1000.0, 1000.0]] * 2, requires_grad=True)
    x = torch.tensor([0, 0]) if law is categorical else torch.tensor([[1, 0], [0, 1]])
    log_prob = law(x, logits)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(logits.grad).all()
    assert log_prob.min() < -999


# ---- the discretised Gaussian: the same, with other tails -------------------------------------


def every_level_of_a_gaussian(levels, mu, log_sigma, dtype=torch.float64):
    mu, log_sigma = (torch.full((levels,), v, dtype=dtype) for v in (mu, log_sigma))
    mu.requires_grad_(), log_sigma.requires_grad_()
    return discretized_gaussian(torch.arange(levels), mu, log_sigma, levels), (mu, log_sigma)


def test_discretized_gaussian_is_a_difference_of_cumulative_probabilities():
    """Five levels at 0, 0.25, …, 1; open at both ends."""
    edges = torch.tensor([-math.inf, 0.125, 0.375, 0.625, 0.875, math.inf], dtype=torch.float64)
    expected = distributions.Normal(0.6, math.exp(-1.0)).cdf(edges).diff()
    found, _ = every_level_of_a_gaussian(5, 0.6, -1.0)
    torch.testing.assert_close(found.exp(), expected)


@pytest.mark.parametrize("levels", [3, 17, 256])
@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, -2.0, 3.0])
@pytest.mark.parametrize("log_sigma", [-4.0, -1.0, 1.0])
def test_discretized_gaussian_in_the_tails(levels, mu, log_sigma):
    """Against `erfc`, on the side where it is small: exact as far as float64 can hold it."""
    found, _ = every_level_of_a_gaussian(levels, mu, log_sigma)
    for k, value in enumerate(found.tolist()):
        scale = math.exp(log_sigma) * math.sqrt(2)
        low = -math.inf if k == 0 else ((k - 0.5) / (levels - 1) - mu) / scale
        high = math.inf if k == levels - 1 else ((k + 0.5) / (levels - 1) - mu) / scale
        if low > 0:
            low, high = -high, -low
        mass = (math.erfc(-high) - math.erfc(-low)) / 2
        if mass > 1e-300:
            assert value == pytest.approx(math.log(mass), rel=1e-7, abs=1e-7)
        else:
            assert -1e6 < value < -650


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("mu", [0.0, 0.3, -1.0, 1.5, 50.0, -50.0])
@pytest.mark.parametrize("log_sigma", [-7.0, -3.0, 0.0, 5.0])
def test_discretized_gaussian_sums_to_one(levels, mu, log_sigma):
    log_prob, _ = every_level_of_a_gaussian(levels, mu, log_sigma)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("levels", [3, 17, 256])
@pytest.mark.parametrize("mu", [0.0, 0.5, 8.0, -8.0, 50.0])
@pytest.mark.parametrize("log_sigma", [-6.0, 0.0, 3.0])
def test_discretized_gaussian_is_finite_far_in_the_tails(levels, mu, log_sigma):
    """In float32, up to 10⁴ deviations away."""
    mu = min(mu, 1 + 1e4 * math.exp(log_sigma))
    log_prob, parameters = every_level_of_a_gaussian(levels, mu, log_sigma, torch.float32)
    assert torch.isfinite(log_prob).all() and (log_prob <= 0).all()
    log_prob.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("log_sigma", [-7.0, -4.0, -1.0, 1.0, 4.0])
def test_discretized_gaussian_has_a_slope_as_far_as_a_million_deviations(levels, log_sigma, dtype):
    """There, log p falls as that of the density at the nearest edge: −h² / 2, of slope |h| / σ."""
    sigma, sign = math.exp(log_sigma), torch.tensor([[-1.0], [1.0]], dtype=dtype)
    deviations = sign * torch.logspace(2, 6, 9, dtype=dtype)  # (2, 9)
    for k in sorted({0, 1 % levels, levels // 2, levels - 1}):
        mu = (k / (levels - 1) + deviations * sigma).requires_grad_()
        x = torch.full(mu.shape, k)
        log_prob = discretized_gaussian(x, mu, torch.full_like(mu, log_sigma), levels)
        log_prob.sum().backward()
        edge = (k + 0.5 * sign) / (levels - 1)
        h = ((edge - mu) / sigma).detach()
        outside = h * sign < -10  # else μ is in the bin, or next to it
        outside[0] &= k > 0  # the bins of both ends have no edge on that side
        outside[1] &= k < levels - 1
        torch.testing.assert_close(log_prob[outside], (-(h**2) / 2)[outside], rtol=0.1, atol=0)
        torch.testing.assert_close(mu.grad[outside], (h / sigma)[outside], rtol=0.02, atol=0)
        assert torch.isfinite(mu.grad).all()


def test_narrow_bins_are_the_density_times_their_width():
    log_prob, (mu, log_sigma) = every_level_of_a_gaussian(256, 0.45, -1.0)
    place = torch.arange(256, dtype=torch.float64) / 255
    expected = gaussian(place, mu, 2 * log_sigma) - math.log(255)
    torch.testing.assert_close(log_prob[1:-1], expected[1:-1], rtol=0, atol=1e-4)


# ---- the three costs of the lecture ---------------------------------------------------------


def test_mse_is_a_gaussian_of_unit_variance():
    x, mu = noise(*SHAPE), noise(*SHAPE, seed=1)
    cost = F.mse_loss(mu, x, reduction="none") / 2 + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(-gaussian(x, mu, 0.0), cost)


def test_mae_is_a_laplace_of_unit_scale():
    x, mu = noise(*SHAPE), noise(*SHAPE, seed=1)
    cost = F.l1_loss(mu, x, reduction="none") + math.log(2)
    torch.testing.assert_close(-laplace(x, mu, 0.0), cost)


def test_bce_is_a_bernoulli():
    logits = noise(*SHAPE)
    x = noise(*SHAPE, seed=1) > 0
    cost = F.binary_cross_entropy(logits.sigmoid(), x.double(), reduction="none")
    torch.testing.assert_close(-bernoulli(x, logits), cost)


@pytest.mark.parametrize("law", [gaussian, laplace])
def test_the_scale_may_be_a_number_a_parameter_or_one_per_pixel(law):
    x, mu = noise(*SHAPE), noise(*SHAPE, seed=1)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    expected = law(x, mu, torch.full(SHAPE, 0.7, dtype=torch.float64))
    torch.testing.assert_close(law(x, mu, 0.7), expected)
    found = law(x, mu, scale)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert scale.grad.abs() > 0


# ---- units ------------------------------------------------------------------------------------


def test_sum_pixels_adds_everything_but_the_batch():
    log_prob = noise(*SHAPE)
    torch.testing.assert_close(sum_pixels(log_prob), log_prob.sum((1, 2, 3)))


def test_known_figure_81_nats_on_binarised_mnist():
    assert bits_per_dim(81.30, 784) == pytest.approx(0.1496, abs=5e-5)


def test_uniform_pixels_cost_log2_of_the_levels():
    assert bits_per_dim(784 * math.log(256), 784) == pytest.approx(8)
    assert bits_per_dim(0.0, 784, dequantized_levels=256) == pytest.approx(8)


@pytest.mark.parametrize("levels", [None, 256])
@pytest.mark.parametrize("nats", [81.3, -1200.0, torch.tensor([81.3, 90.0])])
def test_units_round_trip(nats, levels):
    bits = bits_per_dim(nats, 784, dequantized_levels=levels)
    back = nats_per_image(bits, 784, dequantized_levels=levels)
    assert back == pytest.approx(nats, rel=1e-4)


# ---- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [bits_per_dim, nats_per_image])
def test_units_need_dimensions(convert):
    with pytest.raises(ValueError, match="dims=0: expected the number of dimensions C·H·W"):
        convert(1.0, 0)


GREY = torch.full((2, 1, 3, 3), 0.5)
BINARY = torch.ones(2, 1, 3, 3, dtype=torch.uint8)
MIXTURE = torch.zeros(2, 4, 1, 3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bernoulli(GREY, GREY), "pixels 0 or 1.*Binarise.*gaussian, laplace or categ"),
        (lambda: bernoulli(BINARY, GREY[0]), "logits describes.*one parameter per pixel"),
        (lambda: gaussian(GREY, GREY[:1], 0.0), "mu describes.*one parameter per pixel"),
        (lambda: laplace(GREY, GREY[:1], 0.0), "mu describes.*one parameter per pixel"),
        (lambda: categorical(BINARY, MIXTURE[:1]), "logits describes"),
        (lambda: categorical(GREY, MIXTURE), r"integer pixels in \{0, …, 3\}, got torch.float32"),
        (lambda: categorical(4 * BINARY, MIXTURE), r"got \[4, 4\]: quantise with.*quantize"),
        (lambda: discretized_gaussian(BINARY, GREY[:1], GREY, 17), "mu describes"),
        (lambda: discretized_gaussian(BINARY, GREY, GREY[:1], 17), "log_sigma describes"),
        (lambda: discretized_gaussian(GREY, GREY, GREY, 17), "expected integer pixels"),
        (lambda: discretized_gaussian(17 * BINARY, GREY, GREY, 17), r"got \[17, 17\]"),
        (
            lambda: discretized_logistic_mixture(BINARY, MIXTURE, MIXTURE[:1], MIXTURE, 17),
            "mu describes",
        ),
        (
            lambda: discretized_logistic_mixture(17 * BINARY, MIXTURE, MIXTURE, MIXTURE, 17),
            r"pixels in \{0, …, 16\}, got \[17, 17\]",
        ),
        (
            lambda: discretized_logistic_mixture(GREY, MIXTURE, MIXTURE, MIXTURE, 17),
            "expected integer pixels",
        ),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_negative_pixels_are_refused():
    with pytest.raises(ValueError, match=r"got \[-1, -1\]"):
        likelihoods.categorical(torch.full((2, 1, 3, 3), -1), MIXTURE)
