"""Log-probabilities of pixels, against torch.distributions and against their own total."""

import math

import pytest
import torch
from torch import distributions

from course_utils.likelihoods import (
    bernoulli,
    bits_per_dim,
    categorical,
    discretized_gaussian,
    discretized_logistic_mixture,
    gaussian,
    laplace,
    sum_pixels,
)

SHAPE = (5, 2, 3, 3)


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


X, MU, LOG_SCALE = noise(*SHAPE), noise(*SHAPE, seed=1), noise(*SHAPE, seed=2)
BITS = (X > 0).to(torch.uint8)


def test_the_laws_are_those_of_torch():
    for scale in (1, 30):
        expected = distributions.Bernoulli(logits=scale * MU).log_prob(BITS.double())
        torch.testing.assert_close(bernoulli(BITS, scale * MU), expected)
    expected = distributions.Normal(MU, LOG_SCALE.exp()).log_prob(X)
    torch.testing.assert_close(gaussian(X, MU, 2 * LOG_SCALE), expected)
    expected = distributions.Laplace(MU, LOG_SCALE.exp()).log_prob(X)
    torch.testing.assert_close(laplace(X, MU, LOG_SCALE), expected)
    for levels in (2, 17):
        logits = 3 * noise(5, levels, 3, 4)
        x = torch.arange(60).view(5, 3, 4) % levels
        expected = distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(x)
        torch.testing.assert_close(categorical(x, logits), expected)


@pytest.mark.parametrize("law", [gaussian, laplace])
def test_the_scale_may_be_a_number_a_parameter_or_one_per_pixel(law):
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    expected = law(X, MU, torch.full_like(X, 0.7))
    torch.testing.assert_close(law(X, MU, 0.7), expected)
    found = law(X, MU, scale)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert scale.grad.abs() > 0


@pytest.mark.parametrize("law", [bernoulli, categorical])
def test_discrete_laws_are_finite_far_in_the_tails(law):
    logits = torch.tensor([[-1000.0, 1000.0]] * 2, requires_grad=True)
    x = torch.tensor([0, 0]) if law is categorical else torch.tensor([[1, 0], [0, 1]])
    log_prob = law(x, logits)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(logits.grad).all()
    assert log_prob.min() < -999


# ---- the laws integrated over the bins --------------------------------------------------------

BINNED = [discretized_gaussian, discretized_logistic_mixture]


def every_level(law, levels, place, log_scale, dtype=torch.float64):
    """log p of each level, and the parameters: of one Gaussian, of two logistic laws alike."""
    size = (levels,) if law is discretized_gaussian else (levels, 2)
    parameters = [torch.full(size, value, dtype=dtype) for value in (place, log_scale)]
    if law is discretized_logistic_mixture:
        parameters.insert(0, torch.tensor([[0.5, -1.0]], dtype=dtype).repeat(levels, 1))
    for parameter in parameters:
        parameter.requires_grad_()
    return law(torch.arange(levels), *parameters, levels), parameters


@pytest.mark.parametrize("law", BINNED)
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("place", [0.0, 0.3, 1.0, -2.0, 3.0, 50.0, -50.0])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 1.0, 5.0])
def test_a_level_has_the_mass_of_its_bin(law, levels, place, log_scale):
    """A difference of cumulated probabilities, on the side where they are small; open ends.

    So all of them sum to one.
    """
    if law is discretized_gaussian:
        low, step = 0, 1 / (levels - 1)  # levels from 0 to 1
    else:
        low, step = -1, 2 / (levels - 1)  # from −1 to 1

    def cumulated(t):
        gaussian = law is discretized_gaussian
        return torch.special.erfc(-t / math.sqrt(2)) / 2 if gaussian else torch.sigmoid(t)

    edges = low + step * (torch.arange(levels + 1, dtype=torch.float64) - 0.5)
    edges[0], edges[-1] = -math.inf, math.inf
    edges = (edges - place) * math.exp(-log_scale)
    right = edges[:-1] > 0  # of the centre: take the mirror image
    lower = torch.where(right, -edges[1:], edges[:-1])
    upper = torch.where(right, -edges[:-1], edges[1:])
    mass = cumulated(upper) - cumulated(lower)
    found = every_level(law, levels, place, log_scale)[0].detach()
    held = mass > 1e-300  # as far as float64 can hold it
    torch.testing.assert_close(found[held], mass[held].log(), rtol=1e-7, atol=1e-7)
    assert ((found < -650) & (found > -1e10))[~held].all()
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("law", BINNED)
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("place", [0.0, 0.5, 50.0, -1000.0, 1e6])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 15.0, 100.0])
def test_values_and_gradients_are_finite_far_in_the_tails(law, levels, place, log_scale):
    if law is discretized_gaussian:
        place = min(place, 1 + 1e6 * math.exp(log_scale))  # a million deviations away
    log_prob, parameters = every_level(law, levels, place, log_scale, torch.float32)
    assert torch.isfinite(log_prob).all() and (log_prob <= 1e-6).all()
    log_prob.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("log_sigma", [-7.0, -4.0, -1.0, 1.0, 4.0])
def test_a_gaussian_has_a_slope_as_far_as_a_million_deviations(levels, log_sigma, dtype):
    """There, log p falls as the density at the nearest edge, h deviations away: −h² / 2."""
    h, sigma = torch.logspace(2, 6, 9, dtype=dtype), math.exp(log_sigma)
    for k in {0, levels // 2, levels - 1}:
        for side in (-1, 1):
            if not 0 <= k + side < levels:
                continue  # the bins of both ends are open
            mu = ((k + side / 2) / (levels - 1) + side * sigma * h).requires_grad_()
            x = torch.full(mu.shape, k)
            log_prob = discretized_gaussian(x, mu, torch.full_like(mu, log_sigma), levels)
            log_prob.sum().backward()
            torch.testing.assert_close(log_prob, -(h**2) / 2, rtol=0.1, atol=0)
            torch.testing.assert_close(mu.grad, -side * h / sigma, rtol=0.02, atol=0)


@pytest.mark.parametrize("log_sigma", [-1.0, 4.0, 15.0])
@pytest.mark.parametrize("levels", [17, 256])
def test_narrow_bins_are_the_density_times_their_width(levels, log_sigma):
    log_prob, (mu, _) = every_level(discretized_gaussian, levels, 0.45, log_sigma)
    place = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    expected = gaussian(place, mu, 2 * log_sigma) - math.log(levels - 1)
    close = 1e-4 if levels == 256 or log_sigma > 0 else 2e-3
    torch.testing.assert_close(log_prob[1:-1], expected[1:-1], rtol=0, atol=close)


def test_mixture_weights_are_a_softmax():
    x, (weights, mu, log_scale) = torch.arange(4), noise(3, 4, 3)
    parts = [
        discretized_logistic_mixture(x, 0 * mu[:, :1], mu[:, k : k + 1], log_scale[:, k : k + 1], 4)
        for k in range(3)
    ]
    expected = (weights.softmax(1) * torch.stack(parts, 1).exp()).sum(1).log()
    found = discretized_logistic_mixture(x, weights, mu, log_scale, 4)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("levels", [2, 255, 256])
def test_every_level_is_accepted_as_uint8(levels):
    """256 does not fit in uint8: comparing pixels with it must not wrap around."""
    x, one = torch.arange(levels).to(torch.uint8), torch.zeros(levels, 1)
    uniform = categorical(x, torch.zeros(levels, levels))
    logistic = discretized_logistic_mixture(x, one, one, one, levels)
    normal = discretized_gaussian(x, one[:, 0], one[:, 0], levels)
    for log_prob in (uniform, logistic, normal):
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)


# ---- units ------------------------------------------------------------------------------------


def test_sum_pixels_adds_everything_but_the_batch():
    torch.testing.assert_close(sum_pixels(X), X.sum((1, 2, 3)))


def test_bits_per_dim():
    """81.3 nats on binarised MNIST; uniform grey levels."""
    assert bits_per_dim(81.30, 784) == pytest.approx(0.1496, abs=5e-5)
    assert bits_per_dim(784 * math.log(256), 784) == pytest.approx(8)


# ---- wrong input ------------------------------------------------------------------------------

GREY = torch.full((2, 1, 3, 3), 0.5)
BINARY = torch.ones(2, 1, 3, 3, dtype=torch.uint8)
MIXTURE = torch.zeros(2, 4, 1, 3, 3)


def normal(x, mu=GREY, log_sigma=GREY):
    return discretized_gaussian(x, mu, log_sigma, 17)


def mixture(x, weights=MIXTURE, mu=MIXTURE, log_scale=MIXTURE):
    return discretized_logistic_mixture(x, weights, mu, log_scale, 17)


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
        (lambda: categorical(-BINARY.int(), MIXTURE), r"got \[-1, -1\]"),
        (lambda: normal(BINARY, mu=GREY[:1]), "mu describes"),
        (lambda: normal(BINARY, log_sigma=GREY[:1]), "log_sigma describes"),
        (lambda: normal(GREY), "expected integer pixels"),
        (lambda: normal(17 * BINARY), r"got \[17, 17\]"),
        (lambda: mixture(BINARY, mu=MIXTURE[:1]), "mu describes"),
        (lambda: mixture(GREY), "expected integer pixels"),
        (lambda: mixture(17 * BINARY), r"pixels in \{0, …, 16\}, got \[17, 17\]"),
        (lambda: bits_per_dim(1.0, 0), "dims=0: expected the number of dimensions C·H·W"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
