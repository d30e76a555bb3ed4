"""The VAE: its two terms, its bounds against exact sums, its samples, its contract."""

import math

import pytest
import torch
from torch import distributions

from course_utils import VAE
from course_utils.data import load
from course_utils.evaluation import enumerate_images, grid_posterior
from course_utils.vae import (
    LOGVAR_BOUND,
    Decoder,
    Encoder,
    bound_logvar,
    kl_to_standard_normal,
    reparameterize,
)

# likelihood, levels
LAWS = [("bernoulli", 2), ("categorical", 2), ("categorical", 17), ("gaussian", 17),
        ("laplace", 256)]  # fmt: skip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_vae(likelihood="bernoulli", levels=2, shape=(2, 3, 4), z_dim=3, **options):
    torch.manual_seed(0)
    return VAE(shape, levels=levels, likelihood=likelihood, z_dim=z_dim, hidden=(12, 8), **options)


def random_images(model, n=10, seed=1):
    return torch.randint(0, model.levels, (n, *model.shape), generator=seeded(seed)).to(torch.uint8)


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=8, levels=2)


@pytest.fixture(scope="module")
def trained(digits):
    """A VAE with a latent plane, trained just enough for its posteriors to leave the prior."""
    torch.manual_seed(0)
    model = VAE(digits.shape, z_dim=2, hidden=(64,)).start_from(digits.train.images)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(100):
        optimizer.zero_grad()
        model.loss(digits.train.images[step % 10 :: 10]).backward()
        optimizer.step()
    return model.eval()


# ---- pieces -----------------------------------------------------------------------------------


def test_kl_is_the_closed_form_of_torch():
    mu, logvar = 2 * torch.randn(50, 7, generator=seeded()), torch.randn(50, 7, generator=seeded(1))
    mu, logvar = mu.double(), logvar.double()
    q = distributions.Normal(mu, (0.5 * logvar).exp())
    prior = distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    expected = distributions.kl_divergence(q, prior).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), expected, rtol=1e-6, atol=1e-6)


def test_reparameterization_has_the_right_law():
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]])
    z = reparameterize(mu.expand(40_000, 2), logvar.expand(40_000, 2), seeded())
    torch.testing.assert_close(z.mean(0), mu[0], rtol=0, atol=0.03)
    torch.testing.assert_close(z.var(0), logvar[0].exp(), rtol=0.05, atol=0)


def test_reparameterization_gradient_agrees_with_finite_differences():
    mu = torch.randn(3, 2, generator=seeded(), dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(3, 2, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, v: reparameterize(m, v, seeded(2)), (mu, logvar))


@pytest.mark.parametrize("raw", [-1e6, -200.0, 0.0, 200.0, 1e6])
def test_bound_logvar_never_overflows(raw):
    raw = torch.tensor(raw, requires_grad=True)
    kl = kl_to_standard_normal(torch.zeros(1), bound_logvar(raw)[None])
    kl.backward()
    assert torch.isfinite(kl) and torch.isfinite(raw.grad)
    assert abs(bound_logvar(raw)) <= LOGVAR_BOUND


def test_bound_logvar_leaves_moderate_values_almost_alone():
    raw = torch.linspace(-1, 1, 11, requires_grad=True)
    torch.testing.assert_close(bound_logvar(raw), raw, rtol=0.01, atol=0)


def test_encoder_bounds_its_variance():
    encoder = Encoder((1, 2, 2), 3, (5,))
    mu, logvar = encoder(1e6 * torch.randn(4, 1, 2, 2, generator=seeded()))
    assert mu.shape == logvar.shape == (4, 3)
    assert logvar.abs().max() <= LOGVAR_BOUND and mu.abs().max() > LOGVAR_BOUND


def test_decoder_gives_the_parameters_of_each_pixel():
    assert Decoder((3, 4, 5), 2, (6,), num_parameters=7)(torch.zeros(8, 2)).shape == (8, 7, 3, 4, 5)


# ---- every likelihood -------------------------------------------------------------------------


@pytest.mark.parametrize(("likelihood", "levels"), LAWS)
def test_loss_gives_a_finite_gradient_to_every_parameter(likelihood, levels):
    model = small_vae(likelihood, levels)
    model.loss(random_images(model)).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("likelihood", "levels"), LAWS)
def test_samples_are_integer_images(likelihood, levels):
    model = small_vae(likelihood, levels)
    x = model.sample(300)
    assert x.shape == (300, *model.shape) and x.dtype == torch.uint8
    assert int(x.max()) < levels and len(x.unique()) > levels / 2
    assert torch.isfinite(model.elbo(x)).all()


@pytest.mark.parametrize(("likelihood", "levels"), LAWS)
def test_results_are_float32_one_per_image(likelihood, levels):
    model = small_vae(likelihood, levels)
    x = random_images(model)
    with torch.no_grad():
        results = [model.elbo(x), model.log_prob(x, num_samples=3), *model.elbo_terms(x)]
    for result in results:
        assert result.shape == (10,) and result.dtype == torch.float32
        assert torch.isfinite(result).all()
    assert model.loss(x).shape == ()
    intensity = model.decode(torch.randn(6, 3, generator=seeded()))
    assert intensity.shape == (6, *model.shape) and intensity.dtype == torch.float32
    assert intensity.min() >= 0 and intensity.max() <= 1


@pytest.mark.parametrize(("likelihood", "levels"), LAWS)
def test_same_generator_same_result_and_the_global_stream_is_left_alone(likelihood, levels):
    model = small_vae(likelihood, levels)
    x = random_images(model)
    calls = [
        lambda g: model.elbo(x, generator=g),
        lambda g: model.log_prob(x, num_samples=2, generator=g),
        lambda g: model.sample(5, generator=g),
    ]
    state = torch.get_rng_state()
    for call in calls:
        assert torch.equal(call(seeded(3)), call(seeded(3)))
        assert not torch.equal(call(seeded(3)), call(seeded(4)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("likelihood", "levels"), LAWS)
def test_evaluating_changes_no_state(likelihood, levels):
    model = small_vae(likelihood, levels)
    x = random_images(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.elbo(x), model.log_prob(x, num_samples=2), model.sample(3), model.loss(x)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


# ---- the bounds -------------------------------------------------------------------------------


def test_elbo_and_importance_bounds_rise_to_the_exact_evidence(trained, digits):
    x = digits.val.images[:8]
    truth = sum(grid_posterior(trained, image, half_width=6)[2] for image in x) / len(x)
    with torch.no_grad():
        many = x.repeat(100, 1, 1, 1)  # 100 independent estimates for each image
        elbo = trained.elbo(many, generator=seeded()).mean().item()
        bounds = [
            trained.log_prob(many, num_samples=k, generator=seeded(k)).mean().item()
            for k in (1, 5, 50)
        ]
        tight = trained.log_prob(x, num_samples=3000, generator=seeded()).mean().item()
    assert elbo < truth - 0.1
    assert bounds[0] == pytest.approx(elbo, abs=0.15)
    assert bounds[0] + 0.1 < bounds[1] < bounds[2] <= truth + 0.02
    assert tight == pytest.approx(truth, abs=0.05)


def test_elbo_is_reconstruction_minus_kl():
    model = small_vae()
    x = random_images(model)
    log_likelihood, kl = model.elbo_terms(x, generator=seeded())
    assert torch.equal(model.elbo(x, generator=seeded()), log_likelihood - kl)
    torch.testing.assert_close(kl, kl_to_standard_normal(*model.encode(x)))


@pytest.fixture(scope="module")
def four_pixels():
    """16 images in all: every probability is known, from the grid over z."""
    torch.manual_seed(1)
    model = VAE((1, 2, 2), z_dim=2, hidden=(16,))
    with torch.no_grad():
        model.decoder.net[-1].weight.mul_(4)
    images = enumerate_images((1, 2, 2))
    log_evidence = [grid_posterior(model, image, half_width=6)[2] for image in images]
    return model, images, torch.tensor(log_evidence).exp()


def test_the_probabilities_of_all_images_sum_to_one(four_pixels):
    _, _, exact = four_pixels
    assert exact.sum().item() == pytest.approx(1, abs=1e-3)
    assert exact.max() > 2 * exact.min()


def test_samples_follow_the_exact_probabilities(four_pixels):
    model, images, exact = four_pixels
    n = 40_000
    weights = torch.tensor([8, 4, 2, 1])
    code = (model.sample(n, generator=seeded()).flatten(1).long() * weights).sum(1)
    assert (images.flatten(1).long() * weights).sum(1).tolist() == list(range(16))
    frequency = code.bincount(minlength=16) / n
    assert ((frequency - exact) / (exact * (1 - exact) / n).sqrt()).abs().max() < 4


# ---- p(x | z): density, mean and samples agree ------------------------------------------------


@pytest.mark.parametrize(("likelihood", "levels"), [("bernoulli", 2), ("categorical", 5)])
def test_discrete_pixels_sum_to_one_and_are_sampled_by_their_law(likelihood, levels):
    model = small_vae(likelihood, levels, shape=(1, 1, 1))
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
    ("likelihood", "reference"),
    [("gaussian", distributions.Normal), ("laplace", distributions.Laplace)],
)
def test_continuous_pixels_have_the_given_scale(likelihood, reference):
    model = small_vae(likelihood, 256, shape=(1, 1, 1), scale=0.05)
    assert not model.log_scale.requires_grad
    z = torch.zeros(20_000, 3)
    with torch.no_grad():
        model.decoder.net[-1].weight.zero_()
        model.decoder.net[-1].bias.fill_(0.4)
        every = torch.arange(256).view(-1, 1, 1, 1)
        found = model.log_likelihood(every, z[:256])
    law = reference(0.4, 0.05)
    torch.testing.assert_close(found, law.log_prob(torch.linspace(0, 1, 256)), rtol=1e-4, atol=1e-4)
    assert model.decode(z[:1]).item() == pytest.approx(0.4)
    intensity = model.sample_pixels(z, generator=seeded()).flatten() / 255
    assert intensity.mean().item() == pytest.approx(0.4, abs=0.003)
    assert intensity.std().item() == pytest.approx(law.stddev.item(), rel=0.03)
    deviation = (law.sample((20_000,)) - 0.4).abs().mean().item()
    assert (intensity - 0.4).abs().mean().item() == pytest.approx(deviation, rel=0.04)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_scale_is_learned_when_it_is_not_given(likelihood):
    model = small_vae(likelihood, 17)
    assert model.log_scale.requires_grad
    assert model.log_scale.item() == pytest.approx(math.log(0.2))


def test_decoded_intensities_are_clamped():
    model = small_vae("gaussian", 17)
    with torch.no_grad():
        model.decoder.net[-1].bias.fill_(3.0)
    assert model.decode(torch.zeros(1, 3)).max() == 1


# ---- beta -------------------------------------------------------------------------------------


def test_beta_weighs_the_kl_in_the_loss_only():
    x = random_images(small_vae())
    plain, heavy = small_vae(beta=1.0), small_vae(beta=4.0)
    _, kl = plain.elbo_terms(x, generator=seeded())

    def loss(model):
        torch.manual_seed(5)
        return model.loss(x).item()

    assert loss(heavy) - loss(plain) == pytest.approx(3 * kl.mean().item(), rel=1e-4)
    assert loss(small_vae(beta=0.0)) == pytest.approx(loss(plain) - kl.mean().item(), rel=1e-4)
    assert torch.equal(plain.elbo(x, generator=seeded()), heavy.elbo(x, generator=seeded()))
    assert torch.equal(plain.log_prob(x, generator=seeded()), heavy.log_prob(x, generator=seeded()))


def test_loss_is_minus_the_mean_elbo():
    model = small_vae()
    x = random_images(model)
    torch.manual_seed(5)
    loss = model.loss(x).item()
    torch.manual_seed(5)
    assert loss == pytest.approx(-model.elbo(x).mean().item(), rel=1e-6)


# ---- start_from -------------------------------------------------------------------------------


@pytest.mark.parametrize(("likelihood", "levels"), [("bernoulli", 2), ("categorical", 5)])
def test_start_from_is_the_model_of_independent_pixels(likelihood, levels):
    model = small_vae(likelihood, levels)
    images = random_images(model, n=200)
    images[:, 0, 0, 0] = 0  # a pixel that never changes
    assert model.start_from(images) is model
    with torch.no_grad():
        model.decoder.net[-1].weight.zero_()  # only the bias speaks
        found = -model.log_likelihood(images, torch.zeros(200, 3)).mean().item()
    frequency = torch.stack([(images == k).float().mean(0) for k in range(levels)])
    entropy = -torch.xlogy(frequency, frequency).sum().item()
    assert entropy <= found < entropy + 0.1


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_start_from_is_the_mean_image(likelihood):
    model = small_vae(likelihood, 17)
    images = random_images(model, n=50)
    model.start_from(images)
    bias = model.decoder.net[-1].bias.view(model.shape)
    torch.testing.assert_close(bias, images.float().mean(0) / 16)


def test_start_from_bernoulli_is_the_log_odds():
    model = small_vae(shape=(1, 1, 2))
    images = torch.zeros(100, 1, 1, 2, dtype=torch.uint8)
    images[:25, 0, 0, 1] = 1
    model.start_from(images)
    expected = [math.log(0.5 / 100.5), math.log(25.5 / 75.5)]
    assert model.decoder.net[-1].bias.tolist() == pytest.approx(expected, rel=1e-4)


def test_start_from_lowers_the_starting_loss_of_the_digits(digits):
    torch.manual_seed(0)
    model = VAE(digits.shape, z_dim=2, hidden=(64,))
    with torch.no_grad():
        before = model.loss(digits.val.images)
        after = model.start_from(digits.train.images).loss(digits.val.images)
    assert after < before - 10


# ---- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (28, 28)}, r"expected \(channels, height, width\)"),
        ({"shape": (1, 0, 28)}, r"expected \(channels, height, width\)"),
        ({"z_dim": 0}, "z_dim=0: expected at least one"),
        ({"beta": -0.5}, "beta=-0.5: the weight of the KL cannot be negative"),
        ({"likelihood": "poisson"}, "'poisson': expected one of .'bernoulli', 'categorical'"),
        ({"levels": 256}, 'not 256 levels: load the data with levels=2, or choose .*"categorical"'),
        ({"scale": 0.1}, "a positive Gaussian or Laplace scale"),
        ({"likelihood": "gaussian", "scale": 0.0}, "scale=0.0: .*positive"),
    ],
)
def test_wrong_construction(options, message):
    with pytest.raises(ValueError, match=message):
        VAE(options.pop("shape", (1, 4, 4)), **options)


METHODS = ["elbo", "log_prob", "loss", "encode", "start_from", "elbo_terms"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(5, 2, 3, 4), TypeError, r"quantize\(x, levels\)"),
        (torch.zeros(5, 2, 4, 3, dtype=torch.uint8), ValueError, r"\(B, 2, 3, 4\)"),
        (torch.zeros(2, 3, 4, dtype=torch.uint8), ValueError, r"x\[None\]"),
        (torch.full((5, 2, 3, 4), 2), ValueError, "levels=2"),
    ],
    ids=["float", "shape", "no batch", "range"],
)
def test_images_are_checked(method, x, error, message):
    with pytest.raises(error, match=message):
        getattr(small_vae(), method)(x)


@pytest.mark.parametrize("method", ["elbo", "log_prob", "loss", "sample"])
def test_a_condition_is_refused(method):
    model = small_vae()
    first = 10 if method == "sample" else random_images(model)
    with pytest.raises(ValueError, match="no condition: leave y out"):
        getattr(model, method)(first, torch.zeros(10, dtype=torch.long))


def test_log_prob_needs_a_sample():
    model = small_vae()
    with pytest.raises(ValueError, match="num_samples=0: expected at least one"):
        model.log_prob(random_images(model), num_samples=0)
