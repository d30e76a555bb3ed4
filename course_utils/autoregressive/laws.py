"""The law of one pixel: how a model turns its outputs into p(xᵢ | x₍<ᵢ₎), and draws from it.

A law has P parameters per pixel, which the network computes. All four are laws of an *integer*
pixel, whose probabilities sum to one: their log-likelihoods compare, in nats or in bits/dim.
"""

import math

import torch
from torch.nn import functional as F

from .. import likelihoods
from ..data import check_levels, log_frequencies


class Bernoulli:
    """A pixel 0 or 1, from its log-odds: p(x=1) = σ(logit). There is no axis of parameters."""

    levels = 2
    num_parameters = None

    def log_prob(self, x, logits):
        """log p(x), nats; `x` and `logits` have the same shape."""
        return likelihoods.bernoulli(x, logits)

    def training_log_prob(self, x, logits):
        """What a training maximises: here, the likelihood itself."""
        return self.log_prob(x, logits)

    def start(self, images):
        """Log-odds of each pixel in `images` `(N, C, H, W)`: a model of independent pixels."""
        log_zero, log_one = log_frequencies(images, self.levels)
        return log_one - log_zero

    def draw(self, uniform, given, known, temperature):
        """The choice of `sample`: a function `(i, logits, out)` that draws the i-th pixel visited.

        It is 1 where its log-odds exceed the threshold drawn for it.

        Args:
            uniform: `(D, n)` numbers of [0, 1), in the order of the visit.
            given, known: `(D, n)`: the values to keep, where `known` is True.
            temperature: divides the log-odds.
        """
        # u < σ(logit / T)  ⟺  logit > T·log(u / (1 − u)): a threshold known in advance. That of
        # a known pixel is infinite, so that the draw can only give its value.
        threshold = temperature * torch.logit(uniform, eps=1e-7)
        threshold = torch.where(known, torch.where(given == 1, -math.inf, math.inf), threshold)
        threshold = threshold.unbind()  # a list of rows: faster to index than a tensor

        def choose(i, logits, out):
            torch.gt(logits, threshold[i], out=out)

        return choose

    def probabilities(self, logits, temperature):
        """Probability that the pixel be 1, `(n,)`."""
        if temperature == 0:
            return (logits > 0).float()
        return torch.sigmoid(logits / temperature)


class LevelsLaw:
    """Base of the laws of a pixel with several levels: a law gives the log-probability of each."""

    def __init__(self, levels):
        check_levels(levels)
        self.levels = levels

    def log_prob(self, x, parameters):
        """log p(x), nats: `x` `(B, …)` integers, `parameters` `(B, P, …)` -> shape of `x`."""
        raise NotImplementedError

    def training_log_prob(self, x, parameters):
        """What a training maximises: the likelihood itself, unless the law says otherwise."""
        return self.log_prob(x, parameters)

    def start(self, images):
        """Parameters `(P, C, H, W)` of independent pixels that look like `images`."""
        raise NotImplementedError

    def level_log_probs(self, parameters):
        """log p of all levels: `(n, P)` -> `(n, levels)`."""
        n, num_parameters = parameters.shape
        every = torch.arange(self.levels, device=parameters.device).expand(n, -1)
        expanded = parameters[:, :, None].expand(n, num_parameters, self.levels)
        return self.log_prob(every, expanded)

    def draw(self, uniform, given, known, temperature):
        """The choice of `sample`, as `Bernoulli.draw`: the value is the number of steps below u.

        The steps are the cumulated probabilities.
        """
        uniform, given = uniform[:, :, None].unbind(), given.float().unbind()
        some_known, known = known.any(1).tolist(), known.unbind()

        def choose(i, parameters, out):
            steps = self.probabilities(parameters, temperature).cumsum(1)[:, :-1]  # (n, levels − 1)
            torch.sum(steps <= uniform[i], 1, out=out)
            if some_known[i]:
                torch.where(known[i], given[i], out, out=out)

        return choose

    def probabilities(self, parameters, temperature):
        """Probabilities of the levels, `(n, levels)`."""
        log_probs = self.level_log_probs(parameters)
        if temperature == 0:
            return F.one_hot(log_probs.argmax(1), self.levels).float()
        return torch.softmax(log_probs / temperature, 1)


class Categorical(LevelsLaw):
    """One free probability per level (softmax). Parameters: the `levels` logits."""

    def __init__(self, levels):
        super().__init__(levels)
        self.num_parameters = levels

    def log_prob(self, x, parameters):
        return likelihoods.categorical(x, parameters)

    def level_log_probs(self, parameters):
        return torch.log_softmax(parameters, 1)

    def start(self, images):
        return log_frequencies(images, self.levels)


class Gaussian(LevelsLaw):
    """Regression: a continuous N(mu, σ²) per pixel. Parameters: mu, log σ.

    Both are in the units of a pixel rescaled to [0, 1]: level k is at k / (levels − 1). As a law of
    integers, it is that of a draw rounded to the nearest level: each level has the mass of its bin,
    and the two extreme bins extend to ±∞, so that nothing is lost.

    It is trained as a regression, by the density on *dequantised* pixels: each pixel moves to a
    uniformly drawn place of its bin. This bounds the log-probability from below (Theis, van den
    Oord & Bethge 2016, eq. 2).
    """

    num_parameters = 2

    def _split(self, parameters):
        mu, log_sigma = parameters.unbind(1)
        return mu, log_sigma.clamp(min=-7)

    def log_prob(self, x, parameters):
        return likelihoods.discretized_gaussian(x, *self._split(parameters), self.levels)

    def training_log_prob(self, x, parameters):
        mu, log_sigma = self._split(parameters)
        bin_ = 1 / (self.levels - 1)
        continuous = (x + torch.rand_like(mu) - 0.5) * bin_
        return likelihoods.gaussian(continuous, mu, 2 * log_sigma) + math.log(bin_)

    def start(self, images):
        mean, deviation = _moments(images, self.levels)
        return torch.stack([mean, deviation.log()])


class LogisticMixture(LevelsLaw):
    """A mixture of discretised logistic laws (Salimans et al. 2017, PixelCNN++, eq. 2).

    Parameters: the M logits of the weights, then M mu, then M log-scales, in the units of a pixel
    rescaled to [−1, 1].
    """

    def __init__(self, levels, components=5):
        super().__init__(levels)
        if components < 1:
            raise ValueError(f"components={components}: expected at least one")
        self.components, self.num_parameters = components, 3 * components

    def log_prob(self, x, parameters):
        logit_weights, mu, log_scale = parameters.unflatten(1, (3, -1)).unbind(1)
        return likelihoods.discretized_logistic_mixture(
            x, logit_weights, mu, log_scale.clamp(min=-7), self.levels
        )

    def start(self, images):
        mean, deviation = (2 * moment for moment in _moments(images, self.levels))
        spread = torch.linspace(-1, 1, self.components)[:, None, None, None]
        spread = spread - spread.mean()  # a single component is in the middle
        mu = (mean - 1) + deviation * spread  # (M, C, H, W)
        log_scale = (deviation / 2).log().expand_as(mu)
        return torch.cat([torch.zeros_like(mu), mu, log_scale])


def _moments(images, levels):
    """Mean and deviation of each pixel, in [0, 1]; a deviation is one bin at least."""
    grey = images.float() / (levels - 1)
    deviation = grey.std(0, correction=min(1, len(images) - 1))  # of one image: zero
    return grey.mean(0), deviation.clamp(min=1 / (levels - 1))


# By the names that the models take: `PixelCNN(shape, levels=17, output="gaussian")`.
OUTPUTS = {"softmax": Categorical, "gaussian": Gaussian, "logistic mixture": LogisticMixture}
