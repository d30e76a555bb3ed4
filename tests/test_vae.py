"""The VAE, conditional or not: its contract, its bounds against exact sums, the laws of its pixels.

What is proper to a condition is in `test_cvae.py`.
"""

import copy
import math

import pytest
import torch
from autoregressive_models import random_images, seeded
from torch import distributions
from vae_models import KINDS, LAWS, build, conditions, perturb

from course_utils import CVAE, VAE
from course_utils.evaluation import enumerate_images
from course_utils.vae import (
    LOGVAR_BOUND,
    bound_logvar,
    kl_between_gaussians,
    kl_to_standard_normal,
    reparameterize,
)

# ---- pieces -----------------------------------------------------------------------------------


def normal(mu, logvar):
    return distributions.Normal(mu, (0.5 * logvar).exp())


def test_kl_is_the_closed_form_of_torch():
    mu_q, logvar_q, mu_p, logvar_p = torch.randn(4, 50, 7, generator=seeded()).double()
    expected = distributions.kl_divergence(normal(mu_q, logvar_q), normal(mu_p, logvar_p)).sum(1)
    torch.testing.assert_close(kl_between_gaussians(mu_q, logvar_q, mu_p, logvar_p), expected)
    zeros = torch.zeros_like(mu_q)
    standard = kl_between_gaussians(mu_q, logvar_q, zeros, zeros)
    assert torch.equal(kl_to_standard_normal(mu_q, logvar_q), standard)
    assert not kl_between_gaussians(mu_q, logvar_q, mu_q, logvar_q).any()


def test_reparameterization_gradient_agrees_with_finite_differences():
    mu, logvar = torch.randn(2, 3, 2, generator=seeded(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: reparameterize(m, v, seeded(2)), (mu, logvar))


@pytest.mark.parametrize("raw", [-1e6, -200.0, 0.0, 200.0, 1e6])
def test_bound_logvar_never_overflows(raw):
    raw = torch.tensor(raw, requires_grad=True)
    kl = kl_to_standard_normal(torch.zeros(1), bound_logvar(raw)[None])
    kl.backward()
    assert torch.isfinite(kl) and torch.isfinite(raw.grad)
    assert abs(bound_logvar(raw)) <= LOGVAR_BOUND


# ---- the contract -----------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[*LAWS, ("categorical", 2)], ids=str)
def case(request, kind):
    """A model, images, their conditions."""
    likelihood, levels = request.param
    model = build(kind, likelihood=likelihood, levels=levels)
    return model, random_images(model), conditions(kind, model)


def test_results_are_those_of_the_contract(case):
    model, x, y = case
    with torch.no_grad():
        log_likelihood, kl = model.elbo_terms(x, y, generator=seeded())
        elbo = model.elbo(x, y, generator=seeded())
        evidence = model.log_prob(x, y, num_samples=3)
        codes = [*model.encode(x, y), *model.prior(10, y)]
        intensity = model.decode(torch.randn(10, 3, generator=seeded()), y)
    for result in (log_likelihood, kl, elbo, evidence):
        assert result.shape == (10,) and result.dtype == torch.float32
        assert torch.isfinite(result).all()
    assert all(code.shape == (10, 3) and torch.isfinite(code).all() for code in codes)
    assert torch.equal(elbo, log_likelihood - kl)
    torch.testing.assert_close(kl, kl_between_gaussians(*codes))
    assert intensity.shape == x.shape and intensity.dtype == torch.float32
    assert intensity.min() >= 0 and intensity.max() <= 1
    torch.manual_seed(5)
    loss = model.loss(x, y)
    torch.manual_seed(5)
    torch.testing.assert_close(loss, -model.elbo(x, y).mean())
    sample = model.sample(10, y)
    assert sample.shape == x.shape and sample.dtype == torch.uint8
    assert int(sample.max()) < model.levels and len(sample.unique()) > min(model.levels / 2, 20)
    assert torch.isfinite(model.elbo(sample, y)).all()


def test_loss_gives_a_finite_gradient_to_every_parameter(case):
    model, x, y = case
    model.loss(x, y).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_beta_weighs_the_kl_in_the_loss_only(kind):
    without, plain, heavy = (build(kind, beta=beta) for beta in (0.0, 1.0, 4.0))
    x, y = random_images(plain), conditions(kind, plain)
    _, kl = plain.elbo_terms(x, y)

    def loss(model):
        torch.manual_seed(5)
        return model.loss(x, y).item()

    assert loss(heavy) - loss(plain) == pytest.approx(3 * kl.mean().item(), rel=1e-4)
    assert loss(without) == pytest.approx(loss(plain) - kl.mean().item(), rel=1e-4)
    for bound in ("elbo", "log_prob"):
        light, other = (getattr(m, bound)(x, y, generator=seeded()) for m in (plain, heavy))
        assert torch.equal(light, other)


# ---- the bounds, against sums over a grid of z and over all images ----------------------------

FOUR_PIXELS = enumerate_images((1, 2, 2))  # 16 images
AXIS = torch.linspace(-12, 12, 201, dtype=torch.float64)
GRID = torch.cartesian_prod(AXIS, AXIS)  # (R², 2)
CELL = (AXIS[1] - AXIS[0]).item() ** 2
MIXED = torch.tensor([[1.0, 0.0, 0.7], [0.4, 0.6, -1.0]])  # 2 classes, 1 number


def exact_terms(model, c):
    """log p(x | z, c) `(R², 16)` and log p(z | c) `(R², 1)` on the grid, in double precision."""
    model = copy.deepcopy(model).double()
    law = distributions.Bernoulli(logits=model.pixel_parameters(GRID, c).flatten(1)[:, None])
    log_likelihood = law.log_prob(FOUR_PIXELS.flatten(1).double()).sum(2)
    return log_likelihood, normal(*model.prior(1, c)).log_prob(GRID).sum(1, keepdim=True)


@pytest.fixture(scope="module", params=["no condition", "fixed", "learned"])
def exact(request):
    """A model of four pixels, and for each condition: c, the terms on the grid, log p(x | c)."""
    torch.manual_seed(1)
    options = {"z_dim": 2, "hidden": (16,)}
    if request.param == "no condition":
        model, conditions = VAE((1, 2, 2), **options), [None]
    else:
        options |= {"num_classes": 2, "condition_shape": (1,), "prior": request.param}
        model, conditions = CVAE((1, 2, 2), **options), MIXED.split(1)
    perturb(model.decoder, 0.4)
    if request.param == "learned":
        perturb(model.prior_encoder, 0.2)
    cases = []
    with torch.no_grad():
        model.encoder.net[-1].bias[2:] += 0.7  # a wide q: its importance weights vary less
        for c in conditions:
            terms = exact_terms(model, c)
            cases.append((c, terms, torch.logsumexp(sum(terms), 0) + math.log(CELL)))
    return model, cases


def test_the_probabilities_of_all_images_sum_to_one(exact):
    _, cases = exact
    for _, (_, log_prior), evidence in cases:
        assert log_prior.exp().sum().item() * CELL == pytest.approx(1, abs=1e-6)
        assert evidence.exp().sum().item() == pytest.approx(1, abs=1e-6)
        assert evidence.max() > evidence.min() + 0.7
    assert (cases[0][2] - cases[-1][2]).abs().max() > 0.1 or len(cases) == 1  # they depend on c


def test_the_elbo_stays_below_and_the_importance_bound_reaches_the_evidence(exact):
    model, cases = exact
    for c, _, evidence in cases:
        many = FOUR_PIXELS.repeat(500, 1, 1, 1)
        with torch.no_grad():
            elbo = model.elbo(many, c, generator=seeded()).view(500, 16).mean(0)
            bounds = [
                model.log_prob(many, c, num_samples=k, generator=seeded(k)).mean().item()
                for k in (1, 8)
            ]
            tight = model.log_prob(FOUR_PIXELS, c, num_samples=1200, generator=seeded())
        assert (elbo < evidence + 0.05).all() and elbo.mean() < evidence.mean() - 0.1
        assert bounds[0] == pytest.approx(elbo.mean().item(), abs=0.15)
        assert bounds[0] + 0.1 < bounds[1] < evidence.mean() + 0.01
        torch.testing.assert_close(tight.double(), evidence, rtol=0, atol=0.15)
        assert tight.mean().item() == pytest.approx(evidence.mean().item(), abs=0.03)


def test_evidence_is_elbo_plus_divergence_from_the_posterior(exact):
    """log p(x | c) = E_q[log p(x | z, c)] − KL(q ‖ prior) + KL(q ‖ posterior), summed exactly."""
    model, cases = exact
    for c, (log_likelihood, log_prior), evidence in cases:
        with torch.no_grad():
            mu, logvar = model.encode(FOUR_PIXELS, c)
            drawn, kl = model.elbo_terms(FOUR_PIXELS.repeat(4000, 1, 1, 1), c, generator=seeded())
        log_q = normal(mu.double(), logvar.double()).log_prob(GRID[:, None]).sum(2)  # (R², 16)
        q = log_q.exp() * CELL
        assert ((q.sum(0) - 1).abs() < 1e-4).all()
        expected = (q * log_likelihood).sum(0)
        gap = (q * (log_q - (log_likelihood + log_prior - evidence))).sum(0)
        torch.testing.assert_close(expected - kl[:16] + gap, evidence, rtol=0, atol=1e-3)
        assert gap.min() > 0 and gap.max() > 0.1
        assert drawn.mean().item() == pytest.approx(expected.mean().item(), abs=0.06)


def test_samples_follow_the_exact_probabilities(exact):
    model, cases = exact
    n = 20_000
    for c, _, evidence in cases:
        x = model.sample(n, c, generator=seeded()).flatten(1).long()
        frequency = (x * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16) / n
        p = evidence.exp()
        assert ((frequency - p) / (p * (1 - p) / n).sqrt()).abs().max() < 4


# ---- p(x | z): density, mean and samples agree ------------------------------------------------


@pytest.mark.parametrize(("likelihood", "levels"), [("bernoulli", 2), ("categorical", 5)])
def test_discrete_pixels_sum_to_one_and_are_sampled_by_their_law(likelihood, levels):
    model = build(likelihood=likelihood, levels=levels, shape=(1, 1, 1))
    z = torch.randn(1, 3, generator=seeded())
    with torch.no_grad():
        model.decoder.net[-1].weight.mul_(5)
        every = torch.arange(levels).view(-1, 1, 1, 1)
        probability = model.log_likelihood(every, z.expand(levels, 3)).exp()
        mean = model.decode(z).item()
    expectation = (probability * torch.linspace(0, 1, levels)).sum().item()
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    assert mean == pytest.approx(expectation, abs=1e-5)
    x = model.sample_pixels(z.expand(20_000, 3), generator=seeded()).flatten().long()
    frequency = x.bincount(minlength=levels) / 20_000
    torch.testing.assert_close(frequency, probability, rtol=0, atol=0.015)


@pytest.mark.parametrize(
    ("likelihood", "law"),
    [("gaussian", distributions.Normal(0.4, 0.05)), ("laplace", distributions.Laplace(0.4, 0.05))],
)
def test_continuous_pixels_have_the_given_scale(likelihood, law):
    learned = VAE((1, 1, 1), levels=256, likelihood=likelihood).log_scale
    assert learned.requires_grad and learned.item() == pytest.approx(math.log(0.2))
    torch.manual_seed(0)
    model = VAE((1, 1, 1), levels=256, likelihood=likelihood, scale=0.05, z_dim=3)
    assert not model.log_scale.requires_grad
    z = torch.zeros(20_000, 3)
    with torch.no_grad():
        model.decoder.net[-1].weight.zero_()
        model.decoder.net[-1].bias.fill_(0.4)
        found = model.log_likelihood(torch.arange(256).view(-1, 1, 1, 1), z[:256])
    torch.testing.assert_close(found, law.log_prob(torch.linspace(0, 1, 256)), rtol=1e-4, atol=1e-4)
    assert model.decode(z[:1]).item() == pytest.approx(0.4)
    intensity = model.sample_pixels(z, generator=seeded()).flatten() / 255
    assert intensity.mean().item() == pytest.approx(0.4, abs=0.003)
    assert intensity.std().item() == pytest.approx(law.stddev.item(), rel=0.03)
    deviation = (law.sample((20_000,)) - 0.4).abs().mean().item()
    assert (intensity - 0.4).abs().mean().item() == pytest.approx(deviation, rel=0.04)
    with torch.no_grad():
        model.decoder.net[-1].bias.fill_(3.0)
    assert model.decode(z[:1]) == 1, "clamped"


@pytest.mark.parametrize(("likelihood", "levels"), LAWS)
def test_start_from_is_the_model_of_independent_pixels(likelihood, levels):
    """Log-odds, logarithms of the histogram (half an image more of each level), or mean image."""
    model = build(likelihood=likelihood, levels=levels)
    images = random_images(model, n=200)
    images[:, 0, 0, 0] = 0  # a pixel that never changes
    assert model.start_from(images) is model
    with torch.no_grad():
        model.decoder.net[-1].weight.zero_()  # only the bias speaks
        found = model.pixel_parameters(torch.zeros(1, 3))[0]
    counts = torch.stack([(images == k).sum(0) for k in range(levels)]) + 0.5
    if likelihood == "bernoulli":
        expected = (counts[1] / counts[0]).log()[None]
    elif likelihood == "categorical":
        expected = (counts / (200 + levels / 2)).log()
    else:
        expected = images.float().mean(0)[None] / (levels - 1)
    torch.testing.assert_close(found, expected)


# ---- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (28, 28)}, r"expected \(channels, height, width\)"),
        ({"shape": (1, 0, 28)}, r"shape=\(1, 0, 28\): expected \(channels"),
        ({"z_dim": 0}, "z_dim=0: expected at least one"),
        ({"beta": -0.5}, "beta=-0.5: the weight of the KL cannot be negative"),
        ({"likelihood": "poisson"}, "'poisson': expected one of .'bernoulli', 'categorical'"),
        ({"levels": 256}, 'not 256 levels: load the data with levels=2, or choose .*"categorical"'),
        ({"scale": 0.1}, "a positive Gaussian or Laplace scale"),
        ({"likelihood": "gaussian", "scale": 0.0}, "scale=0.0: .*positive"),
    ],
)
def test_wrong_construction(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build(kind, **options)


def test_log_prob_needs_a_sample():
    model = build()
    with pytest.raises(ValueError, match="num_samples=0: expected at least one"):
        model.log_prob(random_images(model), num_samples=0)
