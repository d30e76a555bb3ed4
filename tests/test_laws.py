"""The laws of a pixel: normalised, drawn as they say."""

import math

import pytest
import torch
from autoregressive_models import seeded

from course_utils.autoregressive.laws import Bernoulli, Categorical, Gaussian, LogisticMixture

LAWS = {
    "softmax": Categorical,
    "gaussian": Gaussian,
    "mixture": LogisticMixture,
    "one component": lambda levels: LogisticMixture(levels, components=1),
}


def random_parameters(law, n, scale=1.5):
    return scale * torch.randn(n, law.num_parameters, generator=seeded())


# ---- probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("law", LAWS)
def test_the_levels_sum_to_one(law, levels):
    law = LAWS[law](levels)
    parameters = random_parameters(law, 50)
    log_probs = law.level_log_probs(parameters)
    assert law.levels == levels and log_probs.shape == (50, levels)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(50), rtol=0, atol=1e-4)
    every = torch.arange(levels).expand(50, -1)
    repeated = parameters[:, :, None].expand(-1, -1, levels)
    torch.testing.assert_close(law.log_prob(every, repeated), log_probs)
    if not isinstance(law, Gaussian):  # the others are trained on their likelihood
        assert torch.equal(law.training_log_prob(every, repeated), law.log_prob(every, repeated))


@pytest.mark.parametrize("law", ["gaussian", "mixture", "one component"])
def test_a_scale_has_a_floor(law):
    """σ = e^−7 of the range at least: a pixel that is always the same has no infinite density."""
    law = LAWS[law](256)

    def log_probs(log_scale):
        parameters = torch.full((1, law.num_parameters), 0.3)
        parameters[:, -getattr(law, "components", 1) :] = log_scale
        return law.level_log_probs(parameters)

    assert torch.equal(log_probs(-20.0), log_probs(-7.0))
    assert not torch.allclose(log_probs(-6.5), log_probs(-7.0))


@pytest.mark.parametrize("levels", [3, 17, 256])
@pytest.mark.parametrize("log_sigma", [-2.0, -1.0, 0.5])
def test_a_gaussian_is_trained_by_the_density_at_a_place_drawn_in_the_bin(levels, log_sigma):
    law = Gaussian(levels)
    x = torch.arange(levels)[:, None].expand(-1, 4000)
    parameters = torch.tensor([0.4, log_sigma]).view(1, 2, 1).expand(levels, -1, 4000)
    torch.manual_seed(0)
    draws = law.training_log_prob(x, parameters)
    torch.manual_seed(0)
    place = (x + torch.rand(x.shape) - 0.5) / (levels - 1)
    density = torch.distributions.Normal(0.4, math.exp(log_sigma)).log_prob(place)
    torch.testing.assert_close(draws, density - math.log(levels - 1))
    # on average, it is below the log-probability of the level (Jensen)
    exact = law.log_prob(x, parameters)[:, 0]
    error = 4.5 * draws.std(1) / 4000**0.5 + 1e-4
    assert (draws.mean(1) <= exact + error).all()
    # and, inside, it loses little when the bins are narrow; the ends are open
    narrow = 1 / (levels - 1) / math.exp(log_sigma)
    loss, allowed = exact - draws.mean(1), narrow**2 * (1 + exact.abs()) + error
    assert (loss <= allowed)[1:-1].all()


# ---- start ------------------------------------------------------------------------------------


def test_where_the_laws_start():
    x = torch.tensor([0, 0, 1, 4] * 10, dtype=torch.uint8).view(40, 1, 1, 1)
    x = torch.cat([x, torch.full_like(x, 2)], 3)  # one pixel that never changes
    grey = x.double() / 4
    softmax = Categorical(5).start(x)
    counts = torch.stack([(x == k).sum(0) for k in range(5)])
    torch.testing.assert_close(softmax.exp(), (counts + 0.5) / 42.5)
    mean, deviation = grey.mean(0), grey.std(0).clamp(min=0.25)
    gaussian = Gaussian(5).start(x)
    torch.testing.assert_close(gaussian.double(), torch.stack([mean, deviation.log()]))
    mixture = LogisticMixture(5, components=3).start(x).double()
    assert mixture.shape == (9, 1, 1, 2)
    weights, mu, log_scale = mixture.chunk(3)
    assert (weights == 0).all()
    # twice as wide, on [−1, 1]; the components around the mean
    expected = torch.stack([2 * mean - 1 + step * 2 * deviation for step in (-1, 0, 1)])
    torch.testing.assert_close(mu, expected)
    torch.testing.assert_close(log_scale, deviation.log().expand_as(mu))
    alone = LogisticMixture(5, components=1).start(x).double()
    torch.testing.assert_close(alone, mixture[1::3])
    binary = (x > 0).to(torch.uint8)
    odds = Bernoulli().start(binary)
    torch.testing.assert_close(odds.flatten(), torch.tensor([0.0, math.log(40.5 / 0.5)]))


# ---- draws ------------------------------------------------------------------------------------


def draw(law, parameters, uniform, temperature=1.0, given=None):
    """One value per line of the parameters."""
    n = len(parameters)
    known = torch.full((1, n), given is not None)
    given = torch.zeros(1, n, dtype=torch.uint8) if given is None else given[None]
    out = torch.full((n,), -1.0)
    law.draw(uniform[None], given, known, temperature)(0, parameters, out)
    return out.long()


@pytest.mark.parametrize("law", LAWS)
def test_a_draw_is_the_inverse_of_the_cumulated_probabilities(law):
    """Just below a step: its level; just above: the next one."""
    law = LAWS[law](5)
    parameters = random_parameters(law, 20, scale=0.7)
    probabilities = law.level_log_probs(parameters).double().exp()
    steps = probabilities.cumsum(1)
    for k in range(4):
        clear = (probabilities[:, k : k + 2] > 1e-4).all(1)
        assert clear.sum() > 10
        below, above = (draw(law, parameters, (steps[:, k] + e).float()) for e in (-1e-5, 1e-5))
        assert (below[clear] == k).all() and (above[clear] == k + 1).all()
    assert (draw(law, parameters, torch.zeros(20)) == 0).all()
    # a level of probability zero is never drawn, even by the smallest number
    best = probabilities.argmax(1)
    assert torch.equal(draw(law, parameters, torch.zeros(20), 0.0), best) and (best > 0).any()
    top = draw(law, parameters, torch.full((20,), 1 - 1e-7))
    assert (top[steps[:, 3] < 0.999] == 4).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0, 0.0])
@pytest.mark.parametrize("law", LAWS)
def test_temperature(law, temperature):
    """Probabilities to the power 1 / T; the most probable level at 0."""
    law = LAWS[law](4)
    parameters = random_parameters(law, 30)
    every = law.level_log_probs(parameters)
    if temperature == 0:
        expected = torch.nn.functional.one_hot(every.argmax(1), 4).float()
    else:
        expected = (every / temperature).exp()
        expected /= expected.sum(1, keepdim=True)
    found = law.probabilities(parameters, temperature)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    many = parameters[:1].expand(20_000, -1)
    values = draw(law, many, torch.rand(20_000, generator=seeded()), temperature)
    found = values.bincount(minlength=4) / 20_000
    assert (found - expected[0]).abs().max() < 0.015


@pytest.mark.parametrize("law", [Bernoulli(), Categorical(4), Gaussian(4), LogisticMixture(4)])
def test_a_known_value_is_kept_whatever_its_probability(law):
    given = torch.arange(12).to(torch.uint8) % law.levels
    for scale in (1.0, 100.0):
        parameters = scale * torch.randn(12, law.num_parameters or 1, generator=seeded())
        parameters = parameters if law.num_parameters else parameters[:, 0]
        for temperature in (0.0, 1.0):
            uniform = torch.rand(12, generator=seeded(1))
            assert torch.equal(draw(law, parameters, uniform, temperature, given), given.long())


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_a_bernoulli_is_a_softmax_of_two_levels(temperature):
    """The same probabilities; the same draws, of which the first counts 1 from below."""
    odds = 2 * torch.randn(1000, generator=seeded())
    logits, x = torch.stack([0 * odds, odds], 1), torch.arange(1000) % 2
    torch.testing.assert_close(Bernoulli().log_prob(x, odds), Categorical(2).log_prob(x, logits))
    uniform = torch.rand(1000, generator=seeded(1))
    bernoulli = draw(Bernoulli(), odds, uniform, temperature)
    # a softmax is 1 above p(0): a Bernoulli, 1 below p(1)
    softmax = draw(Categorical(2), logits, 1 - uniform, temperature)
    assert torch.equal(bernoulli, softmax) and 300 < bernoulli.sum() < 700


# ---- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LogisticMixture(17, components=0), "components=0: expected at least one"),
        (lambda: Gaussian(True), "levels=True"),
    ],
)
def test_wrong_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()
